"""Runs that live without an owner: found by their locks, ended on request.

A run has an owner while a daemon holds the state directory and the store knows the run as live. Reads and
stops; starts nothing, settles nothing: that is the next daemon's.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from adw_modules.errors import SpawnError, StoreError
from adw_modules.tasks.model import Outcome, Run
from coordinator import shim
from coordinator.launcher import Alive, classify, is_alive
from coordinator.store import StatePaths, Store

LOOK_SECONDS = 0.05


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
