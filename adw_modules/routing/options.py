"""What a selection may say: `{ select = "cheapest", require = ["tools"], … }`, checked and read.

Owns the keys of selections with their defaults. Must not know models, prices or runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import Any

from adw_modules.catalogue.choosing import capability_called, family_called
from adw_modules.errors import CoordinatorError
from adw_modules.routing.attributes import is_integer, is_number, show, suggestion
from adw_modules.routing.trace import Target

CHEAPEST, ADAPTIVE = "cheapest", "adaptive"
_MOST_CANDIDATES = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The keys of one selection. Money is in US dollars, contexts in tokens.

    No candidates named: all models of `[[models]]` and of the synced catalogue are.
    """

    candidates: tuple[Target, ...] = ()
    provider: str | None = None
    family: str | None = None
    require: tuple[str, ...] = ()
    min_context: int | None = None
    max_cost_per_task: Decimal | None = None
    # of `adaptive` alone
    explore: float = 0.1
    min_samples: int = 5
    half_life_days: float = 30.0
    success_is_worth: float = 5.0
    hour_costs: float = 1.0


def options_of(written: Mapping[str, Any]) -> Options:
    """The options as they are used; they were checked when the configuration was read."""
    values = dict(written)
    if "candidates" in values:
        values["candidates"] = tuple(_target(each) for each in values["candidates"])
    if "require" in values:
        values["require"] = tuple(map(capability_called, values["require"]))
    if "family" in values:
        values["family"] = family_called(values["family"])
    if "max_cost_per_task" in values:
        values["max_cost_per_task"] = Decimal(str(values["max_cost_per_task"]))
    return Options(**values)


def problem_of_cheapest(written: Mapping[str, Any]) -> str | None:
    """What is wrong with the options of `cheapest`, as the rest of a sentence."""
    return _problem(written, _FILTERS)


def problem_of_adaptive(written: Mapping[str, Any]) -> str | None:
    """What is wrong with the options of `adaptive`, as the rest of a sentence."""
    return _problem(written, {**_FILTERS, **_LEARNING})


def _problem(written: Mapping[str, Any], checks: Mapping[str, Callable[[Any], str | None]]) -> str | None:
    for key, value in written.items():
        if key not in checks:
            return f'there is no key "{key}"; {suggestion(key, checks)}'
        wrong = checks[key](value)
        if wrong:
            return f"{key} {wrong}"
    return None


def _target(text: str) -> Target:
    provider, _, model = text.partition("/")
    return Target(provider.strip(), model.strip())


# --- the checks of single keys ------------------------------------------------------------------


def _wrong_candidates(value: object) -> str | None:
    if not isinstance(value, list | tuple) or not value:
        return f'is a list of targets such as ["openrouter/z-ai/glm-4.6"], not {show(value)}'
    if len(value) > _MOST_CANDIDATES:
        return f"has more than {_MOST_CANDIDATES} targets"
    seen = set()
    for each in value:
        target = _target(each) if isinstance(each, str) else None
        if target is None or not (target.provider and target.model):
            return f'has {show(each)}, which is no text "provider/model"'
        if target in seen:
            return f"has {target} twice"
        seen.add(target)
    return None


def _wrong_text(value: object) -> str | None:
    return None if isinstance(value, str) and value.strip() else f"is a text, not {show(value)}"


def _wrong_capabilities(value: object) -> str | None:
    if not isinstance(value, list | tuple):
        return f'is a list of capabilities such as ["tools"], not {show(value)}'
    for each in value:
        if not isinstance(each, str):
            return f"is a list of texts, and {show(each)} is none"
        wrong = _refused(capability_called, each)
        if wrong:
            return wrong
    return None


def _wrong_family(value: object) -> str | None:
    return _wrong_text(value) or _refused(family_called, str(value))


def _refused(called: Callable[[str], str], word: str) -> str | None:
    try:
        called(word)
    except CoordinatorError as error:
        return f"cannot be used: {error}"
    return None


def _whole(least: int) -> Callable[[object], str | None]:
    def check(value: object) -> str | None:
        is_right = is_integer(value) and least <= value <= 1_000_000_000
        return None if is_right else f"is a whole number of {least} or more, not {show(value)}"

    return check


def _amount(least: float, most: float, *, above: bool = False) -> Callable[[object], str | None]:
    span = f"above {least:g} and at most {most:g}" if above else f"from {least:g} to {most:g}"

    def check(value: object) -> str | None:
        is_right = is_number(value) and least <= value <= most and not (above and value == least)
        return None if is_right else f"is a number {span}, not {show(value)}"

    return check


_FILTERS: Mapping[str, Callable[[Any], str | None]] = MappingProxyType(
    {
        "candidates": _wrong_candidates,
        "provider": _wrong_text,
        "family": _wrong_family,
        "require": _wrong_capabilities,
        "min_context": _whole(1),
        "max_cost_per_task": _amount(0, 1_000_000, above=True),
    }
)
_LEARNING: Mapping[str, Callable[[Any], str | None]] = MappingProxyType(
    {
        "explore": _amount(0, 1),
        "min_samples": _whole(1),
        "half_life_days": _amount(0, 3650, above=True),
        "success_is_worth": _amount(0, 1_000_000),
        "hour_costs": _amount(0, 1_000_000),
    }
)
