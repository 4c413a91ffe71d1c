"""Statements on what budgets count: live reservations, what ended runs used, allowances, warnings given.

Each function works inside the caller's transaction. What follows from the figures is said in `money.budget`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Text,
    and_,
    bindparam,
    delete,
    func,
    insert,
    or_,
    select,
    true,
    type_coerce,
    update,
)

from adw_modules.money.budget import (
    NOTHING,
    Allowance,
    Amounts,
    Book,
    Budgets,
    Live,
    PastRun,
    Per,
    Scope,
    Span,
    Spent,
    Subject,
    Warned,
    at_least,
)
from adw_modules.money.reports import total_of
from adw_modules.tasks.model import UsageSource
from coordinator.store import control
from coordinator.store.tables import budget_allowances, budget_warnings, runs, tasks

STEPS_KEPT = 500  # to twice as many, of one provider and model
_STEPS = "budget_steps"  # key in the daemon state
MOST_PAST_RUNS = 200  # of one provider and model: enough for a quantile, and newer ones say more
_LOCK = 0x636F6F7264  # any number that nobody else has: "coord"

_SUBJECT = (
    tasks.c.name,
    tasks.c.repo,
    tasks.c.author,
    type_coerce(tasks.c.labels, Text()).label("labels"),
    runs.c.provider,
)
_NEWEST = select(func.max(runs.c.run_id))
_LIVE = (
    select(
        runs.c.run_id,
        runs.c.claimed_at,
        runs.c.reserved_usd,
        runs.c.reserved_tokens,
        runs.c.spent_usd,
        runs.c.spent_tokens,
        *(*_SUBJECT, runs.c.model),
    )
    .join_from(runs, tasks, runs.c.task_id == tasks.c.task_id)
    .where(runs.c.finished_at.is_(None))
    .order_by(runs.c.run_id)
)
_LABELS = type_coerce(tasks.c.labels, Text())
_ALIKE = (tasks.c.repo, tasks.c.author, _LABELS, runs.c.provider)
_ENDED = (
    select(
        func.min(tasks.c.name).label("name"),
        *_SUBJECT[1:],
        func.aggregate_strings(type_coerce(runs.c.spent_usd, Text()), ",").label("usd"),
        func.sum(runs.c.spent_tokens).label("tokens"),
    )
    .join_from(runs, tasks, runs.c.task_id == tasks.c.task_id)
    .where(or_(runs.c.spent_usd.is_not(None), runs.c.spent_tokens.is_not(None)))
    .group_by(*_ALIKE)
)
_ENDED_BY_TASK = _ENDED.group_by(tasks.c.task_id)
_PAST = (
    select(
        tasks.c.repo,
        tasks.c.labels,
        runs.c.cost_usd,
        runs.c.usage_source,
        runs.c.spent_tokens,
    )
    .join_from(runs, tasks, runs.c.task_id == tasks.c.task_id)
    .where(
        runs.c.provider == bindparam("at_provider"),
        runs.c.model == bindparam("at_model"),
        runs.c.finished_at.is_not(None),
        runs.c.started_at.is_not(None),
    )
    .order_by(runs.c.finished_at.desc())
    .limit(MOST_PAST_RUNS)
)
_ALLOWED = select(budget_allowances).order_by(budget_allowances.c.allowance_id)
_ALLOW = insert(budget_allowances)
_END_ALLOWANCE = update(budget_allowances).where(
    budget_allowances.c.allowance_id == bindparam("at_allowance")
)
_WARNED = select(budget_warnings.c.period, budget_warnings.c.share).where(
    budget_warnings.c.pot == bindparam("at_pot")
)
_FORGET_WARNED = delete(budget_warnings).where(budget_warnings.c.pot == bindparam("at_pot"))
_WARN = insert(budget_warnings)

Stamp = tuple[int | None, tuple[int, ...]]
Sums = dict[tuple[Per, Scope, str], Amounts]


@dataclass(slots=True)
class Steps:
    """The largest of the last records, not of all there ever were: one that was odd is forgotten again."""

    newest: Amounts = field(default_factory=Amounts)
    before: Amounts = field(default_factory=Amounts)
    count: int = 0

    @property
    def largest(self) -> Amounts:
        return at_least(self.newest, self.before)

    def note(self, more: Amounts) -> bool:
        """Whether it is larger than all that are remembered."""
        known = self.largest
        if self.count >= STEPS_KEPT:
            self.before, self.newest, self.count = self.newest, Amounts(), 0
        self.newest, self.count = at_least(self.newest, more), self.count + 1
        return more.usd > known.usd or more.tokens > known.tokens


@dataclass(slots=True)
class Ledger:
    """What ended runs used, kept as long as no other run has ended: that is all there is to read again.

    Ended runs never change, and the newest run with the live ones says which have ended.
    """

    stamp: Stamp | None = None
    spans: Mapping[Per, Span] = field(default_factory=dict)
    budgets: Budgets | None = None
    ended: Mapping[Per, Sequence[Spent]] = field(default_factory=dict)
    sums: Sums = field(default_factory=dict)
    past: dict[tuple[str, str], Sequence[PastRun]] = field(default_factory=dict)
    seen: dict[int, Amounts] = field(default_factory=dict)  # what live runs had used at the last look
    steps: dict[tuple[str, str], Steps] = field(default_factory=dict)
    has_looked: bool = False
    is_step_news: bool = False  # that the store does not know yet

    def step(self, row: Row[Any], spent: Amounts) -> Amounts:
        """The most that a run of this provider and model was lately seen to use between two looks."""
        steps = self.steps.setdefault((row.provider, row.model), Steps())
        # What lived before the first look had used that much in nobody knows how many steps.
        before = self.seen.get(row.run_id, Amounts() if self.has_looked else None)
        self.seen[row.run_id] = spent
        if before is not None and spent != before:
            more = Amounts(usd=spent.usd - before.usd, tokens=spent.tokens - before.tokens)
            self.is_step_news |= steps.note(more)
        return steps.largest


def lock(conn: Connection) -> None:
    """Until the end of the transaction nobody else reserves. SQLite has one writer at a time anyway."""
    if conn.dialect.name == "postgresql":
        conn.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")


def book(conn: Connection, ledger: Ledger, budgets: Budgets, now: datetime) -> Book:
    """All that budgets have given, as it is now."""
    if not ledger.has_looked:
        ledger.steps = _known_steps(conn)
    # Live runs first: one that is settled meanwhile is then counted twice rather than not at all.
    live = [_live(row, budgets, ledger) for row in conn.execute(_LIVE)]
    ledger.has_looked = True
    if len(ledger.seen) > len(live):
        ledger.seen = {run.run_id: run.spent for run in live}
    _bring_up_to_date(conn, ledger, budgets, live, now)
    return Book(
        ended=ledger.ended,
        live=live,
        allowances=[_allowance(row) for row in conn.execute(_ALLOWED)],
        sums=ledger.sums,
    )


def keep_steps(conn: Connection, ledger: Ledger) -> None:
    """For the next daemon, which finds live runs and has seen none of their records."""
    found = [[*key, str(steps.largest.usd), steps.largest.tokens] for key, steps in ledger.steps.items()]
    control.put(conn, _STEPS, json.dumps(found))
    ledger.is_step_news = False


def _known_steps(conn: Connection) -> dict[tuple[str, str], Steps]:
    return {
        (provider, model): Steps(before=Amounts(usd=Decimal(usd), tokens=tokens))
        for provider, model, usd, tokens in json.loads(control.get(conn, _STEPS) or "[]")
    }


def past(conn: Connection, ledger: Ledger, provider: str, model: str) -> Sequence[PastRun]:
    """The newest ended runs of a provider and model."""
    key = (provider, model)
    if key not in ledger.past:
        found = conn.execute(_PAST, {"at_provider": provider, "at_model": model})
        ledger.past[key] = [
            PastRun(
                repository=row.repo,
                labels=row.labels,
                usd=row.cost_usd,
                tokens=None if row.usage_source in (None, UsageSource.UNKNOWN) else row.spent_tokens,
            )
            for row in found
        ]
    return ledger.past[key]


def allow(conn: Connection, allowance: Allowance) -> None:
    conn.execute(
        _ALLOW,
        {
            "budget": allowance.budget,
            "usd": allowance.amounts.usd,
            "tokens": allowance.amounts.tokens,
            "at": allowance.at,
            "until": allowance.until,
            "reason": allowance.reason,
            "pot": allowance.pot,
        },
    )


def take_back(conn: Connection, name: str, pot: str | None, now: datetime) -> int:
    """How many allowances end now that would have gone on. `pot` None: all of the budget's."""
    ended = [
        row.allowance_id
        for row in conn.execute(_ALLOWED)
        if row.budget == name and row.until > now and pot in {None, row.pot}
    ]
    for allowance_id in ended:
        conn.execute(_END_ALLOWANCE, {"at_allowance": allowance_id, "until": now})
    return len(ended)


