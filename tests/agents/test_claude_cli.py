"""The real Claude CLI against a provider that keeps books: our parser must agree with them."""

import os
import select
import signal
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from adw_modules.agents.claude import ClaudeStream
from adw_modules.agents.stream import Retry, StreamSummary
from adw_modules.providers import MAX_COST_REACHED, Provider
from adw_modules.tasks.model import ExitRecord, FailureClass, GitState, Outcome, RunOutcome, UsageSource
from adw_modules.tasks.outcome import classify

pytestmark = pytest.mark.agents

MODEL = "claude-sonnet-4-5"
PROMPT = b"You work in a git repository. Please write HELLO.md with a friendly greeting.\n"
LONGEST_RUN_SECONDS = 60
NOW = datetime(2026, 11, 21, tzinfo=UTC)


def command(claude: str) -> list[str]:
    return [
        claude,
        "-p",
        "--output-format",
        "stream-json",
        "--verbose",
        "--dangerously-skip-permissions",
        "--model",
        MODEL,
    ]


def run_claude(claude: str, folder: Path, env: dict[str, str], prompt: bytes = PROMPT):
    done = subprocess.run(
        command(claude),
        cwd=folder,
        env=env,
        input=prompt,
        capture_output=True,
        timeout=LONGEST_RUN_SECONDS,
        check=False,
    )
    stream = ClaudeStream()
    stream.feed(done.stdout)
    return done, stream.finish()


def outcome_of(exit_code: int, summary: StreamSummary, folder: Path, stderr: bytes = b"") -> RunOutcome:
    changes = subprocess.run(
        ["git", "status", "--porcelain"], cwd=folder, capture_output=True, check=True
    ).stdout
    exit_record = ExitRecord(
        exit_code=exit_code,
        exit_signal=None,
        reason="exited",
        detail="",
        started_at=NOW - timedelta(seconds=1),
        ended_at=NOW,
        cpu_seconds=0,
        max_rss_kib=0,
    )
    git = GitState(has_changes=bool(changes), head="a" * 40, base="a" * 40)
    tail = stderr.decode(errors="replace").splitlines()
    return classify(exit_record, summary, git, stop_outcome=None, stop_reason=None, now=NOW, stderr_tail=tail)


def assert_same_as_billed(summary: StreamSummary, billed) -> None:
    total = summary.usage.total
    assert summary.usage.source is UsageSource.REPORTED
    assert (total.input, total.cache_read, total.cache_write, total.output) == (
        billed.input,
        billed.cache_read,
        billed.cache_creation,
        billed.output,
    )


@pytest.mark.parametrize(
    ("scenario", "files"),
    [("ok", ["HELLO.md"]), ("tools3", ["HELLO-2.md", "HELLO-3.md", "HELLO.md"]), ("529x1", ["HELLO.md"])],
)
def test_a_run_that_writes_files_succeeds_and_its_tokens_are_those_billed(
    claude, stub, repository, worker_env, scenario, files
):
    worker_env["ANTHROPIC_BASE_URL"] = stub.url(run="job", scenario=scenario)
    done, summary = run_claude(claude, repository, worker_env)
    assert (done.returncode, done.stderr) == (0, b"")
    assert sorted(path.name for path in repository.glob("HELLO*")) == files
    assert stub.billed("job").output > 0
    assert_same_as_billed(summary, stub.billed("job"))
    assert set(summary.usage.by_model) == {MODEL}
    assert summary.last_lines[-1] == "Done."
    assert outcome_of(0, summary, repository).outcome is Outcome.SUCCEEDED


def test_a_run_ends_at_the_money_that_a_budget_has_left_for_it(claude, stub, repository, worker_env):
    provider = Provider("p", {"agent": "claude", "command_template": [claude, *command(claude)[1:]]})
    limited = provider.build_command("", MODEL, "", limits=(provider.max_cost, "0.0001"))
    worker_env["ANTHROPIC_BASE_URL"] = stub.url(run="job", scenario="tools3")
    done = subprocess.run(
        limited, cwd=repository, env=worker_env, input=PROMPT, capture_output=True, timeout=60, check=False
    )
    stream = ClaudeStream()
    stream.feed(done.stdout)
    summary = stream.finish()
    assert summary.final is not None
    assert (done.returncode, summary.final.subtype) == (1, MAX_COST_REACHED)
    assert stub.requests("job") == 1, "no further request once it has spent that"
    assert_same_as_billed(summary, stub.billed("job"))
    assert outcome_of(1, summary, repository).outcome is Outcome.OVER_BUDGET


