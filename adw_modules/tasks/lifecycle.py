"""The states of a task and the legal moves between them, as one table.

No guards live here: *which* event happened is decided first (planning, retries, outcome), *where it
leads* is looked up. The store makes every write conditional on the state it left, so a move that
lost a race changes nothing. `docs/lifecycle.md` holds the diagram that `diagram()` draws.
"""

from __future__ import annotations

from enum import StrEnum

from adw_modules.errors import IllegalTransition
from adw_modules.tasks.model import TaskState as S  # one letter: the table below is read as a picture


class Event(StrEnum):
    """What can happen to a task. Past tense: it has been decided or observed already."""

    DISPATCHED = "dispatched"  # a run was claimed
    PARKED = "parked"  # no eligible target, or a lifetime cap is reached
    UNBLOCKED = "unblocked"  # the wake time came, or the cause was cleared
    RUN_SUCCEEDED = "run_succeeded"
    RETRY_SCHEDULED = "retry_scheduled"  # failed or rate-limited, to be run again at a known time
    RETRY_DUE = "retry_due"
    GAVE_UP = "gave_up"  # out of attempts, or a failure that repeating cannot mend
    NEEDS_HUMAN = "needs_human"  # a person has to act before it can go on
    INTERRUPTED = "interrupted"  # the run ended for reasons that are ours; not an attempt
    WITHDRAWN = "withdrawn"  # issue closed or deleted, label removed, or cancelled by an operator
    HELD = "held"  # its text was edited by somebody who may not start work
    PUBLISH_FAILED = (
        "publish_failed"  # the work exists, but GitHub will not take the branch or the pull request
    )
    REVIEW_NEEDED = (
        "review_needed"  # the work exists, but holds what a person has to approve before it is pushed
    )
    REVOKED = "revoked"  # whoever asked for the work may no longer, or it is no longer asked for
    APPROVED = "approved"  # a permitted person has approved just that commit
    REQUEUED = "requeued"  # a new signal: label applied again, or an operator's retry


TRANSITIONS: dict[S, dict[Event, S]] = {
    S.QUEUED: {
        Event.DISPATCHED: S.RUNNING,
        Event.PARKED: S.BLOCKED,
        Event.HELD: S.BLOCKED,
        Event.REVOKED: S.BLOCKED,
        Event.WITHDRAWN: S.CANCELLED,
    },
    S.BLOCKED: {
        Event.UNBLOCKED: S.QUEUED,
        Event.REQUEUED: S.QUEUED,
        Event.HELD: S.BLOCKED,
        Event.WITHDRAWN: S.CANCELLED,
        Event.APPROVED: S.SUCCEEDED,
    },
    S.RUNNING: {
        Event.RUN_SUCCEEDED: S.SUCCEEDED,
        Event.RETRY_SCHEDULED: S.RETRY_WAIT,
        Event.GAVE_UP: S.FAILED,
        Event.NEEDS_HUMAN: S.BLOCKED,
        Event.INTERRUPTED: S.QUEUED,
        Event.WITHDRAWN: S.CANCELLED,
    },
    S.RETRY_WAIT: {
        Event.RETRY_DUE: S.QUEUED,
        Event.REQUEUED: S.QUEUED,
        Event.HELD: S.BLOCKED,
        Event.WITHDRAWN: S.CANCELLED,
    },
    S.SUCCEEDED: {
        Event.REQUEUED: S.QUEUED,
        Event.PUBLISH_FAILED: S.BLOCKED,
        Event.REVIEW_NEEDED: S.BLOCKED,
        Event.REVOKED: S.BLOCKED,
    },
    S.FAILED: {Event.REQUEUED: S.QUEUED},
    S.CANCELLED: {Event.REQUEUED: S.QUEUED},
}


def advance(state: S, event: Event) -> S:
    """The state that `event` leads to. Raises IllegalTransition (the caller's bug) when it may not happen."""
    try:
        return TRANSITIONS[state][event]
    except KeyError:
        raise IllegalTransition(f"a {state.value} task cannot take the event {event.value}") from None


def allows(state: S, event: Event) -> bool:
    """True when `event` may happen to a task in `state`."""
    return event in TRANSITIONS[state]


def diagram() -> str:
    """The table as a Mermaid state diagram, one arrow per pair of states, in table order."""
    arrows: dict[tuple[S, S], list[str]] = {}
    for state, moves in TRANSITIONS.items():
        for event, target in moves.items():
            arrows.setdefault((state, target), []).append(event.value)
    lines = ["stateDiagram-v2", f"    [*] --> {S.QUEUED.value}"]
    lines += [f"    {a.value} --> {b.value}: {', '.join(events)}" for (a, b), events in arrows.items()]
    return "\n".join(lines)
