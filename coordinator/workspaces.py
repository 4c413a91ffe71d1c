"""Owns every git command and every directory an agent works in: mirrors, worktrees, quarantine.

One bare mirror per repository, one worktree per task on the task's own branch. Everything here blocks: call
it in threads. Each mirror has one lock, for fetching and for changing its worktrees.

An agent writes where it likes, also in the mirror's `config` and `hooks`. So no git command here trusts
them: our files are put back before each command, hooks are off, the environment is clean, and a worktree
whose `.git` no longer points to our mirror is refused. The GitHub token is only in the environment of the
one command that needs it; it is never in a URL, an argument or a file.

Must not: decide what a run came to, talk to GitHub's API, read the clock for dates, or delete work. What is
dirty, unpushed, detached or not understood is moved to the quarantine directory, never removed.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path

from adw_modules.errors import WorkspaceError
from adw_modules.tasks.model import GitState

BLOCKED_FILE = "BLOCKED.md"
FETCH_REFSPEC = "+refs/heads/*:refs/remotes/origin/*"
NETWORK_TIMEOUT_SECONDS = 900.0  # the first fetch of a large repository; silence ends far sooner
LOCAL_TIMEOUT_SECONDS = 120.0

_RECORD_FILE = "coordinator.json"  # in the worktree's own git directory, so it lives exactly as long
_RECORD_FORMAT = 1
_NOTE_LINES = 20
_NOTE_BYTES = 4096

_REPO_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*/(?!\.{1,2}\Z)(?!.*\.git\Z)[A-Za-z0-9._-]+")
_TASK_PART = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9._-]+")
_BRANCH = re.compile(
    r"(?!.*\.\.)(?!.*\.lock(?:/|\Z))[A-Za-z0-9_][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.-]*)*"
)
_REMOTE_URL = re.compile(r"(?:https?|ssh|file)://\S+|/\S.*|[A-Za-z0-9._-]+@[A-Za-z0-9.-]+:\S+")
_SAYS_NOTHING = re.compile(
    r"fatal: Could not read from remote|Please make sure you have|and the repository exists"
)
_SHA = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")

# What git may inherit from the daemon: where programs, keys, proxies and certificates are. No credentials.
# fmt: off
_INHERITED = (
    "PATH", "HOME", "TMPDIR", "SSH_AUTH_SOCK", "SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO",
    "CURL_CA_BUNDLE", "http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy",
    "NO_PROXY",
)
# fmt: on

_FIXED_ENVIRONMENT = {
    "LC_ALL": "C.UTF-8",  # messages are read by us and shown to operators: one language
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ALLOW_PROTOCOL": "file:http:https:ssh",  # outranks protocol.* in any config: no `ext::`
    "GIT_SSH_COMMAND": "ssh -o BatchMode=yes",
    "GIT_EDITOR": ":",
    "GIT_PAGER": "cat",
}

# Command scope outranks the mirror's config, which an agent can write.
_FIXED_CONFIG = (
    ("core.hooksPath", os.devnull),
    ("core.fsmonitor", "false"),
    ("core.attributesFile", os.devnull),
    ("core.excludesFile", os.devnull),
    ("core.askPass", ""),
    ("credential.helper", ""),
    ("commit.gpgSign", "false"),
    ("push.gpgSign", "false"),
    ("submodule.recurse", "false"),
    ("gc.auto", "0"),  # collecting garbage beside running agents has lost objects elsewhere
    ("maintenance.auto", "false"),
    ("http.lowSpeedLimit", "1000"),
    ("http.lowSpeedTime", "60"),
)

# fmt: off
_FETCH = [
    "fetch", "--quiet", "--no-tags", "--prune", "--no-auto-maintenance", "--no-recurse-submodules",
    "--no-write-fetch-head",
]
_PUSH = ["push", "--quiet", "--porcelain", "--no-verify", "--no-follow-tags", "--recurse-submodules=no"]
_STATUS = [
    "--no-optional-locks", "status", "--porcelain=v2", "--branch", "--untracked-files=normal", "--no-renames",
    "--ignore-submodules=dirty",  # looking into one would read a config file that the agent may have written
]
# fmt: on


@dataclass(frozen=True, slots=True, kw_only=True)
class GitAuth:
    """Credentials for one remote over HTTP. GitHub takes any token as password of `x-access-token`."""

    secret: str = field(repr=False)
    username: str = "x-access-token"

    @property
    def header(self) -> str:
        pair = f"{self.username}:{self.secret}".encode()
        return f"Authorization: Basic {base64.b64encode(pair).decode()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror:
    """Our bare copy of one repository; its worktrees are the workspaces."""

    path: Path
    repo: str  # "owner/name"
    remote_url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """The directory one task works in, checked out on the task's branch."""

    path: Path
    branch: str
    default_branch: str  # what a pull request is opened against
    base_sha: str  # where the branch left the default branch: work is what lies beyond
    start_sha: str  # the branch's head when this attempt began
    mirror: Mirror


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tree:
    """A worktree that was checked just now: directory and mirror point to each other."""

    mirror: Mirror
    path: Path
    admin: Path  # its own git directory, <mirror>/worktrees/<id>


