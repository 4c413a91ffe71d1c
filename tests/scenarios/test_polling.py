"""Listings that fail or lie, and repositories that break: nothing is concluded from them."""

from __future__ import annotations

from world import LABEL, LISTS, REPO, WAIT, WRITE, Result, World

from coordinator.demo.server import Fault, FaultKind

DONE = Result(state="succeeded", outcomes=("succeeded",), pulls=1, label="done")


def test_a_deleted_issue_ends_its_run(world: World) -> None:
    number = world.issue(WAIT)
    world.start()
    world.until_working(number)
    world.server.delete_issue(REPO, number)
    world.until(lambda: world.task(number).state == "cancelled", "it is cancelled")  # type: ignore[union-attr]
    world.until_quiet()

    assert [run.outcome for run in world.runs(number)] == ["cancelled"]


def test_a_renamed_repository_goes_on_under_its_new_name(world: World) -> None:
    number = world.issue(WAIT)
    world.start()
    world.until_working(number)
    world.server.rename_repo(REPO, "octo/renamed")
    later = world.server.add_issue("octo/renamed", title="Later", body=WRITE, author="ada", labels=[LABEL])
    world.until_state(later, "succeeded")

    assert world.task(number).state == "running"  # type: ignore[union-attr]
    assert world.starts(number) == 1
    assert len([pull for pull in world.server.pulls("octo/renamed") if pull.head == f"auto/gh-{later}"]) == 1


def test_a_repository_whose_git_server_is_gone_fails_alone(a_world) -> None:
    world: World = a_world(
        repositories=[{"owner": "octo", "name": "broken", "remote_url": "/nowhere/at/all.git"}],
        coordinator={"max_attempts": 2},
    )
    world.add_repo("octo/broken")
    broken = world.issue(WRITE, repo="octo/broken")
    number = world.issue(WRITE)
    world.start()
    world.until_state(number, "succeeded")
    world.until_state(broken, "failed", "octo/broken")

    assert world.result(number) == DONE
    assert world.result(broken, "octo/broken") == Result(
        state="failed", outcomes=("failed", "failed"), attempts=2, label="failed"
    )
    assert {run.failure_class for run in world.runs(broken, "octo/broken")} == {"workspace"}


def test_issues_seen_in_one_poll_start_in_the_order_of_their_numbers(a_world) -> None:
    world: World = a_world(coordinator={"max_concurrent_workers": 1})
    numbers = [world.issue("[[agent: no-op]]") for _ in range(5)]
    for _ in range(200):  # four pages of history: who labelled the first one is known last
        world.server.add_label(REPO, numbers[0], "seen", actor="ada")
        world.server.remove_label(REPO, numbers[0], "seen", actor="ada")
    world.start()
    for number in numbers:
        world.until_state(number, "failed")

    in_order_of_start = sorted(numbers, key=lambda number: world.runs(number)[0].run_id)
    assert in_order_of_start == numbers


def test_a_listing_older_than_the_label_starts_the_text_that_the_label_approved(world: World) -> None:
    number = world.issue("[[agent: no-op]]")
    late = world.server.faults.add(Fault(match=LISTS, kind=FaultKind.LATE, seconds=60))
    world.start()
    world.until_hit(late)
    world.server.edit_issue(REPO, number, body=WRITE)
    world.relabel(number)
    world.server.release()
    world.until_state(number, "succeeded")
    assert world.result(number) == Result(state="succeeded", outcomes=("succeeded",), pulls=1, label="done")
