"""goose's `run --output-format stream-json`: its records, read into the common words.

Owns goose's field names. Must not decide outcomes or prices.

`complete` ends each attempt with the sums of the whole session so far: the newest one counts. Its input
includes what came from the cache or went into it. An `error` may be followed by a `complete`: an answer in
between shows that goose overcame it, otherwise it is the end of the run, whatever the exit code says. A
failed model call may also be told as an answer that begins with REFUSED. goose was not at hand: the records
are those that public programs read (1.50), and nothing here was measured.
"""

from __future__ import annotations

from types import MappingProxyType

from adw_modules.agents.dialect import Dialect
from adw_modules.agents.foreign import Json, items, mapping, money, number, text_of, word
from adw_modules.agents.records import RecordState, RecordStream, ended
from adw_modules.agents.stream import UNNAMED_MODEL, AgentEvent, FinalRecord, Finished, clean_text
from adw_modules.money.usage import inclusive
from adw_modules.tasks.model import ModelUsage

RESULT_TEXT_LIMIT = 4000
REFUSED = "Ran into this error: "
# How goose names a provider's error -> the common word for it, and the reason of the end.
ERRORS = {
    "Authentication error": ("authentication_failed", "api_error"),
    "Credits exhausted": ("billing_error", "api_error"),
    "Rate limit exceeded": ("rate_limit", "api_error"),
    "Context length exceeded": (None, "prompt_too_long"),
    "Server error": (None, "api_error"),
    "Network error": (None, "api_error"),
    "Request failed": (None, "api_error"),
}
LONGEST_NAME = 60  # where in a message the name of an error may stand
COUNTS = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_write_input_tokens")


class _State(RecordState):
    def __init__(self) -> None:
        super().__init__()
        self.answers = 0
        self.last_text = ""
        self.error = ""  # not overcome so far

    def read_message(self, record: Json) -> list[AgentEvent]:
        message = mapping(record.get("message"))
        if word(message.get("role")) != "assistant":
            return []
        self.answers += 1
        self.error, self.api_error = "", None
        return [event for block in items(message.get("content")) for event in self._block(mapping(block))]

    def _block(self, block: Json) -> list[AgentEvent]:
        match block.get("type"):
            case "text":
                self.last_text = text_of(block.get("text")) or self.last_text
                if self.last_text.startswith(REFUSED):
                    self._failed(self.last_text.removeprefix(REFUSED))
                return self.said(block.get("text"))
            case "toolRequest":
                call = mapping(mapping(block.get("toolCall")).get("value"))
                return self.used(call.get("name"))
        return []

    def read_model(self, record: Json) -> list[AgentEvent]:
        self.model = word(record.get("model")) or self.model
        return []

    def read_error(self, record: Json) -> list[AgentEvent]:
        error = record.get("error")
        message = text_of(error) or text_of(mapping(error).get("message")) or "error"
        self.tail.add(message)
        self._failed(message)
        self._end()
        return []

    def _failed(self, message: str) -> None:
        self.error = message
        self.api_error = self._named()[0]

    def _named(self) -> tuple[str | None, str | None]:
        return next(
            (each for name, each in ERRORS.items() if name in self.error[:LONGEST_NAME]), (None, None)
        )

    def read_complete(self, record: Json) -> list[AgentEvent]:
        if any(number(record.get(name)) is not None for name in COUNTS):
            self.ledger.report(
                {self.model or UNNAMED_MODEL: _usage(record)}, money(record.get("cost_usd")), cumulative=True
            )
        return [Finished(record=self._end())]

    def _end(self) -> FinalRecord:
        self.final = ended(
            "error" if self.error else "success",
            is_error=bool(self.error),
            terminal_reason=self._named()[1] if self.error else None,
            num_turns=self.answers,
            result_text=clean_text(self.error or self.last_text, RESULT_TEXT_LIMIT),
        )
        return self.final

    readers = MappingProxyType(
        {
            "message": read_message,
            "model_change": read_model,
            "error": read_error,
            "complete": read_complete,
        }
    )


def _usage(record: Json) -> ModelUsage:
    return inclusive(
        input_total=number(record.get("input_tokens")) or 0,
        cache_read=number(record.get("cache_read_input_tokens")) or 0,
        cache_write=number(record.get("cache_write_input_tokens")) or 0,
        output_total=number(record.get("output_tokens")) or 0,
    )


def _parser() -> RecordStream:
    return RecordStream(_State())


DIALECT = Dialect(
    name="goose",
    parser=_parser,
    programs=("goose",),
    login_paths=(".config/goose", ".local/share/goose"),
    template=(
        "goose",
        "run",
        "--no-session",
        "--quiet",
        "--output-format",
        "stream-json",
        "--model",
        "{model}",
        "--instructions",
        "-",
    ),
    env=MappingProxyType(
        {"GOOSE_MODE": "auto", "GOOSE_TELEMETRY_OFF": "1", "GOOSE_TELEMETRY_ENABLED": "false"}
    ),
    stop_signal="SIGTERM",
)
