"""What changed between two catalogues, as one line each. Decides nothing and keeps nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from adw_modules.catalogue.model import CatalogueModel, Override, Pricing
from adw_modules.catalogue.tariff import plain, terms


class ChangeKind(StrEnum):
    """What happened to a model."""

    NEW = "new"
    GONE = "gone"
    PRICE = "price"
    CAPABILITIES = "capabilities"
    CONTEXT = "context"
    ALIAS = "alias"  # it stands for another model now


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change of one model; `before` and `after` in words, None where there was or is nothing."""

    kind: ChangeKind
    model_id: str
    before: str | None = None
    after: str | None = None


def compare(
    before: Mapping[str, CatalogueModel],
    after: Mapping[str, CatalogueModel],
    *,
    keep: frozenset[str] = frozenset(),
) -> list[Change]:
    """Gone, new, then changed models, each by id. `keep`: ids that are missing in `after` but not gone."""
    gone = [
        Change(kind=ChangeKind.GONE, model_id=each) for each in sorted(before.keys() - after.keys() - keep)
    ]
    new = [
        Change(kind=ChangeKind.NEW, model_id=each, after=price_in_words(after[each].pricing))
        for each in sorted(after.keys() - before.keys())
    ]
    changed = [
        change
        for each in sorted(before.keys() & after.keys())
        for change in _differences(before[each], after[each])
    ]
    return [*gone, *new, *changed]


def _differences(old: CatalogueModel, new: CatalogueModel) -> Iterator[Change]:
    if terms(old.pricing) != terms(new.pricing):
        yield _changed(ChangeKind.PRICE, new, price_in_words(old.pricing), price_in_words(new.pricing))
    if old.capabilities != new.capabilities:
        was, becomes = (_listed(each.capabilities.names) for each in (old, new))
        yield _changed(ChangeKind.CAPABILITIES, new, was, becomes)
    if old.context_limit != new.context_limit:
        yield _changed(ChangeKind.CONTEXT, new, _tokens(old.context_limit), _tokens(new.context_limit))
    if old.alias_target != new.alias_target:
        yield _changed(ChangeKind.ALIAS, new, old.alias_target, new.alias_target)


def _changed(kind: ChangeKind, model: CatalogueModel, before: str | None, after: str | None) -> Change:
    return Change(kind=kind, model_id=model.model_id, before=before, after=after)


def _listed(words: Iterable[str]) -> str:
    return ", ".join(words) or "none"


def _tokens(limit: int | None) -> str:
    return "unknown" if limit is None else f"{limit} tokens"


def price_in_words(pricing: Pricing) -> str:
    """`$3 in, $15 out, $0.3 cache read` for a million tokens, with what holds under conditions."""
    said = _prices(pricing.prices) or "unknown"
    return "; ".join([said, *(f"{_condition(each)}: {_prices(each.prices)}" for each in pricing.overrides)])


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_WORDS = {
    "prompt": "in",
    "completion": "out",
    "input_cache_read": "cache read",
    "input_cache_write": "cache write",
    "input_cache_write_1h": "1 h cache write",
}


def _prices(prices: Mapping[str, Decimal | None]) -> str:
    told = [f"{_dollars(prices[key])} {word}" for key, word in _WORDS.items() if key in prices]
    request = prices.get("request")
    return ", ".join([*told, *([f"${plain(request)} a request"] if request else [])])


def _dollars(price: Decimal | None) -> str:
    return "unknown" if price is None else f"${plain(price.scaleb(6))}"


def _condition(override: Override) -> str:
    parts = []
    if override.min_prompt_tokens is not None:
        parts.append(f"above {plain(override.min_prompt_tokens)} tokens")
    if override.start is not None and override.end is not None:
        parts.append(f"{_clock(override.start)}-{_clock(override.end)} UTC")
    if override.days is not None:
        parts.append(",".join(_DAYS[day] for day in override.days))
    return " ".join(parts) or "always"


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"
