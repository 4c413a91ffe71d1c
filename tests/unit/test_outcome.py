"""Every ended run has exactly one outcome, and the first answered question decides it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adw_modules.agents.stream import FinalRecord, StreamSummary
from adw_modules.tasks.model import (
    ExitRecord,
    FailureClass,
    GitState,
    Outcome,
    RunOutcome,
    Usage,
    UsageSource,
)
from adw_modules.tasks.outcome import classify

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)

NO_USAGE = Usage(source=UsageSource.UNKNOWN)
SUCCESS = FinalRecord(
    is_error=False,
    subtype="success",
    terminal_reason="completed",
    api_error_status=None,
    num_turns=2,
    duration_ms=900,
    duration_api_ms=700,
    result_text="Done.",
    cost_usd=None,
)
ERROR = replace(SUCCESS, is_error=True, terminal_reason="api_error", result_text="It broke.")
CHANGED = GitState(has_changes=True, head="b" * 40, base="a" * 40)
UNCHANGED = GitState(has_changes=False, head="a" * 40, base="a" * 40)
BLOCKED = replace(UNCHANGED, blocked_note="Which database do you mean?")


def an_exit(
    code: int | None = 0, *, signal: int | None = None, reason: str = "exited", seconds: float = 60.0
):
    return ExitRecord(
        exit_code=code,
        exit_signal=signal,
        reason=reason,
        detail="",
        started_at=NOW - timedelta(seconds=seconds),
        ended_at=NOW,
        cpu_seconds=1.0,
        max_rss_kib=1000,
    )


def a_summary(final: FinalRecord | None = SUCCESS, **fields):
    return StreamSummary(usage=NO_USAGE, final=final, **fields)


def decide(exit_record=None, summary=None, git=CHANGED, **arguments) -> RunOutcome:
    given_arguments = {"stop_outcome": None, "stop_reason": None, "now": NOW, **arguments}
    return classify(exit_record, summary or a_summary(), git, **given_arguments)


SILENT = a_summary(None)
TABLE = {
    "worked and changed something": (an_exit(), a_summary(), CHANGED, Outcome.SUCCEEDED, None),
    "worked and changed nothing": (an_exit(), a_summary(), UNCHANGED, Outcome.NO_CHANGES, None),
    "asks for a human": (an_exit(), a_summary(), BLOCKED, Outcome.NEEDS_HUMAN, None),
    "workspace unreadable": (an_exit(), a_summary(), None, Outcome.FAILED, FailureClass.WORKSPACE),
    "no exit record": (None, a_summary(), CHANGED, Outcome.LOST, None),
    "exit record says nothing": (an_exit(None), a_summary(), CHANGED, Outcome.LOST, None),
    "exit record of another kind": (an_exit(None, reason="?"), a_summary(), CHANGED, Outcome.LOST, None),
    "not executable": (an_exit(None, reason="exec_failed"), SILENT, None, Outcome.FAILED, FailureClass.SPAWN),
    "out of time": (an_exit(None, signal=9, reason="deadline"), SILENT, CHANGED, Outcome.TIMED_OUT, None),
    "out of time, yet done": (an_exit(0, reason="deadline"), a_summary(), CHANGED, Outcome.TIMED_OUT, None),
    "silent": (an_exit(None, signal=15, reason="stalled"), SILENT, CHANGED, Outcome.STALLED, None),
    "too many processes": (
        an_exit(None, signal=9, reason="crowded"),
        SILENT,
        CHANGED,
        Outcome.OVER_BUDGET,
        None,
    ),
    "stopped by nobody we know": (an_exit(143, reason="stopped"), SILENT, CHANGED, Outcome.INTERRUPTED, None),
    "exit code": (an_exit(7), SILENT, CHANGED, Outcome.FAILED, FailureClass.EXIT_CODE),
    "exit code at once": (an_exit(7, seconds=0.2), SILENT, CHANGED, Outcome.FAILED, FailureClass.FAST_EXIT),
    "exit code just not at once": (
        an_exit(7, seconds=10),
        SILENT,
        CHANGED,
        Outcome.FAILED,
        FailureClass.EXIT_CODE,
    ),
    "success record, bad exit": (
        an_exit(1, seconds=2),
        a_summary(),
        CHANGED,
        Outcome.FAILED,
        FailureClass.EXIT_CODE,
    ),
    "killed by somebody": (an_exit(None, signal=9), SILENT, CHANGED, Outcome.FAILED, FailureClass.SIGNAL),
    "caught TERM and exited": (an_exit(143), SILENT, CHANGED, Outcome.FAILED, FailureClass.SIGNAL),
    "exit 0 without a final record": (an_exit(), SILENT, CHANGED, Outcome.FAILED, FailureClass.NO_RESULT),
    "took the prompt as a slash command": (
        an_exit(),
        a_summary(replace(SUCCESS, num_turns=0, duration_api_ms=0)),
        CHANGED,
        Outcome.FAILED,
        FailureClass.NO_RESULT,
    ),
    "final record without counters": (
        an_exit(),
        a_summary(replace(SUCCESS, num_turns=None, duration_api_ms=None)),
        CHANGED,
        Outcome.SUCCEEDED,
        None,
    ),
    "401": (
        an_exit(1),
        a_summary(replace(ERROR, api_error_status=401), api_error_status=401),
        CHANGED,
        Outcome.AUTH_FAILED,
        None,
    ),
    "403": (an_exit(1), a_summary(None, api_error_status=403), CHANGED, Outcome.AUTH_FAILED, None),
    "no key at all": (
        an_exit(1, seconds=0.9),
        a_summary(ERROR, api_error="authentication_failed"),
        CHANGED,
        Outcome.AUTH_FAILED,
        None,
    ),
    "no credit": (
        an_exit(1),
        a_summary(replace(ERROR, api_error_status=400), api_error_status=400, api_error="billing_error"),
        CHANGED,
        Outcome.AUTH_FAILED,
        None,
    ),
    "429": (
        an_exit(1, seconds=1),
        a_summary(replace(ERROR, api_error_status=429), api_error_status=429),
        CHANGED,
        Outcome.RATE_LIMITED,
        None,
    ),
    "account limit reached": (
        an_exit(1),
        a_summary(ERROR, rate_limit_status="rejected"),
        CHANGED,
        Outcome.RATE_LIMITED,
        None,
    ),
    "account limit near": (
        an_exit(),
        a_summary(rate_limit_status="allowed_warning"),
        CHANGED,
        Outcome.SUCCEEDED,
        None,
    ),
    "rejected once, then done": (
        an_exit(),
        a_summary(rate_limit_status="rejected"),
        CHANGED,
        Outcome.SUCCEEDED,
        None,
    ),
    "prompt too long": (
        an_exit(1),
        a_summary(replace(ERROR, terminal_reason="prompt_too_long", api_error_status=400)),
        CHANGED,
        Outcome.FAILED,
        FailureClass.PROMPT_TOO_LONG,
    ),
    "turn limit": (
        an_exit(1),
        a_summary(replace(ERROR, subtype="error_max_turns", terminal_reason="max_turns")),
        CHANGED,
        Outcome.FAILED,
        FailureClass.TURN_LIMIT,
    ),
    "own budget": (
        an_exit(1),
        a_summary(replace(ERROR, subtype="error_max_budget_usd", terminal_reason="budget_exhausted")),
        CHANGED,
        Outcome.OVER_BUDGET,
        None,
    ),
    "provider down": (
        an_exit(1),
        a_summary(replace(ERROR, api_error_status=529), api_error_status=529, api_error="overloaded"),
        CHANGED,
        Outcome.FAILED,
        FailureClass.API_ERROR,
    ),
    "error on exit 0": (
        an_exit(),
        a_summary(replace(ERROR, subtype="error_during_execution", terminal_reason="aborted_tools")),
        CHANGED,
        Outcome.FAILED,
        FailureClass.AGENT_ERROR,
    ),
    "generic program that worked": (
        an_exit(),
        a_summary(None, final_expected=False),
        CHANGED,
        Outcome.SUCCEEDED,
        None,
    ),
    "generic program that failed": (
        an_exit(3),
        a_summary(None, final_expected=False),
        CHANGED,
        Outcome.FAILED,
        FailureClass.EXIT_CODE,
    ),
}


@pytest.mark.parametrize(
    ("exit_record", "summary", "git", "outcome", "failure_class"), TABLE.values(), ids=TABLE.keys()
)
def test_each_row_of_the_table_has_its_outcome(exit_record, summary, git, outcome, failure_class):
    decided = decide(exit_record, summary, git)
    assert (decided.outcome, decided.failure_class) == (outcome, failure_class)


def test_our_own_stop_goes_before_everything_the_agent_says():
    decided = decide(
        an_exit(0, reason="stopped"),
        a_summary(ERROR, api_error_status=401),
        stop_outcome=Outcome.CANCELLED,
        stop_reason="issue closed",
    )
    assert decided.outcome is Outcome.CANCELLED
    assert decided.detail == "stopped: issue closed"


def test_a_worker_that_ended_before_our_stop_reached_it_keeps_its_own_outcome():
    decided = decide(an_exit(0), stop_outcome=Outcome.CANCELLED, stop_reason="issue closed")
    assert decided.outcome is Outcome.SUCCEEDED


def test_a_lost_worker_stays_lost_when_a_stop_was_asked_for():
    decided = decide(None, stop_outcome=Outcome.CANCELLED, stop_reason="issue closed")
    assert decided.outcome is Outcome.LOST


def test_the_detail_names_exit_code_duration_and_last_line():
    decided = decide(an_exit(7, seconds=0.2), a_summary(None, last_lines=("one", "no such model")))
    assert decided.detail == "exited with 7 after 0.2 s: no such model"
    assert decided.exit_code == 7


def test_stderr_explains_an_exit_that_left_nothing_in_the_stream():
    decided = decide(
        an_exit(1, seconds=0.4), a_summary(None, last_lines=("hello",)), stderr_tail=["Error: bad flag", "  "]
    )
    assert decided.detail == "exited with 1 after 0.4 s: Error: bad flag"


def test_a_final_record_explains_more_than_stderr():
    decided = decide(an_exit(1), a_summary(ERROR, last_lines=("It broke.",)), stderr_tail=["a warning"])
    assert decided.detail.endswith(": It broke.")


def test_an_agent_that_ran_out_of_memory_failed_and_says_so():
    exit_record = replace(an_exit(None, signal=9, seconds=3), detail="out of memory (limit 512M)")
    decided = decide(exit_record, a_summary(None))
    assert decided.detail == "out of memory (limit 512M): was killed by signal 9 after 3.0 s"
    assert (decided.outcome, decided.failure_class) == (Outcome.FAILED, FailureClass.SIGNAL)


def test_a_signal_is_named():
    decided = decide(an_exit(None, signal=9, seconds=3), a_summary(None))
    assert decided.detail == "was killed by signal 9 after 3.0 s"
    assert (decided.exit_code, decided.exit_signal) == (None, 9)


def test_a_failed_execution_carries_the_reason():
    exit_record = replace(an_exit(None, reason="exec_failed"), detail="[Errno 2] No such file: 'claud'")
    assert "No such file: 'claud'" in decide(exit_record, a_summary(None)).detail


@pytest.mark.parametrize(
    ("resets_at", "retry_at"), [(LATER, LATER), (NOW - timedelta(hours=1), None), (None, None)]
)
def test_a_rate_limit_says_when_to_come_back_only_if_that_is_still_to_come(resets_at, retry_at):
    summary = a_summary(ERROR, rate_limit_status="rejected", rate_limit_resets_at=resets_at)
    assert decide(an_exit(1), summary).retry_at == retry_at


def test_a_stop_because_of_a_rate_limit_carries_the_reset_time():
    summary = a_summary(None, rate_limit_status="rejected", rate_limit_resets_at=LATER)
    exit_record = an_exit(0, reason="stopped")
    decided = decide(exit_record, summary, stop_outcome=Outcome.RATE_LIMITED, stop_reason="rate limit")
    assert (decided.outcome, decided.retry_at) == (Outcome.RATE_LIMITED, LATER)


def test_the_fast_exit_limit_can_be_set():
    decided = decide(an_exit(7, seconds=5), a_summary(None), fast_exit_seconds=3)
    assert decided.failure_class is FailureClass.EXIT_CODE


def test_a_clock_that_was_set_back_does_not_show():
    assert "after 0.0 s" in decide(an_exit(7, seconds=-30), a_summary(None)).detail


words = st.sampled_from(
    ["", "success", "error_max_turns", "api_error", "max_turns", "completed", "🙂\x1b[0m"]
)
optional_numbers = st.none() | st.integers(0, 600)
finals = st.builds(
    FinalRecord,
    is_error=st.booleans(),
    subtype=words,
    terminal_reason=st.none() | words,
    api_error_status=optional_numbers,
    num_turns=optional_numbers,
    duration_ms=optional_numbers,
    duration_api_ms=optional_numbers,
    result_text=words,
    cost_usd=st.none(),
)
summaries = st.builds(
    StreamSummary,
    usage=st.just(NO_USAGE),
    final=st.none() | finals,
    final_expected=st.booleans(),
    last_lines=st.lists(st.text(), max_size=2).map(tuple),
    api_error_status=optional_numbers,
    api_error=st.none() | st.sampled_from(["rate_limit", "billing_error", "unknown"]),
    rate_limit_status=st.none() | st.sampled_from(["allowed", "rejected"]),
    rate_limit_resets_at=st.none() | st.sampled_from([NOW, LATER]),
)
exits = st.builds(
    ExitRecord,
    exit_code=st.none() | st.integers(0, 255),
    exit_signal=st.none() | st.integers(1, 64),
    reason=st.sampled_from(["exited", "deadline", "stalled", "stopped", "crowded", "exec_failed", "?"]),
    detail=st.text(),
    started_at=st.just(NOW),
    ended_at=st.integers(-100, 100_000).map(lambda seconds: NOW + timedelta(seconds=seconds)),
    cpu_seconds=st.just(0.0),
    max_rss_kib=st.just(0),
)


@settings(deadline=None)
@given(
    exit_record=st.none() | exits,
    summary=summaries,
    git=st.none() | st.sampled_from([CHANGED, UNCHANGED, BLOCKED]),
    stop_outcome=st.none() | st.sampled_from(Outcome),
    stop_reason=st.none() | st.text(),
    stderr_tail=st.lists(st.text(), max_size=2),
)
def test_whatever_happened_there_is_one_consistent_outcome(
    exit_record, summary, git, stop_outcome, stop_reason, stderr_tail
):
    decided = decide(
        exit_record,
        summary,
        git,
        stop_outcome=stop_outcome,
        stop_reason=stop_reason,
        stderr_tail=stderr_tail,
    )
    assert (decided.failure_class is not None) == (decided.outcome is Outcome.FAILED)
    assert decided.retry_at is None or decided.outcome is Outcome.RATE_LIMITED
    assert decided.detail
    if decided.outcome is Outcome.SUCCEEDED and stop_outcome is not Outcome.SUCCEEDED:
        assert exit_record is not None
        assert (exit_record.exit_code, exit_record.exit_signal, git) == (0, None, CHANGED)
