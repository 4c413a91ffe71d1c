"""The catalogue in the store, on both engines: prices with their dates, syncs, changes, research, alerts."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

from store_samples import LATER, NOW, end, queue, start

from adw_modules.catalogue import CataloguePrices, Change, ChangeKind, compare, parse_listing
from adw_modules.tasks.model import Outcome
from coordinator.store import ResearchRecord, SyncResult

DAY = timedelta(days=1)
ROW = {
    "id": "a/b",
    "canonical_slug": "a/b-20260101",
    "name": "A: B",
    "created": 1764010580,
    "expiration_date": "2027-01-01",
    "context_length": 200000,
    "architecture": {"tokenizer": "Claude", "input_modalities": ["text", "image"]},
    "pricing": {
        "prompt": "0.000005",
        "completion": "0.00000000001234567",
        "overrides": [{"min_prompt_tokens": 200000, "prompt": "0.00001", "utc_days": ["monday"]}],
    },
    "top_provider": {"max_completion_tokens": 64000},
    "supported_parameters": ["tools", "reasoning"],
    "benchmarks": {"artificial_analysis": {"coding_index": 41.5}},
}


def listing(*rows):
    return {model.model_id: model for model in parse_listing({"data": list(rows)}).models}


def priced(prompt, model_id="a/b"):
    return listing({"id": model_id, "pricing": {"prompt": prompt}})


def take(store, models, at, *, keep=()):
    changes = compare(store.catalogue(), models, keep=frozenset(keep))
    return store.take_catalogue(models, changes=changes, keep=keep, etag="e", left_out=0, now=at)


def dates(store, model_id="a/b"):
    return [(each.valid_from, each.valid_to, each.ended_at) for each in store.price_history(model_id)]


def test_a_model_comes_out_of_the_store_as_it_went_in(store):
    models = listing(ROW, {"id": "~a/latest", "alias_target": {"slug": "a/b"}}, {"id": "x/bare"})
    take(store, models, NOW)
    assert store.catalogue() == models


def test_a_price_holds_from_the_first_sync_that_saw_it_to_the_one_that_saw_another(store):
    first = take(store, priced("0.000001"), NOW)
    take(store, priced("0.000001"), NOW + DAY)
    third = take(store, priced("0.000002"), NOW + 2 * DAY)
    assert dates(store) == [(NOW, NOW + DAY, NOW + 2 * DAY), (NOW + 2 * DAY, NOW + 2 * DAY, None)]
    assert [each.sync_id for each in store.price_history("a/b")] == [first, third]
    book = CataloguePrices(store.price_history)
    asked = [NOW, NOW + 1.5 * DAY, NOW + 2 * DAY, NOW + 9 * DAY]
    assert [book.quote("a/b", at=at).rates.input for at in asked] == [1, 1, 2, 2]


def test_being_told_that_nothing_changed_keeps_all_prices_valid(store):
    take(store, priced("0.000001"), NOW)
    store.catalogue_unchanged(etag="e", now=LATER)
    assert dates(store) == [(NOW, LATER, None)]
    assert (store.last_sync().result, store.last_sync().etag) == (SyncResult.UNCHANGED, "e")


def test_a_failed_sync_changes_nothing_and_is_remembered(store):
    take(store, priced("0.000001"), NOW)
    store.catalogue_failed("OpenRouter cannot be reached.", now=LATER)
    assert list(store.catalogue()) == ["a/b"]
    assert dates(store) == [(NOW, NOW, None)]
    assert store.last_sync().problem == "OpenRouter cannot be reached."
    assert store.last_sync(good=True).at == NOW


def test_a_model_that_is_gone_keeps_its_history_and_may_come_back(store):
    take(store, priced("0.000001") | priced("0.5", "c/d"), NOW)
    take(store, priced("0.5", "c/d"), NOW + DAY)
    assert list(store.catalogue()) == ["c/d"]
    take(store, priced("0.000001") | priced("0.5", "c/d"), NOW + 2 * DAY)
    assert dates(store) == [(NOW, NOW, NOW + DAY), (NOW + 2 * DAY, NOW + 2 * DAY, None)]
    assert sorted(store.catalogue()) == ["a/b", "c/d"]


def test_a_model_whose_row_could_not_be_read_stays_but_was_not_seen(store):
    take(store, priced("0.000001") | priced("0.5", "c/d"), NOW)
    take(store, priced("0.5", "c/d"), LATER, keep={"a/b"})
    assert sorted(store.catalogue()) == ["a/b", "c/d"]
    assert (dates(store), dates(store, "c/d")) == ([(NOW, NOW, None)], [(NOW, LATER, None)])


def test_an_alias_that_moves_leaves_the_old_target_to_older_runs(store):
    both = priced("0.000001") | priced("0.000002", "c/d")
    for at, target in ((NOW, "a/b"), (LATER, "c/d")):
        take(store, both | listing({"id": "~a/latest", "alias_target": {"slug": target}}), at)
    book = CataloguePrices(store.price_history)
    assert [book.quote("~a/latest", at=at).rates.input for at in (NOW, LATER)] == [1, 2]


def test_other_facts_of_a_model_change_without_a_new_price(store):
    take(store, listing(ROW), NOW)
    changed = {each: replace(model, name="Another", context_limit=5) for each, model in listing(ROW).items()}
    take(store, changed, LATER)
    assert store.catalogue() == changed
    assert len(dates(store)) == 1


def test_changes_are_those_of_the_last_new_list_or_of_all_since_a_moment(store):
    take(store, priced("0.000001"), NOW)
    take(store, priced("0.000002"), NOW + DAY)
    take(store, {}, NOW + 2 * DAY)
    store.catalogue_unchanged(etag="e", now=NOW + 3 * DAY)
    assert [each.change for each in store.catalogue_changes()] == [
        Change(kind=ChangeKind.GONE, model_id="a/b")
    ]
    since = store.catalogue_changes(since=NOW + DAY)
    assert [(each.at, each.change.kind) for each in since] == [
        (NOW + DAY, ChangeKind.PRICE),
        (NOW + 2 * DAY, ChangeKind.GONE),
    ]


def test_the_latest_research_is_kept_apart_from_older_ones_and_alerts_are_told_once(store):
    assert (store.last_research_at(), store.latest_research()) == (None, [])
    for at, text in ((NOW, "old"), (LATER, "new")):
        record = ResearchRecord(at=at, source="rankings", problem=None, data=[{"model": text}])
        store.add_research([record], {f"a/{text}": text})
    assert [each.data for each in store.latest_research()] == [[{"model": "new"}]]
    assert store.last_research_at() == LATER
    first, second = store.open_alerts()
    assert (first.model_id, second.text) == ("a/old", "new")
    store.alerts_told([first.alert_id], now=LATER)
    assert store.open_alerts() == [second]


def test_new_models_are_those_first_listed_after_the_moment(store):
    take(store, priced("1"), NOW)
    take(store, priced("1") | priced("1", "c/d"), LATER)
    assert store.models_new_since(NOW) == ["c/d"]


def test_results_of_runs_are_those_that_ended_since_with_what_they_cost(store):
    task = queue(store)
    _, run = start(store, task.task_id)
    assert store.run_results(NOW) == []
    end(store, replace(run, started_at=NOW))
    (result,) = store.run_results(NOW)
    assert (result.model, result.outcome, result.cost) == (
        "claude-sonnet-4-5",
        Outcome.SUCCEEDED,
        Decimal("0.10"),
    )
    assert result.duration == LATER - NOW
    assert store.run_results(LATER + DAY) == []
