"""OpenRouter on 127.0.0.1 for tests: real HTTP, every answer scripted, everything asked and charged kept.

    with OpenRouterServer() as server:
        server.script(Fail.rate_limited(retry_after=1), Say(text="hello"))     # in this order, for any model
        server.script(Say(tool_calls=[Call("read", {"path": "a"})]), model="moonshotai/kimi-k2")
        ...  # OPENROUTER_BASE_URL=server.url, OPENROUTER_API_KEY=server.key
        server.requests[-1].body, server.billed[-1].cost_usd

Without a script a model of the catalogue says hello, and an unknown one is a 400. It has no sleeps but the
pauses an answer asks for, and stopping it ends every answer that still hangs.
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self, TypeAlias
from urllib.parse import parse_qs, unquote, urlsplit

KEY = "sk-or-v1-0123456789abcdef0123456789abcdef"
SAMPLE = Path(__file__).parent / "samples" / "openrouter-models.json"
COMMENT = b": OPENROUTER PROCESSING\n\n"
DONE = b"data: [DONE]\n\n"
CREATED = 1_795_000_000


# --- answers ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call of the model. `arguments` as a text goes out as it is, also when it is no JSON."""

    name: str
    arguments: Mapping[str, Any] | str
    id: str | None = None

    @property
    def spelled(self) -> str:
        return self.arguments if isinstance(self.arguments, str) else json.dumps(self.arguments)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """As OpenRouter counts: `prompt` with cached and cache_write, `completion` with reasoning."""

    prompt: int = 120
    completion: int = 30
    cached: int = 0
    cache_write: int | None = None
    reasoning: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Say:
    """An answer of a model, streamed or whole as the request wants it."""

    text: str = "Hello."
    reasoning: str = ""
    reasoning_details: Sequence[Mapping[str, Any]] = ()
    tool_calls: Sequence[Call] = ()
    finish_reason: str | None = None  # default: tool_calls or stop
    refusal: str | None = None
    tokens: Tokens | None = Tokens()  # None: no usage is told
    cost: Decimal | None = None  # default: by the catalogue's prices, else 0.001
    is_byok: bool = False
    upstream_cost: Decimal | None = None
    provider: str = "Groq"
    model: str | None = None  # that answered, if not the one that was asked
    # how it is streamed
    piece: int = 5  # characters of text or arguments in a chunk
    comments: int = 1  # keep-alive comments before every chunk
    usage_in_delta: bool = False  # the last chunk has an empty delta instead of no choices
    pause: float = 0  # seconds before each chunk
    write_bytes: int | None = None  # the stream is sent in writes of so many bytes
    cut_after: int | None = None  # the connection breaks after so many chunks
    stall_after: int | None = None  # nothing more comes after so many chunks, until the client goes
    error_after: int | None = None  # after so many chunks `error` comes in the stream
    error: Fail | None = None
    ends_with_done: bool = True
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fail:
    """An error in OpenRouter's envelope. With `in_200` the status line says that all is well."""

    status: int = 500
    message: str = "Internal Server Error"
    code: int | str | None = None  # default: the status
    metadata: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    in_200: bool = False
    availability: Mapping[str, Any] | None = None  # such errors carry error_type and http_status, and no code

    @property
    def body(self) -> dict[str, Any]:
        if self.availability is not None:
            error: dict[str, Any] = {"message": self.message, "http_status": self.status}
            error["error_type"] = (self.metadata or {}).get("error_type", "not_found")
            error["availability"] = dict(self.availability)
        else:
            error = {"code": self.status if self.code is None else self.code, "message": self.message}
            error |= {"metadata": dict(self.metadata)} if self.metadata is not None else {}
        return {"error": error, "user_id": "user_2test"}

    @classmethod
    def of(cls, status: int, error_type: str, message: str = "It failed", **metadata: Any) -> Fail:
        return cls(status=status, message=message, metadata={"error_type": error_type, **metadata})

    @classmethod
    def wrong_key(cls) -> Fail:
        return cls.of(401, "authentication", "User not found.")

    @classmethod
    def in_flight(cls, retry_after: float = 1) -> Fail:
        fail = cls.of(
            402, "payment_required", "In-flight budget exceeded", limit_source="openrouter_in_flight_budget"
        )
        return replace(fail, headers={"Retry-After": str(retry_after)})

    @classmethod
    def out_of_credits(cls) -> Fail:
        message = (
            "This request requires more credits. You requested up to 65536 tokens, but can only afford 402"
        )
        return cls.of(402, "payment_required", message, limit_source="openrouter_credits")

    @classmethod
    def key_limit(cls) -> Fail:
        return cls.of(402, "payment_required", "Key limit exceeded", limit_source="openrouter_key_limit")

    @classmethod
    def moderated(cls) -> Fail:
        return cls(
            status=403,
            message="Your chosen model requires moderation and your input was flagged",
            metadata={
                "reasons": ["violence"],
                "flagged_input": "a very … thing",
                "provider_name": "OpenAI",
                "model_slug": "openai/gpt-5",
            },
        )

    @classmethod
    def budget_spent(cls, resets_at: str = "2026-12-01T00:00:00Z") -> Fail:
        return cls.of(
            403,
            "permission_denied",
            "Workspace budget exceeded",
            limit_source="openrouter_guardrail_budget",
            resets_at=resets_at,
        )

    @classmethod
    def rate_limited(cls, retry_after: float | None = None, reset_ms: int | None = None) -> Fail:
        headers = {"X-RateLimit-Limit": "20", "X-RateLimit-Remaining": "0"}
        headers |= {"Retry-After": str(retry_after)} if retry_after is not None else {}
        headers |= {"X-RateLimit-Reset": str(reset_ms)} if reset_ms is not None else {}
        return replace(cls.of(429, "rate_limit_exceeded", "Rate limit exceeded"), headers=headers)

    @classmethod
    def upstream_limited(cls) -> Fail:
        return cls.of(
            429,
            "rate_limit_exceeded",
            "Provider returned error",
            raw="moonshotai/kimi-k2 is temporarily rate-limited upstream. Please retry shortly.",
            provider_name="Groq",
            limit_source="upstream_provider_shared_pool",
            remedy_hint="add your own key",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Raw:
    """Bytes as they are. With `cut` fewer of them come than announced."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HangUp:
    """The connection is closed before any answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """The connection stays open, and nothing comes until the client goes or the server stops."""


Answer: TypeAlias = Say | Fail | Raw | HangUp | Silence


# --- what was asked, what was charged -----------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    method: str
    path: str  # below the base address
    query: Mapping[str, str]
    headers: Mapping[str, str]  # by lower-case name
    body: Any  # None without one


@dataclass(frozen=True, slots=True, kw_only=True)
class Billed:
    """What a generation cost. The list is the ledger that any other count has to agree with."""

    id: str
    model: str
    provider: str
    tokens: Tokens
    cost_usd: Decimal
    is_byok: bool
    upstream_cost: Decimal | None
    streamed: bool
    cancelled: bool


# --- an answer as bodies and frames -------------------------------------------------------------


def usage_of(say: Say, cost: Decimal) -> dict[str, Any]:
    tokens = say.tokens or Tokens(prompt=0, completion=0)
    inputs: dict[str, Any] = {"cached_tokens": tokens.cached, "audio_tokens": 0}
    if tokens.cache_write is not None:
        inputs["cache_write_tokens"] = tokens.cache_write
    upstream = say.upstream_cost if say.is_byok else None
    return {
        "prompt_tokens": tokens.prompt,
        "completion_tokens": tokens.completion,
        "total_tokens": tokens.prompt + tokens.completion,
        "cost": float(cost),
        "is_byok": say.is_byok,
        "prompt_tokens_details": inputs,
        "completion_tokens_details": {"reasoning_tokens": tokens.reasoning},
        "cost_details": {
            "upstream_inference_cost": None if upstream is None else float(upstream),
            "upstream_inference_prompt_cost": 0.0,
            "upstream_inference_completions_cost": 0.0,
        },
    }


def finish_of(say: Say) -> str:
    return say.finish_reason or ("tool_calls" if say.tool_calls else "stop")


def whole_body(
    say: Say, *, generation_id: str, model: str, cost: Decimal = Decimal("0.001")
) -> dict[str, Any]:
    """The answer to a request without `stream`."""
    message: dict[str, Any] = {"role": "assistant", "content": say.text or None, "refusal": say.refusal}
    message["reasoning"] = say.reasoning or None
    if say.reasoning_details:
        message["reasoning_details"] = [dict(detail) for detail in say.reasoning_details]
    if say.tool_calls:
        message["tool_calls"] = [
            {
                "id": call.id or f"call_{generation_id}_{place}",
                "index": place,
                "type": "function",
                "function": {"name": call.name, "arguments": call.spelled},
            }
            for place, call in enumerate(say.tool_calls)
        ]
    choice = {
        "index": 0,
        "finish_reason": finish_of(say),
        "native_finish_reason": finish_of(say),
        "logprobs": None,
        "message": message,
    }
    body = {
        "id": generation_id,
        "object": "chat.completion",
        "created": CREATED,
        "model": say.model or model,
        "provider": say.provider,
        "system_fingerprint": None,
        "choices": [choice],
    }
    return body | ({"usage": usage_of(say, cost)} if say.tokens is not None else {})


def chunks(
    say: Say, *, generation_id: str, model: str, cost: Decimal = Decimal("0.001")
) -> Iterator[dict[str, Any]]:
    """The chunks of the same answer when it is streamed."""
    head = {
        "id": generation_id,
        "object": "chat.completion.chunk",
        "created": CREATED,
        "model": say.model or model,
        "provider": say.provider,
    }

    def chunk(delta: Mapping[str, Any], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": dict(delta), "finish_reason": finish, "native_finish_reason": finish}
        return {**head, "choices": [{**choice, "logprobs": None}]}

    yield chunk({"role": "assistant", "content": ""})
    for piece in _pieces(say.reasoning, say.piece):
        yield chunk({"content": "", "reasoning": piece})
    if say.reasoning_details:
        yield chunk({"content": "", "reasoning_details": [dict(detail) for detail in say.reasoning_details]})
    for piece in _pieces(say.text, say.piece):
        yield chunk({"content": piece})
    if say.refusal:
        yield chunk({"content": "", "refusal": say.refusal})
    for delta in _call_deltas(say, generation_id):
        yield chunk({"content": None, "tool_calls": [delta]})
    yield chunk({"content": ""}, finish_of(say))
    if say.tokens is not None:
        last = chunk({"role": "assistant", "content": ""}) if say.usage_in_delta else {**head, "choices": []}
        yield {**last, "usage": usage_of(say, cost)}


def _call_deltas(say: Say, generation_id: str) -> Iterator[dict[str, Any]]:
    """Two or more calls come interleaved: all first pieces, then the rest in turn."""
    rests: list[tuple[int, deque[str]]] = []
    for place, call in enumerate(say.tool_calls):
        pieces = deque(_pieces(call.spelled, say.piece))
        function = {"name": call.name, "arguments": ""}
        call_id = call.id or f"call_{generation_id}_{place}"
        yield {"index": place, "id": call_id, "type": "function", "function": function}
        rests.append((place, pieces))
    while any(pieces for _, pieces in rests):
        for place, pieces in rests:
            if pieces:
                yield {"index": place, "type": "function", "function": {"arguments": pieces.popleft()}}


def _pieces(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


def frame(chunk: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def error_frame(fail: Fail, *, generation_id: str, model: str) -> bytes:
    """An error in the middle of a stream: an ordinary chunk with an `error` at its top."""
    choice = {"index": 0, "delta": {"content": ""}, "finish_reason": "error", "native_finish_reason": None}
    head = {"id": generation_id, "object": "chat.completion.chunk", "created": CREATED, "model": model}
    return frame({**head, "provider": "Groq", "error": fail.body["error"], "choices": [choice]})


def stream_bytes(
    say: Say, *, generation_id: str = "gen-1", model: str = "a/b", cost: Decimal = Decimal("0.001")
) -> bytes:
    """A whole stream as one piece, for tests that cut it themselves."""
    frames = [
        COMMENT * say.comments + frame(chunk)
        for chunk in chunks(say, generation_id=generation_id, model=model, cost=cost)
    ]
    return b"".join(frames) + (DONE if say.ends_with_done else b"")


# --- the server ---------------------------------------------------------------------------------


class OpenRouterServer:
    """Runs in a thread from `with` to its end. All state may be read and set by the test at any time."""

    def __init__(self, *, key: str = KEY, catalogue: Path = SAMPLE) -> None:
        self.key = key
        self.requests: list[Request] = []
        self.billed: list[Billed] = []
        self.catalogue: dict[str, Any] = json.loads(catalogue.read_bytes())
        self.generation_lag = 0  # how often a generation is 404 before it is found
        self.key_data: dict[str, Any] = dict(_KEY_DATA)
        # Further answers by method and path below the base, such as ("GET", "/credits"). They go first.
        self.pages: dict[tuple[str, str], Answer | Mapping[str, Any]] = {}
        self._scripts: dict[str | None, deque[Answer]] = defaultdict(deque)
        self._lags: dict[str, int] = {}
        self._lock = threading.Lock()
        self.stopping = threading.Event()
        self._http = _Http(("127.0.0.1", 0), _Handler)
        self._http.owner = self
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        """The base address, as `OPENROUTER_BASE_URL` has it."""
        return f"http://127.0.0.1:{self._http.server_address[1]}/api/v1"

    @property
    def environ(self) -> dict[str, str]:
        """What a program needs in its environment to come here."""
        return {"OPENROUTER_BASE_URL": self.url, "OPENROUTER_API_KEY": self.key, "NO_PROXY": "127.0.0.1"}

    @property
    def total_cost(self) -> Decimal:
        """What the account was charged, with what providers charge on one's own key."""
        return sum((bill.cost_usd + (bill.upstream_cost or 0) for bill in self.billed), Decimal(0))

    @property
    def chats(self) -> list[Request]:
        return [request for request in self.requests if request.path == "/chat/completions"]

    def script(self, *answers: Answer, model: str | None = None) -> None:
        """Queue answers to chat requests: of one model, or (None) of every model without a queue."""
        with self._lock:
            self._scripts[model].extend(answers)

    def forget(self) -> None:
        """As if just started: no script, no record."""
        with self._lock:
            self._scripts.clear()
            self._lags.clear()
            self.requests, self.billed, self.pages = [], [], {}
            self.generation_lag, self.key_data = 0, dict(_KEY_DATA)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self.stopping.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    # For the handler

    def take(self, request: Request) -> None:
        with self._lock:
            self.requests.append(request)

    def answer_to_chat(self, body: Mapping[str, Any]) -> tuple[Answer, str]:
        """The answer, and the model it is from: the first of the chain that does not fail."""
        asked = [name for name in [body.get("model"), *(body.get("models") or [])] if isinstance(name, str)]
        answer: Answer = Fail(status=400, message="No models provided")
        for name in dict.fromkeys(asked):
            answer = self._next(name)
            if not isinstance(answer, Fail):
                return answer, name
        return answer, asked[-1] if asked else ""

    def _next(self, model: str) -> Answer:
        with self._lock:
            for queue in (self._scripts.get(model), self._scripts.get(None)):
                if queue:
                    return queue.popleft()
        if any(row["id"] == model for row in self.catalogue["data"]) or model in self._scripts:
            return Say(text=f"Hello from {model}.")
        return Fail(status=400, message=f"{model} is not a valid model ID")

    def cost(self, say: Say, model: str) -> Decimal:
        if say.cost is not None:
            return say.cost
        row = next((row for row in self.catalogue["data"] if row["id"] == model), None)
        tokens = say.tokens
        if row is None or tokens is None or str(row["pricing"]["prompt"]).startswith("-"):
            return Decimal("0.001")
        prices = row["pricing"].items()
        price = {name: Decimal(value) for name, value in prices if isinstance(value, str)}
        write = tokens.cache_write or 0
        return (
            (tokens.prompt - tokens.cached - write) * price["prompt"]
            + tokens.cached * price.get("input_cache_read", price["prompt"])
            + write * price.get("input_cache_write", price["prompt"])
            + tokens.completion * price["completion"]
        )

    def bill(self, bill: Billed) -> int:
        """Write it down; `settle` says later how it ended."""
        with self._lock:
            self.billed.append(bill)
            return len(self.billed) - 1

    def cancel(self, place: int) -> None:
        with self._lock:
            self.billed[place] = replace(self.billed[place], cancelled=True)

    def new_id(self) -> str:
        with self._lock:
            return f"gen-{CREATED}-{len(self.requests):04d}"

    def generation(self, generation_id: str) -> Fail | dict[str, Any]:
        with self._lock:
            bill = next((bill for bill in self.billed if bill.id == generation_id), None)
            left = self._lags.setdefault(generation_id, self.generation_lag)
            self._lags[generation_id] = left - 1
        if bill is None or left > 0:
            return Fail(status=404, message=f"Generation {generation_id} not found")
        return {"data": _generation_data(bill)}


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    owner: OpenRouterServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away in the middle are part of the tests; anything else is a fault to be seen."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Http
    wbufsize = -1  # a frame is one write; `flush` where it has to go out
    disable_nagle_algorithm = True  # small pieces would wait 40 ms for each other

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    @property
    def owner(self) -> OpenRouterServer:
        return self.server.owner

    def _serve(self) -> None:
        try:
            self._dispatch(self._read())
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _read(self) -> Request:
        split = urlsplit(self.path)
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            body = json.loads(content) if content else None
        except ValueError:
            body = content.decode("utf-8", "replace")
        request = Request(
            method=self.command,
            path=split.path.removeprefix("/api/v1"),
            query={name: values[-1] for name, values in parse_qs(split.query).items()},
            headers={name.lower(): value for name, value in self.headers.items()},
            body=body,
        )
        self.owner.take(request)
        return request

    def _dispatch(self, request: Request) -> None:
        page = self.owner.pages.get((request.method, request.path))
        if page is not None:
            return self._json(200, page) if isinstance(page, Mapping) else self._send(page, request, "")
        if request.path == "/models":
            return self._models(request)
        if request.headers.get("authorization") != f"Bearer {self.owner.key}":
            return self._fail(Fail.wrong_key())
        if (request.method, request.path) == ("POST", "/chat/completions"):
            return self._chat(request)
        if request.path == "/generation":
            found = self.owner.generation(unquote(request.query.get("id", "")))
            return self._fail(found) if isinstance(found, Fail) else self._json(200, found)
        if request.path == "/key":
            return self._json(200, {"data": self.owner.key_data})
        return self._fail(Fail(status=404, message="Not Found"))

    # Answers

    def _chat(self, request: Request) -> None:
        if not isinstance(request.body, dict) or not request.body.get("messages"):
            return self._fail(Fail.of(400, "invalid_request", "Input required: specify messages"))
        answer, model = self.owner.answer_to_chat(request.body)
        return self._send(answer, request, model)

    def _send(self, answer: Answer, request: Request, model: str) -> None:
        match answer:
            case Fail():
                self._fail(answer)
            case Raw():
                self._raw(answer)
            case HangUp():
                self.close_connection = True
            case Silence():
                self._wait_for_the_client_to_go()
            case Say():
                self._say(answer, request, model)

    def _say(self, say: Say, request: Request, model: str) -> None:
        generation_id = self.owner.new_id()
        streamed = bool(request.body.get("stream"))
        cost = self.owner.cost(say, say.model or model)
        place = self.owner.bill(
            Billed(
                id=generation_id,
                model=say.model or model,
                provider=say.provider,
                tokens=say.tokens or Tokens(prompt=0, completion=0),
                cost_usd=cost,
                is_byok=say.is_byok,
                upstream_cost=say.upstream_cost if say.is_byok else None,
                streamed=streamed,
                cancelled=False,
            )
        )
        if not streamed:
            body = whole_body(say, generation_id=generation_id, model=model, cost=cost)
            return self._json(200, body, {"X-Generation-Id": generation_id, **say.headers})
        try:
            return self._stream(say, generation_id, model, cost)
        except (BrokenPipeError, ConnectionResetError):
            self.owner.cancel(place)
            raise

    def _stream(self, say: Say, generation_id: str, model: str, cost: Decimal) -> None:
        own = {"Content-Type": "text/event-stream", "X-Generation-Id": generation_id}
        self._begin(200, own | dict(say.headers))
        sent = 0
        for sent, chunk in enumerate(chunks(say, generation_id=generation_id, model=model, cost=cost)):
            if sent == say.cut_after:
                self.wfile.flush()
                self.close_connection = True
                return
            if sent == say.stall_after:
                self.wfile.flush()
                self._wait_for_the_client_to_go()
                raise BrokenPipeError
            if sent == say.error_after:
                break
            self._pause(say.pause)
            self._piece(COMMENT * say.comments + frame(chunk), say.write_bytes)
        if say.error is not None:
            self._piece(error_frame(say.error, generation_id=generation_id, model=model), say.write_bytes)
        if say.ends_with_done:
            self._piece(DONE, say.write_bytes)
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()

    def _piece(self, content: bytes, size: int | None) -> None:
        """One or more pieces of a chunked body."""
        for start in range(0, len(content), size or len(content)):
            part = content[start : start + (size or len(content))]
            self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
            self.wfile.flush()

    def _pause(self, seconds: float) -> None:
        if seconds and self.owner.stopping.wait(seconds):
            raise BrokenPipeError

    def _wait_for_the_client_to_go(self) -> None:
        """Reading ends when the other side has closed; it sends nothing more before that."""
        self.close_connection = True
        self.connection.settimeout(0.05)
        for _ in range(2400):
            if self.owner.stopping.is_set():
                return
            try:
                if not self.connection.recv(1):
                    return
            except TimeoutError:
                continue
            except OSError:
                return

    def _models(self, request: Request) -> None:
        content = json.dumps(self.owner.catalogue).encode()
        etag = f'W/"{hashlib.sha256(content).hexdigest()[:16]}"'
        if request.headers.get("if-none-match") == etag:
            self.send_response(304)
            self.send_header("ETag", etag)
            self.end_headers()
            return
        self._raw(Raw(body=content, headers={"Content-Type": "application/json", "ETag": etag}))

    def _fail(self, fail: Fail) -> None:
        self._json(200 if fail.in_200 else fail.status, fail.body, fail.headers)

    def _json(self, status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> None:
        typed = {"Content-Type": "application/json", **(headers or {})}
        self._raw(Raw(status=status, body=json.dumps(body).encode(), headers=typed))

    def _raw(self, raw: Raw) -> None:
        self.send_response(raw.status)
        for name, value in raw.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(raw.body) + (1000 if raw.cut else 0)))
        self.end_headers()
        self.wfile.write(raw.body)
        self.wfile.flush()
        self.close_connection = self.close_connection or raw.cut

    def _begin(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()


_KEY_DATA = {
    "label": "sk-or-v1-012...def",
    "limit": 20,
    "limit_remaining": 12.5,
    "limit_reset": "monthly",
    "usage": 7.5,
    "usage_daily": 0.5,
    "usage_weekly": 2,
    "usage_monthly": 7.5,
    "byok_usage": 0,
    "byok_usage_daily": 0,
    "byok_usage_weekly": 0,
    "byok_usage_monthly": 0,
    "is_free_tier": False,
    "is_management_key": False,
    "is_provisioning_key": False,
    "include_byok_in_limit": False,
    "budgets": [],
    "effective_budget": None,
    "free_model_daily_requests": {"limit": 1000, "used": 3, "remaining": 997},
    "rate_limit": {"requests": -1, "interval": "10s", "note": "This field is deprecated."},
    "allowed_data_regions": ["global"],
    "creator_user_id": None,
    "organization_id": None,
    "workspace_id": None,
}

# What a generation's record also has, and nobody here asks for.
_GENERATION_REST: dict[str, Any] = {
    "api_type": "completions",
    "data_region": "global",
    "http_referer": None,
    "origin": "",
    "latency": 350,
    "generation_time": 900,
    "provider_responses": [],
    **dict.fromkeys(
        ["app_id", "cache_discount", "external_user", "moderation_latency", "native_finish_reason", "router"]
    ),
    **dict.fromkeys(
        ["native_tokens_completion_images", "num_fetches", "num_input_audio_prompt", "num_media_completion"]
    ),
    **dict.fromkeys(["num_media_prompt", "num_search_results", "preset_id", "service_tier", "upstream_id"]),
    **dict.fromkeys(["user_agent", "web_search_engine", "workspace_id"]),
}


def _generation_data(bill: Billed) -> dict[str, Any]:
    tokens = bill.tokens
    return _GENERATION_REST | {
        "id": bill.id,
        "model": bill.model,
        "provider_name": bill.provider,
        "total_cost": float(bill.cost_usd),
        "usage": float(bill.cost_usd),
        "upstream_inference_cost": None if bill.upstream_cost is None else float(bill.upstream_cost),
        "is_byok": bill.is_byok,
        "tokens_prompt": tokens.prompt + 7,  # another tokeniser than the model's own
        "tokens_completion": tokens.completion + 3,
        "native_tokens_prompt": tokens.prompt,
        "native_tokens_completion": tokens.completion,
        "native_tokens_reasoning": tokens.reasoning,
        "native_tokens_cached": tokens.cached,
        "finish_reason": None if bill.cancelled else "stop",
        "streamed": bill.streamed,
        "cancelled": bill.cancelled,
        "created_at": "2026-11-20T12:00:00.000Z",
    }
