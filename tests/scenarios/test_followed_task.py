"""`coordinator logs -f --task`, started while the task runs, through all that happens to its daemon."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from world import PATIENCE, REPO, WAIT, World

FAILS_ONCE = "[[agent: fail-once]]"


@contextlib.contextmanager
def following(world: World, number: int, stdout: int) -> Iterator[subprocess.Popen[bytes]]:
    verb = ["logs", "-f", "--task", str(number), "--config", str(world.path)]
    follower = subprocess.Popen(
        [sys.executable, "-m", "coordinator", *verb],
        env=world.environ, stdout=stdout, stderr=subprocess.STDOUT, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    try:
        yield follower
    finally:
        follower.kill()
        follower.wait()


@pytest.mark.crash
def test_a_task_is_followed_over_a_killed_daemon_a_rotated_log_and_a_retry(world: World) -> None:
    number = world.issue(FAILS_ONCE, WAIT)
    waits = ("base_delay_seconds", "fast_exit_base_delay_seconds", "max_delay_seconds")
    world.write_config(retries=dict.fromkeys(waits, 1))
    world.start_process()
    world.until(lambda: world.runs(number), "it has a run")
    printed = world.folder / "printed"
    with printed.open("wb") as out, following(world, number, out.fileno()) as follower:
        world.until(lambda: "will retry" in printed.read_text(), "the first attempt is over")
        world.until(lambda: printed.read_text().count("This will take a while") == 1, "the second has begun")
        world.kill()
        log = world.state_dir / "logs" / "coordinator.jsonl"
        log.rename(log.with_name("coordinator.jsonl.1"))
        world.start_process()
        world.until(lambda: "found=alive" in printed.read_text(), "the next daemon has found it")
        world.server.close_issue(REPO, number)
        world.until(lambda: "worker finished  outcome=cancelled" in printed.read_text(), "it is cancelled")
        follower.send_signal(signal.SIGINT)
        assert follower.wait(timeout=PATIENCE) == 130
    text = printed.read_text()
    wanted = [
        "new task",
        "worker started  provider=claude-cli model=",
        "│ I am the",
        "worker finished  outcome=failed",
        "will retry",
        "retry  attempt=2/3",
        "worker started",
        "│ I am the",
        "This will take a while",
        "found a run  found=alive",
        "stopping  reason=",
        "└ ",
        "worker finished  outcome=cancelled",
    ]
    at = 0
    for words in wanted:
        at = text.index(words, at) + len(words)
    for once in ("found a run", "This will take a while", "will retry"):
        assert text.count(once) == 1


@pytest.mark.crash
def test_a_follower_whose_reader_goes_away_ends_without_waiting_for_a_line(world: World) -> None:
    number = world.issue(WAIT)
    world.start_process()
    world.until_working(number)
    read, write = os.pipe()
    with following(world, number, write) as follower:
        os.close(write)
        assert b"[gh-1]" in os.read(read, 1 << 16)
        os.close(read)
        assert follower.wait(timeout=PATIENCE) == 0
