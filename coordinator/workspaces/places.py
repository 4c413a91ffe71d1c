"""The places there are, and the links between a mirror and its worktrees: see gitrepository-layout(5)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from coordinator.workspaces.files import is_real_directory, read_text

BLOCKED_FILE = "BLOCKED.md"  # where an agent leaves a question; never part of a commit
# In a worktree's git directory:
SANDBOX_GIT = "sandbox"  # the repository of an agent in a sandbox
PREVIOUS_CONFIG = "agent-config.previous"  # agent configuration that was taken out of the worktree


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror:
    """Our bare copy of one repository; its worktrees are the workspaces."""

    path: Path
    repo: str  # "owner/name"
    remote_url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateGit:
    """The parts of a worktree's own repository that a sandbox has to show. No links in them."""

    git_file: Path  # `.git` in the worktree: to be read only
    admin: Path  # to be written, but for what follows
    sealed: tuple[Path, ...]  # files and folders in it to be read only
    writable: tuple[Path, ...]  # folders in those to be written
    stand_ins: tuple[tuple[Path, Path], ...]  # (what is shown, in place of what), read only
    shared: Path  # the mirror's objects, to be read only


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """The directory one task works in, checked out on the task's branch."""

    path: Path
    branch: str
    default_branch: str  # what a pull request is opened against
    base_sha: str  # where the branch left the default branch: work is what lies beyond
    start_sha: str  # the branch's head when this attempt began
    mirror: Mirror
    git: PrivateGit | None = None  # for a run in a sandbox


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """A worktree that was checked just now: directory and mirror point to each other."""

    mirror: Mirror
    path: Path
    admin: Path  # its own git directory, <mirror>/worktrees/<id>


def admins_of(mirror: Mirror) -> list[Path]:
    """The git directories of all worktrees of the mirror."""
    folder = mirror.path / "worktrees"
    if not is_real_directory(folder):
        return []
    return [entry for entry in folder.iterdir() if is_real_directory(entry)]


def tree_path_of(admin: Path) -> Path:
    """The worktree that a git directory below `worktrees/` belongs to."""
    return Path(read_text(admin / "gitdir")).parent


def pointed_admin(mirror: Mirror, path: Path) -> Path | None:
    """Where `path/.git` points, if that is the git directory of a worktree of this mirror."""
    text = read_text(path / ".git")
    admin = Path(text.removeprefix("gitdir: "))
    is_ours = text.startswith("gitdir: ") and admin.parent == mirror.path / "worktrees"
    return admin if is_ours and is_real_directory(admin) else None
