"""`coordinator demo` as one meets it on a fresh clone: a process, its exit code, what it leaves behind."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from conftest import processes_of, run, until
from rich.console import Console

from adw_modules.tasks.model import TaskState
from coordinator.demo.show import where_it_is_noon
from coordinator.demo.table import Row, Target, change, table
from tests.forked import Command

SONNET = Target(rule="high-priority-sonnet", provider="claude-cli", model="claude-sonnet-4-5")
HAIKU = Target(rule="retry-use-haiku", provider="claude-cli", model="claude-haiku-4")


def a_row(**changes) -> Row:
    values = {
        "issue": 3,
        "title": "Leave out empty words when counting",
        "routing": (SONNET, HAIKU),
        "attempts": 2,
        "input_tokens": 11_391,
        "output_tokens": 277,
        "cost_usd": None,
        "state": "succeeded",
        "result": "succeeded",
        "cause": None,
        "pull_request": 9,
        "has_ended": True,
    }
    return Row(**{**values, **changes})


def printed(rows: list[Row], width: int) -> str:
    out = io.StringIO()
    Console(width=width, file=out).print(table(rows, title="What became of the issues", width=width))
    return out.getvalue()


def test_the_demo_shows_all_six_ends_and_exits_0(tmp_path: Path) -> None:
    began = time.monotonic()
    answer = run(
        "demo", "--json", "--keep", str(tmp_path / "kept"), env=os.environ | {"TMPDIR": str(tmp_path)}
    )
    assert answer.code == 0, answer.err
    assert time.monotonic() - began < 30
    by_number = {row["issue"]: row for row in answer.json["issues"]}
    assert [row["result"] for row in by_number.values()] == [
        "succeeded", "succeeded", "succeeded", "failed", "cancelled", "no_changes",
    ]  # fmt: skip
    rules = {number: [target["rule"] for target in row["routing"]] for number, row in by_number.items()}
    assert rules[1] == ["critical-issues-opus"]
    assert rules[2] == ["docs-haiku"]
    assert rules[3] == ["high-priority-sonnet", "retry-use-haiku"]
    assert [row["attempts"] for row in by_number.values()] == [1, 1, 2, 3, 1, 1]
    assert all(by_number[number]["pull_request"] for number in (1, 2, 3))
    assert all(by_number[number]["pull_request"] is None for number in (4, 5, 6))
    # The cancelled one may have been stopped before its first answer.
    assert all(row["input_tokens"] and row["cost_usd"] for number, row in by_number.items() if number != 5)
    assert "running on claude-cli/claude-opus-4 (rule critical-issues-opus, attempt 1)" in answer.err
    assert (
        "Next, in the folder of a repository of yours: `coordinator init`, then `coordinator run`"
        in " ".join(answer.err.split())  # however wide the terminal is
    )
    assert processes_of(str(tmp_path)) == []
    assert (tmp_path / "kept" / "state" / "logs" / "gh-1.jsonl").exists()


MOMENTS = {
    "as soon as it makes something": lambda folder: list(folder.iterdir()),
    "when there is a database": lambda folder: list(folder.glob("*/state/coordinator.db")),
    "while workers work": lambda folder: list(folder.glob("*/state/runs/*/started")),
    "after the first result": lambda folder: list(folder.glob("*/state/runs/*/exit")),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_ctrl_c_at_any_moment_is_130_and_leaves_nothing(moment: str, tmp_path: Path) -> None:
    demo = Command(
        ["demo"],
        cold=moment == next(iter(MOMENTS)),
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    until(lambda: MOMENTS[moment](tmp_path), moment)
    os.killpg(demo.pid, signal.SIGINT)  # as the terminal does: to every process in the foreground
    said, _ = demo.communicate(timeout=20)
    assert demo.returncode == 130
    assert "Traceback" not in said
    assert processes_of(str(tmp_path)) == []
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    answer = run("demo", "--keep", str(tmp_path))
    assert (answer.code, answer.err.count("\n")) == (1, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


# -- how it looks -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [80, 100, 130, 160])
def test_the_table_folds_no_name_and_fits(width: int) -> None:
    text = printed([a_row()], width)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    for whole in (
        "#3 Leave out",
        str(SONNET),
        f"→ {HAIKU.rule}",
        str(HAIKU),
        "11,391 / 277",
        "succeeded",
        "#9",
    ):
        assert whole in text


@pytest.mark.parametrize("width", [100, 160])
def test_what_no_run_has_told_is_unknown_in_the_end_and_never_zero(width: int) -> None:
    untold = {"input_tokens": None, "output_tokens": None, "cost_usd": None}
    ended = printed([a_row(state="cancelled", result="cancelled", **untold)], width)
    assert ended.count("unknown") == 2
    assert "unknown" not in printed([a_row(state="running", has_ended=False, **untold)], width)
    assert "unknown" not in printed([a_row(state="cancelled", routing=(), attempts=0, **untold)], width)


@pytest.mark.parametrize("state", TaskState)
def test_no_result_is_cut_at_80_columns(state: TaskState) -> None:
    assert state.value in printed([a_row(state=state.value, result=state.value)], 80)


def test_progress_says_each_change_once() -> None:
    running = a_row(state="running", result="running", attempts=1, routing=(SONNET,), pull_request=None)
    assert change(None, running) == f"running on {SONNET} (rule high-priority-sonnet, attempt 1)"
    assert change(running, running) is None
    waiting = a_row(state="retry_wait", result="retry_wait", attempts=1, pull_request=None, cause="it broke")
    assert change(running, waiting) == "waits for the next attempt: it broke"
    assert change(waiting, a_row()) == "succeeded, draft pull request #9"


@pytest.mark.parametrize("hour", range(24))
def test_the_demo_is_always_played_at_noon(hour: int) -> None:
    now = datetime(2026, 3, 29, hour, 30, tzinfo=UTC) + timedelta(minutes=1)
    assert now.astimezone(ZoneInfo(where_it_is_noon(now))).hour == 12
