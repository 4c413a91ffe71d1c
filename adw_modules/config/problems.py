"""From what is wrong to a sentence with file, line and key, and the nearest name that is right."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydantic_core import ErrorDetails

from adw_modules.config.schema import (
    ArmSettings,
    BudgetSettings,
    ExperimentSettings,
    GitHubAppSettings,
    ModelSettings,
    OpenRouterPreferenceSettings,
    PreferenceSettings,
    ProviderSettings,
    RepositorySettings,
    RuleSettings,
    RuleTargetSettings,
    Section,
    Settings,
    StageSettings,
    StopSettings,
    WorkflowSettings,
)
from adw_modules.config.toml_lines import KeyPath, TomlLines
from adw_modules.config.wording import dotted, ended, nearest, quoted, shown

_SINGLE_TABLES: dict[str, type[Section]] = {
    name: field.annotation
    for name, field in Settings.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in the document."""

    path: KeyPath
    text: str  # the sentence without file and line


def sentences(problems: Iterable[Problem], source: str, lines: TomlLines) -> list[str]:
    """In the order of the file, each once."""
    placed = [(lines.line(problem.path), problem.text) for problem in problems]
    placed.sort(key=lambda pair: pair[0] or 0)
    return list(dict.fromkeys(f"{source}{f', line {line}' if line else ''}: {text}" for line, text in placed))


def value_at(document: Any, path: KeyPath) -> Any:
    """What stands there in the raw document, which may have any shape; None for nothing."""
    try:
        for part in path:
            document = document[part]
    except (KeyError, IndexError, TypeError):
        return None
    return document


# --- how a key and a table are called -----------------------------------------------------------


def label_of(path: KeyPath, document: Any) -> str:
    """A key for people: `coordinator.timezone`, `routing.rules[docs-haiku].model`, `models[#2].provider`."""
    label = ""
    for depth, part in enumerate(path, start=1):
        if isinstance(part, int):
            label += f"[{_entry_name(path[:depth], document) or f'#{part + 1}'}]"
        else:
            label += f".{quoted(part)}" if label else quoted(part)
    return label


def _table_name(path: KeyPath, document: Any) -> str:
    """A table for people: `[routing]`, `[[routing.rules]] "docs-haiku"`, `[[models]] number 2`."""
    if not path or not isinstance(path[-1], int):
        return f"[{dotted(path)}]"
    name = _entry_name(path, document)
    return f"[[{dotted(path)}]] " + (f'"{name}"' if name else f"number {path[-1] + 1}")


def _entry_name(path: KeyPath, document: Any) -> str | None:
    """The name that an entry of an array gives itself, if it is fit to be shown."""
    name = value_at(document, (*path, "name"))
    return name[:60] if isinstance(name, str) and name.strip() and name.isprintable() else None


# --- what pydantic found ------------------------------------------------------------------------


def explain(detail: ErrorDetails, document: dict[str, Any]) -> Problem:
    """Turn one of pydantic's findings into a sentence about the file."""
    path: KeyPath = tuple(detail["loc"])
    kind, value, text = detail["type"], detail["input"], detail["msg"]
    if kind == "missing":
        table = path[:-1]
        return Problem(table, f'{_table_name(table, document)} has no "{path[-1]}", which it needs.')
    if kind == "extra_forbidden":
        return Problem(path, _unknown_key(path, document))
    if kind in {"model_type", "model_attributes_type", "dict_type"}:
        return Problem(path, _not_a_table(path, value, document))
    if kind == "tuple_type":
        return Problem(path, _not_a_list(path, value, document))
    if kind == "in_table":
        return Problem(path, ended(f"{_table_name(path, document)} {text}"))
    if kind == "must_be":
        return Problem(path, f"{label_of(path, document)} must be {text}, not {shown(value)}.")
    return Problem(path, ended(f"{label_of(path, document)} {text}"))


def _unknown_key(path: KeyPath, document: dict[str, Any]) -> str:
    key, table = str(path[-1]), path[:-1]
    if not table:
        return _unknown_section(key, document.get(key))
    known = list(_section_at(table).model_fields)
    text = f"{_table_name(table, document)} has no key {shown(key)}"
    if hint := nearest(key, known):
        return f'{text}; did you mean "{hint}"?'
    if home := _home_of(key):
        return f"{text}; it belongs into [{home}]."
    return f"{text}; its keys are {', '.join(known)}."


def _unknown_section(key: str, value: Any) -> str:
    known = list(Settings.model_fields)
    sections = f"the sections are {', '.join(known)}"
    if isinstance(value, (dict, list)):
        hint = nearest(key, known)
        mend = f"did you mean [{hint}]?" if hint else f"{sections}."
        return f"there is no section [{quoted(key)}]; {mend}"
    if home := _home_of(key):
        return f"the key {shown(key)} stands outside every section; it belongs into [{home}]."
    return f"there is no key {shown(key)} outside the sections; {sections}."


def _not_a_table(path: KeyPath, value: Any, document: Any) -> str:
    name = dotted(path)
    if isinstance(value, list):
        return f"{name} must be a table with one pair of brackets: write [{name}], not [[{name}]]."
    return f"{label_of(path, document)} must be a table ([{name}]), not {shown(value)}."


_ARRAYS = frozenset(
    {
        "repositories",
        "models",
        "routing.rules",
        "routing.rules.targets",
        "preferences",
        "preferences.rules",
        "preferences.rules.targets",
        "experiments",
        "experiments.arms",
        "openrouter.preferences",
    }
)


def _not_a_list(path: KeyPath, value: Any, document: Any) -> str:
    name = dotted(path)
    if name in _ARRAYS:
        return f"{name} must be written with two pairs of brackets: [[{name}]]."
    return f"{label_of(path, document)} must be a list in brackets, not {shown(value)}."


def _section_at(table: KeyPath) -> type[Section]:
    match table:
        case ("repositories", *_):
            return RepositorySettings
        case ("github", "app", *_):
            return GitHubAppSettings
        case ("providers", *_):
            return ProviderSettings
        case ("models", *_):
            return ModelSettings
        case ("budgets", *_):
            return BudgetSettings
        case ("routing", "rules", int(), "targets", *_) | (
            "preferences",
            int(),
            "rules",
            int(),
            "targets",
            *_,
        ):
            return RuleTargetSettings
        case ("routing", "rules", *_) | ("preferences", int(), "rules", *_):
            return RuleSettings
        case ("openrouter", "preferences", *_):
            return OpenRouterPreferenceSettings
        case ("preferences", *_):
            return PreferenceSettings
        case ("experiments", int(), "arms", *_):
            return ArmSettings
        case ("experiments", int(), "stop", *_):
            return StopSettings
        case ("experiments", *_):
            return ExperimentSettings
        case ("workflows", _):
            return WorkflowSettings
        case ("workflows", *_):
            return StageSettings
    return _SINGLE_TABLES[str(table[0])]


def _home_of(key: str) -> str | None:
    """The section that has this key, if one does."""
    return next((name for name, section in _SINGLE_TABLES.items() if key in section.model_fields), None)
