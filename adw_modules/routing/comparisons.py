"""One comparison of a string condition: refused when it can never be right, else a piece of meaning.

What is checked here is checked at load, with a position. The kinds are those of `vocabulary.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from adw_modules.routing.attributes import is_integer, is_number, no_word, rank, show, spell
from adw_modules.routing.clauses import ConditionError
from adw_modules.routing.meaning import EQUALITY, ORDERING, Atom, Constant, Meaning, Pair, Side, test_of
from adw_modules.routing.tokens import Token
from adw_modules.routing.vocabulary import ANYTHING, Attribute, Kind, Path

_AFFIXES = frozenset({"starts_with", "ends_with"})
_TURNED = {"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_TEXTS = frozenset({Kind.TEXT, Kind.WORD})


@dataclass(frozen=True, slots=True, kw_only=True)
class Operand:
    """A literal, or the path of an attribute and what that is."""

    start: int
    path: Path | None = None  # None for a literal
    value: object = None
    known: Attribute = ANYTHING

    @property
    def is_null(self) -> bool:
        return self.path is None and self.value is None

    @property
    def name(self) -> str:
        return spell(self.path) if self.path else show(self.value)

    @property
    def items(self) -> list[object]:
        return self.value if isinstance(self.value, list) else [self.value]


def compiled(left: Operand, sign: Token, right: Operand) -> Meaning:
    """What `left sign right` means. Raises ConditionError when it can never hold, or makes no sense."""
    if sign.text in EQUALITY and (left.is_null or right.is_null):
        return _null_test(left, sign.text, right)
    _refuse_literal(sign, left, right)
    for side, other in ((left, right), (right, left)):
        if side.path:
            _CHECKS[side.known.kind](side, sign, other, side is left)
    if left.path and right.path:
        _refuse_pair(left, sign, right)
    return _meaning(left, sign.text, right)


def _null_test(left: Operand, sign: str, right: Operand) -> Meaning:
    side = left if right.is_null else right
    if side.path is None:
        return Constant(value=(side.value is None) is (sign == "=="))
    return Atom(path=side.path, operator=sign, value=None)


def _meaning(left: Operand, sign: str, right: Operand) -> Meaning:
    if left.path and not right.path:
        return Atom(path=left.path, operator=sign, value=_value(right, left.known))
    if right.path and not left.path:
        if sign in _TURNED:
            return Atom(path=right.path, operator=_TURNED[sign], value=_value(left, right.known))
        if sign == "in":
            return Atom(path=right.path, operator="contains", value=left.value)
    pair = Pair(left=_side(left), operator=sign, right=_side(right))
    return pair if left.path or right.path else Constant(value=test_of(pair)({}))


def _side(operand: Operand) -> Side:
    return Side(path=operand.path, value=operand.value)


def _value(literal: Operand, known: Attribute) -> object:
    if known.kind is not Kind.SCALE:
        return literal.value
    if isinstance(literal.value, list):
        return [rank(item, known) for item in literal.value]
    return rank(literal.value, known)


# --- what each kind compares with ---------------------------------------------------------------


def _number(side: Operand, sign: Token, other: Operand, is_left: bool) -> None:
    if sign.text in _AFFIXES and is_left and len(side.path or ()) > 1:
        return  # task.number ends_with '0': numbers of issues are ids as well
    if sign.text == "contains" or (sign.text == "in" and not is_left):
        raise ConditionError(f"{side.name} is a number; nothing can be in it", sign.start)
    _refuse_list(side, sign, other)
    if other.path is None and not all(is_number(value) for value in other.items):
        raise ConditionError(f"{side.name} is a number and compares with numbers", other.start)


def _text(side: Operand, sign: Token, other: Operand, is_left: bool) -> None:
    if sign.text in ORDERING:
        raise ConditionError(f"{side.name} is a text, and texts have no order here", sign.start)
    _refuse_list(side, sign, other)
    is_affix = sign.text in _AFFIXES and is_left
    if other.path is None and not all(
        isinstance(value, str) or (is_affix and is_integer(value)) for value in other.items
    ):
        raise ConditionError(f"{side.name} is a text and compares with texts in quotes", other.start)


def _refuse_list(side: Operand, sign: Token, other: Operand) -> None:
    if isinstance(other.value, list) and sign.text not in {"in", "contains"}:
        raise ConditionError(
            f"`{sign.text}` compares {side.name} with one value, not with a list", other.start
        )


def _word(side: Operand, sign: Token, other: Operand, is_left: bool) -> None:
    _text(side, sign, other, is_left)
    if other.path is None and (
        sign.text in EQUALITY or (sign.text == "in" and isinstance(other.value, list))
    ):
        for value in other.items:
            if str(value).casefold() not in side.known.words:
                name = "status of a provider" if side.path and len(side.path) > 1 else side.name
                raise ConditionError(no_word(value, name, side.known), other.start)


def _scale(side: Operand, sign: Token, other: Operand, is_left: bool) -> None:
    """A scale compares as its number: words and numbers mix, and `priority <= 'high'` is an order."""
    if sign.text not in ORDERING | EQUALITY | {"in"} or (sign.text == "in" and not is_left):
        raise ConditionError(f"{side.name} compares with ==, !=, <, <=, >, >= or `in` a list", sign.start)
    if other.path is not None:
        return
    if isinstance(other.value, list) != (sign.text == "in"):
        raise ConditionError(f"{side.name} takes a list only after `in`, and always there", other.start)
    for value in other.items:
        if rank(value, side.known) is None:
            raise ConditionError(no_word(value, side.name, side.known), other.start)


def _list(side: Operand, sign: Token, other: Operand, is_left: bool) -> None:
    if (sign.text, is_left) not in {("contains", True), ("in", False)}:
        raise ConditionError(f"{side.name} is a list; write {side.name} contains 'name'", sign.start)
    if other.path is None and not isinstance(other.value, str):
        raise ConditionError(f"{side.name} contains one name; for several write … or …", other.start)


def _table(side: Operand, _sign: Token, _other: Operand, _is_left: bool) -> None:
    example = "task.id" if side.name == "task" else f"{side.name}['name']"
    raise ConditionError(f"{side.name} is a table; write {example}", side.start)


def _anything(_side: Operand, _sign: Token, _other: Operand, _is_left: bool) -> None:
    return None


_CHECKS: dict[Kind, Callable[[Operand, Token, Operand, bool], None]] = {
    Kind.NUMBER: _number,
    Kind.TEXT: _text,
    Kind.WORD: _word,
    Kind.SCALE: _scale,
    Kind.LIST: _list,
    Kind.TABLE: _table,
    Kind.ANY: _anything,
}


def _refuse_pair(left: Operand, sign: Token, right: Operand) -> None:
    """Two attributes whose kinds can never meet."""
    kinds = {left.known.kind, right.known.kind}
    if Kind.ANY in kinds or kinds <= _TEXTS or sign.text in _AFFIXES:
        return
    is_inside = sign.text in {"in", "contains"}
    if is_inside and Kind.LIST in kinds and kinds & _TEXTS:
        return
    if not is_inside and len(kinds) == 1 and (Kind.SCALE not in kinds or left.known is right.known):
        return
    raise ConditionError(
        f"{left.name} is {left.known.kind} and {right.name} is {right.known.kind}: "
        f"they never compare with `{sign.text}`",
        sign.start,
    )


def _refuse_literal(sign: Token, left: Operand, right: Operand) -> None:
    """A literal on either side that the operator has no use for."""
    whole, part = (right, left) if sign.text == "in" else (left, right)
    if any(side.path and side.known.kind is not Kind.ANY for side in (left, right)):
        _refuse_useless(sign, whole, part)  # the kind says the rest, and better
        return
    if sign.text in ORDERING:
        for side in (left, right):
            _require(side, is_number, "compares numbers", sign)
    elif sign.text in _AFFIXES:
        for side in (left, right):
            _require(side, lambda value: isinstance(value, str | int | float), "compares text", sign)
    _refuse_useless(sign, whole, part)


def _refuse_useless(sign: Token, whole: Operand, part: Operand) -> None:
    if sign.text not in {"in", "contains"}:
        return
    _require(whole, lambda value: isinstance(value, list | str), "looks into a list or a text", sign)
    if whole.path is None and whole.value == []:
        raise ConditionError("nothing is in an empty list", whole.start)
    if part.path is None and (
        part.value is None or (isinstance(part.value, list) and whole.known.kind is not Kind.LIST)
    ):
        raise ConditionError(f"`{sign.text}` looks for one value, not {show(part.value)}", part.start)


def _require(operand: Operand, fits: Callable[[object], bool], what: str, sign: Token) -> None:
    if operand.path is None and not fits(operand.value):
        raise ConditionError(f"`{sign.text}` {what}, not {show(operand.value)}", operand.start)
