"""From GitHub's issues to tasks: who may start work, how urgent it is, and when it is withdrawn.

Pure: it judges values that `coordinator.github` fetched. Fails closed: anything unknown refuses.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from enum import StrEnum

from adw_modules.security.admission import (
    Actor,
    IssueText,
    KeptComment,
    Policy,
    Standing,
    edited_by_others,
    fingerprint,
)
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
    REFRESH = "refresh"  # known and open: take over labels, title and priority, look for edits of the text
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
    if task.state.is_terminal or task.state is TaskState.BLOCKED or task.held is not None:
        changed = updated or is_text_new(issue, task)
        return Sighting.CHECK_TRIGGER if changed else Sighting.NOTHING
    changed = updated or issue.title != task.title or issue.labels != task.labels or is_text_new(issue, task)
    return Sighting.REFRESH if changed else Sighting.NOTHING


def is_text_new(issue: IssueSnapshot, task: Task) -> bool:
    """Whether the text of an open task is neither the approved one nor one that was judged before.

    Two changes within a second look alike by their times, so the text itself is compared.
    """
    is_stale = issue.updated_at < task.issue_updated_at
    if is_stale or task.state.is_terminal or is_refused(task):
        return False
    known = {task.text_sha, task.seen_sha}
    return fingerprint(issue.title, issue.body) not in known


REFUSED_PREFIX = "refused: "
NEVER_ADMITTED = 0  # instead of the id of the label event
CREATED_WITH_LABEL = 1  # instead of it, where there is none: older than any


def is_refused(task: Task) -> bool:
    """True for a task that exists only to remember a refused trigger, whatever became of it since.

    Nobody trusted has ever approved its text, so there is no text and nothing may start it but a trigger.
    """
    return task.trigger_event_id == NEVER_ADMITTED


def created_with_label(issue: IssueSnapshot) -> Trigger:
    """Instead of a label event where there never was one: the issue's creator is judged, as of then."""
    return Trigger(
        event_id=CREATED_WITH_LABEL,
        actor=issue.author,
        actor_id=issue.author_id,
        labelled_at=issue.created_at,
    )


def admit(
    issue: IssueSnapshot,
    trigger: Trigger | None,
    *,
    standing: Standing,
    policy: Policy,
    text: IssueText | None = None,
    editors: tuple[Standing, ...] = (),
    comments: tuple[KeptComment, ...] = (),
) -> TaskRequest | Refused:
    """Decide whether the account that applied the label may start work now, on this text.

    `standing`: that account and what it may do at this moment. `editors`: the same for whoever changed
    `text` (of the issue, when None) since the label. Anything unknown refuses.
    """
    shown = text or IssueText(title=issue.title, body=issue.body)
    issue = replace(issue, title=shown.title, body=shown.body)
    reason = _refusal(trigger, standing, policy)
    if reason is None and trigger is not None:
        found = edited_by_others(
            shown, trigger.labelled_at, may_start=may_start({*editors, standing}, policy).__contains__
        )
        reason = f"{found}; {AGAIN}" if found else None
    if trigger is None or reason is not None:
        return Refused(issue=issue, trigger=trigger, reason=reason or "nobody applied the label")
    return TaskRequest(issue=issue, priority=priority_of(issue.labels), trigger=trigger, comments=comments)


AGAIN = "read it, then take the label off and put it on again"


def may_start(standings: Iterable[Standing], policy: Policy) -> frozenset[Actor]:
    """Those of these accounts that may start work."""
    return frozenset(each.actor for each in standings if policy.admits(each))


def override(label: str, trigger: Trigger | None, *, standing: Standing, policy: Policy) -> Override:
    """Whether a label that asks for a target counts: judged as the trigger is, so that unknown refuses."""
    refusal = _refusal(trigger, standing, policy)
    return Override(label=label, by=trigger.actor if trigger else "", permitted=refusal is None)


def _refusal(trigger: Trigger | None, standing: Standing, policy: Policy) -> str | None:
    if trigger is None:
        return "no event shows who applied the label; apply it again"
    found = policy.refusal(standing)
    if found is None:
        return None
    if standing.actor.is_gone:
        return f"the account that applied the label {found}"
    how = "issue was opened with the label" if trigger.event_id == CREATED_WITH_LABEL else "label was applied"
    return f"the {how} by {trigger.actor}, who {found}"


def revoked(task: Task, standing: Standing, policy: Policy) -> str | None:
    """Why the account that triggered a task may not start work any more; None when it still may."""
    trigger = Trigger(
        event_id=task.trigger_event_id,
        actor=task.triggered_by,
        actor_id=standing.actor.user_id,
        labelled_at=task.labelled_at or task.created_at,
    )
    return _refusal(trigger, standing, policy)


def changed_since(
    text: IssueText, task: Task, *, editors: tuple[Standing, ...], policy: Policy
) -> str | None:
    """Why a task in progress has to pause: its text was changed by somebody who may not start work."""
    if task.labelled_at is None:  # of a time before that was kept
        return f"the text was edited, nobody knows by whom; {AGAIN}"
    allowed = may_start(editors, policy)
    found = edited_by_others(text, task.labelled_at, may_start=allowed.__contains__)
    return f"{found}; {AGAIN}" if found else None


def withdrawal(issue: IssueSnapshot, label: str) -> str | None:
    """Why work on a freshly fetched issue has to end, or None when it may go on."""
    if issue.state != "open":
        return "the issue was closed"
    if not has_label(issue.labels, label):
        return f"the label {label} was removed"
    return None
