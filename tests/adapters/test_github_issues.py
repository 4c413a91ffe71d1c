"""Single issues, who labelled them, comments, status labels and pull requests on the demo server."""

from __future__ import annotations

import asyncio
import subprocess
from typing import Any

import pytest
from github_scripted import LABEL, REPO, Reply, ScriptedServer, Shop, github_for, issue, repository, run, shop

from adw_modules.errors import ConfigError, GitHubRefused, GitHubUnavailable
from adw_modules.tasks.model import IssueSnapshot
from coordinator.demo.server import Fault, FaultKind
from coordinator.github import Account, IssueGone, LabelEvent, LabelTakenOff, Permission

MARKER = "<!-- coordinator:gh-1 -->"
BRANCH = "auto/gh-1"


# Us and the repository


def test_the_account_is_asked_for_once() -> None:
    with shop() as world:

        async def story() -> None:
            me = await world.github.whoami()
            assert (
                me
                == await world.github.whoami()
                == Account(login="bot", user_id=world.server.add_user("bot"))
            )

        run(story())
        assert world.count() == 1


def test_the_default_branch_is_the_one_of_now() -> None:
    with ScriptedServer(
        {
            "GET /repos/acme/shop": [
                Reply(200, repository()),
                Reply(200, repository() | {"default_branch": "trunk"}),
            ]
        }
    ) as server:
        github = github_for(server.url)

        async def story() -> None:
            assert await github.default_branch(REPO) == "main"
            assert await github.default_branch(REPO) == "trunk"

        run(story())
        github.close()


@pytest.mark.parametrize(
    ("role", "expected"),
    [
        ("admin", ("admin", "admin")),
        ("maintain", ("write", "maintain")),
        ("write", ("write", "write")),
        ("triage", ("read", "triage")),
        ("read", ("read", "read")),
        ("none", ("none", "none")),
    ],
)
def test_a_permission_has_its_legacy_word_and_its_role(role: str, expected: tuple[str, str]) -> None:
    with shop() as world:
        world.server.set_permission(REPO, "ann", role)
        found = run(world.github.permission(REPO, "ann"))
        assert (found.permission, found.role_name) == expected


def test_a_revoked_permission_is_seen_at_once_and_nobody_has_none() -> None:
    nothing = Permission(permission="none", role_name="none")
    with shop() as world:
        world.server.set_permission(REPO, "ann", "write")

        async def story() -> None:
            assert (await world.github.permission(REPO, "ann")).permission == "write"
            world.server.set_permission(REPO, "ann", "none")
            assert (await world.github.permission(REPO, "ann")).permission == "none"
            assert await world.github.permission(REPO, "no-such-account") == nothing
            mark = world.count()
            assert await world.github.permission(REPO, "") == nothing
            assert world.count() == mark

        run(story())


def test_a_login_cannot_reach_another_endpoint_and_old_spellings_are_understood() -> None:
    path = "GET /repos/acme/shop/collaborators/user%5Bbot%5D/permission"
    with ScriptedServer({path: Reply(200, {"permission": "push"})}) as server:
        github = github_for(server.url)
        nobody = run(github.permission(REPO, "../../user[bot]"))
        found = run(github.permission(REPO, "user[bot]"))
        github.close()
        assert nobody.permission == "none"
        assert found == Permission(permission="write", role_name="write")


# Single issues


def test_an_issue_is_read_as_it_is_now() -> None:
    with shop() as world:
        number = world.server.add_issue(
            REPO, title="Broken till", body="It is.", author="ann", labels=[LABEL]
        )
        world.server.close_issue(REPO, number)
        found = run(world.github.issue(REPO, number))
        assert isinstance(found, IssueSnapshot)
        assert (found.title, found.body, found.state, found.labels) == (
            "Broken till",
            "It is.",
            "closed",
            (LABEL,),
        )
        assert (found.author, found.author_id) == ("ann", world.server.add_user("ann"))
        assert found.created_at == world.clock()


