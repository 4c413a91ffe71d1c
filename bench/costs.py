"""What a report over 100,000 usages takes, beside a bare SELECT of the same rows.

The floor reads, with nothing but sqlite3, the columns that a report needs of every usage and its run. The report
is by day and model, in a zone with summer time; the whole command is also timed, from its start to its end.
"""

from __future__ import annotations

import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from adw_modules.money.reports import Grouping, Report, period_of
from bench import harness
from bench.claim import Decision, end
from coordinator.clock import utc_now
from coordinator.store import Store

RUNS, MODELS = 50_000, 2  # 100,000 usages
ROUNDS = 5
ZONE = "Europe/Vienna"
FLOOR = """
SELECT runs.finished_at, runs.outcome, runs.price_source, runs.cost_usd, usage.model, usage.input,
    usage.cache_read, usage.cache_write_5m, usage.cache_write_1h, usage.output, usage.reasoning, usage.cost_usd
FROM runs JOIN usage ON usage.run_id = runs.run_id
"""
FILL_RUNS = """
WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < {runs})
INSERT INTO runs ({columns}) SELECT {values} FROM runs, n WHERE runs.run_id = 1
"""
FILL_USAGE = """
WITH RECURSIVE m(k) AS (SELECT 1 UNION ALL SELECT k + 1 FROM m WHERE k < {models})
INSERT INTO usage SELECT run_id, 'vendor/model-' || ((run_id + k) % 7), 1000 + run_id % 977, 40000, 300, 20,
    900 + k, 100, printf('0.%09d', run_id * 7919 % 1000000000), 'config', 'abc' FROM runs, m
"""


def filled(path: Path) -> Store:
    """A store with RUNS ended runs over a year, each with MODELS usages."""
    store = Store.open(path, now=utc_now())
    task = store.upsert_task(harness.request(1), name="gh-1", now=utc_now()).task
    claimed = store.claim(
        task.task_id,
        decision=Decision(),
        config_version="bench",
        run_dir_of=lambda task, token: f"/nowhere/{task.name}.{token}",
        now=utc_now(),
    )
    assert claimed is not None
    end(store, claimed[1])
    special = {
        "run_id": "i",
        "token": "i",
        "price_source": "'config'",
        "rule": "'rule-' || (i % 5)",
        "finished_at": "strftime('%Y-%m-%d %H:%M:%S.000000', '2026-01-01', '+' || (i * 613) || ' seconds')",
        "cost_usd": "printf('0.%09d', i * 7919 % 1000000000)",
    }
    with store._database.write() as conn:  # there is no bulk call, because the product has no use for one
        columns = [row[1] for row in conn.exec_driver_sql("PRAGMA table_info(runs)")]
        values = ", ".join(special.get(name, f"runs.{name}") for name in columns)
        conn.exec_driver_sql(FILL_RUNS.format(runs=RUNS, columns=", ".join(columns), values=values))
        conn.exec_driver_sql(FILL_USAGE.format(models=MODELS))
    return store


def report(store: Store) -> Report:
    return store.costs((Grouping.DAY, Grouping.MODEL), period_of(None, None, ZONE))


def floor(path: Path) -> int:
    connection = sqlite3.connect(path)
    rows = connection.execute(FLOOR).fetchall()
    connection.close()
    return len(rows)


def command(config: Path) -> None:
    """`coordinator costs`, the whole program."""
    subprocess.run(
        [sys.executable, "-m", "coordinator", "costs", "--timezone", ZONE, "--json", "-c", str(config)],
        stdout=subprocess.DEVNULL,
        check=True,
    )


def seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def measure() -> dict[str, float]:
    with harness.folder() as root:
        config = harness.source(root, command='["true"]').current
        path = config.state_dir / "coordinator.db"
        path.parent.mkdir(parents=True, exist_ok=True)
        with filled(path) as store:
            found = report(store)
            assert (found.total.runs, floor(path)) == (RUNS, RUNS * MODELS)
            times = [
                (
                    seconds(lambda: floor(path)),
                    seconds(lambda: report(store)),
                    seconds(lambda: command(root / "adws" / "config.toml")),
                )
                for _ in range(ROUNDS)
            ]
    bare, reported, whole = (statistics.median(column) for column in zip(*times, strict=True))
    return {
        "cost_report_seconds": reported,
        "cost_report_ratio": reported / bare,
        "cost_command_seconds": whole,
    }


if __name__ == "__main__":
    print(measure())
