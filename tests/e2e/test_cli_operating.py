"""The commands that ask a running daemon for something, and what they say when none runs."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from conftest import World, at_once, end_what_runs_in, make_world, processes_of, until

from coordinator.cli.operate import sentence
from coordinator.demo.server import GitHubServer
from tests.forked import Command

WORKS_FOR_LONG = "[[agent: slow 120]]"


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A daemon with one slot, an issue that is worked on, and two that wait for the slot."""
    folder = tmp_path_factory.mktemp("busy")
    with GitHubServer(git_root=folder / "github") as server, contextlib.ExitStack() as stack:
        world = make_world(folder, server)
        world.write_config(workers=1)
        world.issue("running", "Work for long", WORKS_FOR_LONG, labels=["priority:P0"])
        world.issue("queued", "Wait for the slot", "[[agent: no-op]]")
        world.issue("dropped", "Never mind", "[[agent: no-op]]")
        stack.callback(end_what_runs_in, folder)
        daemon = stack.enter_context(world.start("run"))
        stack.callback(daemon.terminate)
        until(lambda: world.state_of("running") == "running", "the first issue is worked on")
        until(lambda: world.state_of("dropped") == "queued", "the others wait")
        yield world


def test_why_tells_the_running_from_the_waiting(busy: World) -> None:
    assert "is running on claude-cli/claude-opus-4 (rule critical-issues-opus, attempt 1" in busy.why(
        "running"
    )
    assert "is queued: the only worker slot is busy" in busy.why("queued")


def test_status_shows_the_daemon_and_what_runs(busy: World) -> None:
    answer = busy.run("status")
    since = re.match(
        r"● running \(process \d+, since (\d\d:\d\d:\d\d) \w+, configuration \w+\)\n", answer.out
    )
    assert since is not None
    assert "octo/hello: next poll in" in answer.out
    facts = busy.run("status", "--json").json
    assert facts["daemon"]["running"] is True
    started_at = datetime.fromisoformat(facts["daemon"]["started_at"])
    assert f"{started_at.astimezone():%H:%M:%S}" == since[1]
    assert timedelta(0) < datetime.now(UTC) - started_at < timedelta(minutes=5)  # noqa: TID251  from outside
    assert facts["tasks"][0]["state"] == "running"
    assert facts["tasks"][0]["rule"] == "critical-issues-opus"


def test_pause_and_resume_are_taken_at_once_and_said_by_why(busy: World) -> None:
    paused = busy.run("pause")
    assert (paused.code, paused.out) == (0, "No new runs are started until `coordinator resume`.\n")
    assert "Coordinator is paused" in busy.why("queued")
    resumed = busy.run("resume", "--json").json
    assert (resumed["verb"], resumed["answer"]) == ("resume", "runs are started again")


def test_cancel_ends_what_waits_with_the_reason_given(busy: World) -> None:
    number = busy.numbers["dropped"]
    answer = busy.run("cancel", str(number), "--reason", "not needed any more", "--json")
    assert answer.json["task"] == f"gh-{number}"
    assert answer.json["answer"] == f"gh-{number} is being cancelled"
    until(lambda: busy.state_of("dropped") == "cancelled", "it is cancelled")
    assert "was cancelled: not needed any more; it runs again after" in busy.why("dropped")
    again = busy.run("cancel", str(number))
    assert again.out == f"gh-{number} has already ended (cancelled).\n"


def test_retry_of_what_runs_is_refused_in_one_sentence(busy: World) -> None:
    number = busy.numbers["running"]
    answer = busy.run("retry", str(number))
    assert answer.out == f"gh-{number} is running; there is nothing to retry.\n"


BROKEN = {
    "unknown key": lambda good: good.replace("poll_interval_seconds", "pol_interval_seconds"),
    "not TOML": lambda good: f"[coordinator\n{good}",
    "empty": lambda _good: "",
}


@pytest.fixture(params=[*BROKEN, "missing"])
def broken(busy: World, request: pytest.FixtureRequest) -> Iterator[str]:
    """The file of the running daemon cannot be used for a while; what is wrong with it."""
    good = busy.config.read_text()
    if request.param == "missing":
        busy.config.unlink()
    else:
        busy.config.write_text(BROKEN[request.param](good))
    until(lambda: busy.daemon_file["config_error"], "the daemon has seen it")
    yield busy.run("check").err.strip()
    busy.config.write_text(good)
    until(lambda: busy.daemon_file["config_error"] is None, "the daemon has taken the good one")


