"""Bare git repositories on disk: creation, and the few questions a GitHub-like server asks them.

Owns the git commands of the demo server. Knows nothing of HTTP, issues or permissions.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

# Neither the user's nor the machine's git settings may change what the server does.
GIT_ENVIRON = {
    "PATH": os.environ.get("PATH", os.defpath),
    "HOME": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C",
}
_FIRST_COMMIT_AT = 1_767_225_600  # 2026-01-01T00:00:00Z: equal files always give the same commit id
_CONFIG = """[core]
\trepositoryformatversion = 0
\tfilemode = true
\tbare = true
[http]
\treceivepack = true
[receive]
\tdenyNonFastForwards = false
\tautogc = false
[gc]
\tauto = 0
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    sha: str
    tree: str
    parents: tuple[str, ...]
    author_name: str
    author_email: str
    authored_at: str
    committer_name: str
    committer_email: str
    committed_at: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffSize:
    files: int = 0
    additions: int = 0
    deletions: int = 0


def git(path: Path, *args: str, stdin: bytes = b"") -> str:
    """Standard output of one git command in the bare repository; CalledProcessError when it fails."""
    done = subprocess.run(
        ["git", "--git-dir", str(path), *args], input=stdin, capture_output=True, check=True, env=GIT_ENVIRON
    )
    return done.stdout.decode("utf-8", "replace")


def create(path: Path, *, branch: str, files: dict[str, str]) -> None:
    """Make a bare repository with one commit of `files` on `branch`."""
    for name, content in _first_version(branch, tuple(sorted(files.items()))):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)


@cache
def _first_version(branch: str, files: tuple[tuple[str, str], ...]) -> tuple[tuple[str, bytes], ...]:
    """The files of such a repository: tests make hundreds of equal ones, and git is started for the first."""
    with tempfile.TemporaryDirectory(prefix="demo-git-") as folder:
        path = Path(folder)
        for part in ("objects/info", "refs/heads"):
            (path / part).mkdir(parents=True)
        (path / "HEAD").write_text(f"ref: refs/heads/{branch}\n")
        (path / "config").write_text(_CONFIG)
        add_commit(path, branch=branch, files=dict(files), message="First version")
        made = [each for each in path.rglob("*") if each.is_file()]
        return tuple((str(each.relative_to(path)), each.read_bytes()) for each in made)


def add_commit(
    path: Path, *, branch: str, files: dict[str, str], message: str, start: str | None = None
) -> None:
    """Commit `files` on `branch`; a new branch begins at the branch `start`, or at nothing."""
    git(path, "fast-import", "--quiet", stdin=_commit_stream(branch, files, message, start))


def _commit_stream(branch: str, files: dict[str, str], message: str, start: str | None) -> bytes:
    who = f"Sample Author <sample@localhost> {_FIRST_COMMIT_AT} +0000"
    parts = [f"commit refs/heads/{branch}\ncommitter {who}\n{_data(message + chr(10))}"]
    if start is not None:
        parts.append(f"from refs/heads/{start}^0\n")
    for name, text in sorted(files.items()):
        mode = "100755" if text.startswith("#!") else "100644"
        parts.append(f'M {mode} inline "{name}"\n{_data(text)}')
    return "".join(parts).encode()


def _data(text: str) -> str:
    return f"data {len(text.encode())}\n{text}\n"


def ref_sha(path: Path, branch: str) -> str | None:
    """The commit a branch points to, read from the ref files: no process is started."""
    try:
        return (path / "refs" / "heads" / branch).read_text().strip() or None
    except (OSError, ValueError):
        return _packed_sha(path, f"refs/heads/{branch}")


def _packed_sha(path: Path, ref: str) -> str | None:
    try:
        lines = (path / "packed-refs").read_text().splitlines()
    except OSError:
        return None
    return next((line.split()[0] for line in lines if line.endswith(f" {ref}")), None)


def commits_ahead(path: Path, base: str, head: str) -> int:
    """How many commits `head` has that `base` has not (both are commit ids)."""
    return 0 if base == head else int(git(path, "rev-list", "--count", f"{base}..{head}"))


def diff_size(path: Path, base: str, head: str) -> DiffSize:
    """What a pull request from `head` to `base` would change."""
    rows = [line.split("\t") for line in git(path, "diff", "--numstat", f"{base}...{head}").splitlines()]
    counted = [(added, removed) for added, removed, _name in rows if added != "-"]  # "-" marks a binary file
    return DiffSize(
        files=len(rows),
        additions=sum(int(added) for added, _ in counted),
        deletions=sum(int(removed) for _, removed in counted),
    )


def commit(path: Path, sha: str) -> Commit:
    """One commit's own record."""
    form = "%H%x00%T%x00%P%x00%an%x00%ae%x00%aI%x00%cn%x00%ce%x00%cI%x00%B"
    fields = git(path, "log", "-1", f"--format={form}", sha).split("\0")
    return Commit(
        sha=fields[0],
        tree=fields[1],
        parents=tuple(fields[2].split()),
        author_name=fields[3],
        author_email=fields[4],
        authored_at=fields[5],
        committer_name=fields[6],
        committer_email=fields[7],
        committed_at=fields[8],
        message=fields[9].rstrip("\n"),
    )
