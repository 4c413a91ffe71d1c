"""Claude Code's `--output-format stream-json`: its records, read into the common words.

Owns Claude's field names, and which of its numbers is what. Must not decide outcomes or prices.

Which numbers count (measured on 2.1.197 and 2.1.329 against a server that knew what it had billed):
`model_usage_since_last_result` of each final record; without it the newest `modelUsage`, which counts the
whole process (in 2.1.329 even the session before a --resume); without both the record's `usage`, which
leaves sub-agents out. A run without a final record is added up from its calls, once per `message.id`:
there the output is only what `message_start` said, unless the stream has `message_delta` events
(--include-partial-messages), so it is a lower bound and the source says `derived`. The session files under
CLAUDE_CONFIG_DIR have what is missing; where a run had a folder of its own they are read after its end. A
final record without any tokens counts only when the API refused every call; otherwise nothing was reported.
One after an answer that broke off leaves that answer's output out, and is `derived` as well.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from datetime import timedelta
from decimal import Decimal
from types import MappingProxyType

from adw_modules.agents.dialect import Dialect, ProjectHooks, SideFile
from adw_modules.agents.foreign import (
    Json,
    http_status,
    instant,
    items,
    mapping,
    money,
    number,
    parse_object,
    text_of,
    word,
)
from adw_modules.agents.records import SessionReader
from adw_modules.agents.stream import (
    UNNAMED_MODEL,
    AgentEvent,
    FinalRecord,
    Finished,
    LineSplitter,
    RateLimit,
    Retry,
    Started,
    StreamSummary,
    Tail,
    Text,
    ToolUse,
    clean_text,
    one_line,
)
from adw_modules.money.usage import UsageLedger
from adw_modules.tasks.model import ModelUsage

BROKEN_OFF = frozenset({"server_error", "unknown"})  # Claude's words for an answer without an end
RESULT_TEXT_LIMIT = 4000
SYNTHETIC_MODEL = "<synthetic>"  # error messages that Claude writes itself: no call, no tokens
TOOL_RESULT = (
    b'{"type":"user",'  # of no use to us, and most of the bytes: files that were read, output of commands
)
MOST_OPEN_STREAMS = 100  # main loop and sub-agents that stream at the same time


class ClaudeStream:
    """Reads one run's standard output. See `StreamParser`."""

    def __init__(self) -> None:
        self._lines = LineSplitter()
        self._state = _State()

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


class TranscriptReader(SessionReader):
    """Claude's session files: each call's final output, also after a SIGKILL, in its output's records."""

    def __init__(self) -> None:
        super().__init__(ClaudeStream())


