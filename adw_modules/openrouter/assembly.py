"""From the pieces of an answer to a `Completion`: streamed chunks, or the one body of a plain answer.

Owns how pieces belong together and what usage means. Knows no transport; every value is read tolerantly, so
no chunk of any shape raises anything but the error that it reports.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from adw_modules.openrouter.errors import Facts, ServerError, error_for, facts_from
from adw_modules.openrouter.messages import (
    Completion,
    ReasoningDelta,
    StreamEvent,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    ToolCallStarted,
)
from adw_modules.openrouter.tolerant import charge, count, flag, mapping, mappings, one_line, parsed, text
from adw_modules.tasks.model import ModelUsage

MOST_TOOL_CALLS = 128  # of one answer


def completion_from(body: Any, *, model: str = "", generation_id: str | None = None) -> Completion:
    """The completion of a plain answer. Raises the error that the body reports, or ServerError."""
    assembly = Assembly(model=model, generation_id=generation_id)
    whole(assembly, body)
    return assembly.completion()


def whole(assembly: Assembly, body: Any) -> list[StreamEvent]:
    """Take in a plain answer: its message is one large piece. Raises as `completion_from` does."""
    events = assembly.feed(body)
    if not mappings(mapping(body).get("choices")):
        raise ServerError(Facts(message="the answer has no choices", generation_id=assembly.generation_id))
    return events


class Assembly:
    """One streamed answer as it comes in."""

    def __init__(self, *, model: str = "", generation_id: str | None = None) -> None:
        self.generation_id = generation_id
        self._model = model
        self._provider: str | None = None
        self._text, self._reasoning = _Text(), _Text()
        self._details: list[Mapping[str, Any]] = []
        self._refusal = ""
        self._calls: list[_Call] = []
        self._slots: dict[int, int] = {}  # the wire's index -> place in `_calls`
        self._finish: str | None = None
        self._native_finish: str | None = None
        self._usage: Mapping[str, Any] = {}

    @property
    def is_finished(self) -> bool:
        """The model said that it is done; only the usage may be missing."""
        return self._finish is not None

    def feed(self, chunk: Any) -> list[StreamEvent]:
        """Take in one chunk. Raises the error that it reports, with what had come before as `partial`."""
        table = mapping(chunk)
        self._note_origin(table)
        choices = mappings(table.get("choices"))
        events = self._choice(choices[0]) if choices else []
        self._raise_error(table, choices)
        return events

    def completion(self) -> Completion:
        """All that has come, as a whole."""
        usage = usage_from(self._usage)
        return Completion(
            text=self._text.whole(),
            model=self._model,
            reasoning=self._reasoning.whole(),
            reasoning_details=tuple(self._details),
            refusal=self._refusal or None,
            tool_calls=tuple(call.finished(place) for place, call in enumerate(self._calls)),
            finish_reason=self._finish,
            native_finish_reason=self._native_finish,
            provider=self._provider,
            generation_id=self.generation_id,
            usage=usage,
            cost_usd=cost_from(self._usage),
            is_byok=flag(self._usage.get("is_byok")),
            raw_usage=self._usage,
        )

    def _note_origin(self, table: Mapping[str, Any]) -> None:
        self.generation_id = one_line(table.get("id")) or self.generation_id
        self._model = one_line(table.get("model")) or self._model
        self._provider = one_line(table.get("provider"), most=80) or self._provider
        self._usage = mapping(table.get("usage")) or self._usage

    def _raise_error(self, table: Mapping[str, Any], choices: tuple[Mapping[str, Any], ...]) -> None:
        error = table.get("error") or next((c["error"] for c in choices if c.get("error")), None)
        if error is None and self._finish != "error":
            return
        facts = facts_from({"error": error}, status=None, generation_id=self.generation_id)
        if error is None:
            facts = replace(
                facts,
                message=f"the provider ended with an error ({self._native_finish or 'no reason given'})",
            )
        raise error_for(facts, partial=self.completion())

    def _choice(self, choice: Mapping[str, Any]) -> list[StreamEvent]:
        self._finish = text(choice.get("finish_reason")) or self._finish
        self._native_finish = one_line(choice.get("native_finish_reason"), most=80) or self._native_finish
        delta = mapping(choice.get("delta")) or mapping(choice.get("message"))
        events: list[StreamEvent] = []
        if piece := self._reasoning.add(_reasoning_piece(delta)):
            events.append(ReasoningDelta(text=piece))
        if piece := self._text.add(_content(delta.get("content"))):
            events.append(TextDelta(text=piece))
        self._details += mappings(delta.get("reasoning_details"))
        self._refusal += text(delta.get("refusal")) or ""
        for position, call in enumerate(mappings(delta.get("tool_calls"))):
            events += self._call(call, position)
        return events

    def _call(self, delta: Mapping[str, Any], position: int) -> list[StreamEvent]:
        function, call_id = mapping(delta.get("function")), text(delta.get("id"))
        place = self._place(delta, call_id, position)
        if place is None:
            return []
        call = self._calls[place]
        events: list[StreamEvent] = []
        call.id = call.id or call_id
        if not call.name and (name := text(function.get("name"))):
            call.name = name
            events.append(ToolCallStarted(index=place, id=call.id, name=name))
        piece = _arguments_piece(function.get("arguments"))
        if piece:
            call.pieces.append(piece)
            events.append(ToolCallDelta(index=place, arguments=piece))
        return events

    def _place(self, delta: Mapping[str, Any], call_id: str | None, position: int) -> int | None:
        """Where this piece belongs. Some providers send no index, or the same one for two calls."""
        index = count(delta.get("index"))
        if index is None:
            index = self._index_without(call_id, position)
        place = self._slots.get(index)
        if place is not None and self._is_same(self._calls[place], call_id):
            return place
        if len(self._calls) >= MOST_TOOL_CALLS:
            return None
        self._calls.append(_Call())
        self._slots[index] = len(self._calls) - 1
        return self._slots[index]

    def _index_without(self, call_id: str | None, position: int) -> int:
        for index, place in self._slots.items():
            if call_id is not None and self._calls[place].id == call_id:
                return index
        latest = max(self._slots, default=-1)
        return latest if call_id is None and self._slots and position == 0 else latest + 1

    @staticmethod
    def _is_same(call: _Call, call_id: str | None) -> bool:
        return call_id is None or call.id is None or call.id == call_id


@dataclass(slots=True)
class _Call:
    """A tool call whose arguments are still coming in."""

    id: str | None = None
    name: str = ""
    pieces: list[str] = field(default_factory=list)

    def finished(self, place: int) -> ToolCall:
        raw = _whole("".join(self.pieces)).strip() or "{}"
        arguments, error = _arguments(raw)
        if not self.name:
            error = "The tool call has no name."
        return ToolCall(
            id=self.id or f"call_{place}",
            name=self.name,
            arguments=arguments,
            raw_arguments=raw,
            error=error,
        )


def _arguments(raw: str) -> tuple[dict[str, Any], str | None]:
    try:
        found = parsed(raw)
    except ValueError as error:
        return {}, f"The arguments are not valid JSON: {one_line(str(error), most=120)}."
    if not isinstance(found, dict):
        return {}, "The arguments must be a JSON object."
    return found, None


def _arguments_piece(value: Any) -> str:
    """A text; some providers send the object itself."""
    return json.dumps(value) if isinstance(value, dict) else text(value) or ""


class _Text:
    """A text that grows. Half of a character at the end is kept back until its other half is there."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._half = ""

    def add(self, piece: str) -> str:
        """What can be shown of it now."""
        piece, self._half = self._half + piece, ""
        if piece and "\ud800" <= piece[-1] <= "\udbff":
            piece, self._half = piece[:-1], piece[-1]
        piece = _whole(piece)
        self._pieces.append(piece)
        return piece

    def whole(self) -> str:
        return "".join(self._pieces) + _whole(self._half)


