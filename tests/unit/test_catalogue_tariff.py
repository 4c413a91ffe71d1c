"""Prices under conditions: thresholds, hours that wrap, weekdays, inheritance, the base behind the hour."""

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adw_modules.catalogue import applying, masked_by_now, parse_listing, rates_at, restored, terms
from adw_modules.catalogue.tariff import from_terms

NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)  # a Saturday


def pricing(*overrides, **base):
    prices = {"prompt": "0.000001", "completion": "0.000002", **base, "overrides": list(overrides)}
    listing = parse_listing({"data": [{"id": "a/b", "pricing": prices}]})
    return listing.models[0].pricing


def problems(*overrides):
    row = {"id": "a/b", "pricing": {"prompt": "1", "overrides": list(overrides)}}
    return parse_listing({"data": [row]}).problems


def at(hour, minute=0, day=21):
    return datetime(2026, 11, day, hour, minute, tzinfo=UTC)


def input_price(tariff, when=NOON, tokens=0):
    return rates_at(tariff, when, tokens).input


def test_a_price_is_for_a_million_tokens_and_exact():
    rates = rates_at(pricing(prompt="0.00000045612345678", request="0.005"), NOON, 1)
    assert (rates.input, rates.output, rates.request) == (Decimal("0.45612345678"), 2, Decimal("0.005"))
    assert (rates.cache_read, rates.cache_write_5m, rates.cache_write_1h) == (None, None, None)


def test_the_threshold_itself_still_has_the_lower_price():
    tariff = pricing({"min_prompt_tokens": 200_000, "prompt": "0.000009"})
    assert [input_price(tariff, tokens=tokens) for tokens in (0, 200_000, 200_001)] == [1, 1, 9]


def test_without_a_prompt_size_only_what_does_not_depend_on_it_is_known():
    tariff = pricing({"min_prompt_tokens": 200_000, "prompt": "0.000009", "completion": "0.000002"})
    rates = rates_at(tariff, NOON, None)
    assert (rates.input, rates.output) == (None, 2)


def test_of_entries_that_apply_a_later_one_wins_key_by_key_and_missing_keys_are_inherited():
    tariff = pricing(
        {"min_prompt_tokens": 10, "prompt": "0.000005", "completion": "0.000006"},
        {"min_prompt_tokens": 20, "prompt": "0.000007"},
        input_cache_read="0.0000001",
    )
    rates = rates_at(tariff, NOON, 30)
    assert (rates.input, rates.output, rates.cache_read) == (7, 6, Decimal("0.1"))


@pytest.mark.parametrize(
    ("start", "end", "inside", "outside"),
    [
        (800, 1700, [at(8), at(16, 59)], [at(7, 59), at(17), at(0)]),
        (2200, 600, [at(22), at(23, 59), at(0), at(5, 59)], [at(6), at(21, 59), at(12)]),
        ("0100", "0230", [at(1), at(2, 29)], [at(2, 30), at(0, 59)]),
        (2300, 2400, [at(23), at(23, 59)], [at(0), at(22, 59)]),
        (2200, None, [at(22), at(23, 59)], [at(21, 59), at(0)]),
        (None, 30, [at(0), at(0, 29)], [at(0, 30)]),
    ],
)
def test_a_window_is_half_open_and_may_go_over_midnight(start, end, inside, outside):
    tariff = pricing({"utc_start": start, "utc_end": end, "prompt": "0.000009"})
    assert {input_price(tariff, when) for when in inside} == {9}
    assert {input_price(tariff, when) for when in outside} == {1}


def test_a_window_is_in_utc_wherever_the_clock_is():
    tariff = pricing({"utc_start": 800, "utc_end": 900, "prompt": "0.000009"})
    tokyo = timezone(timedelta(hours=9))
    assert input_price(tariff, datetime(2026, 11, 21, 17, 30, tzinfo=tokyo)) == 9
    assert input_price(tariff, datetime(2026, 11, 21, 8, 30, tzinfo=tokyo)) == 1


def test_days_are_those_of_the_moment_also_after_midnight():
    tariff = pricing({"utc_days": ["Saturday"], "utc_start": 2200, "utc_end": 600, "prompt": "0.000009"})
    assert input_price(tariff, at(23)) == 9
    assert input_price(tariff, at(3)) == 9
    assert input_price(tariff, at(3, day=22)) == 1  # the window began on Saturday, but it is Sunday now


