"""From the text of a config.toml to settings, or to every problem in it at once."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from pydantic import ValidationError

from adw_modules.config.checks import check_environment
from adw_modules.config.cross_checks import chain_checks, cross_checks, named_providers
from adw_modules.config.problems import Problem, explain, sentences
from adw_modules.config.schema import BUILT_IN_PROVIDER, BUILT_IN_TEMPLATE, Settings
from adw_modules.config.toml_lines import TomlLines
from adw_modules.errors import ConfigError


def parse_settings(text: str, *, source: str, environ: Mapping[str, str] | None = None) -> Settings:
    """Read the text of a config.toml; `source` is the file's name in the sentences.

    With `environ` the environment must be complete too. Raises ConfigError with all problems at once.
    """
    text = text.removeprefix("\ufeff")  # some editors put a byte order mark there
    document = _read_toml(text, source)
    settings, problems = _validate(document)
    problems += cross_checks(document)
    if settings is not None:
        problems += chain_checks(settings.model_dump(), document)
    if problems or settings is None:
        raise ConfigError(sentences(problems, source, TomlLines(text)))
    missing = check_environment(settings, environ, source=source) if environ is not None else []
    if missing:
        raise ConfigError(missing)
    return settings


def _read_toml(text: str, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text, parse_float=_exact)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(_syntax_sentence(str(error), source)) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; brackets without end
        raise ConfigError(
            f"{source}: this is not a usable TOML file (a number or a nesting is too long)."
        ) from error


def _exact(text: str) -> Decimal:
    """Prices stay what the file says: 0.14 never becomes 0.1400000000000000013."""
    try:
        return Decimal(text)
    except ArithmeticError:
        return Decimal("NaN")  # an exponent out of all bounds: refused like every other NaN


def _syntax_sentence(message: str, source: str) -> str:
    found = re.fullmatch(
        r"(?P<what>.*) \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)", message
    )
    if not found:
        return f"{source}: this is not valid TOML: {message}."
    where = f"line {found['line']}, column {found['column']}" if found["line"] else "at the end"
    what = found["what"]
    return f"{source}, {where}: this is not valid TOML: {what[:1].lower()}{what[1:]}."


def _validate(document: dict[str, Any]) -> tuple[Settings | None, list[Problem]]:
    try:
        return Settings.model_validate(_with_built_in(document)), []
    except ValidationError as error:
        return None, [explain(detail, document) for detail in error.errors(include_url=False)]


def _with_built_in(document: dict[str, Any]) -> dict[str, Any]:
    """Add the built-in provider where the file names it (or names none) without describing it."""
    providers = document.get("providers", {})
    if not isinstance(providers, dict) or BUILT_IN_PROVIDER in providers:
        return document
    if BUILT_IN_PROVIDER not in [name for _, name in named_providers(document)]:
        return document
    built_in = {"command_template": BUILT_IN_TEMPLATE}
    return {**document, "providers": {BUILT_IN_PROVIDER: built_in, **providers}}
