"""Costs are exact sums of tokens times the price of the first source that has one, or unknown."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adw_modules.money.pricing import Terms, price
from adw_modules.money.quotes import PriceSource, Quote, Rates
from adw_modules.tasks.model import Cost, ModelUsage, Usage, UsageSource

NOW = datetime(2026, 11, 21, tzinfo=UTC)


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


RATES = Rates(
    input=Decimal(1),
    output=Decimal(2),
    cache_read=Decimal(1),
    cache_write_5m=Decimal(1),
    cache_write_1h=Decimal(1),
)


@dataclass(frozen=True)
class AList:
    """A price list with one model; above 200,000 prompt tokens the input costs double."""

    name: str
    source: PriceSource = PriceSource.CATALOGUE
    rates: Rates = RATES
    is_tiered: bool = False

    def quote(self, model, *, at, prompt_tokens=None):
        if model != self.name:
            return None
        rates = self.rates
        if self.is_tiered and (prompt_tokens is None or prompt_tokens > 200_000):
            rates = replace(rates, input=None if prompt_tokens is None else Decimal(2))
        return Quote(rates=rates, source=self.source, version=f"{self.source} 1")


def cost_of(usage: Usage, models=(), **terms) -> Cost:
    return price(usage, models, at=NOW, terms=Terms(config_version="abc", **terms))


def told(cost: Cost) -> tuple[Decimal | None, str]:
    return cost.usd, cost.priced_by


def used(usage: ModelUsage, model: str = "claude-sonnet-4-5", source=UsageSource.REPORTED) -> Usage:
    return Usage(source=source, by_model={model: usage})


def test_the_recorded_run_costs_exactly_what_its_four_kinds_cost():
    # 2400 x 3 + 1600 x 0.30 + 600 x 3.75 + 300 x 15 = 14430 millionths
    cost = cost_of(used(RECORDED), [SONNET])
    assert told(cost) == (Decimal("0.01443"), "config")
    assert (cost.source, cost.version) == (PriceSource.CONFIG, "abc")
    assert cost.by_model["claude-sonnet-4-5"].usd == Decimal("0.01443")


def test_without_cache_prices_the_cost_is_an_upper_bound_that_says_so():
    # 2400 x 3 + 1600 x 3 + 600 x 3.75 + 300 x 15 = 18750 millionths
    cost = cost_of(used(RECORDED), [SEED_SONNET])
    assert cost.usd == Decimal("0.01875")
    assert cost.priced_by == "config (cache read at input price, cache write at 1.25 x input price)"


def test_one_hour_cache_writes_are_taken_at_twice_the_input_price():
    cost = cost_of(used(ModelUsage(cache_write_1h=1_000_000)), [SEED_SONNET])
    assert told(cost) == (Decimal(6), "config (1 h cache write at 2 x input price)")


def test_the_configured_write_price_is_that_of_five_minutes_and_an_hour_is_dearer():
    cost = cost_of(used(ModelUsage(cache_write_5m=500_000, cache_write_1h=500_000)), [SONNET])
    assert told(cost) == (Decimal("4.875"), "config (1 h cache write at 2 x input price)")


@pytest.mark.parametrize("write", ["0", "3", "7"])
def test_a_write_price_without_the_surcharge_of_anthropic_holds_for_both_lifetimes(write):
    model = AModel(cost_per_million_cache_write=Decimal(write))
    cost = cost_of(used(ModelUsage(cache_write_1h=1_000_000)), [model])
    assert told(cost) == (Decimal(write), "config")


def test_an_unknown_model_has_an_unknown_cost():
    cost = cost_of(used(RECORDED, "kimi-k2"), [SONNET])
    assert told(cost) == (None, "unknown: no price for kimi-k2")


def test_one_unknown_model_among_several_makes_the_whole_cost_unknown():
    usage = Usage(source=UsageSource.REPORTED, by_model={"claude-sonnet-4-5": RECORDED, "kimi-k2": RECORDED})
    assert cost_of(usage, [SONNET]).usd is None


def test_a_missing_price_is_unknown_and_never_zero():
    cost = cost_of(used(RECORDED), [AModel(cost_per_million_output=None)])
    assert told(cost) == (None, "unknown: the price of claude-sonnet-4-5 is not complete")


def test_a_price_of_zero_is_a_price():
    free = AModel(
        cost_per_million_input=Decimal(0),
        cost_per_million_output=Decimal(0),
        cost_per_million_cache_read=Decimal(0),
        cost_per_million_cache_write=Decimal(0),
    )
    assert told(cost_of(used(RECORDED), [free])) == (Decimal(0), "config")


def test_kinds_without_tokens_need_no_price():
    only_output = AModel(
        cost_per_million_input=None, cost_per_million_cache_read=None, cost_per_million_cache_write=None
    )
    assert cost_of(used(ModelUsage(output=100)), [only_output]).usd == Decimal("0.0015")


def test_models_without_tokens_need_no_price():
    usage = Usage(
        source=UsageSource.REPORTED, by_model={"claude-sonnet-4-5": RECORDED, "kimi-k2": ModelUsage()}
    )
    assert cost_of(usage, [SONNET]).usd == Decimal("0.01443")


def test_a_run_that_reports_no_tokens_costs_nothing():
    assert told(cost_of(Usage(source=UsageSource.REPORTED))) == (Decimal(0), "no tokens were used")


def test_unknown_usage_has_an_unknown_cost():
    cost = cost_of(Usage(source=UsageSource.UNKNOWN), [SONNET])
    assert told(cost) == (None, "unknown: the run left no token numbers")


@pytest.mark.parametrize(
    ("configured", "reported", "asked"),
    [
        ("claude-sonnet-4-5", "claude-sonnet-4-5-20250929", None),  # also what it used beside what was asked
        ("claude-sonnet-4-5", "claude-sonnet-4-5@20250929", None),
        ("claude-sonnet-4-5[1m]", "claude-sonnet-4-5-20250929[1m]", None),
        ("gpt-4o", "gpt-4o-2024-08-06", "gpt-4o"),
        ("gpt-4o", "gpt-4o", "gpt-4o-2024-08-06"),
        ("deepseek/deepseek-chat", "deepseek-chat", "deepseek/deepseek-chat"),
        ("claude-opus-4", "anthropic/claude-opus-4", "claude-opus-4"),
        ("anthropic/claude-opus-4", "claude-opus-4-20250514", "anthropic/claude-opus-4"),
    ],
)
def test_names_that_certainly_mean_the_same_model_share_its_price(configured, reported, asked):
    cost = cost_of(used(RECORDED, reported), [AModel(name=configured)], asked=asked)
    assert cost.usd == Decimal("0.01443")


@pytest.mark.parametrize(
    ("configured", "reported", "asked"),
    [
        ("claude-sonnet-4", "claude-sonnet-4-5", "claude-sonnet-4"),
        ("claude-opus-4", "claude-opus-4-1", "claude-opus-4"),
        ("kimi-k2", "kimi-k2:free", "kimi-k2"),
        ("kimi-k2:batch", "kimi-k2", "kimi-k2"),
        ("gpt-4o", "gpt-4o-mini", "gpt-4o"),
        ("model", "model-12345678", "model"),
        ("claude-sonnet-4-5", "claude-sonnet-4-5[1m]", "claude-sonnet-4-5"),  # other prices
        ("claude-sonnet-4-5-20250929", "claude-sonnet-4-5", "claude-sonnet-4-5"),  # another snapshot, perhaps
        ("gpt-4o", "gpt-4o-2024-05-13", "gpt-5"),  # that snapshot cost twice as much
        ("deepseek/deepseek-chat", "deepseek-chat", None),  # a seller's price is his own
        ("moonshotai/kimi-k2", "groq/kimi-k2", "moonshotai/kimi-k2"),
        ("claude-sonnet-4-5", "anthropic/claude-sonnet-4-5-20250929", None),
        ("claude-sonnet-4-5", "claude-sonnet-4-5-20251399", None),  # no date
    ],
)
def test_names_that_only_look_alike_do_not(configured, reported, asked):
    assert cost_of(used(RECORDED, reported), [AModel(name=configured)], asked=asked).usd is None


def test_the_very_name_wins_over_the_one_that_was_asked_for():
    dear = AModel(name="anthropic/claude-sonnet-4-5", cost_per_million_input=Decimal(1000))
    cost = cost_of(used(RECORDED), [dear, SONNET], asked="anthropic/claude-sonnet-4-5")
    assert cost.usd == Decimal("0.01443")


def test_two_prices_for_one_name_are_not_guessed_between():
    models = [AModel(provider="a"), AModel(provider="b", cost_per_million_input=Decimal(1))]
    assert told(cost_of(used(RECORDED), models)) == (None, "unknown: several prices fit claude-sonnet-4-5")
    assert cost_of(used(RECORDED), models, rivals=frozenset({"b"})).usd == Decimal("0.01443")


# -- the order of the sources -----------------------------------------------------------------------------

CHARGED = replace(used(RECORDED), reported_cost_usd=Decimal("0.5"))
CATALOGUE = AList("claude-sonnet-4-5")
LISTED = AList("claude-sonnet-4-5", PriceSource.GENAI_PRICES)
NO_PRICE = AModel(
    cost_per_million_input=None,
    cost_per_million_output=None,
    cost_per_million_cache_read=None,
    cost_per_million_cache_write=None,
)


@pytest.mark.parametrize(
    ("usage", "models", "terms", "source", "version"),
    [
        (CHARGED, [SONNET], {"is_subscription": True, "reports_charge": True}, "subscription", None),
        (CHARGED, [SONNET], {"reports_charge": True, "books": (CATALOGUE,)}, "reported", None),
        (CHARGED, [SONNET], {"books": (CATALOGUE, LISTED)}, "config", "abc"),
        (CHARGED, [NO_PRICE], {"books": (CATALOGUE, LISTED)}, "catalogue", "catalogue 1"),
        (CHARGED, [], {"books": (AList("other"), LISTED)}, "genai-prices", "genai-prices 1"),
        (CHARGED, [], {"books": (AList("claude-sonnet-4-5:batch"),)}, "unknown", None),
        (used(RECORDED), [], {"reports_charge": True}, "unknown", None),
    ],
)
def test_the_first_source_that_has_a_price_is_taken(usage, models, terms, source, version):
    cost = cost_of(usage, models, **terms)
    assert (cost.source, cost.version) == (source, version)
    assert (cost.usd is None) == (source in {"unknown", "subscription"})
    assert cost.by_model["claude-sonnet-4-5"].source == source


def test_a_source_that_lacks_a_price_that_is_needed_leaves_the_model_to_the_next_one():
    cost = cost_of(used(RECORDED), [AModel(cost_per_million_output=None)], books=(CATALOGUE,))
    assert (cost.source, cost.usd) == (PriceSource.CATALOGUE, Decimal("0.0052"))


def test_a_price_for_each_request_makes_the_cost_unknown_because_nobody_counts_them():
    paid_by_request = replace(CATALOGUE.rates, request=Decimal("0.01"))
    assert cost_of(used(RECORDED), books=(AList("claude-sonnet-4-5", rates=paid_by_request),)).usd is None


def test_several_models_have_a_source_each_and_the_run_has_them_all():
    usage = Usage(source=UsageSource.REPORTED, by_model={"claude-sonnet-4-5": RECORDED, "kimi-k2": RECORDED})
    cost = cost_of(usage, [SONNET], books=(AList("kimi-k2"),))
    assert (cost.source, cost.version) == (PriceSource.MIXED, "abc, catalogue 1")
    assert cost.priced_by == "config + catalogue"
    assert {name: each.source for name, each in cost.by_model.items()} == {
        "claude-sonnet-4-5": PriceSource.CONFIG,
        "kimi-k2": PriceSource.CATALOGUE,
    }
    assert cost.usd == Decimal("0.01443") + Decimal("0.0052")


def test_the_known_part_of_an_unknown_cost_stays_visible():
    usage = Usage(source=UsageSource.REPORTED, by_model={"claude-sonnet-4-5": RECORDED, "kimi-k2": RECORDED})
    cost = cost_of(usage, [SONNET])
    assert (cost.usd, cost.at_least) == (None, Decimal("0.01443"))
    assert cost.by_model["claude-sonnet-4-5"].usd == Decimal("0.01443")
    assert cost.by_model["kimi-k2"].source is PriceSource.UNKNOWN


def test_a_charge_for_several_models_is_not_split_by_guessing():
    usage = Usage(
        source=UsageSource.REPORTED,
        by_model={"a": RECORDED, "b": RECORDED},
        reported_cost_usd=Decimal("0.5"),
    )
    cost = cost_of(usage, reports_charge=True)
    assert cost.usd == Decimal("0.5")
    assert {each.usd for each in cost.by_model.values()} == {None}


def test_a_tier_counts_only_when_it_is_certain_which_one_the_requests_were_in():
    many = ModelUsage(input=1_000_000)
    tiered = (AList("claude-sonnet-4-5", is_tiered=True),)
    assert cost_of(used(many), books=tiered).usd is None
    short = replace(used(many), longest_prompt={"claude-sonnet-4-5": 150_000})
    assert cost_of(short, books=tiered).usd == 1
    assert cost_of(used(ModelUsage(input=200_000)), books=tiered).usd == Decimal("0.2")


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
    cost = cost_of(used(usage), [model]).usd
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

    paid_in, write = model.cost_per_million_input, model.cost_per_million_cache_write
    has_surcharge = write is None or paid_in < write < 2 * paid_in

    expected = (
        usage.input * Fraction(model.cost_per_million_input)
        + usage.output * Fraction(model.cost_per_million_output)
        + usage.cache_read * Fraction(at(model.cost_per_million_cache_read, 1))
        + usage.cache_write_5m * Fraction(at(model.cost_per_million_cache_write, Decimal("1.25")))
        + usage.cache_write_1h * Fraction(2 * paid_in if has_surcharge else write)
    )
    assert dollars(usage, model) == expected / 10**6


@settings(deadline=None)
@given(usage=usages, model=models, more=tokens)
def test_more_tokens_never_cost_less(usage, model, more):
    assert dollars(usage + ModelUsage(cache_read=more), model) >= dollars(usage, model)
