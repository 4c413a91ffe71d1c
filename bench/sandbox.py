"""What a sandbox adds to the start of a run: spawn to the first instruction of the agent, with and without.

Both in the same rounds, with the view of a real run: a worktree, a git directory in parts, PATH and a home.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import statistics
import subprocess
import time
from pathlib import Path

from adw_modules.config import SandboxSettings
from adw_modules.security.network import parse_place, policy_of
from bench import harness
from coordinator import bubblewrap
from coordinator.network import POLICY_FILE, behind_proxy
from coordinator.sandbox import NONE, OPEN, Limits, View, command, home_of, on_path, read_only, read_write

ROUNDS = 60
PR_SET_CHILD_SUBREAPER = 36
AGENT = ("/bin/sh", "-c", "echo begun; read line")


def until_first_line(argv: tuple[str, ...], cwd: Path) -> tuple[float, float]:
    """Seconds from the spawn to the agent's first line, and seconds of processor time from spawn to end."""
    used = processor_time()
    began = time.perf_counter()
    with subprocess.Popen(argv, cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        took = time.perf_counter() - began
        process.communicate(b"\n")
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()  # bubblewrap does not wait for its first process inside, so that is ours now
    return took, processor_time() - used


def processor_time() -> float:
    """User and system time in seconds of all children that are gone."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def proxy_mb(argv: tuple[str, ...], cwd: Path) -> float:
    """What the proxy of one run has in memory for itself alone, in MB."""
    with subprocess.Popen(argv, cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
        process.communicate(b"\n")
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1000


def view_of(root: Path) -> View:
    tree, admin = root / "tree", root / "mirror" / "worktrees" / "gh-1"
    parts = [admin / "sandbox" / name for name in ("objects", "refs", "logs")]
    for folder in (tree, root / "mirror" / "objects", *parts, parts[0] / "info"):
        folder.mkdir(parents=True)
    home = home_of(os.environ)
    mounts = (
        *on_path(os.environ["PATH"], home),
        *(read_write(path) for path in (tree, admin, *parts)),
        *(read_only(path) for path in (root / "mirror" / "objects", admin / "sandbox", parts[0] / "info")),
    )
    return View(cwd=tree, home=home, mounts=mounts, hidden=(root,))


def measure() -> dict[str, float]:
    """Medians of what a sandbox adds for each kind of network, to the clock and to the processors."""
    found = bubblewrap.find(SandboxSettings(), os.environ)
    assert found.box is not None, found.problem
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with harness.folder() as root:
        view, box = view_of(root), found.box
        (root / POLICY_FILE).write_text(json.dumps(policy_of([parse_place("api.anthropic.com")])))
        networks = {"open": OPEN, "none": NONE, "allow_list": behind_proxy(root)}
        starts = {"": AGENT} | {
            name: command(AGENT, box=box, view=view, limits=Limits(), network=network)
            for name, network in networks.items()
        }
        rounds = [{n: until_first_line(argv, view.cwd) for n, argv in starts.items()} for _ in range(ROUNDS)]
        own_mb = proxy_mb(starts["allow_list"], view.cwd)
    plain_ms, plain_cpu_ms = (statistics.median(each[""][i] for each in rounds) * 1000 for i in (0, 1))
    result = {"without_sandbox_ms": plain_ms, "sandbox_proxy_own_mb": own_mb}
    for name in networks:
        took, used = ([each[name][i] * 1000 for each in rounds] for i in (0, 1))
        result[f"sandbox_{name}_added_ms"] = statistics.median(took) - plain_ms
        result[f"sandbox_{name}_added_ms_p95"] = statistics.quantiles(took, n=20)[-1] - plain_ms
        result[f"sandbox_{name}_added_cpu_ms"] = statistics.median(used) - plain_cpu_ms
    return result


if __name__ == "__main__":
    for name, value in measure().items():
        print(f"{name:36} {value:8.1f}")
