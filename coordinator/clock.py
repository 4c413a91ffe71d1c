"""The only place that reads the wall clock. Everything else is handed `now`."""

from __future__ import annotations

from datetime import UTC, datetime


def utc_now() -> datetime:
    """The current instant as aware UTC."""
    return datetime.now(UTC)  # noqa: TID251  this is the one place that may
