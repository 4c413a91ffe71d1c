"""Faults a test orders from the demo server: which request, what goes wrong, how often.

Owns the matching and the counting. Doing the damage is the server's work.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase


class FaultKind(StrEnum):
    """What happens instead of the normal answer."""

    STATUS = "status"  # `status`, `headers` and `body` as given; the request is not carried out
    TRUNCATED_JSON = "truncated_json"  # the true answer, cut in the middle, with a matching Content-Length
    HTML_200 = "html_200"  # a proxy's page with status 200
    TIMEOUT = "timeout"  # no byte for `seconds`, then the connection ends; the request is not carried out
    LATE = "late"  # carried out at once, answered truly, but only after `seconds` or a `release`
    DISCONNECT = "disconnect"  # the connection ends at once; the request is not carried out
    AFTER_COMMIT = "after_commit"  # carried out, then `status` (or, with status 0, a cut connection)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One ordered fault. `match` is "METHOD /path" with shell wildcards, the path without its query.

    `times=None` means for ever; the first `skip` matching requests pass unharmed.
    """

    match: str
    kind: FaultKind | str = FaultKind.STATUS
    status: int = 502
    headers: dict[str, str] = field(default_factory=dict)
    body: str | bytes | dict[str, object] | None = None
    times: int | None = 1
    skip: int = 0
    query: dict[str, str] = field(default_factory=dict)  # each of these must be in the request's query
    seconds: float = 30.0

    def fits(self, method: str, path: str, query: dict[str, str]) -> bool:
        """True when this fault is meant for such a request."""
        wanted = all(query.get(key) == value for key, value in self.query.items())
        return wanted and fnmatchcase(f"{method} {path}", self.match)


def secondary_limit(
    match: str, *, retry_after: int | None = 60, status: int = 403, times: int | None = 1
) -> Fault:
    """GitHub's secondary limit; with `retry_after=None` the answer does not say how long to wait."""
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    body: dict[str, object] = {
        "message": "You have exceeded a secondary rate limit. Please wait before you try again.",
        "documentation_url": "https://docs.github.com/rest/overview/rate-limits-for-the-rest-api",
    }
    return Fault(match=match, status=status, headers=headers, body=body, times=times)


@dataclass(slots=True)
class _Ordered:
    fault: Fault
    seen: int = 0
    done: int = 0

    @property
    def is_used_up(self) -> bool:
        return self.fault.times is not None and self.done >= self.fault.times


class Faults:
    """The faults in force, oldest first. The server calls `take` with its own lock held."""

    def __init__(self) -> None:
        self._ordered: list[_Ordered] = []

    def add(self, fault: Fault) -> Fault:
        """Put a fault in force from the next request on."""
        self._ordered.append(_Ordered(fault))
        return fault

    def clear(self) -> None:
        """Back to a healthy server. `hits` forgets as well."""
        self._ordered.clear()

    def hits(self, fault: Fault) -> int:
        """How many requests this fault has hit."""
        return sum(ordered.done for ordered in self._ordered if ordered.fault is fault)

    def take(self, method: str, path: str, query: dict[str, str]) -> Fault | None:
        """The fault that hits this request, counted; at most one."""
        for ordered in self._ordered:
            if ordered.is_used_up or not ordered.fault.fits(method, path, query):
                continue
            ordered.seen += 1
            if ordered.seen > ordered.fault.skip:
                ordered.done += 1
                return ordered.fault
        return None
