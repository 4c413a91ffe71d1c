"""From targets as they are written to whole chains: halves completed, defaults appended, models described.

Must not know about tasks, nor whether a target can be used now.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from adw_modules.config import LlmSettings
from adw_modules.errors import ConfigError
from adw_modules.routing.clauses import ConditionError
from adw_modules.routing.eligibility import Refusal
from adw_modules.routing.rules import Rule, compile_rules
from adw_modules.routing.targets import FixedTarget, repeated, target_spec
from adw_modules.routing.trace import Target


class Listing(Protocol):
    """What a catalogue says about models, beside the configuration."""

    def context_of(self, target: Target) -> int | None:
        """Tokens; None where it does not say."""
        ...

    def lists(self, target: Target, capability: str) -> bool:
        """Whether it says that the model has it."""
        ...


class Chains:
    """What the rules and defaults of one configuration lead to. Raises ConfigError for bad fallbacks.

    `listing` is asked about models of which `[[models]]` does not say enough.
    """

    def __init__(self, tables: Mapping[str, Any], listing: Listing | None = None) -> None:
        self._listing = listing
        routing, llm = tables.get("routing") or {}, tables.get("llm") or {}
        models = list(tables.get("models") or ())
        self._offered_by = _providers_by_model(models)
        self._described = {(each.get("provider"), each["name"]): each for each in models}
        self.default = self._default_target(routing, llm)
        self.defaults = (self.default, *self._fallbacks(routing.get("fallbacks") or ()))

    def completed(self, spec: FixedTarget) -> Target:
        """Without a provider: the one that offers its model, else the default."""
        provider = spec.provider or self._offered_by.get(spec.model or "") or self.default.provider
        return Target(provider, spec.model or self.default.model)

    def of(self, rule: Rule) -> tuple[Target, ...]:
        """All targets that are written in a rule, in their order; none of what is selected for each task."""
        specs = (*rule.targets, *rule.fallbacks)
        return tuple(self.completed(spec) for spec in specs if isinstance(spec, FixedTarget))

    def asked_for(self, provider: str | None, model: str | None, chain: Sequence[Target]) -> Target:
        """The target of which somebody named one half or both, in any letters; the rest as in `chain`."""
        known = [*chain, *self.defaults, *(Target(owner or "", name) for owner, name in self._described)]
        providers = {each.casefold(): each for target in known if (each := target.provider)}
        models = {target.model.casefold(): target.model for target in known}
        named = providers.get(provider.casefold(), provider) if provider else None
        if model:
            exact = models.get(model.casefold(), model)
            served = next((target.provider for target in known if target.model == exact), None)
            return Target(named or served or self.default.provider, exact)
        fitting = next((target.model for target in known if target.provider == named), None)
        return Target(named or self.default.provider, fitting or self.default.model)

    # -- what is known of models ----------------------------------------------------------------------

    def context_window(self, target: Target) -> int | None:
        """How many tokens its model takes; None when neither `[[models]]` nor the catalogue says."""
        window: int | None = self._about(target).get("context_window")
        return self._listing.context_of(target) if window is None and self._listing else window

    def too_small(self, target: Target, needed: float) -> Refusal | None:
        """Refuses a model whose context is known not to hold so many tokens."""
        window = self.context_window(target)
        if window is None or needed <= window:
            return None
        return Refusal(f"its context of {window:,} tokens is too small for {needed:,.0f}")

    def lacks(self, target: Target, requires: Sequence[str]) -> Refusal | None:
        """Refuses a model that is not said to be able to do all of it."""
        has = {each.casefold() for each in self._about(target).get("capabilities") or ()}
        missing = [each for each in requires if each.casefold() not in has]
        if (listing := self._listing) is not None:
            missing = [each for each in missing if not listing.lists(target, each)]
        if not missing:
            return None
        who = "neither [[models]] nor the catalogue says" if self._listing else "[[models]] does not say"
        return Refusal(f"{who} that it has {', '.join(missing)}")

    def _about(self, target: Target) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._described.get((target.provider, target.model), {})
        return found

    # -- the defaults ---------------------------------------------------------------------------------

    def _default_target(self, routing: Mapping[str, Any], llm: Mapping[str, Any]) -> Target:
        own_model = routing.get("default_model")
        offered = self._offered_by.get(own_model) if own_model else None
        provider = routing.get("default_provider") or offered or llm.get("provider")
        model = own_model or llm.get("model_default")
        return Target(provider or LlmSettings().provider, model or LlmSettings().model_default)

    def _fallbacks(self, written: Iterable[object]) -> Iterator[Target]:
        for each in written:
            try:
                spec = target_spec(each)
            except ConditionError as error:
                raise ConfigError(f"routing.fallbacks: {error}") from error
            if not isinstance(spec, FixedTarget):
                raise ConfigError("routing.fallbacks: a fallback of the defaults is a fixed target")
            yield self.completed(spec)


def loops(tables: Mapping[str, Any]) -> Iterator[tuple[int | None, Target]]:
    """What a valid configuration would ask twice: the rule by its place in the file (None: the defaults)."""
    chains = Chains(tables)
    for index, table in enumerate((tables.get("routing") or {}).get("rules") or ()):
        (rule,) = compile_rules([table])
        if (target := repeated(chains.of(rule))) is not None:
            yield index, target
    if (target := repeated(chains.defaults)) is not None:
        yield None, target


def _providers_by_model(models: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The first provider that offers each model, in the order of the file."""
    offered: dict[str, str] = {}
    for model in models:
        if model.get("provider"):
            offered.setdefault(model["name"], model["provider"])
    return offered
