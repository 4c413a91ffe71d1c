"""What a model costs at one instant for one size of prompt: base prices, and overrides on top of them.

An entry applies when all its conditions are met; of those that apply, a later one wins key by key, and a key
that none has is the base price. Days and hours are looked at in UTC, at the instant of the request.

The top of a row may show the price that is valid at the moment of the sync instead of the base price. So what
a timed override covers then is no news about the base (`masked_by_now`); the base is taken from an earlier
sync, or it is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from adw_modules.catalogue.model import PRICE_KEYS, Override, Pricing
from adw_modules.money.quotes import Rates


def rates_at(pricing: Pricing, at: datetime, prompt_tokens: int | None) -> Rates:
    """US dollars for a million tokens. Without a prompt size, what depends on it is unknown.

    `at` is aware; of any zone.
    """
    prices: dict[str, Decimal | None] = dict(pricing.prices)
    for override in pricing.overrides:
        if not _is_in_time(override, at):
            continue
        if override.min_prompt_tokens is None:
            prices |= override.prices
        elif prompt_tokens is None:
            prices |= {key: None for key, price in override.prices.items() if prices.get(key) != price}
        elif prompt_tokens > override.min_prompt_tokens:
            prices |= override.prices
    return Rates(
        input=_million(prices.get("prompt")),
        output=_million(prices.get("completion")),
        cache_read=_million(prices.get("input_cache_read")),
        cache_write_5m=_million(prices.get("input_cache_write")),
        cache_write_1h=_million(prices.get("input_cache_write_1h")),
        request=prices.get("request"),
    )


def applying(pricing: Pricing, at: datetime, prompt_tokens: int) -> list[Override]:
    """The overrides whose conditions are all met, in their order."""
    return [
        each
        for each in pricing.overrides
        if _is_in_time(each, at)
        and (each.min_prompt_tokens is None or prompt_tokens > each.min_prompt_tokens)
    ]


def _million(price: Decimal | None) -> Decimal | None:
    return None if price is None else price.scaleb(6)


def _is_in_time(override: Override, at: datetime) -> bool:
    utc = at.astimezone(UTC)
    if override.days is not None and utc.weekday() not in override.days:
        return False
    if override.start is None or override.end is None or override.start == override.end:
        return True
    minute = utc.hour * 60 + utc.minute
    if override.start < override.end:
        return override.start <= minute < override.end
    return minute >= override.start or minute < override.end


# --- the base price behind the price of the hour ------------------------------------------------


def masked_by_now(pricing: Pricing, now: datetime) -> frozenset[str]:
    """The keys whose price at the top of the row is just that of the hour."""
    timed = [each for each in pricing.overrides if each.is_timed and each.min_prompt_tokens is None]
    shown: dict[str, Decimal | None] = {}
    for override in timed:
        if _is_in_time(override, now):
            shown |= override.prices
    return frozenset(
        key for key, price in shown.items() if price is not None and pricing.prices.get(key) == price
    )


def restored(pricing: Pricing, before: Pricing | None, now: datetime) -> Pricing:
    """The row's pricing with its base prices: those of `before` where the hour hides them now.

    Where `before` had other overrides it says nothing, and the base price is unknown until the window ends.
    """
    masked = masked_by_now(pricing, now)
    if not masked:
        return pricing
    known = before.prices if before is not None and before.overrides == pricing.overrides else {}
    base = {key: price for key, price in pricing.prices.items() if key not in masked}
    return replace(pricing, prices=base | {key: known[key] for key in masked if key in known})


# --- as plain data, for the store ---------------------------------------------------------------


def terms(pricing: Pricing) -> dict[str, Any]:
    """Everything of a pricing as JSON data, always spelled the same."""
    return {
        "prices": _spelled(pricing.prices),
        "overrides": [
            {
                "prices": _spelled(each.prices),
                "min_prompt_tokens": None
                if each.min_prompt_tokens is None
                else format(each.min_prompt_tokens, "f"),
                "start": each.start,
                "end": each.end,
                "days": None if each.days is None else list(each.days),
            }
            for each in pricing.overrides
        ],
        "is_negative": pricing.is_negative,
    }


def from_terms(data: Mapping[str, Any]) -> Pricing:
    """What `terms` spelled."""
    return Pricing(
        prices={key: Decimal(price) for key, price in data["prices"].items()},
        overrides=tuple(_override(each) for each in data["overrides"]),
        is_negative=data["is_negative"],
    )


def _override(data: Mapping[str, Any]) -> Override:
    least, days = data["min_prompt_tokens"], data["days"]
    return Override(
        prices={key: None if price is None else Decimal(price) for key, price in data["prices"].items()},
        min_prompt_tokens=None if least is None else Decimal(least),
        start=data["start"],
        end=data["end"],
        days=None if days is None else tuple(days),
    )


def _spelled(prices: Mapping[str, Decimal | None]) -> dict[str, str | None]:
    return {key: None if prices[key] is None else plain(prices[key]) for key in PRICE_KEYS if key in prices}


def plain(price: Decimal | None) -> str:
    """Without exponent and without zeros that say nothing: `0.0000005`."""
    text = format(price or Decimal(0), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
