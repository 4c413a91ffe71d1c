"""A model provider on loopback: speaks four providers' wires, knows what it has billed, fails on demand.

The real agent CLIs run against it without a key and without a network. Stateless apart from its books: which
turn a request is, is read off the conversation in the request. Anthropic's Messages, OpenAI's chat
completions and responses, Google's generateContent; each streaming and not.

A base URL carries the run whose book is written and the scenario that is played:
`stub.url(run="job7", scenario="tools3")`. Scenarios:

    ok          a tool call that writes HELLO.md, then a final text
    text        a final text at once
    toolsN      N tool calls, each writing a file of its own, then a final text
    agent       starts a sub-agent that answers at once, then a final text (Claude's tools only)
    shell       a tool call: a command that runs for a minute, then a final text
    hang        takes the request and never answers
    toolong     400, prompt is too long            credit      no money left
    quota       429, the allowance is used up
    STATUS      that HTTP error for ever           STATUSxN    N times that error, then as "ok"

A prompt that says which file to write with which line is obeyed, and the model `coordinator-no-such-model`
is answered with the provider's 404: both are what `coordinator providers probe` asks.

Each further turn bills a little more than the one before, so that a reader who counts a record twice or
leaves one out cannot be right by accident. A request without tools, for a title and the like, bills little,
and that part of the bill can be asked for.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import select
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import stub_anthropic
import stub_gemini
import stub_openai
from stub_plot import NO_SUCH_MODEL, Answer, Billed, Json, Request, choose_answer, failing_status

__all__ = ["Billed", "StubLLM"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """One provider's shapes."""

    body: Callable[[Answer, int, str], Json]
    stream: Callable[[Answer, int, str], str]
    error: Callable[[str | int], tuple[int, Json]]
    billed: Callable[[Billed], Billed]
    special_errors: frozenset[str]


ANTHROPIC = Wire(
    body=stub_anthropic.as_body,
    stream=stub_anthropic.as_stream,
    error=stub_anthropic.error,
    billed=stub_anthropic.billed,
    special_errors=frozenset(stub_anthropic.SPECIAL_ERRORS),
)
CHAT = Wire(
    body=stub_openai.chat_body,
    stream=stub_openai.chat_stream,
    error=stub_openai.error,
    billed=stub_openai.billed,
    special_errors=frozenset(stub_openai.SPECIAL_ERRORS),
)
RESPONSES = Wire(
    body=stub_openai.responses_body,
    stream=stub_openai.responses_stream,
    error=stub_openai.error,
    billed=stub_openai.billed,
    special_errors=frozenset(stub_openai.SPECIAL_ERRORS),
)
GEMINI = Wire(
    body=stub_gemini.as_body,
    stream=stub_gemini.as_stream,
    error=stub_gemini.error,
    billed=stub_gemini.billed,
    special_errors=frozenset(stub_gemini.SPECIAL_ERRORS),
)


