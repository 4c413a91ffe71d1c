"""What came of an experiment: each arm with its results, and whether there is an answer yet.

A task belongs to the arm that its first run of a trigger was drawn for and went to, whatever became of it
later: a retry that had to go elsewhere, a second trigger. Must not read the store or draw anybody.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from adw_modules.catalogue.rankings import NOT_THE_MODEL
from adw_modules.config import ExperimentSettings, StopSettings
from adw_modules.routing.evidence import Interval, always_valid, median_interval, middle, wilson
from adw_modules.tasks.model import Outcome, TaskState


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRun:
    """One run of a task that was in the experiment at some time. `arm`: it went to that arm's own target.

    `is_parked`: the task waits for a human. `cost` is None while it is not known, or is no money.
    """

    task_id: int
    state: TaskState
    is_parked: bool
    attempt: int
    arm: str | None
    outcome: Outcome | None
    began: datetime
    ended: datetime | None
    cost: Decimal | None


class Fate(StrEnum):
    """What became of a task."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"  # also: waits for a human
    OPEN = "open"
    CANCELLED = "cancelled"  # says nothing about an arm


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A task in its arm. `again`: runs after its first, but for those that did not work at all."""

    arm: str
    fate: Fate
    again: int
    cost: Decimal | None
    seconds: float  # that its runs worked


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmResult:
    """One arm. Intervals are for a single look (`success`, `rework`) or of the median (`cost`, `seconds`).

    `safe`: the interval of success that holds at every look, all arms together; answers go by it.
    """

    arm: str
    target: str | None  # None: no longer configured
    tasks: int  # that are over, and not cancelled
    open: int
    cancelled: int
    succeeded: int
    success: Interval
    safe: Interval
    reworked: int
    rework: Interval
    again: int
    cost: float | None
    cost_interval: Interval | None
    unknown_costs: int
    seconds: float | None
    seconds_interval: Interval | None


class State(StrEnum):
    """Whether an experiment has its answer."""

    RUNNING = "running"
    BETTER = "better"
    NO_DIFFERENCE = "no_difference"
    UNDECIDED = "undecided"  # it has had all the tasks it may have


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    state: State
    text: str
    arm: str | None = None  # the better one


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    name: str
    arms: tuple[ArmResult, ...]
    answer: Answer


def result_of(experiment: ExperimentSettings, runs: Iterable[TrialRun]) -> Result:
    """The arms in the order of the file, then those of former configurations. `runs`: oldest first."""
    by_arm: dict[str, list[Trial]] = {arm.name: [] for arm in experiment.arms}
    for trial in trials(runs):
        by_arm.setdefault(trial.arm, []).append(trial)
    targets = {arm.name: f"{arm.provider}/{arm.model}" for arm in experiment.arms}
    arms = tuple(_arm(name, targets, found, experiment.stop) for name, found in by_arm.items())
    compared = [arm for arm in arms if arm.target]
    return Result(name=experiment.name, arms=arms, answer=answer(compared, experiment.stop))


def trials(runs: Iterable[TrialRun]) -> list[Trial]:
    """The tasks that began in an arm."""
    of_tasks: dict[int, list[TrialRun]] = defaultdict(list)
    for run in runs:
        of_tasks[run.task_id].append(run)
    found = (_trial(each) for each in of_tasks.values())
    return [trial for trial in found if trial is not None]


def _trial(runs: Sequence[TrialRun]) -> Trial | None:
    first = next((n for n, run in enumerate(runs) if run.arm is not None and run.attempt == 1), None)
    if first is None:
        return None
    own = runs[first:]
    costs = [run.cost for run in own if run.ended is not None]
    worked = [run for run in own if run.outcome not in NOT_THE_MODEL]
    return Trial(
        arm=own[0].arm or "",
        fate=_fate(own[-1]),
        again=max(0, len(worked) - 1),
        cost=None if any(cost is None for cost in costs) else sum(filter(None, costs), Decimal(0)),
        seconds=sum((run.ended - run.began).total_seconds() for run in own if run.ended is not None),
    )


def _fate(run: TrialRun) -> Fate:
    match run.state:
        case TaskState.SUCCEEDED:
            return Fate.SUCCEEDED
        case TaskState.FAILED:
            return Fate.FAILED
        case TaskState.CANCELLED:
            return Fate.CANCELLED
        case TaskState.BLOCKED if run.is_parked:
            return Fate.FAILED
    return Fate.OPEN


def _arm(name: str, targets: Mapping[str, str], found: Sequence[Trial], stop: StopSettings) -> ArmResult:
    over = [trial for trial in found if trial.fate in {Fate.SUCCEEDED, Fate.FAILED}]
    succeeded, reworked = _count(over, Fate.SUCCEEDED), sum(trial.again > 0 for trial in over)
    costs = [float(trial.cost) for trial in over if trial.cost is not None]
    seconds = [trial.seconds for trial in over]
    # Each arm may be wrong only by its part of what all of them together may.
    safe = 1 - (1 - stop.confidence) / len(targets)
    return ArmResult(
        arm=name,
        target=targets.get(name),
        tasks=len(over),
        open=_count(found, Fate.OPEN),
        cancelled=_count(found, Fate.CANCELLED),
        succeeded=succeeded,
        success=wilson(succeeded, len(over), stop.confidence),
        safe=always_valid(succeeded, len(over), safe),
        reworked=reworked,
        rework=wilson(reworked, len(over), stop.confidence),
        again=sum(trial.again for trial in over),
        cost=middle(costs),
        cost_interval=median_interval(costs, stop.confidence),
        unknown_costs=len(over) - len(costs),
        seconds=middle(seconds),
        seconds_interval=median_interval(seconds, stop.confidence),
    )


def _count(found: Iterable[Trial], fate: Fate) -> int:
    return sum(trial.fate is fate for trial in found)


def answer(arms: Sequence[ArmResult], stop: StopSettings) -> Answer:
    """Whether the success of the arms is told apart, or is known to be alike."""
    fewest = min(arms, key=lambda arm: arm.tasks)
    if fewest.tasks < stop.min_samples:
        left = stop.min_samples - fewest.tasks
        return Answer(state=State.RUNNING, text=f"running: arm {fewest.arm} needs {left} more")
    best = max(arms, key=lambda arm: arm.safe.low)
    if all(best.safe.low > arm.safe.high for arm in arms if arm is not best):
        return Answer(state=State.BETTER, text=f"stop: {best.arm} succeeds more often", arm=best.arm)
    apart = max(arm.safe.high for arm in arms) - min(arm.safe.low for arm in arms)
    if apart <= stop.margin:
        text = f"stop: no difference within {100 * stop.margin:g} points of success"
        return Answer(state=State.NO_DIFFERENCE, text=text)
    if stop.max_samples is not None and fewest.tasks >= stop.max_samples:
        text = f"stop: undecided after {fewest.tasks} tasks in each arm"
        return Answer(state=State.UNDECIDED, text=text)
    return Answer(state=State.RUNNING, text="running: no difference is certain yet")
