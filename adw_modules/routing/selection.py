"""From what a task is to the provider and model that do it, with the reasons.

The chain: of each rule that matches, in order, its own targets and its fallbacks; then the defaults. The
first eligible target of the chain wins. Every rule and target tried leaves a line in the trace. Eligibility
is asked inside the selection, so that a target that cannot work now is passed over instead of failing.
Must not read a clock, start anything or remember anything between two decisions.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from adw_modules.config import CoordinatorSettings
from adw_modules.errors import ConfigError, CoordinatorError
from adw_modules.providers import ProviderManager, as_mapping
from adw_modules.routing.attributes import Attrs, is_number
from adw_modules.routing.chains import Chains, Listing
from adw_modules.routing.decision import DISABLED, NoRoute, RoutingDecision, no_route
from adw_modules.routing.eligibility import Checker, Refusal
from adw_modules.routing.index import RuleIndex
from adw_modules.routing.overrides import ATTRIBUTE
from adw_modules.routing.preferences import all_rules
from adw_modules.routing.rules import Rule
from adw_modules.routing.targets import (
    FixedTarget,
    Resolver,
    Selected,
    TargetSpec,
    repeated,
    spread,
)
from adw_modules.routing.trace import Target, Trace
from adw_modules.routing.vocabulary import KNOWN, WEEKDAYS
from adw_modules.routing.workflows import Workflow, workflow_called

_log = logging.getLogger("adw_modules.routing")


class ModelRouter:
    """The rules of one configuration, ready to decide.

    `ModelRouter(config)` takes the whole configuration, as a dict or as our settings object;
    `ModelRouter(routing, models)` takes the `[routing]` and `[[models]]` tables alone, and then rules
    apply unless `enabled` says otherwise. `now` gives the hour to tasks that carry none; without it,
    conditions on the hour do not match them. `providers` makes availability part of eligibility.
    `enabled` overrides the configuration, to show what the rules would do. `statuses` tells how providers
    are, for conditions that ask; without it a provider is up or down as it is available. `resolvers` work
    out selections by their word (`targets.Resolver`). `listing` says what the catalogue knows of models.
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
        statuses: Callable[[], Mapping[str, str]] | None = None,
        resolvers: Mapping[str, Resolver] | None = None,
        listing: Listing | None = None,
    ) -> None:
        tables = as_mapping(config)
        if models is not None:
            tables = {"routing": {"enabled": True, **tables}, "models": models}
        routing = tables.get("routing") or {}
        self._workflows = {"workflows": tables.get("workflows") or {}}
        self.enabled: bool = routing.get("enabled", False) if enabled is None else enabled
        self.rules = all_rules(tables)
        self.chains = Chains(tables, listing)
        self._resolvers = resolvers or {}
        self._ranked = [self._made_ready(rule) for rule in self.rules]
        _refuse_loops(self._ranked, self.chains.defaults)
        self._index = RuleIndex([rule.condition for rule in self.rules])
        self._asks_status = self.asks("provider_status")
        own = {name for rule in self.rules for name in rule.condition.attributes if name not in KNOWN}
        self._copied = ("labels", "provider_status", "task", *own)
        self._providers = providers
        self._statuses = statuses
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

    def decide(self, attrs: Attrs, eligible: Checker | None = None) -> RoutingDecision | NoRoute:
        """Who does it and why, or why nobody can.

        `eligible` is asked at most once for each target, and only for those that stand in the chain before
        the first that is eligible.
        """
        asking = _Asking(eligible, self._completed(attrs))
        override = asking.known.get(ATTRIBUTE)
        if override is not None and isinstance(override, Mapping) and override.get("labels"):
            return self._overridden(override, asking)
        matching = self._index.matching(asking.known) if self.enabled else iter(())
        for position in matching:
            ranked = self._ranked[position]
            chain = ranked.fixed or self._chain(ranked, asking)
            target = self._first(chain, asking, ranked.rule.requires)
            if target is not None:
                rest = _Rest(chain, matching, self._ranked, self.chains.defaults)
                return RoutingDecision(
                    provider=target.provider,
                    model=target.model,
                    rule=ranked.rule.name,
                    reason=ranked.reason,
                    trace=self._trace(asking, position + 1, rest),
                )
            asking.passed_over[position] = asking.why_none(chain)
        return self._fall_back(asking)

    def choose(self, attrs: Attrs) -> RoutingDecision:
        """Like `decide`, for callers that need a route. Raises CoordinatorError if there is none."""
        decision = self.decide(attrs)
        if isinstance(decision, NoRoute):
            raise CoordinatorError(f"no provider can do it: {decision.reason}")
        return decision

    def target_of(self, rule: Rule) -> Target:
        """Where a rule leads first, as far as it is written."""
        return next(iter(self.chains.of(rule)), self.default)

    def targets_of(self, rule: Rule) -> tuple[Target, ...]:
        """All targets that are written in a rule, in their order; none of what is selected for each task."""
        return self.chains.of(rule)

    def models_of(self, provider: str) -> tuple[str, ...]:
        """The models that rules and defaults use of a provider."""
        chains = (*(self.chains.of(rule) for rule in self.rules), self.chains.defaults)
        named = (target.model for chain in chains for target in chain if target.provider == provider)
        return tuple(dict.fromkeys(named))

    def asks(self, attribute: str) -> bool:
        """Whether some rule asks for it."""
        return any(attribute in rule.condition.attributes for rule in self.rules)

    # -- the chain ------------------------------------------------------------------------------------

    def _made_ready(self, rule: Rule) -> _Ranked:
        specs = (*rule.targets, *rule.fallbacks)
        is_fixed = not rule.is_spread and all(isinstance(spec, FixedTarget) for spec in specs)
        return _Ranked(
            rule=rule,
            fixed=self.chains.of(rule) if is_fixed else (),
            written=self.chains.of(rule),
            reason=rule.reason or rule.condition.text,
        )

    def _chain(self, ranked: _Ranked, asking: _Asking) -> tuple[Target, ...]:
        """The targets of a rule for this task: a spread is drawn, a selection is worked out."""
        rule = ranked.rule
        if rule.is_spread:
            fixed = [(self.chains.completed(s), s.weight) for s in rule.targets if isinstance(s, FixedTarget)]
            chain = spread(_seed(asking.known), fixed)
        else:
            chain = [target for spec in rule.targets for target in self._worked_out(spec, asking)]
        chain += [target for spec in rule.fallbacks for target in self._worked_out(spec, asking)]
        return tuple(dict.fromkeys(chain))

    def _worked_out(self, spec: TargetSpec, asking: _Asking) -> Sequence[Target]:
        if isinstance(spec, FixedTarget):
            return (self.chains.completed(spec),)
        resolver = self._resolvers.get(spec.select)
        if resolver is None:
            found = Selected(targets=(), why="nothing here works it out")
        else:
            found = resolver(spec, asking.known, self._now() if self._now else None)
        targets = [str(target) for target in found.targets]
        asking.selected.append({"select": spec.select, "targets": targets, "why": found.why})
        return found.targets

    def _overridden(self, override: Mapping[str, Any], asking: _Asking) -> RoutingDecision | NoRoute:
        """What a person has asked for by label, and nothing else: who asks for a target means that one."""
        name = override.get("workflow")
        workflow = workflow_called(self._workflows, name) if name else None
        if isinstance(workflow, str):
            return NoRoute(reasons=(workflow,), trace=self._trace(asking, 0, _Rest((), iter(()), (), ())))
        target = self._asked_for(override, workflow, asking.known)
        is_eligible = self._first((target,), asking) is not None
        trace = self._trace(asking, 0, _Rest((target,), iter(()), (), ()))
        if not is_eligible:
            return no_route(asking.all_considered, trace)
        return RoutingDecision(
            provider=target.provider,
            model=target.model,
            rule=f"label {', '.join(override['labels'])}",
            reason=f"asked for by {', '.join(dict.fromkeys(override.get('by') or ()))}",
            trace=trace,
            workflow=workflow,
        )

    def _asked_for(self, override: Mapping[str, Any], workflow: Workflow | None, known: Attrs) -> Target:
        """Which halves labels name; what they leave open comes from the workflow that another label asks
        for, and then from where the task would go."""
        positions = self._index.matching(known) if self.enabled else iter(())
        chain = [target for each in positions for target in self._ranked[each].written]
        provider, model = override.get("provider"), override.get("model")
        if workflow is not None:
            # Its provider serves its own model, which need not be the one that somebody asks for.
            provider = provider or (None if model else workflow.provider)
            model = model or workflow.model
        return self.chains.asked_for(provider, model, chain)

    def _fall_back(self, asking: _Asking) -> RoutingDecision | NoRoute:
        why = self._why_default(asking.passed_over)
        tried = len(self.rules) if self.enabled else 0
        target = self._first(self.chains.defaults, asking)
        trace = self._trace(asking, tried, _Rest((), iter(()), (), self.chains.defaults))
        if target is None:
            return no_route(asking.all_considered, trace)
        return RoutingDecision(
            provider=target.provider, model=target.model, rule=None, reason=why, trace=trace
        )

    def _why_default(self, passed_over: Mapping[int, str]) -> str:
        if not self.enabled:
            return DISABLED
        return "no eligible target among the rules that matched" if passed_over else "no rule matched"

    def _trace(self, asking: _Asking, tried: int, rest: _Rest) -> Trace:
        return Trace(
            self.rules,
            tried,
            asking.passed_over,
            asking.all_considered,
            asking.known,
            rest=rest,
            selected=asking.selected,
        )

    # -- eligibility ----------------------------------------------------------------------------------

    def _first(self, chain: Iterable[Target], asking: _Asking, requires: Sequence[str] = ()) -> Target | None:
        """The first target of the chain that can be used now."""
        for target in chain:
            if requires:
                lacks = self.chains.lacks(target, requires)
                if lacks is not None:
                    asking.lacking[target] = lacks
                    continue
            if asking.lacking:
                asking.lacking.pop(target, None)
            if target not in asking.considered:
                asking.considered[target] = self._refusal(target, asking)
            if asking.considered[target] is None:
                return target
        return None

    def _refusal(self, target: Target, asking: _Asking) -> Refusal | None:
        needed = asking.known.get("context_needed")
        return (
            self._unavailable(target)
            or (self.chains.too_small(target, float(needed)) if is_number(needed) else None)
            or (asking.eligible(target, asking.known) if asking.eligible else None)
        )

    def _unavailable(self, target: Target) -> Refusal | None:
        found = self._providers.availability(target.provider) if self._providers else None
        return Refusal(found.reason, may_end=found.may_change) if found and found.reason else None

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
        if "provider_status" not in known:
            if self._statuses is not None:  # also where no rule asks: a later one may, in a replay
                known["provider_status"] = dict(self._statuses())
            elif self._asks_status and self._providers is not None:
                known["provider_status"] = _status(self._providers)
        return known

    @property
    def default(self) -> Target:
        """Where tasks go that no rule has a target for."""
        return self.chains.default

    @property
    def timezone(self) -> tzinfo:
        """The one that hours and days of the week are of."""
        return self._timezone


