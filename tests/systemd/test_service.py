"""The service itself: installed, started, told that its configuration is broken, reloaded, removed."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime

import pytest
from service_stage import CONFIG, ENV_FILE, REPO, STATE, UNIT, USER, Stage

UNIT_FILE = f"/etc/systemd/system/{UNIT}"

# A program of Node that has functions compiled at run time, asks the network and starts git.
_NODE = """
const { execFileSync } = require('child_process');
const fs = require('fs');
const multiply = new Function('a', 'b', 'return (a * b) % 7 + 1');
let sum = 0;
for (let i = 0; i < 2e6; i++) sum += multiply(i, sum);
new WebAssembly.Module(Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0));
const found = { sum };
for (const path of ['/etc/of-the-agent', '/opt/of-the-agent', '/usr/of-the-agent']) {
  try { fs.writeFileSync(path, ''); found[path] = 'written'; } catch (error) { found[path] = error.code; }
}
fs.writeFileSync('/tmp/of-the-agent', '');
fs.mkdirSync(process.env.HOME + '/.cache', { recursive: true });
found.git = execFileSync('git', ['status', '--short', '--branch']).toString();
fetch(process.argv[2] + '/rate_limit').then((answer) => {
  fs.writeFileSync('found.json', JSON.stringify({ ...found, status: answer.status }));
});
"""
_NODE_PROVIDER = """
[providers.node]
agent = "generic"
command_template = ["node", "{script}", "{api_url}"]
"""


def test_an_installation_makes_user_unit_and_environment_and_is_safe_to_repeat(stage: Stage):
    systemd = stage.systemd
    refused = stage.coordinator("service", "install", user="nobody", check=False)
    assert refused.code == 1
    assert refused.err.startswith("`coordinator service install` needs root")
    assert "ExecStart=" in stage.coordinator("service", "install", "--dry-run", user="nobody").out
    assert not systemd.exists(UNIT_FILE)

    first = stage.coordinator("service", "install", "--enable", "--now", check=False)
    assert first.code == 1  # there is no token yet
    assert "HELLO_TOKEN" in first.out
    assert systemd.run("stat", "--format=%a %U", ENV_FILE).out == "600 root\n"
    assert systemd.run("id", "--name", "--user", USER).out == f"{USER}\n"
    unit = systemd.read(UNIT_FILE)
    assert f"run --config {CONFIG}" in unit

    stage.fill_in_token()
    environment = systemd.read(ENV_FILE)
    second = stage.coordinator("service", "install", "--now")
    assert (systemd.read(UNIT_FILE), systemd.read(ENV_FILE)) == (unit, environment)
    assert f"{UNIT_FILE} is up to date." in second.out
    status = stage.coordinator("service", "status", "--json").json
    assert status["exposure"] <= 2.5
    seen = {name: status[name] for name in ("active", "enabled", "is_ours", "watchdog_seconds", "problems")}
    assert seen == {
        "active": "active", "enabled": True, "is_ours": True, "watchdog_seconds": 60, "problems": [],
    }  # fmt: skip


def test_the_service_is_active_only_after_the_daemon_has_come_up(stage: Stage):
    stage.install()
    stage.systemd.systemctl("start", UNIT)
    shown = stage.systemd.systemctl("show", UNIT, "--timestamp=us+utc", "--property=ActiveEnterTimestamp").out
    at = shown.split("=", 1)[1].strip().removesuffix(" UTC")
    active_at = datetime.strptime(at, "%a %Y-%m-%d %H:%M:%S.%f").replace(tzinfo=UTC)
    (begun,) = [each["timestamp"] for each in stage.events() if each["event"] == "coordinator starts"]
    assert datetime.fromisoformat(begun) < active_at
    assert stage.show("StatusText")["StatusText"].startswith("live runs: 0, queued: 0")


def test_a_configuration_that_cannot_be_used_ends_in_one_failure_with_its_sentence(stage: Stage):
    stage.install()
    stage.systemd.write(CONFIG, stage.config.replace("state_dir", "state_dri"))
    started = stage.systemd.systemctl("start", UNIT, check=False)
    assert started.code != 0
    stage.systemd.until(lambda: stage.show("ActiveState")["ActiveState"] == "failed", "systemd gives up")
    shown = stage.show("ExecMainStatus", "NRestarts", "Result")
    assert shown == {"ExecMainStatus": "78", "NRestarts": "0", "Result": "exit-code"}
    assert 'did you mean "state_dir"?' in stage.systemd.messages(UNIT)
    status = stage.coordinator("service", "status", "--json", check=False)
    assert status.code == 1
    assert (status.json["active"], status.json["last_exit"]) == ("failed", "exit 78")
    assert 'did you mean "state_dir"?' in status.json["problems"][0]

    stage.systemd.write(CONFIG, stage.config)
    stage.systemd.systemctl("start", UNIT)  # mended: nothing else is needed


def test_a_reload_reads_the_configuration_and_a_broken_one_ends_nothing(stage: Stage):
    stage.install()
    stage.systemd.systemctl("start", UNIT)
    pid = stage.main_pid
    stage.systemd.systemctl("reload", UNIT)
    stage.systemd.until(
        lambda: any(each["event"] == "configuration reloaded" for each in stage.events()), "it is read again"
    )
    stage.systemd.write(CONFIG, "[coordinator")
    stage.systemd.systemctl("reload", UNIT)
    stage.systemd.until(
        lambda: "configuration was not taken" in stage.show("StatusText")["StatusText"], "systemd shows it"
    )
    stage.systemd.until(lambda: stage.show("ActiveState")["ActiveState"] == "active", "it is active")
    assert stage.main_pid == pid


def test_a_node_program_works_inside_the_hardened_service(stage: Stage):
    if shutil.which("node") is None:
        pytest.skip("there is no node on this machine")
    script = "/etc/coordinator/adws/agent.js"
    stage.systemd.write(script, _NODE)
    config = stage.config.replace('provider = "claude-cli"', 'provider = "node"')
    provider = _NODE_PROVIDER.format(script=script, api_url=stage.server.api_url)
    stage.systemd.write(CONFIG, config + provider)
    stage.install()
    stage.systemd.systemctl("start", UNIT)
    number = stage.issue("Please.")
    stage.await_pull(number)
    found = stage.server_file(number, "found.json")
    assert '"status":200' in found
    assert f"auto/gh-{number}" in found
    assert "written" not in found
    assert stage.systemd.exists(f"{STATE}/tmp/of-the-agent")


_CURIOUS = """\
import json, os, pathlib
found = {"pids": sorted(int(name) for name in os.listdir("/proc") if name.isdecimal()),
         "state": os.path.exists("%s"), "door": os.path.exists("/run/coordinator-proc")}
