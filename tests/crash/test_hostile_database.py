"""A database that is damaged under a working daemon, or before it starts."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from world import Result, World

pytestmark = pytest.mark.crash
DONE = Result(state="succeeded", outcomes=("succeeded",), pulls=1, label="done")
VERBS = (
    ["run"], ["run", "--once"], ["status"], ["why", "1"], ["retry", "1"], ["cancel", "1"], ["pause"],
    ["resume"], ["drain"], ["stop"], ["backup", "copy.db"],
)  # fmt: skip


def damage(database: Path) -> None:
    """Overwrite every page but the first, through the file system, as a broken disk does."""
    with database.open("r+b") as file:
        size = file.seek(0, 2)
        file.seek(4096)
        file.write(b"\xa5" * (size - 4096))


def no_log(database: Path) -> None:
    connection = sqlite3.connect(database)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def test_damage_found_while_working_is_said_once_starts_nothing_and_a_restore_goes_on(world: World) -> None:
    world.use_gated_agent()
    number = world.issue()
    world.start_process()
    world.until_working(number)
    world.until(lambda: world.runs(number)[0].started_at, "the start is written down")
    copy = world.folder / "copy.db"
    world.cli("backup", str(copy))
    no_log(world.state_dir / "coordinator.db")
    damage(world.state_dir / "coordinator.db")
    other = world.issue()  # makes the daemon read and write
    event = "the database is damaged; nothing new is started"
    (world.state_dir / "wake").touch()
    told = world.until_logged(event)
    assert "coordinator restore FILE" in told["error"]
    world.until_polls(5)
    assert len(world.events(event)) == 1
    assert len(world.live()) == 1
    assert len(list((world.state_dir / "runs").iterdir())) == 1
    world.end_process(15)
    assert len(world.live()) == 1

    world._store.close()
    world._store = None
    world.cli("restore", str(copy))
    world.start()
    world.open_gate()
    for each in (number, other):
        world.until_state(each, "succeeded")
        assert world.result(each) == DONE
    assert world.starts(number) == 1


def test_every_verb_refuses_a_damaged_database_with_one_sentence_and_changes_nothing(world: World) -> None:
    assert world.run_once() == 0
    database = world.state_dir / "coordinator.db"
    no_log(database)
    database.write_bytes(b"\xa5" * 20_000)
    for arguments in VERBS:
        done = subprocess.run(
            [sys.executable, "-m", "coordinator", *arguments, "--config", str(world.path)],
            env=world.environ,
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        last = done.stderr.strip().splitlines()
        assert (done.returncode, len(last)) == (1, 1), (arguments, done.stdout, done.stderr)
        assert "is damaged" in last[0], arguments
        assert "`coordinator restore FILE`" in last[0], arguments
    assert database.read_bytes() == b"\xa5" * 20_000
    assert not (Path(__file__).parents[2] / "copy.db").exists()
