"""Foreign JSON read without trust: a value of the wrong kind is None, or empty, and never an exception.

Owns the reading of single values. Knows no field of any answer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

_NOTHING: Mapping[str, Any] = {}


def parsed(text: str | bytes) -> Any:
    """The JSON value. Raises ValueError for anything that is none, however it is broken."""
    try:
        return json.loads(text, parse_constant=_no_constant)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _no_constant(name: str) -> None:
    """NaN and the infinities are no JSON; as None they are simply missing."""


def mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else _NOTHING


def mappings(value: Any) -> tuple[Mapping[str, Any], ...]:
    """The objects among the elements of a list."""
    return tuple(item for item in value if isinstance(item, dict)) if isinstance(value, list) else ()


def text(value: Any) -> str | None:
    """A text that says something."""
    return value if isinstance(value, str) and value else None


def texts(value: Any) -> tuple[str, ...]:
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()


def whole(value: Any) -> int | None:
    """A whole number, also as a text or as a float without a fraction."""
    number = decimal(value)
    if number is None or abs(number) >= 10**18:
        return None
    return int(number) if number == number.to_integral_value() else None


def count(value: Any) -> int | None:
    """A whole number of 0 or more."""
    number = whole(value)
    return number if number is not None and number >= 0 else None


def decimal(value: Any) -> Decimal | None:
    """A finite number of any use, also as a text; a float as it was spelled."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = Decimal(str(value)[:64])
    except (ArithmeticError, ValueError):
        return None
    # Arithmetic with an exponent of millions raises.
    return number if number.is_finite() and abs(number.adjusted()) < 40 else None


def charge(value: Any) -> Decimal | None:
    """US dollars. A negative amount is none."""
    amount = decimal(value)
    return amount if amount is not None and 0 <= amount < 10**9 else None


def flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def moment(value: Any) -> datetime | None:
    """A point in time: ISO 8601, or seconds or milliseconds since 1970. Without a zone it is UTC."""
    number = decimal(value)
    try:
        if number is not None:
            seconds = float(number)
            return datetime.fromtimestamp(seconds / 1000 if seconds > 10**11 else seconds, UTC)
        found = datetime.fromisoformat(value)
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        return None


def one_line(value: Any, *, most: int = 300) -> str:
    """A text for people: printable, on one line, no longer than `most` characters."""
    if not isinstance(value, str):
        return ""
    # What comes in may be a page of megabytes; nobody reads beyond its beginning.
    plain = "".join(char if char.isprintable() else " " for char in value[: 4 * most])
    words = " ".join(plain.split())
    return words if len(words) <= most else f"{words[: most - 1]}…"