def test_issues_that_are_gone_say_how() -> None:
    with shop() as world:
        world.server.add_repo("acme/till", private=False)
        moved, deleted = world.label_issues(2)

        async def story() -> None:
            world.server.transfer_issue(REPO, moved, "acme/till")
            world.server.delete_issue(REPO, deleted)
            assert await world.github.issue(REPO, moved) == IssueGone(reason="transferred")
            assert await world.github.issue(REPO, deleted) == IssueGone(reason="deleted")
            assert await world.github.issue(REPO, 99) == IssueGone(reason="not found")

        run(story())


def test_a_transfer_out_of_sight_is_not_found_and_a_bare_redirect_is_transferred() -> None:
    script = {
        "GET /repos/acme/shop": Reply(200, repository()),
        "GET /repos/acme/shop/issues/1": Reply(404, {"message": "Not Found"}),
        "GET /repos/acme/shop/issues/2": Reply(301, {"message": "Moved Permanently"}),
        "GET /repos/acme/shop/issues/3": Reply(200, issue(3, repo="acme/elsewhere")),
    }
    with ScriptedServer(script) as server:
        github = github_for(server.url)

        async def story() -> None:
            assert await github.issue(REPO, 1) == IssueGone(reason="not found")
            assert await github.issue(REPO, 2) == IssueGone(reason="transferred")
            assert await github.issue(REPO, 3) == IssueGone(reason="transferred")

        run(story())
        github.close()


def test_an_issue_of_a_renamed_repository_is_not_gone() -> None:
    with shop() as world:
        number = world.label_issues(1)[0]

        async def story() -> None:
            await world.github.poll(REPO, LABEL)
            world.server.rename_repo(REPO, "acme/store")
            found = await world.github.issue(REPO, number)
            assert isinstance(found, IssueSnapshot)
            assert found.repo == REPO

        run(story())


def test_a_token_that_lost_the_whole_repository_says_nothing_about_its_issues() -> None:
    with shop() as world:
        number = world.label_issues(1)[0]

        async def story() -> None:
            await world.github.poll(REPO, LABEL)
            world.server.faults.add(Fault(match=f"GET /repos/{REPO}*", status=404, times=None))
            with pytest.raises(GitHubRefused):
                await world.github.issue(REPO, number)

        run(story())


# Who put the label on


def label_story(world: Shop, steps: list[tuple[str, str, str | None]]) -> LabelEvent | None:
    number = world.server.add_issue(REPO, title="T", author="ann")
    for verb, label, actor in steps:
        if verb == "add":
            world.server.add_label(REPO, number, label, actor=actor)
        else:
            world.server.remove_label(REPO, number, label, actor=actor)
    return run(world.github.trigger(REPO, number, LABEL))


@pytest.mark.parametrize(
    ("steps", "actor"),
    [
        ([], None),
        ([("add", "bug", "ann")], None),
        ([("add", LABEL, "ann")], "ann"),
        ([("add", "RPI-AUTO", "ann")], "ann"),
        ([("add", LABEL, "ann"), ("remove", LABEL, "bob")], "taken off"),
        ([("add", LABEL, "ann"), ("remove", "rpi-auto", "bob"), ("add", LABEL, "eve")], "eve"),
        ([("add", LABEL, "ann"), ("add", "bug", "eve"), ("remove", "bug", "eve")], "ann"),
        ([("add", LABEL, None)], ""),
    ],
)
def test_the_trigger_is_the_last_labelling_that_nobody_took_back(
    steps: list[tuple[str, str, str | None]], actor: str | None
) -> None:
    with shop() as world:
        found = label_story(world, steps)
        if actor is None:
            assert found is None
            return
        if actor == "taken off":
            assert found == LabelTakenOff()
            return
        assert found is not None
        assert found.trigger.actor == actor
        assert found.trigger.actor_id == (world.server.add_user(actor) if actor else 0)
        assert found.actor.kind == ("User" if actor else "")
        assert found.actor.by_app is False
        assert found.trigger.labelled_at == world.clock()


def test_a_label_from_a_template_has_no_trigger() -> None:
    with shop() as world:
        number = world.server.add_issue(REPO, title="T", author="eve", labels=[LABEL], label_events=False)
        assert run(world.github.trigger(REPO, number, LABEL)) is None


