"""The command line from outside: every command is a process of its own, on state a real daemon made."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from adw_modules.errors import StoreError
from coordinator.demo import agent
from coordinator.demo.server import GitHubServer
from coordinator.store import Store
from tests.forked import Command

REPO, BOT, MAINTAINER, STRANGER = "octo/hello", "coordinator-bot", "ada", "mallory"
TOKEN = "token-of-the-coordinator-bot"
PATIENCE = 20.0  # seconds until a condition counts as never coming true

CONFIG = """\
[coordinator]
max_concurrent_workers = {workers}
poll_interval_seconds = 300
max_attempts = 3

[retries]
base_delay_seconds = 3600
fast_exit_base_delay_seconds = 7200
max_delay_seconds = 7200

[github]
repo_owner = "octo"
repo_name = "hello"
issue_label = "rpi-auto"
api_url = "{api_url}"
remote_url = "{remote_url}"
token_env = "HELLO_TOKEN"
writes_per_minute = 0

[providers.claude-cli]
command_template = [
    "{python}", "-I", "{agent}", "-p", "--model", "{{model}}", "--output-format", "stream-json", "--verbose",
]

[providers.nowhere]
command_template = ["no-such-program"]

[llm]
provider = "claude-cli"
model_default = "claude-sonnet-4-5"

[routing]
enabled = true

[[routing.rules]]
name = "critical-issues-opus"
priority = 100
conditions = {{ priority = "critical" }}
model = "claude-opus-4"
reason = "Critical tasks get the best model"

[[models]]
name = "claude-opus-4"
provider = "claude-cli"
cost_per_million_input = 15.0
cost_per_million_output = 75.0
cost_per_million_cache_read = 1.5
cost_per_million_cache_write = 18.75
"""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(kw_only=True)
class World:
    """One GitHub, one configuration, one state directory."""

    folder: Path
    server: GitHubServer
    numbers: dict[str, int]  # issue numbers by what the tests call them
    log: str = ""  # what `run --once` wrote to standard error, if this world began with one

    @property
    def config(self) -> Path:
        return self.folder / "adws" / "config.toml"

    @property
    def state(self) -> Path:
        return self.folder / ".coordinator"

    @property
    def daemon_file(self) -> Any:
        """What the running daemon says about itself."""
        return json.loads((self.state / "daemon.json").read_text())

    @property
    def environ(self) -> dict[str, str]:
        return {**os.environ, "HELLO_TOKEN": TOKEN, "COLUMNS": "120", "TMPDIR": str(self.folder)}

    def write_config(self, *, workers: int = 3) -> None:
        self.config.parent.mkdir(exist_ok=True)
        self.config.write_text(
            CONFIG.format(
                workers=workers,
                api_url=self.server.api_url,
                remote_url=self.server.git_url(REPO),
                python=sys.executable,
                agent=Path(agent.__file__).resolve(),
            )
        )

    def issue(
        self, key: str, title: str, directive: str = "", *, labelled_by: str = MAINTAINER, labels=()
    ) -> int:
        self.numbers[key] = self.server.add_issue(
            REPO,
            title=title,
            body=f"Please.\n\n{directive}\n",
            author=STRANGER,
            labels=[*labels, "rpi-auto"],
            labelled_by=labelled_by,
        )
        return self.numbers[key]

    def run(self, *arguments: str, cold: bool = False, **environ: str) -> Answer:
        """One command to its end, with this world's configuration."""
        arguments = (*arguments, "--config", str(self.config))
        return run(*arguments, env=self.environ | environ, cwd=self.folder, cold=cold)

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """One command that goes on. The caller ends it."""
        return Command(
            [*arguments, "--config", str(self.config)],
            env=self.environ,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            **options,
        )

    def why(self, key: str) -> str:
        return self.run("why", str(self.numbers[key])).out.strip()

    def state_of(self, key: str) -> str | None:
        """Where a task is, straight from the store; None before there is one."""
        if not (self.state / "coordinator.db").exists():
            return None
        try:
            with Store.open_readonly(self.state / "coordinator.db") as store:
                found = store.find_task(REPO, self.numbers[key])
        except StoreError:  # it is being made this moment
            return None
        return found[0].state.value if found else None


def at_once(calls: dict[Any, Callable[[], Answer]]) -> dict[Any, Answer]:
    """Several commands that do not disturb each other: starting Python is most of what they cost."""
    with ThreadPoolExecutor(4) as threads:
        return {
            key: future.result() for key, future in {k: threads.submit(c) for k, c in calls.items()}.items()
        }


def run(
    *arguments: str, env: dict[str, str] | None = None, cwd: Path | None = None, cold: bool = False
) -> Answer:
    """One command to its end. No command may ever show a traceback."""
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with Command([*arguments], cold=cold, env=env, cwd=cwd, **pipes) as command:
        try:
            out, err = command.communicate(timeout=60)
        except BaseException:
            command.kill()
            raise
    assert "Traceback" not in err + out
    return Answer(code=command.returncode, out=out, err=err)


def until(condition: Callable[[], Any], what: str) -> Any:
    """Look again and again until it is true; its value."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"waited {PATIENCE:.0f} s in vain: {what}")


def make_world(folder: Path, server: GitHubServer) -> World:
    server.add_repo(REPO, files={"README.md": "# Hello\n"})
    for login, role in ((BOT, "write"), (MAINTAINER, "maintain"), (STRANGER, "read")):
        server.set_permission(REPO, login, role)
    server.add_token(TOKEN, BOT)
    world = World(folder=folder, server=server, numbers={})
    world.write_config()
    return world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Seven issues, each with another end, worked on by `run --once`. For looking at only."""
    folder = tmp_path_factory.mktemp("world")
    with GitHubServer(git_root=folder / "github") as server:
        world = make_world(folder, server)
        world.issue("done", "Write a guide", "[[agent: write docs/guide.md]]", labels=["priority:P0"])
        world.issue("waiting", "Try [bold]hard[/bold]", "[[agent: fail]]")
        world.issue("unchanged", "Look around", "[[agent: no-op]]")
        world.issue("refused", "Let me in", "[[agent: no-op]]", labelled_by=STRANGER)
        world.issue("crashed", "Crash at once", "[[agent: exit 7]]")
        world.issue("auth", "Ask a provider that refuses us", "[[agent: api-error 401]]")
        answer = world.run("run", "--once")
        assert answer.code == 0, answer.err
        world.log = answer.err
        yield world


@pytest.fixture
def new_world(tmp_path: Path) -> Iterator[World]:
    """A GitHub without issues, a configuration, no state yet. Its daemons are ended with the test."""
    with GitHubServer(git_root=tmp_path / "github") as server:
        world = make_world(tmp_path, server)
        yield world
        end_what_runs_in(tmp_path)


def end_what_runs_in(folder: Path) -> None:
    """Kill by pid what still has the folder in its environment: a failed test must leave nothing behind."""
    for pid in processes_of(str(folder)):
        with contextlib.suppress(ProcessLookupError):  # it ends by itself just now
            os.kill(pid, signal.SIGKILL)


def processes_of(marker: str) -> list[int]:
    """The processes, zombies left out, that carry `marker` in their environment or arguments."""
    found = Command.alive_with(marker)
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            known = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if marker.encode() in known and int(entry.name) != os.getpid():
            found.append(int(entry.name))
    return found
