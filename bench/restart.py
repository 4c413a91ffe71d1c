"""A daemon killed with 50 live runs and 10,000 ended tasks behind it: how soon the next one has them all.

Real processes throughout: `coordinator run`, shims, agents that sleep, git worktrees, a GitHub on loopback. The
same stage tells what following 50 runs costs, and how long after its agent's end a run is settled.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from bench import harness
from bench.claim import finish_in_bulk
from bench.idle import FINISHED_TASKS, cpu_seconds
from coordinator.clock import utc_now
from coordinator.demo.server import GitHubServer
from coordinator.launcher import is_alive
from coordinator.settings import SettingsSource
from coordinator.store import Store

LIVE = "bench/live"  # beside bench/repo, whose tasks have all ended
RUNS = 50
RESTARTS = 5
SETTLE_SECONDS, WATCH_SECONDS = 5, 30
SETTLED = 20
PATIENCE = 120

SLEEPS = "echo working; exec sleep 600"
WORKS = "echo done > work.txt; sleep 1; date +%s.%N"


@contextmanager
def stage(root: Path, *, issues: int, workers: int, agent: str) -> Iterator[SettingsSource]:
    """A GitHub with labelled issues, and a store full of ended tasks of another repository."""
    with GitHubServer(git_root=root / "github") as server:
        for name in ("bench/repo", LIVE):
            server.add_repo(name, files={"README.md": "# Bench\n"})
            for login in ("bench-bot", "ada"):
                server.set_permission(name, login, "write")
        server.add_token(harness.TOKEN, "bench-bot")
        for number in range(issues):
            server.add_issue(
                LIVE, title=f"Issue {number}", body="", author="ada", labels=["rpi-auto"], labelled_by="ada"
            )
        source = harness.source(
            root, workers=workers, api_url=server.api_url, remote_url=str(root / "github" / "{owner}" / "{name}.git"),
            command=json.dumps(["sh", "-c", agent]), extra='[[repositories]]\nowner = "bench"\nname = "live"\n',
        )  # fmt: skip
        source.current.state_dir.mkdir(mode=0o700)
        with Store.open(source.current.database_url, now=utc_now()) as store:
            finish_in_bulk(store, FINISHED_TASKS)
        yield source


def until(condition: Callable[[], Any]) -> Any:
    """Look again and again until it is true; its value."""
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)
    return found


def events(source: SettingsSource, name: str, since: int = 0) -> list[dict[str, Any]]:
    """The daemon's log lines of this event, from a byte of the file on."""
    path = source.current.log_dir / "coordinator.jsonl"
    if not path.exists():
        return []
    with path.open("rb") as file:
        file.seek(since)
        lines = file.read().splitlines()
    mark = f'"event": "{name}"'.encode()
    return [json.loads(line) for line in lines if mark in line]


def at(event: dict[str, Any]) -> float:
    return datetime.fromisoformat(event["timestamp"]).timestamp()


# -- 50 live runs and a new daemon ------------------------------------------------------------------------


def restart() -> dict[str, float]:
    """Medians over RESTARTS daemons, each killed with all its runs alive; then one is watched for a while."""
    with harness.folder() as root, ExitStack() as stack:
        source = stack.enter_context(stage(root, issues=RUNS, workers=RUNS, agent=SLEEPS))
        stack.callback(end_runs, source)
        with harness.daemon(root) as process:
            until(lambda: len(events(source, "worker started")) == RUNS)
            kill(process)
        rounds = [adopt(root, source) for _ in range(RESTARTS)]
        with harness.daemon(root) as process:
            time.sleep(SETTLE_SECONDS)
            before = cpu_seconds(process.pid)
            time.sleep(WATCH_SECONDS)
            used = cpu_seconds(process.pid) - before
    return {
        "restart_seconds": statistics.median(ready for ready, _ in rounds),
        "adoption_seconds": statistics.median(adoption for _, adoption in rounds),
        "following_cpu_percent": 100 * used / WATCH_SECONDS,
    }


def adopt(root: Path, source: SettingsSource) -> tuple[float, float]:
    """Seconds until a new daemon has all runs: from its process's start, and from its own first line."""
    seen = (source.current.log_dir / "coordinator.jsonl").stat().st_size
    began = time.time()
    with harness.daemon(root) as process:
        until(lambda: len(events(source, "found a run", seen)) == RUNS)
        kill(process)
    found = events(source, "found a run", seen)
    assert {event["found"] for event in found} == {"alive"}
    (first,) = events(source, "coordinator starts", seen)
    last = max(at(event) for event in found)
    return last - began, last - at(first)


def kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def end_runs(source: SettingsSource) -> None:
    """Kill by pid the agents of all runs; their shims write that down and end."""
    started = list(source.current.state_dir.glob("runs/*/started"))
    for path in started:
        os.kill(json.loads(path.read_text())["child_pid"], signal.SIGKILL)
    # By their locks: an init that reaps late leaves the pids of ended shims standing.
    until(lambda: not any(is_alive(path.parent) for path in started))


# -- from the end of an agent to the settled row ------------------------------------------------------------


def settle() -> dict[str, float]:
    """Milliseconds from an agent's last word to the stored end of its run, with its work committed."""
    with (
        harness.folder() as root,
        stage(root, issues=SETTLED, workers=2, agent=WORKS) as source,
        harness.daemon(root),
    ):
        until(lambda: len(events(source, "pull request opened")) == SETTLED)
        delays = [
            1000 * (at(event) - ended_at(source, event["task"]))
            for event in events(source, "worker finished")
        ]
    return {"settle_ms_median": statistics.median(delays), "settle_ms_max": max(delays)}


def ended_at(source: SettingsSource, task: str) -> float:
    (run,) = source.current.state_dir.glob(f"runs/{task.replace('/', '_')}.*")
    return float((run / "output.log").read_text().split()[-1])


def measure() -> dict[str, float]:
    return restart() | settle()


if __name__ == "__main__":
    print(measure())
