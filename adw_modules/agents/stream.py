"""What an agent's output means, in words every dialect shares: events, final record, summary.

Owns the common types, the splitting of bytes into lines, and the cleaning of foreign text for people.
Must not know any one program's record names, read files or decide what an outcome is.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Protocol

from adw_modules.tasks.model import ModelUsage, Usage

MAX_LINE_BYTES = 16 * 1024 * 1024
UNNAMED_MODEL = (
    "unknown"  # of a program that does not say which model it used; the run knows what it asked for
)
TAIL_LINES = 20
TAIL_WIDTH = 300

_TERMINAL_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalRecord:
    """The agent's own last word about its run. A field the record did not hold is None."""

    is_error: bool
    subtype: str
    terminal_reason: str | None
    api_error_status: int | None
    num_turns: int | None
    duration_ms: int | None
    duration_api_ms: int | None
    result_text: str
    cost_usd: Decimal | None  # as the record says it; may count a whole resumed session


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The agent has read its settings and opened a session."""

    session_id: str | None
    model: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """The agent said something."""

    snippet: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolUse:
    """The agent called a tool."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """A request to the provider failed, and the agent will send it again by itself."""

    error_status: int | None  # the HTTP status; None for network errors
    error: str | None  # the program's own word, e.g. "authentication_failed"
    attempt: int
    max_retries: int
    delay: timedelta
    resets_at: datetime | None = None  # until when the provider limits, where it said so


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """The provider told how much of an account's allowance is left."""

    status: str  # "allowed", "allowed_warning" or "rejected"
    resets_at: datetime | None
    remaining: int | None = None  # requests until then; None: not said
    limit: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A turn ended with the agent's final record."""

    record: FinalRecord


AgentEvent = Started | Text | ToolUse | Retry | RateLimit | Finished


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSummary:
    """All that the output so far tells about a run."""

    usage: Usage
    final: FinalRecord | None = None
    final_expected: bool = True  # False for a dialect that has no final record
    last_lines: tuple[str, ...] = ()  # for people, oldest first; cleaned and cut
    session_id: str | None = None
    model: str | None = None
    permission_denials: int = 0
    api_error_status: int | None = None  # HTTP status of the error the agent gave up on
    api_error: str | None = None  # the program's word for that error, e.g. "billing_error"
    retry_statuses: tuple[int, ...] = ()  # distinct HTTP statuses of requests it tried again, in order
    rate_limit_status: str | None = None
    rate_limit_resets_at: datetime | None = None
    retry_after: timedelta | None = None  # how long the error it gave up on asked to wait


def with_model(usage: Usage, model: str) -> Usage:
    """Tokens of a model that the program did not name are those of the one it was asked to use."""
    if UNNAMED_MODEL not in usage.by_model:
        return usage
    by_model = dict(usage.by_model)
    tokens = by_model.pop(UNNAMED_MODEL)
    return replace(usage, by_model={**by_model, model: by_model.get(model, ModelUsage()) + tokens})


class StreamParser(Protocol):
    """Reads one run's output as it grows. How the bytes are cut into chunks changes nothing."""

    def feed(self, data: bytes) -> list[AgentEvent]:
        """Take the next bytes and return what they complete. Never raises, whatever the bytes are."""
        ...

    def finish(self) -> StreamSummary:
        """Return what is known if the output ends here. Changes nothing; more may be fed afterwards."""
        ...


class LineSplitter:
    """Cuts a byte stream into lines without ever holding more than one line of `limit` bytes."""

    def __init__(self, limit: int = MAX_LINE_BYTES) -> None:
        self._limit = limit
        self._pending = bytearray()
        self._overlong = False

    def feed(self, data: bytes) -> Iterator[bytes | None]:
        """Yield each completed line without its newline; None stands for a line over the limit."""
        *whole, last = data.split(b"\n")
        for line in whole:
            if self._pending or self._overlong or len(line) > self._limit:
                self._take(line)
                yield None if self._overlong else bytes(self._pending)
                self._pending.clear()
                self._overlong = False
            else:  # nearly all: not copied again
                yield line
        self._take(last)

    @property
    def rest(self) -> bytes:
        """The last line as far as it has come."""
        return bytes(self._pending)

    def _take(self, part: bytes) -> None:
        if self._overlong:
            return
        if len(self._pending) + len(part) > self._limit:
            self._overlong = True
            self._pending.clear()
        else:
            self._pending += part


class Tail:
    """The last lines worth showing to a person."""

    def __init__(self, lines: tuple[str, ...] = ()) -> None:
        self._lines = deque(lines, maxlen=TAIL_LINES)

    def add(self, text: str) -> None:
        """Append each line of `text`, cleaned, without empty lines and repeats of the line before."""
        for line in last_text_lines(text):
            self.add_line(line)

    def add_line(self, line: str) -> None:
        """Append what `one_line` returned, unless it is empty or repeats the line before."""
        if line and (not self._lines or self._lines[-1] != line):
            self._lines.append(line)

    def lines(self) -> tuple[str, ...]:
        return tuple(self._lines)


def last_text_lines(text: str) -> list[str]:
    """The last lines of a text that may be megabytes long."""
    end_of_text = text[-TAIL_LINES * TAIL_WIDTH * 4 :]
    cleaned = (one_line(line) for line in end_of_text.splitlines())
    return [line for line in cleaned if line][-TAIL_LINES:]


def one_line(text: str, width: int = TAIL_WIDTH) -> str:
    """One printable line of at most `width` characters.

    Control characters, terminal escapes and lone surrogates go: the text comes from a foreign program
    and ends in terminals, the store and GitHub comments.
    """
    if len(text) <= width and text.isprintable():  # as nearly all are
        return " ".join(text.split())
    cut = " ".join(_TERMINAL_COLOURS.sub("", text[: width * 4]).split())
    clean = "".join(character for character in cut if character.isprintable())
    return clean if len(clean) <= width else clean[: width - 1] + "…"


def clean_text(text: str, limit: int) -> str:
    """Several printable lines of at most `limit` characters together."""
    kept = (character for character in text[:limit] if character.isprintable() or character == "\n")
    return "".join(kept).strip()
