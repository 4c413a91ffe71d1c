"""A model provider on loopback: speaks Anthropic's Messages API, knows what it has billed, fails on demand.

The real Claude CLI runs against it without a key and without a network. Stateless apart from its books:
which turn a request is, is read off the conversation in the request.

A base URL carries the run whose book is written and the scenario that is played:
`stub.url(run="job7", scenario="tools3")`. Scenarios:

    ok          a tool call that writes HELLO.md, then a final text
    text        a final text at once
    toolsN      N tool calls, each writing a file of its own, then a final text
    agent       starts a sub-agent that answers at once, then a final text
    shell       a tool call: a command that runs for a minute, then a final text
    hang        takes the request and never answers
    toolong     400, prompt is too long            credit      400, no money left
    STATUS      that HTTP error for ever           STATUSxN    N times that error, then as "ok"

Each further turn bills a little more than the one before, so that a reader who counts a record twice or
leaves one out cannot be right by accident.
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
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

Json = dict[str, Any]

SUBTASK = "STUB SUBTASK"
ERRORS = {
    400: ("invalid_request_error", "the request is not valid"),
    401: ("authentication_error", "invalid x-api-key"),
    403: ("permission_error", "this key may not use the resource"),
    404: ("not_found_error", "model: not found"),
    413: ("request_too_large", "the request is larger than allowed"),
    429: ("rate_limit_error", "this request would exceed your rate limit"),
    500: ("api_error", "internal server error"),
    529: ("overloaded_error", "overloaded"),
}
SPECIAL_ERRORS = {
    "toolong": (400, "invalid_request_error", "prompt is too long: 208310 tokens > 200000 maximum"),
    "credit": (400, "invalid_request_error", "Your credit balance is too low to access the Anthropic API."),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Billed:
    """Tokens in disjoint kinds."""

    input: int = 0
    cache_read: int = 0
    cache_creation: int = 0
    output: int = 0

    def __add__(self, other: Billed) -> Billed:
        return Billed(
            input=self.input + other.input,
            cache_read=self.cache_read + other.cache_read,
            cache_creation=self.cache_creation + other.cache_creation,
            output=self.output + other.output,
        )


SIDE_REQUEST = Billed(input=7, output=3)  # a request without tools: title generation and the like


def turn_price(turn: int) -> Billed:
    """What the request with `turn` tool results in it is billed."""
    return Billed(input=1200 + 10 * turn, cache_read=800 + 20 * turn, cache_creation=300, output=150 + turn)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One message of the model: a text and perhaps one tool call."""

    text: str
    tool: str | None = None
    arguments: Json | None = None
    billed: Billed


class Book:
    """What was asked and billed, by run and model. Shared by all handler threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._billed: dict[tuple[str, str], Billed] = {}
        self._requests: dict[str, int] = {}

    def request(self, run: str) -> int:
        """Note a model request; returns how many the run has made, this one included."""
        with self._lock:
            self._requests[run] = self._requests.get(run, 0) + 1
            return self._requests[run]

    def bill(self, run: str, model: str, price: Billed) -> None:
        with self._lock:
            self._billed[run, model] = self._billed.get((run, model), Billed()) + price

    def by_model(self, run: str) -> dict[str, Billed]:
        with self._lock:
            return {model: billed for (of, model), billed in self._billed.items() if of == run}

    def billed(self, run: str) -> Billed:
        return sum(self.by_model(run).values(), Billed())

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
        """The base URL to give to an agent (ANTHROPIC_BASE_URL)."""
        return f"http://127.0.0.1:{self.port}/r/{run}/s/{scenario}"

    def billed(self, run: str) -> Billed:
        return self.book.billed(run)

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
        self.message_ids = itertools.count(1)

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
        if path == "/_stub/billed":
            book = self.server.stub.book
            billed = book.billed(run)
            numbers = {
                name: getattr(billed, name) for name in ("input", "cache_read", "cache_creation", "output")
            }
            self._json(200, {"requests": book.requests(run), "billed": numbers})
        else:
            self._error(404, *ERRORS[404])

    def do_POST(self) -> None:
        run, scenario, path = self._address()
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        if path == "/v1/messages":
            self._message(run, scenario, body)
        elif path == "/v1/messages/count_tokens":
            self._json(200, {"input_tokens": 1000})
        else:
            self._error(404, *ERRORS[404])

    def _address(self) -> tuple[str, str, str]:
        """Run, scenario and API path of the request's address."""
        path = urlsplit(self.path).path
        match = re.fullmatch(r"/r/([^/]+)/s/([^/]+)(/.*)", path)
        return (match[1], match[2], match[3]) if match else ("default", "ok", path)

    def _message(self, run: str, scenario: str, body: Json) -> None:
        number = self.server.stub.book.request(run)
        if scenario == "hang":
            self._hang()
        elif scenario in SPECIAL_ERRORS:
            self._error(*SPECIAL_ERRORS[scenario])
        elif (status := _failing_status(scenario, number)) is not None:
            self._error(status, *ERRORS[status])
        else:
            answer = choose_answer(scenario, body)
            message_id = f"msg_stub_{next(self.server.message_ids):06d}"
            self._send_answer(answer, message_id, body)
            self.server.stub.book.bill(run, str(body.get("model", "")), answer.billed)

    def _send_answer(self, answer: Answer, message_id: str, body: Json) -> None:
        message = as_message(answer, message_id, str(body.get("model", "")))
        if not body.get("stream"):
            self._json(200, message)
            return
        stream = "".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in as_events(message))
        self._send(200, "text/event-stream", stream.encode(), {})

    def _hang(self) -> None:
        """Wait until the client goes or the stub is closed."""
        self.close_connection = True
        while not self.server.stub.closing.is_set():
            readable, _, _ = select.select([self.connection], [], [], 0.1)
            if readable and not self.connection.recv(1, socket.MSG_PEEK):
                return

    def _error(self, status: int, kind: str, message: str) -> None:
        headers = {"retry-after": "1"} if status in (429, 529) else {}
        self._json(status, {"type": "error", "error": {"type": kind, "message": message}}, headers)

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


