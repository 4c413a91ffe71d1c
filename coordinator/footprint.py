"""How much of the disk a run takes: its worktree, and the git directory that belongs to it.

Resource limits end one file that grows for ever, the size of its tmpfs what is written there; this is for the
rest. Reads names and sizes only, follows no link. Must not decide what happens to a run.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

SHORTEST_PAUSE = 5.0  # seconds between two looks
SHARE = 20  # a look may take one in so many seconds
_BLOCK = 512  # bytes, as `st_blocks` counts them, whatever the file system


class Footprint:
    """The space that some folders take, looked at now and then."""

    def __init__(self, folders: Iterable[Path], most_bytes: int) -> None:
        self._folders = tuple(folders)
        self._most = most_bytes
        self._next = time.monotonic()

    @property
    def is_due(self) -> bool:
        return time.monotonic() >= self._next

    def too_much(self) -> bool:
        """Whether they take more than they may. Blocks; a look at 100,000 files takes about half a second."""
        began = time.monotonic()
        try:
            return exceeds(self._folders, self._most)
        finally:
            now = time.monotonic()
            self._next = now + max(SHORTEST_PAUSE, SHARE * (now - began))


def exceeds(folders: Iterable[Path], most_bytes: int) -> bool:
    """Whether what is below the folders takes more than that on the disk; counts no further than needed."""
    total, todo = 0, [str(folder) for folder in folders]
    while todo:
        try:
            with os.scandir(todo.pop()) as entries:
                for entry in entries:
                    total += entry.stat(follow_symlinks=False).st_blocks * _BLOCK
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(entry.path)
        except OSError:  # gone in this moment, or made unreadable: what is in it grows no more
            continue
        if total > most_bytes:
            return True
    return False