_CHANGEABLE = frozenset({list, dict, set})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ranked:
    """A rule at its place, with what follows from it worked out once."""

    rule: Rule
    fixed: tuple[Target, ...]  # its chain, where that is the same for every task
    written: tuple[Target, ...]
    reason: str


class _Asking:
    """One decision while it is made. Written out by hand: there is one for every decision."""

    __slots__ = ("considered", "eligible", "known", "lacking", "passed_over", "selected")

    def __init__(self, eligible: Checker | None, known: dict[str, Any]) -> None:
        self.eligible = eligible
        self.known = known
        self.considered: dict[Target, Refusal | None] = {}  # None: eligible
        self.lacking: dict[Target, Refusal] = {}  # for the rule that was asked last about it
        self.passed_over: dict[int, str] = {}  # where a rule stands -> why nobody of it
        self.selected: list[Mapping[str, Any]] = []

    def why_none(self, chain: Iterable[Target]) -> str:
        refused = [(target, self.lacking.get(target) or self.considered[target]) for target in chain]
        why = "; ".join(f"{target} is not eligible: {refusal}" for target, refusal in refused)
        return f"passed over: {why or 'nothing was selected'}"

    @property
    def all_considered(self) -> Mapping[Target, Refusal | None]:
        """Each target that was asked about. A rule's own demand counts only where nothing else was asked."""
        return {**self.lacking, **self.considered} if self.lacking else self.considered