# --- the plot ---------------------------------------------------------------------------------------------


def _failing_status(scenario: str, request_number: int) -> int | None:
    match = re.fullmatch(r"(\d{3})(?:x(\d+))?", scenario)
    if match is None or (match[2] is not None and request_number > int(match[2])):
        return None
    return int(match[1])


def choose_answer(scenario: str, body: Json) -> Answer:
    """The model's next message in the conversation `body`."""
    tools = {tool.get("name"): tool for tool in body.get("tools") or []}
    turn = sum(block.get("type") == "tool_result" for block in _blocks(body))
    if not tools:
        return Answer(text="A title", billed=SIDE_REQUEST)
    if turn >= _tool_turns(scenario) or SUBTASK in _first_prompt(body):
        return Answer(text="Done.", billed=turn_price(turn))
    if scenario == "agent":
        return _sub_agent_call(tools, turn)
    if scenario == "shell":
        return _shell_call(turn)
    return _write_call(_working_directory(body), turn)


def _tool_turns(scenario: str) -> int:
    match = re.fullmatch(r"tools(\d+)", scenario)
    if match:
        return int(match[1])
    return 0 if scenario == "text" else 1


def _write_call(folder: str, turn: int) -> Answer:
    name = "HELLO.md" if turn == 0 else f"HELLO-{turn + 1}.md"
    arguments = {"file_path": f"{folder}{name}", "content": "# Hello\n\nWritten through the stub.\n"}
    return Answer(text=f"I will write {name}.", tool="Write", arguments=arguments, billed=turn_price(turn))


def _shell_call(turn: int) -> Answer:
    # Not `sleep`: Claude's shell tool refuses a long one.
    arguments = {"command": "timeout 60 tail -f /dev/null", "description": "Wait a minute"}
    return Answer(text="I will wait.", tool="Bash", arguments=arguments, billed=turn_price(turn))


def _sub_agent_call(tools: Json, turn: int) -> Answer:
    name = next(name for name in ("Agent", "Task") if name in tools)
    arguments = {"description": "A subtask", "prompt": SUBTASK, "subagent_type": "general-purpose"}
    # Claude may run sub-agents in the background; the plot needs the answer before the next turn.
    if "run_in_background" in tools[name].get("input_schema", {}).get("properties", {}):
        arguments |= {"run_in_background": False}
    return Answer(text="I will ask another agent.", tool=name, arguments=arguments, billed=turn_price(turn))


def _blocks(body: Json) -> list[Json]:
    contents = [message.get("content") for message in body.get("messages") or []]
    return [block for content in contents if isinstance(content, list) for block in content]


def _first_prompt(body: Json) -> str:
    content = next(iter(body.get("messages") or [{}])).get("content") or ""
    return content if isinstance(content, str) else json.dumps(content)


def _working_directory(body: Json) -> str:
    """With a slash at its end; empty when the request does not name it.

    Claude 2.1.329 leaves its whole description of the environment out of a prompt that begins with a slash.
    """
    match = re.search(r"[Ww]orking directory: (/[^\n<]+)", "\n".join(_texts(body)))
    return f"{match[1].strip()}/" if match else ""


def _texts(value: object) -> list[str]:
    """All strings in the request."""
    if isinstance(value, str):
        return [value]
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for child in children for text in _texts(child)]


# --- Anthropic's bytes --------------------------------------------------------------------------------------


def as_message(answer: Answer, message_id: str, model: str) -> Json:
    """The whole message, as it is sent when no stream is asked for."""
    content: list[Json] = [{"type": "text", "text": answer.text}]
    if answer.tool:
        content.append(
            {"type": "tool_use", "id": f"toolu_{message_id}", "name": answer.tool, "input": answer.arguments}
        )
    return {
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": "tool_use" if answer.tool else "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": answer.billed.input,
            "cache_creation_input_tokens": answer.billed.cache_creation,
            "cache_read_input_tokens": answer.billed.cache_read,
            "cache_creation": {
                "ephemeral_5m_input_tokens": answer.billed.cache_creation,
                "ephemeral_1h_input_tokens": 0,
            },
            "output_tokens": answer.billed.output,
        },
    }


def as_events(message: Json) -> list[Json]:
    """The message as server-sent events: as with the real API, only the end has the true output."""
    usage = message["usage"]
    start = message | {"content": [], "stop_reason": None, "usage": usage | {"output_tokens": 1}}
    events: list[Json] = [{"type": "message_start", "message": start}]
    for index, block in enumerate(message["content"]):
        events += _block_events(index, block)
    end_usage = {name: count for name, count in usage.items() if name != "cache_creation"}
    delta = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    events.append({"type": "message_delta", "delta": delta, "usage": end_usage})
    return [*events, {"type": "message_stop"}]


def _block_events(index: int, block: Json) -> list[Json]:
    if block["type"] == "text":
        empty, whole = block | {"text": ""}, block["text"]
        deltas = [{"type": "text_delta", "text": part} for part in _halves(whole)]
    else:
        empty, whole = block | {"input": {}}, json.dumps(block["input"])
        deltas = [{"type": "input_json_delta", "partial_json": part} for part in _halves(whole)]
    return [
        {"type": "content_block_start", "index": index, "content_block": empty},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def _halves(text: str) -> tuple[str, str]:
    return text[: len(text) // 2], text[len(text) // 2 :]


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
