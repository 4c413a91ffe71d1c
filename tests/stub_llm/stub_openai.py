"""OpenAI's two wires, chat completions and responses: requests read; answers, streams and errors written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

from stub_plot import Answer, Billed, Json, Request, Tool, offered, strings

CREATED = 1_700_000_000
ERRORS = {
    400: ("invalid_request_error", None, "the request is not valid"),
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided: stub."),
    403: ("invalid_request_error", "unsupported_country_region_territory", "not from here"),
    404: ("invalid_request_error", "model_not_found", "The model does not exist."),
    413: ("invalid_request_error", None, "the request is larger than allowed"),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached. Please try again in 1s."),
    500: ("server_error", None, "The server had an error while processing your request."),
    503: ("server_error", None, "The engine is currently overloaded, please try again later."),
}
NO_MONEY = "You exceeded your current quota, please check your plan and billing details."
TOO_LONG = "This model's maximum context length is 128000 tokens. Your messages resulted in 208310 tokens."
SPECIAL_ERRORS = {
    "toolong": (400, "invalid_request_error", "context_length_exceeded", TOO_LONG),
    "credit": (429, "insufficient_quota", "insufficient_quota", NO_MONEY),
    "quota": (429, "insufficient_quota", "insufficient_quota", NO_MONEY),
}


def billed(price: Billed) -> Billed:
    return replace(price, cache_creation=0)  # writing to the cache costs nothing here


def error(scenario: str | int) -> tuple[int, Json]:
    """Status and body for a scenario word or an HTTP status."""
    if isinstance(scenario, str):
        status, kind, code, message = SPECIAL_ERRORS[scenario]
    else:
        status, (kind, code, message) = scenario, ERRORS[scenario]
    return status, {"error": {"message": message, "type": kind, "param": None, "code": code}}


# --- chat completions ---------------------------------------------------------------------------------------


def read_chat(body: Json) -> Request:
    messages = body.get("messages") or []
    functions = [tool.get("function") or {} for tool in body.get("tools") or []]
    return Request(
        model=str(body.get("model", "")),
        stream=bool(body.get("stream")),
        tools=offered(
            Tool(name=each.get("name", ""), schema=each.get("parameters") or {}) for each in functions
        ),
        turn=sum(message.get("role") == "tool" for message in messages),
        prompt="\n".join(strings([each.get("content") for each in messages if each.get("role") == "user"])),
        body=body,
    )


def chat_body(answer: Answer, number: int, model: str) -> Json:
    message: Json = {"role": "assistant", "content": answer.text}
    if answer.tool:
        message["tool_calls"] = [_chat_call(answer, number)]
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if answer.tool else "stop"}
    head = _chat_head(number, model) | {"object": "chat.completion"}
    return head | {"choices": [choice], "usage": _chat_usage(answer.billed)}


def chat_stream(answer: Answer, number: int, model: str) -> str:
    """The message in pieces, then a chunk with the usage only, as with `include_usage`."""
    deltas: list[Json] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": part} for part in _halves(answer.text)]
    if answer.tool:
        deltas += _chat_call_deltas(answer, number)
    head = _chat_head(number, model)
    chunks = [head | {"choices": [{"index": 0, "delta": each, "finish_reason": None}]} for each in deltas]
    end = {"index": 0, "delta": {}, "finish_reason": "tool_calls" if answer.tool else "stop"}
    chunks.append(head | {"choices": [end]})
    chunks.append(head | {"choices": [], "usage": _chat_usage(answer.billed)})
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"


def _chat_head(number: int, model: str) -> Json:
    name = f"chatcmpl-stub-{number:06d}"
    return {"id": name, "object": "chat.completion.chunk", "created": CREATED, "model": model}


def _chat_call(answer: Answer, number: int) -> Json:
    function = {"name": answer.tool, "arguments": json.dumps(answer.arguments)}
    return {"id": f"call_stub_{number:06d}", "type": "function", "function": function}


def _chat_call_deltas(answer: Answer, number: int) -> Iterator[Json]:
    call = _chat_call(answer, number)
    first = call | {"index": 0, "function": call["function"] | {"arguments": ""}}
    yield {"tool_calls": [first]}
    for part in _halves(call["function"]["arguments"]):
        yield {"tool_calls": [{"index": 0, "function": {"arguments": part}}]}


def _chat_usage(count: Billed) -> Json:
    prompt = count.input + count.cache_read
    return {
        "prompt_tokens": prompt,
        "completion_tokens": count.output,
        "total_tokens": prompt + count.output,
        "prompt_tokens_details": {"cached_tokens": count.cache_read},
        "completion_tokens_details": {"reasoning_tokens": count.reasoning},
    }


# --- responses ----------------------------------------------------------------------------------------------


def read_responses(body: Json) -> Request:
    asked = body.get("input") or []
    items = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
    return Request(
        model=str(body.get("model", "")),
        stream=bool(body.get("stream")),
        tools=offered(
            Tool(
                name=tool.get("name") or tool.get("type", ""),
                schema=tool.get("parameters") or {},
            )
            for tool in body.get("tools") or []
        ),
        turn=sum(str(item.get("type")).endswith("_call_output") for item in items),
        prompt="\n".join(strings([each.get("content") for each in items if each.get("role") == "user"])),
        body=body,
    )


def responses_body(answer: Answer, number: int, model: str) -> Json:
    prompt = answer.billed.input + answer.billed.cache_read
    return _responses_head(number, model) | {
        "status": "completed",
        "output": _items(answer, number),
        "usage": {
            "input_tokens": prompt,
            "input_tokens_details": {"cached_tokens": answer.billed.cache_read},
            "output_tokens": answer.billed.output,
            "output_tokens_details": {"reasoning_tokens": answer.billed.reasoning},
            "total_tokens": prompt + answer.billed.output,
        },
    }


def responses_stream(answer: Answer, number: int, model: str) -> str:
    whole = responses_body(answer, number, model)
    begun = whole | {"status": "in_progress", "output": [], "usage": None}
    events: list[Json] = [{"type": "response.created", "response": begun}]
    for index, item in enumerate(whole["output"]):
        events += ({"output_index": index} | event for event in _item_events(item))
    events.append({"type": "response.completed", "response": whole})
    numbered = (event | {"sequence_number": place} for place, event in enumerate(events))
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in numbered)


def _responses_head(number: int, model: str) -> Json:
    name = f"resp_stub_{number:06d}"
    head = {"id": name, "object": "response", "created_at": CREATED, "model": model}
    return head | {"error": None, "incomplete_details": None}


def _items(answer: Answer, number: int) -> list[Json]:
    text = {"type": "output_text", "text": answer.text, "annotations": []}
    message: Json = {"type": "message", "role": "assistant", "content": [text]}
    found = [message | {"id": f"msg_stub_{number:06d}", "status": "completed"}]
    if answer.tool:
        call = {"call_id": f"call_stub_{number:06d}", "name": answer.tool}
        arguments = {"arguments": json.dumps(answer.arguments), "status": "completed"}
        found.append({"type": "function_call", "id": f"fc_stub_{number:06d}", **call, **arguments})
    return found


def _item_events(item: Json) -> list[Json]:
    begun = item | {"status": "in_progress"}
    begun |= {"content": []} if item["type"] == "message" else {"arguments": ""}
    return [
        {"type": "response.output_item.added", "item": begun},
        *({"item_id": item["id"]} | event for event in _item_deltas(item)),
        {"type": "response.output_item.done", "item": item},
    ]


def _item_deltas(item: Json) -> list[Json]:
    if item["type"] == "function_call":
        name, whole = "response.function_call_arguments", item["arguments"]
        deltas: list[Json] = [{"type": f"{name}.delta", "delta": part} for part in _halves(whole)]
        return [*deltas, {"type": f"{name}.done", "arguments": whole}]
    name, whole = "response.output_text", item["content"][0]["text"]
    part_of = {"content_index": 0}
    return [
        part_of
        | {
            "type": "response.content_part.added",
            "part": {"type": "output_text", "text": "", "annotations": []},
        },
        *(part_of | {"type": f"{name}.delta", "delta": part} for part in _halves(whole)),
        part_of | {"type": f"{name}.done", "text": whole},
        part_of | {"type": "response.content_part.done", "part": item["content"][0]},
    ]


def _halves(text: str) -> tuple[str, str]:
    return text[: len(text) // 2], text[len(text) // 2 :]
