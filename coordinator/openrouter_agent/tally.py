"""What a run has used and what it was charged: by the model that really answered.

Owns the sums. A number that OpenRouter did not tell stays unknown, and makes the total unknown; it is
never 0.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from adw_modules.tasks.model import ModelUsage


class Tally:
    """Grows with each request that may have been charged."""

    def __init__(self) -> None:
        self._tokens: dict[str, ModelUsage] = {}
        self._costs: dict[str, Decimal] = {}  # as far as they are known
        self._unpriced: set[str] = set()  # models of which at least one cost is unknown
        self.is_partial = False  # the tokens of at least one request are unknown
        self.generation_ids: list[str] = []
        self.providers: list[str] = []

    def add(
        self,
        model: str,
        usage: ModelUsage | None,
        cost: Decimal | None,
        *,
        provider: str | None = None,
        generation_id: str | None = None,
    ) -> None:
        """Count one request. `usage` or `cost` None: not told."""
        self._tokens[model] = self._tokens.get(model, ModelUsage()) + (usage or ModelUsage())
        self._costs[model] = self._costs.get(model, Decimal(0)) + (cost or Decimal(0))
        if usage is None or cost is None:
            self._unpriced.add(model)
        self.is_partial |= usage is None
        if generation_id:
            self.generation_ids.append(generation_id)
        if provider and provider not in self.providers:
            self.providers.append(provider)

    @property
    def total(self) -> ModelUsage:
        return sum(self._tokens.values(), ModelUsage())

    @property
    def cost(self) -> Decimal | None:
        """US dollars charged; None if any part is unknown."""
        return None if self._unpriced else self.least_cost

    @property
    def least_cost(self) -> Decimal:
        """US dollars charged as far as is known."""
        return sum(self._costs.values(), Decimal(0))

    def by_model(self) -> dict[str, dict[str, Any]]:
        """The record's `modelUsage`, in Claude's spelling."""
        return {
            model: {
                "inputTokens": usage.input,
                "outputTokens": usage.output,
                "cacheReadInputTokens": usage.cache_read,
                "cacheCreationInputTokens": usage.cache_write,
                "thinkingTokens": usage.reasoning,
                "costUSD": None if model in self._unpriced else self._costs[model],
            }
            for model, usage in self._tokens.items()
        }


def anthropic_usage(usage: ModelUsage) -> dict[str, Any]:
    """Tokens as the Messages API tells them: input without what came from or went into the cache."""
    return {
        "input_tokens": usage.input,
        "cache_creation_input_tokens": usage.cache_write,
        "cache_read_input_tokens": usage.cache_read,
        "output_tokens": usage.output,
        "output_tokens_details": {"thinking_tokens": usage.reasoning},
    }
