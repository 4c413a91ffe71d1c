"""The official client's types as a judge: of what we send, and of the server that these tests answer with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import httpx
import pytest
from openrouter import components
from openrouter.components.providerpreferences import MaxPrice
from openrouter.operations import GetCurrentKeyResponse
from pydantic import BaseModel

from adw_modules.openrouter.assembly import completion_from
from adw_modules.openrouter.messages import ChatRequest, ToolCall
from adw_modules.openrouter.preferences import DEFAULT_PREFERENCES, ProviderPreferences
from tests.openrouter_server import KEY, Call, Fail, OpenRouterServer, Say, Tokens, chunks, whole_body

TOOL = {
    "type": "function",
    "function": {"name": "read", "description": "Reads", "parameters": {"type": "object", "properties": {}}},
}
CALL = ToolCall(id="c1", name="read", arguments={"a": 1}, raw_arguments='{"a": 1}')
FULL = Say(
    text="hi",
    reasoning="hm",
    tool_calls=[Call("read", {"path": "a"}), Call("read", {"path": "b"})],
    tokens=Tokens(prompt=9, completion=9, cached=2, cache_write=1, reasoning=1),
    is_byok=True,
    upstream_cost=Decimal("0.1"),
)
REQUESTS = {
    "plain": ChatRequest(model="a/b", messages=[{"role": "user", "content": "hi"}]),
    "every field": ChatRequest(
        model="a/b",
        models=["a/b", "c/d"],
        messages=[
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": None, "tool_calls": [CALL.to_json()]},
            {"role": "tool", "tool_call_id": "c1", "content": "done"},
        ],
        tools=[TOOL],
        tool_choice="auto",
        parallel_tool_calls=True,
        max_tokens=100,
        temperature=0.5,
        top_p=0.9,
        top_k=5,
        seed=1,
        stop=["x"],
        reasoning_effort="high",
        verbosity="low",
        response_format={"type": "json_object"},
        service_tier="flex",
        session_id="s",
        user="u",
        metadata={"issue": "12"},
        cache_control={"type": "ephemeral"},
        provider=DEFAULT_PREFERENCES[0].preferences,
    ),
    "preferences": ChatRequest(
        model="a/b",
        messages=[{"role": "user", "content": "hi"}],
        tool_choice="none",
        provider=ProviderPreferences.from_mapping(
            {
                "order": ["groq"],
                "allow_fallbacks": False,
                "only": ["groq", "anthropic"],
                "ignore": ["deepinfra"],
                "require_parameters": True,
                "data_collection": "deny",
                "zdr": True,
                "enforce_distillable_text": True,
                "quantizations": ["fp8", "mxfp4"],
                "sort": {"by": "price", "partition": "none"},
                "max_price": {"prompt": Decimal("0.10"), "completion": 2, "request": "0"},
                "preferred_max_latency": {"p50": 1, "p99": 5},
                "preferred_min_throughput": 20,
                "options": {"groq": {"x": 1}},
            }
        ),
    ),
    "the turn after tool calls": ChatRequest(
        model="a/b",
        messages=[completion_from(whole_body(FULL, generation_id="g", model="a/b")).message()],
    ),
}


def told(model: BaseModel) -> Any:
    """What the judge understood of it, by the names of the wire: what it does not know is missing there."""
    return json.loads(model.model_dump_json(by_alias=True, exclude_unset=True))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", REQUESTS)
def test_every_request_is_one_to_the_official_client(name, stream):
    body = REQUESTS[name].to_json(stream=stream)
    understood = components.ChatRequest.model_validate(body)
    # Its guide has `verbosity`, its types do not.
    assert told(understood).keys() == body.keys() - {"verbosity"}
    assert told(understood).get("provider") == body.get("provider")
    assert told(understood)["messages"] == body["messages"]


def test_the_official_client_refuses_prices_as_numbers():
    """Why ours are texts. If this fails, numbers have become possible, and nothing is wrong."""
    with pytest.raises(ValueError, match="valid string"):
        MaxPrice.model_validate({"prompt": 1})


@pytest.mark.parametrize("say", [Say(), FULL, Say(text="", refusal="no", finish_reason="content_filter")])
def test_the_servers_answers_are_such_to_the_official_client(say):
    whole = components.ChatResult.model_validate(whole_body(say, generation_id="g", model="a/b"))
    assert whole.choices[0].message.content == (say.text or None)
    assert whole.usage.prompt_tokens == say.tokens.prompt
    streamed = [
        components.ChatStreamChunk.model_validate(chunk)
        for chunk in chunks(say, generation_id="g", model="a/b")
    ]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed if chunk.choices) == say.text
    assert streamed[-1].usage.cost_details is not None


ERRORS = {
    400: components.BadRequestResponseErrorData,
    401: components.UnauthorizedResponseErrorData,
    402: components.PaymentRequiredResponseErrorData,
    403: components.ForbiddenResponseErrorData,
    404: components.NotFoundResponseErrorData,
    429: components.TooManyRequestsResponseErrorData,
    500: components.InternalServerResponseErrorData,
    502: components.BadGatewayResponseErrorData,
    503: components.ServiceUnavailableResponseErrorData,
    529: components.ProviderOverloadedResponseErrorData,
}


@pytest.mark.parametrize(
    "fail",
    [
        Fail.wrong_key(), Fail.in_flight(), Fail.out_of_credits(), Fail.key_limit(), Fail.moderated(),
        Fail.budget_spent(), Fail.rate_limited(), Fail.upstream_limited(),
        *[Fail.of(status, "server") for status in ERRORS],
    ],
)  # fmt: skip
def test_the_servers_errors_are_such_to_the_official_client(fail):
    understood = ERRORS[fail.status].model_validate(fail.body["error"])
    assert (understood.code, understood.message) == (fail.status, fail.message)


@pytest.fixture(scope="module")
def server() -> Iterator[OpenRouterServer]:
    with OpenRouterServer() as running:
        running.script(FULL)
        yield running


def asked(server: OpenRouterServer, path: str, method: str = "GET", **more: Any) -> Any:
    sent = httpx.request(method, server.url + path, headers={"Authorization": f"Bearer {KEY}"}, **more)
    return sent.json()


@pytest.mark.filterwarnings("ignore:warning. .. DEPRECATED:DeprecationWarning")
def test_the_servers_books_are_such_to_the_official_client(server):
    asked(server, "/chat/completions", "POST", json={"model": "a/b", "messages": [{"role": "user"}]})
    generation = asked(server, f"/generation?id={server.billed[0].id}")
    understood = components.GenerationResponse.model_validate(generation)
    assert understood.data.total_cost == float(server.billed[0].cost_usd)
    assert GetCurrentKeyResponse.model_validate(asked(server, "/key")).data.limit_remaining == 12.5
    assert len(components.ModelsListResponse.model_validate(asked(server, "/models")).data) == 37
