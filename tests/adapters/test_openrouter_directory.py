"""The lists of OpenRouter against the local server, and one sync of them into a store."""

import asyncio
import copy
from decimal import Decimal

import pytest
from store_samples import NOW

from adw_modules.catalogue import ChangeKind
from adw_modules.errors import ConfigError
from adw_modules.openrouter.directory import Directory, DirectoryError
from coordinator import catalogue
from coordinator.store import Store, SyncResult
from tests.openrouter_server import Fail, HangUp, OpenRouterServer, Raw


@pytest.fixture(scope="module")
def one_server():
    with OpenRouterServer() as server:
        yield server


@pytest.fixture
def server(one_server):
    """As it was at its start: ending one takes longer than most tests."""
    catalogue = copy.deepcopy(one_server.catalogue)
    one_server.requests.clear()
    yield one_server
    one_server.catalogue = catalogue
    one_server.pages.clear()


@pytest.fixture
def sqlite_store(tmp_path):
    with Store.open(tmp_path / "coordinator.db", now=NOW) as store:
        yield store


def ask(server, question, *, key=None):
    async def asked():
        async with Directory(server.url, key=key) as directory:
            return await question(directory)

    return asyncio.run(asked())


def sync(server, store):
    return ask(server, lambda directory: catalogue.sync(store, directory, now=lambda: NOW))


def research(server, store, *, key=None):
    has_key = key is not None
    return ask(
        server, lambda each: catalogue.research(store, each, has_key=has_key, now=lambda: NOW), key=key
    )


def row(server, model_id):
    return next(each for each in server.catalogue["data"] if each["id"] == model_id)


def test_the_catalogue_is_asked_for_once_and_then_only_whether_it_changed(server):
    first = ask(server, lambda directory: directory.models())
    again = ask(server, lambda directory: directory.models(etag=first.etag))
    assert len(first.data["data"]) == 37
    assert (again.is_unchanged, again.etag) == (True, first.etag)
    assert "authorization" not in server.requests[0].headers


def test_a_fraction_arrives_as_it_was_spelled(server):
    server.pages["GET", "/benchmarks"] = Raw(body=b'{"data": [0.1234567890123456789]}')
    answer = ask(server, lambda directory: directory.get("/benchmarks"), key=server.key)
    assert answer.data["data"] == [Decimal("0.1234567890123456789")]


@pytest.mark.parametrize(
    ("page", "sentence", "status"),
    [
        (Fail(status=503, message="down"), "OpenRouter answered /models with 503: down", 503),
        (
            Fail(status=500, in_200=True),
            "OpenRouter answered /models with an error: Internal Server Error",
            200,
        ),
        (Raw(body=b"<html>"), "OpenRouter answered /models with something that is not JSON", 200),
        (Raw(body=b"[" * 100_000), "OpenRouter answered /models with something that is not JSON", 200),
        (Raw(status=304), "OpenRouter answered /models with 304", 304),
        (HangUp(), "OpenRouter cannot be reached at http://127.0.0.1", None),
        (Raw(body=b"{}", cut=True), "OpenRouter cannot be reached at http://127.0.0.1", None),
    ],
)
def test_every_way_to_fail_is_one_sentence(server, page, sentence, status):
    server.pages["GET", "/models"] = page
    with pytest.raises(DirectoryError) as caught:
        ask(server, lambda directory: directory.models())
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)
    assert caught.value.status == status


def test_an_address_or_key_that_cannot_be_one_is_refused_before_anything_is_sent():
    for access in (
        catalogue.Access(base_url="nowhere", key=None),
        catalogue.Access(base_url="http://h", key="a b"),
    ):
        with pytest.raises(ConfigError):
            access.directory()


# --- a sync -------------------------------------------------------------------------------------


def test_the_first_sync_takes_all_and_the_next_asks_only_for_changes(server, sqlite_store):
    first, second = sync(server, sqlite_store), sync(server, sqlite_store)
    assert (first.result, first.models, first.is_first, first.changes) == (SyncResult.SYNCED, 37, True, ())
    assert (second.result, second.models) == (SyncResult.UNCHANGED, 37)


