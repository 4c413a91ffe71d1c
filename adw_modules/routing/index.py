"""Which rules can match a task, found from a few attributes at once instead of rule by rule.

A clause that looks at one attribute with few values (priority, labels, hour …) depends on that value
alone, so what all such clauses say of a value is worked out once, by their own tests, and kept as one bit
for each rule. The rules that are left after these bits are put together have only their other clauses
tested. Exact by construction: a bit is never anything but what the clause's test said. Must not know what
a condition means. See decision 0018.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from adw_modules.routing.attributes import Attrs, Reader, reader
from adw_modules.routing.clauses import Clause, Condition
from adw_modules.routing.meaning import Predicate, Test, predicate_of
from adw_modules.routing.vocabulary import Path

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


@dataclass(slots=True)
class _Column:
    """The clauses on one attribute. A set bit: as far as this attribute goes, the rule can match."""

    read: Reader
    everywhere: int  # all bits set
    clauses: list[tuple[int, Predicate]]  # the rule's bit, and what it asks
    remembered: dict[object, int]

    def of(self, value: object) -> int:
        try:
            key = value if value.__class__ in _SIMPLE else _key(value)
            found = self.remembered.get(key)
        except TypeError:  # somebody's list of lists: worked out each time
            return self._worked_out(value)
        if found is None:
            if len(self.remembered) >= _MOST_REMEMBERED:
                self.remembered.clear()
            found = self.remembered[key] = self._worked_out(value)
        return found

    def _worked_out(self, value: object) -> int:
        bits = self.everywhere
        for bit, predicate in self.clauses:
            if not predicate(value):
                bits &= ~bit
        return bits


_SIMPLE = frozenset({str, int, type(None)})  # one key each: no two of them that differ are equal


def _key(value: object) -> object:
    """1, 1.0 and True are one key to a dict, but not to a rule."""
    if isinstance(value, list):
        return (list, *(item if item.__class__ is str else (item.__class__, item) for item in value))
    return value.__class__, value


class RuleIndex:
    """The conditions of all rules, by their position."""

    def __init__(self, conditions: Sequence[Condition]) -> None:
        self._everywhere = (1 << len(conditions)) - 1
        columns: dict[Path, list[tuple[int, Predicate]]] = {}
        self._rest: list[tuple[Test, ...]] = []
        for position, condition in enumerate(conditions):
            rest = []
            for clause in condition.clauses:
                predicate = _predicate(clause)
                if predicate is None:
                    rest.append(clause.test)
                else:
                    columns.setdefault(clause.paths[0], []).append((1 << position, predicate))
            self._rest.append(tuple(rest))
        self._columns = [
            _Column(read=reader(path), everywhere=self._everywhere, clauses=clauses, remembered={})
            for path, clauses in sorted(columns.items(), key=lambda item: -len(item[1]))
        ]

    def matching(self, attrs: Attrs) -> Iterator[int]:
        """The positions of the rules that match, in order. Works only as far as it is asked."""
        left = self._everywhere
        for column in self._columns:
            left &= column.of(column.read(attrs))
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


def _predicate(clause: Clause) -> Predicate | None:
    """The test of one recurring value that the clause comes to; None when it is more than that."""
    if len(clause.paths) != 1 or clause.paths[0][0] not in _RECURRING:
        return None
    return predicate_of(clause.meaning)
