"""Copies of the store: whole, made beside a writer, never over anything; put back without loss."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
from pathlib import Path

import pytest
from sqlalchemy import text
from store_samples import NOW, end, queue, start

from adw_modules.errors import StoreDamaged, StoreError
from coordinator.store import Store, back_up, restore, sqlite_file


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Two tasks, one of them with a run that has ended."""
    path = tmp_path / "state" / "coordinator.db"
    path.parent.mkdir()
    with Store.open(path, now=NOW) as store:
        _, run = start(store, queue(store, 1).task_id)
        end(store, run)
        queue(store, 2)
    return path


def numbers(path: Path) -> list[int]:
    with Store.open_readonly(path) as store:
        return sorted(task.issue_number for task in store.tasks())


def test_a_copy_is_one_private_checked_file_with_everything_in_it(database: Path, tmp_path: Path):
    with Store.open(database, now=NOW) as store:
        queue(store, 3)  # stands in the log only
        copy = back_up(database, tmp_path / "copy.db")
    assert (copy.tasks, copy.runs) == (3, 1)
    assert copy.size == copy.path.stat().st_size
    assert stat.S_IMODE(copy.path.stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.db", "state"]
    copy.path.chmod(0o400)
    with sqlite3.connect(f"file:{copy.path}?mode=ro&immutable=1", uri=True) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("SELECT count(*) FROM tasks").fetchone() == (3,)
    connection.close()


def test_a_copy_made_beside_a_busy_writer_is_one_moment_and_holds_nobody_up(database: Path, tmp_path: Path):
    """Each task is made together with its event: a copy with one and not the other is torn."""
    written, enough = [], threading.Event()

    def write() -> None:
        with Store.open(database, now=NOW) as store:
            while not enough.is_set() and len(written) < 5000:
                queue(store, 100 + len(written))
                written.append(True)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(5):
            before = len(written)
            copy = back_up(database, tmp_path / f"copy-{number}.db")
            with sqlite3.connect(copy.path) as connection:
                (events,) = connection.execute(
                    "SELECT count(*) FROM events WHERE kind = 'created'"
                ).fetchone()
            connection.close()
            assert events == copy.tasks >= before + 2
            deadline = threading.Event()
            while len(written) == before and not deadline.wait(0.001):
                assert writer.is_alive()
    finally:
        enough.set()
        writer.join()


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("there.db", "exists already: name another file, or replace it with --force"),
        ("state", "is a directory: name a file in it"),
        ("nowhere/copy.db", "There is no directory"),
        ("state/coordinator.db", "belongs to the database itself"),
        ("state/coordinator.db-wal", "belongs to the database itself"),
    ],
)
def test_a_copy_goes_over_nothing(database: Path, tmp_path: Path, target: str, words: str):
    (tmp_path / "there.db").write_text("something of mine")
    with Store.open(database, now=NOW) as store:
        queue(store, 3)
        with pytest.raises(StoreError, match=words):
            back_up(database, tmp_path / target, replace="state/" in target)
    assert (tmp_path / "there.db").read_text() == "something of mine"
    assert numbers(database) == [1, 2, 3]


def test_with_force_an_older_copy_is_replaced_in_one_step(database: Path, tmp_path: Path):
    back_up(database, tmp_path / "copy.db")
    with Store.open(database, now=NOW) as store:
        queue(store, 3)
    back_up(database, tmp_path / "copy.db", replace=True)
    assert numbers(tmp_path / "copy.db") == [1, 2, 3]


def test_of_a_damaged_database_there_is_no_copy(database: Path, tmp_path: Path):
    with database.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * 8192)
    with pytest.raises(StoreDamaged, match="is damaged"):
        back_up(database, tmp_path / "copy.db")
    assert not (tmp_path / "copy.db").exists()


