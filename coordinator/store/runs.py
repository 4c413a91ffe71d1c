"""Statements on runs, their decisions and usage. Owns claiming and settling: both are fenced by the token.

Each function works inside the caller's transaction. What an outcome means for the task is decided
elsewhere; here it is only written, and only while the run is still the live one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from datetime import datetime
from decimal import Decimal, localcontext
from typing import Any

from sqlalchemy import Connection, bindparam, delete, exists, func, insert, or_, select, update

from adw_modules.money.budget import Amounts, counted
from adw_modules.money.pricing import EXACT
from adw_modules.money.quotes import PriceSource
from adw_modules.routing.rates import Asked
from adw_modules.tasks.model import (
    Cost,
    ModelCost,
    ModelUsage,
    Outcome,
    Run,
    RunOutcome,
    Task,
    TaskState,
    Usage,
    UsageSource,
)
from coordinator.store import tables, tasks
from coordinator.store.records import Decision, DecisionRecord, EndedRun, Settlement, Totals
from coordinator.store.tables import routing_decisions, runs

_FIELDS = tuple(field.name for field in fields(Run))
_COLUMNS = tuple(runs.c[name] for name in _FIELDS)
_KINDS = tuple(field.name for field in fields(ModelUsage))
_IS_LIVE = runs.c.finished_at.is_(None)

_CLAIM = (
    update(tables.tasks)
    .where(
        tables.tasks.c.task_id == bindparam("at_task"),
        tables.tasks.c.state == bindparam("at_state"),
    )
    .values(
        state=TaskState.RUNNING,
        cause=None,
        wake_at=None,
        attempts=tables.tasks.c.attempts + 1,
        runs=tables.tasks.c.runs + 1,
        token=tables.tasks.c.token + 1,
        claimed_event=tables.tasks.c.trigger_event_id,
    )
    .returning(*tasks.COLUMNS)
)
_INSERT = insert(runs).values(stream_offset=0).returning(*_COLUMNS)
_INSERT_DECISION = insert(routing_decisions)
_ONE_LIVE = update(runs).where(runs.c.run_id == bindparam("at_run"), _IS_LIVE)
_CHANGE_LIVE = _ONE_LIVE.where(runs.c.token == bindparam("at_token"))
_ASK_TO_STOP = _ONE_LIVE.where(runs.c.stop_reason.is_(None)).returning(runs.c.task_id)
_SETTLE_TASK = (
    update(tables.tasks)
    .where(
        tables.tasks.c.task_id == bindparam("at_task"),
        tables.tasks.c.token == bindparam("at_token"),
        tables.tasks.c.state == bindparam("at_state"),
        exists().where(runs.c.run_id == bindparam("at_run"), runs.c.token == bindparam("at_token"), _IS_LIVE),
    )
    .values(tokens=tables.tasks.c.tokens + bindparam("at_tokens"))
)
_LIVE = (
    select(*tasks.COLUMNS, *_COLUMNS)
    .join_from(runs, tables.tasks, runs.c.task_id == tables.tasks.c.task_id)
    .where(_IS_LIVE)
    .order_by(runs.c.run_id)
)
_OF_TASK = select(*_COLUMNS).where(runs.c.task_id == bindparam("at_task")).order_by(runs.c.run_id)
_DECISION = (
    select(
        runs.c.run_id,
        runs.c.provider,
        runs.c.model,
        runs.c.rule,
        routing_decisions.c.reason,
        routing_decisions.c.trace,
        runs.c.config_version,
        runs.c.claimed_at.label("decided_at"),
    )
    .join_from(runs, routing_decisions)
    .where(runs.c.run_id == bindparam("at_run"))
)
_BEGUN = (
    select(runs.c.run_id, tables.tasks.c.repo_id, tables.tasks.c.author_id, tables.tasks.c.labeller_id)
    .join_from(runs, tables.tasks, runs.c.task_id == tables.tasks.c.task_id)
    .where(
        runs.c.run_id > bindparam("at_run"),
        runs.c.claimed_at >= bindparam("at_since", type_=runs.c.claimed_at.type),
    )
    .order_by(runs.c.run_id)
)
_ENDED = (
    select(tables.tasks.c.name, runs.c.run_dir, runs.c.finished_at, runs.c.token == tables.tasks.c.token)
    .join_from(runs, tables.tasks, runs.c.task_id == tables.tasks.c.task_id)
    .where(runs.c.finished_at.is_not(None))
    .order_by(runs.c.finished_at, runs.c.run_id)
)
_MONEY = select(
    runs.c.usage_source,
    runs.c.reported_cost_usd,
    runs.c.cost_usd,
    runs.c.priced_by,
    runs.c.price_source,
    runs.c.price_version,
).where(runs.c.run_id == bindparam("at_run"))
_MODEL_COSTS = select(
    tables.usage.c.model, tables.usage.c.cost_usd, tables.usage.c.price_source, tables.usage.c.price_version
).where(tables.usage.c.run_id == bindparam("at_run"))
_TOKENS = select(tables.usage.c.model, *(tables.usage.c[kind] for kind in _KINDS)).where(
    tables.usage.c.run_id == bindparam("at_run")
)
_COUNTED = [tables.usage.c[kind] for kind in _KINDS if kind != "reasoning"]  # which is part of the output
_ALL_TOKENS = sum(_COUNTED[1:], _COUNTED[0])
_ASKED_SINCE = (
    select(
        runs.c.provider,
        runs.c.claimed_at,
        runs.c.finished_at,
        func.coalesce(func.sum(_ALL_TOKENS), 0),
    )
    .join_from(runs, tables.usage, isouter=True)
    .where(or_(_IS_LIVE, runs.c.finished_at >= bindparam("at_since", type_=runs.c.finished_at.type)))
    .group_by(runs.c.run_id)
)
_FORGET_TOKENS = delete(tables.usage).where(tables.usage.c.run_id == bindparam("at_run"))
_INSERT_TOKENS = insert(tables.usage)
_ENDED_SINCE = runs.c.finished_at >= bindparam("at_since", type_=runs.c.finished_at.type)
# The database adds whole numbers exactly, but not money kept as text.
_COSTS_SINCE = select(runs.c.cost_usd, runs.c.price_source).where(_ENDED_SINCE)
_PARTS_SINCE = (
    select(tables.usage.c.cost_usd)
    .join_from(runs, tables.usage)
    .where(_ENDED_SINCE, runs.c.cost_usd.is_(None), tables.usage.c.cost_usd.is_not(None))
)
_TOKENS_SINCE = (
    select(*(func.coalesce(func.sum(tables.usage.c[kind]), 0) for kind in _KINDS))
    .join_from(runs, tables.usage)
    .where(_ENDED_SINCE)
)


def claim(
    conn: Connection,
    task_id: int,
    *,
    decision: Decision,
    config_version: str,
    run_dir_of: Callable[[Task, int], str],
    now: datetime,
    reserved: Amounts | None = None,
) -> tuple[Task, Run] | None:
    """Give a queued task its next run; None when it is not queued (any more)."""
    row = conn.execute(_CLAIM, _claimed(task_id, decision, now)).one_or_none()
    if row is None:
        return None
    task = tasks.task_of(row)
    values = {
        "task_id": task_id,
        "token": task.token,
        "attempt": task.attempts,
        "provider": decision.provider,
        "model": decision.model,
        "rule": decision.rule,
        "config_version": config_version,
        "run_dir": run_dir_of(task, task.token),
        "claimed_at": now,
        "reserved_usd": reserved.usd if reserved else None,
        "reserved_tokens": reserved.tokens if reserved else None,
    }
    run = _run_of(conn.execute(_INSERT, values).one())
    why = {"run_id": run.run_id, "reason": decision.reason, "trace": decision.trace}
    conn.execute(_INSERT_DECISION, why)
    return task, run


def begun(conn: Connection, after: int, since: datetime) -> list[tuple[int, int, int, int]]:
    """The runs after that one which were claimed since then: their ids, and whom they count against."""
    return [tuple(row) for row in conn.execute(_BEGUN, {"at_run": after, "at_since": since})]


def ended(conn: Connection) -> list[EndedRun]:
    return [
        EndedRun(task=name, run_dir=run_dir, finished_at=at, is_newest=bool(is_newest))
        for name, run_dir, at, is_newest in conn.execute(_ENDED)
    ]


def mark_started(
    conn: Connection, run_id: int, now: datetime, shim_pid: int | None, child_pid: int | None
) -> bool:
    values = {"at_run": run_id, "started_at": now, "shim_pid": shim_pid, "child_pid": child_pid}
    return conn.execute(_ONE_LIVE, values).rowcount == 1


def save_progress(
    conn: Connection,
    run_id: int,
    token: int,
    *,
    offset: int,
    usage: Usage | None,
    spent: Amounts | None = None,
) -> bool:
    values: dict[str, Any] = {"at_run": run_id, "at_token": token, "stream_offset": offset}
    if spent is not None:
        values |= {"spent_usd": spent.usd, "spent_tokens": spent.tokens}
    if usage is not None:
        values |= {"usage_source": usage.source, "reported_cost_usd": usage.reported_cost_usd}
    if conn.execute(_CHANGE_LIVE, values).rowcount == 0:
        return False
    if usage is not None:
        _replace_tokens(conn, run_id, usage)
    return True


def ask_to_stop(
    conn: Connection, run_id: int, reason: str, outcome: Outcome, until: datetime | None = None
) -> int | None:
    """Write down the first request to stop; the run's task id, or None when it came too late."""
    values = {"at_run": run_id, "stop_reason": reason, "stop_outcome": outcome, "stop_until": until}
    found: int | None = conn.execute(_ASK_TO_STOP, values).scalar_one_or_none()
    return found


