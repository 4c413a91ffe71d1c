"""The commands that only look, on the state that one `run --once` left behind."""

from __future__ import annotations

import json
import re
from functools import partial

import pytest
from conftest import TOKEN, World, at_once, run

from adw_modules.errors import CoordinatorError
from coordinator.cli.common import find_task
from coordinator.store import Store


def test_one_run_leaves_each_issue_where_it_belongs(world: World) -> None:
    facts = world.run("status", "--json").json
    states = {row["issue"]: row["state"] for row in facts["tasks"]}
    assert {key: states[number] for key, number in world.numbers.items()} == {
        "done": "succeeded",
        "waiting": "retry_wait",
        "unchanged": "failed",
        "refused": "blocked",
        "crashed": "retry_wait",
        "auth": "blocked",
    }
    assert facts["daemon"] == {"running": False}
    assert facts["last_24_hours"]["runs"] == 5
    assert facts["unpublished"] == []


def test_without_a_daemon_a_broken_file_is_replaced_by_what_the_last_one_ran_on(world: World) -> None:
    good = world.config.read_text()
    world.config.write_text(good.replace("max_attempts", "max_attemps"))
    try:
        text, data = world.run("status"), world.run("status", "--json")
    finally:
        world.config.write_text(good)
    assert (text.code, data.code) == (0, 0)
    assert text.err == data.err
    assert text.err.startswith(
        "The configuration file cannot be used; showing what the last daemon ran on: "
        f'{world.config}, line 4: [coordinator] has no key "max_attemps"'
    )
    assert text.err.count("\n") == 1
    assert data.json["daemon"]["running"] is False
    assert "max_attemps" in data.json["daemon"]["config_error"]
    assert len(data.json["tasks"]) == len(world.numbers)


@pytest.mark.parametrize("width", [80, 140])
def test_status_fits_the_screen_and_names_every_task(world: World, width: int) -> None:
    answer = world.run("status", COLUMNS=str(width))
    lines = answer.out.splitlines()
    table = lines[: lines.index("")]
    assert max(map(len, table)) <= width
    for number in world.numbers.values():
        assert any(line.startswith(f"gh-{number} ") for line in table)
    assert "Try [bold]hard[/bold]" in answer.out  # markup in an issue's title is text
    assert "no daemon runs" in lines[0]


def test_status_shows_first_what_is_not_over(world: World) -> None:
    states = [row["state"] for row in world.run("status", "--json").json["tasks"]]
    assert states[:4] == ["retry_wait", "retry_wait", "blocked", "blocked"]
    assert sorted(states[4:]) == ["failed", "succeeded"]


def test_status_lists_no_more_than_asked_and_says_so(world: World) -> None:
    answer = world.run("status", "--limit", "2")
    assert "and 4 more" in answer.out


def test_why_says_in_one_sentence_what_holds_a_task_and_when_that_changes(world: World) -> None:
    begins = {
        "done": "is done, its draft pull request is http",
        "waiting": "waits for its next attempt: the agent reports an error",
        "unchanged": "failed: the agent finished and changed nothing",
        "refused": "was refused: the label was applied by mallory",
        "crashed": "waits for its next attempt: exited with 7",
        "auth": "is blocked: the provider refused",
    }
    answers = at_once({key: partial(world.run, "why", str(world.numbers[key])) for key in begins})
    for key, begin in begins.items():
        sentence, *decisions = answers[key].out.strip().splitlines()
        assert sentence.startswith(f"gh-{world.numbers[key]} {begin}")
        assert all(": " in each and each.startswith("  ") for each in decisions)
        assert re.fullmatch(r".*[^.]\.", sentence)  # one line, one full stop at its end
        assert "it is looked at again" in sentence or "it runs again after `coordinator retry" in sentence


@pytest.mark.parametrize(
    "spelling", ["{n}", "#{n}", "gh-{n}", "GH-{n}", "octo/hello#{n}", "Octo/Hello/gh-{n}"]
)
def test_an_issue_may_be_named_in_every_usual_way(world: World, spelling: str) -> None:
    number = world.numbers["done"]
    with Store.open_readonly(world.state / "coordinator.db") as store:
        assert find_task(store, spelling.format(n=number)).name == f"gh-{number}"


