"""The stage of the tests under systemd: a GitHub-like server outside, the installed service inside."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from booted import Booted, Done

from coordinator.demo import agent
from coordinator.demo.server import GitHubServer

REPO, BOT, MAINTAINER = "octo/hello", "coordinator-bot", "ada"
TOKEN = "token-of-the-coordinator-bot"
LABEL = "rpi-auto"
UNIT, USER = "coordinator.service", "coordinator"
CONFIG = "/etc/coordinator/adws/config.toml"
ENV_FILE = "/etc/coordinator.env"
STATE = "/var/lib/coordinator"

# An agent that works until `finish`. The service has a /tmp of its own, under the state directory.
LONG = "[[agent: wait /tmp/finish-{number}]]\n[[agent: write page-{number}.md]]"

# Without a sandbox: what the unit lets through is seen, and the files that agents wait for are the service's.
_CONFIG = """\
[sandbox]
mode = "off"

[coordinator]
state_dir = "{state}"
poll_interval_seconds = 0.5
stop_grace_seconds = 1

[github]
repo_owner = "octo"
repo_name = "hello"
api_url = "{api_url}"
remote_url = "{api_url}/git/{{owner}}/{{name}}.git"
token_env = "HELLO_TOKEN"
writes_per_minute = 0
report_delay_seconds = 0

[providers.claude-cli]
command_template = ["{python}", "-I", "{agent}", "--model", "{{model}}"]

[llm]
provider = "claude-cli"
model_default = "claude-sonnet-4-5"
"""


class Stage:
    """One GitHub, one booted systemd, and in it the service, installed but not started."""

    def __init__(self, folder: Path, systemd: Booted, *, more: str = "") -> None:
        self.systemd = systemd
        self.server = GitHubServer(git_root=folder / "github").start()
        self.server.add_repo(REPO)
        for login, role in ((BOT, "write"), (MAINTAINER, "write")):
            self.server.set_permission(REPO, login, role)
        self.server.add_token(TOKEN, BOT)
        self.config = more + _CONFIG.format(
            state=STATE,
            api_url=self.server.api_url,
            python=sys.executable,
            agent=Path(agent.__file__).resolve(),
        )
        self.systemd.write(CONFIG, self.config)

    def close(self) -> None:
        self.server.stop()

    # -- the service -----------------------------------------------------------------------------------

    def coordinator(self, *arguments: str, check: bool = True, user: str | None = None) -> Done:
        """A command of ours inside, as root or as somebody."""
        argv = (str(Path(sys.prefix) / "bin" / "coordinator"), *arguments, "--config", CONFIG)
        if user is None:
            return self.systemd.run(*argv, check=check)
        return self.systemd.run_as(user, *argv, check=check)

    def install(self, *, quick: str = "") -> None:
        """Install the service, fill in the token; `quick` are lines of a drop-in's [Service]."""
        self.coordinator("service", "install")
        self.fill_in_token()
        settings = f"[Service]\nRestartSec=100ms\n{quick}\n"
        self.systemd.write(f"/etc/systemd/system/{UNIT}.d/test.conf", settings)
        self.systemd.systemctl("daemon-reload")

    def fill_in_token(self) -> None:
        text = self.systemd.read(ENV_FILE).replace("HELLO_TOKEN=", f"HELLO_TOKEN={TOKEN}")
        self.systemd.write(ENV_FILE, text, 0o600)

    def show(self, *names: str) -> dict[str, str]:
        return self.systemd.show(UNIT, *names)

    @property
    def main_pid(self) -> int:
        return int(self.show("MainPID")["MainPID"])

    def events(self) -> list[dict[str, Any]]:
        """The daemon's own log lines, of all its lives."""
        lines = self.systemd.read(f"{STATE}/logs/coordinator.jsonl").splitlines()
        return [json.loads(line) for line in lines]

    # -- issues and their runs -------------------------------------------------------------------------

    def issue(self, body: str, *, labels: tuple[str, ...] = ()) -> int:
        return self.server.add_issue(
            REPO,
            title="Say hello",
            body=body,
            author=MAINTAINER,
            labels=[LABEL, *labels],
            labelled_by=MAINTAINER,
        )

    def long_issues(self, many: int) -> list[int]:
        """The first issues of a stage; their agents work until `finish`, and all of them are at it."""
        numbers = [self.issue(LONG.format(number=each + 1)) for each in range(many)]
        self.systemd.until(
            lambda: all(self.says(number, "make all") for number in numbers), "all agents are at work"
        )
        return numbers

    def says(self, number: int, word: str) -> bool:
        """Whether the agent has printed the word."""
        command = 'grep -qs -- "$1" "$2"/output.log'
        return self.in_run(number, command, word).code == 0

    def in_run(self, number: int, script: str, *values: str) -> Done:
        """A shell command about the newest run directory of the issue, which is its last argument."""
        newest = f'set -- "$@" "$(ls -dt {STATE}/runs/gh-{number}.* | head -1)"; {script}'
        return self.systemd.run("sh", "-c", newest, "in-run", *values, check=False)

    def started(self, number: int) -> dict[str, Any]:
        """What the shim wrote down at the start of the newest run; empty before that."""
        done = self.in_run(number, 'cat "$1"/started')
        return json.loads(done.out) if done.code == 0 else {}

    def starts(self, number: int) -> int:
        """How often an agent was really started."""
        return len(self.systemd.run("sh", "-c", f"ls {STATE}/runs/gh-{number}.*/started").out.split())

    def finish(self, number: int) -> None:
        """Have the agent do the rest of its work and end."""
        self.systemd.run("touch", f"{STATE}/tmp/finish-{number}")

    def is_alive(self, number: int) -> bool:
        """Whether agent and shim of the newest run are both alive."""
        started = self.started(number)
        pids = (str(started["child_pid"]), str(started["shim_pid"]))
        return self.systemd.run("kill", "-0", *pids, check=False).code == 0

    def environ(self, pid: int) -> set[str]:
        """The names of a process's variables."""
        text = self.systemd.run("cat", f"/proc/{pid}/environ").out
        return set(re.findall(r"(?:^|\0)([^=\0]+)=", text))

    def task(self, number: int) -> dict[str, Any]:
        """The task as `coordinator status` shows it; empty before there is one."""
        tasks = self.coordinator("status", "--json", user=USER).json["tasks"]
        return next((task for task in tasks if task["issue"] == number), {})

    def pulls(self, number: int) -> int:
        return sum(pull.head == f"auto/gh-{number}" for pull in self.server.pulls(REPO))

    def server_file(self, number: int, path: str) -> str:
        """A file as it was pushed for the issue."""
        argv = ["git", "-C", self.server.git_url(REPO), "show", f"auto/gh-{number}:{path}"]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout

    def comments(self, number: int) -> int:
        return sum(comment.author == BOT for comment in self.server.comments(REPO, number))

    def await_pull(self, number: int) -> None:
        """Until the result is on GitHub, in its comment as well."""
        self.systemd.until(
            lambda: self.pulls(number) and "coordinator:done" in self.server.issue(REPO, number).labels,
            f"the pull request of issue {number}: {self.systemd.messages(UNIT)[-3000:]}",
        )
