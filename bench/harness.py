"""What the measurements share: a daemon on a fresh state directory, issues made in bulk, the floor."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from adw_modules.tasks.model import GitState, IssueSnapshot, Priority, TaskRequest, Trigger
from coordinator import logs
from coordinator.daemon import Daemon, Wake
from coordinator.outbox import Outbox
from coordinator.schedule import PollDue
from coordinator.services import Services
from coordinator.settings import SettingsSource
from coordinator.store import StateDir
from coordinator.workspaces import Mirror, Workspace

CONFIG = """\
[coordinator]
max_concurrent_workers = {workers}
poll_interval_seconds = {interval}
[github]
repo_owner = "bench"
repo_name = "repo"
api_url = "{api_url}"
remote_url = "{remote_url}"
token_env = "BENCH_TOKEN"
writes_per_minute = 0
[providers.agent]
agent = "generic"
command_template = {command}
[limits]
runs_per_repository_per_day = 0
runs_per_author_per_day = 0
runs_per_labeller_per_day = 0
[sandbox]
mode = "off"
required_for_public = false
[admission]
public_repositories = true  # nobody polls here to learn that it is private
[llm]
provider = "agent"
model_default = "none"
{extra}
"""

TOKEN = "bench-token"
WEBHOOK_SECRET = "the-secret-of-the-webhook-of-the-bench"


_ROOT = tempfile.TemporaryDirectory(prefix="coordinator-bench-")


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A new folder. It stays until the end of the process: file systems still work on a mass deletion when the
    next measurement has begun (on ext4 with `discard` it made a start twice to three times as slow)."""
    yield Path(tempfile.mkdtemp(dir=_ROOT.name))


def quiet_logs(log_dir: Path) -> None:
    logs.configure(redactor=logs.Redactor(), stream=Path(os.devnull).open("w"), json=True, log_dir=log_dir)


def source(root: Path, **values: object) -> SettingsSource:
    """A configuration file in `root`; see CONFIG for the values."""
    defaults = {
        "workers": 8,
        "interval": 3600,
        "api_url": "http://127.0.0.1:9",
        "remote_url": "/nowhere/{owner}/{name}",
        "extra": "",
    }
    config = root / "adws" / "config.toml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(CONFIG.format(**{**defaults, **values}))
    return SettingsSource(config, environ())


def environ() -> dict[str, str]:
    return dict(os.environ) | {"BENCH_TOKEN": TOKEN, "BENCH_WEBHOOK_SECRET": WEBHOOK_SECRET}


def request(number: int, now: datetime | None = None) -> TaskRequest:
    now = now or datetime(2026, 11, 21, tzinfo=UTC)
    issue = IssueSnapshot(
        repo="bench/repo", repo_id=1, number=number, title=f"Issue {number}", body="Do nothing.", labels=("rpi-auto",),
        author="ada", author_id=1, state="open", url="", created_at=now, updated_at=now,
    )  # fmt: skip
    trigger = Trigger(event_id=number, actor="ada", actor_id=1, labelled_at=now)
    return TaskRequest(issue=issue, priority=Priority.NORMAL, trigger=trigger)


class PlainFolders:
    """Stands where git worktrees stand: an empty folder per task, and every run has changed something."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def ensure_mirror(self, repo: str, remote_url: str, auth: object, *, now: datetime) -> Mirror:
        return Mirror(path=self._root, repo=repo, remote_url=remote_url)

    def prepare(self, mirror: Mirror, task_name: str, branch: str, **_options: object) -> Workspace:
        path = self._root / task_name
        path.mkdir(parents=True, exist_ok=True)
        return Workspace(
            path=path, branch=branch, default_branch="main", base_sha="0", start_sha="0", mirror=mirror
        )

    def share_git(self, _workspace: Workspace) -> None:
        return None

    def keep_work(self, _workspace: Workspace, _message: str) -> GitState:
        return GitState(has_changes=True, head="1", base="0")

    def stop(self) -> None:
        return None


class SilentOutbox(Outbox):
    """Fills and sends nothing."""

    async def run(self) -> None:
        await asyncio.Event().wait()


class Unpublished(Daemon):
    """A daemon that neither polls nor publishes: GitHub is not part of what is measured.

    `ended` is set once `expected` runs were settled: asking the store again and again would be measured too.
    """

    expected = 0

    def _run_ended(self) -> None:
        super()._run_ended()
        self.expected -= 1
        if self.expected == 0:
            self.ended.set()

    def _assemble(self, services: Services, state_dir: StateDir) -> None:
        super()._assemble(services, state_dir)
        self.ended = asyncio.Event()
        self.outbox = SilentOutbox(services, lambda: None)

    def wake(self, reason: Wake | PollDue) -> None:
        if not isinstance(reason, PollDue):
            super().wake(reason)


@contextlib.contextmanager
def daemon(root: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`coordinator run` with the configuration in `root`, until the block ends."""
    with (root / "daemon.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "coordinator", "run", "--config", str(root / "adws" / "config.toml")],
            env=environ(),
            stdout=log,
            stderr=log,
        )
        try:
            yield process
        finally:
            process.terminate()
            process.wait(timeout=10)


async def floor(count: int, concurrency: int) -> float:
    """Bare `asyncio.create_subprocess_exec('true')`, runs per second."""
    program = shutil.which("true")
    assert program is not None
    gate = asyncio.Semaphore(concurrency)

    async def one() -> None:
        async with gate:
            process = await asyncio.create_subprocess_exec(program)
            await process.wait()

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(count)))
    return count / (time.perf_counter() - began)
