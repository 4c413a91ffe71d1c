"""structlog configuration, redaction, and how an event reads as a line; nothing else.

One event a fact, with keys; what a run is about is bound once through context variables. On a terminal the
lines are for reading, in the journal events have fields, otherwise each is one JSON object. Secrets are
removed by value, everywhere.
Nothing here may stop the work: a log that cannot be written is not written.
"""

from __future__ import annotations

import json as jsonlib
import logging
import os
import re
import sys
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from datetime import datetime
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import structlog
from pydantic import BaseModel
from structlog.typing import EventDict, WrappedLogger

from adw_modules.config.wording import is_secret, password_in
from adw_modules.security.webhooks import secrets_of
from coordinator.systemd.journal import Fallback, Journal, field_name

if TYPE_CHECKING:
    from adw_modules.config import Settings
    from adw_modules.security.leaks import Scanner
    from adw_modules.tasks.model import Run, Task

SHORTEST_SECRET = 6  # shorter values would blank out ordinary words
PASSING_KEPT = 2  # of the values that one secret has had: its last words may still be on their way
SHORTEST_UNNAMED = 16  # of a variable that the configuration does not name
REDACTED = "[redacted]"
LOG_FILE_BYTES = 20 * 1024 * 1024
LOG_FILES_KEPT = 3
LONGEST_VALUE = 300  # characters of one value on the console; the JSON has all of it

_FIRST = ("timestamp", "level", "task", "run", "event")
_OWN_PLACE = frozenset({"timestamp", "level", "task", "event", "attrs", "exception"})
_ROUTE = frozenset({"rule", "provider", "model"})  # of a run: said when it starts, carried by all its events
_SAID_AT_START = frozenset({"provider", "model"})  # the rule is on the line before it
_JOURNAL_FIELDS = {"task": "TASK", "run": "RUN", "rule": "RULE", "provider": "PROVIDER", "model": "MODEL"}
_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}  # syslog's
_opened = ExitStack()
_STEERING = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_DEEPEST = 20  # containers in containers: more than that is a loop, or nothing for a log


class Redactor:
    """Replaces known secret values in text, as they stand and encoded. It guesses nothing from patterns.

    Safe to use from threads: what it knows is replaced as a whole.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._spellings: dict[str, set[str]] = {}  # of each value
        self._passing: dict[str, tuple[str, ...]] = {}
        self._lock = threading.Lock()
        self._secrets: tuple[str, ...] = ()
        self._spelled: tuple[bytes, ...] = ()
        self._scanner: Scanner | None = None
        self.learn(secrets)

    @classmethod
    def of(cls, settings: Settings, environ: Mapping[str, str]) -> Redactor:
        """One that knows every secret which this configuration lets near a worker or a log."""
        return cls(secret_values(settings, environ))

    def learn(self, secrets: Iterable[str]) -> None:
        """Know these too. Nothing is ever forgotten: a key that was replaced is still in old output."""
        with self._lock:
            new = {secret for secret in secrets if len(secret) >= SHORTEST_SECRET} - self._spellings.keys()
            if new:
                self._know({secret: _spellings(secret) for secret in new}, set())

    def learn_passing(self, name: str, secret: str) -> None:
        """Know a secret that lasts an hour, and forget the one before the last of the same name."""
        with self._lock:
            kept = (*self._passing.get(name, ()), secret)
            self._passing[name] = kept[-PASSING_KEPT:]
            self._know({secret: _spellings(secret)}, set(kept[:-PASSING_KEPT]))

    def _know(self, new: dict[str, set[str]], gone: Collection[str]) -> None:
        known = {secret: spelled for secret, spelled in self._spellings.items() if secret not in gone} | new
        self._secrets = tuple(sorted({spelled for each in known.values() for spelled in each}))
        self._spelled = tuple(secret.encode(errors="surrogateescape") for secret in self._secrets)
        self._spellings, self._scanner = known, None

    @property
    def scanner(self) -> Scanner:
        """Looks for the same values, and for what looks like a token, in what is about to leave."""
        if self._scanner is None:
            from adw_modules.security.leaks import Scanner

            self._scanner = Scanner(self._spellings)
        return self._scanner

    @property
    def longest(self) -> int:
        """Bytes of the longest spelling of a secret: so much belongs together."""
        return max(map(len, self._spelled), default=0)

    def spans(self, data: bytes) -> list[tuple[int, int]]:
        """Where secrets stand in `data`: (begin, end), by their begin; they may overlap."""
        found = (
            (start, end)
            for secret in self._spelled
            if secret in data
            for start, end in _occurrences_in(secret, data)
        )
        return sorted(found)

    def masked(self, data: bytes) -> bytes:
        """`data`, as long as it was, with asterisks over each secret."""
        spans = self.spans(data)
        if not spans:
            return data
        masked = bytearray(data)
        for start, end in spans:
            masked[start:end] = b"*" * (end - start)
        return bytes(masked)

    def text(self, text: str) -> str:
        """`text` without any character of a secret, also where secrets overlap."""
        if not any(secret in text for secret in self._secrets):
            return text  # nearly all that is logged
        spans = sorted(span for secret in self._secrets for span in _occurrences(secret, text))
        parts, end = [], 0
        for start, stop in spans:
            if start >= end:
                parts += [text[end:start], REDACTED]
            end = max(end, stop)
        return "".join([*parts, text[end:]])

    def value(self, value: Any, *, depth: int = _DEEPEST) -> Any:
        """The same for anything that can stand in a log event; what comes out is plain JSON data."""
        if isinstance(value, str):
            return self.text(value)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, bytes | bytearray):
            return self.text(value.decode(errors="replace"))
        if depth and isinstance(value, Mapping):
            return {self.text(str(key)): self.value(inner, depth=depth - 1) for key, inner in value.items()}
        if depth and isinstance(value, list | tuple | set | frozenset):
            return [self.value(inner, depth=depth - 1) for inner in value]
        shown = self.text(str(value))
        return value if isinstance(value, int | float) and shown == str(value) else shown

    def processor(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        return {
            key: self.text(inner) if type(inner) is str else self.value(inner) for key, inner in event.items()
        }


def _spellings(secret: str) -> set[str]:
    """A secret as it stands, and in the spellings that one command makes of it, git's header among them."""
    from adw_modules.security.leaks import spellings, whole_and_lines

    return {spelled for part in whole_and_lines(secret) for spelled in spellings(part)}