class Book:
    """What was asked and billed, by run and model. Shared by all handler threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._billed: dict[tuple[str, str], Billed] = {}
        self._side: dict[str, Billed] = {}
        self._requests: dict[str, int] = {}
        self.unknown: list[str] = []  # what was asked for and is not spoken here

    def request(self, run: str) -> int:
        """Note a model request; returns how many the run has made, this one included."""
        with self._lock:
            self._requests[run] = self._requests.get(run, 0) + 1
            return self._requests[run]

    def bill(self, run: str, model: str, price: Billed, *, is_side: bool) -> None:
        with self._lock:
            self._billed[run, model] = self._billed.get((run, model), Billed()) + price
            if is_side:
                self._side[run] = self.side(run) + price

    def by_model(self, run: str) -> dict[str, Billed]:
        with self._lock:
            return {model: billed for (of, model), billed in self._billed.items() if of == run}

    def billed(self, run: str) -> Billed:
        return sum(self.by_model(run).values(), Billed())

    def side(self, run: str) -> Billed:
        return self._side.get(run, Billed())

    def requests(self, run: str) -> int:
        with self._lock:
            return self._requests.get(run, 0)


class StubLLM:
    """The running server: `with StubLLM() as stub:` binds a free loopback port and gives it back."""

    def __init__(self, port: int = 0) -> None:
        self.book = Book()
        self.closing = threading.Event()
        self._server = _Server(("127.0.0.1", port), _Handler, self)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def url(self, *, run: str = "default", scenario: str = "ok") -> str:
        """The base URL to give to an agent (ANTHROPIC_BASE_URL); the OpenAI wires are under its `/v1`."""
        return f"http://127.0.0.1:{self.port}/r/{run}/s/{scenario}"

    def billed(self, run: str) -> Billed:
        return self.book.billed(run)

    def billed_aside(self, run: str) -> Billed:
        """The part of the bill that is for requests without tools."""
        return self.book.side(run)

    def billed_by_model(self, run: str) -> dict[str, Billed]:
        return self.book.by_model(run)

    def requests(self, run: str) -> int:
        return self.book.requests(run)

    def __enter__(self) -> StubLLM:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True  # a hanging request never keeps the tests alive

    def __init__(
        self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler], stub: StubLLM
    ) -> None:
        super().__init__(address, handler)
        self.stub = stub
        self.message_numbers = itertools.count(1)

    def handle_error(self, request: object, client_address: object) -> None:
        # An agent that is killed drops its connection; anything else is a fault of this stub and must show.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_args: object) -> None:
        """Say nothing on stderr."""

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        run, _, path = self._address()
        book = self.server.stub.book
        if path == "/_stub/billed":
            billed = book.billed(run)
            numbers = {
                name: getattr(billed, name) for name in ("input", "cache_read", "cache_creation", "output")
            }
            self._json(200, {"requests": book.requests(run), "billed": numbers})
        else:
            self._not_here(path)

    def do_POST(self) -> None:
        run, scenario, path = self._address()
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        google = re.fullmatch(r"/v1beta/models/([^/:]+):(stream)?[gG]enerateContent", path)
        if path == "/v1/messages":
            self._message(ANTHROPIC, run, scenario, stub_anthropic.read(body))
        elif path == "/v1/messages/count_tokens":
            self._json(200, {"input_tokens": 1000})
        elif path == "/v1/chat/completions":
            self._message(CHAT, run, scenario, stub_openai.read_chat(body))
        elif path == "/v1/responses":
            self._message(RESPONSES, run, scenario, stub_openai.read_responses(body))
        elif google:
            self._message(GEMINI, run, scenario, stub_gemini.read(body, google[1], bool(google[2])))
        else:
            self._not_here(path)

    def _address(self) -> tuple[str, str, str]:
        """Run, scenario and API path of the request's address."""
        path = urlsplit(self.path).path
        match = re.fullmatch(r"/r/([^/]+)/s/([^/]+)(/.*)", path)
        return (match[1], match[2], match[3]) if match else ("default", "ok", path)

    def _message(self, wire: Wire, run: str, scenario: str, request: Request) -> None:
        book = self.server.stub.book
        number = book.request(run)
        if scenario == "hang":
            self._hang()
        elif request.model == NO_SUCH_MODEL:
            self._error(*wire.error(404))
        elif scenario in wire.special_errors:
            self._error(*wire.error(scenario))
        elif (status := failing_status(scenario, number)) is not None:
            self._error(*wire.error(status))
        else:
            answer = choose_answer(scenario, request)
            answer = replace(answer, billed=wire.billed(answer.billed))
            # First: a program that has its answer may be gone, and the test reading, before the next line.
            book.bill(run, request.model, answer.billed, is_side=request.is_side)
            self._send_answer(wire, answer, request)

    def _send_answer(self, wire: Wire, answer: Answer, request: Request) -> None:
        number = next(self.server.message_numbers)
        if request.stream:
            data = wire.stream(answer, number, request.model).encode()
            self._send(200, "text/event-stream", data, {})
        else:
            self._json(200, wire.body(answer, number, request.model))

    def _hang(self) -> None:
        """Wait until the client goes or the stub is closed."""
        self.close_connection = True
        while not self.server.stub.closing.is_set():
            readable, _, _ = select.select([self.connection], [], [], 0.1)
            if readable and not self.connection.recv(1, socket.MSG_PEEK):
                return

    def _not_here(self, path: str) -> None:
        self.server.stub.book.unknown.append(f"{self.command} {path}")
        self._error(*stub_anthropic.error(404))

    def _error(self, status: int, body: Json) -> None:
        headers = {"retry-after": "1"} if status in (429, 503, 529) else {}
        self._json(status, body, headers)

    def _json(self, status: int, value: Json, headers: dict[str, str] | None = None) -> None:
        self._send(status, "application/json", json.dumps(value).encode(), headers or {})

    def _send(self, status: int, content_type: str, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Type": content_type,
            "Content-Length": str(len(data)),
            **headers,
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


def main() -> None:
    """Serve until interrupted; prints the port, for scripts and for trying an agent by hand."""
    parser = argparse.ArgumentParser(description="A model provider on loopback for tests")
    parser.add_argument("--port", type=int, default=0)
    with StubLLM(parser.parse_args().port) as stub:
        print(f"PORT {stub.port}", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr)


if __name__ == "__main__":
    main()
