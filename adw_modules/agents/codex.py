"""Codex's `exec --json`: its records, read into the common words.

Owns Codex's field names and error sentences. Must not decide outcomes or prices.

Which numbers count (measured on 0.169.0 against a server that knew what it had billed): the newest
`turn.completed.usage` of each thread, because it counts the thread from its first turn. Input includes what
the cache had, output includes the reasoning. No record names a model, so the tokens stand under
`UNNAMED_MODEL`, which whoever knows the model of the run fills in.

What one stream cannot tell, and what is said instead:
- `exec resume` counts the thread's earlier turns again, and nothing in the stream says that there were any.
  The numbers are then too high and look like any others; the command here never resumes.
- `turn.failed` has no usage at all: unknown, or, after a turn that was counted, a lower bound (`derived`).
- Sub-agents are not counted: once one is seen, the numbers are a lower bound (`derived`).
- A killed run has no usage.
For these there are the session files under $CODEX_HOME: a `token_usage_record` for each response.
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from types import MappingProxyType

from adw_modules.agents.dialect import Dialect, ProjectHooks, SideFile
from adw_modules.agents.foreign import Json, http_status, mapping, number, text_of, word
from adw_modules.agents.records import RecordState, RecordStream, SessionReader, ended
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
from adw_modules.agents.trouble import ApiError, Trouble, asked_to_wait, trouble_of
from adw_modules.money.usage import inclusive
from adw_modules.tasks.model import ModelUsage, Usage, UsageSource

RESULT_TEXT_LIMIT = 4000
SENTENCE_LIMIT = 4000  # an error sentence quotes the answer's body, whatever that is
MOST_OPEN_ITEMS = 1000
MOST_THREADS = 1000
NO_TOOLS = frozenset({"agent_message", "reasoning", "error", "todo_list"})

_STATUS = re.compile(r"(?:unexpected status|exceeded retry limit, last status:) (\d{3})\b")
_RECONNECTING = re.compile(
    r"Reconnecting\.\.\. (?:(\d{1,6})/(\d{1,6}) |waiting for network )\((.*)\)\s*", re.DOTALL
)
_INCOMPLETE = re.compile(r"Incomplete response returned, reason: ([a-z_]{1,60})")
_TOO_LONG = re.compile(r"Codex ran out of room in the model's context window|\bcontext_length_exceeded\b")
# Sentences without a status, the more special ones first.
_SENTENCES: tuple[tuple[re.Pattern[str], Trouble], ...] = (
    (re.compile(r"Quota exceeded\b|You exceeded your current quota"), Trouble.BILLING),
    (re.compile(r"You.ve hit your usage limit"), Trouble.RATE_LIMIT),
    (re.compile(r"(?:stream disconnected before completion: )?Rate limit reached\b"), Trouble.RATE_LIMIT),
    (re.compile(r"Selected model is at capacity"), Trouble.OVERLOADED),
    (re.compile(r"We.re currently experiencing high demand"), Trouble.SERVER),
    (re.compile(r"Missing environment variable\b"), Trouble.AUTH),
    (re.compile(r"stream disconnected before completion\b|Connection failed\b"), Trouble.NETWORK),
)


class CodexStream(RecordStream):
    """Reads one run's standard output. See `StreamParser`."""

    def __init__(self) -> None:
        super().__init__(_State())


