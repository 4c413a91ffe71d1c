"""The main job with the real Claude CLI: label, worker, draft pull request, and tokens equal to the bill.

Daemon, git and agent are the real ones. GitHub is the server of the demo, the model provider a stub that
keeps books, and every figure that Coordinator shows has to agree with those books.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import structlog
from stub_llm import Billed, StubLLM
from world import REPO, Result, World

from adw_modules.tasks.model import ModelUsage, UsageSource

pytestmark = pytest.mark.agents

SONNET, HAIKU = "claude-sonnet-4-5", "claude-haiku-4-5"
# US dollars for a million tokens: input, cache read, cache write, output. No two are multiples of a third.
PRICES = {
    SONNET: (Decimal("3.1"), Decimal("0.37"), Decimal("3.9"), Decimal("15.3")),
    HAIKU: (Decimal("1.01"), Decimal("0.13"), Decimal("1.27"), Decimal("5.9")),
}
OPTIONS = [
    "--model",
    "{model}",
    "--output-format",
    "stream-json",
    "--verbose",
    "--dangerously-skip-permissions",
]
RUN = "job"  # the page of the stub's books
SOON = 15.0  # seconds; left alone, Claude tries a refused key for three minutes
KEY = "sk-ant-not-a-real-key"

Play = Callable[..., World]


@pytest.fixture
def play(claude: str, stub: StubLLM, tmp_path: Path) -> Iterator[Play]:
    """Make the world whose provider is the real CLI, and whose model plays `scenario`."""
    home = tmp_path / "home"
    home.mkdir()
    worlds: list[World] = []

    def make(scenario: str, *, prompt: tuple[str, ...] = (), env: dict[str, str] | None = None) -> World:
        address = {"ANTHROPIC_BASE_URL": stub.url(run=RUN, scenario=scenario)}
        as_root = {"IS_SANDBOX": "1"} if os.geteuid() == 0 else {}
        provider = {
            "command_template": ["claude", "-p", *prompt, *OPTIONS],
            "requires_api_key": True,
            "api_key_env": "ANTHROPIC_API_KEY",
            "env": {**address, **as_root, **(env or {})},
        }
        config = {
            "coordinator": {"stop_grace_seconds": 5},
            "sandbox": {"mode": "bubblewrap"},
            "providers.claude-cli": provider,
            "models": [_price_entry(model) for model in PRICES],
        }
        world = World(tmp_path, config)
        worlds.append(world)
        path = f"{Path(claude).parent}{os.pathsep}{os.environ['PATH']}"
        world.environ |= {"PATH": path, "HOME": str(home), "ANTHROPIC_API_KEY": KEY}
        return world

    yield make
    for world in worlds:
        world.close()
    structlog.reset_defaults()


def _price_entry(model: str) -> dict[str, Any]:
    kinds = ("input", "cache_read", "cache_write", "output")
    prices = {
        f"cost_per_million_{kind}": float(price) for kind, price in zip(kinds, PRICES[model], strict=True)
    }
    return {"name": model, "provider": "claude-cli", **prices}


def cost_of(bill: dict[str, Billed]) -> Decimal:
    """What the books come to at the configured prices."""
    return sum(
        (
            (price * tokens).scaleb(-6)
            for model, billed in bill.items()
            for price, tokens in zip(
                PRICES[model],
                (billed.input, billed.cache_read, billed.cache_creation, billed.output),
                strict=True,
            )
        ),
        Decimal(),
    )


def as_billed(used: ModelUsage) -> Billed:
    return Billed(
        input=used.input, cache_read=used.cache_read, cache_creation=used.cache_write, output=used.output
    )


def assert_counted_as_billed(world: World, number: int, bill: dict[str, Billed]) -> None:
    """The store, the comment and the daily log all show what the stub billed, model by model."""
    (run,) = world.runs(number)
    usage, cost = world.store.usage_of(run.run_id), world.store.cost_of(run.run_id)
    assert bill
    assert usage.source is UsageSource.REPORTED
    assert {model: as_billed(used) for model, used in usage.by_model.items()} == bill
    assert cost is not None
    assert (cost.usd, cost.priced_by) == (cost_of(bill), "config")

    total = sum(bill.values(), Billed())
    into = total.input + total.cache_read + total.cache_creation
    assert f"| {into:,} / {total.output:,} | ${cost_of(bill):.4f} |" in world.comment(number)
    assert_logged_as_billed(world, number, bill)


def assert_logged_as_billed(world: World, number: int, bill: dict[str, Billed]) -> None:
    (file,) = (world.state_dir / "logs" / "api").glob("api-calls-????-??-??.jsonl")
    (call,) = map(json.loads, file.read_text().splitlines())
    assert call["task_id"] == f"gh-{number}"
    assert Decimal(call["cost_usd"]) == cost_of(bill)
    assert {model: logged(counts) for model, counts in call["models"].items()} == bill
    assert logged(call) == sum(bill.values(), Billed())


def logged(counts: dict[str, Any]) -> Billed:
    return Billed(
        input=counts["input_tokens"],
        cache_read=counts["cache_read_tokens"],
        cache_creation=counts["cache_write_tokens"],
        output=counts["output_tokens"],
    )


def issue(world: World, *, title: str = "Say hello", body: str = "Please write HELLO.md.") -> int:
    return world.issue(body, title=title)


def in_branch(world: World, number: int, file: str) -> str:
    shown = subprocess.run(
        ["git", "-C", world.server.git_url(REPO), "show", f"auto/gh-{number}:{file}"],
        capture_output=True,
        check=True,
        text=True,
    )
    return shown.stdout


def test_a_label_becomes_a_pull_request_with_the_file_that_claude_wrote(play: Play, stub: StubLLM) -> None:
    world = play("ok")
    number = issue(world)
    world.start()
    world.until_state(number, "succeeded")
    world.until_quiet()

    assert world.result(number) == Result(state="succeeded", outcomes=("succeeded",), pulls=1, label="done")
    (pull,) = world.pulls(number)
    assert pull.draft
    assert in_branch(world, number, "HELLO.md") == "# Hello\n\nWritten through the stub.\n"
    assert set(stub.billed_by_model(RUN)) == {SONNET}
    assert_counted_as_billed(world, number, stub.billed_by_model(RUN))


def test_the_log_of_the_issue_is_the_stream_of_claude_byte_for_byte(play: Play) -> None:
    world = play("ok")
    number = issue(world)
    world.start()
    world.until_state(number, "succeeded")

    (run,) = world.runs(number)
    stream = (world.state_dir / "logs" / f"gh-{number}.jsonl").read_bytes()
    assert stream == (Path(run.run_dir) / "output.log").read_bytes()
    first, *_, last = map(json.loads, stream.splitlines())
    assert (first["type"], first["subtype"], first["model"]) == ("system", "init", SONNET)
    assert Path(first["cwd"]) == world.state_dir / "trees" / f"gh-{number}"
    assert (last["type"], last["is_error"]) == ("result", False)
    assert KEY.encode() not in stream


def test_a_sub_agent_on_another_model_is_counted_and_priced_as_that_model(play: Play, stub: StubLLM) -> None:
    world = play("agent", env={"CLAUDE_CODE_SUBAGENT_MODEL": HAIKU})
    number = issue(world)
    world.start()
    world.until_state(number, "failed")

    assert world.result(number) == Result(state="failed", outcomes=("no_changes",), label="failed")
    assert set(stub.billed_by_model(RUN)) == {SONNET, HAIKU}
    assert_counted_as_billed(world, number, stub.billed_by_model(RUN))


def test_a_provider_that_is_busy_at_first_costs_no_attempt_and_no_token(play: Play, stub: StubLLM) -> None:
    world = play("429x2")
    number = issue(world)
    world.start()
    world.until_state(number, "succeeded")

    assert world.result(number) == Result(state="succeeded", outcomes=("succeeded",), pulls=1, label="done")
    assert stub.requests(RUN) == 4
    assert [line["status"] for line in world.events("provider error")] == [429, 429]
    assert_counted_as_billed(world, number, stub.billed_by_model(RUN))


def test_a_refused_key_stops_claude_at_its_first_retry_and_burns_no_attempt(
    play: Play, stub: StubLLM
) -> None:
    world = play("401")
    number = issue(world)
    began = time.monotonic()
    world.start()
    task = world.until_state(number, "blocked")
    world.until_quiet()
    took = time.monotonic() - began

    assert took < SOON
    assert stub.requests(RUN) <= 2
    assert world.result(number) == Result(
        state="blocked", outcomes=("auth_failed",), attempts=0, label="blocked"
    )
    assert task.wake_at is not None
    assert "refused the credentials (401 authentication_failed)" in world.comment(number)
    assert world.server.branch_sha(REPO, f"auto/gh-{number}") is None
    world.until_polls(3)
    assert world.starts(number) == 1


def test_a_daemon_that_is_replaced_while_claude_works_loses_no_token(play: Play, stub: StubLLM) -> None:
    world = play("429x2")  # Claude waits a second before each further request
    number = issue(world)
    world.start()
    world.until_working(number)
    world.stop()
    assert stub.requests(RUN) < 4
    assert len(world.live()) == 1
    world.start()
    world.until_state(number, "succeeded")

    assert world.result(number) == Result(state="succeeded", outcomes=("succeeded",), pulls=1, label="done")
    assert [line["found"] for line in world.events("found a run")] == ["alive"]
    assert_counted_as_billed(world, number, stub.billed_by_model(RUN))


def test_an_issue_that_is_closed_while_claude_waits_for_the_model_is_cancelled(
    play: Play, stub: StubLLM
) -> None:
    world = play("hang")
    number = issue(world)
    world.start()
    world.until(lambda: stub.requests(RUN) == 1, "Claude has asked the model")
    world.until_working(number)
    assert world.processes()
    world.server.close_issue(REPO, number)
    world.until_state(number, "cancelled")
    world.until_quiet()

    assert world.result(number) == Result(state="cancelled", outcomes=("cancelled",), label="cancelled")
    assert world.server.branch_sha(REPO, f"auto/gh-{number}") is None


def test_claude_stopped_inside_a_tool_prints_its_result_and_is_counted(play: Play, stub: StubLLM) -> None:
    world = play("shell")
    number = issue(world)
    world.start()
    world.until(lambda: "tail" in commands(world), "the tool of Claude runs")
    world.server.close_issue(REPO, number)
    world.until_state(number, "cancelled")
    world.until_quiet()

    assert world.result(number) == Result(state="cancelled", outcomes=("cancelled",), label="cancelled")
    (run,) = world.runs(number)
    assert json.loads((Path(run.run_dir) / "output.log").read_bytes().splitlines()[-1])["type"] == "result"
    assert stub.requests(RUN) == 1
    assert_counted_as_billed(world, number, stub.billed_by_model(RUN))


def commands(world: World) -> set[str]:
    """The names of the processes that carry a run's marker."""
    names = set()
    for process in world.processes():
        try:
            names.add(Path(f"/proc/{process.pid}/comm").read_text().strip())
        except OSError:
            continue  # it has ended since
    return names


