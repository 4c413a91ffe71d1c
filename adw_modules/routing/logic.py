"""What can be proved about conditions: that one can never hold, or that it implies others.

The values of each attribute are cut into cells on which no comparison of any rule changes, so that a
comparison is a set of cells. A condition becomes a list of alternatives, each a set of cells for some
attributes; one that has an empty set cannot be. What cannot be cut (a comparison of two attributes, an
attribute of somebody's own) counts as a question with two answers that knows nothing of the others. More
may seem possible then, never less: what is proved is so. What takes too many alternatives is left open.
Trusts what `vocabulary.py` says that the daemon gives.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations, pairwise
from typing import Any

from adw_modules.routing.attributes import is_number
from adw_modules.routing.meaning import (
    EQUALITY,
    Atom,
    Constant,
    Either,
    Every,
    Meaning,
    Not,
    atoms_of,
    compares_numbers,
    predicate_of,
)
from adw_modules.routing.vocabulary import Attribute, Kind, Path, attribute

MOST_ALTERNATIVES = 2000
_MOST_PIECES = 4  # texts that one attribute is searched for: each doubles the cells
_PIECES = frozenset({"contains", "starts_with", "ends_with"})

Variable = object  # a path, or a question of its own
Cells = int  # one bit for each cell of a variable
Alternative = dict[Variable, Cells]


class Undecided(Exception):
    """It would take too long to find out."""


@dataclass(frozen=True, slots=True)
class _Missing:
    """Nothing stands there."""


@dataclass(frozen=True, slots=True)
class _Unknown:
    """Some text that no rule spells out, or else a value of another kind; `holding` these pieces."""

    is_text: bool
    holding: frozenset[tuple[str, str]] = frozenset()


class Logic:
    """What can be proved about these conditions."""

    def __init__(self, conditions: Iterable[Meaning]) -> None:
        atoms: dict[Path, list[Atom]] = {}
        for condition in conditions:
            for atom in atoms_of(condition):
                if isinstance(atom, Atom):
                    atoms.setdefault(atom.path, []).append(atom)
        self._cells = {path: cells for path, found in atoms.items() if (cells := _cells_of(path, found))}

    def never_holds(self, condition: Meaning) -> bool:
        return self._is_impossible([condition], [])

    def always_holds(self, condition: Meaning) -> bool:
        return self._is_impossible([], [condition])

    def implies(self, condition: Meaning, others: Sequence[Meaning]) -> bool:
        """Whether at least one of `others` holds wherever `condition` does."""
        return self._is_impossible([condition], others)

    def excludes(self, condition: Meaning, other: Meaning) -> bool:
        """Whether the two never hold together."""
        return self._is_impossible([condition, other], [])

    def _is_impossible(self, holding: Sequence[Meaning], failing: Sequence[Meaning]) -> bool:
        try:
            left: list[Alternative] = [{}]
            for meaning, wanted in [*((m, True) for m in holding), *((m, False) for m in failing)]:
                left = _both(left, self._alternatives(meaning, wanted))
        except Undecided:
            return False
        return not left

    def _alternatives(self, meaning: Meaning, wanted: bool) -> list[Alternative]:
        match meaning:
            case Constant():
                return [{}] if meaning.value is wanted else []
            case Not():
                return self._alternatives(meaning.inner, not wanted)
            case Every() | Either():
                parts = [self._alternatives(part, wanted) for part in meaning.parts]
                return _all(parts) if isinstance(meaning, Every) is wanted else _any(parts)
        variable, cells, every = self._question(meaning)
        chosen = cells if wanted else every & ~cells
        return [{variable: chosen}] if chosen else []

    def _question(self, atom: Meaning) -> tuple[Variable, Cells, Cells]:
        """The variable, the cells on which the atom holds, and all there are."""
        if isinstance(atom, Atom):
            cells = self._cells.get(atom.path)
            holds = _test(atom, cells) if cells else None
            if cells and holds:
                found = sum(1 << n for n, cell in enumerate(cells) if holds(cell))
                return atom.path, found, (1 << len(cells)) - 1
            known = attribute(atom.path)
            if atom.value is None and known is not None and known.given:
                return atom.path, int(atom.operator == "!="), 1
            return (atom.path, atom.operator, _folded(atom.value)), 1, 3
        return repr(atom), 1, 3


def _folded(value: object) -> str:
    return repr(value.casefold() if isinstance(value, str) else value)


def _both(left: list[Alternative], right: list[Alternative]) -> list[Alternative]:
    found: dict[frozenset[tuple[Variable, Cells]], Alternative] = {}
    for one in left:
        for other in right:
            joined = _joined(one, other)
            if joined is not None:
                found[frozenset(joined.items())] = joined
        if len(found) > MOST_ALTERNATIVES:
            raise Undecided
    return list(found.values())


def _joined(one: Alternative, other: Alternative) -> Alternative | None:
    """Both together; None when that cannot be."""
    joined = dict(one)
    for variable, cells in other.items():
        joined[variable] = joined.get(variable, cells) & cells
        if not joined[variable]:
            return None
    return joined


def _all(parts: list[list[Alternative]]) -> list[Alternative]:
    found: list[Alternative] = [{}]
    for part in parts:
        found = _both(found, part)
    return found


def _any(parts: list[list[Alternative]]) -> list[Alternative]:
    """The alternatives together; those on one variable alone are one alternative."""
    single: Alternative = {}
    found = []
    for alternative in (each for part in parts for each in part):
        if len(alternative) == 1:
            ((variable, cells),) = alternative.items()
            single[variable] = single.get(variable, 0) | cells
        else:
            found.append(alternative)
    return [*({variable: cells} for variable, cells in single.items()), *found]


# --- cells --------------------------------------------------------------------------------------


def _cells_of(path: Path, atoms: Sequence[Atom]) -> list[Any]:
    """One value out of each cell; none when the attribute cannot be cut."""
    known = attribute(path)
    match known and known.kind:
        case Kind.NUMBER | Kind.SCALE if known:
            return _numbers(known, atoms)
        case Kind.TEXT | Kind.WORD if known:
            return _texts(known, atoms)
    return []


def _test(atom: Atom, cells: list[Any]) -> Callable[[Any], bool] | None:
    """Whether the atom holds on a cell; None when these cells do not tell."""
    is_of_numbers = any(isinstance(cell, Fraction) for cell in cells)
    if is_of_numbers:
        return _on_number(atom) if compares_numbers(atom) else None
    pieces = {piece for cell in cells if isinstance(cell, _Unknown) for piece in cell.holding}
    if atom.operator == "in" and isinstance(atom.value, str):
        return None  # a text that no rule spells out may be a piece of that one
    is_searched = atom.operator in _PIECES
    if is_searched and _piece(atom) not in pieces and any(isinstance(cell, _Unknown) for cell in cells):
        return None
    return _on_text(atom)


def _numbers(known: Attribute, atoms: Sequence[Atom]) -> list[Any]:
    if known.kind is Kind.SCALE:
        values = list(map(Fraction, range(len(known.words))))
        return values if known.given else [*values, _Missing()]
    points = sorted({Fraction(one) for atom in atoms for one in _items(atom.value) if _is_finite(one)})
    least, most = known.least, known.most
    edges = [Fraction(edge) for edge in (least, most) if edge is not None]
    points = sorted({*points, *edges})
    outside = [Fraction(math.ceil(points[0]) - 1), Fraction(math.floor(points[-1]) + 1)] if points else []
    between = [_between(a, b, whole=known.whole and known.given) for a, b in pairwise(points)]
    values = sorted({*points, *(each for each in between if each is not None), *outside})
    inside = [value for value in values or [Fraction(0)] if _is_inside(value, known)]
    return inside if known.given else [*inside, _Missing(), _Unknown(is_text=False)]


def _between(low: Fraction, high: Fraction, *, whole: bool) -> Fraction | None:
    """A value strictly between the two, if there is one."""
    if not whole:
        return (low + high) / 2
    following = Fraction(math.floor(low) + 1)
    return following if following < high else None


def _is_inside(value: Fraction, known: Attribute) -> bool:
    """Whether a task can have that value. Only what the daemon gives keeps to its bounds for sure."""
    if not known.given:
        return True
    if known.whole and value.denominator != 1:
        return False
    return (known.least is None or value >= known.least) and (known.most is None or value <= known.most)


def _texts(known: Attribute, atoms: Sequence[Atom]) -> list[Any]:
    texts = {one.casefold() for atom in atoms for one in _items(atom.value) if isinstance(one, str)}
    if known.kind is Kind.WORD:
        return [*known.words, _Missing()]
    pieces = sorted(
        {_piece(atom) for atom in atoms if atom.operator in _PIECES and isinstance(atom.value, str)}
    )
    if len(pieces) > _MOST_PIECES:
        pieces = []  # then each of them is a question of its own
    sets = [frozenset(chosen) for n in range(len(pieces) + 1) for chosen in combinations(pieces, n)]
    some = [_Unknown(is_text=True, holding=held) for held in sets if _is_possible(held, pieces)]
    if known.given:
        return [*sorted(texts), *some]
    other = [_Unknown(is_text=False, holding=held) for held in sets]
    return [*sorted(texts), *some, *other, _Missing()]


def _piece(atom: Atom) -> tuple[str, str]:
    return atom.operator, str(atom.value).casefold()


def _is_possible(held: frozenset[tuple[str, str]], pieces: Sequence[tuple[str, str]]) -> bool:
    """A text that starts with `ab` also starts with `a` and contains `b`."""
    return all(piece in held for piece in pieces for other in held if _follows(piece, other))


def _follows(piece: tuple[str, str], other: tuple[str, str]) -> bool:
    (how, text), (other_how, other_text) = piece, other
    if how == "contains":
        return text in other_text
    begins, ends = how == other_how == "starts_with", how == other_how == "ends_with"
    return (begins and other_text.startswith(text)) or (ends and other_text.endswith(text))


def _items(value: object) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _is_finite(value: object) -> bool:
    return is_number(value) and not math.isinf(value)


# --- what holds on a cell -----------------------------------------------------------------------

_ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "in": lambda value, wanted: value in wanted,
}


def _on_number(atom: Atom) -> Callable[[Any], bool]:
    compare, wanted = _ORDERS[atom.operator], atom.value

    def holds(cell: Any) -> bool:
        if wanted is None:
            return isinstance(cell, _Missing) is (atom.operator == "==")
        if isinstance(cell, Fraction):
            return compare(cell, wanted)
        return isinstance(cell, _Unknown) and atom.operator == "!="

    return holds


def _on_text(atom: Atom) -> Callable[[Any], bool]:
    predicate = predicate_of(atom)

    def holds(cell: Any) -> bool:
        if isinstance(cell, str):
            return predicate is not None and predicate(cell)
        if atom.value is None:
            return isinstance(cell, _Missing) is (atom.operator == "==")
        if not isinstance(cell, _Unknown):
            return False
        return atom.operator == "!=" if atom.operator in EQUALITY else _piece(atom) in cell.holding

    return holds
