"""Changes that wait for a person: what was found, at which commit, and who has approved it.

Owns the record of each task's newest review. The commit in it is the only one that an approval lets through.
Must not push, and does not talk to GitHub.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime

from adw_modules.security.guarded import Finding, sentence
from adw_modules.tasks.model import Task
from coordinator.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """One commit that is not pushed. `seen_event`: the newest approval before people could read of it.

    `seen_event` is None until the comment says so: before that nobody can have meant this commit.
    """

    token: int  # of the task's run that left the commit
    head: str
    found: str  # a sentence with the paths
    seen_event: int | None = None
    approved_by: str = ""
    approved_event: int | None = None


def put(store: Store, task: Task, head: str, findings: Sequence[Finding]) -> Hold:
    """Remember what was found; a record of the same commit and run stays as it is."""
    known = get(store, task)
    if known is not None and (known.head, known.token) == (head, task.token):
        return known
    hold = Hold(token=task.token, head=head, found=sentence(findings))
    _save(store, task, hold)
    return hold


def get(store: Store, task: Task) -> Hold | None:
    """The newest hold of the task, also one that a later run has left behind."""
    text = store.get_state(_key(task))
    return Hold(**json.loads(text)) if text else None


def shown(store: Store, task: Task, hold: Hold, newest_event: int) -> None:
    """People can read of it from now on: what they put on later is meant for this commit."""
    _save(store, task, replace(hold, seen_event=newest_event))


def approve(store: Store, task: Task, hold: Hold, *, by: str, event_id: int, now: datetime) -> None:
    """Let this one commit through."""
    _save(store, task, replace(hold, approved_by=by, approved_event=event_id))
    text = f"{by} approved {hold.head} (label event {event_id}): {hold.found}"
    store.add_event(task.task_id, None, "approved", text, now)


def forget(store: Store, task: Task) -> None:
    store.set_state(_key(task), None)


def cause(hold: Hold, label: str) -> str:
    """What the task is blocked with: one sentence on what, and one on what a person can do."""
    return (
        f"nothing was pushed, because the change needs a person: {hold.found}. Commit {hold.head[:12]}: "
        f"somebody with write access can put the label {label} on to have just this commit published "
        "(take it off first if it is on already); a retry lets an agent try again."
    )


def _key(task: Task) -> str:
    return f"hold:{task.task_id}"


def _save(store: Store, task: Task, hold: Hold) -> None:
    store.set_state(_key(task), json.dumps(asdict(hold)))
