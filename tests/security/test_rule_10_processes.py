"""Rule 10: signals and ends of a worker in a sandbox are those of one without; what it may use is bounded."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from world import World, program

from adw_modules.config import SandboxSettings
from adw_modules.security.network import policy_of
from coordinator import boxed as inner_program
from coordinator import bubblewrap
from coordinator.ahead import limits_pids
from coordinator.launcher import is_alive, read_exit
from coordinator.network import POLICY_FILE, behind_proxy
from coordinator.sandbox import MB, NONE, OPEN, Limits, NetworkPlan, View, command, read_write

Done = subprocess.CompletedProcess[str]
INNER = Path(inner_program.__file__)
NOBODY = 65534
PID_MAX = Path("/proc/sys/kernel/pid_max")
ON = {"mode": "bubblewrap"}
SAYS_WHAT_ENDS_IT = """
import signal, sys, time
def ended(number, frame):
    print("ended by", number, flush=True)
    sys.exit(0)
signal.signal(signal.SIGINT, ended)
print("waiting", flush=True)
time.sleep(60)
"""
DIES = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
HAS_A_CHILD = """
import subprocess, time
subprocess.Popen(["setsid", "sleep", "60"])
print("waiting", flush=True)
time.sleep(60)
"""
WAITS_FOR_A_FILE = """
import os, time
print("waiting", flush=True)
until = time.monotonic() + 60
while time.monotonic() < until and not os.path.exists("gate"):
    time.sleep(0.01)
open("work.txt", "w").write("done")
"""
FORKS = """
import os, time
for number in range(6):
    if os.fork() == 0:
        os.setsid()
if os.getppid() == 1 or number == 5:
    print("forked", flush=True)
time.sleep(60)
"""
COUNTS = """
import os, signal, time
os.setsid() if os.getpid() != os.getsid(0) else None
made = 0
try:
    for _ in range(100):
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
        made += 1
except OSError:
    pass
print(made, flush=True)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.kill(0, signal.SIGTERM)
"""
FILLS = """
import os, time
print("filling", flush=True)
for number in range(400):
    with open("f" + str(number), "wb") as file:
        file.write(b"x" * 1000000)
print("full", flush=True)
time.sleep(60)
"""


def test_the_polite_signal_reaches_the_agent_and_its_last_words_are_kept(a_world: Any) -> None:
    world: World = a_world(
        sandbox=ON,
        coordinator={"stop_grace_seconds": 10},
        **{"providers__claude-cli": program(SAYS_WHAT_ENDS_IT)},
    )
    number = world.issue()
    world.start()
    run = world.until_working(number)
    world.cli("cancel", str(number))
    world.until_state(number, "cancelled")

    record = read_exit(Path(run.run_dir))
    assert record is not None
    assert (record.exit_code, record.reason) == (0, "stopped")
    assert "ended by SIGINT" in record.detail
    assert "ended by 2" in (Path(run.run_dir) / "output.log").read_text()
    world.until_quiet()


def test_an_agent_that_is_killed_counts_as_killed(a_world: Any) -> None:
    world: World = a_world(
        sandbox=ON, coordinator={"max_attempts": 1}, **{"providers__claude-cli": program(DIES)}
    )
    number = world.issue()
    world.start()
    world.until_state(number, "failed")
    (run,) = world.runs(number)
    assert run.failure_class == "signal"


def test_a_killed_daemon_leaves_the_agent_and_the_next_one_follows_it(a_world: Any) -> None:
    world: World = a_world(sandbox=ON, **{"providers__claude-cli": program(WAITS_FOR_A_FILE)})
    number = world.issue()
    world.start_process()
    run = world.until_working(number)
    world.kill()
    assert is_alive(Path(run.run_dir))
    world.start()
    (world.state_dir / "trees" / f"gh-{number}" / "gate").touch()
    world.until_state(number, "succeeded")
    assert world.starts(number) == 1


def test_a_killed_shim_leaves_nothing_alive(a_world: Any) -> None:
    world: World = a_world(
        sandbox=ON, retries={"on_lost": "park"}, **{"providers__claude-cli": program(HAS_A_CHILD)}
    )
    number = world.issue()
    world.start()
    world.until_working(number)
    before = world.processes()
    assert len(before) >= 4  # bubblewrap twice, the agent and its child: the marker shows in all of them
    world.kill_shims()
    world.until(lambda: not world.any_left(before), "everything of the run is gone")
    world.until_state(number, "blocked")


def test_a_run_that_fills_the_disk_is_stopped_and_waits_for_a_human(a_world: Any) -> None:
    world: World = a_world(sandbox={**ON, "worktree_mb": 100}, **{"providers__claude-cli": program(FILLS)})
    number = world.issue()
    world.start()
    task = world.until_state(number, "blocked")
    assert "sandbox.worktree_mb" in str(task.cause)
    assert world.starts(number) == 1


def test_a_fork_bomb_is_over_with_its_run(a_world: Any) -> None:
    world: World = a_world(sandbox=ON, **{"providers__claude-cli": program(FORKS)})
    number = world.issue()
    world.start()
    world.until_working(number)
    world.until(lambda: len(world.processes()) > 60, "all of them are there")
    before = world.processes()
    world.cli("cancel", str(number))
    world.until_state(number, "cancelled")
    world.until(lambda: not world.any_left(before), "all of them are gone")


BOMB = """
import os, time
for _ in range(11):  # 2,048 of them, if nobody minds
    try:
        os.fork()
    except OSError:
        pass
