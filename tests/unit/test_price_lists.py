"""Whose prices a provider's runs have, and the bundled list: exact ids, tiers, dates, its own arithmetic."""

from __future__ import annotations

import warnings
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from adw_modules.agents import DIALECTS
from adw_modules.config import parse_settings
from adw_modules.money.genai import GenaiPrices
from adw_modules.money.pricing import Terms, price
from adw_modules.money.quotes import PriceSource, Quote, Rates
from adw_modules.money.sellers import (
    NAMES_SELLER_FIRST,
    NOBODY,
    PRICE_LISTS,
    SELLER_OF_DIALECT,
    SellerFirst,
    books_of,
    terms_of,
)
from adw_modules.money.usage import UNNAMED, UsageLedger, named
from adw_modules.tasks.model import ModelUsage, Usage, UsageSource

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
ANTHROPIC = GenaiPrices("anthropic")

# -- the bundled list -------------------------------------------------------------------------------------


def test_a_price_has_its_source_and_the_version_of_the_package():
    quote = ANTHROPIC.quote("claude-opus-4-5", at=NOW)
    assert quote == Quote(
        rates=Rates(
            input=Decimal(5),
            output=Decimal(25),
            cache_read=Decimal("0.5"),
            cache_write_5m=Decimal("6.25"),
            cache_write_1h=Decimal(10),
        ),
        source=PriceSource.GENAI_PRICES,
        version="genai-prices 0.2.3",
    )


@pytest.mark.parametrize(
    ("seller", "model", "hour"),
    [
        ("aws", "regional.anthropic.claude-opus-4-1-20250805-v1:0", None),  # 18.75 is the price of 5 minutes
        ("openai", "gpt-5", Decimal("1.25")),  # no price for writing at all: input like any other
    ],
)
def test_a_write_for_an_hour_never_has_the_price_of_one_for_five_minutes(seller, model, hour):
    quote = GenaiPrices(seller).quote(model, at=NOW, prompt_tokens=0)
    assert quote is not None
    assert quote.rates.cache_write_1h == hour


@pytest.mark.parametrize(
    "name",
    [
        "claude-opus-4-5-20251101",  # its matcher takes all that begins with an id
        "claude-opus-4-5:batch",
        "claude-opus-4-5[1m]",
        "anthropic/claude-opus-4-5",
        "CLAUDE-OPUS-4-5",
        "claude-opus",
        "",
    ],
)
def test_only_an_exact_id_has_a_price(name):
    assert ANTHROPIC.quote(name, at=NOW) is None


def test_an_alias_that_is_spelled_out_is_the_same_model():
    assert ANTHROPIC.quote("claude-opus-4", at=NOW) == ANTHROPIC.quote("claude-opus-4-0", at=NOW)


def test_a_tier_holds_beyond_its_start_and_without_a_prompt_nothing_tiered_is_known():
    model = "claude-sonnet-4-5"
    assert ANTHROPIC.quote(model, at=NOW, prompt_tokens=200_000).rates.input == 3
    assert ANTHROPIC.quote(model, at=NOW, prompt_tokens=200_001).rates.input == 6
    assert ANTHROPIC.quote(model, at=NOW).rates.input is None


def test_a_dated_price_is_that_of_the_runs_time():
    before, after = datetime(2026, 1, 1, tzinfo=UTC), NOW
    rates = [ANTHROPIC.quote("claude-opus-4-6", at=at, prompt_tokens=300_000).rates for at in (before, after)]
    assert rates[0] != rates[1]


def test_a_seller_that_the_list_does_not_know_has_no_prices():
    assert GenaiPrices("nobody").quote("gpt-5", at=NOW) is None


@cache
def listed() -> list[tuple[str, str]]:
    from genai_prices.data import providers

    return [(each.id, model.id) for each in providers if each.id in PRICE_LISTS for model in each.models]


