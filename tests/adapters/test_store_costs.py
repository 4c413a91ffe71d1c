"""What runs cost, as the store adds it up: every grouping comes to the same total, on both databases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from sqlalchemy import text
from store_samples import NOW, Because, end, queue, start

from adw_modules.money.quotes import PriceSource
from adw_modules.money.reports import (
    SEVERAL_MODELS,
    Figures,
    Grouping,
    Period,
    Report,
    period_of,
)
from adw_modules.tasks.model import (
    Cost,
    ModelCost,
    ModelUsage,
    Outcome,
    RunOutcome,
    Usage,
    UsageSource,
)
from coordinator.store import Store, schema
from coordinator.store.database import open_database

ALWAYS = period_of(None, None, "UTC")
FAILED = RunOutcome(outcome=Outcome.FAILED, detail="it broke")
COUNTS = ModelUsage(input=5, cache_read=2, cache_write_5m=3, output=7)


def cost(source: PriceSource = PriceSource.CONFIG, **models: str | None) -> Cost:
    """The cost of a run from what each of its models cost; None is unknown."""
    by_model = {
        name.replace("_", "-"): ModelCost(
            usd=None if usd is None else Decimal(usd),
            source=source if usd is not None else PriceSource.UNKNOWN,
            version="abc",
        )
        for name, usd in models.items()
    }
    known = [each.usd for each in by_model.values() if each.usd is not None]
    is_known = len(known) == len(by_model)
    return Cost(
        usd=sum(known, Decimal(0)) if is_known else None,
        priced_by="config" if is_known else "unknown: no price",
        source=source if is_known else PriceSource.UNKNOWN,
        version="abc",
        at_least=sum(known, Decimal(0)) if known and not is_known else None,
        by_model=by_model,
    )


def used(*models: str) -> Usage:
    return Usage(source=UsageSource.REPORTED, by_model=dict.fromkeys(models, COUNTS))


SUBSCRIBED = Cost(usd=None, priced_by="subscription", source=PriceSource.SUBSCRIPTION)
NOTHING_KNOWN = Cost(usd=None, priced_by="unknown: no tokens", source=PriceSource.UNKNOWN)
CHARGED = Cost(
    usd=Decimal("0.7"),
    priced_by="reported by the provider",
    source=PriceSource.REPORTED,
    by_model=dict.fromkeys(("a", "b"), ModelCost(usd=None, source=PriceSource.REPORTED)),
)


def ran(store: Store, number: int, bill: Cost, usage: Usage, *, at: datetime = NOW, **changes) -> int:
    """A task with one run that ended at `at`; its id."""
    labels = changes.pop("labels", ("rpi-auto", "bug"))
    decision = Because(**{key: changes.pop(key) for key in ("provider", "model", "rule") if key in changes})
    task = queue(store, number, labels=labels)
    _, run = start(store, task.task_id, decision=decision)
    assert end(store, run, cost=bill, usage=usage, now=at, **changes)
    return run.run_id


@pytest.fixture
def history(store: Store) -> Store:
    ran(store, 1, cost(a="0.1"), used("a"))
    ran(store, 2, cost(a="0.2", b="0.000000000003"), used("a", "b"), rule=None, at=NOW + timedelta(days=1))
    ran(
        store, 3, cost(a="0.4", c=None), used("a", "c"), outcome=FAILED, labels=("docs", "coordinator:failed")
    )
    ran(store, 4, SUBSCRIBED, used("s"), provider="claude-sub", labels=())
    ran(store, 5, NOTHING_KNOWN, Usage(source=UsageSource.UNKNOWN), model="quiet", at=NOW + timedelta(days=2))
    ran(store, 6, CHARGED, used("a", "b"), provider="openrouter")
    start(store, queue(store, 7).task_id)  # still runs: nothing to add up
    return store


def rows(report: Report) -> dict[tuple[str, ...], Figures]:
    return {group.keys: group.figures for group in report.groups}


def by(store: Store, *groupings: Grouping, period: Period = ALWAYS) -> dict[tuple[str, ...], Figures]:
    return rows(store.costs(groupings, period, own_prefix="coordinator:"))


def test_the_total_is_the_sum_of_all_ended_runs_and_counts_what_has_no_price(history):
    total = history.costs((), ALWAYS).total
    assert (total.runs, total.succeeded, total.unknown, total.subscription) == (6, 5, 2, 1)
    assert total.usd == Decimal("1.400000000003")  # the known part of task 3 included
    assert total.tokens == sum([COUNTS] * 8, ModelUsage())
    assert history.totals(NOW - timedelta(days=1)).cost_usd == total.usd


SPLITS = [
    (Grouping.DAY,),
    (Grouping.MODEL,),
    (Grouping.RULE,),
    (Grouping.TASK,),
    (Grouping.REPOSITORY,),
    (Grouping.PROVIDER,),
    (Grouping.MODEL, Grouping.DAY),
    (Grouping.DAY, Grouping.RULE),
    (Grouping.PROVIDER, Grouping.MODEL, Grouping.TASK, Grouping.DAY),
]


@pytest.mark.parametrize("groupings", SPLITS, ids=str)
def test_every_grouping_adds_up_to_the_total(history, groupings):
    report = history.costs(groupings, ALWAYS)
    summed = sum((group.figures for group in report.groups), Figures())
    assert (summed.usd, summed.tokens) == (report.total.usd, report.total.tokens)
    if Grouping.MODEL not in groupings:  # a run counts once for each of its models
        assert summed == report.total


def test_models_have_their_own_costs_and_a_charge_that_nobody_split_stands_alone(history):
    found = by(history, Grouping.MODEL)
    assert {keys[0]: figures.known_usd for keys, figures in found.items()} == {
        "a": Decimal("0.7"),  # of three runs; in a fourth it has a part of 0.7 that nobody knows
        "b": Decimal("0.000000000003"),
        "c": None,
        "s": None,
        "quiet": None,
        SEVERAL_MODELS: Decimal("0.7"),
    }
    assert (found["a",].runs, found["a",].unknown) == (4, 1)
    assert (found["s",].subscription, found["s",].unknown) == (1, 0)


def test_rules_providers_tasks_and_repositories_are_told_apart(history):
    assert set(by(history, Grouping.RULE)) == {("bugs",), ("default",)}
    assert by(history, Grouping.PROVIDER)["claude-sub",].known_usd is None
    assert by(history, Grouping.TASK)["gh-3",].usd == Decimal("0.4")
    assert set(by(history, Grouping.REPOSITORY)) == {("acme/widgets",)}


def test_a_task_counts_once_for_each_of_its_labels_without_ours(history):
    found = by(history, Grouping.LABEL)
    assert {keys[0]: figures.runs for keys, figures in found.items()} == {
        "rpi-auto": 4,
        "bug": 4,
        "docs": 1,
        "(no label)": 1,
    }
    report = history.costs((Grouping.LABEL,), ALWAYS)
    assert report.total.runs == 6


def test_a_success_on_a_subscription_is_no_paid_one(store):
    ran(store, 1, cost(a="1"), used("a"))
    for number in (2, 3, 4):
        ran(store, number, SUBSCRIBED, used("s"), provider="claude-sub")
    total = store.costs((), ALWAYS).total
    assert (total.succeeded, total.subscription_succeeded, total.per_success) == (4, 3, 1)


def test_a_period_takes_runs_from_its_start_up_to_its_end(history):
    day = NOW.date().isoformat()
    assert history.costs((), period_of(day, day, "UTC")).total.runs == 4
    after = period_of((NOW + timedelta(days=1)).isoformat(), None, "UTC")
    assert history.costs((), after).total.runs == 2
    before = period_of(None, NOW.isoformat(), "UTC")
    assert history.costs((), before).total == Figures()


@pytest.mark.parametrize(
    ("zone", "days"),
    [
        ("UTC", {"2026-03-28": 1, "2026-03-29": 2, "2026-10-25": 2}),
        ("Europe/Vienna", {"2026-03-29": 2, "2026-03-30": 1, "2026-10-25": 1, "2026-10-26": 1}),
        ("Pacific/Auckland", {"2026-03-29": 2, "2026-03-30": 1, "2026-10-25": 1, "2026-10-26": 1}),
        ("Asia/Kathmandu", {"2026-03-29": 2, "2026-03-30": 1, "2026-10-25": 1, "2026-10-26": 1}),
        ("America/Los_Angeles", {"2026-03-28": 2, "2026-03-29": 1, "2026-10-24": 1, "2026-10-25": 1}),
    ],
)
def test_a_day_is_a_day_of_the_zone_also_when_clocks_change(store, zone, days):
    moments = [
        datetime(2026, 3, 28, 23, 30, tzinfo=UTC),  # Vienna: 0:30, in winter still
        datetime(2026, 3, 29, 1, 0, tzinfo=UTC),  # the clocks jump from 2:00 to 3:00
        datetime(2026, 3, 29, 22, 30, tzinfo=UTC),  # 0:30 of the next day, in summer
        datetime(2026, 10, 25, 0, 59, tzinfo=UTC),
        datetime(2026, 10, 25, 23, 30, tzinfo=UTC),  # 0:30 of the next day, in winter again
    ]
    for number, at in enumerate(moments, start=1):
        ran(store, number, cost(a="1"), used("a"), at=at)
    found = by(store, Grouping.DAY, period=period_of(None, None, zone))
    assert {keys[0]: figures.runs for keys, figures in found.items()} == days
    for day, count in days.items():
        assert store.costs((), period_of(day, day, zone)).total.runs == count


def test_a_cost_comes_back_with_its_sources_and_its_known_part(history, store):
    (task,) = store.find_task(None, 3)
    (run,) = store.runs_of(task.task_id)
    assert store.cost_of(run.run_id) == cost(a="0.4", c=None)
    (task,) = store.find_task(None, 2)
    (run,) = store.runs_of(task.task_id)
    assert store.cost_of(run.run_id) == cost(a="0.2", b="0.000000000003")


def test_a_reader_beside_the_daemon_sees_the_same(history, database_url):
    with Store.open_readonly(database_url) as reader:
        groupings = (Grouping.DAY, Grouping.MODEL)
        assert reader.costs(groupings, ALWAYS) == history.costs(groupings, ALWAYS)


def test_runs_on_a_subscription_are_counted_apart_in_the_last_day(history):
    totals = history.totals(NOW - timedelta(days=1))
    assert (totals.runs, totals.runs_of_unknown_cost, totals.runs_on_subscription) == (6, 2, 1)


# -- of before --------------------------------------------------------------------------------------------

OLD_TASK = """
INSERT INTO tasks (task_id, name, repo, repo_id, issue_number, title, snapshot_title, snapshot_body, url,
    labels, author, priority, trigger_event_id, triggered_by, state, attempts, runs, token, listed,
    issue_updated_at, created_at, updated_at)
