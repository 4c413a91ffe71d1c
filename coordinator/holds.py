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
from adw_modules.tasks import report
from adw_modules.tasks.model import Task
from coordinator.store import Store
from coordinator.workspaces import Content

MOST_REASONS = 200  # guarded paths that are kept


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
    base: str = ""  # where the commit left the default branch
    reasons: tuple[str, ...] = ()  # each guarded path, and why it is one
    files: int = 0  # that the change touches
    size: int = 0  # bytes of them


def put(store: Store, task: Task, content: Content, findings: Sequence[Finding]) -> Hold:
    """Remember what was found; a record of the same commit and run stays as it is."""
    known, head = get(store, task), content.head
    if known is not None and (known.head, known.token) == (head, task.token):
        return known
    sizes = {change.path: change.size for change in content.changes}
    hold = Hold(
        token=task.token,
        head=head,
        found=sentence(findings),
        base=content.base or "",
        reasons=tuple(sentence([each]) for each in findings[:MOST_REASONS]),
        files=len(sizes),
        size=sum(sizes.values()),
    )
    _save(store, task, hold)
    return hold


def get(store: Store, task: Task) -> Hold | None:
    """The newest hold of the task, also one that a later run has left behind."""
    text = store.get_state(_key(task))
    if not text:
        return None
    raw = json.loads(text)
    return Hold(**{**raw, "reasons": tuple(raw.get("reasons", ()))})


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


def size_of(hold: Hold) -> str:
    """How much there is to look at."""
    files = "1 file" if hold.files == 1 else f"{hold.files} files"
    return f"{files}, {hold.size / 1000:.1f} kB"


def cause(hold: Hold, task: Task, label: str) -> str:
    """What the task is blocked with: what, how much, where it can be read, and what a person can do."""
    where = f"there `coordinator content {report.argument(task)}` shows it as a patch"
    return (
        f"nothing was pushed, because the change needs a person: {hold.found}. Commit {hold.head[:12]} "
        f"({size_of(hold)} in all) is on the daemon's machine only: {where}. "
        f"Somebody with write access can put the label {label} on to have just this commit published "
        "(take it off first if it is on already); a retry lets an agent try again."
    )


def _key(task: Task) -> str:
    return f"hold:{task.task_id}"


def _save(store: Store, task: Task, hold: Hold) -> None:
    store.set_state(_key(task), json.dumps(asdict(hold)))
