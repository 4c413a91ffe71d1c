"""What the tests of the shim and of the launcher share: conditions, and the state of processes."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from pathlib import Path

from coordinator import shim


def wait_until(condition: Callable[[], object], what: str, seconds: float = 15) -> None:
    """Poll a condition; the bound is for a hanging test only, nothing is expected to take that long."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"waited {seconds:g} s in vain for: {what}"
        time.sleep(0.005)


def wait_for_end(pid: int) -> None:
    """Until that process has ended."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        assert poll.poll(15_000), f"process {pid} did not end within 15 s"
    finally:
        os.close(fd)


def is_running(pid: int) -> bool:
    """Whether the process exists and is not a zombie."""
    process = shim.look_up(pid)
    return process is not None and process.state not in b"ZX"


def open_descriptors() -> int:
    """How many descriptors this process has."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def children_of(pid: int) -> list[int]:
    """Its children, zombies included."""
    numbers = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
    return [
        process.pid for process in map(shim.look_up, numbers) if process is not None and process.ppid == pid
    ]


def wall_clock() -> float:
    """Unix seconds: deadlines in run directories are such."""
    return time.time()  # noqa: TID251 - the tests stand outside the program
