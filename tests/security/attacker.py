"""An agent that tries what it must not be able to do, and says as JSON what it could.

Run as `attacker.py FILE`, where the file says what is out there. Standard library only, and harmless where
it succeeds.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

libc = ctypes.CDLL(None, use_errno=True)
PTRACE_ATTACH, PTRACE_DETACH = 16, 17
CLONE_NEWUSER = 0x10000000


def done(attempt: Callable[[], Any]) -> bool:
    """Whether it worked."""
    try:
        return attempt() is not False
    except (OSError, subprocess.SubprocessError, PermissionError):
        return False


def reads(canary: str, path: str) -> bool:
    return done(lambda: canary.encode() in Path(path).read_bytes())


def environments(canary: str) -> list[int]:
    """The other processes whose environment shows the canary."""
    pids = [
        int(name)
        for name in (path.name for path in Path("/proc").iterdir())
        if name.isdecimal() and int(name) != os.getpid()
    ]
    return [pid for pid in pids if reads(canary, f"/proc/{pid}/environ")]


def traces(pid: int) -> bool:
    if libc.ptrace(PTRACE_ATTACH, pid, None, None) != 0:
        return False
    os.waitpid(pid, 0x40000000)  # __WALL
    libc.ptrace(PTRACE_DETACH, pid, None, None)
    return True


def connects(family: int, address: Any) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(2)
        return done(lambda: client.connect(address))


def through_link(target: str, canary: str) -> bool:
    link = Path("link-out")
    link.symlink_to(target)
    try:
        return reads(canary, str(link))
    finally:
        link.unlink()


def hard_link(target: str) -> bool:
    return done(lambda: (os.link(target, "hard-link-out"), Path("hard-link-out").unlink()))


def writes(path: str) -> bool:
    return done(lambda: Path(path).write_text("written by the agent"))


def makes_a_user_namespace() -> bool:
    pid = os.fork()
    if pid == 0:
        os._exit(0 if libc.unshare(CLONE_NEWUSER) == 0 else 1)
    return os.waitpid(pid, 0)[1] == 0


def effective_user_of(program: str) -> str:
    try:
        return subprocess.run([program, "-u"], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def main(out: dict[str, Any]) -> dict[str, Any]:
    canary, victim = out["canary"], out["victim"]
    return {
        "foreign environments": environments(canary),
        "sees the victim": Path(f"/proc/{victim}").exists(),
        "signals the victim": done(lambda: os.kill(victim, 0)),
        "traces the victim": traces(victim),
        "reads": [path for path in out["secrets"] if reads(canary, path)],
        "reads below /proc/1/root": [path for path in out["secrets"] if reads(canary, f"/proc/1/root{path}")],
        "reads through a link": through_link(out["secrets"][0], canary),
        "links": [path for path in out["secrets"] if hard_link(path)],
        "writes": [path for path in out["places"] if writes(path)],
        "lists": [path for path in out["folders"] if done(lambda path=path: next(Path(path).iterdir()))],
        "socket": connects(socket.AF_UNIX, out["socket"]),
        "abstract socket": connects(socket.AF_UNIX, "\0" + out["abstract"]),
        "loopback": connects(socket.AF_INET, ("127.0.0.1", out["port"])),
        "metadata": connects(socket.AF_INET, ("169.254.169.254", 80)) if out["asks metadata"] else False,
        "setuid": effective_user_of(out["setuid"]),
        "user namespace": makes_a_user_namespace(),
        "opens kernel settings": done(lambda: os.close(os.open("/proc/sys/kernel/hostname", os.O_WRONLY))),
        "capabilities": int(
            next(line for line in Path("/proc/self/status").read_text().splitlines() if "CapEff" in line)[7:],
            16,
        ),
        "core": resource.getrlimit(resource.RLIMIT_CORE)[0],
        "environment": sorted(os.environ),
    }


if __name__ == "__main__":
    print(json.dumps(main(json.loads(Path(sys.argv[1]).read_text()))), flush=True)
    Path("work.txt").write_text("done")
