"""What a condition says, as a small tree, and the closure that tests it.

Both spellings are turned into this tree, so that they mean the same, and `route lint` reasons about it. A
tree can only read values and compare them: there is no node that calls, computes or loops. Tests never
raise. Must not know how a condition is written or whether it makes sense; both are judged before a tree
is made.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeGuard

from adw_modules.routing.attributes import (
    Attrs,
    Compare,
    Reader,
    differs,
    ends_with,
    holds,
    is_number,
    ordered,
    rank,
    raw,
    reader,
    same,
    starts_with,
)
from adw_modules.routing.vocabulary import Attribute, Kind, Path, attribute

Test = Callable[[Attrs], bool]
Predicate = Callable[[object], bool]  # of one value, as `reader` gives it

OPERATORS: dict[str, Compare] = {
    "==": same,
    "!=": differs,
    "<": ordered(operator.lt),
    "<=": ordered(operator.le),
    ">": ordered(operator.gt),
    ">=": ordered(operator.ge),
    "in": lambda part, whole: holds(whole, part),
    "contains": holds,
    "starts_with": starts_with,
    "ends_with": ends_with,
}
ORDERING = frozenset({"<", "<=", ">", ">="})
EQUALITY = frozenset({"==", "!="})


@dataclass(frozen=True, slots=True, kw_only=True)
class Atom:
    """The value at `path` compared with a literal: words of a scale are their numbers, null has == and !=."""

    path: Path
    operator: str
    value: object


@dataclass(frozen=True, slots=True, kw_only=True)
class Own:
    """An attribute of a caller's own: the same kind and the same value, case included."""

    path: Path
    value: object


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """A path alone: a real `true` stands there."""

    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A comparison of two paths, or of a literal with what stands at a path."""

    left: Side
    operator: str
    right: Side


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    path: Path | None = None  # None for a literal
    value: object = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    value: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Not:
    inner: Meaning


@dataclass(frozen=True, slots=True, kw_only=True)
class Every:
    parts: tuple[Meaning, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Either:
    parts: tuple[Meaning, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """The task is in that arm of an experiment. Whoever makes such a clause brings its test."""

    experiment: str
    arm: str


Meaning = Atom | Own | Flag | Pair | Constant | Not | Every | Either | Drawn


def paths_of(meaning: Meaning) -> tuple[Path, ...]:
    """Every path that is looked at, once, in the order of first use."""
    return tuple(dict.fromkeys(_paths(meaning)))


def _paths(meaning: Meaning) -> list[Path]:
    match meaning:
        case Atom() | Own() | Flag():
            return [meaning.path]
        case Pair():
            return [side.path for side in (meaning.left, meaning.right) if side.path]
        case Not():
            return _paths(meaning.inner)
        case Every() | Either():
            return [path for part in meaning.parts for path in _paths(part)]
    return []


def test_of(meaning: Meaning) -> Test:
    """The closure that says whether it holds for a task. Never raises, whatever the attributes are."""
    paths = paths_of(meaning)
    if len(paths) == 1:
        predicate = predicate_of(meaning)
        if predicate is not None:
            return _on(reader(paths[0]), predicate)
    match meaning:
        case Not():
            return _negated(test_of(meaning.inner))
        case Every():
            return _every([test_of(part) for part in meaning.parts])
        case Either():
            return _either([test_of(part) for part in meaning.parts])
        case Pair():
            return _compared(meaning)
        case Own():
            return _own(meaning.path, meaning.value)
        case Constant(value=value):
            return lambda _: value
    raise AssertionError(meaning)  # Atom and Flag have one path and a predicate


def _on(read: Reader, predicate: Predicate) -> Test:
    return lambda attrs: predicate(read(attrs))


def _negated(test: Callable[..., bool]) -> Callable[..., bool]:
    return lambda given: not test(given)


def _every(tests: list[Callable[..., bool]]) -> Callable[..., bool]:
    def every(given: object) -> bool:
        for test in tests:  # noqa: SIM110  `all` with a generator takes twice as long
            if not test(given):
                return False
        return True

    return every


def _either(tests: list[Callable[..., bool]]) -> Callable[..., bool]:
    def either(given: object) -> bool:
        for test in tests:  # noqa: SIM110  the same
            if test(given):
                return True
        return False

    return either


def _compared(pair: Pair) -> Test:
    left, compare, right = _side(pair.left, pair), OPERATORS[pair.operator], _side(pair.right, pair)
    return lambda attrs: compare(left(attrs), right(attrs))


def _side(side: Side, pair: Pair) -> Reader:
    value, path = side.value, side.path
    if path is None:
        return lambda _: value
    scale = _scale(pair)
    if scale is None:
        return reader(path)
    return lambda attrs: rank(raw(attrs, path), scale)


def _scale(pair: Pair) -> Attribute | None:
    """Beside a scale everything is read as a word of it."""
    for side in (pair.left, pair.right):
        known = attribute(side.path) if side.path else None
        if known is not None and known.kind is Kind.SCALE:
            return known
    return None


def atoms_of(meaning: Meaning) -> list[Meaning]:
    """The leaves of the tree."""
    match meaning:
        case Not():
            return atoms_of(meaning.inner)
        case Every() | Either():
            return [atom for part in meaning.parts for atom in atoms_of(part)]
    return [meaning]


def compares_numbers(meaning: Meaning) -> bool:
    """Whether all it does with a value is to compare it with numbers, or to ask whether it is there."""
    return all(
        isinstance(atom, Constant)
        or (
            isinstance(atom, Atom)
            and atom.operator in ORDERING | EQUALITY | {"in"}
            and (atom.value is None or all(map(_is_plain_number, _items(atom.value))))
        )
        for atom in atoms_of(meaning)
    )


def numbers_of(meaning: Meaning) -> set[int | float]:
    """The numbers that its values are compared with."""
    found = [one for atom in atoms_of(meaning) if isinstance(atom, Atom) for one in _items(atom.value)]
    return {one for one in found if _is_plain_number(one)}


def _is_plain_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and is_number(value)


def _items(value: object) -> list[object]:
    return list(value) if isinstance(value, list | tuple) else [value]


# --- of one value -------------------------------------------------------------------------------


def predicate_of(meaning: Meaning) -> Predicate | None:
    """For what looks at a single path: the test of the value there, as `reader` gives it; else None."""
    match meaning:
        case Atom():
            return _predicate(meaning.operator, meaning.value)
        case Flag():
            return lambda value: value is True
        case Constant(value=constant):
            return lambda _: constant
        case Not():
            inner = predicate_of(meaning.inner)
            return inner and _negated(inner)
        case Every() | Either():
            parts = [predicate_of(part) for part in meaning.parts]
            tests = [part for part in parts if part is not None]
            if len(tests) < len(parts):
                return None
            return _every(tests) if isinstance(meaning, Every) else _either(tests)
    return None


def _predicate(sign: str, wanted: object) -> Predicate:
    if wanted is None:
        is_null = sign == "=="
        return lambda value: (value is None) is is_null
    if sign == "==" and isinstance(wanted, str):
        return _text_among(frozenset({wanted.casefold()}))
    if sign == "in" and isinstance(wanted, list | tuple) and all(isinstance(item, str) for item in wanted):
        return _text_among(frozenset(item.casefold() for item in wanted))
    if sign in _PLAIN and is_number(wanted):
        return _number(_PLAIN[sign], wanted)
    compare = OPERATORS[sign]
    return lambda value: compare(value, wanted)


_PLAIN: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def _text_among(wanted: frozenset[str]) -> Predicate:
    return lambda value: isinstance(value, str) and value.casefold() in wanted


def _number(compare: Callable[[Any, Any], bool], wanted: object) -> Predicate:
    return lambda value: is_number(value) and compare(value, wanted)


def _own(path: Path, wanted: object) -> Test:
    name = str(path[0])
    return lambda attrs: name in attrs and _identical(attrs[name], wanted)


def _identical(value: object, wanted: object) -> bool:
    if isinstance(wanted, list | tuple):
        return (
            isinstance(value, list | tuple)
            and len(value) == len(wanted)
            and all(map(_identical, value, wanted))
        )
    return value == wanted if isinstance(value, str) and isinstance(wanted, str) else same(value, wanted)
