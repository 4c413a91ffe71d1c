"""Gemini CLI's `-o stream-json`: its records, read into the common words.

Owns Gemini's field names, error sentences and exit codes. Must not decide outcomes or prices.

Which numbers count (measured on 0.61.0 against a server that knew what it had billed):
`result.stats.models`, of this run, sub-agents included, also after a resume. `input_tokens` includes what
the cache had. `output_tokens` leaves the thoughts out, which are billed as output: the true output is
`total_tokens - input_tokens`. (Where a tool's prompt is billed apart, it is in that difference, too.)
Statistics without tokens count only when the API refused the request with a status; otherwise nothing was
reported. A killed run has no usage in its output; the file of its chat below $GEMINI_CLI_HOME has each
call's, where `input` includes what the cache had and `output` leaves the thoughts out.

An answer that was cut off by the limit on output ends like any other success: nothing in the stream tells.
Retries are on stderr only. The exit code of a failed run is the HTTP status modulo 256, or one of Gemini's
own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from adw_modules.agents.dialect import Dialect, ProjectHooks, SideFile
from adw_modules.agents.foreign import Json, http_status, mapping, number, parse_object, text_of, word
from adw_modules.agents.records import RecordState, RecordStream, SessionReader, ended
from adw_modules.agents.stream import (
    UNNAMED_MODEL,
    AgentEvent,
    FinalRecord,
    Finished,
    Started,
    StreamSummary,
    Tail,
    clean_text,
    one_line,
)
from adw_modules.agents.trouble import (
    API_ERROR,
    MAX_TURNS,
    ApiError,
    Trouble,
    asked_to_wait,
    bracketed_error,
    trouble_of,
)
from adw_modules.money.usage import inclusive
from adw_modules.tasks.model import ModelUsage, Usage, UsageSource

RESULT_TEXT_LIMIT = 4000
SENTENCE_LIMIT = 20_000  # an error sentence quotes the answer's body, whatever that is

_NAMED_STATUS = re.compile(r"\(Status: ([A-Z_]{1,40})\)\s*$")
_STATUS_NAMES = {
    "INVALID_ARGUMENT": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
# What Google says with a 429; the program prints these sentences without the status.
_LIMITED = re.compile(
    r"Resource has been exhausted|You exceeded your current quota|"
    r"You have exhausted your (?:daily quota|capacity)"
)
_BAD_KEY = re.compile(r"API key (?:not valid|expired)")  # said with a 400
_TOO_LONG = re.compile(r"The input token count\b.{0,40}\bexceeds the maximum number of tokens", re.DOTALL)
_NETWORK = re.compile(r"terminated$|exception TypeError: fetch failed|fetch failed")

_AUTH_EXIT = 41  # no key, or a login that nobody is there to make
_TURNS_EXIT = 53


class GeminiStream(RecordStream):
    """Reads one run's standard output. See `StreamParser`."""

    def __init__(self) -> None:
        super().__init__(_State())


