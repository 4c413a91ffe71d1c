"""Usage times price, exact: who is asked for a price, in which order, and what is said when nobody has one.

Asked in this order: the provider's own charge, `[[models]]`, the price lists of its seller (the synced
catalogue, then genai-prices). The first that prices all kinds of token a model used is taken; what none of
them prices is unknown, never 0. Must not look for a similar name.

Names. A price is that of exactly this id, with two exceptions that are the same model for certain. A
`claude-…` name with a date at its end is the snapshot behind the name without it: Anthropic's own scheme,
whose snapshots of one name never differed in price. And a model that answers for the name a run asked for,
told with a date, or with or without its maker's prefix, costs what `[[models]]` says of that name. A variant
(`:free`, `:batch`, `[1m]`) is another model with other prices, and a maker's prefix names another seller.

Cache. `[[models]]` may have prices for input and output only. Cache tokens are then priced at the most
they can cost: reads at the input price, writes at 1.25 times it (5 minutes) and twice it (1 hour), which is
what Anthropic asks and others stay below. A write price between input and twice input is that of 5 minutes,
and an hour costs twice input; any other holds for both. `priced_by` says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from decimal import Context, Decimal, localcontext
from typing import Protocol

from adw_modules.money.quotes import PriceBook, PriceSource, Quote, Rates
from adw_modules.tasks.model import Cost, ModelCost, ModelUsage, Usage, UsageSource

WRITE_5M_FACTOR = Decimal("1.25")
WRITE_1H_FACTOR = Decimal(2)

# Enough digits for any token count times any price, so that no sum is ever rounded.
EXACT = Context(prec=100)
_AN_HOUR = "1 h cache write at 2 x input price"
_KINDS = ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h")
_DATE = re.compile(r"[-@]20\d{2}(-?)(?:0[1-9]|1[0-2])\1(?:0[1-9]|[12]\d|3[01])$")
_CLAUDE_SNAPSHOT = re.compile(
    r"^(?P<name>claude-[a-z0-9.-]*?)[-@]20\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?P<variant>\[1m\])?$"
)


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
class Terms:
    """How a run's provider bills, and where its prices are found."""

    asked: str | None = None  # the model its command named
    is_subscription: bool = False
    reports_charge: bool = False  # what its program reports is the charge, not an estimate
    rivals: frozenset[str] = frozenset()  # providers whose `[[models]]` are somebody else's prices
    config_version: str | None = None
    books: tuple[PriceBook, ...] = ()  # of its seller, in the order in which they are asked


@dataclass(frozen=True, slots=True, kw_only=True)
class _Offer:
    """The rates of one source for one model. `assumed`: what to say of a rate the source does not have."""

    quote: Quote
    assumed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Priced:
    """What one model's tokens cost, and what is to be said about it."""

    cost: ModelCost
    remarks: tuple[str, ...] = ()  # assumptions, or the one reason why the cost is unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sources:
    """Whoever may be asked for the prices of one run, at its time."""

    catalogue: Sequence[PricedModel]
    at: datetime
    terms: Terms

    def offers(self, model: str, longest_prompt: int) -> Iterator[_Offer | str]:
        """What each source in turn has for the model; a text: why it cannot be said."""
        configured = _configured(model, self.catalogue, self.terms)
        if configured is not None:
            yield configured
        for book in self.terms.books:
            found = (self._listed(book, name, longest_prompt) for name in _listed_as(model))
            offer = next(filter(None, found), None)
            if offer is not None:
                yield offer

    def _listed(self, book: PriceBook, name: str, longest_prompt: int) -> _Offer | None:
        # Each request's prompt is between nothing and the longest: rates that both have hold for all of them.
        short = book.quote(name, at=self.at, prompt_tokens=0)
        long = book.quote(name, at=self.at, prompt_tokens=longest_prompt)
        if short is None or long is None:
            return None
        return _Offer(quote=replace(short, rates=_common(short.rates, long.rates)))


