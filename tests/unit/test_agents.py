"""Which parser reads which agent, and what is known about programs that tell us nothing."""

import pytest

from adw_modules.agents import DIALECTS, parser_for
from adw_modules.agents.claude import ClaudeStream
from adw_modules.agents.generic import GenericStream
from adw_modules.agents.stream import LineSplitter, Text
from adw_modules.errors import ConfigError
from adw_modules.tasks.model import UsageSource


def test_each_dialect_has_its_parser():
    assert isinstance(parser_for("claude"), ClaudeStream)
    assert isinstance(parser_for("generic"), GenericStream)


def test_each_run_gets_a_parser_of_its_own():
    assert parser_for("claude") is not parser_for("claude")


def test_an_unknown_dialect_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="'codexx': use one of aider, claude, codex, "):
        parser_for("codexx")


def test_claude_never_updates_itself_and_keeps_its_sessions_apart():
    assert DIALECTS["claude"].env["DISABLE_AUTOUPDATER"] == "1"
    assert DIALECTS["claude"].config_dir_env == "CLAUDE_CONFIG_DIR"
    assert DIALECTS["generic"].config_dir_env is None


def test_a_generic_program_leaves_its_last_lines_and_no_numbers():
    stream = GenericStream()
    events = stream.feed(b"reading\r\n\n\xffwriting\nhalf a li")
    summary = stream.finish()
    assert events == [Text(snippet="reading"), Text(snippet="\ufffdwriting")]
    assert summary.last_lines == ("reading", "\ufffdwriting", "half a li")
    assert (summary.usage.source, summary.final, summary.final_expected) == (UsageSource.UNKNOWN, None, False)
    assert stream.feed(b"ne\n") == [Text(snippet="half a line")]


def test_the_splitter_holds_no_more_than_one_line_of_the_limit():
    splitter = LineSplitter(limit=4)
    assert list(splitter.feed(b"1234\n12345\n12")) == [b"1234", None]
    assert splitter.rest == b"12"
    assert list(splitter.feed(b"345")) == []
    assert splitter.rest == b""
    assert list(splitter.feed(b"6\nok\n")) == [None, b"ok"]