def test_bots_and_apps_are_recognised() -> None:
    with shop() as world:
        number = world.server.add_issue(REPO, title="T", author="ann")
        world.server.add_label(REPO, number, LABEL, actor="github-actions[bot]")
        by_bot = run(world.github.trigger(REPO, number, LABEL))
        assert by_bot is not None
        assert (by_bot.actor.kind, by_bot.actor.by_app) == ("Bot", False)
        number = world.server.add_issue(REPO, title="T", author="ann")
        world.server.add_label(REPO, number, LABEL, actor="ann", via_app="helper")
        by_app = run(world.github.trigger(REPO, number, LABEL))
        assert by_app is not None
        assert (by_app.actor.kind, by_app.actor.by_app) == ("User", True)


def label_event(
    number: int, kind: str = "labeled", at: str = "2026-11-20T10:00:00Z", **more: Any
) -> dict[str, Any]:
    actor = {"login": f"user{number}", "id": number, "type": "User"}
    return {"id": number, "event": kind, "actor": actor, "label": {"name": LABEL}, "created_at": at, **more}


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([label_event(2), label_event(1)], 2),  # one second, the order is the ids'
        ([label_event(2, at="2026-11-20T10:00:01Z"), label_event(9)], 2),
        ([label_event(2, "unlabeled"), label_event(1)], None),
        ([label_event(1), {"id": 3, "event": "closed", "actor": None, "created_at": "x"}], 1),
    ],
)
def test_the_order_of_events_is_by_time_and_then_by_id(
    events: list[dict[str, Any]], expected: int | None
) -> None:
    assert event_from(events) == expected


def event_from(events: list[dict[str, Any]]) -> int | None:
    script = {
        "GET /repos/acme/shop": Reply(200, repository()),
        "GET /repos/acme/shop/issues/1/events": Reply(200, events),
    }
    with ScriptedServer(script) as server:
        github = github_for(server.url)
        try:
            found = run(github.trigger(REPO, 1, LABEL))
        finally:
            github.close()
    return found.trigger.event_id if isinstance(found, LabelEvent) else None


@pytest.mark.parametrize(
    "broken",
    [
        label_event(1, id=None),
        label_event(1, at="never"),
        label_event(1, label=None),
        label_event(1, actor="ann"),
        label_event(1, actor={"login": "ann"}),
    ],
)
def test_an_event_that_cannot_be_read_is_not_passed_over(broken: dict[str, Any]) -> None:
    with pytest.raises(GitHubUnavailable):
        event_from([label_event(5, at="2026-11-20T09:00:00Z"), broken])


def test_an_agents_intent_counts_as_an_app() -> None:
    script = {
        "GET /repos/acme/shop": Reply(200, repository()),
        "GET /repos/acme/shop/issues/1/events": Reply(200, [label_event(1, intent={"rationale": "because"})]),
    }
    with ScriptedServer(script) as server:
        github = github_for(server.url)
        found = run(github.trigger(REPO, 1, LABEL))
        github.close()
    assert found is not None
    assert found.actor.by_app is True


def test_the_newest_event_is_found_behind_the_first_page() -> None:
    with shop() as world:
        number = world.server.add_issue(REPO, title="T", author="ann")
        for _ in range(60):
            world.server.add_label(REPO, number, LABEL, actor="ann")
            world.server.remove_label(REPO, number, LABEL, actor="ann")
        world.server.add_label(REPO, number, LABEL, actor="eve")
        found = run(world.github.trigger(REPO, number, LABEL))
        assert found is not None
        assert found.trigger.actor == "eve"


# Comments


def test_a_comment_is_written_found_and_edited_in_place() -> None:
    with shop() as world:
        number = world.label_issues(1)[0]

        async def story() -> None:
            assert await world.github.find_comment(REPO, number, MARKER) is None
            comment = await world.github.create_comment(REPO, number, f"{MARKER}\nstarted")
            assert await world.github.find_comment(REPO, number, MARKER) == comment
            assert await world.github.edit_comment(REPO, comment, f"{MARKER}\ndone") is True
            assert [each.body for each in world.server.comments(REPO, number)] == [f"{MARKER}\ndone"]
            world.server.delete_comment(REPO, comment)
            assert await world.github.edit_comment(REPO, comment, "again") is False
            assert await world.github.find_comment(REPO, number, MARKER) is None

        run(story())