def settle(
    conn: Connection,
    run: Run,
    *,
    outcome: RunOutcome,
    usage: Usage,
    cost: Cost,
    settlement: Settlement,
    now: datetime,
) -> bool:
    """End a run and move its task, both or neither: False when this run is not the live one (any more)."""
    # The task first: its row lock makes rival settlements queue up, and a miss has written nothing yet.
    if conn.execute(_SETTLE_TASK, _settled(run, outcome, usage, settlement, now)).rowcount == 0:
        return False
    conn.execute(_CHANGE_LIVE, _ended(run, outcome, usage, cost, now))
    _replace_tokens(conn, run.run_id, usage, cost)
    return True


def live(conn: Connection) -> list[tuple[Task, Run]]:
    width = len(tasks.COLUMNS)
    return [(tasks.task_of(row[:width]), _run_of(row[width:])) for row in conn.execute(_LIVE)]


def of_task(conn: Connection, task_id: int) -> list[Run]:
    return [_run_of(row) for row in conn.execute(_OF_TASK, {"at_task": task_id})]


def decision_of(conn: Connection, run_id: int) -> DecisionRecord | None:
    row = conn.execute(_DECISION, {"at_run": run_id}).mappings().one_or_none()
    return None if row is None else DecisionRecord(**row)


def asked_since(conn: Connection, since: datetime) -> list[Asked]:
    rows = conn.execute(_ASKED_SINCE, {"at_since": since})
    return [
        Asked(provider=provider, claimed_at=claimed, ended_at=ended, tokens=int(tokens))
        for provider, claimed, ended, tokens in rows
    ]


