"""Changes to workflows, ownership, submodules, hooks, links and agent configuration wait for a person."""

from __future__ import annotations

import subprocess

import pytest
from world import MAINTAINER, REPO, STRANGER, World, program

APPROVE = "approve-changes"
WORKFLOW = """
import os
os.makedirs(".github/workflows", exist_ok=True)
open(".github/workflows/evil.yml", "w").write("on: push" + os.environ["COORDINATOR_ATTEMPT"])
"""
COMMITS_A_WORKFLOW = """
import os, subprocess
def sh(line): subprocess.run(line, shell=True, check=True)
os.makedirs(".github/workflows")
open(".github/workflows/x.yml", "w").write("on: push")
sh("git add -A && git commit -q -m a")
"""
ATTACKS = {
    "a workflow in other letters": (
        'import os; os.makedirs(".GitHub/WorkFlows"); open(".GitHub/WorkFlows/x.yml", "w").write("x")',
        ".GitHub/WorkFlows/x.yml",
    ),
    "a link out of the repository": (
        'import os; os.mkdir("d"); os.symlink("..", "d/up"); os.symlink("d/up/../secret", "innocent")',
        "innocent",
    ),
    "a workflow moved into place": (
        'import os; os.makedirs(".github/workflows"); os.rename("README.md", ".github/workflows/x.yml")',
        ".github/workflows/x.yml",
    ),
    "another repository inside": (
        (
            "import os; os.system('git init -q inner && cd inner && git -c user.name=a -c user.email=b'"
            "' commit -q --allow-empty -m x')"
        ),
        "inner",
    ),
    "a large file": ('open("big.bin", "wb").write(b"x" * 300_000)', "big.bin"),
    "a workflow that a later commit takes back": (
        COMMITS_A_WORKFLOW + 'sh("git rm -q -r .github && echo 1 > f && git add f && git commit -q -m b")',
        ".github/workflows/x.yml",
    ),
    "a base of its own making": (
        COMMITS_A_WORKFLOW + 'sh("git update-ref refs/remotes/origin/main HEAD && echo 1 > f")',
        ".github/workflows/x.yml",
    ),
}


def held(a_world, code: str, **content: object) -> tuple[World, int]:
    world: World = a_world(content=content) if content else a_world()
    world.write_config(**{"providers.claude-cli": program(code)})
    number = world.issue()
    world.start()
    world.until_state(number, "blocked")
    return world, number


def pushed(world: World, number: int) -> str | None:
    git_dir = world.folder / "github" / f"{REPO}.git"
    done = subprocess.run(
        ["git", "-C", str(git_dir), "rev-parse", "--verify", "-q", f"refs/heads/auto/gh-{number}"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or None


def until_it_waits_for_approval(world: World, number: int) -> None:
    """The comment names the commit, and what approvals there were is known."""
    world.until(
        lambda: (
            (task := world.task(number))
            and '"seen_event": null'
            not in (world.store.get_state(f"hold:{task.task_id}") or '"seen_event": null')
        ),
        "the hold is shown",
    )


def approve(world: World, number: int, by: str) -> None:
    world.github_clock.advance(2)
    world.server.add_label(REPO, number, APPROVE, actor=by)


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_is_pushed_before_a_person_has_seen_it(a_world, attack: str) -> None:
    code, path = ATTACKS[attack]
    world, number = held(a_world, code, max_file_mb=0.2)

    assert pushed(world, number) is None
    assert world.pulls(number) == []
    for said in (world.comment(number), world.cli("why", str(number))):
        assert path in said
        assert APPROVE in said


def test_a_permitted_person_has_just_that_commit_published_without_another_run(a_world) -> None:
    world, number = held(a_world, WORKFLOW)
    until_it_waits_for_approval(world, number)
    approve(world, number, MAINTAINER)
    world.until_state(number, "succeeded")

    assert (world.starts(number), len(world.pulls(number))) == (1, 1)
    task = world.task(number)
    assert task is not None
    events = [event.text for event in world.store.events_for(task.task_id, 20) if event.kind == "approved"]
    assert len(events) == 1
    assert str(pushed(world, number)) in events[0]
    assert MAINTAINER in events[0]


def test_a_strangers_approval_changes_nothing(a_world) -> None:
    world, number = held(a_world, WORKFLOW)
    until_it_waits_for_approval(world, number)
    approve(world, number, STRANGER)
    world.until_logged("approval not taken", by=STRANGER)

    assert (pushed(world, number), world.task(number).state) == (None, "blocked")


def test_an_approval_of_an_earlier_commit_is_none_of_a_later_one(a_world) -> None:
    world: World = a_world()
    world.write_config(**{"providers.claude-cli": program(WORKFLOW)})
    number = world.issue()
    world.server.add_label(REPO, number, APPROVE, actor=MAINTAINER)  # before anything was there to approve
    world.start()
    world.until_state(number, "blocked")
    until_it_waits_for_approval(world, number)
    world.until_polls(3)
    assert pushed(world, number) is None

    world.server.remove_label(REPO, number, APPROVE, actor=MAINTAINER)
    approve(world, number, MAINTAINER)
    world.until_state(number, "succeeded")
    assert pushed(world, number) is not None


def test_a_retry_makes_another_commit_that_waits_again(a_world) -> None:
    world, number = held(a_world, WORKFLOW.replace("COORDINATOR_ATTEMPT", "COORDINATOR_RUN_MARKER"))
    first = world.comment(number)
    world.cli("retry", str(number))
    world.until(lambda: world.starts(number) == 2 and world.comment(number) != first, "it ran again")
    world.until_state(number, "blocked")

    assert pushed(world, number) is None


def test_the_operator_can_let_a_path_through(a_world) -> None:
    world: World = a_world(content={"allowed": [".github/workflows/evil.yml"]})
    world.write_config(**{"providers.claude-cli": program(WORKFLOW)})
    number = world.issue()
    world.start()
    world.until_state(number, "succeeded")
    assert pushed(world, number) is not None


def test_whoever_approves_is_told_what_why_how_much_and_can_read_it_all(a_world) -> None:
    code = (
        "import os\nos.makedirs('.github/workflows')\n"
        "text = 'on: push\\n' + '\\x1b[2J' + 'x' * 1000 + '\\n' * 3000\n"
        "open('.github/workflows/ci.yml', 'w').write(text)\n"
        "open('honest.txt', 'w').write('honest words')\nprint('done')\n"
    )
    world, number = held(a_world, code)
    for said in (world.comment(number), world.cli("why", str(number))):
        assert ".github/workflows/ci.yml (runs in CI)" in said
        assert "2 files, 4.0 kB in all" in said
        assert f"`coordinator content {number}` shows it as a patch" in said
    world.stop()  # it needs no daemon
    shown = world.cli("content", f"octo/hello#\u200b{number}")  # as it may be copied from a comment
    assert "! .github/workflows/ci.yml (runs in CI)" in shown
    assert "+on: push" in shown
    assert "\x1b" not in shown
    assert "more lines: --lines 0 shows all" in shown
    assert "+honest words" in world.cli("content", str(number), "--lines", "0")
    data = world.cli("content", str(number), "--lines", "1", "--json")
    assert (data["files"], data["approved_by"], len(data["patch"].split("\n"))) == (2, None, 1)
    assert pushed(world, number) is None
    other = world.issue()
    assert "There is no task" in world.output("content", str(other))
