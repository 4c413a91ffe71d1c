"""The price list of the package genai-prices as a list of prices: exact ids of one seller.

Must not use that package's own matching: its clauses also take what begins with or contains a name, and
would price a reseller's or a batch row's tokens. Loads the package (a fifth of a second) when first asked;
it never fetches anything.

The list's own rules: a tier's price holds for a whole request whose prompt is longer than its start, and
tokens of a kind without a price of its own are paid like the kind that contains it (cached ones like input).
Not taken from it: writes for an hour at the price of five minutes, which Anthropic's are not sold at.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING

from adw_modules.money.quotes import PriceSource, Quote, Rates

if TYPE_CHECKING:
    from genai_prices.types import MatchLogic, ModelInfo, ModelPrice, TieredPrices


@dataclass(frozen=True, slots=True)
class GenaiPrices:
    """A `PriceBook` of one seller, by its name in the list (`anthropic`, `openai` …)."""

    seller: str

    def quote(self, model: str, *, at: datetime, prompt_tokens: int | None = None) -> Quote | None:
        info = _models(self.seller).get(model)
        if info is None:
            return None
        prices = info.get_prices(at)
        return Quote(rates=_rates(prices, prompt_tokens), source=PriceSource.GENAI_PRICES, version=_version())


@cache
def _version() -> str:
    from importlib.metadata import version

    return f"genai-prices {version('genai-prices')}"


@cache
def _models(seller: str) -> dict[str, ModelInfo]:
    """Every id and explicit alias of a seller; an alias of two models means neither."""
    from genai_prices.data import providers

    offered = [model for provider in providers if provider.id == seller for model in provider.models]
    found: dict[str, ModelInfo] = {}
    doubtful = set()
    for model in offered:
        for name in _equals(model.match):
            if found.setdefault(name, model) is not model:
                doubtful.add(name)
    for name in doubtful:
        del found[name]
    return found | {model.id: model for model in offered}


def _equals(match: MatchLogic) -> Iterator[str]:
    from genai_prices.types import ClauseEquals, ClauseOr

    if isinstance(match, ClauseEquals):
        yield match.equals
    elif isinstance(match, ClauseOr):
        for clause in match.or_:
            yield from _equals(clause)


def _rates(prices: ModelPrice, prompt_tokens: int | None) -> Rates:
    def rate(name: str, otherwise: Decimal | None = None) -> Decimal | None:
        price = getattr(prices, name)
        return otherwise if price is None else _at(price, prompt_tokens)

    paid_in, paid_out = rate("input_mtok"), rate("output_mtok")
    write = rate("cache_write_mtok", paid_in)
    requests = rate("requests_kcount")
    has_other_output = rate("output_reasoning_mtok", paid_out) != paid_out
    return Rates(
        input=paid_in,
        output=None if has_other_output else paid_out,
        cache_read=rate("cache_read_mtok", paid_in),
        cache_write_5m=write,
        # Where writing has a price, one for an hour is dearer than one for five minutes: not told is unknown.
        cache_write_1h=rate("cache_write_1h_mtok", paid_in if prices.cache_write_mtok is None else None),
        request=None if requests is None else requests.scaleb(-3),
    )


def _at(price: Decimal | TieredPrices, prompt_tokens: int | None) -> Decimal | None:
    if isinstance(price, Decimal):
        return price
    if prompt_tokens is None:
        return None
    reached = [tier.price for tier in price.tiers if prompt_tokens > tier.start]
    return reached[-1] if reached else price.base
