"""Where directories go instead of being deleted, each with the reason in a file beside it.

A worktree stays one there, on a detached HEAD: `git status`, `git log` and `git diff` work.
"""

from __future__ import annotations

import os
import shutil
from datetime import datetime
from pathlib import Path

from coordinator.workspaces.files import read_text, write_text
from coordinator.workspaces.git import Git
from coordinator.workspaces.places import Mirror, Tree, admins_of, tree_path_of


def stamp(now: datetime) -> str:
    return now.strftime("%Y%m%dT%H%M%SZ")


class Quarantine:
    """One directory for what came from any of the `roots`. The caller holds the mirror's lock."""

    def __init__(self, directory: Path, git: Git, *, roots: tuple[Path, ...]) -> None:
        self._directory = directory
        self._git = git
        self._roots = roots

    def take(self, path: Path, reason: str, now: datetime) -> Path:
        """Move anything away as it is. Returns the new place."""
        return _move(path, self._free_place(path, now), reason)

    def take_tree(self, mirror: Mirror, path: Path, reason: str, now: datetime) -> Path:
        """Detach first, move last: after a crash in between, the next attempt moves the tree again."""
        place = self._free_place(path, now)
        admin = next((admin for admin in admins_of(mirror) if tree_path_of(admin) == path), None)
        if admin is not None:
            write_text(admin / "locked", f"Quarantined by Coordinator: {reason}\n")  # keeps pruning off
            self._free_branch(mirror, admin)
            write_text(admin / "gitdir", f"{place / '.git'}\n")
        return _move(path, place, reason)

    def _free_branch(self, mirror: Mirror, admin: Path) -> None:
        """Leave HEAD at its commit but on no branch, so that a new worktree can have the branch."""
        if not read_text(admin / "HEAD").startswith("ref: "):
            return
        tree = Tree(mirror=mirror, path=mirror.path, admin=admin)
        done = self._git.run(tree, ["rev-parse", "--verify", "--quiet", "HEAD^{commit}"])
        write_text(admin / "HEAD", done.out if done.code == 0 else f"ref: refs/quarantine/{admin.name}\n")

    def _free_place(self, path: Path, now: datetime) -> Path:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        root = next(root for root in self._roots if path.is_relative_to(root))
        name = f"{stamp(now)}-{'_'.join(path.relative_to(root).parts)}"
        places = (self._directory / (f"{name}.{n}" if n else name) for n in range(10_000))
        return next(place for place in places if not os.path.lexists(place))


def _move(path: Path, place: Path, reason: str) -> Path:
    write_text(place.with_name(f"{place.name}.reason.txt"), f"{reason}\nIt was at {path}\n")
    shutil.move(path, place)  # a rename, or a copy first where the two are on different file systems
    return place
