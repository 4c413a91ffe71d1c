"""Rule 20: no request leaves before the moment that GitHub's limit names, whoever in the process asks.

The server is the witness: it counts what arrives. Single waits are in tests/adapters/test_github_limits.py,
limits during a publication in tests/scenarios/test_publishing.py.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from github_app import install, key, private_pem
from world import REPO, Fault, World

from adw_modules.errors import GitHubRefused, GitHubUnavailable
from coordinator.demo.server import GitHubServer
from coordinator.github import GitHub
from coordinator.github.appkey import AppAccess

sys.path.insert(0, str(Path(__file__).parents[1] / "adapters"))

from github_scripted import START, HandSetClock, github_for

OTHER = "octo/other"
SECONDARY = {"message": "You have exceeded a secondary rate limit. Please wait before you try again."}
PRIMARY = {"message": "API rate limit exceeded for user ID 1."}
GRAPHQL = {"data": None, "errors": [{"type": "RATE_LIMITED", "message": "API rate limit exceeded"}]}
GRAPHQL_SECONDARY = {"errors": [{"message": "You have exceeded a secondary rate limit."}]}


def spent(seconds: int, resource: str = "core") -> dict[str, str]:
    reset = str(int((START + timedelta(seconds=seconds)).timestamp()))
    named = {"Limit": "5000", "Remaining": "0", "Reset": reset, "Resource": resource}
    return {f"X-RateLimit-{name}": value for name, value in named.items()}


@pytest.fixture
def clock() -> HandSetClock:
    return HandSetClock()


@pytest.fixture
def server() -> Iterator[GitHubServer]:
    with GitHubServer() as server:
        for name in (REPO, OTHER):
            server.add_repo(name)
            server.set_permission(name, "bot", "write")
            server.add_issue(name, title="One", body="Text", author="ada", labels=["rpi-auto"])
        server.add_token("tok", "bot")
        yield server


def everything(github: GitHub) -> list[Callable[[], Coroutine[Any, Any, object]]]:
    """What pollers, admission, the outbox and the hints of webhooks ask, over two repositories."""
    return [
        lambda: github.poll(REPO, "rpi-auto"),
        lambda: github.poll(OTHER, "rpi-auto"),
        lambda: github.issue(REPO, 1),
        lambda: github.trigger(OTHER, 1, "rpi-auto"),
        lambda: github.permission(REPO, "ada"),
        lambda: github.text(OTHER, 1),
        lambda: github.is_public(REPO, now=True),
        lambda: github.find_comment(REPO, 1, "mark"),
        lambda: github.create_comment(OTHER, 1, "text"),
        lambda: github.edit_comment(REPO, 1, "text"),
        lambda: github.find_pull(OTHER, "auto/gh-1"),
        lambda: github.set_status_label(REPO, 1, "coordinator:", "coordinator:running", ()),
    ]


async def refused(ask: Callable[[], Coroutine[Any, Any, object]]) -> datetime | None:
    with pytest.raises(GitHubUnavailable) as caught:
        await ask()
    return caught.value.retry_at


def story(clock: HandSetClock, server: GitHubServer) -> GitHub:
    return github_for(server.api_url, clock, writes_per_minute=0)


@pytest.mark.parametrize(
    ("limit", "wait"),
    [
        pytest.param({"status": 403, "body": PRIMARY, "headers": spent(600)}, 601, id="403 primary"),
        pytest.param({"status": 429, "body": PRIMARY, "headers": spent(600)}, 601, id="429 primary"),
        pytest.param({"status": 403, "body": SECONDARY, "headers": {"Retry-After": "30"}}, 30, id="403 told"),
        pytest.param({"status": 429, "body": SECONDARY, "headers": {"Retry-After": "30"}}, 30, id="429 told"),
        pytest.param({"status": 403, "body": SECONDARY}, 60, id="403 untold"),
        pytest.param({"status": 429, "body": {}}, 60, id="429 untold"),
    ],
)
def test_a_limit_that_one_request_meets_holds_back_all_of_the_process_to_the_second(
    clock: HandSetClock, server: GitHubServer, limit: dict[str, Any], wait: int
) -> None:
    github = story(clock, server)

    async def tell() -> None:
        for ask in everything(github)[:2]:
            await ask()  # so that both repositories are known
        server.faults.add(Fault(match=f"GET /repos/{REPO}/issues/1", **limit))
        assert await refused(lambda: github.issue(REPO, 1)) == START + timedelta(seconds=wait)
        seen = len(server.requests)
        for ahead in (0.0, 1.0, wait / 2, wait - 0.001):
            clock.at = START + timedelta(seconds=ahead)
            # GraphQL has a quota of its own: only secondary limits are for everything.
            asked = everything(github)
            if "X-RateLimit-Reset" in limit.get("headers", {}):
                del asked[5]
            await asyncio.gather(*(refused(ask) for ask in asked))
        assert len(server.requests) == seen
        clock.at = START + timedelta(seconds=wait)
        await github.issue(REPO, 1)
        assert len(server.requests) == seen + 1

    asyncio.run(tell())
    github.close()


def test_untold_secondary_limits_wait_twice_as_long_each_time(
    clock: HandSetClock, server: GitHubServer
) -> None:
    github = story(clock, server)
    limit = server.faults.add(Fault(match="GET *", status=403, body=SECONDARY, times=None))

    async def tell() -> None:
        for hits, wait in enumerate((60, 120, 240, 480), start=1):
            until = await refused(lambda: github.issue(REPO, 1))
            assert until == clock() + timedelta(seconds=wait)
            clock.advance(wait - 1)
            await refused(lambda: github.poll(OTHER, "rpi-auto"))
            assert server.faults.hits(limit) == hits
            clock.advance(1)

    asyncio.run(tell())
    github.close()


def test_a_spent_quota_of_graphql_leaves_the_rest_alone_and_a_secondary_limit_there_does_not(
    clock: HandSetClock, server: GitHubServer
) -> None:
    github = story(clock, server)

    async def tell() -> None:
        await github.issue(REPO, 1)
        for body, headers, wait in (
            (GRAPHQL, spent(300, "graphql"), 301),
            (GRAPHQL_SECONDARY, {"Retry-After": "40"}, 40),
        ):
            began = clock()
            if "X-RateLimit-Reset" in headers:
                headers["X-RateLimit-Reset"] = str(int(began.timestamp()) + 300)
            limit = server.faults.add(Fault(match="POST /graphql", status=200, body=body, headers=headers))
            assert await refused(lambda: github.text(REPO, 1)) == began + timedelta(seconds=wait)
            clock.advance(wait - 1)
            await refused(lambda: github.text(OTHER, 1))
            assert server.faults.hits(limit) == 1
            if body is GRAPHQL:
                await github.issue(REPO, 1)
            else:
                await refused(lambda: github.issue(REPO, 1))
            clock.advance(1)
            assert await github.text(REPO, 1) is not None

    asyncio.run(tell())
    github.close()


def test_each_installation_of_an_app_has_limits_of_its_own(clock: HandSetClock, server: GitHubServer) -> None:
    far = "elsewhere/far"
    server.add_repo(far)
    server.add_issue(far, title="One", body="Text", author="ada")
    installed = install(server)
    server.install_app("coordinator-app", "elsewhere")
    github = GitHub(
        api_url=server.api_url,
        app=AppAccess(issuer=str(installed.app.id), key=key(), pem=private_pem(), home=REPO),
        now=clock,
        sleep=clock.sleep,
    )

    async def tell() -> None:
        for repo in (REPO, OTHER, far):
            await github.issue(repo, 1)
        server.faults.add(Fault(match="GET *", status=429, body=SECONDARY, headers={"Retry-After": "30"}))
        await refused(lambda: github.issue(REPO, 1))
        seen = len(server.requests)
        await refused(lambda: github.issue(OTHER, 1))
        assert len(server.requests) == seen
        await github.issue(far, 1)

    asyncio.run(tell())
    github.close()


def test_a_clock_that_is_set_back_neither_shortens_a_wait_nor_makes_it_longer(
    clock: HandSetClock, server: GitHubServer
) -> None:
    github = story(clock, server)
    back = timedelta(hours=-2)

    async def tell() -> None:
        await github.issue(REPO, 1)
        server.faults.add(Fault(match="GET *", status=429, body=SECONDARY, headers={"Retry-After": "30"}))
        await refused(lambda: github.issue(REPO, 1))
        clock.at += back
        github.clock_was_set_back(back)
        seen = len(server.requests)
        clock.advance(29)
        await refused(lambda: github.issue(REPO, 1))
        assert len(server.requests) == seen
        clock.advance(1)
        await github.issue(REPO, 1)

    asyncio.run(tell())
    github.close()


def test_a_plain_403_is_no_limit(clock: HandSetClock, server: GitHubServer) -> None:
    github = story(clock, server)
    server.faults.add(Fault(match="GET */permission", status=403, body={"message": "Must have push access"}))

    async def tell() -> None:
        with pytest.raises(GitHubRefused):
            await github.permission(REPO, "ada")
        await github.issue(REPO, 1)

    asyncio.run(tell())
    github.close()


def test_pollers_of_several_repositories_and_the_outbox_keep_still_together(a_world) -> None:
    world: World = a_world(repositories=[{"owner": "octo", "name": "other"}])
    world.add_repo(OTHER)
    number = world.issue("[[agent: write docs/guide.md]]")
    limit = world.server.faults.add(
        Fault(
            match="POST /repos/octo/hello/issues/*/comments",
            status=403,
            body=SECONDARY,
            headers={"Retry-After": "2"},
        )
    )
    world.start()
    world.until_hit(limit)
    limited_at = next(request.at for request in world.server.requests if request.status == 403)
    world.until_state(number, "succeeded")

    gaps = [each.at - limited_at for each in world.server.requests if each.at > limited_at]
    on_their_way_already = 0.1
    assert all(gap < on_their_way_already or gap >= 1.95 for gap in gaps)
    assert {each.path.split("/issues")[0] for each in world.server.requests if each.at > limited_at} >= {
        f"/repos/{REPO}",
        f"/repos/{OTHER}",
    }