def test_what_was_there_is_set_aside_with_its_log_and_can_still_be_opened(database: Path, tmp_path: Path):
    back_up(database, tmp_path / "copy.db")
    with Store.open(database, now=NOW) as store:
        queue(store, 3)
        for suffix in ("", "-wal"):  # as after a kill: with a log
            (tmp_path / f"killed.db{suffix}").write_bytes(
                (database.parent / f"coordinator.db{suffix}").read_bytes()
            )
    for suffix in ("", "-wal"):
        (tmp_path / f"killed.db{suffix}").replace(database.parent / f"coordinator.db{suffix}")
    restored = restore(tmp_path / "copy.db", database, NOW)
    assert (restored.copy.tasks, restored.copy.path) == (2, database)
    assert numbers(database) == [1, 2]
    assert restored.aside is not None
    assert restored.aside.name == "coordinator.db.replaced-20261120T120000Z"
    assert numbers(restored.aside) == [1, 2, 3]
    assert stat.S_IMODE(database.stat().st_mode) == 0o600
    with Store.open(database, now=NOW) as store:
        assert queue(store, 4)


@pytest.mark.parametrize("content", [b"", b"\xa5" * 20_000], ids=["empty", "garbage"])
def test_a_damaged_database_can_be_replaced_and_is_kept(database: Path, tmp_path: Path, content: bytes):
    back_up(database, tmp_path / "copy.db")
    database.write_bytes(content)
    restored = restore(tmp_path / "copy.db", database, NOW)
    assert numbers(database) == [1, 2]
    assert restored.aside.read_bytes() == content


def test_on_a_new_machine_there_is_nothing_to_set_aside(database: Path, tmp_path: Path):
    copy = back_up(database, tmp_path / "copy.db")
    assert restore(copy.path, tmp_path / "coordinator.db", NOW).aside is None
    assert numbers(tmp_path / "coordinator.db") == [1, 2]


def foreign(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE places (url TEXT)")
    connection.close()


def newer(path: Path) -> None:
    with Store.open(path, now=NOW) as store, store._database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))


def cut(path: Path) -> None:
    Store.open(path, now=NOW).close()
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (foreign, "is not a database of Coordinator"),
        (newer, "was written by a newer Coordinator"),
        (cut, "is damaged"),
        (lambda path: path.write_text("hello"), "is damaged"),
        (lambda path: path.touch(), "is not a database of Coordinator"),
        (lambda path: path.mkdir(), "is not a file"),
        (lambda path: None, "is not a file"),
    ],
    ids=["foreign", "newer", "cut", "text", "empty", "folder", "missing"],
)
def test_what_is_no_good_copy_replaces_nothing(database: Path, tmp_path: Path, make, words: str):
    make(tmp_path / "other.db")
    before = sorted(path.name for path in database.parent.iterdir()), database.read_bytes()
    with pytest.raises(StoreError, match=words):
        restore(tmp_path / "other.db", database, NOW)
    assert (sorted(path.name for path in database.parent.iterdir()), database.read_bytes()) == before


def test_the_database_in_use_is_no_backup_of_itself(database: Path):
    with pytest.raises(StoreError, match="is the database in use"):
        restore(database, database, NOW)


@pytest.mark.parametrize("gone", [0, 1, 2], ids=["before", "the database moved", "its log moved too"])
def test_a_restore_that_was_killed_lets_nobody_in_and_is_completed_by_the_next(
    database: Path, tmp_path: Path, gone: int
):
    """As `kill -9` between two renames leaves it: the new file is ready, the old one is partly set aside."""
    copy = back_up(database, tmp_path / "copy.db")
    (database.parent / "coordinator.db-wal").write_bytes(b"\x37\x7f\x06\x82" + b"\x01" * 4096)
    (database.parent / "coordinator.db.restoring").write_bytes(copy.path.read_bytes())
    for suffix in ("", "-wal")[:gone]:
        (database.parent / f"coordinator.db{suffix}").rename(database.parent / f"aside.db{suffix}")
    for opener in (Store.open_readonly, lambda path: Store.open(path, now=NOW)):
        with pytest.raises(StoreError, match="was interrupted: run the same `coordinator restore` again"):
            opener(database)
    restore(copy.path, database, NOW)
    assert numbers(database) == [1, 2]


def test_only_sqlite_has_a_file_to_copy(tmp_path: Path):
    assert sqlite_file(f"sqlite:///{tmp_path}/c.db") == tmp_path / "c.db"
    assert sqlite_file("postgresql://db/coordinator") is None