def test_why_as_json_has_the_rules_that_were_tried(world: World) -> None:
    facts = world.run("why", str(world.numbers["waiting"]), "--json").json
    assert facts["state"] == "retry_wait"
    assert facts["wake_at"]
    assert [rule["rule"] for rule in facts["rules"]] == ["critical-issues-opus"]
    assert facts["rule"] is None


@pytest.mark.parametrize("issue", ["99", "octo/other#1", "nonsense!", "", "gh-", "1" * 40])
def test_an_unknown_issue_is_one_sentence(world: World, issue: str) -> None:
    with (
        Store.open_readonly(world.state / "coordinator.db") as store,
        pytest.raises(CoordinatorError) as said,
    ):
        find_task(store, issue)
    assert str(said.value).endswith(".")


def test_an_unknown_issue_ends_with_1(world: World) -> None:
    answer = world.run("why", "99")
    assert answer.code == 1
    assert "`coordinator status` shows the tasks there are" in answer.err


def test_check_says_what_the_configuration_holds(world: World) -> None:
    answer = world.run("check")
    assert answer.code == 0
    assert "1 repository (octo/hello), 2 providers, 1 routing rule." in answer.out


def test_doctor_marks_what_is_missing_says_how_to_mend_it_and_ends_with_1(world: World) -> None:
    answer = world.run("doctor")
    assert answer.code == 1
    assert "✗ provider       nowhere: no-such-program not found on PATH" in answer.out
    assert "→ mend that, or set providers.nowhere.enabled = false" in answer.out
    assert "✓ repository     octo/hello: coordinator-bot may write" in answer.out
    assert "2 problems to mend." in answer.out


def test_doctor_as_json_has_the_same_findings(world: World) -> None:
    answer = world.run("doctor", "--json")
    assert answer.code == 1
    wrong = [finding for finding in answer.json if finding["ok"] is False]
    assert [finding["check"] for finding in wrong] == ["provider", "health"]


def test_doctor_says_that_the_token_is_refused_and_that_it_is_missing(world: World) -> None:
    answers = at_once(
        {token: partial(world.run, "doctor", HELLO_TOKEN=token) for token in ("not-the-token", "")}
    )
    assert "→ put a valid token into HELLO_TOKEN" in answers["not-the-token"].out
    assert "not-the-token" not in answers["not-the-token"].out
    assert "[github] token_env names HELLO_TOKEN, which is empty: export it" in answers[""].out


# -- the log ----------------------------------------------------------------------------------------------


def test_a_log_that_nobody_watches_is_one_json_object_a_line(world: World) -> None:
    records = [json.loads(line) for line in world.log.splitlines()]
    matched = next(record for record in records if record["event"].startswith("✓ Rule matched"))
    assert matched["event"] == "✓ Rule matched: critical-issues-opus → claude-cli/claude-opus-4"
    assert matched["task"] == f"gh-{world.numbers['done']}"
    assert matched["rule"] == "critical-issues-opus"
    assert (matched["provider"], matched["model"]) == ("claude-cli", "claude-opus-4")
    assert matched["reason"] == "Critical tasks get the best model"
    assert matched["attrs"] == {
        "priority": "critical",
        "labels": ["priority:P0", "rpi-auto"],
        "retry_count": 0,
    }
    assert isinstance(matched["run"], int)


def test_the_moments_that_operators_tail_for_are_in_the_log(world: World) -> None:
    events = [json.loads(line) for line in world.log.splitlines()]
    named = {record["event"]: record for record in events}
    assert named["coordinator starts"]["max_concurrent_workers"] == 3
    assert named["coordinator starts"]["config"] == str(world.config)
    assert {"new task", "refused", "pull request opened", "shutting down", "stopped"} <= named.keys()
    assert {"provider", "model", "pid"} <= named["worker started"].keys()
    assert {"outcome", "tokens", "cost"} <= named["worker finished"].keys()
    assert named["will retry"]["attempt"] == "1/3"
    assert named["will retry"]["backoff"]
    assert named["failed permanently"]["cause"]
    assert "✗ No rule matched → claude-cli/claude-sonnet-4-5 (default)" in named