def price(usage: Usage, models: Iterable[PricedModel], *, at: datetime, terms: Terms | None = None) -> Cost:
    """What a run's tokens cost at the moment `at` (aware)."""
    terms = terms or Terms()
    if terms.is_subscription:
        return _by_subscription(usage)
    if terms.reports_charge and usage.reported_cost_usd is not None:
        return _charged(usage, usage.reported_cost_usd)
    if usage.source is UsageSource.UNKNOWN:
        reason = "unknown: the run left no token numbers"
        return Cost(usd=None, priced_by=reason, source=PriceSource.UNKNOWN)
    offered = [entry for entry in models if entry.provider not in terms.rivals]
    sources = _Sources(catalogue=offered, at=at, terms=terms)
    with localcontext(EXACT):
        priced = {
            model: _priced(model, used, usage.longest_prompt.get(model, used.prompt), sources)
            for model, used in sorted(usage.by_model.items())
        }
        return _sum_up(priced, [each for model, each in priced.items() if usage.by_model[model].total])


# -- the whole run ----------------------------------------------------------------------------------------


def _by_subscription(usage: Usage) -> Cost:
    nothing = ModelCost(usd=None, source=PriceSource.SUBSCRIPTION)
    return Cost(
        usd=None,
        priced_by="subscription",
        source=PriceSource.SUBSCRIPTION,
        by_model=dict.fromkeys(usage.by_model, nothing),
    )


def _charged(usage: Usage, charge: Decimal) -> Cost:
    """A charge for several models stays whole: nobody said which of them it was for."""
    share = charge if len(usage.by_model) == 1 else None
    of_each = ModelCost(usd=share, source=PriceSource.REPORTED)
    return Cost(
        usd=charge,
        priced_by="reported by the provider",
        source=PriceSource.REPORTED,
        by_model=dict.fromkeys(usage.by_model, of_each),
    )


def _sum_up(priced: Mapping[str, _Priced], paid: Sequence[_Priced]) -> Cost:
    """`paid`: those that used tokens."""
    by_model = {model: each.cost for model, each in priced.items()}
    if not paid:
        return Cost(
            usd=Decimal(0),
            priced_by="no tokens were used",
            source=PriceSource.CONFIG,
            by_model=by_model,
        )
    known = sum((each.cost.usd for each in paid if each.cost.usd is not None), Decimal(0))
    unknown = [each for each in paid if each.cost.usd is None]
    if not unknown:
        return Cost(
            usd=known,
            priced_by=_told(paid),
            source=_source(paid),
            version=_versions(paid),
            by_model=by_model,
        )
    return Cost(
        usd=None,
        priced_by="; ".join(dict.fromkeys(remark for each in unknown for remark in each.remarks)),
        source=PriceSource.UNKNOWN,
        version=_versions(paid),
        at_least=known or None,
        by_model=by_model,
    )


def _source(priced: Iterable[_Priced]) -> PriceSource:
    sources = {each.cost.source for each in priced}
    return sources.pop() if len(sources) == 1 else PriceSource.MIXED


def _versions(priced: Iterable[_Priced]) -> str | None:
    found = dict.fromkeys(each.cost.version for each in priced if each.cost.version)
    return ", ".join(found) or None


def _told(priced: Iterable[_Priced]) -> str:
    """`config (cache read at input price)`; several sources in the order in which they are asked."""
    told: dict[PriceSource, dict[str, None]] = {}
    for each in priced:
        told.setdefault(each.cost.source, {}).update(dict.fromkeys(each.remarks))
    ordered = sorted(told.items(), key=lambda item: list(PriceSource).index(item[0]))
    return " + ".join(
        f"{source} ({', '.join(remarks)})" if remarks else source for source, remarks in ordered
    )


# -- one model --------------------------------------------------------------------------------------------


def _priced(model: str, used: ModelUsage, longest_prompt: int, sources: _Sources) -> _Priced:
    if not used.total:
        nothing = ModelCost(usd=Decimal(0), source=PriceSource.CONFIG)  # needs no price
        return _Priced(cost=nothing)
    best: _Priced | None = None
    for offer in sources.offers(model, min(longest_prompt, used.prompt)):
        if isinstance(offer, str):
            return _unknown(offer)
        found = _multiplied(model, used, offer)
        if found.cost.usd is not None:
            return found
        best = best or found
    return best or _unknown(f"unknown: no price for {model}")


def _unknown(reason: str) -> _Priced:
    cost = ModelCost(usd=None, source=PriceSource.UNKNOWN)
    return _Priced(cost=cost, remarks=(reason,))


