"""Bare mirrors of the repositories: making, checking and fetching, and the one lock that each has.

The lock is for fetches and for changing worktrees alike: at its end a fetch looks at the HEAD of every
worktree, and fails on one half made.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from adw_modules.errors import WorkspaceError
from adw_modules.security.names import is_full_name
from coordinator.faultpoints import Point, reached
from coordinator.workspaces.files import inside, is_real_directory, read_text, write_text
from coordinator.workspaces.git import FETCH_REFSPEC, Git, GitAuth, last_line, own_side
from coordinator.workspaces.outgoing import Remote
from coordinator.workspaces.places import Mirror, admins_of
from coordinator.workspaces.quarantine import Quarantine

_REMOTE_URL = re.compile(r"(?:https?|ssh|file)://\S+|/\S.*|[A-Za-z0-9._-]+@[A-Za-z0-9.-]+:\S+")

# fmt: off
_FETCH = [
    "fetch", "--quiet", "--no-tags", "--prune", "--no-auto-maintenance", "--no-recurse-submodules",
    "--no-write-fetch-head",
]
# fmt: on


@dataclass(slots=True)
class _Gate:
    """The lock of one mirror, and what its last fetch came to."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    fetch_began: float = float("-inf")
    fetch_error: str | None = None
    remote_head: str | None = None  # the name of the remote's default branch at that fetch
    remote_heads: dict[str, str] | None = None  # all its branches at that fetch; None: not asked yet
    is_checked: bool = False