class _Rest:
    """The chain as a whole, worked out when somebody looks."""

    __slots__ = ("_defaults", "_found", "_own", "_positions", "_ranked")

    def __init__(
        self,
        own: Sequence[Target],
        positions: Iterator[int],  # of the rules that match behind the one that won
        ranked: Sequence[_Ranked],
        defaults: Sequence[Target],
    ) -> None:
        self._own = own
        self._positions = positions
        self._ranked = ranked
        self._defaults = defaults
        self._found: tuple[Target, ...] | None = None

    def __call__(self) -> tuple[Target, ...]:
        if self._found is None:
            further = [target for each in self._positions for target in self._ranked[each].written]
            self._found = (*self._own, *further, *self._defaults)
        return self._found


def _refuse_loops(ranked: Iterable[_Ranked], defaults: Sequence[Target]) -> None:
    problems = [
        f'routing rule "{each.rule.name}": {target} stands in its chain twice'
        for each in ranked
        if (target := repeated(each.written)) is not None
    ]
    if (twice := repeated(defaults)) is not None:
        problems.append(f"routing.fallbacks: {twice} stands in the chain of the defaults twice")
    if problems:
        raise ConfigError(problems)


def _seed(known: Attrs) -> str:
    """What a spread is drawn by: the task, and nothing that changes in its life."""
    task = known.get("task")
    return str(task.get("id")) if isinstance(task, Mapping) else ""


def at_local(now: datetime, zone: tzinfo) -> dict[str, Any]:
    """Hour and day of the week on the clocks of `zone`, whatever they have been turned to."""
    local = now.astimezone(UTC).astimezone(zone)  # through UTC: a time that a zone skips does not exist
    return {"hour": local.hour, "weekday": WEEKDAYS[local.weekday()]}


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
