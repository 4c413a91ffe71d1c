"""journald's protocol against a real datagram socket. The reader here follows the protocol's description."""

from __future__ import annotations

import array
import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator import logs
from coordinator.logs import REDACTED, Redactor, journal_fields, journal_line
from coordinator.systemd.journal import Fallback, Journal, encode, field_name, is_journal

SECRET = "ghp_0123456789abcdef"


def decode(entry: bytes) -> dict[str, str]:
    """The fields of an entry, taken apart as journald does it."""
    fields = {}
    while entry:
        line, _, rest = entry.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            size = int.from_bytes(rest[:8], "little")
            value, rest = rest[8 : 8 + size], rest[8 + size + 1 :]
        assert name.decode() not in fields
        fields[name.decode()] = value.decode()
        entry = rest
    return fields


class Journald:
    """The other end: a datagram socket at a path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(5)

    def receive(self) -> dict[str, str]:
        entry, ancillary, _, _ = self.socket.recvmsg(1 << 20, socket.CMSG_SPACE(4))
        if ancillary:
            (descriptor,) = array.array("i", ancillary[0][2])
            with os.fdopen(descriptor, "rb") as file:
                file.seek(0)
                with pytest.raises(PermissionError):  # sealed
                    os.pwrite(descriptor, b"x", 0)
                entry = file.read()
        return decode(entry)

    def close(self) -> None:
        self.socket.close()
        self.path.unlink(missing_ok=True)


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[Journald]:
    end = Journald(tmp_path / "journal")
    yield end
    end.close()


@pytest.fixture
def journal(journald: Journald) -> Iterator[Journal]:
    journal = Journal(journald.path)
    yield journal
    journal.close()


@pytest.fixture
def restored() -> Iterator[None]:
    before, root = structlog.get_config(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logs.close()
    structlog.configure(**before)
    root.handlers[:] = handlers
    root.setLevel(level)


# -- the protocol ---------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(st.dictionaries(st.from_regex(r"[A-Z][A-Z0-9_]{0,20}", fullmatch=True), st.text(), max_size=5))
def test_whatever_a_value_holds_the_fields_arrive_as_they_were(fields: dict[str, str]) -> None:
    assert decode(encode(fields)) == fields


def test_a_newline_in_a_value_cannot_begin_a_field() -> None:
    forged = "harmless\nTASK=gh-99\nPRIORITY\n"
    assert decode(encode({"TASK": "gh-1", "COORDINATOR_TITLE": forged})) == {
        "TASK": "gh-1",
        "COORDINATOR_TITLE": forged,
    }


def test_a_message_too_large_for_a_datagram_arrives(journald: Journald, journal: Journal) -> None:
    text = "two\nlines" + "x" * 12_000_000
    assert journal.send({"MESSAGE": text})
    assert journald.receive() == {"MESSAGE": text}


def test_a_text_that_is_no_unicode_arrives_escaped(journald: Journald, journal: Journal) -> None:
    assert journal.send({"MESSAGE": "a\udcff"})
    assert journald.receive() == {"MESSAGE": "a\\udcff"}


def test_a_journal_that_comes_back_is_used_again(journald: Journald, journal: Journal) -> None:
    journald.close()
    assert not journal.send({"MESSAGE": "nobody"})
    again = Journald(journald.path)
    assert journal.send({"MESSAGE": "somebody"})
    assert again.receive() == {"MESSAGE": "somebody"}
    again.close()


def test_a_journal_that_does_not_read_holds_nobody_up(journal: Journal) -> None:
    sent = [journal.send({"MESSAGE": str(number)}) for number in range(5000)]
    assert sent[0]
    assert not sent[-1]


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("event", "COORDINATOR_EVENT"),
        ("exit-code", "COORDINATOR_EXIT_CODE"),
        ("größe", "COORDINATOR_GR_SSE"),
        ("x" * 80, "COORDINATOR_" + "X" * 52),
    ],
)
def test_field_names_are_ones_that_journald_takes(key: str, name: str) -> None:
    assert field_name("COORDINATOR_", key) == name


def test_standard_error_is_the_journal_only_if_it_is_the_same_file(tmp_path: Path) -> None:
    with (tmp_path / "stream").open("w") as stream, (tmp_path / "other").open("w") as other:
        status = os.fstat(stream.fileno())
        environ = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        assert is_journal(stream, environ)
        assert not is_journal(other, environ)
        assert not is_journal(stream, {})
        assert not is_journal(stream, {"JOURNAL_STREAM": "nonsense"})


# -- events as entries ----------------------------------------------------------------------------------

FINISHED = {
    "timestamp": "2026-11-21T12:00:00Z",
    "level": "warning",
    "task": "gh-12",
    "run": 7,
    "provider": "claude-cli",
    "model": "claude-opus-4",
    "rule": "critical",
    "event": "worker finished",
    "outcome": "failed",
    "cause": None,
    "attrs": {"labels": ["a"]},
    "problems": ["one thing", "another\nthing"],
    "exception": "Traceback:\n  line\nValueError: broken",
}


def test_an_event_has_a_readable_line_and_fields_to_search_for() -> None:
    assert journal_fields(FINISHED) == {
        "MESSAGE": "WARNING [gh-12] worker finished  outcome=failed problems: one thing; another thing "
        "ValueError: broken",
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "coordinator",
        "TASK": "gh-12",
        "RUN": "7",
        "PROVIDER": "claude-cli",
        "MODEL": "claude-opus-4",
        "RULE": "critical",
        "COORDINATOR_EVENT": "worker finished",
        "COORDINATOR_OUTCOME": "failed",
        "COORDINATOR_ATTRS": '{"labels": ["a"]}',
        "COORDINATOR_PROBLEMS": '["one thing", "another\\nthing"]',
        "COORDINATOR_EXCEPTION": "Traceback:\n  line\nValueError: broken",
    }


def test_a_fact_is_one_line_without_control_characters() -> None:
    line = journal_line({"event": "new\ntask\r", "task": "gh-1", "title": "a\nTASK=gh-99\x1b[2J"})
    assert line == '[gh-1] new task\\x0d  title="a TASK=gh-99\\x1b[2J"'


@pytest.mark.usefixtures("restored")
def test_events_and_what_libraries_say_reach_the_journal_redacted(
    journald: Journald, journal: Journal, tmp_path: Path
) -> None:
    with (tmp_path / "stderr").open("w+") as stream:
        logs.configure(redactor=Redactor([SECRET]), stream=stream, journal=journal, log_dir=tmp_path)
        logs.get_logger().info("new task", task="gh-1", title=f"with {SECRET}")
        logging.getLogger("urllib3").warning("retrying %s", SECRET)
        event, library = journald.receive(), journald.receive()
        assert event["COORDINATOR_TITLE"] == f"with {REDACTED}"
        assert event["MESSAGE"] == f'[gh-1] new task  title="with {REDACTED}"'
        assert library["MESSAGE"] == f"WARNING retrying {REDACTED}  logger=urllib3"
        assert library["PRIORITY"] == "4"
        assert (tmp_path / "stderr").read_text() == ""
        assert len((tmp_path / "coordinator.jsonl").read_text().splitlines()) == 2


@pytest.mark.usefixtures("restored")
def test_without_a_journal_the_line_goes_to_standard_error_with_its_level(tmp_path: Path) -> None:
    with (tmp_path / "stderr").open("w+") as stream:
        logs.configure(redactor=Redactor(), stream=stream, journal=Journal(tmp_path / "nobody"))
        logs.get_logger().error("not published", task="gh-1")
        assert (tmp_path / "stderr").read_text() == "<3>ERROR [gh-1] not published\n"


def test_a_journal_stream_that_nobody_reads_holds_nobody_up() -> None:
    ours, theirs = socket.socketpair()
    with theirs, os.fdopen(ours.detach(), "w") as stream, closing(Fallback(stream)) as fallback:
        written = [f"line {number} {'x' * number}" for number in range(2000)]
        for line in written:
            say(fallback, line)
        arrived = everything_in(theirs)
        say(fallback, "again")
        *whole, cut, again, _ = (arrived + everything_in(theirs)).split("\n")
        assert 0 < len(whole) < len(written)
        assert whole == written[: len(whole)]
        assert written[len(whole)].startswith(cut)
        assert again == "again"


def say(fallback: Fallback, line: str) -> None:
    fallback.write(line)
    fallback.write("\n")
    fallback.flush()


def everything_in(end: socket.socket) -> str:
    received = b""
    with contextlib.suppress(BlockingIOError):
        while True:
            received += end.recv(1 << 20, socket.MSG_DONTWAIT)
    return received.decode()
