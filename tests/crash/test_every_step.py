"""Killed with SIGKILL between every two steps from poll to publish: nothing is lost, nothing is doubled.

The steps are those of coordinator/faultpoints.py: all of them, since they are the parameters. A point that
no call site reaches, or that its story does not come by, fails here, because nobody dies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from stage import FREE, Stage
from world import REPO, STRANGER, WAIT, WRITE

from adw_modules.tasks.model import Outcome, TaskState
from coordinator.faultpoints import Point

pytestmark = pytest.mark.crash

SLOW = "[[agent: slow 0.7]]"  # longer than the daemon's pause between two looks at a live run
OUTLIVES_A_START = "[[agent: slow 2]]"  # is still alive when the next daemon looks
FAIL_ONCE = "[[agent: fail-once]]"
OF_DAEMON = [point for point in Point if not point.is_of_shim]
OF_SHIM = [point for point in Point if point.is_of_shim]


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What has to happen for a task to come by a point."""

    says: tuple[str, ...] = (WRITE,)  # to the agent
    earlier: str | None = None  # where a daemon before this one died
    at: int = 1  # which pass is the last
    closes: bool = False  # somebody closes the issue while its agent works
    edits: bool = False  # a stranger edits its text meanwhile
    besides: frozenset[Outcome] = FREE  # ends of runs before the last


LONG = Story(says=(SLOW, WRITE))
CLOSED = Story(says=(WAIT,), closes=True)
STORIES: dict[Point, Story] = {
    Point.START_MARKING: LONG,
    Point.START_MARKED: LONG,
    Point.PROGRESS_READ: LONG,
    Point.PROGRESS_SAVED: LONG,
    Point.HELD: Story(says=(WAIT,), edits=True),
    Point.STOP_RECORDED: CLOSED,
    Point.STOP_ASKED: CLOSED,
    Point.REQUEUED: Story(says=(FAIL_ONCE, WRITE), besides=FREE | {Outcome.FAILED}),
    Point.LABEL_ADDED: Story(says=(SLOW, WRITE), at=2),  # the first label replaces none
    Point.REVOKED: Story(earlier=Point.PROMPT_WRITTEN),
    Point.ADOPTED: Story(says=(SLOW, WRITE), earlier=Point.SHIM_ANSWERED),
    Point.CRASH_COUNTED: Story(earlier=Point.CLAIMED),
}


def state_of(stage: Stage, number: int) -> TaskState | None:
    task = stage.task(number)
    return task.state if task else None


def open_runs(stage: Stage, number: int) -> int:
    return sum(run.finished_at is None for run in stage.runs(number))


def run_files(stage: Stage) -> set[str]:
    return {path.name for path in (stage.state_dir / "runs").glob("*/*")}


def known_pull(stage: Stage, number: int) -> int | None:
    task = stage.task(number)
    return task.pr_number if task else None


def known_comment(stage: Stage, number: int) -> int | None:
    task = stage.task(number)
    return task.comment_id if task else None


def own_labels(stage: Stage, number: int) -> int:
    return len(stage.label(number).split(","))


def log_of_calls(stage: Stage) -> list[Path]:
    return list((stage.state_dir / "logs" / "api").glob("*.jsonl"))


# What the table says of these points, looked at before the next daemon starts.
LEFT: dict[Point, Callable[[Stage, int], bool]] = {
    Point.LISTED: lambda stage, number: state_of(stage, number) is None,
    Point.JUDGED: lambda stage, number: state_of(stage, number) is None,
    Point.ADMITTING: lambda stage, number: state_of(stage, number) is None,
    Point.ADMITTED: lambda stage, number: state_of(stage, number) is TaskState.QUEUED,
    Point.CLAIMING: lambda stage, number: state_of(stage, number) is TaskState.QUEUED,
    Point.CLAIMED: lambda stage, number: open_runs(stage, number) == 1 and not run_files(stage),
    Point.RUN_DIR_MADE: lambda stage, _: run_files(stage) == set(),
    Point.SPEC_WRITTEN: lambda stage, _: run_files(stage) == {"environment.json", "spec.json"},
    Point.PROMPT_WRITTEN: lambda stage, _: run_files(stage) == {"environment.json", "spec.json", "prompt.md"},
    Point.SHIM_ANSWERED: lambda stage, _: "started" in run_files(stage),
    Point.START_MARKING: lambda stage, number: stage.runs(number)[-1].started_at is None,
    Point.START_MARKED: lambda stage, number: stage.runs(number)[-1].started_at is not None,
    Point.PROGRESS_READ: lambda stage, number: stage.runs(number)[-1].stream_offset == 0,
    Point.PROGRESS_SAVED: lambda stage, number: stage.runs(number)[-1].stream_offset > 0,
    Point.HELD: lambda stage, number: bool(stage.live()) and stage.runs(number)[-1].stop_reason is None,
    Point.STOP_RECORDED: lambda stage, _: "stop" not in run_files(stage),
    Point.STOP_ASKED: lambda stage, _: "stop" in run_files(stage),
    Point.END_SEEN: lambda stage, _: "exit" in run_files(stage),
    Point.OUTCOME_JUDGED: lambda stage, _: "summary.json" not in run_files(stage),
    Point.SUMMARY_SAVED: lambda stage, _: "summary.json" in run_files(stage),
    Point.SETTLING: lambda stage, number: open_runs(stage, number) == 1,
    Point.SETTLED: lambda stage, number: open_runs(stage, number) == 0 and not log_of_calls(stage),
    Point.CALL_LOGGED: lambda stage, number: open_runs(stage, number) == 0 and bool(log_of_calls(stage)),
    Point.REQUEUED: lambda stage, number: state_of(stage, number) is TaskState.QUEUED,
    Point.PUSHED: lambda stage, number: not stage.pulls(number),
    Point.PULL_LOOKED_UP: lambda stage, number: not stage.pulls(number),
    Point.PULL_CREATED: lambda stage, number: bool(stage.pulls(number)) and known_pull(stage, number) is None,
    Point.PULL_RECORDED: lambda stage, number: known_pull(stage, number) is not None,
    Point.COMMENT_LOOKED_UP: lambda stage, number: not stage.comments(number),
    Point.COMMENT_WRITTEN: lambda stage, number: (
        len(stage.comments(number)) == 1 and known_comment(stage, number) is None
    ),
    Point.COMMENT_RECORDED: lambda stage, number: known_comment(stage, number) is not None,
    Point.LABEL_ADDED: lambda stage, number: own_labels(stage, number) == 2,
    Point.LABELLED: lambda stage, number: own_labels(stage, number) == 1,
    Point.REVOKED: lambda stage, _: "revoked" in run_files(stage),
    Point.CRASH_COUNTED: lambda stage, number: open_runs(stage, number) == 1,
}
# What a run of these leaves behind cannot be used again: it is kept aside, never deleted.
QUARANTINED = {Point.TREE_REGISTERED, Point.TREE_CHECKED_OUT}
# The first report is sent while the run is being prepared: who dies there may die anywhere in that as well.
BESIDE_THE_RUN = ("comment.", "label.", "outbox.")


