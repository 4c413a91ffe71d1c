"""The main job against a GitHub server that nobody here wrote, run as an operator runs it.

`coordinator run` is a process of its own, with the scripted agent of the demo. `emulate` has no git, so
branches go to a repository on disk; it does not compare the two when a pull request is opened.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from emulate_server import Emulate

from coordinator.demo import agent, bare

pytestmark = pytest.mark.github

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 30.0  # seconds until a condition counts as never coming true
WRITE = "[[agent: write docs/guide.md]]"
TOKEN = "tok_bot"
# Several issues live on one server: each operator listens to a label of its own.
LABELS = (f"agent-{number}" for number in itertools.count(1))

_T = TypeVar("_T")


class Operator:
    """Somebody who has a configuration, a repository on disk and the command line."""

    def __init__(self, folder: Path, server: Emulate, **settings: object) -> None:
        self.server, self.label = server, next(LABELS)
        self.state_dir, self.git = folder / "state", folder / "shop.git"
        self.config = folder / "adws" / "config.toml"
        self.environ = {**os.environ, "EMULATE_TOKEN": TOKEN}
        bare.create(self.git, branch="main", files={"README.md": "# Shop\n"})
        self.config.parent.mkdir()
        self.config.write_text(self._toml(settings))

    def _toml(self, settings: dict[str, object]) -> str:
        owner, name = self.server.repo.split("/")
        sections: dict[str, dict[str, object]] = {
            "coordinator": {"state_dir": str(self.state_dir), "poll_interval_seconds": 0.2, **settings},
            "github": {
                "repo_owner": owner,
                "repo_name": name,
                "issue_label": self.label,
                "api_url": self.server.url,
                "remote_url": str(self.git),
                "token_env": "EMULATE_TOKEN",
                "writes_per_minute": 0,
            },
            "admission": {"public_repositories": True},
            "providers.claude-cli": {
                "command_template": [sys.executable, "-I", str(Path(agent.__file__)), "--model", "{model}"]
            },
        }
        return "\n".join(
            "\n".join([f"[{head}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())])
            for head, values in sections.items()
        )

    def issue(self, *directives: str, labelled_by: str = "admin") -> int:
        return self.server.open_issue(
            "Write a guide", label=self.label, body="\n".join(directives), labelled_by=labelled_by
        )

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "coordinator", *arguments, "--config", str(self.config)]

    def run_once(self) -> None:
        """Do everything that can be done now."""
        done = subprocess.run(
            self.command("run", "--once"),
            cwd=ROOT,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert TOKEN not in done.stdout + done.stderr

    def comment(self, number: int) -> str:
        """The text of the one comment that we have written."""
        (comment,) = self.server.comments(number)
        assert comment["user"]["login"] == "bot"
        return str(comment["body"])


@pytest.fixture
def operator(tmp_path: Path, emulate: Emulate) -> Operator:
    return Operator(tmp_path, emulate, max_attempts=1)


def test_a_labelled_issue_becomes_a_draft_pull_request(operator: Operator) -> None:
    number = operator.issue(WRITE)
    operator.run_once()

    (pull,) = operator.server.pulls(f"auto/gh-{number}")
    assert (pull["state"], pull["draft"], pull["base"]["ref"]) == ("open", True, "main")
    assert pull["user"]["login"] == "bot"
    assert pull["title"] == f"gh-{number}: Write a guide"
    assert pull["body"].startswith(f"Fixes #{number}\n")
    assert "✅ Done" in operator.comment(number)
    assert pull["html_url"] in operator.comment(number)
    assert operator.server.labels(number) == {operator.label, "coordinator:done"}
    assert files(operator, number) == {"README.md", "docs/guide.md"}


def test_what_is_done_is_left_alone(operator: Operator) -> None:
    number = operator.issue(WRITE)
    operator.run_once()
    before = snapshot(operator, number)
    operator.run_once()
    assert snapshot(operator, number) == before


def test_a_daemon_that_has_lost_its_state_finds_its_comment_and_its_pull_request(operator: Operator) -> None:
    number = operator.issue(WRITE)
    operator.run_once()
    (comment,), (pull,) = operator.server.comments(number), operator.server.pulls(f"auto/gh-{number}")
    operator.server.ask("PATCH", f"/issues/{number}", {"body": "[[agent: write docs/more.md]]"})
    operator.server.ask("DELETE", f"/issues/{number}/labels/{operator.label}")  # what is edited needs it anew
    operator.server.ask("POST", f"/issues/{number}/labels", {"labels": [operator.label]})
    operator.state_dir.rename(operator.state_dir.with_name("lost"))
    operator.run_once()

    assert [each["id"] for each in operator.server.comments(number)] == [comment["id"]]
    assert [each["number"] for each in operator.server.pulls(f"auto/gh-{number}")] == [pull["number"]]
    assert files(operator, number) == {"README.md", "docs/guide.md", "docs/more.md"}


def files(operator: Operator, number: int) -> set[str]:
    """What the issue's branch holds."""
    return set(bare.git(operator.git, "ls-tree", "-r", "--name-only", f"auto/gh-{number}").split())


def snapshot(operator: Operator, number: int) -> tuple[object, ...]:
    server, branch = operator.server, f"auto/gh-{number}"
    return (
        server.comments(number),
        server.pulls(branch),
        server.labels(number),
        bare.ref_sha(operator.git, branch),
    )


def test_a_failure_is_told_on_the_issue_and_makes_no_pull_request(operator: Operator) -> None:
    number = operator.issue("[[agent: exit 7]]")
    operator.run_once()

    assert "(exit 7)" in operator.comment(number)
    assert operator.server.labels(number) == {operator.label, "coordinator:failed"}
    assert operator.server.pulls(f"auto/gh-{number}") == []


def test_a_label_from_somebody_without_write_access_starts_nothing(operator: Operator) -> None:
    number = operator.issue(WRITE, labelled_by="mallory")
    operator.run_once()

    assert operator.server.comments(number) == []
    assert operator.server.labels(number) == {operator.label}
    assert bare.ref_sha(operator.git, f"auto/gh-{number}") is None


@pytest.fixture
def running(operator: Operator) -> Iterator[subprocess.Popen[bytes]]:
    """`coordinator run`, until the test is over."""
    command = operator.command("run")
    with subprocess.Popen(
        command, cwd=ROOT, env=operator.environ, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=PATIENCE) == 0


def test_an_issue_that_is_closed_while_its_worker_runs_is_cancelled(
    operator: Operator, running: subprocess.Popen[bytes]
) -> None:
    number = operator.issue("[[agent: slow 60]]")
    until(lambda: "coordinator:running" in operator.server.labels(number), "the worker is announced")
    operator.server.close_issue(number)
    until(lambda: "coordinator:cancelled" in operator.server.labels(number), "the worker is cancelled")

    assert running.poll() is None
    assert "🚫 Cancelled" in operator.comment(number)
    assert operator.server.pulls(f"auto/gh-{number}") == []


def until(look: Callable[[], _T], what: str) -> _T:
    """Look until it is true; fail after the patience."""
    deadline = time.monotonic() + PATIENCE
    while not (found := look()):
        assert time.monotonic() < deadline, f"waited {PATIENCE} s in vain until {what}"
        time.sleep(0.05)
    return found
