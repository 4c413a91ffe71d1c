"""Cost = usage x configured prices, exact.

Owns how a model name finds its price, and what is said when there is none. Must not guess: a missing
price makes the cost unknown, never 0.

Names. An agent reports the full name of the model it used, a configuration often has a short one. Tried
in this order, first the names offered by the run's own provider, then all:
1. the very name; 2. without a date or variant at its end (`-20250929`, `@20250929`, `-2025-09-29`, `[1m]`)
on either side; 3. also without `provider/` in front of it. Entries that fit equally well must have the
same prices, or the cost is unknown. OpenRouter's `:free` and the like are other prices, so they stay.

Cache. A configuration may give prices for input and output only. Cache tokens are then priced at the most
they can cost: reads at the input price, writes at 1.25 times it (5 minutes) and twice it (1 hour), which is
what Anthropic asks and others stay below. `priced_by` says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal, localcontext
from typing import Protocol

from adw_modules.tasks.model import Cost, ModelUsage, Usage, UsageSource

WRITE_5M_FACTOR = Decimal("1.25")
WRITE_1H_FACTOR = Decimal(2)

# Enough digits for any token count times any price, so that no sum is ever rounded.
_EXACT = Context(prec=100)
_DATE = re.compile(r"[-@]20\d{2}(-?)\d{2}\1\d{2}$")
_VARIANT = re.compile(r"\[[^\]]*\]$")


class PricedModel(Protocol):
    """The part of `[[models]]` that prices need. Prices are US dollars for a million tokens."""

    @property
    def name(self) -> str: ...
    @property
    def provider(self) -> str | None: ...
    @property
    def cost_per_million_input(self) -> Decimal | None: ...
    @property
    def cost_per_million_output(self) -> Decimal | None: ...
    @property
    def cost_per_million_cache_read(self) -> Decimal | None: ...
    @property
    def cost_per_million_cache_write(self) -> Decimal | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prices:
    input: Decimal | None
    output: Decimal | None
    cache_read: Decimal | None
    cache_write: Decimal | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """One kind of token: how many, at what price, and what to say when the price is an assumption."""

    tokens: int
    price: Decimal | None
    assumption: str = ""


def price(usage: Usage, models: Iterable[PricedModel], *, provider: str | None = None) -> Cost:
    """Price a run's tokens. `provider` is the run's provider, whose own prices are preferred."""
    if usage.source is UsageSource.UNKNOWN:
        return Cost(usd=None, priced_by="unknown: the run left no token numbers")
    catalogue = list(models)
    total, assumptions = Decimal(0), []
    with localcontext(_EXACT):
        for model, used in sorted(usage.by_model.items()):
            if not used.total:
                continue
            prices = _find(model, catalogue, provider)
            if isinstance(prices, str):
                return Cost(usd=None, priced_by=prices)
            for line in _lines(used, prices):
                if line.price is None:
                    return Cost(usd=None, priced_by=f"unknown: the price of {model} is not complete")
                total += (line.tokens * line.price).scaleb(-6)
                assumptions += [line.assumption] if line.assumption else []
    return Cost(usd=total, priced_by=_priced_by(assumptions))


def _priced_by(assumptions: Sequence[str]) -> str:
    return f"config ({', '.join(dict.fromkeys(assumptions))})" if assumptions else "config"


def _lines(used: ModelUsage, prices: _Prices) -> list[_Line]:
    """What there is to pay; kinds without tokens need no price."""
    lines = [
        _Line(tokens=used.input, price=prices.input),
        _Line(tokens=used.output, price=prices.output),
        _cache_line(
            used.cache_read, prices.cache_read, prices.input, Decimal(1), "cache read at input price"
        ),
        _cache_line(
            used.cache_write_5m,
            prices.cache_write,
            prices.input,
            WRITE_5M_FACTOR,
            "cache write at 1.25 x input price",
        ),
        _cache_line(
            used.cache_write_1h,
            prices.cache_write,
            prices.input,
            WRITE_1H_FACTOR,
            "1 h cache write at 2 x input price",
        ),
    ]
    return [line for line in lines if line.tokens]


def _cache_line(
    tokens: int, own: Decimal | None, input_price: Decimal | None, factor: Decimal, assumption: str
) -> _Line:
    if own is not None:
        return _Line(tokens=tokens, price=own)
    if input_price is None:
        return _Line(tokens=tokens, price=None)
    return _Line(tokens=tokens, price=input_price * factor, assumption=assumption)


def _find(model: str, catalogue: Sequence[PricedModel], provider: str | None) -> _Prices | str:
    """The prices for a reported model name, or the sentence why there are none."""
    own = [entry for entry in catalogue if provider is not None and entry.provider == provider]
    for spelling in (_same, _undated, _bare):
        for offered in (own, catalogue):
            found = {_prices(entry) for entry in offered if spelling(entry.name) == spelling(model)}
            if len(found) > 1:
                return f"unknown: several prices fit {model}"
            if found:
                return found.pop()
    return f"unknown: no price for {model}"


def _prices(entry: PricedModel) -> _Prices:
    return _Prices(
        input=entry.cost_per_million_input,
        output=entry.cost_per_million_output,
        cache_read=entry.cost_per_million_cache_read,
        cache_write=entry.cost_per_million_cache_write,
    )


def _same(name: str) -> str:
    return name


def _undated(name: str) -> str:
    return _DATE.sub("", _VARIANT.sub("", name))


def _bare(name: str) -> str:
    return _undated(name).rpartition("/")[2]
