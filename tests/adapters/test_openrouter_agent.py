"""The OpenRouter agent's loop against a local OpenRouter: what it does, what it prints, how each run ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from adw_modules.agents.claude import ClaudeStream
from adw_modules.agents.stream import StreamSummary
from adw_modules.tasks.model import ModelUsage, Usage, UsageSource
from coordinator.openrouter_agent.command import TOOLS
from coordinator.openrouter_agent.failures import Patience
from coordinator.openrouter_agent.running import Order, run
from tests.openrouter_server import Call, Fail, HangUp, OpenRouterServer, Say, Silence, Tokens

MODEL = "moonshotai/kimi-k2"
PATIENCE = Patience(attempts=3, broken_off=3, base_seconds=0.01, longest_seconds=5)


@dataclass(slots=True)
class Ran:
    """What one run printed."""

    code: int
    lines: list[dict[str, Any]]
    stderr: str
    summary: StreamSummary
    text: str = ""
    result: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        results = [line for line in self.lines if line["type"] == "result"]
        self.result = results[0] if results else {}
        assert len(results) <= 1

    def of(self, kind: str, subtype: str | None = None) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["type"] == kind and line.get("subtype") == subtype]

    def answers(self) -> list[str]:
        """What the tools said, in order."""
        blocks = [block for line in self.of("user") for block in line["message"]["content"]]
        return [block["content"] for block in blocks]


@pytest.fixture
def server():
    with OpenRouterServer() as server:
        yield server


@pytest.fixture
def work(tmp_path: Path, server: OpenRouterServer, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Run an order to its end; everything not given is as the daemon has it."""
    folder = tmp_path / "work"
    folder.mkdir()
    empty = tmp_path / "config.toml"
    empty.touch()

    def work(**order: Any) -> Ran:
        usual = {
            "prompt": "Do it.",
            "model": MODEL,
            "workspace": folder,
            "environ": {"PATH": "/usr/bin:/bin", **server.environ},
            "tools": TOOLS,
            "patience": PATIENCE,
            "config": empty,
        }
        code = asyncio.run(run(Order(**{**usual, **order})))
        said = capsys.readouterr()
        stream = ClaudeStream()
        stream.feed(said.out.encode())
        parsed = [json.loads(line) for line in said.out.splitlines() if line.startswith("{")]
        return Ran(code=code, lines=parsed, stderr=said.err, summary=stream.finish(), text=said.out)

    return work


def assert_billed(ran: Ran, server: OpenRouterServer) -> None:
    """Tokens and money are exactly what the server has in its books."""
    expected: dict[str, ModelUsage] = {}
    for bill in server.billed:
        tokens, write = bill.tokens, bill.tokens.cache_write or 0
        usage = ModelUsage(
            input=tokens.prompt - tokens.cached - write,
            cache_read=tokens.cached,
            cache_write_5m=write,
            output=tokens.completion,
            reasoning=tokens.reasoning,
        )
        expected[bill.model] = expected.get(bill.model, ModelUsage()) + usage
    assert ran.summary.usage.by_model == expected
    assert ran.summary.usage.source is UsageSource.REPORTED
    assert ran.summary.usage.reported_cost_usd == server.total_cost
    assert ran.result["generation_ids"] == [bill.id for bill in server.billed]


# What a run does


def test_the_model_reads_edits_and_runs_until_it_is_done(work, server, tmp_path: Path) -> None:
    (tmp_path / "work" / "greeting.txt").write_text("hello\n")
    change = {"path": "greeting.txt", "old_text": "hello", "new_text": "good evening"}
    server.script(
        Say(text="", reasoning="Hm.", tool_calls=[Call("read_file", {"path": "greeting.txt"})]),
        Say(
            text="I edit.", tool_calls=[Call("edit_file", change), Call("run_command", {"command": "cat *"})]
        ),
        Say(
            text="It says good evening now.",
            tokens=Tokens(prompt=900, cached=700, cache_write=100, reasoning=9),
        ),
    )
    ran = work()

    assert ran.code == 0
    assert (tmp_path / "work" / "greeting.txt").read_text() == "good evening\n"
    assert ran.answers() == ["hello\n", "Edited greeting.txt (1 place).", "[exit code 0]\ngood evening\n"]
    assert ran.result["subtype"] == "success"
    assert ran.result["result"] == "It says good evening now."
    assert ran.result["num_turns"] == 3
    assert ran.result["provider"] == "Groq"
    (init,) = ran.of("system", "init")
    assert init["tools"] == list(TOOLS)
    assert init["session_id"] == ran.result["session_id"]
    assert_billed(ran, server)


