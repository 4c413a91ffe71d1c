"""A server that says what a test tells it to, the demo server with a client, and a hand-set clock."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

from coordinator.demo.server import GitHubServer, RecordedRequest
from coordinator.github import GitHub, Listing, Unchanged

T = TypeVar("T")
START = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)


class HandSetClock:
    """Time stands still until a test moves it; `sleep` moves it by as much as it was asked to wait."""

    def __init__(self, at: datetime = START) -> None:
        self.at = at
        self.slept: list[float] = []

    def __call__(self) -> datetime:
        return self.at

    def advance(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.advance(seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]  # names in small letters
    body: Any

    @property
    def line(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(frozen=True, slots=True)
class Reply:
    status: int = 200
    body: Any = None  # bytes go out as they are, None is empty, everything else is JSON
    headers: dict[str, str] = field(default_factory=dict)
    then_hang: bool = False  # send nothing until the server stops

    def encoded(self) -> bytes:
        if self.body is None:
            return b""
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


class ScriptedServer:
    """`script["GET /path"]` is one Reply for ever, or a list whose last Reply stays."""

    def __init__(self, script: dict[str, Reply | list[Reply]] | None = None) -> None:
        self.script: dict[str, Reply | list[Reply]] = script or {}
        self.requests: list[Request] = []
        self.stopped = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_for(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> ScriptedServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def lines(self) -> list[str]:
        return [request.line for request in self.requests]

    def reply_to(self, request: Request) -> Reply:
        self.requests.append(request)
        scripted = self.script.get(request.line, Reply(404, {"message": "Not Found"}))
        if isinstance(scripted, Reply):
            return scripted
        return scripted.pop(0) if len(scripted) > 1 else scripted[0]


def _handler_for(owner: ScriptedServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # head and body are two writes; together they would wait 40 ms

        def handle_any(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            raw = self.rfile.read(length)
            parts = urlsplit(self.path)
            reply = owner.reply_to(
                Request(
                    method=self.command,
                    path=parts.path,
                    query={key: values[-1] for key, values in parse_qs(parts.query).items()},
                    headers={key.lower(): value for key, value in self.headers.items()},
                    body=json.loads(raw) if raw else None,
                )
            )
            if reply.then_hang:
                owner.stopped.wait(30)
                self.close_connection = True
                return
            self._send(reply)

        def _send(self, reply: Reply) -> None:
            body = b"" if reply.status == 304 else reply.encoded()
            self.send_response(reply.status)
            for name, value in {"Content-Type": "application/json; charset=utf-8", **reply.headers}.items():
                self.send_header(name, value)
            if reply.status != 304:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PATCH = do_DELETE = handle_any  # noqa: N815  the names http.server looks for

        def log_message(self, *_: object) -> None:
            """Say nothing: a test reads `requests` instead."""

    return Handler


def github_for(url: str, clock: HandSetClock | None = None, **options: Any) -> GitHub:
    clock = clock or HandSetClock()
    return GitHub(api_url=url, token="tok", now=clock, sleep=clock.sleep, **{"timeout_seconds": 5, **options})


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(coroutine)


def repository(full_name: str = "acme/shop", repo_id: int = 7) -> dict[str, Any]:
    return {"id": repo_id, "full_name": full_name, "default_branch": "main"}


def issue(
    number: int, /, *, labels: tuple[str, ...] = ("rpi-auto",), repo: str = "acme/shop", **more: Any
) -> dict[str, Any]:
    return {
        "number": number,
        "title": f"Issue {number}",
        "body": None,
        "state": "open",
        "user": {"login": "ann", "id": 11},
        "labels": [{"name": label} for label in labels],
        "repository_url": f"http://elsewhere/repos/{repo}",
        "html_url": f"http://elsewhere/{repo}/issues/{number}",
        "created_at": "2026-11-20T10:00:00Z",
        "updated_at": "2026-11-20T10:00:00Z",
        **more,
    }


REPO = "acme/shop"
LABEL = "rpi-auto"


@dataclass(frozen=True, slots=True)
class Shop:
    """The demo server with one repository, and a client whose account `bot` may write there."""

    server: GitHubServer
    github: GitHub
    clock: HandSetClock

    def label_issues(self, count: int) -> list[int]:
        return [self.server.add_issue(REPO, title=f"Issue {n}", labels=[LABEL]) for n in range(count)]

    def requests_since(self, mark: int) -> list[RecordedRequest]:
        return list(self.server.requests[mark:])

    def count(self) -> int:
        return len(self.server.requests)


@contextmanager
def shop(**options: Any) -> Iterator[Shop]:
    clock = HandSetClock()
    with GitHubServer(clock=clock) as server:
        server.add_repo(REPO)
        server.set_permission(REPO, "bot", "write")
        server.add_token("tok", "bot")
        github = github_for(server.api_url, clock, **options)
        try:
            yield Shop(server, github, clock)
        finally:
            server.release()
            github.close()


def numbers(answer: Listing | Unchanged) -> list[int]:
    assert isinstance(answer, Listing), answer
    return [each.number for each in answer.issues]