def _multiplied(model: str, used: ModelUsage, offer: _Offer) -> _Priced:
    total, remarks = Decimal(0), []
    is_complete = not offer.quote.rates.request  # nobody counts the requests of a run
    for kind in _KINDS:
        tokens, rate = getattr(used, kind), getattr(offer.quote.rates, kind)
        if not tokens:
            continue
        is_complete = is_complete and rate is not None
        total += (tokens * (rate or Decimal(0))).scaleb(-6)
        remarks += [offer.assumed[kind]] if kind in offer.assumed else []
    if not is_complete:
        return _unknown(f"unknown: the price of {model} is not complete")
    cost = ModelCost(usd=total, source=offer.quote.source, version=offer.quote.version or None)
    return _Priced(cost=cost, remarks=tuple(remarks))


def _common(short: Rates, long: Rates) -> Rates:
    pairs = {each.name: (getattr(short, each.name), getattr(long, each.name)) for each in fields(Rates)}
    return Rates(**{name: one if one == other else None for name, (one, other) in pairs.items()})


# -- `[[models]]` -----------------------------------------------------------------------------------------


def _configured(model: str, catalogue: Sequence[PricedModel], terms: Terms) -> _Offer | str | None:
    """The configured prices of a model; a text when two names mean it and differ in price."""
    for names in _configured_as(model, terms.asked):
        found = {_prices(entry) for entry in catalogue if entry.name in names and _has_price(entry)}
        if len(found) > 1:
            return f"unknown: several prices fit {model}"
        if found:
            return _offer(found.pop(), terms.config_version or "")
    return None


def _has_price(entry: PricedModel) -> bool:
    return any(price is not None for price in _prices(entry))


def _prices(entry: PricedModel) -> tuple[Decimal | None, ...]:
    return (
        entry.cost_per_million_input,
        entry.cost_per_million_output,
        entry.cost_per_million_cache_read,
        entry.cost_per_million_cache_write,
    )


def _offer(prices: tuple[Decimal | None, ...], version: str) -> _Offer:
    paid_in, paid_out, read, write = prices
    assumed = {}
    rates = Rates(input=paid_in, output=paid_out, cache_read=read, cache_write_5m=write, cache_write_1h=write)
    if paid_in is not None and read is None:
        rates = replace(rates, cache_read=paid_in)
        assumed["cache_read"] = "cache read at input price"
    if paid_in is not None and write is None:
        rates = replace(
            rates, cache_write_5m=paid_in * WRITE_5M_FACTOR, cache_write_1h=paid_in * WRITE_1H_FACTOR
        )
        assumed["cache_write_5m"] = "cache write at 1.25 x input price"
        assumed["cache_write_1h"] = _AN_HOUR
    elif paid_in is not None and write is not None and paid_in < write < paid_in * WRITE_1H_FACTOR:
        rates = replace(rates, cache_write_1h=paid_in * WRITE_1H_FACTOR)
        assumed["cache_write_1h"] = _AN_HOUR
    quote = Quote(rates=rates, source=PriceSource.CONFIG, version=version)
    return _Offer(quote=quote, assumed=assumed)


# -- names ------------------------------------------------------------------------------------------------


def _configured_as(model: str, asked: str | None) -> Iterator[frozenset[str]]:
    """The names under which the configuration may have a reported model, the surest first."""
    yield frozenset({model})
    if asked is not None and answers_for(model, asked):
        yield frozenset({asked})
    snapshot_of = _snapshot_of(model)
    if snapshot_of is not None:
        yield frozenset({snapshot_of})


def _listed_as(model: str) -> Iterator[str]:
    """The ids under which a price list may have a reported model."""
    yield model
    snapshot_of = _snapshot_of(model)
    if snapshot_of is not None:
        yield snapshot_of


def answers_for(model: str, asked: str) -> bool:
    """Whether a reported name is what the program makes of the name it was given."""
    maker, _, bare = model.rpartition("/")
    asked_maker, _, asked_bare = asked.rpartition("/")
    same_maker = not maker or not asked_maker or maker == asked_maker
    return same_maker and asked_bare in (bare, _DATE.sub("", bare))


def _snapshot_of(model: str) -> str | None:
    found = _CLAUDE_SNAPSHOT.match(model)
    return found["name"] + (found["variant"] or "") if found else None
