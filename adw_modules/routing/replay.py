"""What another configuration would have decided for recorded tasks, and what that would have come to.

Estimates rest on own runs of the new target alone: where there are too few, nothing is estimated, and that
is said. Must not read the store or a file. What was eligible at the time is known only from the recorded
traces: whatever else is configured and enabled counts as eligible.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from adw_modules.catalogue.rankings import NOT_THE_MODEL
from adw_modules.routing.decision import NoRoute, RoutingDecision
from adw_modules.routing.eligibility import Checker, Refusal
from adw_modules.routing.evidence import Amount, Interval, wilson, z_of
from adw_modules.routing.selection import ModelRouter
from adw_modules.routing.trace import Target
from adw_modules.tasks.model import Outcome

CONFIDENCE = 0.95
FEWEST = 5  # runs of a target before anything is estimated by them
MOST_EXAMPLES = 3
DISABLED = "disabled"  # the one reason in a trace that is the configuration's and not the time's


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """One decision that led to a run. `attrs` None: of a time before they were kept."""

    task: str
    target: Target
    rule: str | None
    attrs: Mapping[str, Any] | None
    refused: Mapping[str, str]  # target -> why it was not eligible
    outcome: Outcome | None
    cost: Decimal | None
    at: datetime


@dataclass(slots=True, kw_only=True)
class History:
    """The own runs of one target that say something about it."""

    succeeded: int = 0
    failed: int = 0
    costs: list[float] = field(default_factory=list)

    def add(self, outcome: Outcome | None, cost: Decimal | None) -> None:
        if outcome is None or outcome in NOT_THE_MODEL:
            return
        self.succeeded += outcome is Outcome.SUCCEEDED
        self.failed += outcome is not Outcome.SUCCEEDED
        if cost is not None:
            self.costs.append(float(cost))

    @property
    def runs(self) -> int:
        return self.succeeded + self.failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A difference, new minus recorded. `of` decisions that it covers; `unknown` are left out of it."""

    difference: float | None  # None: nothing is known
    interval: Interval | None
    of: int
    unknown: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Decisions that go from one target to another (None: to nobody), by the same two rules."""

    before: str
    after: str | None
    old_rule: str | None
    new_rule: str | None
    count: int
    examples: tuple[str, ...]
    why: str
    cost: Estimate
    success: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """All of it. Changes with the most decisions come first."""

    decisions: int
    tasks: int
    not_replayable: int
    same: int
    other_rule: int  # the same target, by another rule
    changes: tuple[Change, ...]
    missing: Mapping[str, int]  # attribute that the new rules ask about -> decisions that did not keep it
    cost: Estimate
    success: Estimate

    @property
    def changed(self) -> int:
        return sum(change.count for change in self.changes)


@dataclass(slots=True, kw_only=True)
class _Group:
    why: str
    members: list[Recorded] = field(default_factory=list)


def replay(
    router: ModelRouter,
    recorded: Iterable[Recorded],
    history: Mapping[Target, History],
    *,
    why_not: Callable[[str], str | None],
) -> Replay:
    """Decide all of it again. `why_not(provider)`: why the new configuration has no use for it."""
    groups: dict[tuple[Target, Target | None, str | None, str | None], _Group] = {}
    seen: Counter[str] = Counter()
    tasks, missing, asked = set(), Counter[str](), _asked(router)
    for each in recorded:
        seen["all"] += 1
        tasks.add(each.task)
        if each.attrs is None:
            seen["not_replayable"] += 1
            continue
        missing.update(name for name in asked if name not in each.attrs)
        decision = router.decide(each.attrs, _eligible(each.refused, why_not))
        after, rule = _came_to(decision)
        if after == each.target:
            seen["same"] += 1
            seen["other_rule"] += rule != each.rule
            continue
        key = (each.target, after, each.rule, rule)
        groups.setdefault(key, _Group(why=decision.reason)).members.append(each)
    changes = [_change(key, group, history) for key, group in groups.items()]
    moved = _by_target(groups)
    return Replay(
        decisions=seen["all"],
        tasks=len(tasks),
        not_replayable=seen["not_replayable"],
        same=seen["same"],
        other_rule=seen["other_rule"],
        changes=tuple(sorted(changes, key=lambda change: -change.count)),
        missing=dict(missing),
        cost=cost_difference(moved, history),
        success=success_difference(moved, history),
    )


def _asked(router: ModelRouter) -> tuple[str, ...]:
    """What the conditions of the rules look at."""
    if not router.enabled:
        return ()
    return tuple(dict.fromkeys(name for rule in router.rules for name in rule.condition.attributes))


def _eligible(refused: Mapping[str, str], why_not: Callable[[str], str | None]) -> Checker:
    def check(target: Target, _attrs: Mapping[Any, Any]) -> Refusal | None:
        why = why_not(target.provider) or refused.get(str(target))
        return Refusal(why) if why else None

    return check


def _came_to(decision: RoutingDecision | NoRoute) -> tuple[Target | None, str | None]:
    if isinstance(decision, NoRoute):
        return None, None
    return Target(decision.provider, decision.model), decision.rule


def _change(
    key: tuple[Target, Target | None, str | None, str | None],
    group: _Group,
    history: Mapping[Target, History],
) -> Change:
    before, after, old_rule, new_rule = key
    moved = {after: group.members}
    return Change(
        before=str(before),
        after=None if after is None else str(after),
        old_rule=old_rule,
        new_rule=new_rule,
        count=len(group.members),
        examples=tuple(dict.fromkeys(each.task for each in group.members))[:MOST_EXAMPLES],
        why=group.why,
        cost=cost_difference(moved, history),
        success=success_difference(moved, history),
    )


Moved = Mapping[Target | None, Sequence[Recorded]]  # where to -> what


def _by_target(
    groups: Mapping[tuple[Target, Target | None, str | None, str | None], _Group],
) -> Moved:
    """All that goes to one target together: what is not known of it is one error, not many that even out."""
    moved: dict[Target | None, list[Recorded]] = defaultdict(list)
    for (_, after, _, _), group in groups.items():
        moved[after] += group.members
    return moved


def cost_difference(moved: Moved, history: Mapping[Target, History]) -> Estimate:
    """US dollars: what runs of the new targets cost on average, less what these runs did cost.

    The interval is that of a sum of so many further runs, normal; it holds the better the more they are.
    """
    total, variance, covered, unknown = 0.0, 0.0, 0, 0
    for target, members in moved.items():
        paid = [float(each.cost) for each in members if each.cost is not None]
        found = history.get(target) if target else None
        amount = Amount.of(found.costs) if found and len(found.costs) >= FEWEST else None
        unknown += len(members) - (len(paid) if amount else 0)
        if amount and paid:
            covered += len(paid)
            total += len(paid) * amount.mean - sum(paid)
            variance += amount.variance_of_sum(len(paid))
    half = z_of(CONFIDENCE) * math.sqrt(variance)
    return _estimate(total, Interval(total - half, total + half), covered, unknown)


def success_difference(moved: Moved, history: Mapping[Target, History]) -> Estimate:
    """Expected successes with the new targets, less those that there were; runs that say nothing left out.

    The rates are known within Wilson's interval; the parts of several targets are put together by squares
    (Newcombe). Chance in the further runs themselves is not in it: it is about what to expect.
    """
    total, low, high, covered, unknown = 0.0, 0.0, 0.0, 0, 0
    for target, members in moved.items():
        ended = [each for each in members if each.outcome is not None and each.outcome not in NOT_THE_MODEL]
        found = history.get(target) if target else None
        if found is None or found.runs < FEWEST or not ended:
            unknown += len(members)
            continue
        rate, n = found.succeeded / found.runs, len(ended)
        bounds = wilson(found.succeeded, found.runs, CONFIDENCE)
        covered, unknown = covered + n, unknown + len(members) - n
        total += n * rate - sum(each.outcome is Outcome.SUCCEEDED for each in ended)
        low += (n * (rate - bounds.low)) ** 2
        high += (n * (bounds.high - rate)) ** 2
    return _estimate(total, Interval(total - math.sqrt(low), total + math.sqrt(high)), covered, unknown)


def _estimate(difference: float, interval: Interval, covered: int, unknown: int) -> Estimate:
    if not covered:
        return Estimate(difference=None, interval=None, of=0, unknown=unknown)
    return Estimate(difference=difference, interval=interval, of=covered, unknown=unknown)
