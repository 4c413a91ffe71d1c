"""The catalogue as values: rows, families, exclusions, changes, choosing, prices at a moment, rankings."""

import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adw_modules.catalogue import (
    BOOTSTRAP_FALLBACK_MODELS,
    Capabilities,
    CatalogueModel,
    CataloguePrices,
    Change,
    ChangeKind,
    PriceRecord,
    Pricing,
    Wanted,
    bootstrap_models,
    choose,
    compare,
    exclusion,
    family_of,
    parse_listing,
)
from adw_modules.catalogue.rankings import RunResult, rank
from adw_modules.catalogue.research import digest, questions
from adw_modules.errors import CoordinatorError
from adw_modules.tasks.model import Outcome

SAMPLE = json.loads((Path(__file__).parents[1] / "samples" / "openrouter-models.json").read_bytes())
TODAY = date(2026, 11, 21)
NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def parsed(*rows):
    return parse_listing({"data": list(rows)})


def one(**row):
    (model,) = parsed({"id": "a/b", **row}).models
    return model


def sample():
    return {model.model_id: model for model in parse_listing(SAMPLE).models}


# --- reading ------------------------------------------------------------------------------------


def test_every_row_of_the_sample_is_read_without_a_word():
    listing = parse_listing(SAMPLE)
    assert (len(listing.models), listing.problems, listing.is_complete) == (37, (), True)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("supported_parameters", ["tools", "tool_choice"], "tools"),
        ("supported_parameters", ["reasoning"], "reasoning"),
        ("supported_parameters", ["structured_outputs"], "structured_outputs"),
        ("architecture", {"input_modalities": ["text", "image"]}, "multimodal_image"),
        ("architecture", {"input_modalities": ["file"]}, "file_pdf"),
        ("architecture", {"input_modalities": ["audio"]}, "audio"),
        ("architecture", {"input_modalities": ["video"]}, "video"),
    ],
)
def test_a_capability_follows_from_its_own_word_alone(field, value, expected):
    assert one(**{field: value}).capabilities.names == (expected,)


def test_words_that_are_near_a_capability_are_none():
    row = {
        "supported_parameters": ["tool_choice", "include_reasoning", "response_format", "reasoning_effort"]
    }
    assert one(**row, architecture={"output_modalities": ["image", "audio"]}).capabilities == Capabilities()


def test_the_seven_capabilities_have_the_names_of_the_rules():
    assert list(Capabilities.__dataclass_fields__) == [
        "supports_tools",
        "supports_reasoning",
        "supports_structured_outputs",
        "supports_multimodal_image",
        "supports_file_pdf",
        "supports_audio",
        "supports_video",
    ]


@pytest.mark.parametrize(
    ("own", "best", "limit"),
    [(1_048_576, 32_000, 32_000), (0, 8000, 8000), (8000, 0, 8000), (8000, None, 8000), (None, None, None),
     ("many", 5, 5), (True, 5, 5), (-1, 5, 5)],
)  # fmt: skip
def test_the_context_limit_is_the_smallest_that_is_known(own, best, limit):
    assert one(context_length=own, top_provider={"context_length": best}).context_limit == limit


@pytest.mark.parametrize(
    "price", ["-1", "-0.1", "", "free", None, "nan", "inf", True, [], "1e999", "0x1", "-0"]
)
def test_a_price_that_is_none_is_unknown_and_never_zero(price):
    assert one(pricing={"prompt": price, "completion": "0.1"}).pricing.prices == {
        "completion": Decimal("0.1")
    }


def test_a_price_is_kept_to_the_last_digit_however_it_is_spelled():
    spelled = {"prompt": "0.00000000001234567", "completion": "1E-7", "request": "0"}
    assert one(pricing=spelled).pricing.prices == {key: Decimal(text) for key, text in spelled.items()}
    assert one(pricing={"prompt": 2.5e-07}).pricing.prices["prompt"] == Decimal("0.00000025")


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (None, "Row 2 is left out: it is not an object."),
        ("text", "Row 2 is left out: it is not an object."),
        ({}, "Row 2 is left out: it has no usable id."),
        ({"id": 7}, "Row 2 is left out: it has no usable id."),
        ({"id": "a b\n"}, "Row 2 is left out: it has no usable id."),
        ({"id": "a/c", "pricing": "free"}, "Row 2 (a/c) is left out: its pricing is not an object."),
        ({"id": "a","supported_parameters": 1},
         "Row 2 (a) is left out: its supported_parameters is not a list."),
        ({"id": "a/c", "architecture": []}, "Row 2 (a/c) is left out: its architecture is not an object."),
        ({"id": "a/b"}, "Row 2 (a/b) is left out: its id is there twice, the first one counts."),
    ],
)  # fmt: skip
def test_a_bad_row_costs_itself_and_one_sentence(row, why):
    listing = parsed({"id": "a/b"}, row, {"id": "a/d"})
    assert [model.model_id for model in listing.models] == ["a/b", "a/d"]
    assert listing.problems == (why,)


