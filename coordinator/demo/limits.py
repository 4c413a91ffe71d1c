"""GitHub's primary rate limit: one counter per account, refilled at a fixed instant each hour.

Owns the numbers and their headers. Secondary limits are ordered as faults.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

_HOUR = timedelta(hours=1)


@dataclass(slots=True, kw_only=True)
class Bucket:
    """What one account (or the anonymous caller) may still ask."""

    limit: int
    reset_at: datetime
    used: int = 0
    resource: str = "core"

    @property
    def remaining(self) -> int:
        return max(0, self.limit - self.used)

    def headers(self) -> dict[str, str]:
        return {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(self.remaining),
            "X-RateLimit-Reset": str(int(self.reset_at.timestamp())),
            "X-RateLimit-Used": str(self.used),
            "X-RateLimit-Resource": self.resource,
        }

    def as_json(self) -> dict[str, int]:
        """One resource of GET /rate_limit."""
        reset = int(self.reset_at.timestamp())
        return {"limit": self.limit, "used": self.used, "remaining": self.remaining, "reset": reset}


class RateLimits:
    """The counters by login; "" is everybody without a token."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._buckets: dict[tuple[str, str], Bucket] = {}

    def of(self, login: str, resource: str = "core") -> Bucket:
        """The counter of an account, refilled when its hour is over."""
        now = self._clock()
        fresh = Bucket(limit=5000 if login else 60, reset_at=now + _HOUR, resource=resource)
        bucket = self._buckets.setdefault((login, resource), fresh)
        if now >= bucket.reset_at:
            bucket.used, bucket.reset_at = 0, now + _HOUR
        return bucket
