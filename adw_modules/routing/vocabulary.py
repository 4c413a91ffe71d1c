"""What rules may ask about a task: each attribute with its kind, its words, and what the daemon promises.

The one list of attributes. Both spellings, the checks at load, `route lint` and the documents follow it.
Must not know how values compare or how a condition is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from adw_modules.tasks.model import FailureClass, Outcome, Priority

Path = tuple[str | int, ...]


class Kind(StrEnum):
    """What values of an attribute are. The values of the enum stand in sentences for people."""

    NUMBER = "a number"
    TEXT = "a text"
    WORD = "one of a few words"
    SCALE = "one of a few words in an order"
    LIST = "a list"
    TABLE = "a table"
    ANY = "anything"  # what callers add of their own


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribute:
    """One thing to ask about. `words` of a scale stand in their order: the first is 0."""

    kind: Kind
    words: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)  # other spellings of `words`
    whole: bool = False  # no fractions
    least: int | None = None
    most: int | None = None
    given: bool = False  # the daemon always knows it, and within these bounds
    numbers: Mapping[str, int] = field(init=False)  # of the words of a scale

    def __post_init__(self) -> None:
        object.__setattr__(self, "numbers", {word: number for number, word in enumerate(self.words)})


WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
STATUSES = ("up", "degraded", "down", "cooling")
_FULL_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
# A run that failed without a class of its own, such as one that ran out of time, is known by its outcome.
_GOOD_ENDS = frozenset({Outcome.SUCCEEDED, Outcome.FAILED})
FAILURES = (*(each.value for each in FailureClass), *(o.value for o in Outcome if o not in _GOOD_ENDS))

_TEXT = Attribute(kind=Kind.TEXT)
_GIVEN_TEXT = Attribute(kind=Kind.TEXT, given=True)
_COUNT = Attribute(kind=Kind.NUMBER, whole=True, least=0)
_GIVEN_COUNT = Attribute(kind=Kind.NUMBER, whole=True, least=0, given=True)
STATUS = Attribute(kind=Kind.WORD, words=STATUSES)
ANYTHING = Attribute(kind=Kind.ANY)

KNOWN: Mapping[str, Attribute] = {
    "priority": Attribute(kind=Kind.SCALE, words=tuple(priority.word for priority in Priority), given=True),
    "labels": Attribute(kind=Kind.LIST, given=True),
    "retry_count": _GIVEN_COUNT,
    "hour": Attribute(kind=Kind.NUMBER, whole=True, least=0, most=23, given=True),
    "weekday": Attribute(
        kind=Kind.SCALE,
        words=WEEKDAYS,
        aliases=dict(zip(_FULL_WEEKDAYS, WEEKDAYS, strict=True)),
        given=True,
    ),
    "repo": _GIVEN_TEXT,
    "author": _GIVEN_TEXT,
    "title": _GIVEN_TEXT,
    "title_length": _GIVEN_COUNT,
    "body_length": _GIVEN_COUNT,
    "created_age_hours": Attribute(kind=Kind.NUMBER, least=0, given=True),
    "failure_class": Attribute(kind=Kind.WORD, words=FAILURES),
    "last_provider": _TEXT,
    "last_model": _TEXT,
    "provider_status": Attribute(kind=Kind.TABLE),
    "budget_left": Attribute(kind=Kind.NUMBER),
    "estimated_tokens": _COUNT,
    "context_needed": _COUNT,
    "task": Attribute(kind=Kind.TABLE),
}
TASK_FIELDS: Mapping[str, Attribute] = {
    "id": _GIVEN_TEXT,
    "name": _GIVEN_TEXT,
    "repo": _GIVEN_TEXT,
    "repo_id": _GIVEN_COUNT,
    "number": _GIVEN_COUNT,
    "title": _GIVEN_TEXT,
    "author": _GIVEN_TEXT,
    "triggered_by": _GIVEN_TEXT,
    "branch": _GIVEN_TEXT,
    "attempts": _GIVEN_COUNT,
    "runs": _GIVEN_COUNT,
    "lost": _GIVEN_COUNT,
    "tokens": _GIVEN_COUNT,
    "last_outcome": Attribute(kind=Kind.WORD, words=tuple(outcome.value for outcome in Outcome)),
    "pr_number": _COUNT,
}
ATTRIBUTES = tuple(KNOWN)


def attribute(path: Path) -> Attribute | None:
    """What a path leads to; None where nothing can be, as in `hour.x`. A name of a caller's own: anything."""
    head, *rest = path
    known = KNOWN.get(str(head))
    if known is None:
        return ANYTHING
    if not rest:
        return known
    match head, rest:
        case "provider_status", [str()]:
            return STATUS
        case "labels", [int()]:
            return _TEXT
        case "task", [str() as name, *deeper]:
            inner = TASK_FIELDS.get(name, ANYTHING)
            return inner if not deeper or inner is ANYTHING else None
    return None