def test_while_the_file_cannot_be_used_commands_go_on_with_what_the_daemon_runs_on(
    busy: World, broken: str
) -> None:
    number = str(busy.numbers["running"])
    verbs = ("status",), ("status", "--json"), ("why", number), ("logs", "-n", "1"), ("retry", number)
    answers = at_once({verb: partial(busy.run, *verb) for verb in (*verbs, ("pause",), ("cancel", "1000"))})
    answers["resume",] = busy.run("resume")
    warning = "The configuration file cannot be used; showing what the daemon runs on: "
    for verb, answer in answers.items():
        lines = answer.err.splitlines()
        assert lines[0] == warning + " ".join(broken.splitlines())
        if verb == ("cancel", "1000"):
            assert (answer.code, len(lines)) == (1, 2)  # there is no such task
        else:
            assert (answer.code, len(lines)) == (0, 1)
    assert answers["status", "--json"].json["daemon"]["config_error"].splitlines() == broken.splitlines()
    assert "The configuration file was not taken" in answers["status",].out
    assert answers["why", number].out.startswith(f"gh-{number} is running")
    assert answers["retry", number].out == f"gh-{number} is running; there is nothing to retry.\n"
    assert answers["resume",].out == "Runs are started again.\n"


@pytest.mark.parametrize("name", ["gh-7", "octo/other/gh-7"])
def test_an_answer_begins_with_the_name_of_the_task_as_it_is(name: str) -> None:
    assert sentence(f"{name} is queued again", name, is_running=True) == f"{name} is queued again."
    assert sentence("no such task", name, is_running=True) == "No such task."


def test_a_followed_task_shows_what_comes_and_ends_silently_with_ctrl_c(busy: World, tmp_path: Path) -> None:
    printed = tmp_path / "printed"
    number = busy.numbers["running"]
    with printed.open("w") as out:
        follower = Command(
            ["logs", "-f", "-t", str(number), "--config", str(busy.config)],
            stdout=out, stderr=subprocess.STDOUT, env=busy.environ, start_new_session=True,
        )  # fmt: skip
    until(lambda: "This will take a while" in printed.read_text(), "the agent's words are printed")
    log = busy.state / "logs" / "coordinator.jsonl"
    line = json.dumps(
        {"timestamp": "2999-01-01T00:00:00Z", "level": "info", "task": f"gh-{number}", "event": "e"}
    )
    with log.open("a") as stream:
        stream.write(line[:20])
        stream.flush()
        stream.write(line[20:].replace('"e"', '"written in two halves"') + "\n")
    until(lambda: "written in two halves" in printed.read_text(), "a new line is printed")
    log.rename(log.with_name("coordinator.jsonl.1"))
    log.write_text(line.replace('"e"', '"after rotation"') + "\n")
    until(lambda: "after rotation" in printed.read_text(), "the new file is read")
    os.killpg(follower.pid, signal.SIGINT)
    assert follower.wait(timeout=10) == 130
    text = printed.read_text()
    assert "Traceback" not in text
    assert text.count("This will take a while") == 1
    assert text.index("worker started") < text.index("This will take a while") < text.index("two halves")


def test_requests_without_a_daemon_are_kept_for_the_next_one(world: World) -> None:
    assert "no daemon runs, so it is taken when one starts" in world.run("resume").out


def test_once_interrupted_leaves_no_worker(new_world: World) -> None:
    new_world.issue("slow", "Work for long", WORKS_FOR_LONG)
    once = new_world.start("run", "--once", "--text")
    until(lambda: new_world.state_of("slow") == "running", "it is worked on")
    os.killpg(once.pid, signal.SIGINT)
    _, said = once.communicate(timeout=20)
    assert once.returncode == 130
    assert "Traceback" not in said
    assert "✗ No rule matched → claude-cli/claude-sonnet-4-5 (default)" in said
    assert "\n  Task attrs: {'priority': 'normal'" in said
    until(lambda: not processes_of(str(new_world.folder)), "nothing of it runs")