@dataclass(frozen=True, slots=True, kw_only=True)
class _Record:
    """What we remember of a worktree, in its git directory. Its absence means: half made."""

    branch: str
    default_branch: str
    base_sha: str
    start_sha: str
    remote_sha: str | None  # the branch on the remote as we last saw or pushed it; None: not there
    format: int = _RECORD_FORMAT


@dataclass(frozen=True, slots=True, kw_only=True)
class _Status:
    """One `git status`: where HEAD is, and whether anything is not committed."""

    head: str
    branch: str | None  # None: detached
    is_dirty: bool
    is_unmerged: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Refs:
    """The heads that decide where a workspace starts."""

    default_branch: str
    default: str
    local: str | None
    remote: str | None


@dataclass(slots=True)
class _Gate:
    """The lock of one mirror, and what its last fetch came to.

    One lock for both: at its end a fetch looks at the HEAD of every worktree, and fails on one half made.
    """

    lock: threading.Lock = field(default_factory=threading.Lock)
    fetch_began: float = float("-inf")
    fetch_error: str | None = None
    remote_head: str | None = None  # the name of the remote's default branch at that fetch
    is_checked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Finished:
    """A git process that has ended."""

    code: int
    out: str
    err: str


@contextmanager
def _plain_os_errors(doing: str) -> Iterator[None]:
    """Translate what the file system says (disk full, permission) into our one error."""
    try:
        yield
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        raise WorkspaceError(f"{doing} failed: {error.strerror or error}{place}") from error


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
        self._repos_dir = repos_dir.resolve()
        self._trees_dir = trees_dir.resolve()
        self._quarantine_dir = quarantine_dir.resolve()
        self._git = _Git(git_user, os.environ if environ is None else environ)
        self._lock = threading.Lock()
        self._gates: dict[Path, _Gate] = {}

    # Mirrors

    @_plain_os_errors("Making the mirror")
    def ensure_mirror(self, repo: str, remote_url: str, auth: GitAuth | None, *, now: datetime) -> Mirror:
        """The mirror of `repo` ("owner/name"); made with its first fetch when it is not there.

        It appears at its place only when that fetch has worked. What stands there and is no whole
        repository is moved to quarantine and made again. Raises WorkspaceError.
        """
        mirror = Mirror(path=self._mirror_path(repo), repo=repo, remote_url=_checked_url(remote_url))
        gate = self._gate(mirror)
        if gate.is_checked and self._is_whole(mirror, gate):
            return mirror  # without waiting for a fetch that somebody else is doing
        with gate.lock:
            if os.path.lexists(mirror.path) and not self._is_whole(mirror, gate):
                self._move_away(mirror.path, f"{mirror.path} is not a whole git repository.", now)
            if not os.path.lexists(mirror.path):
                self._make_mirror(mirror, auth)
            gate.is_checked = True
        return mirror

    @_plain_os_errors("Fetching")
    def fetch(self, mirror: Mirror, auth: GitAuth | None, *, not_older_than: float | None = None) -> None:
        """Bring the remote's branches into the mirror.

        A fetch that began after `not_older_than` (`time.monotonic()` seconds) will do for every caller that
        waited for it, also when it failed: then each gets the same error. None always fetches.
        """
        gate = self._gate(mirror)
        with gate.lock:
            if not_older_than is None or gate.fetch_began < not_older_than:
                gate.fetch_began, gate.fetch_error = time.monotonic(), None
                try:
                    gate.remote_head = self._fetch_with_head(mirror, auth)
                except WorkspaceError as error:
                    gate.fetch_error = str(error)
            if gate.fetch_error is not None:
                raise WorkspaceError(gate.fetch_error)

    def stop(self) -> None:
        """End running network commands and refuse new ones (shutdown). Local commands end by themselves."""
        self._git.stop()

    # Worktrees

    @_plain_os_errors("Preparing the workspace")
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
        path = self._tree_path(task_name)
        if not _BRANCH.fullmatch(branch):
            raise WorkspaceError(f"{branch!r} cannot be the name of a branch.")
        self.fetch(
            mirror, auth, not_older_than=time.monotonic() if not_older_than is None else not_older_than
        )
        refs = self._refs(mirror, branch, default_branch)
        with self._gate(mirror).lock:
            self._prune(mirror)
            kept = self._reuse(mirror, path, branch, refs, now) if os.path.lexists(path) else None
            return kept or self._create(mirror, path, branch, refs, now)

    def find(self, mirror: Mirror, task_name: str, branch: str) -> Workspace | None:
        """The task's worktree as an earlier `prepare` left it, for a restarted daemon; None if unusable."""
        try:
            tree = self._tree(mirror, self._tree_path(task_name))
            record = _read_record(tree)
        except WorkspaceError:
            return None
        return _workspace(tree, record) if record.branch == branch else None

    @_plain_os_errors("Reading the workspace")
    def state(self, workspace: Workspace) -> GitState:
        """What the agent left: commits beyond the base that change something, or uncommitted work."""
        tree = self._tree(workspace.mirror, workspace.path)
        status = self._status(tree)
        return GitState(
            has_changes=status.is_dirty or self._has_new_commits(tree, workspace.base_sha, status.head),
            head=status.head,
            base=workspace.base_sha,
            blocked_note=self._blocked_note(tree, workspace.base_sha),
        )

    @_plain_os_errors("Committing")
    def commit_leftovers(self, workspace: Workspace, message: str) -> bool:
        """Commit all that is neither committed nor ignored, on the task's branch; False if there is nothing.

        Only after the agent's processes have ended: its stale index lock is removed. Work the agent did on
        another branch is brought to the task's branch if that is a plain fast-forward, else WorkspaceError.
        """
        tree = self._tree(workspace.mirror, workspace.path)
        _clear_stale_locks(tree)
        if self._blocked_note(tree, workspace.base_sha) is not None:
            self._git.read(tree, "rm", "--cached", "--quiet", "--ignore-unmatch", "--", BLOCKED_FILE)
        status = self._status(tree)
        if status.is_unmerged:
            raise WorkspaceError("The agent left files with merge conflicts.")
        _refuse_rebase(tree)
        if status.branch != workspace.branch:
            self._bring_home(tree, workspace.branch)
        return status.is_dirty and self._commit_all(tree, message)

    @_plain_os_errors("Pushing")
    def push(self, workspace: Workspace, auth: GitAuth | None) -> str:
        """Push the task's branch; returns the pushed commit. Safe to repeat.

        The remote's branch is replaced only while it stands where we last saw or pushed it: commits that
        somebody else pushed meanwhile are never overwritten, that is a WorkspaceError.
        """
        tree = self._tree(workspace.mirror, workspace.path)
        record, branch = _read_record(tree), f"refs/heads/{workspace.branch}"
        head = self._git.read(tree, "rev-parse", "--verify", branch).strip()
        lease = f"--force-with-lease={branch}:{record.remote_sha or ''}"
        arguments = [*_PUSH, lease, workspace.mirror.remote_url, f"{head}:{branch}"]
        done = self._git.run(workspace.mirror, arguments, auth=auth, is_network=True)
        if done.code:
            raise WorkspaceError(_push_refusal(done, workspace, auth))
        _write_record(tree, replace(record, remote_sha=head))
        return head

    @_plain_os_errors("Releasing the workspace")
    def release(self, workspace: Workspace) -> bool:
        """Remove the worktree if nothing can be lost: clean, on its branch, head pushed. Else False."""
        mirror, branch = workspace.mirror, workspace.branch
        with self._gate(mirror).lock:
            try:
                tree = self._tree(mirror, workspace.path)
                status, record = self._status(tree), _read_record(tree)
            except WorkspaceError:
                return False
            is_pushed = status.branch == branch and status.head == record.remote_sha
            if status.is_dirty or not is_pushed or os.path.lexists(tree.path / BLOCKED_FILE):
                return False
            if self._git.run(mirror, ["worktree", "remove", "--", str(tree.path)]).code:
                return False  # git found something to lose after all
            self._git.read(mirror, "update-ref", "-d", f"refs/heads/{branch}", status.head)
            return True

    @_plain_os_errors("Moving the workspace to quarantine")
    def quarantine(self, workspace: Workspace, reason: str, *, now: datetime) -> Path:
        """Move the worktree away with everything in it, and free its branch. Returns the new place."""
        with self._gate(workspace.mirror).lock:
            return self._quarantine_tree(workspace.mirror, workspace.path, reason, now)

    # Making and checking mirrors

    def _mirror_path(self, repo: str) -> Path:
        if not _REPO_NAME.fullmatch(repo):
            raise WorkspaceError(f"{repo!r} is not a repository name of the form owner/name.")
        return _inside(self._repos_dir, Path(f"{repo}.git"))

    def _gate(self, mirror: Mirror) -> _Gate:
        with self._lock:
            return self._gates.setdefault(mirror.path, _Gate())

    def _is_whole(self, mirror: Mirror, gate: _Gate) -> bool:
        """The parts are there each time; git agrees once per process."""
        parts = (mirror.path / "objects", mirror.path / "refs")
        if not (mirror.path / "HEAD").is_file() or not all(_is_real_directory(part) for part in parts):
            return False
        return gate.is_checked or self._git.succeeds(mirror, "rev-parse", "--git-dir")

    def _make_mirror(self, mirror: Mirror, auth: GitAuth | None) -> None:
        """Under another name until the first fetch has worked: a killed clone leaves nothing half made."""
        making = self._repos_dir / ".making"  # no owner's name can begin with a dot
        making.mkdir(mode=0o700, parents=True, exist_ok=True)
        prefix = mirror.repo.replace("/", "+") + "+"
        for leftover in making.glob(f"{prefix}*"):
            shutil.rmtree(leftover, ignore_errors=True)  # a part of a copy; no worktree can hang on it
        temporary = replace(mirror, path=Path(tempfile.mkdtemp(prefix=prefix, dir=making)))
        try:
            self._git.read(temporary, "init", "--quiet", "--bare", "--template=", "--initial-branch=main")
            self._fetch_into(temporary, auth)
            mirror.path.parent.mkdir(mode=0o700, exist_ok=True)
            temporary.path.rename(mirror.path)
        finally:
            shutil.rmtree(temporary.path, ignore_errors=True)

    def _fetch_into(self, mirror: Mirror, auth: GitAuth | None) -> None:
        arguments = [*_FETCH, mirror.remote_url, FETCH_REFSPEC]
        done = self._git.run(mirror, arguments, auth=auth, is_network=True)
        if done.code and "necessary objects" in done.err and self._unhinge_damaged_heads(mirror):
            done = self._git.run(mirror, arguments, auth=auth, is_network=True)
        if done.code:
            raise WorkspaceError(f"Fetching {mirror.repo} failed: {_last_line(done.err, auth)}")

    def _fetch_with_head(self, mirror: Mirror, auth: GitAuth | None) -> str | None:
        """Fetch and, beside it, ask for the default branch's name, which git's fetch does not tell."""
        with ThreadPoolExecutor(max_workers=1) as beside:
            head = beside.submit(self._remote_head, mirror, auth)
            self._fetch_into(mirror, auth)
            return head.result()

    def _unhinge_damaged_heads(self, mirror: Mirror) -> bool:
        """One worktree whose HEAD is no commit (a killed `worktree add`) fails the fetch of all the others.

        Its HEAD is kept beside, and put on a branch that does not exist; the next attempt of that task finds
        the worktree unusable and quarantines it.
        """
        damaged = [admin for admin in _admins(mirror) if self._has_damaged_head(mirror, admin)]
        for admin in damaged:
            (admin / "HEAD").rename(admin / "HEAD.damaged")
            _write_text(admin / "HEAD", f"ref: refs/quarantine/{admin.name}\n")
        return bool(damaged)

    def _has_damaged_head(self, mirror: Mirror, admin: Path) -> bool:
        head = _read_text(admin / "HEAD")
        return not head.startswith("ref: ") and not self._git.succeeds(
            mirror, "cat-file", "-e", f"{head}^{{commit}}"
        )

    def _remote_head(self, mirror: Mirror, auth: GitAuth | None) -> str | None:
        """The name of the branch that the remote's HEAD stands on; None if there is no commit."""
        arguments = ["ls-remote", "--quiet", "--symref", mirror.remote_url, "HEAD"]
        done = self._git.run(mirror, arguments, auth=auth, is_network=True)
        if done.code:
            raise WorkspaceError(f"Reading the HEAD of {mirror.repo} failed: {_last_line(done.err, auth)}")
        found = re.search(r"^ref: refs/heads/(\S+)\tHEAD$", done.out, re.MULTILINE)
        return found[1] if found else None

    # Making and checking worktrees

    def _tree_path(self, task_name: str) -> Path:
        parts = task_name.split("/")
        if not all(_TASK_PART.fullmatch(part) for part in parts):
            raise WorkspaceError(f"{task_name!r} cannot be the name of a workspace.")
        path = _inside(self._trees_dir, Path(*parts))
        for parent in path.parents[: len(parts) - 1]:
            if os.path.lexists(parent / ".git"):
                raise WorkspaceError(f"{path} would be inside another workspace, {parent}.")
        return path

    def _tree(self, mirror: Mirror, path: Path) -> _Tree:
        """Check that path and mirror still point to each other, and that no link leads elsewhere."""
        if not path.is_relative_to(self._trees_dir):
            raise WorkspaceError(f"{path} is not inside {self._trees_dir}.")
        _inside(self._trees_dir, path.relative_to(self._trees_dir))
        admin = _pointed_admin(mirror, path)
        if admin is None:
            raise WorkspaceError(f"{path} is not a worktree of our mirror of {mirror.repo} (any more).")
        if _tree_path_of(admin) != path or _read_text(admin / "commondir") != "../..":
            raise WorkspaceError(f"Our mirror of {mirror.repo} does not know the worktree {path}.")
        return _Tree(mirror=mirror, path=path, admin=admin)

    def _refs(self, mirror: Mirror, branch: str, wanted_default: str | None) -> _Refs:
        defaults = [name for name in (wanted_default, self._gate(mirror).remote_head) if name is not None]
        heads = self._heads(mirror, branch, defaults)
        found = [name for name in defaults if f"refs/remotes/origin/{name}" in heads]
        if not found:
            raise WorkspaceError(
                f"{mirror.repo} has no commit on a default branch: push a first commit, then try again."
            )
        return _Refs(
            default_branch=found[0],
            default=heads[f"refs/remotes/origin/{found[0]}"],
            local=heads.get(f"refs/heads/{branch}"),
            remote=heads.get(f"refs/remotes/origin/{branch}"),
        )

    def _heads(self, mirror: Mirror, branch: str, defaults: list[str]) -> dict[str, str]:
        wanted = [f"refs/heads/{branch}", *(f"refs/remotes/origin/{name}" for name in (branch, *defaults))]
        listing = self._git.read(mirror, "for-each-ref", "--format=%(refname) %(objectname)", *wanted)
        return dict(line.split(" ") for line in listing.splitlines())

    def _prune(self, mirror: Mirror) -> None:
        """Forget worktrees whose directory is gone. Costs a git process only when there is one."""
        gone = [admin for admin in _admins(mirror) if not _tree_path_of(admin).exists()]
        for admin in gone:
            # Left by a `git worktree add` that was killed: we hold the lock, so nobody is adding now.
            if _read_text(admin / "locked") == "initializing":
                (admin / "locked").unlink()
        if any(not (admin / "locked").exists() for admin in gone):
            self._git.read(mirror, "worktree", "prune")

    def _reuse(self, mirror: Mirror, path: Path, branch: str, refs: _Refs, now: datetime) -> Workspace | None:
        """The task's earlier worktree, or None after it went to quarantine with the reason written down."""
        try:
            tree = self._tree(mirror, path)
            record = _read_record(tree)
            head = self._catch_up(tree, branch, record, refs.remote)
        except WorkspaceError as unusable:
            self._quarantine_tree(mirror, path, str(unusable), now)
            return None
        if self._blocked_note(tree, record.base_sha) is not None:
            # The question of an earlier attempt has been asked; left in place it would be asked for ever.
            shutil.move(path / BLOCKED_FILE, tree.admin / "BLOCKED.previous.md")
        record = replace(record, default_branch=refs.default_branch, start_sha=head, remote_sha=refs.remote)
        _write_record(tree, record)
        return _workspace(tree, record)

    def _catch_up(self, tree: _Tree, branch: str, record: _Record, remote: str | None) -> str:
        """The head after taking in what others pushed to the branch; raises if the tree cannot be used."""
        _clear_stale_locks(tree)
        _refuse_rebase(tree)
        status = self._status(tree)
        if branch not in (record.branch, status.branch) or record.branch != status.branch:
            raise WorkspaceError(f"HEAD is {status.branch or 'detached'}, not on {branch}.")
        if remote in (None, status.head, record.remote_sha):
            return status.head
        if not self._contains(tree.mirror, status.head, remote):
            self._git.read(tree, "merge", "--ff-only", "--quiet", remote)
            return remote
        return status.head

    def _create(self, mirror: Mirror, path: Path, branch: str, refs: _Refs, now: datetime) -> Workspace:
        start = self._start(mirror, branch, refs, now)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        add = ("worktree", "add", "--quiet", "--no-track", "-B", branch, "--", str(path), start)
        self._git.read(mirror, *add)
        record = _Record(
            branch=branch,
            default_branch=refs.default_branch,
            base_sha=self._fork_point(mirror, refs.default, start),
            start_sha=start,
            remote_sha=refs.remote,
        )
        tree = self._tree(mirror, path)
        _write_record(tree, record)
        return _workspace(tree, record)

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
        self._git.read(mirror, "update-ref", f"refs/quarantine/{_stamp(now)}/{branch}", local)
        return remote

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

    # Quarantine

    def _quarantine_tree(self, mirror: Mirror, path: Path, reason: str, now: datetime) -> Path:
        """Detach first, move last: after a crash in between, the next attempt moves the tree again."""
        place = self._free_place(path, now)
        admin = next((admin for admin in _admins(mirror) if _tree_path_of(admin) == path), None)
        if admin is not None:
            _write_text(admin / "locked", f"Quarantined by Coordinator: {reason}\n")  # keeps pruning off
            self._free_branch(mirror, admin)
            _write_text(admin / "gitdir", f"{place / '.git'}\n")
        return self._move_away(path, reason, now, place)

    def _free_branch(self, mirror: Mirror, admin: Path) -> None:
        """Leave HEAD at its commit but on no branch, so that a new worktree can have the branch."""
        if not _read_text(admin / "HEAD").startswith("ref: "):
            return
        tree = _Tree(mirror=mirror, path=mirror.path, admin=admin)
        done = self._git.run(tree, ["rev-parse", "--verify", "--quiet", "HEAD^{commit}"])
        _write_text(admin / "HEAD", done.out if done.code == 0 else f"ref: refs/quarantine/{admin.name}\n")

    def _free_place(self, path: Path, now: datetime) -> Path:
        self._quarantine_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        root = next(root for root in (self._trees_dir, self._repos_dir) if path.is_relative_to(root))
        name = f"{_stamp(now)}-{'_'.join(path.relative_to(root).parts)}"
        places = (self._quarantine_dir / (f"{name}.{n}" if n else name) for n in range(10_000))
        return next(place for place in places if not os.path.lexists(place))

    def _move_away(self, path: Path, reason: str, now: datetime, place: Path | None = None) -> Path:
        place = place or self._free_place(path, now)
        _write_text(place.with_name(f"{place.name}.reason.txt"), f"{reason}\nIt was at {path}\n")
        shutil.move(path, place)  # a rename, or a copy first where the two are on different file systems
        return place

    # What the agent left

    def _status(self, tree: _Tree) -> _Status:
        lines = self._git.read(tree, *_STATUS).splitlines()
        headers = dict(line[2:].split(" ", 1) for line in lines if line.startswith("# "))
        entries = [line for line in lines if not line.startswith("# ")]
        head, branch = headers.get("branch.oid", ""), headers.get("branch.head", "(detached)")
        if not _SHA.fullmatch(head):
            raise WorkspaceError(f"HEAD in {tree.path} stands on no commit.")
        return _Status(
            head=head,
            branch=None if branch == "(detached)" else branch,
            is_dirty=bool(entries),
            is_unmerged=any(line.startswith("u ") for line in entries),
        )

    def _has_new_commits(self, tree: _Tree, base: str, head: str) -> bool:
        """Commits beyond the base that leave other files than the base has. Empty commits change nothing."""
        if head == base:
            return False
        log = self._git.read(tree, "log", "--boundary", "--format=%H %T", f"{base}..{head}", "--")
        trees = dict(line.split(" ") for line in log.splitlines())
        return head in trees and trees[head] != trees.get(base)

    def _blocked_note(self, tree: _Tree, base: str) -> str | None:
        """The first lines of BLOCKED.md, unless the project itself has such a file."""
        text = _read_note(tree.path / BLOCKED_FILE)
        if text is None or self._git.succeeds(tree, "cat-file", "-e", f"{base}:{BLOCKED_FILE}"):
            return None
        return text or f"({BLOCKED_FILE} is empty)"

    def _bring_home(self, tree: _Tree, branch: str) -> None:
        """The agent worked on a branch of its own, or detached. Nothing in the files changes."""
        ours = f"refs/heads/{branch}"
        if not self._git.succeeds(tree, "merge-base", "--is-ancestor", ours, "HEAD"):
            raise WorkspaceError(f"The agent left {branch} for a commit that does not contain its work.")
        self._git.read(tree, "update-ref", ours, "HEAD")
        self._git.read(tree, "symbolic-ref", "HEAD", ours)

    def _commit_all(self, tree: _Tree, message: str) -> bool:
        self._git.read(tree, "add", "--all")
        arguments = ["commit", "--quiet", "--no-verify", "--cleanup=verbatim", "--file=-"]
        done = self._git.run(tree, arguments, stdin=message)
        if done.code == 0:
            return True
        if done.code == 1 and not self._status(tree).is_dirty:
            return False  # only time stamps or line endings differed: nothing to record
        raise WorkspaceError(f"Committing the agent's work failed: {_last_line(done.err or done.out)}")


