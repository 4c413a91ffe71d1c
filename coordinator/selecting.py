"""What selections know, read from the store: the last runs and the catalogue, each once for each state of it.

Decides nothing: `adw_modules.routing.picking` does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime

from adw_modules.config import Settings
from adw_modules.routing import Resolver, Target
from adw_modules.routing.chains import Listing
from adw_modules.routing.market import Knowledge, Market, listing_providers
from adw_modules.routing.picking import Picker, memory_span
from coordinator.store import Store

MOST_RUNS = 2000  # the newest of those that still count; reading them takes tens of milliseconds


def resolvers_of(
    settings: Settings, store: Store | None, now: Callable[[], datetime]
) -> Mapping[str, Resolver]:
    """What works out the selections of a configuration."""
    return picker_of(settings, store, now).resolvers


def picker_of(settings: Settings, store: Store | None, now: Callable[[], datetime]) -> Picker:
    """Selections and estimates of a configuration; without a store by the configuration alone."""
    if store is None:
        nothing = Knowledge()
        return Picker(settings, lambda: nothing)
    return Picker(settings, _Reader(settings, store, now))


def listing_of(settings: Settings, store: Store | None) -> Listing | None:
    """What the synced catalogue says of models; None where no provider takes them from there."""
    providers = listing_providers(settings)
    return _Listing(settings, store, providers) if store is not None and providers else None


class _Listing:
    """Reads the catalogue again only after a sync, and nothing where no such provider is asked about."""

    def __init__(self, settings: Settings, store: Store, providers: frozenset[str]) -> None:
        self._settings = settings
        self._store = store
        self._providers = providers
        self._market = Market(settings, {})
        self._sync_id = 0

    def context_of(self, target: Target) -> int | None:
        return self._read().context_of(target) if target.provider in self._providers else None

    def lists(self, target: Target, capability: str) -> bool:
        return target.provider in self._providers and self._read().lists(target, capability)

    def _read(self) -> Market:
        sync = self._store.last_sync(good=True)
        if sync is not None and sync.sync_id != self._sync_id:
            self._market = Market(self._settings, self._store.catalogue(), sync.sync_id)
            self._sync_id = sync.sync_id
        return self._market


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
