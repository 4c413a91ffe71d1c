"""Runs as transient units of a real systemd: limits that hold, and the guarantees of every shim."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from booted import CHECKOUT, Booted, Done

from coordinator import shim
from coordinator.demo.server import GitHubServer
from coordinator.systemd.units import unit_of

DRIVER = CHECKOUT / "tests" / "systemd" / "launching.py"
FOREVER = "echo ready; exec tail -f /dev/null"
EATER = "x = bytearray(200 << 20); print(len(x))"
USER, UID = "worker-of-tests", "4711"

_places = count(1)


@dataclass(frozen=True)
class Stage:
    """One folder of runs inside, worked on as one user."""

    booted: Booted
    runs: str
    user: str | None = None

    def drive(self, verb: str, token: int, **spec: Any) -> dict[str, Any]:
        """One daemon's life: start, do that, end."""
        return json.loads(self.execute(*self.command(verb, token, spec)).splitlines()[0])

    def command(self, verb: str, token: int, spec: dict[str, Any]) -> tuple[str, ...]:
        return (sys.executable, str(DRIVER), self.runs, verb, str(token), json.dumps(spec))

    def execute(self, *argv: str) -> str:
        env = {"PYTHONPATH": str(CHECKOUT), "PYTHONDONTWRITEBYTECODE": "1"}
        if self.user is None:
            return self.booted.run(*argv, **env).out
        return self.booted.run_as(self.user, *argv, **env).out

    def launch(self, token: int, agent: str = FOREVER, **spec: Any) -> dict[str, Any]:
        answer = self.drive("launch", token, **{"argv": ["sh", "-c", agent], **spec})
        assert "error" not in answer, answer
        return answer

    def unit(self, token: int) -> str:
        return unit_of(Path(self.runs) / f"gh-1.{token}")

    def file(self, token: int, name: str) -> str:
        return self.booted.read(f"{self.runs}/gh-1.{token}/{name}")

    def wait_ready(self, token: int) -> None:
        path = f"{self.runs}/gh-1.{token}/output.log"
        self.booted.until(lambda: "ready" in self.booted.read(path), "the agent's first word")

    def is_unit_there(self, token: int) -> bool:
        scope = ("--user",) if self.user else ()
        words = ("systemctl", *scope, "list-units", "--all", "--plain", "--no-legend", self.unit(token))
        if self.user is None:
            return bool(self.booted.run(*words).out.strip())
        runtime = {"XDG_RUNTIME_DIR": f"/run/user/{UID}"}
        return bool(self.booted.run_as(self.user, *words, **runtime).out.strip())

    def until_gone(self, token: int) -> None:
        self.booted.until(lambda: not self.is_unit_there(token), "the unit is gone")

    def is_running(self, pid: int | str) -> bool:
        """By the process table inside: pids here mean nothing there."""
        state = self.booted.run("sh", "-c", 'cut -d")" -f2 "/proc/$1/stat" || true', "state", str(pid)).out
        return bool(state.strip()) and state.split()[0] not in "ZX"

    def cgroup(self, controller: str, name: str, token: int) -> str:
        """A file of the unit's control group, whichever version of them this kernel has mounted."""
        found = self.booted.run(
            "sh", "-c", 'cat /sys/fs/cgroup/"$1"system.slice/"$2"/"$3"',
            "cat", f"{controller}/" if is_version_1(self.booted) else "", self.unit(token), name,
        )  # fmt: skip
        return found.out.strip()


def is_version_1(booted: Booted) -> bool:
    return not booted.exists("/sys/fs/cgroup/cgroup.controllers")


@pytest.fixture
def stage(booted: Booted) -> Stage:
    """A new folder of runs for root, whose runs are units of the system manager."""
    return Stage(booted, f"/var/lib/launching-{next(_places)}/runs")


@pytest.fixture(scope="module")
def user_stage(booted: Booted) -> Callable[[], Stage]:
    """The same for somebody who is not root and has a manager of their own."""
    booted.run("useradd", "--create-home", "--home-dir", f"/var/lib/{USER}", "--uid", UID, USER)
    booted.systemctl("start", f"user@{UID}.service")
    return lambda: Stage(booted, f"/var/lib/{USER}/launching-{next(_places)}/runs", user=USER)


# --- limits -----------------------------------------------------------------------------------------------


def test_an_agent_beyond_its_memory_is_killed_and_the_record_says_so_while_another_goes_on(stage):
    small = {"limits": {"memory_max": "64M"}}
    bystander = stage.launch(1, **small)
    stage.wait_ready(1)
    stage.drive("launch", 2, argv=["/usr/bin/python3", "-c", EATER], **small)
    record = stage.drive("wait", 2)
    assert (record["exit_signal"], record["reason"]) == (9, "exited")
    assert record["detail"] == "out of memory (limit 64M)"
    assert stage.is_running(bystander["child_pid"])
    assert stage.drive("stop", 1)["detail"].startswith("the label was removed")


