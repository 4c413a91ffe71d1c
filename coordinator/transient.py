"""The launcher with systemd: every run's shim is a service unit of its own, with its own limits.

Only the way to the shim differs from the plain launcher: systemd is asked to start it, and it reports
through a named pipe in its run directory. Must not: end a unit whose shim lives (the shim ends its agent).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from coordinator import shim
from coordinator.launcher import START_PATIENCE, LaunchSpec, RunLauncher
from coordinator.logs import get_logger
from coordinator.systemd.units import Manager, unit_of

log = get_logger()

_SHIM = str(Path(shim.__file__).resolve())
_STOP_MARGIN = 15.0  # seconds beyond both graces: to kill the tree, and to write `exit`


class UnitLauncher(RunLauncher):
    """Transient service units of the system manager (for root), or of the daemon's own user's."""

    def __init__(
        self,
        runs_dir: Path,
        *,
        manager: Manager | None = None,
        python: str = sys.executable,
        patience: float = START_PATIENCE,
    ) -> None:
        super().__init__(runs_dir, patience=patience)
        self._manager = manager or Manager.of_this_process()
        self._python = python
        self._has_warned = False

    async def start(self) -> None:
        """Raises ConfigError if the manager cannot be reached."""
        await asyncio.to_thread(self._manager.check)

    async def close(self) -> None:
        """Nothing is held between two starts."""

    def _unit(self, run_dir: Path) -> str:
        return unit_of(run_dir)

    async def _start_shim(self, run_dir: Path, spec: LaunchSpec) -> dict[str, Any]:
        self._warn_of(spec)
        try:
            report = _Report(run_dir)
        except OSError as error:
            return {"refused": f"cannot make a pipe for the shim's report: {error}"}
        try:
            refusal = await self._ask_manager(run_dir, spec)
            return {"refused": refusal} if refusal else await report.read()
        finally:
            report.close()

    async def _ask_manager(self, run_dir: Path, spec: LaunchSpec) -> str | None:
        """Why the unit was not started; None: the shim has been executed."""
        command = self._manager.start_command(
            unit_of(run_dir),
            # The manager's locale is not the daemon's; paths and environments are UTF-8 for both.
            [self._python, "-I", "-S", "-X", "utf8", _SHIM, "--foreground", str(run_dir)],
            limits=spec.limits,
            stop_seconds=2 * spec.grace.total_seconds() + _STOP_MARGIN,
            umask=_umask(),
        )
        with tempfile.TemporaryFile() as said:  # not a pipe: whoever inherits it could hold us up
            try:
                process = await asyncio.create_subprocess_exec(
                    *command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=said,
                    env=self._manager.environment,
                    start_new_session=True,
                )
            except OSError as error:
                return f"cannot execute systemd-run: {error}"
            try:
                await process.wait()
            finally:
                if process.returncode is None:  # it hangs, and we have waited long enough
                    process.kill()
                    await process.wait()
            if process.returncode == 0:
                return None
            said.seek(0)
            words = said.read().decode(errors="replace").strip().splitlines() or ["no reason given"]
        return f"systemd-run exited with {process.returncode}: {words[0]}"

    def _warn_of(self, spec: LaunchSpec) -> None:
        missing = self._manager.missing_controllers() if spec.limits and not self._has_warned else []
        if missing:
            self._has_warned = True
            log.warning("limits are not enforced", manager=self._manager.name, missing=missing)


class _Report:
    """The shim's one message on its start. The pipe is gone once it is read: later it says nothing true."""

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / "report"
        os.mkfifo(self._path, 0o600)
        self._fd = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    async def read(self) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        loop.add_reader(self._fd, _settle, ready)
        try:
            await ready  # readable, or everybody who had it open for writing is gone
        finally:
            loop.remove_reader(self._fd)
        try:
            return dict(json.loads(os.read(self._fd, 65536)))
        except (OSError, ValueError):
            return {"refused": "the shim ended without an answer"}

    def close(self) -> None:
        os.close(self._fd)
        with contextlib.suppress(OSError):
            self._path.unlink()


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _umask() -> int:
    """Ours, as the agent of a plain shim would have it; asking by `os.umask` would change it for a moment."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    return 0o022
