"""Every git command and every directory an agent works in: mirrors, worktrees, quarantine.

One bare mirror per repository, one worktree per task on the task's own branch. This face names all that other
packages may use; start at `workspaces.py`, which says what each of its methods promises.

An agent writes where it likes, also in the mirror's `config` and `hooks`. So no git command here trusts them:
`git.py` says how, and `files.py` and `places.py` never follow a link that an agent may have put somewhere.
"""

from coordinator.workspaces.content import Content
from coordinator.workspaces.git import GitAuth
from coordinator.workspaces.outgoing import Screened
from coordinator.workspaces.places import BLOCKED_FILE, Mirror, PrivateGit, Workspace
from coordinator.workspaces.workspaces import Workspaces

__all__ = [
    "BLOCKED_FILE",
    "Content",
    "GitAuth",
    "Mirror",
    "PrivateGit",
    "Screened",
    "Workspace",
    "Workspaces",
]
