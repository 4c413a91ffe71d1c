"""Redaction: no secret survives, whatever it hides in. And how an event reads as a line."""

from __future__ import annotations

import base64
import io
import json
import logging
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from coordinator import logs
from coordinator.logs import REDACTED, Redactor, console_line, json_line, printable

SECRET = "ghp_0123456789abcdef"

# Few letters, so that secrets overlap and contain each other; none of them can occur in "[redacted]".
secrets = st.lists(st.text('xyz"\\\n/é', min_size=6, max_size=12), min_size=1, max_size=4)
fillers = st.text("xyz -", max_size=10)


@st.composite
def secrets_in_a_structure(draw: st.DrawFn) -> tuple[list[str], Any]:
    known = draw(secrets)
    holding = st.tuples(fillers, st.sampled_from(known), fillers).map("".join)
    leaves = holding | fillers | st.none() | st.booleans() | st.integers() | holding.map(str.encode)
    leaves |= holding.map(ValueError) | holding.map(Path)
    keys = holding | fillers
    return known, draw(
        st.recursive(
            leaves,
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(keys, inner, max_size=3)
                | st.tuples(inner, inner)
            ),
            max_leaves=12,
        )
    )


def strings(value: Any) -> Iterator[str]:
    """Every text in plain data, keys included."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield str(key)
            yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)
    elif value is not None:
        yield str(value)


@given(secrets_in_a_structure())
def test_no_secret_survives_in_any_structure(case: tuple[list[str], Any]) -> None:
    known, value = case
    redacted = Redactor(known).value(value)
    for text in strings(redacted):
        for secret in known:
            assert secret not in text
    for secret in known:  # nor as it looks inside JSON
        assert json.dumps(secret)[1:-1] not in json.dumps(redacted)


@given(secrets, st.lists(fillers, max_size=4))
def test_what_is_no_secret_stays(known: list[str], parts: list[str]) -> None:
    text = " | ".join(parts)
    redacted = Redactor(known).text(text)
    if not any(secret in text for secret in known):
        assert redacted == text


@given(secrets)
def test_of_overlapping_secrets_no_character_stays(known: list[str]) -> None:
    assert Redactor(known).text("".join(known)).replace(REDACTED, "") == ""


def test_values_keep_their_types_where_there_is_nothing_to_hide() -> None:
    value = {"n": 3, "f": 1.5, "b": True, "none": None, "list": [1, "two"], "nested": {"k": "v"}}
    assert Redactor([SECRET]).value(value) == value


def test_a_number_that_is_a_secret_is_hidden() -> None:
    assert Redactor(["12345678"]).value({"pin": 12345678}) == {"pin": REDACTED}


def test_the_spellings_of_a_secret_are_secret() -> None:
    redactor = Redactor(["pa/ss wörd"])
    header = base64.b64encode("x-access-token:pa/ss wörd".encode()).decode()
    for spelling in ("pa%2Fss%20w%C3%B6rd", header, "pa/ss w\\u00f6rd"):
        assert redactor.text(f"<{spelling}>") == f"<{REDACTED}>"


def test_short_values_are_left_alone() -> None:
    assert Redactor(["abc", ""]).text("abc") == "abc"


def test_a_structure_that_contains_itself_ends() -> None:
    loop: list[Any] = [SECRET]
    loop.append(loop)
    assert SECRET not in json.dumps(Redactor([SECRET]).value(loop))


# -- through structlog ------------------------------------------------------------------------------------


@pytest.fixture
def restored() -> Iterator[None]:
    """Logging is a thing of the process: whatever a test sets up is taken back."""
    root = logging.getLogger()
    before = structlog.get_config(), root.handlers[:], root.level, logging.getLogger("apscheduler").level
    yield
    logs.close()
    structlog.configure(**before[0])
    root.handlers[:] = before[1]
    root.setLevel(before[2])
    logging.getLogger("apscheduler").setLevel(before[3])


def configured(**options: Any) -> io.StringIO:
    out = io.StringIO()
    logs.configure(redactor=Redactor([SECRET]), stream=out, **options)
    return out


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("as_json", [True, False])
def test_exceptions_and_libraries_are_redacted_too(as_json: bool, tmp_path: Path) -> None:
    out = configured(json=as_json, log_dir=tmp_path)
    try:
        raise ValueError(f"refused: {SECRET}")
    except ValueError:
        logs.get_logger().exception("it broke", extra={"deep": [{SECRET: SECRET}]})
        logging.getLogger("urllib3").warning("retrying %s", SECRET)
        logging.getLogger("asyncio").error("lost", exc_info=True)
    for text in (out.getvalue(), (tmp_path / "coordinator.jsonl").read_text()):
        assert SECRET not in text
        assert f"ValueError: refused: {REDACTED}" in text
        assert f"retrying {REDACTED}" in text


@pytest.mark.usefixtures("restored")
def test_each_event_is_one_json_object_a_line_with_all_its_keys(tmp_path: Path) -> None:
    out = configured(json=True, log_dir=tmp_path)
    logs.get_logger().info("two\nlines", task="gh-1", run=3, attrs={"labels": ("a", "b")})
    (line,) = out.getvalue().splitlines()
    record = json.loads(line)
    assert list(record)[:5] == ["timestamp", "level", "task", "run", "event"]
    assert record["attrs"] == {"labels": ["a", "b"]}
    assert (tmp_path / "coordinator.jsonl").read_text() == out.getvalue()


class Gone(io.StringIO):
    """A terminal that was closed."""

    def write(self, _text: str) -> int:
        raise BrokenPipeError

    def flush(self) -> None:
        raise BrokenPipeError


@pytest.mark.usefixtures("restored")
def test_a_log_that_nobody_can_read_does_not_stop_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    logs.configure(redactor=Redactor(), stream=Gone(), log_dir=tmp_path / "file")
    logs.get_logger().info("still here")


@pytest.mark.usefixtures("restored")
def test_the_log_file_is_private_before_and_after_rotation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "LOG_FILE_BYTES", 500)
    configured(log_dir=tmp_path)
    for number in range(20):
        logs.get_logger().info("filling", number=number, text="x" * 60)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 1 + logs.LOG_FILES_KEPT
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}


# -- lines for people ---------------------------------------------------------------------------------------

MATCHED = {
    "timestamp": "2026-11-21T12:00:00Z",
    "level": "info",
    "task": "gh-1",
    "run": 7,
    "event": "✓ Rule matched: critical-issues-opus → claude-cli/claude-opus-4",
    "rule": "critical-issues-opus",
    "provider": "claude-cli",
    "model": "claude-opus-4",
    "reason": "Critical tasks get the best model",
    "attrs": {"priority": "critical", "labels": ["security"], "retry_count": 0},
}


def test_a_matched_rule_is_the_two_lines_that_people_search_for() -> None:
    first, second, third = console_line(MATCHED).splitlines()
    assert first.endswith(" [gh-1] ✓ Rule matched: critical-issues-opus → claude-cli/claude-opus-4")
    assert second == "  Task attrs: {'priority': 'critical', 'labels': ['security'], 'retry_count': 0}"
    assert third == '  reason="Critical tasks get the best model"'


def test_colours_do_not_tear_the_two_lines_apart() -> None:
    lines = console_line(MATCHED, colours=True).splitlines()
    assert "✓ Rule matched: critical-issues-opus → claude-cli/claude-opus-4" in lines[0]
    assert lines[1] == "  Task attrs: {'priority': 'critical', 'labels': ['security'], 'retry_count': 0}"


def test_the_level_shows_only_when_it_matters() -> None:
    assert console_line({"level": "info", "event": "e"}) == "e"
    assert console_line({"level": "warning", "event": "e"}) == "WARNING e"


def test_keys_follow_the_event_and_lists_of_sentences_have_lines_of_their_own() -> None:
    event = {
        "level": "error",
        "event": "not taken",
        "version": "abc",
        "problems": ["one thing", "another thing"],
    }
    assert console_line(event).splitlines() == [
        "ERROR not taken  version=abc",
        "  problems:",
        "    one thing",
        "    another thing",
    ]


def test_a_title_of_a_stranger_cannot_move_the_cursor() -> None:
    line = console_line({"event": "new task\x1b[2J", "title": "\x1b]0;owned\x07 \u202e", "task": "gh-1"})
    assert "\x1b" not in line
    assert "\x07" not in line
    assert "\u202e" not in line
    assert printable("Grüße 👩\u200d💻 → ok\n") == "Grüße 👩\u200d💻 → ok\n"


def test_json_lines_survive_what_json_has_no_word_for() -> None:
    assert json.loads(json_line({"event": "e", "path": Path("/x")}))["path"] == "/x"


def test_a_traceback_stays_readable() -> None:
    try:
        raise KeyError("x")
    except KeyError:
        text = traceback.format_exc()
    assert console_line({"event": "it broke", "exception": text}) == f"it broke\n{text}"