def test_an_agent_whose_tool_ate_the_memory_goes_on_itself(stage):
    agent = f"/usr/bin/python3 -c '{EATER}'; echo the tool ended with $?; exit 3"
    stage.launch(1, agent, limits={"memory_max": "64M"})
    record = stage.drive("wait", 1)
    assert (record["exit_code"], record["detail"]) == (3, "out of memory (limit 64M)")
    assert "the tool ended with 137" in stage.file(1, "output.log")


def test_without_a_limit_the_same_agent_ends_well(stage):
    stage.drive("launch", 1, argv=["/usr/bin/python3", "-c", EATER])
    record = stage.drive("wait", 1)
    assert (record["exit_code"], record["detail"]) == (0, "")


def test_processes_and_processor_time_are_limited(stage):
    crowd = "for i in $(seq 60); do sleep 60 & done; echo all started; wait"
    stage.launch(1, crowd, limits={"tasks_max": 20, "cpu_percent": 50})
    record = stage.drive("wait", 1)
    assert record["exit_code"] != 0
    assert "all started" not in stage.file(1, "output.log")
    stage.launch(2, limits={"tasks_max": 20, "cpu_percent": 50})
    stage.wait_ready(2)
    assert stage.cgroup("pids", "pids.max", 2) == "20"
    if is_version_1(stage.booted):
        quota, period = (int(stage.cgroup("cpu", f"cpu.cfs_{name}_us", 2)) for name in ("quota", "period"))
    else:
        quota, period = map(int, stage.cgroup("cpu", "cpu.max", 2).split())
    assert quota / period == 0.5
    stage.drive("stop", 2)


# --- what every shim guarantees ---------------------------------------------------------------------------


def test_a_run_outlives_its_killed_daemon_is_adopted_and_its_end_is_known(stage):
    agent = "echo ready; until [ -e go ]; do sleep 0.02; done; exit 7"
    words = stage.command("hold", 1, {"argv": ["sh", "-c", agent], "cwd": str(Path(stage.runs).parent)})
    stage.booted.run("mkdir", "-p", stage.runs)
    stage.booted.run("systemd-run", "--quiet", "--collect", "--unit=daemon-of-test",
                     f"--setenv=PYTHONPATH={CHECKOUT}", "--property=KillMode=process", *words)  # fmt: skip
    stage.booted.until(lambda: stage.booted.exists(f"{stage.runs}/gh-1.1/started"), "the start")
    stage.wait_ready(1)
    stage.booted.systemctl("kill", "--kill-whom=main", "--signal=KILL", "daemon-of-test.service")
    stage.booted.until(
        lambda: stage.booted.systemctl("is-active", "daemon-of-test.service", check=False).code != 0,
        "its death",
    )
    assert stage.drive("adopt", 1)["state"] == "Alive"
    stage.booted.run("touch", f"{Path(stage.runs).parent}/go")
    assert stage.drive("wait", 1)["exit_code"] == 7
    stage.until_gone(1)
    assert stage.drive("adopt", 1) | {"state": "Exited"} == stage.drive("adopt", 1)


def test_the_manager_and_not_the_daemon_is_the_parent_and_the_unit_is_the_runs_own(stage):
    shim_pid = stage.launch(1)["shim_pid"]
    properties = stage.booted.show(stage.unit(1), "MainPID", "ControlGroup", "KillMode", "OOMPolicy", "UMask")
    assert properties["MainPID"] == str(shim_pid)
    assert properties["ControlGroup"].endswith("/" + stage.unit(1))
    assert (properties["KillMode"], properties["OOMPolicy"]) == ("mixed", "continue")
    assert stage.booted.run("ps", "-o", "ppid=", "-p", str(shim_pid)).out.strip() == "1"
    stage.drive("stop", 1)
    stage.until_gone(1)


def test_a_stopped_run_has_its_record_and_its_unit_is_gone(stage):
    stage.launch(1, 'trap "echo bye; exit 0" INT; echo ready; while :; do sleep 0.02; done')
    stage.wait_ready(1)
    record = stage.drive("stop", 1)
    assert (record["exit_code"], record["reason"]) == (0, "stopped")
    assert stage.file(1, "output.log").endswith("bye\n")
    stage.until_gone(1)


def test_a_failed_run_leaves_no_failed_unit_behind(stage):
    stage.launch(1, "exit 5")
    assert stage.drive("wait", 1)["exit_code"] == 5
    stage.until_gone(1)


