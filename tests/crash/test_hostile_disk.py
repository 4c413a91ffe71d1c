"""Disks that are really full or really read-only: a tmpfs of some hundred kilobytes, which needs root."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from world import WAIT, Result, World

pytestmark = pytest.mark.crash
DONE = Result(state="succeeded", outcomes=("succeeded",), pulls=1, label="done")
PAGE = 4096
Disk = Callable[[Path, int], Path]


@pytest.fixture
def disk(a_world) -> Iterator[Disk]:
    """Mount a tmpfs of so many kilobytes on a folder. Set up after the world, so that it goes before it."""
    mounted: list[Path] = []

    def mount(at: Path, kilobytes: int) -> Path:
        at.mkdir(mode=0o700, parents=True, exist_ok=True)
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k,mode=0700", "coordinator-test", str(at)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")
        mounted.append(at)
        return at

    yield mount
    for at in mounted:
        subprocess.run(["umount", "--lazy", str(at)], check=True)


def fill(folder: Path, *, leave_pages: int = 0) -> Path:
    """Leave no room but that many pages; removing the returned file makes room again."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * PAGE)
        except OSError:
            pass
        file.truncate(max(0, file.tell() - leave_pages * PAGE))
    return ballast


def run_verb(world: World, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "coordinator", *arguments, "--config", str(world.path)],
        env=world.environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr + done.stdout
    return done.returncode, done.stderr.strip()


@pytest.mark.parametrize("pages", range(8))
def test_a_disk_full_at_any_step_of_a_start_starts_nothing_twice_and_goes_on_with_room(
    a_world, disk: Disk, pages: int
) -> None:
    """Room for so many pages: for spec.json, for prompt.md, for the lock, for `started`, …"""
    world: World = a_world(
        coordinator={"max_attempts": 20}, retries={"base_delay_seconds": 0.5, "max_delay_seconds": 1}
    )
    runs = disk(world.state_dir / "runs", 64)
    world.use_gated_agent()
    world.open_gate()
    world.start_process()
    world.until_polls(1)
    ballast = fill(runs, leave_pages=pages)
    number = world.issue()
    world.until(lambda: len(world.runs(number)) >= 1, "a run was claimed")
    world.until(
        lambda: world.runs(number)[0].outcome or list(runs.glob("*/started")), "it ended, or it was started"
    )
    ballast.unlink()
    world.until_state(number, "succeeded")
    world.until_quiet()
    outcomes = world.result(number).outcomes
    assert outcomes[-1] == "succeeded"
    assert set(outcomes[:-1]) <= {"failed", "lost"}
    # A directory says "started" exactly where an agent was executed.
    ran = [run for run in world.runs(number) if (Path(run.run_dir) / "started").exists()]
    assert [run.outcome for run in world.runs(number) if run not in ran] == ["failed"] * (
        len(outcomes) - len(ran)
    )
    assert (len(world.comments(number)), len(world.pulls(number))) == (1, 1)


def test_a_disk_full_at_the_exit_record_keeps_the_result_until_there_is_room(a_world, disk: Disk) -> None:
    world: World = a_world()
    runs = disk(world.state_dir / "runs", 64)
    world.use_gated_agent()
    number = world.issue()
    world.start_process()
    world.until_working(number)
    ballast = fill(runs)
    (agent,) = world.processes()
    world.open_gate()
    world.until(lambda: not world.any_left([agent]), "the agent has ended")
    world.until_polls(3)
    assert world.result(number).outcomes == ("running",)
    assert len(world.live()) == 1
    world.kill()  # and the next daemon has to wait as well
    world.start()
    world.until_logged("found a run", found="alive")
    ballast.unlink()
    world.until_state(number, "succeeded")
    assert world.result(number) == DONE
    assert world.starts(number) == 1


