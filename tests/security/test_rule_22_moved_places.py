"""Rule 22: issues and repositories that move, change kind or are replaced: nothing happens elsewhere."""

from __future__ import annotations

import subprocess

import pytest
from world import BOT, LABEL, MAINTAINER, REPO, STRANGER, WRITE, World

OTHER = "octo/other"
NEW = "octo/renamed"


def _writes(world: World) -> list[str]:
    """What we wrote to GitHub, by method and path."""
    return [
        f"{each.method} {each.path}"
        for each in world.server.requests
        if each.method not in ("GET", "HEAD") and "graphql" not in each.path
    ]


def _branches(world: World, repo: str) -> str:
    done = subprocess.run(
        ["git", "-C", world.server.git_url(repo), "for-each-ref", "--format=%(refname)"],
        capture_output=True, text=True, check=True, timeout=10,
    )  # fmt: skip
    return done.stdout


def _replace_repository(world: World) -> int:
    """Ours is renamed, and a stranger makes another one under its old name, with themselves as admin.

    Returns the id of the new one.
    """
    world.server.rename_repo(REPO, NEW)
    made = world.server.add_repo(REPO)
    for login, role in ((BOT, "write"), (STRANGER, "admin"), (MAINTAINER, "write")):
        world.server.set_permission(REPO, login, role)
    return made


def _evil_issue(world: World) -> int:
    return world.server.add_issue(
        REPO, title="Mine", body=WRITE, author=STRANGER, labels=[LABEL], labelled_by=STRANGER
    )


def test_a_repository_that_takes_the_place_of_another_is_not_worked_on(world: World) -> None:
    world.use_gated_agent()
    number = world.issue()
    world.start()
    world.until_working(number)
    world.until(lambda: world.comments(number), "it was told")
    new_id = _replace_repository(world)
    world.server.clear_requests()
    assert _evil_issue(world) == number  # the very number of ours
    world.until(
        lambda: any(str(new_id) in line["error"] for line in world.events("poll failed")), "it is seen"
    )
    world.open_gate()
    world.until(lambda: world.task(number).state.value == "blocked", "nothing was published")

    assert world.task(number).snapshot_title == "Say hello"
    assert world.starts(number) == 1
    assert [each for each in _writes(world) if "issues" in each or "pulls" in each] == []
    for place in (REPO, NEW):
        assert f"auto/gh-{number}" not in _branches(world, place)
    assert "is another repository" in world.cli("why", str(number))
    assert (world.state_dir / "trees" / f"gh-{number}").exists()  # the work is kept
    assert "is not configured" in world.output("accept", NEW)
    world.cli("accept", REPO)
    world.until_polls(3)
    world.until(lambda: world.store.find_task(REPO, number)[-1].snapshot_title == "Mine", "it is taken up")


def test_a_stranger_gets_nothing_started_in_a_repository_that_was_replaced_while_no_daemon_ran(
    world: World,
) -> None:
    number = world.issue(WRITE)
    world.start()
    world.until_state(number, "succeeded")
    world.until(lambda: not world.store.tasks_with_news(), "GitHub has been told")
    world.stop()
    _replace_repository(world)
    evil = _evil_issue(world)
    world.server.clear_requests()
    world.start()
    world.until(lambda: world.events("poll failed"), "it is seen")
    assert world.starts(evil) == (1 if evil == number else 0)
    assert [each for each in _writes(world) if "issues" in each] == []
    assert "is another repository than before" in world.events("poll failed")[0]["error"]


@pytest.mark.parametrize("how", ["transferred", "deleted"])
def test_an_issue_that_is_gone_is_worked_on_nowhere(world: World, how: str) -> None:
    """A discussion made of an issue looks like a deleted one to the interface of issues."""
    world.add_repo(OTHER)
    world.use_gated_agent()
    number = world.issue()
    world.start()
    world.until_working(number)
    world.until(lambda: world.comments(number), "it was told")
    world.server.clear_requests()
    if how == "transferred":
        world.server.transfer_issue(REPO, number, OTHER)
    else:
        world.server.delete_issue(REPO, number)
    world.until(lambda: world.task(number).state.value == "cancelled", "the work has ended")
    world.until_quiet()
    world.open_gate()

    assert how in world.cli("why", str(number))
    for place in (REPO, OTHER):
        assert f"auto/gh-{number}" not in _branches(world, place)
    assert [each for each in _writes(world) if OTHER in each or "pulls" in each] == []


def test_a_label_on_a_pull_request_starts_nothing(world: World) -> None:
    world.server.push_branch(REPO, "theirs", {"a.txt": "x"})
    pull = world.server.add_pull(
        REPO, head="theirs", title="Look", body=WRITE, labels=[LABEL], author=MAINTAINER
    )
    number = world.issue(WRITE)
    world.start()
    world.until_state(number, "succeeded")
    assert world.task(pull) is None
    assert "There is no task" in world.output("why", str(pull))
    assert [each for each in _writes(world) if f"/issues/{pull}/" in each] == []


def test_a_locked_issue_is_worked_on_by_whoever_may_write_there(world: World) -> None:
    number = world.issue(WRITE)
    world.server.lock_issue(REPO, number)
    world.start()
    world.until_state(number, "succeeded")
    assert len(world.comments(number)) == 1


def test_a_renamed_repository_is_the_same_one_and_its_work_arrives_there(world: World) -> None:
    world.use_gated_agent()
    number = world.issue()
    world.start()
    world.until_working(number)
    world.server.rename_repo(REPO, NEW)
    world.open_gate()
    world.until(lambda: world.server.pulls(NEW), "it is published")
    assert f"auto/gh-{number}" in _branches(world, NEW)
    assert world.events("poll failed") == []
