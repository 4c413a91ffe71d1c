"""An answer of `GET /models` into our types, however little of it can be understood.

A row that cannot be used costs itself and one sentence, never its neighbours. Fields nobody here knows are
passed over. What is missing stays unknown; the one thing that is never done is to put a value in its place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from adw_modules.catalogue.exclusion import NEVER
from adw_modules.catalogue.families import family_of
from adw_modules.catalogue.model import (
    PRICE_KEYS,
    Benchmarks,
    Capabilities,
    CatalogueModel,
    Override,
    Pricing,
)

# Conditions of an override. Any other key that is no price is a condition nobody here knows.
_CONDITIONS = frozenset({"min_prompt_tokens", "utc_start", "utc_end", "utc_days"})
# Prices of what our runs do not buy.
_OTHER_PRICES = frozenset(
    {
        "audio",
        "audio_output",
        "discount",
        "image",
        "image_output",
        "image_token",
        "input_audio_cache",
        "internal_reasoning",
        "web_search",
    }
)
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
# At most 27 digits: as many as the decimal arithmetic of Python takes without rounding.
_PRICE = re.compile(r"-?\d{1,9}(?:\.\d{0,18})?(?:[eE](?:-\d{1,2}|\+?\d))?", re.ASCII)
_ID = re.compile(r"[!-~]{1,200}", re.ASCII)  # no space and no control character
_LONGEST_NAME = 200


class _Unusable(Exception):
    """Why a row is left out, as the rest of a sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """One catalogue as it was answered. `problems`: one sentence for each row or override left out."""

    models: tuple[CatalogueModel, ...]
    problems: tuple[str, ...] = ()
    unread: frozenset[str] = frozenset()  # ids whose row was there and could not be used
    is_complete: bool = True  # False: a model that is not in it may exist all the same


def parse_listing(answer: Any) -> Listing:
    """Never raises. An answer without a usable row gives a listing without models, and says why."""
    rows = answer.get("data") if isinstance(answer, Mapping) else None
    if not isinstance(rows, list):
        return Listing(models=(), problems=("The answer has no list of models.",), is_complete=False)
    models: dict[str, CatalogueModel] = {}
    problems: list[str] = []
    unread: set[str] = set()
    nameless = 0
    for number, row in enumerate(rows, start=1):
        model_id = _id_of(row)
        try:
            model = _model(row, model_id, problems.append)
            if model.model_id in models:
                raise _Unusable("its id is there twice, the first one counts")
            models[model.model_id] = model
        except _Unusable as why:
            problems.append(f"Row {number}{f' ({model_id})' if model_id else ''} is left out: {why}.")
            unread.update([model_id] if model_id else ())
            nameless += model_id is None
    is_complete = not nameless and not _has_more(answer, len(rows))
    return Listing(
        models=tuple(models.values()),
        problems=tuple(problems),
        unread=frozenset(unread - models.keys()),
        is_complete=is_complete,
    )


def _has_more(answer: Mapping[str, Any], rows: int) -> bool:
    total, links = answer.get("total_count"), answer.get("links")
    return (_whole(total) or 0) > rows or (isinstance(links, Mapping) and bool(links.get("next")))


def _id_of(row: Any) -> str | None:
    model_id = row.get("id") if isinstance(row, Mapping) else None
    return model_id if isinstance(model_id, str) and _ID.fullmatch(model_id) else None


def _model(row: Any, model_id: str | None, tell: Callable[[str], None]) -> CatalogueModel:
    if not isinstance(row, Mapping):
        raise _Unusable("it is not an object")
    if model_id is None:
        raise _Unusable("it has no usable id")
    architecture = _part(row, "architecture")
    best = _part(row, "top_provider")
    target = row.get("alias_target")
    return CatalogueModel(
        model_id=model_id,
        canonical_slug=_text(row.get("canonical_slug")),
        name=_text(row.get("name")) or model_id,
        family=family_of(model_id),
        created_at=_instant(row.get("created")),
        expires_on=_day(row.get("expiration_date")),
        tokenizer=_text(architecture.get("tokenizer")),
        alias_target=_text(target.get("slug")) if isinstance(target, Mapping) else None,
        context_limit=_least(row.get("context_length"), best.get("context_length")),
        max_output=_least(best.get("max_completion_tokens")),
        capabilities=_capabilities(row, architecture),
        pricing=_pricing(_part(row, "pricing"), lambda text: tell(f"{model_id}: {text}")),
        benchmarks=_benchmarks(row.get("benchmarks")),
    )


