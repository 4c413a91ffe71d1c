"""Qwen Code's `-o stream-json`: Claude's record names with other meanings, read into the common words.

Owns Qwen's field names and error sentences. Must not decide outcomes or prices.

Which numbers count (measured on 0.24.4 against a server that knew what it had billed): `result.usage`, which
holds sub-agents, repeated calls and calls beside the conversation as well. Although its fields have Claude's
names, the input includes what the cache had. A result without tokens counts only when the API refused the
request with a status. A run without a result (killed, or at its limit of turns) is added up from its
`assistant` records, one for each block with an id of its own, of which only the last of a call has numbers:
`derived`, because sub-agents and repeated calls are missing there. How much of the output was reasoning, no
record tells.

What one stream cannot tell: after `--resume`, `result.usage` counts the whole session, and nothing says that
there was one before. The numbers are then too high and look like any others; the command here never resumes.

An error is often only a sentence: 0.15.10 ends such a run with exit code 0, `subtype: success` and
`is_error: false`. "[API Error: 401 …]" is believed where the whole answer is that, or where it ends an
answer that used no tokens: an agent may well write about such errors.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import timedelta
from types import MappingProxyType

from adw_modules.agents.dialect import Dialect, ProjectHooks
from adw_modules.agents.foreign import Json, http_status, items, mapping, number, text_of, word
from adw_modules.agents.records import RecordState, RecordStream, ended
from adw_modules.agents.stream import (
    UNNAMED_MODEL,
    AgentEvent,
    FinalRecord,
    Finished,
    Retry,
    Started,
    StreamSummary,
    clean_text,
    one_line,
)
from adw_modules.agents.trouble import (
    MAX_TURNS,
    ApiError,
    Trouble,
    asked_to_wait,
    bracketed_error,
    trouble_of,
)
from adw_modules.money.usage import inclusive
from adw_modules.tasks.model import ModelUsage

RESULT_TEXT_LIMIT = 4000
SENTENCE_LIMIT = 20_000  # an error sentence quotes the answer's body, whatever that is

_STATUS = re.compile(r"(\d{3})\b")  # the first word of the sentence, if it is one
_CONTEXT = re.compile(
    r"maximum context length is|\bcontext_length_exceeded\b|input length.{0,40}exceeds", re.DOTALL
)
_NO_CREDIT = re.compile(
    r"insufficient_quota|exceeded your current quota|Insufficient (?:credits|Balance)|Arrearage"
)
_NETWORK = re.compile(r"Connection error|terminated\b|Request timed out|fetch failed|getaddrinfo|ECONNRE")

_TURNS_EXIT = 53


class QwenStream(RecordStream):
    """Reads one run's standard output. See `StreamParser`."""

    def __init__(self) -> None:
        super().__init__(_State())


class _State(RecordState):
    """What the lines so far have told."""

    def __init__(self) -> None:
        super().__init__()
        self.denials = 0
        self.error: ApiError | None = None  # of the last answer, or of the final record

    def summary(self) -> StreamSummary:
        error = self.error
        return replace(
            super().summary(),
            permission_denials=self.denials,
            api_error_status=error.status if error else None,
            api_error=error.trouble if error else None,
            retry_after=error.retry_after if error else None,
        )

    def read_system(self, record: Json) -> list[AgentEvent]:
        if record.get("subtype") == "init":
            self.session_id = word(record.get("session_id")) or self.session_id
            self.model = word(record.get("model")) or self.model
            return [Started(session_id=self.session_id, model=self.model)]
        if record.get("subtype") == "retry":
            return self._retry(mapping(record.get("data")))
        return []

    def _retry(self, data: Json) -> list[AgentEvent]:
        """Only rate limits are announced with a wait; the rest says that an answer is being continued."""
        delay = number(data.get("delayMs"))
        if delay is None:
            return []
        attempt, most = number(data.get("attempt")) or 0, number(data.get("maxRetries")) or 0
        wait = timedelta(milliseconds=min(delay, 86_400_000))
        self.tail.add(f"retry {attempt} of {most} in {wait.total_seconds():.0f} s after rate_limit")
        return [
            Retry(error_status=None, error=Trouble.RATE_LIMIT, attempt=attempt, max_retries=most, delay=wait)
        ]

    def read_assistant(self, record: Json) -> list[AgentEvent]:
        message = mapping(record.get("message"))
        usage = _usage_of(message.get("usage"))
        model = word(message.get("model")) or self.model or UNNAMED_MODEL
        self.ledger.call(word(message.get("id")) or "?", model, usage)
        events: list[AgentEvent] = []
        for block in items(message.get("content")):
            events += self._read_block(mapping(block), used_tokens=usage.total > 0)
        return events

    def _read_block(self, block: Json, *, used_tokens: bool) -> list[AgentEvent]:
        if block.get("type") == "text" and one_line(text := text_of(block.get("text"))):
            self.error = _spoken_error(text, may_follow_text=not used_tokens)
            return self.said(text)
        if block.get("type") == "tool_use":
            self.error = None
            return self.used(block.get("name"))
        return []

    def read_result(self, record: Json) -> list[AgentEvent]:
        told = text_of(mapping(record.get("error")).get("message"))[:SENTENCE_LIMIT]
        if record.get("is_error") is True and told:
            self.error = api_error(told) if bracketed_error(told) else None
        self.final = self._final(record, told)
        self.session_id = word(record.get("session_id")) or self.session_id
        self.denials = len(items(record.get("permission_denials")))
        self._report(record)
        self.tail.add(told or self.final.result_text)
        return [Finished(record=self.final)]

    def _final(self, record: Json, told: str) -> FinalRecord:
        said_error, subtype = record.get("is_error"), word(record.get("subtype"))
        is_error = said_error if isinstance(said_error, bool) else subtype != "success"
        return ended(
            subtype,
            is_error=is_error or self.error is not None,
            terminal_reason=self.error.terminal_reason if self.error else None,
            api_error_status=self.error.status if self.error else None,
            num_turns=number(record.get("num_turns")),
            duration_ms=number(record.get("duration_ms")),
            duration_api_ms=number(record.get("duration_api_ms")),
            result_text=clean_text(text_of(record.get("result")) or told, RESULT_TEXT_LIMIT),
        )

    def _report(self, record: Json) -> None:
        usage = _usage_of(record.get("usage"))
        was_refused = self.error is not None and self.error.status is not None
        if usage.total or was_refused:
            self.ledger.report({self.model or UNNAMED_MODEL: usage}, None, cumulative=True)

    readers = MappingProxyType(
        {
            "system": read_system,
            "assistant": read_assistant,
            "result": read_result,
        }
    )


