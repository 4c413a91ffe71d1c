"""The short form of the client: one model, messages in, an answer or a stream of text out.

Owns the two ways of asking. Everything else is `client.py`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import fields
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from adw_modules.openrouter.client import OpenRouterClient
from adw_modules.openrouter.messages import ChatRequest, Completion, TextDelta
from adw_modules.openrouter.preferences import DEFAULT_PREFERENCES, PreferenceEntry, preferences_for
from adw_modules.openrouter.wire import OPENROUTER_BASE_URL

_FIELDS = {field.name for field in fields(ChatRequest)}


class OpenRouterProvider:
    """One model behind one key. Raises ValueError, with a sentence, if the key is empty.

    Keyword arguments of a question are the fields of ChatRequest; any other goes into the body as it is.
    """

    def __init__(
        self,
        api_key: str,
        model: str,
        *,
        sleep: Callable[[float], Awaitable[object]],
        now: Callable[[], datetime],
        base_url: str = OPENROUTER_BASE_URL,
        preferences: Sequence[PreferenceEntry] = DEFAULT_PREFERENCES,
        **options: Any,
    ) -> None:
        """`options` are those of OpenRouterClient."""
        self.model = model
        self.client = OpenRouterClient(api_key, sleep=sleep, now=now, base_url=base_url, **options)
        self._preferences = preferences

    async def __aenter__(self) -> Self:
        await self.client.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.client.__aexit__(kind, error, traceback)

    async def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        **kwargs: Any,
    ) -> Completion:
        """The whole answer; the tools that the model wants run are its `tool_calls`."""
        return await self.client.complete(self._request(messages, tools, kwargs))

    async def chat_stream(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[str]:
        """The answer's text in pieces.

        The model may see the tools but not call them: a call has no text, and the stream would stay silent.
        """
        if tools:
            kwargs = {**kwargs, "tool_choice": "none"}
        async with aclosing(self.client.stream(self._request(messages, tools, kwargs))) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    yield event.text

    def _request(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None,
        kwargs: Mapping[str, Any],
    ) -> ChatRequest:
        known = {name: value for name, value in kwargs.items() if name in _FIELDS}
        extra = {name: value for name, value in kwargs.items() if name not in _FIELDS}
        known.setdefault("model", self.model)
        known.setdefault("provider", preferences_for(known["model"] or "", self._preferences))
        known["extra"] = {**known.get("extra", {}), **extra}
        return ChatRequest(messages=messages, tools=tuple(tools or ()), **known)
