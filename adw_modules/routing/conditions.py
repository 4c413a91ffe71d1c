"""The structured spelling, `conditions = {…}`, and the door to the string spelling.

Each key becomes one clause; all must hold. A clause is the same tree of meaning that a text would become,
so that both spellings mean the same. Must not evaluate anything itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from adw_modules.routing.attributes import (
    as_labels,
    is_integer,
    is_number,
    nearest,
    no_word,
    rank,
    show,
    suggestion,
)
from adw_modules.routing.clauses import Clause, Condition, ConditionError, Match, clause, pointer
from adw_modules.routing.expressions import parse
from adw_modules.routing.meaning import Atom, Either, Every, Meaning, Own
from adw_modules.routing.vocabulary import (
    ANYTHING,
    ATTRIBUTES,
    KNOWN,
    STATUS,
    TASK_FIELDS,
    Attribute,
    Kind,
    Path,
)

__all__ = [
    "Clause",
    "Condition",
    "ConditionError",
    "Match",
    "compile_condition",
    "compile_conditions",
    "pointer",
]

HOURS = 24
KEYS = (*ATTRIBUTES, "hour_range")
MOST_ITEMS = 200  # of a list
LONGEST_TEXT = 500  # characters

_NUMBER_OPERATORS = {"gte": ">=", "lte": "<=", "eq": "==", "gt": ">", "lt": "<"}


def compile_condition(
    text: str, *, names: Collection[str] = ATTRIBUTES, only_known: bool = False
) -> Condition:
    """A string condition, ready to evaluate. `names` are the attributes it may use.

    With `only_known` also the fields of `task` have to be those that the daemon gives.
    Raises ConditionError with the position of the mistake, and nothing else.
    """
    return Condition(clauses=parse(text, names=names, only_known=only_known))


def compile_conditions(written: Mapping[str, object], *, only_known: bool = False) -> Condition:
    """A structured condition, ready to evaluate. Raises ConditionError.

    With `only_known` a key that the daemon gives no value to is refused, because it would never match.
    """
    return Condition(clauses=tuple(_clause(key, value, only_known) for key, value in written.items()))


def _clause(key: str, wanted: object, only_known: bool) -> Clause:
    _refuse_size(key, wanted)
    if key == "hour_range":
        meaning = _hour_range(wanted)
    elif key in KNOWN:
        meaning = _KINDS[KNOWN[key].kind]((key,), wanted, KNOWN[key], only_known)
    else:
        _refuse_misspelling(key, only_known)
        meaning = Own(path=(key,), value=wanted)
    return clause(f"{key} = {show(wanted)}", meaning)


def _refuse_size(key: str, wanted: object) -> None:
    values = list(wanted.values()) if isinstance(wanted, Mapping) else _several(wanted)
    if len(values) > MOST_ITEMS:
        raise ConditionError(f"{key} has more than {MOST_ITEMS} values; split it into several rules")
    if any(isinstance(value, str) and len(value) > LONGEST_TEXT for value in values):
        raise ConditionError(f"{key} has a text of more than {LONGEST_TEXT} characters")


def _refuse_misspelling(key: str, only_known: bool) -> None:
    """Any other attribute may be compared, but `label` or `prioritty` would be a rule that never matches."""
    meant = nearest(key, KEYS, cutoff=0.6 if only_known else 0.8)
    if meant:
        raise ConditionError(f'unknown condition "{key}"; did you mean {meant}?')
    if only_known:
        raise ConditionError(f'unknown condition "{key}"; known are {", ".join(KEYS)}')


def _name(path: Path) -> str:
    return ".".join(map(str, path))


def _several(wanted: object) -> list[object]:
    return list(wanted) if isinstance(wanted, list | tuple) else [wanted]


def _scale(path: Path, wanted: object, known: Attribute, _only_known: bool) -> Meaning:
    if isinstance(wanted, Mapping):
        return _comparisons(path, {name: _rank(path, one, known) for name, one in wanted.items()}, known)
    values = _several(wanted)
    if not values:
        raise ConditionError(f"{_name(path)} has an empty list, so it can never match")
    return Atom(path=path, operator="in", value=[_rank(path, value, known) for value in values])


def _rank(path: Path, value: object, known: Attribute) -> int:
    found = rank(value, known)
    if found is None:
        raise ConditionError(no_word(value, _name(path), known))
    return found


def _labels(path: Path, wanted: object, _known: Attribute, _only_known: bool) -> Meaning:
    names = as_labels(wanted)
    if not names or not all(isinstance(name, str) for name in names):
        raise ConditionError(f"{_name(path)} takes a list of names, any of which will do, not {show(wanted)}")
    return Either(parts=tuple(Atom(path=path, operator="contains", value=name) for name in names))


def _number(path: Path, wanted: object, known: Attribute, _only_known: bool) -> Meaning:
    if is_number(wanted):
        return Atom(path=path, operator="==", value=wanted)
    if not isinstance(wanted, Mapping) or not wanted:
        raise ConditionError(
            f"{_name(path)} takes a number or a comparison such as {{ gte = 1 }}, not {show(wanted)}"
        )
    return _comparisons(path, wanted, known)


def _comparisons(path: Path, wanted: Mapping[str, object], _known: Attribute) -> Meaning:
    if not wanted:
        raise ConditionError(f"{_name(path)} has an empty table; write a comparison such as {{ gte = 1 }}")
    return Every(parts=tuple(_comparison(path, name, bound) for name, bound in wanted.items()))


def _comparison(path: Path, name: object, bound: object) -> Meaning:
    sign = _NUMBER_OPERATORS.get(str(name))
    if sign is None:
        hint = suggestion(str(name), _NUMBER_OPERATORS)
        raise ConditionError(f'unknown comparison "{name}" for {_name(path)}; {hint}')
    if not is_number(bound):
        raise ConditionError(f"{_name(path)} compares with a number, not with {show(bound)}")
    return Atom(path=path, operator=sign, value=bound)


def _hour_range(wanted: object) -> Meaning:
    """Half-open, [start, end); wraps midnight when the start is later; equal ends are the whole day."""
    if not isinstance(wanted, list | tuple) or len(wanted) != 2 or not all(map(_is_hour, wanted)):
        raise ConditionError(
            f"hour_range takes two whole hours from 0 to 24, such as [22, 6], not {show(wanted)}"
        )
    start, end = wanted
    parts = (
        Atom(path=("hour",), operator=">=", value=start),
        Atom(path=("hour",), operator="<", value=end),
    )
    return Every(parts=parts) if start < end else Either(parts=parts)


def _is_hour(value: object) -> bool:
    return is_integer(value) and 0 <= value <= HOURS


def _table(path: Path, wanted: object, _known: Attribute, only_known: bool) -> Meaning:
    name = _name(path)
    is_status = name == "provider_status"
    if not isinstance(wanted, Mapping) or not wanted:
        example = (
            'provider names, such as { claude-cli = "down" }'
            if is_status
            else 'a table, such as { id = "gh-1" }'
        )
        raise ConditionError(f"{name} takes {example}, not {show(wanted)}")
    if is_status:
        return Every(
            parts=tuple(_words((name, str(key)), one, STATUS, only_known) for key, one in wanted.items())
        )
    return Every(parts=tuple(_field(str(key), one, only_known) for key, one in wanted.items()))


def _field(name: str, wanted: object, only_known: bool) -> Meaning:
    known = TASK_FIELDS.get(name, ANYTHING)
    if known is ANYTHING and only_known:
        raise ConditionError(f'task has no "{name}"; {suggestion(name, TASK_FIELDS)}')
    return _KINDS[known.kind](("task", name), wanted, known, only_known)


def _text(path: Path, wanted: object, _known: Attribute, _only_known: bool) -> Meaning:
    texts = _several(wanted)
    if not texts or not all(isinstance(text, str) for text in texts):
        raise ConditionError(f"{_name(path)} takes a text or a list of texts, not {show(wanted)}")
    return Atom(path=path, operator="in", value=texts)


def _words(path: Path, wanted: object, known: Attribute, only_known: bool) -> Meaning:
    for word in _several(wanted):
        if isinstance(word, str) and word.casefold() not in known.words:
            name = "status of a provider" if known is STATUS else _name(path)
            raise ConditionError(no_word(word, name, known))
    return _text(path, wanted, known, only_known)


def _anything(path: Path, wanted: object, _known: Attribute, _only_known: bool) -> Meaning:
    return Atom(path=path, operator="==", value=list(wanted) if isinstance(wanted, tuple) else wanted)


_KINDS: dict[Kind, Callable[[Path, object, Attribute, bool], Meaning]] = {
    Kind.SCALE: _scale,
    Kind.LIST: _labels,
    Kind.NUMBER: _number,
    Kind.TABLE: _table,
    Kind.TEXT: _text,
    Kind.WORD: _words,
    Kind.ANY: _anything,
}