def secret_values(settings: Settings, environ: Mapping[str, str]) -> Iterator[str]:
    """What must never be shown: the value of every variable that the configuration names as holding a secret
    (each key that ends in `_env`), what else a worker is handed that looks like a secret by its variable's
    name or its content, the database's password, and what else of our own environment is a secret by both."""
    yield from (environ.get(name, "") for name in _named_variables(settings))
    if settings.webhook.enabled:  # one variable may hold two of them
        yield from secrets_of(environ.get(settings.webhook.secret_env, ""))
    for provider in settings.providers.values():
        handed = {name: environ[name] for name in provider.pass_env if name in environ} | provider.env
        yield from (value for name, value in handed.items() if is_secret(name, value))
    if settings.coordinator.database_url:
        yield password_in(settings.coordinator.database_url)
    yield environ.get("PGPASSWORD", "")
    yield from (value for name, value in environ.items() if _is_secret_of_ours(name, value))


def _named_variables(value: object) -> Iterator[str]:
    """The values of all keys named `…_env`, wherever they stand."""
    if isinstance(value, BaseModel):
        for key, inner in value:
            if key.endswith("_env") and isinstance(inner, str):
                yield inner
            yield from _named_variables(inner)
    elif isinstance(value, Mapping | list | tuple):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _named_variables(inner)


def _is_secret_of_ours(name: str, value: str) -> bool:
    """Of variables that nobody named: a path or a word is none, whatever it is called."""
    return (
        len(value) >= SHORTEST_UNNAMED
        and "/" not in value[:1]
        and is_secret(name, value)
        and any(char.isdigit() for char in value)
        and any(char.isalpha() for char in value)
    )


def _occurrences_in(secret: bytes, data: bytes) -> Iterator[tuple[int, int]]:
    start = data.find(secret)
    while start >= 0:
        yield start, start + len(secret)
        start = data.find(secret, start + 1)


def _occurrences(secret: str, text: str) -> Iterator[tuple[int, int]]:
    start = text.find(secret)
    while start >= 0:
        yield start, start + len(secret)
        start = text.find(secret, start + 1)


