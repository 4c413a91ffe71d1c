"""The daemon and OpenRouter's catalogue: when it asks, what it says, and what a failure costs."""

import contextlib
import json
import sqlite3
import sys
from datetime import timedelta
from decimal import Decimal

import pytest
from world import BOT, REPO, WRITE, scripted_agent

from adw_modules.errors import StoreError
from coordinator.catalogjobs import CatalogueJob
from coordinator.store import ResearchRecord, Store, SyncResult
from tests.openrouter_server import Fail, OpenRouterServer

PROGRAM = "openrouter-cli.py"


@pytest.fixture
def openrouter():
    with OpenRouterServer() as server:
        yield server


@pytest.fixture
def stage(a_world, openrouter, tmp_path):
    """A world with a provider that goes to the local OpenRouter, as the configuration says."""

    def make(*, key=False, **catalog):
        program = tmp_path / PROGRAM
        program.write_text("")
        provider = {
            "agent": "generic",
            "command_template": [sys.executable, str(program)],
            "api_key_env": "TEST_OPENROUTER_KEY",
            "env": {"OPENROUTER_BASE_URL": openrouter.url},
        }
        world = a_world(providers__openrouter=provider, catalog=catalog)
        world.environ.pop("OPENROUTER_API_KEY", None)
        if key:
            world.environ["TEST_OPENROUTER_KEY"] = openrouter.key
        return world

    return make


def last_sync(world):
    try:
        return world.store.last_sync()
    except StoreError:
        return None


def events(world, name):
    lines = [json.loads(line) for line in world.log_stream.getvalue().splitlines()]
    return [line for line in lines if line["event"] == name]


def wait_for(world, name, count=1):
    world.until(lambda: len(events(world, name)) >= count, f"the log says {name!r} {count} times")
    return events(world, name)


def wait_until_it_works(world):
    """Until every repository was polled; before there are any pollers, they count as all."""
    daemon = world.inside.daemon
    world.until(
        lambda: daemon.up.is_set() and daemon.polls.repositories and daemon.polls.has_polled_all,
        "the daemon works",
    )


def sync_again(world):
    world.inside.call(world.inside.daemon.wake, CatalogueJob.SYNC)


def test_a_start_syncs_what_is_due_and_a_restart_does_not_do_it_again(stage, openrouter):
    world = stage()
    world.start()
    (synced,) = wait_for(world, "catalogue synced")
    wait_for(world, "models researched")
    assert (synced["models"], synced["new"], synced["unchanged"]) == (37, 0, False)
    assert len(world.store.catalogue()) == 37
    synced_at, researched_at = world.store.last_sync().at, world.store.last_research_at()
    world.stop()
    world.start()
    wait_until_it_works(world)
    next_at = world.inside.daemon.catalogue.next_at
    assert next_at(CatalogueJob.SYNC) == synced_at + timedelta(hours=6)
    assert next_at(CatalogueJob.RESEARCH) == researched_at + timedelta(days=1)  # it had no key, so no answer
    world.stop()
    assert [request.path for request in openrouter.requests] == ["/models"]


def test_the_log_tells_what_changed_and_a_failure_keeps_the_last_catalogue(stage, openrouter):
    world = stage()
    world.start()
    wait_for(world, "models researched")
    rows = openrouter.catalogue["data"]
    rows[4]["pricing"]["prompt"] = "0.000009"
    rows[5]["id"] = "openai/gpt-new"
    rows[6]["pricing"] = "free"
    sync_again(world)
    (_, synced) = wait_for(world, "catalogue synced", 2)
    assert [synced[kind] for kind in ("new", "gone", "price", "left_out")] == [1, 1, 1, 1]
    assert wait_for(world, "model is new")[0]["model_id"] == "openai/gpt-new"
    assert wait_for(world, "model is gone")[0]["model_id"] == "openai/gpt-5-mini"
    assert wait_for(world, "model has another price")[0]["after"].startswith("$9 in")
    (left_out,) = wait_for(world, "rows of the catalogue left out")
    assert left_out["problems"] == ["Row 7 (openai/gpt-5.1-codex) is left out: its pricing is not an object."]

    openrouter.pages["GET", "/models"] = Fail(status=503, message="down")
    sync_again(world)
    (failed,) = wait_for(world, "catalogue not synced; the last one stays in force")
    assert failed["error"] == "OpenRouter answered /models with 503: down"
    world.until(lambda: last_sync(world).result is SyncResult.FAILED, "the failure is written down")
    again = world.inside.daemon.catalogue.next_at
    due = last_sync(world).at + timedelta(minutes=15)
    world.until(lambda: again(CatalogueJob.SYNC) == due, "it is tried again after a quarter of an hour")
    assert len(world.store.catalogue()) == 37


