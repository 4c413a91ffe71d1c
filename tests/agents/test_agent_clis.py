"""Each real agent CLI with its dialect's own command, against a provider that keeps books.

What takes a program more than ten seconds is not played here: after a 429 gemini and qwen go on for minutes.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import real_clis
from real_clis import CLIS, Ended, commands, installed
from stub_llm import Billed, StubLLM

from adw_modules.tasks.model import FailureClass, Outcome, UsageSource

pytestmark = pytest.mark.agents

TELL_NO_REASONING = {"qwen"}  # how much of the output was reasoning
# opencode's numbers are added up from its steps, and its request for a title is not one of them.
SOURCES = dict.fromkeys(CLIS, UsageSource.REPORTED) | {"opencode": UsageSource.DERIVED}
ASIDE = dict.fromkeys(CLIS, Billed()) | {"opencode": Billed(input=7, output=3)}
# Stopped within its first tool, after one answer: what that was billed is in the output or in a session file.
COUNTED_WHEN_STOPPED = set(CLIS) - {"opencode"}  # its own database has no number by then
# Its wrapper ends at once, and the rest of it is ended while it writes its sums: they may be cut off.
MAYBE_COUNTED_WHEN_STOPPED = {"copilot"}

REFUSED, LIMITED = (Outcome.AUTH_FAILED, None), (Outcome.RATE_LIMITED, None)
TOO_LONG = (Outcome.FAILED, FailureClass.PROMPT_TOO_LONG)
ERRORS = [
    ("codex", "401", REFUSED),
    ("codex", "429", LIMITED),
    ("codex", "toolong", TOO_LONG),
    ("codex", "quota", REFUSED),
    ("gemini", "401", REFUSED),
    ("gemini", "toolong", TOO_LONG),
    ("gemini", "quota", LIMITED),  # Google's is a day's
    ("qwen", "401", REFUSED),
    ("qwen", "toolong", TOO_LONG),
    ("opencode", "401", REFUSED),
    ("opencode", "toolong", TOO_LONG),
    ("copilot", "401", REFUSED),
    ("copilot", "quota", REFUSED),
    ("copilot", "toolong", TOO_LONG),
]


def counted(ended: Ended) -> Billed:
    """The bill as our reading of the program has it."""
    total = ended.summary.usage.total
    return Billed(
        input=total.input,
        cache_read=total.cache_read,
        cache_creation=total.cache_write,
        output=total.output,
        reasoning=total.reasoning,
    )


def billed(name: str, stub: StubLLM) -> Billed:
    """What the stub has billed for the model asked for, as far as the program tells its kinds."""
    bill = stub.billed_by_model("job")[CLIS[name].billed_as]
    return replace(bill, reasoning=0) if name in TELL_NO_REASONING else bill


@pytest.mark.parametrize("name", CLIS)
def test_a_run_writes_its_files_and_its_tokens_are_those_billed(
    name: str, stub: StubLLM, tmp_path: Path, repository: Path
) -> None:
    cli = installed(name)
    ended = real_clis.run(cli, tmp_path, repository, stub.url(run="job", scenario="tools3"))

    assert (ended.outcome.outcome, ended.record.exit_code, ended.left) == (Outcome.SUCCEEDED, 0, [])
    assert sorted(path.name for path in repository.glob("HELLO*")) == ["HELLO-2.md", "HELLO-3.md", "HELLO.md"]
    assert (repository / "HELLO.md").read_text() == "# Hello\n\nWritten through the stub.\n"
    assert ended.summary.last_lines[-1] == "Done."

    assert stub.requests("job") == 4 + (ASIDE[name] != Billed())
    assert stub.billed_aside("job") == ASIDE[name]
    assert counted(ended) == billed(name, stub)
    assert ended.summary.usage.source is SOURCES[name]
    assert list(ended.summary.usage.by_model) == [cli.model]


@pytest.mark.parametrize(("name", "scenario", "decided"), ERRORS)
def test_what_a_provider_refuses_has_its_outcome(
    name: str,
    scenario: str,
    decided: tuple[Outcome, FailureClass | None],
    stub: StubLLM,
    tmp_path: Path,
    repository: Path,
) -> None:
    cli = installed(name)
    ended = real_clis.run(cli, tmp_path, repository, stub.url(run="job", scenario=scenario))

    assert (ended.outcome.outcome, ended.outcome.failure_class) == decided
    assert ended.record.exit_code not in (0, None)
    assert (ended.summary.usage.total.total, ended.left) == (0, [])


@pytest.mark.parametrize("name", CLIS)
def test_a_run_that_is_stopped_within_a_tool_leaves_nothing_and_counts_what_it_has_told(
    name: str, stub: StubLLM, tmp_path: Path, repository: Path
) -> None:
    cli = installed(name)
    ended = real_clis.run(
        cli,
        tmp_path,
        repository,
        stub.url(run="job", scenario="shell"),
        stop_when=lambda marker: "tail" in commands(marker),
    )

    assert ended.outcome.outcome is Outcome.CANCELLED
    assert "ended by SIGTERM" in ended.record.detail  # not by a SIGKILL after the grace period
    assert ended.left == []
    is_told = name in COUNTED_WHEN_STOPPED
    if name in MAYBE_COUNTED_WHEN_STOPPED:
        is_told = ended.summary.usage.source is not UsageSource.UNKNOWN
    assert (ended.summary.usage.source is not UsageSource.UNKNOWN) is is_told
    assert counted(ended) == (billed(name, stub) if is_told else Billed())