def _part(row: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """A table of the row; nothing when it is absent or null. Another type makes the row unusable."""
    value = row.get(key)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise _Unusable(f"its {key} is not an object")
    return value


def _words(row: Mapping[str, Any], key: str) -> frozenset[str]:
    value = row.get(key)
    if value is None:
        return frozenset()
    if not isinstance(value, list):
        raise _Unusable(f"its {key} is not a list")
    return frozenset(each for each in value if isinstance(each, str))


def _capabilities(row: Mapping[str, Any], architecture: Mapping[str, Any]) -> Capabilities:
    takes, reads = _words(row, "supported_parameters"), _words(architecture, "input_modalities")
    return Capabilities(
        supports_tools="tools" in takes,
        supports_reasoning="reasoning" in takes,
        supports_structured_outputs="structured_outputs" in takes,
        supports_multimodal_image="image" in reads,
        supports_file_pdf="file" in reads,
        supports_audio="audio" in reads,
        supports_video="video" in reads,
    )


# --- prices -------------------------------------------------------------------------------------


def _pricing(table: Mapping[str, Any], tell: Callable[[str], None]) -> Pricing:
    prices = {key: price_of(table.get(key)) for key in PRICE_KEYS}
    return Pricing(
        prices={key: price for key, price in prices.items() if price is not None},
        overrides=tuple(_overrides(table.get("overrides"), tell)),
        is_negative=any(_is_negative(table.get(key)) for key in ("prompt", "completion")),
    )


def price_of(value: Any) -> Decimal | None:
    """A price to the last digit; None for what is absent, negative or no number at all."""
    price = _decimal(value)
    return None if price is None or price.is_signed() else price


def _is_negative(value: Any) -> bool:
    price = _decimal(value)
    return price is not None and price < 0


def _decimal(value: Any) -> Decimal | None:
    """Prices are strings; numbers are taken too. A float is read as it was spelled."""
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        return None
    text = value.strip() if isinstance(value, str) else str(value)
    return Decimal(text) if _PRICE.fullmatch(text) else None


def _overrides(value: Any, tell: Callable[[str], None]) -> Iterator[Override]:
    if value is None:
        return
    if not isinstance(value, list):
        tell("its price overrides are not a list and are not used.")
        return
    for number, entry in enumerate(value, start=1):
        try:
            yield _override(entry)
        except _Unusable as why:
            tell(f"price override {number} is not used: {why}.")


def _override(entry: Any) -> Override:
    if not isinstance(entry, Mapping):
        raise _Unusable("it is not an object")
    unknown = [
        key for key, value in entry.items() if key not in _CONDITIONS and not _looks_like_price(key, value)
    ]
    if unknown:
        # Without knowing what it asks for, it would be applied to requests it is not meant for.
        raise _Unusable(f"it has a condition that is not known here, {unknown[0]!r:.60}")
    start, end = _window(entry.get("utc_start"), entry.get("utc_end"))
    return Override(
        prices={key: price_of(entry[key]) for key in PRICE_KEYS if key in entry},
        min_prompt_tokens=_threshold(entry.get("min_prompt_tokens")),
        start=start,
        end=end,
        days=_weekdays(entry.get("utc_days")),
    )


def _looks_like_price(key: Any, value: Any) -> bool:
    """Prices are texts; a number under a name nobody here knows, or a bound, is a condition."""
    if key in PRICE_KEYS or key in _OTHER_PRICES:
        return True
    is_bound = str(key).startswith(("min_", "max_", "utc_"))
    return isinstance(value, str) and _decimal(value) is not None and not is_bound


def _threshold(value: Any) -> Decimal | None:
    if value is None:
        return None
    least = _decimal(value)
    if least is None:
        raise _Unusable("its min_prompt_tokens is not a number")
    return least


def _window(start: Any, end: Any) -> tuple[int | None, int | None]:
    """Minutes after midnight. With one side only, the window reaches to midnight."""
    if start is None and end is None:
        return None, None
    return (0 if start is None else _minutes(start)), (24 * 60 if end is None else _minutes(end))


def _minutes(value: Any) -> int:
    """HHMM as a clock number: 400 and "0400" are four in the morning, 2400 is the end of the day."""
    clock = _decimal(value.replace(":", "") if isinstance(value, str) else value)
    if clock is None or clock != clock.to_integral_value() or not 0 <= clock <= 2400 or clock % 100 >= 60:
        raise _Unusable("its time of day is not one such as 400 or 2230")
    return int(clock) // 100 * 60 + int(clock) % 100


def _weekdays(value: Any) -> tuple[int, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list):
        raise _Unusable("its utc_days are not a list")
    names = [str(each).strip().casefold() for each in value]
    unknown = [name for name in names if name not in _DAYS]
    if unknown:
        raise _Unusable(f"it names a day that is none, {unknown[0]!r:.60}")
    return tuple(sorted({_DAYS.index(name) for name in names}))


# --- single values ------------------------------------------------------------------------------


def _benchmarks(value: Any) -> Benchmarks:
    table = value.get("artificial_analysis") if isinstance(value, Mapping) else None
    if not isinstance(table, Mapping):
        return Benchmarks()
    return Benchmarks(
        intelligence_index=_decimal(table.get("intelligence_index")),
        coding_index=_decimal(table.get("coding_index")),
        agentic_index=_decimal(table.get("agentic_index")),
    )


def _text(value: Any) -> str | None:
    text = " ".join(value.split())[:_LONGEST_NAME] if isinstance(value, str) else ""
    return "".join(each for each in text if each.isprintable()) or None


def _whole(value: Any) -> int | None:
    number = None if isinstance(value, str) else _decimal(value)
    return None if number is None or number != number.to_integral_value() else int(number)


def _least(*values: Any) -> int | None:
    """The smallest of the limits that are given; 0 and null are none."""
    known = [number for number in map(_whole, values) if number is not None and number > 0]
    return min(known, default=None)


def _instant(value: Any) -> datetime | None:
    seconds = _whole(value)
    if seconds is None or not 0 < seconds < 10_000_000_000:
        return None
    return datetime.fromtimestamp(seconds, UTC)


def _day(value: Any) -> date | None:
    try:
        day = date.fromisoformat(value[:10]) if isinstance(value, str) else None
    except ValueError:
        return None
    return None if day is None or day >= NEVER else day
