"""What it takes to decide 10,000 recorded tasks again with another configuration of 100 rules.

Measured are the whole command, `coordinator route replay --json`, and the deciding alone. The floor reads the same
rows with sqlite3 and parses each trace. Every trace is a real one, of a decision among 100 other rules.
"""

from __future__ import annotations

import json
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from adw_modules.config import parse_settings
from adw_modules.routing import ModelRouter, RoutingDecision
from adw_modules.routing.replay import replay
from bench import harness
from bench.claim import Decision, end
from coordinator.clock import utc_now
from coordinator.store import Store
from coordinator.store.types import JsonText

TASKS, RULES = 10_000, 100
ROUNDS = 3
LABELS = ("bug", "docs", "test", "ui", "api")
FILL_TASKS = """
WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i <= {count})
INSERT INTO {table} ({columns}) SELECT {values} FROM {table}, n WHERE {table}.{key} = 1
"""


def rules(model: str) -> str:
    """RULES rules of several kinds, of which each task matches a few; every seventh leads to `model`."""
    lines = ["[routing]", "enabled = true", 'default_model = "base"']
    for number in range(RULES):
        asked = (
            f'labels contains "{LABELS[number % 5]}" and title_length == {number}',
            f"priority <= {number % 4} and body_length > {number * 90}",
            f'author == "user-{number}"',
        )[number % 3]
        target = model if number % 7 == 0 else f"model-{number % 10}"
        lines += ["[[routing.rules]]", f"condition = '{asked}'", f'model = "{target}"']
    return "\n".join(lines)


def attributes(number: int) -> dict[str, Any]:
    return {
        "priority": ("critical", "high", "normal", "low")[number % 4],
        "labels": [LABELS[number % 5], "rpi-auto"],
        "retry_count": number % 3,
        "hour": number % 24,
        "weekday": "mon",
        "repo": "acme/widgets",
        "author": f"user-{number % 150}",
        "title": f"Task {number}",
        "title_length": number % 120,
        "body_length": number % 9000,
        "created_age_hours": number / 100,
        "failure_class": None,
        "last_provider": None,
        "last_model": None,
        "task": {"id": f"gh-{number}", "number": number, "repo": "acme/widgets", "repo_id": 7, "runs": 0},
    }


def decisions() -> Iterator[RoutingDecision]:
    router = ModelRouter(parse_settings(rules("old"), source="bench"))
    for number in range(1, TASKS + 1):
        yield router.choose(attributes(number))


def filled(path: Path) -> Store:
    """A store with TASKS tasks of one ended run each, within the last week."""
    store = Store.open(path, now=utc_now())
    task = store.upsert_task(harness.request(1), name="gh-1", now=utc_now()).task
    claimed = store.claim(
        task.task_id,
        decision=Decision(),
        config_version="bench",
        run_dir_of=lambda task, token: f"/nowhere/{task.name}.{token}",
        now=utc_now() - timedelta(days=7),
    )
    assert claimed is not None
    end(store, claimed[1])
    special = {
        "tasks": {"task_id": "i", "issue_number": "i", "name": "'gh-' || i"},
        "runs": {"run_id": "i", "task_id": "i", "cost_usd": "printf('0.%04d', i * 7919 % 10000)"},
    }
    with store._database.write() as conn:  # there is no bulk call, because the product has no use for one
        dialect = conn.dialect
        conn.exec_driver_sql("DELETE FROM routing_decisions")
        for table, key in (("tasks", "task_id"), ("runs", "run_id")):
            columns = [row[1] for row in conn.exec_driver_sql(f"PRAGMA table_info({table})")]
            values = ", ".join(special[table].get(name, f"{table}.{name}") for name in columns)
            names = ", ".join(columns)
            conn.exec_driver_sql(
                FILL_TASKS.format(table=table, key=key, count=TASKS - 1, columns=names, values=values)
            )
        for run_id, each in enumerate(decisions(), start=1):
            conn.exec_driver_sql(
                "UPDATE runs SET provider = ?, model = ?, rule = ? WHERE run_id = ?",
                (each.provider, each.model, each.rule, run_id),
            )
            conn.exec_driver_sql(
                "INSERT INTO routing_decisions VALUES (?, ?, ?)",
                (run_id, each.reason, JsonText().process_bind_param(each.stored().trace, dialect)),
            )
    return store


def floor(path: Path) -> float:
    began = time.perf_counter()
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT trace FROM routing_decisions").fetchall()
    connection.close()
    assert sum("attrs" in json.loads(trace) for (trace,) in rows) == TASKS
    return time.perf_counter() - began


def command(config: Path, tried: Path) -> float:
    began = time.perf_counter()
    done = subprocess.run(
        [
            *(sys.executable, "-m", "coordinator", "route", "replay", "--json"),
            *("--config", str(tried), "--recorded-by", str(config)),
        ],
        capture_output=True,
        check=True,
    )
    took = time.perf_counter() - began
    found = json.loads(done.stdout)
    assert (found["decisions"], found["not_replayable"]) == (TASKS, 0)
    assert found["changed"] > TASKS / 100
    return took


def deciding(store: Store) -> float:
    router = ModelRouter(parse_settings(rules("new"), source="bench"))
    recorded, history = store.decided(), store.history()
    began = time.perf_counter()
    assert replay(router, recorded, history, why_not=lambda _: None).decisions == TASKS
    return time.perf_counter() - began


def measure() -> dict[str, float]:
    with harness.folder() as root:
        loaded = harness.source(root, command='["true"]').current
        path = loaded.state_dir / "coordinator.db"
        path.parent.mkdir(parents=True, exist_ok=True)
        tried = root / "new.toml"
        tried.write_text(rules("new"))
        config = root / "adws" / "config.toml"
        with filled(path) as store:
            rounds = [(floor(path), command(config, tried), deciding(store)) for _ in range(ROUNDS)]
    bare, whole, decided = (statistics.median(column) for column in zip(*rounds, strict=True))
    return {
        "replay_command_seconds": whole,
        "replay_decisions_per_second": TASKS / decided,
        "replay_ratio": whole / bare,
    }


if __name__ == "__main__":
    print(measure())
