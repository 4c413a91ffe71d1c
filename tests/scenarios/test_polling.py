"""Listings that fail or lie, and repositories that break: nothing is concluded from them."""

from __future__ import annotations

import pytest
from world import LABEL, LISTS, REPO, WAIT, WRITE, Result, World

from coordinator.demo.server import Fault, FaultKind

RUNNING = Result(state="running", outcomes=("running",), label="running")
QUEUED = Result(state="queued", outcomes=(), attempts=0, label="queued")
DONE = Result(state="succeeded", outcomes=("succeeded",), pulls=1, label="done")


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param({"status": 301, "headers": {"Location": "/nowhere"}}, id="301"),
        pytest.param({"status": 304}, id="304 to nobody's question"),
        pytest.param({"status": 403}, id="403"),
        pytest.param({"status": 403, "headers": {"Retry-After": "1"}}, id="403 limit"),
        pytest.param({"status": 404}, id="404"),
        pytest.param({"status": 410}, id="410"),
        pytest.param({"status": 429, "headers": {"Retry-After": "1"}}, id="429"),
        pytest.param({"status": 500}, id="500"),
        pytest.param({"status": 503}, id="503"),
        pytest.param({"status": 200, "body": b"[]"}, id="an empty list"),
        pytest.param({"status": 200, "body": b"{}"}, id="not a list"),
        pytest.param({"kind": FaultKind.TRUNCATED_JSON}, id="cut JSON"),
        pytest.param({"kind": FaultKind.HTML_200}, id="a proxy's page"),
        pytest.param({"kind": FaultKind.DISCONNECT}, id="cut connection"),
        pytest.param({"kind": FaultKind.TIMEOUT, "seconds": 60.0}, id="no answer"),
    ],
)
def test_a_damaged_listing_cancels_claims_and_doubles_nothing(a_world, damage: dict) -> None:
    world: World = a_world(coordinator={"max_concurrent_workers": 1}, github={"request_timeout_seconds": 1})
    running = world.issue(WAIT)
    world.start()
    world.until_working(running)
    queued = world.issue(WRITE)
    world.until_state(queued, "queued")
    fault = world.server.faults.add(Fault(match=LISTS, times=None, **damage))
    world.issue(WRITE)  # seen only when the listing works again
    world.until(lambda: world.server.faults.hits(fault) >= 2, "two damaged listings")
    world.until_state(running, "running")

    assert world.result(running) == RUNNING
    assert world.result(queued) == QUEUED
    assert (world.starts(running), world.starts(queued)) == (1, 0)
    assert len(world.store.tasks()) == 2

    world.server.faults.clear()
    world.server.release()
    world.until(lambda: len(world.store.tasks()) == 3, "the listing works again")
    assert world.result(running) == RUNNING
    assert world.result(queued) == QUEUED


def test_an_issue_missing_from_the_list_is_not_cancelled_while_github_cannot_confirm_it(world: World) -> None:
    number = world.issue(WAIT)
    world.start()
    world.until_working(number)
    world.server.faults.add(Fault(match=LISTS, status=200, body=b"[]", times=None))
    unsure = world.server.faults.add(Fault(match=f"{LISTS}/{number}", status=500, times=None))
    world.until(lambda: world.server.faults.hits(unsure) >= 2, "GitHub was asked twice")

    assert world.result(number) == RUNNING


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


@pytest.mark.parametrize("status", [401, 404, 410, 500])
def test_a_broken_repository_does_not_stop_another(a_world, status: int) -> None:
    world: World = a_world(repositories=[{"owner": "octo", "name": "broken"}])
    world.add_repo("octo/broken")
    fault = world.server.faults.add(Fault(match="* /repos/octo/broken*", status=status, times=None))
    waiting = world.issue(WRITE, repo="octo/broken")
    number = world.issue(WRITE)
    world.start()
    world.until_state(number, "succeeded")
    world.until(lambda: world.server.faults.hits(fault) >= 2, "the broken one was asked twice")

    assert world.result(number) == DONE
    assert len(world.events("poll failed")) == 1
    world.server.faults.clear()
    world.until_state(waiting, "succeeded", "octo/broken")
    assert world.result(waiting, "octo/broken") == DONE


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
