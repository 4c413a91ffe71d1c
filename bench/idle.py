"""What an idle daemon costs, and how soon it is ready."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from bench import harness
from bench.claim import finish_in_bulk
from coordinator.clock import utc_now
from coordinator.demo.server import GitHubServer
from coordinator.store import Store

REPOSITORIES = 10
SETTLE_SECONDS = 35  # past the first polls of everything and one more tick
WATCH_SECONDS = 60
FINISHED_TASKS = 10_000
STARTS = 5


def idle() -> dict[str, float]:
    """CPU (per cent of a core) and memory (MB) of `coordinator run` with ten repositories at default settings."""
    with harness.folder() as root, GitHubServer(git_root=root / "github") as server:
        extra = ""
        server.add_repo("bench/repo")
        for number in range(REPOSITORIES):
            name = "repo" if number == 0 else f"repo{number}"
            if number:
                server.add_repo(f"bench/{name}")
                extra += f'\n[[repositories]]\nowner = "bench"\nname = "{name}"\n'
            server.set_permission(f"bench/{name}", "bench-bot", "write")
        server.add_token(harness.TOKEN, "bench-bot")
        harness.source(root, interval=30, api_url=server.api_url, command='["true"]', extra=extra)
        with harness.daemon(root) as process:
            time.sleep(SETTLE_SECONDS)
            server.clear_requests()
            before = cpu_seconds(process.pid)
            time.sleep(WATCH_SECONDS)
            used = cpu_seconds(process.pid) - before
            return {
                "idle_cpu_percent": 100 * used / WATCH_SECONDS,
                "idle_rss_mb": resident_mb(process.pid),
                "idle_requests_per_repository_and_hour": len(server.requests)
                / REPOSITORIES
                * 3600
                / WATCH_SECONDS,
                "idle_requests_not_modified_percent": 100
                * sum(request.status == 304 for request in server.requests)
                / max(1, len(server.requests)),
            }


def cpu_seconds(pid: int) -> float:
    """User and system time of the process and its living children (the warmed fork server)."""
    return sum(_ticks(each) for each in (pid, *children(pid))) / os.sysconf("SC_CLK_TCK")


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def resident_mb(pid: int) -> float:
    """Resident memory of the daemon itself."""
    line = next(x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def ready() -> float:
    """Seconds from starting the process to its first question to GitHub, with 10,000 finished tasks stored."""
    times = []
    for _ in range(STARTS):
        with harness.folder() as root, GitHubServer(git_root=root / "github") as server:
            server.add_repo("bench/repo")
            server.set_permission("bench/repo", "bench-bot", "write")
            server.add_token(harness.TOKEN, "bench-bot")
            source = harness.source(root, interval=30, api_url=server.api_url, command='["true"]')
            source.current.state_dir.mkdir(mode=0o700)
            with Store.open(source.current.database_url, now=utc_now()) as store:
                finish_in_bulk(store, FINISHED_TASKS)
            began = time.monotonic()
            with harness.daemon(root):
                assert server.wait_for(lambda: bool(server.requests), timeout=30)
                times.append(time.monotonic() - began)
    return statistics.median(times)


def command(*arguments: str) -> float:
    """Median seconds of a whole process."""
    times = []
    for _ in range(STARTS):
        began = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def measure() -> dict[str, float]:
    bare, help_text = command("-c", "pass"), command("-m", "coordinator", "--help")
    return {
        "python_seconds": bare,
        "help_seconds": help_text,
        "help_ratio": help_text / bare,
        "ready_seconds": ready(),
        **idle(),
    }


if __name__ == "__main__":
    print(measure())
