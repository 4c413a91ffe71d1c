"""How values of a task are read, compared and shown. The one semantics behind both spellings.

Values come from anywhere (GitHub, a caller's dict), so nothing here may raise on a value: what is
missing, null or of the wrong kind compares as false. Text compares without regard to case, because
labels, repositories and accounts do so at GitHub. Must not know about syntax, rules or providers.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable, Mapping
from decimal import Decimal
from typing import Any, TypeGuard

from adw_modules.routing.vocabulary import KNOWN, Attribute, Kind, Path

Attrs = Mapping[Any, Any]
Compare = Callable[[object, object], bool]
Reader = Callable[[Attrs], object]

_LONGEST_TEXT = 80
_MOST_ITEMS = 20
_WIDEST_INT = 64  # bits; longer numbers cannot be turned into text in bounded time


def reader(path: Path) -> Reader:
    """What gets the value at `path` as it compares, or None when any step of it is missing."""
    head, *rest = path
    known = KNOWN.get(str(head))
    if rest:
        return _reader_of_part(path)
    if known is not None and known.kind is Kind.SCALE:
        return lambda attrs: rank(attrs.get(head), known)
    if known is not None and known.kind is Kind.LIST:
        return lambda attrs: as_labels(attrs.get(head))
    return lambda attrs: attrs.get(head)


def _reader_of_part(path: Path) -> Reader:
    if len(path) > 2:
        return lambda attrs: raw(attrs, path)
    head, key = path

    def part(attrs: Attrs) -> object:
        whole = attrs.get(head)
        return whole.get(key) if whole.__class__ is dict else _step(whole, key)

    return part


def raw(attrs: Attrs, path: Path) -> object:
    """The value at `path` as it was given."""
    value: object = attrs
    for key in path:
        value = _step(value, key)
    return value


def _step(value: object, key: str | int) -> object:
    if isinstance(value, Mapping):
        return value.get(key)
    if isinstance(key, int) and isinstance(value, list | tuple) and key < len(value):
        return value[key]
    return None


def rank(value: object, scale: Attribute) -> int | None:
    """A word of a scale as its number, from the number or the word; None for anything else."""
    if value.__class__ is str and value in scale.numbers:  # as nearly all are written
        return scale.numbers[value]
    if isinstance(value, str):
        word = value.casefold()
        word = scale.aliases.get(word, word)
        return scale.words.index(word) if word in scale.words else None
    if is_integer(value) and 0 <= value < len(scale.words):
        return int(value)
    return None


def as_labels(value: object) -> list[object] | None:
    """Labels as a list, whatever collection they came in; one bare label is a list of one."""
    if value.__class__ is list:
        return value
    if isinstance(value, str):
        return [value]
    return list(value) if isinstance(value, list | tuple | set | frozenset) else None


def is_integer(value: object) -> TypeGuard[int]:
    """bool is an int to Python, but not to a rule."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[int | float | Decimal]:
    """A number that compares with every other one, so neither NaN nor a Decimal without an end."""
    if value.__class__ is int:
        return True
    if isinstance(value, int | float):
        return not isinstance(value, bool) and value == value  # noqa: PLR0124  only NaN differs from itself
    return isinstance(value, Decimal) and value.is_finite()


def same(left: object, right: object) -> bool:
    """Equal in kind and value; nothing equals a missing value."""
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(map(_same_scalar, left, right))
    return _same_scalar(left, right)


def _same_scalar(left: object, right: object) -> bool:
    if isinstance(left, str) and isinstance(right, str):
        return left.casefold() == right.casefold()
    if is_number(left) and is_number(right):
        return left == right
    return isinstance(left, bool) and isinstance(right, bool) and left is right


def differs(left: object, right: object) -> bool:
    """Both are there and not the same. A missing value does not differ: it is unknown."""
    return left is not None and right is not None and not same(left, right)


def ordered(compare: Callable[[Any, Any], bool]) -> Compare:
    """`compare` for two numbers; false for anything else."""
    return lambda left, right: is_number(left) and is_number(right) and compare(left, right)


def holds(whole: object, part: object) -> bool:
    """A list holds an equal item; a text holds a piece of itself."""
    if isinstance(whole, str):
        return isinstance(part, str) and part.casefold() in whole.casefold()
    return isinstance(whole, list | tuple) and any(_same_scalar(item, part) for item in whole)


def starts_with(whole: object, start: object) -> bool:
    text, piece = _text(whole), _text(start)
    return text is not None and piece is not None and text.startswith(piece)


def ends_with(whole: object, end: object) -> bool:
    text, piece = _text(whole), _text(end)
    return text is not None and piece is not None and text.endswith(piece)


def _text(value: object) -> str | None:
    """Text as it compares. Whole numbers count as text here: issue numbers are ids, not quantities."""
    if isinstance(value, str):
        return value.casefold()
    return str(int(value)) if is_integer(value) and value.bit_length() <= _WIDEST_INT else None


def nearest(word: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """The known word most like `word`, if any is like it."""
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)
    return matches[0] if matches else None


def suggestion(word: str, known: Collection[str]) -> str:
    """The end of an error sentence: the nearest valid word, or all of them."""
    found = nearest(word, known)
    return f"did you mean {found}?" if found else f"known are {', '.join(known)}"


def no_word(value: object, name: str, known: Attribute) -> str:
    """The error sentence for something written where a word of `known` belongs."""
    meant = nearest(value, (*known.words, *known.aliases)) if isinstance(value, str) else None
    hint = f"did you mean {meant}?" if meant else suggestion("", known.words)
    numbers = f" (or 0 to {len(known.words) - 1})" if known.kind is Kind.SCALE else ""
    return f"{show(value)} is no {name}; {hint}{numbers}"


def spell(path: Path) -> str:
    """A path as a rule writes it: `provider_status['claude-cli']`."""
    text = str(path[0])
    for key in path[1:]:
        plain = isinstance(key, str) and key.isidentifier()
        text += f".{key}" if plain else f"[{key!r}]"
    return text


def show(value: object, *, depth: int = 3) -> str:
    """`value` for a log line or a trace: like `repr`, but short, and safe for values of any size and kind."""
    if value is None or isinstance(value, bool | float):
        return repr(value)
    if isinstance(value, str):
        plain = str(value)
        return repr(plain if len(plain) <= _LONGEST_TEXT else plain[: _LONGEST_TEXT - 1] + "…")
    if isinstance(value, Decimal):
        return format(value)[:_LONGEST_TEXT]
    if isinstance(value, int):
        return str(int(value)) if value.bit_length() <= _WIDEST_INT else "a very large number"
    if depth and isinstance(value, Mapping):
        pairs = [f"{show(key, depth=0)}: {show(item, depth=depth - 1)}" for key, item in value.items()]
        return "{" + _join(pairs) + "}"
    if depth and isinstance(value, list | tuple | set | frozenset):
        return "[" + _join([show(item, depth=depth - 1) for item in value]) + "]"
    return type(value).__name__


def _join(parts: list[str]) -> str:
    shown = parts[:_MOST_ITEMS]
    return ", ".join(shown if len(parts) <= _MOST_ITEMS else [*shown, "…"])
