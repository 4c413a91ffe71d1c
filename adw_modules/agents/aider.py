"""aider's `--message-file` mode: text for people, and the log of its own events, read into the common words.

Owns aider's sentences and the field names of its `--analytics-log`. Must not decide outcomes or prices.

It exits with 0 after failed model calls (measured on 0.86.2): a `litellm.…Error` that no answer follows is
the end of the run, and an answer is what is followed by its "Tokens: …" line. That line is rounded, so its
numbers are `estimated`. `message_send` in the event log has those of each call exactly, cached input not told
apart from the rest; the call for a commit message is in neither, so the source is `derived`, and the template
leaves commits to us. With streaming on both hold aider's own guess and do not say so: hence `--no-stream`.
A call that brought no answer is told with a guessed input; it is not counted.
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from types import MappingProxyType

from adw_modules.agents.dialect import Dialect, ProjectHooks, SideFile
from adw_modules.agents.foreign import Json, mapping, money, number, word
from adw_modules.agents.records import SKIPPED_LINE, RecordState, RecordStream, ended
from adw_modules.agents.stream import (
    UNNAMED_MODEL,
    AgentEvent,
    Finished,
    Retry,
    Started,
    StreamSummary,
    Text,
    one_line,
    with_model,
)
from adw_modules.tasks.model import ModelUsage, Usage, UsageSource

HIDDEN = "REDACTED"  # what the event log says of models that aider does not know: openai/REDACTED
MOST_ERROR_LINES = 20  # an error's text goes over several lines of 80 columns
LONGEST_WAIT = 86_400.0  # seconds

_COUNT = r"([0-9][0-9.,]{0,15}[kM]?)"
_TOKENS = re.compile(
    rf"Tokens: {_COUNT} sent(?:, {_COUNT} cache write)?(?:, {_COUNT} cache hit)?, {_COUNT} received\."
)
_ERROR = re.compile(r"litellm\.([A-Za-z]{1,60}): ")
_RETRY = re.compile(r"Retrying in ([0-9.]{1,10}) seconds")
_MODEL = re.compile(r"(?:Main m|M)odel: (\S{1,200}) with ")

# What litellm's error classes stand for where it is sure: a cut connection is an InternalServerError, too.
STATUS = {
    "AuthenticationError": 401,
    "PermissionDeniedError": 403,
    "NotFoundError": 404,
    "RateLimitError": 429,
    "BadRequestError": 400,
    "ServiceUnavailableError": 503,
}
TOO_LONG = "ContextWindowExceededError"


class _State(RecordState):
    def __init__(self) -> None:
        super().__init__()
        self.usage = ModelUsage()
        self.calls = 0  # answers with a line of tokens
        self.tries = 0
        self.error: list[str] = []  # the lines of the error that is being told
        self.is_telling_error = False

    def read(self, line: bytes | None) -> list[AgentEvent]:
        text = SKIPPED_LINE if line is None else line.decode("utf-8", "replace")
        said = one_line(text)
        if not said:
            self.is_telling_error = False
            return []
        self.tail.add(said)
        for pattern, reader in _SENTENCES:
            if found := pattern.match(said):
                return reader(self, found)
        return self._other(said)

    def _other(self, said: str) -> list[AgentEvent]:
        if said.startswith("The API provider"):
            self.is_telling_error = False
        if not self.is_telling_error or len(self.error) >= MOST_ERROR_LINES:
            return [Text(snippet=said)]
        self.error.append(said)
        if "insufficient_quota" in said or "exceeded your current quota" in " ".join(self.error):
            self.api_error = "billing_error"
        return []

    def read_model(self, found: re.Match[str]) -> list[AgentEvent]:
        if self.model is not None:
            return [Text(snippet=found.string)]
        self.model = found[1]
        return [Started(session_id=None, model=self.model)]

    def read_error(self, found: re.Match[str]) -> list[AgentEvent]:
        kind = found[1]
        self.tries += 1
        self.error, self.is_telling_error = [found.string], True
        self.api_error_status = STATUS.get(kind)
        self.api_error = "authentication_failed" if kind == "AuthenticationError" else None
        reason = "prompt_too_long" if kind == TOO_LONG else "api_error"
        self.final = ended(
            kind, is_error=True, terminal_reason=reason, api_error_status=self.api_error_status
        )
        return []  # it may try again

    def read_retry(self, found: re.Match[str]) -> list[AgentEvent]:
        self.is_telling_error = False
        if self.final is None or not self.final.is_error:
            return [Text(snippet=found.string)]
        event = Retry(
            error_status=self.api_error_status,
            error=self.final.subtype,
            attempt=self.tries,
            max_retries=0,
            delay=timedelta(seconds=_seconds(found[1])),
        )
        if self.api_error_status and self.api_error_status not in self.retry_statuses:
            self.retry_statuses.append(self.api_error_status)
        return [event]

    def read_tokens(self, found: re.Match[str]) -> list[AgentEvent]:
        sent, written, hit, received = (_count(number_text) for number_text in found.groups())
        if not received:
            return []  # no answer: the input is aider's guess
        self.calls += 1
        self.usage += ModelUsage(
            input=max(0, sent - written - hit), cache_read=hit, cache_write_5m=written, output=received
        )
        self.tries, self.error = 0, []
        self.overcame_errors()
        self.final = ended("success", is_error=False, num_turns=self.calls)
        return [Finished(record=self.final)]

    def read_limit(self, found: re.Match[str]) -> list[AgentEvent]:
        """The input does not fit, or the answer was cut off: how much of it there is says which."""
        self.final = ended("token_limit", is_error=True, num_turns=self.calls)
        return [Finished(record=self.final)]

    def read_output(self, found: re.Match[str]) -> list[AgentEvent]:
        if self.final is not None and self.final.subtype == "token_limit" and found[1] == "0":
            self.final = replace(self.final, terminal_reason="prompt_too_long")
        return [Text(snippet=found.string)]

    def read_interrupt(self, _found: re.Match[str]) -> list[AgentEvent]:
        self.final = ended("interrupted", is_error=True, num_turns=self.calls)
        return [Finished(record=self.final)]

    def summary(self) -> StreamSummary:
        usage = Usage(source=UsageSource.UNKNOWN)
        if self.calls:
            usage = Usage(source=UsageSource.ESTIMATED, by_model={self.model or UNNAMED_MODEL: self.usage})
        return replace(super().summary(), usage=usage)


_SENTENCES = (
    (_MODEL, _State.read_model),
    (_ERROR, _State.read_error),
    (_RETRY, _State.read_retry),
    (_TOKENS, _State.read_tokens),
    (re.compile(r"Model \S{1,200} has hit a token limit!"), _State.read_limit),
    (re.compile(r"Output tokens: ~([0-9,]{1,15}) of "), _State.read_output),
    (re.compile(r"\^C"), _State.read_interrupt),
)


def _count(text: str | None) -> int:
    """`601`, `2.0k`, `12k`: rounded by aider to two or three digits."""
    if not text:
        return 0
    scale = {"k": 1000, "M": 1_000_000}.get(text[-1], 1)
    try:
        return int(Decimal(text.rstrip("kM").replace(",", "")) * scale)
    except ArithmeticError:
        return 0


def _seconds(text: str) -> float:
    try:
        return min(float(text), LONGEST_WAIT)
    except ValueError:
        return 0.0


# --- the log of its events --------------------------------------------------------------------------------


class _Events(RecordState):
    """Only counts: whatever else the log tells, the output has told."""

    kind = "event"

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.cost: Decimal | None = Decimal(0)

    def read_call(self, record: Json) -> list[AgentEvent]:
        told = mapping(record.get("properties"))
        sent, received = number(told.get("prompt_tokens")), number(told.get("completion_tokens"))
        if not received:
            return []
        self.calls += 1
        usage = ModelUsage(input=sent or 0, output=received)
        model = word(told.get("main_model"))
        is_named = bool(model) and not model.endswith(HIDDEN)
        self.ledger.call(f"call {self.calls}", model if is_named else UNNAMED_MODEL, usage)
        cost = money(told.get("cost"))
        self.cost = None if cost is None or self.cost is None else self.cost + cost
        return []

    def summary(self) -> StreamSummary:
        found = super().summary()
        return replace(found, usage=replace(found.usage, reported_cost_usd=self.cost))

    readers = MappingProxyType({"message_send": read_call})


class EventsReader:
    """Puts the exact numbers of the event log in the place of the rounded ones. See `SideReader`."""

    def __init__(self) -> None:
        self._stream = RecordStream(_Events())

    def feed(self, data: bytes) -> None:
        self._stream.feed(data)

    def complete(self, summary: StreamSummary) -> StreamSummary:
        usage = self._stream.finish().usage
        if usage.source is UsageSource.UNKNOWN:
            return summary
        return replace(summary, usage=with_model(usage, summary.model) if summary.model else usage)


def _parser() -> RecordStream:
    return RecordStream(_State())


DIALECT = Dialect(
    name="aider",
    parser=_parser,
    programs=("aider",),
    # The log of its events stays on this machine: --no-analytics keeps it from being sent.
    login_paths=(".aider.conf.yml",),
    template=(
        "aider",
        "--model",
        "{model}",
        "--message-file",
        "{prompt_file}",
        "--analytics-log",
        "{output_file}",
        "--no-analytics",
        "--no-stream",
        "--no-pretty",
        "--yes-always",
        "--no-auto-commits",
        "--no-auto-lint",
        "--no-gitignore",
        "--no-check-update",
        "--no-show-release-notes",
        "--no-show-model-warnings",
    ),
    env=MappingProxyType({"LITELLM_LOCAL_MODEL_COST_MAP": "True"}),
    side_file=SideFile(pattern="output.jsonl", reader=EventsReader),
    stop_signal="SIGTERM",  # at once; after SIGINT it goes on to what comes next
    # Its settings can name a command to test or to lint with.
    project_hooks=ProjectHooks(unstoppable=(".aider.conf.yml", ".env")),
)
