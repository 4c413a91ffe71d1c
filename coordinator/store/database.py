"""One open connection to SQLite or PostgreSQL and its transactions. Owns everything the two do differently.

Holds no statement on our tables. Every driver error leaves here as StoreError in one sentence.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.util import LRUCache

from adw_modules.errors import StoreDamaged, StoreError
from coordinator.store import sqlitefile

_BUSY_SECONDS = 30.0

# To spell a statement takes longer than to carry it out: what was spelled for one file serves the next.
_SPELLED: LRUCache[Any, Any] = LRUCache(1000)

# SQLite's own words -> what happened and what to do. `{name}` is the database as the operator wrote it.
_SENTENCES = {
    "disk is full": "The disk that holds {name} is full: nothing was written; free some space and it goes on",
    "disk I/O error": "The disk that holds {name} fails ({reason}): nothing was written",
    "readonly": "{name} may not be written by this user or was opened for reading only",
    "is locked": "Another program has kept {name} locked for more than 30 seconds",
    "unable to open": "{name} cannot be opened: look at the permissions of file and folder, and whether "
    "the file system can be written to",
}


class Database:
    """A connection that stays open, and transactions on it. Used from one thread only.

    A connection lost to a PostgreSQL restart fails the transaction that notices; the next one connects anew.
    A file found damaged is not used any more: what would be written to it makes it only worse.
    """

    def __init__(self, engine: Engine, name: str, file: Path | None = None) -> None:
        self.name = name
        self._engine = engine
        self._damage: StoreDamaged | None = None
        self._held = ExitStack()
        self._is_sqlite = engine.dialect.name == "sqlite"
        self._sync = "FULL"  # what SQLite is set to
        with self._translated():
            self._connection = engine.connect()
        if file is not None:
            self._held.enter_context(sqlitefile.in_use(file))

    @contextmanager
    def write(self, *, is_urgent: bool = True) -> Iterator[Connection]:
        """One transaction that takes the write lock at once: all of it happens, or none.

        Without urgency the commit does not wait for the disk: it survives `kill -9` at once, and a power
        loss from the next urgent commit on. For what would be read again from its source anyway.

        Within another one it is a part of that: both happen, or none.
        """
        if self._connection.in_transaction():
            with self._translated():
                yield self._connection
            return
        with self._translated(), self._connection.begin():
            self._begin("BEGIN IMMEDIATE", sync="FULL" if is_urgent else "NORMAL")
            yield self._connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One consistent view, no lock. Within `write`: with what that has written."""
        try:
            with self._translated(), ExitStack() as transaction:
                if not self._connection.in_transaction():
                    transaction.enter_context(self._connection.begin())
                    self._begin("BEGIN", sync=self._sync)
                yield self._connection
        except (ValueError, ArithmeticError) as error:  # no state, time or sum of money that we know
            raise StoreError(f"{self.name} holds a value that this version cannot read: {error}") from error

    def close(self) -> None:
        self._connection.close()
        self._engine.dispose()
        self._held.close()

    def _begin(self, statement: str, *, sync: str) -> None:
        """The driver itself would begin late and for reading only; going on to write may then fail at once.

        Said to the driver, not in a listener of the engine: that would slow down every statement.
        """
        if not self._is_sqlite:
            return
        driver: Any = self._connection.connection.driver_connection
        if self._sync != sync:
            driver.execute(f"PRAGMA synchronous = {sync}")
            self._sync = sync
        driver.execute(statement)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        if self._damage is not None:
            raise self._damage
        try:
            yield
        except (DBAPIError, sqlite3.Error) as error:
            failure = _failure(self.name, error.orig if isinstance(error, DBAPIError) else error)
            if isinstance(failure, StoreDamaged):
                self._damage = failure
            raise failure from error


def open_database(url_or_path: str | Path, *, readonly: bool = False, thoroughly: bool = False) -> Database:
    """Connect; a SQLite file that does not exist is made, unless for reading. StoreError when that fails.

    Nothing is written to a file that is damaged or not ours; `thoroughly` looks at all of it first.
    """
    url = _parsed(url_or_path)
    if url.get_backend_name() == "sqlite":
        return _open_sqlite(_sqlite_path(url), readonly, thoroughly)
    if url.get_backend_name() == "postgresql":
        return _open_postgresql(url, readonly)
    raise StoreError(f"{_shown(url)} is neither a path of a SQLite file nor a postgresql:// URL")


