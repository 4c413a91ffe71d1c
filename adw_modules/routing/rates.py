"""What a provider was asked in the last minute, against what its configuration allows. No clock, no I/O.

Owns the window of one minute. The figures are estimates: they count what agents show, and an agent that sends
more than it shows is seen too late. Must not choose.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from adw_modules.routing.eligibility import Refusal

WINDOW = timedelta(minutes=1)
_PIECES = 12
_MOST_SAMPLES = 10_000  # of one provider; older ones of the same minute are put together


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What `[providers.NAME]` allows in a minute; None is no limit."""

    requests: int | None = None
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """Requests and tokens that were seen at a time."""

    at: datetime
    requests: int
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A run as it is recorded. `ended_at` None: it lives. `tokens`: so far."""

    provider: str
    claimed_at: datetime
    ended_at: datetime | None
    tokens: int


@dataclass(slots=True)
class Told:
    """What a provider said of its own limit: so many requests of a model are left until it begins again."""

    remaining: int
    resets_at: datetime


@dataclass(slots=True)
class Window:
    """The last minute of one provider. `told`: by model, what answers said is left."""

    samples: deque[Sample] = field(default_factory=lambda: deque(maxlen=_MOST_SAMPLES))
    told: dict[str, Told] = field(default_factory=dict)

    def note(self, at: datetime, *, requests: int = 0, tokens: int = 0) -> None:
        if requests or tokens:
            self.samples.append(Sample(at, requests, tokens))

    @classmethod
    def of(cls, runs: Iterable[Asked], now: datetime) -> Window:
        """The last minute as it is recorded. A run's tokens are taken to have come evenly."""
        samples = sorted((each for run in runs for each in _recorded(run, now)), key=lambda each: each.at)
        return cls(samples=deque(samples, maxlen=_MOST_SAMPLES))

    def hear(self, model: str, told: Told) -> None:
        """The newest word counts, for every run of that model."""
        self.told[model] = told

    def start(self, model: str, at: datetime) -> None:
        """A run of the model starts: one request at least, before it has told anything."""
        self.note(at, requests=1)
        if (told := self.told.get(model)) is not None:
            told.remaining -= 1

    def used_up(self, provider: str, model: str, now: datetime, *, starting: int = 0) -> Refusal | None:
        """Why no further run of the model may start now, by what its provider has told itself."""
        told = self.told.get(model)
        if told is None or told.resets_at <= now or told.remaining > starting:
            return None
        return Refusal(
            f"{provider} has said that it takes no more requests for {model}", until=told.resets_at
        )

    def refusal(self, provider: str, rates: Rates, now: datetime, *, starting: int = 0) -> Refusal | None:
        """Why no further run may start now, and until when: until enough of the minute has passed.

        `starting`: runs that start now and are not noted yet; each is a request.
        """
        while self.samples and self.samples[0].at <= now - WINDOW:
            self.samples.popleft()
        for limit, what in ((rates.requests, "requests"), (rates.tokens, "tokens")):
            until = self._full_until(what, limit, Sample(now, starting, 0))
            if until is not None:
                return Refusal(f"{provider} has had its {limit:,} {what} of this minute", until=until)
        return None

    def _full_until(self, what: str, limit: int | None, newest: Sample) -> datetime | None:
        """When less than the limit is left in the window; None when that is so now."""
        if limit is None:
            return None
        used = sum(getattr(sample, what) for sample in self.samples) + getattr(newest, what)
        if used < limit:
            return None
        for sample in (*self.samples, newest):
            used -= getattr(sample, what)
            if used < limit:
                return sample.at + WINDOW
        return None


def _recorded(run: Asked, now: datetime) -> Iterator[Sample]:
    """Its start as one request, and its part of the minute in pieces, each of which ends by itself."""
    began, ended = run.claimed_at, min(run.ended_at or now, now)
    first = max(began, now - WINDOW)
    if began > now - WINDOW:
        yield Sample(began, 1, 0)
    if ended <= first or not run.tokens:
        return
    piece = (ended - first) / _PIECES
    tokens = run.tokens * ((ended - first) / (ended - began)) / _PIECES
    for number in range(1, _PIECES + 1):
        yield Sample(first + piece * number, 0, math.ceil(tokens))
