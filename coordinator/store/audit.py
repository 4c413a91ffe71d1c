"""The audit trail: what happened to a task, in order. No decision is made from it; only what is old goes."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, bindparam, delete, func, insert, or_, select

from adw_modules.tasks.model import TaskState
from coordinator.store.records import EventRecord
from coordinator.store.tables import events, tasks

_INSERT = insert(events)
_OF_TASK = (
    select(events.c.event_id, events.c.at, events.c.task_id, events.c.run_id, events.c.kind, events.c.text)
    .where(events.c.task_id == bindparam("at_task"))
    .order_by(events.c.event_id.desc())
    .limit(bindparam("at_limit"))
)

_ENDED_TASKS = select(tasks.c.task_id).where(
    tasks.c.state.in_([each for each in TaskState if each.is_terminal])
)
_OLD = (
    select(events.c.event_id)
    .where(
        events.c.at < bindparam("at_before", type_=events.c.at.type),
        or_(events.c.task_id.is_(None), events.c.task_id.in_(_ENDED_TASKS)),
    )
    .order_by(events.c.event_id)
    .limit(bindparam("at_most"))
)
_FORGET = delete(events).where(events.c.event_id.in_(_OLD))
_COUNT_OLD = select(func.count()).select_from(_OLD.subquery())


def add(
    conn: Connection,
    now: datetime,
    kind: str,
    text: str,
    *,
    task_id: int | None = None,
    run_id: int | None = None,
) -> None:
    values = {"at": now, "kind": kind, "text": text, "task_id": task_id, "run_id": run_id}
    conn.execute(_INSERT, values)


def of_task(conn: Connection, task_id: int, limit: int) -> list[EventRecord]:
    """The newest events of a task, oldest of them first."""
    rows = conn.execute(_OF_TASK, {"at_task": task_id, "at_limit": limit})
    return [EventRecord(**row) for row in rows.mappings()][::-1]


def forget(conn: Connection, before: datetime, most: int) -> int:
    """Remove lines from before, but for those of unfinished tasks; how many."""
    return conn.execute(_FORGET, {"at_before": before, "at_most": most}).rowcount


def count_old(conn: Connection, before: datetime, most: int) -> int:
    """How many lines `forget` would remove."""
    found: int = conn.execute(_COUNT_OLD, {"at_before": before, "at_most": most}).scalar_one()
    return found
