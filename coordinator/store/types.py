"""Column types: how our values are written down. Owns the spelling of times, money, enums and JSON.

Knows nothing of tables. Every type round-trips exactly on SQLite and PostgreSQL.
"""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache
from typing import Any, TypeVar

from sqlalchemy import BigInteger, DateTime, Integer, SmallInteger, String, Text
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

from adw_modules.security.admission import KeptComment
from adw_modules.tasks.model import FailedTarget, Override, Priority

E = TypeVar("E", bound=StrEnum)

# SQLite numbers rows by itself only in a column called INTEGER, which has 64 bits there.
RowId = BigInteger().with_variant(Integer(), "sqlite")


class UtcTime(TypeDecorator[datetime]):
    """An instant. Aware times of any zone go in, aware UTC comes out; a naive time is a bug and refused."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"the store takes aware times only, not {value!r}")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        # SQLite keeps the digits and forgets the zone; PostgreSQL answers in the session's zone.
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class CleanText(TypeDecorator[str]):
    """Text from anywhere: what a database cannot hold (NUL, half a surrogate pair) becomes a visible mark."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else clean_text(value)


class DecimalText(TypeDecorator[Decimal]):
    """US dollars as text: SQLite has no exact number type, and money is never a float."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> str | None:
        return None if value is None else format(value, "f")

    def process_result_value(self, value: str | None, dialect: Dialect) -> Decimal | None:
        return None if value is None else Decimal(value)


class EnumText(TypeDecorator[E]):
    """A StrEnum by its value. A value this version does not know raises ValueError when read."""

    impl = String(32)
    cache_ok = True

    def __init__(self, kind: type[E]) -> None:
        super().__init__()
        self.kind = kind

    def process_bind_param(self, value: E | None, dialect: Dialect) -> str | None:
        return None if value is None else self.kind(value).value

    def process_result_value(self, value: str | None, dialect: Dialect) -> E | None:
        return None if value is None else self.kind(value)


class PriorityNumber(TypeDecorator[Priority]):
    """A priority as its number, so that the order of an index is the order of dispatch."""

    impl = SmallInteger
    cache_ok = True

    def process_bind_param(self, value: Priority | None, dialect: Dialect) -> int | None:
        return None if value is None else int(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> Priority | None:
        return None if value is None else Priority(value)


class LabelText(TypeDecorator[tuple[str, ...]]):
    """Labels as a JSON list, order kept."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: tuple[str, ...] | None, dialect: Dialect) -> str | None:
        return None if value is None else json.dumps(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> tuple[str, ...] | None:
        return None if value is None else _labels(value)


class FailedText(TypeDecorator[tuple[FailedTarget, ...]]):
    """Where a task has failed, as a JSON list."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: tuple[FailedTarget, ...] | None, dialect: Dialect) -> str | None:
        return None if value is None else json.dumps(value, default=_plain)

    def process_result_value(self, value: str | None, dialect: Dialect) -> tuple[FailedTarget, ...] | None:
        return _failed(value) if value else ()


class OverrideText(TypeDecorator[tuple[Override, ...]]):
    """Labels that ask for a target, as a JSON list."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: tuple[Override, ...] | None, dialect: Dialect) -> str | None:
        return None if value is None else json.dumps(value, default=_plain)

    def process_result_value(self, value: str | None, dialect: Dialect) -> tuple[Override, ...] | None:
        return _overrides(value) if value else ()


class CommentText(TypeDecorator[tuple[KeptComment, ...]]):
    """Comments that were admitted with a text, as a JSON list."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: tuple[KeptComment, ...] | None, dialect: Dialect) -> str | None:
        return None if value is None else json.dumps(value, default=_plain)

    def process_result_value(self, value: str | None, dialect: Dialect) -> tuple[KeptComment, ...] | None:
        found = json.loads(value) if value and value != "[]" else []
        return tuple(KeptComment(**{**each, "at": datetime.fromisoformat(each["at"])}) for each in found)


class JsonText(TypeDecorator[Any]):
    """Anything JSON can say; dataclasses become objects, other foreign values their text."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str:
        return json.dumps(value, default=_plain)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        return None if value is None else json.loads(value)


def clean_text(value: str) -> str:
    """The text as every database can hold it. Agents print bytes, and JSON can spell broken characters."""
    if "\0" in value:
        value = value.replace("\0", "\ufffd")
    return value if value.isascii() else value.encode("utf-8", "replace").decode("utf-8")


# Rows are read far more often than they change, and most of them say the same: nothing.


@lru_cache(maxsize=1024)
def _labels(text: str) -> tuple[str, ...]:
    return tuple(json.loads(text))


@lru_cache(maxsize=256)
def _failed(text: str) -> tuple[FailedTarget, ...]:
    found = json.loads(text)
    return tuple(FailedTarget(**{**each, "until": datetime.fromisoformat(each["until"])}) for each in found)


@lru_cache(maxsize=256)
def _overrides(text: str) -> tuple[Override, ...]:
    return tuple(Override(**each) for each in json.loads(text))


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: getattr(value, item.name) for item in fields(value)}
    return str(value)