class Mirrors:
    """All mirrors below one directory."""

    def __init__(self, directory: Path, git: Git, quarantine: Quarantine) -> None:
        self._directory = directory
        self._git = git
        self._quarantine = quarantine
        self._lock = threading.Lock()
        self._gates: dict[Path, _Gate] = {}

    def ensure(self, repo: str, remote_url: str, auth: GitAuth | None, now: datetime) -> Mirror:
        mirror = Mirror(path=self._path(repo), repo=repo, remote_url=_checked_url(remote_url))
        gate = self._gate(mirror)
        if gate.is_checked and self._is_whole(mirror, gate):
            return mirror  # without waiting for a fetch that somebody else is doing
        with gate.lock:
            if os.path.lexists(mirror.path) and not self._is_whole(mirror, gate):
                self._quarantine.take(mirror.path, f"{mirror.path} is not a whole git repository.", now)
            if not os.path.lexists(mirror.path):
                self._make(mirror, auth)
            gate.is_checked = True
        return mirror

    def fetch(self, mirror: Mirror, auth: GitAuth | None, not_older_than: float | None) -> None:
        gate = self._gate(mirror)
        with gate.lock:
            if not_older_than is None or gate.fetch_began < not_older_than:
                gate.fetch_began, gate.fetch_error = time.monotonic(), None
                try:
                    gate.remote_head, gate.remote_heads = self._catch_up(mirror, auth)
                except WorkspaceError as error:
                    gate.fetch_error = str(error)
            if gate.fetch_error is not None:
                raise WorkspaceError(gate.fetch_error)

    def lock(self, mirror: Mirror) -> threading.Lock:
        """For whoever changes the mirror's worktrees."""
        return self._gate(mirror).lock

    def remote_head(self, mirror: Mirror) -> str | None:
        """The name of the remote's default branch at the last fetch; None if it has no commit."""
        return self._gate(mirror).remote_head

    def remote(self, mirror: Mirror, auth: GitAuth | None) -> Remote:
        """What the remote itself has said that it holds: at the last fetch, or else now."""
        gate = self._gate(mirror)
        if gate.remote_heads is None:
            with gate.lock:
                gate.remote_head, gate.remote_heads = self._ask_heads(mirror, auth)
        default = gate.remote_heads.get(gate.remote_head or "")
        return Remote(heads=frozenset(gate.remote_heads.values()), default=default)

    def trusted_heads(self, mirror: Mirror, auth: GitAuth | None) -> dict[str, str]:
        """The remote's branches as it told us itself, by name; an agent can write the mirror's refs."""
        if self._gate(mirror).remote_heads is None:
            self.fetch(mirror, auth, None)
        return dict(self._gate(mirror).remote_heads or {})

    # Making and checking

    def _path(self, repo: str) -> Path:
        if not is_full_name(repo):
            raise WorkspaceError(f"{repo!r} is not a repository name of the form owner/name.")
        return inside(self._directory, Path(f"{repo}.git"))

    def _gate(self, mirror: Mirror) -> _Gate:
        with self._lock:
            return self._gates.setdefault(mirror.path, _Gate())

    def _is_whole(self, mirror: Mirror, gate: _Gate) -> bool:
        """The parts are there each time; git agrees once per process."""
        parts = (mirror.path / "objects", mirror.path / "refs")
        if not (mirror.path / "HEAD").is_file() or not all(is_real_directory(part) for part in parts):
            return False
        return gate.is_checked or self._git.succeeds(mirror, "rev-parse", "--git-dir")

    def _make(self, mirror: Mirror, auth: GitAuth | None) -> None:
        """Under another name until the first fetch has worked: a killed clone leaves nothing half made."""
        making = self._directory / ".making"  # no owner's name can begin with a dot
        making.mkdir(mode=0o700, parents=True, exist_ok=True)
        prefix = mirror.repo.replace("/", "+") + "+"
        for leftover in making.glob(f"{prefix}*"):
            shutil.rmtree(leftover, ignore_errors=True)  # a part of a copy; no worktree can hang on it
        temporary = replace(mirror, path=Path(tempfile.mkdtemp(prefix=prefix, dir=making)))
        try:
            _lay_out(temporary)
            self._fetch_branches(temporary, auth)
            reached(Point.MIRROR_FETCHED)
            mirror.path.parent.mkdir(mode=0o700, exist_ok=True)
            temporary.path.rename(mirror.path)
        finally:
            shutil.rmtree(temporary.path, ignore_errors=True)
            shutil.rmtree(own_side(temporary), ignore_errors=True)

    # Fetching

    def _catch_up(self, mirror: Mirror, auth: GitAuth | None) -> tuple[str | None, dict[str, str]]:
        """Fetch if the remote's branches differ from ours. Returns the name of its default branch, and all.

        Asking first costs less than a fetch, and only this tells where the remote's HEAD stands.
        """
        with ThreadPoolExecutor(max_workers=1) as beside:
            ours = beside.submit(self._tracking_heads, mirror)
            default_branch, theirs = self._ask_heads(mirror, auth)
            if ours.result() != theirs:
                self._fetch_branches(mirror, auth)
        return default_branch, theirs

    def _fetch_branches(self, mirror: Mirror, auth: GitAuth | None) -> None:
        arguments = [*_FETCH, mirror.remote_url, FETCH_REFSPEC]
        done = self._git.run(mirror, arguments, auth=auth, is_network=True)
        if done.code and self._can_try_again(mirror, done.err):
            done = self._git.run(mirror, arguments, auth=auth, is_network=True)
        if done.code:
            raise WorkspaceError(f"Fetching {mirror.repo} failed: {last_line(done.err, auth)}")

    def _can_try_again(self, mirror: Mirror, complaint: str) -> bool:
        """Meanwhile a push of ours, or an agent's fetch, moved the same branch; or a worktree is damaged."""
        return "cannot lock ref" in complaint or (
            "necessary objects" in complaint and self._unhinge_damaged_heads(mirror)
        )

    def _ask_heads(self, mirror: Mirror, auth: GitAuth | None) -> tuple[str | None, dict[str, str]]:
        """The branch that the remote's HEAD stands on (None: there is no commit), and all its branches."""
        arguments = ["ls-remote", "--quiet", "--symref", mirror.remote_url, "HEAD", "refs/heads/*"]
        done = self._git.run(mirror, arguments, auth=auth, is_network=True)
        if done.code:
            raise WorkspaceError(f"Fetching {mirror.repo} failed: {last_line(done.err, auth)}")
        default = re.search(r"^ref: refs/heads/(\S+)\tHEAD$", done.out, re.MULTILINE)
        heads = re.findall(r"^(\w+)\trefs/heads/(\S+)$", done.out, re.MULTILINE)
        return default[1] if default else None, {name: sha for sha, name in heads}

    def _tracking_heads(self, mirror: Mirror) -> dict[str, str] | None:
        """The remote's branches as the mirror has them; None if one stands on an object that is missing."""
        listing = "--format=%(objectname) %(objecttype) %(refname:lstrip=3) %(symref)"
        done = self._git.run(mirror, ["for-each-ref", listing, "refs/remotes/origin/"])
        if done.code:
            return None
        # Symbolic ones are of an agent's making, as `origin/HEAD`, and a fetch leaves them alone.
        refs = (line.split(" ") for line in done.out.splitlines())
        return {name: sha for sha, _, name, symref in refs if not symref}

    def _unhinge_damaged_heads(self, mirror: Mirror) -> bool:
        """One worktree whose HEAD is no commit (a killed `worktree add`) fails the fetch of all the others.

        Its HEAD is kept beside, and put on a branch that does not exist; the next attempt of that task finds
        the worktree unusable and quarantines it.
        """
        damaged = [admin for admin in admins_of(mirror) if self._has_damaged_head(mirror, admin)]
        for admin in damaged:
            (admin / "HEAD").rename(admin / "HEAD.damaged")
            write_text(admin / "HEAD", f"ref: refs/quarantine/{admin.name}\n")
        return bool(damaged)

    def _has_damaged_head(self, mirror: Mirror, admin: Path) -> bool:
        head = read_text(admin / "HEAD")
        is_commit = head.startswith("ref: ") or self._git.succeeds(
            mirror, "cat-file", "-e", f"{head}^{{commit}}"
        )
        return not is_commit


def _lay_out(mirror: Mirror) -> None:
    """What `git init --bare` would make; the config follows with the first command."""
    for folder in ("objects/info", "objects/pack", "refs/heads", "refs/tags"):
        (mirror.path / folder).mkdir(parents=True)
    (mirror.path / "HEAD").write_text("ref: refs/heads/main\n")


def _checked_url(url: str) -> str:
    """Refuse what git would execute, take for an option, or show with a password in it."""
    if not _REMOTE_URL.fullmatch(url) or any(ord(character) < 32 for character in url):
        raise WorkspaceError(f"{url!r} is not a git remote (use https, ssh, file or an absolute path).")
    if re.match(r"https?://[^/]*@", url):
        raise WorkspaceError("A remote's address must not hold a user or token: set the token's variable.")
    return url
