"""Google's generateContent: how its requests are read, and its answers, streams and errors are written."""

from __future__ import annotations

import json
from dataclasses import replace

from stub_plot import Answer, Billed, Json, Request, Tool, offered, strings

ERRORS = {
    400: ("INVALID_ARGUMENT", "the request is not valid"),
    401: ("UNAUTHENTICATED", "API keys are not supported by this API."),
    403: ("PERMISSION_DENIED", "this key may not use the resource"),
    404: ("NOT_FOUND", "the model is not found"),
    413: ("INVALID_ARGUMENT", "the request is larger than allowed"),
    429: ("RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota)."),
    500: ("INTERNAL", "An internal error has occurred."),
    503: ("UNAVAILABLE", "The model is overloaded. Please try again later."),
}
NO_MONEY = "You exceeded your current quota, please check your plan and billing details."
TOO_LONG = "The input token count (1208310) exceeds the maximum number of tokens allowed (1048576)."
SPECIAL_ERRORS = {
    "toolong": (400, "INVALID_ARGUMENT", TOO_LONG),
    "credit": (429, "RESOURCE_EXHAUSTED", NO_MONEY),
    "quota": (429, "RESOURCE_EXHAUSTED", NO_MONEY),
}
GOOGLE = "type.googleapis.com/google.rpc"


def read(body: Json, model: str, stream: bool) -> Request:
    declared = [each for group in body.get("tools") or [] for each in group.get("functionDeclarations") or []]
    contents = body.get("contents") or []
    parts = [part for content in contents for part in content.get("parts") or []]
    return Request(
        model=model,
        stream=stream,
        tools=offered(
            Tool(
                name=each.get("name", ""),
                schema=each.get("parametersJsonSchema") or each.get("parameters") or {},
            )
            for each in declared
        ),
        turn=sum("functionResponse" in part for part in parts),
        prompt="\n".join(strings([part.get("text") for part in parts])),
        body=body,
    )


def billed(price: Billed) -> Billed:
    return replace(price, cache_creation=0)


def error(scenario: str | int) -> tuple[int, Json]:
    """Status and body for a scenario word or an HTTP status."""
    if isinstance(scenario, str):
        status, kind, message = SPECIAL_ERRORS[scenario]
    else:
        status, (kind, message) = scenario, ERRORS[scenario]
    details: list[Json] = []
    if scenario in ("quota", "credit"):
        quota = "GenerateRequestsPerDayPerProjectPerModel-FreeTier"
        details = [{"@type": f"{GOOGLE}.QuotaFailure", "violations": [{"quotaId": quota}]}]
    elif status == 429:
        details = [{"@type": f"{GOOGLE}.RetryInfo", "retryDelay": "1s"}]
    return status, {"error": {"code": status, "message": message, "status": kind, "details": details}}


def as_body(answer: Answer, number: int, model: str) -> Json:
    return _chunk(_parts(answer), answer, number, model) | {"usageMetadata": _usage(answer.billed)}


def as_stream(answer: Answer, number: int, model: str) -> str:
    """One part in each chunk; the tokens of the answer are only in the last one."""
    *early, last = _parts(answer)
    begun = {name: _usage(answer.billed)[name] for name in ("promptTokenCount", "cachedContentTokenCount")}
    chunks = [_chunk([part], None, number, model) | {"usageMetadata": begun} for part in early]
    chunks.append(_chunk([last], answer, number, model) | {"usageMetadata": _usage(answer.billed)})
    return "".join(f"data: {json.dumps(chunk)}\r\n\r\n" for chunk in chunks)


def _parts(answer: Answer) -> list[Json]:
    half = len(answer.text) // 2
    parts: list[Json] = [{"text": answer.text[:half]}, {"text": answer.text[half:]}]
    if answer.tool:
        parts.append({"functionCall": {"name": answer.tool, "args": answer.arguments}})
    return parts


def _chunk(parts: list[Json], ended: Answer | None, number: int, model: str) -> Json:
    candidate: Json = {"index": 0, "content": {"role": "model", "parts": parts}}
    if ended is not None:
        candidate["finishReason"] = "STOP"
    return {"responseId": f"gem-stub-{number:06d}", "modelVersion": model, "candidates": [candidate]}


def _usage(count: Billed) -> Json:
    prompt = count.input + count.cache_read
    return {
        "promptTokenCount": prompt,
        "cachedContentTokenCount": count.cache_read,
        "candidatesTokenCount": count.output - count.reasoning,
        "thoughtsTokenCount": count.reasoning,
        "totalTokenCount": prompt + count.output,
    }
