"""What a decision leaves behind: each rule with what came of it, each target with why not.

Must not decide. A trace is written out when somebody looks: a condition is pure, so that its failing clause
is the same then. A decision so costs what it needs, and what is stored and shown is complete.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, overload

from adw_modules.routing.attributes import Attrs
from adw_modules.routing.vocabulary import Path

if TYPE_CHECKING:  # both know what a target is
    from adw_modules.routing.eligibility import Refusal
    from adw_modules.routing.rules import Rule


@dataclass(frozen=True, slots=True)
class Target:
    """A provider and one of its models."""

    provider: str
    model: str

    def __str__(self) -> str:
        return f"{self.provider}/{self.model}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleTrace:
    """One rule that was tried. `why`: the clause that failed, what matched, or why it was passed over."""

    rule: str
    matched: bool
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetTrace:
    """One target of the chain; `why` it is not eligible, and `until` when, if that is known.

    `eligible` None: it was not asked, because one before it is eligible.
    """

    target: str
    eligible: bool | None
    why: str | None
    until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDecision:
    """A decision as it is kept with its run.

    `trace` has `rules`, `targets` (the whole chain), `attrs` (all that it saw), and `selected` where a rule
    had its targets selected: which, and why.
    """

    provider: str
    model: str
    rule: str | None
    reason: str
    trace: Mapping[str, Any]


class Trace(Sequence[RuleTrace]):
    """Every rule that was tried, in order: the first `tried` of `rules`. With targets, and what was seen."""

    __slots__ = ("_considered", "_passed_over", "_rest", "_rules", "_tried", "_written", "attrs", "selected")

    def __init__(
        self,
        rules: Sequence[Rule],
        tried: int,
        passed_over: Mapping[int, str],  # where a rule stands -> why its target cannot be used
        considered: Mapping[Target, Refusal | None],  # None: eligible
        attrs: Attrs,
        *,
        rest: Callable[[], Sequence[Target]] = tuple,  # of the chain, behind those that were considered
        selected: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self._rules = rules
        self._tried = tried
        self._passed_over = passed_over
        self._considered = considered
        self._rest = rest
        self.attrs = attrs
        self.selected = selected
        self._written: tuple[RuleTrace, ...] | None = None

    def _all(self) -> tuple[RuleTrace, ...]:
        if self._written is None:
            seen: dict[Path, str] = {}
            self._written = tuple(self._one(position, seen) for position in range(self._tried))
        return self._written

    def _one(self, position: int, seen: dict[Path, str]) -> RuleTrace:
        rule = self._rules[position]
        match = rule.condition.evaluate(self.attrs, seen)
        why = self._passed_over.get(position, match.clause)
        return RuleTrace(rule=rule.name, matched=match.matched, why=why)

    @property
    def looked_at(self) -> tuple[str, ...]:
        """The attributes that the last rule asked about."""
        return self._rules[self._tried - 1].condition.attributes if self._tried else ()

    @property
    def targets(self) -> tuple[TargetTrace, ...]:
        asked = [
            TargetTrace(target=str(target), eligible=True, why=None)
            if refusal is None
            else TargetTrace(target=str(target), eligible=False, why=refusal.reason, until=refusal.until)
            for target, refusal in self._considered.items()
        ]
        rest = [target for target in self._rest() if target not in self._considered]
        unasked = [TargetTrace(target=str(target), eligible=None, why=None) for target in dict.fromkeys(rest)]
        return (*asked, *unasked)

    def drawn(self, chosen: Target) -> list[dict[str, Any]]:
        """The arms that the task was drawn for. `assigned`: `chosen` is its own target."""
        found = []
        for position, rule in enumerate(self._rules[: self._tried]):
            if rule.experiment is None or not self[position].matched:
                continue
            experiment, arm = rule.experiment
            is_own = (rule.provider, rule.model) == (chosen.provider, chosen.model)
            found.append({"experiment": experiment, "arm": arm, "assigned": is_own})
        return found

    def __len__(self) -> int:
        return self._tried

    @overload
    def __getitem__(self, index: int) -> RuleTrace: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[RuleTrace]: ...
    def __getitem__(self, index: int | slice) -> RuleTrace | Sequence[RuleTrace]:
        return self._all()[index]

    def __iter__(self) -> Iterator[RuleTrace]:
        return iter(self._all())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self._all() == tuple(other)

    def __hash__(self) -> int:
        return hash(self._all())

    def __repr__(self) -> str:
        return repr(self._all())
