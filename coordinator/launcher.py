"""The daemon's side of worker processes: has shims started, waits for them, finds them again.

The truth about a run is its directory and the kernel lock in it (see shim.py), never a pid or an object here.
Must not: parse agent output, decide what an end means, or touch the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from adw_modules.errors import SpawnError
from adw_modules.tasks.model import ExitRecord
from coordinator import shim
from coordinator.faultpoints import Point, reached, shim_environment
from coordinator.systemd.units import Limits, Manager, unit_of

_SHIM = str(Path(shim.__file__).resolve())
START_PATIENCE = 30.0  # seconds for `started` to be on the disk
_LOOK_AT_LOCK = 0.2  # seconds; only where the identity of a shim is damaged or forged
_LOOK_AT_START = 1.0  # seconds without an answer after which the lock is asked whether a shim lives
_ADOPT_PATIENCE = 5.0  # seconds an adopted shim may need from its lock to `started`
# A shim needs nothing of the daemon's environment, and should hold none of its secrets for hours.
_SHIM_ENVIRONMENT = {"LC_ALL": "C.UTF-8"}
_REASONS = frozenset({"exited", "deadline", "stalled", "stopped", "crowded", "exec_failed"})


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchSpec:
    """All that one run needs; becomes files of its directory. `env` is the agent's complete environment."""

    task: str
    token: int
    argv: tuple[str, ...]
    cwd: str
    env: dict[str, str]
    marker: str
    prompt: str
    deadline_at: datetime | None = None
    stall: timedelta | None = None
    stop_signal: str = "SIGINT"
    grace: timedelta = timedelta(seconds=5)
    limits: Limits = field(default_factory=Limits)  # as far as the launcher can set any
    most_processes: int | None = None  # and threads, at once; for its shim to end it where nothing else binds
    agent: str = ""  # the dialect of its output, for daemons that adopt the run
    config_dir: str | None = None  # a folder of the run directory for the agent's own configuration
    config_files: Mapping[str, str] = field(default_factory=dict)  # what it begins with, by path in it
    files: Mapping[str, str] = field(default_factory=dict)  # what else the run directory has to hold


@dataclass(frozen=True, slots=True, kw_only=True)
class Exited:
    """The shim has written how the agent ended."""

    record: ExitRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Alive:
    """A shim owns the run right now."""

    handle: WorkerHandle


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """The agent was started; its shim is gone without an exit record. What it left behind is dead now."""

    started: dict[str, Any]  # the `started` file; empty if it cannot be read
    survivors: int = 0  # processes that could not be killed


@dataclass(frozen=True, slots=True, kw_only=True)
class NeverStarted:
    """No agent ran, and none ever will in this directory: it is revoked."""


RunState = Exited | Alive | Lost | NeverStarted


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerHandle:
    """One run that a shim owns. Holds no descriptor and no task, so it may be dropped at any time."""

    run_dir: Path
    shim_pid: int
    shim_start: int
    child_pid: int
    boot_id: str

    @property
    def output_path(self) -> Path:
        """Where the agent's standard output is."""
        return self.run_dir / "output.log"

    async def wait(self) -> ExitRecord | None:
        """Until the shim is gone; its record, or None: the run is lost, and its leftovers are dead by now."""
        await self._shim_gone()
        record = read_exit(self.run_dir)
        if record is None:
            _end_leftovers(self.run_dir)
        return record

    def stop(self, reason: str) -> None:
        """Ask the shim to end the run: durable before any signal, harmless to repeat. The first reason stays.

        Raises SpawnError if the request cannot be written (full disk).
        """
        try:
            if not (self.run_dir / "stop").exists():
                shim.write_durably(str(self.run_dir), "stop", json.dumps({"reason": reason}).encode())
        except OSError as error:
            raise SpawnError(f"Cannot ask the run in {self.run_dir} to stop: {error}.") from error
        # Only a bell: without it the shim sees the file at its next look, within a second.
        if self.boot_id == shim.boot_id():
            shim.signal_exact(self.shim_pid, self.shim_start, signal.SIGUSR1)

    def terminate(self) -> bool:
        """Have the shim end the run where no request can be written; False if it cannot be told.

        Only a signal, so nothing of it outlives the shim but the detail of its exit record.
        """
        return self.boot_id == shim.boot_id() and shim.signal_exact(
            self.shim_pid, self.shim_start, signal.SIGTERM
        )

    async def _shim_gone(self) -> None:
        fd = shim.open_exact(self.shim_pid, self.shim_start) if self.boot_id == shim.boot_id() else None
        if fd is None:
            while is_alive(self.run_dir):  # noqa: ASYNC110  who owns it cannot be told, so nothing can wake us
                await asyncio.sleep(_LOOK_AT_LOCK)
            return
        loop = asyncio.get_running_loop()
        gone = loop.create_future()
        loop.add_reader(fd, _settle, gone, None)
        try:
            await gone
        finally:
            loop.remove_reader(fd)
            os.close(fd)