def configure(
    *,
    redactor: Redactor,
    level: str = "INFO",
    stream: TextIO | None = None,
    json: bool | None = None,
    log_dir: Path | None = None,
    journal: Journal | None = None,
) -> None:
    """Set up logging for the process. `json=None` means: JSON unless the stream is a terminal.

    With a `journal` events go there instead, with fields; the stream has to be the journal's as well, and
    takes what journald would not. With `log_dir` every event also goes to `coordinator.jsonl` there (rotated
    by size), which is what `coordinator logs` reads, whatever the stream shows.
    """
    close()
    stream = stream or sys.stderr
    as_json = not stream.isatty() if json is None else json
    render: Any = _json_line if as_json else _console_line(colours=has_colours(stream))
    out: Any = _Unstoppable(stream)
    if journal is not None:
        render = _journal_entry(_opened.enter_context(closing(journal)))
        out = _opened.enter_context(closing(Fallback(stream)))
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,  # before redaction: a traceback shows values, too
            redactor.processor,
            *([_opened.enter_context(closing(LogFile(log_dir))).processor] if log_dir else []),
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.WARNING, handlers=[_FromLibraries()], force=True)
    logging.getLogger("apscheduler").setLevel(logging.ERROR)
    # A job of ours only rings the bell. What fails there is one that is called off in the moment of the end.
    logging.getLogger("apscheduler.executors").setLevel(logging.CRITICAL)


def close() -> None:
    """Close what the last `configure` opened; what is logged afterwards opens the file again."""
    _opened.close()


def has_colours(stream: TextIO) -> bool:
    """Whether whoever reads this stream wants colours."""
    return stream.isatty() and not os.environ.get("NO_COLOR")


def get_logger() -> Any:
    """A logger for one module: `log = get_logger()`."""
    return structlog.get_logger()


def about(task: Task, run: Run) -> dict[str, Any]:
    """What every event about a run carries, for whoever searches by it. No rule: the default was taken."""
    known = {"task": task.name, "run": run.run_id, "provider": run.provider, "model": run.model}
    return known | ({"rule": run.rule} if run.rule else {})


# -- one event as a line ----------------------------------------------------------------------------


def json_line(event: Mapping[str, Any]) -> str:
    """One JSON object, with what people look for first in front."""
    ordered = {key: event[key] for key in _FIRST if key in event} | dict(event)
    return harmless_json(jsonlib.dumps(ordered, ensure_ascii=False, default=str))


def harmless_json(text: str) -> str:
    """JSON that a terminal can be shown: what could steer it or turn a line round is written as `\\u009b`."""
    if text.isascii() and "\x7f" not in text:
        return text
    return _STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def console_line(event: Mapping[str, Any], *, colours: bool = False) -> str:
    """Time, level unless it is info, [task], event, then the keys that say something new.

    What needs room gets lines of its own below: the attributes a rule was matched against, lists of
    sentences, a traceback.
    """
    paint = _paint if colours else _plain
    level, text = str(event.get("level", "info")), printable(str(event.get("event", "")))
    task = event.get("task")
    blocks = {key: value for key, value in event.items() if _is_block(value)}
    keys = " ".join(_pairs(event, text, skip=blocks.keys()))
    head = (
        paint(_clock(event.get("timestamp")), "dim"),
        paint(level.upper(), level) if level not in ("info", "debug") else "",
        paint(f"[{task}]", "task") if task else "",
        text,
    )
    lines = [" ".join(part for part in head if part)]
    if "attrs" in event:
        lines += [printable(f"  Task attrs: {event['attrs']}")]
    if keys and "attrs" in event:
        lines += [paint(f"  {keys}", "dim")]
    elif keys:
        lines[0] += "  " + paint(keys, "dim")
    for key, sentences in blocks.items():
        lines += [paint(f"  {key}:", "dim"), *(f"    {_cut(sentence)}" for sentence in sentences)]
    if event.get("exception"):
        lines.append(str(event["exception"]))
    return "\n".join(lines)


def journal_line(event: Mapping[str, Any]) -> str:
    """The same in one line, without the time, which the journal has: `[task] event  key=value`."""
    level, text = str(event.get("level", "info")), printable(str(event.get("event", "")))
    task = event.get("task")
    blocks = {key: value for key, value in event.items() if _is_block(value)}
    head = (level.upper() if level not in ("info", "debug") else "", f"[{task}]" if task else "", text)
    parts = [" ".join(part for part in head if part), *_pairs(event, text, skip=blocks.keys())]
    parts += [f"{key}: {'; '.join(map(_cut, sentences))}" for key, sentences in blocks.items()]
    if event.get("exception"):
        parts.append(printable(str(event["exception"]).rstrip().rpartition("\n")[2]))
    return "  ".join([parts[0], " ".join(parts[1:])]).rstrip().replace("\n", " ")