def test_logs_print_the_rule_and_the_attributes_as_two_lines(world: World) -> None:
    lines = world.run("logs").out.splitlines()
    at = next(index for index, line in enumerate(lines) if "Rule matched" in line)
    assert lines[at].endswith("✓ Rule matched: critical-issues-opus → claude-cli/claude-opus-4")
    assert lines[at + 1] == (
        "  Task attrs: {'priority': 'critical', 'labels': ['priority:P0', 'rpi-auto'], 'retry_count': 0}"
    )


def test_the_log_of_a_task_has_the_agent_between_the_start_and_the_end_of_its_run(world: World) -> None:
    lines = world.run("logs", "--task", str(world.numbers["done"])).out.splitlines()
    order = [
        next(index for index, line in enumerate(lines) if text in line)
        for text in (
            "new task",
            "Rule matched",
            "worker started",
            "│ → Write",
            "worker finished",
            "pull request",
        )
    ]
    assert order == sorted(order)
    assert not any(f"[gh-{world.numbers['waiting']}]" in line for line in lines)


def test_the_last_entries_are_what_n_asks_for(world: World) -> None:
    assert world.run("logs", "-n", "1").out.rpartition(" ")[2] == "stopped\n"
    everything = world.run("logs", "-n", "1000").out
    assert everything == world.run("logs", "-n", "50").out
    assert "coordinator starts" in everything


def test_logs_as_json_are_the_lines_as_they_are_stored(world: World) -> None:
    stored = (world.state / "logs" / "coordinator.jsonl").read_text()
    assert world.run("logs", "--json", "-n", "1000").out == stored
    task = world.run("logs", "--json", "-n", "1000", "--task", str(world.numbers["done"])).out.splitlines()
    assert {"new task", "worker finished"} <= {json.loads(line).get("event") for line in task}
    assert any(json.loads(line).get("type") == "result" for line in task)


def test_the_token_is_in_no_file_and_no_output(world: World) -> None:
    assert TOKEN not in world.log
    for path in world.state.rglob("*"):
        if path.is_file():
            assert TOKEN.encode() not in path.read_bytes(), path


def test_state_and_logs_are_for_their_owner_only(world: World) -> None:
    assert world.state.stat().st_mode & 0o777 == 0o700
    assert (world.state / "logs" / "coordinator.jsonl").stat().st_mode & 0o777 == 0o600


def test_route_explain_shows_the_stored_decision_of_each_run_and_the_one_of_now(world: World) -> None:
    number = str(world.numbers["waiting"])
    text, data = world.run("route", "explain", number), world.run("route", "explain", number, "--json").json
    assert text.code == 0
    assert "Run 1, attempt 1" in text.out
    assert f"gh-{number} decided now" in text.out
    assert "✗ critical-issues-opus: priority = 'critical' (priority is 'normal')" in text.out
    refused = "claude-cli/claude-sonnet-4-5: claude-cli refused the credentials"  # as another task has seen
    assert f"✗ No target can be used: {refused}" in text.out
    (run,) = data["runs"]
    assert run["targets"] == [
        {"target": "claude-cli/claude-sonnet-4-5", "eligible": True, "why": None, "until": None}
    ]
    assert [(rule["rule"], rule["matched"]) for rule in run["rules"]] == [("critical-issues-opus", False)]
    assert (run["attrs"]["retry_count"], data["now"]["attrs"]["retry_count"]) == (0, 1)
    assert data["now"]["attrs"]["last_provider"] == "claude-cli"
    assert data["now"]["attrs"]["failure_class"] == "agent_error"
    assert run["attrs"]["task"]["number"] == world.numbers["waiting"]
    assert {"repo", "author", "title_length", "body_length", "created_age_hours", "hour", "weekday"} <= set(
        run["attrs"]
    )


def test_route_explain_with_another_configuration_decides_anew(world: World) -> None:
    other = world.config.with_name("new.toml")
    rule = '\n[[routing.rules]]\nname = "again"\ncondition = "retry_count >= 1"\nmodel = "claude-opus-4"\n'
    other.write_text(world.config.read_text() + rule)
    answer = run(
        *("route", "explain", str(world.numbers["waiting"]), "--config", str(other)),
        env=world.environ,
        cwd=world.folder,
    )
    assert "! again: passed over: claude-cli/claude-opus-4 is not eligible: claude-cli refused" in answer.out
