"""Twenty issues from label to draft pull request, and how soon a worker starts.

The daemon is `coordinator run`, the GitHub-like server another process; worktrees, commits, pushes, pull
requests, comments and labels are all made. The agent is a shell that adds one line to a file.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import harness
from coordinator.store import Store

ISSUES = 20
CONCURRENCY = 4
SINGLE = 12
ROUNDS = 3
AGENT = '["sh", "-c", "date +%s.%N; echo done >> NOTES.md"]'


class GitHubProcess:
    """The other end of `bench.github_process`."""

    def __init__(self, root: Path) -> None:
        root.mkdir()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.github_process", str(root), harness.TOKEN],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.urls = self._read()

    def ask(self, **order: int | str) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=10)


@contextlib.contextmanager
def stage(workers: int, interval: float) -> Iterator[tuple[GitHubProcess, Path]]:
    """A GitHub, and `coordinator run` against it; gives the database too."""
    with harness.folder() as root:
        github = GitHubProcess(root / "github")
        source = harness.source(
            root,
            workers=workers,
            interval=interval,
            api_url=github.urls["api_url"],
            remote_url=github.urls["git_url"],
            command=AGENT,
        )
        with harness.daemon(root):
            yield github, source.current.state_dir / "coordinator.db"
        github.close()


def twenty() -> float:
    """Issues per second from the first listing until everything about all of them is written to GitHub."""
    with stage(CONCURRENCY, 0.2) as (github, _):
        shown = github.ask(add=1)  # the mirror is made once per repository, not once per issue
        github.ask(wait=1)
        shown = github.ask(add=ISSUES)
        end = github.ask(wait=ISSUES + 1)
        assert end["done"]
    return ISSUES / (float(end["at"]) - float(shown["listed_at"]))


def start_latencies() -> list[float]:
    """Milliseconds from the listing that shows an issue to its worker's first line, one issue at a time."""
    latencies = []
    with stage(CONCURRENCY, 0.2) as (github, database):
        for number in range(1, SINGLE + 1):
            shown = github.ask(add=1)
            github.ask(wait=number)
            with Store.open_readonly(database) as store:
                (task,) = store.find_task(None, shown["numbers"][0])
                run_dir = Path(store.runs_of(task.task_id)[-1].run_dir)
            said = float((run_dir / "output.log").read_text().split()[0])
            latencies.append((said - float(shown["listed_at"])) * 1000)
    return latencies[2:]  # the first ones make the mirror and load what is loaded on demand


def measure() -> dict[str, float]:
    rates = [twenty() for _ in range(ROUNDS)]
    latencies = start_latencies()
    return {
        "issues_per_second": statistics.median(rates),
        "start_ms_median": statistics.median(latencies),
        "start_ms_max": max(latencies),
    }


if __name__ == "__main__":
    print(measure())
