"""What selections know, read from the store: the last runs and the catalogue, each once for each state of it.

Decides nothing: `adw_modules.routing.picking` does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime

from adw_modules.config import Settings
from adw_modules.routing import Resolver
from adw_modules.routing.market import Knowledge
from adw_modules.routing.picking import Picker, memory_span
from coordinator.store import Store

MOST_RUNS = 2000  # the newest of those that still count; reading them takes tens of milliseconds


def resolvers_of(
    settings: Settings, store: Store | None, now: Callable[[], datetime]
) -> Mapping[str, Resolver]:
    """What works out the selections of a configuration; without a store by the configuration alone."""
    if store is None:
        nothing = Knowledge()
        return Picker(settings, lambda: nothing).resolvers
    return Picker(settings, _Reader(settings, store, now)).resolvers


class _Reader:
    """Reads again only what has changed. A selection that nobody asks for reads nothing."""

    def __init__(self, settings: Settings, store: Store, now: Callable[[], datetime]) -> None:
        self._store = store
        self._now = now
        self._span = memory_span(settings)
        self._own_prefix = settings.github.status_label_prefix
        self._known = Knowledge()
        self._last_end: datetime | None = None

    def __call__(self) -> Knowledge:
        last_end, sync = self._store.last_end(), self._store.last_sync(good=True)
        if last_end != self._last_end:
            since = self._now() - self._span
            runs = self._store.experience(since, most=MOST_RUNS, own_prefix=self._own_prefix)
            self._known, self._last_end = replace(self._known, runs=runs), last_end
        if sync is not None and sync.sync_id != self._known.sync_id:
            self._known = replace(self._known, catalogue=self._store.catalogue(), sync_id=sync.sync_id)
        return self._known