def test_of_a_catalogue_with_half_its_rows_broken_the_other_half_is_there():
    rows = [row if number % 2 else {**row, "pricing": 1} for number, row in enumerate(SAMPLE["data"])]
    listing = parse_listing({"data": rows})
    assert [model.model_id for model in listing.models] == [row["id"] for row in SAMPLE["data"][1::2]]
    assert len(listing.problems) == 19
    assert listing.unread == {row["id"] for row in SAMPLE["data"][::2]}


@pytest.mark.parametrize("answer", [None, [], {}, {"data": None}, {"data": {}}, "text", {"error": {}}])
def test_an_answer_that_is_no_catalogue_says_so(answer):
    assert parse_listing(answer).problems == ("The answer has no list of models.",)


@pytest.mark.parametrize("more", [{"total_count": 3}, {"links": {"next": "/models?offset=1"}}])
def test_a_list_that_goes_on_elsewhere_is_not_complete(more):
    assert not parse_listing({"data": [{"id": "a/b"}], **more}).is_complete


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = sorted({key for row in SAMPLE["data"] for key in row} | {"benchmarks", "alias_target"})


@settings(max_examples=100, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=4) | json_values, max_size=4))
def test_no_answer_whatever_is_in_it_raises_or_costs_a_good_row(rows):
    listing = parse_listing({"data": [{"id": "good/one"}, *rows]})
    assert listing.models[0].model_id == "good/one"
    assert (
        len(listing.models) + sum(" is left out: " in problem for problem in listing.problems)
        == len(rows) + 1
    )


# --- families, bootstrap, exclusions --------------------------------------------------------------


@pytest.mark.parametrize(
    ("model_id", "family"),
    [
        ("openai/gpt-5.2", "GPT-5.2"),
        ("openai/gpt-5.2-chat", "GPT-5.2"),
        ("openai/gpt-5.2-pro", "GPT-5.2"),
        ("openai/o3-pro", "o3-pro"),
        ("openai/o3-pro-2025-06-10", "o3-pro"),
        ("anthropic/claude-sonnet-4.5", "Claude 4.5"),
        ("anthropic/claude-opus-4.5", "Claude 4.5"),
        ("anthropic/claude-opus-4.5:batch", "Claude 4.5"),
        ("anthropic/claude-sonnet-4", "Claude 4"),
        ("anthropic/claude-opus-4", "Claude 4"),
        ("anthropic/claude-opus-4.1", "Claude 4"),
        ("google/gemini-3-pro-preview", "Gemini 3"),
        ("google/gemini-3-flash-preview", "Gemini 3"),
        ("x-ai/grok-4", "Grok 4"),
        ("x-ai/grok-4.1-fast", "Grok 4"),
        ("meta-llama/llama-4-scout", "Llama 4"),
        ("meta-llama/llama-4-maverick", "Llama 4"),
    ],
)
def test_the_examples_of_the_table_are_in_their_family(model_id, family):
    assert family_of(model_id) == family


@pytest.mark.parametrize(
    "model_id",
    ["openai/gpt-5", "openai/gpt-5.20", "openai/gpt-5.2x", "openai/o3", "openai/o3-prometheus",
     "anthropic/claude-sonnet-45", "anthropic/claude-haiku-4x", "anthropic/claude-3.7-sonnet:thinking",
     "anthropic/claude-4.5-sonnet-20250929", "anthropic/claude-4", "other/claude-sonnet-4.5",
     "claude-sonnet-4",
     "google/gemini-2.5-pro", "google/gemini-30", "x-ai/grok-40", "x-ai/grok-code-fast-1", "x-ai/grok-4x",
     "meta-llama/llama-3.3-70b-instruct", "meta-llama/llama-40b", "~anthropic/claude-sonnet-4.5", ""],
)  # fmt: skip
def test_what_only_looks_like_a_family_is_in_none(model_id):
    assert family_of(model_id) is None


def test_the_bootstrap_models_are_those_three_and_nothing_is_known_of_them():
    assert BOOTSTRAP_FALLBACK_MODELS == ["openai/gpt-4o", "anthropic/claude-sonnet-4", "openai/gpt-4o-mini"]
    assert [model.pricing for model in bootstrap_models()] == [Pricing()] * 3


