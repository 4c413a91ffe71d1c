"""The record of who was let in and why. Append-only: there is no statement here that changes or deletes."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime

from sqlalchemy import Connection, bindparam, insert, select

from adw_modules.security.admission import Actor, AuditRecord, Decided, Standing
from coordinator.store.records import DecidedRecord
from coordinator.store.tables import decisions

_INSERT = insert(decisions)
_OF_TASK = (
    select(decisions)
    .where(decisions.c.task_id == bindparam("at_task"))
    .order_by(decisions.c.audit_id.desc())
    .limit(bindparam("at_limit"))
)
_ADMITTED = (
    select(decisions.c.actor, decisions.c.actor_id, decisions.c.actor_kind, decisions.c.by_app)
    .where(
        decisions.c.task_id == bindparam("at_task"),
        decisions.c.label_event_id == bindparam("at_event"),
        decisions.c.decision == Decided.ADMITTED.value,
    )
    .order_by(decisions.c.audit_id.desc())
    .limit(1)
)


def add(conn: Connection, record: AuditRecord, now: datetime, *, task_id: int | None) -> bool:
    """Keep one decision. False, and nothing kept, for the last one once more: nobody fills the disk."""
    last = of_task(conn, task_id, 1) if task_id is not None else []
    if last and last[0].record == record:
        return False
    standing = record.standing or Standing(actor=Actor(login="", user_id=0, kind=""), permission="", role="")
    actor = standing.actor
    values = {
        "at": now,
        "task_id": task_id,
        "decision": record.decision,
        "reason": record.reason,
        "actor": actor.login,
        "actor_id": actor.user_id,
        "actor_kind": actor.kind,
        "by_app": actor.by_app,
        "permission": standing.permission,
        "role": standing.role,
        "label_event_id": record.event_id,
        "snapshot": record.snapshot,
        "config_version": record.config_version,
        "details": record.details,
    }
    conn.execute(_INSERT, values)
    return True


def of_task(conn: Connection, task_id: int, limit: int) -> list[DecidedRecord]:
    """The newest decisions about a task, oldest of them first."""
    rows = conn.execute(_OF_TASK, {"at_task": task_id, "at_limit": limit}).mappings()
    return [
        DecidedRecord(
            at=row["at"],
            record=AuditRecord(
                decision=row["decision"],
                reason=row["reason"],
                config_version=row["config_version"],
                standing=Standing(
                    actor=Actor(
                        login=row["actor"],
                        user_id=row["actor_id"],
                        kind=row["actor_kind"],
                        by_app=row["by_app"],
                    ),
                    permission=row["permission"],
                    role=row["role"],
                ),
                event_id=row["label_event_id"],
                snapshot=row["snapshot"],
                details=row["details"],
            ),
        )
        for row in rows
    ][::-1]


def admitted_by(conn: Connection, task_id: int, event_id: int) -> Actor | None:
    """The account that a label event of a task was admitted for; None where that was not kept."""
    row = conn.execute(_ADMITTED, {"at_task": task_id, "at_event": event_id}).one_or_none()
    if row is None:
        return None
    return Actor(login=row.actor, user_id=row.actor_id, kind=row.actor_kind, by_app=row.by_app)


def plain(found: DecidedRecord) -> dict[str, object]:
    """One decision as JSON data."""
    return {"at": found.at, **asdict(found.record)}
