"""What a provider was asked in the last minute, against what its configuration allows. No clock, no I/O.

Owns the window of one minute. The figures are estimates: they count what agents show, and an agent that sends
more than it shows is seen too late. Must not choose.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from adw_modules.routing.eligibility import Refusal

WINDOW = timedelta(minutes=1)
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


@dataclass(slots=True)
class Window:
    """The last minute of one provider."""

    samples: deque[Sample] = field(default_factory=lambda: deque(maxlen=_MOST_SAMPLES))

    def note(self, at: datetime, *, requests: int = 0, tokens: int = 0) -> None:
        if requests or tokens:
            self.samples.append(Sample(at, requests, tokens))

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
