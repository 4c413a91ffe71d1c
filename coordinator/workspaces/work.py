"""What an agent left in a worktree: reading it, committing the rest, pushing it.

Must not decide what a run came to, nor remove or move anything.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace

from adw_modules.errors import WorkspaceError
from adw_modules.security.guarded import SUBMODULE
from adw_modules.security.leaks import Scanner
from adw_modules.tasks.messages import Voice
from adw_modules.tasks.model import GitState
from coordinator.faultpoints import Point, reached
from coordinator.workspaces.files import read_note
from coordinator.workspaces.git import PUSH_REMOTE, SHA, Finished, Git, GitAuth, last_line
from coordinator.workspaces.outgoing import Remote, Screen, Screened
from coordinator.workspaces.places import BLOCKED_FILE, Tree
from coordinator.workspaces.records import read_record, write_record
from coordinator.workspaces.refs import commit_at
from coordinator.workspaces.rewording import rewrite

# fmt: off
_PUSH = ["push", "--quiet", "--porcelain", "--no-verify", "--no-follow-tags", "--recurse-submodules=no"]
_STATUS = [
    "--no-optional-locks", "status", "--porcelain=v2", "--branch", "--untracked-files=normal", "--no-renames",
    "--ignore-submodules=dirty",  # looking into one would read a config file that the agent may have written
]
# fmt: on
_SUBMODULE_MODE = (0o160000).to_bytes(4)  # as an entry of the index has it, see gitformat-index(5)
_SPLIT_INDEX = b"link"  # the other entries are in another file


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """One `git status`: where HEAD is, and whether anything is not committed."""

    head: str
    branch: str | None  # None: detached
    is_dirty: bool
    is_unmerged: bool


class Work:
    """The work in one worktree that was checked just now."""

    def __init__(self, git: Git, tree: Tree) -> None:
        self._git = git
        self.tree = tree

    def state(self, base: str) -> GitState:
        """Whether there is work beyond the commit `base`, and whether the agent asks something."""
        return self._judge(self.status(), base)

    def keep(self, branch: str, base: str, message: str) -> GitState:
        """`state`; and if there is work, what is neither committed nor ignored is committed on `branch`."""
        status = self.status()
        state = self._judge(status, base)
        if state.has_changes:
            self.clear_stale_locks()
            self._put_in_order(self._without_note(state) or status, branch, message)
        return state

    def screen(
        self,
        branch: str,
        remote: Remote,
        scanner: Scanner,
        *,
        allowed: Collection[str] = (),
        voice: Voice | None = None,
    ) -> Screened:
        """What a push of `branch` would send that must not leave."""
        screen = Screen(self._git, self.tree.mirror, remote, scanner, allowed=allowed, voice=voice)
        return screen.look_at(self.head_of(branch))

    def reword(self, branch: str, remote: Remote, voice: Voice) -> str:
        """Put others in the place of commits of `branch` that may not leave as they are; its new head."""
        old = self.head_of(branch)
        new = rewrite(self._git, self.tree.mirror, old, remote, voice)
        if new != old:
            self._git.read(self.tree.mirror, "update-ref", f"refs/heads/{branch}", new, old)
        return new

    def head_of(self, branch: str) -> str:
        """The commit that `branch` stands on. Raises WorkspaceError if there is none."""
        mirror = self.tree.mirror
        head = commit_at(self._git, mirror, f"refs/heads/{branch}")
        if head is None:
            raise WorkspaceError(f"Pushing {branch} to {mirror.repo} failed: there is no such branch.")
        return head

    def push(self, branch: str, auth: GitAuth | None, head: str | None = None) -> str:
        """Push `branch`, or that commit as it, over what we last saw there; returns the pushed commit."""
        mirror, record, ref = self.tree.mirror, read_record(self.tree), f"refs/heads/{branch}"
        head = head or self.head_of(branch)
        lease = f"--force-with-lease={ref}:{record.remote_sha or ''}"
        arguments = [*_PUSH, lease, PUSH_REMOTE, f"{head}:{ref}"]
        done = self._git.run(mirror, arguments, auth=auth, is_network=True)
        if done.code:
            raise WorkspaceError(f"Pushing {branch} to {mirror.repo} failed: {_refusal(done, auth)}")
        reached(Point.PUSH_UNRECORDED)
        write_record(self.tree, replace(record, remote_sha=head))
        return head

    # Reading

    def _judge(self, status: Status, base: str) -> GitState:
        return GitState(
            has_changes=status.is_dirty or self._has_new_commits(base, status.head),
            head=status.head,
            base=base,
            blocked_note=self.blocked_note(base),
        )

    def status(self) -> Status:
        """Raises WorkspaceError when HEAD stands on no commit."""
        lines = self._git.read(self.tree, *_STATUS).splitlines()
        headers = dict(line[2:].split(" ", 1) for line in lines if line.startswith("# "))
        entries = [line for line in lines if not line.startswith("# ")]
        head, branch = headers.get("branch.oid", ""), headers.get("branch.head", "(detached)")
        if not SHA.fullmatch(head):
            raise WorkspaceError(f"HEAD in {self.tree.path} stands on no commit.")
        return Status(
            head=head,
            branch=None if branch == "(detached)" else branch,
            is_dirty=bool(entries),
            is_unmerged=any(line.startswith("u ") for line in entries),
        )

    def is_all_committed(self) -> bool:
        """Whether nothing is lost with the files. A repository inside may hold anything: then it is not."""
        try:
            return not self.status().is_dirty and not self._repositories_inside()
        except WorkspaceError:
            return False

    def blocked_note(self, base: str) -> str | None:
        """The first lines of BLOCKED.md, unless the project itself has such a file."""
        text = read_note(self.tree.path / BLOCKED_FILE)
        if text is None or self._git.succeeds(self.tree, "cat-file", "-e", f"{base}:{BLOCKED_FILE}"):
            return None
        return text or f"({BLOCKED_FILE} is empty)"

    def _has_new_commits(self, base: str, head: str) -> bool:
        """Commits beyond the base that leave other files than the base has. Empty commits change nothing."""
        if head == base:
            return False
        log = self._git.read(self.tree, "log", "--boundary", "--format=%H %T", f"{base}..{head}", "--")
        trees = dict(line.split(" ") for line in log.splitlines())
        return head in trees and trees[head] != trees.get(base)

    # Putting in order

    def clear_stale_locks(self) -> None:
        """An agent killed inside git leaves these; every process of it is gone when we get here."""
        for name in ("index.lock", "HEAD.lock"):
            (self.tree.admin / name).unlink(missing_ok=True)

    def refuse_rebase(self) -> None:
        if any((self.tree.admin / name).exists() for name in ("rebase-merge", "rebase-apply")):
            raise WorkspaceError("The agent left a rebase unfinished.")

    def _without_note(self, state: GitState) -> Status | None:
        """The status after BLOCKED.md, if it is a question to us, was taken out of what is committed next."""
        if state.blocked_note is None:
            return None
        self._git.read(self.tree, "rm", "--cached", "--quiet", "--ignore-unmatch", "--", BLOCKED_FILE)
        return self.status()

    def _put_in_order(self, status: Status, branch: str, message: str) -> None:
        if status.is_unmerged:
            raise WorkspaceError("The agent left files with merge conflicts.")
        self.refuse_rebase()
        if status.branch != branch:
            self._bring_home(branch)
        if status.is_dirty:
            self._commit_all(message)

    def _bring_home(self, branch: str) -> None:
        """The agent worked on a branch of its own, or detached. Nothing in the files changes."""
        ref = f"refs/heads/{branch}"
        if not self._git.succeeds(self.tree, "merge-base", "--is-ancestor", ref, "HEAD"):
            raise WorkspaceError(f"The agent left {branch} for a commit that does not contain its work.")
        self._git.read(self.tree, "update-ref", ref, "HEAD")
        self._git.read(self.tree, "symbolic-ref", "HEAD", ref)

    def _commit_all(self, message: str) -> None:
        self._stage_all()
        reached(Point.WORK_STAGED)
        arguments = ["commit", "--quiet", "--no-verify", "--cleanup=verbatim", "--file=-"]
        done = self._git.run(self.tree, arguments, stdin=message)
        if done.code == 1 and not self.status().is_dirty:
            return  # only time stamps or line endings differed: nothing to record
        if done.code:
            raise WorkspaceError(f"Committing the agent's work failed: {last_line(done.err or done.out)}")

    def _stage_all(self) -> None:
        """`git add --all` that does not look into repositories inside, and so runs nothing their config says.

        Of those that the index knows, it takes the commit they stand on; that only reads a ref.
        """
        inner = self._repositories_inside()
        excepted = [f":(top,exclude,literal){path}" for path in inner]
        self._git.read(self.tree, "add", "--all", *(["--", ":(top)", *excepted] if inner else []))
        if inner:
            paths = "".join(f"{path}\0" for path in inner)
            self._git.read_bytes(self.tree, ["update-index", "-z", "--add", "--remove", "--stdin"], paths)

    def _repositories_inside(self) -> list[str]:
        """The submodules of the index. git is asked only where the file's bytes allow for one."""
        index = self.tree.admin / "index"
        data = index.read_bytes() if index.is_file() and not index.is_symlink() else _SUBMODULE_MODE
        if _SUBMODULE_MODE not in data and _SPLIT_INDEX not in data:
            return []
        entries = self._git.read(self.tree, "ls-files", "--stage", "-z").split("\0")
        return [entry.partition("\t")[2] for entry in entries if entry.startswith(f"{SUBMODULE} ")]


def _refusal(done: Finished, auth: GitAuth | None) -> str:
    """Why a push was refused, by us, by git or by the remote."""
    if "(stale info)" in done.out:
        return "somebody else has pushed to that branch; nothing was overwritten."
    refused = re.search(r"^!\t\S+\t(.*)$", done.out, re.MULTILINE)
    if refused is None:
        return last_line(done.err, auth)
    said = [line for line in done.err.splitlines() if line.startswith("remote:") and line[7:].strip()]
    return refused[1] + (f" {last_line(said[-1], auth)}" if said else "")