def usage_of(conn: Connection, run_id: int) -> Usage:
    money = conn.execute(_MONEY, {"at_run": run_id}).one_or_none()
    if money is None or money.usage_source is None:
        return Usage(source=UsageSource.UNKNOWN)
    found = {row[0]: _tokens(row[1:]) for row in conn.execute(_TOKENS, {"at_run": run_id})}
    return Usage(source=money.usage_source, by_model=found, reported_cost_usd=money.reported_cost_usd)


def cost_of(conn: Connection, run_id: int) -> Cost | None:
    money = conn.execute(_MONEY, {"at_run": run_id}).one_or_none()
    if money is None or money.priced_by is None:
        return None
    by_model = {
        row.model: ModelCost(usd=row.cost_usd, source=row.price_source, version=row.price_version)
        for row in conn.execute(_MODEL_COSTS, {"at_run": run_id})
        if row.price_source is not None
    }
    known = [each.usd for each in by_model.values() if each.usd]
    return Cost(
        usd=money.cost_usd,
        priced_by=money.priced_by,
        source=money.price_source,
        version=money.price_version,
        at_least=_exact_sum(known) if known and money.cost_usd is None else None,
        by_model=by_model,
    )


def totals(conn: Connection, since: datetime) -> Totals:
    costs = conn.execute(_COSTS_SINCE, {"at_since": since}).all()
    known = [row.cost_usd for row in costs if row.cost_usd is not None]
    parts = conn.execute(_PARTS_SINCE, {"at_since": since}).scalars()
    flat = sum(row.price_source is PriceSource.SUBSCRIPTION for row in costs)
    return Totals(
        runs=len(costs),
        tokens=_tokens(conn.execute(_TOKENS_SINCE, {"at_since": since}).one()),
        cost_usd=_exact_sum([*known, *parts]),
        runs_of_unknown_cost=len(costs) - len(known) - flat,
        runs_on_subscription=flat,
    )


