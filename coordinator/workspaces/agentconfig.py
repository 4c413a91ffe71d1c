"""Agent configuration in a worktree: back to what the default branch has, before an agent reads it.

An earlier attempt, or a branch of ours that somebody pushed to, may have changed it. What is put back is
committed by us, so that it is no change of the next agent; what was there besides is moved away, not deleted.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from adw_modules.security.guarded import is_agent_config
from coordinator.workspaces.files import below, inside
from coordinator.workspaces.git import Git
from coordinator.workspaces.places import PREVIOUS_CONFIG, Tree

MESSAGE = "Take agent configuration from the default branch"


def restore_agent_config(git: Git, tree: Tree, base: str, now_stamp: str) -> list[str]:
    """Put every such path back to the commit `base`. Returns what differed, and is committed if tracked."""
    before = _committed(git, tree, base)
    there = set(_on_disk(tree.path))
    tracked = set(_committed(git, tree, "HEAD"))
    changed = _changed(git, tree, base, sorted(before)) | (there | tracked) - set(before)
    if not changed:
        return []
    for path in sorted(changed & there):
        _move_away(tree, path, now_stamp)
    back = sorted(changed & set(before))
    if back:
        _clear_the_way(tree, back, now_stamp)
        _each(git, tree, ["checkout", "--quiet", "--force", base], back)
    gone = sorted((changed & tracked) - set(before))
    if gone:
        _each(git, tree, ["rm", "--cached", "--quiet", "--ignore-unmatch"], gone)
    if not git.succeeds(tree, "diff-index", "--cached", "--quiet", "HEAD", "--", *_literal([*back, *gone])):
        only = [*_literal([*back, *gone])]
        git.read(tree, "commit", "--quiet", "--no-verify", "--only", "-m", MESSAGE, "--", *only)
    return sorted(changed)


def _literal(paths: list[str]) -> list[str]:
    return [f":(top,literal){path}" for path in paths]


def _each(git: Git, tree: Tree, command: list[str], paths: list[str]) -> None:
    git.read(tree, *command, "--", *_literal(paths))


def _committed(git: Git, tree: Tree, commit: str) -> dict[str, str]:
    """Path -> mode and object of the agent configuration in a commit."""
    entries = git.read(tree, "ls-tree", "-r", "-z", "--full-tree", commit).split("\0")
    pairs = (each.partition("\t") for each in entries if each)
    return {path: meta for meta, _, path in pairs if is_agent_config(path)}


def _changed(git: Git, tree: Tree, base: str, paths: list[str]) -> set[str]:
    """Which of the paths are not as in `base`, in the index or on disk."""
    if not paths:
        return set()
    arguments = ["-z", "--name-only", "--no-renames", "--ignore-submodules=none", base, "--"]
    return {
        path
        for options in ([], ["--cached"])
        for path in git.read(tree, "diff-index", *options, *arguments, *_literal(paths)).split("\0")
        if path
    }


def _on_disk(root: Path) -> Iterator[str]:
    """Agent configuration that is there, tracked or not, ignored or not; links are not followed."""
    for entry in below(root, but=".git".__eq__):
        path = Path(entry.path).relative_to(root).as_posix()
        if is_agent_config(path):
            yield path


def _move_away(tree: Tree, path: str, now_stamp: str) -> None:
    place = inside(tree.admin, Path(PREVIOUS_CONFIG) / now_stamp / path)
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    shutil.move(tree.path / path, place)


def _clear_the_way(tree: Tree, paths: list[str], now_stamp: str) -> None:
    """A link or a file where the default branch has a folder: git would write through the one."""
    for path in paths:
        for parent in reversed(Path(path).parents[:-1]):
            there = tree.path / parent
            if os.path.lexists(there) and not stat.S_ISDIR(there.lstat().st_mode):
                _move_away(tree, parent.as_posix(), now_stamp)
