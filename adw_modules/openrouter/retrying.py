"""When a failed request is sent again, and how long to wait before it.

Owns the limits of patience. Which errors may be repeated at all is theirs to say (`errors.py`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from email.utils import parsedate_to_datetime

from adw_modules.openrouter.errors import OpenRouterError, RateLimited
from adw_modules.openrouter.messages import Attempt, Completion
from adw_modules.openrouter.tolerant import decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to wait for one answer, and how often to ask again."""

    connect_seconds: float = 10
    silence_seconds: float = 300  # between two pieces; OpenRouter sends comments while a model thinks
    answer_seconds: float = 1800  # for a whole answer
    attempts: int = 4
    retry_seconds: float = 180  # from the first request to the start of the last one
    first_wait_seconds: float = 1
    factor: float = 2
    most_wait_seconds: float = 60


class Tries:
    """The attempts of one question, and the waits between them."""

    def __init__(
        self,
        *,
        patience: Patience,
        sleep: Callable[[float], Awaitable[object]],
        now: Callable[[], datetime],
        spread: Callable[[], float],
        on_retry: Callable[[OpenRouterError, Attempt], None] | None,
    ) -> None:
        self._patience, self._sleep, self._now = patience, sleep, now
        self._spread, self._on_retry = spread, on_retry
        self._started = now()
        self.failed: tuple[Attempt, ...] = ()

    async def wait_after(self, error: OpenRouterError) -> None:
        """Wait until the request may be sent again; raise `error` if it may not."""
        wait = self._wait(error)
        if wait is None:
            raise self.final(error) from error.__cause__
        attempt = error.to_attempt(len(self.failed) + 1, wait)
        self.failed = (*self.failed, attempt)
        if self._on_retry is not None:
            self._on_retry(error, attempt)
        await self._sleep(wait)

    def noted(self, completion: Completion) -> Completion:
        """The answer with the attempts that failed before it."""
        return replace(completion, attempts=self.failed)

    def final(self, error: OpenRouterError) -> OpenRouterError:
        """The error with all the attempts that led to it."""
        error.attempts = (*self.failed, error.to_attempt(len(self.failed) + 1))
        return error

    def _wait(self, error: OpenRouterError) -> float | None:
        """Seconds; None when there is no use or no time for another attempt."""
        most, number = self._patience.attempts, len(self.failed) + 1
        if not error.retryable or number >= min(most, error.most_attempts or most):
            return None
        if error.availability is not None and error.availability.retryable is False:
            return None
        asked = asked_wait(error, self._now())
        wait = self._own_wait(number) if asked is None else asked
        spent = (self._now() - self._started).total_seconds()
        return wait if spent + wait <= self._patience.retry_seconds else None

    def _own_wait(self, number: int) -> float:
        wait = self._patience.first_wait_seconds * self._patience.factor ** (number - 1)
        return min(wait, self._patience.most_wait_seconds) * self._spread()


def asked_wait(error: OpenRouterError, now: datetime) -> float | None:
    """The seconds that the answer asks to wait: `Retry-After`, or the moment a limit is lifted."""
    if error.retry_after is not None:
        return error.retry_after
    until = _http_date(error.facts.headers.get("retry-after"))
    if until is None and isinstance(error, RateLimited):
        until = error.resets_at
    return max(0.0, (until - now).total_seconds()) if until is not None else None


def _http_date(value: str | None) -> datetime | None:
    try:
        found = parsedate_to_datetime(value) if value and decimal(value) is None else None
    except (TypeError, ValueError):
        return None
    return found if found is not None and found.tzinfo else None
