"""Costs are exact sums of tokens times configured prices, or unknown with the reason."""

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adw_modules.money.pricing import price
from adw_modules.tasks.model import Cost, ModelUsage, Usage, UsageSource


@dataclass(frozen=True, kw_only=True)
class AModel:
    name: str = "claude-sonnet-4-5"
    provider: str | None = "claude-cli"
    cost_per_million_input: Decimal | None = Decimal(3)
    cost_per_million_output: Decimal | None = Decimal(15)
    cost_per_million_cache_read: Decimal | None = Decimal("0.30")
    cost_per_million_cache_write: Decimal | None = Decimal("3.75")


SONNET = AModel()
SEED_SONNET = AModel(cost_per_million_cache_read=None, cost_per_million_cache_write=None)
RECORDED = ModelUsage(input=2400, cache_read=1600, cache_write_5m=600, output=300)


def used(usage: ModelUsage, model: str = "claude-sonnet-4-5", source=UsageSource.REPORTED) -> Usage:
    return Usage(source=source, by_model={model: usage})


def test_the_recorded_run_costs_exactly_what_its_four_kinds_cost():
    # 2400 x 3 + 1600 x 0.30 + 600 x 3.75 + 300 x 15 = 14430 millionths
    assert price(used(RECORDED), [SONNET]) == Cost(usd=Decimal("0.01443"), priced_by="config")


def test_without_cache_prices_the_cost_is_an_upper_bound_that_says_so():
    # 2400 x 3 + 1600 x 3 + 600 x 3.75 + 300 x 15 = 18750 millionths
    cost = price(used(RECORDED), [SEED_SONNET])
    assert cost.usd == Decimal("0.01875")
    assert cost.priced_by == "config (cache read at input price, cache write at 1.25 x input price)"


def test_one_hour_cache_writes_are_taken_at_twice_the_input_price():
    cost = price(used(ModelUsage(cache_write_1h=1_000_000)), [SEED_SONNET])
    assert cost == Cost(usd=Decimal(6), priced_by="config (1 h cache write at 2 x input price)")


def test_one_configured_write_price_holds_for_both_lifetimes():
    cost = price(used(ModelUsage(cache_write_5m=500_000, cache_write_1h=500_000)), [SONNET])
    assert cost == Cost(usd=Decimal("3.75"), priced_by="config")


def test_an_unknown_model_has_an_unknown_cost():
    cost = price(used(RECORDED, "kimi-k2"), [SONNET])
    assert cost == Cost(usd=None, priced_by="unknown: no price for kimi-k2")


def test_one_unknown_model_among_several_makes_the_whole_cost_unknown():
    usage = Usage(source=UsageSource.REPORTED, by_model={"claude-sonnet-4-5": RECORDED, "kimi-k2": RECORDED})
    assert price(usage, [SONNET]).usd is None


def test_a_missing_price_is_unknown_and_never_zero():
    cost = price(used(RECORDED), [AModel(cost_per_million_output=None)])
    assert cost == Cost(usd=None, priced_by="unknown: the price of claude-sonnet-4-5 is not complete")


def test_a_price_of_zero_is_a_price():
    free = AModel(
        cost_per_million_input=Decimal(0),
        cost_per_million_output=Decimal(0),
        cost_per_million_cache_read=Decimal(0),
        cost_per_million_cache_write=Decimal(0),
    )
    assert price(used(RECORDED), [free]) == Cost(usd=Decimal(0), priced_by="config")


def test_kinds_without_tokens_need_no_price():
    only_output = AModel(
        cost_per_million_input=None, cost_per_million_cache_read=None, cost_per_million_cache_write=None
    )
    assert price(used(ModelUsage(output=100)), [only_output]).usd == Decimal("0.0015")


def test_models_without_tokens_need_no_price():
    usage = Usage(
        source=UsageSource.REPORTED, by_model={"claude-sonnet-4-5": RECORDED, "kimi-k2": ModelUsage()}
    )
    assert price(usage, [SONNET]).usd == Decimal("0.01443")


def test_a_run_that_reports_no_tokens_costs_nothing():
    assert price(Usage(source=UsageSource.REPORTED), []) == Cost(usd=Decimal(0), priced_by="config")


def test_unknown_usage_has_an_unknown_cost():
    cost = price(Usage(source=UsageSource.UNKNOWN), [SONNET])
    assert cost == Cost(usd=None, priced_by="unknown: the run left no token numbers")