def journal_fields(event: Mapping[str, Any]) -> dict[str, str]:
    """The event as the journal keeps it: the readable line, and every key under a name to search for."""
    level = str(event.get("level", "info"))
    fields = {
        "MESSAGE": journal_line(event),
        "PRIORITY": str(_PRIORITIES.get(level, 6)),
        "SYSLOG_IDENTIFIER": "coordinator",
    }
    for key, value in event.items():
        if key not in ("timestamp", "level") and value is not None:
            name = _JOURNAL_FIELDS.get(key) or field_name("COORDINATOR_", key)
            fields[name] = (
                value if isinstance(value, str) else jsonlib.dumps(value, ensure_ascii=False, default=str)
            )
    return fields


def _pairs(event: Mapping[str, Any], text: str, *, skip: Iterable[str]) -> Iterator[str]:
    """`key=value` for each key whose value is not already in the event's text."""
    unsaid = _OWN_PLACE | {"run", *skip} | ({"repo"} if event.get("task") else set())
    if event.get("run") is not None:
        unsaid |= _ROUTE - (_SAID_AT_START if text == "worker started" else set())
    for key, value in event.items():
        if key in unsaid or value is None or (isinstance(value, str) and value in text):
            continue
        shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        shown = _cut(" ".join(shown.split()))
        yield f'{key}="{shown}"' if " " in shown else f"{key}={shown}"


def _is_block(value: Any) -> bool:
    """Sentences: each wants a line of its own."""
    return isinstance(value, list) and any(isinstance(item, str) and " " in item for item in value)


def printable(text: str) -> str:
    """`text` without the power to move the cursor or turn the line round: strangers write issue titles."""
    return "".join(
        char if char.isprintable() or char in "\n\t\u200d" else f"\\x{ord(char):02x}" for char in text
    )


def _cut(value: Any) -> str:
    text = printable(str(value))
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"


def _clock(timestamp: Any) -> str:
    """The time of day where the reader is."""
    try:
        return datetime.fromisoformat(str(timestamp)).astimezone().strftime("%H:%M:%S")
    except ValueError:
        return ""


_STYLES = {"dim": "2", "task": "36", "warning": "33", "error": "31", "critical": "31;1"}


def _paint(text: str, style: str) -> str:
    return f"\x1b[{_STYLES.get(style, '0')}m{text}\x1b[0m"


def _plain(text: str, _style: str) -> str:
    return text


# -- where lines go -----------------------------------------------------------------------------------


def _json_line(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    return json_line(event)


def _console_line(*, colours: bool) -> Any:
    def render(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
        return console_line(event, colours=colours)

    return render


def _journal_entry(journal: Journal) -> Any:
    def render(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
        fields = journal_fields(event)
        if journal.send(fields):
            raise structlog.DropEvent
        return (
            f"<{fields['PRIORITY']}>{fields['MESSAGE']}"  # journald takes the level of a line from its front
        )

    return render


class _Unstoppable:
    """A stream that never raises: a closed terminal or a full disk must not end the daemon."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> None:
        try:
            self._stream.write(text)
        except (OSError, ValueError):
            return

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            return


class _FromLibraries(logging.Handler):
    """What libraries say through `logging` takes the same way: redacted, one line, with its own key."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().log(
            record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info
        )


class LogFile:
    """`coordinator.jsonl`: one JSON object a line, mode 0600, rotated by size."""

    def __init__(self, log_dir: Path) -> None:
        self._handler = _PrivateFile(
            log_dir / "coordinator.jsonl",
            maxBytes=LOG_FILE_BYTES,
            backupCount=LOG_FILES_KEPT,
            delay=True,
            encoding="utf-8",
            errors="backslashreplace",
        )

    def close(self) -> None:
        self._handler.close()

    def processor(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        self._handler.handle(logging.makeLogRecord({"msg": "%s", "args": (json_line(event),)}))
        return event


class _PrivateFile(RotatingFileHandler):
    """Readable by its owner only, also after rotation, and silent when the disk is full.

    Its folder is made with the first line: before that, the folder belongs to who makes the state directory.
    """

    def _open(self) -> TextIOWrapper:
        Path(self.baseFilename).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.baseFilename, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if _ends_within_a_line(descriptor):  # of a daemon that was killed: ours is not to be glued to it
            os.write(descriptor, b"\n")
        return os.fdopen(descriptor, "a", encoding=self.encoding, errors=self.errors)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # the name logging calls
        pass


def _ends_within_a_line(descriptor: int) -> bool:
    size = os.fstat(descriptor).st_size
    return size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
