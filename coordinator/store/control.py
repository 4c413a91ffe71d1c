"""Operator requests and the daemon's own few facts (is it paused, …): how a command reaches a running daemon.

Each function works inside the caller's transaction.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from coordinator.store.records import OperatorRequest
from coordinator.store.tables import daemon_state, operator_requests

_ASK = insert(operator_requests).returning(operator_requests.c.request_id)
_PENDING = (
    select(*(column for column in operator_requests.c if column.name != "answer"))
    .where(operator_requests.c.answer.is_(None))
    .order_by(operator_requests.c.request_id)
)
_ANSWER = update(operator_requests).where(
    operator_requests.c.request_id == bindparam("at_request"), operator_requests.c.answer.is_(None)
)
_READ_ANSWER = select(operator_requests.c.answer).where(
    operator_requests.c.request_id == bindparam("at_request")
)
_GET = select(daemon_state.c.value).where(daemon_state.c.key == bindparam("at_key"))
_CHANGE = update(daemon_state).where(daemon_state.c.key == bindparam("at_key"))
_ADD = insert(daemon_state)
_FORGET = delete(daemon_state).where(daemon_state.c.key == bindparam("at_key"))


def ask(conn: Connection, verb: str, task_id: int | None, argument: str | None, now: datetime) -> int:
    values = {"verb": verb, "task_id": task_id, "argument": argument, "created_at": now}
    found: int = conn.execute(_ASK, values).scalar_one()
    return found


def pending(conn: Connection) -> list[OperatorRequest]:
    return [OperatorRequest(**row) for row in conn.execute(_PENDING).mappings()]


def answer(conn: Connection, request_id: int, text: str) -> None:
    conn.execute(_ANSWER, {"at_request": request_id, "answer": text})


def answer_to(conn: Connection, request_id: int) -> str | None:
    found: str | None = conn.execute(_READ_ANSWER, {"at_request": request_id}).scalar_one_or_none()
    return found


def get(conn: Connection, key: str) -> str | None:
    found: str | None = conn.execute(_GET, {"at_key": key}).scalar_one_or_none()
    return found


def put(conn: Connection, key: str, value: str | None) -> None:
    """Keep a fact; None forgets it."""
    if value is None:
        conn.execute(_FORGET, {"at_key": key})
    elif conn.execute(_CHANGE, {"at_key": key, "value": value}).rowcount == 0:
        conn.execute(_ADD, {"key": key, "value": value})