def test_the_history_that_is_sent_is_the_one_that_happened(work, server) -> None:
    details = [{"type": "reasoning.text", "text": "Hm.", "signature": "s"}]
    server.script(
        Say(text="", reasoning_details=details, tool_calls=[Call("list_files", {}, id="c1")]), Say()
    )
    work()

    body = server.chats[-1].body
    assert [message["role"] for message in body["messages"]] == ["system", "user", "assistant", "tool"]
    assert body["messages"][1]["content"] == "Do it."
    assert body["messages"][2]["reasoning_details"] == details
    assert body["messages"][3] == {"role": "tool", "tool_call_id": "c1", "content": "[nothing there]"}
    assert body["provider"]["require_parameters"] is True
    assert body["provider"]["order"] == ["groq", "moonshotai"]  # as shipped for Kimi K2
    assert body["session_id"]


def test_without_tools_it_is_a_plain_completion(work, server) -> None:
    server.script(Say(text="Four."))
    ran = work(tools=(), prompt="Two and two?")

    assert ran.result["result"] == "Four."
    body = server.chats[0].body
    assert body["messages"] == [{"role": "user", "content": "Two and two?"}]
    assert "tools" not in body
    assert "require_parameters" not in body["provider"]


def test_preferences_and_attribution_come_from_the_configuration(work, server, tmp_path: Path) -> None:
    config = tmp_path / "mine.toml"
    config.write_text(
        '[openrouter]\napp_name = "Ours"\ncategories = ["cloud-agent"]\n'
        '[[openrouter.preferences]]\nmodels = ["moonshotai/*"]\nsort = "price"\nrequire_parameters = false\n'
    )
    work(config=config)
    sent = server.chats[0].headers
    assert (sent["x-openrouter-title"], sent["x-openrouter-categories"]) == ("Ours", "cloud-agent")
    assert server.chats[0].body["provider"] == {"sort": "price", "require_parameters": False}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[openrouter", "cannot be used"),
        ("[[openrouter.preferences]]\nmodels = 7\n", "models must be"),
        ("openrouter = 3\n", "openrouter.preferences must be"),
        (None, "no such file"),
    ],
)
def test_a_configuration_that_cannot_be_used_costs_a_sentence_and_not_the_run(
    work, server, tmp_path: Path, text: str | None, says: str
) -> None:
    path = tmp_path / "bad.toml"
    if text is not None:
        path.write_text(text)
    ran = work(config=path)
    assert ran.code == 0
    assert says in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


def test_fallback_models_are_sent_and_the_one_that_answered_is_counted(work, server) -> None:
    server.script(Fail(status=503), model=MODEL)
    server.script(Say(cost=Decimal("0.0123")), model="anthropic/claude-sonnet-4.5")
    ran = work(fallbacks=("anthropic/claude-sonnet-4.5",))

    assert server.chats[0].body["models"] == [MODEL, "anthropic/claude-sonnet-4.5"]
    assert list(ran.result["modelUsage"]) == ["anthropic/claude-sonnet-4.5"]
    assert_billed(ran, server)


def test_tool_errors_go_to_the_model_and_the_run_goes_on(work, server) -> None:
    calls = [
        Call("read_file", {"path": "../x"}),
        Call("write_file", "{not json"),
        Call("launch", {}),
        Call("run_command", {"command": "false"}),
    ]
    server.script(Say(tool_calls=calls), Say(text="I give up."))
    ran = work()

    assert ran.code == 0
    assert [answer.split(":")[0] for answer in ran.answers()] == [
        "Error",
        "Error",
        "Error",
        "[exit code 1]\n",
    ]
    assert server.chats[-1].body["messages"][2]["tool_calls"][1]["function"]["arguments"] == "{}"


def test_the_same_failing_call_over_and_over_ends_the_run(work, server) -> None:
    server.script(*[Say(tool_calls=[Call("read_file", {"path": "nope"})])] * 20)
    ran = work()

    assert ran.code == 1
    assert ran.result["terminal_reason"] == "repeated_tool_errors"
    assert ran.result["result"] == "The model repeated the same failing call of read_file 5 times."
    assert "has failed 3 times" in ran.answers()[2]
    assert_billed(ran, server)


