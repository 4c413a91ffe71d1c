"""Cost reports: what may be asked, how figures add up, and what a spreadsheet gets."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adw_modules.money.reports import (
    Figures,
    Group,
    Grouping,
    ReportError,
    as_csv,
    as_data,
    cells_of,
    groupings,
    harmless,
    offsets,
    period_of,
    report,
    row_of,
    total_of,
)
from adw_modules.tasks.model import ModelUsage

ALWAYS = period_of(None, None, "UTC")

# -- what may be asked ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model,day", (Grouping.MODEL, Grouping.DAY)),
        (" Strategy , repo", (Grouping.RULE, Grouping.REPOSITORY)),
        ("total", ()),
    ],
)
def test_rows_are_by_what_was_named(text, expected):
    assert groupings(text) == expected


@pytest.mark.parametrize("text", ["", "modle", "model,", "model,total", "day,day", "rule,strategy"])
def test_a_grouping_that_makes_no_sense_is_one_sentence(text):
    with pytest.raises(ReportError, match=r"cannot be grouped by|names something twice"):
        groupings(text)


def test_the_last_date_is_included_and_the_last_instant_is_not():
    days = period_of("2026-03-28", "2026-03-29", "Europe/Vienna")
    assert days.since == datetime(2026, 3, 27, 23, tzinfo=UTC)
    assert days.until == datetime(2026, 3, 29, 22, tzinfo=UTC)  # a day of 23 hours
    moments = period_of("2026-03-28T12:00:00", "2026-03-29T12:00:00-05:00", "Europe/Vienna")
    assert moments.since == datetime(2026, 3, 28, 11, tzinfo=UTC)
    assert moments.until == datetime(2026, 3, 29, 17, tzinfo=UTC)  # it has a zone of its own


@pytest.mark.parametrize(
    ("since", "until", "zone", "sentence"),
    [
        ("yesterday", None, "UTC", "since 'yesterday' is neither a date"),
        (None, "2026-02-30", "UTC", "until '2026-02-30' is neither"),
        (None, "2026-13", "UTC", "until '2026-13' is neither"),
        ("", None, "UTC", "since '' is neither"),
        (None, "9999-12-31", "UTC", "until '9999-12-31' is neither"),
        ("0001-01-01", None, "Asia/Tokyo", "since '0001-01-01' is neither"),
        ("2026-11-21", "2026-11-20", "UTC", "nothing between since 2026-11-21 and until 2026-11-20"),
        ("2026-11-21T12:00", "2026-11-21T12:00", "UTC", "since has to be earlier"),
        (None, None, "Vienna", "'Vienna' is not a time zone"),
        (None, None, "../../etc/passwd", "is not a time zone"),
    ],
)
def test_a_period_that_makes_no_sense_is_one_sentence(since, until, zone, sentence):
    with pytest.raises(ReportError) as refused:
        period_of(since, until, zone)
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


@settings(max_examples=60, deadline=None)
@given(
    zone=st.sampled_from(
        ["Europe/Vienna", "America/St_Johns", "Australia/Lord_Howe", "Asia/Kathmandu", "Africa/Casablanca"]
    ),
    day=st.integers(0, 37 * 365),
    share=st.floats(0, 1),
)
def test_the_offsets_of_a_year_are_those_of_the_zone_at_every_moment(zone, day, share):
    first = datetime(2000, 1, 1, tzinfo=UTC) + timedelta(days=day)
    last = first + timedelta(days=366)
    moment = first + timedelta(seconds=int(share * 366 * 86_400))
    spans = offsets(ZoneInfo(zone), first, last)
    told = next((offset for end, offset in spans[:-1] if moment < end), spans[-1][1])
    assert told == moment.astimezone(ZoneInfo(zone)).utcoffset()


# -- adding up --------------------------------------------------------------------------------------------

amounts = st.decimals(0, 10**6, places=12)
figures = st.builds(
    Figures,
    runs=st.integers(0, 9),
    succeeded=st.integers(0, 9),
    unknown=st.integers(0, 9),
    subscription=st.integers(0, 9),
    tokens=st.builds(ModelUsage, input=st.integers(0, 10**15), output=st.integers(0, 10**15)),
    usd=amounts,
)
groups = st.lists(
    st.builds(Group, keys=st.tuples(st.sampled_from("abc"), st.sampled_from("de")), figures=figures)
)


@settings(max_examples=60, deadline=None)
@given(parts=groups)
def test_the_rows_add_up_to_the_sum_of_the_parts_and_no_key_is_there_twice(parts):
    total = sum((part.figures for part in parts), Figures())
    found = report((Grouping.RULE, Grouping.MODEL), ALWAYS, parts, total)
    assert sum((group.figures for group in found.groups), Figures()) == total
    assert len({group.keys for group in found.groups}) == len(found.groups)


@settings(max_examples=60, deadline=None)
@given(st.lists(amounts, max_size=20))
def test_amounts_joined_by_a_database_are_added_to_the_last_digit(found):
    text = ",".join(format(amount, "f") for amount in found)
    assert total_of(text or None) == sum(found, Decimal(0))


def test_what_is_not_known_is_never_shown_as_nothing():
    unknown = Figures(runs=2, unknown=2, succeeded=1)
    assert unknown.known_usd is None
    assert unknown.per_success is None
    assert cells_of(unknown)[2:] == ("?", "?", "unknown", "", "2", "")
    assert [row_of(unknown)[key] for key in ("input_tokens", "output_tokens", "cost_usd")] == [None] * 3
    subscribed = Figures(runs=2, subscription=2, succeeded=2)
    assert cells_of(subscribed)[4:] == ("subscription", "", "", "2")
    free = Figures(runs=1, succeeded=1)
    assert cells_of(free)[2:] == ("0", "0", "$0.0000", "$0.0000", "", "")


def test_a_success_costs_what_the_failures_before_it_cost_too():
    one = Figures(runs=3, succeeded=1, usd=Decimal("0.9"))
    assert one.per_success == Decimal("0.900000")
    partly = Figures(runs=3, succeeded=3, unknown=1, usd=Decimal(1))
    assert partly.per_success == Decimal("0.333333")
    assert cells_of(partly)[4:] == ("≥ $1.0000", "≥ $0.3333", "1", "")


def test_successes_on_a_subscription_make_those_that_were_paid_no_cheaper():
    mixed = Figures(runs=10, succeeded=10, subscription=9, subscription_succeeded=9, usd=Decimal(1))
    assert mixed.per_success == 1
    only_failures_paid = Figures(
        runs=2, succeeded=1, subscription=1, subscription_succeeded=1, usd=Decimal(1)
    )
    assert only_failures_paid.per_success is None


def test_days_come_in_order_and_within_a_day_the_dearest_first():
    parts = [
        Group(keys=("m", "2026-01-02"), figures=Figures(usd=Decimal(1))),
        Group(keys=("m", "2026-01-01"), figures=Figures(usd=Decimal(1))),
        Group(keys=("n", "2026-01-01"), figures=Figures(usd=Decimal(2))),
    ]
    found = report((Grouping.MODEL, Grouping.DAY), ALWAYS, parts, Figures())
    assert [group.keys for group in found.groups] == [
        ("n", "2026-01-01"),
        ("m", "2026-01-01"),
        ("m", "2026-01-02"),
    ]


# -- for spreadsheets -------------------------------------------------------------------------------------

HOSTILE = [
    "=cmd|' /C calc'!A0",
    "+1+1",
    "-2+3",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    '=HYPERLINK("http://x","y")',
    "\uff1d1+1",
]


def read_back(parts, by=(Grouping.LABEL,)) -> list[list[str]]:
    text = as_csv(report(by, ALWAYS, parts, Figures()))
    assert text.endswith("\r\n")
    return list(csv.reader(io.StringIO(text, newline=""), strict=True))


@pytest.mark.parametrize("label", HOSTILE)
def test_no_cell_begins_like_a_formula(label):
    _, row = read_back([Group(keys=(label,), figures=Figures(runs=1))])
    assert row[0] == f"'{label}"


@settings(max_examples=80, deadline=None)
@given(st.lists(st.text(max_size=8), unique=True, max_size=6))
def test_every_label_comes_back_from_a_csv_reader_as_one_cell(labels):
    head, *rows = read_back([Group(keys=(label,), figures=Figures(runs=1)) for label in labels])
    assert sorted(row[0] for row in rows) == sorted(map(harmless, labels))
    assert {len(row) for row in rows} <= {len(head)}


def test_csv_has_the_columns_of_json_and_the_same_values():
    one = Figures(runs=2, succeeded=1, unknown=1, tokens=ModelUsage(input=5), usd=Decimal("1E-9"))
    found = report((Grouping.MODEL,), ALWAYS, [Group(keys=('a, "b"',), figures=one)], one)
    (told,) = as_data(found)["groups"]
    head, row = read_back([Group(keys=('a, "b"',), figures=one)], (Grouping.MODEL,))
    assert head == list(told)
    assert row == ["" if value is None else str(value) for value in told.values()]
    assert told["cost_usd"] == "0.000000001"


def test_the_total_alone_is_a_row_too():
    one = Figures(runs=2, usd=Decimal(1))
    text = as_csv(report((), ALWAYS, [], one))
    (row,) = csv.DictReader(io.StringIO(text))
    assert row["cost_usd"] == "1"
