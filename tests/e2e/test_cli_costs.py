"""`coordinator costs` and its script, on what one `run --once` left behind."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from conftest import World, at_once

TOOL = Path(__file__).resolve().parents[2] / "tools" / "cost-report.py"


def test_table_json_csv_and_status_tell_the_same_sums(world: World) -> None:
    calls = {
        "table": partial(world.run, "costs", "--by", "model,day"),
        "json": partial(world.run, "costs", "--by", "task", "--json"),
        "csv": partial(world.run, "costs", "--by", "task", "--csv"),
        "status": partial(world.run, "status", "--json"),
    }
    answers = at_once(calls)
    assert {answer.code for answer in answers.values()} == {0}
    found, day = answers["json"].json, answers["status"].json["last_24_hours"]
    total = found["total"]
    assert (total["runs"], total["cost_usd"]) == (day["runs"], day["cost_usd"])
    assert total["runs_of_unknown_cost"] == day["runs_of_unknown_cost"]
    assert {group["task"] for group in found["groups"]} == {
        f"gh-{number}" for key, number in world.numbers.items() if key != "refused"
    }
    rows = list(csv.DictReader(io.StringIO(answers["csv"].out.replace("\n", "\r\n"))))
    assert [row["cost_usd"] for row in rows] == [group["cost_usd"] or "" for group in found["groups"]]
    head, *lines = answers["table"].out.splitlines()
    assert head.split()[:4] == ["model", "day", "runs", "done"]
    assert any(line.startswith("claude-opus-4") for line in lines)
    assert any(line.startswith("total") for line in lines)
    assert lines[-1].endswith("the total counts it once.")


def test_the_script_prints_what_the_command_prints(world: World) -> None:
    options = ["--by", "rule,label", "--csv", "--config", str(world.config)]
    script = subprocess.run([sys.executable, TOOL, *options], capture_output=True, check=True)
    assert script.stderr == b""
    assert script.stdout.count(b"\r\n") == script.stdout.count(b"\n") > 1
    assert script.stdout.replace(b"\r\n", b"\n").decode() == world.run("costs", *options[:3]).out


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--by", "modle"], "costs cannot be grouped by 'modle': use some of day, model, rule"),
        (["--since", "yesterday"], "since 'yesterday' is neither a date, such as 2026-11-21, nor an instant"),
        (["--since", "2026-11-21", "--until", "2026-11-20"], "there is nothing between since 2026-11-21"),
        (["--timezone", "Mars/Olympus"], "'Mars/Olympus' is not a time zone of the IANA list"),
        (["--json", "--csv"], "--json and --csv exclude each other."),
    ],
)
def test_a_wish_that_makes_no_sense_is_one_sentence_and_exit_2(world: World, options, says) -> None:
    answer = world.run("costs", *options)
    assert (answer.code, answer.out) == (2, "")
    assert says in " ".join(answer.err.replace("│", " ").split())


def test_a_time_in_which_nothing_ended_says_so(world: World) -> None:
    assert world.run("costs", "--until", "2001-01-01").out == "No run has ended in that time.\n"
