"""Rule 18: what runs leave behind goes by age and size; nothing live, and no work, goes with it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from world import WAIT, WRITE, World

from coordinator.housekeeping import Facts, HousekeepingDue, holds_work, sweep_of, unneeded
from coordinator.store import EndedRun, StatePaths
from coordinator.trash import Trash

DAY = 86_400


def _tidy(world: World) -> None:
    """Have the daemon look now, and wait until it has looked."""
    assert world.inside is not None
    daemon = world.inside.daemon
    (world.state_dir / "trash").mkdir(exist_ok=True)
    mark = world.state_dir / "trash" / "mark"
    mark.touch()
    world.inside.call(daemon.wake, HousekeepingDue())
    world.until(lambda: not mark.exists(), "the trash was emptied")
    world.until(lambda: daemon.housekeeping._running is None, "it is done")


def _files(world: World, name: str) -> set[str]:
    return {path.name for path in (world.state_dir / "runs" / name).glob("*")}


def test_old_runs_and_logs_go_and_a_live_run_keeps_all_it_has(world: World) -> None:
    done = world.issue(WRITE)
    world.start()
    world.until_state(done, "succeeded")
    live = world.issue(WAIT)
    world.until_working(live)
    log = world.state_dir / "logs" / f"gh-{live}.jsonl"
    world.until(log.exists, "it has printed something")
    before = _files(world, f"gh-{live}.1")
    world.clock.advance(100 * DAY)
    old = time.time() - 200 * DAY  # noqa: TID251  the file system's own clock
    for path in (world.state_dir / "logs").rglob("*.jsonl"):
        os.utime(path, (old, old))
    _tidy(world)

    assert _files(world, f"gh-{done}.1") <= {"lock", "started", "exit", "summary.json"}
    assert _files(world, f"gh-{live}.1") == before
    assert not (world.state_dir / "logs" / f"gh-{done}.jsonl").exists()
    assert log.exists()
    assert world.live()
    assert any(line["bytes"] > 0 for line in world.events("removed"))


def test_a_directory_that_somebody_holds_stays_whatever_the_store_says(world: World) -> None:
    number = world.issue(WAIT)
    world.start()
    world.until_working(number)
    path = world.state_dir / "runs" / f"gh-{number}.1"
    before = _files(world, path.name)
    assert world.inside is not None
    services = world.inside.daemon.services
    said = EndedRun(
        task=f"gh-{number}", run_dir=str(path), finished_at=datetime(2020, 1, 1, tzinfo=UTC), is_newest=False
    )
    known = Facts(
        now=world.clock(),
        keep=services.settings.housekeeping,
        ended=[said],
        busy=frozenset(),
        finished=[],
        names=[],
        repositories=frozenset(),
    )
    sweep_of(services, StatePaths(world.state_dir), known).runs()

    assert _files(world, path.name) == before


def test_the_disk_does_not_fill_however_many_runs_there_are(a_world) -> None:
    world: World = a_world(housekeeping={"keep_runs_mb": 1})
    numbers = [world.issue(WRITE) for _ in range(6)]
    world.start()
    for number in numbers:
        world.until_state(number, "succeeded")
        (world.state_dir / "runs" / f"gh-{number}.1" / "output.log").write_bytes(b"x" * 600_000)
    _tidy(world)

    left = [path for path in (world.state_dir / "runs").glob("*/output.log") if path.stat().st_size > 500_000]
    assert len(left) == 1
    assert world.starts(numbers[0]) == 1  # that it has been is not forgotten


def test_work_that_is_not_on_github_stays_however_old_it_is(world: World) -> None:
    world.use_gated_agent()
    number = world.issue()
    world.start()
    world.until_working(number)
    tree = world.state_dir / "trees" / f"gh-{number}"
    (tree / "only-here.txt").write_text("the only copy")
    world.cli("cancel", str(number))
    world.until_state(number, "cancelled")
    quarantined = world.state_dir / "quarantine" / "20200101T000000Z-gh-9"
    (quarantined / "src").mkdir(parents=True)
    (quarantined / "src" / "a.py").write_text("work")
    reason = quarantined.with_name(f"{quarantined.name}.reason.txt")
    reason.write_text("HEAD is detached")
    os.utime(reason, (0, 0))
    world.clock.advance(1000 * DAY)
    _tidy(world)

    assert (tree / "only-here.txt").read_text() == "the only copy"
    assert (quarantined / "src" / "a.py").exists()


def test_a_mirror_that_nobody_has_configured_goes_unless_it_holds_a_branch_of_ours(world: World) -> None:
    repos = world.state_dir / "repos" / "gone"
    for name in ("empty", "branch", "packed", "worktree"):
        for folder in ("objects", "refs/heads", "refs/remotes/origin"):
            (repos / f"{name}.git" / folder).mkdir(parents=True)
        (repos / f"{name}.git" / "refs/remotes/origin/main").write_text("0" * 40)
    (repos / "branch.git" / "refs/heads/auto").mkdir()
    (repos / "branch.git" / "refs/heads/auto/gh-1").write_text("0" * 40)
    (repos / "packed.git" / "packed-refs").write_text(f"# pack-refs\n{'0' * 40} refs/quarantine/x\n")
    (repos / "worktree.git" / "worktrees" / "gh-1").mkdir(parents=True)
    number = world.issue(WRITE)
    world.start()
    world.until_state(number, "succeeded")
    _tidy(world)

    assert {path.name for path in repos.iterdir()} == {"branch.git", "packed.git", "worktree.git"}
    assert (world.state_dir / "repos/octo/hello.git/HEAD").exists()


def test_only_what_holds_no_work_is_ever_taken_from_quarantine(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    (tmp_path / "mirror/objects").mkdir(parents=True)
    (tmp_path / "mirror/refs").mkdir()
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/.git").write_text("gitdir: /elsewhere")
    (tmp_path / "unknown").mkdir()
    (tmp_path / "unknown/file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    assert {path.name for path in unneeded(tmp_path)} == {"nothing", "mirror"}
    assert not holds_work(tmp_path / "mirror")


_TAKE = """
import sys
from pathlib import Path
from coordinator.store import EndedRun, StatePaths
from coordinator.trash import Trash
print("ready", flush=True)
Trash(Path(sys.argv[1]) / "trash").take(Path(sys.argv[1]) / "run")
"""


def test_a_removal_that_is_killed_leaves_all_or_nothing(tmp_path: Path) -> None:
    for number in range(4):
        root = tmp_path / str(number)
        (root / "run").mkdir(parents=True)
        for name in range(3000):
            (root / "run" / str(name)).touch()
        process = subprocess.Popen(
            [sys.executable, "-c", _TAKE, str(root)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        until = time.monotonic() + 5
        while number and (root / "run").exists() and time.monotonic() < until:
            pass  # the first is killed as it begins, the others once the directory has gone
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        left = len(list((root / "run").iterdir())) if (root / "run").exists() else 0
        assert left in {0, 3000}
        Trash(root / "trash").empty()
        assert list((root / "trash").glob("*")) == []


def test_a_link_takes_nothing_with_it_and_missing_rights_stop_nobody(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("stays")
    run = tmp_path / "run"
    (run / "locked").mkdir(parents=True)
    (run / "locked" / "file").touch()
    (run / "link").symlink_to(precious)
    (run / "locked").chmod(0)
    Trash(tmp_path / "trash").take(run)
    assert (precious / "file").read_text() == "stays"
    assert not run.exists()
    assert list((tmp_path / "trash").iterdir()) == []


SOON = {
    "enabled": False,
    "keep_runs_days": 1e-9,
    "keep_logs_days": 1e-9,
    "keep_quarantine_days": 1e-9,
    "keep_events_days": 1e-9,
}


def _one_of_each(world: World) -> dict[str, int]:
    """Tasks with a pushed, an uncommitted, an unpushed, a blocked and a live worktree; no daemon any more."""
    world.use_gated_agent()
    world.open_gate()
    numbers = {kind: world.issue() for kind in ("pushed", "uncommitted", "unpushed", "blocked")}
    world.start()
    for number in numbers.values():
        world.until_state(number, "succeeded")
    (world.folder / "gate").unlink()
    for number in numbers.values():
        world.relabel(number)
        world.until_working(number)
    for kind, number in numbers.items():
        tree = world.state_dir / "trees" / f"gh-{number}"
        if kind in ("unpushed", "blocked"):
            (tree / "only-here.txt").write_text("the only copy")
        if kind == "blocked":
            (tree / "BLOCKED.md").write_text("Which one?")
        if kind == "unpushed":
            subprocess.run(["git", "add", "--all"], cwd=tree, check=True)
            who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
            subprocess.run(["git", *who, "commit", "--quiet", "-m", "Only here"], cwd=tree, check=True)
        if kind != "blocked":
            world.cli("cancel", str(number))
            world.until_state(number, "cancelled")
    world.open_gate()
    world.until_state(numbers["blocked"], "blocked")
    (world.folder / "gate").unlink()
    numbers["live"] = world.issue()
    world.until_working(numbers["live"])
    world.until(lambda: not world.store.tasks_with_news(), "GitHub has been told")
    world.stop()
    tree = world.state_dir / "trees" / f"gh-{numbers['uncommitted']}"
    (tree / "only-here.txt").write_text("the only copy")  # while a daemon runs it would be committed
    return numbers


def _all_paths(world: World) -> set[str]:
    """All but the database and what git rewrites as it looks."""
    folders = ("runs", "trees", "logs", "repos", "quarantine", "trash")
    return {str(path) for name in folders for path in (world.state_dir / name).rglob("*")}


def test_an_operator_is_shown_what_would_go_and_no_work_goes_with_it(a_world) -> None:
    world: World = a_world(housekeeping=SOON, coordinator={"max_concurrent_workers": 6})
    numbers = _one_of_each(world)
    trees = {kind: world.state_dir / "trees" / f"gh-{number}" for kind, number in numbers.items()}
    live = _files(world, f"gh-{numbers['live']}.1")
    before = _all_paths(world)

    planned = world.cli("housekeeping", "--dry-run", "--json")
    assert _all_paths(world) == before
    assert planned["dry_run"] is True
    done = world.cli("housekeeping", "--json")
    shown = [(each["what"], each["path"]) for each in planned["removed"]]
    assert [(each["what"], each["path"]) for each in done["removed"]] == shown
    assert done["resisted"] == []
    assert {what for what, _ in shown} >= {"run directory", "part of a run directory", "worktree", "log"}

    worktrees = [path for what, path in shown if what == "worktree"]
    assert worktrees == [str(trees["pushed"])]
    assert not trees["pushed"].exists()
    for kind in ("uncommitted", "unpushed", "blocked"):
        assert (trees[kind] / "only-here.txt").read_text() == "the only copy"
    assert (trees["blocked"] / "BLOCKED.md").exists()
    assert trees["live"].exists()
    assert _files(world, f"gh-{numbers['live']}.1") == live
    assert len(world.live()) == 1
    again = world.cli("housekeeping", "--json")
    assert [each for each in again["removed"] if each["what"] != "lines of history"] == []
    world.start()  # nothing that a daemon needs went
    world.open_gate()
    world.until_state(numbers["live"], "succeeded")


def test_a_running_daemon_does_it_itself_when_an_operator_asks(a_world) -> None:
    world: World = a_world(housekeeping=SOON)
    number = world.issue(WRITE)
    world.start()
    world.until_state(number, "succeeded")
    world.until(lambda: not world.store.tasks_with_news(), "GitHub has been told")
    output = world.state_dir / "runs" / f"gh-{number}.1" / "output.log"
    assert output.exists()
    said = world.cli("housekeeping", "--json")
    assert said["said"] == "It is being done; `coordinator logs` shows each removal."
    world.until(lambda: not output.exists(), "the run directory was emptied")
    world.until(lambda: world.events("removed"), "it was told")
    assert world.store.find_task("octo/hello", number)


def test_logs_of_tasks_and_calls_go_oldest_first_beyond_their_size(a_world) -> None:
    world: World = a_world(housekeeping={"enabled": False, "keep_logs_mb": 1, "keep_logs_days": 0})
    numbers = [world.issue(WRITE) for _ in range(3)]
    world.start()
    for number in numbers:
        world.until_state(number, "succeeded")
    world.until(lambda: not world.store.tasks_with_news(), "GitHub has been told")
    world.stop()
    logs = world.state_dir / "logs"
    calls = logs / "api" / "api-calls-2020-01-01.jsonl"
    calls.write_bytes(b"x" * 600_000)
    os.utime(calls, (1, 1))
    for age, number in enumerate(numbers):
        path = logs / f"gh-{number}.jsonl"
        path.write_bytes(b"x" * 450_000)
        os.utime(path, (1000 - age, 1000 - age))
    foreign = logs / "somebody-elses.jsonl"
    foreign.write_bytes(b"x" * 2_000_000)
    world.cli("housekeeping")

    assert not calls.exists()
    assert [(logs / f"gh-{number}.jsonl").exists() for number in numbers] == [True, True, False]
    assert foreign.exists()


def test_lines_of_history_go_by_age_and_only_those_of_finished_tasks(a_world) -> None:
    world: World = a_world(housekeeping=SOON)
    world.use_gated_agent()
    world.open_gate()
    done = world.issue()
    world.start()
    world.until_state(done, "succeeded")
    (world.folder / "gate").unlink()
    live = world.issue()
    world.until_working(live)
    world.until(lambda: not world.store.tasks_with_news(), "GitHub has been told")
    world.stop()
    tasks = {number: world.task(number) for number in (done, live)}
    kept = world.store.events_for(tasks[live].task_id, limit=99)
    admitted = world.store.decisions_of(tasks[done].task_id, limit=9)
    world.cli("housekeeping")

    assert world.store.events_for(tasks[done].task_id, limit=99) == []
    assert world.store.events_for(tasks[live].task_id, limit=99) == kept
    assert kept
    assert world.store.decisions_of(tasks[done].task_id, limit=9) == admitted  # the record of who was let in
    assert admitted


def test_doctor_says_what_lies_in_quarantine_since_when_and_what_to_do(world: World) -> None:
    number = world.issue(WRITE)
    world.start()
    world.until_state(number, "succeeded")
    assert "quarantine" not in world.output("doctor")
    folder = world.state_dir / "quarantine"
    for name, reason in (("20260203T040506Z-gh-9", "HEAD is detached"), ("20260301T000000Z-gh-8", "later")):
        (folder / name).mkdir()
        (folder / name / "work").write_bytes(b"x" * 1_000_000)
        (folder / f"{name}.reason.txt").write_text(f"{reason}\x1b[2J\nIt was at /somewhere\n")
    (folder / "link").symlink_to("/")  # is not followed, and not counted with what it leads to
    said = [each for each in json.loads(_json_of(world, "doctor")) if each["check"] == "quarantine"]

    assert len(said) == 1
    assert said[0]["ok"] is None
    assert (
        "keeps 3 entries with 2.0 MB, since 2026-02-03; 20260203T040506Z-gh-9: HEAD is detached"
        in said[0]["text"]
    )
    assert "\x1b" not in said[0]["text"]
    assert "docs/operations.md#quarantine" in said[0]["mend"]


def _json_of(world: World, *arguments: str) -> str:
    """What a verb prints for programs, however it ends."""
    text = world.output(*arguments, "--json")
    return text[: text.rindex("]") + 1]
