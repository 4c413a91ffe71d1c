"""Random kills for as long as a test wants: issues come in, daemons are killed and started again.

Reproducible as far as moments can be: everything drawn comes from one seed (COORDINATOR_TEST_SEED, else drawn
anew). It is printed, and stands in every failure.
"""

from __future__ import annotations

import os
import random
import secrets
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator

from stage import Stage
from world import BOT, WRITE

from coordinator import shim

REPOS = ("octo/hello", "octo/two", "octo/three", "octo/four")
CONFIG = {
    "repositories": [dict(zip(("owner", "name"), repo.split("/"), strict=True)) for repo in REPOS[1:]],
    "coordinator": {
        "max_concurrent_workers": 8,
        "poll_interval_seconds": 0.3,
        "max_attempts": 1000,
        "max_runs_per_issue": 1000,
        "max_crashes_per_task": 1000,  # here it is always the daemon's own fault
    },
    "retries": {"max_lost_runs": 1000},
    "github": {"report_delay_seconds": 0.5},
}


def seed() -> str:
    """The seed of this test, printed."""
    drawn = os.environ.get("COORDINATOR_TEST_SEED") or secrets.token_hex(4)
    print(f"COORDINATOR_TEST_SEED={drawn}")
    return drawn


class Storm:
    """One stage in bad weather. `dice` decides everything."""

    def __init__(self, stage: Stage, dice: random.Random) -> None:
        self.stage = stage
        self.dice = dice
        self.issues: list[tuple[str, int]] = []  # repository, number
        self.ended: Counter[signal.Signals] = Counter()  # daemons, by the signal that ended them
        self.polite = 0  # daemons that ended in order
        self.struck: Counter[str] = Counter()  # shims and agents
        for repo in REPOS[1:]:
            stage.add_repo(repo)
        # Hundreds of daemons, each with whole listings to begin with: the usual quota is spent in minutes.
        stage.server.set_rate_limit(BOT, remaining=10**6, limit=10**6)

    def add_issues(self, count: int) -> None:
        for _ in range(count):
            repo = self.dice.choice(REPOS)
            self.issues.append((repo, self.stage.issue(*self._directives(), repo=repo)))

    def _directives(self) -> Iterator[str]:
        """Some fail at first, some leave a process behind, most take their time, all write."""
        if self.dice.random() < 0.1:
            yield "[[agent: fail-once]]"
        if self.dice.random() < 0.1:
            yield "[[agent: grandchild]]"
        if self.dice.random() < 0.7:
            yield f"[[agent: slow {self.dice.uniform(0.1, 3):.1f}]]"
        yield WRITE

    def live_a_little(self, seconds: float) -> None:
        """Leave the daemon alone for that long; it must not end by itself."""
        assert self.stage.process is not None
        try:
            code = self.stage.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return
        raise AssertionError(f"the daemon ended by itself, with {code}\n{self.stage._last_lines()}")

    def end_daemon(self, number: signal.Signals) -> None:
        if number is signal.SIGKILL:
            self.stage.kill()
        else:
            code, _ = self.stage.end_process(number)
            assert code in (0, -number), self.stage._last_lines()  # it may not have listened to signals yet
            self.polite += code == 0
        self.ended[number] += 1

    def strike(self) -> None:
        """Kill a shim, or an agent, of some live run."""
        live = self.stage.live()
        if not live:
            return
        run_dir, victim = self.dice.choice(live), self.dice.choice(("shim", "agent"))
        started = shim.read_json(str(run_dir / "started")) or {}
        name = "shim" if victim == "shim" else "child"
        pid, start = started.get(f"{name}_pid"), started.get(f"{name}_start")
        if pid and start and shim.signal_exact(pid, start, signal.SIGKILL):
            self.struck[victim] += 1

    def unfinished(self) -> int:
        """How many issues there are whose task has not ended, or is not there yet."""
        return len(self.issues) - self.stage.succeeded()

    def calm_down(self, patience: float) -> None:
        """Until all work is done and published, by a daemon that is left alone."""
        self.stage.until(lambda: not self.unfinished(), "all tasks have succeeded", patience=patience)
        self.stage.until(self.stage.is_published, "everything is published", patience=patience)