@pytest.mark.parametrize(
    ("configured", "reported"),
    [
        ("claude-sonnet-4-5", "claude-sonnet-4-5-20250929"),
        ("claude-sonnet-4-5", "claude-sonnet-4-5@20250929"),
        ("claude-sonnet-4-5", "claude-sonnet-4-5[1m]"),
        ("claude-sonnet-4-5", "claude-sonnet-4-5-20250929[1m]"),
        ("claude-sonnet-4-5-20250929", "claude-sonnet-4-5"),
        ("gpt-4o", "gpt-4o-2024-08-06"),
        ("deepseek/deepseek-chat", "deepseek-chat"),
        ("claude-opus-4", "anthropic/claude-opus-4"),
    ],
)
def test_names_that_mean_the_same_model_share_its_price(configured, reported):
    assert price(used(RECORDED, reported), [AModel(name=configured)]).usd == Decimal("0.01443")


@pytest.mark.parametrize(
    ("configured", "reported"),
    [
        ("claude-sonnet-4", "claude-sonnet-4-5"),
        ("claude-opus-4", "claude-opus-4-1"),
        ("kimi-k2", "kimi-k2:free"),
        ("gpt-4o", "gpt-4o-mini"),
        ("model", "model-12345678"),
    ],
)
def test_names_that_only_look_alike_do_not(configured, reported):
    assert price(used(RECORDED, reported), [AModel(name=configured)]).usd is None


def test_the_very_name_wins_over_a_similar_one():
    dear = AModel(name="anthropic/claude-sonnet-4-5", cost_per_million_input=Decimal(1000))
    assert price(used(RECORDED), [dear, SONNET]).usd == Decimal("0.01443")


def test_similar_names_with_different_prices_are_not_guessed_between():
    models = [AModel(name="a/model"), AModel(name="b/model", cost_per_million_input=Decimal(1))]
    cost = price(used(RECORDED, "model"), models)
    assert cost == Cost(usd=None, priced_by="unknown: several prices fit model")


def test_the_runs_own_provider_has_the_right_price():
    models = [SONNET, AModel(provider="openrouter", cost_per_million_input=Decimal(4))]
    assert price(used(RECORDED), models).usd is None
    assert price(used(RECORDED), models, provider="claude-cli").usd == Decimal("0.01443")
    assert price(used(RECORDED), models, provider="openrouter").usd == Decimal("0.01683")


tokens = st.integers(0, 10**15)
usages = st.builds(
    ModelUsage, input=tokens, cache_read=tokens, cache_write_5m=tokens, cache_write_1h=tokens, output=tokens
)
prices = st.decimals(0, 10**6, places=9)
models = st.builds(
    AModel,
    cost_per_million_input=prices,
    cost_per_million_output=prices,
    cost_per_million_cache_read=st.none() | prices,
    cost_per_million_cache_write=st.none() | prices,
)


def dollars(usage: ModelUsage, model: AModel) -> Fraction:
    cost = price(used(usage), [model]).usd
    assert cost is not None
    return Fraction(cost)


@settings(deadline=None)
@given(left=usages, right=usages, model=models)
def test_the_cost_of_a_sum_is_the_sum_of_the_costs(left, right, model):
    assert dollars(left + right, model) == dollars(left, model) + dollars(right, model)


@settings(deadline=None)
@given(usage=usages, model=models)
def test_the_cost_is_the_exact_product(usage, model):
    def at(configured, factor):
        return model.cost_per_million_input * factor if configured is None else configured

    expected = (
        usage.input * Fraction(model.cost_per_million_input)
        + usage.output * Fraction(model.cost_per_million_output)
        + usage.cache_read * Fraction(at(model.cost_per_million_cache_read, 1))
        + usage.cache_write_5m * Fraction(at(model.cost_per_million_cache_write, Decimal("1.25")))
        + usage.cache_write_1h * Fraction(at(model.cost_per_million_cache_write, 2))
    )
    assert dollars(usage, model) == expected / 10**6


@settings(deadline=None)
@given(usage=usages, model=models, more=tokens)
def test_more_tokens_never_cost_less(usage, model, more):
    assert dollars(usage + ModelUsage(cache_read=more), model) >= dollars(usage, model)