# --- records -> values ------------------------------------------------------------------------------------


def _spoken_error(text: str, *, may_follow_text: bool) -> ApiError | None:
    """The error that an answer is, if it is one."""
    found = bracketed_error(text)
    if found is None or (found[0] > 0 and not may_follow_text):
        return None
    return api_error(text[found[0] :][:SENTENCE_LIMIT])


def api_error(sentence: str) -> ApiError:
    """What an error sentence of Qwen's says."""
    found = bracketed_error(sentence)
    quoted = found[1] if found else ""
    number_in_front = _STATUS.match(quoted)
    status = http_status(int(number_in_front[1])) if number_in_front else None
    trouble = trouble_of(status)
    if _NO_CREDIT.search(quoted):
        trouble = Trouble.BILLING
    elif status is None and _NETWORK.match(quoted):
        trouble = Trouble.NETWORK
    return ApiError(
        status=status,
        trouble=trouble,
        is_too_long=_CONTEXT.search(quoted) is not None,
        retry_after=asked_to_wait(quoted),
    )


def _usage_of(value: object) -> ModelUsage:
    usage = mapping(value)
    return inclusive(
        input_total=number(usage.get("input_tokens")) or 0,
        cache_read=number(usage.get("cache_read_input_tokens")) or 0,
        cache_write=number(usage.get("cache_creation_input_tokens")) or 0,
        output_total=number(usage.get("output_tokens")) or 0,
    )


def read_exit(summary: StreamSummary, exit_code: int) -> StreamSummary:
    """The summary, with what only the exit code says: at the limit of turns there is no final record."""
    if exit_code == _TURNS_EXIT and summary.final is None:
        return replace(summary, final=ended("error_max_turns", is_error=True, terminal_reason=MAX_TURNS))
    return summary


_SETTINGS = {
    "general": {"enableAutoUpdate": False, "enableAutoUpdateNotification": False},
    "privacy": {"usageStatisticsEnabled": False},
    "telemetry": {"enabled": False},
}

DIALECT = Dialect(
    name="qwen",
    parser=QwenStream,
    programs=("qwen",),
    login_paths=(".qwen",),
    template=("qwen", "--yolo", "--auth-type", "openai", "-m", "{model}", "-o", "stream-json"),
    env=MappingProxyType({"QWEN_CODE_SUPPRESS_YOLO_WARNING": "1"}),
    config_dir_env="QWEN_HOME",  # in place of ~/.qwen
    config_files=MappingProxyType({"settings.json": json.dumps(_SETTINGS)}),
    read_exit=read_exit,
    # To the group: its outer process ends alone on either signal and leaves the two that work.
    stop_signal="SIGTERM",
    # Settings of the folder outrank the user's, so that nothing less keeps them out. QWEN.md goes with them.
    project_hooks=ProjectHooks(off=("--safe-mode",)),
)
