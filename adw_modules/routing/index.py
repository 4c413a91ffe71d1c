"""Which rules can match a task, found from a few attributes at once instead of rule by rule.

A clause that looks at one attribute with few values (priority, labels, hour …) depends on that value
alone, so what all such clauses say of a value is worked out once, by their own tests, and kept as one bit
for each rule. The rules that are left after these bits are put together have only their other clauses
tested. Exact by construction: a bit is never anything but what the clause's test said. Must not know what
a condition means. See decision 0018.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from adw_modules.routing.attributes import Attrs, Reader, raw, reader
from adw_modules.routing.clauses import Clause, Condition
from adw_modules.routing.meaning import Predicate, Test, compares_numbers, numbers_of, predicate_of
from adw_modules.routing.vocabulary import Kind, Path, attribute

# Attributes whose values come again and again. Others would fill the memory and be found there seldom.
_RECURRING = frozenset(
    {
        "priority",
        "labels",
        "retry_count",
        "hour",
        "weekday",
        "repo",
        "author",
        "failure_class",
        "last_provider",
        "last_model",
        "provider_status",
    }
)
_MOST_REMEMBERED = 4096  # values of one attribute; then it begins anew


@dataclass(slots=True, kw_only=True)
class _Column:
    """The clauses on one attribute. A set bit: as far as this attribute goes, the rule can match.

    Remembered is by the value as it was given; `read` makes of it what the clauses compare.
    """

    path: Path
    read: Reader
    everywhere: int  # all bits set
    clauses: list[tuple[int, Predicate]]  # the bits of all rules that ask the same, and what they ask
    remembered: dict[object, int] = field(default_factory=dict)

    def bits(self, attrs: Attrs) -> int:
        given: Any = raw(attrs, self.path)
        kind = given.__class__
        try:
            key = given if kind in _SIMPLE else tuple(given) if kind is list else (kind, given)
            found = self.remembered.get(key)
        except TypeError:  # somebody's list of lists: worked out each time
            return self.worked_out(self.read(attrs))
        return self.remember(key, self.read(attrs)) if found is None else found

    def remember(self, key: object, value: object) -> int:
        if len(self.remembered) >= _MOST_REMEMBERED:
            self.remembered.clear()
        found = self.remembered[key] = self.worked_out(value)
        return found

    def worked_out(self, value: object) -> int:
        bits = self.everywhere
        for bit, predicate in self.clauses:
            if not predicate(value):
                bits &= ~bit
        return bits


# One key each: no two values of these classes that differ are equal. Others go with their class, because
# 1, 1.0 and True are one key to a dict. Items of a list need not: only a text in it can make a clause hold.
_SIMPLE = frozenset({str, int, type(None)})
_AS_IT_IS = object()  # of no simple class: the column looks by itself


@dataclass(slots=True, kw_only=True)
class _Thresholds(_Column):
    """The same for numbers that never come again: between two numbers of the clauses nothing changes."""

    numbers: list[int | float]  # all that the clauses compare with, in order

    def bits(self, attrs: Attrs) -> int:
        value = self.read(attrs)
        if value.__class__ not in _NUMBERS or value != value:  # noqa: PLR0124  NaN has no place
            return self.worked_out(value)
        number = cast("int | float", value)
        place = bisect_left(self.numbers, number) + bisect_right(self.numbers, number)
        found = self.remembered.get(place)
        return self.remember(place, value) if found is None else found


_NUMBERS = frozenset({int, float})


class RuleIndex:
    """The conditions of all rules, by their position."""

    def __init__(self, conditions: Sequence[Condition]) -> None:
        self._everywhere = (1 << len(conditions)) - 1
        asked: dict[Path, list[tuple[int, Clause]]] = {}
        self._rest: list[tuple[Test, ...]] = []
        for position, condition in enumerate(conditions):
            rest = []
            for clause in condition.clauses:
                if _column_of(clause) is None:
                    rest.append(clause.test)
                else:
                    asked.setdefault(clause.paths[0], []).append((1 << position, clause))
            self._rest.append(tuple(rest))
        by_use = sorted(asked.items(), key=lambda item: -len(item[1]))
        self._columns = [self._column(path, clauses) for path, clauses in by_use]
        # What nearly every value of nearly every column comes to, without a call: see `matching`.
        self._steps = [
            (each.path[0], each.path[1] if len(each.path) > 1 else None, each.remembered, each)
            for each in self._columns
            if not isinstance(each, _Thresholds) and len(each.path) <= 2
        ]
        inlined = {id(step[-1]) for step in self._steps}
        self._others = [each for each in self._columns if id(each) not in inlined]

    def _column(self, path: Path, asked: list[tuple[int, Clause]]) -> _Column:
        alike: dict[str, int] = {}
        found: dict[str, Predicate] = {}
        for bit, clause in asked:
            predicate, spelt = (
                predicate_of(clause.meaning),
                repr(clause.meaning),
            )  # to `==`, 1 and True are one
            if predicate is not None:
                alike[spelt] = alike.get(spelt, 0) | bit
                found[spelt] = predicate
        clauses = [(bits, found[spelt]) for spelt, bits in alike.items()]
        read = reader(path)
        if path[0] in _RECURRING:
            return _Column(path=path, read=read, everywhere=self._everywhere, clauses=clauses)
        numbers = sorted({number for _, clause in asked for number in numbers_of(clause.meaning)})
        return _Thresholds(
            path=path, read=read, everywhere=self._everywhere, clauses=clauses, numbers=numbers
        )

    def matching(self, attrs: Attrs) -> Iterator[int]:
        """The positions of the rules that match, in order. Works only as far as it is asked."""
        left = self._everywhere
        for head, key, remembered, column in self._steps:
            value = attrs.get(head)
            if key is not None and value is not None:
                value = value.get(key) if value.__class__ is dict else _AS_IT_IS
            found = remembered.get(value) if value.__class__ in _SIMPLE else None
            left &= column.bits(attrs) if found is None else found
            if not left:
                return
        for column in self._others:
            left &= column.bits(attrs)
            if not left:
                return
        while left:
            bit = left & -left
            position = bit.bit_length() - 1
            for test in self._rest[position]:
                if not test(attrs):
                    break
            else:
                yield position
            left ^= bit


def _column_of(clause: Clause) -> Path | None:
    """The attribute whose value alone decides the clause, if it is one to remember values of."""
    if len(clause.paths) != 1 or predicate_of(clause.meaning) is None:
        return None
    path = clause.paths[0]
    known = attribute(path)
    is_number = known is not None and known.kind is Kind.NUMBER
    return path if path[0] in _RECURRING or (is_number and compares_numbers(clause.meaning)) else None