def _claimed(task_id: int, decision: Decision, now: datetime) -> dict[str, Any]:
    return {
        "at_task": task_id,
        "at_state": TaskState.QUEUED,
        "last_provider": decision.provider,
        "last_model": decision.model,
        "updated_at": now,
        "claimed_at": now,
    }


def _settled(
    run: Run, outcome: RunOutcome, usage: Usage, settlement: Settlement, now: datetime
) -> dict[str, Any]:
    return {
        "at_task": run.task_id,
        "at_run": run.run_id,
        "at_token": run.token,
        "at_state": TaskState.RUNNING,
        "state": settlement.state,
        "cause": settlement.cause,
        "wake_at": settlement.wake_at,
        "attempts": settlement.attempts,
        "lost": settlement.lost,
        "crashes": settlement.crashes,
        "failed_on": settlement.failed_on,
        "at_tokens": usage.total.total,
        "last_outcome": outcome.outcome,
        "last_failure_class": outcome.failure_class,
        "updated_at": now,
    }


def _ended(run: Run, outcome: RunOutcome, usage: Usage, cost: Cost, now: datetime) -> dict[str, Any]:
    spent = counted(run, outcome, usage, cost)
    return {
        "at_run": run.run_id,
        "at_token": run.token,
        "finished_at": now,
        "spent_usd": spent.usd,
        "spent_tokens": spent.tokens,
        "outcome": outcome.outcome,
        "failure_class": outcome.failure_class,
        "detail": outcome.detail,
        "exit_code": outcome.exit_code,
        "exit_signal": outcome.exit_signal,
        "usage_source": usage.source,
        "reported_cost_usd": usage.reported_cost_usd,
        "cost_usd": cost.usd,
        "priced_by": cost.priced_by,
        "price_source": cost.source,
        "price_version": cost.version,
    } | ({"started_at": run.started_at} if run.started_at else {})


def _run_of(row: Sequence[Any]) -> Run:
    return Run(**dict(zip(_FIELDS, row, strict=True)))


def _tokens(row: Sequence[Any]) -> ModelUsage:
    # PostgreSQL adds bigints up to `numeric`.
    return ModelUsage(**{kind: int(count) for kind, count in zip(_KINDS, row, strict=True)})


def _replace_tokens(conn: Connection, run_id: int, usage: Usage, cost: Cost | None = None) -> None:
    conn.execute(_FORGET_TOKENS, {"at_run": run_id})
    rows = [
        {"run_id": run_id, "model": model}
        | {kind: getattr(tokens, kind) for kind in _KINDS}
        | _price_of(cost.by_model.get(model) if cost else None)
        for model, tokens in usage.by_model.items()
    ]
    if rows:
        conn.execute(_INSERT_TOKENS, rows)


def _price_of(cost: ModelCost | None) -> dict[str, Any]:
    return {
        "cost_usd": cost.usd if cost else None,
        "price_source": cost.source if cost else None,
        "price_version": cost.version if cost else None,
    }


def _exact_sum(amounts: Iterable[Decimal]) -> Decimal:
    with localcontext(EXACT):
        return sum(amounts, Decimal(0))
