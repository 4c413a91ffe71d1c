"""The scripted agent as a real process: what it prints, what it edits, how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from adw_modules.agents.claude import ClaudeStream
from coordinator.demo import agent, sample

PROGRAM = [sys.executable, "-I", agent.__file__, "--model", "claude-opus-4", "--output-format", "stream-json"]


def start(cwd: Path, **environ: str) -> subprocess.Popen[bytes]:
    pipe = subprocess.PIPE
    return subprocess.Popen(
        PROGRAM, cwd=cwd, stdin=pipe, stdout=pipe, stderr=pipe, env={**os.environ, **environ}
    )


def play(cwd: Path, prompt: str, **environ: str) -> tuple[int, list[dict], str]:
    """Exit code, records and standard error of one run."""
    out, err = (process := start(cwd, **environ)).communicate(prompt.encode(), timeout=20)
    return process.returncode, [json.loads(line) for line in out.splitlines()], err.decode()


def until(process: subprocess.Popen[bytes], text: bytes) -> list[bytes]:
    """The lines up to the first one that holds `text`."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return lines
    raise AssertionError(f"{text!r} was never printed")


def feed(process: subprocess.Popen[bytes], prompt: str) -> None:
    process.stdin.write(prompt.encode())
    process.stdin.close()


def test_it_writes_the_file_the_directive_names_and_ends_with_a_result(tmp_path):
    code, records, _ = play(tmp_path, "please\n[[agent: write docs/guide.md]]\n")
    assert code == 0
    assert "scripted agent" in (tmp_path / "docs/guide.md").read_text()
    assert [record["type"] for record in records][:2] == ["system", "assistant"]
    assert records[-1]["type"] == "result"
    assert records[-1]["is_error"] is False
    assert records[-1]["num_turns"] == 3


def test_it_calls_itself_a_scripted_agent(tmp_path):
    _, records, _ = play(tmp_path, "")
    assert "scripted agent" in records[0]["claude_code_version"]
    assert "scripted agent" in records[1]["message"]["content"][0]["text"]
    assert "scripted agent" in records[-1]["result"]


def test_each_content_block_is_a_record_that_repeats_the_message_and_a_placeholder_for_the_output(tmp_path):
    _, records, _ = play(tmp_path, "[[agent: write a.md]]")
    messages = [record["message"] for record in records if record["type"] == "assistant"]
    two = [message for message in messages if message["id"] == "msg_scripted_000002"]
    assert [message["content"][0]["type"] for message in two] == ["text", "tool_use"]
    assert two[0]["usage"] == two[1]["usage"]
    assert {message["usage"]["output_tokens"] for message in messages} == {1}
    assert records[-1]["usage"]["output_tokens"] > len(messages)


def test_the_input_of_the_final_record_is_the_sum_over_messages(tmp_path):
    _, records, _ = play(tmp_path, "[[agent: write a.md]]")
    usage = {r["message"]["id"]: r["message"]["usage"] for r in records if r["type"] == "assistant"}.values()
    for kind in ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"):
        assert records[-1]["usage"][kind] == sum(each[kind] for each in usage) > 0


def test_equal_runs_print_equal_tokens_and_cost(tmp_path):
    ends = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        ends.append(play(tmp_path / name, "[[agent: no-op]]")[1][-1])
    assert ends[0]["modelUsage"] == ends[1]["modelUsage"]
    assert ends[0]["total_cost_usd"] == ends[1]["total_cost_usd"] > 0
    assert ends[0]["session_id"] == ends[1]["session_id"]


def test_our_parser_reads_the_tokens_that_the_final_record_says(tmp_path):
    process = start(tmp_path)
    out, _ = process.communicate(b"[[agent: write a.md]]", timeout=20)
    stream = ClaudeStream()
    stream.feed(out)
    usage, final = stream.finish().usage, json.loads(out.splitlines()[-1])
    assert usage.total.input == final["usage"]["input_tokens"]
    assert usage.total.output == final["usage"]["output_tokens"]
    assert usage.total.cache_read == final["usage"]["cache_read_input_tokens"]
    assert usage.reported_cost_usd == Decimal(str(final["total_cost_usd"]))


def test_it_replaces_text_in_a_file_and_does_so_once(tmp_path):
    (tmp_path / "a.py").write_text("x = 1 / n\n")
    for _ in range(2):
        assert play(tmp_path, "[[agent: replace a.py: / n => / max(1, n)]]")[0] == 0
    assert (tmp_path / "a.py").read_text() == "x = 1 / max(1, n)\n"


def test_it_writes_nothing_outside_of_its_directory(tmp_path):
    (tmp_path / "inner").mkdir()
    code, records, _ = play(tmp_path / "inner", "[[agent: write ../out.md]]")
    assert code == 1
    assert records[-1]["is_error"] is True
    assert not (tmp_path / "out.md").exists()


def test_no_op_changes_nothing(tmp_path):
    assert play(tmp_path, "[[agent: no-op]]")[0] == 0
    assert list(tmp_path.iterdir()) == []


