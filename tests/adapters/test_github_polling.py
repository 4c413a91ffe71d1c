"""The labelled listing: what it costs, and that it never claims more than GitHub said."""

from __future__ import annotations

import asyncio

import pytest
from github_scripted import (
    LABEL,
    REPO,
    HandSetClock,
    Reply,
    ScriptedServer,
    github_for,
    issue,
    numbers,
    repository,
    run,
    shop,
)

from adw_modules.errors import ConfigError, GitHubUnavailable
from coordinator.github import Listing, Unchanged

LIST = "GET /repos/acme/shop/issues"


def test_an_idle_tick_is_one_conditional_request_that_costs_no_quota() -> None:
    with shop() as world:
        world.label_issues(3)

        async def story() -> None:
            assert numbers(await world.github.poll(REPO, LABEL)) == [1, 2, 3]
            spent, mark = world.server.rate_used("bot"), world.count()
            for _ in range(5):
                assert await world.github.poll(REPO, LABEL) == Unchanged()
            ticks = world.requests_since(mark)
            assert [(tick.method, tick.path, tick.status) for tick in ticks] == [
                ("GET", f"/repos/{REPO}/issues", 304)
            ] * 5
            assert all("if-none-match" in tick.headers for tick in ticks)
            assert len({str(tick.query) for tick in ticks}) == 1
            assert world.server.rate_used("bot") == spent

        run(story())


def test_an_idle_tick_of_an_empty_list_is_as_cheap() -> None:
    with shop() as world:

        async def story() -> None:
            assert numbers(await world.github.poll(REPO, LABEL)) == []
            mark = world.count()
            assert await world.github.poll(REPO, LABEL) == Unchanged()
            assert [request.status for request in world.requests_since(mark)] == [304]

        run(story())


def test_each_change_of_an_issue_is_seen_by_the_next_poll() -> None:
    with shop() as world:

        async def story() -> None:
            number = world.label_issues(1)[0]
            listing = await world.github.poll(REPO, LABEL)
            assert isinstance(listing, Listing)
            assert listing.issues[0].repo == REPO
            assert listing.issues[0].repo_id == listing.repo_id
            world.server.edit_issue(REPO, number, title="Renamed", body="Text")
            changed = await world.github.poll(REPO, LABEL)
            assert isinstance(changed, Listing)
            assert (changed.issues[0].title, changed.issues[0].body) == ("Renamed", "Text")
            world.server.add_label(REPO, number, "priority:P0", actor="acme")
            changed = await world.github.poll(REPO, LABEL)
            assert isinstance(changed, Listing)
            assert changed.issues[0].labels == (LABEL, "priority:P0")
            world.server.close_issue(REPO, number)
            assert numbers(await world.github.poll(REPO, LABEL)) == []

        run(story())


def test_pull_requests_are_dropped_and_labels_are_compared_without_case() -> None:
    with shop() as world:
        world.server.add_issue(REPO, title="One", labels=["RPI-Auto"])
        list_with_pull = [
            issue(1, labels=("Rpi-AUTO",)),
            issue(2, pull_request={"url": "…"}),
            issue(3, pull_request=None),
        ]

        async def story() -> None:
            assert numbers(await world.github.poll(REPO, LABEL)) == [1]

        run(story())
    with ScriptedServer(
        {"GET /repos/acme/shop": Reply(200, repository()), LIST: Reply(200, list_with_pull)}
    ) as server:
        github = github_for(server.url)
        assert numbers(run(github.poll(REPO, LABEL))) == [1, 3]
        github.close()


def test_issues_over_two_pages_are_listed_completely_and_a_removal_on_the_second_is_seen() -> None:
    with shop() as world:
        all_numbers = world.label_issues(150)

        async def story() -> None:
            assert numbers(await world.github.poll(REPO, LABEL)) == all_numbers
            mark = world.count()
            assert await world.github.poll(REPO, LABEL) == Unchanged()
            assert [request.status for request in world.requests_since(mark)] == [304, 304]
            world.server.remove_label(REPO, 140, LABEL)
            mark = world.count()
            assert numbers(await world.github.poll(REPO, LABEL)) == [n for n in all_numbers if n != 140]
            assert [request.status for request in world.requests_since(mark)] == [304, 200]

        run(story())


def test_growth_behind_a_full_last_page_is_not_hidden_by_its_etag() -> None:
    with shop() as world:
        world.label_issues(100)

        async def story() -> None:
            assert len(numbers(await world.github.poll(REPO, LABEL))) == 100
            world.label_issues(1)
            assert len(numbers(await world.github.poll(REPO, LABEL))) == 101

        run(story())


