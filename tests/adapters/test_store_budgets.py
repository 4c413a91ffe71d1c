"""Budgets in the store: reserved with the claim, settled with the run, safe from rivals and restarts."""

from __future__ import annotations

import shutil
import tempfile
import threading
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from store_samples import NOW, Because, a_settlement, end, queue, some_usage

from adw_modules.money.budget import (
    Allowance,
    Amounts,
    Budget,
    Budgets,
    Estimates,
    Per,
    Pot,
    Scope,
    Unit,
    Warned,
)
from adw_modules.tasks.model import (
    Cost,
    ModelUsage,
    Outcome,
    Run,
    RunOutcome,
    TaskState,
    Usage,
    UsageSource,
)
from coordinator.budgeting import to_stop
from coordinator.store import Store

DAILY = Budget(name="daily", usd=Decimal(10))
TWO_EACH = Budgets(budgets=(DAILY,), estimates=Estimates(usd=Decimal(2), tokens=100))
UNKNOWN = Cost(usd=None, priced_by="unknown: no price for glm-9")


def claim(store: Store, task_id: int, budgets: Budgets = TWO_EACH, *, now: datetime = NOW):
    return store.claim(
        task_id,
        decision=Because(),
        config_version="abc",
        run_dir_of=lambda task, token: f"/state/runs/{task.name}.{token}",
        now=now,
        budgets=budgets,
    )


def use(store: Store, budgets: Budgets = TWO_EACH, *, now: datetime = NOW):
    return store.budget_book(budgets, now).use(Pot(budgets.budgets[0]))


def started(run: Run) -> Run:
    return replace(run, started_at=NOW)


def test_a_claim_reserves_an_estimate_and_settling_puts_the_cost_in_its_place(store):
    _, run = claim(store, queue(store).task_id)
    assert (run.reserved_usd, run.reserved_tokens) == (Decimal(2), 100)
    assert use(store).taken == Amounts(usd=Decimal(2), tokens=100)
    end(store, started(run), cost=Cost(usd=Decimal("0.10"), priced_by="config"), now=NOW)
    assert use(store).taken == Amounts(usd=Decimal("0.10"), tokens=some_usage().total.total)
    assert use(store, now=NOW + timedelta(days=1)).taken == Amounts()


def test_what_is_not_known_of_an_ended_run_counts_as_its_reservation(store):
    _, run = claim(store, queue(store).task_id)
    end(store, started(run), cost=UNKNOWN, usage=Usage(source=UsageSource.UNKNOWN), now=NOW)
    assert use(store).spent == Amounts(usd=Decimal(2), tokens=100)


def test_a_task_without_room_in_a_budget_is_not_claimed_and_loses_no_attempt(store):
    for number in range(1, 6):
        assert claim(store, queue(store, number).task_id)
    late = queue(store, 6)
    assert claim(store, late.task_id) is None
    assert store.get_task(late.task_id) == late
    assert claim(store, 999) is None


def test_a_reservation_survives_the_daemon_and_ends_with_its_run(open_store):
    first = open_store()
    task, run = claim(first, queue(first).task_id)
    first.save_progress(run.run_id, run.token, offset=1, usage=None, spent=Amounts(usd=Decimal(3)))
    second = open_store()
    assert use(second).taken == Amounts(usd=Decimal(3), tokens=100)
    ((_, found),) = second.open_runs()
    assert (found.task_id, found.reserved_usd) == (task.task_id, Decimal(2))
    end(second, started(found), now=NOW)
    assert use(first).live == Amounts()


def test_rivals_on_connections_of_their_own_never_reserve_more_than_there_is(open_store, database_url):
    store = open_store()
    ids = [queue(store, number).task_id for number in range(1, 13)]
    barrier, won = threading.Barrier(2, timeout=30), []

    def claim_some(mine_ids: list[int]) -> None:
        with Store.open(database_url, now=NOW) as mine:
            for task_id in mine_ids:
                barrier.wait()
                if claim(mine, task_id):
                    won.append(task_id)

    rivals = [threading.Thread(target=claim_some, args=(part,)) for part in (ids[::2], ids[1::2])]
    for rival in rivals:
        rival.start()
    for rival in rivals:
        rival.join(60)
    assert len(won) == 5
    assert use(store).taken.usd == 10


