"""What a run or a probe shows about its provider: whether it answers, and if not, why and until when.

Owns the words and the one way from evidence to an event. Pure: nothing here remembers, counts or decides
whether a provider is used; whoever does that is given these events.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from adw_modules.agents.stream import AgentEvent, RateLimit, Retry, StreamSummary, ToolUse
from adw_modules.agents.trouble import Trouble, trouble_of
from adw_modules.tasks.model import FailureClass, Outcome, RunOutcome

LATER = timedelta(minutes=1)  # by less than this, a new end of a wait is no news


class HealthKind(StrEnum):
    """How a provider did, as one run saw it."""

    OK = "ok"
    RATE_LIMITED = "rate_limited"
    OVERLOADED = "overloaded"
    AUTH_FAILED = "auth_failed"
    QUOTA_EXHAUSTED = "quota_exhausted"  # no credit: waiting alone does not help
    SERVER_ERROR = "server_error"
    NETWORK = "network"


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthEvent:
    """One thing learned about a provider. `until`: when it said it can be asked again; None: it did not."""

    provider: str
    model: str
    kind: HealthKind
    status: int | None  # the HTTP status, where one is known
    until: datetime | None
    detail: str  # one line for people
    is_whole_run: bool = False  # of a run that is over, or of a probe; else of one answer in the middle
    is_probe: bool = False  # somebody asked it on purpose, without a task


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnd:
    """A run that is over: what it came to, and what its output told. `is_probe`: it had no task."""

    outcome: RunOutcome
    summary: StreamSummary
    is_probe: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Finding:
    kind: HealthKind
    status: int | None = None
    until: datetime | None = None
    detail: str = ""
    is_whole_run: bool = False


_KINDS: dict[str, HealthKind] = {
    Trouble.AUTH: HealthKind.AUTH_FAILED,
    Trouble.BILLING: HealthKind.QUOTA_EXHAUSTED,
    Trouble.RATE_LIMIT: HealthKind.RATE_LIMITED,
    Trouble.OVERLOADED: HealthKind.OVERLOADED,
    Trouble.SERVER: HealthKind.SERVER_ERROR,
    Trouble.NETWORK: HealthKind.NETWORK,
}
# Ends that only an agent whose provider answered can come to.
_ANSWERED = frozenset({Outcome.SUCCEEDED, Outcome.NO_CHANGES, Outcome.NEEDS_HUMAN})


def health_event(
    evidence: AgentEvent | RunEnd, *, provider: str, model: str, now: datetime
) -> HealthEvent | None:
    """What the evidence says about the provider; None if it is about something else.

    `now` is when the evidence was seen: a wait that the provider names as a duration counts from it.
    """
    match evidence:
        case Retry():
            found = _of_retry(evidence, now)
        case RateLimit():
            found = _of_rate_limit(evidence)
        case ToolUse():  # only a model that answers calls a tool; text may be the program's own
            found = _Finding(kind=HealthKind.OK, detail="the model answers")
        case RunEnd():
            found = _of_end(evidence, now)
        case _:
            return None
    if found is None:
        return None
    return HealthEvent(
        provider=provider,
        model=model,
        kind=found.kind,
        status=found.status,
        until=found.until if found.until and found.until > now else None,
        detail=found.detail,
        is_whole_run=found.is_whole_run,
        is_probe=isinstance(evidence, RunEnd) and evidence.is_probe,
    )


def is_news(before: HealthEvent | None, event: HealthEvent) -> bool:
    """Whether `event` says more than the last one about the same provider and model did.

    A provider nobody has heard anything about is taken to be well.
    """
    if before is None:
        return event.kind is not HealthKind.OK
    if event.kind is not before.kind or event.status not in (None, before.status):
        return True
    return event.until is not None and (before.until is None or event.until >= before.until + LATER)


def _of_retry(retry: Retry, now: datetime) -> _Finding | None:
    kind = _kind(retry.error_status, retry.error)
    if kind is None:
        return None
    why = " ".join(str(part) for part in (retry.error_status, retry.error) if part and part != "unknown")
    return _Finding(
        kind=kind,
        status=retry.error_status,
        until=max(filter(None, (_after(now, retry.delay), retry.resets_at)), default=None),
        detail=f"tried again after {why or 'no answer'}",
    )


def _of_rate_limit(limit: RateLimit) -> _Finding:
    if limit.status == "rejected":
        kind, detail = HealthKind.RATE_LIMITED, "the account's allowance is used up"
        return _Finding(kind=kind, until=limit.resets_at, detail=detail)
    if limit.remaining == 0 and limit.resets_at is not None:
        kind, detail = HealthKind.RATE_LIMITED, "the last request of the account's allowance was used"
        return _Finding(kind=kind, until=limit.resets_at, detail=detail)
    return _Finding(kind=HealthKind.OK, detail=f"the account's allowance: {limit.status}")


def _of_end(end: RunEnd, now: datetime) -> _Finding | None:
    outcome, summary = end.outcome, end.summary
    if outcome.outcome in _ANSWERED:
        return _Finding(kind=HealthKind.OK, detail="a run got its answers", is_whole_run=True)
    until = outcome.retry_at or (_after(now, summary.retry_after) if summary.retry_after else None)
    kind = _kind_of_end(outcome, summary)
    if kind is None:
        return None
    return _Finding(
        kind=kind,
        status=summary.api_error_status,
        until=until,
        detail=outcome.detail,
        is_whole_run=True,
    )


def _kind_of_end(outcome: RunOutcome, summary: StreamSummary) -> HealthKind | None:
    said = _kind(summary.api_error_status, summary.api_error)
    if outcome.outcome is Outcome.RATE_LIMITED:
        return HealthKind.RATE_LIMITED
    if outcome.outcome is Outcome.AUTH_FAILED:
        return said if said is HealthKind.QUOTA_EXHAUSTED else HealthKind.AUTH_FAILED
    if outcome.failure_class is FailureClass.API_ERROR:
        return said
    return None


def _kind(status: int | None, word: str | None) -> HealthKind | None:
    """By the program's own word, because one status stands for several things; else by the status.

    Without either, no answer came at all. A status that blames the request says nothing of the provider.
    """
    if word in _KINDS:
        return _KINDS[word]
    trouble = trouble_of(status)
    if trouble is not None:
        return _KINDS[trouble]
    return HealthKind.NETWORK if status is None else None


def _after(now: datetime, wait: timedelta) -> datetime | None:
    try:
        return now + wait if wait else None
    except OverflowError:
        return None