def is_news(conn: Connection, warned: Warned) -> bool:
    """Remember a warning; False when this share of this period was warned of before."""
    known = conn.execute(_WARNED, {"at_pot": warned.key}).one_or_none()
    if known is not None and known.period == warned.period and known.share >= warned.share:
        return False
    conn.execute(_FORGET_WARNED, {"at_pot": warned.key})
    conn.execute(_WARN, {"pot": warned.key, "period": warned.period, "share": warned.share})
    return True


def _bring_up_to_date(
    conn: Connection, ledger: Ledger, budgets: Budgets, live: Sequence[Live], now: datetime
) -> None:
    stamp: Stamp = (conn.execute(_NEWEST).scalar_one(), tuple(run.run_id for run in live))
    spans = budgets.spans(now)
    if (ledger.stamp, ledger.spans, ledger.budgets) == (stamp, spans, budgets):
        return
    ledger.ended = {per: _ended(conn, per, span, budgets) for per, span in spans.items()}
    ledger.stamp, ledger.spans, ledger.budgets = stamp, spans, budgets
    ledger.sums, ledger.past = {}, {}


def _ended(conn: Connection, per: Per, span: Span, budgets: Budgets) -> list[Spent]:
    """One row for all tasks that are alike, where no budget tells them apart: it names any of them."""
    by_task = any(each.per is per and each.scope is Scope.TASK for each in budgets.budgets)
    statement = _ENDED_BY_TASK if by_task else _ENDED
    return [
        Spent(
            subject=_subject(row, budgets),
            amounts=Amounts(usd=total_of(row.usd), tokens=int(row.tokens or 0)),
        )
        for row in conn.execute(statement.where(_within(span)))
    ]


