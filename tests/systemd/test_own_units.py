"""The hardened service with `launcher = "systemd"`: its runs are units of the account's own systemd."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from service_stage import CONFIG, STATE, UNIT, USER, Stage

from coordinator.systemd import unitfile

UNIT_FILE = f"/etc/systemd/system/{UNIT}"
GATE = f"{STATE}/go"

# Says where it is, and writes where the service may not.
_AGENT = """
cat /proc/self/cgroup > found
env | cut -d= -f1 | sort >> found
touch {outside}/of-the-agent && echo written >> found
echo working
until [ -e {gate} ]; do sleep 0.05; done
"""
_PROVIDER = """
[providers.shell]
agent = "generic"
command_template = ["sh", "{script}"]
"""


@pytest.fixture
def outside(stage: Stage) -> str:
    """A folder that belongs to the account, and that the service only reads."""
    folder = "/var/outside"
    stage.systemd.run("useradd", "--system", "--user-group", "--home-dir", STATE, USER)
    stage.systemd.run("install", "-d", "-o", USER, folder)
    return folder


@pytest.fixture
def own_units(stage: Stage, outside: str) -> Stage:
    """The service, not yet installed, whose agents are scripts in units of their own."""
    script = "/etc/coordinator/adws/agent.sh"
    stage.systemd.write(script, _AGENT.format(outside=outside, gate=GATE))
    config = stage.config.replace('provider = "claude-cli"', 'provider = "shell"')
    stage.config = (config + _PROVIDER.format(script=script)).replace(
        "[coordinator]", '[coordinator]\nlauncher = "systemd"'
    )
    stage.systemd.write(CONFIG, stage.config)
    return stage


def uid(stage: Stage) -> str:
    return stage.systemd.run("id", "--user", USER).out.strip()


def lingers(stage: Stage) -> bool:
    return stage.systemd.exists(f"/var/lib/systemd/linger/{USER}")


def test_a_run_is_outside_of_the_hardened_service_and_a_restart_takes_it_over(own_units: Stage, outside: str):
    stage = own_units
    stage.install()
    stage.systemd.systemctl("start", UNIT)
    status = stage.coordinator("service", "status", "--json").json
    assert (status["is_ours"], status["problems"], status["exposure"] <= 2.5) == (True, [], True)
    assert "XDG_RUNTIME_DIR" in stage.environ(stage.main_pid)
    inside = ("nsenter", "--mount", "--target", str(stage.main_pid), "touch", f"{outside}/of-the-daemon")
    assert "Read-only file system" in stage.systemd.run(*inside, check=False).err

    number = stage.issue("Please.")
    stage.systemd.until(lambda: stage.says(number, "working"), stage.systemd.messages(UNIT)[-2000:])
    started = stage.started(number)
    (run_dir,) = stage.systemd.run("sh", "-c", f"ls -d {STATE}/runs/gh-{number}.*").out.split()
    group = stage.systemd.run("cat", f"/proc/{started['child_pid']}/cgroup").out
    assert f"/user@{uid(stage)}.service/" in group
    assert f"/coordinator-run-{Path(run_dir).name.replace('.', '-')}-" in group
    assert UNIT not in group
    assert stage.systemd.exists(f"{outside}/of-the-agent")
    assert "XDG_RUNTIME_DIR" not in stage.environ(started["child_pid"])
    assert "DBUS_SESSION_BUS_ADDRESS" not in stage.environ(started["child_pid"])

    before = stage.main_pid
    stage.systemd.systemctl("restart", UNIT)
    assert stage.main_pid != before
    assert stage.show("StatusText")["StatusText"].startswith("live runs: 1")
    assert stage.started(number) == started
    assert stage.is_alive(number)
    stage.systemd.run("touch", GATE)
    stage.await_pull(number)
    assert stage.starts(number) == 1
    found = stage.server_file(number, "found").splitlines()
    assert "written" in found
    assert any("coordinator-run-" in line for line in found)


def test_what_runs_need_is_set_up_with_the_service_and_goes_with_its_state(own_units: Stage):
    stage = own_units
    shown = stage.coordinator("service", "install", "--dry-run").out
    assert f"user@{uid(stage)}.service" in shown
    assert "Lingering would be enabled" in shown
    assert not lingers(stage)

    stage.install()
    assert lingers(stage)
    assert stage.systemd.systemctl("is-active", f"user@{uid(stage)}.service").out == "active\n"
    assert "lingering" not in stage.coordinator("service", "install").out.lower()  # it has it
    stage.systemd.systemctl("start", UNIT)
    number = stage.issue("Please.")
    stage.systemd.until(lambda: stage.says(number, "working"), "the agent is at work")
    assert "loginctl disable-linger" in stage.coordinator("service", "uninstall").out
    assert lingers(stage)
    assert stage.is_alive(number)

    stage.systemd.run("touch", GATE)
    stage.systemd.until(lambda: not stage.is_alive(number), "the run is over")
    stage.coordinator("service", "uninstall", "--purge")
    assert not lingers(stage)


def test_a_manager_that_is_not_there_is_named_by_status_doctor_and_the_daemon(own_units: Stage):
    stage = own_units
    stage.install()
    stage.systemd.run("loginctl", "disable-linger", USER)
    stage.systemd.systemctl("stop", f"user@{uid(stage)}.service")
    problems = "\n".join(stage.coordinator("service", "status", "--json", check=False).json["problems"])
    assert f"user@{uid(stage)}.service does not run" in problems
    assert f"loginctl enable-linger {USER}" in problems
    findings = stage.coordinator("doctor", check=False).out
    assert f"loginctl enable-linger {USER}" in findings

    stage.systemd.systemctl("mask", "--runtime", f"user@{uid(stage)}.service")
    stage.systemd.systemctl("start", UNIT, check=False)
    stage.systemd.until(lambda: stage.show("ActiveState")["ActiveState"] == "failed", "it gives up")
    assert stage.show("ExecMainStatus", "NRestarts") == {"ExecMainStatus": "78", "NRestarts": "0"}
    assert "does not answer" in stage.systemd.messages(UNIT)


def test_a_program_that_is_let_into_the_service_alone_is_named_for_runs_outside_of_it(own_units: Stage):
    stage = own_units
    program = "/run/user/0/tools/agent"
    stage.systemd.write(program, "#!/bin/sh\n", mode=0o755)
    stage.systemd.run("chmod", "0700", "/run/user/0")
    provider = f'\n[providers.hidden]\ncommand_template = ["{program}"]\n'
    stage.systemd.write(CONFIG, stage.config + provider)
    assert f"{USER} may not start {program}" in stage.coordinator("service", "install").out
    stage.systemd.write(CONFIG, stage.config.replace('launcher = "systemd"', "") + provider)
    assert program not in stage.coordinator("service", "install").out
    let_in = unitfile.written(stage.systemd.read(UNIT_FILE), "BindReadOnlyPaths")
    assert let_in is not None
    assert "/run/user/0/tools" in let_in.split()


def test_with_the_plain_launcher_nothing_of_it_is_there(stage: Stage):
    stage.install()
    unit = stage.systemd.read(UNIT_FILE)
    assert "user@" not in unit
    assert "/run/user" not in unit
    assert not lingers(stage)


# Has the account's own systemd start something outside, knocks at every door that it knows, looks for groups.
_CALLS_OUT = """\
import json, os, pathlib, socket, subprocess
user = os.getuid()
folder = "/run/user/%d" % user
doors = [folder + "/systemd/private", folder + "/bus", folder + "/systemd/notify", "/run/systemd/private",
         "/run/dbus/system_bus_socket", "/run/systemd/journal/stdout", "/run/systemd/journal/socket",
         "/run/systemd/notify"]
