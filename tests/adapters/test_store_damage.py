"""A database file in every bad state: refused in one sentence that says how to restore, and left as it is."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from store_samples import NOW, end, queue, start

from adw_modules.errors import StoreDamaged, StoreError
from coordinator.store import Store

PAGE = 4096


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A database with some pages, all of it in the file itself."""
    path = tmp_path / "state" / "coordinator.db"
    path.parent.mkdir()
    with Store.open(path, now=NOW) as store:
        for number in range(60):
            queue(store, number)
    return path


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """The files as `kill -9` leaves them: what was committed last stands in the write-ahead log."""
    path = tmp_path / "state" / "coordinator.db"
    path.parent.mkdir()
    with Store.open(tmp_path / "live.db", now=NOW) as store:
        for number in range(60):
            queue(store, number)
        for suffix in ("", "-wal"):
            shutil.copy(tmp_path / f"live.db{suffix}", path.with_name(path.name + suffix))
    assert log_of(path).stat().st_size > 0
    return path


def log_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def contents(path: Path) -> dict[str, bytes]:
    """All there is of the database but the shared index, which holds nothing."""
    found = (path, log_of(path))
    return {each.name: each.read_bytes() for each in found if each.is_file()}


def refusals(path: Path, *, thoroughly: bool = False) -> list[str]:
    """What a reader, a command that writes, and a daemon are told."""
    said = []
    for opener in (
        lambda: Store.open_readonly(path),
        lambda: Store.open(path, now=NOW, migrate=False),
        lambda: Store.open(path, now=NOW, thoroughly=True),
    )[2 if thoroughly else 0 :]:
        with pytest.raises(StoreError) as refused:
            opener()
        said.append(str(refused.value))
    return said


def overwrite(path: Path, at: int, count: int) -> None:
    with path.open("r+b") as stream:
        stream.seek(at)
        stream.write(b"\xa5" * count)


def garbage_at_the_beginning(path: Path) -> None:
    overwrite(path, 0, 512)


def cut_in_the_middle(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def cut_to_a_few_bytes(path: Path) -> None:
    os.truncate(path, 50)


def first_pages_flipped(path: Path) -> None:
    overwrite(path, 100, PAGE)


def emptied_with_runs_beside(path: Path) -> None:
    os.truncate(path, 0)
    (path.parent / "runs" / "gh-1.1").mkdir(parents=True)


def a_text_file(path: Path) -> None:
    path.write_text("state_dir = '.coordinator'\n" * 10)


def log_of_garbage(path: Path) -> None:
    log_of(path).write_bytes(b"\xa5" * 3 * PAGE)


def log_without_its_database(path: Path) -> None:
    log_of(path).write_bytes(b"\x37\x7f\x06\x82" + b"\0" * PAGE)
    path.unlink()


DAMAGE = [
    garbage_at_the_beginning,
    cut_in_the_middle,
    cut_to_a_few_bytes,
    first_pages_flipped,
    emptied_with_runs_beside,
    a_text_file,
    log_of_garbage,
    log_without_its_database,
]


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda each: each.__name__.replace("_", " "))
def test_a_damaged_file_is_refused_by_everybody_and_not_changed(file: Path, damage: Callable[[Path], None]):
    damage(file)
    before = contents(file)
    for sentence in refusals(file):
        assert str(file) in sentence
        assert "is damaged" in sentence
        assert "`coordinator restore FILE`" in sentence
        assert "\n" not in sentence
        assert ". " not in sentence
    assert contents(file) == before


@pytest.mark.parametrize(
    "damage",
    [garbage_at_the_beginning, cut_to_a_few_bytes, emptied_with_runs_beside, a_text_file],
    ids=lambda each: each.__name__.replace("_", " "),
)
def test_the_log_of_a_damaged_file_is_neither_dropped_nor_folded_in(killed: Path, damage):
    damage(killed)
    before = contents(killed)
    assert len(before) == 2
    assert len(refusals(killed)) == 3
    assert contents(killed) == before


def test_a_page_with_another_form_is_found_when_a_daemon_starts_and_the_log_is_kept(file: Path):
    with Store.open(file, now=NOW) as store:
        (root,) = (
            row[0]
            for row in store._database._connection.exec_driver_sql(
                "SELECT rootpage FROM sqlite_master WHERE name = 'events'"
            )
        )
    overwrite(file, (root - 1) * PAGE, 64)
    log_of(file).write_bytes(b"\x37\x7f\x06\x82" + b"\x01" * 200)  # a log that was only just begun
    before = contents(file)
    (sentence,) = refusals(file, thoroughly=True)
    assert "is damaged" in sentence
    assert contents(file) == before


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_the_database_of_another_program_is_refused_and_keeps_its_form(tmp_path: Path, mode: str):
    path = tmp_path / "coordinator.db"
    theirs = sqlite3.connect(path)
    theirs.execute(f"PRAGMA journal_mode = {mode}")
    theirs.execute("CREATE TABLE places (url TEXT)")
    theirs.commit()
    copy = tmp_path / "copy" / "coordinator.db"
    copy.parent.mkdir()
    for each in tmp_path.glob("coordinator.db*"):
        shutil.copy(each, copy.parent / each.name)  # as after a kill: with its log
    theirs.close()
    before = contents(copy)
    for sentence in refusals(copy):
        assert "belongs to another program: it has a table places" in sentence
    assert contents(copy) == before


def test_a_folder_in_place_of_the_file_is_named(tmp_path: Path):
    (tmp_path / "coordinator.db").mkdir()
    for sentence in refusals(tmp_path / "coordinator.db"):
        assert "is not a file" in sentence


def test_an_empty_file_of_a_daemon_that_was_killed_at_once_is_a_new_database(tmp_path: Path):
    (tmp_path / "coordinator.db").touch()
    (tmp_path / "runs").mkdir()
    with Store.open(tmp_path / "coordinator.db", now=NOW, thoroughly=True) as store:
        assert store.tasks() == []


def test_a_killed_daemons_database_is_whole_and_the_next_one_has_all_of_it(killed: Path):
    with Store.open(killed, now=NOW, thoroughly=True) as store:
        assert len(store.tasks()) == 60


def test_damage_found_while_working_ends_all_writing_and_is_the_same_sentence_each_time(file: Path):
    with Store.open(file, now=NOW) as store:
        task, run = start(store, queue(store, 1000).task_id)
        connection = store._database._connection.connection.driver_connection
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'events'").fetchone()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("PRAGMA cache_size = 0")
        overwrite(file, (root - 1) * PAGE, PAGE)
        # Another connection changes something, so that this one forgets what it has read.
        other = sqlite3.connect(file)
        other.execute("UPDATE daemon_state SET value = value")
        other.commit()
        other.close()
        with pytest.raises(StoreDamaged) as first:
            end(store, run)
        before = contents(file)
        for attempt in (
            lambda: queue(store, 2000),
            lambda: start(store, task.task_id),
            store.counts_by_state,
        ):
            with pytest.raises(StoreDamaged) as again:
                attempt()
            assert str(again.value) == str(first.value)
        assert contents(file) == before


def test_a_value_that_nobody_wrote_is_a_sentence(file: Path):
    damaging = sqlite3.connect(file)
    damaging.execute("UPDATE tasks SET state = 'qzeued' WHERE issue_number = 3")
    damaging.commit()
    damaging.close()
    with Store.open(file, now=NOW) as store, pytest.raises(StoreError, match="cannot read: 'qzeued'"):
        store.find_task(None, 3)
