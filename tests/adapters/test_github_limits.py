"""GitHub's limits, with a clock that only the test moves."""

from __future__ import annotations

from datetime import datetime, timedelta
from email.utils import format_datetime

import pytest
from github_scripted import START, HandSetClock, Reply, ScriptedServer, github_for, run

from adw_modules.errors import GitHubRefused, GitHubUnavailable
from coordinator.github import GitHub
from coordinator.github.limiter import Limiter, WritePace, is_limit

SECONDARY = '{"message": "You have exceeded a secondary rate limit. Please wait a few minutes."}'
PRIMARY = '{"message": "API rate limit exceeded for user ID 1."}'
PLAIN = '{"message": "Resource not accessible by personal access token"}'
ME = Reply(200, {"login": "bot", "id": 5})


def at(moment: datetime) -> str:
    return str(int(moment.timestamp()))


def quota(remaining: int, reset_at: datetime, resource: str = "core") -> dict[str, str]:
    return {
        "x-ratelimit-remaining": str(remaining),
        "x-ratelimit-limit": "5000",
        "x-ratelimit-reset": at(reset_at),
        "x-ratelimit-resource": resource,
    }


def limited_until(
    limiter: Limiter, status: int, headers: dict[str, str], body: str, resource: str = "core"
) -> datetime | None:
    with pytest.raises(GitHubUnavailable) as caught:
        limiter.record(status, headers, body, resource=resource)
    return caught.value.retry_at


@pytest.mark.parametrize(
    ("status", "headers", "body", "limit"),
    [
        (429, {}, "", True),
        (429, {"retry-after": "5"}, SECONDARY, True),
        (403, {"retry-after": "5"}, PLAIN, True),
        (403, {"x-ratelimit-remaining": "0"}, "{}", True),
        (403, {"x-ratelimit-remaining": "4999"}, SECONDARY, True),
        (403, {}, '{"message": "You have triggered an abuse detection mechanism."}', True),
        (403, {"x-ratelimit-remaining": "4999"}, PLAIN, False),
        (403, {}, '{"documentation_url": "https://docs.github.com/rest/rate-limits"}', False),
        (404, {"x-ratelimit-remaining": "0"}, "", False),
        (200, {"x-ratelimit-remaining": "0"}, "", False),
    ],
)
def test_a_limit_is_told_from_a_plain_refusal(
    status: int, headers: dict[str, str], body: str, limit: bool
) -> None:
    assert is_limit(status, headers, body) is limit


@pytest.mark.parametrize(
    ("headers", "body", "seconds"),
    [
        ({"retry-after": "7"}, SECONDARY, 7),
        ({"retry-after": "0"}, SECONDARY, 1),
        ({"retry-after": "9999999999999"}, SECONDARY, 86_400),
        ({"retry-after": "soon"}, SECONDARY, 60),
        ({"retry-after": format_datetime(START + timedelta(seconds=90), usegmt=True)}, SECONDARY, 90),
        (quota(0, START + timedelta(seconds=600)), PRIMARY, 601),
        ({"retry-after": "5", **quota(0, START + timedelta(seconds=600))}, PRIMARY, 5),
        (quota(0, START - timedelta(seconds=600)), PRIMARY, 60),  # a clock that is ahead of GitHub's
        ({}, SECONDARY, 60),
    ],
)
def test_the_wait_is_the_one_github_asks_for(headers: dict[str, str], body: str, seconds: float) -> None:
    limiter = Limiter(HandSetClock())
    assert limited_until(limiter, 403, headers, body) == START + timedelta(seconds=seconds)


def test_secondary_limits_without_a_time_wait_longer_each_time_and_an_answer_ends_the_series() -> None:
    clock = HandSetClock()
    limiter = Limiter(clock)
    waits = []
    for _ in range(9):
        until = limited_until(limiter, 403, {}, SECONDARY)
        assert until is not None
        waits.append((until - clock()).total_seconds())
        clock.at = until
    assert waits == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]
    limiter.record(200, {}, "", resource="core")
    assert limited_until(limiter, 403, {}, SECONDARY) == clock() + timedelta(seconds=60)


def test_answers_of_one_burst_count_as_one_offence() -> None:
    limiter = Limiter(HandSetClock())
    untils = {limited_until(limiter, 429, {}, "") for _ in range(4)}
    assert untils == {START + timedelta(seconds=60)}


def test_a_primary_limit_blocks_its_resource_and_a_secondary_one_everything() -> None:
    clock = HandSetClock()
    limiter = Limiter(clock)
    limited_until(limiter, 403, quota(0, START + timedelta(seconds=60), "search"), PRIMARY, "search")
    limiter.check("core")
    with pytest.raises(GitHubUnavailable):
        limiter.check("search")
    limited_until(limiter, 403, {"retry-after": "10"}, SECONDARY)
    with pytest.raises(GitHubUnavailable):
        limiter.check("core")
    clock.advance(10)
    limiter.check("core")


def test_the_last_point_of_the_quota_stops_requests_before_github_has_to() -> None:
    clock = HandSetClock()
    limiter = Limiter(clock)
    limiter.record(200, quota(0, START + timedelta(seconds=30)), "", resource="core")
    with pytest.raises(GitHubUnavailable) as caught:
        limiter.check("core")
    assert caught.value.retry_at == START + timedelta(seconds=31)
    clock.advance(31)
    limiter.check("core")


