"""The documents about the configuration say what the schema says: every key, its type, default and effect."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from adw_modules.config import RESTART_KEYS, Settings, check_runnable, parse_settings
from adw_modules.config.wording import toml
from adw_modules.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs" / "configuration.md").read_text()
EXAMPLE = (ROOT / "adws" / "config.example.toml").read_text()
SHIPPED = (ROOT / "adws" / "config.toml").read_text()
WORDS = {str: "text", bool: "true or false", int: "whole number", float: "number", "Decimal": "number"}


def models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in models_in(inner)]


def tables(model: type[BaseModel] = Settings, prefix: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """Every table of the file, by its heading in the document."""
    for name, field in model.model_fields.items():
        for inner in models_in(field.annotation):
            origin = get_origin(field.annotation)
            if prefix.startswith("[workflows"):
                heading = f"{prefix} {name}"
            else:
                path = f"{prefix}{name}" + (".NAME" if origin is dict else "")
                heading = f"[[{path}]]" if origin is tuple else f"[{path}]"
            yield heading, inner
            yield from tables(inner, heading if heading.startswith("[workflows") else f"{prefix}{name}.")


TABLES: dict[str, type[BaseModel]] = {}
for _heading, _model in tables():
    if _model not in TABLES.values():  # rules of preferences are like those of [routing]
        TABLES[_heading] = _model


def is_table(field: FieldInfo) -> bool:
    return bool(models_in(field.annotation))


def type_in_words(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in {Union, UnionType}:
        return type_in_words(next(one for one in inner if one is not NoneType))
    if origin is Literal:
        return "text"
    if origin is tuple:
        of = (get_args(inner[0]) or inner)[0]
        kind = {float: "numbers", int: "whole numbers"}.get(of, "texts")
        return "list of tables" if models_in(annotation) else f"list of {kind}"
    if origin is dict:
        return "table" if inner[1] is Any else "table of texts"
    return (
        WORDS.get(annotation) or WORDS[getattr(annotation, "__name__", "")]
        if origin is None
        else type_in_words(inner[0])
    )


def default_in_words(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "unset"
    spelled = {dict: "{}", tuple: "[]"}.get(type(value)) if not value else None
    return f"`{spelled or toml(value)}`"


def reload_key(heading: str, key: str) -> str:
    return f"{heading.strip('[]').removesuffix('.NAME')}.{key}"


def documented() -> dict[tuple[str, str], tuple[str, ...]]:
    """(heading, key) -> the other cells of its row."""
    rows, heading = {}, ""
    for line in DOCUMENT.splitlines():
        if found := re.fullmatch(r"## `(\[.*)`", line):
            heading = found[1]
        elif found := re.fullmatch(r"\| `(\w+)` \| (.+) \| (.+) \| (live|restart) \| (.+) \|", line):
            rows[heading, found[1]] = found.groups()[1:]
    return rows


def in_the_schema() -> dict[tuple[str, str], tuple[str, ...]]:
    return {
        (heading, key): (
            type_in_words(field.annotation),
            default_in_words(field),
            "restart" if reload_key(heading, key) in RESTART_KEYS else "live",
        )
        for heading, model in TABLES.items()
        for key, field in model.model_fields.items()
        if not is_table(field) or heading == "[workflows.NAME]"
    }


def test_every_key_and_no_other_is_in_the_document():
    assert set(documented()) == set(in_the_schema())


@pytest.mark.parametrize(
    ("place", "expected"), in_the_schema().items(), ids=[".".join(place) for place in in_the_schema()]
)
def test_type_default_and_effect_of_a_key_are_documented_as_they_are(place, expected):
    assert documented()[place][:3] == expected


def test_every_key_that_needs_a_restart_exists():
    assert {reload_key(*place) for place in in_the_schema()} >= RESTART_KEYS


def uncommented() -> str:
    return re.sub(r"(?m)^#(?=\S)", "", EXAMPLE)


def usable() -> str:
    """Without what is an alternative to another key of the example."""
    return re.sub(r"(?m)^(token_env|client_id|private_key_env) = .*\n", "", uncommented())


def keys_of(document: Any, prefix: str = "") -> set[str]:
    """Every key with its tables' names, without the names and numbers of entries."""
    if isinstance(document, list):
        return {key for entry in document for key in keys_of(entry, prefix)}
    if not isinstance(document, dict):
        return set()
    return {f"{prefix}{key}" for key in document} | {
        inner for key, value in document.items() for inner in keys_of(value, f"{prefix}{key}.")
    }


def test_the_example_with_every_key_taken_out_of_its_comment_is_a_valid_configuration():
    read = parse_settings(usable(), source="adws/config.example.toml")
    assert check_runnable(read) == []


def test_the_example_has_every_key():
    present = {
        re.sub(r"^(providers|workflows)\.[^.]+", r"\1.NAME", key)
        for key in keys_of(tomllib.loads(uncommented()))
    }
    expected = {f"{heading.strip('[]').replace('] ', '.')}.{key}" for heading, key in in_the_schema()}
    assert expected <= present


def test_the_example_as_it_is_changes_no_default():
    assert parse_settings(EXAMPLE, source="x") == parse_settings("", source="x")


def test_a_default_in_the_example_is_the_default():
    shown, defaults = parse_settings(usable(), source="x"), Settings()
    sections = ("coordinator", "worker_limits", "sandbox", "retries", "github", "webhook", "llm", "worktree")
    for section in sections:
        for key, field in type(getattr(defaults, section)).model_fields.items():
            if field.default is not None and not is_table(field):
                assert getattr(getattr(shown, section), key) == field.default, f"{section}.{key}"


def test_the_shipped_file_runs_once_the_repository_is_written_into_it():
    read = parse_settings(SHIPPED, source="adws/config.toml")
    assert len(check_runnable(read)) == 1
    assert read.warnings() == []
    filled = SHIPPED.replace('repo_owner = ""', 'repo_owner = "o"').replace(
        'repo_name = ""', 'repo_name = "r"'
    )
    assert check_runnable(parse_settings(filled, source="adws/config.toml")) == []


def test_the_sentences_shown_in_the_document_are_the_real_ones():
    shown = re.search(r"```text\n(adws/config.toml, line .*?)```", DOCUMENT, re.DOTALL)
    assert shown is not None
    first, second = shown[1].splitlines()
    text = (
        "\n" * 10
        + "[routing]\nenabeld = true\n"
        + "\n" * 17
        + '[coordinator]\npoll_interval_seconds = "fast"\n'
    )
    with pytest.raises(ConfigError) as caught:
        parse_settings(text, source="adws/config.toml")
    assert caught.value.problems == [first, second]


def test_every_key_of_conditions_that_is_documented_is_accepted():
    rows = re.findall(
        r"^\| (`[a-z_`, ]+`) \| .*? \| (`.*`) \|$", DOCUMENT.split("| In `conditions` |")[1], re.MULTILINE
    )
    assert len(rows) >= 6
    for names, examples in rows:
        for key in re.findall(r"`(\w+)`", names):
            for example in re.findall(r"`(.+?)`(?:, |$)", examples):
                parse_settings(f"[[routing.rules]]\nconditions = {{ {key} = {example} }}\n", source="docs")