class _State:
    """What the lines so far have told."""

    def __init__(self) -> None:
        self.ledger = UsageLedger()
        self.tail = Tail()
        self.final: FinalRecord | None = None
        self.session_id: str | None = None
        self.model: str | None = None
        self.denials = 0
        self.api_error_status: int | None = None
        self.api_error: str | None = None
        self.retry_statuses: list[int] = []
        self.rate_limit: RateLimit | None = None
        self.last_call: tuple[object, object] = (None, None)  # id and usage of a message as last told
        self.open_messages: dict[str, tuple[str, str]] = {}  # streaming now: parent tool use -> (id, model)

    def read(self, line: bytes | None) -> list[AgentEvent]:
        if line is None:
            self.tail.add("(a line over 16 MiB was skipped)")
            return []
        if line.startswith(TOOL_RESULT):
            return []
        event = parse_object(line)
        if event is None:
            self._note_plain_text(line)
            return []
        reader = _READERS.get(text_of(event.get("type")))
        return reader(self, event) if reader else []

    def summary(self) -> StreamSummary:
        limit = self.rate_limit
        return StreamSummary(
            usage=self.ledger.usage(),
            final=self.final,
            last_lines=self.tail.lines(),
            session_id=self.session_id,
            model=self.model,
            permission_denials=self.denials,
            api_error_status=self.api_error_status,
            api_error=self.api_error,
            retry_statuses=tuple(self.retry_statuses),
            rate_limit_status=limit.status if limit else None,
            rate_limit_resets_at=limit.resets_at if limit else None,
        )

    def _note_plain_text(self, line: bytes) -> None:
        # A damaged record starts like one and is of no use to a reader; anything else is a message.
        if not line.lstrip().startswith(b"{"):
            self.tail.add(line.decode("utf-8", "replace"))

    def read_system(self, event: Json) -> list[AgentEvent]:
        match event.get("subtype"):
            case "init":
                return [self._start(event)]
            case "api_retry":
                return [self._retry(event)]
            case "permission_denied":
                self.denials += 1
                self.tail.add(f"permission denied: {word(event.get('tool_name'))}")
        return []

    def _start(self, event: Json) -> Started:
        self.session_id = word(event.get("session_id")) or self.session_id
        self.model = word(event.get("model")) or self.model
        return Started(session_id=self.session_id, model=self.model)

    def _retry(self, event: Json) -> Retry:
        retry = _retry_event(event)
        status = retry.error_status
        if status is not None and status not in self.retry_statuses:
            self.retry_statuses.append(status)
        why = " ".join(str(part) for part in (status, retry.error) if part and part != "unknown")
        self.tail.add(f"retry {retry.attempt} of {retry.max_retries} after {why or 'a network error'}")
        return retry

    def read_assistant(self, event: Json) -> list[AgentEvent]:
        message = mapping(event.get("message"))
        if message.get("model") == SYNTHETIC_MODEL:
            self.api_error = word(event.get("error")) or self.api_error
            self.api_error_status = http_status(event.get("api_error_status")) or self.api_error_status
        else:
            self._count_call(event, message)
        return [said for block in items(message.get("content")) if (said := self._said(block))]

    def _said(self, block: object) -> Text | ToolUse | None:
        content = mapping(block)
        if content.get("type") == "text" and (snippet := one_line(text := text_of(content.get("text")))):
            if snippet == text:  # as nearly all are: no need to look for lines in it
                self.tail.add_line(snippet)
            else:
                self.tail.add(text)
            return Text(snippet=snippet)
        if content.get("type") == "tool_use":
            name = word(content.get("name")) or "?"
            self.tail.add_line(one_line(f"→ {name}"))
            return ToolUse(name=name)
        return None

    def _count_call(self, event: Json, message: Json) -> None:
        told = (message.get("id"), message.get("usage"))
        if told == self.last_call and told[0]:
            return  # another block of the same message
        self.last_call = told
        message_id = word(message.get("id")) or word(event.get("request_id")) or "?"
        usage = _call_usage(message.get("usage"))
        if usage is not None:
            self.ledger.call(message_id, self._model_of(message), usage)

    def _model_of(self, message: Json) -> str:
        return word(message.get("model")) or self.model or UNNAMED_MODEL

    def read_stream_event(self, event: Json) -> list[AgentEvent]:
        inner = mapping(event.get("event"))
        parent = word(event.get("parent_tool_use_id"))
        match inner.get("type"):
            case "message_start":
                self._open_message(parent, mapping(inner.get("message")))
            case "message_delta" if parent in self.open_messages:
                message_id, model = self.open_messages[parent]
                usage = _call_usage(inner.get("usage"))
                if usage is not None:
                    self.ledger.call(message_id, model, usage)
            case "message_stop":
                self.open_messages.pop(parent, None)
        return []

    def _open_message(self, parent: str, message: Json) -> None:
        message_id = word(message.get("id"))
        if message_id and len(self.open_messages) < MOST_OPEN_STREAMS:
            self.open_messages[parent] = (message_id, self._model_of(message))

    def read_rate_limit(self, event: Json) -> list[AgentEvent]:
        info = mapping(event.get("rate_limit_info")) or event
        status = word(info.get("status"))
        if not status:
            return []
        self.rate_limit = RateLimit(
            status=status,
            resets_at=instant(info.get("resetsAt")),
            remaining=number(info.get("remaining")),
            limit=number(info.get("limit")),
        )
        return [self.rate_limit]

    def read_result(self, event: Json) -> list[AgentEvent]:
        final = _final_record(event)
        self.final = final
        self.session_id = word(event.get("session_id")) or self.session_id
        self.denials = max(self.denials, len(items(event.get("permission_denials"))))
        self.api_error_status = final.api_error_status
        if not final.is_error:
            self.api_error = None  # an earlier turn's error, overcome since
        self._report(event)
        self.tail.add(final.result_text)
        for error in items(event.get("errors")):
            self.tail.add(text_of(error))
        return [Finished(record=final)]

    def _broke_off(self, event: Json) -> bool:
        """Whether the last answer broke off on its way: its output was told at its end, which never came."""
        is_error = word(event.get("terminal_reason")) == "api_error"
        has_status = http_status(event.get("api_error_status")) is not None
        return is_error and not has_status and self.api_error in BROKEN_OFF

    def _report(self, event: Json) -> None:
        since = _by_model(event.get("model_usage_since_last_result"), event)
        whole = _by_model(event.get("modelUsage"), event)
        main_loop = _call_usage(event.get("usage"))
        by_turn = {"": main_loop} if main_loop else None
        holds_tokens = _holds_tokens(since, whole, by_turn)
        if not (holds_tokens or _was_refused(event)):
            return  # cut off in its first call, or numbers left out: what it took is not known
        if event.get("usage_is_partial") is True or (holds_tokens and self._broke_off(event)):
            self.ledger.leaves_out()
        if since is not None:
            self.ledger.report(since, _costs(event["model_usage_since_last_result"]), cumulative=False)
        elif whole is not None:
            self.ledger.report(whole, money(event.get("total_cost_usd")), cumulative=True)
        elif main_loop is not None:
            self.ledger.report({self.model or UNNAMED_MODEL: main_loop}, None, cumulative=False)


