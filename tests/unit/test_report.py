from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adw_modules.money.quotes import PriceSource
from adw_modules.tasks import report
from adw_modules.tasks.model import Cost, ModelUsage, Outcome, TaskState, UsageSource
from adw_modules.tasks.report import RunReport
from tests.builders import a_run, a_task, later


def a_report(**changes) -> RunReport:
    values = {
        "run": a_run(outcome=Outcome.SUCCEEDED),
        "rule_reason": "Critical tasks get the best model",
        "usage": ModelUsage(input=2400, cache_read=1600, cache_write_5m=600, output=300),
        "usage_source": UsageSource.REPORTED,
        "cost": Cost(usd=Decimal("0.0189"), priced_by="config"),
        "duration": timedelta(seconds=4.2),
    }
    return RunReport(**{**values, **changes})


@pytest.mark.parametrize(
    ("told", "wake_at", "at"),
    [
        (later(3600), later(7200), later(300)),
        (None, later(7200), later(300)),
        (later(3600), later(3630), None),  # about the same
        (later(-60), later(60), None),  # looked at every minute: nobody reads of that in time
        (later(3600), None, None),
    ],
)
def test_another_time_of_the_next_look_is_told_after_a_while_if_anybody_can_read_of_it(told, wake_at, at):
    assert report.tells_later(told, wake_at, later(0)) == at


def test_the_comment_says_status_rule_target_attempt_tokens_cost_and_time() -> None:
    text = report.comment(a_task(state=TaskState.SUCCEEDED, pr_url="https://x/pull/3"), [a_report()])
    for part in (
        "✅ Done",
        "high-priority-sonnet",
        "Critical tasks get the best model",
        "claude-cli / claude-sonnet-4-5",
        "| 1 |",
        "4,600 / 300",
        "$0.0189",
        "4.2 s",
        "https://x/pull/3",
    ):
        assert part in text


def test_the_marker_is_there_whatever_the_state() -> None:
    for state in TaskState:
        assert report.comment(a_task(state=state), []).startswith("<!-- coordinator:100:12 -->")


def test_unknown_tokens_and_cost_are_never_shown_as_zero() -> None:
    unknown = a_report(usage=ModelUsage(), usage_source=UsageSource.UNKNOWN, cost=None)
    text = report.comment(a_task(state=TaskState.RUNNING), [unknown])
    assert "| unknown | unknown |" in text


def test_a_run_on_a_subscription_shows_its_tokens_and_the_word_instead_of_money() -> None:
    cost = Cost(usd=None, priced_by="subscription", source=PriceSource.SUBSCRIPTION)
    text = report.comment(a_task(state=TaskState.SUCCEEDED), [a_report(cost=cost)])
    assert "| 4,600 / 300 | subscription |" in text
    body = report.pull_request_body(a_task(), a_report(cost=cost), "")
    assert "4,600 / 300 tokens in / out, subscription)" in body


def test_what_is_known_of_an_unknown_cost_is_said() -> None:
    cost = Cost(usd=None, priced_by="unknown: no price for x", at_least=Decimal("1234.5"))
    assert report.cost_text(cost) == "at least $1,234.5000"


@pytest.mark.parametrize(
    ("usd", "runs", "unknown", "subscription", "text"),
    [
        ("0", 0, 0, 0, "$0.0000"),
        ("0.0543", 3, 0, 0, "$0.0543"),
        ("0.0543", 3, 1, 0, "$0.0543 and 1 of unknown cost"),
        ("0.0543", 5, 1, 2, "$0.0543, 1 of unknown cost and 2 on subscription"),
        ("0", 2, 2, 0, "unknown cost"),
        ("0.01", 2, 2, 0, "$0.0100 and 2 of unknown cost"),  # what is known of them
        ("0", 2, 0, 2, "subscription"),
        ("0", 3, 1, 2, "1 of unknown cost and 2 on subscription"),
    ],
)
def test_a_sum_counts_what_has_no_price_instead_of_adding_nothing(usd, runs, unknown, subscription, text):
    assert report.spent_text(Decimal(usd), runs, unknown, subscription) == text


def test_a_failure_shows_exit_code_cause_and_last_lines() -> None:
    run = a_run(outcome=Outcome.FAILED, exit_code=7)
    task = a_task(state=TaskState.FAILED, cause="exited with 7 after 0.2 s")
    text = report.comment(task, [a_report(run=run)], failure_lines=("Traceback", "```", "boom"))
    assert "failed (exit 7)" in text
    assert "> exited with 7 after 0.2 s" in text
    assert "````\nTraceback\n```\nboom\n````" in text


def test_no_changes_is_named() -> None:
    task = a_task(state=TaskState.FAILED, last_outcome=Outcome.NO_CHANGES)
    assert "`no_changes`" in report.comment(task, [])


def test_the_pull_request_fixes_the_issue_and_mentions_nobody() -> None:
    body = report.pull_request_body(a_task(), a_report(), "Thanks @octocat, closes #99 ![x](http://evil/)")
    assert body.startswith("Fixes #12\n")
    assert "@octocat" not in body
    assert "#99" not in body
    assert "![" not in body


def test_the_title_is_one_line() -> None:
    title = report.pull_request_title(a_task(snapshot_title="a\nb\r\n  c" + "x" * 500))
    assert title.startswith("gh-12: a b c")
    assert "\n" not in title
    assert len(title) <= 240


def test_durations_are_for_reading() -> None:
    assert report.duration_text(timedelta(seconds=0.25)) == "0.2 s"
    assert report.duration_text(timedelta(seconds=185)) == "3 m 05 s"
    assert report.duration_text(timedelta(seconds=3720)) == "1 h 02 m"
    assert report.duration_text(later(5) - later(0)) == "5.0 s"


@given(st.text())
def test_quiet_text_cannot_mention_or_refer(text: str) -> None:
    quiet = report.quiet(text)
    assert "@" not in quiet or "@a" not in quiet.lower()
    assert "![" not in quiet
    assert "<" not in quiet
    assert not any(f" #{digit}" in f" {quiet}" for digit in "0123456789")