def test_old_results_are_left_out_when_the_context_is_nearly_full(work, server, tmp_path: Path) -> None:
    (tmp_path / "work" / "big.txt").write_text("word " * 4000)
    reads = [
        Say(
            text="",
            tool_calls=[Call("read_file", {"path": "big.txt", "limit": limit})],
            tokens=Tokens(prompt=used),
        )
        for limit, used in enumerate([2000, 4000, 6000, 8000, 10_000, 12_000, 14_000, 15_500], start=1)
    ]
    server.script(*reads, Say())
    ran = work(context_tokens=18_000)

    assert ran.code == 0
    assert ran.of("system", "compact_boundary")
    results = [each["content"] for each in server.chats[-1].body["messages"] if each["role"] == "tool"]
    left_out = [content.startswith("[left out") for content in results]
    assert left_out == sorted(left_out, reverse=True)  # the oldest
    assert left_out.count(False) >= 4
    assert left_out[0]


def test_a_full_context_is_shortened_once_and_asked_again(work, server) -> None:
    long = Fail.of(400, "context_length_exceeded", "too long")
    calls = [Say(tool_calls=[Call("run_command", {"command": f"seq {n}000"})]) for n in range(1, 8)]
    server.script(*calls, long, Say(text="Done."))
    assert work().result["result"] == "Done."

    server.script(long)
    ran = work()
    assert ran.result["terminal_reason"] == "prompt_too_long"
    assert ran.result["api_error_status"] == 400


# Limits


def test_the_turn_limit_ends_the_run_after_its_last_tools(work, server) -> None:
    server.script(*[Say(tool_calls=[Call("run_command", {"command": f"touch {n}"})]) for n in range(9)])
    ran = work(max_turns=2)

    assert (ran.code, ran.result["subtype"], ran.result["num_turns"]) == (1, "error_max_turns", 2)
    assert len(server.chats) == 2
    assert len(ran.answers()) == 2
    assert_billed(ran, server)


@pytest.mark.parametrize(
    ("limit", "subtype"),
    [
        ({"max_cost": Decimal("0.05")}, "error_max_budget_usd"),
        ({"max_tokens": 300}, "error_during_execution"),
    ],
)
def test_a_budget_ends_the_run_before_the_next_request(work, server, limit: dict, subtype: str) -> None:
    server.script(*[Say(tool_calls=[Call("list_files", {})], cost=Decimal("0.025"), tokens=Tokens())] * 9)
    ran = work(**limit)

    assert (ran.code, ran.result["subtype"]) == (1, subtype)
    assert ran.result["terminal_reason"] == "budget_exhausted"
    assert len(server.chats) == 2
    assert_billed(ran, server)


def test_the_time_limit_stops_a_command_and_a_request(work, server, tmp_path: Path) -> None:
    server.script(Say(tool_calls=[Call("run_command", {"command": "echo $$ > pid; sleep 600"})]))
    ran = work(seconds=0.5)
    assert ran.result["terminal_reason"] == "timeout"
    pid = int((tmp_path / "work" / "pid").read_text())
    assert not Path(f"/proc/{pid}").exists()

    server.script(Say(stall_after=1, cost=Decimal("0.07")))
    ran = work(seconds=0.3)
    assert ran.result["terminal_reason"] == "timeout"
    assert ran.result["total_cost_usd"] == 0.07  # looked up: it was charged although nobody got the answer


# Failures


FATAL = [
    (Fail.wrong_key(), 401, "authentication_failed", "check OPENROUTER_API_KEY"),
    (Fail.out_of_credits(), 402, "billing_error", "credits do not suffice"),
    (Fail.key_limit(), 402, "billing_error", "limit of the OpenRouter key"),
    (Fail.moderated(), 403, "permission_denied", "moderation refused"),
    (Fail.budget_spent(), 403, "billing_error", "budget of the OpenRouter account is spent"),
    (Fail(status=400, message="x/y is not a valid model ID"), 400, "invalid_request", "not a valid model ID"),
    (
        Fail(status=404, message="No endpoints found that support tool use"),
        404,
        "model_not_found",
        "choose a model that can use tools",
    ),
    (Fail(status=400, in_200=True, message="no"), 400, "invalid_request", "no"),
]


