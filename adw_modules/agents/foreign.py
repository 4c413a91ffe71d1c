"""Foreign values, whatever their type, into ours: nothing here raises.

Owns how a line becomes a JSON object and what counts as a number, a word, money or a moment in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal

from adw_modules.agents.stream import one_line

Json = Mapping[str, object]

MOST_TOKENS = 10**15  # beyond it a number is damage, and would not fit the store either
MOST_DOLLARS = 10**9

# Decimal keeps money exact; NaN and Infinity are not JSON and become null.
_DECODER = json.JSONDecoder(parse_float=Decimal, parse_constant=lambda _name: None)


def parse_object(line: bytes) -> Json | None:
    if not line.lstrip().startswith(b"{"):  # a failing decoder takes far longer
        return None
    try:
        value = _DECODER.decode(line.decode("utf-8", "replace"))
    except (ValueError, ArithmeticError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def mapping(value: object) -> Json:
    return value if isinstance(value, dict) else {}


def items(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def text_of(value: object) -> str:
    return value if isinstance(value, str) else ""


def word(value: object) -> str:
    return one_line(value) if isinstance(value, str) else ""


def number(value: object) -> int | None:
    """A whole number from 0 to `MOST_TOKENS`; None for anything else."""
    if type(value) is int:  # no bool
        return value if 0 <= value <= MOST_TOKENS else None
    if not isinstance(value, Decimal) or not 0 <= value <= MOST_TOKENS:
        return None
    return int(value) if value == int(value) else None


def money(value: object) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | Decimal) or not 0 <= value <= MOST_DOLLARS:
        return None
    return Decimal(value)


def http_status(value: object) -> int | None:
    found = number(value)
    return found if found is not None and 100 <= found <= 599 else None


def instant(value: object) -> datetime | None:
    """A moment given as seconds since 1970 (some versions: milliseconds)."""
    found = number(value)
    if found is None:
        return None
    seconds = found // 1000 if found > 10**11 else found
    return datetime.fromtimestamp(seconds, tz=UTC) if seconds < 10**11 else None