def test_the_rows_of_the_sample_that_are_no_candidates_say_why():
    reasons = {each: why for each, model in sample().items() if (why := exclusion(model, TODAY))}
    assert reasons == {
        "openrouter/auto": "a router: which model answers, and at what price, is not known beforehand",
        "openrouter/free": "a router: which model answers, and at what price, is not known beforehand",
        "~anthropic/claude-haiku-latest": "alias of anthropic/claude-haiku-4.5",
        "qwen/qwen3-vl-32b-instruct": "expired on 2026-10-09",
        "openai/gpt-6-sol:batch": "batch: answers hours later",
    }


def test_a_model_is_a_candidate_to_its_last_day_and_for_ever_with_the_far_date():
    model = one(expiration_date="2026-11-21")
    assert exclusion(model, TODAY) is None
    assert exclusion(model, TODAY + timedelta(days=1)) == "expired on 2026-11-21"
    assert exclusion(one(expiration_date="2098-12-31"), date(2099, 1, 1)) is None


def test_a_negative_price_and_a_router_by_its_tokenizer_are_no_candidates():
    assert "negative" in exclusion(one(pricing={"prompt": "-1", "completion": "1"}), TODAY)
    assert "router" in exclusion(one(architecture={"tokenizer": "Router"}), TODAY)
    assert exclusion(one(pricing={}), TODAY) is None


# --- changes --------------------------------------------------------------------------------------


def test_two_catalogues_differ_by_what_came_went_and_changed():
    before = {"a/gone": one(id="a/gone"), "a/b": one(pricing={"prompt": "0.000003"}, context_length=10)}
    after = {
        "a/new": one(id="a/new", pricing={"prompt": "0.000001", "completion": "0.00001"}),
        "a/b": one(pricing={"prompt": "0.000002"}, context_length=20, supported_parameters=["tools"]),
    }
    assert compare(before, after) == [
        Change(kind=ChangeKind.GONE, model_id="a/gone"),
        Change(kind=ChangeKind.NEW, model_id="a/new", after="$1 in, $10 out"),
        Change(kind=ChangeKind.PRICE, model_id="a/b", before="$3 in", after="$2 in"),
        Change(kind=ChangeKind.CAPABILITIES, model_id="a/b", before="none", after="tools"),
        Change(kind=ChangeKind.CONTEXT, model_id="a/b", before="10 tokens", after="20 tokens"),
    ]
    assert compare(before, after, keep=frozenset({"a/gone"}))[0].kind is ChangeKind.NEW


def test_another_spelling_of_the_same_price_is_no_change():
    old, new = one(pricing={"prompt": "0.0000030"}), one(pricing={"prompt": "3E-6"})
    assert compare({"a/b": old}, {"a/b": new}) == []
    assert compare(sample(), sample()) == []


# --- choosing -------------------------------------------------------------------------------------


def chosen(**wanted):
    return [model.model_id for model in choose(sample().values(), Wanted(**wanted), TODAY)]


def test_models_are_chosen_by_what_they_can_cost_and_hold():
    assert chosen(capabilities=("tools", "video"), max_price=Decimal(1)) == ["xiaomi/mimo-v2.5"]
    assert chosen(family="claude-4.5", min_context=500_000) == ["anthropic/claude-sonnet-4.5"]
    assert chosen(author="moonshotai", capabilities=("reasoning",)) == [
        "moonshotai/kimi-k2-thinking",
        "moonshotai/kimi-k3",
    ]
    assert len(chosen()) == 32
    assert len(chosen(excluded_too=True)) == 37


def test_a_model_of_unknown_price_is_within_no_limit_and_the_highest_price_counts():
    models = [
        one(id="a/unknown"),
        one(id="a/tiered", pricing={"prompt": "0", "completion": "0", "overrides": [{"prompt": "1"}]}),
        one(id="a/free", pricing={"prompt": "0", "completion": "0"}),
    ]
    cheap = choose(models, Wanted(max_price=Decimal(5)), TODAY)
    assert [model.model_id for model in cheap] == ["a/free"]


def test_a_word_that_is_no_capability_or_family_is_answered_with_those_there_are():
    with pytest.raises(CoordinatorError, match=r"no capability 'tolls': use one of tools, reasoning"):
        chosen(capabilities=("tolls",))
    with pytest.raises(CoordinatorError, match=r"no family 'gpt-9': use one of GPT-5.2, o3-pro"):
        chosen(family="gpt-9")


# --- prices at a moment ---------------------------------------------------------------------------


def record(model_id="a/b", *, prompt="0.000001", days=0, lasted=None, target=None):
    start = NOW + timedelta(days=days)
    return PriceRecord(
        model_id=model_id,
        valid_from=start,
        valid_to=start,
        ended_at=None if lasted is None else start + timedelta(days=lasted),
        sync_id=7 + days,
        pricing=Pricing(prices={"prompt": Decimal(prompt)}),
        alias_target=target,
    )


