"""Which of OpenRouter's providers may serve a model, in which order, at what price: the `provider` object.

Owns its fields, what each may hold, and the choice of an entry by the model's name. Imports nothing heavy:
the agent program reads its preferences with this alone. The configuration's schema uses the same readers.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Any, TypeAlias

PRICES = (
    "prompt",
    "completion",
    "request",
    "image",
    "audio",
)  # US dollars per million; per piece from `request` on
PERCENTILES = ("p50", "p75", "p90", "p99")
SORTS = ("price", "throughput", "latency", "exacto")
PARTITIONS = ("model", "none")
QUANTIZATIONS = (
    "int4", "int8", "fp4", "mxfp4", "nvfp4", "fp6", "fp8", "mxfp8", "fp16", "bf16", "fp32", "unknown",
)  # fmt: skip
_LONGEST = 100  # entries of a list

Speed: TypeAlias = float | Mapping[str, float]  # one number is the median; or by percentile


@dataclass(frozen=True, slots=True, kw_only=True)
class Sort:
    """What to prefer providers by, instead of spreading the load. `partition` "none" sorts across models."""

    by: str
    partition: str | None = None

    def to_json(self) -> Any:
        return self.by if self.partition is None else {"by": self.by, "partition": self.partition}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderPreferences:
    """Every field of the `provider` object. None is not sent, and then OpenRouter's own default holds."""

    order: tuple[str, ...] | None = None
    allow_fallbacks: bool | None = None
    only: tuple[str, ...] | None = None
    ignore: tuple[str, ...] | None = None
    require_parameters: bool | None = None
    data_collection: str | None = None
    zdr: bool | None = None
    enforce_distillable_text: bool | None = None
    quantizations: tuple[str, ...] | None = None
    sort: Sort | None = None
    max_price: Mapping[str, Decimal] | None = None
    preferred_max_latency: Speed | None = None  # seconds to the first token
    preferred_min_throughput: Speed | None = None  # tokens per second
    options: Mapping[str, Mapping[str, Any]] | None = None

    @classmethod
    def from_mapping(cls, table: Mapping[str, Any]) -> ProviderPreferences:
        """Read the fields as the configuration spells them. Raises ValueError with a sentence."""
        return cls(**{name: _read(name, value) for name, value in table.items()})

    def to_json(self) -> dict[str, Any]:
        """The `provider` object of a request."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: _wire(name, value) for name, value in given.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceEntry:
    """Preferences for the models that a pattern fits, such as `*kimi-k2*`."""

    models: tuple[str, ...]
    preferences: ProviderPreferences

    @classmethod
    def from_mapping(cls, table: Mapping[str, Any]) -> PreferenceEntry:
        """Read one `[[openrouter.preferences]]`. Raises ValueError with a sentence."""
        rest = {name: value for name, value in table.items() if name != "models"}
        try:
            models = model_patterns(table.get("models"))
        except ValueError as error:
            raise ValueError(f"models must be {error}.") from error
        return cls(models=models, preferences=ProviderPreferences.from_mapping(rest))


# For files without entries of their own: Kimi K2 first where it runs fastest, then at its maker.
DEFAULT_PREFERENCES = (
    PreferenceEntry(
        models=("*kimi-k2*",),
        preferences=ProviderPreferences(order=("groq", "moonshotai"), allow_fallbacks=True),
    ),
)


def preferences_for(model: str, entries: Iterable[PreferenceEntry]) -> ProviderPreferences | None:
    """What the first entry with a pattern for this model says; None without one. Case does not count."""
    name = model.casefold()
    for entry in entries:
        if any(fnmatch.fnmatchcase(name, pattern.casefold()) for pattern in entry.models):
            return entry.preferences
    return None


def entries_from(document: Mapping[str, Any]) -> tuple[PreferenceEntry, ...]:
    """The entries of a whole configuration, as TOML was read. Raises ValueError with a sentence.

    A file without `[[openrouter.preferences]]` has the defaults; an empty list has none at all.
    """
    section = document.get("openrouter", {})
    tables = section.get("preferences") if isinstance(section, Mapping) else section
    if tables is None:
        return DEFAULT_PREFERENCES
    if not isinstance(tables, list) or not all(isinstance(table, Mapping) for table in tables):
        raise ValueError("openrouter.preferences must be tables: write [[openrouter.preferences]].")
    return tuple(PreferenceEntry.from_mapping(table) for table in tables)


# --- reading: each raises ValueError with what the value must be ---------------------------------


def flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def slugs(value: Any) -> tuple[str, ...]:
    """Names of providers as OpenRouter's addresses spell them: `groq`, `google-vertex/us-east5`."""
    return _words(value, 'a list of providers\' names, such as ["groq", "moonshotai"]')


