from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adw_modules.tasks.lifecycle import TRANSITIONS
from adw_modules.tasks.model import FailureClass, Outcome, RunOutcome, TaskState
from adw_modules.tasks.retries import BACKOFF, UNCOUNTED, Backoff, after_run, retry_delay
from tests.builders import NOW, a_task, later


@dataclass(frozen=True)
class Policy:
    base_delay_seconds: float = 60
    factor: float = 2
    max_delay_seconds: float = 3600
    fast_exit_base_delay_seconds: float = 300
    rate_limit_delay_seconds: float = 300
    auth_delay_seconds: float = 3600
    on_lost: str = "retry"
    max_lost_runs: int = 3


def settle(
    outcome: Outcome,
    *,
    attempts: int = 1,
    lost: int = 0,
    failure: FailureClass | None = None,
    policy: Policy = Policy(),
    **changes,
):
    task = a_task(state=TaskState.RUNNING, attempts=attempts, lost=lost)
    result = RunOutcome(outcome=outcome, detail="it broke", failure_class=failure, **changes)
    return after_run(task, result, policy=policy, max_attempts=3, now=NOW)


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (Outcome.SUCCEEDED, TaskState.SUCCEEDED),
        (Outcome.NO_CHANGES, TaskState.FAILED),
        (Outcome.CANCELLED, TaskState.CANCELLED),
        (Outcome.INTERRUPTED, TaskState.QUEUED),
        (Outcome.NEVER_STARTED, TaskState.QUEUED),
        (Outcome.NEEDS_HUMAN, TaskState.BLOCKED),
        (Outcome.OVER_BUDGET, TaskState.BLOCKED),
        (Outcome.AUTH_FAILED, TaskState.BLOCKED),
        (Outcome.RATE_LIMITED, TaskState.RETRY_WAIT),
        (Outcome.FAILED, TaskState.RETRY_WAIT),
        (Outcome.TIMED_OUT, TaskState.RETRY_WAIT),
        (Outcome.STALLED, TaskState.RETRY_WAIT),
        (Outcome.LOST, TaskState.RETRY_WAIT),
    ],
)
def test_each_outcome_has_its_own_next_state(outcome: Outcome, state: TaskState) -> None:
    assert settle(outcome).state is state


def test_every_outcome_is_in_the_table_above() -> None:
    for outcome in Outcome:
        assert settle(outcome).state in TRANSITIONS[TaskState.RUNNING].values()


@pytest.mark.parametrize("outcome", sorted(UNCOUNTED))
def test_waiting_is_not_an_attempt(outcome: Outcome) -> None:
    assert settle(outcome, attempts=2).attempts == 1


def test_the_third_failure_of_three_is_the_last() -> None:
    assert settle(Outcome.FAILED, attempts=2).state is TaskState.RETRY_WAIT
    last = settle(Outcome.FAILED, attempts=3)
    assert last.state is TaskState.FAILED
    assert last.cause == "it broke (gave up after 3 attempts)"


def test_lost_runs_have_a_limit_of_their_own_and_use_up_no_attempt() -> None:
    verdicts = [settle(Outcome.LOST, attempts=3, lost=lost) for lost in (0, 1, 2)]
    assert [verdict.state for verdict in verdicts] == [*[TaskState.RETRY_WAIT] * 2, TaskState.FAILED]
    assert [verdict.lost for verdict in verdicts] == [1, 2, 3]
    assert {verdict.attempts for verdict in verdicts} == {2}
    assert [verdict.wake_at for verdict in verdicts] == [later(60), later(120), None]
    assert verdicts[-1].cause == "it broke (gave up after 3 lost runs)"


def test_lost_runs_can_wait_for_a_human_instead() -> None:
    parked = settle(Outcome.LOST, policy=Policy(on_lost="park"))
    assert (parked.state, parked.wake_at, parked.cause) == (TaskState.BLOCKED, None, "it broke")


def test_other_ends_leave_the_count_of_lost_runs() -> None:
    assert settle(Outcome.FAILED, lost=2).lost == 2


def test_a_task_that_ends_daemons_waits_for_a_human() -> None:
    assert settle(Outcome.FAILED, failure=FailureClass.POISON).state is TaskState.BLOCKED


def test_delays_double_and_are_capped() -> None:
    delays = [retry_delay(n, Backoff.NORMAL, Policy()).total_seconds() for n in (1, 2, 3, 4, 50)]
    assert delays == [60, 120, 240, 480, 3600]


def test_a_fast_exit_waits_longer_than_an_ordinary_failure() -> None:
    ordinary = settle(Outcome.FAILED, failure=FailureClass.EXIT_CODE).wake_at
    fast = settle(Outcome.FAILED, failure=FailureClass.FAST_EXIT).wake_at
    assert (ordinary, fast) == (later(60), later(300))


def test_a_prompt_that_is_too_long_is_never_repeated() -> None:
    assert settle(Outcome.FAILED, failure=FailureClass.PROMPT_TOO_LONG).state is TaskState.FAILED


def test_every_failure_class_has_a_policy() -> None:
    assert set(BACKOFF) == set(FailureClass)


def test_a_rate_limit_waits_until_the_provider_says() -> None:
    assert settle(Outcome.RATE_LIMITED, retry_at=later(77)).wake_at == later(77)
    assert settle(Outcome.RATE_LIMITED).wake_at == later(300)
    assert settle(Outcome.RATE_LIMITED, retry_at=later(-9)).wake_at == NOW


@given(
    outcome=st.sampled_from(Outcome),
    failure=st.none() | st.sampled_from(FailureClass),
    attempts=st.integers(0, 1000),
    factor=st.floats(1, 1000),
)
def test_no_combination_raises_or_waits_forever(outcome, failure, attempts, factor) -> None:
    task = a_task(state=TaskState.RUNNING, attempts=attempts)
    result = RunOutcome(outcome=outcome, detail="x", failure_class=failure)
    verdict = after_run(task, result, policy=Policy(factor=factor), max_attempts=3, now=NOW)
    assert 0 <= verdict.attempts <= attempts
    assert verdict.wake_at is None or verdict.wake_at - NOW <= timedelta(hours=1)
    if verdict.state is TaskState.RETRY_WAIT:
        assert verdict.wake_at is not None
        assert outcome in UNCOUNTED or verdict.attempts < 3
