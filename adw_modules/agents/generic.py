"""The dialect of programs whose output says nothing we can rely on: exit code and git state decide.

Owns keeping the last lines for people. Must not guess tokens: usage stays unknown.
"""

from __future__ import annotations

from adw_modules.agents.dialect import Dialect
from adw_modules.agents.stream import AgentEvent, LineSplitter, StreamSummary, Tail, Text, one_line
from adw_modules.tasks.model import Usage, UsageSource


class GenericStream:
    """Reads any text output. See `StreamParser`."""

    def __init__(self) -> None:
        self._lines = LineSplitter()
        self._tail = Tail()

    def feed(self, data: bytes) -> list[AgentEvent]:
        return [Text(snippet=said) for line in self._lines.feed(data) if (said := self._read(line))]

    def finish(self) -> StreamSummary:
        tail = Tail(self._tail.lines())
        tail.add(_decode(self._lines.rest))
        return StreamSummary(
            usage=Usage(source=UsageSource.UNKNOWN), final_expected=False, last_lines=tail.lines()
        )

    def _read(self, line: bytes | None) -> str:
        text = "(a line over 16 MiB was skipped)" if line is None else _decode(line)
        self._tail.add(text)
        return one_line(text)


def _decode(line: bytes) -> str:
    return line.decode("utf-8", "replace")


DIALECT = Dialect(name="generic", parser=GenericStream)