def _within(span: Span) -> ColumnElement[bool]:
    ended = runs.c.finished_at
    return and_(
        ended.is_not(None),
        true() if span.start is None else ended >= span.start,
        true() if span.end is None else ended < span.end,
    )


def _subject(row: Row[Any], budgets: Budgets) -> Subject:
    labels = json.loads(row.labels)
    return Subject(
        task=row.name,
        repository=row.repo,
        author=row.author,
        labels=tuple(each for each in labels if not budgets.is_own(each)),
        provider=row.provider,
    )


def _live(row: Row[Any], budgets: Budgets, ledger: Ledger) -> Live:
    spent = Amounts(usd=row.spent_usd or NOTHING, tokens=row.spent_tokens or 0)
    return Live(
        run_id=row.run_id,
        subject=_subject(row, budgets),
        claimed_at=row.claimed_at,
        reserved=Amounts(usd=row.reserved_usd or NOTHING, tokens=row.reserved_tokens or 0),
        spent=spent,
        step=ledger.step(row, spent),
    )


def _allowance(row: Row[Any]) -> Allowance:
    return Allowance(
        budget=row.budget,
        amounts=Amounts(usd=row.usd or NOTHING, tokens=row.tokens or 0),
        at=row.at,
        until=row.until,
        reason=row.reason,
        pot=row.pot,
    )
