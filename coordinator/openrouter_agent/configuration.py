"""What config.toml says about OpenRouter, for a program that has no time for the whole schema.

Owns where the file is looked for and what of it is used here: preferences among providers, attribution,
the context of a model. A file that cannot be used costs one sentence and never the run: the daemon and
`coordinator check` are strict, this program is not.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from adw_modules.openrouter.preferences import (
    DEFAULT_PREFERENCES,
    PreferenceEntry,
    ProviderPreferences,
    entries_from,
    preferences_for,
)
from adw_modules.openrouter.wire import Attribution

CHECKOUT = Path(__file__).resolve().parents[2]
LARGEST_FILE = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """What this program takes from the file; without one, what is built in."""

    preferences: tuple[PreferenceEntry, ...] = DEFAULT_PREFERENCES
    attribution: Attribution = field(default_factory=Attribution)
    contexts: Mapping[str, int]  # tokens by model
    problems: tuple[str, ...] = ()  # one sentence each

    def preferences_for(self, model: str, *, with_tools: bool) -> ProviderPreferences | None:
        """For requests with tools only providers that take tools, unless the file says otherwise."""
        found = preferences_for(model, self.preferences)
        if not with_tools:
            return found
        found = found or ProviderPreferences()
        return found if found.require_parameters is not None else replace(found, require_parameters=True)


def configured(given: Path | None, environ: Mapping[str, str]) -> Configuration:
    """Read `given`, else the file that COORDINATOR_CONFIG names, else adws/config.toml of the checkout."""
    named = given or (Path(environ["COORDINATOR_CONFIG"]) if environ.get("COORDINATOR_CONFIG") else None)
    path = named or CHECKOUT / "adws" / "config.toml"
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST_FILE).decode("utf-8")
        document = tomllib.loads(text, parse_float=Decimal)
    except FileNotFoundError:
        return Configuration(contexts={}, problems=(f"{path}: no such file.",) if named else ())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return Configuration(contexts={}, problems=(f"{path} cannot be used: {reason}.",))
    return _read(document, path)


def _read(document: Mapping[str, Any], path: Path) -> Configuration:
    problems: list[str] = []
    try:
        entries = entries_from(document)
    except ValueError as error:
        problems.append(f"{path}: [[openrouter.preferences]]: {error}")
        entries = DEFAULT_PREFERENCES
    section = document.get("openrouter")
    return Configuration(
        preferences=entries,
        attribution=_attribution(section if isinstance(section, dict) else {}),
        contexts=_contexts(document.get("models")),
        problems=tuple(problems),
    )


def _attribution(section: Mapping[str, Any]) -> Attribution:
    named = {key: section[key] for key in ("app_name", "app_url") if isinstance(section.get(key), str)}
    given = section.get("categories")
    if isinstance(given, list) and all(isinstance(word, str) for word in given):
        named["categories"] = tuple(given)
    return replace(Attribution(), **named)


def _contexts(models: Any) -> dict[str, int]:
    tables = [each for each in models if isinstance(each, dict)] if isinstance(models, list) else []
    return {
        each["name"]: each["context_window"]
        for each in tables
        if isinstance(each.get("name"), str) and type(each.get("context_window")) is int
    }
