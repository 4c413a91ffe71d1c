"""The adapter against `emulate`, a GitHub server that nobody here wrote.

It is not GitHub: no ETag, no events for labels given at creation, permission words of its own, and a
permission only for collaborators. What it shows is that the adapter does not lean on our own server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from emulate_server import Emulate

from adw_modules.errors import GitHubRefused
from adw_modules.tasks.model import IssueSnapshot
from coordinator.github import GitHub, IssueGone, LabelTakenOff, Listing

pytestmark = pytest.mark.github

REPO, LABEL, BRANCH = "admin/shop", "rpi-auto", "auto/gh-1"
MARKER = "<!-- coordinator:gh-1 -->"
NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


@pytest.fixture
def github(emulate: Emulate) -> Iterator[GitHub]:
    client = GitHub(api_url=emulate.url, token="tok_bot", writes_per_minute=0, now=lambda: NOW)
    yield client
    client.close()


def push_branch(emulate: Emulate) -> None:
    main = emulate.ask("GET", "/git/ref/heads/main")["object"]["sha"]
    emulate.ask("POST", "/git/refs", {"ref": f"refs/heads/{BRANCH}", "sha": main})
    change = {"message": "Work", "content": "aGVsbG8=", "branch": BRANCH}
    emulate.ask("PUT", "/contents/work.txt", change)


def test_the_server_can_only_be_reached_from_this_machine(emulate: Emulate) -> None:
    port = f":{int(emulate.url.rpartition(':')[2]):04X}"
    tables = [Path("/proc/net/tcp"), Path("/proc/net/tcp6")]
    rows = [
        line.split() for table in tables if table.is_file() for line in table.read_text().splitlines()[1:]
    ]
    listening = [row[1] for row in rows if row[1].endswith(port) and row[3] == "0A"]
    assert listening == [f"0100007F{port}"]


def test_a_labelled_issue_goes_from_the_list_to_a_draft_pull_request(
    emulate: Emulate, github: GitHub
) -> None:
    number = emulate.open_issue("Add a greeting", label=LABEL)
    emulate.open_issue("Not for us", label=None)
    emulate.ask("PUT", "/collaborators/mallory", {"permission": "pull"})

    async def story() -> None:
        listing = await github.poll(REPO, LABEL)
        assert isinstance(listing, Listing)
        assert [(each.number, each.title, each.author) for each in listing.issues] == [
            (number, "Add a greeting", "admin")
        ]
        assert isinstance(await github.poll(REPO, LABEL), Listing)  # no ETag: every answer is news

        trigger = await github.trigger(REPO, number, LABEL)
        assert trigger is not None
        assert (trigger.trigger.actor, trigger.actor.kind, trigger.actor.by_app) == ("admin", "User", False)
        assert (await github.permission(REPO, "admin")).permission == "admin"
        assert (await github.permission(REPO, "mallory")).permission == "read"
        assert (await github.permission(REPO, "stranger")).permission == "none"

        assert (await github.whoami()).login == "bot"
        assert await github.find_comment(REPO, number, MARKER) is None
        comment = await github.create_comment(REPO, number, f"{MARKER}\nstarted")
        assert await github.find_comment(REPO, number, MARKER) == comment
        assert await github.edit_comment(REPO, comment, f"{MARKER}\ndone") is True

        await github.set_status_label(REPO, number, "coordinator:", "coordinator:running", ())
        await github.set_status_label(REPO, number, "coordinator:", "coordinator:done", ())
        found = await github.issue(REPO, number)
        assert isinstance(found, IssueSnapshot)
        assert sorted(found.labels) == ["coordinator:done", LABEL]

        push_branch(emulate)
        base = await github.default_branch(REPO)
        assert await github.find_pull(REPO, BRANCH) is None
        pull = await github.create_pull(
            REPO, branch=BRANCH, base=base, title="Add a greeting", body="Fixes #1"
        )
        assert (pull.state, pull.draft) == ("open", True)
        assert await github.find_pull(REPO, BRANCH) == pull

    asyncio.run(story())
    comments = emulate.comments(number)
    assert [(each["user"]["login"], each["body"]) for each in comments] == [("bot", f"{MARKER}\ndone")]


def test_a_label_that_is_taken_off_or_an_issue_that_is_closed_leaves_the_list(
    emulate: Emulate, github: GitHub
) -> None:
    number, other = emulate.open_issue("One", label="passing"), emulate.open_issue("Two", label="passing")

    async def listed() -> set[int]:
        listing = await github.poll(REPO, "passing")
        assert isinstance(listing, Listing)
        return {each.number for each in listing.issues}

    async def story() -> None:
        assert {number, other} == await listed()
        emulate.ask("DELETE", f"/issues/{number}/labels/passing")
        emulate.close_issue(other)
        assert await listed() == set()
        assert isinstance(await github.trigger(REPO, number, "passing"), LabelTakenOff)
        closed = await github.issue(REPO, other)
        assert isinstance(closed, IssueSnapshot)
        assert closed.state == "closed"
        assert await github.issue(REPO, 9999) == IssueGone(reason="not found")
        with pytest.raises(GitHubRefused):
            await github.poll("admin/nothing", LABEL)

    asyncio.run(story())


def test_a_list_of_several_pages_is_complete(emulate: Emulate, github: GitHub) -> None:
    numbers = {emulate.open_issue(f"Many {n}", label="many") for n in range(120)}
    listing = asyncio.run(github.poll(REPO, "many"))
    assert isinstance(listing, Listing)
    assert {each.number for each in listing.issues} == numbers


def test_the_ledger_follows_the_servers_own_figures(emulate: Emulate, github: GitHub) -> None:
    asyncio.run(github.whoami())
    (quota,) = github.ledger.quotas
    assert (quota.resource, quota.limit) == ("core", 5000)
    assert 0 < quota.remaining < 5000