def test_a_list_that_empties_is_an_empty_listing_and_not_unchanged() -> None:
    with shop() as world:
        all_numbers = world.label_issues(101)

        async def story() -> None:
            await world.github.poll(REPO, LABEL)
            for number in all_numbers:
                world.server.close_issue(REPO, number)
            assert numbers(await world.github.poll(REPO, LABEL)) == []
            assert await world.github.poll(REPO, LABEL) == Unchanged()

        run(story())


def test_forgetting_makes_the_next_poll_read_everything() -> None:
    with shop() as world:
        world.label_issues(2)

        async def story() -> None:
            await world.github.poll(REPO, LABEL)
            world.github.forget(REPO, LABEL)
            mark = world.count()
            assert numbers(await world.github.poll(REPO, LABEL)) == [1, 2]
            assert not any("if-none-match" in request.headers for request in world.requests_since(mark))

        run(story())


def test_a_cancelled_poll_does_not_eat_the_change_it_saw() -> None:
    with shop() as world:
        world.label_issues(1)

        async def story() -> None:
            await world.github.poll(REPO, LABEL)
            world.label_issues(1)
            mark = world.count()
            poll = asyncio.create_task(world.github.poll(REPO, LABEL))
            await asyncio.sleep(0)
            poll.cancel()
            await asyncio.gather(poll, return_exceptions=True)
            await asyncio.to_thread(world.server.wait_for, lambda: world.count() > mark, 5)
            assert numbers(await world.github.poll(REPO, LABEL)) == [1, 2]

        run(story())


def test_a_renamed_repository_claims_nothing_unlabelled_and_is_cheap_again_at_once() -> None:
    with shop() as world:
        world.label_issues(2)
        world.server.add_issue(REPO, title="Nobody asked for this", labels=["bug"])

        async def story() -> None:
            before = await world.github.poll(REPO, LABEL)
            world.server.rename_repo(REPO, "acme/store")
            after = await world.github.poll(REPO, LABEL)
            assert numbers(after) == [1, 2]
            assert isinstance(before, Listing)
            assert isinstance(after, Listing)
            assert after.repo_id == before.repo_id
            assert {each.repo for each in after.issues} == {REPO}  # the name that is configured
            mark = world.count()
            assert await world.github.poll(REPO, LABEL) == Unchanged()
            assert [(r.path, r.status) for r in world.requests_since(mark)] == [
                ("/repos/acme/store/issues", 304)
            ]

        run(story())


def test_a_repository_renamed_before_the_start_is_read_under_its_new_name() -> None:
    with shop() as world:
        world.label_issues(1)
        world.server.add_issue(REPO, title="Unlabelled")
        world.server.rename_repo(REPO, "acme/store")
        assert numbers(run(world.github.poll(REPO, LABEL))) == [1]


def test_a_redirect_that_lost_the_query_proves_nothing_about_unlabelled_or_foreign_issues() -> None:
    unfiltered = [issue(1), issue(2, labels=("bug",)), issue(3, state="closed"), issue(4, repo="evil/twin")]
    script = {
        "GET /repos/acme/shop": Reply(200, repository()),
        LIST: Reply(301, None, {"Location": "/elsewhere"}),
        "GET /elsewhere": Reply(200, unfiltered),
    }
    with ScriptedServer(script) as server:
        # PyGithub insists on an absolute address on the same server.
        server.script[LIST] = Reply(301, None, {"Location": f"{server.url}/elsewhere"})
        github = github_for(server.url)
        assert numbers(run(github.poll(REPO, LABEL))) == [1]
        github.close()
        assert [request.query for request in server.requests if request.path == "/elsewhere"] == [{}, {}]


@pytest.mark.parametrize(
    "broken",
    [
        Reply(200, {"message": "not a list"}),
        Reply(200, [1, 2]),
        Reply(200, ["text"]),
        Reply(200, [issue(1, number="one")]),
        Reply(200, [issue(1, labels=()) | {"labels": None}]),
        Reply(200, [issue(1, created_at="yesterday")]),
        Reply(200, [issue(1, repository_url=None)]),
        Reply(200, [issue(1, user="ann")]),
        Reply(200, b""),
        Reply(204, None),
        Reply(304, None),
        Reply(307, None, {"Location": "/elsewhere"}),
        Reply(200, [issue(1)], {"Link": '<http://evil.example/issues?page=2>; rel="next"'}),
        Reply(301, None, {"Location": "http://evil.example/repos/acme/shop/issues"}),
    ],
)
def test_an_answer_that_is_not_githubs_is_no_data_and_keeps_what_was_known(broken: Reply) -> None:
    good = Reply(200, [issue(1)], {"ETag": '"one"'})
    script = {"GET /repos/acme/shop": Reply(200, repository()), LIST: [broken, good, broken, Reply(304)]}
    with ScriptedServer(script) as server:
        github = github_for(server.url)

        async def story() -> None:
            with pytest.raises(GitHubUnavailable):
                await github.poll(REPO, LABEL)
            assert numbers(await github.poll(REPO, LABEL)) == [1]
            if broken.status != 304:  # asked conditionally, a 304 is the right answer
                with pytest.raises(GitHubUnavailable):
                    await github.poll(REPO, LABEL)
            assert await github.poll(REPO, LABEL) == Unchanged()

        run(story())
        github.close()
        assert server.requests[-1].headers["if-none-match"] == '"one"'


