"""The synced catalogue as a list of prices: exact ids, and the prices listed at the moment asked for.

Must not look for a similar name: the same model costs something else under another id (`:batch`, `:free`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from adw_modules.catalogue.model import Pricing
from adw_modules.catalogue.tariff import rates_at
from adw_modules.money.quotes import PriceSource, Quote

_LONGEST_CHAIN = 3  # an alias of an alias has not been seen; a circle must end


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceRecord:
    """The prices of one id as the syncs from `valid_from` to `valid_to` saw them.

    They hold until `ended_at`, the first sync that saw others or did not see the model; None: they still do.
    """

    model_id: str
    valid_from: datetime
    valid_to: datetime
    ended_at: datetime | None
    sync_id: int  # the sync that first saw them
    pricing: Pricing
    alias_target: str | None = None

    def covers(self, at: datetime) -> bool:
        return self.valid_from <= at and (self.ended_at is None or at < self.ended_at)


class CataloguePrices:
    """A `PriceBook` over the stored history; `history(model_id)` gives the records of exactly that id."""

    def __init__(self, history: Callable[[str], Sequence[PriceRecord]]) -> None:
        self._history = history

    def quote(self, model: str, *, at: datetime, prompt_tokens: int | None = None) -> Quote | None:
        """None for an id that was not listed at that moment. An alias costs what it stood for then."""
        record = self._record(model, at)
        for _ in range(_LONGEST_CHAIN):
            if record is None or record.alias_target is None:
                break
            record = self._record(record.alias_target, at)
        if record is None or record.alias_target is not None or record.model_id.startswith("~"):
            return None
        return Quote(
            rates=rates_at(record.pricing, at, prompt_tokens),
            source=PriceSource.CATALOGUE,
            version=f"openrouter sync {record.sync_id} ({record.valid_from:%Y-%m-%dT%H:%M:%SZ})",
        )

    def _record(self, model: str, at: datetime) -> PriceRecord | None:
        covering = [each for each in self._history(model) if each.covers(at)]
        return max(covering, key=lambda each: each.valid_from, default=None)
