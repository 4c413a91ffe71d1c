"""Which models are not candidates for work, and the reason in words. They stay in the catalogue."""

from __future__ import annotations

from datetime import date

from adw_modules.catalogue.model import CatalogueModel

# "Never" as the catalogue spells it; parsing knows no later day.
NEVER = date(2098, 12, 31)


def exclusion(model: CatalogueModel, today: date) -> str | None:
    """Why a model is not chosen on that day (UTC); None for one that may be."""
    if model.model_id.startswith("~"):
        return f"alias of {model.alias_target}" if model.alias_target else "alias of an unknown model"
    if model.model_id.startswith("openrouter/") or model.tokenizer == "Router":
        return "a router: which model answers, and at what price, is not known beforehand"
    if model.pricing.is_negative:
        return "its price is negative: not known beforehand"
    if "batch" in model.model_id.split(":")[1:]:
        return "batch: answers hours later"
    if model.expires_on is not None and model.expires_on < today:
        return f"expired on {model.expires_on.isoformat()}"
    return None