def test_what_runs_before_a_budget_was_configured_used_counts_for_it(store):
    task = queue(store)
    _, run = store.claim(
        task.task_id, decision=Because(), config_version="a", run_dir_of=lambda *_: "/x", now=NOW
    )
    end(store, started(run), cost=Cost(usd=Decimal(9), priced_by="config"), now=NOW)
    assert claim(store, queue(store, 13).task_id) is None


def test_an_estimate_comes_from_the_newest_runs_of_the_same_provider_and_model(store):
    enough = replace(TWO_EACH, estimates=Estimates(usd=Decimal(2), tokens=100, min_runs=3, quantile=1))
    for number, cost in enumerate(("0.10", "0.30", "0.20"), start=1):
        _, run = claim(store, queue(store, number).task_id, enough)
        end(store, started(run), cost=Cost(usd=Decimal(cost), priced_by="config"), now=NOW)
    _, run = claim(store, queue(store, 4).task_id, enough)
    assert (run.reserved_usd, run.reserved_tokens) == (Decimal("0.30"), some_usage().total.total)


def test_an_allowance_is_kept_audited_and_asks_the_daemon_to_look_again(open_store):
    allowance = Allowance(
        budget="daily",
        amounts=Amounts(usd=Decimal(5)),
        at=NOW,
        until=NOW + timedelta(hours=2),
        reason="release",
    )
    request = open_store().allow(allowance, text="$5.00 more")
    store = open_store()
    assert store.budget_book(TWO_EACH, NOW).allowances == [allowance]
    assert [(each.request_id, each.verb) for each in store.pending_requests()] == [(request, "budget")]


def test_an_allowance_for_one_pot_counts_there_alone_and_ends_when_it_is_taken_back(store):
    labels = Budget(name="labels", usd=Decimal(10), scope=Scope.LABEL)
    budgets = Budgets(budgets=(labels,))
    until = NOW + timedelta(hours=2)
    for pot in ("UI", ""):
        store.allow(
            Allowance(budget="labels", amounts=Amounts(usd=Decimal(5)), at=NOW, until=until, pot=pot),
            text="more",
        )

    def limits(now):
        book = store.budget_book(budgets, now)
        return [book.limit(Pot(labels, name), Unit.USD, now=now) for name in ("ui", "docs")]

    soon = NOW + timedelta(hours=1)
    assert limits(soon) == [20, 15]
    assert store.take_back("labels", "UI", text="enough", now=soon) == 1
    assert limits(soon) == [15, 15]
    assert store.take_back("other", None, text="enough", now=soon) == 0
    assert store.take_back("labels", None, text="enough", now=soon) == 1
    assert limits(soon) == [10, 10]
    since = NOW + timedelta(minutes=30)
    book = store.budget_book(budgets, soon)
    assert book.limit(Pot(labels, "ui"), Unit.USD, now=soon, since=since) == 20, "what was live may use it"


def test_a_warning_is_given_once_for_each_share_and_period(open_store):
    warned = Warned(key="daily", period="2026-11-20", share=0.8, title="daily", spent="$8.00")
    assert open_store().warn_of_budget(warned, text="80 %", now=NOW)
    store = open_store()  # as after a restart
    assert not store.warn_of_budget(warned, text="80 %", now=NOW)
    assert store.warn_of_budget(replace(warned, share=1.0), text="100 %", now=NOW)
    assert not store.warn_of_budget(warned, text="80 %", now=NOW)
    assert store.warn_of_budget(replace(warned, period="2026-11-21"), text="80 %", now=NOW)


def test_when_a_task_may_go_on_is_kept_with_the_stop(store):
    _, run = claim(store, queue(store).task_id)
    store.request_stop(run.run_id, reason="used up", outcome=Outcome.OVER_BUDGET, now=NOW, until=NOW)
    assert store.open_runs()[0][1].stop_until == NOW


# -- whatever happens, no hard budget is overspent by more than one usage record -----------------------------

