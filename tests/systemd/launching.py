"""A daemon reduced to its launcher, for the tests of transient units: one command, one launcher, one answer.

Started inside the booted systemd as `launching.py RUNS VERB TOKEN [SPEC]`. `hold` starts a run and then lives
until it is killed; every other verb ends at once, as a daemon does that is stopped.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from adw_modules.errors import CoordinatorError
from coordinator.launcher import Alive, Exited, LaunchSpec, WorkerHandle
from coordinator.systemd.units import Limits
from coordinator.transient import UnitLauncher

NAME = "gh-1"


def say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer, default=str), flush=True)


async def launch(one: UnitLauncher, token: int, spec: dict[str, Any]) -> None:
    limits = Limits(**spec.pop("limits", {}))
    plain = {
        "argv": ("true",),
        "cwd": "/",
        "env": {"PATH": "/usr/bin:/bin"},
        "marker": f"m{token}",
        "prompt": "",
    }
    handle = await one.launch(LaunchSpec(task=NAME, token=token, limits=limits, **{**plain, **spec}))
    say({"shim_pid": handle.shim_pid, "child_pid": handle.child_pid, "run_dir": handle.run_dir})


async def adopt(one: UnitLauncher, token: int, *, stop: str | None = None, wait: bool = False) -> None:
    state = one.adopt(one.run_dir(NAME, token))
    answer: dict[str, Any] = {"state": type(state).__name__}
    if isinstance(state, Alive):
        if stop is not None:
            state.handle.stop(stop)
        if stop is not None or wait:
            answer |= await end_of(state.handle)
    elif isinstance(state, Exited):
        answer |= asdict(state.record)
    say(answer)


async def end_of(handle: WorkerHandle) -> dict[str, Any]:
    record = await handle.wait()
    return asdict(record) if record else {"lost": True}


async def main(runs: str, verb: str, token: str, spec: str = "{}") -> None:
    one = UnitLauncher(Path(runs))
    await one.start()
    match verb:
        case "launch":
            await launch(one, int(token), json.loads(spec))
        case "hold":
            await launch(one, int(token), json.loads(spec))
            await asyncio.Event().wait()
        case "adopt":
            await adopt(one, int(token))
        case "wait":
            await adopt(one, int(token), wait=True)
        case "stop":
            await adopt(one, int(token), stop="the label was removed")
    await one.close()


if __name__ == "__main__":
    try:
        asyncio.run(main(*sys.argv[1:]))
    except CoordinatorError as error:
        say({"error": f"{type(error).__name__}: {error}"})
