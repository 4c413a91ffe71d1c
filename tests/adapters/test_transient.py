"""The launcher with systemd where the manager misbehaves: a program of ours stands in for `systemd-run`."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_launcher import FOREVER, a_spec, end
from worker_processes import is_running, wait_until

from adw_modules.errors import ConfigError, SpawnError
from coordinator import launcher, shim
from coordinator.launcher import Alive, Launcher, NeverStarted
from coordinator.systemd.units import Limits, Manager, unit_of
from coordinator.transient import UnitLauncher

# What a manager does, with nothing of systemd: drop the options, execute the rest away from the caller.
STARTS = 'while [ "$1" != "--" ]; do shift; done; shift; setsid "$@" < /dev/null > /dev/null 2>&1 &'


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Put a shell text in the place of systemd-run."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def put(text: str, name: str = "systemd-run") -> Path:
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
        return folder

    return put


def launch(runs, spec, *, patience: float = 20.0):
    return asyncio.run(UnitLauncher(runs, patience=patience).launch(spec))


def test_a_shim_that_the_manager_starts_reports_and_is_found_again_by_the_plain_launcher(
    tmp_path, runs, stand_in
):
    stand_in(STARTS)
    handle = launch(runs, a_spec(tmp_path, FOREVER))
    assert is_running(handle.child_pid)
    assert not (handle.run_dir / "report").exists()
    assert isinstance(Launcher(runs).adopt(handle.run_dir), Alive)
    assert end(handle).reason == "stopped"


def test_a_manager_that_refuses_is_a_spawn_error_with_its_words_and_the_run_is_revoked(
    tmp_path, runs, stand_in
):
    stand_in("echo 'Failed to connect to bus: No such file' >&2; exit 1")
    with pytest.raises(SpawnError, match="systemd-run exited with 1: Failed to connect to bus"):
        launch(runs, a_spec(tmp_path))
    assert (runs / "gh-1.1" / "revoked").exists()


def test_a_missing_systemd_run_is_a_spawn_error(tmp_path, runs, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SpawnError, match="cannot execute systemd-run"):
        launch(runs, a_spec(tmp_path))


def test_a_manager_that_hangs_is_given_up_and_what_it_starts_later_refuses(tmp_path, runs, stand_in):
    stand_in(f"echo $$ > {tmp_path}/pid; exec sleep 60")
    with pytest.raises(SpawnError, match="no shim has answered"):
        launch(runs, a_spec(tmp_path, "echo ran"), patience=1.0)
    assert not is_running(int((tmp_path / "pid").read_text()))
    run_dir = runs / "gh-1.1"
    late = subprocess.run(
        [sys.executable, "-I", "-S", shim.__file__, "--foreground", str(run_dir)], check=False
    )
    assert late.returncode == 75
    assert not (run_dir / "output.log").exists()
    assert Launcher(runs).adopt(run_dir) == NeverStarted()


def test_a_manager_that_says_yes_and_starts_nothing_is_a_spawn_error(tmp_path, runs, stand_in):
    stand_in("exit 0")
    with pytest.raises(SpawnError, match="no shim has answered"):
        launch(runs, a_spec(tmp_path), patience=0.2)


def test_a_run_that_did_start_before_the_manager_hung_is_not_given_up(tmp_path, runs, stand_in):
    stand_in(f"{STARTS}\nuntil [ -e {runs}/gh-1.1/started ]; do :; done; exec sleep 60")
    handle = launch(runs, a_spec(tmp_path, FOREVER), patience=0.6)
    assert is_running(handle.child_pid)
    assert end(handle).reason == "stopped"


def test_a_shim_that_dies_before_it_reports_is_noticed_at_once(tmp_path, runs, stand_in):
    stand_in(f": > {runs}/gh-1.1/report; exit 0")
    began = time.monotonic()
    with pytest.raises(SpawnError, match="ended without an answer"):
        launch(runs, a_spec(tmp_path))
    assert time.monotonic() - began < 10


def test_the_daemon_that_asked_may_be_gone_when_the_shim_comes(tmp_path, runs):
    run_dir = UnitLauncher(runs)._prepare(a_spec(tmp_path, "exit 6"))
    os.mkfifo(run_dir / "report")  # nobody reads
    command = [sys.executable, "-I", "-S", shim.__file__, "--foreground", str(run_dir)]
    assert subprocess.run(command, timeout=15, check=False).returncode == 0
    assert launcher.read_exit(run_dir).exit_code == 6


def test_a_terminated_foreground_shim_ends_its_agent_politely(tmp_path, runs):
    run_dir = UnitLauncher(runs)._prepare(a_spec(tmp_path, f"echo ready; {FOREVER}"))
    command = [sys.executable, "-I", "-S", shim.__file__, "--foreground", str(run_dir)]
    with subprocess.Popen(command) as process:
        wait_until(
            lambda: (run_dir / "output.log").exists() and (run_dir / "output.log").read_text(), "ready"
        )
        process.terminate()
        assert process.wait(timeout=15) == 0
    assert launcher.read_exit(run_dir).reason == "stopped"


def test_a_manager_that_cannot_be_reached_is_said_before_anything_starts(stand_in, tmp_path, monkeypatch):
    stand_in("exit 0")
    stand_in("echo 'Failed to connect to bus' >&2; exit 1", "systemctl")
    with pytest.raises(
        ConfigError, match=r"the manager of user 4242 does not answer: .*coordinator.launcher"
    ):
        Manager(uid=4242, gid=4242).check()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r'systemd-run is not on PATH: set coordinator\.launcher = "shim"'):
        Manager(uid=0, gid=0).check()


# --- names and words --------------------------------------------------------------------------------------


def test_units_of_the_same_run_in_two_state_directories_have_two_names():
    one, other = unit_of(Path("/a/runs/gh-1.2")), unit_of(Path("/b/runs/gh-1.2"))
    assert one.startswith("coordinator-run-gh-1-2-")
    assert one.endswith(".service")
    assert one != other


def test_any_folder_makes_a_valid_unit_name():
    name = unit_of(Path("/a/owner_na me@é%n$x_gh-1.2" + "y" * 300))
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
    assert len(name) < 256


def test_limits_and_nothing_else_become_properties():
    assert Limits().properties() == []
    some = Limits(memory_max="2G", cpu_percent=150, tasks_max=300)
    assert some.properties() == ["MemoryMax=2G", "MemorySwapMax=0", "CPUQuota=150%", "TasksMax=300"]


def test_root_asks_the_system_and_everybody_else_their_own_manager():
    plain = {"limits": Limits(), "stop_seconds": 25, "umask": 0o077}
    root = Manager(uid=0, gid=0).start_command("u.service", ["/bin/true", "$HOME"], **plain)
    user = Manager(uid=1000, gid=100).start_command("u.service", ["/bin/true"], **plain)
    assert ("--uid=0" in root, "--user" in root) == (True, False)
    assert ("--uid=1000" in user, "--user" in user) == (False, True)
    assert root[-2:] == ["/bin/true", "$$HOME"]
    assert "UMask=0077" in user


def test_a_damaged_spec_cannot_name_somebody_elses_unit_to_be_killed(tmp_path, runs, stand_in):
    stand_in(STARTS)
    stand_in(f'echo "$@" >> {tmp_path}/asked', "systemctl")
    handle = launch(runs, a_spec(tmp_path, "exit 0"))
    asyncio.run(handle.wait())
    (handle.run_dir / "exit").unlink()
    spec = json.loads((handle.run_dir / "spec.json").read_text()) | {"unit": "sshd.service"}
    (handle.run_dir / "spec.json").write_text(json.dumps(spec))
    assert isinstance(Launcher(runs).adopt(handle.run_dir), launcher.Lost)
    asked = (tmp_path / "asked").read_text()
    assert unit_of(handle.run_dir) in asked
    assert "sshd" not in asked
