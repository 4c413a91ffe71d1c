"""`coordinator logs`: the daemon's log, and a task's agent output with it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from coordinator.cli.common import DEFAULT_CONFIG, ConfigOption

FOLLOW_SECONDS = 0.3


def register(app: typer.Typer) -> None:
    app.command()(logs)


def logs(
    config: ConfigOption = DEFAULT_CONFIG,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing what is new.")] = False,
    task: Annotated[
        str | None, typer.Option("--task", "-t", help="Only this issue, with its agent's output.")
    ] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", help="How many lines of the past.", min=0)] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Print the lines as they are stored.")] = False,
) -> None:
    """Print the daemon's log: decisions, starts, results. With --task also what the agent says and does."""
    from coordinator.cli.common import find_task, reading, settings_source

    loaded = settings_source(config).current
    name = None
    sources = [(loaded.log_dir / "coordinator.jsonl", False)]
    if task is not None:
        with reading(loaded) as store:
            name = find_task(store, task).name
        sources.append((loaded.log_dir / f"{name}.jsonl", True))
    tails = [Tail(path, is_agent=is_agent, task=name, as_json=as_json) for path, is_agent in sources]
    past = sorted((entry for tail in tails for entry in tail.new()), key=lambda entry: entry[0])
    for _, text in past[len(past) - lines :] if lines else []:
        typer.echo(text)
    while follow:
        time.sleep(FOLLOW_SECONDS)
        for tail in tails:
            for _, text in tail.new():
                typer.echo(text)


class Tail:
    """The new lines of one growing file, as (time, text). Survives rotation and files that appear later."""

    def __init__(self, path: Path, *, is_agent: bool, task: str | None, as_json: bool) -> None:
        self._path, self._is_agent, self._task, self._as_json = path, is_agent, task, as_json
        self._offset, self._inode, self._rest, self._last_time = 0, 0, b"", ""

    def new(self) -> Iterator[tuple[str, str]]:
        try:
            with self._path.open("rb") as stream:
                inode = stream.seek(0) or self._path.stat().st_ino
                if inode != self._inode or self._path.stat().st_size < self._offset:
                    self._offset, self._inode, self._rest = 0, inode, b""
                stream.seek(self._offset)
                data = stream.read()
                self._offset = stream.tell()
        except FileNotFoundError:
            return
        *whole, self._rest = (self._rest + data).split(b"\n")
        for line in whole:
            yield from self._entry(line.decode(errors="replace"))

    def _entry(self, line: str) -> Iterator[tuple[str, str]]:
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict):
            record = {"text": line}
        if not self._is_agent and self._task is not None and record.get("task") != self._task:
            return
        self._last_time = str(record.get("timestamp") or self._last_time)
        text = line if self._as_json else (agent_line(record) if self._is_agent else daemon_line(record))
        if text:
            yield self._last_time, text


def daemon_line(record: dict[str, Any]) -> str:
    """One log event for reading: time, level if it matters, task, event, the other keys."""
    known = ("timestamp", "level", "event", "task", "exception")
    rest = " ".join(f"{key}={_short(value)}" for key, value in record.items() if key not in known)
    level = str(record.get("level", "info"))
    parts = [
        str(record.get("timestamp", ""))[11:19],
        level.upper() if level not in ("info", "debug") else "",
        f"[{record['task']}]" if record.get("task") else "",
        str(record.get("event", record.get("text", ""))),
        rest,
    ]
    return " ".join(part for part in parts if part)


def agent_line(record: dict[str, Any]) -> str:
    """What an agent said or did, one line; empty for events that say nothing to a person."""
    message = record.get("message")
    if record.get("type") == "assistant" and isinstance(message, dict):
        blocks = message.get("content")
        texts = (
            [_block(block) for block in blocks if isinstance(block, dict)] if isinstance(blocks, list) else []
        )
        return "\n".join(f"  │ {text}" for text in texts if text)
    if record.get("type") == "result":
        return f"  └ {_short(record.get('result') or record.get('subtype'))}"
    return f"  │ {record['text']}" if isinstance(record.get("text"), str) else ""


def _block(block: dict[str, Any]) -> str:
    if block.get("type") == "tool_use":
        return f"→ {block.get('name')} {_short(block.get('input'))}"
    return str(block.get("text", "")).strip()


def _short(value: Any, limit: int = 160) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"
