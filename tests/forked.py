"""The command line as processes that start fast: forked from one that has imported the program already.

Nine tenths of what a command costs are imports, and the suite starts some hundred commands. `Command` is a
`Popen` of `python -m coordinator` whose process is forked by a small server instead: it has a process id, a
session, arguments, environment, folder and files of its own, and is killed and waited for as any other. What
only a cold start shows (the first moments, what is imported, the last flush of a closed pipe) needs `cold`.
Must not know any test.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import inspect
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from pathlib import Path
from typing import Any, ClassVar

COLD = [sys.executable, "-m", "coordinator"]
READ_AT_START = ("PYTHON", "LC_", "LANG", "LD_")  # variables that a process looks at only before it is ours
CHECKOUT = Path(__file__).parents[1]
LARGEST_REQUEST = 128 * 1024
MOST_FILES = 1 << 16
WARM = (
    "alembic.command",
    "coordinator.cli.verbs",
    "coordinator.daemon",
    "coordinator.systemd.journal",
    "coordinator.lastgood",
    "coordinator.statusfile",
    "coordinator.store",
    "rich.console",
    "rich.markup",
    "rich.table",
    "sqlalchemy.dialects.sqlite",
)

# -- the tests' side ----------------------------------------------------------------------------------------


class Command(subprocess.Popen):
    """One command, as `Popen([*COLD, *arguments], ...)` would start it; and so it is where that differs.

    Of the options only those of files, folder, environment, text and session have a meaning.
    """

    _started: ClassVar[weakref.WeakSet[Command]] = weakref.WeakSet()

    def __init__(self, arguments: list[str], *, cold: bool = False, **options: Any) -> None:
        self.environ = dict(options.get("env") or os.environ)
        self.is_cold = cold or _reads_at_start(self.environ) != _reads_at_start(dict(os.environ))
        self._report: int | None = None
        super().__init__([*COLD, *arguments], **options)
        self._started.add(self)

    @classmethod
    def alive_with(cls, marker: str) -> list[int]:
        """Those whose environment or arguments have the marker: /proc shows the server's of a fork."""
        forked = [command for command in list(cls._started) if not command.is_cold and command.poll() is None]
        return [
            each.pid for each in forked if any(marker in it for it in (*each.environ.values(), *each.args))
        ]

    def _execute_child(self, *args: Any) -> None:
        if self.is_cold:
            super()._execute_child(*args)
            return
        given = inspect.signature(subprocess.Popen._execute_child).bind(self, *args).arguments
        ends = given["p2cread"], given["c2pwrite"], given["errwrite"]
        request = {
            "arguments": self.args[len(COLD) :],
            "environ": self.environ,
            "cwd": str(given["cwd"] or Path.cwd()),
            "session": given["start_new_session"],
        }
        self._report, write = os.pipe()
        try:
            files = [own if end == -1 else end for own, end in enumerate(ends)]
            socket.send_fds(_server(), [json.dumps(request).encode()], [*files, write])
        finally:
            os.close(write)
            self._close_pipe_fds(
                *(given[f"{pipe}{end}"] for pipe in ("p2c", "c2p", "err") for end in ("read", "write"))
            )
        said = self._hear()
        if said is None:
            raise OSError("the command could not be forked")
        self.pid = int(said)
        self._child_created = True

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        if self.is_cold:
            return super()._try_wait(wait_flags)
        if wait_flags & os.WNOHANG and not select.select([self._report], [], [], 0)[0]:
            return 0, 0
        said = self._hear()
        os.close(self._report)
        if said is None:
            raise ChildProcessError("the server of the forked commands is gone")
        return self.pid, int(said)

    def _internal_poll(self, *args: Any, **options: Any) -> int | None:
        if self.is_cold:
            return super()._internal_poll(*args, **options)
        if self.returncode is None and self._waitpid_lock.acquire(blocking=False):
            try:
                pid, status = self._try_wait(os.WNOHANG) if self.returncode is None else (0, 0)
                if pid == self.pid:
                    self._handle_exitstatus(status)
            finally:
                self._waitpid_lock.release()
        return self.returncode

    def _hear(self) -> bytes | None:
        assert self._report is not None
        said = b""
        while not said.endswith(b"\n"):
            more = os.read(self._report, 1)
            if not more:
                return None
            said += more
        return said


def _reads_at_start(environ: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name.startswith(READ_AT_START)}


_making = threading.Lock()


server_pids: set[int] = set()  # for tests that look at every child of this process


def _server() -> socket.socket:
    with _making:
        return _start_server()


@functools.cache
def _start_server() -> socket.socket:
    """Start the server of this process; it ends when we close our side, or end."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        server = subprocess.Popen(
            [sys.executable, "-P", __file__, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            cwd=CHECKOUT,
            start_new_session=True,
        )

    server_pids.add(server.pid)

    @atexit.register
    def end() -> None:
        ours.close()
        server.wait()

    return ours


# -- the server's side --------------------------------------------------------------------------------------


def _serve(control: socket.socket) -> dict[str, Any]:
    """Fork for each request and report how it ended, until nobody asks any more. Returns in each fork."""
    reports: dict[int, int] = {}
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        ready = select.select([control, woken], [], [])[0]
        if woken in ready:
            os.read(woken, 4096)
            _report_ended(reports)
        if control not in ready:
            continue
        request, files, _, _ = socket.recv_fds(control, LARGEST_REQUEST, 4)
        if not request:
            sys.exit()
        pid = os.fork()
        if pid == 0:
            return _become(json.loads(request), files)
        reports[pid] = files.pop()
        for file in files:
            os.close(file)


def _report_ended(reports: dict[int, int]) -> None:
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            report = reports.pop(ended[0])
            with contextlib.suppress(BrokenPipeError):  # nobody wants to know
                os.write(report, f"{ended[1]}\n".encode())
            os.close(report)


def _become(request: dict[str, Any], files: list[int]) -> dict[str, Any]:
    """Everything a process has of its own, as after a start; only then anybody learns of us."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if request["session"]:
        os.setsid()
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environ"])
    time.tzset()
    for own, file in enumerate(files[:3]):
        os.dup2(file, own)
    os.write(files[3], f"{os.getpid()}\n".encode())
    os.closerange(3, MOST_FILES)
    _open_streams()
    sys.path.insert(0, request["cwd"])
    sys.argv[1:] = request["arguments"]
    return request


def _open_streams() -> None:
    """The streams anew: the server's own know of other files whether they can seek or are a terminal."""
    stream = functools.partial(open, encoding=sys.stdout.encoding, closefd=False)
    is_unbuffered = sys.stdout.write_through
    sys.stdin = sys.__stdin__ = stream(0)
    sys.stdout = sys.__stdout__ = stream(1, "w", errors=sys.stdout.errors)
    sys.stderr = sys.__stderr__ = stream(2, "w", errors="backslashreplace", buffering=1)
    sys.stdout.reconfigure(write_through=is_unbuffered)


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    for module in WARM:
        importlib.import_module(module)
    assert tempfile.tempdir is None
    assert threading.active_count() == 1
    gc.collect()
    gc.freeze()
    _serve(control)
    control.detach()  # closed already
    runpy.run_module("coordinator", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