pathlib.Path("found.json").write_text(json.dumps(found))
"""
_CURIOUS_PROVIDER = """
[providers.curious]
agent = "generic"
command_template = ["/usr/bin/python3", "{script}"]
allow_hosts = ["example.org"]
"""


def test_the_service_as_it_is_installed_works_on_a_public_repository_in_a_sandbox(stage: Stage):
    """The hardening must not be what keeps agents out of their sandbox, nor the sandbox what weakens it."""
    script = "/etc/coordinator/adws/agent.py"
    stage.systemd.write(script, _CURIOUS % f"{STATE}/coordinator.db")
    config = stage.config.replace('[sandbox]\nmode = "off"\n', "[admission]\npublic_repositories = true\n")
    config = config.replace('provider = "claude-cli"', 'provider = "curious"')
    stage.systemd.write(CONFIG, config + _CURIOUS_PROVIDER.format(script=script))
    stage.server.set_visibility(REPO, private=False)
    stage.install()
    assert stage.coordinator("service", "status", "--json", check=False).json["exposure"] <= 2.5
    stage.systemd.systemctl("start", UNIT)
    number = stage.issue("Please look around.")
    stage.await_pull(number)
    found = json.loads(stage.server_file(number, "found.json"))
    assert not found["state"]
    assert not found["door"]
    assert len(found["pids"]) < 5
    assert [
        each for each in stage.events() if each["event"] in {"workers run without a sandbox", "closed"}
    ] == []


def test_no_process_of_the_service_gets_behind_the_door_to_a_whole_proc(stage: Stage):
    stage.install(quick="AmbientCapabilities=")
    stage.systemd.systemctl("start", UNIT)
    inside = ("nsenter", "-t", str(stage.main_pid), "-m", "--", "setpriv", "--reuid", USER, "--regid", USER)
    inside = (*inside, "--clear-groups", "--bounding-set=-all", "--no-new-privs")
    looks = (
        "ls /run/coordinator-proc/proc/1 || unshare --user --map-root-user ls /run/coordinator-proc/proc/1"
    )
    assert stage.systemd.run(*inside, "sh", "-c", looks, check=False).code != 0
    # Nor would root, had somebody given the service that account: it has no rights over files there.
    root = (*inside[:5], "setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", "sh", "-c")
    assert stage.systemd.run(*root, f"chmod 700 /run/coordinator-proc; {looks}", check=False).code != 0
    assert stage.systemd.run(*inside[:5], "ls", "/run/coordinator-proc/proc/1").code == 0, "it is there"
    assert stage.systemd.run(*inside, "sh", "-c", "echo 1 > /proc/sys/kernel/pid_max", check=False).code != 0


def test_removing_the_service_leaves_state_and_secrets_until_it_is_told_otherwise(stage: Stage):
    stage.install()
    stage.systemd.systemctl("enable", "--now", UNIT)
    (number,) = stage.long_issues(1)
    stage.coordinator("service", "uninstall")
    assert not stage.systemd.exists(UNIT_FILE)
    assert stage.systemd.exists(ENV_FILE)
    assert stage.is_alive(number)

    refused = stage.coordinator("service", "uninstall", "--purge", check=False)
    assert refused.code == 1
    assert f"gh-{number}" in refused.err
    stage.finish(number)
    stage.systemd.until(lambda: not stage.is_alive(number), "the run is over")
    stage.coordinator("service", "uninstall", "--purge")
    assert not stage.systemd.exists(ENV_FILE)
    assert not stage.systemd.exists(STATE)


def test_a_state_folder_beside_the_configuration_works_as_well(stage: Stage):
    """The default of a fresh checkout: `.coordinator`, where the service may otherwise only read."""
    stage.systemd.write(CONFIG, stage.config.replace(f'state_dir = "{STATE}"', ""))
    stage.install()
    stage.systemd.systemctl("start", UNIT)
    number = stage.issue("[[agent: write docs/guide.md]]")
    stage.await_pull(number)
    assert stage.systemd.exists("/etc/coordinator/.coordinator/coordinator.db")


@pytest.mark.parametrize("verb", [("drain",), ("stop",), ("stop", "--kill-runs")])
def test_an_end_that_an_operator_asks_for_is_no_failure_and_is_not_undone(
    stage: Stage, verb: tuple[str, ...]
):
    stage.install()
    stage.systemd.systemctl("start", UNIT)
    if "--kill-runs" in verb:
        stage.long_issues(1)
    stage.coordinator(*verb, user=USER)
    stage.systemd.until(lambda: stage.show("ActiveState")["ActiveState"] == "inactive", "it has ended")
    # Between two starts it would be "activating".
    assert stage.show("SubState", "NRestarts", "Result") == {
        "SubState": "dead", "NRestarts": "0", "Result": "success",
    }  # fmt: skip


def test_doctor_sees_what_the_service_sees(stage: Stage):
    stage.systemd.write(CONFIG, stage.config + '\n[providers.absent]\ncommand_template = ["no-such-agent"]\n')
    stage.install()
    assert "✓ service " in stage.coordinator("doctor", check=False).out
    mine = stage.coordinator("doctor", "--json", user=USER, check=False).json[0]  # no daemon to ask either
    assert (mine["check"], mine["ok"], mine["mend"]) == ("service", None, "sudo coordinator doctor")
    stage.systemd.systemctl("start", UNIT)
    for user in (None, USER):  # root by the file, the account by its daemon
        findings = stage.coordinator("doctor", "--json", user=user, check=False).json
        wrong = [each for each in findings if each["ok"] is False]
        assert [each["text"] for each in wrong] == ["absent: no-such-agent not found on PATH"], user
        assert f"mend that in {ENV_FILE}" in wrong[0]["mend"]


def test_somebody_else_is_told_whose_command_it_is(stage: Stage):
    stage.install()
    stage.systemd.systemctl("start", UNIT)
    for command in ("status", "doctor", "why 1", "logs", "pause", "drain"):
        refused = stage.coordinator(*command.split(), user="nobody", check=False)
        assert (refused.code, refused.out) == (1, ""), command
        assert f"say `sudo -u {USER}` before the command" in refused.err, command
