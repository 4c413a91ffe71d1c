"""What we remember of a worktree: a file in its own git directory, so it lives exactly as long."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from adw_modules.errors import WorkspaceError
from coordinator.workspaces.files import read_text, write_text
from coordinator.workspaces.git import SHA
from coordinator.workspaces.places import Tree, Workspace

_FILE = "coordinator.json"
_FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Written as the last step of making a worktree. Its absence means: half made."""

    branch: str
    default_branch: str
    base_sha: str
    start_sha: str
    remote_sha: str | None  # the branch on the remote as we last saw or pushed it; None: not there
    format: int = _FORMAT


def write_record(tree: Tree, record: Record) -> None:
    write_text(tree.admin / _FILE, json.dumps(asdict(record)) + "\n")


def read_record(tree: Tree) -> Record:
    """Raises WorkspaceError when it is missing or not as we wrote it."""
    try:
        record = Record(**json.loads(read_text(tree.admin / _FILE)))
    except (ValueError, TypeError) as error:
        raise WorkspaceError(f"{tree.path} was never finished: it has no record of its base.") from error
    shas = (record.base_sha, record.start_sha, record.remote_sha or record.base_sha)
    if record.format != _FORMAT or not all(SHA.fullmatch(str(sha)) for sha in shas):
        raise WorkspaceError(f"The record of the base of {tree.path} is damaged.")
    return record


def workspace_of(tree: Tree, record: Record) -> Workspace:
    return Workspace(
        path=tree.path,
        branch=record.branch,
        default_branch=record.default_branch,
        base_sha=record.base_sha,
        start_sha=record.start_sha,
        mirror=tree.mirror,
    )
