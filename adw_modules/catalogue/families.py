"""Which family a model belongs to, and the few models to name when there is no catalogue at all."""

from __future__ import annotations

import re
from collections.abc import Sequence

from adw_modules.catalogue.model import CatalogueModel

# Tried from top to bottom: a Claude 4.5 also fits the pattern of Claude 4.
FAMILIES: tuple[tuple[str, str], ...] = (
    ("GPT-5.2", "openai/gpt-5.2*"),
    ("o3-pro", "openai/o3-pro*"),
    ("Claude 4.5", "anthropic/claude-*-4.5*"),
    ("Claude 4", "anthropic/claude-*-4*"),
    ("Gemini 3", "google/gemini-3*"),
    ("Grok 4", "x-ai/grok-4*"),
    ("Llama 4", "meta-llama/llama-4*"),
)

# Only where neither OpenRouter nor the store knows any model. Nowhere else does a model's id stand in code.
BOOTSTRAP_FALLBACK_MODELS = [
    "openai/gpt-4o",
    "anthropic/claude-sonnet-4",
    "openai/gpt-4o-mini",
]


def family_of(model_id: str) -> str | None:
    """The family of a model id, by its pattern; None for all others (and for aliases, which move)."""
    return next((family for family, pattern in _COMPILED if pattern.match(model_id)), None)


def bootstrap_models() -> Sequence[CatalogueModel]:
    """The fallback as rows of which nothing is known but the id and the family."""
    return [
        CatalogueModel(model_id=model_id, name=model_id, family=family_of(model_id))
        for model_id in BOOTSTRAP_FALLBACK_MODELS
    ]


def _compiled(pattern: str) -> re.Pattern[str]:
    """A `*` in the middle is any text; the one at the end must not go on with the number or word before it.

    `gpt-5.2*` is `gpt-5.2` and `gpt-5.2-pro`, and not `gpt-5.20`; `grok-4*` is not `grok-40` or `grok-4x`.
    """
    body = re.escape(pattern.removesuffix("*")).replace(r"\*", "[^/]*")
    return re.compile(rf"{body}(?![0-9A-Za-z])[^/]*\Z")


_COMPILED = tuple((family, _compiled(pattern)) for family, pattern in FAMILIES)