class _State(RecordState):
    """What the lines so far have told."""

    def __init__(self) -> None:
        super().__init__()
        self.saying = ""  # of a message that comes in pieces
        self.last_message = ""
        self.error: ApiError | None = None
        self.usage = Usage(source=UsageSource.UNKNOWN)

    def summary(self) -> StreamSummary:
        tail, error = Tail(self.tail.lines()), self.error
        tail.add(self.saying)
        return replace(
            super().summary(),
            usage=self.usage,
            last_lines=tail.lines(),
            api_error_status=error.status if error else None,
            api_error=error.trouble if error else None,
            retry_after=error.retry_after if error else None,
        )

    def read_message(self, record: Json) -> list[AgentEvent]:
        """A piece of what the agent says; it is told as one text when something else follows."""
        if record.get("role") != "assistant":
            return []
        events = [] if record.get("delta") is True else self._speak()
        self.saying = (self.saying + text_of(record.get("content")))[-RESULT_TEXT_LIMIT:]
        return events

    def _speak(self) -> list[AgentEvent]:
        text, self.saying = self.saying, ""
        if one_line(text):
            self.last_message = clean_text(text, RESULT_TEXT_LIMIT)
        return self.said(text)

    def start(self, record: Json) -> list[AgentEvent]:
        self.session_id = word(record.get("session_id")) or None
        self.model = word(record.get("model")) or None
        return [Started(session_id=self.session_id, model=self.model)]

    def use_tool(self, record: Json) -> list[AgentEvent]:
        return [*self._speak(), *self.used(record.get("tool_name"))]

    def read_tool_result(self, _record: Json) -> list[AgentEvent]:
        return self._speak()

    def read_error(self, record: Json) -> list[AgentEvent]:
        events = self._speak()
        self.tail.add(text_of(record.get("message"))[:SENTENCE_LIMIT])
        return events

    def read_result(self, record: Json) -> list[AgentEvent]:
        events, stats = self._speak(), mapping(record.get("stats"))
        if record.get("status") == "success":
            self.error = None
            self.final = _success(stats, self.last_message)
        else:
            self.final = self._failure(mapping(record.get("error")))
        self._count(stats)
        return [*events, Finished(record=self.final)]

    def _failure(self, error: Json) -> FinalRecord:
        sentence = text_of(error.get("message"))[:SENTENCE_LIMIT]
        kind = word(error.get("type"))
        self.tail.add(one_line(sentence))
        self.error = found = api_error(sentence)
        if kind == "FatalTurnLimitedError":
            reason = MAX_TURNS
        elif kind == "FatalAuthenticationError":
            self.error, reason = replace(found, trouble=Trouble.AUTH), API_ERROR
        else:
            reason = found.terminal_reason if bracketed_error(sentence) else kind
        return ended(
            "error",
            is_error=True,
            terminal_reason=reason or None,
            api_error_status=found.status,
            result_text=clean_text(sentence, RESULT_TEXT_LIMIT),
        )

    def _count(self, stats: Json) -> None:
        by_model, is_whole = _by_model(stats, self.model)
        was_refused = self.error is not None and self.error.status is not None
        if any(usage.total for usage in by_model.values()) or (stats and was_refused):
            source = UsageSource.REPORTED if is_whole else UsageSource.DERIVED
            self.usage = Usage(source=source, by_model=by_model)

    readers = MappingProxyType(
        {
            "init": start,
            "message": read_message,
            "tool_result": read_tool_result,
            "tool_use": use_tool,
            "error": read_error,
            "result": read_result,
        }
    )


# --- records -> values ------------------------------------------------------------------------------------


def _success(stats: Json, text: str) -> FinalRecord:
    # A prompt that it takes for a command of its own ends as a success in which no model was asked anything.
    asked_nobody = number(stats.get("total_tokens")) == 0
    return ended(
        "success",
        is_error=False,
        terminal_reason="completed",
        num_turns=0 if asked_nobody else None,
        duration_ms=number(stats.get("duration_ms")),
        duration_api_ms=0 if asked_nobody else None,
        result_text=text,
    )


def _by_model(stats: Json, model: str | None) -> tuple[dict[str, ModelUsage], bool]:
    """Usage by model, and whether it is all of it: without a total the thoughts are missing."""
    entries = {
        one_line(name): entry
        for name, entry in mapping(stats.get("models")).items()
        if isinstance(entry, dict)
    }
    if not entries and "total_tokens" in stats:
        entries = {model or UNNAMED_MODEL: dict(stats)}
    is_whole = all(number(entry.get("total_tokens")) is not None for entry in entries.values())
    return {name: _model_usage(entry) for name, entry in entries.items()}, is_whole


def _model_usage(entry: Json) -> ModelUsage:
    spoken = number(entry.get("output_tokens")) or 0
    total_input = number(entry.get("input_tokens")) or 0
    output = max(spoken, (number(entry.get("total_tokens")) or 0) - total_input)
    return inclusive(
        input_total=total_input,
        cache_read=number(entry.get("cached")) or 0,
        output_total=output,
        reasoning=output - spoken,
    )


