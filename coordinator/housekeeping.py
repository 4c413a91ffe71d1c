"""What nobody needs any more: run directories, logs, worktrees, mirrors, quarantine and old lines of history.

A timer says that it is due, the loop begins it, a thread does it; without a daemon `coordinator housekeeping`
does. Removed is only what the store knows as ended, or what holds no work of anybody; in doubt a thing stays.
Each removal is told, and a dry look tells the same without removing.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from adw_modules.config.schema import HousekeepingSettings
from adw_modules.errors import StoreError, WorkspaceError
from adw_modules.tasks.model import Task
from coordinator.launcher import is_alive
from coordinator.logs import get_logger
from coordinator.preparing import find_workspace
from coordinator.services import Services
from coordinator.settings import LoadedSettings
from coordinator.shim import open_regular
from coordinator.store import EndedRun, StatePaths, Store
from coordinator.trash import Trash, size_of
from coordinator.workspaces import Workspace, Workspaces

log = get_logger()

FIRST_LOOK = timedelta(minutes=1)  # after the start, which has more urgent things to do
# Of a task's newest run: they tell an older copy of the database, once restored, that the run has been.
RECORDS = frozenset({"lock", "started", "exit", "summary.json", "revoked"})
MOST_EVENTS = 50_000  # lines of history in one go
REASON = ".reason.txt"  # beside each entry of quarantine
MOST_REASON = 200  # bytes of the first line


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """What went, or would go, and how much room it took. `problem`: why it is still there."""

    what: str
    path: str = ""
    size: int = 0  # bytes on the disk
    number: int = 1
    problem: str = ""


Tell = Callable[[Removal], None]


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
        if self._services.settings.housekeeping.enabled:
            self.ask()

    def ask(self) -> str:
        """Look now because an operator wants it, also where the timer is off; what to tell them."""
        if self._is_stopped:
            return "the daemon is ending; nothing is removed"
        if self._running is not None:
            return "it is being done already"
        self._running = asyncio.create_task(self._look())
        return "it is being done; `coordinator logs` shows each removal"

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
            services = self._services
            found = facts(services.store, services.loaded, services.now())
            self._sweep = sweep_of(services, self._paths, found)
            await services.in_thread(self._sweep.all)
            forget_events(services.store, found, tell=log_removal)
        except (StoreError, OSError) as error:
            log.warning("housekeeping is put off", error=str(error))
        except Exception:  # it is no reason to stop anything else
            log.exception("housekeeping is put off")
        finally:
            self._running = None
            self._arm(timedelta(hours=self._services.settings.housekeeping.interval_hours))


def facts(store: Store, loaded: LoadedSettings, now: datetime) -> Facts:
    """What is true now. On the thread that owns the store."""
    tasks = store.tasks(limit=1_000_000)
    live = {task.name for task, _ in store.open_runs()}
    told = store.tasks_with_news()
    return Facts(
        now=now,
        keep=loaded.settings.housekeeping,
        ended=store.ended_runs(),
        busy=frozenset(live | {task.name for task in tasks if task.task_id in told}),
        finished=[task for task in tasks if task.state.is_terminal],
        names=[task.name for task in tasks],
        repositories=frozenset(each.full_name.lower() for each in loaded.settings.all_repositories()),
    )


def forget_events(store: Store, found: Facts, *, tell: Tell, is_dry: bool = False) -> None:
    """Old lines of the history of finished tasks, a bounded number at a time."""
    before = _cutoff(found.now, found.keep.keep_events_days)
    if before is None:
        return
    do = store.count_old_events if is_dry else store.forget_events
    if number := do(before=before, most=MOST_EVENTS):
        tell(Removal(what="lines of history", number=number))


def log_removal(removal: Removal) -> None:
    """One line of the daemon's log."""
    if removal.problem:
        log.warning("not removed", path=removal.path, error=removal.problem)
    elif removal.path:
        log.info("removed", what=removal.what, path=removal.path, bytes=removal.size)
    else:
        log.info("removed", what=removal.what, number=removal.number, bytes=removal.size)


def sweep_of(services: Services, paths: StatePaths, found: Facts) -> Sweep:
    """The daemon's: it looks for worktrees as it does for runs."""
    return Sweep(
        loaded=services.loaded,
        paths=paths,
        facts=found,
        workspaces=services.workspaces,
        find=lambda task: find_workspace(services, task),
        tell=log_removal,
    )


