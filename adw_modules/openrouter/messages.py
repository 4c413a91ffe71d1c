"""What is asked of a model and what comes back, as frozen values.

Owns the shapes. `assembly.py` makes them from an answer, `client.py` sends and receives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, TypeAlias

from adw_modules.openrouter.preferences import ProviderPreferences
from adw_modules.tasks.model import ModelUsage


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """One question to a model. Without `model` the first of `models` is asked."""

    messages: Sequence[Mapping[str, Any]]
    model: str | None = None
    models: Sequence[str] = ()  # tried in order when one fails, whatever its reason
    tools: Sequence[Mapping[str, Any]] = ()
    tool_choice: str | Mapping[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    max_tokens: int | None = None  # of the answer, with its reasoning
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: str | Sequence[str] | None = None
    reasoning_effort: str | None = None  # max xhigh high medium low minimal none
    verbosity: str | None = None
    response_format: Mapping[str, Any] | None = None
    service_tier: str | None = None
    provider: ProviderPreferences | None = None
    session_id: str | None = None  # requests of one session go to one provider, for its cache
    user: str | None = None
    metadata: Mapping[str, str] | None = None  # at most 16 pairs
    cache_control: Mapping[str, Any] | None = None
    plugins: Sequence[Mapping[str, Any]] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)  # any further field, as the wire names it

    def to_json(self, *, stream: bool = False) -> dict[str, Any]:
        """The body of the request. What is not given is not sent."""
        body = {
            "model": self.model,
            "models": list(self.models) or None,
            "messages": [dict(message) for message in self.messages],
            "stream": stream or None,
            "tools": [dict(tool) for tool in self.tools] or None,
            "tool_choice": self.tool_choice,
            "parallel_tool_calls": self.parallel_tool_calls,
            "max_completion_tokens": self.max_tokens,  # `max_tokens` is its deprecated name
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "seed": self.seed,
            "stop": self.stop,
            "reasoning": {"effort": self.reasoning_effort} if self.reasoning_effort else None,
            "verbosity": self.verbosity,
            "response_format": self.response_format,
            "service_tier": self.service_tier,
            "provider": (self.provider.to_json() or None) if self.provider else None,
            "session_id": self.session_id,
            "user": self.user,
            "metadata": self.metadata,
            "cache_control": self.cache_control,
            "plugins": list(self.plugins) or None,
            **self.extra,
        }
        return {name: value for name, value in body.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A tool that the model wants to be run."""

    id: str
    name: str
    arguments: dict[str, Any]  # empty when `error` says that they could not be read
    raw_arguments: str = "{}"  # as the model wrote them
    error: str | None = None  # one sentence, fit to be the answer to the model

    def to_json(self) -> dict[str, Any]:
        """As part of the assistant's message in the next request.

        Arguments that are no JSON are replaced: some providers refuse a history that holds them.
        """
        arguments = "{}" if self.error else self.raw_arguments
        return {
            "id": self.id,
            "type": "function",
            "function": {"name": self.name, "arguments": arguments},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A request that failed and was, or would have been, sent again."""

    number: int  # from 1
    status: int | None  # None when there was no answer
    error_type: str | None
    message: str
    waited_seconds: float = 0  # before the next one; 0 for the last


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """The whole answer of a model, or what came of it before a stream broke off."""

    text: str
    model: str  # that answered: with `models` not always the first that was asked
    reasoning: str = ""
    reasoning_details: tuple[Mapping[str, Any], ...] = ()
    refusal: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str | None = None  # stop length tool_calls content_filter error, or a new word
    native_finish_reason: str | None = None
    provider: str | None = None  # that served it, as OpenRouter names it
    generation_id: str | None = None
    usage: ModelUsage | None = None  # None: not told, which is not 0
    cost_usd: Decimal | None = None  # charged by OpenRouter, and with a key of one's own by its provider too
    is_byok: bool | None = None
    raw_usage: Mapping[str, Any] = field(default_factory=dict)  # as OpenRouter wrote it
    attempts: tuple[Attempt, ...] = ()  # that failed before this one

    def message(self) -> dict[str, Any]:
        """The assistant's message as the next request repeats it."""
        message: dict[str, Any] = {"role": "assistant", "content": self.text or None}
        if self.tool_calls:
            message["tool_calls"] = [call.to_json() for call in self.tool_calls]
        if self.reasoning_details:
            # Some models refuse to go on after a tool call without the reasoning they signed.
            message["reasoning_details"] = [dict(detail) for detail in self.reasoning_details]
        if message["content"] is None and not self.tool_calls:
            message["content"] = ""
        return message


@dataclass(frozen=True, slots=True, kw_only=True)
class TextDelta:
    """A further piece of the answer."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasoningDelta:
    """A further piece of the reasoning."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallStarted:
    """The model began to write a tool call; its arguments follow in pieces."""

    index: int  # among the tool calls of this answer, from 0
    id: str | None
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallDelta:
    """A further piece of a tool call's arguments."""

    index: int
    arguments: str


StreamEvent: TypeAlias = TextDelta | ReasoningDelta | ToolCallStarted | ToolCallDelta | Completion
