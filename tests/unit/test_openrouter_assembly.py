"""From pieces to a completion: however the bytes are cut, whatever the chunks hold, and what usage means."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adw_modules.openrouter.accounts import generation_from, key_from
from adw_modules.openrouter.assembly import Assembly, completion_from, cost_from, usage_from
from adw_modules.openrouter.client import OpenRouterClient
from adw_modules.openrouter.errors import OpenRouterError, ServerError, error_for, facts_from
from adw_modules.openrouter.messages import ChatRequest, Completion, TextDelta, ToolCall, ToolCallStarted
from adw_modules.tasks.model import ModelUsage
from tests.openrouter_server import DONE, KEY, Call, Fail, Say, Tokens, error_frame, stream_bytes

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
CLIENT = OpenRouterClient(KEY, sleep=asyncio.sleep, now=lambda: NOW)
REQUEST = ChatRequest(model="a/b", messages=[])


class Pieces(httpx.AsyncByteStream):
    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            yield piece


def read(pieces: list[bytes]) -> list[Any]:
    """The events of a stream whose bytes come in these pieces, through httpx and httpx-sse."""

    async def work() -> list[Any]:
        response = httpx.Response(200, headers={"Content-Type": "text/event-stream"}, stream=Pieces(pieces))
        return [event async for event in CLIENT._events(response, REQUEST)]

    return asyncio.run(work())


def cut(content: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted({place % (len(content) + 1) for place in places}), len(content)]
    return [content[start:end] for start, end in pairwise(edges) if start < end]


SAY = Say(
    text="Grüße 😀\r\ndata: [DONE]\n\n: no",
    reasoning="ä 中文",
    tool_calls=[Call("read", {"path": "ä\n\n😀"}, id="c1"), Call("list", "{broken", id="c2")],
    tokens=Tokens(prompt=10, completion=9, cached=3, reasoning=2),
    cost=Decimal("0.02"),
)
STREAM = stream_bytes(SAY, cost=Decimal("0.02"))
WHOLE = read([STREAM])[-1]


def test_the_stream_of_these_tests_says_all_it_should():
    assert (WHOLE.text, WHOLE.reasoning) == (SAY.text, SAY.reasoning)
    assert [call.error is None for call in WHOLE.tool_calls] == [True, False]
    assert WHOLE.usage == ModelUsage(input=7, cache_read=3, output=9, reasoning=2)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, len(STREAM)), max_size=30), st.integers(1, 40))
def test_any_cutting_of_the_bytes_and_of_the_text_gives_the_same_completion(places, piece):
    content = stream_bytes(replace(SAY, piece=piece), cost=Decimal("0.02"))
    assert read(cut(content, places))[-1] == WHOLE


def test_one_byte_at_a_time_gives_the_same_completion():
    assert read([bytes([byte]) for byte in STREAM])[-1] == WHOLE


def test_the_ends_of_lines_may_be_any_that_the_standard_allows():
    for end in (b"\r\n", b"\r"):
        assert read(cut(STREAM.replace(b"\n", end), [*range(0, len(STREAM), 7)]))[-1] == WHOLE


@settings(max_examples=40, deadline=None)
@given(st.integers(0, len(STREAM) - 1))
def test_a_stream_cut_anywhere_is_whole_or_an_error_with_a_beginning_of_it(place):
    partial, whole = None, None
    try:
        whole = read([STREAM[:place]])[-1]
    except OpenRouterError as error:
        partial = error.partial
    if whole is not None:
        assert (whole.text, whole.tool_calls) == (WHOLE.text, WHOLE.tool_calls)
        assert whole.cost_usd in (None, WHOLE.cost_usd)
    else:
        assert partial is not None
        assert WHOLE.text.startswith(partial.text)
        assert partial.finish_reason is None


NAMES = [
    "id",
    "model",
    "provider",
    "choices",
    "index",
    "delta",
    "message",
    "finish_reason",
    "native_finish_reason",
    "content",
    "role",
    "reasoning",
    "reasoning_details",
    "refusal",
    "tool_calls",
    "function",
    "name",
    "arguments",
    "type",
    "text",
    "usage",
    "prompt_tokens",
    "completion_tokens",
    "prompt_tokens_details",
    "cached_tokens",
    "cost",
    "cost_details",
    "is_byok",
    "error",
    "code",
    "metadata",
    "error_type",
    "raw",
    "provider_name",
    "headers",
    "retry_after",
    "availability",
    "previous_errors",
    "limit_source",
    "resets_at",
    "budgets",
    "limit",
    "native_tokens_prompt",
    "total_cost",
    "data",
]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 600),
    st.sampled_from([10**400, 1e308, -0.0, "1e9999999", "NaN", "-1", "\ud83d", "error", "402", "{", ""]),
    st.text(max_size=5),
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
    max_leaves=10,
)
CHUNKS = st.dictionaries(st.sampled_from(NAMES), JSON, max_size=4) | st.fixed_dictionaries(
    {
        "choices": st.lists(
            st.fixed_dictionaries({"delta": st.dictionaries(st.sampled_from(NAMES), JSON)}), max_size=1
        )
    }
)


@settings(max_examples=60, deadline=None)
@given(st.lists(CHUNKS | JSON, max_size=4))
def test_chunks_of_any_shape_raise_nothing_but_our_errors(chunks):
    assembly = Assembly()
    try:
        for chunk in chunks:
            for event in assembly.feed(chunk):
                repr(event).encode()
    except OpenRouterError as error:
        str(error).encode()
        repr(error.facts.availability)
    completion = assembly.completion()
    json.dumps(completion.message()).encode()
    completion.text.encode()


@settings(max_examples=60, deadline=None)
@given(JSON, st.sampled_from([None, 400, 402, 403, 429, 500]))
def test_bodies_of_any_shape_raise_nothing_but_our_errors(body, status):
    error = error_for(facts_from({"error": body}, status=status, headers={"Retry-After": str(body)}))
    for name in ("resets_at", "reasons", "flagged_input", "patterns", "model_slug", "is_upstream", "limit"):
        getattr(error, name, None)
    assert "\n" not in f"{error}{error!r}"
    data = body if isinstance(body, dict) else {}
    generation_from(data), key_from(data)
    try:
        completion_from(body)
    except OpenRouterError as found:
        str(found)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.binary(max_size=40) | st.sampled_from([b"data: ", b"\n\n", DONE, b"data: {}\n\n", b": x\n"]),
        max_size=8,
    )
)
def test_bytes_of_any_kind_raise_nothing_but_our_errors(pieces):
    with suppress(OpenRouterError):
        read(pieces)


def test_numbers_out_of_all_bounds_are_no_numbers():
    for number in ("1e9999999", "-1e-9999999", 10**400, float("inf"), "1e50"):
        error = error_for(
            facts_from({"error": {"code": number, "metadata": {"retry_after": number}}}, status=None)
        )
        assert (error.status, error.retry_after) == (None, None)
        assert cost_from({"cost": number}) is None
        assert usage_from({"prompt_tokens": number}) is None


# --- tool calls ---------------------------------------------------------------------------------


def calls_of(*deltas: dict[str, Any]) -> tuple[ToolCall, ...]:
    assembly = Assembly()
    for delta in deltas:
        assembly.feed({"choices": [{"delta": {"tool_calls": [delta]}}]})
    return assembly.completion().tool_calls


def piece(arguments: str = "", *, name: str | None = None, **more: Any) -> dict[str, Any]:
    return {"function": {"arguments": arguments, **({"name": name} if name else {})}, **more}


def test_pieces_belong_to_the_call_with_their_index():
    calls = calls_of(
        piece(name="a", index=1, id="x"),
        piece('{"n"', index=1),
        piece(name="b", index=0, id="y"),
        piece(":1}", index=1),
    )
    assert [(call.id, call.name, call.arguments) for call in calls] == [("x", "a", {"n": 1}), ("y", "b", {})]


def test_without_an_index_the_id_or_the_order_says_where_a_piece_belongs():
    calls = calls_of(piece('{"n":', name="a", id="x"), piece("1}"), piece("{}", name="b", id="y"))
    assert [(call.name, call.arguments) for call in calls] == [("a", {"n": 1}), ("b", {})]


def test_two_calls_under_one_index_are_told_apart_by_their_ids():
    calls = calls_of(piece("{}", name="a", id="x", index=0), piece("{}", name="b", id="y", index=0))
    assert [(call.id, call.name) for call in calls] == [("x", "a"), ("y", "b")]


def test_a_name_that_is_repeated_in_every_piece_stays_one_name():
    assert (
        calls_of(piece("{", name="a", id="x", index=0), piece("}", name="a", id="x", index=0))[0].name == "a"
    )


def test_a_call_without_an_id_gets_one():
    assert calls_of(piece(name="a", index=0), piece(name="b", index=1))[1].id == "call_1"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ('{"path": "a', "The arguments are not valid JSON: Unterminated string"),
        ("[1]", "The arguments must be a JSON object."),
        ("null", "The arguments must be a JSON object."),
        ("{" * 5000, "The arguments are not valid JSON"),
    ],
)
def test_arguments_that_cannot_be_read_become_a_sentence_for_the_model(arguments, said):
    (call,) = calls_of(piece(arguments, name="a", id="x", index=0))
    assert call.error is not None
    assert call.error.startswith(said)
    assert (call.arguments, call.raw_arguments) == ({}, arguments)
    assert call.to_json()["function"]["arguments"] == "{}"


def test_arguments_that_are_an_object_already_are_taken():
    (call,) = calls_of({"index": 0, "id": "x", "function": {"name": "a", "arguments": {"n": 1}}})
    assert (call.arguments, call.error) == ({"n": 1}, None)


def test_too_many_calls_are_not_collected_without_end():
    assert len(calls_of(*[piece(name="a", index=index, id=str(index)) for index in range(300)])) == 128


def test_the_next_request_repeats_calls_and_signed_reasoning():
    detail = {"type": "reasoning.encrypted", "data": "abc", "id": "r1"}
    answer = completion_from(
        {
            "choices": [
                {
                    "finish_reason": "tool_calls",
                    "message": {
                        "content": None,
                        "reasoning_details": [detail],
                        "tool_calls": [piece('{"n": 1}', name="a", id="x", type="function")],
                    },
                }
            ]
        }
    )
    assert answer.message() == {
        "role": "assistant",
        "content": None,
        "reasoning_details": [detail],
        "tool_calls": [{"id": "x", "type": "function", "function": {"name": "a", "arguments": '{"n": 1}'}}],
    }


# --- text ---------------------------------------------------------------------------------------


def test_a_character_cut_between_two_chunks_is_joined():
    assembly = Assembly()
    events = [
        event
        for half in ("a\ud83d", "\ude00b", "c\ud83d")
        for event in assembly.feed({"choices": [{"delta": {"content": half}}]})
    ]
    assert [event.text for event in events] == ["a", "😀b", "c"]
    assert assembly.completion().text == "a😀bc\ufffd"


def test_content_may_be_a_list_of_parts():
    answer = completion_from(
        {"choices": [{"message": {"content": [{"type": "text", "text": "a"}, {"text": "b"}]}}]}
    )
    assert answer.text == "ab"


def test_an_error_of_the_choice_alone_is_an_error():
    with pytest.raises(ServerError, match="boom"):
        completion_from(
            {"choices": [{"message": {"content": "x"}, "error": {"code": 500, "message": "boom"}}]}
        )


def test_an_end_by_error_without_any_error_is_an_error():
    with pytest.raises(ServerError, match="ended with an error"):
        completion_from({"choices": [{"message": {"content": "x"}, "finish_reason": "error"}]})


def test_events_name_a_call_before_its_arguments():
    events = read([STREAM])
    first = next(place for place, event in enumerate(events) if not isinstance(event, TextDelta))
    assert isinstance(next(e for e in events[first:] if hasattr(e, "index")), ToolCallStarted)
    assert [isinstance(event, Completion) for event in events] == [False] * (len(events) - 1) + [True]


def test_a_mid_stream_error_with_a_word_for_a_code_is_read():
    frame = error_frame(Fail(status=502, code="server_error", message="x"), generation_id="g", model="m")
    with pytest.raises(ServerError) as caught:
        read([frame])
    assert (caught.value.facts.code, caught.value.status) == ("server_error", None)


# --- usage --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({}, None),
        ({"cost": 1}, None),
        ({"prompt_tokens": 5}, ModelUsage(input=5)),
        ({"prompt_tokens": 5, "completion_tokens": 3}, ModelUsage(input=5, output=3)),
        (
            {"prompt_tokens": 5, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 9}},
            ModelUsage(input=0, cache_read=9, output=3),
        ),
        (
            {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": None,
             "completion_tokens_details": {"reasoning_tokens": 2}},
            ModelUsage(input=9, output=3, reasoning=2),
        ),
        ({"prompt_tokens": -1, "completion_tokens": "x"}, None),
        ({"prompt_tokens": 5.0, "completion_tokens": True}, ModelUsage(input=5)),
    ],
)  # fmt: skip
def test_tokens_are_disjoint_and_never_negative(usage, expected):
    assert usage_from(usage) == expected


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({}, None),
        ({"cost": None}, None),
        ({"cost": "x"}, None),
        ({"cost": -1}, None),
        ({"cost": 0}, Decimal(0)),
        ({"cost": 0.00010992}, Decimal("0.00010992")),
        ({"cost": 1e-07}, Decimal("1E-7")),
        ({"cost": 0.1, "is_byok": False, "cost_details": {"upstream_inference_cost": 0.1}}, Decimal("0.1")),
        ({"cost": 0.1, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.2}}, Decimal("0.3")),
        ({"cost": 0.1, "is_byok": True, "cost_details": {"upstream_inference_cost": None}}, Decimal("0.1")),
        ({"cost": 0, "cost_details": {"upstream_inference_cost": 0.2}}, Decimal("0.2")),
        ({"cost": 0.1, "cost_details": {"upstream_inference_cost": 0.1}}, Decimal("0.1")),
    ],
)
def test_the_charge_is_exact_and_unknown_is_not_nothing(usage, expected):
    assert cost_from(usage) == expected
