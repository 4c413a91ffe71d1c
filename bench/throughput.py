"""Runs per second with an agent that does nothing: all bookkeeping and the shim, no git, no GitHub."""

from __future__ import annotations

import asyncio
import statistics
import time

from adw_modules.tasks.model import TaskState
from bench import harness
from coordinator.clock import utc_now
from coordinator.store import Store

RUNS = 200
CONCURRENCY = 8
ROUNDS = 5


async def one_round() -> float:
    """Runs per second of the daemon over RUNS queued tasks."""
    with harness.folder() as root:
        source = harness.source(root, workers=CONCURRENCY, command='["true"]')
        source.current.state_dir.mkdir(mode=0o700)
        with Store.open(source.current.database_url, now=utc_now()) as store:
            for number in range(1, RUNS + 1):
                store.upsert_task(harness.request(number), name=f"gh-{number}", now=utc_now())
        harness.quiet_logs(source.current.log_dir)
        daemon = harness.Unpublished(
            source, environ=harness.environ(), workspaces=harness.PlainFolders(root / "trees")
        )
        daemon.expected = RUNS
        began = time.perf_counter()
        running = asyncio.create_task(daemon.run())
        await daemon.up.wait()
        await daemon.ended.wait()
        took = time.perf_counter() - began
        assert daemon.services.store.counts_by_state()[TaskState.SUCCEEDED] == RUNS
        daemon.stop()
        await running
    return RUNS / took


def measure() -> dict[str, float]:
    """Interleaved rounds of floor and daemon; medians, and the ratio of adjacent rounds."""
    floors, rates, ratios = [], [], []
    for _ in range(ROUNDS):
        floors.append(asyncio.run(harness.floor(600, CONCURRENCY)))
        rates.append(asyncio.run(one_round()))
        ratios.append(rates[-1] / floors[-1])
    return {
        "floor_per_second": statistics.median(floors),
        "runs_per_second": statistics.median(rates),
        "ratio": statistics.median(ratios),
    }


if __name__ == "__main__":
    print(measure())