def theirs(seller: str, model: str, used: ModelUsage) -> Decimal:
    from genai_prices.data import providers
    from genai_prices.types import Usage as TheirUsage

    provider = next(each for each in providers if each.id == seller)
    info = next(each for each in provider.models if each.id == model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # prices of things that agents do not buy
        told = TheirUsage(
            input_tokens=used.prompt,
            cache_read_tokens=used.cache_read,
            cache_write_tokens=used.cache_write,
            cache_write_1h_tokens=used.cache_write_1h,
            output_tokens=used.output,
        )
        return info.calc_price(told, provider, genai_request_timestamp=NOW).total_price


few = st.integers(0, 300_000)
usages = st.builds(
    ModelUsage, input=few, cache_read=few, cache_write_5m=few, cache_write_1h=few, output=few
).filter(lambda used: used.total)


@settings(max_examples=100, deadline=None)
@given(place=st.integers(0, 10**6), used=usages)
def test_one_request_costs_what_the_list_itself_says_it_costs(place, used):
    seller, model = listed()[place % len(listed())]
    quote = GenaiPrices(seller).quote(model, at=NOW, prompt_tokens=used.prompt)
    assume(quote is not None and not quote.rates.request)
    rates = quote.rates
    pairs = [
        (used.input, rates.input),
        (used.cache_read, rates.cache_read),
        (used.cache_write_5m, rates.cache_write_5m),
        (used.cache_write_1h, rates.cache_write_1h),
        (used.output, rates.output),
    ]
    assume(all(rate is not None for tokens, rate in pairs if tokens))
    ours = sum((tokens * rate for tokens, rate in pairs if tokens), Decimal(0)) / 10**6
    assert ours == pytest.approx(theirs(seller, model, used), rel=Decimal("1e-20"))


def test_the_run_of_the_recorded_stream_has_the_price_that_the_list_computes():
    used = Usage(
        source=UsageSource.REPORTED,
        by_model={"claude-sonnet-4-5-20250929": ModelUsage(input=2400, cache_read=1600, output=300)},
    )
    cost = price(used, [], at=NOW, terms=Terms(books=(ANTHROPIC,)))
    assert (cost.usd, cost.source) == (Decimal("0.01218"), PriceSource.GENAI_PRICES)
    assert cost.version == "genai-prices 0.2.3"


# -- whose list -------------------------------------------------------------------------------------------


def terms(table: str, model: str = "m", provider: str = "p", **more) -> Terms:
    read = parse_settings(table, source="x")
    return terms_of(provider, read.providers, model=model, config_version="v", **more)


def test_every_seller_there_is_a_word_for_is_in_the_list():
    from genai_prices.data import providers

    assert set(PRICE_LISTS) - {NOBODY} <= {each.id for each in providers}
    assert set(SELLER_OF_DIALECT.values()) <= set(PRICE_LISTS)
    assert not set(SELLER_OF_DIALECT) & NAMES_SELLER_FIRST


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ('agent = "claude"', ("anthropic",)),
        ('agent = "claude"\nenv = { ANTHROPIC_BASE_URL = "http://x" }', ()),
        ('agent = "claude"\npass_env = ["CLAUDE_CODE_USE_BEDROCK"]', ()),
        ('agent = "claude"\npass_env = ["ANTHROPIC_BASE_URL"]\nprice_list = "openrouter"', ("openrouter",)),
        ('agent = "claude"\nprice_list = "none"', ()),
        ('agent = "generic"\ncommand_template = ["x"]', ()),
        ('agent = "generic"\ncommand_template = ["x"]\nprice_list = "groq"', ("groq",)),
    ],
)
def test_a_provider_has_the_prices_of_whom_it_talks_to(table, expected):
    assert tuple(book.seller for book in terms(f"[providers.p]\n{table}\n").books) == expected


def test_the_catalogue_is_asked_first_and_only_for_openrouter():
    catalogue = GenaiPrices("nobody")
    assert books_of("openrouter", catalogue) == (catalogue, GenaiPrices("openrouter"))
    assert books_of("anthropic", catalogue) == (ANTHROPIC,)
    assert books_of(None, catalogue) == ()