def test_a_sync_says_what_came_went_and_changed(server, sqlite_store):
    sync(server, sqlite_store)
    row(server, "openai/gpt-5")["pricing"]["prompt"] = "0.000009"
    row(server, "z-ai/glm-4.6")["id"] = "z-ai/glm-9"
    synced = sync(server, sqlite_store)
    assert [(each.kind, each.model_id) for each in synced.changes] == [
        (ChangeKind.GONE, "z-ai/glm-4.6"),
        (ChangeKind.NEW, "z-ai/glm-9"),
        (ChangeKind.PRICE, "openai/gpt-5"),
    ]
    assert [each.change for each in sqlite_store.catalogue_changes()] == list(synced.changes)


def test_a_row_that_cannot_be_read_today_is_not_gone(server, sqlite_store):
    sync(server, sqlite_store)
    before = sqlite_store.catalogue()
    row(server, "openai/gpt-5")["pricing"] = 7
    synced = sync(server, sqlite_store)
    assert (synced.changes, len(synced.problems)) == ((), 1)
    assert sqlite_store.catalogue() == before


def test_while_a_nameless_row_or_another_page_may_hide_them_no_model_is_gone(server, sqlite_store):
    sync(server, sqlite_store)
    row(server, "openai/gpt-5")["id"] = None
    assert sync(server, sqlite_store).changes == ()
    server.catalogue["data"] = server.catalogue["data"][:5]
    server.catalogue["total_count"] = 37
    assert sync(server, sqlite_store).changes == ()
    assert len(sqlite_store.catalogue()) == 37


@pytest.mark.parametrize(
    "page", [Fail(), HangUp(), Raw(body=b"{}"), {"data": []}, {"data": [1, {"id": ""}]}, {"data": None}]
)
def test_a_failure_keeps_the_last_catalogue(server, sqlite_store, page):
    sync(server, sqlite_store)
    before = sqlite_store.catalogue()
    server.pages["GET", "/models"] = page
    failed = sync(server, sqlite_store)
    assert failed.result is SyncResult.FAILED
    assert failed.problem
    assert sqlite_store.catalogue() == before
    del server.pages["GET", "/models"]
    assert sync(server, sqlite_store).result is SyncResult.UNCHANGED


# --- research -----------------------------------------------------------------------------------


RANKINGS = {"data": [{"date": "2026-11-20", "model_permaslug": "a/b", "total_tokens": "12"}]}


def test_research_keeps_what_answers_and_says_what_does_not(server, sqlite_store):
    sync(server, sqlite_store)
    server.pages["GET", "/datasets/rankings-daily"] = RANKINGS
    found = research(server, sqlite_store, key=server.key)
    assert found.answers == 14
    assert found.problems == (
        "OpenRouter answered /benchmarks with 404: Not Found",
        "OpenRouter answered /classifications/task with 404: Not Found",
    )
    kept = {each.source: each.data for each in sqlite_store.latest_research()}
    assert kept["rankings:programming"] == [{"model": "a/b", "tokens": "12"}]
    assert kept["capabilities"]["openai/gpt-oss-20b:free"] == ["tools", "reasoning", "structured_outputs"]
    assert {request.query.get("category") for request in server.requests} >= {"programming", "science"}


def test_a_refused_key_and_a_missing_one_end_the_research_at_once(server, sqlite_store):
    asked = len(server.requests)
    assert research(server, sqlite_store, key="sk-wrong").answers == 0
    assert len(server.requests) == asked + 1
    assert research(server, sqlite_store).problems == (
        "Rankings need an API key of OpenRouter, and none is set.",
    )
    assert len(server.requests) == asked + 1


def test_only_models_that_came_after_the_first_research_and_can_be_chosen_are_told(server, sqlite_store):
    times = iter([NOW.replace(hour=hour) for hour in range(1, 9)])

    async def both(directory):
        await catalogue.sync(sqlite_store, directory, now=lambda: next(times))
        return await catalogue.research(sqlite_store, directory, has_key=False, now=lambda: next(times))

    assert ask(server, both).new == ()
    rows = server.catalogue["data"]
    rows += [{"id": "new/one", "name": "One"}, {"id": "new/one:batch"}, {"id": "~new/latest"}]
    assert ask(server, both).new == ("new/one",)
    assert [(each.model_id, each.text) for each in sqlite_store.open_alerts()] == [("new/one", "One")]
