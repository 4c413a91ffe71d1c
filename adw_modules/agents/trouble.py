"""What kind of trouble a provider's refusal is: the words every dialect shares, and what sentences tell.

Owns the vocabulary and the reading of a status or of a time to wait. Each program's own sentences are in its
dialect. A status counts only where a known sentence has one, never because three digits stand somewhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

LONGEST_WAIT = timedelta(days=60)  # beyond it a wait is damage, or no wait at all
LONGEST_ADVICE = 400  # characters behind a bracketed error

API_ERROR = "api_error"  # terminal reasons that `outcome.classify` knows
PROMPT_TOO_LONG = "prompt_too_long"
MAX_TURNS = "max_turns"


class Trouble(StrEnum):
    """Why a provider did not answer, in the words Claude Code uses where it has one."""

    AUTH = "authentication_failed"
    BILLING = "billing_error"  # no credit left, or a quota that does not come back by waiting a little
    RATE_LIMIT = "rate_limit"
    OVERLOADED = "overloaded"
    SERVER = "server_error"
    NETWORK = "network"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiError:
    """One error of a provider's API as a program has told it."""

    status: int | None = None  # the HTTP status, where the program says it
    trouble: Trouble | None = None  # None: about this request, not about the provider
    is_too_long: bool = False
    retry_after: timedelta | None = None

    @property
    def terminal_reason(self) -> str:
        return PROMPT_TOO_LONG if self.is_too_long else API_ERROR


_TROUBLES = {
    401: Trouble.AUTH,
    402: Trouble.BILLING,
    403: Trouble.AUTH,
    408: Trouble.SERVER,
    429: Trouble.RATE_LIMIT,
    503: Trouble.OVERLOADED,
    529: Trouble.OVERLOADED,
}


def trouble_of(status: int | None) -> Trouble | None:
    """The trouble a status stands for; None for none, and for those that blame the request."""
    if status is None:
        return None
    return _TROUBLES.get(status) or (Trouble.SERVER if 500 <= status <= 599 else None)


_BRACKET = "[API Error: "


def bracketed_error(text: str) -> tuple[int, str] | None:
    """Where a text that ends in `[API Error: …]` says so, and what it quotes; None for any other text.

    Gemini and its descendants write errors in this way, for a 429 with some advice behind the bracket.
    """
    start, end = text.rfind(_BRACKET), text.rfind("]")
    if start < 0 or end < start or len(text) - end > LONGEST_ADVICE:
        return None
    return start, text[start + len(_BRACKET) : end]


_WAIT = re.compile(
    r"(?:try again in|retry after|retry in|resets? after|resets? in)\s+"
    r"((?:\d{1,7}(?:\.\d{1,9})?\s*"
    r"(?:ms|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hours?|d|days?)(?![A-Za-z])"
    r"[\s,]*(?:and\s+)?)+)",
    re.IGNORECASE,
)
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|milli|s|m|h|d)", re.IGNORECASE)
_SECONDS = {"ms": 0.001, "milli": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def asked_to_wait(text: str) -> timedelta | None:
    """How long a sentence asks to wait ("try again in 1.5s", "retry after 3 days 6 hours"), if it does."""
    found = _WAIT.search(text)
    if found is None:
        return None
    seconds = sum(float(amount) * _SECONDS[unit.lower()] for amount, unit in _PART.findall(found[1]))
    return min(timedelta(seconds=seconds), LONGEST_WAIT) if seconds > 0 else None
