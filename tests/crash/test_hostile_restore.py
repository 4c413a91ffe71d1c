"""An older copy of the store is put back under runs that went on: nothing is started twice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from world import PATIENCE, WRITE, Result, World

from coordinator.launcher import is_alive

pytestmark = pytest.mark.crash
DONE = Result(state="succeeded", outcomes=("succeeded",), pulls=1, label="done")


def forget_store(world: World) -> None:
    """Let go of the test's own connection: the file is about to be another one."""
    if world._store is not None:
        world._store.close()
        world._store = None


def put_back(world: World, copy: Path) -> dict:
    forget_store(world)
    return world.cli("restore", str(copy), "--json")


def a_backup(world: World) -> Path:
    copy = world.folder / "backup.db"
    said = world.cli("backup", str(copy), "--json")
    assert said["bytes"] == copy.stat().st_size
    return copy


def test_a_run_that_was_live_in_the_copy_and_ended_since_is_settled_once_more_not_started(
    world: World,
) -> None:
    world.use_gated_agent()
    number = world.issue()
    world.start_process()
    world.until_working(number)
    copy = a_backup(world)
    world.open_gate()
    world.until_state(number, "succeeded")
    world.stop()

    assert put_back(world, copy)["newer_runs"] == []
    assert world.result(number).state == "running"
    world.start()
    world.until_state(number, "succeeded")
    assert world.result(number) == DONE
    assert world.starts(number) == 1


def test_a_run_that_was_live_in_the_copy_and_still_is_is_followed_further(world: World) -> None:
    world.use_gated_agent()
    number = world.issue()
    world.start_process()
    world.until_working(number)
    copy = a_backup(world)
    world.kill()
    put_back(world, copy)
    world.start()
    world.until_logged("found a run", found="alive")
    world.open_gate()
    world.until_state(number, "succeeded")
    assert world.result(number) == DONE
    assert world.starts(number) == 1


def test_a_live_run_that_the_copy_does_not_know_is_ended_and_its_task_waits_for_a_person(
    world: World,
) -> None:
    world.use_gated_agent()
    world.start_process()
    world.until_polls(1)
    world.cli("pause")
    number = world.issue()
    world.until_state(number, "queued")
    copy = a_backup(world)
    world.cli("resume")
    world.until_working(number)
    (run_dir,) = world.live()
    world.kill()

    assert put_back(world, copy)["newer_runs"] == [f"gh-{number}.1"]
    world.start()
    world.until_logged("ending a run that the store does not know", run_dir=str(run_dir))
    world.until_quiet()
    world.cli("resume")  # the copy was made while paused
    task = world.until_state(number, "blocked")
    assert "coordinator retry" in (task.cause or "")
    world.until_polls(2)
    assert world.starts(number) == 1

    world.open_gate()
    world.cli("retry", str(number))
    world.until_state(number, "succeeded")
    (run,) = world.runs(number)
    assert run.token == 2
    assert world.starts(number) == 2


def test_a_result_that_the_copy_does_not_know_is_not_worked_for_again(world: World) -> None:
    world.start_process()
    world.until_polls(1)
    world.cli("pause")
    number = world.issue(WRITE)
    world.until_state(number, "queued")
    copy = a_backup(world)
    world.cli("resume")
    world.until_state(number, "succeeded")
    world.stop()
    put_back(world, copy)
    world.start()
    world.cli("resume")
    world.until_state(number, "blocked")
    assert world.starts(number) == 1
    assert (len(world.comments(number)), len(world.pulls(number))) == (1, 1)
    assert "run 1 of it was started" in world.comment(number)


def test_without_any_database_what_lives_is_ended_and_nothing_starts_beside_it(world: World) -> None:
    number = world.issue("[[agent: ignore-term]]")
    world.write_config(coordinator={"stop_grace_seconds": 0.5})
    world.start_process()
    world.until_working(number)
    (run_dir,) = world.live()
    world.kill()
    forget_store(world)
    for path in world.state_dir.glob("coordinator.db*"):
        path.unlink()
    world.start()
    world.until_state(number, "blocked")
    world.until_quiet()
    assert not is_alive(run_dir)
    assert world.starts(number) == 1


def test_a_retry_before_the_ended_run_is_gone_waits_for_it(world: World) -> None:
    number = world.issue("[[agent: ignore-term]]")
    world.write_config(coordinator={"stop_grace_seconds": 1.5})
    world.start_process()
    world.until_working(number)
    (run_dir,) = world.live()
    world.kill()
    forget_store(world)
    for path in world.state_dir.glob("coordinator.db*"):
        path.unlink()
    world.start()
    world.until_state(number, "blocked")
    assert is_alive(run_dir)
    world.cli("retry", str(number))
    world.until(lambda: "still ending" in (world.task(number).cause or ""), "it waits")
    assert world.live() == [run_dir]
    world.until(lambda: world.starts(number) == 2, "the next run", patience=PATIENCE)
    assert not is_alive(run_dir)


def test_a_restore_beside_a_running_daemon_is_refused_with_its_process(world: World) -> None:
    world.start_process()
    world.until_polls(1)
    copy = a_backup(world)
    before = (world.state_dir / "coordinator.db").read_bytes()
    done = subprocess.run(
        [sys.executable, "-m", "coordinator", "restore", str(copy), "--config", str(world.path)],
        capture_output=True,
        text=True,
        check=False,
        env=world.environ,
    )
    assert done.returncode == 75
    assert world.process is not None
    assert (
        done.stderr.strip() == f"{world.state_dir} is in use by another daemon (process {world.process.pid})."
    )
    assert (world.state_dir / "coordinator.db").read_bytes() == before
