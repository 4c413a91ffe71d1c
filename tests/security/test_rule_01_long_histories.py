"""Rule 1: strangers can make an issue's history long; the newest label event counts, at a bounded price."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from world import STRANGER, WRITE, World

from adw_modules.errors import GitHubUnavailable
from coordinator.demo.server import Fault, FaultKind, GitHubServer
from coordinator.github import GitHub, LabelBuried, LabelEvent, LabelTakenOff
from coordinator.github.labelevents import MOST_PAGES

REPO, LABEL = "acme/shop", "rpi-auto"
EVENTS = "GET /repo*/issues/1/events"
START = datetime(2026, 11, 21, tzinfo=UTC)


class _Clock:
    def __init__(self) -> None:
        self.at = START

    def __call__(self) -> datetime:
        self.at += timedelta(seconds=1)
        return self.at


@dataclass(frozen=True, slots=True)
class Shop:
    server: GitHubServer
    github: GitHub

    def renames(self, count: int) -> None:
        """What anybody can do to an issue of their own: each is an event."""
        for n in range(count):
            self.server.edit_issue(REPO, 1, title=f"T{n}")

    def ask(self, label: str = LABEL) -> Any:
        return asyncio.run(self.github.trigger(REPO, 1, label))

    def asked(self) -> int:
        return len(self.server.requests_matching(EVENTS))


@contextmanager
def _a_shop() -> Iterator[Shop]:
    with GitHubServer(clock=_Clock()) as server:
        server.add_repo(REPO)
        server.set_permission(REPO, "bot", "write")
        server.add_token("tok", "bot")
        server.add_issue(REPO, title="T", author="eve")
        github = GitHub(api_url=server.api_url, token="tok", now=lambda: START)
        try:
            yield Shop(server, github)
        finally:
            server.release()
            github.close()


@pytest.mark.parametrize(("before", "after"), [(0, 0), (99, 0), (100, 0), (250, 1), (99, 350), (1500, 100)])
def test_the_newest_label_event_is_found_from_the_end_of_any_history(before: int, after: int) -> None:
    with _a_shop() as shop:
        shop.renames(before)
        shop.server.add_label(REPO, 1, LABEL, actor="ann")
        shop.renames(after)
        found = shop.ask()
        assert isinstance(found, LabelEvent)
        assert found.trigger.actor == "ann"
        assert shop.asked() <= 3 + after // 100


def test_a_label_that_was_taken_off_and_put_on_by_a_stranger_in_a_long_history_is_the_strangers() -> None:
    with _a_shop() as shop:
        shop.server.add_label(REPO, 1, LABEL, actor="ann")
        shop.renames(230)
        shop.server.remove_label(REPO, 1, LABEL, actor="eve")
        assert shop.ask() == LabelTakenOff()
        shop.server.add_label(REPO, 1, LABEL, actor="eve")
        shop.renames(120)
        assert shop.ask().trigger.actor == "eve"


def test_a_flood_of_toggles_costs_no_more_than_the_bound_and_the_last_of_them_counts() -> None:
    with _a_shop() as shop:
        shop.server.add_label(REPO, 1, LABEL, actor="ann")
        for _ in range(700):
            shop.server.remove_label(REPO, 1, LABEL, actor="eve")
            shop.server.add_label(REPO, 1, LABEL, actor="eve")
        assert shop.ask().trigger.actor == "eve"
        assert shop.asked() == 2


def test_a_label_below_a_thousand_other_events_counts_as_put_on_by_nobody_until_it_is_put_on_anew() -> None:
    with _a_shop() as shop:
        shop.server.add_label(REPO, 1, LABEL, actor="ann")
        shop.renames(MOST_PAGES * 100 + 200)
        newest = max(event.id for event in shop.server.events(REPO, 1))
        assert shop.ask() == LabelBuried(newest_event=newest)
        assert shop.asked() == MOST_PAGES
        shop.server.remove_label(REPO, 1, LABEL, actor="ann")
        shop.server.add_label(REPO, 1, LABEL, actor="ann")
        assert shop.ask().trigger.actor == "ann"


def test_without_any_event_of_the_label_all_of_the_list_was_read() -> None:
    with _a_shop() as shop:
        shop.renames(420)
        assert shop.ask() is None
        assert shop.asked() == 6  # the first page once more, at its turn


def _meanwhile(shop: Shop, change: Any, *, page: dict[str, str] | None = None) -> Any:
    """Ask, and carry out `change` after the server has made that page's answer and before it sends it."""
    late = Fault(match=EVENTS, kind=FaultKind.LATE, query=page or {"per_page": "100"}, seconds=10.0)
    fault = shop.server.faults.add(late)
    answers: list[Any] = []
    asking = threading.Thread(target=lambda: answers.append(shop.ask()))
    asking.start()
    assert shop.server.wait_for(lambda: shop.server.faults.hits(fault) == 1)
    change()
    shop.server.release()
    asking.join(20)
    return answers[0]


@pytest.mark.parametrize("page", [{"per_page": "100"}, {"page": "3"}, {"page": "2"}])
def test_events_that_arrive_between_two_pages_hide_nothing(page: dict[str, str]) -> None:
    """The last page is no longer the last: somebody fills it so that what they did before is on the next."""
    with _a_shop() as shop:
        shop.server.add_label(REPO, 1, LABEL, actor="ann")
        shop.renames(280)

        def take_over() -> None:
            shop.renames(150)
            shop.server.remove_label(REPO, 1, LABEL, actor="eve")
            shop.server.add_label(REPO, 1, LABEL, actor="eve")

        found = _meanwhile(shop, take_over, page=page)
        assert found.trigger.actor == ("eve" if page == {"per_page": "100"} else "ann")
        assert shop.ask().trigger.actor == "eve"


