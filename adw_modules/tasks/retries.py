"""What happens to a task after a run: tried again (when?), given up, parked, or done.

Pure. One table says which outcomes count as an attempt and how long they wait; the lifecycle table
says which state that leads to. Waiting is never an attempt: rate limits, refused credentials and our
own interruptions do not use the limit up; the lifetime cap on runs bounds those. A lost run has a limit and
a policy of its own: nobody knows what it did, and the machine is as likely to blame as the task.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Literal, Protocol

from adw_modules.money.budget import RECHECK_RESERVED
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
    @property
    def on_lost(self) -> Literal["retry", "park"]: ...
    @property
    def max_lost_runs(self) -> int: ...


class Backoff(StrEnum):
    """Which delay a failure class starts from."""

    NORMAL = "normal"
    LONG = "long"  # set-up faults: trying again at once cannot help
    NEVER = "never"  # repeating cannot mend it
    PARK = "park"  # repeating does harm: a person has to look first


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
    FailureClass.POISON: Backoff.PARK,
}

UNCOUNTED = frozenset(
    {
        Outcome.INTERRUPTED,
        Outcome.NEVER_STARTED,
        Outcome.LOST,
        Outcome.RATE_LIMITED,
        Outcome.AUTH_FAILED,
        Outcome.OVER_BUDGET,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Where a finished run takes its task. `attempts` and `lost` are the new counts against their limits."""

    event: Event
    state: TaskState
    cause: str | None
    wake_at: datetime | None
    attempts: int
    lost: int


def after_run(
    task: Task,
    outcome: RunOutcome,
    *,
    policy: RetrySettings,
    max_attempts: int,
    now: datetime,
    moves_on: bool = False,
) -> Verdict:
    """Decide what becomes of a running `task` whose run ended with `outcome`. Never raises.

    `moves_on`: another target is left that may do better, so that nothing is gained by waiting. What counts
    as an attempt counts all the same.
    """
    attempts = max(0, task.attempts - 1) if outcome.outcome in UNCOUNTED else task.attempts
    lost = task.lost + (outcome.outcome is Outcome.LOST)
    match outcome.outcome:
        case Outcome.RATE_LIMITED | Outcome.AUTH_FAILED | Outcome.OVER_BUDGET if moves_on:
            event, cause, wake_at = _again(outcome, now)
        case Outcome.LOST:
            event, cause, wake_at = _after_loss(outcome, lost, policy, now)
        case Outcome.FAILED | Outcome.TIMED_OUT | Outcome.STALLED:
            is_last = attempts >= max_attempts
            event, cause, wake_at = _after_failure(
                outcome, attempts, policy, now, is_last=is_last, moves_on=moves_on
            )
        case _:
            event, cause, wake_at = _after_end(outcome, policy, now)
    state = advance(TaskState.RUNNING, event)
    return Verdict(event=event, state=state, cause=cause, wake_at=wake_at, attempts=attempts, lost=lost)


_Step = tuple[Event, str | None, datetime | None]  # what happened to the task, its cause, when to look again


def _again(outcome: RunOutcome, at: datetime) -> _Step:
    return Event.RETRY_SCHEDULED, outcome.detail, at


def _after_end(outcome: RunOutcome, policy: RetrySettings, now: datetime) -> _Step:
    """What does not depend on what was before."""
    match outcome.outcome:
        case Outcome.SUCCEEDED:
            return Event.RUN_SUCCEEDED, None, None
        case Outcome.CANCELLED:
            return Event.WITHDRAWN, outcome.detail, None
        case Outcome.NO_CHANGES:
            return Event.GAVE_UP, outcome.detail, None
        case Outcome.INTERRUPTED | Outcome.NEVER_STARTED:
            return Event.INTERRUPTED, None, None
        case Outcome.OVER_BUDGET:  # the agent's own budget, or the tokens, have no next period
            return Event.NEEDS_HUMAN, outcome.detail, outcome.retry_at
        case Outcome.AUTH_FAILED:
            return Event.NEEDS_HUMAN, outcome.detail, own_back_off(0, outcome, policy, now)
        case Outcome.RATE_LIMITED:
            return _again(outcome, own_back_off(0, outcome, policy, now))
        case _:
            return Event.NEEDS_HUMAN, outcome.detail, None


def _after_loss(outcome: RunOutcome, lost: int, policy: RetrySettings, now: datetime) -> _Step:
    if policy.on_lost == "park":
        return Event.NEEDS_HUMAN, outcome.detail, None
    if lost >= policy.max_lost_runs:
        return Event.GAVE_UP, _gave_up(outcome, lost, "lost run"), None
    return _again(outcome, now + retry_delay(lost, Backoff.NORMAL, policy))


def _after_failure(
    outcome: RunOutcome, attempts: int, policy: RetrySettings, now: datetime, *, is_last: bool, moves_on: bool
) -> _Step:
    backoff = BACKOFF[outcome.failure_class] if outcome.failure_class else Backoff.NORMAL
    if backoff is Backoff.PARK:
        return Event.NEEDS_HUMAN, outcome.detail, None
    if backoff is Backoff.NEVER and not moves_on:
        return Event.GAVE_UP, outcome.detail, None
    if is_last:
        return Event.GAVE_UP, _gave_up(outcome, attempts, "attempt"), None
    return _again(outcome, now if moves_on else now + retry_delay(attempts, backoff, policy))


def _gave_up(outcome: RunOutcome, count: int, noun: str) -> str:
    plural = "" if count == 1 else "s"
    return f"{outcome.detail.removesuffix('.')} (gave up after {count} {noun}{plural})"


def own_back_off(attempts: int, outcome: RunOutcome, policy: RetrySettings, now: datetime) -> datetime:
    """When the target of a failed run may be asked again for the same task, wherever else that went."""
    match outcome.outcome:
        case Outcome.RATE_LIMITED:
            until = outcome.retry_at or now + timedelta(seconds=policy.rate_limit_delay_seconds)
            return max(until, now)
        case Outcome.AUTH_FAILED:
            return now + timedelta(seconds=policy.auth_delay_seconds)
        case Outcome.OVER_BUDGET:  # longer than that the budget itself refuses
            return now + RECHECK_RESERVED
    backoff = BACKOFF[outcome.failure_class] if outcome.failure_class else Backoff.NORMAL
    return now + retry_delay(attempts, backoff, policy)


def retry_delay(attempts: int, backoff: Backoff, policy: RetrySettings) -> timedelta:
    """The wait after the `attempts`-th failed attempt (1 is the first): base x factor^(n-1), capped."""
    base = policy.fast_exit_base_delay_seconds if backoff is Backoff.LONG else policy.base_delay_seconds
    exponent = min(max(0, attempts - 1), 60)  # keeps the power finite for any configured factor
    return timedelta(seconds=min(base * policy.factor**exponent, max(base, policy.max_delay_seconds)))
