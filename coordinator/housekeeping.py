"""What nobody needs any more: run directories, logs, worktrees, mirrors, quarantine and old lines of history.

A timer says that it is due, the loop begins it, a thread does it. Removed is only what the store knows as
ended, or what holds no work of anybody; in doubt a thing stays. One line of the log for each removal.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from adw_modules.config.schema import HousekeepingSettings
from adw_modules.errors import StoreError, WorkspaceError
from adw_modules.tasks.model import Task
from coordinator.launcher import is_alive
from coordinator.logs import get_logger
from coordinator.preparing import find_workspace
from coordinator.services import Services
from coordinator.store import EndedRun, StatePaths
from coordinator.trash import Trash, size_of

log = get_logger()

FIRST_LOOK = timedelta(minutes=1)  # after the start, which has more urgent things to do
# Of a task's newest run: they tell an older copy of the database, once restored, that the run has been.
RECORDS = frozenset({"lock", "started", "exit", "summary.json", "revoked"})
MOST_EVENTS = 50_000  # lines of history in one go


@dataclass(frozen=True, slots=True, kw_only=True)
class HousekeepingDue:
    """What the timer puts on the inbox."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the thread may go by: read on the loop, which owns the store."""

    now: datetime
    keep: HousekeepingSettings
    ended: Sequence[EndedRun]  # oldest first
    busy: frozenset[str]  # names of tasks with a live run, or with news for GitHub
    finished: Sequence[Task]
    names: Collection[str]  # of all tasks
    repositories: frozenset[str]  # configured ones, in small letters


class Housekeeping:
    """The timer, and one look at a time. `due` is told when it has rung (answer: `begin`)."""

    def __init__(
        self, services: Services, paths: StatePaths, *, due: Callable[[HousekeepingDue], None]
    ) -> None:
        self._services = services
        self._paths = paths
        self._due = due
        self._timers: AsyncIOScheduler | None = None
        self._running: asyncio.Task[None] | None = None
        self._sweep: Sweep | None = None
        self._is_stopped = False

    def follow_settings(self) -> None:
        """Set the timer by the settings in force, or take it away."""
        if self._is_stopped:
            return
        if self._timers is None:
            self._timers = AsyncIOScheduler(timezone="UTC")
            self._timers.start()
        self._arm(FIRST_LOOK)

    def begin(self) -> None:
        """Look now, unless it is being done or not wanted."""
        if self._running is None and not self._is_stopped and self._services.settings.housekeeping.enabled:
            self._running = asyncio.create_task(self._look())

    def stop(self) -> None:
        """No more timers, and let go of what is under way; `wait` until it is gone."""
        self._is_stopped = True
        if self._timers is not None:
            self._timers.shutdown(wait=False)
        if self._sweep is not None:
            self._sweep.is_stopped = True
        if self._running is not None:
            self._running.cancel()

    async def wait(self) -> None:
        if self._running is not None:
            await asyncio.gather(self._running, return_exceptions=True)

    def _arm(self, wait: timedelta) -> None:
        if self._timers is None or self._is_stopped:
            return
        self._timers.remove_all_jobs()
        if self._services.settings.housekeeping.enabled:
            at = self._services.now() + wait
            self._timers.add_job(self._tell, "date", run_date=at, misfire_grace_time=None)

    async def _tell(self) -> None:
        """A coroutine: a plain function would be called in a thread, and the inbox is the loop's own."""
        self._due(HousekeepingDue())

    async def _look(self) -> None:
        try:
            found = facts(self._services)
            self._sweep = Sweep(self._services, self._paths, found)
            await self._services.in_thread(self._sweep.all)
            self._forget_events(found)
        except (StoreError, OSError) as error:
            log.warning("housekeeping is put off", error=str(error))
        except Exception:  # it is no reason to stop anything else
            log.exception("housekeeping is put off")
        finally:
            self._running = None
            self._arm(timedelta(hours=self._services.settings.housekeeping.interval_hours))

    def _forget_events(self, found: Facts) -> None:
        before = _cutoff(found.now, found.keep.keep_events_days)
        if before is not None:
            forgotten = self._services.store.forget_events(before=before, most=MOST_EVENTS)
            if forgotten:
                log.info("removed", what="lines of history", number=forgotten, bytes=0)


def facts(services: Services) -> Facts:
    """What is true now. On the loop's thread."""
    store, settings = services.store, services.settings
    tasks = store.tasks(limit=1_000_000)
    live = {task.name for task, _ in store.open_runs()}
    told = store.tasks_with_news()
    return Facts(
        now=services.now(),
        keep=settings.housekeeping,
        ended=store.ended_runs(),
        busy=frozenset(live | {task.name for task in tasks if task.task_id in told}),
        finished=[task for task in tasks if task.state.is_terminal],
        names=[task.name for task in tasks],
        repositories=frozenset(each.full_name.lower() for each in settings.all_repositories()),
    )


