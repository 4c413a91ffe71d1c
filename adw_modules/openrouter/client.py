"""The client: one question, one answer, or a stream of pieces, with the waiting in between.

Owns the connection, the limits of what is read, and when a failed request is sent again. What an answer
means is `assembly.py` and `errors.py`. Reads no clock and no environment, and draws no lots: `now`, `sleep`
and the waiting are the caller's, so it runs under any event loop.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from functools import cache, partial
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx
from httpx_sse import EventSource, ServerSentEvent

from adw_modules.openrouter.accounts import Generation, KeyStatus, generation_from, key_from
from adw_modules.openrouter.assembly import Assembly, completion_from, whole
from adw_modules.openrouter.errors import (
    BadAnswer,
    Dropped,
    Facts,
    NoAnswer,
    NotFound,
    OpenRouterError,
    StreamCut,
    Unreachable,
    error_for,
    facts_from,
)
from adw_modules.openrouter.messages import Attempt, ChatRequest, Completion, StreamEvent
from adw_modules.openrouter.quota import Quota, quota_from
from adw_modules.openrouter.retrying import Patience, Tries
from adw_modules.openrouter.tolerant import mapping, one_line, parsed
from adw_modules.openrouter.wire import OPENROUTER_BASE_URL, Attribution, check_base_url, check_key, headers

MOST_BYTES = 64 * 1024 * 1024  # of one answer
MOST_ERROR_BYTES = 256 * 1024
GENERATION_WAITS = (0.5, 1, 2, 4, 8)  # seconds; the record of a generation comes a little after its answer


class OpenRouterClient:
    """One key at one address. An asynchronous context manager, for as many requests as one likes."""

    def __init__(
        self,
        api_key: str,
        *,
        sleep: Callable[[float], Awaitable[object]],
        now: Callable[[], datetime],
        base_url: str = OPENROUTER_BASE_URL,
        attribution: Attribution | None = None,
        patience: Patience | None = None,
        spread: Callable[[], float] = lambda: 1.0,
        on_retry: Callable[[OpenRouterError, Attempt], None] | None = None,
        on_generation: Callable[[str], None] | None = None,
        on_quota: Callable[[Quota], None] | None = None,
    ) -> None:
        """`now` gives aware times. `spread` gives a factor for each wait of ours, such as 0.5 to 1 at random.

        `on_retry` hears of each failure before it is waited for, `on_generation` the id of each stream as
        soon as it is told: with it one can look up what a stream was charged that one gave up; `on_quota`
        what the head of an answer (not of an error) says is left of a rate limit. Raises ValueError, with
        a sentence, for a key or address that cannot be one.
        """
        self._key = check_key(api_key)
        self._base_url = check_base_url(base_url)
        self._headers = headers(self._key, attribution)
        self._patience = patience or Patience()
        self._sleep, self._now, self._on_generation = sleep, now, on_generation
        self._on_quota = on_quota
        self._tries = partial(
            Tries, patience=self._patience, sleep=sleep, now=now, spread=spread, on_retry=on_retry
        )
        self._http: httpx.AsyncClient | None = None

    def __repr__(self) -> str:
        return f"OpenRouterClient(base_url={self._base_url!r})"

    async def __aenter__(self) -> Self:
        times = self._patience
        self._http = httpx.AsyncClient(
            # Answers are small, and what is not compressed cannot be much larger than it looks.
            headers={**self._headers, "Accept-Encoding": "identity"},
            verify=_certificates(),
            timeout=httpx.Timeout(times.silence_seconds, connect=times.connect_seconds),
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()

    # Questions

    async def complete(self, request: ChatRequest) -> Completion:
        """The whole answer at once. Raises OpenRouterError."""
        tries = self._tries()
        while True:
            try:
                async with self._send("POST", "/chat/completions", body=request.to_json()) as response:
                    body = await self._json(response)
                    completion = completion_from(
                        body, model=_asked(request), generation_id=_generation_id(response)
                    )
                return tries.noted(completion)
            except OpenRouterError as error:
                await tries.wait_after(error)

    async def stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        """The answer in pieces as they come, and at last the Completion. Raises OpenRouterError.

        What was delivered is never repeated: an error after the first piece is final, and its `partial`
        holds what came. Close the iterator to stop early (`contextlib.aclosing`).
        """
        tries = self._tries()
        while True:
            has_begun = False
            try:
                async with self._send(
                    "POST", "/chat/completions", body=request.to_json(stream=True)
                ) as response:
                    async for event in self._events(response, request):
                        has_begun = True
                        yield event if not isinstance(event, Completion) else tries.noted(event)
                return
            except OpenRouterError as error:
                if has_begun:
                    raise tries.final(error) from error.__cause__
                await tries.wait_after(error)

    async def generation(self, generation_id: str) -> Generation:
        """What a generation came to and cost, also an aborted one. Raises OpenRouterError.

        The record appears some seconds after the answer, so a 404 is asked again a few times.
        """
        path = f"/generation?id={quote(generation_id, safe='')}"
        for wait in GENERATION_WAITS:
            try:
                return generation_from(await self._get(path))
            except NotFound:
                await self._sleep(wait)
        return generation_from(await self._get(path))

    async def key(self) -> KeyStatus:
        """Limits, use and budgets of the key itself. Raises OpenRouterError."""
        return key_from(await self._get("/key"))

    # One request

    async def _get(self, path: str) -> Mapping[str, Any]:
        tries = self._tries()
        while True:
            try:
                async with self._send("GET", path) as response:
                    body = mapping(await self._json(response))
                    if body.get("error"):
                        raise error_for(
                            facts_from(body, status=response.status_code, headers=response.headers)
                        )
                    return mapping(body.get("data"))
            except OpenRouterError as error:
                await tries.wait_after(error)

    @asynccontextmanager
    async def _send(
        self, method: str, path: str, *, body: Mapping[str, Any] | None = None
    ) -> AsyncIterator[httpx.Response]:
        """An answer whose status is below 300 and whose body is still to be read."""
        if self._http is None:
            raise RuntimeError("the client is not open: use `async with`")
        response = await self._answer(self._http, method, path, body)
        try:
            if response.status_code >= 300:
                raise await self._error(response)
            if self._on_quota is not None and (quota := quota_from(response.headers)) is not None:
                self._on_quota(quota)
            yield response
        finally:
            await response.aclose()

    async def _answer(
        self, http: httpx.AsyncClient, method: str, path: str, body: Mapping[str, Any] | None
    ) -> httpx.Response:
        """The head of the answer. Unreachable means that nothing was sent."""
        content = None if body is None else _encoded(body)
        typed = {"Content-Type": "application/json"} if body is not None else {}
        request = http.build_request(method, self._base_url + path, content=content, headers=typed)
        try:
            response = await http.send(request, stream=True)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError) as error:
            raise Unreachable(_reason(error)) from error
        except httpx.TimeoutException as error:
            raise NoAnswer(_reason(error)) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Dropped(_reason(error)) from error
        ends_at = self._now() + timedelta(seconds=self._patience.answer_seconds)
        # httpx-sse collects a line until it ends, so the limit has to be below it.
        response.stream = _Bounded(response, MOST_BYTES, lambda: self._now() > ends_at)
        return response

    async def _error(self, response: httpx.Response) -> OpenRouterError:
        content = await self._content(response, MOST_ERROR_BYTES)
        status = response.status_code
        if status < 400:
            return BadAnswer(Facts(message=f"it redirects with status {status}", status=status))
        try:
            body = parsed(content)
        except ValueError:
            body = {"error": {"message": _page_title(content)}}
        if not mapping(body).get("error"):
            body = {"error": {"message": mapping(body).get("message")}}
        facts = facts_from(
            body, status=status, headers=response.headers, generation_id=_generation_id(response)
        )
        return error_for(facts)

    async def _json(self, response: httpx.Response) -> Any:
        content = await self._content(response, MOST_BYTES)
        try:
            return parsed(content)
        except ValueError as error:
            facts = Facts(message=_page_title(content), generation_id=_generation_id(response))
            raise BadAnswer(facts) from error

    async def _content(self, response: httpx.Response, most: int) -> str:
        """The body as text, no more than `most` bytes of it, with our key made unreadable."""
        pieces, size = [], 0
        try:
            async for piece in response.aiter_bytes():
                pieces.append(piece)
                size += len(piece)
                if size > most:
                    break
        except httpx.HTTPError as error:
            raise NoAnswer(Facts(message=_reason(error), generation_id=_generation_id(response))) from error
        content = b"".join(pieces)[:most].decode("utf-8", "replace")
        return content.replace(self._key, "***")

    # One stream

    async def _events(
        self, response: httpx.Response, request: ChatRequest
    ) -> AsyncGenerator[StreamEvent, None]:
        """The pieces of a stream, and the Completion when it has ended as it should."""
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        assembly = Assembly(model=_asked(request), generation_id=_generation_id(response))
        if kind != "text/event-stream":
            for event in await self._unstreamed(response, assembly):
                yield event
            return
        self._tell(assembly)
        try:
            async for sse in self._sse(response):
                if sse.data.strip() == "[DONE]":
                    break
                known = assembly.generation_id
                events = assembly.feed(_chunk(sse, self._key))
                if assembly.generation_id != known:
                    self._tell(assembly)
                for event in events:
                    yield event
        except (httpx.HTTPError, httpx.StreamError) as error:
            if not assembly.is_finished:
                raise StreamCut(_reason(error), partial=assembly.completion()) from error
        if not assembly.is_finished:
            raise StreamCut("the stream ended early", partial=assembly.completion())
        yield assembly.completion()

    def _tell(self, assembly: Assembly) -> None:
        if self._on_generation is not None and assembly.generation_id is not None:
            self._on_generation(assembly.generation_id)

    async def _sse(self, response: httpx.Response) -> AsyncGenerator[ServerSentEvent, None]:
        response.encoding = "utf-8"  # always, in a stream of events, whatever the header says
        events = EventSource(response).aiter_sse()
        try:
            async for event in events:
                if event.data:
                    yield event
        finally:
            await events.aclose()

    async def _unstreamed(self, response: httpx.Response, assembly: Assembly) -> list[StreamEvent]:
        """A plain answer to a request for a stream: mostly an error, and sometimes the whole completion."""
        events = whole(assembly, await self._json(response))
        return [*events, assembly.completion()]


@cache
def _certificates() -> ssl.SSLContext:
    """Read once: it takes longer than everything else about a new client."""
    return httpx.create_ssl_context()


class _Bounded(httpx.AsyncByteStream):
    """The bytes of an answer until there are too many, or until it has taken too long."""

    def __init__(self, response: httpx.Response, most: int, is_late: Callable[[], bool]) -> None:
        assert isinstance(response.stream, httpx.AsyncByteStream)  # noqa: S101  for the type checker
        self._inner, self._most, self._is_late = response.stream, most, is_late

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = self._most
        async for piece in self._inner:
            left -= len(piece)
            if left < 0:
                raise httpx.ReadError("the answer is too large")
            if self._is_late():
                raise httpx.ReadTimeout("the answer takes too long")
            yield piece

    async def aclose(self) -> None:
        await self._inner.aclose()


def _encoded(body: Mapping[str, Any]) -> bytes:
    """UTF-8 without half characters, which a tool may have read from some file."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _chunk(sse: ServerSentEvent, key: str) -> Any:
    """The event's JSON; what is none is skipped like a comment."""
    try:
        return parsed(sse.data.replace(key, "***"))
    except ValueError:
        return None


def _asked(request: ChatRequest) -> str:
    return request.model or next(iter(request.models), "")


def _generation_id(response: httpx.Response) -> str | None:
    return one_line(response.headers.get("x-generation-id"), most=200) or None


def _page_title(content: str) -> str:
    """Of a page that is not JSON, what a person can recognise it by."""
    start = content[:4000]
    _, found, rest = start.partition("<title>")
    if found:
        return f'a page "{one_line(rest.partition("</")[0], most=80)}"'
    return f"not JSON: {one_line(start, most=80)}" if start.strip() else "an empty answer"


def _reason(error: Exception) -> str:
    """httpx leaves the text of time-outs empty."""
    names = {"ReadTimeout": "no answer in time", "ConnectTimeout": "no connection in time"}
    return one_line(str(error)) or names.get(type(error).__name__, type(error).__name__)
