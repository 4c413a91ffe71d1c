"""The two selections: the cheapest model that can do a task, and the one that does best by experience.

Owns the order of candidates. Each candidate is judged by itself, so that one that is added or left out never
changes the order of the others. Must not read a clock or the store, and must not remember a decision.

Adaptive is Thompson sampling on a score in US dollars: what a success is worth times the chance of it, less
what a run costs, less what its hours cost. Of each candidate with enough samples, chance, cost and hours are
drawn from what they may be, so that what is uncertain is tried now and then. One with fewer is counted by
expectation: among hundreds of them the luckiest draw would always be high. Those get their samples from tasks
that explore.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from heapq import nsmallest
from typing import Any

from adw_modules.config import Settings
from adw_modules.routing import draws
from adw_modules.routing.attributes import Attrs, is_number
from adw_modules.routing.market import TOO_SMALL, Knowledge, Market
from adw_modules.routing.memory import HALF_LIVES, Memory, Record, Tally, TaskClass, told
from adw_modules.routing.options import ADAPTIVE, CHEAPEST, Options, options_of
from adw_modules.routing.targets import Resolver, Selected, SelectTarget
from adw_modules.routing.trace import Target
from adw_modules.tasks.model import ModelUsage

MOST_TARGETS = 25  # of a selection that are handed on: the chain of a rule is stored with each run
_SHORT = 0.1  # of a budget: below it nothing is spent to learn, and a dollar counts as ten
_MOST_SHOWN = 10
_MOST_NAMED = 3
_MOST_MEMORIES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    """One model that fits, with what a run is expected to cost on it in US dollars; None: nobody knows."""

    target: Target
    cost: Decimal | None
    by: str  # whose tokens, or whose costs

    @property
    def shown(self) -> dict[str, Any]:
        cost = None if self.cost is None else format(round(self.cost, 6), "f")
        return {"target": str(self.target), "expected_cost": cost, "by": self.by}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judged:
    """A candidate with what experience says of it."""

    candidate: _Candidate
    samples: int  # in the class that was looked at
    level: int
    samples_of_all: int
    chance: float
    cost: float | None
    hours: float
    score: float

    @property
    def shown(self) -> dict[str, Any]:
        return {
            **self.candidate.shown,
            "samples": self.samples,
            "class": told(self.level),
            "chance": round(self.chance, 4),
            "cost": None if self.cost is None else round(self.cost, 6),
            "hours": round(self.hours, 4),
            "score": round(self.score, 4),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """One selection for one task."""

    options: Options
    attrs: Attrs
    now: datetime
    memory: Memory
    of: TaskClass

    @property
    def seed(self) -> str:
        """The task, and nothing that changes in its life: a retry draws the same numbers."""
        task = self.attrs.get("task")
        return str(task.get("id")) if isinstance(task, Mapping) else ""

    @property
    def needed(self) -> float:
        needed = self.attrs.get("context_needed")
        return float(needed) if is_number(needed) else 0.0

    @property
    def budget_left(self) -> float | None:
        """The share of its budgets, 0 to 1."""
        left = self.attrs.get("budget_left")
        return min(1.0, max(0.0, float(left))) if is_number(left) else None

    @property
    def thrift(self) -> float:
        """How many times a dollar counts: the more, the less of the budget is left."""
        return 1 / max(_SHORT, 1.0 if self.budget_left is None else self.budget_left)

    @property
    def explores(self) -> bool:
        is_short = self.budget_left is not None and self.budget_left < _SHORT
        return not is_short and draws.uniform(self.seed, "explores") < self.options.explore


class Picker:
    """Works out the selections of one configuration.

    `knowledge` is asked at each; while it answers with the same value, what was made of that is kept.
    """

    def __init__(self, settings: Settings, knowledge: Callable[[], Knowledge]) -> None:
        self._settings = settings
        self._knowledge = knowledge
        self._known: Knowledge | None = None
        self._market = Market(settings, {})
        self._memories: dict[tuple[float, datetime], Memory] = {}

    @property
    def resolvers(self) -> Mapping[str, Resolver]:
        """For `ModelRouter`."""
        return {CHEAPEST: self.cheapest, ADAPTIVE: self.adaptive}

    def cheapest(self, spec: SelectTarget, attrs: Attrs, now: datetime | None) -> Selected:
        """What fits, by expected cost. A model whose cost nobody knows is never among it."""
        if now is None:
            return _timeless()
        asked = self._asked(spec, attrs, now)
        fit, left_out = self._candidates(asked)
        known = [(each.cost, each) for each in fit if each.cost is not None]
        left_out |= {each.target: "nobody knows what it costs" for each in fit if each.cost is None}
        ordered = [each for _, each in sorted(known, key=lambda pair: (pair[0], str(pair[1].target)))]
        why = _why(asked, ordered, left_out)
        return Selected(targets=_first(each.target for each in ordered), why=why)

    def adaptive(self, spec: SelectTarget, attrs: Attrs, now: datetime | None) -> Selected:
        """What fits, by a score that is drawn from experience, or for some tasks to gain it."""
        if now is None:
            return _timeless()
        asked = self._asked(spec, attrs, now)
        fit, left_out = self._candidates(asked)
        judged = [self._judged(each, asked) for each in fit]
        ordered = sorted(judged, key=_to_learn(asked) if asked.explores else _by_score)
        why = _why(asked, ordered, left_out)
        return Selected(
            targets=_first(each.candidate.target for each in ordered),
            why={"seed": asked.seed, "explores": asked.explores, **why},
        )

    def estimated_tokens(self, attrs: Attrs, now: datetime) -> int:
        """All tokens that a run on such a task is expected to take, before a target is chosen."""
        defaults = Options()
        memory = self._memory(self._refreshed(), defaults.half_life_days, now)
        used = memory.used_by_any(TaskClass.of_attributes(attrs), defaults.min_samples)
        return (used if used is not None and used.total else self._default_usage).total

    # -- what there is to choose from -----------------------------------------------------------------

    def _refreshed(self) -> Knowledge:
        known = self._knowledge()
        if known is not self._known:
            if self._known is None or known.catalogue is not self._known.catalogue:
                self._market = Market(self._settings, known.catalogue, known.sync_id)
            self._known = known
            self._memories.clear()
        return known

    def _asked(self, spec: SelectTarget, attrs: Attrs, now: datetime) -> _Asked:
        known = self._refreshed()
        options = options_of(spec.options)
        return _Asked(
            options=options,
            attrs=attrs,
            now=now,
            memory=self._memory(known, options.half_life_days, now),
            of=TaskClass.of_attributes(attrs),
        )

    def _memory(self, known: Knowledge, half_life_days: float, now: datetime) -> Memory:
        key = (half_life_days, now.replace(minute=0, second=0, microsecond=0))
        if key not in self._memories:
            if len(self._memories) >= _MOST_MEMORIES:
                self._memories.clear()
            self._memories[key] = Memory(known.runs, now=key[1], half_life_days=half_life_days)
        return self._memories[key]

    def _candidates(self, asked: _Asked) -> tuple[list[_Candidate], dict[Target, str]]:
        """What fits, and why the others do not."""
        fit, left_out, needed = [], {}, asked.needed
        standing = self._market.standing(asked.options, asked.now.date())
        for target, (never, context) in standing.items():
            unfit = never or (TOO_SMALL if context is not None and context < needed else None)
            candidate = None if unfit else self._expected(target, asked)
            why = unfit or (_too_dear(candidate, asked) if candidate else None)
            if candidate is None or why is not None:
                left_out[target] = why or ""
            else:
                fit.append(candidate)
        return fit, left_out

    def _expected(self, target: Target, asked: _Asked) -> _Candidate:
        used, by = asked.memory.used(target, asked.of, asked.options.min_samples) or (None, "")
        if used is None or not used.total:
            used, by = self._default_usage, "[selection]"
        longest = max(round(asked.needed), self._settings.selection.expected_context_tokens)
        cost = self._market.cost(target, used, longest, asked.now)
        if cost is not None:
            return _Candidate(target=target, cost=cost, by=f"price now, tokens by {by}")
        record, level = asked.memory.about(target, asked.of, asked.options.min_samples)
        if record.samples >= asked.options.min_samples and record.knows_cost:
            own = Decimal(str(round(record.cost.mean, 9)))
            return _Candidate(target=target, cost=own, by=f"costs of its own runs of {told(level)}")
        return _Candidate(target=target, cost=None, by="nobody")

    @property
    def _default_usage(self) -> ModelUsage:
        expected = self._settings.selection
        return ModelUsage(input=expected.expected_input_tokens, output=expected.expected_output_tokens)

    # -- what experience says -------------------------------------------------------------------------

    def _judged(self, candidate: _Candidate, asked: _Asked) -> _Judged:
        options, target = asked.options, candidate.target
        record, level = asked.memory.about(target, asked.of, options.min_samples)
        is_known = record.samples >= options.min_samples
        key = (asked.seed, str(target)) if is_known else None
        chance = _chance(record, key)
        expected = None if candidate.cost is None else float(candidate.cost)
        cost = _drawn(record.cost, key, "cost") if is_known and record.knows_cost else expected
        hours = _drawn(record.hours, key, "hours") or 0.0
        score = chance * options.success_is_worth - (cost or 0.0) * asked.thrift - hours * options.hour_costs
        return _Judged(
            candidate=candidate,
            samples=record.samples,
            level=level,
            samples_of_all=asked.memory.samples(target),
            chance=chance,
            cost=cost,
            hours=hours,
            score=score,
        )


def _chance(record: Record, key: tuple[str, str] | None) -> float:
    """Of a success: drawn, or without a key expected. Before the first run anything is as likely."""
    won, lost = 1 + record.successes, 1 + max(0.0, record.weight - record.successes)
    return won / (won + lost) if key is None else draws.beta(won, lost, *key, "success")


def _drawn(tally: Tally, key: tuple[str, str] | None, what: str) -> float | None:
    if tally.weight <= 0:
        return None
    return tally.mean if key is None else max(0.0, draws.normal(tally.mean, tally.error, *key, what))


def _by_score(judged: _Judged) -> tuple[bool, float, str]:
    """Best first; whose cost nobody knows comes last."""
    return (judged.cost is None, -judged.score, str(judged.candidate.target))


def _to_learn(asked: _Asked) -> Callable[[_Judged], tuple[bool, float, str]]:
    """Those with too few samples first, and among equals by lot."""

    def key(judged: _Judged) -> tuple[bool, float, str]:
        name = str(judged.candidate.target)
        is_known = judged.samples_of_all >= asked.options.min_samples
        return (is_known, draws.uniform(asked.seed, name, "turn"), name)

    return key


# --- limits and the trace -----------------------------------------------------------------------


def _too_dear(candidate: _Candidate, asked: _Asked) -> str | None:
    most = asked.options.max_cost_per_task
    if most is None:
        return None
    if candidate.cost is None:
        return "nobody knows what it costs"
    return "dearer than max_cost_per_task" if candidate.cost > most else None


def selections(settings: Settings) -> list[Mapping[str, Any]]:
    """All that are written in a configuration, wherever it has targets."""
    return list(_selections_in(settings.model_dump()))


def _selections_in(written: object) -> Iterator[Mapping[str, Any]]:
    if isinstance(written, dict):
        if written.get("select") in (CHEAPEST, ADAPTIVE):
            yield written
        inner: Iterable[object] = written.values()
    else:
        inner = written if isinstance(written, list | tuple) else ()
    for each in inner:
        yield from _selections_in(each)


def memory_span(settings: Settings) -> timedelta:
    """How far back runs count for any selection of a configuration."""
    asked = (each.get("half_life_days", 0) for each in selections(settings))
    return HALF_LIVES * timedelta(days=max([Options().half_life_days, *asked]))


def _first(targets: Iterable[Target]) -> tuple[Target, ...]:
    return tuple(targets)[:MOST_TARGETS]


def _timeless() -> Selected:
    return Selected(targets=(), why="prices and ages need a clock, and there is none here")


def _why(
    asked: _Asked, ordered: Sequence[_Candidate | _Judged], left_out: Mapping[Target, str]
) -> dict[str, Any]:
    """For the trace: who was compared and with what, and how many were not."""
    reasons: defaultdict[str, list[str]] = defaultdict(list)
    for target, why in left_out.items():
        reasons[why].append(str(target))
    return {
        "task": asked.of.shown(),
        "budget_left": asked.budget_left,
        "candidates": [each.shown for each in ordered[:_MOST_SHOWN]],
        "further": max(0, len(ordered) - _MOST_SHOWN),
        "left_out": [
            {"why": why, "count": len(names), "such_as": nsmallest(_MOST_NAMED, names)}
            for why, names in sorted(reasons.items())
        ],
    }
