"""The budgets of the configuration in force, with the figures of the store: for the planner, runs and people.

Decides nothing: `adw_modules.money.budget` does. Writes nothing but that a warning was given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

from adw_modules.config import Settings
from adw_modules.money.budget import (
    NOTHING,
    Amounts,
    Book,
    Budgets,
    Refusal,
    StopOrder,
    Subject,
    Unit,
    Warned,
)
from adw_modules.routing import Checker, Target
from adw_modules.tasks.model import Cost, Run, Task, Usage
from adw_modules.tasks.planning import within_budgets
from coordinator.logs import get_logger
from coordinator.store import Store

log = get_logger()


def budgets_of(settings: Settings) -> Budgets | None:
    """The budgets of a configuration; None when it has none."""
    if not settings.budgets:
        return None
    zone = settings.coordinator.timezone
    return Budgets(
        budgets=tuple(entry.budget for entry in settings.budgets),
        zone=UTC if zone == "UTC" else ZoneInfo(zone),
        estimates=settings.budget_estimates.estimates,
        own_prefix=settings.github.status_label_prefix,
        flat=frozenset(name for name, table in settings.providers.items() if table.billing == "subscription"),
    )


class Gate:
    """Whether budgets let a task start. Reads the store once, when first asked."""

    def __init__(self, store: Store, budgets: Budgets, now: datetime) -> None:
        self._store = store
        self._budgets = budgets
        self._now = now
        self._read: Book | None = None
        self._found: dict[tuple[object, ...], Refusal | None] = {}

    def checker(self, task: Task) -> Checker:
        """Refuses the targets that the task's budgets have no room for."""
        return within_budgets(lambda target: self.refusal(task, target.provider, target.model), self._now)

    def refusal(self, task: Task, provider: str, model: str) -> Refusal | None:
        """Why a run of the task may not start there now; None when it may."""
        subject = self._budgets.subject(task, provider)
        # A long queue is full of tasks that differ in nothing a budget asks for.
        pots = tuple((pot.budget.name, pot.name) for pot in self._budgets.pots(subject, hard=True))
        alike = (pots, subject.repository, subject.labels, provider, model)
        if alike not in self._found:
            self._found[alike] = self._asked(subject, provider, model)
        return self._found[alike]

    def _asked(self, subject: Subject, provider: str, model: str) -> Refusal | None:
        book = self._book  # first: it also says which ended runs are news
        estimate = self._budgets.estimate(subject, self._store.past_runs(provider, model))
        found = self._budgets.admit(book, subject, estimate, now=self._now)
        return found if isinstance(found, Refusal) else None

    def left(self, task: Task) -> float | None:
        """The smallest share left of the task's budgets, from 0 to 1; None when it has none."""
        return self._budgets.left(self._book, self._budgets.subject(task, None), now=self._now)

    @property
    def _book(self) -> Book:
        if self._read is None:
            self._read = self._store.budget_book(self._budgets, self._now)
        return self._read


class Room:
    """Whether budgets have room for a task elsewhere, once a run of it that is ending holds nothing more."""

    def __init__(self, store: Store, settings: Settings, now: datetime, *, without: int) -> None:
        self._store, self._budgets, self._now = store, budgets_of(settings), now
        self._without = without

    def has(self, task: Task, target: Target) -> bool:
        if self._budgets is None:
            return True
        book = self._store.budget_book(self._budgets, self._now)
        live = [replace(run, reserved=run.spent) if run.run_id == self._without else run for run in book.live]
        subject = self._budgets.subject(task, target.provider)
        estimate = self._budgets.estimate(subject, self._store.past_runs(target.provider, target.model))
        found = self._budgets.admit(replace(book, live=live), subject, estimate, now=self._now)
        return not isinstance(found, Refusal)


def most_of(store: Store, settings: Settings, run: Run, now: datetime) -> Mapping[Unit, Decimal]:
    """What the budgets have left for a claimed run, others' reservations taken off; empty without budgets."""
    budgets = budgets_of(settings)
    if budgets is None or not any(budget.is_hard for budget in budgets.budgets):
        return {}
    return budgets.most(store.budget_book(budgets, now), run.run_id, now=now)


def gate_of(store: Store, settings: Settings, now: datetime) -> Gate | None:
    """The gate of a configuration; None when it has no budgets."""
    budgets = budgets_of(settings)
    return Gate(store, budgets, now) if budgets else None


def to_stop(store: Store, budgets: Budgets, now: datetime) -> tuple[Book, list[StopOrder]]:
    """All that budgets have given by now, and the live runs that have to end for it.

    To be asked after each usage record: what came since the last time is taken for one.
    """
    book = store.budget_book(budgets, now)
    store.keep_budget_steps()
    return book, budgets.stops(book, now=now)


def spent(usage: Usage, cost: Cost) -> Amounts:
    """What a live run is known to have used."""
    usd = cost.usd if cost.usd is not None else cost.at_least
    return Amounts(usd=usd or NOTHING, tokens=usage.total.total)


def warn(store: Store, budgets: Budgets, book: Book, subjects: Sequence[Subject], now: datetime) -> None:
    """Say once in each period that a share of a budget is used: in the log and in the audit trail."""
    for warned in budgets.warnings(book, subjects, now=now):
        if store.warn_of_budget(warned, text=_sentence(warned), now=now):
            log.warning(
                "budget warning", budget=warned.title, spent=warned.spent, share=f"{warned.share:.0%}"
            )


def _sentence(warned: Warned) -> str:
    return f"budget {warned.title}: {warned.share:.0%} is used, {warned.spent} spent"
