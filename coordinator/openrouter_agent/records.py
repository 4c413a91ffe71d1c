"""What the program prints: Claude Code's stream of records, or only the result.

Owns the shape of every record, the three formats, and where lines go. Whatever happens to a run, exactly
one result is printed. Must not decide how a run ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Any

from adw_modules.openrouter.messages import Completion
from adw_modules.openrouter.quota import Quota
from adw_modules.tasks.model import ModelUsage
from coordinator.openrouter_agent.tally import Tally, anthropic_usage
from coordinator.openrouter_agent.toolbox import ToolResult

SYNTHETIC_MODEL = "<synthetic>"


class Format(StrEnum):
    TEXT = "text"  # the last answer, for a person
    JSON = "json"  # the result record alone
    STREAM_JSON = "stream-json"  # every record as it happens


class Subtype(StrEnum):
    """How a run ended, in Claude's words."""

    SUCCESS = "success"
    ERROR = "error_during_execution"
    MAX_TURNS = "error_max_turns"
    MAX_BUDGET = "error_max_budget_usd"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """Why a run is over."""

    subtype: Subtype
    text: str  # the last answer, or one sentence that says what went wrong
    reason: str = "completed"  # `terminal_reason`
    status: int | None = None  # the HTTP status of the error that ended it
    error: str | None = None  # Claude's word for that error, e.g. authentication_failed

    @property
    def is_error(self) -> bool:
        return self.subtype is not Subtype.SUCCESS


