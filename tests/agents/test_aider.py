"""The real aider, where it is installed: no npm package, and 700 MB `make test-agents` does not fetch."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import real_clis
from real_clis import Cli
from stub_llm import Billed, StubLLM

from adw_modules.agents import DIALECTS
from adw_modules.tasks.model import FailureClass, Outcome, UsageSource

pytestmark = pytest.mark.agents

MODEL = "openai/stub-model"


@pytest.fixture
def aider(tmp_path: Path) -> Cli:
    if shutil.which("aider") is None:
        pytest.skip("aider is not on PATH: install the package aider-chat into an environment of its own")
    known = {"max_input_tokens": 128_000, "max_output_tokens": 8_000, "litellm_provider": "openai"}
    metadata = tmp_path / "models.json"  # of a model it does not know it would ask GitHub
    metadata.write_text(json.dumps({MODEL: known | {"mode": "chat"}}))
    template = [*DIALECTS["aider"].template, "--model-metadata-file", str(metadata)]
    return Cli(
        name="aider",
        model=MODEL,
        billed_as="stub-model",
        key="OPENAI_API_KEY",
        provider=lambda url: {"command_template": template, "env": {"OPENAI_API_BASE": f"{url}/v1"}},
    )


def test_aider_writes_its_file_and_its_tokens_are_those_billed_but_for_the_cache(
    aider: Cli, stub: StubLLM, tmp_path: Path, repository: Path
) -> None:
    ended = real_clis.run(aider, tmp_path, repository, stub.url(run="job", scenario="ok"))

    assert (ended.outcome.outcome, ended.left) == (Outcome.SUCCEEDED, [])
    assert (repository / "HELLO.md").read_text() == "# Hello\n\nWritten through the stub.\n"
    bill = stub.billed("job")
    assert bill.input > 0
    assert stub.billed_aside("job") == Billed()
    total = ended.summary.usage.total
    # What came from the cache is input like any other in its log, and nothing says how much was reasoning.
    assert (total.input, total.cache_read, total.output) == (bill.input + bill.cache_read, 0, bill.output)
    assert ended.summary.usage.source is UsageSource.DERIVED
    assert list(ended.summary.usage.by_model) == [MODEL]


@pytest.mark.parametrize(
    ("scenario", "decided"),
    [
        ("401", (Outcome.AUTH_FAILED, None)),
        ("toolong", (Outcome.FAILED, FailureClass.PROMPT_TOO_LONG)),
    ],
)
def test_an_error_is_seen_although_aider_exits_with_0(
    aider: Cli,
    scenario: str,
    decided: tuple[Outcome, FailureClass | None],
    stub: StubLLM,
    tmp_path: Path,
    repository: Path,
) -> None:
    ended = real_clis.run(aider, tmp_path, repository, stub.url(run="job", scenario=scenario))

    assert ended.record.exit_code == 0
    assert (ended.outcome.outcome, ended.outcome.failure_class) == decided
