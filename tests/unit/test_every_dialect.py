"""What holds for every dialect, whichever it is: a new one is tested here by being listed in DIALECTS."""

import json
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adw_modules.agents import DIALECTS, dialect_of_program, parser_for, with_exit_code
from adw_modules.tasks.model import ModelUsage, UsageSource

SAMPLES = Path(__file__).parent.parent / "samples"
NOT_STDOUT = (".stderr.txt", ".session-events.jsonl", ".analytics.jsonl")
NAMES = sorted(DIALECTS)
LINES_OF_A_STREAM = 40  # the rest of a long one is more of the same


@cache
def recorded(name: str) -> dict[str, bytes]:
    """The recorded output of one program; for one without any, what another program printed."""
    files = [path for path in (SAMPLES / name).glob("*") if path.suffix in {".jsonl", ".txt"}]
    streams = {path.name: path.read_bytes() for path in sorted(files) if not path.name.endswith(NOT_STDOUT)}
    return streams or {"claude's success.jsonl": (SAMPLES / "claude" / "success.jsonl").read_bytes()}


@cache
def some_lines(name: str) -> list[bytes]:
    """Different lines of the recorded output, short enough to be mutilated by the hundred."""
    lines = {line for stream in recorded(name).values() for line in stream.splitlines()[:LINES_OF_A_STREAM]}
    return sorted(line for line in lines if len(line) < 3000)[:400]


def read(name: str, *chunks: bytes):
    stream = parser_for(name)
    events = [event for chunk in chunks for event in stream.feed(chunk)]
    return events, stream.finish()


def assert_possible(usage) -> None:
    fields = ModelUsage.__dataclass_fields__
    for model, tokens in usage.by_model.items():
        assert all(getattr(tokens, field) >= 0 for field in fields), model
    total = usage.total
    parts = total.input + total.cache_read + total.cache_write_5m + total.cache_write_1h + total.output
    assert total.total == parts == sum(tokens.total for tokens in usage.by_model.values())
    assert total.cache_write == total.cache_write_5m + total.cache_write_1h
    if usage.source is UsageSource.UNKNOWN:
        assert total == ModelUsage()


@pytest.mark.parametrize("name", NAMES)
def test_a_dialect_is_found_by_its_own_name_and_programs(name):
    dialect = DIALECTS[name]
    assert dialect.name == name
    assert all(dialect_of_program(f"/usr/bin/{program}") == name for program in dialect.programs)
    assert dialect.stop_signal in {"SIGINT", "SIGTERM"}


@pytest.mark.parametrize("name", [name for name in NAMES if DIALECTS[name].template])
def test_a_template_names_the_model_and_needs_no_shell(name):
    template = DIALECTS[name].template
    assert any("{model}" in element for element in template[1:]) or any(
        "MODEL" in variable for variable in DIALECTS[name].env
    )
    assert all(element and element == element.strip() for element in template)


@pytest.mark.parametrize("name", NAMES)
def test_files_of_a_configuration_directory_stay_in_it(name):
    for path in DIALECTS[name].config_files:
        assert DIALECTS[name].config_dir_env
        assert not Path(path).is_absolute()
        assert ".." not in Path(path).parts


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [1, 61])
def test_however_a_recorded_stream_is_cut_it_says_the_same(name, size):
    for case, whole in recorded(name).items():
        data = whole[:20_000]
        chunks = [data[start : start + size] for start in range(0, len(data), size)]
        assert read(name, *chunks) == read(name, data), case


@pytest.mark.parametrize("name", NAMES)
def test_looking_at_any_prefix_gives_possible_numbers_and_changes_nothing(name):
    for case, data in recorded(name).items():
        stream, events = parser_for(name), []
        lines = data.splitlines(keepends=True)[:LINES_OF_A_STREAM]
        for line in lines:
            events += stream.feed(line[:-1])  # a whole record whose newline has yet to come
            assert stream.finish() == stream.finish(), case
            assert_possible(usage := stream.finish().usage)
            assert usage.total.reasoning <= usage.total.output, case
            events += stream.feed(line[-1:])
        assert (events, stream.finish()) == read(name, b"".join(lines)), case


@pytest.mark.parametrize("name", NAMES)
def test_every_exit_code_completes_every_summary(name):
    for data in recorded(name).values():
        _, summary = read(name, data)
        completed = [with_exit_code(name, summary, code) for code in (*range(256), None)]
        assert all(each.usage == summary.usage for each in completed)
        if summary.final is not None and not summary.final.is_error:
            assert all(each == summary for each in completed), "a reported success is not contradicted"


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


def with_one_value_changed(draw, value):
    """`value` with something else in one place, at any depth."""
    if isinstance(value, dict) and value and draw(st.integers(0, 5)):
        key = draw(st.sampled_from(sorted(value)))
        return {**value, key: with_one_value_changed(draw, value[key])}
    if isinstance(value, list) and value and draw(st.integers(0, 5)):
        return [with_one_value_changed(draw, value[0]), *value[1:]]
    return draw(anything)


@st.composite
def damaged_streams(draw, name: str) -> bytes:
    """Recorded lines in any order, some cut, some with other values, and some that never were lines."""
    pieces = []
    for _ in range(draw(st.integers(1, 8))):
        line = draw(st.sampled_from(some_lines(name)))
        how = draw(st.sampled_from(["whole", "whole", "cut", "changed", "changed", "garbage"]))
        if how == "cut":
            line = line[: draw(st.integers(0, len(line)))]
        elif how == "changed":
            line = changed(draw, line)
        elif how == "garbage":
            line = draw(st.binary(max_size=60))
        pieces.append(line)
    return b"\n".join(pieces) + draw(st.sampled_from([b"", b"\n"]))


def changed(draw, line: bytes) -> bytes:
    try:
        return json.dumps(with_one_value_changed(draw, json.loads(line))).encode()
    except ValueError:
        return line[::-1]


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_a_damaged_stream_never_raises_and_reads_the_same_in_two_pieces(name, data):
    stream = data.draw(damaged_streams(name))
    cut = data.draw(st.integers(0, len(stream)))
    events, summary = read(name, stream[:cut], stream[cut:])
    assert (events, summary) == read(name, stream)
    assert_possible(summary.usage)
    "".join(summary.last_lines).encode("utf-8")
    with_exit_code(name, summary, data.draw(st.integers(0, 255)))
