"""A command that may write only below some directories, by Landlock, which needs no special rights.

Runs as a program of its own between the agent and the command (`python -I -S landlock.py SPEC`), and ends
with the command and all that it left behind. The rules are laid on the command before its exec and stay.
Reading is free; signals and tracing beyond the command's own processes are not, so that it can neither end
the agent nor look into its environment. Standard library only, nothing of ours, because it starts for each
command.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import struct
import sys
import time

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_VERSION_FLAG = 1
_PATH_BENEATH = 1
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 36, 38

_WRITE_FILE, _REFER, _TRUNCATE = 1 << 1, 1 << 13, 1 << 14
_MAKE_AND_REMOVE = sum(1 << bit for bit in range(4, 13))
_SCOPE_SIGNALS_AND_SOCKETS = 0b11
_NEWEST = 6  # what later versions add is not used
_AWAITED = (signal.SIGCHLD, signal.SIGTERM)
_KILLING_SECONDS = 2.0


def version() -> int:
    """Which version of Landlock the kernel has; 0 for none."""
    found: int = _libc().syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint(_VERSION_FLAG))
    return max(0, found)


def confine(directories: list[str], abi: int) -> None:
    """From now on this process and its children write only below `directories`. Raises OSError."""
    writes = _WRITE_FILE | _MAKE_AND_REMOVE
    writes |= _REFER if abi >= 2 else 0
    writes |= _TRUNCATE if abi >= 3 else 0
    attributes = struct.pack("QQQ", writes, 0, _SCOPE_SIGNALS_AND_SOCKETS)[: _attribute_size(abi)]
    rules = _call(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint(0))
    for directory in directories:
        _allow(rules, directory, writes)
    _allow(rules, "/dev", writes & (_WRITE_FILE | _TRUNCATE))
    if _libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    _call(_RESTRICT_SELF, ctypes.c_int(rules), ctypes.c_uint(0))
    os.close(rules)


def _attribute_size(abi: int) -> int:
    return 24 if abi >= _NEWEST else 16 if abi >= 4 else 8


def _allow(rules: int, directory: str, access: int) -> None:
    try:
        fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return  # what is not there cannot be written to
    try:
        rule = struct.pack("=Qi", access, fd)
        _call(_ADD_RULE, ctypes.c_int(rules), ctypes.c_int(_PATH_BENEATH), rule, ctypes.c_uint(0))
    finally:
        os.close(fd)


def _call(number: int, *arguments: object) -> int:
    result: int = _libc().syscall(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Run the command of SPEC: {"argv": [...], "write": [directories] or null for everywhere}.

    Ends as the command did, and not before everything that the command started is dead, also what has made
    itself a session of its own. SIGTERM ends it all.
    """
    spec = json.loads(sys.argv[1])
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    libc = _libc()
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # whoever loses its parent becomes our child
    signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)  # an agent that is killed leaves no command behind
    command = os.fork()
    if not command:
        _become(spec["argv"], spec["write"])
    status = _ended(command)
    if status is None:
        os.kill(command, signal.SIGKILL)
        status = os.waitpid(command, 0)[1]
    _kill_descendants()
    if os.WIFSIGNALED(status):
        _die_of(os.WTERMSIG(status))
    os._exit(os.waitstatus_to_exitcode(status))


def _become(argv: list[str], write: list[str] | None) -> None:
    _libc().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    os.setpgid(0, 0)  # `kill 0` is meant for the command's own processes
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _AWAITED)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and that would stay over exec
        signal.signal(number, signal.SIG_DFL)
    abi = version() if write is not None else 0
    if write is not None and abi:
        confine(write, abi)
    os.execvp(argv[0], argv)  # noqa: S606  the shell, if any, is the model's


def _ended(command: int) -> int | None:
    """How the command ended; None when we are to end it."""
    while True:
        if signal.sigwait(_AWAITED) == signal.SIGTERM:
            return None
        while (found := _reaped())[0]:
            if found[0] == command:
                return found[1]


def _reaped() -> tuple[int, int]:
    """A child that has ended, and how; (0, 0) when none has."""
    try:
        return os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return 0, 0


def _kill_descendants() -> None:
    """Children of those we kill become ours, so it goes on until there are none. Bounded."""
    until = time.monotonic() + _KILLING_SECONDS
    while (children := _children()) and time.monotonic() < until:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
        for pid in children:
            os.waitpid(pid, 0)


def _children() -> list[int]:
    """Unreaped ones stay in the list, so none of these numbers is anybody else's."""
    numbers = filter(str.isdigit, os.listdir("/proc"))  # noqa: PTH208  pathlib takes longer to load than all else
    return [int(number) for number in numbers if _parent(number) == os.getpid()]


def _parent(pid: str) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, IndexError):
        return 0


def _die_of(number: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)


if __name__ == "__main__":
    main()
