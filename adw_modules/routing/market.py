"""Which models could be had, what they can do, and what a task is expected to cost on each of them.

Owns the join of `[[models]]` with the synced catalogue. Must not choose, and must not guess a price: what
nobody prices has none. The catalogue speaks for providers that buy from OpenRouter, and lists models for
those whose program is `openrouter-cli`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from decimal import Decimal

from adw_modules.catalogue import CatalogueModel, CataloguePrices, PriceRecord, exclusion, family_of
from adw_modules.catalogue.choosing import capability_called
from adw_modules.config import ModelSettings, ProviderSettings, Settings
from adw_modules.errors import CoordinatorError
from adw_modules.money.pricing import price
from adw_modules.money.quotes import PriceSource
from adw_modules.money.sellers import OPENROUTER, seller_of, terms_of
from adw_modules.routing.memory import Experience
from adw_modules.routing.options import Options
from adw_modules.routing.trace import Target
from adw_modules.tasks.model import ModelUsage, Usage, UsageSource

LISTING_AGENT = "openrouter-cli"  # the program that can be given any model of the catalogue
TOO_SMALL = "its context is too small"
_MOST_USES = 256  # that costs are kept for
_MOST_STANDING = 32  # selections whose models are kept
_ALWAYS = datetime(1, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Knowledge:
    """What selections know beyond the configuration. A new value stands for new knowledge."""

    runs: Sequence[Experience] = ()
    catalogue: Mapping[str, CatalogueModel] = field(default_factory=dict)
    sync_id: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _About:
    """What is known of one model at one provider."""

    configured: ModelSettings | None
    row: CatalogueModel | None
    is_of_catalogue: bool  # its provider buys from OpenRouter

    @property
    def context(self) -> int | None:
        """Tokens; what the configuration says goes before the catalogue."""
        if self.configured is not None and self.configured.context_window is not None:
            return self.configured.context_window
        return None if self.row is None else self.row.context_limit

    @property
    def capabilities(self) -> frozenset[str]:
        said = self.configured.capabilities if self.configured else ()
        listed = self.row.capabilities.names if self.row else ()
        return frozenset((*map(_capability, said), *listed))


def listing_providers(settings: Settings) -> frozenset[str]:
    """Those whose program can be given any model of the catalogue."""
    return frozenset(
        name
        for name, each in settings.providers.items()
        if each.agent == LISTING_AGENT and seller_of(each) == OPENROUTER
    )


class Market:
    """The models that one configuration and one catalogue offer."""

    def __init__(self, settings: Settings, catalogue: Mapping[str, CatalogueModel], sync_id: int = 0) -> None:
        self._settings = settings
        self._catalogue = catalogue
        self._book = CataloguePrices(self._records)
        self._sync_id = sync_id
        self._configured = {(each.provider, each.name): each for each in settings.models}
        self._of_catalogue = frozenset(
            name for name, each in settings.providers.items() if seller_of(each) == OPENROUTER
        )
        self._standing: dict[tuple[Options, date], dict[Target, tuple[str | None, int | None]]] = {}
        # By what a run takes: mostly that is the same for all who have no runs of their own.
        self._costs: defaultdict[tuple[ModelUsage, int], dict[Target, Decimal | None]] = defaultdict(dict)
        self._passing: set[Target] = set()  # those whose price another minute may change
        self._minute: datetime | None = None  # the one that their costs are of

    def offered(self) -> tuple[Target, ...]:
        """All that can be had from providers that are switched on, without looking at it."""
        models = (Target(each.provider, each.name) for each in self._settings.models)
        on = {name: each for name, each in self._settings.providers.items() if each.enabled}
        return tuple(dict.fromkeys([*(each for each in models if each.provider in on), *self._listed(on)]))

    def _listed(self, on: Mapping[str, ProviderSettings]) -> Iterator[Target]:
        listing = listing_providers(self._settings)
        for name in on:
            if name in listing:
                yield from (Target(name, model_id) for model_id in sorted(self._catalogue))

    def context_of(self, target: Target) -> int | None:
        """Tokens; None where neither the configuration nor the catalogue says."""
        return self._about(target).context

    def lists(self, target: Target, capability: str) -> bool:
        """Whether a model is said to have it, by any of its names."""
        return _capability(capability) in self._about(target).capabilities

    def standing(self, options: Options, today: date) -> Mapping[Target, tuple[str | None, int | None]]:
        """Of each model that is looked at: why it does not do, whatever it costs, and its context in tokens.

        What depends on the task, a context that is too small for it, is left to the caller.
        """
        key = (options, today)
        if key not in self._standing:
            if len(self._standing) >= _MOST_STANDING:
                self._standing.clear()
            targets = options.candidates or self.offered()
            self._standing[key] = {each: self._stands(each, options, today) for each in targets}
        return self._standing[key]

    def _stands(self, target: Target, options: Options, today: date) -> tuple[str | None, int | None]:
        about = self._about(target)
        unfit = (
            self._unknown(target, about, today)
            or _other(target, options)
            or _incapable(about, options.require)
            or _too_small(about, options.min_context)
        )
        return unfit, about.context

    def cost(self, target: Target, used: ModelUsage, longest_prompt: int, at: datetime) -> Decimal | None:
        """What so many tokens cost there at that minute; 0 at a flat rate, None when nobody knows."""
        minute = at.replace(second=0, microsecond=0)
        if minute != self._minute:
            self._minute = minute
            self._forget_passing()
        costs = self._costs[used, longest_prompt]
        if target not in costs:
            costs[target] = self._priced(target, used, longest_prompt, minute)
        return costs[target]

    def _forget_passing(self) -> None:
        """Most prices hold as long as the catalogue does: nothing is worked out again for those."""
        if len(self._costs) > _MOST_USES:
            self._costs.clear()
        for costs in self._costs.values():
            for target in self._passing:
                costs.pop(target, None)

    def _lasts(self, target: Target, source: PriceSource | None) -> bool:
        """Whether what `source` says of the target is the same at every minute."""
        if source is not PriceSource.CATALOGUE:
            return source is PriceSource.CONFIG
        row = self._catalogue.get(target.model)
        if row is None or row.alias_target is not None:
            return False
        return not any(each.is_timed for each in row.pricing.overrides)

    def _priced(self, target: Target, used: ModelUsage, longest: int, at: datetime) -> Decimal | None:
        terms = terms_of(
            target.provider,
            self._settings.providers,
            model=target.model,
            config_version="",
            catalogue=self._book,
        )
        if terms.is_subscription:
            return Decimal(0)
        for tokens in (used, _uncached(used)):  # no price for the cache: it is an ordinary prompt there
            usage = Usage(
                source=UsageSource.ESTIMATED,
                by_model={target.model: tokens},
                longest_prompt={target.model: longest},
            )
            cost = price(usage, self._settings.models, at=at, terms=terms)
            if cost.usd is None or tokens != used or not self._lasts(target, cost.source):
                self._passing.add(target)
            if cost.usd is not None:
                return cost.usd
        return None

    def _records(self, model_id: str) -> Sequence[PriceRecord]:
        row = self._catalogue.get(model_id)
        if row is None:
            return ()
        record = PriceRecord(
            model_id=model_id,
            valid_from=_ALWAYS,
            valid_to=_ALWAYS,
            ended_at=None,
            sync_id=self._sync_id,
            pricing=row.pricing,
            alias_target=row.alias_target,
        )
        return (record,)

    def _about(self, target: Target) -> _About:
        is_of_catalogue = target.provider in self._of_catalogue
        return _About(
            configured=self._configured.get((target.provider, target.model)),
            row=self._catalogue.get(target.model) if is_of_catalogue else None,
            is_of_catalogue=is_of_catalogue,
        )

    def _unknown(self, target: Target, about: _About, today: date) -> str | None:
        if target.model.endswith(":batch"):
            return "batch: answers hours later"
        if not about.is_of_catalogue:
            return None
        if about.row is None and self._catalogue and about.configured is None:
            return "the catalogue does not list it"
        return exclusion(about.row or CatalogueModel(model_id=target.model), today)


def _other(target: Target, options: Options) -> str | None:
    if options.provider is not None and target.provider != options.provider:
        return "another provider"
    if options.family is not None and family_of(target.model) != options.family:
        return "another family"
    return None


def _incapable(about: _About, required: Sequence[str]) -> str | None:
    missing = [each for each in required if each not in about.capabilities]
    return f"not known to have {', '.join(missing)}" if missing else None


def _too_small(about: _About, least: int | None) -> str | None:
    context = about.context
    if least is None:
        return None
    if context is None:
        return "its context is not known"
    return TOO_SMALL if context < least else None


def _capability(word: str) -> str:
    """The name that the catalogue has for it, where it has one."""
    try:
        return capability_called(word)
    except CoordinatorError:
        return word


def _uncached(used: ModelUsage) -> ModelUsage:
    return replace(used, input=used.prompt, cache_read=0, cache_write_5m=0, cache_write_1h=0)
