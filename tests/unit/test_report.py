from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from adw_modules.tasks import report
from adw_modules.tasks.model import ModelUsage, Outcome, TaskState, UsageSource
from adw_modules.tasks.report import RunReport
from tests.builders import a_run, a_task, later


def a_report(**changes) -> RunReport:
    values = {
        "run": a_run(outcome=Outcome.SUCCEEDED),
        "rule_reason": "Critical tasks get the best model",
        "usage": ModelUsage(input=2400, cache_read=1600, cache_write_5m=600, output=300),
        "usage_source": UsageSource.REPORTED,
        "cost_usd": Decimal("0.0189"),
        "duration": timedelta(seconds=4.2),
    }
    return RunReport(**{**values, **changes})


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
    unknown = a_report(usage=ModelUsage(), usage_source=UsageSource.UNKNOWN, cost_usd=None)
    text = report.comment(a_task(state=TaskState.RUNNING), [unknown])
    assert "| unknown | unknown |" in text


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
