"""GitHub Copilot CLI's `--output-format json`: its records, read into the common words.

Owns Copilot's field names, in its output and in the journal of its session. Must not decide outcomes or
prices.

Its output holds no tokens (measured on 1.0.102). They are in `session-state/<id>/events.jsonl` under
COPILOT_HOME: `session.shutdown` has the sums by model of the whole session, and `session.usage_record` those
of each call, of use where it was killed. Input there includes what came from the cache or went into it;
output includes the reasoning. Its costs are premium requests and credits, not money.
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from types import MappingProxyType

from adw_modules.agents.dialect import Dialect, ProjectHooks, SideFile
from adw_modules.agents.foreign import Json, http_status, items, mapping, number, text_of, word
from adw_modules.agents.records import RecordState, RecordStream, ended
from adw_modules.agents.stream import (
    UNNAMED_MODEL,
    AgentEvent,
    Finished,
    Retry,
    Started,
    StreamSummary,
    clean_text,
    one_line,
)
from adw_modules.money.usage import inclusive
from adw_modules.tasks.model import ModelUsage, UsageSource

RESULT_TEXT_LIMIT = 4000
SENTENCE_LIMIT = 4000  # a message quotes the answer's body, whatever that is
ERROR_WORDS = {
    "authentication": "authentication_failed",
    "quota": "billing_error",
    "rate_limit": "rate_limit",
}
TOO_LONG = frozenset({"context_limit", "context_window_exceeded"})
# What providers say where Copilot's own word is only "query" or "rate_limit".
_TOO_LONG = re.compile(
    r"maximum context length|context_length_exceeded|prompt is too long|input token count\b.{0,40}\bexceeds"
)
_NO_MONEY = re.compile(r"You exceeded your current quota|insufficient_quota")
NO_WAIT = timedelta(0)


class _State(RecordState):
    def __init__(self) -> None:
        super().__init__()
        self.turns = 0
        self.last_text = ""
        self.last_status: int | None = None  # of the newest failed request
        self.failed_tries = 0
        self.error_type: str | None = None  # of an error that nothing has overcome
        self.is_too_long = False
        self.is_aborted = False

    def read_turn(self, _record: Json) -> list[AgentEvent]:
        self.turns += 1
        return []

    def read_call(self, record: Json) -> list[AgentEvent]:
        model = word(mapping(record.get("data")).get("model")) or None
        if model is None or model == self.model:
            return []
        self.model = model
        return [Started(session_id=None, model=model)]

    def read_message(self, record: Json) -> list[AgentEvent]:
        data = mapping(record.get("data"))
        self.failed_tries, self.error_type = 0, None
        self.overcame_errors()
        events = self.said(data.get("content"))
        if events:
            self.last_text = text_of(data.get("content"))
        for request in items(data.get("toolRequests")):
            events += self.used(mapping(request).get("name"))
        return events

    def read_failure(self, record: Json) -> list[AgentEvent]:
        data = mapping(record.get("data"))
        self.failed_tries = (number(data.get("retryAttempt")) or 0) + 1
        self.last_status = http_status(data.get("statusCode"))
        return []

    def read_retry(self, record: Json) -> list[AgentEvent]:
        # Its own word for a 401 is "transient_auth_error": the number says what it is.
        reason = word(mapping(record.get("data")).get("reason")) or None
        return self.retried(
            Retry(
                error_status=self.last_status,
                error=reason,
                attempt=self.failed_tries,
                max_retries=0,
                delay=NO_WAIT,
            )
        )

    def read_error(self, record: Json) -> list[AgentEvent]:
        data = mapping(record.get("data"))
        self.error_type = word(data.get("errorType")) or "error"
        self.api_error = ERROR_WORDS.get(self.error_type)
        self.api_error_status = http_status(data.get("statusCode"))
        message = text_of(data.get("message"))[:SENTENCE_LIMIT]
        self.tail.add(message)
        self.is_too_long = self.error_type in TOO_LONG or (
            self.api_error_status == 400 and _TOO_LONG.search(message) is not None
        )
        if self.api_error_status == 429 and _NO_MONEY.search(message):
            self.api_error = "billing_error"
        return []

    def read_abort(self, _record: Json) -> list[AgentEvent]:
        self.is_aborted = True
        return []

    def read_result(self, record: Json) -> list[AgentEvent]:
        self.session_id = word(record.get("sessionId")) or self.session_id
        usage = mapping(record.get("usage"))
        # It hides secrets in its own records: a key of one letter once ate `exitCode`. No success then.
        is_error = number(record.get("exitCode")) != 0 or self.is_aborted or self.error_type is not None
        self.final = ended(
            self._how_it_ended(is_error),
            is_error=is_error,
            terminal_reason=self._reason() if is_error else None,
            api_error_status=self.api_error_status,
            num_turns=self.turns,
            duration_ms=number(usage.get("sessionDurationMs")),
            duration_api_ms=number(usage.get("totalApiDurationMs")),
            result_text=clean_text(self.last_text, RESULT_TEXT_LIMIT),
        )
        return [Finished(record=self.final)]

    def _how_it_ended(self, is_error: bool) -> str:
        if self.is_aborted:
            return "aborted"
        return (self.error_type or "error") if is_error else "success"

    def _reason(self) -> str | None:
        if self.error_type is None:
            return None
        return "prompt_too_long" if self.is_too_long else "api_error"

    readers = MappingProxyType(
        {
            "assistant.turn_start": read_turn,
            "model.call_start": read_call,
            "assistant.message": read_message,
            "model.call_failure": read_failure,
            "assistant.turn_retry": read_retry,
            "session.error": read_error,
            "abort": read_abort,
            "result": read_result,
        }
    )


# --- the journal of the session ---------------------------------------------------------------------------


class _Journal(RecordState):
    """Only counts: whatever else the journal tells, the output has told."""

    def read_call(self, record: Json) -> list[AgentEvent]:
        usage = mapping(mapping(record.get("data")).get("usage"))
        call = word(usage.get("apiCallId")) or word(record.get("id")) or "?"
        self.ledger.call(call, word(usage.get("model")) or UNNAMED_MODEL, _usage(usage))
        return []

    def read_shutdown(self, record: Json) -> list[AgentEvent]:
        models = mapping(record.get("data")).get("modelMetrics")
        if isinstance(models, dict):
            by_model = {
                one_line(model): _usage(mapping(mapping(entry).get("usage")))
                for model, entry in models.items()
            }
            self.ledger.report(by_model, None, cumulative=True)
        return []

    readers = MappingProxyType({"session.usage_record": read_call, "session.shutdown": read_shutdown})


class JournalReader:
    """Adds the tokens of a session's journal to what its output has told. See `SideReader`."""

    def __init__(self) -> None:
        self._stream = RecordStream(_Journal())

    def feed(self, data: bytes) -> None:
        self._stream.feed(data)

    def complete(self, summary: StreamSummary) -> StreamSummary:
        usage = self._stream.finish().usage
        return summary if usage.source is UsageSource.UNKNOWN else replace(summary, usage=usage)


def _usage(value: Json) -> ModelUsage:
    return inclusive(
        input_total=number(value.get("inputTokens")) or 0,
        cache_read=number(value.get("cacheReadTokens")) or 0,
        cache_write=number(value.get("cacheWriteTokens")) or 0,
        output_total=number(value.get("outputTokens")) or 0,
        reasoning=number(value.get("reasoningTokens")) or 0,
    )


def _parser() -> RecordStream:
    return RecordStream(_State())


DIALECT = Dialect(
    name="copilot",
    parser=_parser,
    programs=("copilot",),
    login_paths=(".copilot", ".config/github-copilot"),
    template=(
        "copilot",
        "--output-format",
        "json",
        "--allow-all-tools",
        "--no-auto-update",
        "--model",
        "{model}",
    ),
    env=MappingProxyType({"COPILOT_AUTO_UPDATE": "false"}),
    config_dir_env="COPILOT_HOME",
    side_file=SideFile(pattern="agent-config/session-state/*/events.jsonl", reader=JournalReader),
    # To the group it says `abort` and writes its sums down; SIGINT leaves neither.
    stop_signal="SIGTERM",
    project_hooks=ProjectHooks(on=("--trust-folder",)),
)