@pytest.mark.parametrize("catalog", [{"enabled": False}, None])
def test_nothing_is_asked_when_it_is_off_or_no_provider_needs_it(stage, openrouter, catalog):
    world = stage(**(catalog or {}))
    if catalog is None:
        world.write_config(**{"providers.openrouter": {"enabled": False}})
    world.start()
    wait_until_it_works(world)
    sync_again(world)
    world.until(world.inside.daemon._inbox.empty, "the loop has taken it")
    world.stop()
    assert openrouter.requests == []
    assert last_sync(world) is None


def test_new_models_are_told_in_one_comment_however_often_it_is_tried(stage, openrouter):
    world = stage(key=True)
    number = world.server.add_issue(REPO, title="Models", body="", author=BOT)
    world.write_config(catalog={"alert_repository": REPO, "alert_issue": number})
    world.start()
    wait_for(world, "models researched")
    openrouter.catalogue["data"] += [{"id": "new/one"}, {"id": "new/`two`@all"}]
    sync_again(world)
    wait_for(world, "catalogue synced", 2)
    world.inside.call(world.inside.daemon.wake, CatalogueJob.RESEARCH)
    (alert,) = wait_for(world, "new models to look at")
    assert alert["models"] == ["new/`two`@all", "new/one"]
    wait_for(world, "told of new models")
    world.inside.call(world.inside.daemon.wake, CatalogueJob.ALERTS)
    (comment,) = world.comments(number)
    assert comment.body.splitlines()[1:] == [
        "2 new models in OpenRouter's catalogue; `coordinator models` shows what they cost and can do.",
        "",
        "- `new/two@all`",
        "- `new/one`",
    ]
    world.until(lambda: not world.store.open_alerts(), "the alerts are done with")
    assert {request.headers.get("authorization") for request in openrouter.requests} == {
        f"Bearer {openrouter.key}"
    }


def test_alerts_that_came_after_a_comment_was_written_are_told_in_one_of_their_own(stage):
    """The daemon was killed after the comment and before it noted that; then another research found more."""
    world = stage(key=True)
    number = world.server.add_issue(REPO, title="Models", body="", author=BOT)
    world.write_config(catalog={"alert_repository": REPO, "alert_issue": number})
    database = world.state_dir / "coordinator.db"

    def found(at, *models):
        record = ResearchRecord(at=at, source="rankings", problem=None, data=[])
        with Store.open(database, now=at) as store:
            store.add_research([record], dict.fromkeys(models, "A model"))

    world.start()
    wait_for(world, "models researched")
    world.stop()
    researched_at = world.store.last_research_at()
    found(researched_at + timedelta(minutes=1), "new/one")
    world.start()
    wait_for(world, "told of new models")
    world.until(lambda: not world.store.open_alerts(), "it is noted")
    world.stop()

    with contextlib.closing(sqlite3.connect(database)) as raw, raw:
        raw.execute("UPDATE catalog_alerts SET told_at = NULL")
    found(researched_at + timedelta(minutes=2), "new/two")
    world.start()
    wait_for(world, "told of new models", 3)
    world.until(lambda: not world.store.open_alerts(), "both are noted")
    assert [comment.body.splitlines()[3:] for comment in world.comments(number)] == [
        ["- `new/one`"],
        ["- `new/two`"],
    ]


def test_a_bad_address_is_said_and_the_daemon_goes_on(stage):
    world = stage()
    provider = {**world.config["providers.openrouter"], "env": {"OPENROUTER_BASE_URL": "nowhere"}}
    world.write_config(**{"providers.openrouter": provider})
    world.start()
    failed = wait_for(world, "the catalogue cannot be worked on")
    assert failed[0]["error"].startswith("OPENROUTER_BASE_URL must be an http or https address")
    wait_until_it_works(world)


def test_a_run_without_a_charge_costs_what_the_synced_catalogue_says(a_world, openrouter):
    """Another program than ours on OpenRouter: it reports tokens, and the catalogue knows the price."""
    model = "anthropic/claude-haiku-4.5"
    seller = {"price_list": "openrouter", "env": {"OPENROUTER_BASE_URL": openrouter.url}}
    sync = {
        "agent": "openrouter-cli",
        "command_template": ["git"],
        "env": {"OPENROUTER_BASE_URL": openrouter.url},
    }
    world = a_world(
        providers__syncing=sync,
        llm={"provider": "claude-cli", "model_default": model},
        **{"providers.claude-cli": scripted_agent() | seller},
    )
    world.start()
    wait_for(world, "catalogue synced")
    number = world.issue(WRITE)
    world.until_state(number, "succeeded")

    (run,) = world.runs(number)
    cost, used = world.store.cost_of(run.run_id), world.store.usage_of(run.run_id).total
    assert (cost.source, cost.version.split(" (")[0]) == ("catalogue", "openrouter sync 1")
    prices = {"input": "1", "cache_read": "0.1", "cache_write_5m": "1.25", "output": "5"}
    assert cost.usd == sum(getattr(used, kind) * Decimal(usd) for kind, usd in prices.items()) / 10**6