_READERS: dict[str, Callable[[_State, Json], list[AgentEvent]]] = {
    "system": _State.read_system,
    "assistant": _State.read_assistant,
    "stream_event": _State.read_stream_event,
    "rate_limit_event": _State.read_rate_limit,
    "result": _State.read_result,
}


# --- records -> values ------------------------------------------------------------------------------------


def _final_record(event: Json) -> FinalRecord:
    subtype = word(event.get("subtype"))
    said_error = event.get("is_error")
    return FinalRecord(
        is_error=said_error if isinstance(said_error, bool) else subtype != "success",
        subtype=subtype,
        terminal_reason=word(event.get("terminal_reason")) or None,
        api_error_status=http_status(event.get("api_error_status")),
        num_turns=number(event.get("num_turns")),
        duration_ms=number(event.get("duration_ms")),
        duration_api_ms=number(event.get("duration_api_ms")),
        result_text=clean_text(text_of(event.get("result")), RESULT_TEXT_LIMIT),
        cost_usd=money(event.get("total_cost_usd")),
    )


def _was_refused(event: Json) -> bool:
    """Whether the API took no call at all, so that no tokens really means none."""
    refused = word(event.get("terminal_reason")) in {"api_error", "prompt_too_long"}
    return refused or http_status(event.get("api_error_status")) is not None


def _holds_tokens(*reports: Mapping[str, ModelUsage] | None) -> bool:
    return any(usage.total for report in reports if report for usage in report.values())


def _retry_event(event: Json) -> Retry:
    delay = min(number(event.get("retry_delay_ms")) or 0, 86_400_000)
    return Retry(
        error_status=http_status(event.get("error_status")),
        error=word(event.get("error")) or None,
        attempt=number(event.get("attempt")) or 0,
        max_retries=number(event.get("max_retries")) or 0,
        delay=timedelta(milliseconds=delay),
        resets_at=instant(event.get("resetsAt")),
    )


