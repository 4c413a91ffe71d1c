"""What OpenRouter keeps in its books: one generation, and the key with its limits and budgets.

Owns the shapes and their tolerant reading. Asks nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from adw_modules.openrouter.assembly import canonical, own_spend
from adw_modules.openrouter.tolerant import (
    charge,
    count,
    decimal,
    flag,
    mapping,
    mappings,
    moment,
    one_line,
    text,
)
from adw_modules.tasks.model import ModelUsage


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One answer as it was charged, also when nobody waited for its end."""

    generation_id: str | None
    model: str | None
    provider: str | None
    usage: ModelUsage | None
    cost_usd: Decimal | None
    is_byok: bool | None
    finish_reason: str | None
    cancelled: bool | None
    raw: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """One of the budgets that a key is under; US dollars."""

    scope: str | None
    limit_usd: Decimal | None
    spend_usd: Decimal | None
    remaining_usd: Decimal | None  # below 0 when it was overdrawn
    resets_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyStatus:
    """The key's limit and use in US dollars. A limit of None is no limit."""

    label: str | None
    limit_usd: Decimal | None
    remaining_usd: Decimal | None
    usage_usd: Decimal | None
    is_free_tier: bool | None
    free_requests_per_day: int | None = None  # of `:free` models; the count starts anew at midnight UTC
    free_requests_left: int | None = None
    budgets: tuple[Budget, ...] = ()
    raw: Mapping[str, Any] = field(default_factory=dict)


def generation_from(data: Mapping[str, Any]) -> Generation:
    """The record of `GET /generation`."""
    is_byok = flag(data.get("is_byok"))
    upstream = charge(data.get("upstream_inference_cost"))
    return Generation(
        generation_id=text(data.get("id")),
        model=text(data.get("model")),
        provider=one_line(data.get("provider_name"), most=80) or None,
        usage=_usage(data),
        cost_usd=own_spend(charge(data.get("total_cost")), upstream, is_byok=is_byok),
        is_byok=is_byok,
        finish_reason=text(data.get("finish_reason")),
        cancelled=flag(data.get("cancelled")),
        raw=data,
    )


def _usage(data: Mapping[str, Any]) -> ModelUsage | None:
    """By the model's own tokeniser, which is what is charged; `tokens_*` only compare models."""
    prompt, completion = count(data.get("native_tokens_prompt")), count(data.get("native_tokens_completion"))
    if prompt is None and completion is None:
        return None
    return canonical(
        prompt=prompt or 0,
        completion=completion or 0,
        cached=count(data.get("native_tokens_cached")) or 0,
        cache_write=0,
        reasoning=count(data.get("native_tokens_reasoning")) or 0,
    )


def key_from(data: Mapping[str, Any]) -> KeyStatus:
    """The record of `GET /key`."""
    free = mapping(data.get("free_model_daily_requests"))
    return KeyStatus(
        label=one_line(data.get("label"), most=80) or None,
        limit_usd=decimal(data.get("limit")),
        remaining_usd=decimal(data.get("limit_remaining")),
        usage_usd=decimal(data.get("usage")),
        is_free_tier=flag(data.get("is_free_tier")),
        free_requests_per_day=count(free.get("limit")),
        free_requests_left=count(free.get("remaining")),
        budgets=tuple(_budget(mapping(entry)) for entry in mappings(data.get("budgets"))),
        raw=data,
    )


def _budget(entry: Mapping[str, Any]) -> Budget:
    return Budget(
        scope=text(entry.get("scope")),
        limit_usd=decimal(entry.get("limit_usd")),
        spend_usd=decimal(entry.get("spend_usd")),
        remaining_usd=decimal(entry.get("remaining_usd")),
        resets_at=moment(entry.get("resets_at")),
    )
