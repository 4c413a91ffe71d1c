"""The audit trail: what happened to a task, in order. Append-only; no decision is made from it."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, bindparam, insert, select

from coordinator.store.records import EventRecord
from coordinator.store.tables import events

_INSERT = insert(events)
_OF_TASK = (
    select(events.c.event_id, events.c.at, events.c.task_id, events.c.run_id, events.c.kind, events.c.text)
    .where(events.c.task_id == bindparam("at_task"))
    .order_by(events.c.event_id.desc())
    .limit(bindparam("at_limit"))
)


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