def api_error(sentence: str) -> ApiError:
    """What an error sentence says: the API's own JSON answer, or the words Google has for it."""
    found = bracketed_error(sentence)
    quoted = found[1] if found else ""
    answer = mapping((parse_object(quoted.encode("utf-8", "replace")) or {}).get("error"))
    status = http_status(answer.get("code")) or _status_in_words(quoted)
    trouble = Trouble.AUTH if found and _BAD_KEY.search(quoted) else trouble_of(status)
    return ApiError(
        status=status,
        trouble=trouble or (Trouble.NETWORK if _NETWORK.match(quoted) else None),
        is_too_long=_TOO_LONG.search(quoted) is not None,
        retry_after=asked_to_wait(quoted),
    )


def _status_in_words(quoted: str) -> int | None:
    named = _NAMED_STATUS.search(quoted)
    if named is not None:
        return _STATUS_NAMES.get(named[1])
    return 429 if _LIMITED.match(quoted) else None


def read_exit(summary: StreamSummary, exit_code: int) -> StreamSummary:
    """The summary, with what only the exit code says; a program that reports success is not contradicted."""
    if summary.final is not None and not summary.final.is_error:
        return summary
    if exit_code == _AUTH_EXIT:
        return replace(summary, api_error=summary.api_error or Trouble.AUTH)
    if exit_code == _TURNS_EXIT and summary.final is None:
        return replace(summary, final=ended("error", is_error=True, terminal_reason=MAX_TURNS))
    status = summary.api_error_status or http_status(exit_code + 256 if 144 <= exit_code <= 255 else None)
    if status is None or status == summary.api_error_status:
        return summary
    final = summary.final or ended("error", is_error=True, terminal_reason=API_ERROR)
    return replace(
        summary,
        final=replace(final, api_error_status=status),
        api_error_status=status,
        api_error=summary.api_error or trouble_of(status),
    )


_SETTINGS: Mapping[str, object] = {
    "security": {"auth": {"selectedType": "gemini-api-key"}},
    "general": {"enableAutoUpdate": False, "enableAutoUpdateNotification": False},
    "privacy": {"usageStatisticsEnabled": False},
    "telemetry": {"enabled": False},
}


class _Chats(RecordState):
    """The files of a run's chats; a message that was written again has the id that it had."""

    def read_message(self, record: Json) -> list[AgentEvent]:
        tokens = mapping(record.get("tokens"))
        thoughts = number(tokens.get("thoughts")) or 0
        usage = inclusive(
            input_total=number(tokens.get("input")) or 0,
            cache_read=number(tokens.get("cached")) or 0,
            output_total=(number(tokens.get("output")) or 0) + thoughts,
            reasoning=thoughts,
        )
        self.ledger.call(word(record.get("id")), word(record.get("model")) or UNNAMED_MODEL, usage)
        return []

    readers = MappingProxyType({"gemini": read_message})


def _chat_reader() -> SessionReader:
    return SessionReader(RecordStream(_Chats()))


DIALECT = Dialect(
    name="gemini",
    parser=GeminiStream,
    programs=("gemini",),
    # A worktree is not a folder that anybody has declared trusted: without --skip-trust it exits with 55.
    login_paths=(".gemini",),
    template=("gemini", "--yolo", "--skip-trust", "-m", "{model}", "-o", "stream-json"),
    env=MappingProxyType(
        {
            # Otherwise it starts itself again as a child, and the parent ignores every polite signal.
            "GEMINI_CLI_NO_RELAUNCH": "true",
            "GEMINI_TELEMETRY_ENABLED": "false",
        }
    ),
    config_dir_env="GEMINI_CLI_HOME",  # a home: the settings are in `.gemini` below it
    side_file=SideFile(
        pattern="agent-config/.gemini/tmp/*/chats/*.jsonl", reader=_chat_reader, corrects_reports=False
    ),
    config_files=MappingProxyType({".gemini/settings.json": json.dumps(_SETTINGS)}),
    read_exit=read_exit,
    stop_signal="SIGTERM",
    # --skip-trust lets it work, and leaves out the settings of the folder; only the variable trusts it.
    project_hooks=ProjectHooks(
        on_env=MappingProxyType({"GEMINI_CLI_TRUST_WORKSPACE": "true"}),
    ),
)
