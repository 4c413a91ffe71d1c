"""Budgets: which of them a run falls under, what is left, who may start and who has to stop. Pure.

Owns the arithmetic. Must not read a clock, a price list or the store: what was used comes in as a `Book`.

A budget has *pots*: one for everything, or one for each repository, label, author, provider or task. What
ended runs used counts in the period in which they ended, as in `coordinator costs`. A live run counts in
every period it is live in, with what it has reserved or, once that is more, with what it has used.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta, tzinfo
from decimal import Decimal, localcontext
from enum import StrEnum

from adw_modules.money.pricing import EXACT
from adw_modules.tasks.model import Cost, Outcome, Run, RunOutcome, Task, Usage, UsageSource

NOTHING = Decimal(0)
RECHECK_WITHOUT_PERIOD = timedelta(days=1)  # a budget without a period has no next one to wait for
RECHECK_RESERVED = timedelta(seconds=60)  # what other runs hold may be free by then


class Per(StrEnum):
    """How long a budget lasts."""

    DAY = "day"
    MONTH = "month"
    TOTAL = "total"


class Scope(StrEnum):
    """What a budget has a pot for each of."""

    ALL = "all"
    REPOSITORY = "repository"
    LABEL = "label"
    AUTHOR = "author"
    PROVIDER = "provider"
    TASK = "task"


class Unit(StrEnum):
    """What a budget counts."""

    USD = "usd"
    TOKENS = "tokens"


@dataclass(frozen=True, slots=True, kw_only=True)
class Amounts:
    """Money (US dollars) and tokens."""

    usd: Decimal = NOTHING
    tokens: int = 0

    def of(self, unit: Unit) -> Decimal:
        return self.usd if unit is Unit.USD else Decimal(self.tokens)

    def __add__(self, other: Amounts) -> Amounts:
        with localcontext(EXACT):
            return Amounts(usd=self.usd + other.usd, tokens=self.tokens + other.tokens)


def at_least(one: Amounts, other: Amounts) -> Amounts:
    """The larger of each."""
    return Amounts(usd=max(one.usd, other.usd), tokens=max(one.tokens, other.tokens))


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """One `[[budgets]]`. `only` empty: a pot for each name that comes by."""

    name: str
    usd: Decimal | None = None
    tokens: int | None = None
    per: Per = Per.DAY
    scope: Scope = Scope.ALL
    only: tuple[str, ...] = ()
    is_hard: bool = True
    warn_at: tuple[float, ...] = ()

    def limits(self) -> Iterator[tuple[Unit, Decimal]]:
        if self.usd is not None:
            yield Unit.USD, self.usd
        if self.tokens is not None:
            yield Unit.TOKENS, Decimal(self.tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What decides which pots a run is paid from. `provider` None: not chosen yet."""

    task: str
    repository: str
    author: str
    labels: tuple[str, ...]
    provider: str | None


