"""What happens to a task after a run: tried again (when?), given up, parked, or done.

Pure. One table says which outcomes count as an attempt and how long they wait; the lifecycle table
says which state that leads to. Waiting is never an attempt: rate limits, refused credentials and our
own interruptions do not use the limit up; the lifetime cap on runs bounds those.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from adw_modules.tasks.lifecycle import Event, advance
from adw_modules.tasks.model import FailureClass, Outcome, RunOutcome, Task, TaskState


class RetrySettings(Protocol):
    """The `[retries]` keys this module reads (seconds)."""

    @property
    def base_delay_seconds(self) -> float: ...
    @property
    def factor(self) -> float: ...
    @property
    def max_delay_seconds(self) -> float: ...
    @property
    def fast_exit_base_delay_seconds(self) -> float: ...
    @property
    def rate_limit_delay_seconds(self) -> float: ...
    @property
    def auth_delay_seconds(self) -> float: ...


class Backoff(StrEnum):
    """Which delay a failure class starts from."""

    NORMAL = "normal"
    LONG = "long"  # set-up faults: trying again at once cannot help
    NEVER = "never"  # repeating cannot mend it


BACKOFF: dict[FailureClass, Backoff] = {
    FailureClass.EXIT_CODE: Backoff.NORMAL,
    FailureClass.SIGNAL: Backoff.NORMAL,
    FailureClass.API_ERROR: Backoff.NORMAL,
    FailureClass.AGENT_ERROR: Backoff.NORMAL,
    FailureClass.TURN_LIMIT: Backoff.NORMAL,
    FailureClass.NO_RESULT: Backoff.NORMAL,
    FailureClass.FAST_EXIT: Backoff.LONG,
    FailureClass.WORKSPACE: Backoff.LONG,
    FailureClass.PROMPT: Backoff.LONG,  # the operator can mend the template meanwhile
    FailureClass.SPAWN: Backoff.LONG,
    FailureClass.PROMPT_TOO_LONG: Backoff.NEVER,
}

UNCOUNTED = frozenset(
    {
        Outcome.INTERRUPTED,
        Outcome.NEVER_STARTED,
        Outcome.RATE_LIMITED,
        Outcome.AUTH_FAILED,
        Outcome.OVER_BUDGET,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Where a finished run takes its task. `attempts` is the new count against the limit."""

    event: Event
    state: TaskState
    cause: str | None
    wake_at: datetime | None
    attempts: int


def after_run(
    task: Task, outcome: RunOutcome, *, policy: RetrySettings, max_attempts: int, now: datetime
) -> Verdict:
    """Decide what becomes of a running `task` whose run ended with `outcome`. Never raises."""
    attempts = max(0, task.attempts - 1) if outcome.outcome in UNCOUNTED else task.attempts
    match outcome.outcome:
        case Outcome.SUCCEEDED:
            return _verdict(Event.RUN_SUCCEEDED, attempts)
        case Outcome.CANCELLED:
            return _verdict(Event.WITHDRAWN, attempts, cause=outcome.detail)
        case Outcome.NO_CHANGES:
            return _verdict(Event.GAVE_UP, attempts, cause=outcome.detail)
        case Outcome.INTERRUPTED | Outcome.NEVER_STARTED:
            return _verdict(Event.INTERRUPTED, attempts)
        case Outcome.NEEDS_HUMAN | Outcome.OVER_BUDGET:
            return _verdict(Event.NEEDS_HUMAN, attempts, cause=outcome.detail)
        case Outcome.AUTH_FAILED:
            wake_at = now + timedelta(seconds=policy.auth_delay_seconds)
            return _verdict(Event.NEEDS_HUMAN, attempts, cause=outcome.detail, wake_at=wake_at)
        case Outcome.RATE_LIMITED:
            wake_at = outcome.retry_at or now + timedelta(seconds=policy.rate_limit_delay_seconds)
            return _verdict(Event.RETRY_SCHEDULED, attempts, cause=outcome.detail, wake_at=max(wake_at, now))
        case Outcome.FAILED | Outcome.TIMED_OUT | Outcome.STALLED | Outcome.LOST:
            return _after_failure(attempts, outcome, policy=policy, max_attempts=max_attempts, now=now)


def _after_failure(
    attempts: int, outcome: RunOutcome, *, policy: RetrySettings, max_attempts: int, now: datetime
) -> Verdict:
    backoff = BACKOFF[outcome.failure_class] if outcome.failure_class else Backoff.NORMAL
    if backoff is Backoff.NEVER:
        return _verdict(Event.GAVE_UP, attempts, cause=outcome.detail)
    if attempts >= max_attempts:
        tries = "1 attempt" if attempts == 1 else f"{attempts} attempts"
        return _verdict(
            Event.GAVE_UP, attempts, cause=f"{outcome.detail.removesuffix('.')} (gave up after {tries})"
        )
    wake_at = now + retry_delay(attempts, backoff, policy)
    return _verdict(Event.RETRY_SCHEDULED, attempts, cause=outcome.detail, wake_at=wake_at)


def retry_delay(attempts: int, backoff: Backoff, policy: RetrySettings) -> timedelta:
    """The wait after the `attempts`-th failed attempt (1 is the first): base x factor^(n-1), capped."""
    base = policy.fast_exit_base_delay_seconds if backoff is Backoff.LONG else policy.base_delay_seconds
    exponent = min(max(0, attempts - 1), 60)  # keeps the power finite for any configured factor
    return timedelta(seconds=min(base * policy.factor**exponent, max(base, policy.max_delay_seconds)))


def _verdict(
    event: Event, attempts: int, *, cause: str | None = None, wake_at: datetime | None = None
) -> Verdict:
    state = advance(TaskState.RUNNING, event)
    return Verdict(event=event, state=state, cause=cause, wake_at=wake_at, attempts=attempts)
