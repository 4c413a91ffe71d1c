"""GitHub in, our types out: the only package that imports PyGithub.

    github = GitHub(api_url=…, token=…, now=clock.now)
    match await github.poll("owner/name", "rpi-auto"):
        case Listing(issues=issues): …
        case Unchanged(): …

Start at `client.py`. `wire` sends, `credentials` and `apps` say in whose name, `limiter` when, `polling`
reads the labelled listing, `repositories` follows renames, `answers` turns JSON into values.
"""

from coordinator.github.answers import (
    Account,
    IssueGone,
    LabelBuried,
    LabelEvent,
    LabelTakenOff,
    Listing,
    Permission,
    Pull,
    SeenText,
    Unchanged,
)
from coordinator.github.appkey import AppAccess, load_app
from coordinator.github.apps import PERMISSIONS, Installation
from coordinator.github.client import GitHub
from coordinator.github.limiter import Ledger, Quota

__all__ = [
    "PERMISSIONS",
    "Account",
    "AppAccess",
    "GitHub",
    "Installation",
    "IssueGone",
    "LabelBuried",
    "LabelEvent",
    "LabelTakenOff",
    "Ledger",
    "Listing",
    "Permission",
    "Pull",
    "Quota",
    "SeenText",
    "Unchanged",
    "load_app",
]