@dataclass(frozen=True, slots=True)
class Pot:
    """What one budget has for one name; the name is empty where there is only one pot."""

    budget: Budget
    name: str = ""

    def holds(self, subject: Subject) -> bool:
        names = _names(self.budget.scope, subject)
        return names is None or self.name.casefold() in {name.casefold() for name in names}

    @property
    def title(self) -> str:
        """`daily ($20.00 a day for label docs)`."""
        amounts = " and ".join(shown(unit, limit) for unit, limit in self.budget.limits())
        per = "in all" if self.budget.per is Per.TOTAL else f"a {self.budget.per}"
        of = f" for {self.budget.scope} {self.name}" if self.name else ""
        return f"{self.budget.name} ({amounts} {per}{of})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """From `start` to before `end`, both aware; None: without a bound."""

    start: datetime | None = None
    end: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What some ended runs count for."""

    subject: Subject
    amounts: Amounts


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """A run that has not ended: what was reserved for it, and what it is known to have used.

    `step`: the most that a run of its provider and model is known to use between two looks at it.
    """

    run_id: int
    subject: Subject
    claimed_at: datetime
    reserved: Amounts
    spent: Amounts
    step: Amounts = Amounts()

    @property
    def holding(self) -> Amounts:
        return at_least(self.reserved, self.spent)

    def risk(self, unit: Unit) -> Decimal:
        """What its next record may take beyond what it holds; it may be under way already."""
        next_record = self.spent.of(unit) + self.step.of(unit)
        return max(NOTHING, next_record - self.holding.of(unit))


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What an operator has allowed for a while beyond a budget: in `pot`, or in each of its pots."""

    budget: str
    amounts: Amounts
    at: datetime
    until: datetime
    reason: str = ""
    pot: str = ""

    def is_for(self, pot: Pot) -> bool:
        is_this = not self.pot or self.pot.casefold() == pot.name.casefold()
        return self.budget == pot.budget.name and is_this


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What a pot has given: to ended runs, to live ones so far, and what live ones may still take."""

    ended: Amounts
    live: Amounts
    holding: Amounts  # reservations of live runs, or what they have used where that is more

    @property
    def spent(self) -> Amounts:
        return self.ended + self.live

    @property
    def taken(self) -> Amounts:
        return self.ended + self.holding


