"""The world of the scenarios, with witnesses: what they must agree on after any number of kills.

The store is never believed alone. Agents note their own begins (witness.py), the GitHub server has the
comments and pull requests, the agents' final records have the tokens, and the kernel knows who lives.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

from world import PATIENCE, REPO, World

from adw_modules.errors import StoreError
from adw_modules.tasks.model import FailureClass, ModelUsage, Outcome, Run, TaskState
from coordinator import shim
from coordinator.demo import agent
from coordinator.faultpoints import VARIABLE
from tests.forked import server_pids

FREE = frozenset({Outcome.NEVER_STARTED})  # a run that costs nothing and may be repeated without harm


class Stage(World):
    """A world whose agents leave evidence, and whose daemon can be told where to die."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        program = [sys.executable, "-I", str(Path(__file__).with_name("witness.py")), str(folder)]
        command = [*program, str(Path(agent.__file__).resolve()), "--model", "{model}"]
        super().__init__(folder, {"providers.claude-cli": {"command_template": command}, **config}, cold=True)

    # -- killing ---------------------------------------------------------------------------------------

    def start_armed(self, fault: str) -> None:
        """Run a daemon that is to die, or whose shim is to die, at a fault point."""
        self.environ[VARIABLE] = fault
        try:
            self.start_process()
        finally:
            del self.environ[VARIABLE]

    def died(self, patience: float = PATIENCE) -> bool:
        """Wait for the daemon to kill itself; False if it lives after the patience."""
        assert self.process is not None
        try:
            code = self.process.wait(timeout=patience)
        except subprocess.TimeoutExpired:
            return False
        self.process = None
        assert code == -signal.SIGKILL, f"it ended by itself, with {code}\n{self._last_lines()}"
        return True

    def until_a_shim_died(self) -> None:
        """Until a shim has killed itself at its fault point."""

        def look() -> bool:
            killed = (self.state_dir / "runs").glob("*/killed")
            return any(not shim.is_locked(str(mark.parent / "lock")) for mark in killed)

        self.until(look, "a shim has died at its fault point")

    def succeeded(self) -> int:
        """How many tasks have."""
        try:
            return self.store.counts_by_state().get(TaskState.SUCCEEDED, 0)
        except StoreError:
            return 0  # no daemon has come as far as to make the store

    # -- evidence --------------------------------------------------------------------------------------

    def begins(self) -> Counter[str]:
        """How often an agent began, by the name of its run directory; by their own account."""
        return Counter(line.split()[1] for line in self._witnessed() if line.startswith("begin "))

    def overlaps(self) -> list[str]:
        """Agents that began while another one of the same task was alive."""
        return [line for line in self._witnessed() if line.startswith("overlap ")]

    def _witnessed(self) -> list[str]:
        file = self.folder / "witness"
        return file.read_text().splitlines() if file.exists() else []

    def reported(self, run: Run) -> ModelUsage | None:
        """The tokens in the agent's own final record; None if it did not come to that."""
        file = Path(run.run_dir) / "output.log"
        lines = file.read_text().splitlines() if file.exists() else []
        final = [json.loads(line) for line in lines if '"type":"result"' in line and line.endswith("}")]
        return _tokens(final[-1]["modelUsage"]) if final else None

    # -- what has to hold in the end -------------------------------------------------------------------

    def check_task(
        self,
        number: int,
        repo: str = REPO,
        *,
        state: str = "succeeded",
        label: str = "done",
        pulls: int = 1,
        besides: Collection[Outcome] = FREE,
    ) -> None:
        """One end, one comment, one pull request, tokens counted once, no agent begun twice.

        `besides`: how runs may have ended other than the last one.
        """
        task, runs = self.task(number, repo), self.runs(number, repo)
        assert task is not None
        assert task.state.value == state, task.cause
        assert [run for run in runs if run.finished_at is None] == []
        assert {run.outcome for run in runs[:-1]} <= set(besides), [run.outcome for run in runs]
        assert runs[-1].outcome is not None
        assert runs[-1].outcome.value == state
        assert len({run.token for run in runs}) == len(runs)
        self._check_begins(runs)
        self._check_tokens(task.tokens, runs)
        assert len(self.comments(number, repo)) == 1
        assert len(self.pulls(number, repo)) == pulls
        assert self.label(number, repo) == label

    def _check_begins(self, runs: list[Run]) -> None:
        begins = self.begins()
        for run in runs:
            began, allowed = begins[Path(run.run_dir).name], {1}
            if run.outcome is Outcome.NEVER_STARTED or run.failure_class is FailureClass.SPAWN:
                allowed = {0}
            elif run.outcome in {Outcome.LOST, Outcome.OVER_BUDGET} or run.exit_signal == signal.SIGKILL:
                allowed = {0, 1}  # it may have been killed before its first word
            assert began in allowed, f"{run.run_dir} ({run.outcome}) began {began} times"

    def _check_tokens(self, counted: int, runs: list[Run]) -> None:
        stored = [self.store.usage_of(run.run_id).total for run in runs]
        for run, tokens in zip(runs, stored, strict=True):
            reported = self.reported(run)
            if run.outcome is Outcome.NEVER_STARTED:
                assert tokens.total == 0
            elif reported is not None:
                assert tokens == reported, f"{run.run_dir} counts {tokens}, its agent said {reported}"
        assert counted == sum(tokens.total for tokens in stored)

    def check_quiet(self) -> None:
        """End the daemon politely: nothing of it or of its runs is left, and no lock is held."""
        self.until(self._listens, "the daemon is up")
        code, _ = self.end_process(signal.SIGTERM)
        assert code == 0
        assert self.overlaps() == []
        self.until(lambda: not self.live(), "no run directory is locked")
        self.until(lambda: not self._orphans(), "no process is left")
        assert not (self.state_dir / "daemon.json").exists()

    def _listens(self) -> bool:
        """Whether the daemon is past its start; the file may be one that a killed daemon has left."""
        said = shim.read_json(str(self.state_dir / "daemon.json"))
        return self.process is not None and said is not None and said["pid"] == self.process.pid

    def _orphans(self) -> list[str]:
        """Processes that were left to us; the dead among them are buried."""
        ours = [each for each in map(shim.look_up, _children()) if each is not None]
        ours = [each for each in ours if each.pid not in server_pids]
        for child in ours:
            if child.state in b"ZX":
                os.waitpid(child.pid, os.WNOHANG)
        return [f"{child.pid} {_command(child.pid)}" for child in ours if child.state not in b"ZX"]


def _children() -> list[int]:
    """Of every thread of this process; those that subprocess waits for itself are gone by now."""
    found = [task.joinpath("children").read_text().split() for task in Path("/proc/self/task").iterdir()]
    return [int(pid) for pids in found for pid in pids]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return "(gone)"


def _tokens(by_model: dict[str, dict[str, Any]]) -> ModelUsage:
    return sum(
        (
            ModelUsage(
                input=said["inputTokens"],
                output=said["outputTokens"],
                cache_read=said["cacheReadInputTokens"],
                cache_write_5m=said["cacheCreationEphemeral5mInputTokens"],
                cache_write_1h=said["cacheCreationEphemeral1hInputTokens"],
                reasoning=said["thinkingTokens"],
            )
            for said in by_model.values()
        ),
        ModelUsage(),
    )