def _settle(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


def read_exit(run_dir: Path) -> ExitRecord | None:
    """The exit record, or None if there is none or the file is not one that a shim writes."""
    raw = shim.read_json(str(run_dir / "exit"))
    if raw is None:
        return None
    try:
        return _exit_record(raw)
    except (KeyError, TypeError, ValueError, OverflowError, OSError):
        return None


def _exit_record(raw: dict[str, Any]) -> ExitRecord:
    code, number = _optional_int(raw["exit_code"]), _optional_int(raw["exit_signal"])
    if (
        not 1 <= int(raw["format"]) <= shim.FORMAT
        or raw["reason"] not in _REASONS
        or (code is None) == (number is None)
    ):
        raise ValueError("not an exit record of this format")
    return ExitRecord(
        exit_code=code,
        exit_signal=number,
        reason=raw["reason"],
        detail=str(raw["detail"]),
        started_at=datetime.fromtimestamp(raw["started_at"], UTC),
        ended_at=datetime.fromtimestamp(raw["ended_at"], UTC),
        cpu_seconds=float(raw["cpu_seconds"]),
        max_rss_kib=int(raw["max_rss_kib"]),
    )


def _optional_int(value: Any) -> int | None:
    if value is None or type(value) is int:
        return value
    raise TypeError(f"{value!r} is not a whole number")


def recorded_agent(run_dir: Path) -> str | None:
    """The dialect that the run was started with; None before its start, or where none is recorded."""
    agent = (shim.read_json(str(run_dir / "spec.json")) or {}).get("agent")
    return agent if isinstance(agent, str) and agent else None


def is_alive(run_dir: Path) -> bool:
    """Whether a shim holds the run's lock now. Asks the kernel, takes nothing. SpawnError: it cannot tell."""
    try:
        return shim.is_locked(str(run_dir / "lock"))
    except OSError as error:
        raise SpawnError(f"The lock in {run_dir} cannot be asked about: {error}.") from error


def classify(run_dir: Path, *, patience: float = _ADOPT_PATIENCE) -> RunState:
    """What has become of a run: the truth table of a daemon's start.

    The lock is asked first: an `exit` that stands there while a shim is alive cannot be the shim's own word.
    Blocks up to `patience` seconds for a shim between its lock and `started`, and for killed leftovers to go.
    Raises SpawnError if a run that never started cannot be revoked, or if a newer version began the run:
    what its files say could mean anything here, so it is neither believed nor ended.
    """
    _refuse_newer(run_dir)
    for _ in range(100):
        handle = _living(run_dir, patience)
        if handle is not None:
            return Alive(handle=handle)
        record = read_exit(run_dir)
        if record is not None:
            return Exited(record=record)
        if _was_started(run_dir):
            survivors = _end_leftovers(run_dir)
            return Lost(started=shim.read_json(str(run_dir / "started")) or {}, survivors=survivors)
        if _revoke(run_dir):
            reached(Point.REVOKED)
            return NeverStarted()
    raise SpawnError(f"The run in {run_dir} changes hands all the time; look for a second daemon.")


def _refuse_newer(run_dir: Path) -> None:
    for name in ("spec.json", "started", "exit"):
        raw = shim.read_json(str(run_dir / name)) or {}
        if shim.is_newer(raw):
            raise SpawnError(
                f"The run in {run_dir} is left alone: a newer version wrote its `{name}` (format "
                f"{raw['format']}; this version reads up to {shim.FORMAT}). Start that version again."
            )


def _living(run_dir: Path, patience: float) -> WorkerHandle | None:
    """The handle of a shim that holds the lock. One that gets no further than its lock is killed."""
    until = time.monotonic() + patience
    while is_alive(run_dir):
        if (run_dir / "started").exists():
            return _recorded_handle(run_dir)
        if time.monotonic() > until:
            if _has_agent(run_dir):
                return _recorded_handle(run_dir)  # `started` was taken away
            # It has not executed anything, and once dead it never will.
            _kill_shim(run_dir)
        time.sleep(0.005)
    return None


def _was_started(run_dir: Path) -> bool:
    """Whether an agent was executed here, also where `started` is missing: it may have been removed."""
    if any(os.path.lexists(run_dir / name) for name in ("started", "exit")):
        return True
    with contextlib.suppress(OSError):
        if (run_dir / "output.log").stat().st_size:
            return True
    return _bearers(run_dir, shim.process_table())


def _has_agent(run_dir: Path) -> bool:
    table = shim.process_table()
    holder = shim.read_json(str(run_dir / "lock")) or {}
    return bool(shim.tree_of({holder.get("shim_pid", 0)}, table)) or _bearers(run_dir, table)


def _bearers(run_dir: Path, table: list[shim.Process]) -> bool:
    """Whether a process was started with the run's marker in its environment."""
    marker = str((shim.read_json(str(run_dir / "spec.json")) or {}).get("marker", ""))
    return any(shim.carries(process.pid, marker) for process in table)


def _revoke(run_dir: Path) -> bool:
    """Make sure that no shim, however late, starts here. False: one was faster, look again.

    Under the lock, so that a shim on its way either has started already or never will.
    """
    if os.path.lexists(run_dir / "revoked"):
        return True
    try:
        lock = shim.take_lock(str(run_dir / "lock"))
    except (FileNotFoundError, NotADirectoryError):
        return True  # not even a directory: the daemon ended before it made one, or it was removed
    except OSError as error:
        raise SpawnError(f"Cannot revoke the run in {run_dir}: {error}.") from error
    if lock is None:
        return False
    try:
        if (run_dir / "started").exists():
            return False
        shim.write_durably(str(run_dir), "revoked", b"{}")
    except OSError as error:
        raise SpawnError(f"Cannot revoke the run in {run_dir}: {error}.") from error
    finally:
        os.close(lock)
    return True


def _kill_shim(run_dir: Path) -> None:
    holder = shim.read_json(str(run_dir / "lock")) or {}
    if holder.get("boot_id") == shim.boot_id():
        shim.signal_exact(holder["shim_pid"], holder["shim_start"], signal.SIGKILL)


def _handle(run_dir: Path, started: dict[str, Any]) -> WorkerHandle:
    return WorkerHandle(
        run_dir=run_dir,
        shim_pid=int(started["shim_pid"]),
        shim_start=int(started["shim_start"]),
        child_pid=int(started["child_pid"]),
        boot_id=str(started["boot_id"]),
    )


def _recorded_handle(run_dir: Path) -> WorkerHandle:
    """From `started`; the shim's identity is in its lock as well, should `started` be damaged."""
    started = shim.read_json(str(run_dir / "started")) or {}
    lock = shim.read_json(str(run_dir / "lock")) or {}
    try:
        return _handle(run_dir, {"child_pid": 0, **lock, **started})
    except (KeyError, TypeError, ValueError) as error:
        raise SpawnError(f"The start of the run in {run_dir} is recorded, but damaged: {error!r}.") from error


def _end_leftovers(run_dir: Path) -> int:
    started = shim.read_json(str(run_dir / "started")) or {}
    spec = shim.read_json(str(run_dir / "spec.json")) or {}
    if spec.get("unit"):  # whichever launcher is configured now
        Manager.of_this_process().kill(unit_of(run_dir))
    return shim.kill_leftovers(started, str(spec.get("marker", "")))


class _ForkServer:
    """One `shim.py --serve` process and the requests it has not answered yet.

    The end of the stream comes only when nobody is left who could answer: the server is gone, and so is
    every shim that it forked and that has not reported. From then on `ask` gives None.
    """

    def __init__(self, python: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[int, asyncio.Future[dict[str, Any] | None]] = {}
        self._last_id = 0
        self._sending = asyncio.Lock()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)
        with theirs:
            try:
                self.process = _spawn_server(python, theirs.fileno())
            except OSError:
                self._socket.close()
                raise
        self._loop.add_reader(self._socket, self._read)

    @property
    def is_gone(self) -> bool:
        return self._socket.fileno() < 0

    async def ask(self, run_dir: Path) -> dict[str, Any] | None:
        """The shim's report on its start, or None: this server will never answer."""
        self._last_id += 1
        request_id = self._last_id
        answer: asyncio.Future[dict[str, Any] | None] = self._loop.create_future()
        self._waiting[request_id] = answer
        try:
            await self._send({"id": request_id, "run_dir": str(run_dir)})
            reached(Point.SHIM_ASKED)
            return await answer
        finally:
            self._waiting.pop(request_id, None)

    async def _send(self, request: dict[str, Any]) -> None:
        async with self._sending:
            if self.is_gone:
                self.close()
                return
            try:
                await self._loop.sock_sendall(self._socket, json.dumps(request).encode())
            except OSError:
                self.close()

    def _read(self) -> None:
        while True:
            try:
                message = self._socket.recv(65536)
            except BlockingIOError:
                return
            except OSError:
                message = b""
            if not message:
                self.close()
                return
            answer = json.loads(message)
            if answer["id"] in self._waiting:
                _settle(self._waiting[answer["id"]], answer)

    def close(self) -> None:
        """Let the server end and everybody who waits for it know. Shims go on."""
        if not self.is_gone:
            self._loop.remove_reader(self._socket)
            self._socket.close()
        for answer in self._waiting.values():
            _settle(answer, None)


def _spawn_server(python: str, fd: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [python, "-I", "-S", _SHIM, "--serve", str(fd)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(fd,),
        cwd="/",
        env=_SHIM_ENVIRONMENT | shim_environment(),
        start_new_session=True,
    )


class RunLauncher(ABC):
    """Starts runs and finds them again. One per daemon; `launch` and `close` belong to one event loop.

    How a shim comes to be is all that launchers differ in. What it then is in its run directory is the
    same for all, so that every launcher can adopt the runs of every other.
    """

    def __init__(self, runs_dir: Path, *, patience: float = START_PATIENCE) -> None:
        self._runs_dir = runs_dir.absolute()
        self._patience = patience  # seconds for one start

    @abstractmethod
    async def start(self) -> None:
        """Get ready. Raises ConfigError if no run could be started in this way."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of what only starting needs. Runs go on; handles stay usable."""

    @abstractmethod
    async def _start_shim(self, run_dir: Path, spec: LaunchSpec) -> dict[str, Any]:
        """Have a shim started there and give its report: `started` and more, or `refused` and why."""

    def _unit(self, _run_dir: Path) -> str | None:
        """The unit that the shim will be, for launchers that make one."""
        return None

    def run_dir(self, task_name: str, token: int) -> Path:
        """The directory of one attempt. Never used twice."""
        return self._runs_dir / f"{task_name.replace('/', '_')}.{token}"

    def adopt(self, run_dir: Path) -> RunState:
        """See `classify`."""
        return classify(run_dir)

    async def launch(self, spec: LaunchSpec) -> WorkerHandle:
        """Start one run; returns once its start is durable. A failing exec is in the exit record, not here.

        Raises SpawnError: no agent runs, and none ever will in this directory.
        """
        run_dir = self._prepare(spec)
        answer = await self._answer(run_dir, spec)
        if "refused" in answer:
            return await _make_sure(run_dir, str(answer["refused"]))
        return _handle(run_dir, answer)

    async def _answer(self, run_dir: Path, spec: LaunchSpec) -> dict[str, Any]:
        """The shim's report, or why there will be none.

        One that is killed before its report leaves nobody who would say so: the server that forked it lives
        on. But its lock is free then, and whatever it has started has no owner.
        """
        starting = asyncio.ensure_future(self._start_shim(run_dir, spec))
        until = time.monotonic() + self._patience
        try:
            while time.monotonic() < until:
                await asyncio.wait({starting}, timeout=min(_LOOK_AT_START, self._patience))
                if starting.done():
                    return starting.result()
                if (run_dir / "lock").exists() and not is_alive(run_dir):
                    return {"refused": "its shim has died before it could answer"}
            return {"refused": f"no shim has answered for {self._patience:g} seconds"}
        finally:
            starting.cancel()
            # What it has started to ask with is killed then; nobody else would wait for that to be gone.
            await asyncio.wait({starting}, timeout=_LOOK_AT_START)

    def _prepare(self, spec: LaunchSpec) -> Path:
        """Write the run directory. The shim waits for the disk, not we: before it records the start."""
        run_dir = self.run_dir(spec.task, spec.token)
        written = _spec_json(spec) | {"unit": self._unit(run_dir), "memory_max": spec.limits.memory_max}
        try:
            self._make(run_dir)
            reached(Point.RUN_DIR_MADE)
            _write_private(run_dir / shim.ENVIRONMENT, json.dumps(_environment(spec)).encode())
            _write_private(run_dir / "spec.json", json.dumps(written).encode())
            reached(Point.SPEC_WRITTEN)
            _write_private(run_dir / "prompt.md", spec.prompt.encode(errors="replace"))
            reached(Point.PROMPT_WRITTEN)
            if spec.config_dir is not None:
                write_config(run_dir / spec.config_dir, spec.config_files)
            for name, content in spec.files.items():
                _write_private(run_dir / name, content.encode())
        except OSError as error:
            raise SpawnError(f"Cannot write the run directory {run_dir}: {error}.") from error
        return run_dir

    def _make(self, run_dir: Path) -> None:
        try:
            run_dir.mkdir(mode=0o700)
        except FileNotFoundError:  # the very first run of this state directory
            self._runs_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            run_dir.mkdir(mode=0o700)


class Launcher(RunLauncher):
    """The plain one: shims forked by a warm server, in the daemon's own control group."""

    def __init__(self, runs_dir: Path, *, python: str = sys.executable) -> None:
        super().__init__(runs_dir)
        self._python = python
        self._server: _ForkServer | None = None
        self._ended: list[subprocess.Popen[bytes]] = []

    async def start(self) -> None:
        """Warm the fork server up. Optional: the first launch does it as well."""
        self._warm_server()

    async def close(self) -> None:
        """End the fork server. Runs go on; handles stay usable."""
        self._retire_server()
        for process in self._ended:
            await asyncio.to_thread(_wait_or_kill, process)
        self._ended.clear()

    async def _start_shim(self, run_dir: Path, _spec: LaunchSpec) -> dict[str, Any]:
        return await self._ask_server(run_dir) or await self._start_cold(run_dir)

    async def _ask_server(self, run_dir: Path) -> dict[str, Any] | None:
        server = self._warm_server()
        return None if server is None else await server.ask(run_dir)

    def _warm_server(self) -> _ForkServer | None:
        if self._server is not None and self._server.is_gone:
            self._retire_server()
        if self._server is None:
            with contextlib.suppress(OSError):  # no memory, no processes: the cold start will say so
                self._server = _ForkServer(self._python)
        return self._server

    def _retire_server(self) -> None:
        if self._server is not None:
            self._server.close()
            self._ended.append(self._server.process)
            self._server = None
        self._ended = [process for process in self._ended if process.poll() is None]

    async def _start_cold(self, run_dir: Path) -> dict[str, Any]:
        """Without a server. Harmless if that one did start a shim: the second finds the lock or `started`."""
        try:
            process = await asyncio.create_subprocess_exec(
                *(self._python, "-I", "-S", _SHIM, str(run_dir)),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env=_SHIM_ENVIRONMENT | shim_environment(),
                start_new_session=True,
            )
        except OSError as error:
            return {"refused": f"cannot execute {self._python}: {error}"}
        output, _ = await process.communicate()
        try:
            return dict(json.loads(output))
        except ValueError:
            return {"refused": "the shim ended without an answer"}


async def _make_sure(run_dir: Path, refusal: str) -> WorkerHandle:
    """After a refusal: the run of another shim in this directory, or SpawnError and the certainty of none."""
    state = await asyncio.to_thread(classify, run_dir)
    if isinstance(state, NeverStarted):
        raise SpawnError(f"The run in {run_dir} could not be started: {refusal}.")
    return state.handle if isinstance(state, Alive) else _recorded_handle(run_dir)


def _wait_or_kill(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def write_config(folder: Path, files: Mapping[str, str]) -> None:
    """A new folder for an agent's own configuration, with what it begins with. Readable by us alone."""
    folder.mkdir(mode=0o700)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_private(path, content.encode())


def _write_private(path: Path, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(content)


def _environment(spec: LaunchSpec) -> dict[str, str]:
    return {**spec.env, shim.MARKER_NAME: spec.marker}


def _spec_json(spec: LaunchSpec) -> dict[str, Any]:
    return {
        "format": shim.FORMAT,
        "task": spec.task,
        "agent": spec.agent,
        "token": spec.token,
        "argv": spec.argv,
        "cwd": spec.cwd,
        "marker": spec.marker,
        "deadline_at": None if spec.deadline_at is None else spec.deadline_at.timestamp(),
        "stall_seconds": None if spec.stall is None else spec.stall.total_seconds(),
        "stop_signal": spec.stop_signal,
        "grace_seconds": spec.grace.total_seconds(),
        "most_processes": spec.most_processes,
    }
