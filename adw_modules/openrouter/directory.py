"""OpenRouter's public lists over HTTP: models, endpoints of a model, the key, and the data sets.

Owns the requests and what can go wrong with one, a sentence each. Must not read what an answer means: that is
`adw_modules/catalogue`. Nothing is repeated here; whoever asks decides when to ask again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from adw_modules.errors import CoordinatorError
from adw_modules.openrouter import wire

TIMEOUT_SECONDS = 30.0
PING_TOKENS = 16  # some providers refuse less
LARGEST_ANSWER = 64 * 1024 * 1024  # bytes; the whole catalogue is about one megabyte


class DirectoryError(CoordinatorError):
    """A list could not be read. `status` is what HTTP answered, None when there was no answer at all."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        self.status = status
        super().__init__(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A list as JSON data, its fractions as Decimal. `is_unchanged`: it is the one with the given ETag."""

    data: Any
    etag: str | None = None
    is_unchanged: bool = False


class Directory:
    """Reads lists at one address. Without a key only the public ones. Use as `async with`.

    Raises ValueError, in a sentence, for an address or a key that cannot be one.
    """

    def __init__(
        self,
        base_url: str,
        *,
        key: str | None = None,
        attribution: wire.Attribution | None = None,
        timeout: float = TIMEOUT_SECONDS,
    ) -> None:
        self.base_url = wire.check_base_url(base_url)
        self._http = httpx.AsyncClient(headers=wire.headers(key, attribution), timeout=timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def models(self, *, etag: str | None = None) -> Answer:
        """The whole catalogue of models that write text."""
        return await self.get("/models", etag=etag)

    async def endpoints(self, model_id: str) -> Answer:
        """Who serves a model, and how well."""
        return await self.get(f"/models/{quote(model_id, safe='/')}/endpoints")

    async def key(self) -> Answer:
        """What the key may spend, and has spent."""
        return await self.get("/key")

    async def get(
        self, path: str, *, params: Mapping[str, str] | None = None, etag: str | None = None
    ) -> Answer:
        """Any list. Raises DirectoryError."""
        return await self._ask("GET", path, params=params, etag=etag)

    async def ping(self, model_id: str) -> Answer:
        """The shortest completion there is: a word in, at most 16 tokens out. It costs its price."""
        body = {
            "model": model_id,
            "messages": [{"role": "user", "content": "Say OK."}],
            "max_completion_tokens": PING_TOKENS,
        }
        return await self._ask("POST", "/chat/completions", body=body)

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        etag: str | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> Answer:
        headers = {"If-None-Match": etag} if etag else {}
        try:
            async with self._http.stream(
                method, f"{self.base_url}{path}", params=dict(params or {}), headers=headers, json=body
            ) as response:
                content = await _body(response)
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DirectoryError(f"OpenRouter cannot be reached at {self.base_url}: {reason}") from error
        if response.status_code == 304 and etag:
            return Answer(data=None, etag=etag, is_unchanged=True)
        data = _parsed(content)
        problem = _problem(response.status_code, data)
        if problem is not None:
            raise DirectoryError(f"OpenRouter answered {path} with {problem}", status=response.status_code)
        return Answer(data=data, etag=response.headers.get("ETag"))


async def _body(response: httpx.Response) -> bytes:
    pieces, size = [], 0
    async for piece in response.aiter_bytes():
        size += len(piece)
        if size > LARGEST_ANSWER:
            raise httpx.StreamError(f"the answer is larger than {LARGEST_ANSWER} bytes")
        pieces.append(piece)
    return b"".join(pieces)


def _parsed(body: bytes) -> Any:
    """JSON with every fraction as it was spelled; None for anything else."""
    try:
        return json.loads(body, parse_float=Decimal, parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        return None


def _problem(status: int, data: Any) -> str | None:
    """What is wrong with an answer. An error may come with status 200, and then it stands in the body."""
    error = data.get("error") if isinstance(data, dict) else None
    if error:
        said = error.get("message") if isinstance(error, dict) else None
        text = " ".join(str(said).split())[:200] if isinstance(said, str) else "an error"
        return f"{status}: {text}" if status != 200 else f"an error: {text}"
    if status != 200:
        return f"{status}"
    return None if isinstance(data, dict) else "something that is not JSON"