def model_patterns(value: Any) -> tuple[str, ...]:
    return _words(value, 'a list of model names or patterns, such as ["*kimi-k2*"]')


def quantizations(value: Any) -> tuple[str, ...]:
    phrase = f"a list of some of {', '.join(QUANTIZATIONS)}"
    found = _words(value, phrase)
    if not set(found) <= set(QUANTIZATIONS):
        raise ValueError(phrase)
    return found


def data_collection(value: Any) -> str:
    return _word(value, ("allow", "deny"))


def sort(value: Any) -> Sort:
    """A word, or a table with `by` and `partition`."""
    if isinstance(value, Sort):
        return value
    table = value if isinstance(value, Mapping) else {"by": value}
    words = ", ".join(f'"{word}"' for word in SORTS)
    if table.get("by") not in SORTS or table.get("partition", "model") not in PARTITIONS or len(table) > 2:
        raise ValueError(f'one of {words}, or a table such as {{ by = "price", partition = "none" }}')
    if set(table) - {"by", "partition"}:
        raise ValueError('a table with the keys "by" and "partition"')
    return Sort(by=table["by"], partition=table.get("partition"))


def max_price(value: Any) -> Mapping[str, Decimal]:
    """US dollars per million tokens (`request`, `image`: each), as numbers or texts."""
    phrase = f"a table with prices of 0 or more for some of {', '.join(PRICES)}"
    if not isinstance(value, Mapping) or not value or set(value) - set(PRICES):
        raise ValueError(phrase)
    return {name: _number(price, phrase, allow_zero=True) for name, price in value.items()}


def speed(value: Any) -> Speed:
    """A number, or a table by percentile."""
    phrase = f"a number above 0, or a table of such numbers for some of {', '.join(PERCENTILES)}"
    if not isinstance(value, Mapping):
        return float(_number(value, phrase))
    if not value or set(value) - set(PERCENTILES):
        raise ValueError(phrase)
    return {name: float(_number(inner, phrase)) for name, inner in value.items()}


def options(value: Any) -> Mapping[str, Mapping[str, Any]]:
    """Anything that one provider understands, by the provider's name."""
    if not isinstance(value, Mapping) or not all(isinstance(inner, Mapping) for inner in value.values()):
        raise ValueError("a table of one table for each provider's name")
    plain = _plain(value)
    assert isinstance(plain, dict)  # noqa: S101  a table stays one; for the type checker
    return plain


READERS: Mapping[str, Callable[[Any], Any]] = {
    "order": slugs,
    "allow_fallbacks": flag,
    "only": slugs,
    "ignore": slugs,
    "require_parameters": flag,
    "data_collection": data_collection,
    "zdr": flag,
    "enforce_distillable_text": flag,
    "quantizations": quantizations,
    "sort": sort,
    "max_price": max_price,
    "preferred_max_latency": speed,
    "preferred_min_throughput": speed,
    "options": options,
}


def _read(name: str, value: Any) -> Any:
    if name not in READERS:
        raise ValueError(f'provider preferences have no field "{name}"; they have {", ".join(READERS)}.')
    try:
        return READERS[name](value)
    except ValueError as error:
        raise ValueError(f"{name} must be {error}.") from error


def _words(value: Any, phrase: str) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not 0 < len(value) <= _LONGEST:
        raise ValueError(phrase)
    if not all(isinstance(word, str) and word.isprintable() and word and " " not in word for word in value):
        raise ValueError(phrase)
    return tuple(value)


def _word(value: Any, words: tuple[str, ...]) -> str:
    if value not in words:
        raise ValueError(" or ".join(f'"{word}"' for word in words))
    return str(value)


def _number(value: Any, phrase: str, *, allow_zero: bool = False) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal, str)):
        raise ValueError(phrase)
    try:
        number = Decimal(str(value))
    except (ArithmeticError, ValueError):  # of thousands of digits
        raise ValueError(phrase) from None
    is_usable = number.is_finite() and 0 <= number <= 10**9 and number.adjusted() > -20
    if not is_usable or (number == 0 and not allow_zero):
        raise ValueError(phrase)
    return number


def _plain(value: Any) -> Any:
    """As JSON can say it: our configuration reads numbers as Decimal."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return float(value) if isinstance(value, Decimal) else value


def _wire(name: str, value: Any) -> Any:
    if isinstance(value, Sort):
        return value.to_json()
    if name == "max_price":
        # Texts, as the official client sends them: exact, and what the service's own schema asks for.
        return {key: format(price, "f") for key, price in value.items()}
    return list(value) if isinstance(value, tuple) else value