MOST = 5  # that one record says
_RULES = Budgets(
    budgets=(
        Budget(name="day", usd=Decimal(40), tokens=1500),
        Budget(name="label", usd=Decimal(30), scope=Scope.LABEL, only=("docs", "ui")),
        Budget(name="task", usd=Decimal(20), per=Per.TOTAL, scope=Scope.TASK),
        Budget(name="soft", usd=Decimal(1), is_hard=False, warn_at=(1.0,)),
    ),
    zone=ZoneInfo("Europe/Berlin"),
    estimates=Estimates(usd=Decimal(8), tokens=240, min_runs=3, quantile=0.5),
)


@dataclass
class Going:
    """A run as its agent knows it: what it has really used."""

    run: Run
    labels: tuple[str, ...] = ()
    used: int = 0
    is_stopped: bool = False
    ended_at: datetime | None = None

    @property
    def counts(self) -> int:
        """In dollars, by hand: what it holds while it lives; then what it used, if anybody knows."""
        is_known = self.ended_at is not None and self.used > 0
        return self.used if is_known else max(self.used, int(self.run.reserved_usd or 0))

    def is_in(self, pot: str, today: date) -> bool:
        """Whether that pot pays for it on a day of Berlin."""
        day = self.ended_at and self.ended_at.astimezone(_RULES.zone).date()
        return day in (None, today) and (pot == "day" or pot in self.labels)

    @property
    def cost(self) -> Cost:
        return Cost(usd=Decimal(self.used), priced_by="config")

    @property
    def usage(self) -> Usage:
        return Usage(source=UsageSource.REPORTED, by_model={"m": ModelUsage(input=self.used * 30)})


