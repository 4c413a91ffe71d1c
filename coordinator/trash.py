"""Taking things off the disk so that being killed in the middle leaves nothing half there.

A directory is renamed into `trash/` first, and deleted from there; what a killed daemon left in it goes with
the next look. Must not decide what goes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
from pathlib import Path

_BLOCK = 512


class Trash:
    """A folder on the file system of what is to go. Not thread-safe. Methods raise OSError."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def empty(self) -> None:
        """Delete what is in it. What resists stays for the next time."""
        with contextlib.suppress(FileNotFoundError), os.scandir(self._folder) as entries:
            for entry in list(entries):
                _delete(Path(entry.path))

    def take(self, path: Path) -> int:
        """Remove a file or a directory, never what a link leads to. Returns the bytes it took on disk."""
        freed = size_of(path)
        self._folder.mkdir(mode=0o700, exist_ok=True)
        place = self._free_place(path.name)
        path.rename(place)
        _delete(place)
        return freed

    def _free_place(self, name: str) -> Path:
        places = (self._folder / f"{name}.{n}" for n in range(1_000_000))
        return next(place for place in places if not os.path.lexists(place))


def size_of(path: Path) -> int:
    """The bytes that a path and all below it take on the disk; what cannot be read counts nothing."""
    try:
        total = path.lstat().st_blocks * _BLOCK
    except OSError:
        return 0
    todo = [path] if path.is_dir() and not path.is_symlink() else []
    while todo:
        with contextlib.suppress(OSError), os.scandir(todo.pop()) as entries:
            for entry in entries:
                total += entry.stat(follow_symlinks=False).st_blocks * _BLOCK
                if entry.is_dir(follow_symlinks=False):
                    todo.append(Path(entry.path))
    return total


def _delete(path: Path) -> None:
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    try:
        for folder, _, _, fd in os.fwalk(path, follow_symlinks=False):
            del folder
            with contextlib.suppress(OSError):  # an agent may have taken its own rights away
                os.fchmod(fd, stat.S_IRWXU)
        shutil.rmtree(path, ignore_errors=True)
    except (OSError, RecursionError):  # deeper than Python goes, or than it may have folders open
        for command in (["chmod", "-R", "u+rwX"], ["rm", "-rf"]):
            subprocess.run([*command, "--", str(path)], capture_output=True, check=False)
