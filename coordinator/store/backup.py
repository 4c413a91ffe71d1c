"""Copies of the SQLite store: made while a daemon writes, and put back while none does.

A copy is one file without a log beside it, complete and checked before it gets its name. Putting one back
never deletes what was there: it is set aside. Who may do so at all (the lock on the state directory) is the
caller's business.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from dataclasses import replace as replaced
from datetime import datetime
from pathlib import Path

from adw_modules.errors import StoreDamaged, StoreError
from coordinator.shim import sync_directory
from coordinator.store import schema, sqlitefile
from coordinator.store.sqlitefile import sibling

_BELONGING = ("", "-wal", "-shm", "-journal")


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """What a copy holds."""

    path: Path
    size: int  # bytes
    tasks: int
    runs: int
    schema: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What was put back, and where the database that was there is now; None when there was none."""

    copy: Copy
    aside: Path | None


def back_up(source: Path, target: Path, *, replace: bool = False) -> Copy:
    """Copy the database as it is at one moment, in one step and without holding up a daemon that writes.

    Raises StoreError: no such database, a damaged one, a target that is in the way or cannot be written.
    An existing target is left as it is unless `replace`.
    """
    if not source.exists():
        raise StoreError(f"There is no database at {source} yet: start the daemon once")
    sqlitefile.refuse_unusable(source, thoroughly=True)
    _refuse_target(source, target, replace=replace)
    with _temporary(target.with_name(f".{target.name}.{os.getpid()}.part")) as part:
        made = _copy(source, sqlitefile.uri(source, "rw"), part)
        _put(part, target, replace=replace)
    return replaced(made, path=target)


def restore(source: Path, database: Path, now: datetime) -> Restored:
    """Put a copy in the place of the database, which must not be in use.

    What was there is set aside under a name with the time. Killed half-way through, the next attempt
    completes it, and until then nobody opens what is there. Raises StoreError; then nothing was changed.
    """
    if not source.is_file():
        raise StoreError(f"{source} is not a file: name a backup made with `coordinator backup`")
    if any(_is_same(source, sibling(database, suffix)) for suffix in _BELONGING):
        raise StoreError(f"{source} is the database in use: name a backup made with `coordinator backup`")
    ready = sibling(database, ".restoring")
    with _temporary(sibling(database, ".copying")) as part:
        # A file without a log beside it is read as it is: it may stand where nothing can be written.
        mode = "ro" if sibling(source, "-wal").exists() else "ro&immutable=1"
        made = _copy(source, sqlitefile.uri(source, mode), part)
        part.rename(ready)  # from here on it is this one or none
    sync_directory(str(database.parent))
    aside = _set_aside(database, now)
    ready.rename(database)
    sync_directory(str(database.parent))
    return Restored(copy=replaced(made, path=database), aside=aside)


def _refuse_target(source: Path, target: Path, *, replace: bool) -> None:
    if target.is_dir():
        raise StoreError(f"{target} is a directory: name a file in it")
    if not target.parent.is_dir():
        raise StoreError(f"There is no directory {target.parent}: make it first")
    if any(_is_same(target, sibling(source, suffix)) for suffix in _BELONGING):
        raise StoreError(f"{target} belongs to the database itself: name another file")
    if os.path.lexists(target) and not replace:
        raise _in_the_way(target)


def _in_the_way(target: Path) -> StoreError:
    return StoreError(f"{target} exists already: name another file, or replace it with --force")


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


@contextmanager
def _temporary(part: Path) -> Iterator[Path]:
    """An empty private file that is gone afterwards, unless it was given another name meanwhile."""
    try:
        part.unlink(missing_ok=True)  # of a process that was killed
        os.close(os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StoreError(f"{part.parent} cannot be written to: {error.strerror}") from error
    try:
        yield part
    except OSError as error:
        raise StoreError(f"{part.parent} cannot be written to: {error.strerror}") from error
    finally:
        for suffix in _BELONGING:
            with contextlib.suppress(OSError):
                sibling(part, suffix).unlink(missing_ok=True)


def _copy(source: Path, uri: str, part: Path) -> Copy:
    """All pages at one moment into `part`, checked and on the disk."""
    try:
        # In steps the copy would begin anew at each write of the daemon; whole, it reads one snapshot, and
        # a write-ahead log lets the daemon go on writing meanwhile.
        with closing(sqlite3.connect(uri, uri=True, timeout=30)) as origin, closing(_opened(part)) as copy:
            _refuse_stranger(source, origin)
            origin.backup(copy)
            copy.execute(
                "PRAGMA journal_mode = DELETE"
            )  # one file, which can also be read where none can be made
            found = sqlitefile.broken_pages(copy, "integrity_check")
            if found is not None:
                raise _damaged(source, found)
            made = _described(part, copy)
    except sqlite3.DatabaseError as error:
        raise _failure(source, part, error) from error
    with part.open("rb") as file:
        os.fsync(file.fileno())
    return made


def _opened(part: Path) -> sqlite3.Connection:
    return sqlite3.connect(sqlitefile.uri(part, "rw"), uri=True, isolation_level=None)


def _refuse_stranger(source: Path, origin: sqlite3.Connection) -> None:
    tables = {row[0] for row in origin.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    version = None
    if tables >= sqlitefile.OURS:
        (version,) = origin.execute("SELECT version_num FROM alembic_version").fetchone()
    if version is None:
        raise StoreError(f"{source} is not a database of Coordinator: it has not all of our tables")
    if version not in schema.REVISIONS:
        raise StoreError(
            f"{source} was written by a newer Coordinator (schema {version}, this one knows up to "
            f"{schema.HEAD}): install that version"
        )


def _described(part: Path, copy: sqlite3.Connection) -> Copy:
    counted = [copy.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("tasks", "runs")]  # noqa: S608
    (version,) = copy.execute("SELECT version_num FROM alembic_version").fetchone()
    return Copy(path=part, size=part.stat().st_size, tasks=counted[0], runs=counted[1], schema=version)


def _damaged(source: Path, reason: str) -> StoreDamaged:
    return StoreDamaged(f"{source} is damaged ({reason}): no copy can be made of it")


def _failure(source: Path, part: Path, error: sqlite3.DatabaseError) -> StoreError:
    reason = " ".join(str(error).split())
    if "disk is full" in reason:
        return StoreError(f"The disk that holds {part.parent} is full: nothing was written there")
    if type(error) is sqlite3.DatabaseError:
        return _damaged(source, reason)
    return StoreError(f"{source} cannot be copied: {reason}")


def _put(part: Path, target: Path, *, replace: bool) -> None:
    if replace:
        part.replace(target)
    else:
        try:
            os.link(part, target)  # in one step, and not over a file that has just come
        except FileExistsError:
            raise _in_the_way(target) from None
        except OSError:  # a file system without links
            part.rename(target)
    sync_directory(str(target.parent))


def _set_aside(database: Path, now: datetime) -> Path | None:
    """The database with all that belongs to it, under one name that a connection can open."""
    aside = sibling(database, f".replaced-{now:%Y%m%dT%H%M%SZ}")
    count = 1
    while aside.exists():
        count += 1
        aside = sibling(database, f".replaced-{now:%Y%m%dT%H%M%SZ}-{count}")
    found = False
    for suffix in _BELONGING:
        with contextlib.suppress(FileNotFoundError):
            sibling(database, suffix).rename(sibling(aside, suffix))
            found = True
    return aside if found else None
