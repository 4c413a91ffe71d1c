"""Runs that live without an owner: found by their locks, ended on request. And runs newer than the store.

A run has an owner while a daemon holds the state directory and the store knows the run as live. Reads and
stops; starts nothing, settles nothing: that is the next daemon's.

A claim is durable before its run directory is made, so a directory with a token that the store has not given
out says that an older copy of the database was put back, or that it was lost.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from adw_modules.errors import SpawnError, StoreError
from adw_modules.tasks.model import Outcome, Run
from coordinator import shim
from coordinator.launcher import Alive, classify, is_alive
from coordinator.store import StatePaths, Store

LOOK_SECONDS = 0.05
LONGEST_GAP = 16  # deleted run directories of one task in a row; an issue has 15 runs unless told otherwise


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveRunDir:
    """A run directory whose shim is alive. `run_id` is None when the store has no live run there."""

    path: Path
    task: str
    run_id: int | None
    started_at: datetime | None
    deadline_at: datetime | None  # when the shim ends it by itself

    def __str__(self) -> str:
        since = f", since {self.started_at:%Y-%m-%d %H:%M} UTC" if self.started_at else ""
        until = f", until {self.deadline_at:%Y-%m-%d %H:%M} UTC at the latest" if self.deadline_at else ""
        return f"{self.task} (in {self.path}{since}{until})"


def live_run_dirs(paths: StatePaths, open_runs: Collection[Run]) -> list[LiveRunDir]:
    """Every run directory that a live shim holds, with the store's live run of that directory."""
    known = {Path(run.run_dir): run.run_id for run in open_runs}
    try:
        found = sorted(path for path in paths.runs.iterdir() if (path / "lock").is_file())
    except OSError:
        return []
    return [_described(path, known.get(path)) for path in found if is_alive(path)]


def without_owner(
    paths: StatePaths, open_runs: Collection[Run], *, is_held: bool | None = None
) -> list[LiveRunDir]:
    """Those that nobody follows: all of them while no daemon runs, else those the store does not know.

    `is_held`: whether a daemon holds the state directory, for a caller that knows (it may be the holder).
    """
    is_held = paths.is_held() if is_held is None else is_held
    return [live for live in live_run_dirs(paths, open_runs) if not is_held or live.run_id is None]


def end(
    lives: Collection[LiveRunDir], store: Store, *, reason: str, now: datetime, patience: float
) -> list[LiveRunDir]:
    """Stop these runs and wait for at most `patience` seconds; returns those that still live.

    The request is in the store first, so the next daemon settles them as interrupted: not an attempt.
    """
    for live in lives:
        if live.run_id is not None:
            store.request_stop(live.run_id, reason=reason, outcome=Outcome.INTERRUPTED, now=now)
        try:
            state = classify(live.path)
            if isinstance(state, Alive):
                state.handle.stop(reason)
        except SpawnError as error:
            raise StoreError(str(error)) from error
    until = time.monotonic() + patience
    left = list(lives)
    while left and time.monotonic() < until:
        left = [live for live in left if is_alive(live.path)]
        time.sleep(LOOK_SECONDS if left else 0)
    return left


def newer_runs(runs_dir: Path, tokens: Mapping[str, int]) -> list[Path]:
    """The run directories of runs that the store has not started; `tokens`: its highest of each task name."""
    known: dict[str, int] = {}
    for name, token in tokens.items():
        folder = _folder(name)
        known[folder] = max(token, known.get(folder, 0))
    try:
        found = sorted(runs_dir.iterdir())
    except OSError:
        return []
    return [path for path in found if _token(path) > known.get(path.name.rpartition(".")[0], 0)]


def newest_token(run_dir_of: Callable[[int], Path], token: int) -> int:
    """The highest token of a task that has a run directory; `token`, the store's, where none is newer.

    Looks a little beyond a gap, as directories may be deleted, and not at all of them: this is asked at each
    start of a run.
    """
    found, folder = token, str(run_dir_of(token)).rpartition(".")[0]
    while newer := [
        at for at in range(found + 1, found + 1 + LONGEST_GAP) if os.path.lexists(f"{folder}.{at}")
    ]:
        found = newer[-1]
    return found


def end_newer(paths: StatePaths, store: Store, now: datetime) -> list[LiveRunDir]:
    """Ask the live ones among the runs newer than the store to end; returns them, still ending.

    Nobody could settle them, and the store may be about to start the same tasks again.
    """
    newer = [path for path in newer_runs(paths.runs, store.tokens()) if is_alive(path)]
    lives = [_described(path, None) for path in newer]
    end(lives, store, reason="the store does not know this run", now=now, patience=0)
    return lives


def _folder(task_name: str) -> str:
    return task_name.replace("/", "_")


def _token(path: Path) -> int:
    number = path.name.rpartition(".")[2]
    return int(number) if number.isdecimal() else 0


def _described(path: Path, run_id: int | None) -> LiveRunDir:
    spec, started = shim.read_json(str(path / "spec.json")) or {}, shim.read_json(str(path / "started")) or {}
    return LiveRunDir(
        path=path,
        task=str(spec.get("task", path.name.rpartition(".")[0])),
        run_id=run_id,
        started_at=_time(started.get("at")),
        deadline_at=_time(spec.get("deadline_at")),
    )


def _time(seconds: object) -> datetime | None:
    try:
        return datetime.fromtimestamp(float(str(seconds)), UTC)
    except (ValueError, OverflowError, OSError):
        return None
