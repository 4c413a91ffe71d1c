"""What a shim costs: its memory, and the way from a committed claim to the agent's first instruction.

The agent of the second is `date`, whose first deed is to read the clock. Claims come one at a time, and git is not
part of it. `alternatives()` is for the decision about the design and no row of the table: the same for shims that are
started cold, and the floor of a shell that only takes a lock, starts the agent and writes its exit code down.
"""

from __future__ import annotations

import asyncio
import dataclasses
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from adw_modules.tasks.model import TaskState
from bench import harness
from coordinator import shim
from coordinator.clock import utc_now
from coordinator.launcher import Launcher, LaunchSpec, WorkerHandle
from coordinator.services import Services
from coordinator.store import StateDir, Store

SHIMS = 20
CLAIMS = 60
STARTS = 40
AGENT = {"cwd": "/", "env": {"PATH": "/usr/bin:/bin"}, "prompt": ""}


# --- memory ------------------------------------------------------------------------------------------------


def pss_kib(pid: int) -> int:
    """Its share of memory: what it shares is divided among those who share it."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.search(r"^Pss:\s+(\d+)", text, re.MULTILINE)[1])  # type: ignore[index]


class ColdLauncher(Launcher):
    """Every shim an interpreter of its own, as without the fork server."""

    def _warm_server(self) -> None:
        return None


async def memory(kind: type[Launcher]) -> float:
    """Median PSS in MB of a shim among SHIMS whose agents sleep."""
    with harness.folder() as root:
        one = kind(root / "runs")
        specs = [
            LaunchSpec(task="gh-1", token=n, argv=("sleep", "600"), marker=f"bench-{n}", **AGENT)
            for n in range(SHIMS)
        ]
        handles = [await one.launch(spec) for spec in specs]
        await asyncio.sleep(2.5)  # two of their looks around: what a tick touches is copied by then
        found = statistics.median(pss_kib(handle.shim_pid) for handle in handles) / 1024
        await end(handles)
        await one.close()
        return found


async def end(handles: list[WorkerHandle]) -> None:
    for handle in handles:
        handle.stop("the measurement is over")
    await asyncio.gather(*(handle.wait() for handle in handles))


# --- from the claim to the agent's first instruction -------------------------------------------------------


class ClaimTimes:
    """The store, noting when each claim was committed."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.committed: dict[str, float] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def claim(self, *args: Any, **kwargs: Any) -> Any:
        claimed = self._store.claim(*args, **kwargs)
        if claimed is not None:
            self.committed[claimed[1].run_dir] = time.time()
        return claimed


class Timed(harness.Unpublished):
    """A daemon that notes its claims."""

    claims: ClaimTimes

    def _assemble(self, services: Services, state_dir: StateDir) -> None:
        self.claims = ClaimTimes(services.store)
        super()._assemble(dataclasses.replace(services, store=self.claims), state_dir)  # type: ignore[arg-type]


async def claim_to_exec() -> list[float]:
    """Milliseconds of each of CLAIMS runs, one after the other."""
    with harness.folder() as root:
        source = harness.source(root, workers=1, command='["date", "+%s.%N"]')
        source.current.state_dir.mkdir(mode=0o700)
        with Store.open(source.current.database_url, now=utc_now()) as store:
            for number in range(1, CLAIMS + 1):
                store.upsert_task(harness.request(number), name=f"gh-{number}", now=utc_now())
        harness.quiet_logs(source.current.log_dir)
        daemon = Timed(source, environ=harness.environ(), workspaces=harness.PlainFolders(root / "trees"))
        running = asyncio.create_task(daemon.run())
        await daemon.up.wait()
        while daemon.services.store.counts_by_state()[TaskState.SUCCEEDED] < CLAIMS:
            await asyncio.sleep(0.02)
        daemon.stop()
        await running
        return [
            (float((Path(run_dir) / "output.log").read_text()) - committed) * 1000
            for run_dir, committed in daemon.claims.committed.items()
        ][2:]  # the first ones load what is loaded on demand


# --- the alternatives that the decision names --------------------------------------------------------------

# As little as can be: no deadline, no stop, no silence, no tree, no durability, no record of the start.
SHELL_SHIM = (
    'cd "$1" && exec 9> lock && flock -n 9 && : > started && { date +%s.%N > output.log; echo $? > exit; }'
)


async def starts(launch: Callable[[int], Awaitable[str]]) -> float:
    """Median milliseconds from asking for a start to the agent's first instruction."""
    took = []
    for number in range(STARTS):
        began = time.time()
        said = await launch(number)
        took.append((float(said) - began) * 1000)
    return statistics.median(took[2:])


async def shell_start(root: Path, number: int) -> str:
    run_dir = root / f"gh-1.{number}"
    run_dir.mkdir()
    process = await asyncio.create_subprocess_exec("setsid", "sh", "-c", SHELL_SHIM, "shim", str(run_dir))
    await process.wait()
    return (run_dir / "output.log").read_text()


async def shim_start(one: Launcher, number: int) -> str:
    spec = LaunchSpec(task="gh-1", token=number, argv=("date", "+%s.%N"), marker=f"bench-{number}", **AGENT)
    handle = await one.launch(spec)
    await handle.wait()
    return handle.output_path.read_text()


async def alternatives() -> dict[str, float]:
    figures = {}
    for name, kind in (("forked", Launcher), ("cold", ColdLauncher)):
        with harness.folder() as root:
            one = kind(root / "runs")
            await one.start()
            figures[f"{name}_start_ms"] = await starts(lambda number, one=one: shim_start(one, number))  # type: ignore[misc]
            await one.close()
        figures[f"{name}_pss_mb"] = await memory(kind)
    with harness.folder() as root:
        figures["shell_start_ms"] = await starts(lambda number: shell_start(root, number))
    figures["shell_pss_mb"] = shell_memory()
    figures["bare_python_ms"] = bare_python()
    return figures


def shell_memory() -> float:
    """Of a shell that waits for its agent, in MB; the agent is not counted."""
    sleep = shutil.which("sleep")
    shells = [
        subprocess.Popen(["sh", "-c", f"{sleep} 600; true"], start_new_session=True) for _ in range(SHIMS)
    ]
    time.sleep(0.5)
    found = statistics.median(pss_kib(shell.pid) for shell in shells) / 1024
    for shell in shells:
        for process in shim.family({shell.pid}, {shell.pid}, "", shim.process_table()):
            shim.signal_exact(process.pid, process.start, 9)
        shell.kill()
        shell.wait()
    return found


def bare_python() -> float:
    """Median milliseconds of `python -I -S -c pass`: nothing cold can be faster."""
    took = []
    for _ in range(STARTS):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-I", "-S", "-c", "pass"], check=True)
        took.append((time.perf_counter() - began) * 1000)
    return statistics.median(took)


def measure() -> dict[str, float]:
    times = asyncio.run(claim_to_exec())
    return {
        "shim_pss_mb": asyncio.run(memory(Launcher)),
        "claim_to_exec_ms_median": statistics.median(times),
        "claim_to_exec_ms_p95": sorted(times)[int(len(times) * 0.95)],
    }


if __name__ == "__main__":
    print(measure())
    print(asyncio.run(alternatives()))