def test_fail_ends_with_an_error_record_and_exit_code_1(tmp_path):
    code, records, err = play(tmp_path, "[[agent: fail]]", COORDINATOR_ATTEMPT="2")
    assert code == 1
    assert records[-1]["is_error"] is True
    assert "told to fail (attempt 2)" in err


@pytest.mark.parametrize(("attempt", "code"), [("1", 1), ("2", 0), ("3", 0)])
def test_fail_once_fails_on_the_first_attempt_only(tmp_path, attempt, code):
    assert play(tmp_path, "[[agent: fail-once]]", COORDINATOR_ATTEMPT=attempt)[0] == code


def test_an_api_error_looks_like_the_real_one(tmp_path):
    code, records, _ = play(tmp_path, "[[agent: api-error 429]]")
    final = records[-1]
    assert code == 1
    assert (final["subtype"], final["is_error"]) == ("success", True)
    assert (final["terminal_reason"], final["api_error_status"]) == ("api_error", 429)


def test_exit_ends_at_once_with_that_code_and_no_output(tmp_path):
    code, records, err = play(tmp_path, "[[agent: exit 7]]")
    assert (code, records) == (7, [])
    assert "scripted agent" in err


def test_an_unknown_directive_is_an_error(tmp_path):
    code, records, _ = play(tmp_path, "[[agent: dance]]")
    assert code == 1
    assert "dance" in records[-1]["result"]


def test_a_half_line_ends_without_a_result(tmp_path):
    process = start(tmp_path)
    out, _ = process.communicate(b"[[agent: half-line]]", timeout=20)
    assert process.returncode == 0
    assert not out.endswith(b"\n")
    with pytest.raises(json.JSONDecodeError):
        json.loads(out.splitlines()[-1])
    assert b'"type":"result"' not in out


def test_sigint_ends_slow_work_with_a_result_and_exit_code_0(tmp_path):
    process = start(tmp_path)
    feed(process, "[[agent: slow 60]]")
    until(process, b'"working"')
    process.send_signal(signal.SIGINT)
    final = json.loads(until(process, b'"aborted_tools"')[-1])
    assert process.wait(10) == 0
    assert (final["type"], final["is_error"]) == ("result", True)
    assert final["usage"]["input_tokens"] > 0
    process.stdout.close()
    process.stderr.close()


def test_sigterm_ends_slow_work_without_a_result(tmp_path):
    process = start(tmp_path)
    feed(process, "[[agent: slow 60]]")
    until(process, b'"working"')
    process.send_signal(signal.SIGTERM)
    rest = process.stdout.read()
    assert process.wait(10) == -signal.SIGTERM
    assert b'"type":"result"' not in rest
    process.stdout.close()
    process.stderr.close()


def test_ignore_term_is_deaf_to_all_but_kill(tmp_path):
    process = start(tmp_path)
    feed(process, "[[agent: ignore-term]]")
    until(process, b'"working"')
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    until(process, b'"working"')
    until(process, b'"working"')
    assert process.poll() is None
    process.kill()
    assert process.wait(10) == -signal.SIGKILL
    process.stdout.close()
    process.stderr.close()


def test_a_grandchild_outlives_the_agent_in_a_session_of_its_own(tmp_path):
    code, records, _ = play(tmp_path, "[[agent: grandchild]]")
    told = next(record for record in records if record["type"] == "user")
    pid = int(told["message"]["content"][0]["content"].rsplit(" ", 1)[1])
    try:
        assert code == 0
        assert os.getsid(pid) == pid
    finally:
        os.kill(pid, signal.SIGKILL)


def test_it_pauses_between_steps_when_told_to(tmp_path):
    _, records, _ = play(tmp_path, "[[agent: no-op]]", SCRIPTED_AGENT_PACE="0.05")
    assert records[-1]["duration_ms"] >= 3 * 50


@pytest.mark.parametrize("issue", sample.ISSUES, ids=lambda issue: issue.key)
def test_every_sample_issue_does_what_it_shows(tmp_path, issue):
    for name, text in sample.FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    before = {path: path.read_text() for path in tmp_path.rglob("*.*") if path.is_file()}
    if issue.closes_while_running:
        assert "[[agent: slow " in issue.body
        return
    code, _, _ = play(tmp_path, issue.body, COORDINATOR_ATTEMPT="2")
    after = {path: path.read_text() for path in tmp_path.rglob("*.*") if path.is_file()}
    assert (code == 0) is (issue.key != "failure")
    assert (before != after) is (issue.key in ("critical", "docs", "retry"))


def test_the_sample_bug_is_real_and_the_scripted_change_mends_it(tmp_path):
    for name, text in sample.FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    ask = [sys.executable, "-c", "from tidywords import average_length; print(average_length(''))"]
    assert subprocess.run(ask, cwd=tmp_path, capture_output=True, check=False).returncode != 0
    bodies = {issue.key: issue.body for issue in sample.ISSUES}
    assert play(tmp_path, bodies["critical"])[0] == 0
    assert subprocess.run(ask, cwd=tmp_path, capture_output=True, check=True).stdout == b"0.0\n"