@dataclass(slots=True, kw_only=True)
class Sweep:
    """One look at everything. Blocks. A thing that resists is told, and the others go on."""

    loaded: LoadedSettings
    paths: StatePaths
    facts: Facts
    workspaces: Workspaces
    find: Callable[[Task], Workspace | None]
    tell: Tell
    is_dry: bool = False  # only tell
    is_stopped: bool = False  # nothing more is begun
    trash: Trash = field(init=False)

    def __post_init__(self) -> None:
        self.trash = Trash(self.paths.root / "trash")

    def all(self) -> None:
        for part in (self._empty_trash, self.runs, self.logs, self.worktrees, self.mirrors, self.quarantine):
            if not self.is_stopped:
                part()

    def _empty_trash(self) -> None:
        if not self.is_dry:
            self.trash.empty()

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
        """Logs of tasks and of calls, too old ones and then the oldest until the rest is small enough.

        Only files that we name so, wherever the folder is.
        """
        folder = self.loaded.log_dir
        before = _cutoff(self.facts.now, self.facts.keep.keep_logs_days)
        most = self.facts.keep.keep_logs_mb * 1_000_000
        ours = [folder / f"{name}.jsonl" for name in self.facts.names if name not in self.facts.busy]
        calls = (folder / "api").glob("api-calls-????-??-??.jsonl")
        dated = [(at, path) for path in (*ours, *calls) if (at := _written_at(path)) is not None]
        sized = [(at, path, size_of(path)) for at, path in sorted(dated)]
        total = sum(size for *_, size in sized)
        for at, path, size in sized:
            is_old = before is not None and at < before.timestamp()
            if is_old or (most and total > most):
                self._remove_file(path, "log")
                total -= size

    def _remove_file(self, path: Path, what: str) -> None:
        size = size_of(path)
        try:
            if not self.is_dry:
                path.unlink(missing_ok=True)
        except OSError as error:
            self._resists(path, error)
        else:
            self.tell(Removal(what=what, path=str(path), size=size))

    def worktrees(self) -> None:
        """Those of finished tasks from which nothing can be lost: clean, and the branch is on GitHub."""
        for task in self.facts.finished:
            tree = self.loaded.worktree_dir / task.name
            if (
                self.is_stopped
                or task.name in self.facts.busy
                or not tree.is_dir()
                or not self._has_mirror(task)
            ):
                continue
            try:
                workspace, size = self.find(task), size_of(tree)
                if workspace is not None and self._release(workspace):
                    self.tell(Removal(what="worktree", path=str(tree), size=size))
            except (WorkspaceError, OSError) as error:
                self._resists(tree, error)

    def _release(self, workspace: Workspace) -> bool:
        if self.is_dry:
            return self.workspaces.is_releasable(workspace)
        return self.workspaces.release(workspace)

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
            reason = path.with_name(f"{path.name}{REASON}")
            if before is not None and _is_older(reason, before):
                self._remove(path, "quarantine")
                if not self.is_dry:
                    reason.unlink(missing_ok=True)

    def _remove(self, path: Path, what: str) -> None:
        if self.is_stopped:
            return
        try:
            size = size_of(path) if self.is_dry else self.trash.take(path)
            self.tell(Removal(what=what, path=str(path), size=size))
        except OSError as error:
            self._resists(path, error)

    def _resists(self, path: Path, error: Exception) -> None:
        problem = getattr(error, "strerror", None) or str(error)
        self.tell(Removal(what="", path=str(path), problem=problem))


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One entry of quarantine. `since` None: its name does not tell."""

    name: str
    path: Path
    since: datetime | None
    size: int  # bytes on the disk
    reason: str


def kept_in(quarantine: Path) -> list[Kept]:
    """What is in quarantine, the oldest first. Follows no link."""
    found = []
    for path in sorted(quarantine.iterdir()) if quarantine.is_dir() else ():
        if path.name.endswith(REASON):
            continue
        said = _first_line(path.with_name(f"{path.name}{REASON}")) or "nobody wrote down why"
        stamp = path.name.partition("-")[0]
        found.append(
            Kept(
                name=path.name,
                path=path,
                since=_stamped(stamp),
                size=size_of(path),
                reason=said,
            )
        )
    return found


def _first_line(path: Path) -> str:
    """Of a plain file, never through a link."""
    try:
        with os.fdopen(open_regular(str(path)), "rb") as file:
            return file.readline(MOST_REASON).decode(errors="replace").strip()
    except OSError:
        return ""


def _stamped(text: str) -> datetime | None:
    try:
        return datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None


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


def _written_at(path: Path) -> float | None:
    """When a file of ours was last written to; None for what is none."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_mtime if stat.S_ISREG(found.st_mode) else None