def _call_usage(value: object) -> ModelUsage | None:
    """Usage as the Messages API writes it (snake_case); None when there is none."""
    if not isinstance(value, dict):
        return None
    split = mapping(value.get("cache_creation"))
    details = mapping(value.get("output_tokens_details"))
    return _model_usage(
        tokens_in=value.get("input_tokens"),
        cache_read=value.get("cache_read_input_tokens"),
        cache_write=value.get("cache_creation_input_tokens"),
        cache_write_1h=split.get("ephemeral_1h_input_tokens"),
        tokens_out=value.get("output_tokens"),
        reasoning=details.get("thinking_tokens"),
    )


def _by_model(value: object, event: Json) -> dict[str, ModelUsage] | None:
    """Usage as Claude Code adds it up (camelCase, by model); None when it cannot be read."""
    if not isinstance(value, dict):
        return None
    entries = {one_line(model): entry for model, entry in value.items() if isinstance(entry, dict)}
    if value and not entries:
        return None
    # 2.1.197 has the 5 minute / 1 hour split only in `usage`, where it can be told apart for one model.
    main_loop = mapping(mapping(event.get("usage")).get("cache_creation"))
    split = main_loop.get("ephemeral_1h_input_tokens") if len(entries) == 1 else None
    return {model: _reported_usage(entry, split) for model, entry in entries.items()}


def _reported_usage(entry: Json, one_hour: object) -> ModelUsage:
    return _model_usage(
        tokens_in=entry.get("inputTokens"),
        cache_read=entry.get("cacheReadInputTokens"),
        cache_write=entry.get("cacheCreationInputTokens"),
        cache_write_1h=entry.get("cacheCreationEphemeral1hInputTokens", one_hour),
        tokens_out=entry.get("outputTokens"),
        reasoning=entry.get("thinkingTokens"),
    )


def _model_usage(
    *,
    tokens_in: object,
    cache_read: object,
    cache_write: object,
    cache_write_1h: object,
    tokens_out: object,
    reasoning: object,
) -> ModelUsage:
    written = number(cache_write) or 0
    one_hour = min(number(cache_write_1h) or 0, written)
    return ModelUsage(
        input=number(tokens_in) or 0,
        cache_read=number(cache_read) or 0,
        cache_write_5m=written - one_hour,
        cache_write_1h=one_hour,
        output=number(tokens_out) or 0,
        reasoning=number(reasoning) or 0,
    )


def _costs(by_model: object) -> Decimal | None:
    total = Decimal(0)
    for entry in mapping(by_model).values():
        cost = money(mapping(entry).get("costUSD"))
        if cost is None:
            return None
        total += cost
    return total


DIALECT = Dialect(
    name="claude",
    parser=ClaudeStream,
    programs=("claude",),
    # No positional prompt: the real program takes the word after -p for the prompt itself, not for a file.
    login_paths=(".claude", ".claude.json"),
    template=(
        "claude",
        "-p",
        "--model",
        "{model}",
        "--output-format",
        "stream-json",
        "--verbose",
        "--dangerously-skip-permissions",
    ),
    # No self-update and no calls home: a worker talks to its provider and to nobody else.
    env=MappingProxyType(
        {
            "DISABLE_AUTOUPDATER": "1",
            "DISABLE_TELEMETRY": "1",
            "DISABLE_ERROR_REPORTING": "1",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        }
    ),
    config_dir_env="CLAUDE_CONFIG_DIR",
    max_cost="--max-budget-usd",
    side_file=SideFile(
        pattern="agent-config/projects/**/*.jsonl", reader=TranscriptReader, corrects_reports=False
    ),
    # Settings of the repository can name programs in many keys, so none of them is read; with them goes
    # CLAUDE.md, which the last two bring back as text.
    project_hooks=ProjectHooks(
        off=("--setting-sources", "user", "--strict-mcp-config", "--add-dir", "."),
        off_env=MappingProxyType({"CLAUDE_CODE_ADDITIONAL_DIRECTORIES_CLAUDE_MD": "1"}),
    ),
)
