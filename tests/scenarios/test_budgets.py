"""Budgets with the real daemon: stopped in mid-run, refused, waited for, raised, warned of once."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from world import WAIT, WRITE, Result, World, program

DONE = Result(state="succeeded", outcomes=("succeeded",), pulls=1, label="done")


def daily(tokens: int, **changes: object) -> dict[str, object]:
    return {"name": "daily", "tokens": tokens, **changes}


def test_a_run_that_comes_to_the_end_of_a_budget_is_stopped_and_an_operator_lets_others_go_on(
    a_world,
) -> None:
    world: World = a_world(budgets=[daily(100)])
    stopped = world.issue(WAIT)
    world.start()
    task = world.until_state(stopped, "blocked")
    refused = world.issue(WRITE)
    parked = world.until_state(refused, "blocked")
    world.until_quiet()

    assert world.result(stopped) == Result(
        state="blocked", outcomes=("over_budget",), attempts=0, label="blocked"
    )
    assert "budget daily (100 tokens a day) is used up" in (task.cause or "")
    assert world.result(refused) == Result(state="blocked", outcomes=(), attempts=0, label="blocked")
    assert "budget daily (100 tokens a day) has no room" in world.comment(refused)
    midnight = task.wake_at
    assert midnight is not None
    assert (midnight.hour, midnight.minute) == (0, 0)
    assert timedelta() < midnight - world.clock() <= timedelta(days=1)
    assert parked.wake_at == midnight
    assert [each["share"] for each in world.events("budget warning")] == ["100%"]
    decided = world.cli("route", "explain", str(refused), "--json")["now"]
    assert decided["attrs"]["budget_left"] == 0
    assert {each["why"] for each in decided["targets"]} == {parked.cause}

    world.cli("cancel", str(stopped))
    world.cli("budget", "allow", "daily", "--tokens", "1000000", "--for", "2h", "--reason", "release")
    world.until_state(refused, "succeeded")
    world.until_quiet()
    assert world.result(refused) == DONE
    (found,) = world.cli("budget", "--json")["budgets"]
    assert (found["limit"], found["reserved"]) == (1_000_100, 0)
    assert 100 < found["spent"] == sum(world.task(number).tokens for number in (stopped, refused))
    assert f"Budgets: daily {found['spent']:,} tokens of 1,000,100 tokens spent" in world.cli("status")
    assert world.cli("budget", "take-back", "daily") == "budget daily: 1 exception taken back."
    assert world.cli("budget", "--json")["budgets"][0]["limit"] == 100
    assert world.cli("status", "--json")["budgets"][0]["share"] > 1


def test_what_a_budget_refused_goes_on_when_the_next_day_begins_in_the_zone_of_the_configuration(
    a_world,
) -> None:
    zone = "Pacific/Auckland"
    world: World = a_world(coordinator={"timezone": zone}, budgets=[daily(100)])
    world.start()
    first = world.issue(WRITE)
    world.until_state(first, "succeeded")  # it ended before anybody could look: that is spent as well
    number = world.issue(WRITE)
    wake_at = world.until_state(number, "blocked").wake_at
    assert wake_at is not None
    local = wake_at.astimezone(ZoneInfo(zone))
    assert (local.hour, local.minute, local.second) == (0, 0, 0)

    world.advance((wake_at - world.clock()).total_seconds() + 1)
    world.until_state(number, "succeeded")
    world.until_quiet()
    assert world.result(number) == DONE


def test_a_larger_budget_in_the_file_wakes_what_was_refused_and_a_soft_one_warns_once(a_world) -> None:
    world: World = a_world(budgets=[daily(100)])
    world.start()
    world.until_state(world.issue(WRITE), "succeeded")
    number = world.issue(WRITE)
    world.until_state(number, "blocked")
    soft = {"name": "soft", "tokens": 50, "scope": "repository", "hard": False}
    world.config["budgets"] = [daily(10_000_000, warn_at=[]), soft]
    world.write_config()
    world.until_state(number, "succeeded")
    world.until_state(world.issue(WRITE), "succeeded")
    titles = [each["budget"] for each in world.events("budget warning")]
    assert titles.count("soft (50 tokens a day for repository octo/hello)") == 1


def test_a_run_that_the_budget_of_its_provider_stops_moves_on_to_another_provider(a_world) -> None:
    own = daily(100, scope="provider", only=["claude-cli"])
    writes = program('open("work.txt", "w").write("done")')
    world: World = a_world(
        budgets=[own], providers__other=writes, routing={"fallbacks": ["other/m2", "claude-cli/big"]}
    )
    number = world.issue(WAIT)
    world.start()
    world.until_state(number, "succeeded")
    assert [(run.provider, run.outcome) for run in world.runs(number)] == [
        ("claude-cli", "over_budget"),
        ("other", "succeeded"),
    ]
    assert world.until_logged("moves on")["left"] == ["other/m2"], "its other model is paid from the same pot"
    assert world.task(number).attempts == 1


@pytest.mark.crash
def test_an_adopted_run_keeps_its_reservation_and_is_stopped_at_the_end_of_the_budget(a_world) -> None:
    world: World = a_world(budgets=[daily(1_000_000)])
    number = world.issue(WAIT)
    world.start_process()
    world.until_working(number)
    world.kill()
    (left,) = world.cli("budget", "--json")["budgets"]
    assert left["reserved"] + left["spent"] == 1_000_000  # of a run that lives on without a daemon
    world.cli("budget", "allow", "daily", "--tokens", "5", "--for", "1h")
    assert world.cli("budget", "--json")["budgets"][0]["limit"] == 1_000_005
    other = world.issue(WRITE)
    world.config["budgets"] = [daily(100)]
    world.write_config()
    world.start()
    task = world.until_state(number, "blocked")
    assert "budget daily (100 tokens a day) is used up" in (task.cause or "")
    world.until_state(other, "blocked")
    assert world.starts(other) == 0


def test_a_run_that_a_budget_stopped_goes_on_as_soon_as_an_operator_allows_more(a_world) -> None:
    world: World = a_world(budgets=[daily(100)])
    number = world.issue(WAIT)
    world.start()
    task = world.until_state(number, "blocked")
    assert [failed.why for failed in task.failed_on] == ["over_budget"]
    world.cli("budget", "allow", "daily", "--tokens", "1000000", "--for", "2h", "--reason", "release")
    world.until(lambda: world.starts(number) == 2, "it goes on")
    world.cli("cancel", str(number))
    world.until_state(number, "cancelled")


# Spends a dollar at a time, once a file lets it; it obeys Claude's option where that is given.
_SPENDER = """#!{python} -I
import json, os, sys, time
arguments = dict(zip(sys.argv[1::2], sys.argv[2::2]))
most, step, turns = float(arguments.get("--max-budget-usd", "inf")), 1_000_000, 0
say = lambda **record: print(json.dumps(record), flush=True)
say(type="system", subtype="init", session_id="s", model="m")
until = time.monotonic() + 60
while time.monotonic() < until and not os.path.exists({gate!r}):
    time.sleep(0.01)