@dataclass(slots=True)
class Sweep:
    """One look at everything. Blocks. A thing that resists is logged, and the others go on."""

    services: Services
    paths: StatePaths
    facts: Facts
    is_stopped: bool = False  # nothing more is begun
    trash: Trash = field(init=False)

    def __post_init__(self) -> None:
        self.trash = Trash(self.paths.root / "trash")

    def all(self) -> None:
        for part in (self.trash.empty, self.runs, self.logs, self.worktrees, self.mirrors, self.quarantine):
            if not self.is_stopped:
                part()

    def runs(self) -> None:
        """Directories of ended runs: those too old, then the oldest until the rest is small enough."""
        before = _cutoff(self.facts.now, self.facts.keep.keep_runs_days)
        most = self.facts.keep.keep_runs_mb * 1_000_000
        left = []
        for run in self.facts.ended:
            path = Path(run.run_dir)
            if run.task in self.facts.busy or path.parent != self.paths.runs or not path.is_dir():
                continue
            if before is not None and run.finished_at < before:
                self._run(run, path)
            else:
                left.append((run, path, size_of(path)))
        total = sum(size for *_, size in left)
        for run, path, size in left:
            if not most or total <= most:
                return
            self._run(run, path)
            total -= size

    def _run(self, run: EndedRun, path: Path) -> None:
        if is_alive(path):  # whatever the store says: somebody works there
            return
        if not run.is_newest:
            self._remove(path, "run directory")
            return
        for entry in sorted(path.iterdir()):
            if entry.name not in RECORDS:
                self._remove(entry, "part of a run directory")

    def logs(self) -> None:
        """Logs of tasks and of calls: only files that we name so, wherever the folder is."""
        folder = self.services.loaded.log_dir
        before = _cutoff(self.facts.now, self.facts.keep.keep_logs_days)
        if before is None:
            return
        ours = [folder / f"{name}.jsonl" for name in self.facts.names if name not in self.facts.busy]
        for path in [*ours, *(folder / "api").glob("api-calls-????-??-??.jsonl")]:
            if _is_older(path, before) and path.is_file() and not path.is_symlink():
                size = size_of(path)
                path.unlink(missing_ok=True)
                _say("log", path, size)

    def worktrees(self) -> None:
        """Those of finished tasks from which nothing can be lost: clean, and the branch is on GitHub."""
        for task in self.facts.finished:
            tree = self.services.loaded.worktree_dir / task.name
            if (
                self.is_stopped
                or task.name in self.facts.busy
                or not tree.is_dir()
                or not self._has_mirror(task)
            ):
                continue
            try:
                workspace = find_workspace(self.services, task)
                size = size_of(tree)
                if workspace is not None and self.services.workspaces.release(workspace):
                    _say("worktree", tree, size)
            except (WorkspaceError, OSError) as error:
                log.warning("not removed", path=str(tree), error=str(error))

    def _has_mirror(self, task: Task) -> bool:
        """Whether asking for it makes none."""
        return (self.paths.repos / f"{task.repo}.git").is_dir()

    def mirrors(self) -> None:
        """Those of repositories that are no longer configured, with nothing of ours in them."""
        for path in sorted(self.paths.repos.glob("*/*.git")):
            name = f"{path.parent.name}/{path.name.removesuffix('.git')}".lower()
            if path.parent.name.startswith(".") or name in self.facts.repositories or holds_work(path):
                continue
            self._remove(path, "mirror")
            ours = path.with_name(f"{path.name}.ours")
            if os.path.lexists(ours):
                self._remove(ours, "mirror")

    def quarantine(self) -> None:
        """What is there and holds no work; the others are for a person."""
        before = _cutoff(self.facts.now, self.facts.keep.keep_quarantine_days)
        for path in unneeded(self.paths.quarantine) if before is not None else ():
            reason = path.with_name(f"{path.name}.reason.txt")
            if before is not None and _is_older(reason, before):
                self._remove(path, "quarantine")
                reason.unlink(missing_ok=True)

    def _remove(self, path: Path, what: str) -> None:
        if self.is_stopped:
            return
        try:
            _say(what, path, self.trash.take(path))
        except OSError as error:
            log.warning("not removed", path=str(path), error=error.strerror or str(error))


def holds_work(mirror: Path) -> bool:
    """Whether a bare repository has a branch of ours, set-aside work or a worktree. In doubt it has.

    Read without git: nothing that its configuration names is to be run.
    """
    try:
        if any((mirror / "worktrees").iterdir() if (mirror / "worktrees").exists() else ()):
            return True
        if any(_files(mirror / "refs" / kind) for kind in ("heads", "quarantine", "tags", "stash")):
            return True
        packed = mirror / "packed-refs"
        names = [line.split(" ")[-1] for line in packed.read_text().splitlines()] if packed.exists() else []
        return any(name.startswith("refs/") and not name.startswith("refs/remotes/") for name in names)
    except (OSError, ValueError):
        return True


def unneeded(quarantine: Path) -> Iterator[Path]:
    """The entries in which nothing is that anybody could miss: empty folders, and mirrors without work."""
    for path in sorted(quarantine.iterdir()) if quarantine.is_dir() else ():
        if path.is_symlink() or not path.is_dir():
            continue
        is_mirror = (path / "objects").is_dir() and (path / "refs").is_dir() and not (path / ".git").exists()
        if not any(path.iterdir()) or (is_mirror and not holds_work(path)):
            yield path


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if not path.is_dir()] if folder.exists() else []


def _cutoff(now: datetime, days: float) -> datetime | None:
    """None: kept for ever."""
    return now - timedelta(days=days) if days else None


def _is_older(path: Path, before: datetime) -> bool:
    try:
        return path.lstat().st_mtime < before.timestamp()
    except OSError:
        return False


def _say(what: str, path: Path, freed: int) -> None:
    log.info("removed", what=what, path=str(path), bytes=freed)
