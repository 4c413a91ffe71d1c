"""The circuits of all providers, in memory and in the store; what the last minute asked of each.

A health event is in force as soon as it is noted, whatever the disk says: the next plan sees it. What becomes
of an event is decided in `adw_modules.routing.circuits`. Used on the loop's thread only.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from adw_modules.agents.stream import RateLimit
from adw_modules.config import ProviderSettings
from adw_modules.errors import StoreError
from adw_modules.health import HealthEvent, HealthKind, is_news
from adw_modules.routing import circuits
from adw_modules.routing.circuits import Circuit, Circuits, Key
from adw_modules.routing.rates import WINDOW, Asked, Told, Window
from coordinator.logs import get_logger
from coordinator.services import Services
from coordinator.store import Store

log = get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """What a probe showed, when, and with which configuration and key (`fingerprint`)."""

    event: HealthEvent
    at: datetime
    fingerprint: str

    def written(self) -> str:
        """For a request to the daemon."""
        event = self.event
        return json.dumps(
            {
                "provider": event.provider,
                "model": event.model,
                "kind": event.kind.value,
                "status": event.status,
                "until": event.until.isoformat() if event.until else None,
                "detail": event.detail,
                "at": self.at.isoformat(),
                "fingerprint": self.fingerprint,
            }
        )

    @classmethod
    def read(cls, text: str) -> Probed:
        """The other way round. Raises ValueError, KeyError or TypeError for anything else."""
        told: dict[str, Any] = json.loads(text)
        event = HealthEvent(
            provider=told["provider"],
            model=told["model"],
            kind=HealthKind(told["kind"]),
            status=told["status"],
            until=datetime.fromisoformat(told["until"]) if told["until"] else None,
            detail=told["detail"],
            is_whole_run=True,
            is_probe=True,
        )
        return cls(event=event, at=datetime.fromisoformat(told["at"]), fingerprint=told["fingerprint"])


def fingerprint(provider: ProviderSettings, environ: Mapping[str, str]) -> str:
    """What stands for a provider's configuration and key. Says nothing about either to a reader."""
    variables = [*provider.pass_env, *([provider.api_key_env] if provider.api_key_env else [])]
    values = {variable: environ.get(variable) for variable in sorted(variables)}
    told = json.dumps([provider.model_dump(mode="json"), values], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:16]


