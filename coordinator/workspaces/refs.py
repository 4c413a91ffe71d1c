"""Where a branch stands in a mirror, mostly without starting git.

Our mirrors keep refs as files (`_mirror_config` says so, whatever git's default becomes), see
gitrepository-layout(5). What is more than a plain commit in a file of its own is left to git.
"""

from __future__ import annotations

from coordinator.workspaces.files import read_text
from coordinator.workspaces.git import SHA, Git
from coordinator.workspaces.places import Mirror


def commit_at(git: Git, mirror: Mirror, ref: str) -> str | None:
    """The object that `ref` ("refs/…") stands on; None if there is no such ref."""
    text = read_text(mirror.path / ref)
    if SHA.fullmatch(text):
        return text
    if not text and ref not in read_text(mirror.path / "packed-refs"):
        return None
    done = git.run(mirror, ["rev-parse", "--verify", "--quiet", ref])
    return done.out.strip() if done.code == 0 else None
