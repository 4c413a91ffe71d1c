"""Deadline and silence while no daemon lives: an unattended agent must not go on spending."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from coordinator import launcher, shim

pytestmark = pytest.mark.crash

CHECKOUT = Path(__file__).resolve().parents[2]
DAEMON = """
import asyncio, sys
from datetime import timedelta
from pathlib import Path
from coordinator.clock import utc_now
from coordinator.launcher import Launcher, LaunchSpec

async def main(runs, kind):
    limit = timedelta(seconds=1)
    which = {"deadline": {"deadline_at": utc_now() + limit}, "stalled": {"stall": limit}}[kind]
    spec = LaunchSpec(
        task="gh-1", token=1, argv=("sh", "-c", "trap '' INT; exec tail -f /dev/null"), cwd=runs,
        env={"PATH": "/usr/bin:/bin"}, marker="m", prompt="", grace=timedelta(seconds=0.1), **which
    )
    handle = await Launcher(Path(runs)).launch(spec)
    print(handle.shim_pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("limit", ["deadline", "stalled"])
def test_a_limit_is_enforced_although_no_daemon_lives(tmp_path, limit):
    command = [sys.executable, "-c", DAEMON, str(tmp_path), limit]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=CHECKOUT) as daemon:
        shim_pid = int(daemon.stdout.readline())
        daemon.kill()
    owner = shim.look_up(shim_pid)
    assert owner is not None, "the daemon has to be dead before the limit is reached"
    assert not (tmp_path / "gh-1.1" / "exit").exists()
    wait_for_end(shim_pid)
    record = launcher.read_exit(tmp_path / "gh-1.1")
    assert (record.reason, record.exit_signal) == (limit, signal.SIGTERM)


def wait_for_end(pid: int) -> None:
    fd = os.pidfd_open(pid)
    try:
        gone = select.poll()
        gone.register(fd, select.POLLIN)
        assert gone.poll(15_000), f"process {pid} did not end within 15 s"
    finally:
        os.close(fd)
