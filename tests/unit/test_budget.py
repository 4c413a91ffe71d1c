"""Budgets by themselves: what falls under them, when they begin again, who may start and who has to stop."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adw_modules.config import parse_settings
from adw_modules.errors import ConfigError
from adw_modules.money.budget import (
    Allowance,
    Amounts,
    Book,
    Budget,
    Budgets,
    Estimates,
    Live,
    PastRun,
    Per,
    Pot,
    Refusal,
    Scope,
    Spent,
    Subject,
    Unit,
    counted,
    shown,
    span,
)
from adw_modules.money.quotes import PriceSource
from adw_modules.routing import Checker, ModelRouter, Target
from adw_modules.routing import Refusal as NotEligible
from adw_modules.tasks.model import Cost, ModelUsage, Outcome, RunOutcome, Task, Usage, UsageSource
from adw_modules.tasks.planning import Action, Dispatch, Limits, Park, Supply, plan, within_budgets
from adw_modules.tasks.retries import after_run
from tests.builders import NOW, a_run, a_snapshot, a_task

BERLIN = ZoneInfo("Europe/Berlin")
HOUR = timedelta(hours=1)
DAILY = Budget(name="daily", usd=Decimal(10), warn_at=(0.5, 1.0))


def usd(amount: float | str) -> Amounts:
    return Amounts(usd=Decimal(str(amount)))


def a_subject(**changes: Any) -> Subject:
    values = {
        "task": "gh-12",
        "repository": "octo/hello",
        "author": "ada",
        "labels": ("docs", "bug"),
        "provider": "claude-cli",
    }
    return Subject(**(values | changes))


def a_live(
    spent: Any, *, reserved: Any = 2, run_id: int = 1, claimed_at: datetime = NOW, **subject: Any
) -> Live:
    return Live(
        run_id=run_id,
        subject=a_subject(**subject),
        claimed_at=claimed_at,
        reserved=usd(reserved),
        spent=usd(spent),
    )


def a_book(ended: Any = 0, *live: Live, allowances: tuple[Allowance, ...] = (), per: Per = Per.DAY) -> Book:
    row = Spent(subject=a_subject(), amounts=usd(ended))
    return Book(ended={per: [row]}, live=live, allowances=allowances)


def admitted(book: Book, wanted: Any, *budgets: Budget) -> Amounts | Refusal:
    rules = Budgets(budgets=budgets or (DAILY,))
    return rules.admit(book, a_subject(), usd(wanted), now=NOW)


# -- periods ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("per", "now", "zone", "start", "end"),
    [
        (Per.DAY, "2026-11-21T12:00Z", UTC, "2026-11-21T00:00Z", "2026-11-22T00:00Z"),
        (Per.DAY, "2026-11-20T23:30Z", BERLIN, "2026-11-20T23:00Z", "2026-11-21T23:00Z"),
        (Per.DAY, "2026-03-29T05:00Z", BERLIN, "2026-03-28T23:00Z", "2026-03-29T22:00Z"),  # 23 hours
        (Per.DAY, "2026-10-25T05:00Z", BERLIN, "2026-10-24T22:00Z", "2026-10-25T23:00Z"),  # 25 hours
        (Per.MONTH, "2026-03-15T00:00Z", BERLIN, "2026-02-28T23:00Z", "2026-03-31T22:00Z"),
        (Per.MONTH, "2026-12-31T23:30Z", BERLIN, "2026-12-31T23:00Z", "2027-01-31T23:00Z"),
        # There is no midnight: clocks go from 24:00 to 01:00.
        (Per.DAY, "2026-04-24T12:00Z", ZoneInfo("Africa/Cairo"), "2026-04-23T22:00Z", "2026-04-24T21:00Z"),
    ],
)
def test_a_period_goes_from_midnight_to_midnight_where_its_zone_is(per, now, zone, start, end):
    found = span(per, datetime.fromisoformat(now), zone)
    assert (found.start, found.end) == (datetime.fromisoformat(start), datetime.fromisoformat(end))


@given(
    st.integers(0, 10 * 365 * 24 * 60),
    st.sampled_from(["Europe/Berlin", "America/Havana", "Australia/Lord_Howe", "Africa/Cairo"]),
    st.sampled_from([Per.DAY, Per.MONTH]),
)
@settings(max_examples=100)
def test_every_moment_is_in_its_period_and_the_next_one_begins_where_it_ends(minutes, zone, per):
    now = datetime(2020, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)
    found = span(per, now, ZoneInfo(zone))
    assert found.start <= now < found.end
    assert span(per, found.end, ZoneInfo(zone)).start == found.end
    assert span(per, found.start, ZoneInfo(zone)) == found


# -- what falls under a budget ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "only", "names"),
    [
        (Scope.ALL, (), [""]),
        (Scope.LABEL, (), ["docs", "bug"]),
        (Scope.LABEL, ("Docs", "ui"), ["Docs"]),
        (Scope.LABEL, ("ui",), []),
        (Scope.REPOSITORY, ("OCTO/hello",), ["OCTO/hello"]),
        (Scope.AUTHOR, (), ["ada"]),
        (Scope.PROVIDER, ("openrouter",), []),
        (Scope.PROVIDER, (), ["claude-cli"]),
        (Scope.TASK, (), ["gh-12"]),
    ],
)
def test_a_run_is_paid_from_the_pots_of_its_names(scope, only, names):
    budget = Budget(name="b", usd=Decimal(1), scope=scope, only=only)
    assert [pot.name for pot in Budgets(budgets=(budget,)).pots(a_subject())] == names


def test_pots_of_one_budget_are_apart():
    by_label = replace(DAILY, scope=Scope.LABEL)
    book = Book(ended={Per.DAY: [Spent(subject=a_subject(labels=("docs",)), amounts=usd(9))]})
    assert book.use(Pot(by_label, "DOCS")).spent == usd(9)
    assert book.use(Pot(by_label, "bug")).spent == usd(0)


# -- before a run -----------------------------------------------------------------------------------------


def test_what_fits_is_reserved_and_what_does_not_is_refused_until_the_next_period():
    assert admitted(a_book(8), 2) == usd(2)
    refusal = admitted(a_book(8.01), 2)
    assert refusal == Refusal(
        reason="budget daily ($10.00 a day) has no room: $8.01 spent, and a run like this takes about $2.00; "
        "it starts again at 2026-11-22 00:00 UTC",
        until=datetime(2026, 11, 22, tzinfo=UTC),
    )


def test_what_only_live_runs_hold_is_waited_for():
    refusal = admitted(a_book(5, a_live(1, reserved=4)), 2)
    assert refusal.waits
    assert "$6.00 spent, $3.00 reserved" in refusal.reason
    assert not admitted(a_book(5, a_live(4, reserved=4)), 2).waits


def test_the_longest_of_several_refusals_counts_and_one_without_a_period_has_no_end():
    total = Budget(name="all", usd=Decimal(3), per=Per.TOTAL)
    book = Book(ended={per: [Spent(subject=a_subject(), amounts=usd(9))] for per in (Per.DAY, Per.TOTAL)})
    assert admitted(book, 2, DAILY, total).until is None


def test_a_run_thought_to_need_more_than_a_whole_budget_gets_all_of_a_fresh_one():
    assert admitted(a_book(0), 50) == usd(10)
    assert isinstance(admitted(a_book("0.01"), 50), Refusal)


def test_a_soft_budget_refuses_nothing_and_what_costs_nothing_needs_no_money():
    assert admitted(a_book(99), 2, replace(DAILY, is_hard=False)) == usd(2)
    assert admitted(a_book(10), 0) == usd(0)


def test_tokens_and_money_are_counted_apart():
    both = replace(DAILY, tokens=1000)
    book = Book(ended={Per.DAY: [Spent(subject=a_subject(), amounts=Amounts(tokens=990))]})
    rules = Budgets(budgets=(both,))
    wanted = Amounts(usd=Decimal(1), tokens=20)
    assert (
        "990 tokens spent, and a run like this takes about 20 tokens"
        in rules.admit(book, a_subject(), wanted, now=NOW).reason
    )
    assert rules.admit(book, a_subject(), replace(wanted, tokens=10), now=NOW) == replace(wanted, tokens=10)


# -- an operator's exception ------------------------------------------------------------------------------


def an_allowance(**changes: Any) -> Allowance:
    return Allowance(
        **({"budget": "daily", "amounts": usd(5), "at": NOW - HOUR, "until": NOW + HOUR} | changes)
    )


@pytest.mark.parametrize(
    ("changes", "counts"),
    [({}, True), ({"until": NOW}, False), ({"at": NOW + HOUR}, False), ({"budget": "monthly"}, False)],
)
def test_an_allowance_counts_for_its_budget_while_it_lasts(changes, counts):
    found = admitted(a_book(10, allowances=(an_allowance(**changes),)), 2)
    assert found == usd(2) if counts else isinstance(found, Refusal)


def test_what_was_live_during_an_allowance_may_use_it_afterwards():
    rules, after = Budgets(budgets=(DAILY,)), NOW + 2 * HOUR
    early, late = a_live(2, run_id=1, claimed_at=NOW), a_live(2, run_id=2, claimed_at=after)
    book = a_book(9, early, late, allowances=(an_allowance(),))
    assert [order.run_id for order in rules.stops(book, now=after)] == [2]


# -- while runs go on -------------------------------------------------------------------------------------


def test_all_that_draw_on_a_spent_pot_are_stopped_until_it_starts_again():
    free = a_live(0, reserved=0, run_id=3)
    book = a_book(8, a_live(1, run_id=1), a_live(1, run_id=2), free)
    orders = Budgets(budgets=(DAILY,)).stops(book, now=NOW)
    assert [order.run_id for order in orders] == [1, 2]
    assert orders[0].until == datetime(2026, 11, 22, tzinfo=UTC)
    assert orders[0].reason == "budget daily ($10.00 a day) is used up: $10.00 spent"


def test_a_run_may_take_more_than_was_reserved_for_it_but_not_what_is_reserved_for_others():
    rules = Budgets(budgets=(DAILY,))
    assert rules.stops(a_book(0, a_live(6, run_id=1), a_live(0, run_id=2)), now=NOW) == []
    (order,) = rules.stops(a_book(0, a_live("8.5", run_id=1), a_live(0, run_id=2)), now=NOW)
    assert (order.run_id, order.until) == (1, NOW + timedelta(minutes=1))


def test_shares_are_told_by_the_largest_one_reached():
    rules = Budgets(budgets=(DAILY,))
    assert rules.warnings(a_book("4.99"), [a_subject()], now=NOW) == []
    assert [each.share for each in rules.warnings(a_book(5), [a_subject()], now=NOW)] == [0.5]
    assert [each.share for each in rules.warnings(a_book(12), [a_subject()], now=NOW)] == [1.0]


def test_budget_left_is_the_smallest_share_and_unknown_without_a_budget():
    by_task = Budget(name="task", usd=Decimal(4), scope=Scope.TASK, only=("gh-12",))
    rules, book = Budgets(budgets=(DAILY, by_task)), a_book(3, a_live(0, reserved=2))
    assert rules.left(book, a_subject(provider=None), now=NOW) == 0.0
    assert rules.left(book, a_subject(task="gh-9"), now=NOW) == 0.5
    assert Budgets(budgets=(by_task,)).left(book, a_subject(task="gh-9"), now=NOW) is None


# -- after a run ------------------------------------------------------------------------------------------

ENDED = RunOutcome(outcome=Outcome.FAILED, detail="")
TEN = Usage(source=UsageSource.REPORTED, by_model={"m": ModelUsage(input=10)})
NO_USAGE = Usage(source=UsageSource.UNKNOWN)
UNKNOWN = Cost(usd=None, priced_by="unknown")
FLAT = Cost(usd=None, priced_by="subscription", source=PriceSource.SUBSCRIPTION)


@pytest.mark.parametrize(
    ("usage", "cost", "expected"),
    [
        (TEN, Cost(usd=Decimal("0.5"), priced_by="config"), Amounts(usd=Decimal("0.5"), tokens=10)),
        (TEN, UNKNOWN, Amounts(usd=Decimal(2), tokens=10)),
        (TEN, replace(UNKNOWN, at_least=Decimal(3)), Amounts(usd=Decimal(3), tokens=10)),
        (TEN, FLAT, Amounts(tokens=10)),
        (NO_USAGE, UNKNOWN, Amounts(usd=Decimal(2), tokens=70)),
    ],
)
def test_an_ended_run_counts_for_what_it_used_and_the_unknown_for_its_reservation(usage, cost, expected):
    run = a_run(reserved_usd=Decimal(2), reserved_tokens=70)
    assert counted(run, ENDED, usage, cost) == expected


def test_a_run_whose_agent_was_never_started_counts_for_nothing_unless_nobody_knows():
    run = a_run(reserved_usd=Decimal(2), reserved_tokens=70, started_at=None)
    assert counted(run, ENDED, NO_USAGE, UNKNOWN) == Amounts()
    lost = replace(ENDED, outcome=Outcome.LOST)
    assert counted(run, lost, NO_USAGE, UNKNOWN) == Amounts(usd=Decimal(2), tokens=70)


def past(
    amount: Any, *, repository: str = "octo/hello", labels: tuple[str, ...] = ("docs", "bug")
) -> PastRun:
    return PastRun(repository=repository, labels=labels, usd=Decimal(amount), tokens=amount * 100)


def test_a_run_is_estimated_by_the_most_similar_runs_there_are_enough_of():
    rules = Budgets(budgets=(DAILY,), estimates=Estimates(min_runs=2, quantile=0.5), flat=frozenset({"max"}))
    alike, here, elsewhere = [past(1)] * 2, [past(3, labels=())] * 3, [past(7, repository="o/x")] * 9
    assert rules.estimate(a_subject(), alike + here + elsewhere) == Amounts(usd=Decimal(1), tokens=100)
    assert rules.estimate(a_subject(), here + elsewhere) == Amounts(usd=Decimal(3), tokens=300)
    assert rules.estimate(a_subject(), elsewhere) == Amounts(usd=Decimal(7), tokens=700)
    assert rules.estimate(a_subject(), alike[:1]) == Amounts(usd=Decimal(1), tokens=1_000_000)
    assert rules.estimate(a_subject(provider="max"), alike) == Amounts(tokens=100)


# -- what the plan makes of it ----------------------------------------------------------------------------


SLOT = NotEligible("all 1 slots of busy are busy", is_busy=True)
NO_KEY = NotEligible("KEY is not set")
LIMITS = Limits(max_concurrent=3, max_runs_per_issue=9, max_tokens_per_issue=10**9, per_provider={})
DAY, MONTH = Refusal(reason="day", until=NOW + HOUR), Refusal(reason="month", until=NOW + 9 * HOUR)


def planned(*, others: dict[str, NotEligible] | None = None, **refusals: Refusal | None) -> list[Action]:
    """What becomes of a task whose rules see a quarter of its budgets left. By provider: what its budgets
    say, and what `others` say before them."""

    def of_others(target: Target, _attrs: Any) -> NotEligible | None:
        return (others or {}).get(target.provider)

    def of_budgets(_task: Task) -> Checker:
        return within_budgets(lambda target: refusals.get(target.provider), NOW)

    names = list(dict.fromkeys((*refusals, "other")))
    first, *rest = [f"{name}/m" for name in names]
    tables = "".join(f'[providers.{name}]\ncommand_template = ["x"]\n' for name in names)
    head = '[llm]\nprovider = "other"\nmodel_default = "m"\n[routing]\nenabled = true\n'
    rule = '[[routing.rules]]\nname = "some"\nconditions = { budget_left = 0.25 }\n'
    rule += f'target = "{first}"\nfallbacks = {rest}\n'
    router = ModelRouter(parse_settings(head + tables + rule, source="t"))
    supply = Supply(checks=(lambda _task: of_others, of_budgets), budget_left=lambda _task: 0.25)
    return plan(a_snapshot(ready=(a_task(),)), limits=LIMITS, route=router.decide, supply=supply)


def test_a_task_that_all_budgets_refuse_is_parked_until_the_first_starts_again():
    (park,) = planned(a=MONTH, b=DAY, c=DAY, other=DAY)
    assert isinstance(park, Park)
    assert (park.cause, park.wake_at) == ("month; day", NOW + HOUR)


def test_a_task_that_something_else_refuses_as_well_is_parked_with_each_target_named():
    (park,) = planned(a=MONTH, other=None, others={"other": NO_KEY})
    assert isinstance(park, Park)
    assert park.cause == "no provider can take it: a/m: month; other/m: KEY is not set"
    assert park.wake_at == NOW + 9 * HOUR


def test_a_task_stays_in_the_queue_while_only_reservations_or_slots_are_in_its_way():
    assert planned(a=replace(DAY, waits=True), other=MONTH) == []
    assert planned(a=MONTH, other=DAY, others={"other": SLOT}) == []


def test_a_task_goes_to_the_first_target_that_its_budgets_have_room_for():
    (start,) = planned(a=MONTH, b=None, other=DAY)
    assert isinstance(start, Dispatch)
    assert (start.decision.provider, start.decision.rule) == ("b", "some")


def test_a_budget_without_a_period_is_looked_at_again_every_day():
    (park,) = planned(other=Refusal(reason="all of it", until=None))
    assert isinstance(park, Park)
    assert (park.cause, park.wake_at) == ("all of it", NOW + timedelta(days=1))


def test_a_run_stopped_by_a_budget_costs_no_attempt_and_its_task_waits_for_the_next_period():
    policy = parse_settings("", source="t").retries
    over = RunOutcome(outcome=Outcome.OVER_BUDGET, detail="used up", retry_at=NOW + HOUR)
    verdict = after_run(a_task(state="running", attempts=2), over, policy=policy, max_attempts=3, now=NOW)
    assert (verdict.state, verdict.wake_at, verdict.attempts) == ("blocked", NOW + HOUR, 1)


# -- configuration ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('name = "a"', '[[budgets]] "a" needs money_usd or tokens, or both'),
        ('name = "a"\nmoney_usd = 0', "budgets[a].money_usd must be a number greater than 0, not 0"),
        ('name = "a"\ntokens = 1.5', "budgets[a].tokens must be a whole number of 1 or more"),
        ('name = "a"\ntokens = 1\nper = "week"', 'budgets[a].per must be "day" or "month" or "total"'),
        ('name = "a"\ntokens = 1\nonly = ["x"]', 'has "only", so it needs a scope'),
        ('name = "a"\ntokens = 1\nwarn_at = [80]', "budgets[a].warn_at must be a list of shares"),
        ('name = "a"\ntokens = 1\n[[budgets]]\nname = "a"\ntokens = 2', '[[budgets]] "a" is there twice'),
        (
            'name = "a"\ntokens = 1\nscope = "provider"\nonly = ["x"]',
            'names "x", which no [providers] table has',
        ),
    ],
)
def test_a_budget_that_cannot_be_kept_is_refused_in_a_sentence(text, sentence):
    with pytest.raises(ConfigError) as refused:
        parse_settings(f"[[budgets]]\n{text}\n", source="config.toml")
    assert sentence in str(refused.value)


def test_small_amounts_of_money_are_shown_with_all_that_matters():
    assert [shown(Unit.USD, Decimal(text)) for text in ("0.5", "0.0042", "1234.567")] == [
        "$0.50",
        "$0.0042",
        "$1,234.57",
    ]
    assert shown(Unit.TOKENS, Decimal(1_200_000)) == "1,200,000 tokens"


def test_an_allowance_lets_a_large_run_start_on_a_small_budget_that_is_spent():
    small = replace(DAILY, usd=Decimal(1))
    assert admitted(a_book(1, allowances=(an_allowance(amounts=usd(1)),)), 3, small) == usd(1)


def test_of_several_runs_whose_next_records_may_pass_the_end_one_may_go_on():
    step = usd("0.5")
    runs = [replace(a_live(2, run_id=n), step=step) for n in range(1, 4)]
    roomy, tight = replace(DAILY, usd=Decimal(7)), replace(DAILY, usd=Decimal("6.5"))
    assert not Budgets(budgets=(roomy,)).stops(a_book(0, *runs), now=NOW), "6 held, and 1 for the others"
    assert [order.run_id for order in Budgets(budgets=(tight,)).stops(a_book(0, *runs), now=NOW)] == [3]
    book = a_book(0, *runs[:2])
    assert admitted(book, 2, tight) == usd(2), "4 held, 2 wanted, 0.5 for the other"
    refused = admitted(book, 2, replace(DAILY, usd=Decimal(6)))
    assert isinstance(refused, Refusal)
    assert refused.waits


def test_a_run_is_told_what_is_left_for_it_without_what_others_hold():
    """A program that can stop itself holds the line also while no daemon is there to count."""
    own, other = a_live(1, reserved=2), a_live(3, reserved=2, run_id=2)

    def most(*budgets: Budget, runs: Any = (own, other), **changes: Any) -> dict[Unit, Decimal]:
        return dict(Budgets(budgets=budgets).most(a_book(4, *runs, **changes), 1, now=NOW))

    assert most(DAILY) == {Unit.USD: Decimal(3)}, "of 10 others have used 4 and hold 3"
    assert most(DAILY, replace(DAILY, usd=Decimal(9))) == {Unit.USD: Decimal(2)}, "the smallest pot counts"
    assert most(replace(DAILY, usd=Decimal(5))) == {Unit.USD: Decimal(2)}, "never less than was reserved"
    assert most(DAILY, allowances=(an_allowance(amounts=usd(5)),)) == {Unit.USD: Decimal(8)}
    assert most(replace(DAILY, is_hard=False)) == {}
    assert most(DAILY, runs=(a_live(0, reserved=0),)) == {}, "what costs nothing is not limited"
    assert most(replace(DAILY, usd=None, tokens=500)) == {}
