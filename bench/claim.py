"""What a claim costs with few and with many stored tasks."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adw_modules.tasks.model import TaskState
from bench import harness
from coordinator.clock import utc_now
from coordinator.store import Store

FEW, MANY = 100, 100_000
CLAIMS = 150


@dataclass(frozen=True)
class Decision:
    provider: str = "agent"
    model: str = "none"
    rule: str | None = None
    reason: str = "routing is disabled"
    trace: Any = ()


def filled(path: Path, finished: int) -> Store:
    """A store with `finished` ended tasks and CLAIMS queued ones."""
    store = Store.open(path, now=utc_now())
    finish_in_bulk(store, finished)
    for number in range(finished + 1, finished + CLAIMS + 1):
        store.upsert_task(harness.request(number), name=f"gh-{number}", now=utc_now())
    return store


def finish_in_bulk(store: Store, count: int) -> None:
    """Make `count` succeeded tasks: one through the store, the others as copies of its row."""
    made = store.upsert_task(harness.request(1), name="gh-1", now=utc_now()).task
    moved = store.transition(
        made.task_id,
        expected=TaskState.QUEUED,
        state=TaskState.SUCCEEDED,
        cause=None,
        wake_at=None,
        now=utc_now(),
    )
    assert moved
    with store._database.write() as conn:  # there is no bulk call, because the product has no use for one
        columns = [row[1] for row in conn.exec_driver_sql("PRAGMA table_info(tasks)") if row[1] != "task_id"]
        wanted = ", ".join(columns)
        values = ", ".join({"issue_number": "n", "name": "'gh-' || n"}.get(name, name) for name in columns)
        conn.exec_driver_sql(
            f"WITH RECURSIVE counter(n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM counter WHERE n < {count}) "
            f"INSERT INTO tasks ({wanted}) SELECT {values} FROM tasks, counter "
            f"WHERE tasks.task_id = {made.task_id}"
        )


def latency(store: Store) -> float:
    """Median seconds of snapshot plus claim, as the loop does them."""
    times = []
    for _ in range(CLAIMS):
        began = time.perf_counter()
        snapshot = store.snapshot(now=utc_now(), ready_limit=1, config_version="bench")
        claimed = store.claim(
            snapshot.ready[0].task_id,
            decision=Decision(),
            config_version="bench",
            run_dir_of=lambda task, token: f"/nowhere/{task.name}.{token}",
            now=utc_now(),
        )
        times.append(time.perf_counter() - began)
        assert claimed is not None
        end(store, claimed[1])
    return statistics.median(times)


def end(store: Store, run: Any) -> None:
    """Settle the claimed run, so that live runs do not pile up in the snapshot."""
    from adw_modules.tasks.model import Cost, Outcome, RunOutcome, Usage, UsageSource
    from coordinator.store import Settlement

    store.finish(
        run,
        outcome=RunOutcome(outcome=Outcome.SUCCEEDED, detail=""),
        usage=Usage(source=UsageSource.UNKNOWN),
        cost=Cost(usd=None, priced_by="unknown"),
        now=utc_now(),
        settlement=Settlement(state=TaskState.SUCCEEDED, cause=None, wake_at=None, attempts=1),
    )


def measure() -> dict[str, float]:
    with (
        harness.folder() as root,
        filled(root / "few.db", FEW) as few,
        filled(root / "many.db", MANY) as many,
    ):
        small, large = latency(few), latency(many)
    return {"few_ms": small * 1000, "many_ms": large * 1000, "ratio": large / small}


if __name__ == "__main__":
    print(measure())
