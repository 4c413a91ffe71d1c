"""What a sandbox adds to the start of a run: spawn to the first instruction of the agent, with and without.

Both in the same rounds, with the view of a real run: a worktree, a git directory in parts, PATH and a home.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import time
from pathlib import Path

from adw_modules.config import SandboxSettings
from adw_modules.security.network import parse_place, policy_of
from bench import harness
from coordinator import bubblewrap
from coordinator.network import POLICY_FILE, behind_proxy
from coordinator.sandbox import Limits, View, command, home_of, on_path, read_only, read_write

ROUNDS = 60
AGENT = ("/bin/sh", "-c", "echo begun; read line")


def until_first_line(argv: tuple[str, ...], cwd: Path) -> float:
    """Seconds from the spawn to the agent's first line."""
    began = time.perf_counter()
    with subprocess.Popen(argv, cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        took = time.perf_counter() - began
        process.communicate(b"\n")
    return took


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
    """Medians of both, and what lies between them."""
    found = bubblewrap.find(SandboxSettings(), os.environ)
    assert found.box is not None, found.problem
    with harness.folder() as root:
        view = view_of(root)
        boxed = command(AGENT, box=found.box, view=view, limits=Limits())
        (root / POLICY_FILE).write_text(json.dumps(policy_of([parse_place("api.anthropic.com")])))
        listed = command(AGENT, box=found.box, view=view, limits=Limits(), network=behind_proxy(root))
        plain, inside, proxied = [], [], []
        for _ in range(ROUNDS):
            plain.append(until_first_line(AGENT, view.cwd))
            inside.append(until_first_line(boxed, view.cwd))
            proxied.append(until_first_line(listed, view.cwd))
        own_mb = proxy_mb(listed, view.cwd)
    plain_ms, inside_ms, proxied_ms = (statistics.median(times) * 1000 for times in (plain, inside, proxied))
    return {
        "sandbox_added_ms": inside_ms - plain_ms,
        "sandbox_added_ms_p95": (statistics.quantiles(inside, n=20)[-1] * 1000) - plain_ms,
        "sandbox_none_ms": plain_ms,
        "sandbox_allow_list_added_ms": proxied_ms - plain_ms,
        "sandbox_proxy_own_mb": own_mb,
    }


if __name__ == "__main__":
    print(measure())