@pytest.mark.parametrize("text", ["/help", "/clear\nand write HELLO.md"])
def test_an_issue_that_begins_with_a_slash_command_is_still_work(
    play: Play, stub: StubLLM, text: str
) -> None:
    world = play("ok")
    number = issue(world, title=text.splitlines()[0], body=text)
    world.start()
    world.until_state(number, "succeeded")

    assert stub.requests(RUN) == 2
    assert in_branch(world, number, "HELLO.md")


def test_a_template_that_still_names_the_prompt_file_works_and_is_warned_about_everywhere(
    play: Play, stub: StubLLM
) -> None:
    world = play("ok", prompt=("{prompt_file}",))
    number = issue(world)
    warning = (
        "providers.claude-cli.command_template: claude takes the word after -p for the prompt itself, "
        'here the path in "{prompt_file}"; remove that word, because the prompt comes on stdin.'
    )
    assert verb(world, "check")["warnings"] == [warning]
    findings = {(each["check"], each["ok"], each["text"]) for each in verb(world, "doctor")}
    assert ("configuration", None, warning) in findings
    assert ("provider", True, "claude-cli is available") in findings
    world.start()
    world.until_state(number, "succeeded")

    assert len(world.events(warning)) == 1
    assert stub.requests(RUN) == 2
    assert_counted_as_billed(world, number, stub.billed_by_model(RUN))


def verb(world: World, name: str) -> Any:
    """The JSON of a verb that is run in the daemon's environment."""
    done = subprocess.run(
        [sys.executable, "-m", "coordinator", name, "--json", "--config", str(world.path)],
        env=world.environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
        timeout=SOON,
    )
    return json.loads(done.stdout)
