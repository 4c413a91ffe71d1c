"""Recorded streams of Codex, Gemini and Qwen against what the server had billed and how the program ended."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from adw_modules.agents import DIALECTS, parser_for, with_exit_code
from adw_modules.agents.stream import (
    UNNAMED_MODEL,
    Finished,
    Retry,
    Started,
    Text,
    ToolUse,
    with_model,
)
from adw_modules.tasks.model import (
    ExitRecord,
    FailureClass,
    GitState,
    ModelUsage,
    Outcome,
    Usage,
    UsageSource,
)
from adw_modules.tasks.outcome import classify

SAMPLES = Path(__file__).parent.parent / "samples"
NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
CHANGED = GitState(has_changes=True, head="b" * 40, base="a" * 40)
REPORTED, DERIVED, UNKNOWN = UsageSource.REPORTED, UsageSource.DERIVED, UsageSource.UNKNOWN

PROGRAMS = ("codex", "gemini", "qwen")
CASES = {name: json.loads((SAMPLES / name / "cases.json").read_text()) for name in PROGRAMS}
ALL = [(name, case) for name in PROGRAMS for case in sorted(CASES[name])]


@dataclass(frozen=True)
class Inexact:
    """A case whose stream cannot give what was billed: what it gives instead, and why."""

    source: UsageSource
    tokens: tuple[int, int, int, int]  # input, cache read, cache write, output
    why: str


NOTHING = (0, 0, 0, 0)
KILLED = Inexact(UNKNOWN, NOTHING, "killed; the only record with tokens is the last one")
NOT_SAID = Inexact(UNKNOWN, NOTHING, "no record says how many, also where none were billed")
RESUMED = Inexact(
    REPORTED,
    (4800, 3200, 0, 600),
    "the whole session so far; nothing in the stream says that there was an earlier part",
)
ADDED_UP = Inexact(
    DERIVED, (1200, 800, 0, 150), "killed; added up from its calls, sub-agents would be missing"
)
INEXACT: dict[tuple[str, str], Inexact] = {
    ("codex", "resume"): RESUMED,
    ("codex", "maxtok"): Inexact(
        UNKNOWN, NOTHING, "turn.failed has no usage, although the answer was billed"
    ),
    **{
        ("codex", case): NOT_SAID
        for case in (
            *("error-401", "error-429", "error-500", "toolong"),
            *("idle-timeout", "stream-drop", "stream-malformed", "server-down", "stall-sigterm"),
        )
    },
    **{("codex", case): KILLED for case in CASES["codex"] if "hang-" in case or "tool-sig" in case},
    **{("gemini", case): KILLED for case in CASES["gemini"] if "hang-" in case or "tool-sig" in case},
    **{
        ("gemini", case): NOT_SAID
        for case in ("no-key", "untrusted", "server-down", "stall-sigterm", "stream-drop", "stream-malformed")
    },
    ("qwen", "resume"): RESUMED,
    ("qwen", "max-turns"): Inexact(DERIVED, (3600, 2400, 0, 450), "no result record at the limit of turns"),
    **{("qwen", case): KILLED for case in CASES["qwen"] if "hang-" in case},
    **{("qwen", case): ADDED_UP for case in CASES["qwen"] if "tool-sig" in case},
    **{
        ("qwen", case): NOT_SAID
        for case in ("error-429", "server-down", "stall-sigterm", "stream-drop", "stream-malformed")
    },
}

SUCCEEDED = (Outcome.SUCCEEDED, None)
AUTH_FAILED = (Outcome.AUTH_FAILED, None)
RATE_LIMITED = (Outcome.RATE_LIMITED, None)
API_ERROR = (Outcome.FAILED, FailureClass.API_ERROR)
TOO_LONG = (Outcome.FAILED, FailureClass.PROMPT_TOO_LONG)
TURN_LIMIT = (Outcome.FAILED, FailureClass.TURN_LIMIT)
SIGNAL = (Outcome.FAILED, FailureClass.SIGNAL)
NO_RESULT = (Outcome.FAILED, FailureClass.NO_RESULT)
FAST_EXIT = (Outcome.FAILED, FailureClass.FAST_EXIT)
AGENT_ERROR = (Outcome.FAILED, FailureClass.AGENT_ERROR)

# Of runs that nobody asked to stop, in a workspace with changes: what the exit and the stream alone say.
OUTCOMES: dict[str, dict[tuple[Outcome, FailureClass | None], set[str]]] = {
    "codex": {
        SUCCEEDED: {
            *("success", "background-child", "bad-tool", "error-429-recovers", "known-model", "no-optout"),
            *("not-a-repo", "prompt-arg", "resume", "sandboxed", "tool-outlives-turn"),
        },
        AUTH_FAILED: {"error-401"},
        RATE_LIMITED: {"error-429"},
        API_ERROR: {"error-500", "idle-timeout", "stream-drop", "stream-malformed"},
        TOO_LONG: {"toolong"},
        AGENT_ERROR: {"maxtok"},
        FAST_EXIT: {"hang-sigint", "tool-sigint"},  # it exits with 1 on SIGINT, like on any error
        SIGNAL: {
            *("hang-sigkill", "hang-sigkill-group", "hang-sigterm", "hang-sigterm-group", "server-down"),
            *("node20-hang-sigkill", "node20-tool-sigkill", "node20-tool-sigterm", "stall-sigterm"),
            *("tool-sigkill", "tool-sigkill-group", "tool-sigterm", "tool-sigterm-group"),
        },
    },
    "gemini": {
        SUCCEEDED: {
            *("success", "background-child", "bad-tool", "defaults-no-optout", "error-429-recovers"),
            *("norelaunch-success", "prompt-arg", "resume"),
            "maxtok",  # cut off in its first answer, and nothing says so
        },
        AUTH_FAILED: {"error-401", "no-key"},
        RATE_LIMITED: {"error-429"},
        API_ERROR: {
            *("error-500", "stream-drop", "stream-malformed"),
            "toolong",  # the recorded server only said: invalid argument
        },
        TURN_LIMIT: {"max-turns"},
        FAST_EXIT: {"untrusted"},
        NO_RESULT: {  # exit 0 on a signal
            *("hang-sigterm-group", "norelaunch-hang-sigint", "norelaunch-hang-sigterm"),
            *("norelaunch-tool-sigterm", "tool-sigterm-group"),
        },
        SIGNAL: {  # the signal in the name was ignored
            *("hang-sigint", "hang-sigkill", "hang-sigkill-group", "hang-sigterm", "server-down"),
            *("stall-sigterm", "tool-sigint", "tool-sigkill", "tool-sigkill-group", "tool-sigterm"),
        },
    },
    "qwen": {
        SUCCEEDED: {
            *("success", "background-child", "bad-tool", "defaults-no-optout", "error-429-recovers"),
            *("maxtok", "partial-messages", "resume"),
        },
        AUTH_FAILED: {"error-401"},
        API_ERROR: {"error-500", "server-down", "stream-drop", "stream-malformed"},
        TOO_LONG: {"toolong"},
        TURN_LIMIT: {"max-turns"},
        SIGNAL: {
            "error-429",  # would have waited for hours; the recorder killed it
            *("hang-sigint", "hang-sigkill", "hang-sigkill-group", "hang-sigterm", "hang-sigterm-group"),
            *("stall-sigterm", "tool-sigint", "tool-sigkill", "tool-sigkill-group"),
            *("tool-sigterm", "tool-sigterm-group"),
        },
    },
}


def sample(name: str, case: str) -> bytes:
    return (SAMPLES / name / f"{case}.jsonl").read_bytes()


def lines(*records) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def read(name: str, data: bytes):
    stream = parser_for(name)
    events = stream.feed(data)
    return events, stream.finish()


def summary_of(name: str, *records):
    return read(name, lines(*records))[1]


def an_exit(status: int, seconds: float = 60.0) -> ExitRecord:
    """How `cases.json` says it: a negative status is the signal that ended it."""
    return ExitRecord(
        exit_code=status if status >= 0 else None,
        exit_signal=-status if status < 0 else None,
        reason="exited",
        detail="",
        started_at=NOW - timedelta(seconds=seconds),
        ended_at=NOW,
        cpu_seconds=1.0,
        max_rss_kib=1000,
    )


def ended(name: str, data: bytes, status: int, *, seconds: float = 60.0, stderr=(), git=CHANGED):
    exit_record = an_exit(status, seconds)
    summary = with_exit_code(name, read(name, data)[1], exit_record.exit_code)
    return classify(
        exit_record, summary, git, stop_outcome=None, stop_reason=None, now=NOW, stderr_tail=stderr
    )


def told(outcome):
    return outcome.outcome, outcome.failure_class


def four(usage: ModelUsage) -> tuple[int, int, int, int]:
    return usage.input, usage.cache_read, usage.cache_write, usage.output


def billed(name: str, case: str) -> dict[str, int]:
    """By this run alone: the server counted those before it in the same session, too."""
    facts = CASES[name][case]
    before = facts.get("stub_before_this_run", {}).get("billed", {})
    return {kind: number - before.get(kind, 0) for kind, number in facts["stub"]["billed"].items()}


# --- the recorded streams ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_tables_cover_every_recorded_stream_once(name):
    assert {path.stem for path in (SAMPLES / name).glob("*.jsonl")} == set(CASES[name])
    listed = [case for cases in OUTCOMES[name].values() for case in cases]
    assert sorted(listed) == sorted(CASES[name])
    assert {case for program, case in INEXACT if program == name} < set(CASES[name])


@pytest.mark.parametrize(("name", "case"), [each for each in ALL if each not in INEXACT])
def test_tokens_are_those_the_server_billed(name, case):
    _, summary = read(name, sample(name, case))
    bill = billed(name, case)
    assert summary.usage.source is REPORTED
    assert four(summary.usage.total) == (
        bill["input"],
        bill["cache_read"],
        bill["cache_creation"],
        bill["output"],
    )
    if name != "qwen":  # which never says how much of its output was reasoning
        assert summary.usage.total.reasoning == bill["reasoning"]


@pytest.mark.parametrize(("name", "case"), sorted(INEXACT))
def test_tokens_that_cannot_be_exact_are_what_the_table_says(name, case):
    _, summary = read(name, sample(name, case))
    expected = INEXACT[name, case]
    assert (summary.usage.source, four(summary.usage.total)) == (expected.source, expected.tokens)


@pytest.mark.parametrize(
    ("name", "case", "expected"),
    [
        (name, case, outcome)
        for name in PROGRAMS
        for outcome, cases in OUTCOMES[name].items()
        for case in sorted(cases)
    ],
)
def test_each_recorded_end_has_its_outcome(name, case, expected):
    facts, stderr = CASES[name][case], SAMPLES / name / f"{case}.stderr.txt"
    tail = stderr.read_text().splitlines()[-20:] if stderr.exists() else ()
    outcome = ended(name, sample(name, case), facts["exit"], seconds=facts["wall_s"], stderr=tail)
    assert told(outcome) == expected
    assert "\n" not in outcome.detail


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_success_stream_tells_its_story(name):
    events, summary = read(name, sample(name, "success"))
    assert [type(event) for event in events] == [Started, Text, ToolUse, Text, Finished]
    assert events[1] == Text(snippet="I will create HELLO.md.")
    assert events[3] == Text(snippet="Done: created HELLO.md.")
    assert summary.final is not None
    assert summary.final.result_text == "Done: created HELLO.md."
    assert summary.last_lines[-1] == "Done: created HELLO.md."
    assert summary.session_id


def test_tokens_stand_under_the_model_that_the_program_names():
    assert list(read("gemini", sample("gemini", "success"))[1].usage.by_model) == ["gemini-2.5-pro"]
    assert list(read("qwen", sample("qwen", "success"))[1].usage.by_model) == ["stub-model"]
    usage = read("codex", sample("codex", "success"))[1].usage
    assert list(usage.by_model) == [UNNAMED_MODEL], "Codex names none"
    assert list(with_model(usage, "gpt-6").by_model) == ["gpt-6"]


def test_tokens_without_a_model_join_those_of_the_model_that_they_belong_to():
    one = ModelUsage(input=1, output=2)
    usage = Usage(source=REPORTED, by_model={UNNAMED_MODEL: one, "a": one, "b": one})
    assert with_model(usage, "a").by_model == {"a": one + one, "b": one}


@pytest.mark.parametrize("name", PROGRAMS)
def test_success_needs_more_than_exit_code_0(name):
    first, *_ = sample(name, "success").splitlines(keepends=True)
    assert told(ended(name, first, 0)) == NO_RESULT
    assert told(ended(name, b"", 0)) == NO_RESULT


# --- codex ------------------------------------------------------------------------------------------------

THREAD = {"type": "thread.started", "thread_id": "t1"}
TURN = {"type": "turn.started"}


def completed(total: int, **fields):
    return {"type": "turn.completed", "usage": {"input_tokens": total, "output_tokens": 1, **fields}}


def failed(sentence: str):
    return {"type": "turn.failed", "error": {"message": sentence}}


def test_codex_counts_a_thread_by_its_newest_turn_and_threads_together():
    other = {"type": "thread.started", "thread_id": "t2"}
    summary = summary_of(
        "codex", THREAD, TURN, completed(100), TURN, completed(130), other, TURN, completed(7)
    )
    assert (summary.usage.source, summary.usage.total.input) == (REPORTED, 137)


@pytest.mark.parametrize("after", [[TURN], [TURN, failed("x")]])
def test_codex_numbers_are_a_lower_bound_when_a_later_turn_was_not_counted(after):
    summary = summary_of("codex", THREAD, TURN, completed(100), *after)
    assert (summary.usage.source, summary.usage.total.input) == (DERIVED, 100)
    assert summary.final is None or summary.final.is_error


def test_codex_numbers_are_a_lower_bound_when_it_had_sub_agents():
    spawn = {
        "type": "item.completed",
        "item": {"id": "item_1", "type": "collab_tool_call", "tool": "spawn_agent"},
    }
    summary = summary_of("codex", THREAD, TURN, spawn, completed(100))
    assert (summary.usage.source, summary.usage.total.input) == (DERIVED, 100)


def test_codex_parts_never_exceed_their_whole():
    usage = summary_of(
        "codex",
        completed(100, cached_input_tokens=70, cache_write_input_tokens=50, reasoning_output_tokens=9),
    ).usage
    assert usage.total == ModelUsage(cache_read=70, cache_write_5m=30, output=1, reasoning=1)


def test_codex_retries_are_events_with_the_status_of_their_sentence():
    events, summary = read("codex", sample("codex", "error-401"))
    retries = [event for event in events if isinstance(event, Retry)]
    assert retries[0] == Retry(
        error_status=401, error="authentication_failed", attempt=1, max_retries=5, delay=timedelta(0)
    )
    assert len(retries) == 5
    assert summary.retry_statuses == (401,)


def test_codex_waits_for_the_network_for_ever_and_says_so():
    events, _ = read("codex", sample("codex", "server-down"))
    retries = [event for event in events if isinstance(event, Retry)]
    assert {(retry.error_status, retry.error) for retry in retries} == {(None, "network")}
    assert [retry.attempt for retry in retries] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("unexpected status 402 Payment Required: no credit", AUTH_FAILED),
        ("unexpected status 403 Forbidden: region", AUTH_FAILED),
        ("Quota exceeded. Check your plan and billing details.", AUTH_FAILED),
        ("Missing environment variable: `OPENAI_API_KEY`.", AUTH_FAILED),
        ("You've hit your usage limit. Try again in 3 hours 5 minutes.", RATE_LIMITED),
        (
            "stream disconnected before completion: Rate limit reached for x. Please try again in 1.898s.",
            RATE_LIMITED,
        ),
        ("unexpected status 404 Not Found: model gpt-429 does not exist", API_ERROR),
        ('unexpected status 400 Bad Request: {"code":"context_length_exceeded"}', TOO_LONG),
        ("Selected model is at capacity. Please try a different model.", API_ERROR),
        ("I counted 401 Unauthorized requests and 429 others", AGENT_ERROR),
        ("the tool printed: unexpected status 401 Unauthorized", AGENT_ERROR),
        ("the tool printed: Quota exceeded", AGENT_ERROR),
        ("", AGENT_ERROR),
    ],
)
def test_codex_says_its_errors_in_sentences(sentence, expected):
    assert told(ended("codex", lines(THREAD, TURN, failed(sentence)), 1)) == expected


def test_a_limit_of_hours_is_waited_for_and_one_of_seconds_is_not_a_limit():
    for_hours = failed("You've hit your usage limit. Try again in 3 hours 5 minutes.")
    assert ended("codex", lines(for_hours), 1).retry_at == NOW + timedelta(hours=3, minutes=5)
    assert (
        ended("codex", lines(failed("Rate limit reached for x. Please try again in 2s.")), 1).retry_at is None
    )


def test_codex_overcomes_an_error_in_a_later_turn():
    summary = summary_of(
        "codex", THREAD, TURN, failed("unexpected status 401 Unauthorized"), TURN, completed(1)
    )
    assert (summary.api_error, summary.api_error_status) == (None, None)
    assert (summary.usage.source, summary.usage.total.input) == (REPORTED, 1)


# --- gemini -----------------------------------------------------------------------------------------------


def a_gemini_result(status="success", *, message=None, kind="unknown", **stats):
    error = {} if message is None else {"error": {"type": kind, "message": message}}
    return {"type": "result", "status": status, "stats": stats, **error}


def test_gemini_counts_every_model_and_its_thoughts_as_output():
    entry = {"total_tokens": 150, "input_tokens": 100, "output_tokens": 20, "cached": 60}
    models = {"pro": entry, "flash": {**entry, "cached": 0}}
    usage = summary_of("gemini", a_gemini_result(total_tokens=300, models=models)).usage
    assert usage.by_model == {
        "pro": ModelUsage(input=40, cache_read=60, output=50, reasoning=30),
        "flash": ModelUsage(input=100, output=50, reasoning=30),
    }


def test_gemini_numbers_without_a_total_are_a_lower_bound():
    usage = summary_of(
        "gemini", a_gemini_result(models={"pro": {"input_tokens": 9, "output_tokens": 2}})
    ).usage
    assert (usage.source, four(usage.total)) == (DERIVED, (9, 0, 0, 2))


def test_gemini_without_models_counts_its_sums_for_the_model_it_began_with():
    start = {"type": "init", "session_id": "s", "model": "pro"}
    usage = summary_of(
        "gemini", start, a_gemini_result(total_tokens=12, input_tokens=9, output_tokens=2)
    ).usage
    assert usage.by_model == {"pro": ModelUsage(input=9, output=3, reasoning=1)}


def test_a_gemini_success_that_asked_no_model_is_none():
    assert told(ended("gemini", lines(a_gemini_result(total_tokens=0)), 0)) == NO_RESULT


def test_what_gemini_says_in_pieces_is_one_text():
    pieces = [
        {"type": "message", "role": "assistant", "content": text, "delta": True} for text in ("Do", "ne.")
    ]
    events, summary = read("gemini", lines(*pieces))
    assert events == []
    assert summary.last_lines == ("Done.",)
    assert read("gemini", lines(*pieces, a_gemini_result(total_tokens=1)))[0][0] == Text(snippet="Done.")


@pytest.mark.parametrize(
    ("exit_code", "expected"),
    [
        (41, AUTH_FAILED),
        (42, FAST_EXIT),
        (44, FAST_EXIT),
        (52, FAST_EXIT),
        (53, TURN_LIMIT),
        (54, FAST_EXIT),
        (55, FAST_EXIT),
        (130, SIGNAL),
        (143, SIGNAL),
        (144, API_ERROR),
        (145, AUTH_FAILED),
        (146, AUTH_FAILED),
        (147, AUTH_FAILED),
        (173, RATE_LIMITED),
        (244, API_ERROR),
        (247, API_ERROR),
        (1, FAST_EXIT),
        (0, NO_RESULT),
    ],
)
def test_gemini_says_with_its_exit_code_what_it_did_not_print(exit_code, expected):
    assert told(ended("gemini", b"", exit_code, seconds=2)) == expected


def test_gemini_exit_codes_complete_an_error_without_a_status():
    record = a_gemini_result("error", message="[API Error: something new]")
    assert told(ended("gemini", lines(record), 173)) == RATE_LIMITED
    assert told(ended("gemini", lines(record), 145)) == AUTH_FAILED
    assert told(ended("gemini", lines(record), 1)) == API_ERROR


TOO_MANY_TOKENS = (
    '[API Error: {"error":{"code":400,"message":"The input token count (2000000) exceeds the maximum '
    'number of tokens allowed (1048576)."}}]'
)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ('[API Error: {"error":{"code":403,"message":"no"}}]', AUTH_FAILED),
        ("[API Error: Request contains an invalid argument. (Status: UNAUTHENTICATED)]", AUTH_FAILED),
        (
            '[API Error: {"error":{"code":400,"message":"API key not valid. Please pass a valid one."}}]',
            AUTH_FAILED,
        ),
        ("[API Error: You exceeded your current quota.\nPlease retry in 58.9s.]\nPlease wait.", RATE_LIMITED),
        ("[API Error: You have exhausted your daily quota on this model.]", RATE_LIMITED),
        (
            TOO_MANY_TOKENS,
            TOO_LONG,
        ),
        ("[API Error: saw 401 of 429 things]", API_ERROR),
        ("Something else, with 401 in it", AGENT_ERROR),
    ],
)
def test_gemini_says_its_errors_in_sentences(message, expected):
    assert told(ended("gemini", lines(a_gemini_result("error", message=message)), 1)) == expected


# --- qwen -------------------------------------------------------------------------------------------------


def an_answer(text: str, *, output: int = 0, message_id="m1"):
    usage = {"input_tokens": output, "output_tokens": output}
    content = [{"type": "text", "text": text}]
    message = {"id": message_id, "model": "q", "content": content, "usage": usage}
    return {"type": "assistant", "message": message}


def a_qwen_result(**fields):
    return {"type": "result", "subtype": "success", "is_error": False, "num_turns": 1, **fields}


def test_qwen_0_15_says_success_about_a_refused_key():
    answer = an_answer("[API Error: 401 Incorrect API key provided.]")
    data = lines(answer, a_qwen_result(result="[API Error: 401 Incorrect API key provided.]"))
    assert told(ended("qwen", data, 0)) == AUTH_FAILED
    assert (
        told(ended("qwen", lines(an_answer("[API Error: 402 no credit]"), a_qwen_result()), 0)) == AUTH_FAILED
    )


def test_an_answer_about_an_error_is_not_the_error():
    quoting = an_answer("It printed [API Error: 401 Incorrect API key]", output=5)
    assert told(ended("qwen", lines(quoting, a_qwen_result(usage={"output_tokens": 5})), 0)) == SUCCEEDED
    later = an_answer("Fixed.", output=5, message_id="m2")
    error = an_answer("Trying. [API Error: 500 oops]")
    assert told(ended("qwen", lines(error, later, a_qwen_result()), 0)) == SUCCEEDED


def test_qwen_cache_reads_are_part_of_its_input():
    usage = {"input_tokens": 100, "cache_read_input_tokens": 60, "output_tokens": 7}
    assert four(summary_of("qwen", a_qwen_result(usage=usage)).usage.total) == (40, 60, 0, 7)


def test_qwen_announces_only_waits_for_a_rate_limit():
    events, summary = read("qwen", sample("qwen", "error-429"))
    retries = [event for event in events if isinstance(event, Retry)]
    assert [(retry.error, retry.delay.total_seconds()) for retry in retries] == [
        ("rate_limit", 60),
        ("rate_limit", 120),
        ("rate_limit", 240),
    ]
    assert summary.last_lines[-1] == "retry 3 of 10 in 240 s after rate_limit"
    assert not any(isinstance(event, Retry) for event in read("qwen", sample("qwen", "maxtok"))[0])


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("[API Error: 429 Rate limit reached. Please try again in 90s.]\nAdvice.", RATE_LIMITED),
        ("[API Error: 429 You exceeded your current quota (insufficient_quota)]", AUTH_FAILED),
        ("[API Error: 500 we saw 401 of them]", API_ERROR),
        ("[API Error: 40123 is not a status]", API_ERROR),
        ("not an API error at all", AGENT_ERROR),
    ],
)
def test_qwen_says_its_errors_in_sentences(message, expected):
    record = a_qwen_result(subtype="error_during_execution", is_error=True, error={"message": message})
    outcome = ended("qwen", lines(record), 1)
    assert told(outcome) == expected
    if "90s" in message:
        assert outcome.retry_at == NOW + timedelta(seconds=90)


# --- how they are started ---------------------------------------------------------------------------------


def test_each_is_started_without_self_update_and_calls_home():
    assert "check_for_update_on_startup=false" in DIALECTS["codex"].template
    assert "analytics.enabled=false" in DIALECTS["codex"].template
    assert DIALECTS["gemini"].env["GEMINI_TELEMETRY_ENABLED"] == "false"
    for name, path in (("gemini", ".gemini/settings.json"), ("qwen", "settings.json")):
        chosen = json.loads(DIALECTS[name].config_files[path])
        assert chosen["general"]["enableAutoUpdate"] is False
        assert chosen["privacy"]["usageStatisticsEnabled"] is False
        assert chosen["telemetry"]["enabled"] is False


def test_gemini_is_kept_from_starting_itself_again_because_its_parent_ignores_signals():
    assert DIALECTS["gemini"].env["GEMINI_CLI_NO_RELAUNCH"] == "true"
    assert "--skip-trust" in DIALECTS["gemini"].template


# --- files of the sessions ----------------------------------------------------------------------------------


def with_sessions(agent: str, *records: dict, output: bytes = b""):
    """What is known of an ended run with these output bytes and these records in its session files."""
    stream = parser_for(agent)
    stream.feed(output)
    side_file = DIALECTS[agent].side_file
    assert side_file is not None
    reader = side_file.reader()
    reader.feed(b"".join(json.dumps(record).encode() + b"\n" for record in records))
    summary = stream.finish()
    return reader.complete(summary) if side_file.adds_to(summary) else summary


def codex_call(response: str, *, input_tokens: int, output_tokens: int) -> dict:
    usage = {
        "input_tokens": input_tokens,
        "cached_input_tokens": 800,
        "output_tokens": output_tokens,
        "reasoning_output_tokens": 50,
    }
    return {"type": "token_usage_record", "payload": {"response_id": response, "usage": usage}}


def test_a_killed_codex_is_counted_from_its_session_files_each_response_once():
    context = {"type": "turn_context", "payload": {"model": "m"}}
    first, second = (
        codex_call(response, input_tokens=2000, output_tokens=150) for response in ("resp_1", "resp_2")
    )
    usage = with_sessions("codex", context, first, second, first).usage
    used = ModelUsage(input=2400, cache_read=1600, output=300, reasoning=100)
    assert usage == Usage(source=DERIVED, by_model={"m": used})


def test_a_killed_gemini_is_counted_from_the_file_of_its_chat_with_thoughts_as_output():
    tokens = {"input": 2000, "output": 100, "cached": 800, "thoughts": 50, "tool": 0, "total": 2150}
    message = {"id": "a", "type": "gemini", "content": "", "tokens": tokens, "model": "m"}
    usage = with_sessions("gemini", {"sessionId": "s"}, message, message).usage
    used = ModelUsage(input=1200, cache_read=800, output=150, reasoning=50)
    assert usage == Usage(source=DERIVED, by_model={"m": used})


def test_what_the_output_has_reported_is_not_counted_again_from_session_files():
    reported = (SAMPLES / "codex" / "success.jsonl").read_bytes()
    call = codex_call("resp_1", input_tokens=900_000, output_tokens=150)
    assert with_sessions("codex", call, output=reported).usage.source is REPORTED


def test_session_files_without_any_call_leave_the_numbers_unknown():
    assert with_sessions("codex", {"type": "turn_context", "payload": None}).usage.source is UNKNOWN
