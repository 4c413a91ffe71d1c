"""Whose prices a provider's runs cost: the seller its program talks to, and that seller's price lists.

Owns the table from dialect to seller. Must not guess: a program that can talk to anybody has no seller until
the configuration names one, and none is assumed where a provider's environment sends it to another address.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Protocol

from adw_modules.agents import DIALECTS
from adw_modules.money.genai import GenaiPrices
from adw_modules.money.pricing import Terms
from adw_modules.money.quotes import PriceBook, Quote

NOBODY = "none"
OPENROUTER = "openrouter"

# What `price_list` may be: sellers as genai-prices calls them, or none.
PRICE_LISTS = (
    "anthropic",
    "aws",
    "azure",
    "cerebras",
    "deepseek",
    "fireworks",
    "google",
    "groq",
    "minimax",
    "mistral",
    "moonshotai",
    NOBODY,
    "openai",
    OPENROUTER,
    "together",
    "x-ai",
    "zai",
)

SELLER_OF_DIALECT: Mapping[str, str] = MappingProxyType(
    {"claude": "anthropic", "codex": "openai", "gemini": "google", "openrouter-cli": OPENROUTER}
)
# Programs whose model names begin with their seller's: `openrouter/moonshotai/kimi-k2`.
NAMES_SELLER_FIRST = frozenset({"aider", "opencode"})

_ELSEWHERE = re.compile(r"_(?:BASE_URL|API_BASE|ENDPOINT|USE_BEDROCK|USE_VERTEX|USE_VERTEXAI)$")
_OWN_ADDRESS = "OPENROUTER_BASE_URL"  # another way to the same seller


class BilledProvider(Protocol):
    """The part of `[providers.NAME]` that says how it bills."""

    @property
    def agent(self) -> str: ...
    @property
    def command_template(self) -> Sequence[str]: ...
    @property
    def billing(self) -> str: ...
    @property
    def price_list(self) -> str | None: ...
    @property
    def env(self) -> Mapping[str, str]: ...
    @property
    def pass_env(self) -> Iterable[str]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SellerFirst:
    """Price lists of several sellers, for names that begin with the seller's."""

    catalogue: PriceBook | None = None

    def quote(self, model: str, *, at: datetime, prompt_tokens: int | None = None) -> Quote | None:
        seller, _, name = model.partition("/")
        if not name or seller not in PRICE_LISTS or seller == NOBODY:
            return None
        for book in books_of(seller, self.catalogue):
            quote = book.quote(name, at=at, prompt_tokens=prompt_tokens)
            if quote is not None:
                return quote
        return None


def seller_of(provider: BilledProvider) -> str | None:
    """Whose prices apply, as far as the configuration tells."""
    if provider.price_list is not None:
        return None if provider.price_list == NOBODY else provider.price_list
    variables = {*provider.env, *provider.pass_env} - {_OWN_ADDRESS}
    if any(_ELSEWHERE.search(name) for name in variables):
        return None
    return SELLER_OF_DIALECT.get(provider.agent)


def books_of(seller: str | None, catalogue: PriceBook | None = None) -> tuple[PriceBook, ...]:
    """The seller's price lists in the order in which they are asked. `catalogue` is OpenRouter's, synced."""
    if seller is None:
        return ()
    own = (catalogue,) if seller == OPENROUTER and catalogue is not None else ()
    return (*own, GenaiPrices(seller))


def terms_of(
    name: str,
    providers: Mapping[str, BilledProvider],
    *,
    model: str,
    config_version: str,
    catalogue: PriceBook | None = None,
) -> Terms:
    """How a run of `model` on the provider called `name` is billed.

    One that is configured no more has the prices of `[[models]]` only.
    """
    provider = providers.get(name)
    if provider is None:
        return Terms(asked=model, config_version=config_version, rivals=frozenset(providers))
    dialect = DIALECTS.get(provider.agent)
    seller = seller_of(provider)
    books = books_of(seller, catalogue)
    if seller is None and provider.price_list is None and provider.agent in NAMES_SELLER_FIRST:
        books = (SellerFirst(catalogue=catalogue),)
    is_told = any("{model}" in part for part in provider.command_template)
    return Terms(
        asked=model if is_told else None,
        is_subscription=provider.billing == "subscription",
        reports_charge=dialect is not None and dialect.reports_charge,
        rivals=_rivals(name, seller, providers),
        config_version=config_version,
        books=books,
    )


def _rivals(name: str, seller: str | None, providers: Mapping[str, BilledProvider]) -> frozenset[str]:
    """The other providers, without those that buy from the same seller."""
    return frozenset(
        other
        for other, table in providers.items()
        if other != name and (seller is None or seller_of(table) != seller)
    )
