"""What an answer's headers tell of a rate limit, beside the answer itself. Pure.

Owns the reading of `X-RateLimit-*`, which come where requests are counted, as for free models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from adw_modules.openrouter.tolerant import moment, whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """So many requests are left until `resets_at`, of `limit` in all; None: not said."""

    remaining: int
    resets_at: datetime | None
    limit: int | None


def quota_from(headers: Mapping[str, str]) -> Quota | None:
    """None where the headers do not say what is left. `headers` by lower-case name."""
    remaining = whole(headers.get("x-ratelimit-remaining"))
    if remaining is None:
        return None
    return Quota(
        remaining=max(0, remaining),
        resets_at=moment(headers.get("x-ratelimit-reset")),
        limit=whole(headers.get("x-ratelimit-limit")),
    )
