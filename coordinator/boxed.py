"""The last step into a sandbox: runs inside it, takes the limits on, and becomes the agent.

`python -I -S boxed.py LIMIT=VALUE... [scope] -- PROGRAM ARGUMENT...`. bubblewrap cannot set resource limits,
was started with the polite signals ignored (they are for the agent, not for it), and shares the kernel's
keyring and, where the network is the host's, the abstract sockets of everybody. Standard library only: it
starts for each run and is the only file of ours that a sandbox has to show.
"""

from __future__ import annotations

import os
import resource
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
else:
    import _signal as signal  # without the enums around it, which take longer to load than all else

LIMITS = {
    "processes": resource.RLIMIT_NPROC,
    "file_bytes": resource.RLIMIT_FSIZE,
    "open_files": resource.RLIMIT_NOFILE,
    "core_bytes": resource.RLIMIT_CORE,
}
_NOT_EXECUTED = 127  # what a shell says of a program that it cannot execute
_KEYCTL = {"x86_64": 250, "aarch64": 219}
_JOIN_SESSION_KEYRING = 1
_PR_SET_NO_NEW_PRIVS = 38
_LANDLOCK_CREATE_RULESET, _LANDLOCK_RESTRICT_SELF = 444, 446  # the same on every architecture
_LANDLOCK_VERSION = 1
_ABSTRACT_SOCKETS = 1
LANDLOCK_WITH_SCOPES = 6


def take_on(limits: dict[str, int]) -> None:
    """Lower the limits, soft and hard; one that is lower already stays."""
    for name, most in limits.items():
        hard = resource.getrlimit(LIMITS[name])[1]
        value = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(LIMITS[name], (value, value))


def hear_signals() -> None:
    """As a program expects to find them: nothing ignored, nothing blocked."""
    for number in signal.valid_signals():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def part_from_host(*, sockets: bool) -> None:
    """A session keyring of our own; with `sockets` no abstract socket that was not made in here.

    Both as far as the kernel can: what it cannot is what the sandbox was found to lack at the daemon's start.
    """
    import ctypes

    join_new_keyring()
    if not sockets:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if landlock_version() < LANDLOCK_WITH_SCOPES:
        return
    attributes = (ctypes.c_uint64 * 3)(0, 0, _ABSTRACT_SOCKETS)
    rules = libc.syscall(
        _LANDLOCK_CREATE_RULESET, attributes, ctypes.c_size_t(ctypes.sizeof(attributes)), ctypes.c_uint(0)
    )
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if rules < 0 or libc.syscall(_LANDLOCK_RESTRICT_SELF, ctypes.c_int(rules), ctypes.c_uint(0)):
        raise OSError(ctypes.get_errno(), "Landlock refuses the rules")
    os.close(rules)


def join_new_keyring() -> None:
    """Leave the session's keyring behind, which holds the keys of whoever started the daemon."""
    import ctypes

    if number := _KEYCTL.get(os.uname().machine):
        ctypes.CDLL(None).syscall(number, _JOIN_SESSION_KEYRING, None)


def landlock_version() -> int:
    """Which version of Landlock the kernel has; 0 for none."""
    import ctypes

    call = ctypes.CDLL(None, use_errno=True).syscall
    version: int = call(_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint(_LANDLOCK_VERSION))
    return max(0, version)


def main(arguments: list[str]) -> int:
    """Become the program. Returns only if it cannot be executed."""
    end = arguments.index("--")
    options, argv = arguments[:end], arguments[end + 1 :]
    limits = dict(option.split("=") for option in options if "=" in option)
    try:
        hear_signals()
        part_from_host(sockets="scope" in options)
        take_on({name: int(value) for name, value in limits.items()})
        os.execvp(argv[0], argv)  # noqa: S606  the program was found and chosen by the daemon
    except OSError as error:
        sys.stderr.write(f"sandbox: cannot execute {argv[0]}: {error.strerror or error}\n")
        return _NOT_EXECUTED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
