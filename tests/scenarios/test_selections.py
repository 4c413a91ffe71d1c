"""A rule with a selection, from the label to the pull request, and what `route explain` says of it."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from world import WRITE, World, program, scripted_agent

from tests.openrouter_server import Call, Fail, OpenRouterServer, Say

PROJECT = Path(__file__).resolve().parents[2]
TODAY = "2026-11-21"


def cheapest_by_hand(rows, *, least_context):
    """The id of the cheapest row for 300,000 tokens in and 10,000 out, worked out without any of our code."""

    def cost(row):
        return 300_000 * Decimal(row["pricing"]["prompt"]) + 10_000 * Decimal(row["pricing"]["completion"])

    def fits(row):
        can = {"tools", "reasoning"} <= set(row.get("supported_parameters") or ())
        is_odd = row["id"].startswith(("~", "openrouter/")) or row["id"].endswith(":batch")
        return (
            can
            and not is_odd
            and (row.get("expiration_date") or TODAY) >= TODAY
            and min(row["context_length"], row["top_provider"]["context_length"] or 10**9) >= least_context
            and Decimal(row["pricing"]["prompt"]) >= 0
        )

    return min(filter(fits, rows), key=cost)["id"]


@pytest.fixture
def openrouter():
    with OpenRouterServer() as server:
        yield server


def thrifty_world(a_world, openrouter, **target) -> World:
    program = ["tools/openrouter-cli.py", "-p", "{prompt_file}", "--model", "{model}"]
    provider = {
        "requires_api_key": True,
        "api_key_env": "OPENROUTER_API_KEY",
        "command_template": [*program, "--output-file", "{output_file}", "--output-format", "stream-json"],
        "pass_env": ["OPENROUTER_BASE_URL"],
    }
    world: World = a_world(
        providers__openrouter=provider,
        routing={"enabled": True, "rules": [{"name": "thrifty", "target": target}]},
    )
    (world.folder / "tools").symlink_to(PROJECT / "tools")
    world.environ |= openrouter.environ
    return world


def test_the_daemon_takes_the_cheapest_capable_model_of_the_catalogue_and_says_why(a_world, openrouter):
    write = Call("write_file", {"path": "docs/hello.md", "content": "Hello.\n"})
    openrouter.script(Say(tool_calls=[write]), Say(text="Written.", cost=Decimal("0.0042")))
    expected = cheapest_by_hand(openrouter.catalogue["data"], least_context=150_000)
    world = thrifty_world(
        a_world, openrouter, select="cheapest", require=["tools", "reasoning"], min_context=150_000
    )
    world.start()
    world.until_logged("catalogue synced")
    number = world.issue(title="Say hello")
    world.until_state(number, "succeeded")

    (run,) = world.runs(number)
    assert (run.provider, run.model, run.rule) == ("openrouter", expected, "thrifty")
    assert {chat.body["model"] for chat in openrouter.chats} == {expected}
    (selected,) = world.store.decision_of(run.run_id).selected
    assert selected["targets"][0] == f"openrouter/{expected}"
    assert selected["why"]["candidates"][0]["by"] == "price now, tokens by [selection]"
    reasons = {each["why"]: each["such_as"] for each in selected["why"]["left_out"]}
    assert reasons["batch: answers hours later"] == ["openrouter/openai/gpt-6-sol:batch"]

    facts = world.cli("route", "explain", str(number), "--json")
    assert facts["runs"][0]["selected"] == [selected]
    assert facts["now"]["selected"][0]["targets"][0] == f"openrouter/{expected}"
    shown = world.cli("route", "explain", str(number))
    assert f"Selected cheapest:\n  1. openrouter/{expected}: $" in shown
    assert "left out 1, batch: answers hours later: openrouter/openai/gpt-6-sol:batch" in shown


def test_a_task_goes_by_the_experience_of_those_before_it(a_world):
    """Nobody has been tried, so the first by name gets the first task; it does nothing and is left."""
    adaptive = {
        "select": "adaptive",
        "candidates": ["good/model", "bad/model"],
        "explore": 0,
        "min_samples": 1,
    }
    world: World = a_world(
        providers__good=scripted_agent(),
        providers__bad=program("print(1)"),
        routing={"enabled": True, "rules": [{"name": "learn", "target": adaptive}]},
        coordinator={"max_attempts": 1},
    )
    world.start()
    for _ in range(2):
        number = world.issue(WRITE)
        world.until(lambda n=number: any(run.outcome for run in world.runs(n)), "it has run")
    chosen = [(run.provider, str(run.outcome)) for number in (1, 2) for run in world.runs(number)]
    assert chosen == [("bad", "no_changes"), ("good", "succeeded")]
    (selected,) = world.store.decision_of(world.runs(2)[0].run_id).selected
    good, bad = selected["why"]["candidates"]
    assert (selected["why"]["seed"], selected["why"]["explores"]) == ("gh-2", False)
    assert (good["samples"], bad["samples"], bad["class"]) == (
        0,
        1,
        "tasks of the same repository, labels and size",
    )
    assert bad["chance"] < good["chance"] == 0.5
    shown = world.cli("route", "explain", "2")
    assert (
        "1. good/model: unknown cost expected (nobody); chance 50%, 0.00 h, score 2.50, by 0 of all tasks"
        in shown
    )


def test_rules_see_the_tokens_a_task_is_expected_to_take_and_a_context_that_is_too_small_is_passed_over(
    a_world,
):
    world: World = a_world(
        providers__one=scripted_agent(),
        models=[
            {"name": "small", "provider": "one", "context_window": 6_000},
            {"name": "large", "provider": "one", "context_window": 8_000},
        ],
        selection={"expected_context_tokens": 5_000, "expected_input_tokens": 70},
        routing={
            "enabled": True,
            "rules": [
                {
                    "name": "expected",
                    "condition": "estimated_tokens == 10070",
                    "target": "one/small",
                    "fallbacks": ["one/large"],
                }
            ],
        },
    )
    world.start()
    number = world.issue(WRITE)
    world.until_state(number, "succeeded")
    (run,) = world.runs(number)
    assert (run.provider, run.model, run.rule) == ("one", "large", "expected")
    attrs = world.store.decision_of(run.run_id).attrs
    task = world.task(number)
    characters = len(task.snapshot_title) + len(task.snapshot_body)
    assert attrs["context_needed"] == 1_000 + -(-characters // 4) + 5_000
    shown = world.cli("route", "explain", str(number), "--json")["now"]
    assert shown["attrs"]["estimated_tokens"] == attrs["estimated_tokens"] == 10_070


def test_a_prompt_that_is_too_long_moves_on_to_a_larger_context_in_the_catalogue(a_world, openrouter):
    able = [row for row in openrouter.catalogue["data"] if "tools" in row["supported_parameters"]]
    contexts = {
        row["id"]: row["context_length"] for row in able if row["id"][0] != "~" and ":" not in row["id"]
    }
    small, large = min(contexts, key=contexts.__getitem__), max(contexts, key=contexts.__getitem__)
    write = Call("write_file", {"path": "docs/hello.md", "content": "Hello.\n"})
    openrouter.script(Fail.of(400, "context_length_exceeded"), Say(tool_calls=[write]), Say(text="Written."))
    world = thrifty_world(a_world, openrouter, provider="openrouter", model=small)
    (rule,) = world.config["routing"]["rules"]
    chain = {**rule, "fallbacks": [f"openrouter/{large}"], "requires": ["tools"]}
    world.write_config(routing={"enabled": True, "rules": [chain]})
    world.start()
    world.until_logged("catalogue synced")
    number = world.issue(title="Say hello")
    world.until_state(number, "succeeded")
    assert [run.model for run in world.runs(number)] == [small, large]
    assert world.runs(number)[0].failure_class == "prompt_too_long"
