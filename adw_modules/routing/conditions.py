"""The structured spelling, `conditions = {…}`, and the door to the string spelling.

Each key becomes one clause; all must hold. The comparisons are those of `attributes.py`, so that both
spellings mean the same. Must not evaluate anything itself.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Mapping

from adw_modules.routing.attributes import (
    ATTRIBUTES,
    Attrs,
    Compare,
    as_labels,
    holds,
    is_integer,
    is_number,
    nearest,
    no_priority,
    ordered,
    rank,
    read,
    same,
    show,
    suggestion,
)
from adw_modules.routing.clauses import Clause, Condition, ConditionError, Match, Test
from adw_modules.routing.expressions import parse

__all__ = ["Clause", "Condition", "ConditionError", "Match", "compile_condition", "compile_conditions"]

HOURS = 24

_NUMBER_OPERATORS: dict[str, Compare] = {
    "gte": ordered(operator.ge),
    "lte": ordered(operator.le),
    "eq": same,
    "gt": ordered(operator.gt),
    "lt": ordered(operator.lt),
}


def compile_condition(text: str, *, names: Collection[str] = ATTRIBUTES) -> Condition:
    """A string condition, ready to evaluate. `names` are the attributes it may use.

    Raises ConditionError with the position of the mistake, and nothing else.
    """
    return Condition(clauses=parse(text, names=names))


def compile_conditions(written: Mapping[str, object]) -> Condition:
    """A structured condition, ready to evaluate. Raises ConditionError."""
    return Condition(clauses=tuple(_clause(key, value) for key, value in written.items()))


def _clause(key: str, wanted: object) -> Clause:
    attribute = "hour" if key == "hour_range" else key
    compiled = _KINDS.get(key)
    if compiled is None:
        _refuse_misspelling(key)
        compiled = _exactly
    return Clause(text=f"{key} = {show(wanted)}", paths=((attribute,),), test=compiled(attribute, wanted))


def _refuse_misspelling(key: str) -> None:
    """Any other attribute may be compared, but `label` or `prioritty` would be a rule that never matches."""
    meant = nearest(key, _KINDS, cutoff=0.8)
    if meant:
        raise ConditionError(f'unknown condition "{key}"; did you mean {meant}?')


def _priority(key: str, wanted: object) -> Test:
    values = wanted if isinstance(wanted, list | tuple) else [wanted]
    if not values:
        raise ConditionError("priority has an empty list, so it can never match")
    ranks = {_known_rank(value) for value in values}
    return lambda attrs: read(attrs, (key,)) in ranks


def _known_rank(value: object) -> int:
    known = rank(value)
    if known is None:
        raise ConditionError(no_priority(value))
    return known


def _labels(key: str, wanted: object) -> Test:
    names = as_labels(wanted)
    if not names or not all(isinstance(name, str) for name in names):
        raise ConditionError(f"labels takes a list of names, any of which will do, not {show(wanted)}")
    return lambda attrs: any(holds(read(attrs, (key,)), name) for name in names)


def _number(key: str, wanted: object) -> Test:
    if is_number(wanted):
        return lambda attrs: same(read(attrs, (key,)), wanted)
    if not isinstance(wanted, Mapping) or not wanted:
        raise ConditionError(
            f"{key} takes a number or a comparison such as {{ gte = 1 }}, not {show(wanted)}"
        )
    comparisons = [_comparison(key, name, bound) for name, bound in wanted.items()]
    return lambda attrs: all(compare(read(attrs, (key,)), bound) for compare, bound in comparisons)


def _comparison(key: str, name: object, bound: object) -> tuple[Compare, object]:
    compare = _NUMBER_OPERATORS.get(str(name))
    if compare is None:
        raise ConditionError(
            f'unknown comparison "{name}" for {key}; {suggestion(str(name), _NUMBER_OPERATORS)}'
        )
    if not is_number(bound):
        raise ConditionError(f"{key} compares with a number, not with {show(bound)}")
    return compare, bound


def _hour_range(key: str, wanted: object) -> Test:
    """Half-open, [start, end); wraps midnight when the start is later; equal ends are the whole day."""
    if not isinstance(wanted, list | tuple) or len(wanted) != 2 or not all(map(_is_hour, wanted)):
        raise ConditionError(
            f"hour_range takes two whole hours from 0 to 24, such as [22, 6], not {show(wanted)}"
        )
    start, end = wanted

    def inside(attrs: Attrs) -> bool:
        hour = read(attrs, (key,))
        if not is_number(hour):
            return False
        if start < end:
            return bool(start <= hour < end)
        return bool(start == end or hour >= start or hour < end)

    return inside


def _is_hour(value: object) -> bool:
    return is_integer(value) and 0 <= value <= HOURS


def _provider_status(key: str, wanted: object) -> Test:
    if not isinstance(wanted, Mapping) or not wanted:
        raise ConditionError(
            f'provider_status takes provider names, such as {{ claude-cli = "down" }}, not {show(wanted)}'
        )
    pairs = [((key, str(provider)), _texts(key, status)) for provider, status in wanted.items()]
    return lambda attrs: all(_any_of(read(attrs, path), statuses) for path, statuses in pairs)


def _text(key: str, wanted: object) -> Test:
    texts = _texts(key, wanted)
    return lambda attrs: _any_of(read(attrs, (key,)), texts)


def _texts(key: str, wanted: object) -> list[object]:
    texts = list(wanted) if isinstance(wanted, list | tuple) else [wanted]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise ConditionError(f"{key} takes a text or a list of texts, not {show(wanted)}")
    return texts


def _any_of(value: object, wanted: list[object]) -> bool:
    return any(same(value, one) for one in wanted)


def _exactly(key: str, wanted: object) -> Test:
    """An attribute of the caller's own: the same kind and the same value, case included."""
    return lambda attrs: key in attrs and _identical(attrs[key], wanted)


def _identical(value: object, wanted: object) -> bool:
    if isinstance(wanted, list | tuple):
        return (
            isinstance(value, list | tuple)
            and len(value) == len(wanted)
            and all(map(_identical, value, wanted))
        )
    return value == wanted if isinstance(value, str) and isinstance(wanted, str) else same(value, wanted)


_KINDS: dict[str, Callable[[str, object], Test]] = {
    "priority": _priority,
    "labels": _labels,
    "retry_count": _number,
    "hour_range": _hour_range,
    "hour": _number,
    "estimated_tokens": _number,
    "provider_status": _provider_status,
    "repo": _text,
    "author": _text,
    "title": _text,
    "failure_class": _text,
}
