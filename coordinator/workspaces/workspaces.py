"""What the daemon may ask of workspaces: each method's promise here, how it is kept in the modules beside.

Must not: decide what a run came to, talk to GitHub's API, read the clock for dates, or delete work.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping
from datetime import datetime
from pathlib import Path

from adw_modules.errors import WorkspaceError
from adw_modules.security.leaks import Scanner
from adw_modules.tasks.messages import Voice
from adw_modules.tasks.model import GitState
from coordinator.faultpoints import Point, reached
from coordinator.workspaces.content import Content, read_content
from coordinator.workspaces.files import plain_os_errors
from coordinator.workspaces.git import Git, GitAuth
from coordinator.workspaces.mirrors import Mirrors
from coordinator.workspaces.outgoing import Screened
from coordinator.workspaces.places import Mirror, PrivateGit, Workspace
from coordinator.workspaces.quarantine import Quarantine
from coordinator.workspaces.work import Work
from coordinator.workspaces.worktrees import Worktrees, checked_branch


class Workspaces:
    """All mirrors and worktrees below the given directories. Thread-safe; every method blocks.

    `git_user` is the (name, e-mail) that commits carry. PATH, HOME, proxies and certificate paths come from
    `environ` (default: the process environment); nothing else of it reaches git.
    """

    def __init__(
        self,
        *,
        repos_dir: Path,
        trees_dir: Path,
        quarantine_dir: Path,
        git_user: tuple[str, str],
        environ: Mapping[str, str] | None = None,
    ) -> None:
        repos, trees = repos_dir.resolve(), trees_dir.resolve()
        self._git_user = git_user
        self._git = Git(git_user, os.environ if environ is None else environ)
        quarantine = Quarantine(quarantine_dir.resolve(), self._git, roots=(trees, repos))
        self._mirrors = Mirrors(repos, self._git, quarantine)
        self._worktrees = Worktrees(trees, self._git, self._mirrors, quarantine)

    @plain_os_errors("Making the mirror")
    def ensure_mirror(self, repo: str, remote_url: str, auth: GitAuth | None, *, now: datetime) -> Mirror:
        """The mirror of `repo` ("owner/name"); made with its first fetch when it is not there.

        It appears at its place only when that fetch has worked. What stands there and is no whole
        repository is moved to quarantine and made again. Raises WorkspaceError.
        """
        return self._mirrors.ensure(repo, remote_url, auth, now)

    @plain_os_errors("Fetching")
    def fetch(self, mirror: Mirror, auth: GitAuth | None, *, not_older_than: float | None = None) -> None:
        """Bring the remote's branches into the mirror.

        A fetch that began after `not_older_than` (`time.monotonic()` seconds) will do for every caller that
        waited for it, also when it failed: then each gets the same error. None always fetches.
        """
        self._mirrors.fetch(mirror, auth, not_older_than)

    @plain_os_errors("Preparing the workspace")
    def prepare(
        self,
        mirror: Mirror,
        task_name: str,
        branch: str,
        *,
        default_branch: str | None,
        auth: GitAuth | None,
        now: datetime,
        not_older_than: float | None = None,
    ) -> Workspace:
        """A worktree for the task on its branch, after a fetch. Raises WorkspaceError.

        The task's earlier worktree is used again with all its work; a broken, foreign or detached one goes
        to quarantine. A new one continues the branch if an earlier attempt left it (on the remote or here),
        else it starts at the head of the remote's default branch: `default_branch` if the remote has it,
        otherwise what the remote's HEAD says. A fetch that began after `not_older_than` (default: now) is
        fresh enough.
        """
        path, branch = self._worktrees.path(task_name), checked_branch(branch)
        fresh = time.monotonic() if not_older_than is None else not_older_than
        self.fetch(mirror, auth, not_older_than=fresh)
        reached(Point.FETCHED)
        return self._worktrees.prepare(mirror, path, branch, default_branch=default_branch, now=now)

    def find(self, mirror: Mirror, task_name: str, branch: str) -> Workspace | None:
        """The task's worktree as an earlier `prepare` left it, for a restarted daemon; None if unusable."""
        return self._worktrees.find(mirror, task_name, branch)

    @plain_os_errors("Preparing the sandbox's repository")
    def lend_git(self, workspace: Workspace) -> PrivateGit:
        """A repository of its own for an agent that must not reach the mirror. Before its run is started."""
        return self._worktrees.lend_git(workspace)

    def folders_of(self, workspace: Workspace) -> tuple[Path, ...]:
        """Where a run on it can leave files: the worktree and its git directory."""
        tree = self._work(workspace).tree
        return tree.path, tree.admin

    @plain_os_errors("Preparing the workspace")
    def share_git(self, workspace: Workspace) -> None:
        """For an agent without a sandbox, which works in the mirror: put an earlier `lend_git` aside."""
        self._worktrees.share_git(workspace)

    @plain_os_errors("Reading the workspace")
    def state(self, workspace: Workspace) -> GitState:
        """What the agent left: commits beyond the base that change something, or uncommitted work."""
        self._worktrees.take_work(workspace)
        return self._work(workspace).state(workspace.base_sha)

    @plain_os_errors("Committing")
    def keep_work(self, workspace: Workspace, message: str) -> GitState:
        """The `state` as the agent left it; what it did not commit and git does not ignore is committed.

        Only after the agent's processes have ended: its stale index lock is removed. Work the agent did on
        another branch is brought to the task's branch if that is a plain fast-forward, else WorkspaceError.
        """
        self._worktrees.take_work(workspace)
        return self._work(workspace).keep(workspace.branch, workspace.base_sha, message)

    @plain_os_errors("Reviewing the change")
    def content(self, workspace: Workspace, auth: GitAuth | None, *, head: str | None = None) -> Content:
        """What a push of the task's branch, or of `head`, would bring beyond the remote's default branch.

        Compared with what the remote itself has said, not with what stands in the mirror. Fetches only when
        this process has not done so yet.
        """
        mirror, work = workspace.mirror, self._work(workspace)
        default = self._mirrors.trusted_heads(mirror, auth).get(workspace.default_branch)
        if default is None:
            raise WorkspaceError(f"{mirror.repo} has no branch {workspace.default_branch} any more.")
        return read_content(self._git, mirror, head or work.head_of(workspace.branch), default)

    @plain_os_errors("Looking at what would be pushed")
    def screen(
        self,
        workspace: Workspace,
        auth: GitAuth | None,
        scanner: Scanner,
        *,
        allowed: Collection[str] = (),
        issue: int | None = None,
    ) -> Screened:
        """What a push of the task's branch would send that must not leave; and the commit that this is about.

        All that the remote does not have is looked at, whatever the mirror says of it. `allowed` are keys of
        finds that a person has let pass; values that the scanner knows never pass. With `issue` it also says
        whether `reword` is needed. Raises WorkspaceError.
        """
        remote = self._mirrors.remote(workspace.mirror, auth)
        return self._work(workspace).screen(
            workspace.branch, remote, scanner, allowed=allowed, voice=self._voice(issue)
        )

    @plain_os_errors("Rewording commits")
    def reword(self, workspace: Workspace, auth: GitAuth | None, issue: int) -> str:
        """Have no commit that the remote lacks mention anybody, close another issue or be in another name.

        Trees, order and words stay. Returns the branch's commit. Raises WorkspaceError.
        """
        voice = self._voice(issue)
        assert voice is not None  # noqa: S101  there is an issue
        remote = self._mirrors.remote(workspace.mirror, auth)
        return self._work(workspace).reword(workspace.branch, remote, voice)

    def _voice(self, issue: int | None) -> Voice | None:
        name, email = self._git_user
        return None if issue is None else Voice(name=name, email=email, issue=issue)

    @plain_os_errors("Reading the difference")
    def difference(self, mirror: Mirror, base: str, head: str) -> str:
        """What changes between two commits, as a patch for people. Runs no program of the repository's."""
        options = ["--no-ext-diff", "--no-textconv", "--no-color", "--no-renames", "--stat", "--patch"]
        return self._git.read(mirror, "diff", *options, base, head, "--")

    @plain_os_errors("Pushing")
    def push(self, workspace: Workspace, auth: GitAuth | None, *, head: str | None = None) -> str:
        """Push the task's branch, or the commit `head` as it; returns the pushed commit. Safe to repeat.

        The remote's branch is replaced only while it stands where we last saw or pushed it: commits that
        somebody else pushed meanwhile are never overwritten, that is a WorkspaceError.
        """
        return self._work(workspace).push(workspace.branch, auth, head)

    @plain_os_errors("Releasing the workspace")
    def release(self, workspace: Workspace) -> bool:
        """Remove the worktree if nothing can be lost: clean, on its branch, head pushed. Else False."""
        return self._worktrees.release(workspace)

    @plain_os_errors("Looking at the workspace")
    def is_releasable(self, workspace: Workspace) -> bool:
        """Whether `release` would remove the worktree. Changes nothing."""
        return self._worktrees.is_releasable(workspace)

    @plain_os_errors("Moving the workspace to quarantine")
    def quarantine(self, workspace: Workspace, reason: str, *, now: datetime) -> Path:
        """Move the worktree away with everything in it, and free its branch. Returns the new place."""
        return self._worktrees.quarantine(workspace, reason, now)

    def stop(self) -> None:
        """End running network commands and refuse new ones (shutdown). Local commands end by themselves."""
        self._git.stop()

    def _work(self, workspace: Workspace) -> Work:
        return self._worktrees.work(workspace.mirror, workspace.path)
