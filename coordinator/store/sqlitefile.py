"""A SQLite file looked at before it is used: is it there, is it whole, is it ours?

SQLite itself would help where help destroys: it drops the write-ahead log of an empty file, turns somebody
else's database into its own journal mode, and starts anew in a file that lost its content. So the file is
read from outside first, and then through a connection that may not write. Changes nothing.
"""

from __future__ import annotations

import sqlite3
import stat
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from adw_modules.errors import StoreDamaged, StoreError
from coordinator.shim import hold_shared

HEADER_BYTES = 100
_MAGIC = b"SQLite format 3\0"
_WAL_MAGICS = (0x377F0682, 0x377F0683)
# Where SQLite's own readers hold their lock; who holds a part of it keeps the log from being folded in.
_SHARED_FIRST, _SHARED_BYTES = 0x40000002, 510
OURS = frozenset({"alembic_version", "tasks", "runs"})
_HOW_TO_RESTORE = (
    "nothing was changed; stop the daemon and put a backup back with `coordinator restore FILE`, or, without "
    "a backup, move {name} away with its -wal and -shm and start anew: polling finds the open issues again"
)

# Closing any descriptor of a file drops all locks that this process holds on it, those of an open
# connection too: a file that is in use here is not looked at from outside.
_in_use: Counter[tuple[int, int]] = Counter()


def damaged(name: str | Path, reason: str) -> StoreDamaged:
    """What is wrong, and how to get out of it, in one sentence."""
    return StoreDamaged(f"{name} is damaged ({reason}); {_HOW_TO_RESTORE.format(name=name)}")


def sibling(path: Path, suffix: str) -> Path:
    """The file beside a database that belongs to it: `-wal`, `-shm`, or the mark of a restore under way."""
    return path.with_name(path.name + suffix)


def uri(path: Path, mode: str) -> str:
    """How sqlite3 wants a path that may hold any character."""
    return f"file:{quote(str(path.absolute()))}?mode={mode}"


@contextmanager
def in_use(path: Path) -> Iterator[None]:
    """While this process has a connection to the file."""
    key = _key(path)
    _in_use[key] += 1
    try:
        yield
    finally:
        _in_use[key] -= 1


def refuse_unusable(path: Path, *, thoroughly: bool = False) -> None:
    """StoreError unless the file is missing, new, or a whole database of ours.

    Thoroughly: the form of every page is looked at, 0.7 s per gigabyte in memory; else only what a
    connection reads first, in about a millisecond.
    """
    if not _has_content(path) or _in_use[_key(path)]:
        return
    _look_at_bytes(path)
    with _log_left_alone(path), closing(_looking(path)) as connection:
        try:
            _refuse_foreign(path, connection)
            found = broken_pages(connection, "quick_check") if thoroughly else None
            if found is not None:
                raise damaged(path, found)
        except sqlite3.DatabaseError as error:
            if type(error) is sqlite3.DatabaseError:
                raise damaged(path, str(error)) from error
            # Locked, unreadable folder …: not the content. Whoever opens it next gets the same answer.


def broken_pages(connection: sqlite3.Connection, check: str) -> str | None:
    """What SQLite's own `quick_check` or `integrity_check` finds first; None when all is well."""
    (first,) = connection.execute(f"PRAGMA {check}(1)").fetchone()
    return None if first == "ok" else " ".join(str(first).replace("*** in database main ***", "").split())


def _has_content(path: Path) -> bool:
    """False for a database that is still to be made. StoreError where one was and its content is gone."""
    if sibling(path, ".restoring").exists():
        raise StoreError(
            f"A restore of {path} was interrupted: run the same `coordinator restore` again to complete it"
        )
    log = _size(sibling(path, "-wal"))
    try:
        status = path.stat()
    except FileNotFoundError:
        if log:
            raise damaged(path, f"it is missing, while {path.name}-wal is there") from None
        return False
    except OSError as error:
        raise StoreError(f"{path} cannot be looked at: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):
        raise StoreError(f"{path} is not a file: a database of Coordinator is expected there")
    if status.st_size == 0 and (log or _has_runs(path)):
        raise damaged(path, "it is empty, while its log or its runs are there")
    return status.st_size > 0


def _has_runs(path: Path) -> bool:
    try:
        return any((path.parent / "runs").iterdir())
    except OSError:
        return False


def _look_at_bytes(path: Path) -> None:
    try:
        with path.open("rb") as file:
            header = file.read(HEADER_BYTES)
    except OSError as error:
        raise StoreError(f"{path} cannot be opened: {error.strerror}") from error
    if len(header) < HEADER_BYTES or not header.startswith(_MAGIC):
        raise damaged(path, "it does not begin as a SQLite database does")
    log = sibling(path, "-wal")
    wanted, there = _recorded_size(header), _size(path)
    if not _size(log) and there < wanted:  # with a log the rest may still be in there
        raise damaged(path, f"it is cut off: {there} of {wanted} bytes are there")
    _look_at_log(path, log)


def _recorded_size(header: bytes) -> int:
    """The size that the header claims, in bytes; 0 where an old program left the field stale."""
    page = struct.unpack_from(">H", header, 16)[0]
    changes, pages = struct.unpack_from(">I", header, 24)[0], struct.unpack_from(">I", header, 28)[0]
    is_valid = changes == struct.unpack_from(">I", header, 92)[0]
    return (65536 if page == 1 else page) * pages if is_valid else 0


def _look_at_log(path: Path, log: Path) -> None:
    """A log with another beginning would count as empty, and its commits would be gone without a word."""
    try:
        with log.open("rb") as file:
            first = file.read(4)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreError(f"{log} cannot be opened: {error.strerror}") from error
    # Zeros are what a power loss leaves of a log that was just begun: nothing was committed to it.
    if first.strip(b"\0") and (len(first) < 4 or struct.unpack(">I", first)[0] not in _WAL_MAGICS):
        raise damaged(path, f"{log.name} beside it does not begin as a write-ahead log does")


def _refuse_foreign(path: Path, connection: sqlite3.Connection) -> None:
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if tables and not tables >= OURS:
        raise StoreError(
            f"{path} belongs to another program: it has a table {min(tables)} and not all of ours; "
            "nothing was changed; move it away, or set another coordinator.state_dir or database_url"
        )


def _looking(path: Path) -> sqlite3.Connection:
    # mode=rw: reading a write-ahead log means joining its shared index. `query_only` keeps it from writing.
    try:
        connection = sqlite3.connect(uri(path, "rw"), uri=True, timeout=5.0, isolation_level=None)
    except sqlite3.OperationalError as error:
        raise StoreError(f"{path} cannot be opened: look at the permissions of file and folder") from error
    connection.execute("PRAGMA query_only = ON")
    return connection


@contextmanager
def _log_left_alone(path: Path) -> Iterator[None]:
    """Keep a connection that ends from folding the log into a file that may turn out to be damaged."""
    if not _size(sibling(path, "-wal")):
        yield  # nothing to fold in, and SQLite tidies up after itself
        return
    with path.open("rb") as file:
        with suppress(BlockingIOError):  # somebody folds it in right now: then it is not us who do
            hold_shared(file.fileno(), _SHARED_FIRST, _SHARED_BYTES)
        yield


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _key(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return (0, 0)
    return status.st_dev, status.st_ino