while turns < most and turns < {turns}:
    turns += 1
    usage = dict(input_tokens=step, output_tokens=0)
    say(type="assistant", message=dict(id=str(turns), model="m", usage=usage, content=[]))
open({spent!r} + ".new", "w").write(str(turns))
os.rename({spent!r} + ".new", {spent!r})
used = dict(m=dict(inputTokens=turns * step, outputTokens=0))
if turns >= most:
    say(type="result", subtype="error_max_budget_usd", terminal_reason="budget_exhausted", is_error=True,
        num_turns=turns, duration_api_ms=1, result="Reached maximum budget", modelUsage=used)
    sys.exit(1)
time.sleep(60)
"""


def a_spender(world: World, name: str, *, turns: int = 1000) -> Path:
    """Puts an agent of that name in the place of the usual one; the file that says what it has spent."""
    path, spent = world.folder / name, world.folder / "spent"
    values = {"{python}": sys.executable, "{gate!r}": repr(str(world.folder / "gate"))}
    text = _SPENDER
    for place, value in {**values, "{turns}": str(turns), "{spent!r}": repr(str(spent))}.items():
        text = text.replace(place, value)
    path.write_text(text)
    path.chmod(0o755)
    command = {"agent": "claude", "command_template": [str(path), "--model", "{model}"]}
    world.write_config(**{"providers.claude-cli": command})
    return spent


def a_price() -> dict[str, object]:
    price = {"cost_per_million_input": 1, "cost_per_million_output": 1}
    return {"name": "m", "provider": "claude-cli", **price}


@pytest.mark.crash
def test_without_a_daemon_an_agent_that_can_stops_itself_at_the_end_of_the_budget(a_world) -> None:
    """The estimate is far too low, and nobody counts: the program was told what the budget had left."""
    money = {"name": "daily", "money_usd": 7}
    world: World = a_world(
        budgets=[money], models=[a_price()], llm={"model_default": "m"}, budget_estimates={"usd": 0.5}
    )
    spent = a_spender(world, "claude")
    number = world.issue()
    world.start_process()
    world.until_working(number)
    world.kill()
    world.open_gate()
    world.until(spent.exists, "it has spent what it was told")
    assert spent.read_text() == "7"
    world.start()
    task = world.until_state(number, "blocked")
    assert [run.outcome for run in world.runs(number)] == ["over_budget"]
    assert (task.attempts, task.failed_on[-1].why) == (0, "over_budget")
    world.advance(61)  # and then the budget itself says until when
    world.until(lambda: "has no room" in (world.task(number).cause or ""), "the budget refuses it")
    assert world.starts(number) == 1
    world.cli("budget", "allow", "daily", "--usd", "100", "--for", "2h")
    world.until(lambda: world.starts(number) == 2, "it goes on")
    world.cli("cancel", str(number))
    world.until_state(number, "cancelled")


@pytest.mark.crash
def test_what_was_used_without_a_daemon_is_counted_before_the_next_one_starts_anything(a_world) -> None:
    money = {"name": "daily", "money_usd": 7}
    world: World = a_world(
        budgets=[money], models=[a_price()], llm={"model_default": "m"}, budget_estimates={"usd": 0.5}
    )
    spent = a_spender(world, "wrapper", turns=20)  # no program that anybody knows options of
    number = world.issue()
    world.start_process()
    world.until_working(number)
    world.kill()
    world.open_gate()
    world.until(spent.exists, "it has spent more than there is")
    other = world.issue()
    world.start()
    world.until_state(number, "blocked")
    world.until_state(other, "blocked")
    assert [run.outcome for run in world.runs(number)] == ["over_budget"]
    assert world.starts(other) == 0