@dataclass(frozen=True, slots=True, kw_only=True)
class Book:
    """All that has been used, at one moment. `ended` has the runs of the current period of each length."""

    ended: Mapping[Per, Sequence[Spent]]
    live: Sequence[Live] = ()
    allowances: Sequence[Allowance] = ()
    # Sums over ended runs, which never change: kept by whoever makes the next book of the same runs.
    sums: dict[tuple[Per, Scope, str], Amounts] = field(default_factory=dict, compare=False)

    def use(self, pot: Pot) -> Use:
        live = [each for each in self.live if pot.holds(each.subject)]
        return Use(
            ended=self._ended(pot),
            live=_total(each.spent for each in live),
            holding=_total(each.holding for each in live),
        )

    def risks(self, pot: Pot, unit: Unit) -> dict[int, Decimal]:
        """By run: what may come on top of all that is held, newest run first."""
        live = [run for run in self.live if run.holding.of(unit) and pot.holds(run.subject)]
        risky = {run.run_id: risk for run in live if (risk := run.risk(unit))}
        return dict(sorted(risky.items(), reverse=True))

    def _ended(self, pot: Pot) -> Amounts:
        key = (pot.budget.per, pot.budget.scope, pot.name.casefold())
        if key not in self.sums:
            rows = self.ended.get(pot.budget.per, ())
            self.sums[key] = _total(row.amounts for row in rows if pot.holds(row.subject))
        return self.sums[key]

    def limit(self, pot: Pot, unit: Unit, *, now: datetime, since: datetime | None = None) -> Decimal:
        """What a pot may give. An allowance counts until it ends, and for what was live before that."""
        found = dict(pot.budget.limits())[unit]
        for allowed in self.allowances:
            ends = allowed.until > min(now, since or now)
            if allowed.is_for(pot) and allowed.at <= now and ends:
                found += allowed.amounts.of(unit)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class PastRun:
    """What an ended run is known to have used; None: not known."""

    repository: str
    labels: tuple[str, ...]
    usd: Decimal | None
    tokens: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimates:
    """How much is reserved for a run: this share of similar runs took no more; else a fixed amount."""

    usd: Decimal = Decimal(1)
    tokens: int = 1_000_000
    quantile: float = 0.9
    min_runs: int = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why no run may start. `until`: when the budget starts again; None: never by itself.

    `waits`: only what live runs hold is in the way, so that it may be otherwise when one of them ends.
    """

    reason: str
    until: datetime | None
    waits: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StopOrder:
    """A live run that has to end. `until`: when its task may be looked at again."""

    run_id: int
    reason: str
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned:
    """A share of a pot that has been used. `key` and `period` say which pot, and when."""

    key: str
    period: str
    share: float
    title: str
    spent: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One pot as `coordinator budget` shows it. Amounts of money or of tokens."""

    pot: Pot
    unit: Unit
    limit: Decimal
    spent: Decimal
    reserved: Decimal  # what live runs may still take
    span: Span

    @property
    def left(self) -> Decimal:
        return max(NOTHING, self.limit - self.spent - self.reserved)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budgets:
    """The budgets of a configuration, and what is needed to apply them."""

    budgets: tuple[Budget, ...]
    zone: tzinfo = UTC
    estimates: Estimates = Estimates()
    own_prefix: str = ""  # labels we write ourselves: no budget is about them
    flat: frozenset[str] = frozenset()  # providers on a subscription: their runs cost no money

    # -- what runs fall under ---------------------------------------------------------------------

    def subject(self, task: Task, provider: str | None) -> Subject:
        return Subject(
            task=task.name,
            repository=task.repo,
            author=task.author,
            labels=task.labels_of_others(self.own_prefix),
            provider=provider,
        )

    def is_own(self, label: str) -> bool:
        """Whether it is one of the labels we write ourselves."""
        return bool(self.own_prefix) and label.startswith(self.own_prefix)

    def pots(self, subject: Subject, *, hard: bool = False) -> list[Pot]:
        """The pots a run of `subject` is paid from."""
        found = []
        for budget in self.budgets:
            if budget.is_hard or not hard:
                found += _pots(budget, subject)
        return found

    def spans(self, now: datetime) -> dict[Per, Span]:
        """The current period of each length that some budget has."""
        return {budget.per: span(budget.per, now, self.zone) for budget in self.budgets}

    # -- before a run -----------------------------------------------------------------------------

    def estimate(self, subject: Subject, past: Sequence[PastRun]) -> Amounts:
        """What a run will take, by what the most similar ones have taken."""
        groups = self._similar(subject, past)
        usd = self._likely(([run.usd for run in runs] for runs in groups), self.estimates.usd)
        counts = (
            [None if n is None else Decimal(n) for n in (run.tokens for run in runs)] for runs in groups
        )
        tokens = self._likely(counts, Decimal(self.estimates.tokens))
        is_flat = subject.provider in self.flat
        return Amounts(usd=NOTHING if is_flat else usd, tokens=max(1, int(tokens)))

    def _likely(self, groups: Iterable[list[Decimal | None]], otherwise: Decimal) -> Decimal:
        """The quantile of the first group that has enough known values."""
        for values in groups:
            known = sorted(value for value in values if value is not None)
            if len(known) >= self.estimates.min_runs:
                return known[math.ceil(self.estimates.quantile * len(known)) - 1]
        return otherwise

    def _similar(self, subject: Subject, past: Sequence[PastRun]) -> list[Sequence[PastRun]]:
        """Runs of the same repository and labels, of the same repository, of any."""
        here = [run for run in past if run.repository.casefold() == subject.repository.casefold()]
        wanted = _folded(subject.labels)
        return [[run for run in here if self._labels(run) == wanted], here, past]

    def _labels(self, run: PastRun) -> frozenset[str]:
        return _folded(label for label in run.labels if not self.is_own(label))

    def admit(self, book: Book, subject: Subject, estimate: Amounts, *, now: datetime) -> Amounts | Refusal:
        """What to reserve for a run, or why it may not start.

        No more is reserved than the smallest budget has in all, so that a run that is thought to need more
        may start on a whole budget, and is then stopped at its end. What an operator has allowed beyond the
        budget is for starting runs and does not make them larger.
        """
        pots = self.pots(subject, hard=True)
        wanted = _clipped(estimate, (limit for pot in pots for limit in pot.budget.limits()))
        refusals = [
            refusal
            for pot in pots
            for unit, _ in pot.budget.limits()
            if (refusal := self._refusal(book, pot, unit, wanted.of(unit), now)) is not None
        ]
        lasting = [refusal for refusal in refusals if not refusal.waits]
        if not refusals:
            return wanted
        return max(lasting or refusals, key=_how_long)

    def _refusal(self, book: Book, pot: Pot, unit: Unit, wanted: Decimal, now: datetime) -> Refusal | None:
        use, limit = book.use(pot), book.limit(pot, unit, now=now)
        # What costs nothing (a free model, a subscription) needs no money.
        if wanted == 0 or use.taken.of(unit) + wanted + _but_one(book.risks(pot, unit)) <= limit:
            return None
        return self.refusal(pot, unit, use, wanted, limit=limit, now=now)

    def refusal(
        self, pot: Pot, unit: Unit, use: Use, wanted: Decimal, *, limit: Decimal, now: datetime
    ) -> Refusal:
        spent, held = use.spent.of(unit), use.taken.of(unit) - use.spent.of(unit)
        end = span(pot.budget.per, now, self.zone).end
        said = f"budget {pot.title} has no room: {shown(unit, spent)} spent"
        said += f", {shown(unit, held)} reserved" if held else ""
        said += f", and a run like this takes about {shown(unit, wanted)}"
        said += f"; it starts again at {end.astimezone(self.zone):%Y-%m-%d %H:%M %Z}" if end else ""
        return Refusal(reason=said, until=end, waits=spent + wanted <= limit)

    # -- while runs go on -------------------------------------------------------------------------

    def stops(self, book: Book, *, now: datetime) -> list[StopOrder]:
        """The live runs that have to end: all that draw on a pot that is spent, and those that take more than
        was reserved for them where the rest is reserved for others, or where more than one of them may."""
        found: dict[int, StopOrder] = {}
        pots: dict[tuple[str, str], Pot] = {}
        for run in book.live:
            for pot in self.pots(run.subject, hard=True):
                pots.setdefault((pot.budget.name, pot.name.casefold()), pot)
                order = self._stop(book, run, pot, now)
                if order is not None:
                    found.setdefault(run.run_id, order)
        for pot in pots.values():
            for order in self._crowd(book, pot, now, found):
                found.setdefault(order.run_id, order)
        return list(found.values())

    def most(self, book: Book, run_id: int, *, now: datetime) -> Mapping[Unit, Decimal]:
        """What a live run may use by itself, of what hard budgets count: all that is not held by others.

        That is for a program that can stop itself, should nobody be there to stop it. Several such runs may
        together use more than there is: each is told as if the others took no more than they hold.
        """
        found: dict[Unit, Decimal] = {}
        for run in (each for each in book.live if each.run_id == run_id):
            for pot in self.pots(run.subject, hard=True):
                for unit, _ in pot.budget.limits():
                    if own := run.holding.of(unit):  # what costs nothing is not limited
                        limit = book.limit(pot, unit, now=now, since=run.claimed_at)
                        room = max(own, limit - book.use(pot).taken.of(unit) + own)
                        found[unit] = min(room, found.get(unit, room))
        return found

    def _crowd(self, book: Book, pot: Pot, now: datetime, ending: Mapping[int, StopOrder]) -> list[StopOrder]:
        """Of several runs that may go beyond the budget with their next records all but one, newest first;
        where it is reached already that one as well."""
        found = []
        began = {run.run_id: run.claimed_at for run in book.live}
        for unit, _ in pot.budget.limits():
            risks = {run_id: risk for run_id, risk in book.risks(pot, unit).items() if run_id not in ending}
            taken = book.use(pot).taken.of(unit)
            for run_id in list(risks):
                limit = book.limit(pot, unit, now=now, since=began[run_id])
                if taken <= limit and taken + _but_one(risks) <= limit:
                    break
                del risks[run_id]
                reason = f"budget {pot.title}: the rest of it is for other runs"
                found.append(StopOrder(run_id=run_id, reason=reason, until=now + RECHECK_RESERVED))
        return found

    def _stop(self, book: Book, run: Live, pot: Pot, now: datetime) -> StopOrder | None:
        for unit, _ in pot.budget.limits():
            if run.holding.of(unit) == 0:
                continue
            use, limit = book.use(pot), book.limit(pot, unit, now=now, since=run.claimed_at)
            if use.spent.of(unit) >= limit:
                end = span(pot.budget.per, now, self.zone).end
                reason = f"budget {pot.title} is used up: {shown(unit, use.spent.of(unit))} spent"
                return StopOrder(run_id=run.run_id, reason=reason, until=end or now + RECHECK_WITHOUT_PERIOD)
            if run.spent.of(unit) > run.reserved.of(unit) and use.taken.of(unit) > limit:
                reason = f"budget {pot.title}: the rest of it is reserved for other runs"
                return StopOrder(run_id=run.run_id, reason=reason, until=now + RECHECK_RESERVED)
        return None

    def warnings(self, book: Book, subjects: Iterable[Subject], *, now: datetime) -> list[Warned]:
        """The largest share of `warn_at` that each pot of `subjects` has reached."""
        pots = dict.fromkeys(pot for subject in subjects for pot in self.pots(subject))
        return [found for pot in pots for found in self._warnings(book, pot, now)]

    def _warnings(self, book: Book, pot: Pot, now: datetime) -> Iterator[Warned]:
        for unit, _ in pot.budget.limits():
            limit, spent = book.limit(pot, unit, now=now), book.use(pot).spent.of(unit)
            reached = [share for share in pot.budget.warn_at if spent >= limit * Decimal(str(share))]
            if reached:
                start = span(pot.budget.per, now, self.zone).start
                yield Warned(
                    key=json.dumps([pot.budget.name, unit, pot.name.casefold()]),
                    period=start.isoformat() if start else "",
                    share=max(reached),
                    title=pot.title,
                    spent=shown(unit, spent),
                )

    # -- for rules and people ---------------------------------------------------------------------

    def left(self, book: Book, subject: Subject, *, now: datetime) -> float | None:
        """The smallest share (0 to 1) left in any pot of the task; None: no budget is about it."""
        shares = [
            max(NOTHING, 1 - book.use(pot).taken.of(unit) / book.limit(pot, unit, now=now))
            for pot in self.pots(subject)
            for unit, _ in pot.budget.limits()
        ]
        return round(float(min(shares)), 4) if shares else None

    def standings(self, book: Book, *, now: datetime) -> list[Standing]:
        """Every pot there is: those the configuration names, and those that something was taken from."""
        return [
            self._standing(book, pot, unit, now)
            for budget in self.budgets
            for pot in _all_pots(budget, book)
            for unit, _ in budget.limits()
        ]

    def _standing(self, book: Book, pot: Pot, unit: Unit, now: datetime) -> Standing:
        use, limit = book.use(pot), book.limit(pot, unit, now=now)
        spent, taken = use.spent.of(unit), use.taken.of(unit)
        if pot.budget.is_hard:  # where one run took too much, the others are stopped before they take all
            taken = min(taken, max(limit, spent))
        return Standing(
            pot=pot,
            unit=unit,
            limit=limit,
            spent=spent,
            reserved=taken - spent,
            span=span(pot.budget.per, now, self.zone),
        )


