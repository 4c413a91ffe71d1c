"""Circuit breakers: what health events make of a target, and whether it may be asked. Pure.

One circuit for each provider and model, and one for the provider as a whole (`model` is ""): refused
credentials, spent credit and an operator's pause concern all its models. Three rules hold whatever happens:

- A wait is never shortened: the end of an open circuit is the later of the old and the new one.
- Every event counts, also the tenth of its kind.
- When the wait is over one run may try (half-open); the others wait for what it finds out.

Must not choose targets or remember anything: whoever calls keeps the circuits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from adw_modules.health import HealthEvent, HealthKind
from adw_modules.routing.eligibility import Refusal
from adw_modules.routing.trace import Target

FAILURES = 3  # in a row, until a target that answers with errors is left alone
FIRST_COOLING = timedelta(seconds=30)
LONGEST_COOLING = timedelta(hours=1)
_MOST_OPENINGS = 20  # keeps the power finite
_MANY = 1_000_000

Key = tuple[str, str]  # provider, model


class Status(StrEnum):
    """How a provider is, in the words of `provider_status`."""

    UP = "up"
    DEGRADED = "degraded"  # some of it fails or cools
    COOLING = "cooling"  # none of it is asked before a known time
    DOWN = "down"  # not before somebody acts


class State(StrEnum):
    """Where one circuit is."""

    CLOSED = "closed"  # asked as usual
    COOLING = "cooling"  # open until a known time
    HALF_OPEN = "half-open"  # that time has come, and one run may try
    STOPPED = "stopped"  # open until its configuration or key changes
    PAUSED = "paused"  # by an operator


class CoolingSettings(Protocol):
    """The `[retries]` keys this module reads (seconds): waits that a provider does not name itself."""

    @property
    def rate_limit_delay_seconds(self) -> float: ...
    @property
    def auth_delay_seconds(self) -> float: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Circuit:
    """What is remembered of one target, or of one provider (`model` "").

    Open while `is_open`: until `until`, and without one until somebody acts. An open circuit whose time has
    come is half-open. `fingerprint`: of the configuration and key that were refused.
    """

    provider: str
    model: str
    is_open: bool = False
    kind: HealthKind = HealthKind.OK  # of the last event that was no success
    failures: int = 0  # in a row
    openings: int = 0  # how often it opened without a lasting recovery; the wait grows with it
    until: datetime | None = None
    fingerprint: str | None = None
    paused: bool = False  # by an operator; only on the circuit of the provider
    detail: str = ""
    updated_at: datetime

    @property
    def key(self) -> Key:
        return self.provider, self.model

    def state(self, now: datetime) -> State:
        """The one word for people."""
        if self.paused:
            return State.PAUSED
        if not self.is_open:
            return State.CLOSED
        if self.until is None:
            return State.STOPPED
        return State.HALF_OPEN if self.is_half_open(now) else State.COOLING

    def is_half_open(self, now: datetime) -> bool:
        return self.is_open and self.until is not None and self.until <= now

    def is_shut(self, now: datetime) -> bool:
        """Whether nothing is asked of it now."""
        return self.paused or (self.is_open and not self.is_half_open(now))


Circuits = Mapping[Key, Circuit]

_WIDE = frozenset({HealthKind.AUTH_FAILED, HealthKind.QUOTA_EXHAUSTED})  # about the account, not the model
_AT_ONCE = frozenset({*_WIDE, HealthKind.RATE_LIMITED})
# -- events ---------------------------------------------------------------------------------------------


def after(
    circuits: Circuits,
    event: HealthEvent,
    *,
    now: datetime,
    policy: CoolingSettings,
    fingerprint: str | None = None,
) -> list[Circuit]:
    """The circuits that the event changes, as they are then. `fingerprint`: of what was in use."""
    if event.kind is HealthKind.OK:
        keys = [(event.provider, event.model), (event.provider, "")]
        found = [circuits[key] for key in keys if key in circuits]
        closed = [_succeeded(each, event, now) for each in found]
        return [each for each in closed if each != circuits[each.key]]
    key = (event.provider, "" if event.kind in _WIDE else event.model)
    known = circuits.get(key) or Circuit(provider=key[0], model=key[1], updated_at=now)
    return [_failed(known, event, now=now, policy=policy, fingerprint=fingerprint)]


def _succeeded(circuit: Circuit, event: HealthEvent, now: datetime) -> Circuit:
    """A success closes a circuit whose wait is over. During the wait it may be an older run's: no news.
    Of an account that was refused a good probe is news at once: somebody has mended it and looked.

    One answer in the middle of a run lets others in again, on probation: the next failure opens it at once.
    Only a run that ends well clears what was before. What opened again and again has to succeed as often
    before its wait is short again.
    """
    is_mended = event.is_probe and circuit.kind in _WIDE
    if circuit.paused or (circuit.is_shut(now) and not is_mended):
        return circuit
    if not event.is_whole_run:
        return (
            replace(circuit, is_open=False, until=None, failures=FAILURES - 1, updated_at=now)
            if circuit.is_open
            else circuit
        )
    if not (circuit.is_open or circuit.failures or circuit.openings):
        return circuit
    return replace(
        circuit,
        is_open=False,
        failures=0,
        openings=max(0, circuit.openings - 1),
        until=None,
        fingerprint=None,
        detail="",
        updated_at=now,
    )


def _failed(
    circuit: Circuit, event: HealthEvent, *, now: datetime, policy: CoolingSettings, fingerprint: str | None
) -> Circuit:
    failures = min(circuit.failures + 1, _MANY)
    noted = replace(circuit, kind=event.kind, failures=failures, detail=event.detail, updated_at=now)
    is_waiting = circuit.is_open and not circuit.is_half_open(now)
    if not (circuit.is_open or event.kind in _AT_ONCE or failures >= FAILURES):
        return noted
    # One outage shows itself in many events: only a circuit that opens anew waits longer than the last time.
    openings = circuit.openings if is_waiting else min(circuit.openings + 1, _MOST_OPENINGS)
    until = _until(event, openings, now, policy)
    if is_waiting:
        until = None if circuit.until is None or until is None else max(circuit.until, until)
    return replace(
        noted,
        is_open=True,
        openings=openings,
        until=until,
        fingerprint=fingerprint if until is None and not is_waiting else (circuit.fingerprint or fingerprint),
    )


def _until(event: HealthEvent, openings: int, now: datetime, policy: CoolingSettings) -> datetime | None:
    """When it is asked again; None: not before configuration or key change."""
    if event.kind is HealthKind.AUTH_FAILED:
        return None
    first, longest = FIRST_COOLING, LONGEST_COOLING
    if event.kind is HealthKind.RATE_LIMITED:
        first = timedelta(seconds=policy.rate_limit_delay_seconds)
        if event.until is not None:
            return event.until
    if event.kind is HealthKind.QUOTA_EXHAUSTED:
        first = timedelta(seconds=policy.auth_delay_seconds)
    cooling: timedelta = min(first * 2 ** max(0, openings - 1), max(first, longest))
    return max(now + cooling, event.until or now)


# -- what somebody does ---------------------------------------------------------------------------------


def paused(circuits: Circuits, provider: str, *, now: datetime) -> list[Circuit]:
    """The circuits that an operator's pause changes."""
    known = circuits.get((provider, "")) or Circuit(provider=provider, model="", updated_at=now)
    return [replace(known, paused=True, updated_at=now)]