def test_a_failure_on_the_second_page_is_no_listing_at_all() -> None:
    with ScriptedServer() as server:
        first = Reply(200, [issue(1)], {"Link": f'<{server.url}/page2>; rel="next"', "ETag": '"p1"'})
        server.script = {
            "GET /repos/acme/shop": Reply(200, repository()),
            LIST: [first, first, Reply(304)],
            "GET /page2": [Reply(502), Reply(200, [issue(2)], {"ETag": '"p2"'}), Reply(304)],
        }
        github = github_for(server.url)

        async def story() -> None:
            with pytest.raises(GitHubUnavailable):
                await github.poll(REPO, LABEL)
            assert numbers(await github.poll(REPO, LABEL)) == [1, 2]
            assert await github.poll(REPO, LABEL) == Unchanged()

        run(story())
        github.close()


def test_next_pages_that_lead_in_a_circle_end() -> None:
    with ScriptedServer({"GET /repos/acme/shop": Reply(200, repository())}) as server:
        server.script[LIST] = Reply(200, [issue(1)], {"Link": f'<{server.url}{LIST[4:]}>; rel="next"'})
        github = github_for(server.url)
        with pytest.raises(GitHubUnavailable, match="pages"):
            run(github.poll(REPO, LABEL))
        github.close()


def test_a_deleted_author_is_nobody() -> None:
    script = {"GET /repos/acme/shop": Reply(200, repository()), LIST: Reply(200, [issue(1, user=None)])}
    with ScriptedServer(script) as server:
        github = github_for(server.url)
        listing = run(github.poll(REPO, LABEL))
        github.close()
    assert isinstance(listing, Listing)
    assert (listing.issues[0].author, listing.issues[0].author_id) == ("", 0)


@pytest.mark.parametrize("label", ["", "a,b", "agent/queue", "x" * 51])
def test_a_label_that_would_ask_for_something_else_is_a_configuration_error(label: str) -> None:
    with ScriptedServer() as server:
        github = github_for(server.url)
        with pytest.raises(ConfigError):
            run(github.poll(REPO, label))
        github.close()
        assert server.requests == []


@pytest.mark.parametrize(
    "repo", ["acme", "acme/shop/../../user", "acme/..", "acme/", "a b/c", "acme/shop?x", "é/x"]
)
def test_a_name_that_would_reach_another_endpoint_is_never_asked(repo: str) -> None:
    with ScriptedServer() as server:
        github = github_for(server.url)

        async def story() -> None:
            for question in (
                github.poll(repo, LABEL),
                github.issue(repo, 1),
                github.trigger(repo, 1, LABEL),
                github.permission(repo, "ann"),
                github.default_branch(repo),
                github.find_pull(repo, "b"),
                github.create_comment(repo, 1, "x"),
            ):
                with pytest.raises(ConfigError):
                    await question

        run(story())
        github.close()
        assert server.requests == []


def test_two_repositories_and_labels_do_not_share_what_was_read() -> None:
    clock = HandSetClock()
    script = {
        "GET /repos/acme/shop": Reply(200, repository()),
        "GET /repos/acme/till": Reply(200, repository("acme/till", 8)),
        LIST: Reply(200, [issue(1, labels=("a", "b"))], {"ETag": '"shop"'}),
        "GET /repos/acme/till/issues": Reply(
            200, [issue(2, labels=("a",), repo="acme/till")], {"ETag": '"till"'}
        ),
    }
    with ScriptedServer(script) as server:
        github = github_for(server.url, clock)

        async def story() -> None:
            assert numbers(await github.poll("acme/shop", "a")) == [1]
            assert numbers(await github.poll("acme/shop", "b")) == [1]
            assert numbers(await github.poll("acme/till", "a")) == [2]

        run(story())
        github.close()
        assert not any("if-none-match" in request.headers for request in server.requests)