def test_a_unit_stopped_by_systemctl_ends_its_agent_politely_and_says_so(stage):
    stage.launch(1, 'trap "echo bye; exit 0" INT; echo ready; while :; do sleep 0.02; done')
    stage.wait_ready(1)
    stage.booted.systemctl("stop", stage.unit(1))
    record = stage.drive("adopt", 1)
    assert (record["state"], record["reason"], record["exit_code"]) == ("Exited", "stopped", 0)


def test_nothing_is_started_twice(stage):
    stage.launch(1)
    stage.wait_ready(1)
    assert "File exists" in stage.drive("launch", 1)["error"]
    late = [sys.executable, "-I", "-S", shim.__file__, "--foreground", f"{stage.runs}/gh-1.1"]
    again = stage.booted.run(
        "systemd-run", "--quiet", "--collect", f"--unit={stage.unit(1)}", *late, check=False
    )
    assert again.code != 0, "the name of the unit is taken"
    assert stage.booted.run(*late, check=False).code == 75
    assert stage.file(1, "output.log") == "ready\n"
    stage.drive("stop", 1)
    stage.until_gone(1)
    assert stage.booted.run(*late, check=False).code == 75
    assert stage.file(1, "output.log") == "ready\n"


def test_a_run_whose_shim_is_killed_is_lost_and_nothing_of_its_unit_lives(stage):
    # Its parent, a subshell, ends at once: when the shim is gone too, process 1 is its parent.
    hideout = "(setsid env -i /bin/sh -c 'echo $$ > \"$0\"; exec tail -f /dev/null' {pid} > /dev/null 2>&1 &)"
    pid_file = f"{Path(stage.runs).parent}/pid"
    started = stage.launch(1, f"{hideout.format(pid=pid_file)}; {FOREVER}")
    stage.wait_ready(1)
    hidden = stage.booted.until(
        lambda: stage.booted.exists(pid_file) and stage.booted.read(pid_file).strip(), "the hidden process"
    )
    assert stage.is_running(hidden)
    stage.booted.run("kill", "-KILL", str(started["shim_pid"]))
    stage.booted.until(lambda: stage.drive("adopt", 1)["state"] == "Lost", "the kernel to drop the lock")
    assert not stage.is_running(started["child_pid"])
    assert not stage.is_running(hidden), (
        "it has neither marker nor session nor parent; only the unit knows it"
    )
    stage.until_gone(1)


def test_no_argument_and_no_property_of_the_unit_tells_a_secret(stage):
    secret = "sk-very-secret-indeed"
    stage.launch(1, env={"PATH": "/usr/bin:/bin", "KEY": secret}, prompt=secret)
    stage.wait_ready(1)
    said = (
        stage.booted.systemctl("show", stage.unit(1)).out + stage.booted.systemctl("cat", stage.unit(1)).out
    )
    assert stage.unit(1) in said
    assert secret not in said
    assert secret not in stage.booted.messages(stage.unit(1))
    stage.drive("stop", 1)


def test_a_folder_with_spaces_and_signs_that_mean_something_to_systemd_works(booted):
    stage = Stage(booted, f"/var/lib/odd $HOME ${{PATH}} %n %% \\x41 'q' {next(_places)}/runs")
    stage.launch(1, "pwd; exit 4", cwd=str(Path(stage.runs).parent))
    assert stage.drive("wait", 1)["exit_code"] == 4
    assert stage.file(1, "output.log").strip() == str(Path(stage.runs).parent)


# --- somebody else's own manager --------------------------------------------------------------------------


def test_a_user_who_is_not_root_has_runs_in_units_of_their_own_manager(user_stage):
    stage = user_stage()
    agent = "echo ready; id -un; until [ -e go ]; do sleep 0.02; done; exit 7"
    stage.launch(1, agent, cwd=f"/var/lib/{USER}")
    stage.wait_ready(1)
    assert USER in stage.file(1, "output.log")
    assert stage.is_unit_there(1)
    assert stage.drive("adopt", 1)["state"] == "Alive"
    stage.booted.run("touch", f"/var/lib/{USER}/go")
    assert stage.drive("wait", 1)["exit_code"] == 7
    stage.until_gone(1)


def test_a_user_stops_a_run_and_clears_up_a_lost_one(user_stage):
    stage = user_stage()
    started = stage.launch(1)
    stage.launch(2)
    assert stage.drive("stop", 2)["reason"] == "stopped"
    stage.booted.run("kill", "-KILL", str(started["shim_pid"]))
    stage.booted.until(lambda: stage.drive("adopt", 1)["state"] == "Lost", "the kernel to drop the lock")
    assert not stage.is_running(started["child_pid"])
    stage.until_gone(1)


