"""Observe and plan: the snapshot and the configuration in force, put before the pure `planning.plan`.

Decides nothing itself and changes nothing; `apply.py` does what comes out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from adw_modules.config import Settings
from adw_modules.providers import ProviderManager
from adw_modules.routing import Checker, ModelRouter, NoRoute, RoutingDecision
from adw_modules.tasks import planning
from adw_modules.tasks.planning import Action, Limits, Requeue, Route
from coordinator.logs import get_logger
from coordinator.services import Services
from coordinator.settings import LoadedSettings

log = get_logger()


class Planner:
    """Plans for whatever configuration is in force; the router is made anew only when that changed."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._router: tuple[str, Route] | None = None  # with the version of its configuration

    def plan(self, *, live_runs: int, claiming: bool = True) -> list[Action]:
        """Plan over as much of the queue as fills the free slots: more of it only when busy providers hold
        back what stands in front, so that a step costs the same however long the queue is.

        With `claiming=False` nothing new is started, as while paused: the daemon is on its way out.
        """
        store, loaded, now = self._services.store, self._services.loaded, self._services.now()
        limits = limits_of(loaded.settings)
        ready_limit = max(0, limits.max_concurrent - live_runs)
        while True:
            snapshot = store.snapshot(now=now, ready_limit=ready_limit, config_version=loaded.version)
            if not claiming:
                snapshot = replace(snapshot, paused=True)
            actions = planning.plan(snapshot, limits=limits, route=self._route(loaded))
            acted_on = sum(1 for action in actions if not isinstance(action, Requeue))
            held_back = len(snapshot.ready) - acted_on
            if not held_back or snapshot.paused or len(snapshot.ready) < ready_limit:
                return actions
            ready_limit *= 4

    def _route(self, loaded: LoadedSettings) -> Route:
        if self._router is None or self._router[0] != loaded.version:
            services = self._services
            providers = ProviderManager(
                loaded.settings, environ=services.environ, project_root=loaded.project_root
            )
            router = ModelRouter(loaded.settings, providers=providers, now=services.now)
            self._router = (loaded.version, _guarded(router.decide))
        return self._router[1]


def _guarded(route: Route) -> Route:
    """A fault of ours in routing one task parks that task; it must not end daemon after daemon."""

    def decide(attributes: Mapping[str, Any], eligible: Checker) -> RoutingDecision | NoRoute:
        try:
            return route(attributes, eligible)
        except Exception as error:
            log.exception("the routing of a task failed", task=str(attributes.get("task")))
            return NoRoute(reasons=(f"internal error: {type(error).__name__}: {error}",), trace=())

    return decide


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
    )
