"""When a request may be sent: GitHub's limits as it reports them, and our own pace for writes.

One `Limiter` per credential: the token, or each installation of a GitHub App. It holds no socket and never
sleeps: a request that comes too early is refused with the moment at which it may be sent. Rules: "Rate
limits for the REST API",
https://docs.github.com/rest/using-the-rest-api/rate-limits-for-the-rest-api
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from adw_modules.errors import GitHubUnavailable

EVERYTHING = "*"  # secondary limits hold for the account, whatever is asked
_FIRST_WAIT = timedelta(seconds=60)  # GitHub's minimum after a secondary limit that names no time
_LONGEST_WAIT = timedelta(hours=1)
_LONGEST_RETRY_AFTER = timedelta(days=1)
_LIMIT_WORDS = re.compile(r"rate limit|abuse detection", re.IGNORECASE)
_SECONDARY_WORDS = re.compile(r"secondary|abuse detection", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """What is left of one primary limit, as the last answer said."""

    resource: str  # "core", "search", …
    remaining: int
    limit: int
    reset_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """The state of all limits. While `blocked_until` (UTC) is in the future, requests are held back."""

    quotas: tuple[Quota, ...]
    blocked_until: datetime | None
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """For JSON: times as ISO text."""
        return {
            "blocked_until": self.blocked_until.isoformat() if self.blocked_until else None,
            "reason": self.reason,
            "quotas": {
                quota.resource: {
                    "remaining": quota.remaining,
                    "limit": quota.limit,
                    "reset_at": quota.reset_at.isoformat(),
                }
                for quota in self.quotas
            },
        }


def all_of(ledgers: Mapping[str, Ledger]) -> Ledger:
    """Several ledgers as one, such as those of an App's installations; a quota says whose it is."""
    held = [(each.blocked_until, name, each) for name, each in ledgers.items() if each.blocked_until]
    _, name, block = max(held, key=lambda found: found[0], default=(None, "", None))
    return Ledger(
        quotas=tuple(
            replace(quota, resource=f"{quota.resource} ({name})")
            for name, each in ledgers.items()
            for quota in each.quotas
        ),
        blocked_until=block.blocked_until if block else None,
        reason=f"{block.reason} ({name})" if block else "",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    until: datetime
    reason: str


class Limiter:
    """Remembers what GitHub said about limits and says no until then. Safe to share between threads."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._quotas: dict[str, Quota] = {}
        self._blocks: dict[str, _Block] = {}
        self._strikes = 0

    def check(self, resource: str) -> None:
        """Raise GitHubUnavailable(retry_at) when a request for `resource` must not be sent yet."""
        with self._lock:
            held = [self._blocks[key] for key in (EVERYTHING, resource) if key in self._blocks]
        block = max(held, key=lambda each: each.until, default=None)
        if block is not None and self._now() < block.until:
            raise GitHubUnavailable(
                f"{block.reason}; no request before {block.until:%H:%M:%S} UTC", retry_at=block.until
            )

    def record(self, status: int, headers: Mapping[str, str], body: str, *, resource: str) -> None:
        """Take in one answer; raise GitHubUnavailable(retry_at) when the answer is a limit."""
        with self._lock:
            spent = self._note_quota(headers, resource)
            if is_limit(status, headers, body):
                raise self._limited(headers, body, resource)
            if spent is not None:
                self._block(spent.resource, _Block(until=_after(spent), reason="The GitHub quota is spent"))
            if status < 400:
                self._strikes = 0

    def clock_was_set_back(self, step: timedelta) -> None:
        """Waits last as long as they were meant to."""
        with self._lock:
            self._blocks = {
                key: replace(block, until=block.until + step) for key, block in self._blocks.items()
            }

    @property
    def ledger(self) -> Ledger:
        with self._lock:
            block = max(self._blocks.values(), key=lambda each: each.until, default=None)
            quotas = tuple(self._quotas[name] for name in sorted(self._quotas))
        if block is None or block.until <= self._now():
            return Ledger(quotas=quotas, blocked_until=None, reason="")
        return Ledger(quotas=quotas, blocked_until=block.until, reason=block.reason)

    def _note_quota(self, headers: Mapping[str, str], resource: str) -> Quota | None:
        """Keep the figures; return them when they say that nothing is left and the reset is to come."""
        remaining, limit, reset = (
            _whole(headers.get(f"x-ratelimit-{name}")) for name in ("remaining", "limit", "reset")
        )
        if remaining is None or limit is None or reset is None:
            return None
        named = headers.get("x-ratelimit-resource") or resource
        quota = Quota(resource=named, remaining=remaining, limit=limit, reset_at=_instant(reset))
        self._quotas[named] = quota
        return quota if remaining == 0 and quota.reset_at > self._now() else None

    def _limited(self, headers: Mapping[str, str], body: str, resource: str) -> GitHubUnavailable:
        primary = headers.get("x-ratelimit-remaining") == "0" and not _SECONDARY_WORDS.search(body)
        named = headers.get("x-ratelimit-resource") or resource
        keys = {resource, named} if primary else {EVERYTHING}
        reason = f"GitHub's {'rate limit' if primary else 'secondary rate limit'} is reached"
        until = self._wait_until(headers, keys)
        for key in keys:
            self._block(key, _Block(until=until, reason=reason))
        return GitHubUnavailable(reason, retry_at=until)

    def _wait_until(self, headers: Mapping[str, str], keys: set[str]) -> datetime:
        now = self._now()
        asked = _retry_after(headers, now)
        if asked is not None:
            return now + asked
        reset = _whole(headers.get("x-ratelimit-reset"))
        if headers.get("x-ratelimit-remaining") == "0" and reset is not None and _instant(reset) > now:
            return _instant(reset) + timedelta(seconds=1)
        return self._growing_wait(now, keys)

    def _growing_wait(self, now: datetime, keys: set[str]) -> datetime:
        held = [self._blocks[key].until for key in keys if key in self._blocks]
        if any(until > now for until in held):
            return max(held)  # the other answers of the same burst are not another offence
        self._strikes = min(self._strikes + 1, 10)
        return now + min(_FIRST_WAIT * (1 << self._strikes - 1), _LONGEST_WAIT)

    def _block(self, key: str, block: _Block) -> None:
        held = self._blocks.get(key)
        if held is None or held.until < block.until:
            self._blocks[key] = block


class WritePace:
    """Our own limit for writes, far below GitHub's 80 a minute and 500 an hour: two token buckets.

    A burst goes out at once, then an even pace. Over any minute that is `per_minute` + 10 at most, over any
    hour a fifth more than `per_hour`, and never more than 80 more. 0 switches a limit off; without one for
    the minute there is none for the hour either.
    """

    def __init__(self, per_minute: int, per_hour: int = 0, *, burst: int = 10) -> None:
        hourly = per_hour if per_minute > 0 else 0
        self._buckets = (
            _Bucket(timedelta(minutes=1), per_minute, burst),
            _Bucket(timedelta(hours=1), hourly, max(1, min(80, hourly // 5))),
        )

    def book(self, now: datetime) -> float:
        """Take the next turn; return the seconds to wait for it."""
        return max(bucket.book(now) for bucket in self._buckets)

    def clock_was_set_back(self, step: timedelta) -> None:
        """What was booked stays as far away as it was."""
        for bucket in self._buckets:
            bucket.clock_was_set_back(step)


class _Bucket:
    """So many turns in a period, evenly spaced after a burst."""

    def __init__(self, period: timedelta, turns: int, burst: int) -> None:
        self._spacing = period / turns if turns > 0 else timedelta()
        self._credit = self._spacing * burst
        self._booked_until: datetime | None = None

    def book(self, now: datetime) -> float:
        booked = max(self._booked_until or now, now) + self._spacing
        self._booked_until = booked
        return max((booked - self._credit - now).total_seconds(), 0.0)

    def clock_was_set_back(self, step: timedelta) -> None:
        if self._booked_until is not None:
            self._booked_until += step


def is_limit(status: int, headers: Mapping[str, str], body: str) -> bool:
    """A 403 without any sign of a limit is a plain "not allowed": waiting would not help."""
    if status == 429:
        return True
    if status != 403:
        return False
    told = "retry-after" in headers or headers.get("x-ratelimit-remaining") == "0"
    return told or _LIMIT_WORDS.search(body[:2000]) is not None


def retry_after(headers: Mapping[str, str], now: datetime) -> datetime | None:
    """The moment `Retry-After` names, if there is one (a 503 may carry it too)."""
    asked = _retry_after(headers, now)
    return None if asked is None else now + asked


def _retry_after(headers: Mapping[str, str], now: datetime) -> timedelta | None:
    """Seconds or an HTTP date, at least a second and at most a day."""
    value = headers.get("retry-after")
    if value is None:
        return None
    seconds = _whole(value)
    try:
        asked = parsedate_to_datetime(value) - now if seconds is None else timedelta(seconds=seconds)
    except (ValueError, TypeError, OverflowError):
        return _FIRST_WAIT
    return min(max(asked, timedelta(seconds=1)), _LONGEST_RETRY_AFTER)


def _after(quota: Quota) -> datetime:
    return quota.reset_at + timedelta(seconds=1)


def _instant(seconds: int) -> datetime:
    return datetime.fromtimestamp(min(max(seconds, 0), 32_503_680_000), UTC)


def _whole(value: str | None) -> int | None:
    try:
        return None if value is None else int(float(value))
    except (ValueError, OverflowError):
        return None