def test_without_a_manager_of_the_user_the_launcher_says_how_to_get_one(booted):
    booted.run("useradd", "--create-home", "--home-dir", "/var/lib/lonely", "--uid", "4712", "lonely")
    stage = Stage(booted, "/var/lib/lonely/runs", user="lonely")
    answer = stage.drive("launch", 1, argv=["true"])
    assert answer["error"].startswith(
        'ConfigError: coordinator.launcher is "systemd", but the manager of user 4712'
    )
    assert "loginctl enable-linger 4712" in answer["error"]
    assert not booted.exists("/var/lib/lonely/runs/gh-1.1")


# --- the whole daemon -------------------------------------------------------------------------------------

AGENT = """
grep -q "eat the memory" && exec /usr/bin/python3 -c 'x = bytearray(200 << 20)'
echo working
until [ -e {gate} ]; do sleep 0.02; done
echo done > NOTES.md
"""
CONFIG = """
[sandbox]
mode = "off"  # the gate is the host's

[coordinator]
launcher = "systemd"
state_dir = "{folder}/state"
poll_interval_seconds = 0.2
max_attempts = 1
[worker_limits]
memory_max = "64M"
tasks_max = 50
[github]
repo_owner = "octo"
repo_name = "hello"
api_url = "{api_url}"
remote_url = "{folder}/github/{{owner}}/{{name}}.git"
report_delay_seconds = 0
[llm]
provider = "agent"
model_default = "none"
[providers.agent]
agent = "generic"
command_template = ["sh", "{folder}/agent.sh"]
"""
TOKEN = "token-of-the-tests"


@pytest.fixture
def github(tmp_path: Path) -> Iterator[GitHubServer]:
    """A GitHub that the daemon inside reaches through the loopback; its configuration is in `tmp_path`."""
    with GitHubServer(git_root=tmp_path / "github") as server:
        server.add_repo("octo/hello")
        server.add_token(TOKEN, "bot")
        for login in ("bot", "ada"):
            server.set_permission("octo/hello", login, "write")
        (tmp_path / "adws").mkdir()
        (tmp_path / "agent.sh").write_text(AGENT.format(gate=tmp_path / "gate"))
        config = CONFIG.format(folder=tmp_path, api_url=server.api_url)
        (tmp_path / "adws" / "config.toml").write_text(config)
        yield server


def coordinator(booted: Booted, folder: Path, *words: str) -> Done:
    config = ("--config", str(folder / "adws" / "config.toml"))
    return booted.run(
        sys.executable,
        "-m",
        "coordinator",
        *words,
        *config,
        PYTHONPATH=str(CHECKOUT),
        GITHUB_TOKEN=TOKEN,
        check=False,
    )


def add_issue(github: GitHubServer, title: str) -> int:
    return github.add_issue(
        "octo/hello", title=title, body="Please.", author="ada", labels=["rpi-auto"], labelled_by="ada"
    )


def test_one_agent_runs_out_of_memory_and_daemon_and_other_runs_go_on(booted, github, tmp_path):
    patient, greedy = add_issue(github, "wait for me"), add_issue(github, "eat the memory")
    booted.run(
        "systemd-run", "--quiet", "--collect", "--unit=whole-daemon", f"--setenv=PYTHONPATH={CHECKOUT}",
        f"--setenv=GITHUB_TOKEN={TOKEN}", "--property=KillMode=process", f"--working-directory={tmp_path}",
        sys.executable, "-m", "coordinator", "run", "--config", str(tmp_path / "adws" / "config.toml"),
    )  # fmt: skip

    def status() -> dict[int, dict[str, Any]]:
        done = coordinator(booted, tmp_path, "status", "--json")
        return {task["issue"]: task for task in json.loads(done.out)["tasks"]} if done.code == 0 else {}

    ended = booted.until(
        lambda: (task := status().get(greedy)) and task["state"] == "failed" and task, "its end"
    )
    assert "out of memory (limit 64M)" in ended["cause"]
    assert status()[patient]["state"] == "running"
    assert booted.systemctl("is-active", "whole-daemon.service").out.strip() == "active"
    (tmp_path / "gate").touch()
    booted.until(lambda: status()[patient]["state"] == "succeeded", "the other run")
    assert any(
        "out of memory (limit 64M)" in comment.body for comment in github.comments("octo/hello", greedy)
    )
    findings = coordinator(booted, tmp_path, "doctor").out
    assert "runs are units of the system manager" in findings
    booted.systemctl("stop", "whole-daemon.service")
