"""What is asked of systemd: a transient service unit for a run, its end, and whether a manager is there.

Knows units and their limits, and no run: what happens inside a unit is the shim's business. Names nothing
secret: command lines and properties of units can be read by every user of the machine.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from adw_modules.errors import ConfigError

_PATIENCE = 10.0  # seconds for a question to a manager, which answers in milliseconds
_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one run may use; None: as much as there is."""

    memory_max: str | None = None  # "512M", "2G", "50%": as systemd reads it
    cpu_percent: int | None = None  # of one core: 200 is two
    tasks_max: int | None = None  # processes and threads

    def __bool__(self) -> bool:
        return any(value is not None for value in (self.memory_max, self.cpu_percent, self.tasks_max))

    def properties(self) -> list[str]:
        """As unit properties. Without swap: it would only make the agent slow before it ends."""
        found = []
        if self.memory_max is not None:
            found += [f"MemoryMax={self.memory_max}", "MemorySwapMax=0"]
        if self.cpu_percent is not None:
            found.append(f"CPUQuota={self.cpu_percent}%")
        if self.tasks_max is not None:
            found.append(f"TasksMax={self.tasks_max}")
        return found


def unit_of(run_dir: Path) -> str:
    """The unit of the run in that directory. Two state directories on one machine have the same tasks and
    tokens, hence the digest. Not stored anywhere: a damaged file must not name a unit to be killed."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", run_dir.name)[:180]
    task, _, token = name.rpartition(".")
    place = hashlib.sha256(os.fsencode(run_dir)).hexdigest()[:8]
    return f"coordinator-run-{task}-{token}-{place}.service"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manager:
    """A systemd: the machine's own for root, else the one of this user."""

    uid: int
    gid: int

    @classmethod
    def of_this_process(cls) -> Manager:
        return cls(uid=os.geteuid(), gid=os.getegid())

    @property
    def is_system(self) -> bool:
        return self.uid == 0

    @property
    def name(self) -> str:
        return "the system manager" if self.is_system else f"the manager of user {self.uid}"

    @property
    def environment(self) -> dict[str, str]:
        """All that systemd-run and systemctl need. Nothing of the daemon's own goes along."""
        plain = {"LC_ALL": "C.UTF-8", "PATH": os.environ.get("PATH", os.defpath)}
        return plain if self.is_system else plain | {"XDG_RUNTIME_DIR": f"/run/user/{self.uid}"}

    def start_command(
        self, unit: str, command: list[str], *, limits: Limits, stop_seconds: float, umask: int
    ) -> list[str]:
        """The argv that has the unit started. The manager is the parent of `command`, not we.

        `mixed`: a stop reaches the shim, which ends its agent politely and writes that down; what is still
        there after `stop_seconds`, or when the shim itself was killed, is killed with the whole unit.
        """
        properties = [
            "Type=exec",
            "KillMode=mixed",
            "OOMPolicy=continue",
            f"TimeoutStopSec={stop_seconds:g}",
            f"UMask={umask:04o}",
            *limits.properties(),
        ]
        described = ["--description=A run of Coordinator", f"--unit={unit}"]
        options = [word for each in properties for word in ("-p", each)]
        return ["systemd-run", "--quiet", "--collect", *self._who, *described, *options, *_literal(command)]

    def trial_command(self, command: Sequence[str]) -> list[str]:
        """The argv that runs `command` where units run, and ends and speaks as that does."""
        return ["systemd-run", "--quiet", "--collect", "--wait", "--pipe", *self._who, *_literal(command)]

    @property
    def _who(self) -> list[str]:
        return [f"--uid={self.uid}", f"--gid={self.gid}"] if self.is_system else ["--user"]

    def kill(self, unit: str) -> bool:
        """SIGKILL to every process of the unit. False: there is no such unit (any more), or nobody to ask."""
        return self._ask("kill", "--kill-whom=all", "--signal=KILL", unit) is not None

    def check(self) -> None:
        """Raises ConfigError with one sentence when no unit can be started, and how to mend it."""
        missing = [name for name in ("systemd-run", "systemctl") if shutil.which(name) is None]
        if missing:
            raise ConfigError(f"{_ASKS_FOR}, but {missing[0]} is not on PATH: {_OTHERWISE}.")
        if self._ask("show", "--property=Version") is None:
            raise ConfigError(f"{_ASKS_FOR}, but {self.name} does not answer: {self._mend()}")

    def _mend(self) -> str:
        if self.is_system or not Path("/run/systemd/system").exists():
            return f"systemd does not run this machine; {_OTHERWISE}."
        return (
            f"run `loginctl enable-linger {self.uid}` as root, and leave /run/user/{self.uid} reachable for "
            f"the service (ProtectHome= hides it); or {_OTHERWISE}."
        )

    def missing_controllers(self) -> list[str]:
        """Limits that this manager cannot enforce, because the kernel has not given it the controller."""
        if self.is_system:
            return []
        slice_ = _CGROUPS / f"user.slice/user-{self.uid}.slice/user@{self.uid}.service"
        try:
            present = (slice_ / "cgroup.controllers").read_text().split()
        except OSError:  # version 1, whose controllers are never given to a user
            present = []
        return [name for name in ("memory", "cpu", "pids") if name not in present]

    def _ask(self, *words: str) -> str | None:
        scope = [] if self.is_system else ["--user"]
        try:
            done = subprocess.run(
                ["systemctl", *scope, *words],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                env=self.environment,
                timeout=_PATIENCE,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.decode(errors="replace") if done.returncode == 0 else None


def _literal(command: Sequence[str]) -> list[str]:
    """systemd would put variables in for `$NAME`, also inside a path."""
    return ["--", *(word.replace("$", "$$") for word in command)]


_ASKS_FOR = 'coordinator.launcher is "systemd"'
_OTHERWISE = 'set coordinator.launcher = "shim"'