class Breakers:
    """Keeps them. `on_change` is called when a target may be asked that was not, or the other way round."""

    def __init__(self, services: Services, on_change: Callable[[], None]) -> None:
        self._services = services
        self._on_change = on_change
        self.circuits: Circuits = services.store.circuits()
        self.windows = recent_windows(services.store, services.now())
        self._shown: dict[Key, HealthEvent] = {}  # what each provider and model last showed
        self._unsaved: dict[Key, Circuit] = {}

    # -- what runs show ---------------------------------------------------------------------------

    def note(self, event: HealthEvent) -> None:
        """Take in one health event. Each counts, also those that are no news for the log."""
        self._tell(event)
        services = self._services
        changed = circuits.after(
            self.circuits,
            event,
            now=services.now(),
            policy=services.settings.retries,
            fingerprint=self.fingerprints().get(event.provider),
        )
        self._take_over(changed)

    def note_probe(self, probed: Probed) -> str:
        """Take in what a probe showed, unless it is older than what is known; what came of it, in words."""
        event = probed.event
        name = event.provider
        if self.fingerprints().get(name) != probed.fingerprint:
            return f"{name} was probed with another configuration or key than the daemon has: nothing changes"
        known = [self.circuits.get(key) for key in ((name, event.model), (name, ""))]
        if any(circuit is not None and circuit.updated_at > probed.at for circuit in known):
            return f"more is known of {name} since it was probed: nothing changes"
        self.note(event)
        return f"the probe counts for the health of {name}: {event.kind.value.replace('_', ' ')}"

    def asked(self, provider: str, *, requests: int = 0, tokens: int = 0) -> None:
        """So much was asked of a provider just now."""
        window = self.windows.setdefault(provider, Window())
        window.note(self._services.now(), requests=requests, tokens=tokens)

    def starts(self, provider: str, model: str) -> None:
        """A run starts there."""
        self.windows.setdefault(provider, Window()).start(model, self._services.now())

    def told(self, provider: str, model: str, limit: RateLimit) -> None:
        """What a provider has said is left of its own limit."""
        if limit.remaining is not None and limit.resets_at is not None:
            window = self.windows.setdefault(provider, Window())
            window.hear(model, Told(remaining=limit.remaining, resets_at=limit.resets_at))

    def _tell(self, event: HealthEvent) -> None:
        """Say once what a run has shown about its provider, until it shows something else."""
        key = (event.provider, event.model)
        if not is_news(self._shown.get(key), event):
            return
        self._shown[key] = event
        write = log.info if event.kind is HealthKind.OK else log.warning
        write(
            "provider health",
            provider=event.provider,
            model=event.model,
            kind=event.kind.value,
            status=event.status,
            until=event.until.isoformat() if event.until else None,
            detail=event.detail,
        )

    # -- what somebody does -----------------------------------------------------------------------

    def pause(self, provider: str) -> None:
        """Ask nothing of a provider any more until `resume`; live runs go on."""
        self._take_over(circuits.paused(self.circuits, provider, now=self._services.now()))

    def resume(self, provider: str) -> None:
        """Ask it again, whatever it showed before."""
        self._take_over(circuits.resumed(self.circuits, provider, now=self._services.now()))

    def follow_settings(self) -> None:
        """Let one run try a provider that refused the credentials, if configuration or key have changed."""
        self._take_over(circuits.renewed(self.circuits, self.fingerprints(), now=self._services.now()))

    def clock_was_set_back(self, step: timedelta) -> None:
        """Move the ends of all waits by the (negative) step of the clock."""
        self._take_over(circuits.moved(self.circuits, step))

    def fingerprints(self) -> dict[str, str]:
        """What stands for each provider's configuration and key. Says nothing about either to a reader."""
        settings, environ = self._services.settings, self._services.environ
        return {name: fingerprint(provider, environ) for name, provider in settings.providers.items()}

    # -- keeping ----------------------------------------------------------------------------------

    def _take_over(self, changed: Iterable[Circuit]) -> None:
        now = self._services.now()
        new = {each.key: each for each in changed if self.circuits.get(each.key) != each}
        if not new:
            return
        before = self.circuits
        self.circuits = {**before, **new}
        self._save(new)
        moved = [each for each in new.values() if _is_shut(before.get(each.key)) != _is_shut(each)]
        for circuit in moved:
            _tell_of(circuit)
        freed = [each for each in new.values() if _is_shut(before.get(each.key)) and not each.is_shut(now)]
        if freed:
            self._wake_waiting(freed)
        if moved:
            self._on_change()

    def _save(self, new: dict[Key, Circuit]) -> None:
        self._unsaved |= new
        try:
            self._services.store.save_circuits(self._unsaved.values())
            self._unsaved.clear()
        except StoreError as error:  # in force all the same; written down with the next one
            log.error("the health of a provider cannot be written down", error=str(error))

    def _wake_waiting(self, freed: Iterable[Circuit]) -> None:
        store, now = self._services.store, self._services.now()
        try:
            for circuit in freed:
                store.release(circuit.provider, circuit.model, now)
            store.wake_blocked(now)
        except StoreError as error:  # they are looked at when their own time comes
            log.error("parked tasks could not be woken", error=str(error))


def recent_windows(store: Store, now: datetime) -> dict[str, Window]:
    """The last minute of each provider as the store has it, for whoever was not there then."""
    runs = defaultdict[str, list[Asked]](list)
    for run in store.asked_since(now - WINDOW):
        runs[run.provider].append(run)
    return {provider: Window.of(found, now) for provider, found in runs.items()}


def _is_shut(circuit: Circuit | None) -> bool:
    return circuit is not None and (circuit.is_open or circuit.paused)


def _tell_of(circuit: Circuit) -> None:
    name = {"provider": circuit.provider, "model": circuit.model or "all"}
    if not _is_shut(circuit):
        log.info("provider is asked again", **name)
    elif circuit.paused:
        log.warning("provider is paused", **name)
    else:
        until = circuit.until.isoformat() if circuit.until else "its configuration or key changes"
        log.warning("provider is left alone", **name, kind=circuit.kind.value, until=until)
