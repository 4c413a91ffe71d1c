"""The nouns of the catalogue. Frozen values; how they come from an answer is in `parsing.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import date, datetime
from decimal import Decimal

# The prices of a row that one of our runs can be charged, by OpenRouter's own keys. US dollars for a token,
# `request` for a request.
PRICE_KEYS = (
    "prompt",
    "completion",
    "input_cache_read",
    "input_cache_write",
    "input_cache_write_1h",
    "request",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """Prices that hold under conditions, all of which must be met. A key that is missing is inherited.

    A price that cannot be read is there as None: under these conditions nobody knows it.
    """

    prices: Mapping[str, Decimal | None]
    min_prompt_tokens: Decimal | None = None  # the prompt has to be larger than this
    start: int | None = None  # minutes after midnight UTC, inclusive; None: no time window
    end: int | None = None  # exclusive; smaller than `start` where the window goes over midnight
    days: tuple[int, ...] | None = None  # Monday is 0; None: every day

    @property
    def is_timed(self) -> bool:
        return self.start is not None or self.days is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pricing:
    """What a model costs. A key without a price that can be read is not there: unknown, never 0."""

    prices: Mapping[str, Decimal] = field(default_factory=dict)
    overrides: tuple[Override, ...] = ()
    is_negative: bool = False  # "-1": the price depends on where a router sends the request


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a model can do, as far as its row says."""

    supports_tools: bool = False
    supports_reasoning: bool = False
    supports_structured_outputs: bool = False
    supports_multimodal_image: bool = False
    supports_file_pdf: bool = False
    supports_audio: bool = False
    supports_video: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Those it has, without `supports_`, in the order above."""
        return tuple(each.name.removeprefix("supports_") for each in fields(self) if getattr(self, each.name))


CAPABILITY_NAMES = tuple(each.name.removeprefix("supports_") for each in fields(Capabilities))


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmarks:
    """What others measured: a prior for quality, nothing of ours. Each None when nobody did."""

    intelligence_index: Decimal | None = None
    coding_index: Decimal | None = None
    agentic_index: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueModel:
    """One row of the catalogue. `model_id` is what a request names; `canonical_slug` is not an id."""

    model_id: str
    canonical_slug: str | None = None
    name: str = ""
    family: str | None = None
    created_at: datetime | None = None
    expires_on: date | None = None
    tokenizer: str | None = None
    alias_target: str | None = None  # of a `~author/x-latest` row: the id it stands for now
    context_limit: int | None = None  # tokens; the smaller of the model's and its best provider's
    max_output: int | None = None  # tokens
    capabilities: Capabilities = Capabilities()
    pricing: Pricing = Pricing()
    benchmarks: Benchmarks = Benchmarks()
