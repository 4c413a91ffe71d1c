"""Where GitHub may say that something is new: one path, one method, signed deliveries, no information back.

Owns the socket and what a sender may cost: connections, time, bytes. What a delivery has to prove is in
`adw_modules/security/webhooks.py`. A delivery is never believed: what comes of it is one poll, asked of
GitHub itself. Runs on the daemon's loop, reads in pieces, and loads its parser only when it is switched on.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any

from adw_modules.config import WebhookSettings
from adw_modules.errors import ConfigError
from adw_modules.security.webhooks import (
    EVENTS,
    Deliveries,
    Hint,
    Signatures,
    claimed_digest,
    hint_of,
    secrets_of,
)
from coordinator.logs import get_logger

if TYPE_CHECKING:
    import h11

log = get_logger()

LONGEST_BODY = (
    4 * 1024 * 1024
)  # bytes; an issue of the greatest length, escaped and quoted twice, is half of it
LONGEST_HEAD = 16 * 1024
MOST_HELD = 16 * 1024 * 1024  # bytes of bodies that are being read, in all
MOST_CONNECTIONS = 64  # one more ends the oldest: who sends slowly locks nobody out
WHOLE_REQUEST_SECONDS = 10.0  # as long as GitHub waits for the answer
LINGER_SECONDS = 1.0  # for a refused sender to see why, before the connection ends
PIECE = 64 * 1024
SAY_AGAIN_SECONDS = 60.0  # refusals are counted, and said once a minute at most

_REASONS = {200: b"OK", 202: b"Accepted", 400: b"Bad Request", 401: b"Unauthorized", 404: b"Not Found",
            405: b"Method Not Allowed", 413: b"Content Too Large", 415: b"Unsupported Media Type",
            503: b"Service Unavailable"}  # fmt: skip
_Headers = dict[bytes, list[bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Head:
    """What is left of a request's head once it was found in order."""

    event: str
    delivery: str
    claimed: bytes


class _Refused(Exception):
    """The request gets this status and nothing else. `why` is for our log."""

    def __init__(self, status: int, why: str) -> None:
        self.status, self.why = status, why
        super().__init__(why)