def quoted(records, model, **asked):
    book = CataloguePrices(lambda model_id: [each for each in records if each.model_id == model_id])
    return book.quote(model, at=NOW + timedelta(days=asked.get("days", 0), hours=1))


def test_a_run_is_priced_with_what_was_listed_when_it_ran():
    history = [record(prompt="0.000001", lasted=2), record(prompt="0.000005", days=2)]
    first, later = quoted(history, "a/b"), quoted(history, "a/b", days=3)
    assert (first.rates.input, later.rates.input) == (1, 5)
    assert (first.source, first.version) == ("catalogue", "openrouter sync 7 (2026-11-21T12:00:00Z)")
    assert later.version != first.version
    assert quoted(history, "a/b", days=-1) is None


def test_a_model_has_no_price_once_a_sync_did_not_see_it():
    assert quoted([record(lasted=2)], "a/b", days=3) is None


@pytest.mark.parametrize(
    "other", ["a/b:batch", "a/b:free", "A/B", "b", "a/", "a/b-20250101", "canonical/slug"]
)
def test_only_the_exact_id_has_a_price(other):
    assert quoted([record()], other) is None


def test_an_alias_costs_what_it_stands_for_and_no_circle_has_a_price():
    alias = record("~a/latest", prompt="0.5", target="a/b")
    assert quoted([alias, record()], "~a/latest").rates.input == 1
    assert quoted([alias], "~a/latest") is None
    assert quoted([record("~a/latest", target="~a/latest")], "~a/latest") is None
    assert quoted([record("~a/latest")], "~a/latest") is None


# --- rankings -------------------------------------------------------------------------------------


def result(model="m", outcome=Outcome.SUCCEEDED, cost="1", seconds=10):
    return RunResult(
        provider="p",
        model=model,
        outcome=outcome,
        duration=timedelta(seconds=seconds),
        cost=None if cost is None else Decimal(cost),
    )


def test_models_are_ranked_by_success_with_the_number_of_runs_and_the_cost_of_a_success():
    ranked = rank(
        [
            result("good", cost="0.1"),
            result("good", cost="0.2", seconds=30),
            result("poor", Outcome.FAILED, cost="2"),
            result("poor", cost="1"),
            result("poor", Outcome.LOST),
            result("poor", Outcome.RATE_LIMITED),
        ]
    )
    good, poor = ranked
    assert (good.model, good.runs, good.success_rate, good.cost_per_success) == (
        "good",
        2,
        1.0,
        Decimal("0.15"),
    )
    assert good.median_duration == timedelta(seconds=20)
    assert (poor.runs, poor.successes, poor.cost_per_success) == (2, 1, Decimal(3))


def test_one_run_of_unknown_cost_makes_the_cost_of_a_success_unknown():
    (ranking,) = rank([result(), result(cost=None)])
    assert (ranking.cost_per_success, ranking.runs_of_unknown_cost) == (None, 1)
    (failed,) = rank([result(outcome=Outcome.FAILED)])
    assert failed.cost_per_success is None


# --- research -------------------------------------------------------------------------------------


def test_rankings_add_up_the_days_and_leave_out_the_rest():
    rows = [("a/x", "5"), ("a/y", "7"), ("a/x", "4"), ("other", "99"), (None, "1"), ("a/z", "many")]
    answer = {"data": [{"model_permaslug": slug, "total_tokens": tokens} for slug, tokens in rows]}
    assert digest(questions()[0], answer) == [
        {"model": "a/x", "tokens": "9"},
        {"model": "a/y", "tokens": "7"},
    ]


def test_benchmarks_and_tasks_are_kept_as_far_as_they_are_there():
    *_, benchmarks, tasks = questions()
    rows = [{"model_permaslug": "a/x", "coding_index": 41.5, "source": "aa"}, {"model_permaslug": "a/y"}, 7]
    assert digest(benchmarks, {"data": rows}) == [{"model": "a/x", "source": "aa", "coding_index": "41.5"}]
    tag = {"tag": "code:debug", "models": [{"id": "a/x", "tag_usage_share": 0.25}, {"id": "a/y"}]}
    answer = {"data": {"classifications": [tag, None]}}
    assert digest(tasks, answer) == [{"task": "code:debug", "model": "a/x", "share": "0.25"}]


@pytest.mark.parametrize("answer", [None, {}, {"data": 5}, {"data": []}, {"data": {"classifications": "x"}}])
def test_an_answer_without_anything_usable_is_none(answer):
    assert {digest(question, answer) for question in questions()} == {None}


def test_a_research_stays_far_below_what_a_key_may_ask_in_a_minute():
    assert len(questions()) <= 20
    assert max(Counter(each.source for each in questions()).values()) == 1


def test_a_model_is_a_plain_value():
    assert replace(CatalogueModel(model_id="a/b"), family="x") != CatalogueModel(model_id="a/b")