def test_tokens_of_sub_agents_are_counted(claude, stub, repository, worker_env):
    worker_env["ANTHROPIC_BASE_URL"] = stub.url(run="job", scenario="agent")
    done, summary = run_claude(claude, repository, worker_env)
    assert done.returncode == 0
    assert stub.requests("job") == 3
    assert_same_as_billed(summary, stub.billed("job"))
    assert outcome_of(0, summary, repository).outcome is Outcome.NO_CHANGES


def test_a_refused_key_is_an_auth_failure_at_once_when_retries_are_off(claude, stub, repository, worker_env):
    worker_env |= {
        "ANTHROPIC_BASE_URL": stub.url(run="job", scenario="401"),
        "CLAUDE_CODE_MAX_RETRIES": "0",
    }
    done, summary = run_claude(claude, repository, worker_env)
    assert done.returncode == 1
    assert stub.requests("job") == 1
    assert (summary.api_error_status, summary.usage.total.total) == (401, 0)
    assert outcome_of(1, summary, repository).outcome is Outcome.AUTH_FAILED


def test_a_refused_key_can_be_stopped_at_the_first_retry(claude, stub, repository, worker_env, tmp_path):
    worker_env["ANTHROPIC_BASE_URL"] = stub.url(run="job", scenario="401")
    prompt_file = tmp_path / "prompt.md"
    prompt_file.write_bytes(PROMPT)
    with prompt_file.open("rb") as prompt:
        process = subprocess.Popen(
            command(claude),
            cwd=repository,
            env=worker_env,
            stdin=prompt,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    try:
        stream = ClaudeStream()
        retry = first_retry(process, stream)
        os.killpg(process.pid, signal.SIGINT)
        rest, _ = process.communicate(timeout=LONGEST_RUN_SECONDS)
        stream.feed(rest)
    finally:
        process.kill()
        process.wait()
    assert (retry.error_status, retry.attempt) == (401, 1)
    assert stream.finish().retry_statuses == (401,)
    assert stub.requests("job") <= 2


def first_retry(process: subprocess.Popen, stream: ClaudeStream) -> Retry:
    """Read until the program says that it will try a request again."""
    assert process.stdout is not None
    give_up_at = time.monotonic() + LONGEST_RUN_SECONDS
    while time.monotonic() < give_up_at:
        readable, _, _ = select.select([process.stdout], [], [], 0.5)
        data = os.read(process.stdout.fileno(), 65536) if readable else None
        if data == b"":
            break
        for event in stream.feed(data or b""):
            if isinstance(event, Retry):
                return event
    raise AssertionError("the program did not announce a retry")


@pytest.mark.parametrize(
    ("scenario", "outcome", "failure_class"),
    [
        ("429", Outcome.RATE_LIMITED, None),
        ("500", Outcome.FAILED, FailureClass.API_ERROR),
        ("toolong", Outcome.FAILED, FailureClass.PROMPT_TOO_LONG),
        ("credit", Outcome.AUTH_FAILED, None),
    ],
)
def test_provider_errors_have_their_outcome(
    claude, stub, repository, worker_env, scenario, outcome, failure_class
):
    worker_env |= {
        "ANTHROPIC_BASE_URL": stub.url(run="job", scenario=scenario),
        "CLAUDE_CODE_MAX_RETRIES": "0",
    }
    done, summary = run_claude(claude, repository, worker_env)
    decided = outcome_of(done.returncode, summary, repository, done.stderr)
    assert (decided.outcome, decided.failure_class) == (outcome, failure_class)
    assert summary.usage.total.total == 0


def test_a_prompt_taken_as_a_slash_command_is_no_success(claude, stub, repository, worker_env):
    worker_env["ANTHROPIC_BASE_URL"] = stub.url(run="job", scenario="ok")
    done, summary = run_claude(claude, repository, worker_env, b"/help\n")
    assert (done.returncode, stub.requests("job")) == (0, 0)
    assert outcome_of(0, summary, repository).failure_class is FailureClass.NO_RESULT


def test_a_command_that_claude_refuses_is_explained_by_its_stderr(claude, stub, repository, worker_env):
    worker_env["ANTHROPIC_BASE_URL"] = stub.url(run="job", scenario="ok")
    done, summary = run_claude(claude, repository, worker_env, b"")
    decided = outcome_of(done.returncode, summary, repository, done.stderr)
    assert decided.failure_class is FailureClass.FAST_EXIT
    assert decided.detail.startswith("exited with 1 after 1.0 s: Error: Input must be provided")