@pytest.mark.parametrize("point", OF_DAEMON, ids=str)
def test_a_daemon_killed_at_this_step_loses_and_doubles_nothing(stage: Stage, point: Point) -> None:
    story = STORIES.get(point, Story())
    number = stage.issue(*story.says)
    if story.earlier:
        stage.start_armed(story.earlier)
        assert stage.died()
    stage.start_armed(f"{point}:{story.at}")
    if story.closes:
        stage.until_working(number)
        stage.server.close_issue(REPO, number)
    if story.edits:
        stage.until_working(number)
        stage.server.edit_issue(REPO, number, body="Something else", editor=STRANGER)
    assert stage.died(), f"nobody came by {point}\n{stage._last_lines()}"
    assert LEFT.get(point, lambda *_: True)(stage, number)

    stage.start_process()
    if story.edits:
        stage.until_state(number, "blocked")
        assert [run.outcome for run in stage.runs(number)] == [Outcome.INTERRUPTED]
        assert (stage.label(number), stage.pulls(number)) == ("blocked", [])
        stage.until_quiet()
        assert stage.starts(number) == 1
        return
    if story.closes:
        stage.until_state(number, "cancelled")
        stage.check_task(number, state="cancelled", label="cancelled", pulls=0)
    else:
        stage.until_state(number, "succeeded")
        stage.check_task(number, besides=story.besides)
    stage.check_quiet()
    assert len(stage.begins()) == 1 + (Outcome.FAILED in story.besides)
    if not point.startswith(BESIDE_THE_RUN):
        assert any((stage.state_dir / "quarantine").rglob("*.txt")) == (point in QUARANTINED)


# How the run of the killed shim ends, and whether its agent had begun; it may have been too young to say so.
OUTCOMES: dict[Point, tuple[Outcome, set[int]]] = {
    Point.SHIM_LOCKED: (Outcome.NEVER_STARTED, {0}),
    Point.SHIM_READY: (Outcome.NEVER_STARTED, {0}),
    Point.SHIM_STARTED: (Outcome.LOST, {0}),
    Point.SHIM_SPAWNED: (Outcome.LOST, {0, 1}),
    Point.SHIM_RECORDED: (Outcome.LOST, {0, 1}),
    Point.SHIM_REPORTED: (Outcome.LOST, {0, 1}),
    Point.SHIM_AGENT_GONE: (Outcome.LOST, {1}),
    Point.SHIM_EXIT_WRITTEN: (Outcome.SUCCEEDED, {1}),
}


def check_outcome(
    stage: Stage, number: int, point: Point, *, at_start: Outcome = Outcome.NEVER_STARTED
) -> None:
    """The run ended as the table says, and every other one did what a run does."""
    outcome, begins = OUTCOMES[point]
    outcome = at_start if outcome is Outcome.NEVER_STARTED else outcome
    stage.until_state(number, "succeeded")
    stage.check_task(number, besides={outcome})
    runs = stage.runs(number)
    assert runs[0].outcome is outcome
    assert len(runs) == (1 if outcome is Outcome.SUCCEEDED else 2)
    assert stage.begins()[Path(runs[0].run_dir).name] in begins
    stage.check_quiet()


@pytest.mark.parametrize("point", OF_SHIM, ids=str)
def test_a_shim_and_its_daemon_killed_at_this_step_end_in_one_explicit_outcome(
    stage: Stage, point: Point
) -> None:
    is_orphaned = point in {Point.SHIM_SPAWNED, Point.SHIM_RECORDED, Point.SHIM_REPORTED}
    number = stage.issue(OUTLIVES_A_START if is_orphaned else WRITE, WRITE)
    stage.start_armed(point)
    stage.until_a_shim_died()
    stage.kill()

    stage.start_process()
    check_outcome(stage, number, point)


@pytest.mark.parametrize("point", OF_SHIM, ids=str)
def test_a_shim_killed_at_this_step_is_noticed_by_the_daemon_that_lives_on(
    stage: Stage, point: Point
) -> None:
    """It has heard of no shim where that died early: for it the start has failed."""
    number = stage.issue(SLOW, WRITE)
    stage.start_armed(point)
    stage.until_a_shim_died()
    check_outcome(stage, number, point, at_start=Outcome.FAILED)
