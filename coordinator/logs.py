"""structlog configuration and redaction, nothing else.

One event a fact, with keys; task and run are bound once through context variables. On a terminal the
lines are for reading, otherwise each is one JSON object. Secrets are removed by value, everywhere.
"""

from __future__ import annotations

import json as jsonlib
import logging
import sys
from collections.abc import Iterable, Mapping
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, WrappedLogger

SHORTEST_SECRET = 6  # shorter values would blank out ordinary words
REDACTED = "[redacted]"
LOG_FILE_BYTES = 20 * 1024 * 1024
LOG_FILES_KEPT = 3


class Redactor:
    """Replaces known secret values in text. Values come from the environment, never from patterns."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        usable = {secret for secret in secrets if len(secret) >= SHORTEST_SECRET}
        self._secrets = sorted(usable, key=len, reverse=True)  # a secret that holds another goes first

    @classmethod
    def from_environ(cls, names: Iterable[str], environ: Mapping[str, str]) -> Redactor:
        return cls(environ[name] for name in names if environ.get(name))

    def text(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, REDACTED)
        return text

    def value(self, value: Any) -> Any:
        """The same for nested containers, as log events hold them."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {key: self.value(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(inner) for inner in value]
        return value

    def processor(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        return {key: self.value(inner) for key, inner in event.items()}


def configure(
    *,
    redactor: Redactor,
    level: str = "INFO",
    stream: TextIO | None = None,
    json: bool | None = None,
    log_dir: Path | None = None,
) -> None:
    """Set up logging for the process. `json=None` means: JSON unless the stream is a terminal.

    With `log_dir` every event also goes to `coordinator.jsonl` there (rotated by size), which is what
    `coordinator logs` reads, whatever the stream shows.
    """
    stream = stream or sys.stderr
    as_json = not stream.isatty() if json is None else json
    tail: list[Any] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(ensure_ascii=False)]
        if as_json
        else [structlog.dev.ConsoleRenderer(colors=stream.isatty(), pad_event_to=0, sort_keys=False)]
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso" if as_json else "%H:%M:%S", utc=as_json),
            redactor.processor,
            *([LogFile(log_dir).processor] if log_dir else []),
            *tail,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.WARNING, stream=stream, force=True)
    logging.getLogger("apscheduler").setLevel(logging.ERROR)


class LogFile:
    """`coordinator.jsonl`: one JSON object a line, mode 0600, rotated by size."""

    def __init__(self, log_dir: Path) -> None:
        log_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = log_dir / "coordinator.jsonl"
        path.touch(mode=0o600)
        self._handler = RotatingFileHandler(
            path, maxBytes=LOG_FILE_BYTES, backupCount=LOG_FILES_KEPT, delay=True
        )
        self._utc = structlog.processors.TimeStamper(fmt="iso", utc=True)

    def processor(self, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        record = structlog.processors.format_exc_info(logger, method, self._utc(logger, method, dict(event)))
        line = jsonlib.dumps(record, ensure_ascii=False, default=str)
        self._handler.emit(logging.makeLogRecord({"msg": "%s", "args": (line,)}))
        return event


def get_logger() -> Any:
    """A logger for one module: `log = get_logger()`."""
    return structlog.get_logger()