@pytest.mark.parametrize(("fail", "status", "word", "says"), FATAL, ids=[case[3] for case in FATAL])
def test_an_error_that_stays_ends_the_run_at_once_with_a_sentence(
    work, server, fail: Fail, status: int, word: str, says: str
) -> None:
    server.script(fail)
    ran = work()

    assert ran.code == 1
    assert len(server.chats) == 1
    assert ran.result["api_error_status"] == status
    assert ran.summary.api_error == word
    assert says in ran.result["result"]
    assert ran.stderr == ran.result["result"] + "\n"
    assert ran.result["total_cost_usd"] == 0
    assert server.key not in ran.text + ran.stderr


@pytest.mark.parametrize("status", [429, 500, 502, 503, 529])
def test_what_passes_is_asked_again_and_told(work, server, status: int) -> None:
    server.script(Fail(status=status), Say(text="Now."))
    ran = work()

    assert ran.result["result"] == "Now."
    (retry,) = ran.of("system", "api_retry")
    assert (retry["attempt"], retry["error_status"], retry["retry_delay_ms"]) == (1, status, 10)
    assert ran.summary.retry_statuses == (status,)
    assert_billed(ran, server)


def test_a_rate_limit_that_stays_ends_the_run_and_says_until_when(work, server) -> None:
    server.script(Fail.rate_limited(retry_after=3600))
    ran = work()

    assert ran.result["api_error_status"] == 429
    assert len(server.chats) == 1  # an hour is not waited for
    assert ran.summary.rate_limit_status == "rejected"
    assert ran.summary.rate_limit_resets_at is not None


def test_what_headers_say_of_a_limit_stands_in_the_records(work, server) -> None:
    limits = {"X-RateLimit-Limit": "20", "X-RateLimit-Remaining": "3", "X-RateLimit-Reset": "1795262400000"}
    server.script(
        Fail.rate_limited(retry_after=0.01, reset_ms=1795262400000), Say(text="Now.", headers=limits)
    )
    ran = work()

    (retry,) = ran.of("system", "api_retry")
    assert (retry["retry_delay_ms"], retry["resetsAt"]) == (10, 1795262400)
    (told,) = ran.of("rate_limit_event")
    info = {"status": "allowed", "resetsAt": 1795262400, "remaining": 3, "limit": 20}
    assert told["rate_limit_info"] == info | {"rateLimitType": "openrouter"}
    assert ran.summary.rate_limit_status == "allowed"


def test_a_budget_that_running_requests_hold_is_waited_for_and_never_called_a_bad_account(
    work, server
) -> None:
    server.script(Fail.in_flight(retry_after=0.01), Say(text="Now."))
    assert work().result["result"] == "Now."

    server.script(*[Fail.in_flight(retry_after=0.01)] * 3)
    ran = work()
    assert ran.result["api_error_status"] == 429
    assert ran.summary.api_error == "rate_limit"


@pytest.mark.parametrize(
    "broken",
    [
        Say(text="A long answer.", cut_after=3, cost=Decimal("0.011")),
        Say(text="A long answer.", error_after=3, error=Fail(status=502), cost=Decimal("0.011")),
        Say(text="A long answer.", stall_after=3, cost=Decimal("0.011")),
    ],
    ids=["cut", "error", "stalled"],
)
def test_an_answer_that_breaks_off_is_asked_again_and_what_it_cost_is_counted(
    work, server, broken: Say
) -> None:
    server.script(broken, Say(text="Whole.", cost=Decimal("0.02")))
    ran = work(silence_seconds=1.0)  # so long that a busy machine is not taken for a silent server

    assert ran.result["result"] == "Whole."
    assert len(ran.of("system", "api_retry")) == 1
    assert ran.result["total_cost_usd"] == 0.031
    assert_billed(ran, server)


def test_answers_that_always_break_off_end_the_run(work, server) -> None:
    server.script(*[Say(cut_after=2)] * 9)
    ran = work()
    assert len(server.chats) == 3
    assert ran.code == 1
    assert "broke off" in ran.result["result"]
    assert_billed(ran, server)


@pytest.mark.parametrize("answer", [HangUp(), Silence()])
def test_what_nobody_can_say_the_charge_of_stays_unknown(work, server, answer: Any) -> None:
    server.script(answer, Say(text="Now.", cost=Decimal("0.5")))
    ran = work(silence_seconds=0.2)

    assert ran.result["result"] == "Now."
    assert ran.result["total_cost_usd"] is None
    assert ran.result["known_cost_usd"] == 0.5
    assert ran.summary.usage.reported_cost_usd is None
    assert ran.result["usage_is_partial"] is True
    assert ran.summary.usage.source is UsageSource.DERIVED  # what the first one took is not in it


