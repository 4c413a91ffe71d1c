"""The real client against an OpenRouter on 127.0.0.1: answers, streams, every error, and the asking again."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar

import pytest

from adw_modules.openrouter import errors
from adw_modules.openrouter.client import OpenRouterClient
from adw_modules.openrouter.errors import OpenRouterError
from adw_modules.openrouter.messages import (
    ChatRequest,
    Completion,
    ReasoningDelta,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
)
from adw_modules.openrouter.preferences import ProviderPreferences
from adw_modules.openrouter.provider import OpenRouterProvider
from adw_modules.openrouter.retrying import Patience
from adw_modules.openrouter.wire import Attribution
from adw_modules.tasks.model import ModelUsage
from tests.openrouter_server import Call, Fail, HangUp, OpenRouterServer, Raw, Say, Silence, Tokens

T = TypeVar("T")
START = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
KIMI = "moonshotai/kimi-k2"
TOOL = {
    "type": "function",
    "function": {"name": "read", "description": "Reads", "parameters": {"type": "object", "properties": {}}},
}


class Clock:
    """Waiting moves it, and takes no time."""

    def __init__(self) -> None:
        self.at = START
        self.waits: list[float] = []

    def __call__(self) -> datetime:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.at += timedelta(seconds=seconds)


@pytest.fixture(scope="module")
def running() -> Iterator[OpenRouterServer]:
    with OpenRouterServer() as server:
        yield server


@pytest.fixture
def server(running: OpenRouterServer) -> OpenRouterServer:
    """One server for all tests, and each finds it empty."""
    running.forget()
    return running


@pytest.fixture
def clock() -> Clock:
    return Clock()


def a_client(server: OpenRouterServer, clock: Clock, **options: Any) -> OpenRouterClient:
    options = {"base_url": server.url, "sleep": clock.sleep, "now": clock, **options}
    return OpenRouterClient(options.pop("api_key", server.key), **options)


def a_request(text: str = "hi", **fields: Any) -> ChatRequest:
    return ChatRequest(**{"model": KIMI, "messages": [{"role": "user", "content": text}], **fields})


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def complete(
    server: OpenRouterServer, clock: Clock, request: ChatRequest | None = None, **options
) -> Completion:
    async def work() -> Completion:
        async with a_client(server, clock, **options) as client:
            return await client.complete(request or a_request())

    return run(work())


def stream(
    server: OpenRouterServer, clock: Clock, request: ChatRequest | None = None, **options
) -> tuple[list[StreamEvent], OpenRouterError | None]:
    """All events, and the error that ended them."""

    async def work() -> tuple[list[StreamEvent], OpenRouterError | None]:
        events: list[StreamEvent] = []
        async with a_client(server, clock, **options) as client:
            try:
                async for event in client.stream(request or a_request()):
                    events.append(event)  # noqa: PERF401  those before an error count too
            except OpenRouterError as error:
                return events, error
        return events, None

    return run(work())


def failure(server: OpenRouterServer, clock: Clock, request: ChatRequest | None = None, **options):
    with pytest.raises(OpenRouterError) as caught:
        complete(server, clock, request, **options)
    return caught.value


FULL = Say(
    text="Grüße 😀 done",
    reasoning="let me see",
    tool_calls=[Call("read", {"path": "ä.txt"}, id="c1"), Call("list", {"n": [1, 2]}, id="c2")],
    tokens=Tokens(prompt=1000, completion=300, cached=400, cache_write=100, reasoning=50),
    cost=Decimal("0.0123"),
)


# --- answers ------------------------------------------------------------------------------------


def test_an_answer_has_text_tools_tokens_charge_and_who_served_it(server, clock):
    server.script(FULL)
    answer = complete(server, clock, a_request(tools=[TOOL]))
    assert (answer.text, answer.reasoning, answer.finish_reason) == (FULL.text, FULL.reasoning, "tool_calls")
    assert [(call.id, call.name, call.arguments) for call in answer.tool_calls] == [
        ("c1", "read", {"path": "ä.txt"}),
        ("c2", "list", {"n": [1, 2]}),
    ]
    assert answer.usage == ModelUsage(input=500, cache_read=400, cache_write_5m=100, output=300, reasoning=50)
    assert (answer.cost_usd, answer.is_byok) == (Decimal("0.0123"), False)
    assert (answer.model, answer.provider) == (KIMI, "Groq")
    assert answer.generation_id == server.billed[0].id
    assert answer.attempts == ()


@pytest.mark.parametrize("usage_in_delta", [True, False])
def test_a_stream_comes_to_the_same_as_the_whole_answer(server, clock, usage_in_delta):
    server.script(FULL, replace(FULL, usage_in_delta=usage_in_delta, piece=3, write_bytes=7))
    whole = complete(server, clock)
    events, error = stream(server, clock)
    assert error is None
    assert replace(events[-1], generation_id=None) == replace(whole, generation_id=None)
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == FULL.text
    assert "".join(event.text for event in events if isinstance(event, ReasoningDelta)) == FULL.reasoning
    started = [(event.index, event.id, event.name) for event in events if isinstance(event, ToolCallStarted)]
    assert started == [(0, "c1", "read"), (1, "c2", "list")]
    for index, call in enumerate(whole.tool_calls):
        pieces = [e.arguments for e in events if isinstance(e, ToolCallDelta) and e.index == index]
        assert len(pieces) > 1
        assert "".join(pieces) == call.raw_arguments


def test_text_arrives_while_the_model_still_speaks(server, clock):
    """The server sends nothing more until the client goes, so the text can only have come before the end."""
    server.script(Say(text="first second", stall_after=2))

    async def work() -> str:
        async with a_client(server, clock) as client, aclosing(client.stream(a_request())) as events:
            async for event in events:
                assert isinstance(event, TextDelta)
                return event.text
        raise AssertionError("nothing came")

    assert run(work()) == "first"


def test_with_ones_own_key_at_a_provider_both_charges_count(server, clock):
    server.script(Say(cost=Decimal("0.001"), is_byok=True, upstream_cost=Decimal("0.02")))
    assert complete(server, clock).cost_usd == Decimal("0.021") == server.total_cost


def test_what_usage_does_not_say_is_unknown(server, clock):
    server.script(Say(tokens=None), Say(tokens=None))
    answer = complete(server, clock)
    assert (answer.usage, answer.cost_usd) == (None, None)
    events, _ = stream(server, clock)
    assert (events[-1].usage, events[-1].cost_usd, events[-1].text) == (None, None, "Hello.")


def test_of_a_chain_of_models_the_one_that_answered_is_named(server, clock):
    server.script(Fail.upstream_limited(), model=KIMI)
    answer = complete(server, clock, a_request(models=["openai/gpt-5-mini"]))
    assert answer.model == "openai/gpt-5-mini" == server.billed[0].model
    assert server.chats[0].body["models"] == ["openai/gpt-5-mini"]


def test_headers_say_who_asks(server, clock):
    attribution = Attribution(
        app_name="Cöordinator\r\nX-Evil: 1", app_url="https://e.org", categories=("a", "b", "c")
    )
    complete(server, clock, attribution=attribution)
    sent = server.requests[0].headers
    assert sent["authorization"] == f"Bearer {server.key}"
    assert sent["http-referer"] == "https://e.org"
    assert sent["x-openrouter-title"] == sent["x-title"] == "CordinatorX-Evil: 1"
    assert sent["x-openrouter-categories"] == "a,b"
    assert "x-evil" not in sent


def test_what_is_not_given_is_not_sent(server, clock):
    complete(server, clock)
    assert server.chats[0].body == {"model": KIMI, "messages": [{"role": "user", "content": "hi"}]}


def test_every_field_arrives_under_its_name_on_the_wire(server, clock):
    preferences = ProviderPreferences.from_mapping({"order": ["groq"], "max_price": {"prompt": 1}})
    request = a_request(
        max_tokens=100, reasoning_effort="low", provider=preferences, session_id="s", extra={"min_p": 0.1}
    )
    complete(server, clock, request)
    body = server.chats[0].body
    assert (body["max_completion_tokens"], body["reasoning"]) == (100, {"effort": "low"})
    assert body["provider"] == {"order": ["groq"], "max_price": {"prompt": "1"}}
    assert (body["session_id"], body["min_p"]) == ("s", 0.1)
    assert "max_tokens" not in body


def test_half_a_character_in_a_message_does_not_break_the_request(server, clock):
    complete(server, clock, a_request("a\ud83db"))
    assert server.chats[0].body["messages"][0]["content"] == "a?b"


# --- errors -------------------------------------------------------------------------------------

KINDS = [
    (Fail.of(400, "invalid_request"), errors.InvalidRequest),
    (Fail(status=400, message="x/y is not a valid model ID"), errors.InvalidRequest),
    (Fail.of(400, "context_length_exceeded"), errors.ContextTooLong),
    (Fail.of(400, "content_policy_violation"), errors.ContentRefused),
    (Fail.of(403, "refusal"), errors.ContentRefused),
    (Fail.wrong_key(), errors.AuthenticationFailed),
    (Fail.out_of_credits(), errors.OutOfCredits),
    (Fail.key_limit(), errors.KeyLimitReached),
    (Fail(status=402, message="Insufficient credits"), errors.PaymentRequired),
    (Fail.moderated(), errors.Moderated),
    (Fail.budget_spent(), errors.BudgetSpent),
    (Fail.of(403, "permission_denied", patterns=["ssn"]), errors.GuardrailBlocked),
    (Fail.of(403, "permission_denied"), errors.Forbidden),
    (Fail(status=404, message="No endpoints found"), errors.NotFound),
    (Fail.of(413, "payload_too_large"), errors.InvalidRequest),
    (Fail.of(422, "unprocessable"), errors.InvalidRequest),
    (Fail.of(400, "a_word_of_tomorrow"), errors.InvalidRequest),
]
WAITED_FOR = [
    (Fail.in_flight(), errors.InFlightBudget, 4),
    (Fail.rate_limited(), errors.RateLimited, 4),
    (Fail.upstream_limited(), errors.RateLimited, 4),
    (Fail.of(500, "server"), errors.ServerError, 4),
    (Fail.of(500, "unmapped"), errors.ServerError, 4),
    (Fail.of(502, "provider_unavailable"), errors.ProviderUnavailable, 4),
    (Fail(status=503, message="no instances"), errors.Overloaded, 4),
    (Fail.of(529, "provider_overloaded"), errors.Overloaded, 4),
    (Fail.of(408, "timeout"), errors.TimedOut, 2),
    (Fail(status=504, message="gateway"), errors.TimedOut, 2),
    (Fail(status=524, message="edge"), errors.TimedOut, 2),
]
name_of = [f"{fail.status}-{kind.__name__}" for fail, kind in KINDS]
name_of_waited = [f"{fail.status}-{kind.__name__}" for fail, kind, _ in WAITED_FOR]


@pytest.mark.parametrize(("fail", "kind"), KINDS, ids=name_of)
def test_an_error_that_lasts_is_raised_at_once(server, clock, fail, kind):
    server.script(fail)
    error = failure(server, clock)
    assert type(error) is kind
    assert (error.status, error.message, len(error.attempts)) == (fail.status, fail.message, 1)
    assert (len(server.chats), clock.waits) == (1, [])


@pytest.mark.parametrize(("fail", "kind", "attempts"), WAITED_FOR, ids=name_of_waited)
def test_an_error_that_passes_is_asked_again_a_few_times(server, clock, fail, kind, attempts):
    server.script(*[fail] * attempts)
    error = failure(server, clock)
    assert type(error) is kind
    assert len(server.chats) == attempts == len(error.attempts)
    assert [attempt.number for attempt in error.attempts] == [*range(1, attempts + 1)]
    assert f"after {attempts} attempts" in str(error)


@pytest.mark.parametrize(("fail", "kind"), KINDS, ids=name_of)
def test_the_same_error_in_an_answer_with_status_200(server, clock, fail, kind):
    server.script(replace(fail, in_200=True), replace(fail, in_200=True))
    assert type(failure(server, clock)) is kind
    events, error = stream(server, clock)
    assert (events, type(error), error.status) == ([], kind, fail.status)


@pytest.mark.parametrize(("fail", "kind"), [*KINDS, *[row[:2] for row in WAITED_FOR]])
def test_the_same_error_in_the_middle_of_a_stream_is_final_and_keeps_what_came(server, clock, fail, kind):
    server.script(Say(text="Hello world", error_after=3, error=fail))
    events, error = stream(server, clock)
    assert [event.text for event in events] == ["Hello", " worl"]
    assert (type(error), error.partial.text) == (kind, "Hello worl")
    assert error.generation_id == server.billed[0].id
    assert len(server.chats) == 1


@pytest.mark.parametrize(("fail", "kind", "attempts"), WAITED_FOR, ids=name_of_waited)
def test_an_error_before_the_first_piece_of_a_stream_is_asked_again(server, clock, fail, kind, attempts):
    server.script(fail, Say(text="at last"))
    events, error = stream(server, clock)
    assert error is None
    assert events[-1].text == "at last"
    assert [attempt.status for attempt in events[-1].attempts] == [fail.status]
    server.script(Say(error_after=0, error=fail), Say(text="at last"))
    assert stream(server, clock)[0][-1].text == "at last"


def test_waits_are_what_the_answer_asks_for_or_else_grow(server, clock):
    server.script(
        Fail.rate_limited(retry_after=7), Fail.of(502, "provider_unavailable"), Fail.of(500, "server")
    )
    answer = complete(server, clock)
    assert clock.waits == [7, 2, 4] == [attempt.waited_seconds for attempt in answer.attempts]


def test_the_moment_of_a_reset_is_waited_for(server, clock):
    reset = int((START + timedelta(seconds=9)).timestamp() * 1000)
    server.script(Fail.rate_limited(reset_ms=reset), Say())
    complete(server, clock)
    assert clock.waits == [9]


def test_a_date_in_retry_after_is_waited_for(server, clock):
    date = "Fri, 20 Nov 2026 12:00:05 GMT"
    server.script(Fail(status=503, message="wait", headers={"Retry-After": date}), Say())
    complete(server, clock)
    assert clock.waits == [5]


def test_a_wait_that_is_too_long_is_left_to_the_caller(server, clock):
    server.script(Fail.in_flight(retry_after=3600))
    error = failure(server, clock)
    assert (error.retry_after, clock.waits, len(error.attempts)) == (3600, [], 1)


def test_the_time_for_all_attempts_has_a_bound(server, clock):
    server.script(*[Fail.of(500, "server")] * 9)
    error = failure(server, clock, patience=Patience(attempts=9, retry_seconds=10))
    assert clock.waits == [1, 2, 4]
    assert len(error.attempts) == 4


def test_who_wants_to_know_hears_of_each_failure_before_the_wait(server, clock):
    heard: list[tuple[int, float, int]] = []
    server.script(Fail.in_flight(retry_after=3), Say())
    complete(
        server,
        clock,
        on_retry=lambda error, attempt: heard.append(
            (error.status, attempt.waited_seconds, len(clock.waits))
        ),
    )
    assert heard == [(402, 3, 0)]


def test_an_error_that_says_it_will_not_pass_is_not_asked_again(server, clock):
    blocked = Fail(
        status=503,
        message="No endpoints",
        availability={
            "code": "constraint_filtered",
            "retryable": False,
            "fallback_models": ["a/b"],
            "excluded_by": ["max_price"],
        },
    )
    server.script(blocked)
    error = failure(server, clock)
    assert len(server.chats) == 1
    assert (error.availability.code, error.availability.excluded_by) == (
        "constraint_filtered",
        ("max_price",),
    )
    assert error.availability.fallback_models == ("a/b",)


def test_errors_carry_what_is_known_about_them(server, clock):
    server.script(Fail.moderated(), Fail.budget_spent(), *[Fail.upstream_limited()] * 4)
    moderated = failure(server, clock)
    assert (moderated.reasons, moderated.flagged_input) == (("violence",), "a very … thing")
    assert (moderated.model_slug, moderated.provider_name) == ("openai/gpt-5", "OpenAI")
    spent = failure(server, clock)
    assert spent.resets_at == datetime(2026, 12, 1, tzinfo=UTC)
    assert spent.limit_source == "openrouter_guardrail_budget"
    limited = failure(server, clock)
    assert limited.is_upstream
    assert "temporarily rate-limited upstream" in str(limited)
    assert "at Groq (429)" in str(limited)


def test_our_own_limit_is_told_from_that_of_a_provider(server, clock):
    server.script(*[Fail.rate_limited(reset_ms=1_795_176_000_000)] * 4)
    own = failure(server, clock, patience=Patience(attempts=1))
    assert (own.is_upstream, own.limit, own.remaining) == (False, 20, 0)
    assert own.resets_at == datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def test_a_number_in_a_message_is_not_taken_for_a_status(server, clock):
    server.script(*[Fail(status=500, message="error 402: can only afford 401 tokens")] * 4)
    assert type(failure(server, clock)) is errors.ServerError


# --- broken answers -----------------------------------------------------------------------------

HTML = b"<html><head><title>502 Bad\nGateway</title></head><body>" + b"x" * 300_000 + b"</body></html>"


@pytest.mark.parametrize(
    ("raw", "kind", "said"),
    [
        (Raw(body=HTML, headers={"Content-Type": "text/html"}), errors.BadAnswer, 'a page "502 Bad Gateway"'),
        (Raw(status=404, body=HTML), errors.NotFound, 'a page "502 Bad Gateway"'),
        (Raw(status=302, headers={"Location": "http://e.org"}), errors.BadAnswer, "it redirects"),
        (Raw(body=b""), errors.BadAnswer, "an empty answer"),
        (Raw(body=b'{"a": ' * 100_000), errors.BadAnswer, "not JSON"),
        (Raw(body=b'{"choices": [{"message": {"content": "x"}, "finish_rea', cut=True), errors.NoAnswer, ""),
        (Raw(status=400, body=b'{"message": "no envelope"}'), errors.InvalidRequest, "no envelope"),
        (Raw(status=400, body=b'{"error": "a text"}'), errors.InvalidRequest, "a text"),
        (Raw(status=400, body=b"[1]"), errors.InvalidRequest, ""),
        (Raw(body=b'{"error": {"code": "rate_limited", "message": "slow"}}'), errors.ServerError, "slow"),
        (Raw(body=b'{"id": "x", "choices": []}'), errors.ServerError, "no choices"),
        (Raw(body=b"[]"), errors.ServerError, "no choices"),
        (HangUp(), errors.Dropped, ""),
    ],
)  # fmt: skip
def test_what_is_no_answer_is_one_clean_sentence(server, clock, raw, kind, said):
    server.script(*[raw] * 4)
    error = failure(server, clock)
    assert type(error) is kind
    assert said in str(error)
    assert "\n" not in str(error)
    assert len(str(error)) < 500
    server.forget()
    server.script(*[raw] * 4)
    events, error = stream(server, clock)
    assert (events, type(error)) == ([], kind)


def test_the_envelope_of_a_cancelled_connection_is_not_waited_for_for_ever(server, clock):
    server.script(Silence())
    error = failure(server, clock, patience=Patience(silence_seconds=0.1))
    assert type(error) is errors.NoAnswer
    assert str(error) == "OpenRouter did not answer: no answer in time"


def test_where_nobody_listens_is_unreachable(server, clock):
    error = failure(server, clock, base_url="http://127.0.0.1:1/api/v1")
    assert (type(error), len(error.attempts)) == (errors.Unreachable, 4)


@pytest.mark.parametrize("broken", [{"cut_after": 3}, {"error_after": 3, "ends_with_done": False}])
def test_a_stream_that_ends_early_is_an_error_with_what_had_come(server, clock, broken):
    server.script(Say(text="Hello world", reasoning="", **broken))
    events, error = stream(server, clock)
    assert type(error) is errors.StreamCut
    assert "".join(event.text for event in events) == "Hello worl" == error.partial.text
    assert error.generation_id == server.billed[0].id
    assert len(server.chats) == 1


def test_a_stalled_stream_is_cut_and_its_charge_can_be_asked_for(server, clock):
    server.script(Say(text="Hello world", stall_after=3, cost=Decimal("0.5")))
    server.generation_lag = 2

    async def work():
        async with a_client(server, clock, patience=Patience(silence_seconds=0.1)) as client:
            with pytest.raises(errors.StreamCut) as caught:
                [event async for event in client.stream(a_request())]
            return await client.generation(caught.value.generation_id)

    generation = run(work())
    assert (generation.cost_usd, generation.provider) == (Decimal("0.5"), "Groq")
    assert generation.usage == ModelUsage(input=120, output=30)
    assert clock.waits == [0.5, 1]


def test_a_generation_that_never_appears_is_not_asked_for_for_ever(server, clock):
    async def work():
        async with a_client(server, clock) as client:
            await client.generation("gen-x/../../key")

    with pytest.raises(errors.NotFound):
        run(work())
    assert clock.waits == [0.5, 1, 2, 4, 8]
    assert {(request.path, request.query["id"]) for request in server.requests} == {
        ("/generation", "gen-x/../../key")
    }


def test_a_stream_that_breaks_off_after_the_model_has_finished_is_whole(server, clock):
    server.script(Say(text="Hello", cut_after=3))
    events, error = stream(server, clock)
    assert error is None
    assert (events[-1].text, events[-1].finish_reason, events[-1].usage) == ("Hello", "stop", None)


def test_an_answer_that_takes_too_long_is_ended(server, clock):
    class Hurried(Clock):
        def __call__(self) -> datetime:
            self.at += timedelta(seconds=1)
            return self.at

    server.script(Say(text="x" * 500))
    _, error = stream(server, Hurried(), patience=Patience(answer_seconds=20))
    assert type(error) is errors.StreamCut
    assert "takes too long" in str(error)


def test_a_whole_answer_to_the_request_for_a_stream_is_taken(server, clock):
    body = (
        b'{"id": "g", "model": "a/b", "choices": [{"finish_reason": "stop", "message": {"content": "hi"}}]}'
    )
    server.script(Raw(body=body, headers={"Content-Type": "application/json"}))
    events, _ = stream(server, clock)
    assert events[0] == TextDelta(text="hi")
    assert (events[-1].text, events[-1].model, events[-1].generation_id) == ("hi", "a/b", "g")


# --- the key ------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["", "  ", "\n", None, "sk-or-v1-abc\n", "sk or", "sk-ö"])
def test_a_key_that_cannot_be_one_is_refused_without_being_repeated(key):
    for make in (OpenRouterClient, lambda key, **options: OpenRouterProvider(key, KIMI, **options)):
        with pytest.raises(ValueError, match="API key") as caught:
            make(key, sleep=asyncio.sleep, now=lambda: START)
        assert not key or not key.strip() or key.strip() not in str(caught.value)


def test_the_key_is_in_no_error_even_when_the_server_repeats_it(server, clock):
    server.script(Fail(status=400, message=f"bad key {server.key}", metadata={"raw": server.key}))
    error = failure(server, clock)
    assert server.key not in f"{error} {error!r} {error.facts}"
    server.script(Say(error_after=1, error=Fail(status=400, message=f"bad key {server.key}")))
    _, error = stream(server, clock)
    assert "bad key ***" in str(error)
    assert server.key not in repr(a_client(server, clock))


def test_a_wrong_key_is_refused_by_the_server(server, clock):
    assert type(failure(server, clock, api_key="sk-or-v1-wrong")) is errors.AuthenticationFailed


def test_the_key_tells_its_limits(server, clock):
    server.key_data["budgets"] = [{"scope": "member", "limit_usd": 5, "spend_usd": 6, "remaining_usd": -1,
                                   "resets_at": "2026-11-21T00:00:00Z"}]  # fmt: skip

    async def work():
        async with a_client(server, clock) as client:
            return await client.key()

    status = run(work())
    assert (status.limit_usd, status.remaining_usd, status.usage_usd) == (20, Decimal("12.5"), Decimal("7.5"))
    assert (status.free_requests_per_day, status.free_requests_left) == (1000, 997)
    assert (status.budgets[0].remaining_usd, status.budgets[0].resets_at.day) == (-1, 21)


# --- the short form -----------------------------------------------------------------------------


def a_provider(server: OpenRouterServer, clock: Clock, model: str = KIMI) -> OpenRouterProvider:
    return OpenRouterProvider(server.key, model, base_url=server.url, sleep=clock.sleep, now=clock)


def test_chat_returns_normalised_tool_calls_and_prefers_groq_for_kimi(server, clock):
    server.script(Say(text="", tool_calls=[Call("read", {"path": "a"}, id="c1")]))

    async def work():
        async with a_provider(server, clock) as provider:
            return await provider.chat([{"role": "user", "content": "hi"}], [TOOL], temperature=0, min_p=0.5)

    answer = run(work())
    assert [(call.id, call.name, call.arguments) for call in answer.tool_calls] == [
        ("c1", "read", {"path": "a"})
    ]
    body = server.chats[0].body
    assert body["provider"] == {"order": ["groq", "moonshotai"], "allow_fallbacks": True}
    assert (body["tools"], body["temperature"], body["min_p"]) == ([TOOL], 0, 0.5)
    assert "tool_choice" not in body
    assert "stream" not in body


def test_chat_stream_yields_text_and_keeps_the_model_from_calling_tools(server, clock):
    async def work(tools):
        async with a_provider(server, clock, "openai/gpt-5") as provider:
            return [piece async for piece in provider.chat_stream([{"role": "user", "content": "hi"}], tools)]

    assert "".join(run(work([TOOL]))) == "Hello from openai/gpt-5."
    run(work(None))
    with_tools, without = (request.body for request in server.chats)
    assert (with_tools["tool_choice"], with_tools["stream"]) == ("none", True)
    assert "tool_choice" not in without
    assert "provider" not in with_tools
