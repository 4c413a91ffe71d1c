"""What a decision is: a target with its reasons, or nobody. Must not decide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from adw_modules.routing.attributes import show
from adw_modules.routing.eligibility import Refusal, earliest
from adw_modules.routing.trace import RuleTrace, StoredDecision, Target, TargetTrace, Trace
from adw_modules.routing.workflows import Workflow

# What a log line always shows of a task; other attributes only when the winning rule looked at them.
SHOWN = ("priority", "labels", "retry_count")
DISABLED = "routing is disabled"


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingDecision:
    """Who does it. `rule` is None when the defaults were used; `reason` is one sentence for people.

    `workflow`: the one that a label asked for.
    """

    provider: str
    model: str
    rule: str | None
    reason: str
    trace: Sequence[RuleTrace]
    workflow: Workflow | None = None

    @property
    def log_line(self) -> str:
        target = f"{self.provider}/{self.model}"
        if self.rule:
            return f"✓ Rule matched: {self.rule} → {target}"
        why = self.reason[:1].upper() + self.reason[1:]
        return f"{'' if self.reason == DISABLED else '✗ '}{why} → {target} (default)"

    @property
    def attrs(self) -> dict[str, Any]:
        """What the log shows of the task: the usual ones, and what the rule looked at."""
        known = self.known
        looked_at = self.trace.looked_at if self.rule and isinstance(self.trace, Trace) else ()
        names = dict.fromkeys((*SHOWN, *looked_at))
        return {name: known[name] for name in names if name in known}

    @property
    def known(self) -> Mapping[str, Any]:
        """All that the decision saw of the task."""
        return self.trace.attrs if isinstance(self.trace, Trace) else {}

    @property
    def attrs_line(self) -> str:
        return f"  Task attrs: {show(self.attrs)}"

    @property
    def targets(self) -> tuple[TargetTrace, ...]:
        """Each target that was considered, in that order: eligible, or why not."""
        return self.trace.targets if isinstance(self.trace, Trace) else ()

    @property
    def selected(self) -> Sequence[Mapping[str, Any]]:
        """Each selection that was worked out: which, its targets, and why."""
        return self.trace.selected if isinstance(self.trace, Trace) else ()

    def stored(self) -> StoredDecision:
        """The decision as it is kept with its run: everything written out."""
        record: dict[str, Any] = {
            "rules": list(self.trace),
            "targets": list(self.targets),
            "attrs": dict(self.known),
        }
        if isinstance(self.trace, Trace) and self.trace.selected:
            record["selected"] = list(self.trace.selected)
        if isinstance(self.trace, Trace) and (drawn := self.trace.drawn(Target(self.provider, self.model))):
            record["experiments"] = drawn
        if self.workflow is not None:
            record["workflow"] = self.workflow.stored()
        return StoredDecision(
            provider=self.provider, model=self.model, rule=self.rule, reason=self.reason, trace=record
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class NoRoute:
    """Nobody can do it now. `reasons` has one entry for each target that was considered.

    `until`: when the first of them may be eligible, if that is known. `is_busy`: one is when a run has ended.
    `over_budget`: the sentences of budgets, each once, where nothing else is in the way; else empty.
    `may_end`: one may be eligible at any time before `until`, and only looking again shows it.
    """

    reasons: tuple[str, ...]
    trace: Sequence[RuleTrace]
    until: datetime | None = None
    is_busy: bool = False
    over_budget: tuple[str, ...] = ()
    may_end: bool = False

    @property
    def known(self) -> Mapping[str, Any]:
        """All that the decision saw of the task."""
        return self.trace.attrs if isinstance(self.trace, Trace) else {}

    @property
    def reason(self) -> str:
        return "; ".join(self.reasons)

    @property
    def targets(self) -> tuple[TargetTrace, ...]:
        return self.trace.targets if isinstance(self.trace, Trace) else ()

    @property
    def selected(self) -> Sequence[Mapping[str, Any]]:
        return self.trace.selected if isinstance(self.trace, Trace) else ()


def no_route(considered: Mapping[Target, Refusal | None], trace: Trace) -> NoRoute:
    """Nobody of these."""
    refused = {target: refusal for target, refusal in considered.items() if refusal}
    sentences = dict.fromkeys(refusal.reason for refusal in refused.values())
    return NoRoute(
        reasons=tuple(f"{target}: {refusal}" for target, refusal in refused.items()),
        trace=trace,
        until=earliest(list(refused.values())),
        is_busy=any(refusal.is_busy for refusal in refused.values()),
        over_budget=tuple(sentences) if all(r.is_over_budget for r in refused.values()) else (),
        may_end=any(refusal.may_end for refusal in refused.values()),
    )