def test_a_price_that_cannot_be_read_is_unknown_where_it_applies():
    tariff = pricing({"min_prompt_tokens": 10, "prompt": "-1"})
    assert (input_price(tariff, tokens=5), input_price(tariff, tokens=50)) == (1, None)


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ({"max_images": {"n": 3}, "prompt": "9"}, "it has a condition that is not known here, 'max_images'"),
        (
            {"output_tokens": 5000, "prompt": "9"},
            "it has a condition that is not known here, 'output_tokens'",
        ),
        (
            {"max_prompt_tokens": "8", "prompt": "9"},
            "it has a condition that is not known here, 'max_prompt_tokens'",
        ),
        ({"utc_days": ["caturday"], "prompt": "9"}, "it names a day that is none, 'caturday'"),
        ({"utc_days": "monday", "prompt": "9"}, "its utc_days are not a list"),
        ({"utc_start": 1260, "prompt": "9"}, "its time of day is not one such as 400 or 2230"),
        ({"min_prompt_tokens": "many", "prompt": "9"}, "its min_prompt_tokens is not a number"),
        ("text", "it is not an object"),
    ],
)
def test_an_override_that_is_not_understood_is_not_applied_and_says_so(entry, why):
    assert problems(entry) == (f"a/b: price override 1 is not used: {why}.",)
    assert input_price(pricing(entry), tokens=10**9) == 1


# --- the base behind the price of the hour --------------------------------------------------------

PEAK = {"utc_start": 1100, "utc_end": 1300, "prompt": "0.000009"}


def test_the_price_of_the_hour_at_the_top_of_a_row_is_not_taken_for_the_base():
    seen_before, seen_now = pricing(PEAK), pricing(PEAK, prompt="0.000009")
    assert masked_by_now(seen_now, NOON) == {"prompt"}
    tariff = restored(seen_now, seen_before, NOON)
    assert (input_price(tariff, NOON), input_price(tariff, at(15))) == (9, 1)
    assert terms(tariff) == terms(seen_before)  # so it is no change either


def test_without_an_earlier_sync_the_base_is_unknown_until_the_window_ends():
    tariff = restored(pricing(PEAK, prompt="0.000009"), None, NOON)
    assert (input_price(tariff, NOON), input_price(tariff, at(15))) == (9, None)
    assert input_price(restored(pricing(PEAK), tariff, at(15)), at(15)) == 1


def test_a_top_price_that_differs_from_that_of_the_hour_is_the_base():
    assert restored(pricing(PEAK), None, NOON) == pricing(PEAK)


# --- properties -----------------------------------------------------------------------------------

PRICES = st.decimals(0, 1, places=9).map(lambda price: format(price, "f"))
CLOCK = st.builds(lambda hour, minute: hour * 100 + minute, st.integers(0, 23), st.integers(0, 59))
DAYS = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
OVERRIDES = st.fixed_dictionaries(
    {},
    optional={
        "prompt": PRICES,
        "completion": PRICES,
        "min_prompt_tokens": st.integers(0, 1000),
        "utc_start": CLOCK,
        "utc_end": CLOCK,
        "utc_days": st.lists(st.sampled_from(DAYS), min_size=1, max_size=3),
    },
)
MOMENTS = st.integers(0, 525_600).map(lambda minutes: NOON + timedelta(minutes=minutes))


@settings(max_examples=80, deadline=None)
@given(st.lists(OVERRIDES, max_size=4), MOMENTS, st.integers(0, 1500))
def test_the_price_is_that_of_the_last_entry_that_applies_and_has_the_key(overrides, when, tokens):
    tariff = pricing(*overrides)
    expected = Decimal("0.000001")
    for override in applying(tariff, when, tokens):
        expected = override.prices.get("prompt", expected)
    assert input_price(tariff, when, tokens) == expected.scaleb(6)


@settings(max_examples=80, deadline=None)
@given(st.lists(OVERRIDES, max_size=4), MOMENTS)
def test_a_known_price_without_a_prompt_size_holds_for_every_size(overrides, when):
    tariff = pricing(*overrides)
    certain = input_price(tariff, when, None)
    for tokens in (0, 1, 500, 1000, 1001, 10**9):
        assert certain is None or input_price(tariff, when, tokens) == certain


@settings(max_examples=50, deadline=None)
@given(st.lists(OVERRIDES, max_size=3))
def test_a_tariff_is_the_same_after_the_store(overrides):
    tariff = pricing(*overrides)
    assert from_terms(json.loads(json.dumps(terms(tariff)))) == tariff


@settings(max_examples=50, deadline=None)
@given(CLOCK, CLOCK, MOMENTS)
def test_a_window_and_its_complement_share_no_moment_and_miss_none(start, end, when):
    if start == end:
        return
    inside = pricing({"utc_start": start, "utc_end": end, "prompt": "0.5"})
    outside = pricing({"utc_start": end, "utc_end": start, "prompt": "0.5"})
    assert (input_price(inside, when) == 1) != (input_price(outside, when) == 1)
