"""A condition as a row of clauses that must all hold, each able to say why not; and what a mistake says.

Both spellings (`conditions.py`, `expressions.py`) end here. Must not parse anything.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from adw_modules.errors import ConfigError
from adw_modules.routing.attributes import Attrs, raw, show, spell
from adw_modules.routing.meaning import Every, Meaning, Test, paths_of, test_of
from adw_modules.routing.vocabulary import Path

_WHOLE = 100  # characters of a text that is shown whole
_BEFORE, _AFTER = 50, 40  # of a longer one, around the mistake


class ConditionError(ConfigError):
    """A condition that cannot be understood. `position` counts characters from 0; None if structured.

    `str()` of one in a text has two more lines: the text, and a caret under the mistake.
    """

    def __init__(self, message: str, position: int | None = None, text: str | None = None) -> None:
        self.message = message
        self.position = position
        self.text = text
        place = "" if position is None else f" (at character {position + 1})"
        super().__init__("\n".join([f"{message}{place}", *self.pointer()]))

    def within(self, text: str) -> ConditionError:
        """The same mistake with the text that it is in."""
        return ConditionError(self.message, self.position, text)

    def pointer(self) -> list[str]:
        """The text and a caret under the mistake: two lines, or none for a structured condition."""
        return [] if self.text is None or self.position is None else pointer(self.text, self.position)


def pointer(text: str, position: int) -> list[str]:
    """`text` around `position`, and a caret under it."""
    begin, end = (0, len(text)) if len(text) <= _WHOLE else (max(0, position - _BEFORE), position + _AFTER)
    head, tail = "…" * (begin > 0), "…" * (end < len(text))
    # One column for each character that may be anything: what steers a terminal is no part of a message.
    before, after = _printable(text[begin:position]), _printable(text[position:end])
    word = re.match(r"\w+", after)
    carets = "^" * _width(word[0] if word else "^")
    return [f"    {head}{before}{after}{tail}", f"    {' ' * _width(head + before)}{carets}"]


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)


def _width(text: str) -> int:
    """Columns on a terminal."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else not unicodedata.combining(c) for c in text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """Whether a condition holds; `clause` is the first that fails, with what it saw, or all that hold."""

    matched: bool
    clause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Clause:
    """One thing that must be so. `text` is as the operator wrote it; `paths` are what it looks at."""

    text: str
    meaning: Meaning
    paths: tuple[Path, ...]
    test: Test

    def failure(self, attrs: Attrs, seen: dict[Path, str]) -> str:
        """The clause with the values that made it fail. `seen` keeps what was put into words already."""
        for path in self.paths:
            if path not in seen:
                seen[path] = f"{spell(path)} is {_value(raw(attrs, path))}"
        return f"{self.text} ({', '.join([seen[path] for path in self.paths])})" if self.paths else self.text


def clause(text: str, meaning: Meaning) -> Clause:
    return Clause(text=text, meaning=meaning, paths=paths_of(meaning), test=test_of(meaning))


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """Clauses that must all hold. Without any it always holds."""

    clauses: Sequence[Clause] = ()

    def evaluate(self, attrs: Attrs, seen: dict[Path, str] | None = None) -> Match:
        """Never raises, whatever `attrs` holds. `seen` may be shared by conditions on the same values."""
        for each in self.clauses:
            if not each.test(attrs):
                return Match(matched=False, clause=each.failure(attrs, {} if seen is None else seen))
        return Match(matched=True, clause=self.text)

    @property
    def text(self) -> str:
        return " and ".join(each.text for each in self.clauses) or "always"

    @property
    def meaning(self) -> Meaning:
        return Every(parts=tuple(each.meaning for each in self.clauses))

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(dict.fromkeys(path for each in self.clauses for path in each.paths))

    @property
    def attributes(self) -> tuple[str, ...]:
        """The attributes the condition looks at, without their paths, in the order of first use."""
        return tuple(dict.fromkeys(str(path[0]) for path in self.paths))


def _value(value: object) -> str:
    return "not known" if value is None else show(value)