def resumed(circuits: Circuits, provider: str, *, now: datetime) -> list[Circuit]:
    """The circuits that an operator's resume changes: whoever looked knows better, so all of it is closed."""
    return [
        Circuit(provider=each.provider, model=each.model, updated_at=now)
        for each in circuits.values()
        if each.provider == provider and (each.paused or each.is_open or each.failures)
    ]


def renewed(circuits: Circuits, fingerprints: Mapping[str, str], *, now: datetime) -> list[Circuit]:
    """The circuits of refused credentials whose configuration or key is another one now: one run may try."""
    return [
        replace(each, until=now, fingerprint=None, updated_at=now)
        for each in circuits.values()
        if each.is_open
        and each.until is None
        and each.provider in fingerprints
        and each.fingerprint != fingerprints[each.provider]
    ]


def moved(circuits: Circuits, step: timedelta) -> list[Circuit]:
    """All waits by the (negative) step of a clock that was set back: they last no longer for it."""
    return [replace(each, until=each.until + step) for each in circuits.values() if each.until is not None]


# -- who may be asked -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Live:
    """A run that lives: where, and since when. `is_planned`: it will, from the step that is planned now."""

    provider: str
    model: str
    since: datetime
    is_planned: bool = False

    def tries(self, circuit: Circuit) -> bool:
        """Whether it is the one that finds out whether a half-open circuit answers again."""
        is_its = self.provider == circuit.provider and circuit.model in {"", self.model}
        return is_its and circuit.until is not None and self.since >= circuit.until


def refusal(circuits: Circuits, target: Target, *, live: Sequence[Live], now: datetime) -> Refusal | None:
    """Why a target is not asked now, as far as its circuits go.

    The circuit of the provider is asked first, then that of the target.
    """
    for key in ((target.provider, ""), (target.provider, target.model)):
        circuit = circuits.get(key)
        if circuit is None or not (circuit.is_open or circuit.paused):
            continue
        if circuit.is_shut(now):
            return Refusal(_why_shut(circuit), until=None if circuit.paused else circuit.until)
        if any(run.tries(circuit) for run in live):
            return Refusal(
                f"{_name(circuit)} is being tried by one run after {_trouble(circuit)}", is_busy=True
            )
    return None


def _why_shut(circuit: Circuit) -> str:
    if circuit.paused:
        return f"{circuit.provider} is paused (`coordinator providers resume {circuit.provider}`)"
    if circuit.until is None:
        return (
            f"{circuit.provider} refused the credentials; it is asked again when its configuration or key "
            f"changes, or after `coordinator providers resume {circuit.provider}`"
        )
    return f"{_name(circuit)} is cooling down after {_trouble(circuit)}"


def _name(circuit: Circuit) -> str:
    return circuit.model or circuit.provider


_TROUBLES = {
    HealthKind.OK: "a failure",
    HealthKind.RATE_LIMITED: "a rate limit",
    HealthKind.OVERLOADED: "being overloaded",
    HealthKind.AUTH_FAILED: "refused credentials",
    HealthKind.QUOTA_EXHAUSTED: "using up its credit",
    HealthKind.SERVER_ERROR: "server errors",
    HealthKind.NETWORK: "network errors",
}


def _trouble(circuit: Circuit) -> str:
    return _TROUBLES[circuit.kind]


def status(circuits: Circuits, provider: str, models: Iterable[str], *, now: datetime) -> Status:
    """How a provider is, as far as its circuits tell. `models`: those that the configuration uses of it."""
    whole = circuits.get((provider, ""))
    if whole is not None and whole.is_shut(now):
        return Status.DOWN if whole.paused or whole.until is None else Status.COOLING
    used = set(models) or {
        each.model for each in circuits.values() if each.provider == provider and each.model
    }
    shut = {model for model in used if (c := circuits.get((provider, model))) is not None and c.is_shut(now)}
    if used and shut == used:
        return Status.COOLING
    ill = [
        each for each in circuits.values() if each.provider == provider and (each.is_open or each.failures)
    ]
    return Status.DEGRADED if ill else Status.UP
