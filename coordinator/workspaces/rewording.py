"""Putting commits in the place of others, with the same trees, as `adw_modules/tasks/messages.py` says.

Only of commits that the remote lacks. No file is touched, and the branch is not moved here.
"""

from __future__ import annotations

from adw_modules.errors import WorkspaceError
from adw_modules.tasks.messages import Voice, reworded
from coordinator.workspaces.content import prove
from coordinator.workspaces.git import SHA, Git, last_line
from coordinator.workspaces.outgoing import Remote
from coordinator.workspaces.places import Mirror

MOST_COMMITS = 2_000  # one git process for each that changes


def rewrite(git: Git, mirror: Mirror, head: str, remote: Remote, voice: Voice) -> str:
    """The name of the commit that stands for `head`; `head` itself where all may leave as they are."""
    new_names: dict[str, str] = {}
    names = _new_commits(git, mirror, head, remote)
    texts = prove(git, mirror, names, "commit")
    for name in names:
        text = reworded(texts[name], voice, new_names)
        if text != texts[name]:
            new_names[name] = _written(git, mirror, text)
    return new_names.get(head, head)


def _new_commits(git: Git, mirror: Mirror, head: str, remote: Remote) -> list[str]:
    """Those that the remote lacks, each after its parents."""
    asked = "".join([f"{head}\n", *(f"^{sha}\n" for sha in sorted(remote.heads))])
    done = git.run(
        mirror, ["rev-list", "--topo-order", "--reverse", "--ignore-missing", "--stdin"], stdin=asked
    )
    names = done.out.split()
    if done.code:
        raise WorkspaceError(f"The new commits of {mirror.repo} cannot be listed: {last_line(done.err)}")
    if len(names) > MOST_COMMITS:
        raise WorkspaceError(f"The agent made {len(names)} commits, which are too many to be published.")
    return names


def _written(git: Git, mirror: Mirror, text: bytes) -> str:
    name = git.read_bytes(mirror, ["hash-object", "-t", "commit", "-w", "--stdin"], text).decode().strip()
    if not SHA.fullmatch(name):
        raise WorkspaceError(f"A commit could not be written into our mirror of {mirror.repo}.")
    return name
