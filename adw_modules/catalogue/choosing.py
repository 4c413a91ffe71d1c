"""Which models of a catalogue fit what somebody asks for, and in which order they are shown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from adw_modules.catalogue.exclusion import exclusion
from adw_modules.catalogue.families import FAMILIES
from adw_modules.catalogue.model import CAPABILITY_NAMES, CatalogueModel
from adw_modules.errors import CoordinatorError

_ALSO_CALLED = {
    "image": "multimodal_image",
    "vision": "multimodal_image",
    "file": "file_pdf",
    "pdf": "file_pdf",
    "structured": "structured_outputs",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a model has to offer. Prices are US dollars for a million tokens, input and output each."""

    capabilities: tuple[str, ...] = ()
    max_price: Decimal | None = None
    family: str | None = None
    min_context: int | None = None
    author: str | None = None  # the part of the id before the slash
    excluded_too: bool = False


def choose(models: Iterable[CatalogueModel], wanted: Wanted, today: date) -> list[CatalogueModel]:
    """The models that fit, by id. Raises CoordinatorError for a capability or family that does not exist."""
    needed = {f"supports_{capability_called(name)}" for name in wanted.capabilities}
    family = None if wanted.family is None else family_called(wanted.family)
    return sorted(
        (
            model
            for model in models
            if (wanted.excluded_too or exclusion(model, today) is None)
            and all(getattr(model.capabilities, name) for name in needed)
            and family in {None, model.family}
            and (wanted.author is None or author_of(model) == wanted.author.casefold())
            and (wanted.min_context is None or (model.context_limit or 0) >= wanted.min_context)
            and (wanted.max_price is None or _is_within(model, wanted.max_price))
        ),
        key=lambda model: model.model_id,
    )


def capability_called(name: str) -> str:
    """The capability a word means, without `supports_`."""
    word = name.strip().casefold().removeprefix("supports_").replace("-", "_")
    word = _ALSO_CALLED.get(word, word)
    if word not in CAPABILITY_NAMES:
        raise CoordinatorError(f"There is no capability {name!r}: use one of {', '.join(CAPABILITY_NAMES)}.")
    return word


def family_called(name: str) -> str:
    """The family a word means: `claude-4.5` is Claude 4.5."""
    spelled = {_bare(family): family for family, _ in FAMILIES}
    if _bare(name) not in spelled:
        raise CoordinatorError(f"There is no family {name!r}: use one of {', '.join(spelled.values())}.")
    return spelled[_bare(name)]


def author_of(model: CatalogueModel) -> str:
    return model.model_id.removeprefix("~").partition("/")[0].casefold()


def _bare(name: str) -> str:
    return name.strip().casefold().replace(" ", "-")


def _is_within(model: CatalogueModel, most: Decimal) -> bool:
    """A model of unknown price is within no limit; of several prices the highest counts."""
    pricing = model.pricing
    for key in ("prompt", "completion"):
        asked = [
            pricing.prices.get(key),
            *(each.prices[key] for each in pricing.overrides if key in each.prices),
        ]
        if any(price is None or price.scaleb(6) > most for price in asked):
            return False
    return True
