"""What a rule leads to, as the operator wrote it: fixed targets, a spread over several, or a selection.

Owns their spellings and the order among the targets of one rule. A selection by a word (`select = "…"`) is
worked out by whoever provides a `Resolver` for that word. Must not ask whether a target can be used.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from adw_modules.routing.attributes import Attrs, is_integer, show, suggestion
from adw_modules.routing.clauses import ConditionError
from adw_modules.routing.options import ADAPTIVE, CHEAPEST, problem_of_adaptive, problem_of_cheapest
from adw_modules.routing.trace import Target

MOST_WEIGHT = 1000
_FIXED_KEYS = ("provider", "model", "weight")


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedTarget:
    """A provider and a model; a missing half comes from the models and the defaults."""

    provider: str | None = None
    model: str | None = None
    weight: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectTarget:
    """`{ select = "cheapest", … }`: found anew for each task. `options` are the other keys, checked."""

    select: str
    options: Mapping[str, Any] = field(default_factory=dict)


TargetSpec = FixedTarget | SelectTarget


@dataclass(frozen=True, slots=True, kw_only=True)
class Selected:
    """What a selection came to: targets, best first, and why, as plain JSON data for the trace."""

    targets: tuple[Target, ...]
    why: Any = None


class Resolver(Protocol):
    """Works out the selections of one word. Pure: the same arguments give the same answer.

    `now` is None where the caller has no clock.
    """

    def __call__(self, spec: SelectTarget, attrs: Attrs, now: datetime | None) -> Selected: ...


# The words of `select`, each with the check of its options: what is wrong with them, as the rest of a
# sentence, or None. A word that is not here is refused when the configuration is read.
SELECTORS: dict[str, Callable[[Mapping[str, Any]], str | None]] = {
    CHEAPEST: problem_of_cheapest,
    ADAPTIVE: problem_of_adaptive,
}


def target_spec(written: object) -> TargetSpec:
    """`"provider/model"`, `{ provider, model, weight }` or `{ select = "…", … }`. Raises ConditionError."""
    if isinstance(written, str):
        provider, _, model = written.partition("/")
        if not (provider.strip() and model.strip()):
            raise ConditionError(f'a target is written "provider/model", not {show(written)}')
        return FixedTarget(provider=provider.strip(), model=model.strip())
    if not isinstance(written, Mapping):
        raise ConditionError(f'a target is a text "provider/model" or a table, not {show(written)}')
    return _selection(written) if "select" in written else _fixed(written)


def _fixed(table: Mapping[str, Any]) -> FixedTarget:
    for key in table:
        if key not in _FIXED_KEYS:
            raise ConditionError(f'a target has no key "{key}"; {suggestion(key, (*_FIXED_KEYS, "select"))}')
    given = {key: table.get(key) for key in ("provider", "model")}
    for key, value in given.items():
        if value is not None and not (isinstance(value, str) and value.strip()):
            raise ConditionError(f"{key} of a target is a text, not {show(value)}")
    if not any(given.values()):
        raise ConditionError("a target needs a provider, a model, or both")
    return FixedTarget(**given, weight=_weight(table.get("weight", 1)))


def _weight(value: object) -> int:
    if not is_integer(value) or not 1 <= value <= MOST_WEIGHT:
        raise ConditionError(f"weight is a whole number from 1 to {MOST_WEIGHT}, not {show(value)}")
    return value


def _selection(table: Mapping[str, Any]) -> SelectTarget:
    word, options = table["select"], {key: value for key, value in table.items() if key != "select"}
    check = SELECTORS.get(word) if isinstance(word, str) else None
    if check is None:
        known = suggestion(str(word), SELECTORS) if SELECTORS else "this version selects by none"
        raise ConditionError(f"there is no selection {show(word)}; {known}")
    problem = check(options)
    if problem:
        raise ConditionError(f'select = "{word}": {problem}')
    return SelectTarget(select=str(word), options=options)


def spread(seed: str, weighted: Sequence[tuple[Target, int]]) -> list[Target]:
    """The targets in the order that `seed` gives them: each is first for its weight's share of all seeds.

    Weighted rendezvous hashing: the same seed has the same order for ever, and a target that comes or goes
    moves only the seeds that were or become its own.
    """
    return [target for target, _ in sorted(weighted, key=lambda each: (_score(seed, *each), str(each[0])))]


def _score(seed: str, target: Target, weight: int) -> float:
    digest = hashlib.sha256(f"{seed}\0{target.provider}\0{target.model}".encode(errors="replace")).digest()
    share = (int.from_bytes(digest[:6]) + 0.5) / 2**48  # in (0, 1), and exact in a float
    return -math.log(share) / weight


def repeated(targets: Iterable[Target]) -> Target | None:
    """The first target that stands in a chain for the second time: asked again, it would be a loop."""
    seen: set[Target] = set()
    for target in targets:
        if target in seen:
            return target
        seen.add(target)
    return None