def test_tokens_that_nobody_could_tell_are_unknown_and_not_0(work, server) -> None:
    server.script(Silence(), Silence(), Silence())
    ran = work(silence_seconds=0.1)
    assert ran.code == 1
    assert ran.summary.usage == Usage(source=UsageSource.UNKNOWN)


@pytest.mark.parametrize("say", [Say(tokens=None), Say(cut_after=3)], ids=["not told", "cut before it was"])
def test_a_usage_that_was_not_told_is_looked_up(work, server, say: Say) -> None:
    server.script(replace(say, text="Four.", cost=Decimal("0.25")))
    ran = work()
    assert ran.result["result"] == "Four."
    assert ran.result["total_cost_usd"] == 0.25


def test_a_server_that_is_not_there_is_a_sentence(work) -> None:
    environ = {"OPENROUTER_API_KEY": "k", "OPENROUTER_BASE_URL": "http://127.0.0.1:9", "PATH": "/bin"}
    ran = work(environ=environ)
    assert ran.code == 1
    assert ran.result["api_error_status"] is None
    assert ran.result["total_cost_usd"] == 0
    assert "cannot be reached" in ran.result["result"]
    assert len(ran.of("system", "api_retry")) == 2


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({}, "set OPENROUTER_API_KEY"),
        ({"OPENROUTER_API_KEY": "two words"}, "the key alone"),
        ({"OPENROUTER_API_KEY": "k", "OPENROUTER_BASE_URL": "openrouter"}, "OPENROUTER_BASE_URL must be"),
    ],
)
def test_a_key_or_address_that_cannot_be_one_is_a_result_too(work, environ: dict, says: str) -> None:
    ran = work(environ={"PATH": "/bin", **environ})
    assert ran.code == 1
    assert says in ran.result["result"]
    assert "two words" not in ran.text


@pytest.mark.parametrize(
    ("say", "reason"),
    [
        (Say(text="", refusal="I will not."), "refusal"),
        (Say(text="No.", finish_reason="content_filter"), "refusal"),
        (Say(text="", finish_reason="length"), "no_answer"),
        (Say(text=""), "no_answer"),
    ],
)
def test_an_answer_that_is_none_is_an_error(work, server, say: Say, reason: str) -> None:
    server.script(*[say] * 9)
    ran = work()
    assert ran.code == 1
    assert ran.result["terminal_reason"] == reason
    assert len(server.chats) <= 4
    assert_billed(ran, server)


def test_the_web_is_read_only_when_it_is_allowed(work, server) -> None:
    server.pages[("GET", "/page")] = {"hello": "world"}
    url = server.url + "/page"
    for tools, says in (
        ((*TOOLS, "fetch_url"), '[HTTP 200]\n{"hello": "world"}'),
        (TOOLS, "no tool 'fetch_url'"),
    ):
        server.script(Say(tool_calls=[Call("fetch_url", {"url": url})]), Say())
        assert says in work(tools=tools).answers()[0]


# Formats


def test_text_is_the_answer_alone_and_errors_are_on_standard_error(work, server) -> None:
    server.script(Say(text="Four."))
    assert work(form="text").text == "Four.\n"
    server.script(Fail.wrong_key())
    ran = work(form="text")
    assert ran.text == ""
    assert "OPENROUTER_API_KEY" in ran.stderr


def test_json_is_the_result_alone_and_the_file_gets_what_is_printed(work, server, tmp_path: Path) -> None:
    ran = work(form="json", output_file=tmp_path / "out.jsonl")
    assert [line["type"] for line in ran.lines] == ["result"]
    assert (tmp_path / "out.jsonl").read_text() == ran.text


def test_money_keeps_every_digit(work, server) -> None:
    server.script(Say(tool_calls=[Call("list_files", {})], cost=Decimal("0.1")), Say(cost=Decimal("0.2")))
    assert '"total_cost_usd": 0.3,' in work().text


def test_an_agent_that_is_killed_has_told_what_its_answers_used(work, server) -> None:
    """Without a result the parser adds up the answers, once each."""
    server.script(Say(tool_calls=[Call("list_files", {})]), Say())
    ran = work()
    stream = ClaudeStream()
    stream.feed("".join(json.dumps(line) + "\n" for line in ran.lines if line["type"] != "result").encode())
    usage = stream.finish().usage
    assert usage.source is UsageSource.DERIVED
    assert usage.total == ran.summary.usage.total