def test_the_ledger_shows_each_resource_and_the_block() -> None:
    clock = HandSetClock()
    limiter = Limiter(clock)
    limiter.record(200, quota(4321, START + timedelta(hours=1)), "", resource="core")
    assert limiter.ledger.as_dict() == {
        "blocked_until": None,
        "reason": "",
        "quotas": {"core": {"remaining": 4321, "limit": 5000, "reset_at": "2026-11-20T13:00:00+00:00"}},
    }
    limited_until(limiter, 429, {"retry-after": "10"}, "")
    assert limiter.ledger.blocked_until == START + timedelta(seconds=10)
    clock.advance(10)
    assert limiter.ledger.blocked_until is None


@pytest.mark.parametrize(
    ("limit", "wait"),
    [
        (Reply(403, SECONDARY.encode(), {"Retry-After": "30"}), 30),
        (Reply(403, SECONDARY.encode()), 60),
        (Reply(429, None, {"Retry-After": "30"}), 30),
        (Reply(429, None), 60),
        (Reply(403, PRIMARY.encode(), quota(0, START + timedelta(seconds=500))), 501),
        (Reply(429, PRIMARY.encode(), quota(0, START + timedelta(seconds=500))), 501),
    ],
)
def test_no_request_leaves_before_the_allowed_moment(limit: Reply, wait: float) -> None:
    clock = HandSetClock()
    with ScriptedServer({"GET /user": [limit, ME]}) as server:
        github = github_for(server.url, clock)

        async def story() -> None:
            with pytest.raises(GitHubUnavailable) as caught:
                await github.whoami()
            assert caught.value.retry_at == START + timedelta(seconds=wait)
            for ahead in (0, 1, wait - 1.5):
                clock.at = START + timedelta(seconds=ahead)
                await _refused_without_asking(github, caught.value.retry_at)
            assert len(server.requests) == 1
            clock.at = START + timedelta(seconds=wait)
            assert (await github.whoami()).login == "bot"

        run(story())
        github.close()
    assert len(server.requests) == 2


async def _refused_without_asking(github: GitHub, retry_at: datetime) -> None:
    questions = [
        github.whoami(),
        github.poll("acme/shop", "rpi-auto"),
        github.issue("acme/shop", 1),
        github.create_comment("acme/shop", 1, "text"),
        github.edit_comment("other/repo", 1, "text"),
    ]
    for question in questions:
        with pytest.raises(GitHubUnavailable) as caught:
            await question
        assert caught.value.retry_at == retry_at


def test_a_403_without_a_limit_is_a_refusal_and_blocks_nothing() -> None:
    with ScriptedServer({"GET /user": [Reply(403, PLAIN.encode()), ME]}) as server:
        github = github_for(server.url)

        async def story() -> None:
            with pytest.raises(GitHubRefused) as caught:
                await github.whoami()
            assert caught.value.status == 403
            assert "not accessible" in str(caught.value)
            assert (await github.whoami()).user_id == 5

        run(story())
        github.close()


def test_an_overloaded_server_names_its_own_moment_without_blocking_others() -> None:
    with ScriptedServer({"GET /user": [Reply(503, None, {"Retry-After": "20"}), ME]}) as server:
        github = github_for(server.url)

        async def story() -> None:
            with pytest.raises(GitHubUnavailable) as caught:
                await github.whoami()
            assert caught.value.retry_at == START + timedelta(seconds=20)
            assert (await github.whoami()).user_id == 5

        run(story())
        github.close()


def test_writes_go_out_in_a_burst_and_then_at_the_configured_pace() -> None:
    pace = WritePace(60)
    assert [pace.book(START) for _ in range(13)] == [0] * 10 + [1, 2, 3]
    assert pace.book(START + timedelta(seconds=60)) == 0


def test_a_pace_of_zero_never_waits() -> None:
    pace = WritePace(0)
    assert {pace.book(START) for _ in range(500)} == {0}


def test_writes_wait_for_their_turn_and_reads_do_not() -> None:
    clock = HandSetClock()
    posted = Reply(201, {"id": 1})
    script = {"POST /repos/acme/shop/issues/1/comments": posted, "GET /user": ME}
    with ScriptedServer(script) as server:
        github = github_for(server.url, clock, writes_per_minute=30)

        async def story() -> None:
            for _ in range(12):
                await github.create_comment("acme/shop", 1, "text")
            assert clock.slept == [2, 2]
            await github.whoami()

        run(story())
        github.close()
    assert clock.slept == [2, 2]


def _most_within(sent: list[float], seconds: float) -> int:
    """The most writes in any window of that length."""
    most = first = 0
    for last, at in enumerate(sent):
        while sent[first] <= at - seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


@pytest.mark.parametrize("arrivals", ["all at once", "bursts", "evenly"])
def test_writes_stay_below_what_github_allows_in_any_minute_and_any_hour(arrivals: str) -> None:
    pace = WritePace(60, 400)
    gaps = {
        "all at once": lambda _n: 0,
        "bursts": lambda n: 600 if n % 120 == 0 else 0,
        "evenly": lambda _n: 2,
    }
    now, sent = 0.0, []
    for number in range(1, 2001):
        now += gaps[arrivals](number)
        sent.append(now + pace.book(START + timedelta(seconds=now)))
    sent.sort()
    assert _most_within(sent, 60) < 80
    assert _most_within(sent, 3600) < 500


def test_the_hour_is_no_limit_where_the_minute_is_none() -> None:
    pace = WritePace(0, 400)
    assert {pace.book(START) for _ in range(1000)} == {0}


def test_the_clock_set_back_prolongs_no_wait() -> None:
    pace = WritePace(0 + 60, 400)
    waits = [pace.book(START) for _ in range(200)]
    pace.clock_was_set_back(timedelta(hours=-3))
    assert pace.book(START - timedelta(hours=3)) == pytest.approx(waits[-1] + 9)
