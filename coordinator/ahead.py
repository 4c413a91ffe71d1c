"""The first step to a run with a proxy: starts bubblewrap, which makes the sandbox while the proxy loads.

Owns the processes of that sandbox from the spawn to `begin`, and what they inherit. The agent is not executed
before `begin`. Must not know the network. Imports little: until the spawn everything here delays the agent.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys

from coordinator.boxed import LIMITS, join_new_keyring

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
else:
    import _signal as signal  # without the enums around it, which take longer to load than all else

UNUSABLE = 71  # exit code: the sandbox could not be given its way out, so nothing was run
# A polite signal goes to the whole group, so to the agent as well: we stay until the sandbox has ended.
AWAITED = (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_PR_SET_PDEATHSIG = 1
_STATUS_FD, _BLOCK_FD = 3, 4
# What the sandbox has to be started with: it tells who is inside, and waits there until it may go on.
BWRAP_OPTIONS = ("--json-status-fd", str(_STATUS_FD), "--block-fd", str(_BLOCK_FD))


class Unusable(Exception):
    """The sandbox cannot be run with its way out; `str(error)` says why."""


class Sandbox:
    """The sandbox we run: bubblewrap, blocked before it executes the agent until its network is ready."""

    def __init__(self, command: list[str], limits: dict[str, int]) -> None:
        self._limits = limits
        self._status, status_end = os.pipe()
        block_end, self._block = os.pipe()
        # It holds a writing end of what it waits for itself: if we are killed it waits on, instead of reading
        # the end of the pipe and executing an agent whom nobody serves.
        waits_at = os.open(f"/proc/self/fd/{block_end}", os.O_RDWR | os.O_CLOEXEC)
        try:
            self.pid = os.posix_spawnp(
                command[0],
                command,
                os.environ,
                file_actions=_moved(status_end, waits_at),
                setsigmask=(),
                setsigdef=(*AWAITED, signal.SIGPIPE, signal.SIGXFSZ),
            )
        except OSError as error:
            raise Unusable(f"cannot execute {command[0]}: {error.strerror}") from error
        finally:
            for end in (status_end, waits_at, block_end):
                os.close(end)
        self.inner = 0  # the first process inside

    def meet(self) -> None:
        """Wait until it tells its first process, and limit that: what comes after inherits it."""
        self.inner = self._inner_pid()
        for name, most in self._limits.items():
            try:
                hard = resource.prlimit(self.inner, LIMITS[name])[1]
                value = most if hard == resource.RLIM_INFINITY else min(most, hard)
                resource.prlimit(self.inner, LIMITS[name], (value, value))
            except OSError as error:
                raise Unusable(f"cannot limit {name} of the sandbox: {error.strerror}") from error

    @property
    def most_processes(self) -> int | None:
        """How many processes its pid namespace has to be limited to, because no other limit binds root."""
        return self._limits.get("processes") if os.geteuid() == 0 and limits_pids() else None

    def _inner_pid(self) -> int:
        line = b""
        while not line.endswith(b"\n"):
            piece = os.read(self._status, 4096)
            if not piece:
                raise Unusable("the sandbox ended before it began")
            line += piece
        first = line.split(b"\n", 1)[0]
        digits = first.partition(b'"child-pid":')[2].strip(b" }\t").partition(b",")[0]
        if not digits.strip().isdigit():
            raise Unusable(f"the sandbox tells of no process: {first[:200].decode(errors='replace')}")
        return int(digits)

    def begin(self) -> None:
        """Let it execute the agent."""
        os.write(self._block, b"\n")
        os.close(self._block)

    def status(self) -> int | None:
        """As of waitpid; None while it runs."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return status if pid else None

    def kill(self) -> None:
        """At once and with everything in it; reaps it. While it waits for us: it never executes the agent.

        The first process inside by itself: it dies with its parent only from the time when it is let go on.
        """
        try:
            self.inner = self.inner or self._inner_pid()
        except (Unusable, OSError):
            pass  # there is none
        for pid in (self.inner, self.pid):
            try:
                if pid:
                    os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
        try:
            os.waitpid(self.pid, 0)
        except OSError:
            pass


def limits_pids() -> bool:
    """Whether `/proc/sys/kernel/pid_max` is a pid namespace's own. Before Linux 6.14 it is the machine's!"""
    major, _, rest = os.uname().release.partition(".")
    minor = "".join(digit for digit in rest.partition(".")[0] if digit.isdigit())
    return major.isdigit() and minor.isdigit() and (int(major), int(minor)) >= (6, 14)


def _moved(status: int, block: int) -> list[tuple[int, ...]]:
    """Has the two descriptors where `BWRAP_OPTIONS` says. By way of numbers that are neither of them."""
    return [
        (os.POSIX_SPAWN_DUP2, status, _STATUS_FD + 100),
        (os.POSIX_SPAWN_DUP2, block, _BLOCK_FD + 100),
        (os.POSIX_SPAWN_DUP2, _STATUS_FD + 100, _STATUS_FD),
        (os.POSIX_SPAWN_DUP2, _BLOCK_FD + 100, _BLOCK_FD),
        (os.POSIX_SPAWN_CLOSE, _STATUS_FD + 100),
        (os.POSIX_SPAWN_CLOSE, _BLOCK_FD + 100),
    ]


def fail(reason: str) -> int:
    """Say on stderr that nothing was run and why; the exit code."""
    sys.stderr.write(f"coordinator: the run has no way to the network, so it was not started: {reason}\n")
    return UNUSABLE


def start(arguments: list[str]) -> tuple[Sandbox, str, str]:
    """`POLICY_FILE REFUSALS_FILE LIMIT=VALUE... -- COMMAND...`: starts the command, which is bubblewrap.

    Gives the sandbox and the two files. Ends this process where there is nothing to go on with.
    """
    parent = os.getppid()
    # A shim that is killed takes us with it, and we take the sandbox (`--die-with-parent`).
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(UNUSABLE)
    signal.pthread_sigmask(signal.SIG_BLOCK, AWAITED)  # before any thread, and never let through
    end = arguments.index("--")
    policy, refused, *limits = arguments[:end]
    try:
        join_new_keyring()
        numbers = {name: int(value) for name, value in (limit.split("=") for limit in limits)}
        return Sandbox(arguments[end + 1 :], numbers), policy, refused
    except (Unusable, OSError) as error:
        os._exit(fail(str(error)))
