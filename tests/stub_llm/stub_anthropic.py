"""Anthropic's Messages API: how its requests are read, and its answers, streams and errors are written."""

from __future__ import annotations

import json
from dataclasses import replace

from stub_plot import Answer, Billed, Json, Request, Tool, offered, strings

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
    "quota": (429, "rate_limit_error", "this request would exceed your account's rate limit"),
}


def read(body: Json) -> Request:
    messages = body.get("messages") or [{}]
    blocks = [
        block
        for message in messages
        if isinstance(message.get("content"), list)
        for block in message["content"]
    ]
    return Request(
        model=str(body.get("model", "")),
        stream=bool(body.get("stream")),
        tools=offered(
            Tool(name=tool.get("name", ""), schema=tool.get("input_schema") or {})
            for tool in body.get("tools") or []
        ),
        turn=sum(block.get("type") == "tool_result" for block in blocks),
        prompt="\n".join(strings(messages[0].get("content"))),
        body=body,
    )


def billed(price: Billed) -> Billed:
    return replace(price, reasoning=0)  # told as output only


def error(scenario: str | int) -> tuple[int, Json]:
    """Status and body for a scenario word or an HTTP status."""
    if isinstance(scenario, str):
        status, kind, message = SPECIAL_ERRORS[scenario]
    else:
        status, (kind, message) = scenario, ERRORS[scenario]
    return status, {"type": "error", "error": {"type": kind, "message": message}}


def as_body(answer: Answer, number: int, model: str) -> Json:
    """The whole message, as it is sent when no stream is asked for."""
    content: list[Json] = [{"type": "text", "text": answer.text}]
    if answer.tool:
        call = {"id": f"toolu_stub_{number:06d}", "name": answer.tool, "input": answer.arguments}
        content.append({"type": "tool_use", **call})
    return {
        "id": f"msg_stub_{number:06d}",
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


def as_events(answer: Answer, number: int, model: str) -> list[Json]:
    """The message as server-sent events: as with the real API, only the end has the true output."""
    message = as_body(answer, number, model)
    usage = message["usage"]
    start = message | {"content": [], "stop_reason": None, "usage": usage | {"output_tokens": 1}}
    events: list[Json] = [{"type": "message_start", "message": start}]
    for index, block in enumerate(message["content"]):
        events += _block_events(index, block)
    end_usage = {name: count for name, count in usage.items() if name != "cache_creation"}
    delta = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    events.append({"type": "message_delta", "delta": delta, "usage": end_usage})
    return [*events, {"type": "message_stop"}]


def as_stream(answer: Answer, number: int, model: str) -> str:
    events = as_events(answer, number, model)
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)


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