@dataclass(slots=True)
class WebhookServer:
    """One listening socket: `open`, then `serve`, then `stop`. `on_hint` is called on the loop's thread."""

    settings: WebhookSettings
    secrets: str  # as in the variable: one, or two with a comma between them
    on_hint: Callable[[Hint], None]
    accepted: int = 0
    refused: int = 0
    _server: asyncio.Server | None = None
    _deliveries: Deliveries = field(default_factory=Deliveries)
    _connections: dict[asyncio.Task[Any], None] = field(default_factory=dict)
    _held: int = 0
    _said_at: float | None = None
    _refused_when_said: int = 0

    async def open(self) -> None:
        """Take the port. Raises ConfigError when it cannot be had."""
        host, port = self.settings.address
        try:
            self._server = await asyncio.start_server(
                self._connected, host, port, limit=PIECE, start_serving=False
            )
        except OSError as error:
            why = os.strerror(error.errno).lower() if error.errno else str(error)
            raise ConfigError(
                f"[webhook] cannot listen on {self.settings.listen} ({why}): end what uses the port, or "
                "choose another one."
            ) from error

    async def serve(self) -> None:
        """Answer from now on."""
        assert self._server is not None  # noqa: S101  `open` comes first
        await self._server.start_serving()
        log.info("webhook listens", address=self.address, path=self.settings.path)

    async def stop(self) -> None:
        """Let the port go and end all connections."""
        if self._server is None:
            return
        self._server.close()
        for connection in list(self._connections):
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    @property
    def address(self) -> str:
        """Where it listens; with port 0 in the configuration, the port that was free."""
        host, port = self.settings.address
        if self._server is not None and self._server.sockets:
            port = self._server.sockets[0].getsockname()[1]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def as_dict(self) -> dict[str, Any]:
        """For the status file."""
        return {
            "address": self.address,
            "path": self.settings.path,
            "accepted": self.accepted,
            "refused": self.refused,
        }

    # -- one connection -------------------------------------------------------------------------------

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  asyncio made one for this connection
        if len(self._connections) >= MOST_CONNECTIONS:
            oldest = next(iter(self._connections))
            del self._connections[oldest]  # it ends in a moment; the next one must not choose it again
            oldest.cancel()
        self._connections[task] = None
        try:
            async with asyncio.timeout(WHOLE_REQUEST_SECONDS):
                await self._exchange(reader, writer)
        except (TimeoutError, OSError, asyncio.CancelledError):
            pass  # too slow, gone, or one too many: there is nobody to tell
        finally:
            self._connections.pop(task, None)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        status = 202
        try:
            await self._take(_Incoming.on(reader, writer))
        except _Refused as refused:
            status = refused.status
            self._note(refused)
        writer.write(_answer(status))
        await writer.drain()
        if status != 202:
            await _linger(reader, writer)

    async def _take(self, incoming: _Incoming) -> None:
        """One delivery, from its head to the hint that it is."""
        head = self._checked(await incoming.head())
        signatures = Signatures(secrets_of(self.secrets))
        keeps = head.event in EVENTS  # of all others only the signature is of interest
        body, size = [], 0
        try:
            async for piece in incoming.body():
                size += len(piece)
                if size > LONGEST_BODY:
                    raise _Refused(413, "the body is too long")
                signatures.feed(piece)
                if keeps:
                    self._hold(len(piece))
                    body.append(piece)
            if not signatures.match(head.claimed):
                raise _Refused(401, "the signature is not ours")
            self.accepted += 1
            if self._deliveries.is_new(head.delivery, head.claimed):
                self._tell(head, b"".join(body))
        finally:
            self._held -= sum(map(len, body))

    def _tell(self, head: _Head, body: bytes) -> None:
        hint = hint_of(head.event, body)
        log.debug("webhook", github_event=head.event, repo=hint.full_name if hint else None)
        if hint is not None:
            self.on_hint(hint)

    def _hold(self, size: int) -> None:
        if self._held + size > MOST_HELD:
            raise _Refused(503, "too much is being sent at once")
        self._held += size

    def _checked(self, request: h11.Request) -> _Head:
        """All that can be refused before a byte of the body is read."""
        if request.target.decode("latin-1") != self.settings.path:
            raise _Refused(404, "another path")
        if request.method != b"POST":
            raise _Refused(405, "another method")
        headers: _Headers = {}
        for name, value in request.headers:
            headers.setdefault(bytes(name), []).append(bytes(value))
        kind = _only(headers, b"content-type").split(b";")[0].strip().lower()
        if kind != b"application/json" or headers.get(b"content-encoding", [b"identity"]) != [b"identity"]:
            raise _Refused(415, "the content is not plain JSON")
        claimed = claimed_digest(_only(headers, b"x-hub-signature-256"))
        if claimed is None:
            raise _Refused(401, "no signature")
        if b"content-length" in headers and b"transfer-encoding" in headers:
            raise _Refused(400, "a body of two lengths")  # a proxy before us may go by the other one
        if int(_only(headers, b"content-length") or b"0") > LONGEST_BODY:  # h11 takes digits only
            raise _Refused(413, "the body is too long")
        return _Head(
            event=_only(headers, b"x-github-event").decode("latin-1"),
            delivery=_only(headers, b"x-github-delivery").decode("latin-1"),
            claimed=claimed,
        )

    def _note(self, refusal: _Refused) -> None:
        """A flood of refusals must not be a flood of lines."""
        self.refused += 1
        now = monotonic()
        if self._said_at is not None and now - self._said_at < SAY_AGAIN_SECONDS:
            return
        since = self.refused - self._refused_when_said
        self._said_at, self._refused_when_said = now, self.refused
        log.warning("webhook refused", status=refusal.status, reason=refusal.why, since_last_line=since)


@dataclass(slots=True)
class _Incoming:
    """The request of one connection, as h11 reads it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    connection: h11.Connection

    @classmethod
    def on(cls, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> _Incoming:
        import h11

        return cls(reader, writer, h11.Connection(h11.SERVER, max_incomplete_event_size=LONGEST_HEAD))

    async def head(self) -> h11.Request:
        import h11

        event = await self._next()
        if not isinstance(event, h11.Request):
            raise _Refused(400, "no request")
        return event

    async def body(self) -> Any:
        """The pieces of the body, as they come. To be read once, after `head`."""
        import h11

        if self.connection.they_are_waiting_for_100_continue:
            self.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while not isinstance(event := await self._next(), h11.EndOfMessage):
            if not isinstance(event, h11.Data):
                raise _Refused(400, "the body broke off")
            yield bytes(event.data)

    async def _next(self) -> Any:
        import h11

        try:
            while (event := self.connection.next_event()) is h11.NEED_DATA:
                self.connection.receive_data(await self.reader.read(PIECE))
        except h11.RemoteProtocolError:
            raise _Refused(400, "not HTTP") from None
        return event


def _only(headers: _Headers, name: bytes) -> bytes:
    """The value of a header; what is there twice may mean either, and counts as missing."""
    values = headers.get(name, [])
    return values[0] if len(values) == 1 else b""


def _answer(status: int) -> bytes:
    allow = b"Allow: POST\r\n" if status == 405 else b""
    return (
        b"HTTP/1.1 %d %s\r\n%sContent-Length: 0\r\nConnection: close\r\n\r\n"
        % (status, _REASONS[status], allow)
    )  # fmt: skip


async def _linger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Ending with unread bytes would take the answer away from who still sends. Reads a little, briefly."""
    if writer.can_write_eof():
        writer.write_eof()
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            for _ in range(16):
                if not await reader.read(PIECE):
                    return
    except TimeoutError:
        return
