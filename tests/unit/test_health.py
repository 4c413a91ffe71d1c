"""What retries, rate limits and ended runs say about a provider."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adw_modules.agents import parser_for
from adw_modules.agents.stream import RateLimit, Retry, Started, StreamSummary, Text
from adw_modules.health import HealthEvent, HealthKind, RunEnd, health_event, is_news
from adw_modules.tasks.model import FailureClass, Outcome, RunOutcome, Usage, UsageSource

SAMPLES = Path(__file__).parent.parent / "samples"
NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
SUMMARY = StreamSummary(usage=Usage(source=UsageSource.UNKNOWN))


def seen(evidence) -> HealthEvent | None:
    return health_event(evidence, provider="p", model="m", now=NOW)


def kind_of(evidence) -> HealthKind | None:
    event = seen(evidence)
    return event.kind if event else None


def a_retry(status=None, error=None, delay=timedelta(0)) -> Retry:
    return Retry(error_status=status, error=error, attempt=1, max_retries=10, delay=delay)


def an_end(outcome: Outcome, failure_class=None, *, retry_at=None, **summary) -> RunEnd:
    ended = RunOutcome(outcome=outcome, detail="why", failure_class=failure_class, retry_at=retry_at)
    return RunEnd(outcome=ended, summary=replace(SUMMARY, **summary))


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (401, "authentication_failed", HealthKind.AUTH_FAILED),
        (403, None, HealthKind.AUTH_FAILED),
        (402, None, HealthKind.QUOTA_EXHAUSTED),
        (429, None, HealthKind.RATE_LIMITED),
        (429, "billing_error", HealthKind.QUOTA_EXHAUSTED),
        (None, "rate_limit", HealthKind.RATE_LIMITED),
        (529, "overloaded", HealthKind.OVERLOADED),
        (503, None, HealthKind.OVERLOADED),
        (500, "unknown", HealthKind.SERVER_ERROR),
        (408, None, HealthKind.SERVER_ERROR),
        (None, "unknown", HealthKind.NETWORK),
        (None, None, HealthKind.NETWORK),
        (400, "invalid_request", None),
        (404, None, None),
    ],
)
def test_a_retry_says_what_it_is_for(status, error, kind):
    assert kind_of(a_retry(status, error)) is kind


def test_a_retry_is_until_its_own_delay_is_over():
    event = seen(a_retry(429, delay=timedelta(seconds=90)))
    assert event == HealthEvent(
        provider="p",
        model="m",
        kind=HealthKind.RATE_LIMITED,
        status=429,
        until=NOW + timedelta(seconds=90),
        detail="tried again after 429",
    )


def test_a_rate_limit_event_brings_its_own_reset_time():
    rejected = seen(RateLimit(status="rejected", resets_at=NOW + HOUR))
    assert rejected is not None
    assert (rejected.kind, rejected.until) == (HealthKind.RATE_LIMITED, NOW + HOUR)
    assert kind_of(RateLimit(status="allowed_warning", resets_at=NOW + HOUR)) is HealthKind.OK


def test_the_last_request_of_an_allowance_is_a_limit_before_anything_is_refused():
    last = seen(RateLimit(status="allowed_warning", resets_at=NOW + HOUR, remaining=0, limit=20))
    assert last is not None
    assert (last.kind, last.until) == (HealthKind.RATE_LIMITED, NOW + HOUR)
    assert kind_of(RateLimit(status="allowed", resets_at=NOW + HOUR, remaining=1)) is HealthKind.OK
    assert kind_of(RateLimit(status="allowed_warning", resets_at=None, remaining=0)) is HealthKind.OK


def test_a_retry_is_until_the_limit_ends_that_its_provider_told():
    event = seen(replace(a_retry(429, delay=timedelta(seconds=2)), resets_at=NOW + HOUR))
    assert event is not None
    assert event.until == NOW + HOUR


def test_a_reset_time_in_the_past_is_none():
    event = seen(RateLimit(status="rejected", resets_at=NOW - HOUR))
    assert event is not None
    assert event.until is None


@pytest.mark.parametrize(
    ("end", "kind"),
    [
        (an_end(Outcome.SUCCEEDED), HealthKind.OK),
        (an_end(Outcome.NO_CHANGES), HealthKind.OK),
        (an_end(Outcome.RATE_LIMITED, api_error_status=429), HealthKind.RATE_LIMITED),
        (an_end(Outcome.AUTH_FAILED, api_error_status=401), HealthKind.AUTH_FAILED),
        (an_end(Outcome.AUTH_FAILED), HealthKind.AUTH_FAILED),
        (an_end(Outcome.AUTH_FAILED, api_error="billing_error"), HealthKind.QUOTA_EXHAUSTED),
        (an_end(Outcome.FAILED, FailureClass.API_ERROR, api_error_status=500), HealthKind.SERVER_ERROR),
        (an_end(Outcome.FAILED, FailureClass.API_ERROR, api_error="network"), HealthKind.NETWORK),
        (an_end(Outcome.FAILED, FailureClass.API_ERROR, api_error_status=404), None),
        (an_end(Outcome.FAILED, FailureClass.EXIT_CODE), None),
        (an_end(Outcome.CANCELLED), None),
        (an_end(Outcome.TIMED_OUT), None),
        (an_end(Outcome.LOST), None),
    ],
)
def test_the_end_of_a_run_says_whether_its_provider_answered(end, kind):
    assert kind_of(end) is kind


def test_the_end_of_a_run_is_until_what_its_provider_asked_for():
    event = seen(an_end(Outcome.RATE_LIMITED, retry_at=NOW + HOUR, retry_after=timedelta(seconds=5)))
    assert event is not None
    assert event.until == NOW + HOUR
    event = seen(an_end(Outcome.RATE_LIMITED, retry_after=timedelta(seconds=5)))
    assert event is not None
    assert event.until == NOW + timedelta(seconds=5)


@pytest.mark.parametrize("event", [Text(snippet="401"), Started(session_id=None, model="m")])
def test_what_an_agent_says_and_does_is_no_evidence(event):
    assert seen(event) is None


@pytest.mark.parametrize(
    ("agent", "case", "kinds"),
    [
        ("claude", "error-401", {HealthKind.AUTH_FAILED}),
        ("claude", "error-429", {HealthKind.RATE_LIMITED}),
        ("claude", "error-529", {HealthKind.OVERLOADED}),
        ("codex", "error-401", {HealthKind.AUTH_FAILED}),
        ("codex", "error-429-recovers", {HealthKind.RATE_LIMITED, HealthKind.OK}),
        ("codex", "error-500", {HealthKind.SERVER_ERROR}),
        ("codex", "server-down", {HealthKind.NETWORK}),
        ("qwen", "error-429", {HealthKind.RATE_LIMITED}),
        ("gemini", "success", {HealthKind.OK}),
    ],
)
def test_recorded_streams_show_their_trouble_while_they_run(agent, case, kinds):
    events = parser_for(agent).feed((SAMPLES / agent / f"{case}.jsonl").read_bytes())
    assert {kind for event in events if (kind := kind_of(event))} == kinds


def an_event(kind=HealthKind.RATE_LIMITED, status=429, until=None) -> HealthEvent:
    return HealthEvent(provider="p", model="m", kind=kind, status=status, until=until, detail="")


@pytest.mark.parametrize(
    ("before", "event", "expected"),
    [
        (None, an_event(HealthKind.OK, None), False),
        (None, an_event(), True),
        (an_event(), an_event(), False),
        (an_event(), an_event(status=None), False),
        (an_event(), an_event(HealthKind.OK, None), True),
        (an_event(HealthKind.SERVER_ERROR, 500), an_event(HealthKind.SERVER_ERROR, 502), True),
        (an_event(), an_event(until=NOW), True),
        (an_event(until=NOW), an_event(until=NOW + timedelta(seconds=59)), False),
        (an_event(until=NOW), an_event(until=NOW + timedelta(minutes=1)), True),
        (an_event(until=NOW), an_event(until=NOW - HOUR), False),
    ],
)
def test_the_same_trouble_is_news_once(before, event, expected):
    assert is_news(before, event) is expected


@given(
    status=st.none() | st.integers(100, 599),
    error=st.none() | st.text(max_size=12),
    delay=st.timedeltas(min_value=timedelta(0)),
)
def test_no_retry_however_odd_raises(status, error, delay):
    event = seen(a_retry(status, error, delay))
    assert event is None or event.until is None or event.until > NOW
