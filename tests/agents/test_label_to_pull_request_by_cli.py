"""The main job with more agent CLIs than Claude's: label, worker, draft pull request, tokens as billed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import structlog
from real_clis import environment, installed, provider_table
from stub_llm import Billed, StubLLM
from world import Result, World

from adw_modules.tasks.model import UsageSource

pytestmark = pytest.mark.agents


@pytest.fixture
def world(request: pytest.FixtureRequest, stub: StubLLM, tmp_path: Path) -> Iterator[World]:
    """The world whose only provider is the program that the test names."""
    cli = installed(request.param)
    url = stub.url(run="job")
    # The address of their model is in an argument or a configuration of codex's and opencode's own.
    allowed = {"allow_hosts": [urlsplit(url).netloc]} if cli.name in {"codex", "opencode"} else {}
    config = {
        "coordinator": {"stop_grace_seconds": 5},
        "sandbox": {"mode": "bubblewrap"},
        "llm": {"provider": cli.name, "model_default": cli.model},
        f"providers.{cli.name}": provider_table(cli, url) | allowed,
    }
    world = World(tmp_path, config)
    world.environ |= environment(cli, tmp_path / "home")
    yield world
    world.close()
    structlog.reset_defaults()


# Each has its numbers from another place: the stream, the stream by model, a journal beside it.
@pytest.mark.parametrize("world", ["codex", "gemini", "copilot"], indirect=True)
def test_a_label_becomes_a_pull_request_and_the_stored_tokens_are_those_billed(
    world: World, stub: StubLLM
) -> None:
    number = world.issue("Please write HELLO.md.", title="Say hello")
    world.start()
    world.until_state(number, "succeeded")
    world.until_quiet()

    assert world.result(number) == Result(state="succeeded", outcomes=("succeeded",), pulls=1, label="done")
    (run,) = world.runs(number)
    usage = world.store.usage_of(run.run_id)
    assert usage.source is UsageSource.REPORTED
    counted = {
        model: Billed(
            input=used.input,
            cache_read=used.cache_read,
            cache_creation=used.cache_write,
            output=used.output,
            reasoning=used.reasoning,
        )
        for model, used in usage.by_model.items()
    }
    assert stub.requests("job") == 2
    assert counted == stub.billed_by_model("job")


@pytest.mark.parametrize("world", ["qwen", "opencode"], indirect=True)
def test_the_others_work_in_a_sandbox_too(world: World) -> None:
    number = world.issue("Please write HELLO.md.", title="Say hello")
    world.start()
    world.until_state(number, "succeeded")
    assert world.result(number).pulls == 1
