"""The outbox: what GitHub has not been told yet. Owns that newer news of a task replaces older news.

Rows are added inside the transaction that makes them true; sending, back-off and limits are the caller's.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection, bindparam, case, func, insert, select, update

from coordinator.store.records import OutboxItem, OutboxKind, OutboxState
from coordinator.store.tables import outbox

_ITEM = (
    outbox.c.item_id,
    outbox.c.task_id,
    outbox.c.kind,
    outbox.c.version,
    outbox.c.tries,
    outbox.c.not_before,
    outbox.c.error,
)
_IS_PENDING = outbox.c.state == OutboxState.PENDING
_ONE = update(outbox).where(outbox.c.item_id == bindparam("at_item"), _IS_PENDING)

# A row that is waiting already keeps its place, and its back-off if it has failed: those are about GitHub,
# not about the news. One that has only been put off goes out with the earliest of its news.
_IS_SOONER = _IS_PENDING & (
    (outbox.c.tries > 0) | (outbox.c.not_before <= bindparam("at_not_before", type_=outbox.c.not_before.type))
)
_ADD_AGAIN = (
    update(outbox)
    .where(outbox.c.task_id == bindparam("at_task"), outbox.c.kind == bindparam("at_kind"))
    .values(
        version=outbox.c.version + 1,
        tries=case((_IS_PENDING, outbox.c.tries), else_=0),
        not_before=case(
            (_IS_SOONER, outbox.c.not_before),
            else_=bindparam("at_not_before", type_=outbox.c.not_before.type),
        ),
        queued_at=case(
            (_IS_PENDING, outbox.c.queued_at), else_=bindparam("at_now", type_=outbox.c.queued_at.type)
        ),
        error=case((_IS_PENDING, outbox.c.error), else_=None),
        state=OutboxState.PENDING,
    )
)
_ADD = insert(outbox).values(state=OutboxState.PENDING, version=1, tries=0)
_DUE = (
    select(*_ITEM)
    .where(_IS_PENDING, outbox.c.not_before <= bindparam("at_now"))
    # All pull requests first, then reports: a report names the pull request of its task.
    .order_by(outbox.c.kind, outbox.c.queued_at, outbox.c.item_id)
    .limit(bindparam("at_limit"))
)
_TASKS = select(outbox.c.task_id).where(_IS_PENDING).distinct()
_WAITS = select(outbox.c.item_id, outbox.c.not_before).where(_IS_PENDING)
_NEXT = select(func.min(outbox.c.not_before)).where(_IS_PENDING)
_UNTRIED_LATER = (outbox.c.tries == 0) & (
    outbox.c.not_before > bindparam("at_later", type_=outbox.c.not_before.type)
)
_NEXT_BUT_LATER = _NEXT.where(~_UNTRIED_LATER)
_DONE = _ONE.where(outbox.c.version == bindparam("at_version")).values(state=OutboxState.DONE, error=None)
_RETRY = _ONE.values(tries=outbox.c.tries + 1)
_DEAD = _ONE.values(state=OutboxState.DEAD)
_DEAD_VERSION = _DEAD.where(outbox.c.version == bindparam("at_version"))
_REFUSED = select(*_ITEM).where(outbox.c.state == OutboxState.DEAD).order_by(outbox.c.item_id.desc())


def add(conn: Connection, task_id: int, kind: str, now: datetime, not_before: datetime | None = None) -> None:
    """Ask for a thing to be written to GitHub (`not_before`: now). ValueError for an unknown kind."""
    wanted, at = OutboxKind(kind), not_before or now
    values = {"at_task": task_id, "at_kind": wanted, "at_now": now, "at_not_before": at}
    if conn.execute(_ADD_AGAIN, values).rowcount == 0:
        conn.execute(_ADD, {"task_id": task_id, "kind": wanted, "not_before": at, "queued_at": now})


def due(conn: Connection, now: datetime, limit: int) -> list[OutboxItem]:
    rows = conn.execute(_DUE, {"at_now": now, "at_limit": limit})
    return [OutboxItem(**row) for row in rows.mappings()]


def dead(conn: Connection) -> list[OutboxItem]:
    return [OutboxItem(**row) for row in conn.execute(_REFUSED).mappings()]


def next_at(conn: Connection, *, put_off_beyond: datetime | None = None) -> datetime | None:
    if put_off_beyond is None:
        found: datetime | None = conn.execute(_NEXT).scalar_one()
    else:
        found = conn.execute(_NEXT_BUT_LATER, {"at_later": put_off_beyond}).scalar_one()
    return found


def done(conn: Connection, item_id: int, version: int) -> bool:
    return conn.execute(_DONE, {"at_item": item_id, "at_version": version}).rowcount == 1


def retry(conn: Connection, item_id: int, not_before: datetime, error: str) -> None:
    conn.execute(_RETRY, {"at_item": item_id, "not_before": not_before, "error": error})


def give_up(conn: Connection, item_id: int, error: str, version: int | None) -> bool:
    if version is None:
        return conn.execute(_DEAD, {"at_item": item_id, "error": error}).rowcount == 1
    values = {"at_item": item_id, "error": error, "at_version": version}
    return conn.execute(_DEAD_VERSION, values).rowcount == 1


def shift_waits(conn: Connection, step: timedelta) -> None:
    for row in conn.execute(_WAITS).all():
        conn.execute(_ONE, {"at_item": row.item_id, "not_before": row.not_before + step})


def tasks_with_news(conn: Connection) -> frozenset[int]:
    return frozenset(conn.execute(_TASKS).scalars())
