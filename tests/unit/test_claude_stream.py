"""Claude's recorded streams against what the server had billed, and streams no program should ever write."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adw_modules.agents.claude import ClaudeStream
from adw_modules.agents.stream import (
    MAX_LINE_BYTES,
    TAIL_LINES,
    TAIL_WIDTH,
    Finished,
    RateLimit,
    Retry,
    Started,
    Text,
    ToolUse,
)
from adw_modules.tasks.model import ModelUsage, Usage, UsageSource

SAMPLES = Path(__file__).parent.parent / "samples" / "claude"
# Each case: the exit code (negative: killed by that signal) and what the server billed for the run,
# None when no request can have reached it. The stub server bills only answers it sent in full.
CASES = json.loads((SAMPLES / "cases.json").read_text())

REPORTED, DERIVED, UNKNOWN = UsageSource.REPORTED, UsageSource.DERIVED, UsageSource.UNKNOWN


@dataclass(frozen=True)
class Inexact:
    """A case whose stream cannot give what was billed: what it gives instead, and why."""

    source: UsageSource
    tokens: tuple[int, int, int, int]  # input, cache read, cache write, output
    why: str


NO_RECORDS = "the stream ends before any record with tokens: unknown, although nothing was billed"
NO_STREAM = "refused its arguments: stdout is empty"
NO_FINAL = "killed without a final record: the output is what message_start said (1), the rest is exact"
INEXACT = {
    "as-root": Inexact(UNKNOWN, (0, 0, 0, 0), NO_STREAM),
    "no-verbose": Inexact(UNKNOWN, (0, 0, 0, 0), NO_STREAM),
    "empty-stdin": Inexact(UNKNOWN, (0, 0, 0, 0), NO_STREAM),
    "hang-sigint": Inexact(UNKNOWN, (0, 0, 0, 0), NO_RECORDS),
    "hang-sigint-inherited-ignore": Inexact(UNKNOWN, (0, 0, 0, 0), NO_RECORDS),
    "hang-sigkill": Inexact(UNKNOWN, (0, 0, 0, 0), NO_RECORDS),
    "hang-sigkill-group": Inexact(UNKNOWN, (0, 0, 0, 0), NO_RECORDS),
    "hang-sigterm": Inexact(UNKNOWN, (0, 0, 0, 0), NO_RECORDS),
    "hang-sigterm-group": Inexact(UNKNOWN, (0, 0, 0, 0), NO_RECORDS),
    "server-down": Inexact(UNKNOWN, (0, 0, 0, 0), NO_RECORDS),
    "stall-60s": Inexact(UNKNOWN, (0, 0, 0, 0), NO_RECORDS),
    "stall-sigterm": Inexact(UNKNOWN, (0, 0, 0, 0), NO_RECORDS),
    "stall-watchdog": Inexact(UNKNOWN, (0, 0, 0, 0), NO_RECORDS),
    "tool-sigkill": Inexact(DERIVED, (1200, 800, 300, 1), NO_FINAL),
    "tool-sigkill-group": Inexact(DERIVED, (1200, 800, 300, 1), NO_FINAL),
    "tool-sigterm": Inexact(DERIVED, (1200, 800, 300, 1), NO_FINAL),
    "tool-sigterm-group": Inexact(DERIVED, (1200, 800, 300, 1), NO_FINAL),
    "tool-sigterm-then-kill": Inexact(DERIVED, (1200, 800, 300, 1), NO_FINAL),
    "stream-drop": Inexact(
        DERIVED, (3600, 2400, 900, 12), "Claude counts three broken answers that the stub did not bill"
    ),
    "stream-malformed": Inexact(
        DERIVED,
        (1200, 800, 300, 4),
        "Claude never read the end of the broken answer, where the output stands",
    ),
}


def read(data: bytes):
    stream = ClaudeStream()
    events = stream.feed(data)
    return events, stream.finish()


def lines(*records) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def sample(case: str) -> bytes:
    return (SAMPLES / f"{case}.jsonl").read_bytes()


def four(usage: ModelUsage) -> tuple[int, int, int, int]:
    return usage.input, usage.cache_read, usage.cache_write, usage.output


def an_assistant(message_id="m1", *, content=(), model="claude-x", **usage):
    return {
        "type": "assistant",
        "message": {"id": message_id, "model": model, "content": list(content), "usage": usage},
    }


def a_result(**fields):
    return {
        "type": "result",
        "subtype": "success",
        "is_error": False,
        "num_turns": 1,
        "result": "Done.",
        **fields,
    }


def reported(tokens: int, **fields):
    return {"claude-x": {"inputTokens": tokens, "outputTokens": 1, **fields}}


# --- the recorded streams ---------------------------------------------------------------------------------


def test_the_table_covers_every_recorded_stream():
    assert {path.stem for path in SAMPLES.glob("*.jsonl")} == set(CASES)
    assert set(INEXACT) < set(CASES)


def test_the_recorded_success_gives_2400_1600_600_300_exactly():
    _, summary = read(sample("success"))
    assert summary.usage.by_model == {
        "claude-opus-5-5": ModelUsage(input=2400, cache_read=1600, cache_write_5m=600, output=300)
    }
    assert summary.usage.source is REPORTED
    assert summary.usage.reported_cost_usd == Decimal("0.01892")


@pytest.mark.parametrize("case", sorted(set(CASES) - set(INEXACT)))
def test_tokens_are_those_the_server_billed(case):
    _, summary = read(sample(case))
    billed = CASES[case]["billed"] or dict.fromkeys(("input", "cache_read", "cache_creation", "output"), 0)
    assert summary.usage.source is REPORTED
    assert four(summary.usage.total) == tuple(
        billed[kind] for kind in ("input", "cache_read", "cache_creation", "output")
    )


@pytest.mark.parametrize("case", sorted(INEXACT))
def test_tokens_that_cannot_be_exact_are_what_the_table_says(case):
    _, summary = read(sample(case))
    assert (summary.usage.source, four(summary.usage.total)) == (INEXACT[case].source, INEXACT[case].tokens)


@pytest.mark.parametrize("case", sorted(CASES))
@pytest.mark.parametrize("size", [1, 7, 4096])
def test_the_cut_into_chunks_changes_nothing(case, size):
    data = sample(case)
    stream, events = ClaudeStream(), []
    for start in range(0, len(data), size):
        events += stream.feed(data[start : start + size])
    assert (events, stream.finish()) == read(data)


def test_the_success_stream_tells_its_story():
    events, summary = read(sample("success"))
    assert [type(event) for event in events] == [Started, Text, ToolUse, Text, Finished]
    assert events[1:4] == [
        Text(snippet="I will create HELLO.md."),
        ToolUse(name="Write"),
        Text(snippet="Done: created HELLO.md."),
    ]
    assert summary.last_lines == ("I will create HELLO.md.", "→ Write", "Done: created HELLO.md.")
    assert summary.session_id == "05e710a5-f080-4c5c-b769-fbdfd6c296a8"
    assert summary.model == "claude-opus-5-5"
    assert summary.final is not None
    assert (summary.final.num_turns, summary.final.duration_api_ms) == (2, 47)


def test_the_first_retry_after_a_401_is_an_event():
    events, summary = read(sample("error-401"))
    retries = [event for event in events if isinstance(event, Retry)]
    assert retries[0] == Retry(
        error_status=401,
        error="authentication_failed",
        attempt=1,
        max_retries=10,
        delay=timedelta(milliseconds=607),
    )
    assert len(retries) == 10
    assert summary.retry_statuses == (401,)
    assert (summary.api_error_status, summary.api_error) == (401, "authentication_failed")
    assert summary.final is not None
    assert summary.final.is_error


def test_denied_tools_are_counted_once():
    _, summary = read(sample("permission-denied"))
    assert summary.permission_denials == 1


@pytest.mark.parametrize(
    ("case", "subtype", "reason"),
    [
        ("max-turns", "error_max_turns", "max_turns"),
        ("max-budget", "error_max_budget_usd", "budget_exhausted"),
        ("toolong", "success", "prompt_too_long"),
        ("tool-sigint", "error_during_execution", "aborted_tools"),
    ],
)
def test_the_final_record_says_why_it_is_an_error(case, subtype, reason):
    _, summary = read(sample(case))
    assert summary.final is not None
    assert (summary.final.is_error, summary.final.subtype, summary.final.terminal_reason) == (
        True,
        subtype,
        reason,
    )


def test_without_its_final_record_a_partial_message_stream_still_has_the_true_output():
    kept = [
        line
        for line in sample("partial-messages").splitlines(keepends=True)
        if b'"type":"result"' not in line
    ]
    _, summary = read(b"".join(kept))
    assert summary.usage.source is DERIVED
    assert four(summary.usage.total) == (2400, 1600, 600, 300)


# --- which record counts ------------------------------------------------------------------------------------


def test_blocks_of_one_message_count_once():
    _, summary = read(lines(an_assistant(input_tokens=10, output_tokens=1), an_assistant(input_tokens=10)))
    assert four(summary.usage.total) == (10, 0, 0, 1)


def test_reports_since_the_last_result_add_up():
    first = a_result(model_usage_since_last_result=reported(100), modelUsage=reported(100))
    second = a_result(model_usage_since_last_result=reported(30), modelUsage=reported(130))
    _, summary = read(lines(first, second))
    assert four(summary.usage.total) == (130, 0, 0, 2)


def test_the_newest_cumulative_report_replaces_the_one_before():
    _, summary = read(lines(a_result(modelUsage=reported(100)), a_result(modelUsage=reported(130))))
    assert four(summary.usage.total) == (130, 0, 0, 1)


def test_calls_after_the_last_report_are_added_and_called_derived():
    report = a_result(modelUsage=reported(100))
    _, summary = read(lines(an_assistant("a", input_tokens=100), report, an_assistant("b", input_tokens=7)))
    assert summary.usage.source is DERIVED
    assert summary.usage.total.input == 107
    assert summary.usage.reported_cost_usd is None


def test_a_repeat_of_a_call_that_a_report_has_counted_adds_nothing():
    report = a_result(modelUsage=reported(100))
    _, summary = read(lines(an_assistant("a", input_tokens=100), report, an_assistant("a", input_tokens=100)))
    assert (summary.usage.source, summary.usage.total.input) == (REPORTED, 100)


def test_an_empty_report_does_not_hide_calls_that_were_seen():
    _, summary = read(lines(an_assistant(input_tokens=100), a_result(modelUsage={})))
    assert (summary.usage.source, summary.usage.total.input) == (DERIVED, 100)


NOTHING = {"usage": {"input_tokens": 0, "output_tokens": 0}, "modelUsage": reported(0, outputTokens=0)}


@pytest.mark.parametrize(
    "how", [{"terminal_reason": "aborted_tools", "is_error": True}, {"terminal_reason": "completed"}, {}]
)
def test_a_result_that_holds_no_tokens_reports_nothing(how):
    _, summary = read(lines(a_result(**NOTHING, **how)))
    assert summary.usage == Usage(source=UNKNOWN)


@pytest.mark.parametrize("how", [{"terminal_reason": "api_error"}, {"api_error_status": 401}])
def test_no_tokens_means_none_when_the_api_refused_every_call(how):
    _, summary = read(lines(a_result(**NOTHING, is_error=True, **how)))
    assert (summary.usage.source, summary.usage.total) == (REPORTED, ModelUsage())


def test_a_call_without_numbers_says_nothing():
    _, summary = read(lines(an_assistant()))
    assert summary.usage == Usage(source=UNKNOWN)


def test_a_result_without_usage_by_model_falls_back_to_its_own_usage():
    _, summary = read(lines(a_result(usage={"input_tokens": 5, "output_tokens": 2})))
    assert (summary.usage.source, four(summary.usage.total)) == (REPORTED, (5, 0, 0, 2))


def test_cache_writes_are_split_by_lifetime():
    entry = {"cacheCreationInputTokens": 500, "cacheCreationEphemeral1hInputTokens": 200}
    _, summary = read(lines(a_result(modelUsage=reported(1, **entry))))
    assert (summary.usage.total.cache_write_5m, summary.usage.total.cache_write_1h) == (300, 200)


def test_older_versions_have_the_split_only_in_usage():
    usage = {"cache_creation": {"ephemeral_5m_input_tokens": 300, "ephemeral_1h_input_tokens": 200}}
    _, summary = read(lines(a_result(modelUsage=reported(1, cacheCreationInputTokens=500), usage=usage)))
    assert (summary.usage.total.cache_write_5m, summary.usage.total.cache_write_1h) == (300, 200)


def test_a_call_keeps_its_split_when_its_last_record_has_none():
    split = {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 300}
    start = an_assistant(cache_creation_input_tokens=300, cache_creation=split)
    _, summary = read(lines(start, an_assistant(cache_creation_input_tokens=300, output_tokens=9)))
    assert summary.usage.total == ModelUsage(cache_write_1h=300, output=9)


def test_a_cost_reported_for_a_resumed_session_is_cut_to_this_run():
    _, summary = read(sample("resume"))
    assert summary.usage.reported_cost_usd == Decimal("0.01892")
    assert summary.final is not None
    assert summary.final.cost_usd == Decimal("0.03784")


def test_an_overcome_error_is_not_the_runs_error():
    synthetic = an_assistant(model="<synthetic>", input_tokens=0) | {
        "error": "rate_limit",
        "api_error_status": 429,
    }
    _, summary = read(lines(synthetic, a_result()))
    assert (summary.api_error, summary.api_error_status) == (None, None)
    _, summary = read(lines(synthetic))
    assert (summary.api_error, summary.api_error_status) == ("rate_limit", 429)


@pytest.mark.parametrize("resets_at", [1795262400, 1795262400000])
def test_a_rejected_limit_says_when_it_resets(resets_at):
    record = {"type": "rate_limit_event", "rate_limit_info": {"status": "rejected", "resetsAt": resets_at}}
    events, summary = read(lines(record))
    moment = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
    assert events == [RateLimit(status="rejected", resets_at=moment)]
    assert (summary.rate_limit_status, summary.rate_limit_resets_at) == ("rejected", moment)


# --- damaged and hostile streams ----------------------------------------------------------------------------


def test_noise_between_records_changes_no_number():
    success = sample("success").splitlines(keepends=True)
    noise = [
        b"\xff\xfe\x00broken\n",
        b"{half\n",
        b"[1, 2]\n",
        b"null\n",
        b'"text"\n',
        b"\n",
        b'{"type":"new"}\n',
    ]
    noise += [
        b'{"type":["result"]}\n',
        b'{"type":"assistant","message":7}\n',
        b'{"type":"system"}\n',
        b"{" * 5000 + b"\n",
    ]
    noise += [
        b"[" * 200_000 + b"\n",
        b'{"type":"system","n":' + b"9" * 5000 + b"}\n",
        b'{"n":1e99999999999999999999}\n',
    ]
    _, summary = read(b"".join(b"".join(noise) + line for line in success) + b"".join(noise))
    assert summary.usage == read(sample("success"))[1].usage
    assert summary.final == read(sample("success"))[1].final


def test_a_ten_megabyte_line_is_read_and_shown_short():
    big = an_assistant(content=[{"type": "text", "text": "x" * 10_000_000}], input_tokens=3)
    events, summary = read(lines(big))
    assert isinstance(events[0], Text)
    assert len(events[0].snippet) <= TAIL_WIDTH
    assert summary.usage.total.input == 3


def test_a_line_over_the_limit_is_skipped_with_a_note_however_it_is_cut():
    stream = ClaudeStream()
    for _ in range(MAX_LINE_BYTES // 2**20 + 1):
        stream.feed(b"x" * 2**20)
    assert stream.finish().last_lines == ()
    stream.feed(b"\n" + lines(an_assistant(input_tokens=3)))
    assert stream.finish().last_lines == ("(a line over 16 MiB was skipped)",)
    assert stream.finish().usage.total.input == 3


def test_half_a_last_line_is_ignored_until_it_is_whole():
    data = sample("success")
    stream = ClaudeStream()
    stream.feed(data[:-200])
    assert stream.finish().final is None
    assert stream.finish().usage.source is DERIVED
    stream.feed(data[-200:])
    assert stream.finish() == read(data)[1]


def test_a_last_line_without_its_newline_counts_and_is_not_counted_twice():
    stream = ClaudeStream()
    stream.feed(lines(a_result(model_usage_since_last_result=reported(100)))[:-1])
    assert stream.finish().usage.total.input == 100
    assert stream.finish().usage.total.input == 100
    stream.feed(b"\n")
    assert stream.finish().usage.total.input == 100


def test_plain_text_output_is_kept_for_people_without_escapes():
    _, summary = read(b"\x1b[31mError:\x1b[0m no\x07 such\tmodel\n")
    assert summary.last_lines == ("Error: no such model",)


def test_the_tail_is_bounded_and_can_be_stored():
    text = "\n".join(f"line {number} \ud800\u202e" + "y" * 1000 for number in range(1000))
    _, summary = read(lines(an_assistant(content=[{"type": "text", "text": text}])))
    assert len(summary.last_lines) == TAIL_LINES
    assert summary.last_lines[-1].startswith("line 999 y")
    assert all(len(line) <= TAIL_WIDTH for line in summary.last_lines)
    "".join(summary.last_lines).encode("utf-8")


def test_many_calls_without_a_report_are_all_counted():
    calls = [an_assistant(f"m{number}", input_tokens=2, output_tokens=1) for number in range(2500)]
    _, summary = read(lines(*calls))
    assert (summary.usage.source, four(summary.usage.total)) == (DERIVED, (5000, 0, 0, 2500))


@pytest.mark.parametrize(
    "value", [None, "12", -5, True, 1.5, [3], {"a": 1}, 10**16, float("nan"), float("inf")]
)
def test_a_token_count_of_a_wrong_kind_counts_nothing(value):
    _, summary = read(lines(an_assistant(input_tokens=value, output_tokens=4)))
    assert four(summary.usage.total) == (0, 0, 0, 4)


def test_fields_that_are_missing_are_none_and_not_zero():
    _, summary = read(lines({"type": "result"}))
    assert summary.final is not None
    assert (summary.final.num_turns, summary.final.duration_api_ms) == (None, None)
    assert summary.final.is_error
    assert summary.usage.source is UNKNOWN


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = {
    "system": ["subtype", "session_id", "model", "error_status", "error", "attempt", "retry_delay_ms"],
    "assistant": ["message", "error", "api_error_status", "request_id"],
    "stream_event": ["event", "parent_tool_use_id"],
    "rate_limit_event": ["rate_limit_info", "status", "resetsAt"],
    "result": [
        "subtype",
        "is_error",
        "usage",
        "modelUsage",
        "model_usage_since_last_result",
        "errors",
        "result",
    ],
}


@st.composite
def odd_records(draw):
    """A record of a known type with values of any type, at the top and one level down."""
    kind = draw(st.sampled_from(sorted(FIELDS)))
    inner_names = st.sampled_from(
        ["id", "model", "content", "usage", "type", "message", "input_tokens", "text"]
    )
    values = anything | st.dictionaries(inner_names, anything, max_size=4)
    record = draw(st.dictionaries(st.sampled_from(FIELDS[kind]), values, max_size=5))
    if kind == "system":
        record["subtype"] = draw(st.sampled_from(["init", "api_retry", "permission_denied"]) | anything)
    return {"type": kind, **record}


@settings(max_examples=60, deadline=None)
@given(records=st.lists(odd_records(), max_size=5), cut=st.integers(10, 200))
def test_values_of_any_type_in_any_field_never_raise(records, cut):
    data = lines(*records)
    stream, events = ClaudeStream(), []
    for start in range(0, len(data), cut):
        events += stream.feed(data[start : start + cut])
        stream.finish()
    assert (events, stream.finish()) == read(data)


@settings(deadline=None)
@given(data=st.binary(max_size=300), cut=st.integers(0, 300))
def test_any_bytes_are_read_the_same_in_two_pieces(data, cut):
    stream = ClaudeStream()
    events = stream.feed(data[:cut]) + stream.feed(data[cut:])
    whole_events, whole = read(data)
    assert (events, stream.finish()) == (whole_events, whole)
