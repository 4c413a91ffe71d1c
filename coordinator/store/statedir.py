"""The state directory: its layout, its modes and the lock that makes one daemon its only owner.

Does not look into the files: the database is the store's, a run directory is the launcher's.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from types import TracebackType
from typing import Self

from adw_modules.errors import StateDirBusy, StoreError
from coordinator.shim import is_locked, take_lock

# Locks and SQLite's shared memory do not work reliably between hosts.
_NETWORK_FILE_SYSTEMS = frozenset({
    "afs", "beegfs", "ceph", "cifs", "davfs", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4",
    "ocfs2", "smb3", "smbfs", "fuse.ceph", "fuse.davfs2", "fuse.gcsfuse", "fuse.glusterfs", "fuse.rclone",
    "fuse.s3fs", "fuse.sshfs",
})  # fmt: skip


class StatePaths:
    """Where things are under a state directory. Touches nothing: commands use it beside a running daemon."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.db = self.root / "coordinator.db"
        self.lock = self.root / "lock"
        self.wake = self.root / "wake"
        self.runs = self.root / "runs"
        self.repos = self.root / "repos"
        self.trees = self.root / "trees"
        self.quarantine = self.root / "quarantine"
        self.logs = self.root / "logs"

    def is_held(self) -> bool:
        """Whether a daemon holds this directory right now. Only asks; never in a starting daemon's way."""
        return is_locked(str(self.lock))

    def touch_wake(self) -> None:
        """Have a running daemon look at the operators' requests now, not at its next tick."""
        self.wake.touch(mode=0o600)
        os.utime(self.wake)

    def wake_signature(self) -> int:
        """Changes whenever somebody called `touch_wake`. One stat: cheap enough for five times a second."""
        try:
            return self.wake.stat().st_mtime_ns
        except FileNotFoundError:
            return 0

    def check(self) -> None:
        """StoreError when no state could live here. Makes and locks nothing."""
        refuse_network_file_system(self.root, _mounts())
        nearest = next(path for path in (self.root, *self.root.parents) if path.exists())
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise StoreError(
                f"{nearest} cannot be written to, so there is no place for the state in {self.root}"
            )

    def run_dir(self, task_name: str, token: int) -> Path:
        """The directory of one run: single-use, because the token never comes back."""
        return self.runs / f"{task_name.replace('/', '_')}.{token}"


class StateDir(StatePaths):
    """A state directory that is ours: made with mode 0700 and locked until `close` or the end of the process.

    Raises StateDirBusy when another process holds it, StoreError when it cannot be used at all.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        refuse_network_file_system(self.root, _mounts())
        self._make()
        self._held = _take(self.lock)

    def close(self) -> None:
        """Let go of the lock. The file stays: without it two processes could lock two different files."""
        os.close(self._held)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    def _make(self) -> None:
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.root.chmod(0o700)  # one that was there may be open to others
            for folder in (self.runs, self.repos, self.trees, self.quarantine, self.logs):
                folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise StoreError(f"The state directory {self.root} cannot be made: {error.strerror}") from error


def refuse_network_file_system(path: Path, mounts: str) -> None:
    """StoreError when `path` (which need not exist yet) is on one; `mounts` is the text of /proc/mounts."""
    kind = file_system_of(path.resolve(), mounts)
    if kind in _NETWORK_FILE_SYSTEMS:
        raise StoreError(
            f"The state directory {path} is on a network file system ({kind}), where locks do not hold: "
            "set coordinator.state_dir to a folder on a local disk"
        )


def file_system_of(path: Path, mounts: str) -> str:
    """The type of the file system that holds `path`: its deepest mount point counts, of equals the last."""
    found, depth = "", -1
    for line in mounts.splitlines():
        _, point, kind, *_ = line.split(" ")
        mount = Path(_unescaped(point))
        if path.is_relative_to(mount) and len(mount.parts) >= depth:
            found, depth = kind, len(mount.parts)
    return found


def _unescaped(mount_point: str) -> str:
    """The kernel writes blank, tab, newline and backslash as three octal digits."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), mount_point)


def _mounts() -> str:
    try:
        return Path("/proc/mounts").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:  # not Linux: nothing to judge by
        return ""


def _take(lock: Path) -> int:
    """The descriptor that holds the lock. It closes on exec, so workers do not keep it alive."""
    try:
        held = take_lock(str(lock))
        if held is not None:
            os.truncate(held, 0)
            os.pwrite(held, f"{os.getpid()}\n".encode(), 0)
    except OSError as error:
        raise StoreError(f"{lock} cannot be locked: {error.strerror}") from error
    if held is None:
        raise StateDirBusy(f"{lock.parent} is in use by {_holder(lock)}")
    return held


def _holder(lock: Path) -> str:
    pid = lock.read_text(encoding="ascii", errors="replace").strip()
    return f"another daemon (process {pid})" if pid.isdigit() else "another daemon"
