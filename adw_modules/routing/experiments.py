"""Who takes part in an experiment and in which arm, by a hash of the issue; and the rules that follow.

An arm is a rule like any other, before all that are written: it matches the tasks that are drawn for it, so
that traces, eligibility and `route lint` treat it as one. Nothing is remembered: the draw depends on the
experiment's name and the issue alone. Must not know what came of a run (`trials.py` does).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from adw_modules.errors import ConfigError
from adw_modules.routing.attributes import Attrs, show
from adw_modules.routing.clauses import Clause, Condition, ConditionError
from adw_modules.routing.meaning import Drawn
from adw_modules.routing.rules import DEFAULT_PRIORITY, Rule, condition_of
from adw_modules.routing.targets import FixedTarget, target_spec
from adw_modules.routing.vocabulary import Path

PREFIX = "experiment "


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """How the issues are dealt out: `share` of them (0 to 1) take part, the arms get theirs by weight."""

    experiment: str
    share: float
    arms: tuple[tuple[str, int], ...]

    def arm_of(self, attrs: Attrs) -> str | None:
        """The arm of a task; None when it does not take part or is not said to be any issue.

        Another share, weight or arm moves no more tasks than it must: who takes part goes on to do so when
        the share grows, and an arm that comes or goes moves only those that were or become its own.
        """
        issue = _issue(attrs)
        if issue is None or _fraction(f"share\0{self.experiment}\0{issue}") >= self.share:
            return None
        return max(self.arms, key=lambda arm: (self._score(issue, *arm), arm[0]))[0]

    def _score(self, issue: str, arm: str, weight: int) -> float:
        """Weighted rendezvous hashing: each arm is highest for its weight's share of all issues."""
        return weight / -math.log(_fraction(f"arm\0{self.experiment}\0{issue}\0{arm}"))


def _issue(attrs: Attrs) -> str | None:
    """What stays the same for an issue for ever: the repository's number survives that it is renamed."""
    task = attrs.get("task")
    if not isinstance(task, Mapping):
        return None
    repo, number = task.get("repo_id") or task.get("repo") or attrs.get("repo"), task.get("number")
    if number is None:
        repo, number = None, task.get("id")
    if number is None:
        return None
    return f"{str(repo).casefold()}#{number}" if repo is not None else str(number)


def _fraction(text: str) -> float:
    """In (0, 1), evenly spread, and exact in a float."""
    digest = hashlib.sha256(text.encode(errors="replace")).digest()
    return (int.from_bytes(digest[:6]) + 0.5) / 2**48


@dataclass(frozen=True, slots=True, kw_only=True)
class _ArmClause(Clause):
    """Says of a task that it is in another arm, or in none."""

    draw: Draw

    def failure(self, attrs: Attrs, seen: dict[Path, str]) -> str:
        arm = self.draw.arm_of(attrs)
        why = "it is in no arm: not in the share" if arm is None else f"it is in arm {arm}"
        return f"{self.text} ({why if _issue(attrs) is not None else 'no issue is known'})"


def arm_name(experiment: str, arm: str) -> str:
    """What logs, traces and cost reports call an arm."""
    return f"{PREFIX}{experiment}: {arm}"


def experiment_rules(written: Iterable[Mapping[str, Any]]) -> Iterator[Rule]:
    """A rule for each arm, in the order of the file. Raises ConfigError for what cannot be used."""
    for table in written:
        try:
            yield from _rules(table)
        except ConditionError as error:
            raise ConfigError(f'experiment "{table.get("name")}": {error}') from error


def _rules(table: Mapping[str, Any]) -> Iterator[Rule]:
    name, arms = table["name"], list(table.get("arms") or ())
    draw = Draw(
        experiment=str(name),
        share=float(table.get("share", 1)),
        arms=tuple((arm["name"], arm.get("weight", 1)) for arm in arms),
    )
    who = condition_of(table)
    for arm in arms:
        target = FixedTarget(provider=arm["provider"], model=arm["model"])
        condition = Condition(clauses=(*who.clauses, _drawn(draw, arm["name"])))
        yield Rule(
            name=arm_name(name, arm["name"]),
            priority=DEFAULT_PRIORITY,
            condition=condition,
            written=condition.text,
            provider=target.provider,
            model=target.model,
            reason=f"arm {arm['name']} of the experiment {name}",
            targets=(target,),
            fallbacks=tuple(map(target_spec, arm.get("fallbacks") or ())),
            experiment=(name, arm["name"]),
        )


def _drawn(draw: Draw, arm: str) -> _ArmClause:
    return _ArmClause(
        text=f"is drawn for arm {arm}, with a share of {show(draw.share)}",
        meaning=Drawn(experiment=draw.experiment, arm=arm),
        paths=(),
        test=lambda attrs: draw.arm_of(attrs) == arm,
        draw=draw,
    )
