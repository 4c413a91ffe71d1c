"""`coordinator budget` on what one `run --once` left behind, and what it says to a slip of the pen."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from conftest import Answer, World, at_once, run

BUDGETS = """
[[budgets]]
name = "all"
tokens = 1_000_000_000
per = "total"

[[budgets]]
name = "models"
money_usd = 50
per = "total"
scope = "repository"
hard = false
"""


@pytest.fixture(scope="module")
def config(world: World) -> Path:
    """The configuration of that world, with budgets."""
    path = world.config.with_name("budgets.toml")
    path.write_text(world.config.read_text() + BUDGETS)
    return path


def command(world: World, config: Path, *arguments: str) -> Answer:
    return run("budget", *arguments, "--config", str(config), env=world.environ, cwd=world.folder)


def test_table_and_json_show_what_each_budget_has_given(world: World, config: Path) -> None:
    answers = at_once(
        {
            "table": partial(command, world, config),
            "json": partial(command, world, config, "--json"),
            "costs": partial(world.run, "costs", "--by", "total", "--json"),
        }
    )
    assert {answer.code for answer in answers.values()} == {0}
    tokens, money = answers["json"].json["budgets"]
    total = answers["costs"].json["total"]
    kinds = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens")
    assert tokens["spent"] == sum(total[kind] for kind in kinds) > 0
    assert tokens["left"] == 1_000_000_000 - tokens["spent"]
    assert (money["for"], money["hard"], money["limit"]) == ("octo/hello", False, "50")
    head, *lines = answers["table"].out.splitlines()
    assert head.split() == ["budget", "for", "limit", "spent", "reserved", "left", "until"]
    assert [line.split()[0] for line in lines] == ["all", "models"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["al", "--tokens", "5", "--for", "2h"], "there is no budget 'al'; did you mean \"all\"?"),
        (["all", "--for", "2h"], "say how much: --usd or --tokens."),
        (
            ["all", "--usd", "5", "--for", "2h"],
            "budget all does not limit money, so --usd would change nothing.",
        ),
        (["models", "--usd", "-1", "--for", "2h"], "--usd must be a number greater than 0, not '-1'."),
        (
            ["all", "--tokens", "5", "--for", "soon"],
            "--for must be a time such as 30m, 2h or 1d, at most 366d",
        ),
        (["all", "--tokens", "5"], "--for must be a time such as 30m, 2h or 1d"),
        (
            ["all", "--tokens", "5", "--for", "2h", "--pot", "x"],
            "budget all has one pot for everything: leave --pot out.",
        ),
    ],
)
def test_a_wish_that_makes_no_sense_is_one_sentence_and_exit_2(
    world: World, config: Path, arguments: list[str], says: str
) -> None:
    answer = command(world, config, "allow", *arguments)
    assert (answer.code, answer.out) == (2, "")
    assert says in " ".join(answer.err.replace("│", " ").split())


def test_without_budgets_it_says_how_to_have_one_and_ends_with_1(world: World) -> None:
    answer = world.run("budget")
    assert (answer.code, answer.out) == (1, "")
    assert "add a [[budgets]] table" in answer.err
