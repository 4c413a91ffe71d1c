"""`coordinator logs`: the daemon's log, and a task's agent output with it."""

from __future__ import annotations

import json
import os
import select
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from coordinator.cli.common import DEFAULT_CONFIG, ConfigOption

if TYPE_CHECKING:
    from coordinator.settings import LoadedSettings

FOLLOW_SECONDS = 0.3
BEGINS, ENDS = (
    frozenset({"worker started", "found a run"}),
    "worker finished",
)  # what an agent says is between
LATEST = "~"  # after every ISO 8601 time
LONGEST_INPUT = 160  # characters of what an agent gives to a tool
LINES_OF_AGENT_TEXT = 20  # of one message

Record = dict[str, Any]
Entry = tuple[str, int, str]  # when it belongs, ISO 8601; its rank among those of one moment; what to print
Show = Callable[[Record, str], str]  # from a record and its raw line to what is printed; empty: nothing


def register(app: typer.Typer) -> None:
    app.command()(logs)


def logs(
    config: ConfigOption = DEFAULT_CONFIG,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing what is new.")] = False,
    task: Annotated[
        str | None, typer.Option("--task", "-t", help="Only this issue, with its agent's output.")
    ] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", help="How many entries of the past.", min=0)] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Print the lines as they are stored.")] = False,
) -> None:
    """Print the daemon's log: decisions, starts, results. With --task also what the agent says and does."""
    from adw_modules.errors import CoordinatorError
    from coordinator.cli.common import settings_in_force

    loaded = settings_in_force(config).loaded
    with closing(Log(loaded, task, as_json=as_json)) as log:
        if not log.exists and not follow:
            raise CoordinatorError(f"There is no log in {loaded.log_dir} yet: the daemon has not run there.")
        past = log.new()
        for text in past[-lines:] if lines else []:
            typer.echo(text)
        while follow and not _reader_is_gone(FOLLOW_SECONDS):
            for text in log.new():
                typer.echo(text)


def _reader_is_gone(seconds: float) -> bool:
    """Wait that long for whoever reads our output to close it: without a new line we would never notice."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)  # no event asked for: errors and hang-ups are always told
    return bool(poll.poll(seconds * 1000))


class Log:
    """What there is to print of one daemon, or of one task: call `new` again for what came since."""

    def __init__(self, loaded: LoadedSettings, task: str | None, *, as_json: bool) -> None:
        from coordinator.logs import Redactor

        self._loaded = loaded
        self._redact = Redactor.of(loaded.settings, os.environ).text
        self._show_event: Show = _as_stored if as_json else _daemon_line
        self._show_agent: Show = _as_stored if as_json else agent_line
        self._task_id, self._name = self._find(task)
        self._mention = "" if self._name is None else json.dumps(self._name, ensure_ascii=False)
        self._path = loaded.log_dir / "coordinator.jsonl"
        self._events = Tail(self._path)
        self._outputs: dict[int, Output] = {}
        self._is_first = True

    @property
    def exists(self) -> bool:
        return self._path.exists()

    def close(self) -> None:
        for tail in (self._events, *(output.tail for output in self._outputs.values())):
            tail.close()

    def new(self) -> list[str]:
        """What came since the last call, in its order. The first call gives the past, rotated files too."""
        older = _rotated(self._path) if self._is_first else []
        entries = [*self._decisions(line for path in older for line in _lines(path))]
        entries += self._decisions(self._events.new())
        if self._is_first and self._task_id is not None:
            self._watch_known_runs(self._task_id)
        for output in self._outputs.values():  # after the decisions: an end that is known has all its output
            entries += self._said(output)
        self._is_first = False
        return [text for _, _, text in sorted(entries, key=lambda entry: entry[:2])]

    def _decisions(self, lines: Iterable[str]) -> Iterator[Entry]:
        for line in lines:
            if self._mention not in line:  # most lines of a long log: not worth parsing
                continue
            record = _parsed(line)
            if self._name is not None and record.get("task") != self._name:
                continue
            at = str(record.get("timestamp", ""))
            if self._name is not None:
                self._note_run(record, at)
            text = self._show_event(record, line)
            if text:
                yield at, 1, self._redact(text)

    def _note_run(self, record: Record, at: str) -> None:
        """The start and the end of a run: what its agent says belongs between the two."""
        run_id = record.get("run")
        if record.get("event") in BEGINS:
            self._watch(run_id, at)
        elif record.get("event") == ENDS and run_id in self._outputs:
            self._outputs[run_id].ended_at = at

    def _said(self, output: Output) -> Iterator[Entry]:
        """Lines carry no time. Those of the past stand after the run's start, new ones before its end."""
        at, rank = (output.since, 2) if self._is_first else (output.ended_at or LATEST, 0)
        for line in output.tail.new(is_ended=output.ended_at is not None):
            text = self._show_agent(_parsed(line), line)
            if text:
                yield at, rank, self._redact(text)

    # -- which files hold what the agent said ---------------------------------------------------------

    def _find(self, task: str | None) -> tuple[int | None, str | None]:
        from coordinator.cli.common import find_task, reading

        if task is None:
            return None, None
        with reading(self._loaded) as store:
            found = find_task(store, task)
        return found.task_id, found.name

    def _watch(self, run_id: Any, at: str) -> None:
        """A worker was started: from now on its output belongs here, after the line that says so."""
        from coordinator.cli.common import reading

        if self._task_id is None or run_id in self._outputs:
            return
        with reading(self._loaded) as store:
            run = next((run for run in store.runs_of(self._task_id) if run.run_id == run_id), None)
        if run is not None:
            self._outputs[run.run_id] = Output(Tail(Path(run.run_dir) / "output.log"), since=at)

    def _watch_known_runs(self, task_id: int) -> None:
        """Runs whose start is in no log any more; and, without run directories, the log of all attempts."""
        from coordinator.cli.common import reading

        with reading(self._loaded) as store:
            runs = store.runs_of(task_id)
        for run in runs:
            at = run.started_at or run.claimed_at
            ended_at = run.finished_at.isoformat() if run.finished_at else None
            output = Output(Tail(Path(run.run_dir) / "output.log"), since=at.isoformat(), ended_at=ended_at)
            self._outputs.setdefault(run.run_id, output)
        if runs and not any(Path(run.run_dir).exists() for run in runs):
            whole = Tail(self._loaded.log_dir / f"{self._name}.jsonl")
            self._outputs = {0: Output(whole, since=runs[0].claimed_at.isoformat())}


