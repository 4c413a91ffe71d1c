"""Statements on what ended runs cost, for reports. Owns how runs and their usage are grouped in SQL.

The database counts, adds tokens (whole numbers, exact) and lists amounts; money is added in `money.reports`,
because text is no number in SQLite. Works inside the caller's transaction; writes nothing.

Amounts of models. A row of `usage` with its own cost has that. Else a run with a single model has the run's
cost for it, and the charge of one with several that nobody split stands as a row of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Interval,
    Select,
    Text,
    and_,
    case,
    exists,
    func,
    literal,
    not_,
    or_,
    select,
    true,
    type_coerce,
)
from sqlalchemy.sql.selectable import FromClause

from adw_modules.money.quotes import PriceSource
from adw_modules.money.reports import (
    DEFAULT_RULE,
    SEVERAL_MODELS,
    Figures,
    Group,
    Grouping,
    Period,
    Report,
    offsets,
    once_per_label,
    report,
    total_of,
)
from adw_modules.tasks.model import ModelUsage, Outcome
from coordinator.store.tables import runs, tasks, usage

_KINDS = tuple(field.name for field in fields(ModelUsage))
_OF_TASKS = frozenset({Grouping.TASK, Grouping.LABEL, Grouping.REPOSITORY})
_EACH_MODEL = usage.alias("each_model")

_IS_FLAT = func.coalesce(runs.c.price_source, "") == PriceSource.SUBSCRIPTION.value
_HAS_COST = runs.c.cost_usd.is_not(None)
# Any other source has priced each model by itself. Said so that few runs have their models counted.
_MAY_BE_WHOLE = or_(runs.c.price_source.is_(None), runs.c.price_source == PriceSource.REPORTED)
_MODELS = (
    select(func.count())
    .select_from(_EACH_MODEL)
    .where(_EACH_MODEL.c.run_id == runs.c.run_id)
    .scalar_subquery()
)
_TOLD_NO_MODEL = not_(exists().where(_EACH_MODEL.c.run_id == runs.c.run_id))
_NO_COUNTS = (literal(0),) * 5
_PRICED_MODELS = (
    select(func.count(_EACH_MODEL.c.cost_usd)).where(_EACH_MODEL.c.run_id == runs.c.run_id).scalar_subquery()
)


def report_of(
    conn: Connection, by: Sequence[Grouping], period: Period, is_shown: Callable[[str], bool]
) -> Report:
    """The report; `is_shown` says which labels count."""
    if conn.dialect.name == "postgresql":
        # All statements see the same runs, also while a daemon settles some.
        conn.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    where = _within(period)
    keys = _keys(conn, by, period, where)
    groups = list(_by_model(conn, keys, where) if Grouping.MODEL in by else _by_run(conn, keys, where))
    total = _total(conn, by, groups, where)
    if Grouping.LABEL in by:
        place = by.index(Grouping.LABEL)
        groups = list(once_per_label(groups, place, _labels(groups, place, is_shown)))
    return report(by, period, groups, total)


def _total(
    conn: Connection, by: Sequence[Grouping], groups: Sequence[Group], where: ColumnElement[bool]
) -> Figures:
    """Of all runs. A run that used two models is in two groups and counts once, so runs are counted again."""
    summed = sum((part.figures for part in groups), Figures())
    if Grouping.MODEL not in by:
        return summed
    counted = [*_counted(conn, {}, where), *_parts_of_unknown(conn, where)]
    return replace(sum((part.figures for part in counted), Figures()), tokens=summed.tokens)


# -- statements -------------------------------------------------------------------------------------------


def _by_run(
    conn: Connection, keys: dict[Grouping, ColumnElement[Any]], where: ColumnElement[bool]
) -> Iterator[Group]:
    """Rows without models: the runs, then their tokens and what is known of unknown costs."""
    yield from _counted(conn, keys, where)
    part = case((runs.c.cost_usd.is_(None), _text(usage.c.cost_usd)))
    yield from _rows(
        conn, keys, _selected(keys, runs.join(usage), *_NO_COUNTS, _amounts(part), *_tokens()), where
    )


def _counted(
    conn: Connection, keys: dict[Grouping, ColumnElement[Any]], where: ColumnElement[bool]
) -> Iterator[Group]:
    of_runs = (*_counts(runs.c.cost_usd.is_(None)), _amounts(runs.c.cost_usd))
    return _rows(conn, keys, _selected(keys, runs, *of_runs), where)


def _parts_of_unknown(conn: Connection, where: ColumnElement[bool]) -> Iterator[Group]:
    """What is known of costs that are not known as a whole."""
    parts = _selected({}, runs.join(usage), *_NO_COUNTS, _amounts(usage.c.cost_usd))
    return _rows(conn, {}, parts.where(runs.c.cost_usd.is_(None)), where)


def _by_model(
    conn: Connection, keys: dict[Grouping, ColumnElement[Any]], where: ColumnElement[bool]
) -> Iterator[Group]:
    """Rows by model: each model of each run, then runs that told none, then charges that nobody split."""
    amount = case(
        (usage.c.cost_usd.is_not(None), _text(usage.c.cost_usd)),
        (and_(_HAS_COST, _MODELS == 1), _text(runs.c.cost_usd)),
    )
    is_unknown = and_(usage.c.cost_usd.is_(None), or_(runs.c.cost_usd.is_(None), _MODELS > 1))
    each = _selected(keys, runs.join(usage), *_counts(is_unknown), _amounts(amount), *_tokens())
    routed = _with_model(keys, runs.c.model)
    of_run = (*_counts(runs.c.cost_usd.is_(None)), _amounts(runs.c.cost_usd))
    untold = _selected(routed, runs, *of_run).where(_TOLD_NO_MODEL)
    several = _with_model(keys, literal(SEVERAL_MODELS))
    unsplit = _selected(several, runs, *_NO_COUNTS, _amounts(runs.c.cost_usd)).where(
        _HAS_COST, _MAY_BE_WHOLE, _MODELS > 1, _PRICED_MODELS == 0
    )
    for statement in (each, untold, unsplit):
        yield from _rows(conn, keys, statement, where)


def _rows(
    conn: Connection,
    keys: dict[Grouping, ColumnElement[Any]],
    statement: Select[Any],
    where: ColumnElement[bool],
) -> Iterator[Group]:
    for row in conn.execute(statement.where(where)):
        yield _group(row, len(keys))


def _selected(
    keys: dict[Grouping, ColumnElement[Any]], source: FromClause, *columns: ColumnElement[Any]
) -> Select[Any]:
    if _OF_TASKS & keys.keys():
        source = source.join(tasks, runs.c.task_id == tasks.c.task_id)
    named = [column.label(f"by_{name}") for name, column in keys.items()]
    return select(*named, *columns).select_from(source).group_by(*named)


def _counts(is_unknown: ColumnElement[bool]) -> tuple[ColumnElement[Any], ...]:
    return (
        func.count(),
        _number_of(runs.c.outcome == Outcome.SUCCEEDED),
        _number_of(and_(is_unknown, not_(_IS_FLAT))),
        _number_of(_IS_FLAT),
        _number_of(and_(_IS_FLAT, runs.c.outcome == Outcome.SUCCEEDED)),
    )


def _number_of(condition: ColumnElement[bool]) -> ColumnElement[Any]:
    return func.count(case((condition, 1)))


def _amounts(column: ColumnElement[Any]) -> ColumnElement[Any]:
    return func.aggregate_strings(_text(column), ",")


def _text(column: ColumnElement[Any]) -> ColumnElement[Any]:
    return type_coerce(column, Text())


def _tokens() -> tuple[ColumnElement[Any], ...]:
    return tuple(func.sum(usage.c[kind]) for kind in _KINDS)


def _group(row: Any, width: int) -> Group:
    count, succeeded, unknown, flat, flat_succeeded, amounts, *tokens = row[width:]
    return Group(
        keys=tuple(row[:width]),
        figures=Figures(
            runs=count,
            succeeded=succeeded,
            unknown=unknown,
            subscription=flat,
            subscription_succeeded=flat_succeeded,
            # PostgreSQL adds bigints up to `numeric`; of no rows there is no sum.
            tokens=ModelUsage(**{kind: int(n or 0) for kind, n in zip(_KINDS, tokens, strict=False)}),
            usd=total_of(amounts),
        ),
    )


# -- what rows are by -------------------------------------------------------------------------------------


def _within(period: Period) -> ColumnElement[bool]:
    ended = runs.c.finished_at
    return and_(
        ended.is_not(None),
        true() if period.since is None else ended >= period.since,
        true() if period.until is None else ended < period.until,
    )


def _keys(
    conn: Connection, by: Sequence[Grouping], period: Period, where: ColumnElement[bool]
) -> dict[Grouping, ColumnElement[Any]]:
    columns: dict[Grouping, Callable[[], ColumnElement[Any]]] = {
        Grouping.DAY: lambda: _day(conn, period, where),
        Grouping.MODEL: lambda: usage.c.model,
        Grouping.RULE: lambda: func.coalesce(runs.c.rule, DEFAULT_RULE),
        Grouping.TASK: lambda: tasks.c.name,
        Grouping.LABEL: lambda: _text(tasks.c.labels),
        Grouping.REPOSITORY: lambda: tasks.c.repo,
        Grouping.PROVIDER: lambda: runs.c.provider,
    }
    return {each: columns[each]() for each in by}


def _with_model(
    keys: dict[Grouping, ColumnElement[Any]], column: ColumnElement[Any]
) -> dict[Grouping, ColumnElement[Any]]:
    return {each: column if each is Grouping.MODEL else key for each, key in keys.items()}


def _day(conn: Connection, period: Period, where: ColumnElement[bool]) -> ColumnElement[Any]:
    """The date in the period's zone, by the offsets it has there between the first run and the last."""
    first, last = conn.execute(
        select(func.min(runs.c.finished_at), func.max(runs.c.finished_at)).where(where)
    ).one()
    now = datetime(2000, 1, 1, tzinfo=UTC)
    spans = offsets(period.zone, first or now, last or now)
    if conn.dialect.name == "postgresql":
        local = func.timezone("UTC", runs.c.finished_at) + _piecewise(spans, _interval)
        return func.to_char(local, "YYYY-MM-DD")
    return func.date(runs.c.finished_at, _piecewise(spans, _modifier))


def _piecewise(
    spans: Sequence[tuple[datetime, timedelta]], spelled: Callable[[timedelta], ColumnElement[Any]]
) -> ColumnElement[Any]:
    *ending, (_, last) = spans
    if not ending:
        return spelled(last)
    return case(*((runs.c.finished_at < end, spelled(offset)) for end, offset in ending), else_=spelled(last))


def _interval(offset: timedelta) -> ColumnElement[Any]:
    return literal(offset, Interval())


def _modifier(offset: timedelta) -> ColumnElement[Any]:
    return literal(f"{offset.total_seconds():+.0f} seconds")


def _labels(
    groups: Sequence[Group], place: int, is_shown: Callable[[str], bool]
) -> dict[str, tuple[str, ...]]:
    return {
        text: tuple(dict.fromkeys(label for label in json.loads(text) if is_shown(label)))
        for text in {group.keys[place] for group in groups}
    }
