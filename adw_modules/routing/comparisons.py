"""One comparison of a string condition: refused when it can never be right, else compiled to a closure.

What is checked here is checked at load, with a position; the closures never raise.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass

from adw_modules.routing.attributes import (
    NUMERIC,
    Attrs,
    Compare,
    Path,
    differs,
    ends_with,
    holds,
    is_number,
    no_priority,
    ordered,
    rank,
    read,
    same,
    show,
    spell,
    starts_with,
)
from adw_modules.routing.clauses import ConditionError, Test
from adw_modules.routing.tokens import Token

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
_ORDERING = frozenset({"<", "<=", ">", ">="})
_EQUALITY = frozenset({"==", "!="})


@dataclass(frozen=True, slots=True, kw_only=True)
class Operand:
    """A literal, or the path of an attribute."""

    start: int
    path: Path | None = None  # None for a literal
    value: object = None


def compiled(left: Operand, sign: Token, right: Operand) -> Test:
    if ("priority",) in {left.path, right.path}:
        return _priority_test(left, sign, right)
    _refuse_mismatch(left, sign, right)
    if sign.text in _EQUALITY and (_is_null(left) or _is_null(right)):
        return _null_test(left if _is_null(right) else right, wanted_null=sign.text == "==")
    return _test(_reader(left), OPERATORS[sign.text], _reader(right))


def _test(left: Callable[[Attrs], object], compare: Compare, right: Callable[[Attrs], object]) -> Test:
    return lambda attrs: compare(left(attrs), right(attrs))


def _reader(operand: Operand) -> Callable[[Attrs], object]:
    path, value = operand.path, operand.value
    return (lambda attrs: read(attrs, path)) if path else (lambda _: value)


def _is_null(operand: Operand) -> bool:
    return operand.path is None and operand.value is None


def _null_test(operand: Operand, *, wanted_null: bool) -> Test:
    reader = _reader(operand)
    return lambda attrs: (reader(attrs) is None) is wanted_null


def _priority_test(left: Operand, sign: Token, right: Operand) -> Test:
    """Priority compares as its number: words and numbers mix, and `priority <= 'high'` is an order."""
    if sign.text not in _ORDERING | _EQUALITY | {"in"} or (sign.text == "in" and left.path != ("priority",)):
        raise ConditionError("priority compares with ==, !=, <, <=, >, >= or `in` a list", sign.start)
    if sign.text in _EQUALITY and (_is_null(left) or _is_null(right)):
        return _null_test(left if _is_null(right) else right, wanted_null=sign.text == "==")
    return _test(_rank_reader(left, sign), OPERATORS[sign.text], _rank_reader(right, sign))


def _rank_reader(operand: Operand, sign: Token) -> Callable[[Attrs], object]:
    if operand.path:
        reader = _reader(operand)
        return lambda attrs: _ranked(reader(attrs))
    is_list = isinstance(operand.value, list)
    if is_list != (sign.text == "in"):
        raise ConditionError("priority takes a list only after `in`, and always there", operand.start)
    for value in operand.value if isinstance(operand.value, list) else [operand.value]:
        if rank(value) is None:
            raise ConditionError(no_priority(value), operand.start)
    value = _ranked(operand.value)
    return lambda _: value


def _ranked(value: object) -> object:
    return [rank(item) for item in value] if isinstance(value, list | tuple) else rank(value)


def _refuse_mismatch(left: Operand, sign: Token, right: Operand) -> None:
    """What can never be true is a mistake, and is said at load instead of failing in silence."""
    for operand, other in ((left, right), (right, left)):
        if operand.path == ("labels",) and not _is_null(other):
            _refuse_labels(operand is left, sign, other)
        if operand.path and operand.path[0] in NUMERIC and other.path is None:
            _refuse_number(operand.path, sign, other)
    _refuse_literal(sign, left, right)


def _refuse_labels(is_left: bool, sign: Token, other: Operand) -> None:
    if (sign.text, is_left) not in {("contains", True), ("in", False)}:
        raise ConditionError("labels is a list; write labels contains 'name'", sign.start)
    if other.path is None and not isinstance(other.value, str):
        raise ConditionError("labels contains one name; for several write … or …", other.start)


def _refuse_number(path: Path, sign: Token, other: Operand) -> None:
    values = other.value if isinstance(other.value, list) else [other.value]
    is_equality_with_null = _is_null(other) and sign.text in _EQUALITY
    if not is_equality_with_null and not all(is_number(value) for value in values):
        raise ConditionError(f"{spell(path)} is a number and compares with numbers", other.start)


def _refuse_literal(sign: Token, left: Operand, right: Operand) -> None:
    """A literal on either side that the operator has no use for."""
    whole, part = (right, left) if sign.text == "in" else (left, right)
    if sign.text in _ORDERING:
        for side in (left, right):
            _require(side, is_number, "compares numbers", sign)
    elif sign.text in {"in", "contains"}:
        _require(whole, lambda value: isinstance(value, list | str), "looks into a list or a text", sign)
        _require(
            part, lambda value: value is not None and not isinstance(value, list), "looks for one value", sign
        )
    elif sign.text not in _EQUALITY:
        for side in (left, right):
            _require(side, lambda value: isinstance(value, str | int | float), "compares text", sign)


def _require(operand: Operand, fits: Callable[[object], bool], what: str, sign: Token) -> None:
    if operand.path is None and not fits(operand.value):
        raise ConditionError(f"`{sign.text}` {what}, not {show(operand.value)}", operand.start)
