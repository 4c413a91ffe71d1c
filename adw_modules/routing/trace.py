"""What a decision leaves behind: each rule with what came of it, each target with why not.

Must not decide. A trace is written out when somebody looks: a condition is pure, so that its failing clause
is the same then. A decision so costs what it needs, and what is stored and shown is complete.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

from adw_modules.routing.attributes import Attrs
from adw_modules.routing.rules import Rule
from adw_modules.routing.vocabulary import Path


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
    """One target that was considered; `why` it is not eligible."""

    target: str
    eligible: bool
    why: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDecision:
    """A decision as it is kept with its run. `trace` has `rules`, `targets` and `attrs`, all that it saw."""

    provider: str
    model: str
    rule: str | None
    reason: str
    trace: Mapping[str, Any]


class Trace(Sequence[RuleTrace]):
    """Every rule that was tried, in order: the first `tried` of `rules`. With targets, and what was seen."""

    __slots__ = ("_considered", "_passed_over", "_rules", "_tried", "_written", "attrs")

    def __init__(
        self,
        rules: Sequence[Rule],
        tried: int,
        passed_over: Mapping[int, str],  # where a rule stands -> why its target cannot be used
        considered: Mapping[Target, str | None],  # None: eligible
        attrs: Attrs,
    ) -> None:
        self._rules = rules
        self._tried = tried
        self._passed_over = passed_over
        self._considered = considered
        self.attrs = attrs
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
        return tuple(
            TargetTrace(target=str(target), eligible=why is None, why=why)
            for target, why in self._considered.items()
        )

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