class Records:
    """Prints a run's records to standard output, and to a file if there is one.

    Raises OSError, with the name, when one of them takes no more; from then on only the other one is used.
    """

    def __init__(self, form: Format, session_id: str, output_file: Path | None = None) -> None:
        self._form = form
        self.session_id = session_id
        self._file = output_file.open("w", encoding="utf-8") if output_file else None

    def close(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # what it still held back was told when it was written
                self._file.close()
            self._file = None

    def started(self, *, model: str, tools: Sequence[str], cwd: str, confined: bool) -> None:
        self._stream(
            type="system",
            subtype="init",
            cwd=cwd,
            session_id=self.session_id,
            tools=list(tools),
            model=model,
            permissionMode="bypassPermissions",
            apiKeySource="OPENROUTER_API_KEY",
            commands_confined=confined,
        )

    def answered(self, completion: Completion, message_id: str) -> None:
        """An answer, or what had come of it before it broke off."""
        content = _blocks(completion)
        message = {
            "id": message_id,
            "type": "message",
            "role": "assistant",
            "model": completion.model,
            "content": content,
            "stop_reason": completion.finish_reason,
            "usage": anthropic_usage(completion.usage or ModelUsage()),
        }
        self._stream(type="assistant", message=message, parent_tool_use_id=None, session_id=self.session_id)

    def tools_answered(self, results: Sequence[ToolResult]) -> None:
        content = [
            {
                "type": "tool_result",
                "tool_use_id": each.call_id,
                "content": each.text,
                "is_error": each.is_error,
            }
            for each in results
        ]
        self._stream(
            type="user",
            message={"role": "user", "content": content},
            parent_tool_use_id=None,
            session_id=self.session_id,
        )

    def retrying(
        self,
        *,
        attempt: int,
        most: int,
        delay_seconds: float,
        status: int | None,
        error: str,
        resets_at: int | None = None,
    ) -> None:
        """`resets_at` (seconds since 1970): until when the provider limits us, whenever it is tried again."""
        self._stream(
            type="system",
            subtype="api_retry",
            attempt=attempt,
            max_retries=most,
            retry_delay_ms=round(delay_seconds * 1000),
            error_status=status,
            error=error,
            resetsAt=resets_at,
            session_id=self.session_id,
        )

    def limited(self, resets_at: int | None) -> None:
        """The provider wants to be left alone until then (seconds since 1970)."""
        info = {"status": "rejected", "resetsAt": resets_at, "rateLimitType": "openrouter"}
        self._stream(type="rate_limit_event", rate_limit_info=info, session_id=self.session_id)

    def allowance(self, quota: Quota) -> None:
        """What an answer's headers said is left."""
        info = {
            "status": "allowed" if quota.remaining else "allowed_warning",
            "resetsAt": int(quota.resets_at.timestamp()) if quota.resets_at else None,
            "rateLimitType": "openrouter",
            "remaining": quota.remaining,
            "limit": quota.limit,
        }
        self._stream(type="rate_limit_event", rate_limit_info=info, session_id=self.session_id)

    def still_answering(self) -> None:
        """An answer is coming in."""
        self._stream(type="system", subtype="status", status="answering", session_id=self.session_id)

    def left_out(self, count: int) -> None:
        """Old results of tools no longer fit into the model's context."""
        self._stream(type="system", subtype="compact_boundary", results=count, session_id=self.session_id)

    def ended(
        self,
        ending: Ending,
        tally: Tally,
        *,
        turns: int,
        duration: float,
        api_duration: float,
        last_text: str,
    ) -> None:
        """The one result. Durations are in seconds. As text an error is not here but on standard error."""
        if ending.error is not None:
            self._synthetic(ending)
        record = {
            "type": "result",
            "subtype": ending.subtype,
            "is_error": ending.is_error,
            "api_error_status": ending.status,
            "duration_ms": round(duration * 1000),
            "duration_api_ms": round(api_duration * 1000),
            "num_turns": turns,
            "result": ending.text,
            "stop_reason": None,
            "terminal_reason": ending.reason,
            "session_id": self.session_id,
            "total_cost_usd": tally.cost,
            "known_cost_usd": tally.least_cost,
            "usage": anthropic_usage(tally.total),
            "modelUsage": tally.by_model(),
            "usage_is_partial": tally.is_partial,
            "permission_denials": [],
            "provider": ", ".join(tally.providers) or None,
            "generation_ids": tally.generation_ids,
        }
        if self._form is not Format.TEXT:
            self._print(encoded(record))
        elif said := (last_text if ending.is_error else ending.text).rstrip("\n"):
            self._print(said)

    def _synthetic(self, ending: Ending) -> None:
        message = {
            "id": f"error-{self.session_id}",
            "role": "assistant",
            "model": SYNTHETIC_MODEL,
            "content": [{"type": "text", "text": ending.text}],
            "usage": anthropic_usage(ModelUsage()),
        }
        self._stream(type="assistant", message=message, error=ending.error, session_id=self.session_id)

    def _stream(self, **record: Any) -> None:
        if self._form is Format.STREAM_JSON:
            self._print(encoded(record))

    def _print(self, line: str) -> None:
        """To whoever reads; when standard output is closed the run goes on."""
        problem = self._print_to_stdout(line)
        try:
            if self._file is not None:
                self._file.write(line + "\n")
                self._file.flush()
        except OSError as error:
            problem = OSError(error.errno, error.strerror, self._file.name if self._file else None)
            self.close()
        if problem is not None:
            raise problem

    def _print_to_stdout(self, line: str) -> OSError | None:
        """What went wrong, once; then nothing more is printed there."""
        try:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
        except OSError as error:
            with contextlib.suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            if not isinstance(error, BrokenPipeError):
                return OSError(error.errno, error.strerror, "standard output")
        return None


def _blocks(completion: Completion) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    if completion.reasoning:
        blocks.append({"type": "thinking", "thinking": completion.reasoning})
    if completion.text or completion.refusal:
        blocks.append({"type": "text", "text": completion.text or completion.refusal})
    for call in completion.tool_calls:
        given = call.arguments if call.error is None else {"unreadable": call.raw_arguments[:2000]}
        blocks.append({"type": "tool_use", "id": call.id, "name": call.name, "input": given})
    return blocks


def encoded(value: Any) -> str:
    """JSON on one line, in which a Decimal keeps every digit: as a float, money would be rounded."""
    if isinstance(value, Decimal):
        return format(value, "f") if value.is_finite() else "null"
    if isinstance(value, Mapping):
        return (
            "{" + ", ".join(f"{json.dumps(str(key))}: {encoded(item)}" for key, item in value.items()) + "}"
        )
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(encoded, value)) + "]"
    return json.dumps(value)