def span(per: Per, now: datetime, zone: tzinfo) -> Span:
    """The day or month of `zone` that `now` is in, from midnight to midnight there, in UTC."""
    if per is Per.TOTAL:
        return Span()
    today = now.astimezone(zone).date()
    if per is Per.DAY:
        first, after = today, today + timedelta(days=1)
    else:
        first = today.replace(day=1)
        after = (first + timedelta(days=32)).replace(day=1)
    start, end = (datetime.combine(day, time(), tzinfo=zone).astimezone(UTC) for day in (first, after))
    return Span(start=start, end=end)


def counted(run: Run, outcome: RunOutcome, usage: Usage, cost: Cost) -> Amounts:
    """What an ended run counts for. What is not known counts as what was reserved for it."""
    may_have_run = run.started_at is not None or outcome.outcome is Outcome.LOST
    reserved = reserved_for(run) if may_have_run else Amounts()
    known = Amounts(
        usd=cost.usd if cost.usd is not None else cost.at_least or NOTHING, tokens=usage.total.total
    )
    is_usd_known = cost.usd is not None or cost.is_subscription
    is_counted = usage.source is not UsageSource.UNKNOWN
    return at_least(
        known,
        Amounts(usd=NOTHING if is_usd_known else reserved.usd, tokens=0 if is_counted else reserved.tokens),
    )