def test_events_that_vanish_between_two_pages_hide_nothing() -> None:
    """What was the first of page 2 is the last of page 1, which was read before."""
    with _a_shop() as shop:
        shop.renames(100)
        shop.server.add_label(REPO, 1, LABEL, actor="ann")
        shop.renames(199)
        events = shop.server._find(REPO, 1)[1].events
        assert events[100].kind == "labeled"
        found = _meanwhile(shop, lambda: events.pop(0), page={"page": "2"})
        assert found.trigger.actor == "ann"
        events.insert(0, events[0])
        assert _meanwhile(shop, lambda: events.pop(0)).trigger.actor == "ann"


def _event(number: int, *, kind: str = "renamed", at: int = 0, actor: int = 7) -> dict[str, Any]:
    moment = (START + timedelta(seconds=at)).strftime("%Y-%m-%dT%H:%M:%SZ")
    who = {"login": f"user{actor}", "id": actor, "type": "User"}
    return {"id": number, "event": kind, "created_at": moment, "actor": who, "label": {"name": LABEL}}


def _serve(shop: Shop, page: int | None, events: list[dict[str, Any]], link: str) -> Fault:
    query = {"page": str(page)} if page is not None else {}
    body = json.dumps(events)
    return shop.server.faults.add(
        Fault(match=EVENTS, status=200, headers={"Link": link}, body=body, times=None, query=query)
    )


def _links(shop: Shop, **pages: object) -> str:
    where = f"{shop.server.api_url}/repositories/1/issues/1/events?per_page=100&page="
    return ", ".join(f'<{where}{page}>; rel="{rel}"' for rel, page in pages.items())


@pytest.mark.parametrize("newest", [1, 2])
def test_pages_that_are_not_sorted_by_time_are_all_read(newest: int) -> None:
    """The last page has a label event; an earlier page has a newer one."""
    with _a_shop() as shop:
        kinds = {newest: _event(newest, kind="unlabeled", at=90), 3 - newest: _event(9, at=1)}
        last = _event(3, kind="labeled" if newest == 1 else "renamed", at=5)
        _serve(shop, 3, [last], "")
        _serve(shop, 2, [kinds[2]], _links(shop, next=3))
        _serve(shop, None, [kinds[1]], _links(shop, next=2, last=3))
        assert shop.ask() == LabelTakenOff()


@pytest.mark.parametrize("last", [0, 1, -1, "x", "", 10**9, "3&page=1", "\xb2"])
def test_an_odd_number_of_the_last_page_has_all_be_read_from_the_front(last: object) -> None:
    with _a_shop() as shop:
        _serve(shop, 2, [_event(2, kind="labeled", at=2, actor=8)], "")
        _serve(shop, None, [_event(1, kind="labeled", at=1)], _links(shop, next=2, last=last))
        assert shop.ask().trigger.actor_id == 8


def test_a_last_page_on_another_path_or_server_is_never_asked_for() -> None:
    with _a_shop() as shop, GitHubServer(clock=_Clock()) as other:
        for place in (f"{other.api_url}/repositories/1", f"{shop.server.api_url}/repositories/2"):
            shop.server.faults.clear()
            _serve(shop, 2, [_event(2, kind="labeled", at=2, actor=8)], "")
            link = f'{_links(shop, next=2)}, <{place}/issues/1/events?per_page=100&page=5>; rel="last"'
            _serve(shop, None, [_event(1, kind="labeled", at=1)], link)
            assert shop.ask().trigger.actor_id == 8
        assert other.requests == ()
        assert shop.server.requests_matching("GET /repositories/2/*") == []


def test_a_last_page_beyond_the_list_and_a_list_without_end_stop_at_the_bound() -> None:
    with _a_shop() as shop:
        _serve(shop, 5000, [], _links(shop, prev=2))
        for page in range(4980, 5000):
            _serve(shop, page, [], "")
        _serve(shop, None, [_event(1, kind="labeled", at=1)], _links(shop, next=2, last=5000))
        assert shop.ask() == LabelBuried(newest_event=0)
        assert shop.asked() == MOST_PAGES
        shop.server.faults.clear()
        shop.server.clear_requests()
        _serve(shop, None, [_event(1, kind="labeled", at=1)], _links(shop, next=2, last=2))
        with pytest.raises(GitHubUnavailable, match="grows faster"):
            shop.ask()
        assert shop.asked() == MOST_PAGES


def test_a_strangers_flood_delays_nobody_else_and_the_label_put_on_anew_ends_it(world: World) -> None:
    """The story as the daemon lives it: refused for want of an event, said so, and mended by the label."""
    flooded = world.issue(WRITE)
    for n in range(MOST_PAGES * 100 + 100):
        world.server.edit_issue("octo/hello", flooded, title=f"T{n}", editor=STRANGER)
    other = world.issue(WRITE)
    world.start()
    world.until_state(other, "succeeded")
    world.until_state(flooded, "blocked")
    assert "no event shows who applied the label; apply it again" in world.cli("why", str(flooded))
    assert world.starts(flooded) == 0
    world.relabel(flooded)
    world.until_state(flooded, "succeeded")
