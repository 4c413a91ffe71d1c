"""What a run leaves beside the shim's files."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from adw_modules.tasks.model import Outcome, RunOutcome
from coordinator.rundir import earlier_success, load_summary, save_summary, stderr_tail


def summary():
    from adw_modules.agents import parser_for

    parser = parser_for("generic")
    parser.feed(b"first\nthe key is s3cret-value\n")
    return parser.finish()


def test_what_the_agent_said_is_kept_without_secrets(tmp_path):
    save_summary(tmp_path, summary(), lambda text: text.replace("s3cret-value", "[redacted]"))
    _, lines = load_summary(tmp_path)
    assert lines == ("first", "the key is [redacted]")


def test_a_run_that_never_had_a_directory_is_nothing_to_warn_about(tmp_path):
    with capture_logs() as logged:
        save_summary(tmp_path / "gone", summary(), str)
    assert logged == []
    assert load_summary(tmp_path / "gone") == ("", ())


def test_the_tail_of_stderr_is_the_last_lines_however_long_it_is(tmp_path):
    assert stderr_tail(tmp_path) == ()
    (tmp_path / "stderr.log").write_bytes(b"x" * 100_000 + b"\nlast but one\n\xfflast\n")
    assert stderr_tail(tmp_path, lines=2) == ("last but one", "\ufffdlast")


@pytest.mark.parametrize("outcome", [Outcome.SUCCEEDED, Outcome.FAILED, None])
def test_a_success_is_remembered_and_nothing_else(tmp_path, outcome):
    settled = outcome and RunOutcome(outcome=outcome, detail="finished after 3 s", exit_code=0)
    save_summary(tmp_path, summary(), str, settled)
    assert earlier_success(tmp_path) == (settled if outcome is Outcome.SUCCEEDED else None)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"outcome": "failed"}'])
def test_a_damaged_memory_is_none(tmp_path, content):
    (tmp_path / "summary.json").write_text(content)
    assert earlier_success(tmp_path) is None