opened = []
for door in doors:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_UNIX, kind) as s:
            try:
                s.connect(door)
                opened.append(door)
            except OSError:
                pass
env = dict(os.environ, XDG_RUNTIME_DIR=folder, DBUS_SESSION_BUS_ADDRESS="unix:path=" + folder + "/bus")
command = ["systemd-run", "--user", "--wait", "--quiet", "touch", "ESCAPED"]
try:
    ran = subprocess.run(command, env=env, capture_output=True, timeout=20).returncode
except OSError:
    ran = 127
groups = os.path.isdir("/sys/fs/cgroup")
pathlib.Path("found.json").write_text(json.dumps(dict(opened=sorted(set(opened)), ran=ran, groups=groups)))
"""


@pytest.mark.parametrize("mode", ["off", "bubblewrap"])
def test_an_agent_in_a_unit_has_no_units_of_its_own_started(own_units: Stage, mode: str):
    """The account's systemd does what the account says; in a sandbox nobody there can say anything to it."""
    stage = own_units
    script, escaped = "/etc/coordinator/adws/caller.py", f"{STATE}/escaped"
    stage.systemd.write(script, _CALLS_OUT.replace("ESCAPED", escaped))
    config = stage.config.replace('"sh", "/etc/coordinator/adws/agent.sh"', f'"/usr/bin/python3", "{script}"')
    stage.systemd.write(CONFIG, config.replace('mode = "off"', f'mode = "{mode}"'))
    stage.install()
    stage.systemd.systemctl("start", UNIT)
    number = stage.issue("Please.")
    stage.await_pull(number)
    found = json.loads(stage.server_file(number, "found.json"))
    is_free = mode == "off"
    assert (found["ran"] == 0) is is_free
    assert stage.systemd.exists(escaped) is is_free
    assert bool(found["opened"]) is is_free
    assert found["groups"] is is_free
