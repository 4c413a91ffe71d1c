"""From what a task is to the provider and model that do it, with the reasons.

Rules are tried in order; the first that matches and whose target is eligible wins; after them come
the defaults. Every rule tried leaves a line in the trace. Eligibility is asked inside the selection,
so that a target that cannot work now is passed over instead of being chosen and failing.
Must not read a clock, start anything or remember anything between two decisions.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from adw_modules.config import CoordinatorSettings, LlmSettings
from adw_modules.errors import ConfigError, CoordinatorError
from adw_modules.providers import ProviderManager, as_mapping
from adw_modules.routing.attributes import Attrs, show
from adw_modules.routing.index import RuleIndex
from adw_modules.routing.rules import Rule, compile_rules
from adw_modules.routing.trace import RuleTrace, StoredDecision, Target, TargetTrace, Trace
from adw_modules.routing.vocabulary import KNOWN, WEEKDAYS

# What a log line always shows of a task; other attributes only when the winning rule looked at them.
SHOWN = ("priority", "labels", "retry_count")
DISABLED = "routing is disabled"

_log = logging.getLogger("adw_modules.routing")

Eligible = Callable[[str, str], str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingDecision:
    """Who does it. `rule` is None when the defaults were used; `reason` is one sentence for people."""

    provider: str
    model: str
    rule: str | None
    reason: str
    trace: Sequence[RuleTrace]

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

    def stored(self) -> StoredDecision:
        """The decision as it is kept with its run: everything written out."""
        record = {
            "rules": list(self.trace),
            "targets": list(self.targets),
            "attrs": dict(self.known),
        }
        return StoredDecision(
            provider=self.provider, model=self.model, rule=self.rule, reason=self.reason, trace=record
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class NoRoute:
    """Nobody can do it now. `reasons` has one entry for each target that was considered."""

    reasons: tuple[str, ...]
    trace: Sequence[RuleTrace]

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


class ModelRouter:
    """The rules of one configuration, ready to decide.

    `ModelRouter(config)` takes the whole configuration, as a dict or as our settings object;
    `ModelRouter(routing, models)` takes the `[routing]` and `[[models]]` tables alone, and then rules
    apply unless `enabled` says otherwise. `now` gives the hour to tasks that carry none; without it,
    conditions on the hour do not match them. `providers` makes availability part of eligibility.
    `enabled` overrides the configuration, to show what the rules would do.
    Raises ConfigError with one sentence for each rule that cannot be used.
    """

    def __init__(
        self,
        config: Any,
        models: Iterable[Mapping[str, Any]] | None = None,
        *,
        providers: ProviderManager | None = None,
        now: Callable[[], datetime] | None = None,
        enabled: bool | None = None,
    ) -> None:
        tables = as_mapping(config)
        if models is not None:
            tables = {"routing": {"enabled": True, **tables}, "models": models}
        routing = tables.get("routing") or {}
        self.enabled: bool = routing.get("enabled", False) if enabled is None else enabled
        self.rules = compile_rules(routing.get("rules") or ())
        self._offered_by = _providers_by_model(tables.get("models") or ())
        self.default = self._default_target(routing, tables.get("llm") or {})
        self._ranked = [
            _Ranked(
                rule=rule,
                target=self.target_of(rule),
                reason=rule.reason or rule.condition.text,
            )
            for rule in self.rules
        ]
        self._index = RuleIndex([rule.condition for rule in self.rules])
        self._asks_status = any("provider_status" in rule.condition.attributes for rule in self.rules)
        own = {name for rule in self.rules for name in rule.condition.attributes if name not in KNOWN}
        self._copied = ("labels", "provider_status", "task", *own)
        self._providers = providers
        self._now = now
        self._timezone = zone_of(
            (tables.get("coordinator") or {}).get("timezone") or CoordinatorSettings().timezone
        )

    def route(self, attrs: Attrs) -> tuple[str, str]:
        """The provider and model for a task, logged in two lines. Raises CoordinatorError if none can."""
        decision = self.choose(attrs)
        _log.info("%s", decision.log_line)
        _log.info("%s", decision.attrs_line)
        return decision.provider, decision.model

    def select_model(self, task: Any) -> str:
        """The model for a task: attributes, or an object with `priority`, `labels`, `error_tracking`."""
        return self.route(task if isinstance(task, Mapping) else _attributes(task))[1]

    def decide(self, attrs: Attrs, eligible: Eligible | None = None) -> RoutingDecision | NoRoute:
        """Who does it and why, or why nobody can.

        `eligible(provider, model)` answers None when the target may be used now, else why not; it is
        asked at most once for each target, and only for those a rule or the defaults lead to.
        """
        known = self._completed(attrs)
        considered: dict[Target, str | None] = {}
        passed_over: dict[int, str] = {}  # where a rule stands -> why its target cannot be used
        for position in self._index.matching(known) if self.enabled else ():
            ranked = self._ranked[position]
            refusal = self._refusal(ranked.target, eligible, considered)
            if refusal is None:
                return RoutingDecision(
                    provider=ranked.target.provider,
                    model=ranked.target.model,
                    rule=ranked.rule.name,
                    reason=ranked.reason,
                    trace=Trace(self.rules, position + 1, passed_over, considered, known),
                )
            passed_over[position] = f"passed over: {ranked.target} is not eligible: {refusal}"
        tried = len(self.rules) if self.enabled else 0
        return self._fall_back(eligible, considered, Trace(self.rules, tried, passed_over, considered, known))

    def choose(self, attrs: Attrs) -> RoutingDecision:
        """Like `decide`, for callers that need a route. Raises CoordinatorError if there is none."""
        decision = self.decide(attrs)
        if isinstance(decision, NoRoute):
            raise CoordinatorError(f"no provider can do it: {decision.reason}")
        return decision

    def target_of(self, rule: Rule) -> Target:
        """Where a rule leads. Without a provider: the one that offers its model, else the default."""
        provider = rule.provider or self._offered_by.get(rule.model or "") or self.default.provider
        return Target(provider, rule.model or self.default.model)

    def _fall_back(
        self,
        eligible: Eligible | None,
        considered: dict[Target, str | None],
        trace: Trace,
    ) -> RoutingDecision | NoRoute:
        if self._refusal(self.default, eligible, considered) is not None:
            reasons = tuple(f"{target}: {refusal}" for target, refusal in considered.items() if refusal)
            return NoRoute(reasons=reasons, trace=trace)
        return RoutingDecision(
            provider=self.default.provider,
            model=self.default.model,
            rule=None,
            reason=self._why_default(considered),
            trace=trace,
        )

    def _why_default(self, considered: Mapping[Target, str | None]) -> str:
        if not self.enabled:
            return DISABLED
        passed_over = any(considered.values())
        return "no eligible target among the rules that matched" if passed_over else "no rule matched"

    def _refusal(
        self, target: Target, eligible: Eligible | None, considered: dict[Target, str | None]
    ) -> str | None:
        if target not in considered:
            considered[target] = self._unavailable(target) or (
                eligible(target.provider, target.model) if eligible else None
            )
        return considered[target]

    def _unavailable(self, target: Target) -> str | None:
        return self._providers.availability(target.provider).reason if self._providers else None

    def _completed(self, attrs: Attrs) -> dict[str, Any]:
        """What the caller knows of the task, plus the time and the providers' state if it left them out.

        Lists and tables are copied: the trace is written from them when somebody looks, maybe later.
        """
        known: dict[str, Any] = dict(attrs)
        for name in self._copied:
            value = known.get(name)
            if value.__class__ in _CHANGEABLE:
                known[name] = value.copy()
        if self._now is not None and ("hour" not in known or "weekday" not in known):
            for name, value in at_local(self._now(), self._timezone).items():
                known.setdefault(name, value)
        if self._asks_status and "provider_status" not in known and self._providers is not None:
            known["provider_status"] = _status(self._providers)
        return known

    @property
    def timezone(self) -> tzinfo:
        """The one that hours and days of the week are of."""
        return self._timezone

    def _default_target(self, routing: Mapping[str, Any], llm: Mapping[str, Any]) -> Target:
        own_model = routing.get("default_model")
        offered = self._offered_by.get(own_model) if own_model else None
        provider = routing.get("default_provider") or offered or llm.get("provider")
        model = own_model or llm.get("model_default")
        return Target(provider or LlmSettings().provider, model or LlmSettings().model_default)


_CHANGEABLE = frozenset({list, dict, set})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ranked:
    """A rule at its place, with what follows from it worked out once."""

    rule: Rule
    target: Target
    reason: str


def at_local(now: datetime, zone: tzinfo) -> dict[str, Any]:
    """Hour and day of the week on the clocks of `zone`, whatever they have been turned to."""
    local = now.astimezone(UTC).astimezone(zone)  # through UTC: a time that a zone skips does not exist
    return {"hour": local.hour, "weekday": WEEKDAYS[local.weekday()]}


def _providers_by_model(models: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The first provider that offers each model, in the order of the file."""
    offered: dict[str, str] = {}
    for model in models:
        if model.get("provider"):
            offered.setdefault(model["name"], model["provider"])
    return offered


def _status(providers: ProviderManager) -> dict[str, str]:
    return {name: "up" if providers.availability(name).available else "down" for name in providers.names}


def zone_of(name: str) -> tzinfo:
    """The time zone of that name. Raises ConfigError when this machine does not know it."""
    if name == "UTC":  # known even where no time zone database is installed
        return UTC
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError) as error:
        raise ConfigError(f'coordinator.timezone: "{name}" is no time zone this machine knows') from error


def _attributes(task: Any) -> dict[str, object]:
    return {
        "priority": task.priority,
        "labels": task.labels,
        "retry_count": task.error_tracking.attempt_count,
        "task": {"id": getattr(task, "id", None)},
    }
