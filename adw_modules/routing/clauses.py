"""A condition as a row of clauses that must all hold, each able to say why it does not.

Both spellings (`conditions.py`, `expressions.py`) end here. Must not parse anything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from adw_modules.errors import ConfigError
from adw_modules.routing.attributes import Attrs, Path, raw, show, spell

Test = Callable[[Attrs], bool]


class ConditionError(ConfigError):
    """A condition that cannot be understood. `position` counts characters from 0; None if structured."""

    def __init__(self, message: str, position: int | None = None) -> None:
        self.message = message
        self.position = position
        super().__init__(message if position is None else f"{message} (at character {position + 1})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """Whether a condition holds; `clause` is the first that fails, with what it saw, or all that hold."""

    matched: bool
    clause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Clause:
    """One thing that must be so. `text` is as the operator wrote it; `paths` are what it looks at."""

    text: str
    paths: tuple[Path, ...]
    test: Test

    def failure(self, attrs: Attrs) -> str:
        """The clause with the values that made it fail."""
        seen = [f"{spell(path)} is {_value(raw(attrs, path))}" for path in self.paths]
        return f"{self.text} ({', '.join(seen)})" if seen else self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """Clauses that must all hold. Without any it always holds."""

    clauses: tuple[Clause, ...] = ()

    def evaluate(self, attrs: Attrs) -> Match:
        """Never raises, whatever `attrs` holds."""
        for clause in self.clauses:
            if not clause.test(attrs):
                return Match(matched=False, clause=clause.failure(attrs))
        return Match(matched=True, clause=self.text)

    @property
    def text(self) -> str:
        return " and ".join(clause.text for clause in self.clauses) or "always"

    @property
    def attributes(self) -> tuple[str, ...]:
        """The attributes the condition looks at, without their paths, in the order of first use."""
        return tuple(dict.fromkeys(str(path[0]) for clause in self.clauses for path in clause.paths))


def _value(value: object) -> str:
    return "not known" if value is None else show(value)
