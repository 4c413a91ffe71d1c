"""opencode's `run --format json`: its records, read into the common words.

Owns opencode's field names. Must not decide outcomes or prices.

Tokens are those of its `step_finish` records, one per model call, added up: input there excludes the cache
and output excludes the reasoning (measured on 1.18.33 against a server that knew what it had billed). Neither
the call that makes the session's title nor those of sub-agents are in the stream, and there is no record of
the whole: what is added up is a lower bound, and its source always `derived`. Its `cost` is its own estimate.

There is no final record either. A step that ended with `stop` is the end of the work; a stream that ends
inside a step, or after one that asked for tools, was cut, whatever the exit code says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from types import MappingProxyType

from adw_modules.agents.dialect import Dialect, ProjectHooks
from adw_modules.agents.foreign import (
    Json,
    http_status,
    instant,
    mapping,
    number,
    parse_object,
    text_of,
    word,
)
from adw_modules.agents.records import RecordState, RecordStream, ended
from adw_modules.agents.stream import UNNAMED_MODEL, AgentEvent, Finished, RateLimit, Started, clean_text
from adw_modules.tasks.model import ModelUsage

RESULT_TEXT_LIMIT = 4000
GOES_ON = frozenset({"tool-calls", "unknown"})  # reasons after which opencode asks the model again
TERMINAL_REASONS = {"APIError": "api_error", "ContextOverflowError": "prompt_too_long"}
LONGEST_WAIT = 30 * 86_400  # seconds; a header that asks for more is damage


class _State(RecordState):
    def __init__(self) -> None:
        super().__init__()
        self.steps = 0
        self.last_text = ""

    def read_start(self, record: Json) -> list[AgentEvent]:
        self.final = None
        session_id = word(record.get("sessionID")) or None
        if session_id == self.session_id:
            return []
        self.session_id = session_id
        return [Started(session_id=session_id, model=None)]

    def read_text(self, record: Json) -> list[AgentEvent]:
        self.last_text = text_of(mapping(record.get("part")).get("text"))
        return self.said(self.last_text)

    def read_tool(self, record: Json) -> list[AgentEvent]:
        return self.used(mapping(record.get("part")).get("tool"))

    def read_finish(self, record: Json) -> list[AgentEvent]:
        part = mapping(record.get("part"))
        self.steps += 1
        usage = _step_usage(part.get("tokens"))
        if usage is not None:
            self.ledger.call(word(part.get("id")) or f"step {self.steps}", UNNAMED_MODEL, usage)
        self.overcame_errors()
        reason = word(part.get("reason"))
        if reason in GOES_ON or not reason:
            self.final = None
            return []
        self.final = ended(
            reason,
            is_error=reason != "stop",  # "length", "content-filter": the answer was cut off
            num_turns=self.steps,
            result_text=clean_text(self.last_text, RESULT_TEXT_LIMIT),
        )
        return [Finished(record=self.final)]

    def read_error(self, record: Json) -> list[AgentEvent]:
        error = mapping(record.get("error"))
        data = mapping(error.get("data"))
        name, message = word(error.get("name")) or "error", text_of(data.get("message"))
        self.tail.add(message or name)
        self.api_error_status = http_status(data.get("statusCode"))
        self.api_error = _account_error(name, data)
        self.final = ended(
            name,
            is_error=True,
            terminal_reason=TERMINAL_REASONS.get(name),
            api_error_status=self.api_error_status,
            num_turns=self.steps,
            result_text=clean_text(message, RESULT_TEXT_LIMIT),
        )
        return [*self._asked_to_wait(record, data), Finished(record=self.final)]

    def _asked_to_wait(self, record: Json, data: Json) -> list[AgentEvent]:
        if self.api_error_status != 429:
            return []
        said_at = instant(record.get("timestamp"))
        wait = _seconds(mapping(data.get("responseHeaders")).get("retry-after"))
        resets_at = said_at + timedelta(seconds=wait) if said_at and wait else None
        self.rate_limit = RateLimit(status="rejected", resets_at=resets_at)
        return [self.rate_limit]

    readers = MappingProxyType(
        {
            "step_start": read_start,
            "text": read_text,
            "tool_use": read_tool,
            "step_finish": read_finish,
            "error": read_error,
        }
    )


def _step_usage(value: object) -> ModelUsage | None:
    if not isinstance(value, dict):
        return None
    cache = mapping(value.get("cache"))
    reasoning = number(value.get("reasoning")) or 0
    return ModelUsage(
        input=number(value.get("input")) or 0,
        cache_read=number(cache.get("read")) or 0,
        cache_write_5m=number(cache.get("write")) or 0,
        output=(number(value.get("output")) or 0) + reasoning,
        reasoning=reasoning,
    )


def _account_error(name: str, data: Json) -> str | None:
    """The common word for an error that is about the account."""
    if name == "ProviderAuthError":
        return "authentication_failed"
    answer = parse_object(text_of(data.get("responseBody")).encode("utf-8", "replace")) or {}
    said: Mapping[str, object] = mapping(answer.get("error"))
    is_quota = "insufficient_quota" in (said.get("code"), said.get("type"))
    return "billing_error" if is_quota else None


def _seconds(value: object) -> float | None:
    """A `retry-after` header that is a number of seconds."""
    try:
        found = float(text_of(value) or "nan")
    except ValueError:
        return None
    return found if 0 < found <= LONGEST_WAIT else None


def _parser() -> RecordStream:
    return RecordStream(_State())


DIALECT = Dialect(
    name="opencode",
    parser=_parser,
    programs=("opencode",),
    login_paths=(".config/opencode", ".local/share/opencode"),
    template=("opencode", "run", "--format", "json", "--auto", "--pure", "--model", "{model}"),
    # No self-update, nothing shared, no downloads. Its registry look-ups end only with npm_config_offline,
    # which the agent's own `npm install` would inherit.
    env=MappingProxyType(
        {
            "OPENCODE_CONFIG_CONTENT": json.dumps({"autoupdate": False, "share": "disabled"}),
            "OPENCODE_DISABLE_AUTOUPDATE": "1",
            "OPENCODE_DISABLE_MODELS_FETCH": "1",
            "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
            "OPENCODE_DISABLE_DEFAULT_PLUGINS": "1",
        }
    ),
    stop_signal="SIGTERM",  # at once; SIGINT it does not hear where it was started with it ignored
    # No switch keeps it from importing plugins; `opencode.json`, and AGENTS.md with it, the variable does.
    project_hooks=ProjectHooks(
        off_env=MappingProxyType({"OPENCODE_DISABLE_PROJECT_CONFIG": "1"}),
        unstoppable=(".opencode/plugin", ".opencode/plugins", ".opencode/opencode.json*"),
    ),
)