def test_only_our_own_account_owns_the_marker_and_the_oldest_comment_wins() -> None:
    with shop() as world:
        number = world.label_issues(1)[0]
        world.server.add_comment(REPO, number, f"> {MARKER}", author="mallory")
        for n in range(120):
            world.server.add_comment(REPO, number, f"Talk {n}", author="ann")
        first = world.server.add_comment(REPO, number, f"{MARKER}\r\none", author="bot")
        world.server.add_comment(REPO, number, f"{MARKER}\r\ntwo", author="bot")
        assert run(world.github.find_comment(REPO, number, MARKER)) == first
        assert len(world.server.requests_matching("GET */comments")) == 2


def test_a_search_that_fails_half_way_finds_neither_something_nor_nothing() -> None:
    with shop() as world:
        number = world.label_issues(1)[0]
        for n in range(120):
            world.server.add_comment(REPO, number, f"Talk {n}", author="ann")
        world.server.faults.add(Fault(match="GET */comments", status=502, skip=1))
        with pytest.raises(GitHubUnavailable):
            run(world.github.find_comment(REPO, number, MARKER))


def test_comments_on_a_locked_issue_of_somebody_else_are_refused() -> None:
    with shop() as world:
        number = world.label_issues(1)[0]
        world.server.set_permission(REPO, "bot", "read")
        world.server.lock_issue(REPO, number)
        with pytest.raises(GitHubRefused) as caught:
            run(world.github.create_comment(REPO, number, "text"))
        assert caught.value.status == 403


# Status labels


def test_the_status_label_is_exchanged_and_other_labels_stay() -> None:
    with shop() as world:
        number = world.server.add_issue(
            REPO, title="T", labels=[LABEL, "bug", "Coordinator:queued", "coordinator-notes"]
        )

        async def show(wanted: str | None, seen: tuple[str, ...]) -> tuple[str, ...]:
            await world.github.set_status_label(REPO, number, "coordinator:", wanted, seen)
            return world.server.issue(REPO, number).labels

        async def story() -> None:
            kept = (LABEL, "bug", "coordinator-notes")
            assert await show("coordinator:running", ()) == (*kept, "coordinator:running")
            # What the last poll saw is old news: the answer to the addition counts.
            assert await show("coordinator:done", (LABEL,)) == (*kept, "coordinator:done")
            assert await show("coordinator:done", (LABEL,)) == (*kept, "coordinator:done")
            assert await show(None, ("coordinator:done", "coordinator:gone", LABEL)) == kept

        run(story())


def test_an_empty_prefix_removes_nothing() -> None:
    with shop() as world:
        number = world.server.add_issue(REPO, title="T", labels=[LABEL, "bug"])
        run(world.github.set_status_label(REPO, number, "", "done", (LABEL, "bug")))
        assert set(world.server.issue(REPO, number).labels) == {LABEL, "bug", "done"}


@pytest.mark.parametrize("wanted", ["a/b", "a,b", "x" * 51])
def test_a_status_label_that_would_be_another_path_is_never_sent(wanted: str) -> None:
    with shop() as world:
        number = world.label_issues(1)[0]
        with pytest.raises(ConfigError):
            run(world.github.set_status_label(REPO, number, "coordinator:", wanted, ()))
        assert world.count() == 0


# Pull requests


