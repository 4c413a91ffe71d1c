"""Observe and plan: the snapshot and the configuration in force, put before the pure `planning.plan`.

Decides nothing itself and changes nothing; `apply.py` does what comes out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from adw_modules.config import Settings
from adw_modules.providers import ProviderManager
from adw_modules.routing import Checker, ModelRouter, NoRoute, RoutingDecision
from adw_modules.routing.attributes import Attrs
from adw_modules.routing.circuits import Circuits, Status, status
from adw_modules.routing.picking import Picker
from adw_modules.routing.rates import Rates
from adw_modules.tasks import planning
from adw_modules.tasks.model import Task
from adw_modules.tasks.planning import Action, Limits, Requeue, Route, Supply
from adw_modules.tasks.quotas import Caps, Day, day_of, keys
from coordinator.breakers import Breakers
from coordinator.budgeting import Gate, gate_of
from coordinator.logs import get_logger
from coordinator.rechecks import BeforeStart
from coordinator.selecting import listing_of, picker_of
from coordinator.services import Services
from coordinator.settings import LoadedSettings
from coordinator.store import Store

log = get_logger()


class Planner:
    """Plans for whatever configuration is in force; the router is made anew only when that changed."""

    def __init__(self, services: Services, breakers: Breakers, rechecks: BeforeStart) -> None:
        self._services = services
        self._breakers = breakers
        self._today = Today(services.store)
        self._rechecks = rechecks
        # With the version of their configuration.
        self._made: tuple[str, ModelRouter, ProviderManager, Picker] | None = None

    def plan(self, *, live_runs: int, claiming: bool = True) -> list[Action]:
        """Plan over as much of the queue as fills the free slots: more of it only when busy providers hold
        back what stands in front, so that a step costs the same however long the queue is.

        With `claiming=False` nothing new is started, as while paused: the daemon is on its way out.
        """
        router, providers, picker = self._routed_by(self._services.loaded)
        with providers.looked_at_once():  # it looks at files, which would be done for each task of a queue
            return self._planned(router, picker, live_runs=live_runs, claiming=claiming)

    def _planned(
        self, router: ModelRouter, picker: Picker, *, live_runs: int, claiming: bool
    ) -> list[Action]:
        store, loaded, now = self._services.store, self._services.loaded, self._services.now()
        limits = limits_of(loaded.settings)
        gate = gate_of(store, loaded.settings, now)
        route, supply = _guarded(router.decide), supply_of(router, self._breakers, gate)
        supply = replace(
            supply,
            estimated_tokens=estimate_for(router, picker, now),
            closed=closed_of(self._services),
            today=self._today.look(limits.caps, ZoneInfo(loaded.settings.coordinator.timezone), now),
        )
        ready_limit = max(0, limits.max_concurrent - live_runs)
        while True:
            # Those that GitHub is being asked about stand in front and take nobody's turn.
            seen = ready_limit + self._rechecks.waiting if ready_limit else 0
            snapshot = store.snapshot(now=now, ready_limit=seen, config_version=loaded.version)
            if not claiming:
                snapshot = replace(snapshot, paused=True)
            if not snapshot.paused:
                snapshot = self._rechecks.sift(snapshot)
            actions = planning.plan(snapshot, limits=limits, route=route, supply=supply)
            acted_on = sum(1 for action in actions if not isinstance(action, Requeue))
            held_back = len(snapshot.ready) - acted_on
            is_seen = not held_back or snapshot.paused or len(snapshot.ready) < ready_limit
            if is_seen or planning.is_full(snapshot, limits, actions):
                return actions
            ready_limit *= 4

    def _routed_by(self, loaded: LoadedSettings) -> tuple[ModelRouter, ProviderManager, Picker]:
        if self._made is None or self._made[0] != loaded.version:
            services = self._services
            providers = services.providers()
            picker = picker_of(loaded.settings, services.store, services.now)
            router = ModelRouter(
                loaded.settings,
                providers=providers,
                now=services.now,
                statuses=lambda: statuses_of(router, providers, self._breakers.circuits, services.now()),
                resolvers=picker.resolvers,
                listing=listing_of(loaded.settings, services.store),
            )
            self._made = (loaded.version, router, providers, picker)
        return self._made[1:]


class Today:
    """The runs of this day. Reads only those that are new since the last look."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._day: tuple[datetime, Day] | None = None  # with its beginning
        self._last_run = 0

    def look(self, caps: Caps, zone: tzinfo, now: datetime) -> Day | None:
        """None where nothing limits them."""
        if not caps.is_daily:
            return None
        start, end = day_of(now, zone)
        if self._day is None or self._day[0] != start:
            self._day, self._last_run = (start, Day(ends_at=end)), 0
        for run_id, *ids in self._store.runs_begun(after=self._last_run, since=start):
            self._day[1].counts.update(keys(*ids))
            self._last_run = run_id
        return self._day[1]