print("forked", flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="where Linux counts, it refuses, and nothing has to be ended")
def test_a_fork_bomb_of_root_is_ended_and_the_others_go_on(a_world: Any) -> None:
    """With the network of the host nobody is around the sandbox who could limit it: its shim counts."""
    world: World = a_world(
        sandbox={**ON, "processes": 100, "network": "open"}, **{"providers__claude-cli": program(BOMB)}
    )
    number = world.issue()
    world.start()
    task = world.until_state(number, "blocked")
    assert "more than 600 processes and threads at once" in str(task.cause)
    assert world.starts(number) == 1
    world.until(lambda: not world.processes(), "all of them are gone")


# --- limits of one run -------------------------------------------------------------------------------------


def boxed(code: str, folder: Path, *, limits: Limits, network: NetworkPlan = OPEN) -> Done:
    """A piece of Python in a sandbox, without a daemon."""
    found = bubblewrap.find(SandboxSettings(mode="bubblewrap"), os.environ)
    assert found.box is not None, found.problem
    view = View(cwd=folder, home=Path("/home/agent"), mounts=(read_write(folder),))
    argv = command(("/usr/bin/python3", "-c", code), box=found.box, view=view, limits=limits, network=network)
    return run_it(argv, folder)


def run_it(argv: Sequence[str], folder: Path, user: int | None = None) -> Done:
    env = {"PATH": "/usr/bin:/bin"}
    return subprocess.run(
        argv, capture_output=True, text=True, timeout=60, check=False, cwd=folder, user=user, env=env
    )


@pytest.mark.parametrize(
    ("path", "complaint"),
    [("big", "File too large"), ("/tmp/big", "No space left"), ("/dev/shm/big", "No space left")],
)
def test_a_file_that_grows_for_ever_comes_to_an_end(tmp_path: Path, path: str, complaint: str) -> None:
    code = f"""
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with open({path!r}, "wb", buffering=0) as file:
    while file.write(b"x" * 1000000):
        assert file.tell() < 40000000, "nobody stops this"
"""
    done = boxed(code, tmp_path, limits=Limits(file_bytes=20 * MB, temporary_bytes=10 * MB))
    assert complaint in done.stderr
    assert boxed(code, tmp_path, limits=Limits()).stderr.endswith("nobody stops this\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else whose processes Linux counts")
def test_the_number_of_processes_is_limited() -> None:
    readable = Path(tempfile.mkdtemp(dir="/tmp"))  # pytest's own folders are root's alone
    try:
        readable.chmod(0o755)
        inner = shutil.copy(INNER, readable)
        argv = ("/usr/bin/python3", "-I", "-S", inner)
        limited = run_it(
            [*argv, "processes=40", "--", "/usr/bin/python3", "-c", COUNTS], readable, user=NOBODY
        )
        free = run_it([*argv, "--", "/usr/bin/python3", "-c", COUNTS], readable, user=NOBODY)
    finally:
        shutil.rmtree(readable)
    assert int(free.stdout) == 100
    assert int(limited.stdout) <= 40


@pytest.mark.skipif(os.geteuid() != 0 or not limits_pids(), reason="needs root, and Linux 6.14 or newer")
def test_the_kernel_limits_the_processes_of_root_too(tmp_path: Path) -> None:
    """Nothing is ended: the program is refused one more, as by any limit. The machine's own limit stays."""
    (tmp_path / POLICY_FILE).write_text(json.dumps(policy_of([])))
    before = PID_MAX.read_text()
    code = COUNTS.replace("range(100)", "range(1500)")
    made = [
        int(boxed(code, tmp_path, limits=Limits(processes=most), network=behind_proxy(tmp_path)).stdout)
        for most in (100, 4096)
    ]
    assert 100 <= made[0] <= 400  # some 300 numbers are given out once only
    assert made[1] == 1500
    assert PID_MAX.read_text() == before


def test_a_sandbox_without_a_network_reaches_nobody(tmp_path: Path) -> None:
    code = """
import socket
try:
    socket.create_connection(("169.254.169.254", 80), timeout=5)
except OSError as error:
    print(error.strerror)
"""
    assert boxed(code, tmp_path, limits=Limits(), network=NONE).stdout == "Network is unreachable\n"


def test_a_program_that_is_not_there_is_said_in_one_line(tmp_path: Path) -> None:
    found = bubblewrap.find(SandboxSettings(mode="bubblewrap"), os.environ)
    assert found.box is not None
    view = View(cwd=tmp_path, home=Path("/home/agent"), mounts=(read_write(tmp_path),))
    done = run_it(command(("/usr/bin/nothing",), box=found.box, view=view, limits=Limits()), tmp_path)
    assert (done.returncode, done.stderr) == (
        127,
        "sandbox: cannot execute /usr/bin/nothing: No such file or directory\n",
    )


@pytest.mark.parametrize("mode", ["auto", "bubblewrap"])
def test_a_host_that_cannot_is_noticed_at_once(mode: str) -> None:
    settings = SandboxSettings(mode=mode, bwrap="/bin/false")
    found = bubblewrap.find(settings, os.environ)
    assert found.box is None
    assert "/bin/false (sandbox.bwrap): exit code 1" in found.problem
    assert bubblewrap.why_not_public(found, settings)
    assert (
        bubblewrap.why_not_public(found, settings.model_copy(update={"required_for_public": False})) is None
    )
