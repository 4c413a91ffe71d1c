"""From GitHub's issues to tasks: who may start work, how urgent it is, and when it is withdrawn.

Pure: it judges values that `coordinator.github` fetched. Fails closed: anything unknown refuses.
"""

from __future__ import annotations

import re
from enum import StrEnum

from adw_modules.tasks.model import (
    IssueSnapshot,
    Override,
    Priority,
    Refused,
    Task,
    TaskRequest,
    TaskState,
    Trigger,
)

WRITE_PERMISSIONS = frozenset(
    {"admin", "write"}
)  # GitHub's legacy words: `maintain` shows as write, `triage` as read

_PRIORITY_WORDS = {
    "p0": Priority.CRITICAL,
    "critical": Priority.CRITICAL,
    "urgent": Priority.CRITICAL,
    "p1": Priority.HIGH,
    "high": Priority.HIGH,
    "p2": Priority.NORMAL,
    "normal": Priority.NORMAL,
    "medium": Priority.NORMAL,
    "p3": Priority.LOW,
    "low": Priority.LOW,
}
_PRIORITY_LABEL = re.compile(r"^(?:priority\s*[:/=-]\s*)?(\w+)$", re.IGNORECASE)


class Sighting(StrEnum):
    """What a listed issue means for the task we may already have."""

    CHECK_TRIGGER = (
        "check_trigger"  # unknown or possibly triggered anew: ask GitHub who labelled it, and when
    )
    REFRESH = "refresh"  # known and open: take over labels, title and priority
    NOTHING = "nothing"


def priority_of(labels: tuple[str, ...]) -> Priority:
    """Most urgent priority label (`priority:P0` … `P3`, `critical`, `high`, `normal`, `low`), else normal."""
    found = [
        _PRIORITY_WORDS[match[1].lower()]
        for label in labels
        if (match := _PRIORITY_LABEL.match(label.strip())) and match[1].lower() in _PRIORITY_WORDS
    ]
    return min(found, default=Priority.NORMAL)


def has_label(labels: tuple[str, ...], wanted: str) -> bool:
    """GitHub compares label names without case; so do we."""
    return any(label.casefold() == wanted.casefold() for label in labels)


def sighting(issue: IssueSnapshot, task: Task | None) -> Sighting:
    """What to do about an issue in a complete listing.

    A finished or blocked task is looked at again only when something may have happened to its issue: it
    was away from the list, or GitHub says it was updated. The label event then decides.
    """
    if task is None:
        return Sighting.CHECK_TRIGGER
    updated = issue.updated_at > task.issue_updated_at or not task.listed
    if task.state.is_terminal or task.state is TaskState.BLOCKED:
        return Sighting.CHECK_TRIGGER if updated else Sighting.NOTHING
    changed = updated or issue.title != task.title or issue.labels != task.labels
    return Sighting.REFRESH if changed else Sighting.NOTHING


REFUSED_PREFIX = "refused: "
NEVER_ADMITTED = 0  # instead of the id of the label event


def is_refused(task: Task) -> bool:
    """True for a task that exists only to remember a refused trigger, whatever became of it since.

    Nobody trusted has ever approved its text, so there is no text and nothing may start it but a trigger.
    """
    return task.trigger_event_id == NEVER_ADMITTED


def admit(
    issue: IssueSnapshot, trigger: Trigger | None, *, by_app: bool, actor_kind: str, permission: str
) -> TaskRequest | Refused:
    """Decide whether the account that applied the label may start work now.

    `permission` is what GitHub's permission endpoint says for that account at this moment
    (`admin`, `write`, `read`, `none`); any other answer refuses.
    """
    reason = _refusal(trigger, by_app=by_app, actor_kind=actor_kind, permission=permission)
    if trigger is None or reason is not None:
        return Refused(issue=issue, trigger=trigger, reason=reason or "nobody applied the label")
    return TaskRequest(issue=issue, priority=priority_of(issue.labels), trigger=trigger)


def override(
    label: str, trigger: Trigger | None, *, by_app: bool, actor_kind: str, permission: str
) -> Override:
    """Whether a label that asks for a target counts: judged as the trigger is, so that unknown refuses."""
    refusal = _refusal(trigger, by_app=by_app, actor_kind=actor_kind, permission=permission)
    return Override(label=label, by=trigger.actor if trigger else "", permitted=refusal is None)


def _refusal(trigger: Trigger | None, *, by_app: bool, actor_kind: str, permission: str) -> str | None:
    if trigger is None:
        return "no event shows who applied the label; apply it again"
    if not trigger.actor:
        return "the account that applied the label no longer exists"
    if by_app or actor_kind != "User":
        return (
            f"the label was applied by {trigger.actor}, which is an app; "
            "a person with write access has to apply it"
        )
    if permission not in WRITE_PERMISSIONS:
        return f"the label was applied by {trigger.actor}, who has no write access ({permission})"
    return None


def withdrawal(issue: IssueSnapshot, label: str) -> str | None:
    """Why work on a freshly fetched issue has to end, or None when it may go on."""
    if issue.state != "open":
        return "the issue was closed"
    if not has_label(issue.labels, label):
        return f"the label {label} was removed"
    return None
