"""What `coordinator logs` makes of the files of a daemon: the order, and nothing lost or printed twice."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from store_samples import NOW, a_settlement, end, queue

from adw_modules.tasks.model import Run, Task, TaskState
from coordinator import logs
from coordinator.cli.logs import Log, Tail
from coordinator.settings import LoadedSettings, SettingsSource
from coordinator.store import Store

from store_samples import Because  # isort: skip

CONFIG = """\
[github]
repo_owner = "acme"
repo_name = "widgets"
[providers.claude-cli]
command_template = ["true"]
[llm]
provider = "claude-cli"
model_default = "m"
"""


# -- one growing file -----------------------------------------------------------------------------------


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def rotate(path: Path, *, at: int) -> None:
    """As the daemon's log is rotated: `.2` to `.3`, `.1` to `.2`, the file to `.1`, last written `at`."""
    for number in (2, 1):
        older = path.with_name(f"{path.name}.{number}")
        if older.exists():
            older.rename(path.with_name(f"{path.name}.{number + 1}"))
    os.utime(path, (at, at))
    path.rename(path.with_name(f"{path.name}.1"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def tail(path: Path) -> Iterator[Tail]:
    with closing(Tail(path)) as tail:
        yield tail


def test_a_reader_that_slept_through_two_rotations_misses_nothing(path: Path, tail: Tail) -> None:
    append(path, "long ago\n")
    rotate(path, at=1)
    append(path, "one\n")
    assert list(tail.new()) == ["one"]
    append(path, "two\n")
    rotate(path, at=2)
    append(path, "three\n")
    rotate(path, at=3)
    append(path, "four\n")
    assert list(tail.new()) == ["two", "three", "four"]
    assert list(tail.new()) == []


def test_a_line_is_printed_when_it_is_whole_or_when_nobody_goes_on_with_it(path: Path, tail: Tail) -> None:
    assert list(tail.new()) == []
    append(path, "one\nhal")
    assert list(tail.new()) == ["one"]
    append(path, "f\nlast")
    assert list(tail.new()) == ["half"]
    assert list(tail.new(is_ended=True)) == ["last"]
    assert list(tail.new(is_ended=True)) == []


def test_a_file_made_anew_and_one_that_was_emptied_are_read_from_their_start(path: Path, tail: Tail) -> None:
    append(path, "one\n")
    assert list(tail.new()) == ["one"]
    path.unlink()
    assert list(tail.new()) == []
    append(path, "two\n")
    assert list(tail.new()) == ["two"]
    path.write_text("")
    append(path, "3\n")
    assert list(tail.new()) == ["3"]


def test_a_daemon_does_not_go_on_with_the_line_of_one_that_was_killed(tmp_path: Path) -> None:
    path = tmp_path / "coordinator.jsonl"
    append(path, '{"event": "cut o')
    file = logs.LogFile(tmp_path)
    file.processor(None, "", {"event": "the next"})
    file.close()
    assert path.read_text().splitlines() == ['{"event": "cut o', '{"event": "the next"}']


# -- a task: decisions and what its agents say ------------------------------------------------------------


@dataclass
class Place:
    """A state directory whose daemon and agents are played by the test."""

    loaded: LoadedSettings
    store: Store
    task: Task
    stack: ExitStack
    seconds: int = 0

    def log(self, event: str, **keys: Any) -> None:
        """One line of the daemon; each is a second later than the one before."""
        self.seconds += 1
        line = {"timestamp": self.now.isoformat(), "level": "info", "task": self.task.name, "event": event}
        self.loaded.log_dir.mkdir(exist_ok=True, parents=True)
        append(self.loaded.log_dir / "coordinator.jsonl", logs.json_line(line | keys) + "\n")

    @property
    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.seconds)

    def start(self) -> Run:
        claimed = self.store.claim(
            self.task.task_id,
            decision=Because(),
            config_version="1",
            run_dir_of=lambda task, token: str(self.loaded.state_dir / "runs" / f"{task.name}.{token}"),
            now=self.now,
        )
        assert claimed is not None
        run = claimed[1]
        Path(run.run_dir).mkdir(parents=True)
        return run

    def end(self, run: Run) -> None:
        ended = replace(run, started_at=self.now)
        assert end(self.store, ended, a_settlement(TaskState.QUEUED), now=self.now)

    def say(self, run: Run, *texts: str) -> None:
        for text in texts:
            said = {"type": "assistant", "message": {"content": [{"type": "text", "text": text}]}}
            append(Path(run.run_dir) / "output.log", json.dumps(said) + "\n")

    def follow(self) -> Log:
        return self.stack.enter_context(closing(Log(self.loaded, str(self.task.issue_number), as_json=False)))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    config = tmp_path / "adws" / "config.toml"
    config.parent.mkdir()
    config.write_text(CONFIG)
    loaded = SettingsSource(config).current
    loaded.state_dir.mkdir(mode=0o700)
    with Store.open(loaded.database_url, now=NOW) as store, ExitStack() as stack:
        yield Place(loaded, store, queue(store), stack)


def words(lines: list[str]) -> list[str]:
    """The lines without time, task and keys."""
    return [line.rpartition("[gh-12] ")[2].strip().split("  ")[0] for line in lines]


def test_what_an_agent_says_stands_between_the_start_and_the_end_of_its_run(place: Place) -> None:
    place.log("new task")
    follower = place.follow()
    assert words(follower.new()) == ["new task"]
    first = place.start()
    place.log("worker started", run=first.run_id)
    place.say(first, "one", "two")
    assert words(follower.new()) == ["worker started", "│ one", "│ two"]
    place.say(first, "three")
    place.log("stopping", run=first.run_id)
    append(Path(first.run_dir) / "output.log", '{"type": "result", "result": "without an end of line"}')
    place.log("worker finished", run=first.run_id)
    place.end(first)
    place.log("will retry", run=first.run_id)
    second = place.start()
    place.log("worker started", run=second.run_id)
    place.say(second, "again")
    assert words(follower.new()) == [
        "stopping",
        "│ three",
        "└ without an end of line",
        "worker finished",
        "will retry",
        "worker started",
        "│ again",
    ]
    assert words(place.follow().new()) == [
        "new task",
        "worker started",
        "│ one",
        "│ two",
        "│ three",
        "└ without an end of line",
        "stopping",
        "worker finished",
        "will retry",
        "worker started",
        "│ again",
    ]


def test_a_run_whose_start_the_killed_daemon_did_not_log_is_followed_when_the_next_finds_it(
    place: Place,
) -> None:
    place.log("new task")
    follower = place.follow()
    follower.new()
    run = place.start()
    place.say(run, "one")
    assert follower.new() == []
    place.log("found a run", run=run.run_id, found="alive")
    assert words(follower.new()) == ["found a run", "│ one"]
    place.say(run, "two")
    assert words(follower.new()) == ["│ two"]


def test_other_tasks_and_torn_lines_are_left_out(place: Place) -> None:
    place.log("theirs", task="gh-1")
    place.log("names it", task="gh-1", title="gh-12")
    place.log("ours")
    append(place.loaded.log_dir / "coordinator.jsonl", '{"task": "gh-12", "event": "torn\n')
    assert words(place.follow().new()) == ["ours"]
