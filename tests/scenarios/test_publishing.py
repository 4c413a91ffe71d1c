"""GitHub limits, fails or lies while the result is being published; nothing is written twice."""

from __future__ import annotations

import asyncio

import pytest
from world import REPO, WAIT, WRITE, Result, World

from coordinator.demo.server import Fault, FaultKind, secondary_limit

DONE = Result(state="succeeded", outcomes=("succeeded",), pulls=1, label="done")
PULLS = "POST /repos/octo/hello/pulls"
COMMENTS = "POST /repos/octo/hello/issues/*/comments"
LATER = "will publish later"


@pytest.mark.parametrize(
    ("status", "match"), [(403, PULLS), (429, COMMENTS), (403, "PATCH /repos/octo/hello/issues/comments/*")]
)
def test_a_limit_while_publishing_is_waited_out_with_no_request_before_its_time(
    world: World, status: int, match: str
) -> None:
    number = world.issue(WRITE)
    limit = world.server.faults.add(secondary_limit(match, status=status, retry_after=1))
    world.start()
    world.until_hit(limit)
    world.until_state(number, "succeeded")

    assert world.result(number) == DONE
    limited_at = next(request.at for request in world.server.requests if request.status == status)
    gaps = [request.at - limited_at for request in world.server.requests if request.at > limited_at]
    on_their_way_already = 0.1
    assert all(gap < on_their_way_already or gap >= 0.95 for gap in gaps)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param({"status": 500}, id="500"),
        pytest.param({"status": 502}, id="502"),
        pytest.param({"kind": FaultKind.DISCONNECT}, id="connection cut before"),
        pytest.param({"kind": FaultKind.AFTER_COMMIT, "status": 0}, id="connection cut after"),
        pytest.param({"kind": FaultKind.AFTER_COMMIT, "status": 502}, id="502 after"),
        pytest.param({"kind": FaultKind.TRUNCATED_JSON}, id="answer cut"),
        pytest.param({"kind": FaultKind.HTML_200}, id="a proxy's page"),
    ],
)
def test_a_write_of_unknown_fate_is_looked_up_before_it_is_repeated(world: World, damage: dict) -> None:
    number = world.issue(WRITE)
    faults = [world.server.faults.add(Fault(match=match, **damage)) for match in (COMMENTS, PULLS)]
    world.start()
    for kind in ("report", "pull_request"):
        world.until_logged(LATER, item=kind)
    world.advance(20)
    world.until_state(number, "succeeded")

    assert [world.server.faults.hits(fault) for fault in faults] == [1, 1]
    assert world.result(number) == DONE
    assert world.starts(number) == 1


def test_work_that_github_refuses_for_good_is_kept_and_asks_for_a_human(world: World) -> None:
    number = world.issue(WRITE)
    world.server.faults.add(Fault(match=PULLS, status=404, body={"message": "Not Found"}, times=None))
    world.start()
    world.until_state(number, "blocked")

    assert world.result(number) == Result(state="blocked", outcomes=("succeeded",), label="blocked")
    assert "could not be published" in world.comment(number)
    assert world.server.branch_sha(REPO, f"auto/gh-{number}")

    world.server.faults.clear()
    world.cli("retry", str(number))
    world.until_state(number, "succeeded")
    assert world.result(number) == Result(
        state="succeeded", outcomes=("succeeded", "succeeded"), pulls=1, label="done"
    )


def test_a_comment_that_a_human_deleted_is_written_once_more(a_world) -> None:
    world: World = a_world()
    world.use_gated_agent()
    number = world.issue()
    world.start()
    world.until_working(number)
    world.until_state(number, "running")
    (comment,) = world.comments(number)
    world.server.delete_comment(REPO, comment.id)
    world.open_gate()
    world.until_state(number, "succeeded")

    assert world.result(number) == DONE


def test_a_pull_request_that_the_look_up_missed_is_taken_over(world: World) -> None:
    number = world.issue(WRITE)
    missed = world.server.faults.add(Fault(match="GET /repos/octo/hello/pulls", status=200, body=b"[]"))
    world.server.faults.add(Fault(match=PULLS, kind=FaultKind.AFTER_COMMIT, status=422, body=_EXISTS))
    world.start()
    world.until_state(number, "succeeded")

    assert world.server.faults.hits(missed) == 1
    assert world.result(number) == DONE


def test_a_sender_that_is_ended_in_the_moment_of_news_ends(a_world) -> None:
    """As when the end of the last run is both the news and what an interrupted daemon has waited for."""
    world: World = a_world(github={"report_delay_seconds": 3600})  # something to wait for
    number = world.issue(WAIT)
    daemon = world.start()
    world.until_working(number)

    async def news_and_end() -> bool:
        sender = asyncio.create_task(daemon.outbox.run())
        for _ in range(5):  # turns of the loop, until it waits
            await asyncio.sleep(0)
        daemon.outbox.kick()
        sender.cancel()
        ended, _ = await asyncio.wait({sender}, timeout=2)
        sender.cancel()
        return bool(ended)

    assert world.inside is not None
    assert asyncio.run_coroutine_threadsafe(news_and_end(), world.inside.loop).result(10)


_EXISTS: dict[str, object] = {
    "message": "Validation Failed",
    "errors": [
        {"resource": "PullRequest", "code": "custom", "message": "A pull request already exists for octo:x."}
    ],
}
