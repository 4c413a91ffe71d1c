"""OpenRouter's catalogue of models: what a row says, what changes between two syncs, what a model costs when.

Owns the meaning of the catalogue. Must not fetch it (`adw_modules/openrouter/directory.py`) or keep it (the
store). Start at `parsing.py`, the way of an answer into our types.
"""

from adw_modules.catalogue.book import CataloguePrices, PriceRecord
from adw_modules.catalogue.changes import Change, ChangeKind, compare
from adw_modules.catalogue.choosing import Wanted, choose
from adw_modules.catalogue.exclusion import exclusion
from adw_modules.catalogue.families import BOOTSTRAP_FALLBACK_MODELS, FAMILIES, bootstrap_models, family_of
from adw_modules.catalogue.model import (
    Benchmarks,
    Capabilities,
    CatalogueModel,
    Override,
    Pricing,
)
from adw_modules.catalogue.parsing import Listing, parse_listing
from adw_modules.catalogue.tariff import applying, masked_by_now, rates_at, restored, terms

__all__ = [
    "BOOTSTRAP_FALLBACK_MODELS",
    "FAMILIES",
    "Benchmarks",
    "Capabilities",
    "CatalogueModel",
    "CataloguePrices",
    "Change",
    "ChangeKind",
    "Listing",
    "Override",
    "PriceRecord",
    "Pricing",
    "Wanted",
    "applying",
    "bootstrap_models",
    "choose",
    "compare",
    "exclusion",
    "family_of",
    "masked_by_now",
    "parse_listing",
    "rates_at",
    "restored",
    "terms",
]