class _Git:
    """The only place that starts git: clean environment, our config, bounded time."""

    def __init__(self, user: tuple[str, str], environ: Mapping[str, str]) -> None:
        self._user = user
        self._environment = {name: environ[name] for name in _INHERITED if name in environ}
        self._environment |= _FIXED_ENVIRONMENT
        self._lock = threading.Lock()
        self._network_processes: set[subprocess.Popen[str]] = set()
        self._is_stopped = False

    def read(self, where: Mirror | _Tree, *arguments: str) -> str:
        """What the command prints. Raises WorkspaceError if it fails."""
        done = self.run(where, list(arguments))
        if done.code:
            raise WorkspaceError(f"git {_verb(arguments)} failed in {where.path}: {_last_line(done.err)}")
        return done.out

    def succeeds(self, where: Mirror | _Tree, *arguments: str) -> bool:
        """For commands that answer yes or no by their exit code."""
        return self.run(where, list(arguments)).code == 0

    def run(
        self,
        where: Mirror | _Tree,
        arguments: list[str],
        *,
        auth: GitAuth | None = None,
        is_network: bool = False,
        stdin: str = "",
    ) -> _Finished:
        """Run to the end, whatever the exit code. Raises WorkspaceError after the time limit."""
        mirror = where.mirror if isinstance(where, _Tree) else where
        _seal(mirror, self._user)
        environment = self._environment | _config_environment(mirror, auth) | _place_environment(where)
        process = self._start(arguments, where.path, environment, is_network=is_network)
        try:
            limit = NETWORK_TIMEOUT_SECONDS if is_network else LOCAL_TIMEOUT_SECONDS
            out, err = process.communicate(stdin, limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # git's helpers hold the pipes: end them too
            process.communicate()
            raise WorkspaceError(f"git {_verb(arguments)} did not end in time and was stopped.") from None
        finally:
            with self._lock:
                self._network_processes.discard(process)
        return _Finished(code=process.returncode, out=out, err=err)

    def stop(self) -> None:
        with self._lock:
            self._is_stopped = True
            for process in self._network_processes:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    def _start(
        self, arguments: list[str], cwd: Path, environment: dict[str, str], *, is_network: bool
    ) -> subprocess.Popen[str]:
        with self._lock:
            if is_network and self._is_stopped:
                raise WorkspaceError(f"git {_verb(arguments)} was not started: Coordinator is stopping.")
            process = subprocess.Popen(
                ["git", *arguments],
                cwd=cwd,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
            if is_network:
                self._network_processes.add(process)
            return process


def _place_environment(where: Mirror | _Tree) -> dict[str, str]:
    """Say where the repository is, so that git never follows a `.git` that an agent put somewhere."""
    if isinstance(where, Mirror):
        return {"GIT_DIR": str(where.path)}
    return {"GIT_DIR": str(where.admin), "GIT_WORK_TREE": str(where.path)}


def _config_environment(mirror: Mirror, auth: GitAuth | None) -> dict[str, str]:
    """Settings for one command by environment: in argv every process could read the header."""
    settings = list(_FIXED_CONFIG)
    if auth is not None and mirror.remote_url.startswith(("https://", "http://")):
        settings.append((f"http.{mirror.remote_url}.extraHeader", auth.header))
    environment = {"GIT_CONFIG_COUNT": str(len(settings))}
    for index, (key, value) in enumerate(settings):
        environment[f"GIT_CONFIG_KEY_{index}"] = key
        environment[f"GIT_CONFIG_VALUE_{index}"] = value
    return environment


def _verb(arguments: list[str] | tuple[str, ...]) -> str:
    return next(argument for argument in arguments if not argument.startswith("-"))


def _last_line(text: str, auth: GitAuth | None = None) -> str:
    """The last line of git's complaint that says something, without secrets."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not _SAYS_NOTHING.match(line)]
    told = [line for line in lines if line.startswith(("fatal:", "error:"))] or lines
    line = re.sub(r"^(fatal|error): ", "", told[-1]) if told else "git said nothing"
    for secret in (auth.secret, auth.header.rsplit(" ", 1)[1]) if auth else ():
        line = line.replace(secret, "[redacted]") if secret else line
    return line[:500]


def _push_refusal(done: _Finished, workspace: Workspace, auth: GitAuth | None) -> str:
    what = f"Pushing {workspace.branch} to {workspace.mirror.repo} failed"
    if "(stale info)" in done.out:
        return f"{what}: somebody else has pushed to that branch; nothing was overwritten."
    refused = re.search(r"^!\t\S+\t(.*)$", done.out, re.MULTILINE)
    if refused is None:
        return f"{what}: {_last_line(done.err, auth)}"
    said = [line for line in done.err.splitlines() if line.startswith("remote:") and line[7:].strip()]
    return f"{what}: {refused[1]}" + (f" {_last_line(said[-1], auth)}" if said else "")


# Names, paths, addresses


def _checked_url(url: str) -> str:
    """Refuse what git would execute, take for an option, or show with a password in it."""
    if not _REMOTE_URL.fullmatch(url) or any(ord(character) < 32 for character in url):
        raise WorkspaceError(f"{url!r} is not a git remote (use https, ssh, file or an absolute path).")
    if re.match(r"https?://[^/]*@", url):
        raise WorkspaceError("A remote's address must not hold a user or token: set the token's variable.")
    return url


def _inside(root: Path, relative: Path) -> Path:
    """`root/relative` if no part of it below root is a symbolic link; root itself is resolved already."""
    path = root
    for part in relative.parts:
        path = path / part
        if part == ".." or path.is_symlink():
            raise WorkspaceError(f"{path} is a link; Coordinator does not leave {root} by links.")
    return path


def _is_real_directory(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _stamp(now: datetime) -> str:
    return now.strftime("%Y%m%dT%H%M%SZ")


# Files of ours in places that agents can write


def _seal(mirror: Mirror, user: tuple[str, str]) -> None:
    """Put back the mirror's config and ignore list if anybody changed them; two small reads if not."""
    _restore(mirror.path / "config", _mirror_config(mirror.remote_url, user))
    _restore(mirror.path / "info" / "exclude", f"/{BLOCKED_FILE}\n")
    (mirror.path / "info" / "attributes").unlink(missing_ok=True)


def _restore(path: Path, text: str) -> None:
    try:
        if not path.is_symlink() and path.read_text() == text:
            return
    except (FileNotFoundError, UnicodeDecodeError):
        path.parent.mkdir(exist_ok=True)
    _write_text(path, text)


def _mirror_config(remote_url: str, user: tuple[str, str]) -> str:
    """The mirror's config, byte for byte. Agents read it too: an identity, and nowhere to push to."""
    name, email = user
    return f"""\
# Written by Coordinator before each of its git commands; changes do not last.
[core]
\trepositoryformatversion = 0
\tfilemode = true
\tbare = true
\tlogAllRefUpdates = true
[user]
\tname = {_quoted(name)}
\temail = {_quoted(email)}
[remote "origin"]
\turl = {_quoted(remote_url)}
\tpushurl = {os.devnull}
\tfetch = {FETCH_REFSPEC}
\ttagOpt = --no-tags
[gc]
\tauto = 0
[maintenance]
\tauto = false
"""


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
    return f'"{escaped}"'


def _write_text(path: Path, text: str) -> None:
    """Whole or not at all, and never through a link that somebody put there."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _read_text(path: Path) -> str:
    """The stripped text of a small file; empty when it is missing or not a plain file."""
    if path.is_symlink() or not path.is_file():
        return ""
    return path.read_text(errors="replace").strip()


def _read_note(path: Path) -> str | None:
    """The first lines of a note; None without a plain file there (a link could show us any file)."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return None
        text = file.read(_NOTE_BYTES).decode(errors="replace")
    return "\n".join(text.splitlines()[:_NOTE_LINES]).strip()


def _write_record(tree: _Tree, record: _Record) -> None:
    _write_text(tree.admin / _RECORD_FILE, json.dumps(asdict(record)) + "\n")


def _read_record(tree: _Tree) -> _Record:
    try:
        record = _Record(**json.loads(_read_text(tree.admin / _RECORD_FILE)))
    except (ValueError, TypeError) as error:
        raise WorkspaceError(f"{tree.path} was never finished: it has no record of its base.") from error
    shas = (record.base_sha, record.start_sha, record.remote_sha or record.base_sha)
    if record.format != _RECORD_FORMAT or not all(_SHA.fullmatch(str(sha)) for sha in shas):
        raise WorkspaceError(f"The record of the base of {tree.path} is damaged.")
    return record


def _workspace(tree: _Tree, record: _Record) -> Workspace:
    return Workspace(
        path=tree.path,
        branch=record.branch,
        default_branch=record.default_branch,
        base_sha=record.base_sha,
        start_sha=record.start_sha,
        mirror=tree.mirror,
    )


def _clear_stale_locks(tree: _Tree) -> None:
    """An agent killed inside git leaves these; every process of it is gone when we get here."""
    for name in ("index.lock", "HEAD.lock"):
        (tree.admin / name).unlink(missing_ok=True)


def _refuse_rebase(tree: _Tree) -> None:
    if (tree.admin / "rebase-merge").exists() or (tree.admin / "rebase-apply").exists():
        raise WorkspaceError("The agent left a rebase unfinished.")


# The links between a mirror and its worktrees: see gitrepository-layout(5)


def _admins(mirror: Mirror) -> list[Path]:
    folder = mirror.path / "worktrees"
    if not _is_real_directory(folder):
        return []
    return [entry for entry in folder.iterdir() if _is_real_directory(entry)]


def _tree_path_of(admin: Path) -> Path:
    """The worktree that a git directory below `worktrees/` belongs to."""
    return Path(_read_text(admin / "gitdir")).parent


def _pointed_admin(mirror: Mirror, path: Path) -> Path | None:
    """Where `path/.git` points, if that is the git directory of a worktree of this mirror."""
    text = _read_text(path / ".git")
    admin = Path(text.removeprefix("gitdir: "))
    is_ours = text.startswith("gitdir: ") and admin.parent == mirror.path / "worktrees"
    return admin if is_ours and _is_real_directory(admin) else None