def test_a_name_that_begins_with_its_seller_is_looked_up_there():
    book = SellerFirst()
    assert book.quote("anthropic/claude-opus-4-5", at=NOW) == ANTHROPIC.quote("claude-opus-4-5", at=NOW)
    assert book.quote("openrouter/moonshotai/kimi-k2", at=NOW) is not None
    for name in ("claude-opus-4-5", "none/x", "acme/claude-opus-4-5", "anthropic/"):
        assert book.quote(name, at=NOW) is None


def test_the_prices_of_another_configured_provider_count_only_when_it_buys_from_the_same_seller():
    table = """
[providers.p]
agent = "claude"
[providers.twin]
agent = "claude"
[providers.proxy]
agent = "claude"
env = { ANTHROPIC_BASE_URL = "http://x" }
"""
    assert terms(table).rivals == {"proxy"}
    assert terms(table, provider="proxy").rivals == {"claude-cli", "p", "twin"}  # built in
    assert terms(table, provider="gone").rivals == {"claude-cli", "p", "twin", "proxy"}


def test_a_subscription_is_a_word_of_the_providers_table():
    assert terms('[providers.p]\nagent = "claude"\nbilling = "subscription"\n').is_subscription
    assert not terms('[providers.p]\nagent = "claude"\n').is_subscription


def test_every_dialect_that_tells_a_charge_says_so_to_the_price():
    for name, dialect in DIALECTS.items():
        table = f'[providers.p]\nagent = "{name}"\ncommand_template = ["x", "{{model}}"]\n'
        assert terms(table).reports_charge is dialect.reports_charge


# -- what a program leaves unsaid -------------------------------------------------------------------------


def test_a_model_without_a_name_is_the_one_the_command_named():
    usage = Usage(
        source=UsageSource.REPORTED, by_model={UNNAMED: ModelUsage(input=5), "x": ModelUsage(input=1)}
    )
    assert named(usage, "gpt-5").by_model == {"x": ModelUsage(input=1), "gpt-5": ModelUsage(input=5)}
    assert named(usage, "x").by_model == {"x": ModelUsage(input=6)}
    assert named(usage, None) is usage
    silent = '[providers.p]\nagent = "generic"\ncommand_template = ["x"]\n'
    assert terms(silent).asked is None
    assert terms('[providers.p]\nagent = "claude"\n', "opus").asked == "opus"


def test_the_longest_prompt_is_that_of_a_call_or_what_no_call_explains():
    ledger = UsageLedger()
    ledger.call("1", "m", ModelUsage(input=100, cache_read=50, output=9))
    ledger.call("1", "m", ModelUsage(input=120, cache_read=50, output=20))
    ledger.call("2", "m", ModelUsage(input=10, cache_write_5m=30, output=5))
    assert ledger.usage().longest_prompt == {"m": 170}
    ledger.report({"m": ModelUsage(input=230, cache_read=300, output=30)}, None, cumulative=True)
    assert ledger.usage().longest_prompt == {"m": 320}  # 530 reported, 210 of them seen


calls = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 1000), st.integers(0, 1000)), min_size=1)


@settings(max_examples=60, deadline=None)
@given(calls=calls, unseen=st.integers(0, 5000))
def test_no_request_can_have_been_longer_than_the_longest_prompt(calls, unseen):
    ledger, truth = UsageLedger(), {}
    for call, tokens, cached in calls:
        used = ModelUsage(input=tokens, cache_read=cached)
        ledger.call(str(call), "m", used)
        before = truth.get(call, (0, 0))
        truth[call] = (max(before[0], tokens), max(before[1], cached))
    total = ModelUsage(
        input=sum(tokens for tokens, _ in truth.values()) + unseen,
        cache_read=sum(cached for _, cached in truth.values()),
    )
    ledger.report({"m": total}, None, cumulative=True)
    longest = max(unseen, *(sum(each) for each in truth.values()))
    assert ledger.usage().longest_prompt["m"] == longest
