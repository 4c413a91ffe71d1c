"""What a price list answers: the rates of a model at a moment, and where they come from.

Owns the words every source of prices shares. Must not multiply (that is pricing.py), look a list up, or
guess: a rate nobody knows is None, never 0, and a model a list does not hold has no quote.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Protocol


class PriceSource(StrEnum):
    """Who said what a usage cost. The order is the order in which they are asked."""

    REPORTED = "reported"  # the provider's own charge, from its answer
    CONFIG = "config"  # `[[models]]`
    CATALOGUE = "catalogue"  # the synced catalogue of OpenRouter
    GENAI_PRICES = "genai-prices"  # the price list of that package
    SUBSCRIPTION = "subscription"  # a flat rate: tokens have no price
    UNKNOWN = "unknown"
    MIXED = "mixed"  # only of a whole run: its models have different sources


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """US dollars for a million tokens of each kind, without what another kind covers; None = unknown.

    `request` is US dollars for one request, and None where the list knows of no such price.
    """

    input: Decimal | None = None  # without cache
    output: Decimal | None = None  # reasoning included
    cache_read: Decimal | None = None
    cache_write_5m: Decimal | None = None
    cache_write_1h: Decimal | None = None
    request: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """One answer of a price list. `version` names its edition: the same one gives the same rates."""

    rates: Rates
    source: PriceSource
    version: str


class PriceBook(Protocol):
    """A list of prices."""

    def quote(self, model: str, *, at: datetime, prompt_tokens: int | None = None) -> Quote | None:
        """The rates of exactly this `model` id at the moment `at` (aware); None when the list has none.

        `prompt_tokens` is what one request sent, cache included, for lists whose rates depend on it; None
        means that nobody knows, and then only rates that do not depend on it may be given.
        """
        ...
