"""A command that may write only below some directories, by Landlock, which needs no special rights.

Runs as a program of its own between the agent and the command (`python -I -S landlock.py SPEC`): the
rules are laid on this process and stay over exec. Reading is free; signals and tracing beyond the
command's own processes are not, so that it can neither end the agent nor look into its environment.
Standard library only, nothing of ours, because it starts for each command.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import struct
import sys

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_VERSION_FLAG = 1
_PATH_BENEATH = 1
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38

_WRITE_FILE, _REFER, _TRUNCATE = 1 << 1, 1 << 13, 1 << 14
_MAKE_AND_REMOVE = sum(1 << bit for bit in range(4, 13))
_SCOPE_SIGNALS_AND_SOCKETS = 0b11
_NEWEST = 6  # what later versions add is not used


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
    """Become the command of SPEC: {"argv": [...], "write": [directories] or null for everywhere}."""
    spec = json.loads(sys.argv[1])
    _libc().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # an agent that is killed leaves no command behind
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and that would stay over exec
        signal.signal(number, signal.SIG_DFL)
    abi = version() if spec["write"] is not None else 0
    if abi:
        confine(spec["write"], abi)
    os.execvp(spec["argv"][0], spec["argv"])  # noqa: S606  the shell, if any, is the model's


if __name__ == "__main__":
    main()