def push_branch(world: Shop, branch: str = BRANCH) -> None:
    """One commit on a new branch of the bare repository."""
    git_dir = world.server.git_url(REPO)

    def git(*args: str) -> str:
        who = ["-c", "user.name=T", "-c", "user.email=t@localhost"]
        done = subprocess.run(
            ["git", *who, "--git-dir", git_dir, *args], check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    commit = git("commit-tree", "main^{tree}", "-p", "main", "-m", "Work")
    git("update-ref", f"refs/heads/{branch}", commit)


def test_a_pull_request_is_opened_as_a_draft_and_found_by_its_branch() -> None:
    with shop() as world:
        push_branch(world)

        async def story() -> None:
            assert await world.github.find_pull(REPO, BRANCH) is None
            made = await world.github.create_pull(
                REPO, branch=BRANCH, base="main", title="T", body="Fixes #1"
            )
            assert (made.state, made.draft) == ("open", True)
            assert await world.github.find_pull(REPO, BRANCH) == made
            assert await world.github.find_pull(REPO, "auto/gh-2") is None

        run(story())
        assert world.server.forbidden_requests == []


def test_a_pull_request_that_exists_already_is_returned() -> None:
    with shop() as world:
        push_branch(world)

        async def story() -> None:
            first = await world.github.create_pull(REPO, branch=BRANCH, base="main", title="T", body="B")
            again = await world.github.create_pull(REPO, branch=BRANCH, base="main", title="T", body="B")
            assert again == first

        run(story())
        assert len(world.server.pulls(REPO)) == 1


@pytest.mark.parametrize("status", [502, 0])
def test_a_pull_request_whose_answer_was_lost_is_found_and_exists_once(status: int) -> None:
    with shop() as world:
        push_branch(world)
        world.server.faults.add(Fault(match="POST */pulls", kind=FaultKind.AFTER_COMMIT, status=status))

        async def story() -> None:
            with pytest.raises(GitHubUnavailable):
                await world.github.create_pull(REPO, branch=BRANCH, base="main", title="T", body="B")
            found = await world.github.find_pull(REPO, BRANCH)
            assert found is not None
            assert [pull.number for pull in world.server.pulls(REPO)] == [found.number]

        run(story())


def test_the_open_pull_request_is_preferred_to_a_newer_closed_one() -> None:
    def raw(number: int, state: str, **more: Any) -> dict[str, Any]:
        head = {"ref": BRANCH, "label": f"acme:{BRANCH}", "user": {"login": "ACME"}}
        page = f"http://elsewhere/pull/{number}"
        return {"number": number, "state": state, "html_url": page, "draft": False, "head": head, **more}

    fork = {"ref": BRANCH, "label": f"mallory:{BRANCH}", "user": {"login": "mallory"}}
    ghost = {"ref": BRANCH, "label": f"ghost:{BRANCH}", "user": None}
    pulls = [
        raw(9, "open", head=fork),
        raw(8, "open", head=ghost),
        raw(3, "closed", merged_at="2026-11-20T10:00:00Z"),
    ]
    script = {
        "GET /repos/acme/shop": Reply(200, repository()),
        "GET /repos/acme/shop/pulls": [
            Reply(200, [*pulls, raw(2, "open")]),
            Reply(200, pulls),
            Reply(200, pulls[:2]),
        ],
    }
    with ScriptedServer(script) as server:
        github = github_for(server.url)

        async def story() -> None:
            found = [await github.find_pull(REPO, BRANCH) for _ in range(3)]
            assert [(pull.number, pull.state) if pull else None for pull in found] == [
                (2, "open"),
                (3, "merged"),
                None,
            ]

        run(story())
        github.close()


def test_where_drafts_are_not_offered_an_ordinary_pull_request_is_opened() -> None:
    with shop() as world:
        push_branch(world)
        no_drafts = {"message": "Draft pull requests are not supported in this repository."}
        world.server.faults.add(Fault(match="POST */pulls", status=422, body=no_drafts))
        made = run(world.github.create_pull(REPO, branch=BRANCH, base="main", title="T", body="B"))
        assert made.draft is False
        assert [pull.draft for pull in world.server.pulls(REPO)] == [False]


def test_a_branch_without_commits_is_refused_with_githubs_reason() -> None:
    with shop() as world:
        with pytest.raises(GitHubRefused, match="No commits between") as caught:
            run(world.github.create_pull(REPO, branch="main", base="main", title="T", body="B"))
        assert caught.value.status == 422


# Many at once


def test_forty_questions_and_writes_at_once_each_get_their_own_answer() -> None:
    with shop(writes_per_minute=0) as world:
        labelled = world.label_issues(20)

        async def story() -> None:
            issues = [world.github.issue(REPO, number) for number in labelled]
            comments = [world.github.create_comment(REPO, number, f"for {number}") for number in labelled]
            found, written = await asyncio.gather(asyncio.gather(*issues), asyncio.gather(*comments))
            assert [each.number for each in found if isinstance(each, IssueSnapshot)] == labelled
            for number, comment in zip(labelled, written, strict=True):
                assert [(c.id, c.body) for c in world.server.comments(REPO, number)] == [
                    (comment, f"for {number}")
                ]

        run(story())