@dataclass(slots=True)
class Output:
    """What one run's agent prints. Its lines carry no time: they stand after the run's start."""

    tail: Tail
    since: str
    ended_at: str | None = None


@dataclass(slots=True)
class Tail:
    """The new whole lines of one growing file. Survives rotation and a file that appears later."""

    path: Path
    _file: BinaryIO | None = field(default=None, init=False)
    _rest: bytes = field(default=b"", init=False)

    def new(self, *, is_ended: bool = False) -> Iterator[str]:
        """Lines since the last call; of a file that was replaced, first the rest of the old one.

        `is_ended`: nobody writes any more, so that a last line without its end is a line as well.
        """
        if self._file is not None:
            yield from self._read()
        if self._file is None or not self._is_current():
            yield from self._go_on()
        if is_ended and self._rest:
            yield self._rest.decode(errors="replace")
            self._rest = b""

    def _go_on(self) -> Iterator[str]:
        """To the file that has the name now, through those that had it meanwhile: a reader may be slow."""
        if self._file is not None:
            yield from self._read()  # what was written between the last look and the change
            status = os.fstat(self._file.fileno())
            self._file.close()
            for path in _rotated(self.path):
                if _changed_at(path) > status.st_mtime_ns:
                    yield from _lines(path)
        self._rest = b""
        try:
            self._file = self.path.open("rb")
        except OSError:
            self._file = None
            return
        yield from self._read()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _is_current(self) -> bool:
        assert self._file is not None  # noqa: S101  # for the type checker: the only caller has looked
        try:
            now, opened = self.path.stat(), os.fstat(self._file.fileno())
        except FileNotFoundError:
            return True  # between being moved away and made again
        return now.st_ino == opened.st_ino and now.st_size >= self._file.tell()

    def _read(self) -> Iterator[str]:
        assert self._file is not None  # noqa: S101  # the same
        *whole, self._rest = (self._rest + self._file.read()).split(b"\n")
        for line in whole:
            yield line.decode(errors="replace")


def _rotated(path: Path) -> list[Path]:
    """`coordinator.jsonl.3`, `.2`, `.1`: the oldest first."""
    from coordinator.logs import LOG_FILES_KEPT

    older = [path.with_name(f"{path.name}.{number}") for number in range(LOG_FILES_KEPT, 0, -1)]
    return [each for each in older if each.exists()]


def _changed_at(path: Path) -> int:
    """Nanoseconds; 0 for a file that is gone."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8", errors="replace") as stream:
            for line in stream:
                yield line.rstrip("\n")
    except FileNotFoundError:  # rotated away meanwhile
        return


def _parsed(line: str) -> Record:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        record = None
    return record if isinstance(record, dict) else {"text": line}


# -- one record as it is printed ------------------------------------------------------------------------


def _as_stored(_record: Record, line: str) -> str:
    return line


def _daemon_line(record: Record, _line: str) -> str:
    from coordinator.logs import console_line, has_colours

    return console_line({"event": record.get("text", ""), **record}, colours=has_colours(sys.stdout))


def agent_line(record: Record, _line: str = "") -> str:
    """What an agent said or did, one block; empty for events that say nothing to a person."""
    from coordinator.logs import printable

    message = record.get("message")
    if record.get("type") == "assistant" and isinstance(message, dict):
        content = message.get("content")
        blocks = content if isinstance(content, list) else []
        said = [line for block in blocks if isinstance(block, dict) for line in _block(block)]
    elif record.get("type") == "result":
        return f"  └ {_short(record.get('result') or record.get('subtype'))}"
    else:
        said = [record["text"]] if isinstance(record.get("text"), str) else []
    return "\n".join(f"  │ {printable(line)}" for line in said if line)


def _block(block: Record) -> list[str]:
    if block.get("type") == "tool_use":
        return [f"→ {block.get('name')} {_short(block.get('input'))}"]
    lines = str(block.get("text", "")).strip().splitlines()
    more = len(lines) - LINES_OF_AGENT_TEXT
    return [*lines[:LINES_OF_AGENT_TEXT], f"… {more} more lines"] if more > 0 else lines


def _short(value: Any) -> str:
    from coordinator.logs import printable

    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = printable(" ".join(text.split()))
    return text if len(text) <= LONGEST_INPUT else text[: LONGEST_INPUT - 1] + "…"
