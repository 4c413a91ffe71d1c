"""A run directory that somebody tampers with, while the run lives and after its end.

Whatever is done to it: the daemon stays up, every run ends as exactly one outcome, and no agent goes on
without an owner.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from world import Result, World

from adw_modules.tasks.model import TaskState

pytestmark = pytest.mark.crash
FILES = ("spec.json", "prompt.md", "lock", "started", "output.log", "stderr.log", "exit")
BACKLOG_LINE = b"a line of an agent that says a lot while no daemon reads\n" * 18  # a kilobyte
BACKLOG_BYTES = 24 << 20
DONE = Result(state="succeeded", outcomes=("succeeded",), pulls=1, label="done")


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def garbage(path: Path) -> None:
    path.write_bytes(b"\xa5\x00{" * 100)


def in_place_of(path: Path, make: Callable[[Path], object]) -> None:
    remove(path)
    make(path)


TAMPER: dict[str, Callable[[Path], None]] = {
    "missing": remove,
    "garbage": garbage,
    "empty": lambda path: path.write_bytes(b"") and None,
    "a folder": lambda path: in_place_of(path, Path.mkdir),
    "a link to nothing": lambda path: in_place_of(path, lambda at: at.symlink_to("/nonexistent/file")),
    "a link to a device": lambda path: in_place_of(path, lambda at: at.symlink_to("/dev/zero")),
    "a pipe": lambda path: in_place_of(path, os.mkfifo),
}


def settled_once(world: World, number: int) -> bool:
    """The task has come to an end, or to its next run, and its first run has exactly one outcome."""
    runs = world.runs(number)
    return bool(runs) and runs[0].outcome is not None


def calm(world: World, number: int) -> None:
    """Until the task is over, whatever happened to its first run."""
    world.open_gate()
    world.until(
        lambda: (
            (task := world.task(number))
            and task.state in (TaskState.SUCCEEDED, TaskState.FAILED, TaskState.BLOCKED)
        ),
        "the task is over",
    )
    world.until_quiet()
    runs = world.runs(number)
    assert all(run.outcome for run in runs)
    assert len({run.token for run in runs}) == len(runs)
    assert len(world.comments(number)) <= 1
    assert len(world.pulls(number)) <= 1


@pytest.fixture
def seven(a_world) -> World:
    """Room for a run of each kind of tampering, side by side."""
    world: World = a_world(coordinator={"max_concurrent_workers": len(TAMPER)})
    world.use_gated_agent()
    return world


def all_working(world: World) -> dict[str, int]:
    """One issue for each kind of tampering, its agent up and its start written down."""
    numbers = {what: world.issue() for what in TAMPER}
    for number in numbers.values():
        world.until_working(number)
    for number in numbers.values():
        world.until(lambda of=number: world.runs(of)[0].started_at, "the start is written down")
    return numbers


def tamper(world: World, numbers: dict[str, int], name: str) -> None:
    for what, number in numbers.items():
        TAMPER[what](Path(world.runs(number)[0].run_dir) / name)


@pytest.mark.parametrize("name", FILES)
def test_tampered_while_the_run_lives_and_the_daemon_follows_it(seven: World, name: str) -> None:
    seven.start()
    numbers = all_working(seven)
    agents = seven.processes()
    tamper(seven, numbers, name)
    for number in numbers.values():
        calm(seven, number)
        assert len(seven.runs(number)) <= 2
    seven.until(lambda: not seven.any_left(agents), "the first agents are gone")
    other = seven.issue()
    seven.until_state(other, "succeeded")  # the daemon is as well as before


@pytest.mark.parametrize("name", FILES)
def test_tampered_after_the_end_of_a_run_that_nobody_has_settled_yet(seven: World, name: str) -> None:
    seven.start_process()
    numbers = all_working(seven)
    seven.kill()
    seven.open_gate()
    seven.until_quiet()
    tamper(seven, numbers, name)
    seven.start()
    for number in numbers.values():
        calm(seven, number)
        assert seven.runs(number)[0].outcome in ("succeeded", "lost")
        assert len(seven.runs(number)) <= 2


@pytest.mark.parametrize("name", ["lock", "started", "spec.json", "exit", "output.log"])
def test_tampered_while_the_run_lives_and_no_daemon_does(seven: World, name: str) -> None:
    """The hardest: the next daemon has only what is there. It follows the run, or ends all of it."""
    seven.start_process()
    numbers = all_working(seven)
    agents = seven.processes()
    assert len(agents) == len(TAMPER)
    seven.kill()
    tamper(seven, numbers, name)
    seven.start()
    for number in numbers.values():
        calm(seven, number)
        assert len(seven.runs(number)) <= 2
    seven.until(lambda: not seven.any_left(agents), "the first agents are gone")


@pytest.mark.parametrize("is_moved", [False, True], ids=["removed", "moved away"])
def test_a_run_whose_whole_directory_goes_is_ended_by_its_shim_and_lost(world: World, is_moved: bool) -> None:
    world.use_gated_agent()
    number = world.issue()
    world.start()
    run = world.until_working(number)
    world.until(lambda: world.runs(number)[0].started_at, "the start is written down")
    run_dir = Path(run.run_dir)
    if is_moved:
        run_dir.rename(world.folder / "elsewhere")
    else:
        shutil.rmtree(run_dir)
    world.until(lambda: settled_once(world, number), "the run has an outcome")
    assert world.runs(number)[0].outcome == "lost"
    calm(world, number)
    assert world.result(number).outcomes == ("lost", "succeeded")


def test_a_run_whose_directory_went_while_no_daemon_lived_is_lost_and_leaves_no_agent(world: World) -> None:
    world.use_gated_agent()
    number = world.issue()
    world.start_process()
    run = world.until_working(number)
    world.until(lambda: world.runs(number)[0].started_at, "the start is written down")
    agents = world.processes()
    assert agents
    world.kill()
    shutil.rmtree(run.run_dir)
    world.until(lambda: not world.any_left(agents), "its shim has ended it")
    world.start()
    world.until(lambda: settled_once(world, number), "the run has an outcome")
    assert world.runs(number)[0].outcome == "lost"
    calm(world, number)


def test_an_output_that_is_cut_is_read_on_from_its_new_beginning(world: World) -> None:
    number = world.issue("[[agent: slow 2]]", "[[agent: write docs/guide.md]]")
    world.start()
    run = world.until_working(number)
    world.until(lambda: world.runs(number)[0].stream_offset > 0, "some of it was read")
    os.truncate(Path(run.run_dir) / "output.log", 0)
    world.until_state(number, "succeeded")
    assert world.result(number) == DONE


def test_an_output_that_is_cut_below_the_saved_offset_before_adoption_is_read_as_it_is(world: World) -> None:
    number = world.issue("[[agent: slow 3]]", "[[agent: write docs/guide.md]]")
    world.start_process()
    run = world.until_working(number)
    world.until(lambda: world.runs(number)[0].stream_offset > 0, "some of it was read")
    world.kill()
    os.truncate(Path(run.run_dir) / "output.log", 10)
    world.start()
    calm(world, number)
    assert world.result(number).outcomes == ("succeeded",)


def test_a_backlog_of_output_at_adoption_does_not_hold_up_the_loop(world: World) -> None:
    world.use_gated_agent()
    number = world.issue()
    world.start_process()
    output = Path(world.until_working(number).run_dir) / "output.log"
    world.kill()
    with output.open("ab") as file:
        file.writelines(BACKLOG_LINE for _ in range(BACKLOG_BYTES // len(BACKLOG_LINE)))
    world.start_process()
    world.until_logged("found a run", found="alive")
    copy = world.state_dir / "logs" / "gh-1.jsonl"
    world.until(lambda: copy.exists() and copy.stat().st_size > BACKLOG_BYTES // 8, "it is being read")
    before = world.polls()
    world.until(lambda: copy.stat().st_size > BACKLOG_BYTES // 2, "half of it is read")
    assert world.polls() >= before + 2, "polls went on meanwhile"
    _, seconds = world.end_process(signal.SIGTERM)
    assert seconds < 5
    world.open_gate()
    world.start()
    world.until_state(number, "succeeded")
    assert world.result(number) == DONE


def test_all_of_a_directory_but_its_lock_removed_while_the_run_lives(world: World) -> None:
    world.use_gated_agent()
    number = world.issue()
    world.start_process()
    run = world.until_working(number)
    world.kill()
    for path in Path(run.run_dir).iterdir():
        if path.name != "lock":
            remove(path)
    world.start()
    calm(world, number)
    assert world.processes() == []