def test_a_disk_full_at_every_commit_loses_nothing(a_world, disk: Disk) -> None:
    """Store, run directories and logs on one full disk: at the end of one run, with another issue coming."""
    world: World = a_world(coordinator={"max_concurrent_workers": 1})
    state = disk(world.state_dir, 8192)
    world.use_gated_agent()
    first = world.issue()
    world.start_process()
    world.until_working(first)
    ballast = fill(state)
    second = world.issue()
    (agent,) = world.processes()
    world.open_gate()
    world.until(lambda: not world.any_left([agent]), "the agent has ended")
    world.until_polls(3)
    assert world.process is not None
    assert world.process.poll() is None
    ballast.unlink()
    for number in (first, second):
        world.until_state(number, "succeeded")
        assert world.result(number) == DONE
        assert world.starts(number) == 1


def test_a_daemon_killed_on_a_full_disk_comes_up_again_with_room(a_world, disk: Disk) -> None:
    world: World = a_world()
    state = disk(world.state_dir, 8192)
    world.use_gated_agent()
    number = world.issue()
    world.start_process()
    world.until_working(number)
    ballast = fill(state)
    world.open_gate()
    world.kill()
    world.start_process()
    world.until(lambda: "No space left" in (world.folder / "daemon.stderr").read_text(), "it says so")
    assert world.process is not None
    assert world.process.poll() is None
    ballast.unlink()
    world.until_state(number, "succeeded")
    assert world.result(number) == DONE
    assert world.starts(number) == 1


def test_on_a_full_disk_a_first_start_is_one_sentence_and_works_later(a_world, disk: Disk) -> None:
    world: World = a_world()
    state = disk(world.state_dir, 512)
    ballast = fill(state)
    code, said = run_verb(world, "run", "--once", "--json")
    assert code == 1
    assert "full" in said.splitlines()[-1] or "No space left" in said.splitlines()[-1]
    ballast.unlink()
    assert world.run_once() == 0


def test_a_read_only_state_directory_is_one_sentence_for_daemon_and_commands(a_world, disk: Disk) -> None:
    world: World = a_world()
    state = disk(world.state_dir, 8192)
    assert world.run_once() == 0
    before = (state / "coordinator.db").read_bytes()
    subprocess.run(["mount", "-o", "remount,ro", str(state)], check=True)
    try:
        for arguments in (["run", "--once"], ["pause"], ["restore", "x.db"]):
            code, said = run_verb(world, *arguments)
            assert (code, len(said.splitlines())) == (1, 1), said
            assert any(
                words in said for words in ("Read-only", "may not be", "be written to", "not a file")
            ), said
        for arguments in (["status"], ["doctor"], ["logs"]):
            code, said = run_verb(world, *arguments)
            assert len(said.splitlines()) <= 1, said
        copy = world.folder / "copy.db"
        code, said = run_verb(world, "backup", str(copy))
        assert code in (0, 1), said
        assert len(said.splitlines()) <= 1, said
        assert (state / "coordinator.db").read_bytes() == before
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(state)], check=True)
    assert world.run_once() == 0


def test_a_backup_onto_a_full_disk_is_one_sentence_and_leaves_nothing(a_world, disk: Disk) -> None:
    world: World = a_world()
    assert world.run_once() == 0
    target = disk(world.folder / "backup", 64)
    fill(target)
    code, said = run_verb(world, "backup", str(target / "copy.db"))
    assert code == 1
    assert said == f"The disk that holds {target} is full: nothing was written there."
    assert [path.name for path in target.iterdir()] == ["ballast"]


def test_runs_are_ended_with_their_daemon_although_no_request_to_stop_can_be_written(
    a_world, disk: Disk
) -> None:
    world: World = a_world()
    disk(world.state_dir, 8 * 1024)
    number = world.issue(WAIT)
    world.start_process("--once")
    world.until_working(number)
    ballast = fill(world.state_dir)
    code, _ = world.end_process(signal.SIGINT)
    assert code == 130
    assert world.processes() == []
    ballast.unlink()
    world.until(lambda: not world.live(), "the shim could write how it ended")
    world.start()
    world.until(lambda: world.result(number).outcomes[0] != "running", "the run is settled")
    assert world.result(number).outcomes[0] == "interrupted"