def sqlite_file(url_or_path: str | Path) -> Path | None:
    """The file of a SQLite database; None for a database on a server. StoreError for neither."""
    url = _parsed(url_or_path)
    return _sqlite_path(url) if url.get_backend_name() == "sqlite" else None


def _parsed(url_or_path: str | Path) -> URL:
    text = str(url_or_path)
    if "://" not in text:
        return URL.create("sqlite", database=text)
    try:
        # SQLAlchemy has dropped the short spelling that hosting providers still hand out.
        return make_url(
            text.replace("postgres://", "postgresql://", 1) if text.startswith("postgres://") else text
        )
    except ArgumentError as error:
        raise StoreError("The database URL cannot be read: write postgresql://user@host/name") from error


def _shown(url: URL) -> str:
    return url.render_as_string(hide_password=True)


def _sqlite_path(url: URL) -> Path:
    if url.database in (None, "", ":memory:"):
        raise StoreError("The store needs a SQLite file: what is only in memory would not survive a restart")
    return Path(str(url.database))


def _open_sqlite(path: Path, readonly: bool, thoroughly: bool) -> Database:
    sqlitefile.refuse_unusable(path, thoroughly=thoroughly)
    if readonly:
        if not path.exists():
            raise StoreError(f"There is no database at {path} yet: start the daemon once")
    else:
        _make_private(path)
    any_file = _sqlite()
    pool = NullPool(_sqlite_connector(path, readonly), dialect=any_file.dialect)
    return Database(
        Engine(pool, any_file.dialect, any_file.url, execution_options={"compiled_cache": _SPELLED}),
        str(path),
        path,
    )


@cache
def _sqlite() -> Engine:
    """What all SQLite files of a process share: the dialect, once it has asked its driver what it can do."""
    engine = create_engine("sqlite://")
    engine.connect().close()
    engine.dispose()
    return engine


def _make_private(path: Path) -> None:
    """Create the file for its owner only; SQLite gives the files it puts beside it the same mode."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StoreError(f"{path} cannot be opened: {error.strerror}") from error


def _sqlite_connector(path: Path, readonly: bool) -> Callable[[], Any]:
    # mode=rw never creates a file. A reader opens it the same way, because reading a write-ahead log means
    # joining its shared index; `query_only` is what keeps it from writing.
    uri = sqlitefile.uri(path, "rw")

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None)
        try:
            _configure(connection, readonly)
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    return connect


def _configure(connection: sqlite3.Connection, readonly: bool) -> None:
    if readonly:
        connection.execute("PRAGMA query_only = ON")
        connection.execute("SELECT count(*) FROM sqlite_master")  # finds out now whether this is a database
        return
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise sqlite3.OperationalError("this file system cannot hold a write-ahead log")
    # FULL: a claim must survive power loss, or the agent would be started twice.
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")


def _open_postgresql(url: URL, readonly: bool) -> Database:
    driver = url.set(drivername="postgresql+psycopg")
    if readonly:
        asked = url.query.get("options", "")
        driver = driver.update_query_dict({"options": f"{asked} -c default_transaction_read_only=on"})
    try:
        arguments = {"connect_timeout": 10, "application_name": "coordinator"}
        engine = create_engine(driver, connect_args=arguments, poolclass=NullPool)
    except ImportError as error:
        raise StoreError("PostgreSQL needs its driver: pip install 'coordinator[postgresql]'") from error
    return Database(engine, _shown(url))


def _failure(name: str, original: BaseException | None) -> StoreError:
    reason = " ".join(str(original).split())
    if isinstance(original, sqlite3.DatabaseError):
        for words, sentence in _SENTENCES.items():
            if words in reason:
                return StoreError(sentence.format(name=name, reason=reason))
        # SQLITE_CORRUPT and SQLITE_NOTADB have no class of their own.
        if type(original) is sqlite3.DatabaseError:
            return sqlitefile.damaged(name, reason)
    return StoreError(f"The database {name} refused: {reason}")