class _State(RecordState):
    """What the lines so far have told."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: dict[str, ModelUsage] = {}  # what each thread has used, by its newest report
        self.is_uncounted = False  # a turn has begun that no report has counted
        self.has_sub_agents = False
        self.open_items: set[str] = set()
        self.last_message = ""
        self.error: ApiError | None = None
        self.waits = 0  # for the network, which Codex does not count

    def summary(self) -> StreamSummary:
        error = self.error
        return replace(
            super().summary(),
            usage=self._usage(),
            api_error_status=error.status if error else None,
            api_error=error.trouble if error else None,
            retry_after=error.retry_after if error else None,
        )

    def _usage(self) -> Usage:
        if not self.threads:
            return Usage(source=UsageSource.UNKNOWN)
        is_partial = self.is_uncounted or self.has_sub_agents
        source = UsageSource.DERIVED if is_partial else UsageSource.REPORTED
        total = sum(self.threads.values(), start=ModelUsage())
        return Usage(source=source, by_model={UNNAMED_MODEL: total})

    def start_thread(self, record: Json) -> list[AgentEvent]:
        self.session_id = word(record.get("thread_id")) or None
        return [Started(session_id=self.session_id, model=None)]

    def start_turn(self, _record: Json) -> list[AgentEvent]:
        self.final = None  # of the turn before: this one has not ended
        self.is_uncounted = True
        return []

    def read_item(self, record: Json) -> list[AgentEvent]:
        item = mapping(record.get("item"))
        kind = word(item.get("type"))
        if kind not in NO_TOOLS:
            return self._use_tool(item, kind, is_done=record.get("type") == "item.completed")
        text = text_of(item.get("text") if kind == "agent_message" else item.get("message"))
        if kind == "error":
            self.tail.add(f"warning: {text[:SENTENCE_LIMIT]}")
        elif kind == "agent_message" and one_line(text):
            self.last_message = clean_text(text, RESULT_TEXT_LIMIT)
            return self.said(text)
        return []

    def _use_tool(self, item: Json, kind: str, *, is_done: bool) -> list[AgentEvent]:
        """One event for each item: many kinds have only a `completed`, a killed command only a `started`."""
        self.has_sub_agents |= kind == "collab_tool_call"
        item_id = word(item.get("id"))
        if item_id in self.open_items:
            self.open_items -= {item_id} if is_done else set()
            return []
        if not is_done and item_id and len(self.open_items) < MOST_OPEN_ITEMS:
            self.open_items.add(item_id)
        return self.used(word(item.get("tool")) or kind)

    def read_error(self, record: Json) -> list[AgentEvent]:
        sentence = text_of(record.get("message"))[:SENTENCE_LIMIT]
        retry = self._retry(sentence)
        if retry is None:
            self.tail.add(sentence)  # `turn.failed` repeats it
            return []
        if retry.error_status is not None and retry.error_status not in self.retry_statuses:
            self.retry_statuses.append(retry.error_status)
        return [retry]

    def _retry(self, sentence: str) -> Retry | None:
        found = _RECONNECTING.match(sentence)
        if found is None:
            return None
        error = api_error(found[3])
        self.waits += found[1] is None
        why = one_line(found[3])
        self.tail.add(f"retry {found[1]} of {found[2]} after {why}" if found[1] else f"no network: {why}")
        return Retry(
            error_status=error.status,
            error=error.trouble or (Trouble.NETWORK if found[1] is None else None),
            attempt=int(found[1] or self.waits),
            max_retries=int(found[2] or 0),
            delay=error.retry_after or timedelta(0),
        )

    def complete_turn(self, record: Json) -> list[AgentEvent]:
        usage = _usage_of(mapping(record.get("usage")))
        if usage.total and (self.session_id or "" in self.threads or len(self.threads) < MOST_THREADS):
            self.threads[self.session_id or ""] = usage
            self.is_uncounted = False
        self.error = None  # an earlier turn's, overcome since
        self.final = ended(
            "success", is_error=False, terminal_reason="completed", result_text=self.last_message
        )
        return [Finished(record=self.final)]

    def fail_turn(self, record: Json) -> list[AgentEvent]:
        sentence = text_of(mapping(record.get("error")).get("message"))[:SENTENCE_LIMIT]
        self.error = error = api_error(sentence)
        incomplete = _INCOMPLETE.match(sentence)
        is_api = error.is_too_long or error.status is not None or error.trouble is not None
        reason = error.terminal_reason if is_api else (incomplete[1] if incomplete else "")
        self.final = ended(
            "error",
            is_error=True,
            terminal_reason=reason or None,
            api_error_status=error.status,
            result_text=clean_text(sentence, RESULT_TEXT_LIMIT),
        )
        self.is_uncounted = True
        self.tail.add(sentence)
        return [Finished(record=self.final)]

    readers = MappingProxyType(
        {
            "thread.started": start_thread,
            "turn.started": start_turn,
            "item.started": read_item,
            "item.completed": read_item,
            "error": read_error,
            "turn.completed": complete_turn,
            "turn.failed": fail_turn,
        }
    )


def api_error(sentence: str) -> ApiError:
    """What one of Codex's error sentences says; it has no field for any of this."""
    found = _STATUS.match(sentence)
    status = http_status(int(found[1])) if found else None
    spoken = next((trouble for pattern, trouble in _SENTENCES if pattern.match(sentence)), None)
    return ApiError(
        status=status,
        trouble=trouble_of(status) or spoken,
        is_too_long=_TOO_LONG.search(sentence) is not None,
        retry_after=asked_to_wait(sentence),
    )


def _usage_of(usage: Json) -> ModelUsage:
    return inclusive(
        input_total=number(usage.get("input_tokens")) or 0,
        cache_read=number(usage.get("cached_input_tokens")) or 0,
        cache_write=number(usage.get("cache_write_input_tokens")) or 0,
        output_total=number(usage.get("output_tokens")) or 0,
        reasoning=number(usage.get("reasoning_output_tokens")) or 0,
    )


class _Sessions(RecordState):
    """The files of a run's sessions, one after the other, each the story of one thread."""

    def read_context(self, record: Json) -> list[AgentEvent]:
        self.model = word(mapping(record.get("payload")).get("model")) or None
        return []

    def read_call(self, record: Json) -> list[AgentEvent]:
        payload = mapping(record.get("payload"))
        call = word(payload.get("response_id")) or word(record.get("timestamp"))
        self.ledger.call(call, self.model or UNNAMED_MODEL, _usage_of(mapping(payload.get("usage"))))
        return []

    readers = MappingProxyType({"turn_context": read_context, "token_usage_record": read_call})


def _session_reader() -> SessionReader:
    return SessionReader(RecordStream(_Sessions()))


DIALECT = Dialect(
    name="codex",
    parser=CodexStream,
    programs=("codex",),
    login_paths=(".codex",),
    template=(
        "codex",
        "exec",
        "--json",
        "--dangerously-bypass-approvals-and-sandbox",
        "-m",
        "{model}",
        # No self-update and no calls home; there are no environment variables for these.
        "-c",
        "check_for_update_on_startup=false",
        "-c",
        "analytics.enabled=false",
        "-c",
        "features.plugins=false",
        "-c",
        "features.apps=false",
        "-",  # the prompt is on standard input
    ),
    env=MappingProxyType({}),
    config_dir_env="CODEX_HOME",
    side_file=SideFile(
        pattern="agent-config/sessions/**/rollout-*.jsonl", reader=_session_reader, corrects_reports=False
    ),
    # Either signal ends it at once and without a last record; this one also when Node's wrapper passes it on.
    stop_signal="SIGTERM",
    # A folder that nobody has declared trusted brings no configuration along.
    project_hooks=ProjectHooks(at=2, on=("--trust",)),
)