def reserved_for(run: Run) -> Amounts:
    return Amounts(usd=run.reserved_usd or NOTHING, tokens=run.reserved_tokens or 0)


def shown(unit: Unit, amount: Decimal) -> str:
    """`$12.50`, `$0.0042`, `1,200,000 tokens`."""
    if unit is Unit.TOKENS:
        return f"{int(amount):,} tokens"
    digits = 2 if amount >= 1 or amount == amount.quantize(Decimal("0.01")) else 4
    return f"${amount:,.{digits}f}"


def _but_one(risks: Mapping[int, Decimal]) -> Decimal:
    """A budget may be exceeded by one record. What others may take beside it has to fit."""
    return sum(risks.values(), NOTHING) - max(risks.values(), default=NOTHING)


def _how_long(refusal: Refusal) -> datetime:
    return refusal.until or datetime.max.replace(tzinfo=UTC)


def _clipped(estimate: Amounts, limits: Iterable[tuple[Unit, Decimal]]) -> Amounts:
    usd, tokens = estimate.usd, estimate.tokens
    for unit, limit in limits:
        if unit is Unit.USD:
            usd = min(usd, limit)
        else:
            tokens = min(tokens, int(limit))
    return Amounts(usd=usd, tokens=tokens)


def _names(scope: Scope, subject: Subject) -> tuple[str, ...] | None:
    """What pots of that scope are named after; None: there is only one."""
    match scope:
        case Scope.ALL:
            return None
        case Scope.REPOSITORY:
            return (subject.repository,)
        case Scope.LABEL:
            return subject.labels
        case Scope.AUTHOR:
            return (subject.author,)
        case Scope.PROVIDER:
            return () if subject.provider is None else (subject.provider,)
        case Scope.TASK:
            return (subject.task,)


def _pots(budget: Budget, subject: Subject) -> list[Pot]:
    names = _names(budget.scope, subject)
    if names is None:
        return [Pot(budget)]
    if budget.only:
        present = _folded(names)
        names = tuple(name for name in budget.only if name.casefold() in present)
    return [Pot(budget, name) for name in names]


def _all_pots(budget: Budget, book: Book) -> list[Pot]:
    if budget.scope is Scope.ALL or budget.only:
        return [Pot(budget, name) for name in budget.only] or [Pot(budget)]
    subjects = [row.subject for row in book.ended.get(budget.per, ())] + [run.subject for run in book.live]
    found = {pot.name.casefold(): pot for subject in subjects for pot in _pots(budget, subject)}
    return [found[name] for name in sorted(found)]


def _folded(names: Iterable[str]) -> frozenset[str]:
    return frozenset(name.casefold() for name in names)


def _total(amounts: Iterable[Amounts]) -> Amounts:
    all_of_it = list(amounts)
    with localcontext(EXACT):
        usd = sum((each.usd for each in all_of_it), NOTHING)
    return Amounts(usd=usd, tokens=sum(each.tokens for each in all_of_it))
