"""The tool that runs a command of the model: its own session, a time limit, the end of its output kept.

Owns what a command is given and what of its output the model sees. A command ends with everything it
started: nothing stays behind in the background.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from coordinator.openrouter_agent import landlock
from coordinator.openrouter_agent.confined import ToolError, Workspace

SECONDS = 120.0
MOST_SECONDS = 600.0  # below the silence after which the daemon takes a run for hanging
HEAD_BYTES = 12_000
TAIL_BYTES = 12_000
COMMAND_BYTES = 100_000  # the kernel takes no argument over 128 KiB
_KILLING_SECONDS = 3.0  # until everything a command started is dead
_AFTER_EXIT_SECONDS = 0.3  # for what is still in the pipe when something it started holds it open

_SECRET = re.compile(
    r"(^|_)((API|ACCESS|PRIVATE)?KEY|TOKEN|SECRET|PASS(WORD|WD|PHRASE)?|CREDENTIAL|PAT)S?(_|$)"
    r"|(APIKEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL)S?$",
    re.IGNORECASE,
)
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")


class Commands:
    """Runs commands in a workspace. `writable`: further directories they may write to; "/" is everywhere."""

    def __init__(
        self, workspace: Workspace, environ: Mapping[str, str], writable: tuple[Path, ...] = ()
    ) -> None:
        self._workspace = workspace
        self._temporary = _temporary_directory(environ)
        self._writable = None if Path("/") in writable else [str(path.absolute()) for path in writable]
        self._environ = command_environment(environ, self._temporary)

    @property
    def is_confined(self) -> bool:
        """Whether this kernel keeps commands from writing elsewhere."""
        return self._writable is not None and landlock.version() > 0

    def close(self) -> None:
        shutil.rmtree(self._temporary, ignore_errors=True)

    async def run(self, command: str, *, seconds: float = SECONDS) -> str:
        """Run it with /bin/sh. The text has the exit code and what it printed, without the middle."""
        size = len(command.encode("utf-8", "replace"))
        if not command.strip() or "\0" in command or size > COMMAND_BYTES:
            raise ToolError(f"the command is empty, holds a NUL or is over {COMMAND_BYTES} bytes.")
        if _HALF_CHARACTER.search(command):
            raise ToolError("the command holds half a character.")
        # A pipe of our own: asyncio tells the end of a process only when nobody holds its pipe any more.
        ours, theirs = os.pipe()
        output = _Output(ours)
        try:
            process = await self._start(command, theirs)
        except BaseException:
            output.close()
            raise
        finally:
            os.close(theirs)
        try:
            return await _ended(process, output, min(max(seconds, 1.0), MOST_SECONDS))
        finally:
            try:
                await _end(process)
            finally:
                output.close()

    async def _start(self, command: str, output: int) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *self._arguments(command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=self._workspace.root,
            env=self._environ,
            start_new_session=True,
        )

    def _arguments(self, command: str) -> list[str]:
        own = [str(self._workspace.root), self._temporary, "/dev/shm"]  # noqa: S108  memory that programs share
        write = None if self._writable is None else [*own, *self._writable]
        spec = json.dumps({"argv": ["/bin/sh", "-c", command], "write": write})
        return [sys.executable, "-I", "-S", landlock.__file__, spec]


async def _ended(process: asyncio.subprocess.Process, output: _Output, seconds: float) -> str:
    try:
        async with asyncio.timeout(seconds):
            code = await process.wait()
    except TimeoutError:
        raise ToolError(f"the command was killed after {seconds:.0f} s.\n{output.text()}") from None
    await output.wait(_AFTER_EXIT_SECONDS)
    how = f"exit code {code}" if code >= 0 else f"killed by {_signal_name(-code)}"
    return f"[{how}]\n{output.text()}"


def _temporary_directory(environ: Mapping[str, str]) -> str:
    """As `tempfile` makes one, which would load half a dozen modules at every start."""
    path = f"{environ.get('TMPDIR', '/tmp')}/openrouter-agent-{os.getpid()}-{os.urandom(6).hex()}"  # noqa: S108
    os.mkdir(path, 0o700)  # noqa: PTH102
    return path


def _signal_name(number: int) -> str:
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"


async def _end(process: asyncio.subprocess.Process) -> None:
    """Have `landlock.py` kill the command with everything it started; if that hangs, kill it itself."""
    try:
        if process.returncode is None:
            process.terminate()
        async with asyncio.timeout(_KILLING_SECONDS):
            await process.wait()
    except TimeoutError:
        pass
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


class _Output:
    """The first and the last bytes of a pipe that may bring any number of them."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self._head = bytearray()
        self._tail = bytearray()
        self._dropped = 0
        self._ended = asyncio.Event()
        os.set_blocking(pipe, False)
        asyncio.get_running_loop().add_reader(pipe, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._pipe, 1 << 16)
        except BlockingIOError:
            return
        if not data:
            asyncio.get_running_loop().remove_reader(self._pipe)
            self._ended.set()
        room = HEAD_BYTES - len(self._head)
        self._head += data[:room]
        self._tail += data[room:]
        excess = max(0, len(self._tail) - TAIL_BYTES)
        self._dropped += excess
        del self._tail[:excess]

    async def wait(self, seconds: float) -> None:
        """Until the pipe is at its end, at most so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ended.wait()

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pipe)
        os.close(self._pipe)

    def text(self) -> str:
        head, tail = (bytes(part).decode("utf-8", "replace") for part in (self._head, self._tail))
        middle = f"\n[{self._dropped} bytes left out]\n" if self._dropped else ""
        return head + middle + tail


def command_environment(environ: Mapping[str, str], temporary: str) -> dict[str, str]:
    """What a command sees: everything but secrets, and caches where it may write."""
    kept = {name: value for name, value in environ.items() if not _SECRET.search(name)}
    return kept | {
        "TMPDIR": temporary,
        "XDG_CACHE_HOME": f"{temporary}/cache",
        "npm_config_cache": f"{temporary}/npm",
        "GOCACHE": f"{temporary}/go",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_OPTIONAL_LOCKS": "0",
        "PAGER": "cat",
        "GIT_PAGER": "cat",
    }


def hide(name: str) -> None:
    """Overwrite the variable in /proc/self/environ, where a command under the same user could read it."""
    value = os.environb.get(name.encode(), b"")
    libc = ctypes.CDLL(None)
    libc.getenv.restype = ctypes.c_void_p
    place = libc.getenv(name.encode())
    if place and value:
        ctypes.memset(place, ord("*"), len(value))