class Spending(RuleBasedStateMachine):
    """Claims, usage records, ends, restarts and midnights in any order, with the real store."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="budget"))
        self.now = datetime.fromisoformat("2026-10-24T20:00+00:00")  # the day before one of 25 hours
        self.live: list[Going] = []
        self.ended: list[Going] = []
        self.largest = 0  # record
        self.tasks = 0
        self._open()
        self._learn_the_largest_record()

    def _open(self) -> None:
        self.store = Store.open(self.folder / "c.db", now=self.now)

    def _learn_the_largest_record(self) -> None:
        """From a run of the day before: what nobody has ever seen nobody can keep room for."""
        self.now -= timedelta(days=1)
        self.begin(())
        self._record(self.live[0], MOST)
        self._end(self.live[0])
        self.now += timedelta(days=1)

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.folder)

    @rule(labels=st.sampled_from([(), ("docs",), ("docs", "ui")]))
    def begin(self, labels: tuple[str, ...]) -> None:
        self.tasks += 1
        task = queue(self.store, self.tasks, now=self.now, labels=labels)
        if claimed := claim(self.store, task.task_id, _RULES, now=self.now):
            self.live.append(Going(run=replace(claimed[1], started_at=self.now), labels=labels))
            book, subject = self.store.budget_book(_RULES, self.now), _RULES.subject(claimed[0], "claude-cli")
            for pot in _RULES.pots(subject, hard=True):
                for unit, limit in pot.budget.limits():
                    assert book.use(pot).taken.of(unit) <= limit

    @precondition(lambda self: any(not each.is_stopped for each in self.live))
    @rule(data=st.data(), amounts=st.lists(st.integers(1, MOST), min_size=1, max_size=8))
    def report_usage(self, data: st.DataObject, amounts: list[int]) -> None:
        going = data.draw(st.sampled_from([each for each in self.live if not each.is_stopped]))
        for amount in amounts:
            if not going.is_stopped:
                self._record(going, amount)

    @precondition(lambda self: sum(not each.is_stopped for each in self.live) > 1)
    @rule(data=st.data(), times=st.integers(1, 4))
    def all_report_in_one_half_second(self, data: st.DataObject, times: int) -> None:
        """What they use is used before anybody looks: a stop comes too late for the records under way."""
        for _ in range(times):
            going_on = [each for each in self.live if not each.is_stopped]
            amounts = data.draw(
                st.lists(st.integers(0, MOST), min_size=len(going_on), max_size=len(going_on))
            )
            for going, amount in zip(going_on, amounts, strict=True):
                self._record(going, amount)

    def _record(self, going: Going, amount: int) -> None:
        going.used += amount
        self.largest = max(self.largest, amount)
        spent = Amounts(usd=Decimal(going.used), tokens=going.used * 30)
        self.store.save_progress(
            going.run.run_id, going.run.token, offset=going.used, usage=going.usage, spent=spent
        )
        self._stop_what_has_to()

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        self._end(data.draw(st.sampled_from(self.live)))

    def _end(self, going: Going) -> None:
        self.live.remove(going)
        self.ended.append(going)
        going.ended_at = self.now
        is_counted = going.used > 0  # of one that said nothing nothing is known
        assert self.store.finish(
            going.run,
            outcome=RunOutcome(outcome=Outcome.FAILED, detail="it ended"),
            usage=going.usage if is_counted else Usage(source=UsageSource.UNKNOWN),
            cost=going.cost if is_counted else UNKNOWN,
            settlement=a_settlement(TaskState.FAILED),
            now=self.now,
        )
        self._stop_what_has_to()

    @rule(hours=st.integers(1, 30))
    def time_passes(self, hours: int) -> None:
        self.now += timedelta(hours=hours)

    @rule()
    def restart(self) -> None:
        self.store.close()
        self._open()
        self._stop_what_has_to()

    def _stop_what_has_to(self) -> None:
        orders = {order.run_id for order in to_stop(self.store, _RULES, self.now)[1]}
        for going in self.live:
            going.is_stopped = going.is_stopped or going.run.run_id in orders

    @invariant()
    def no_hard_budget_is_overspent(self) -> None:
        for each in _RULES.standings(self.store.budget_book(_RULES, self.now), now=self.now):
            record = self.largest * (30 if each.unit is Unit.TOKENS else 1)
            if each.pot.budget.is_hard:
                assert each.spent + each.reserved <= each.limit + record, each

    @invariant()
    def reservations_and_settlements_added_up_by_hand_are_within_the_budget_and_one_record(self) -> None:
        today = self.now.astimezone(_RULES.zone).date()
        for pot, limit in (("day", 40), ("docs", 30), ("ui", 30)):
            runs = [each for each in (*self.live, *self.ended) if each.is_in(pot, today)]
            assert sum(each.counts for each in runs) <= limit + self.largest, (pot, runs)
        for going in (*self.live, *self.ended):  # each task has one run here
            assert going.counts <= 20 + self.largest

    @invariant()
    def what_is_counted_is_what_was_used(self) -> None:
        book = self.store.budget_book(_RULES, self.now)
        assert {run.run_id: run.spent.usd for run in book.live} == {
            each.run.run_id: each.used for each in self.live
        }


TestSpending = Spending.TestCase
TestSpending.settings = settings(
    max_examples=8, stateful_step_count=20, deadline=None, database=None, phases=[Phase.generate]
)


@settings(max_examples=25, deadline=None, database=None, phases=[Phase.generate])
@given(st.lists(st.lists(st.integers(0, MOST), min_size=5, max_size=5), min_size=12, max_size=20))
def test_runs_that_pass_the_end_in_the_same_half_second_are_over_by_one_record_together(halves) -> None:
    """Each half second all of them use something before anybody looks; then they are looked at in turn."""
    with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder) / "c.db", now=NOW) as store:
        live = [Going(run=claim(store, queue(store, n).task_id)[1]) for n in range(1, 6)]
        for amounts in ([MOST] * 5, *halves):
            going_on = [going for going in live if not going.is_stopped]
            for going, amount in zip(live, amounts, strict=True):
                if going in going_on:
                    going.used += amount
                    spent = Amounts(usd=Decimal(going.used) / 10)
                    run = going.run
                    store.save_progress(run.run_id, run.token, offset=going.used, usage=None, spent=spent)
                    stopped = {order.run_id for order in to_stop(store, TWO_EACH, NOW)[1]}
                    for other in live:
                        other.is_stopped |= other.run.run_id in stopped
            assert use(store).taken.usd <= 10 + Decimal(MOST) / 10
        assert use(store).spent.usd >= 10 - Decimal(MOST) / 2 or not all(x.is_stopped for x in live)


def test_ended_runs_are_read_once_until_another_one_ends(store):
    _, run = claim(store, queue(store).task_id)
    first, again = (store.budget_book(TWO_EACH, NOW) for _ in range(2))
    assert first.ended is again.ended
    end(store, started(run), now=NOW)
    assert store.budget_book(TWO_EACH, NOW).ended is not first.ended
