"""What our own ended runs say about targets, for tasks of one class: the memory of strategies.

Owns the classes of tasks, the decay of what was seen, and the fall-back to a coarser class where too little
was. Must not choose, and must not read a clock or the store.

A class is the repository, the labels and the size of the issue. A run counts by its age: after one half-life
half as much, and after four not at all. Ages are counted in whole hours, so that a memory lasts an hour.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from decimal import Decimal
from operator import add, attrgetter
from typing import Any

from adw_modules.catalogue.rankings import NOT_THE_MODEL
from adw_modules.routing.attributes import Attrs, as_labels, is_number
from adw_modules.routing.trace import Target
from adw_modules.tasks.model import ModelUsage, Outcome

HALF_LIVES = 4  # after so many a run is forgotten
_SIZES = ((500, "small"), (2000, "medium"))  # characters of title and text, below
_KINDS = tuple(each.name for each in fields(ModelUsage))
_counts = attrgetter(*_KINDS)

# From the finest class to all tasks: what has to be the same.
LEVELS = (("repo", "labels", "size"), ("labels", "size"), ("labels",), ())
ALL_TASKS = len(LEVELS) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Experience:
    """One ended run and the task it was of. `length`: characters of title and text of the issue.

    `cost` in US dollars is None where nobody knows it, and 0 of a flat rate. `tokens` None: not known.
    """

    target: Target
    outcome: Outcome
    ended_at: datetime
    duration: timedelta | None
    cost: Decimal | None
    tokens: ModelUsage | None
    repo: str
    labels: tuple[str, ...]
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskClass:
    """What makes tasks similar."""

    repo: str = ""
    labels: frozenset[str] = frozenset()
    size: str | None = None

    @classmethod
    def of(cls, repo: object, labels: Iterable[object], length: float | None) -> TaskClass:
        return cls(
            repo=str(repo or "").casefold(),
            labels=frozenset(str(label).casefold() for label in labels),
            size=None if length is None else size_of(length),
        )

    @classmethod
    def of_attributes(cls, attrs: Attrs) -> TaskClass:
        """The class of a task that is to be decided, by the attributes that rules see."""
        lengths = [attrs.get("title_length"), attrs.get("body_length")]
        known = [float(each) for each in lengths if is_number(each)]
        labels = as_labels(attrs.get("labels")) or ()
        return cls.of(attrs.get("repo"), labels, sum(known) if known else None)

    def key(self, level: int) -> tuple[object, ...]:
        return (level, *(getattr(self, name) for name in LEVELS[level]))

    def shown(self) -> dict[str, Any]:
        return {"repo": self.repo, "labels": sorted(self.labels), "size": self.size}


def size_of(length: float) -> str:
    return next((word for limit, word in _SIZES if length < limit), "large")


@dataclass(slots=True)
class Tally:
    """A quantity that was seen several times, each with the weight of its age."""

    weight: float = 0.0
    total: float = 0.0
    squares: float = 0.0

    def add(self, value: float, weight: float) -> None:
        self.weight += weight
        self.total += weight * value
        self.squares += weight * value * value

    @property
    def mean(self) -> float:
        return self.total / self.weight

    @property
    def error(self) -> float:
        """The standard deviation of the mean. One more observation, off by the mean itself, is imagined:
        otherwise two equal runs would count as certainty."""
        spread = max(0.0, self.squares - self.weight * self.mean**2)
        return math.sqrt((spread + self.mean**2) / (self.weight + 1) / self.weight)


@dataclass(slots=True)
class Meter:
    """The tokens of some runs, by weight."""

    samples: int = 0
    weight: float = 0.0
    totals: list[float] = field(default_factory=lambda: [0.0] * len(_KINDS))

    def add(self, weighted: Sequence[float], weight: float) -> None:
        self.samples += 1
        self.weight += weight
        self.totals = list(map(add, self.totals, weighted))

    @property
    def mean(self) -> ModelUsage:
        """What one run used, in whole tokens."""
        counts = (round(total / self.weight) for total in self.totals)
        return ModelUsage(**dict(zip(_KINDS, counts, strict=True)))


@dataclass(slots=True)
class Record:
    """What is remembered of one target in one class."""

    samples: int = 0
    weight: float = 0.0
    successes: float = 0.0  # by weight, as all that follows
    cost: Tally = field(default_factory=Tally)
    hours: Tally = field(default_factory=Tally)
    tokens: Meter = field(default_factory=Meter)

    def add(self, run: Experience, weight: float) -> None:
        self.samples += 1
        self.weight += weight
        self.successes += weight * (run.outcome is Outcome.SUCCEEDED)
        if run.cost is not None:
            self.cost.add(float(run.cost), weight)
        if run.duration is not None:
            self.hours.add(run.duration / timedelta(hours=1), weight)

    @property
    def knows_cost(self) -> bool:
        """Whether the cost of at least half of it is known: of a smaller part it would be a guess."""
        return self.cost.weight > 0 and self.cost.weight * 2 >= self.weight


class Memory:
    """All runs that still count in the hour from `now` on with one half-life, by class and target."""

    def __init__(self, runs: Iterable[Experience], *, now: datetime, half_life_days: float) -> None:
        self._by_target: defaultdict[tuple[object, ...], dict[Target, Record]] = defaultdict(dict)
        self._of_all: defaultdict[tuple[object, ...], Meter] = defaultdict(Meter)
        half_life, end = timedelta(days=half_life_days), now + timedelta(hours=1)
        for run in runs:
            halves = _age(run.ended_at, now) / half_life
            if run.ended_at < end and run.outcome not in NOT_THE_MODEL and halves <= HALF_LIVES:
                self._add(run, 0.5**halves)
        self._everywhere: Mapping[Target, Record] = self._by_target.get(TaskClass().key(ALL_TASKS), {})
        self._class: TaskClass | None = None
        self._by_level: Sequence[Mapping[Target, Record]] = ()
        self._asked: tuple[TaskClass, int] | None = None
        self._answer: tuple[ModelUsage, str] | None = None

    def _add(self, run: Experience, weight: float) -> None:
        of = TaskClass.of(run.repo, run.labels, run.length)
        used = None if run.tokens is None else [weight * count for count in _counts(run.tokens)]
        for level in range(len(LEVELS)):
            key = of.key(level)
            record = self._by_target[key].get(run.target)
            if record is None:
                record = self._by_target[key][run.target] = Record()
            record.add(run, weight)
            if used is not None:
                record.tokens.add(used, weight)
                self._of_all[key].add(used, weight)

    def about(self, target: Target, of: TaskClass, least: int) -> tuple[Record, int]:
        """What the finest class with so many samples or more says, and its level; else what all tasks say."""
        if target in self._everywhere:
            for level, records in enumerate(self._records(of)):
                record = records.get(target)
                if record is not None and (record.samples >= least or level == ALL_TASKS):
                    return record, level
        return Record(), ALL_TASKS

    def samples(self, target: Target) -> int:
        """How many runs on tasks of any class count for it."""
        record = self._everywhere.get(target)
        return 0 if record is None else record.samples

    def used(self, target: Target, of: TaskClass, least: int) -> tuple[ModelUsage, str] | None:
        """The tokens a run takes, and whose runs say so: those of the target, or those of all."""
        if target in self._everywhere:
            for level, records in enumerate(self._records(of)):
                record = records.get(target)
                if record is not None and record.tokens.samples >= least:
                    return record.tokens.mean, f"its own runs of {told(level)}"
        key = (of, least)
        if self._asked != key:
            self._asked, self._answer = key, self._used_by_all(of, least)
        return self._answer

    def _used_by_all(self, of: TaskClass, least: int) -> tuple[ModelUsage, str] | None:
        for level in range(len(LEVELS)):
            everybody = self._of_all.get(of.key(level))
            if everybody is not None and everybody.samples >= least:
                return everybody.mean, f"all runs of {told(level)}"
        return None

    def _records(self, of: TaskClass) -> Sequence[Mapping[Target, Record]]:
        """By level; kept for the class that was asked for last, because all candidates ask for it."""
        if self._class != of:
            self._class = of
            self._by_level = [self._by_target.get(of.key(level), {}) for level in range(len(LEVELS))]
        return self._by_level

    def used_by_any(self, of: TaskClass, least: int) -> ModelUsage | None:
        """The tokens that a run on such a task takes, whoever does it."""
        known = (self._of_all.get(of.key(level)) for level in range(len(LEVELS)))
        return next((meter.mean for meter in known if meter is not None and meter.samples >= least), None)


def told(level: int) -> str:
    """Which tasks a level is about, in words."""
    same = ["repository" if each == "repo" else each for each in LEVELS[level]]
    if not same:
        return "all tasks"
    *others, last = same
    return f"tasks of the same {', '.join(others)}{' and ' if others else ''}{last}"


def _age(then: datetime, now: datetime) -> timedelta:
    """In whole hours, and none of what a clock that was set back makes of the future."""
    return timedelta(hours=max(0, (now - then) // timedelta(hours=1)))
