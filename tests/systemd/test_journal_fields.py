"""A daemon as a unit: what journald keeps of it, and how it is searched."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from booted import CHECKOUT, Booted

from coordinator.demo import agent
from coordinator.demo.server import GitHubServer

REPO = "octo/hello"
TOKEN = "token-of-the-coordinator-bot"
UNIT = "coordinator"
FORGED = "Say hello\nTASK=gh-99\nPRIORITY=0\nMESSAGE=all is well\n"

CONFIG = """\
[coordinator]
poll_interval_seconds = 1
max_attempts = 1

[github]
repo_owner = "octo"
repo_name = "hello"
api_url = "{api_url}"
remote_url = "{remote_url}"
token_env = "HELLO_TOKEN"
writes_per_minute = 0
report_delay_seconds = 0

[providers.claude-cli]
command_template = [
    "{python}", "-I", "{agent}", "-p", "--model", "{{model}}", "--output-format", "stream-json", "--verbose",
]

[llm]
provider = "claude-cli"
model_default = "claude-sonnet-4-5"

[routing]
enabled = true

[[routing.rules]]
name = "all-sonnet"
conditions = {{}}
model = "claude-sonnet-4-5"
reason = "One is enough"
"""

# Writes before and after a moment that the test chooses: while a file is there, it waits.
WRITE_ENTRIES = """
import pathlib, sys, time
from coordinator import logs
from coordinator.systemd.journal import Journal
logs.configure(redactor=logs.Redactor(), journal=Journal())
log, mark = logs.get_logger(), pathlib.Path(sys.argv[1])
for number in range(300):
    log.info("many", number=number)
until = time.monotonic() + 60
while mark.exists() and time.monotonic() < until:
    time.sleep(0.01)
log.warning("large", task="gh-5", blob="first\\n" + "x" * 1_000_000)
log.info("last")
"""


@pytest.fixture(scope="module")
def github(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitHubServer]:
    with GitHubServer(git_root=tmp_path_factory.mktemp("github")) as server:
        server.add_repo(REPO, files={"README.md": "# Hello\n"})
        server.set_permission(REPO, "coordinator-bot", "write")
        server.set_permission(REPO, "ada", "write")
        server.add_token(TOKEN, "coordinator-bot")
        yield server


@pytest.fixture(scope="module")
def config(github: GitHubServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("project") / "adws" / "config.toml"
    path.parent.mkdir()
    path.write_text(
        CONFIG.format(
            api_url=github.api_url,
            remote_url=github.git_url(REPO),
            python=sys.executable,
            agent=Path(agent.__file__).resolve(),
        )
    )
    return path


@pytest.fixture(scope="module")
def worked(booted: Booted, github: GitHubServer, config: Path) -> int:
    """The number of an issue, with a title of ill intent, that a daemon under systemd has worked through."""
    body = "[[agent: write docs/guide.md]]"
    number = github.add_issue(
        REPO, title=FORGED, body=body, author="ada", labels=["rpi-auto"], labelled_by="ada"
    )
    start(booted, UNIT, "-m", "coordinator", "run", "--config", str(config))
    booted.until(lambda: find(booted, "COORDINATOR_EVENT=pull request opened"), "it is published")
    return number


def start(booted: Booted, unit: str, *arguments: str) -> None:
    booted.run(
        "systemd-run", "--quiet", "--unit", unit, "--property", "KillMode=process",
        "--working-directory", str(CHECKOUT),
        "--setenv", f"HELLO_TOKEN={TOKEN}", "--setenv", "PATH=/usr/bin:/bin",
        sys.executable, *arguments,
    )  # fmt: skip


def find(booted: Booted, *matches: str, unit: str = UNIT) -> list[dict[str, Any]]:
    return booted.journal(unit, "--all", *matches)


def test_each_event_of_a_run_has_the_fields_to_search_for(booted: Booted, worked: int) -> None:
    about = {
        "TASK": f"gh-{worked}",
        "RUN": "1",
        "RULE": "all-sonnet",
        "PROVIDER": "claude-cli",
        "MODEL": "claude-sonnet-4-5",
        "SYSLOG_IDENTIFIER": "coordinator",
        "PRIORITY": "6",
        "_TRANSPORT": "journal",
    }
    found = find(booted, f"TASK=gh-{worked}", "RUN=1")
    assert [entry["COORDINATOR_EVENT"] for entry in found] == [
        "✓ Rule matched: all-sonnet → claude-cli/claude-sonnet-4-5",
        "worker started",
        "worker finished",
        "pull request opened",
    ]
    for entry in found:
        assert {name: entry.get(name) for name in about} == about
    (finished,) = find(booted, "COORDINATOR_EVENT=worker finished")
    assert finished["COORDINATOR_OUTCOME"] == "succeeded"
    assert finished["MESSAGE"].startswith(f"[gh-{worked}] worker finished  outcome=succeeded detail=")


def test_a_title_cannot_add_a_field_or_a_line(booted: Booted, worked: int) -> None:
    (new,) = find(booted, "COORDINATOR_EVENT=new task")
    assert new["COORDINATOR_TITLE"].startswith("Say hello\nTASK=gh-99")
    assert new["TASK"] == f"gh-{worked}"
    assert new["PRIORITY"] == "6"
    assert "\n" not in new["MESSAGE"]
    assert find(booted, "TASK=gh-99") == []


def test_every_line_of_the_daemon_is_one_entry_with_its_event(
    booted: Booted, worked: int, config: Path
) -> None:
    entries = [e for e in find(booted) if e.get("SYSLOG_IDENTIFIER") == "coordinator"]
    stored = (config.parents[1] / ".coordinator" / "logs" / "coordinator.jsonl").read_text().splitlines()
    assert [e["_TRANSPORT"] for e in entries] == ["journal"] * len(stored)


def test_json_and_text_do_what_they_say_in_the_journal_too(booted: Booted, worked: int, config: Path) -> None:
    """The state directory is taken, so both end at once; what they log before that is enough."""
    booted.systemctl("stop", UNIT)
    for option, begins in (("--json", '{"timestamp"'), ("--text", "")):
        unit = f"explicit{option}"
        start(booted, unit, "-m", "coordinator", "run", "--once", option, "--config", str(config))
        booted.until(lambda unit=unit: "stopped" in booted.messages(unit), "it has ended")
        said = [e for e in booted.journal(unit) if "coordinator starts" in str(e["MESSAGE"])]
        assert [e["_TRANSPORT"] for e in said] == ["stdout"]
        assert said[0]["MESSAGE"].startswith(begins)


def test_many_and_large_entries_arrive_also_across_a_restart_of_journald(
    booted: Booted, tmp_path: Path
) -> None:
    unit, mark = "entries", tmp_path / "wait"
    mark.touch()
    start(booted, unit, "-c", WRITE_ENTRIES, str(mark))
    booted.until(lambda: len(find(booted, "COORDINATOR_EVENT=many", unit=unit)) == 300, "the first arrive")
    booted.systemctl("restart", "systemd-journald")
    mark.unlink()
    booted.until(lambda: find(booted, "COORDINATOR_EVENT=last", unit=unit), "the last has arrived")
    numbers = [e["COORDINATOR_NUMBER"] for e in find(booted, "COORDINATOR_EVENT=many", unit=unit)]
    assert numbers == [str(number) for number in range(300)]
    (large,) = find(booted, "TASK=gh-5", unit=unit)
    assert large["COORDINATOR_BLOB"] == "first\n" + "x" * 1_000_000
    assert (large["PRIORITY"], large["_TRANSPORT"]) == ("4", "journal")