def closed_of(services: Services) -> Callable[[Task], str | None]:
    """Why nothing may be started for a task, as long as everybody can see its repository.

    Cheap for a private one, as it is asked for each task of a plan.
    """

    def closed(task: Task) -> str | None:
        if not services.openness.is_public(task.repo):
            return None
        repository = services.repository(task.repo)
        return services.openness.why_closed(repository) if repository else None

    return closed


def estimate_for(router: ModelRouter, picker: Picker, now: datetime) -> Callable[[Attrs], int] | None:
    """What estimates the tokens of a task; None where no rule asks, so that no history is read for it."""
    if not router.asks("estimated_tokens"):
        return None
    return lambda attrs: picker.estimated_tokens(attrs, now)


def supply_of(router: ModelRouter, breakers: Breakers, gate: Gate | None = None) -> Supply:
    """What a plan is told of the targets and budgets at this moment."""
    return Supply(
        circuits=breakers.circuits,
        windows=breakers.windows,
        context_window=router.chains.context_window,
        checks=(gate.checker,) if gate else (),
        budget_left=gate.left if gate else None,
    )


def statuses_of(
    router: ModelRouter, providers: ProviderManager, circuits: Circuits, now: datetime
) -> dict[str, str]:
    """How each provider is: up, degraded, cooling or down."""
    return {
        name: status(circuits, name, router.models_of(name), now=now).value
        if providers.availability(name).available
        else Status.DOWN.value
        for name in providers.names
    }


def _guarded(route: Route) -> Route:
    """A fault of ours in routing one task parks that task; it must not end daemon after daemon."""

    def decide(attributes: Mapping[str, Any], eligible: Checker) -> RoutingDecision | NoRoute:
        try:
            return route(attributes, eligible)
        except Exception as error:
            log.exception("the routing of a task failed", task=str(attributes.get("task")))
            return NoRoute(reasons=(f"internal error: {type(error).__name__}: {error}",), trace=())

    return decide


def working_context(settings: Settings) -> int:
    """Tokens of context that a task is configured to need beside its prompt; 0 where nobody has said so.

    The default is for prices: taken for a need, it would refuse every smaller model unasked.
    """
    selection = settings.selection
    is_said = "expected_context_tokens" in selection.model_fields_set
    return selection.expected_context_tokens if is_said else 0


def limits_of(settings: Settings) -> Limits:
    """What a configuration allows a plan."""
    return Limits(
        max_concurrent=settings.coordinator.max_concurrent_workers,
        max_runs_per_issue=settings.coordinator.max_runs_per_issue,
        max_tokens_per_issue=settings.coordinator.max_tokens_per_issue,
        per_provider={
            name: provider.max_concurrent_runs
            for name, provider in settings.providers.items()
            if provider.max_concurrent_runs is not None
        },
        own_label_prefix=settings.github.status_label_prefix,
        override_labels=settings.routing.override_labels,
        working_context=working_context(settings),
        rates={
            name: Rates(requests=provider.requests_per_minute, tokens=provider.tokens_per_minute)
            for name, provider in settings.providers.items()
        },
        caps=Caps(
            repository=settings.limits.runs_per_repository_per_day,
            author=settings.limits.runs_per_author_per_day,
            labeller=settings.limits.runs_per_labeller_per_day,
            retrigger=timedelta(minutes=settings.limits.retrigger_minutes),
        ),
        reserved_high_priority=settings.coordinator.reserved_high_priority_workers,
    )