VALUES (1, 'gh-1', 'o/r', 1, 1, 't', 't', '', '', '[]', 'a', 2, 1, 'a', 'succeeded', 1, 3, 3, true,
    '2026-01-01', '2026-01-01', '2026-01-01')
"""
OLD_RUN = """
INSERT INTO runs (task_id, token, attempt, provider, model, config_version, run_dir, claimed_at, finished_at,
    outcome, stream_offset, usage_source, cost_usd, priced_by)
VALUES (1, {token}, 1, 'claude-cli', 'a', 'c', '/r', '2026-01-01', '2026-01-01 12:00:00.000000',
    'succeeded', 0, 'reported', {cost}, '{priced_by}')
"""
OLD_USAGE = """
INSERT INTO usage (run_id, model, input, cache_read, cache_write_5m, cache_write_1h, output, reasoning)
VALUES ({run}, '{model}', 5, 2, 3, 0, 7, 0)
"""


def test_an_older_database_is_upgraded_and_its_runs_keep_what_they_said(database_url, sqlite_path):
    old = open_database(database_url)
    with old.write() as conn:
        schema.upgrade(conn, "0002")
        conn.execute(text(OLD_TASK))
        told = [("'0.5'", "config"), ("'0.25'", "config"), ("NULL", "unknown: no price for a")]
        for token, (amount, priced_by) in enumerate(told, start=1):
            conn.execute(text(OLD_RUN.format(token=token, cost=amount, priced_by=priced_by)))
        for run, model in ((1, "a"), (2, "a"), (2, "b"), (3, "a")):
            conn.execute(text(OLD_USAGE.format(run=run, model=model)))
    old.close()
    with Store.open(database_url, now=NOW) as store:
        assert store.cost_of(1) == Cost(usd=Decimal("0.5"), priced_by="config")
        assert store.cost_of(3) == Cost(usd=None, priced_by="unknown: no price for a")
        found = by(store, Grouping.MODEL)
        assert {keys[0]: (figures.known_usd, figures.unknown) for keys, figures in found.items()} == {
            "a": (Decimal("0.5"), 2),  # a single model has the run's cost
            "b": (None, 1),
            SEVERAL_MODELS: (Decimal("0.25"), 0),
        }
        total = store.costs((), ALWAYS).total
        assert (total.usd, total.unknown) == (Decimal("0.75"), 1)