def _whole(value: str) -> str:
    """Joins the halves of characters that were cut in UTF-16; a half alone cannot be written to any file."""
    if value.isascii():
        return value
    return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _content(value: Any) -> str:
    """Text, or the texts of a list of parts."""
    if isinstance(value, list):
        return "".join(text(part.get("text")) or "" for part in mappings(value))
    return text(value) or ""


def _reasoning_piece(delta: Mapping[str, Any]) -> str:
    """`reasoning`; `reasoning_content` is what compatible servers call it."""
    return text(delta.get("reasoning")) or text(delta.get("reasoning_content")) or ""


# --- usage --------------------------------------------------------------------------------------


def usage_from(usage: Mapping[str, Any]) -> ModelUsage | None:
    """Canonical tokens; None when nothing was told. OpenRouter counts cached tokens among the prompt's."""
    prompt, completion = count(usage.get("prompt_tokens")), count(usage.get("completion_tokens"))
    if prompt is None and completion is None:
        return None
    inputs, outputs = (
        mapping(usage.get("prompt_tokens_details")),
        mapping(usage.get("completion_tokens_details")),
    )
    return canonical(
        prompt=prompt or 0,
        completion=completion or 0,
        cached=count(inputs.get("cached_tokens")) or 0,
        # The second name is that of Anthropic's own answers, which some who serve pass on.
        cache_write=count(inputs.get("cache_write_tokens"))
        or count(usage.get("cache_creation_input_tokens"))
        or 0,
        reasoning=count(outputs.get("reasoning_tokens")) or 0,
    )


def canonical(*, prompt: int, completion: int, cached: int, cache_write: int, reasoning: int) -> ModelUsage:
    """Disjoint kinds of input. How long a cache write is kept is not told; five minutes are usual."""
    return ModelUsage(
        input=max(0, prompt - cached - cache_write),
        cache_read=cached,
        cache_write_5m=cache_write,
        output=max(completion, reasoning),
        reasoning=reasoning,
    )


def cost_from(usage: Mapping[str, Any]) -> Decimal | None:
    """US dollars: OpenRouter's charge, and with a key of one's own what its provider charges besides."""
    cost = charge(usage.get("cost"))
    upstream = charge(mapping(usage.get("cost_details")).get("upstream_inference_cost"))
    return own_spend(cost, upstream, is_byok=flag(usage.get("is_byok")))


def own_spend(cost: Decimal | None, upstream: Decimal | None, *, is_byok: bool | None) -> Decimal | None:
    """Only with a key of one's own is the upstream figure a second bill; otherwise it repeats the first."""
    if cost is None or not upstream:
        return cost
    return cost + upstream if is_byok or (is_byok is None and cost == 0) else cost
