"""From what a task is to the provider and model that do it, with the reasons.

Rules are tried in order; the first that matches and whose target is eligible wins; after them come
the defaults. Every rule tried leaves a line in the trace. Eligibility is asked inside the selection,
so that a target that cannot work now is passed over instead of being chosen and failing.
Must not read a clock, start anything or remember anything between two decisions.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from adw_modules.config import CoordinatorSettings, LlmSettings
from adw_modules.errors import ConfigError, CoordinatorError
from adw_modules.providers import ProviderManager, as_mapping
from adw_modules.routing.attributes import Attrs, show
from adw_modules.routing.rules import Rule, compile_rules

# What a log line always shows of a task; other attributes only when the winning rule looked at them.
SHOWN = ("priority", "labels", "retry_count")
DISABLED = "routing is disabled"

_log = logging.getLogger("adw_modules.routing")

Eligible = Callable[[str, str], str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleTrace:
    """One rule that was tried. `why`: the clause that failed, what matched, or why it was passed over."""

    rule: str
    matched: bool
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingDecision:
    """Who does it. `rule` is None when the defaults were used; `reason` is one sentence for people."""

    provider: str
    model: str
    rule: str | None
    reason: str
    trace: tuple[RuleTrace, ...]
    attrs_line: str  # "  Task attrs: {…}"
    attrs: Mapping[str, Any] = field(default_factory=dict, compare=False)  # the same as data

    @property
    def log_line(self) -> str:
        target = f"{self.provider}/{self.model}"
        if self.rule:
            return f"✓ Rule matched: {self.rule} → {target}"
        why = self.reason[:1].upper() + self.reason[1:]
        return f"{'' if self.reason == DISABLED else '✗ '}{why} → {target} (default)"


@dataclass(frozen=True, slots=True, kw_only=True)
class NoRoute:
    """Nobody can do it now. `reasons` has one entry for each target that was considered."""

    reasons: tuple[str, ...]
    trace: tuple[RuleTrace, ...]

    @property
    def reason(self) -> str:
        return "; ".join(self.reasons)


@dataclass(frozen=True, slots=True)
class Target:
    """A provider and one of its models."""

    provider: str
    model: str

    def __str__(self) -> str:
        return f"{self.provider}/{self.model}"


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
        self._ranked = [(rule, self.target_of(rule)) for rule in self.rules]
        self._asks_status = any("provider_status" in rule.condition.attributes for rule in self.rules)
        self._providers = providers
        self._now = now
        self._timezone = _timezone(tables.get("coordinator") or {})

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
        refusals: dict[Target, str | None] = {}
        trace: list[RuleTrace] = []
        for rule, target in self._ranked if self.enabled else ():
            match = rule.condition.evaluate(known)
            if not match.matched:
                trace.append(RuleTrace(rule=rule.name, matched=False, why=match.clause))
                continue
            refusal = self._refusal(target, eligible, refusals)
            if refusal is None:
                trace.append(RuleTrace(rule=rule.name, matched=True, why=match.clause))
                return _decision(rule, target, known, trace)
            trace.append(
                RuleTrace(
                    rule=rule.name, matched=True, why=f"passed over: {target} is not eligible: {refusal}"
                )
            )
        return self._fall_back(known, eligible, refusals, trace)

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
        known: Attrs,
        eligible: Eligible | None,
        refusals: dict[Target, str | None],
        trace: list[RuleTrace],
    ) -> RoutingDecision | NoRoute:
        if self._refusal(self.default, eligible, refusals) is None:
            return _decision(None, self.default, known, trace, reason=self._why_default(refusals))
        reasons = tuple(f"{target}: {refusal}" for target, refusal in refusals.items() if refusal)
        return NoRoute(reasons=reasons, trace=tuple(trace))

    def _why_default(self, refusals: Mapping[Target, str | None]) -> str:
        if not self.enabled:
            return DISABLED
        passed_over = any(refusals.values())
        return "no eligible target among the rules that matched" if passed_over else "no rule matched"

    def _refusal(
        self, target: Target, eligible: Eligible | None, refusals: dict[Target, str | None]
    ) -> str | None:
        if target not in refusals:
            refusals[target] = self._unavailable(target) or (
                eligible(target.provider, target.model) if eligible else None
            )
        return refusals[target]

    def _unavailable(self, target: Target) -> str | None:
        return self._providers.availability(target.provider).reason if self._providers else None

    def _completed(self, attrs: Attrs) -> Attrs:
        """What the caller knows of the task, plus the hour and the providers' state if it left them out."""
        known = dict(attrs)
        if "hour" not in known and self._now is not None:
            known["hour"] = self._now().astimezone(self._timezone).hour
        if self._asks_status and "provider_status" not in known and self._providers is not None:
            known["provider_status"] = _status(self._providers)
        return known

    def _default_target(self, routing: Mapping[str, Any], llm: Mapping[str, Any]) -> Target:
        own_model = routing.get("default_model")
        offered = self._offered_by.get(own_model) if own_model else None
        provider = routing.get("default_provider") or offered or llm.get("provider")
        model = own_model or llm.get("model_default")
        return Target(provider or LlmSettings().provider, model or LlmSettings().model_default)


def _decision(
    rule: Rule | None, target: Target, known: Attrs, trace: list[RuleTrace], *, reason: str = ""
) -> RoutingDecision:
    looked_at = rule.condition.attributes if rule else ()
    shown = {name: known[name] for name in dict.fromkeys((*SHOWN, *looked_at)) if name in known}
    return RoutingDecision(
        provider=target.provider,
        model=target.model,
        rule=rule.name if rule else None,
        reason=(rule.reason or rule.condition.text) if rule else reason,
        trace=tuple(trace),
        attrs_line=f"  Task attrs: {show(shown)}",
        attrs=shown,
    )


def _providers_by_model(models: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The first provider that offers each model, in the order of the file."""
    offered: dict[str, str] = {}
    for model in models:
        if model.get("provider"):
            offered.setdefault(model["name"], model["provider"])
    return offered


def _status(providers: ProviderManager) -> dict[str, str]:
    return {name: "up" if providers.availability(name).available else "down" for name in providers.names}


def _timezone(coordinator: Mapping[str, Any]) -> tzinfo:
    name = coordinator.get("timezone") or CoordinatorSettings().timezone
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
