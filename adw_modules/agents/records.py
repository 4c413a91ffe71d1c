"""Reading a program that prints one JSON object a line: what all such dialects do alike.

Owns lines, damage, plain text in between, and the last line that still grows. Must not know any one
program's record names: a dialect brings a state whose `readers` do.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from adw_modules.agents.foreign import Json, parse_object, text_of, word
from adw_modules.agents.stream import (
    AgentEvent,
    FinalRecord,
    LineSplitter,
    RateLimit,
    Retry,
    StreamParser,
    StreamSummary,
    Tail,
    Text,
    ToolUse,
    one_line,
)
from adw_modules.money.usage import UsageLedger
from adw_modules.tasks.model import UsageSource

SKIPPED_LINE = "(a line over 16 MiB was skipped)"


class RecordState:
    """What the lines so far have told. `readers`: what a record's field `kind` says -> who takes it."""

    kind: ClassVar[str] = "type"
    readers: ClassVar[Mapping[str, Callable[[Any, Json], list[AgentEvent]]]] = {}

    def __init__(self) -> None:
        self.ledger = UsageLedger()
        self.tail = Tail()
        self.final: FinalRecord | None = None
        self.session_id: str | None = None
        self.model: str | None = None
        self.api_error_status: int | None = None
        self.api_error: str | None = None
        self.retry_statuses: list[int] = []
        self.rate_limit: RateLimit | None = None

    def read(self, line: bytes | None) -> list[AgentEvent]:
        """Take one line; None stands for one that was too long."""
        if line is None:
            self.tail.add(SKIPPED_LINE)
            return []
        record = parse_object(line)
        if record is None:
            # A damaged record starts like one and is of no use to a reader; anything else is a message.
            if not line.lstrip().startswith(b"{"):
                self.tail.add(line.decode("utf-8", "replace"))
            return []
        reader = self.readers.get(word(record.get(self.kind)))
        return reader(self, record) if reader else []

    def summary(self) -> StreamSummary:
        limit = self.rate_limit
        return StreamSummary(
            usage=self.ledger.usage(),
            final=self.final,
            last_lines=self.tail.lines(),
            session_id=self.session_id,
            model=self.model,
            api_error_status=self.api_error_status,
            api_error=self.api_error,
            retry_statuses=tuple(self.retry_statuses),
            rate_limit_status=limit.status if limit else None,
            rate_limit_resets_at=limit.resets_at if limit else None,
        )

    # -- what records often say -------------------------------------------------------------------

    def said(self, value: object) -> list[AgentEvent]:
        """The agent's own words: into the tail, and one event."""
        text = text_of(value)
        self.tail.add(text)
        snippet = one_line(text)
        return [Text(snippet=snippet)] if snippet else []

    def used(self, tool: object) -> list[AgentEvent]:
        name = word(tool) or "?"
        self.tail.add(f"→ {name}")
        return [ToolUse(name=name)]

    def retried(self, retry: Retry) -> list[AgentEvent]:
        status = retry.error_status
        if status is not None and status not in self.retry_statuses:
            self.retry_statuses.append(status)
        why = " ".join(str(part) for part in (status, retry.error) if part)
        self.tail.add(f"retry {retry.attempt} after {why or 'a network error'}")
        return [retry]

    def overcame_errors(self) -> None:
        """The work went on: an earlier error is not the run's."""
        self.api_error = self.api_error_status = self.rate_limit = None


class RecordStream:
    """Reads one run's standard output into a dialect's state. See `StreamParser`."""

    def __init__(self, state: RecordState) -> None:
        self._lines = LineSplitter()
        self._state = state

    def feed(self, data: bytes) -> list[AgentEvent]:
        events: list[AgentEvent] = []
        for line in self._lines.feed(data):
            events += self._state.read(line)
        return events

    def finish(self) -> StreamSummary:
        rest = self._lines.rest
        if not rest.strip():
            return self._state.summary()
        # The last line may still be growing: it is read into a copy, so that feed() can complete it.
        state = copy.deepcopy(self._state)
        state.read(rest)
        return state.summary()


class SessionReader:
    """Counts the calls in the files that a program keeps of its sessions. See `SideReader`.

    For programs whose output tells the tokens only at its end, and of a killed or failed run not at all.
    """

    def __init__(self, parser: StreamParser) -> None:
        self._parser = parser

    def feed(self, data: bytes) -> None:
        self._parser.feed(data)

    def complete(self, summary: StreamSummary) -> StreamSummary:
        usage = self._parser.finish().usage
        is_better = usage.total.total > summary.usage.total.total
        if summary.usage.source is UsageSource.REPORTED or not is_better:
            return summary
        return replace(summary, usage=usage)


def ended(
    subtype: str,
    *,
    is_error: bool,
    terminal_reason: str | None = None,
    api_error_status: int | None = None,
    num_turns: int | None = None,
    duration_ms: int | None = None,
    duration_api_ms: int | None = None,
    result_text: str = "",
) -> FinalRecord:
    """The last word of a program that says less than Claude: what it leaves out is None."""
    return FinalRecord(
        is_error=is_error,
        subtype=subtype,
        terminal_reason=terminal_reason,
        api_error_status=api_error_status,
        num_turns=num_turns,
        duration_ms=duration_ms,
        duration_api_ms=duration_api_ms,
        result_text=result_text,
        cost_usd=None,
    )
