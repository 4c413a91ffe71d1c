"""One worktree per task: where it begins, whether it can be used again, and when it may go.

Nothing is removed that could be lost: what is dirty, unpushed, detached or not understood goes to quarantine.
"""

from __future__ import annotations

import os
import re
import shutil
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from adw_modules.errors import WorkspaceError
from coordinator.faultpoints import Point, reached
from coordinator.workspaces.agentconfig import restore_agent_config
from coordinator.workspaces.content import fork_point
from coordinator.workspaces.files import inside, read_text, remove_tree
from coordinator.workspaces.git import Git
from coordinator.workspaces.mirrors import Mirrors
from coordinator.workspaces.places import (
    BLOCKED_FILE,
    Mirror,
    PrivateGit,
    Tree,
    Workspace,
    admins_of,
    pointed_admin,
    tree_path_of,
)
from coordinator.workspaces.private import lend, set_aside, take
from coordinator.workspaces.quarantine import Quarantine, stamp
from coordinator.workspaces.records import Record, read_record, workspace_of, write_record
from coordinator.workspaces.refs import commit_at
from coordinator.workspaces.work import Work

_INITIALIZING = "initializing"  # as git says it, while a worktree is being made
_TASK_PART = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9._-]+")
_BRANCH = re.compile(
    r"(?!.*\.\.)(?!.*\.lock(?:/|\Z))[A-Za-z0-9_][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.-]*)*"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Refs:
    """The heads that decide where a workspace starts."""

    default_branch: str
    default: str
    local: str | None
    remote: str | None


def checked_branch(name: str) -> str:
    """The name, if it can be one of a branch and of nothing else to git."""
    if not _BRANCH.fullmatch(name):
        raise WorkspaceError(f"{name!r} cannot be the name of a branch.")
    return name


def _free_admin(mirror: Mirror, path: Path, branch: str) -> Path:
    """Where the git directory of a new worktree goes. Raises WorkspaceError if path or branch are taken."""
    for admin in admins_of(mirror):
        if tree_path_of(admin) == path:
            raise WorkspaceError(f"{path} is gone, but {admin / 'locked'} keeps its place.")
        if read_text(admin / "HEAD") == f"ref: refs/heads/{branch}":
            raise WorkspaceError(f"{branch} is checked out at {tree_path_of(admin)}.")
    name = path.name.replace(".", "-")
    folder = inside(mirror.path, Path("worktrees"))
    names = (f"{name}-{n}" if n else name for n in range(10_000))
    return next(folder / free for free in names if not os.path.lexists(folder / free))


def _register(tree: Tree, branch: str) -> None:
    """Make an empty worktree on a branch yet to be born, laid out as `git worktree add` does it.

    The git directory appears whole and locked, so that a `git worktree prune` by an agent lets it be.
    """
    making = tree.mirror.path / "worktree.making"
    shutil.rmtree(making, ignore_errors=True)  # of a daemon that was killed just here
    making.mkdir()
    # Plain writes will do where nobody has been before us, and cost half.
    (making / "locked").write_text(_INITIALIZING)
    (making / "gitdir").write_text(f"{tree.path / '.git'}\n")
    (making / "commondir").write_text("../..\n")
    (making / "HEAD").write_text(f"ref: refs/heads/{branch}\n")
    tree.admin.parent.mkdir(exist_ok=True)
    making.rename(tree.admin)
    (tree.path / ".git").write_text(f"gitdir: {tree.admin}\n")


class Worktrees:
    """All worktrees below one directory. Takes the mirror's lock to make, move or remove one."""

    def __init__(self, directory: Path, git: Git, mirrors: Mirrors, quarantine: Quarantine) -> None:
        self._directory = directory
        self._git = git
        self._mirrors = mirrors
        self._quarantine = quarantine

    def path(self, task_name: str) -> Path:
        """Where the task's worktree is or will be. Raises WorkspaceError for a name that leads elsewhere."""
        parts = task_name.split("/")
        if not all(_TASK_PART.fullmatch(part) for part in parts):
            raise WorkspaceError(f"{task_name!r} cannot be the name of a workspace.")
        path = inside(self._directory, Path(*parts))
        for parent in path.parents[: len(parts) - 1]:
            if os.path.lexists(parent / ".git"):
                raise WorkspaceError(f"{path} would be inside another workspace, {parent}.")
        return path

    def work(self, mirror: Mirror, path: Path) -> Work:
        """Check that path and mirror still point to each other, and that no link leads elsewhere."""
        if not path.is_relative_to(self._directory):
            raise WorkspaceError(f"{path} is not inside {self._directory}.")
        inside(self._directory, path.relative_to(self._directory))
        admin = pointed_admin(mirror, path)
        if admin is None:
            raise WorkspaceError(f"{path} is not a worktree of our mirror of {mirror.repo} (any more).")
        if tree_path_of(admin) != path or read_text(admin / "commondir") != "../..":
            raise WorkspaceError(f"Our mirror of {mirror.repo} does not know the worktree {path}.")
        return Work(self._git, Tree(mirror=mirror, path=path, admin=admin))

    def prepare(
        self, mirror: Mirror, path: Path, branch: str, *, default_branch: str | None, now: datetime
    ) -> Workspace:
        """The worktree at `path`: the earlier one if it can be used, else a new one."""
        refs = self._refs(mirror, branch, default_branch)
        with self._mirrors.lock(mirror):
            self._prune(mirror)
            kept = self._reuse(mirror, path, branch, refs, now) if os.path.lexists(path) else None
            workspace = kept or self._create(mirror, path, branch, refs, now)
            if kept is None and workspace.start_sha == refs.default:
                return workspace  # fresh from the default branch: nobody of ours has written there
            return self._with_config_of_default(workspace, now)

    def _with_config_of_default(self, workspace: Workspace, now: datetime) -> Workspace:
        """The workspace with agent configuration as the default branch had it where this branch left it."""
        mirror = workspace.mirror
        tree = self.work(mirror, workspace.path).tree
        default = self._mirrors.trusted_heads(mirror, None).get(workspace.default_branch)
        base = default and fork_point(self._git, mirror, default, workspace.start_sha)
        if not restore_agent_config(self._git, tree, base or workspace.base_sha, stamp(now)):
            return workspace
        head = commit_at(self._git, mirror, f"refs/heads/{workspace.branch}") or workspace.start_sha
        write_record(tree, replace(read_record(tree), start_sha=head))
        return replace(workspace, start_sha=head)

    def find(self, mirror: Mirror, task_name: str, branch: str) -> Workspace | None:
        try:
            tree = self.work(mirror, self.path(task_name)).tree
            record = read_record(tree)
        except WorkspaceError:
            return None
        return workspace_of(tree, record) if record.branch == branch else None

    def is_releasable(self, workspace: Workspace) -> bool:
        """Whether nothing can be lost with it: clean, on its branch, head pushed. Changes nothing."""
        return self._pushed_tree(workspace) is not None

    def release(self, workspace: Workspace) -> bool:
        """Remove the worktree if nothing can be lost. Else False."""
        mirror, branch = workspace.mirror, workspace.branch
        with self._mirrors.lock(mirror):
            found = self._pushed_tree(workspace)
            if found is None:
                return False
            tree, head = found
            remove_tree(workspace.path)
            remove_tree(tree.admin)
            reached(Point.TREE_REMOVED)
            self._git.read(mirror, "update-ref", "-d", f"refs/heads/{branch}", head)
            return True

    def _pushed_tree(self, workspace: Workspace) -> tuple[Tree, str] | None:
        """The worktree and its head, if all that is in it is on the remote."""
        mirror, branch = workspace.mirror, workspace.branch
        try:
            tree = self.work(mirror, workspace.path).tree
            record = read_record(tree)
        except WorkspaceError:
            return None
        head = commit_at(self._git, mirror, f"refs/heads/{branch}")
        is_home = read_text(tree.admin / "HEAD") == f"ref: refs/heads/{branch}"
        if head is None or head != record.remote_sha or not is_home:
            return None
        # Not `git worktree remove`: it has another git look at the files, by the mirror's own config.
        is_kept = os.path.lexists(workspace.path / BLOCKED_FILE) or (tree.admin / "locked").exists()
        return None if is_kept or not Work(self._git, tree).is_all_committed() else (tree, head)

    def lend_git(self, workspace: Workspace) -> PrivateGit:
        mirror, branch = workspace.mirror, workspace.branch
        tree = self.work(mirror, workspace.path).tree
        head = commit_at(self._git, mirror, f"refs/heads/{branch}")
        if head is None:
            raise WorkspaceError(f"{mirror.repo} has no branch {branch} to work on.")
        return lend(tree, branch, head, self._git.config_of(mirror))

    def share_git(self, workspace: Workspace) -> None:
        set_aside(self.work(workspace.mirror, workspace.path).tree)

    def take_work(self, workspace: Workspace) -> None:
        """Have the mirror know what an agent has committed in a repository of its own."""
        self._take(self.work(workspace.mirror, workspace.path).tree, workspace.branch)

    def _take(self, tree: Tree, branch: str) -> None:
        take(self._git, tree, branch, self._git.config_of(tree.mirror))

    def quarantine(self, workspace: Workspace, reason: str, now: datetime) -> Path:
        with suppress(WorkspaceError, OSError):  # what cannot be taken over goes along, with the reason
            self.take_work(workspace)
        with self._mirrors.lock(workspace.mirror):
            return self._quarantine.take_tree(workspace.mirror, workspace.path, reason, now)

    # The task's earlier worktree

    def _prune(self, mirror: Mirror) -> None:
        """Forget worktrees whose directory is gone. Costs a git process only when there is one."""
        gone = [admin for admin in admins_of(mirror) if not tree_path_of(admin).exists()]
        for admin in gone:
            # Left by a daemon that was killed: we hold the lock, so nobody is making one now.
            if read_text(admin / "locked") == _INITIALIZING:
                (admin / "locked").unlink()
        if any(not (admin / "locked").exists() for admin in gone):
            self._git.read(mirror, "worktree", "prune")

    def _reuse(self, mirror: Mirror, path: Path, branch: str, refs: _Refs, now: datetime) -> Workspace | None:
        """The task's earlier worktree, or None after it went to quarantine with the reason written down."""
        try:
            work = self.work(mirror, path)
            record = read_record(work.tree)
            self._take(work.tree, branch)
            head = self._catch_up(work, branch, record, refs.remote)
        except WorkspaceError as unusable:
            self._quarantine.take_tree(mirror, path, str(unusable), now)
            return None
        if work.blocked_note(record.base_sha) is not None:
            # The question of an earlier attempt has been asked; left in place it would be asked for ever.
            shutil.move(path / BLOCKED_FILE, work.tree.admin / "BLOCKED.previous.md")
        record = replace(record, default_branch=refs.default_branch, start_sha=head, remote_sha=refs.remote)
        write_record(work.tree, record)
        return workspace_of(work.tree, record)

    def _catch_up(self, work: Work, branch: str, record: Record, remote: str | None) -> str:
        """The head after taking in what others pushed to the branch; raises if the tree cannot be used."""
        work.clear_stale_locks()
        work.refuse_rebase()
        status = work.status()
        if not (branch == record.branch == status.branch):
            raise WorkspaceError(f"HEAD is {status.branch or 'detached'}, not on {branch}.")
        if remote in (None, status.head, record.remote_sha):
            return status.head
        if not self._contains(work.tree.mirror, status.head, remote):
            self._git.read(work.tree, "merge", "--ff-only", "--quiet", remote)
            return remote
        return status.head

    # A new worktree

    def _create(self, mirror: Mirror, path: Path, branch: str, refs: _Refs, now: datetime) -> Workspace:
        start = self._start(mirror, branch, refs, now)
        tree = self._add(mirror, path, branch, start)
        reached(Point.TREE_CHECKED_OUT)
        record = Record(
            branch=branch,
            default_branch=refs.default_branch,
            base_sha=self._fork_point(mirror, refs.default, start),
            start_sha=start,
            remote_sha=refs.remote,
        )
        write_record(tree, record)
        return workspace_of(self.work(mirror, path).tree, record)

    def _add(self, mirror: Mirror, path: Path, branch: str, start: str) -> Tree:
        """`git worktree add -B`, in one process instead of four. Leaves nothing behind when it fails."""
        tree = Tree(mirror=mirror, path=path, admin=_free_admin(mirror, path, branch))
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.mkdir()
        try:
            _register(tree, branch)
            reached(Point.TREE_REGISTERED)
            self._git.read(tree, "checkout", "--quiet", "--force", "--no-track", "-B", branch, start, "--")
            (tree.admin / "locked").unlink()
        except (WorkspaceError, OSError):
            if tree_path_of(tree.admin) == path:
                shutil.rmtree(tree.admin, ignore_errors=True)
            shutil.rmtree(path, ignore_errors=True)  # made here, for a worker that never started
            raise
        return tree

    def _start(self, mirror: Mirror, branch: str, refs: _Refs, now: datetime) -> str:
        """Where a new worktree begins: at work that is only here, at the pushed branch, or at the default."""
        remote, local = refs.remote, refs.local
        if remote is not None and self._contains(mirror, refs.default, remote):
            remote = None  # already merged: nothing to continue
        if local is None or local == remote or self._contains(mirror, refs.default, local):
            return remote or refs.default
        if remote is None or self._contains(mirror, local, remote):
            return local
        # Both sides have work of their own. The remote's is what people see; ours stays under a ref.
        self._git.read(mirror, "update-ref", f"refs/quarantine/{stamp(now)}/{branch}", local)
        return remote

    # History

    def _refs(self, mirror: Mirror, branch: str, wanted_default: str | None) -> _Refs:
        for name in (wanted_default, self._mirrors.remote_head(mirror)):
            default = name and commit_at(self._git, mirror, f"refs/remotes/origin/{name}")
            if name and default:
                return _Refs(
                    default_branch=name,
                    default=default,
                    local=commit_at(self._git, mirror, f"refs/heads/{branch}"),
                    remote=commit_at(self._git, mirror, f"refs/remotes/origin/{branch}"),
                )
        raise WorkspaceError(
            f"{mirror.repo} has no commit on a default branch: push a first commit, then try again."
        )

    def _contains(self, mirror: Mirror, descendant: str, ancestor: str) -> bool:
        """True if `ancestor` is in the history of `descendant`."""
        if descendant == ancestor:
            return True
        return self._git.succeeds(mirror, "merge-base", "--is-ancestor", ancestor, descendant)

    def _fork_point(self, mirror: Mirror, default: str, start: str) -> str:
        if start == default:
            return default
        done = self._git.run(mirror, ["merge-base", default, start])
        return done.out.split()[0] if done.code == 0 else default  # 1: no common commit
