"""The `provider` object: every field, the choice by model, a sentence for what cannot be; and the address."""

from __future__ import annotations

from dataclasses import fields
from decimal import Decimal

import pytest
from pydantic import ValidationError

from adw_modules.config import OpenRouterPreferenceSettings, parse_settings
from adw_modules.openrouter.preferences import (
    DEFAULT_PREFERENCES,
    READERS,
    PreferenceEntry,
    ProviderPreferences,
    entries_from,
    preferences_for,
)
from adw_modules.openrouter.wire import OPENROUTER_BASE_URL, base_url, headers

EVERY = {
    "order": ["groq", "google-vertex/us-east5"],
    "allow_fallbacks": False,
    "only": ["groq"],
    "ignore": ["deepinfra"],
    "require_parameters": True,
    "data_collection": "deny",
    "zdr": True,
    "enforce_distillable_text": False,
    "quantizations": ["fp8", "bf16"],
    "sort": {"by": "price", "partition": "none"},
    "max_price": {"prompt": Decimal("0.10"), "completion": 2},
    "preferred_max_latency": {"p90": 3},
    "preferred_min_throughput": 50,
    "options": {"groq": {"x": Decimal("1.5")}},
}


def test_every_field_goes_over_the_wire_as_it_is_configured():
    assert set(EVERY) == {field.name for field in fields(ProviderPreferences)} == set(READERS)
    assert ProviderPreferences.from_mapping(EVERY).to_json() == {
        **EVERY,
        "max_price": {"prompt": "0.10", "completion": "2"},
        "options": {"groq": {"x": 1.5}},
    }


def test_what_is_not_set_is_not_sent():
    assert ProviderPreferences().to_json() == {}
    assert ProviderPreferences(sort=None, zdr=False).to_json() == {"zdr": False}


@pytest.mark.parametrize(
    "model", ["moonshotai/kimi-k2", "MoonshotAI/Kimi-K2-0905:exacto", "moonshotai/kimi-k2-thinking"]
)
def test_kimi_k2_goes_to_groq_then_to_its_maker_then_to_anybody(model):
    preferences = preferences_for(model, DEFAULT_PREFERENCES)
    assert preferences is not None
    assert preferences.to_json() == {"order": ["groq", "moonshotai"], "allow_fallbacks": True}


@pytest.mark.parametrize("model", ["moonshotai/kimi-k3", "openai/gpt-5", ""])
def test_other_models_have_no_preferences(model):
    assert preferences_for(model, DEFAULT_PREFERENCES) is None


def test_the_first_entry_with_a_pattern_for_the_model_counts():
    entries = [
        PreferenceEntry(models=("a/*", "x/y"), preferences=ProviderPreferences(order=("one",))),
        PreferenceEntry(models=("*",), preferences=ProviderPreferences(order=("two",))),
    ]
    orders = [preferences_for(model, entries).order for model in ("a/b", "X/Y", "x/yz")]
    assert orders == [("one",), ("one",), ("two",)]


def test_a_file_without_entries_has_the_one_for_kimi_and_an_empty_list_has_none():
    for text in ("", "[openrouter]\napp_name = 'x'"):
        settings = parse_settings(text, source="x")
        assert tuple(entry.entry for entry in settings.openrouter.preferences) == DEFAULT_PREFERENCES
    assert parse_settings("[openrouter]\npreferences = []", source="x").openrouter.preferences == ()
    assert entries_from({}) == entries_from({"openrouter": {}}) == DEFAULT_PREFERENCES
    assert entries_from({"openrouter": {"preferences": []}}) == ()


TEXT = """
[[openrouter.preferences]]
models = ["Some/*"]
order = ["groq", "google-vertex/us-east5"]
allow_fallbacks = false
only = ["groq"]
ignore = ["deepinfra"]
require_parameters = true
data_collection = "deny"
zdr = true
enforce_distillable_text = false
quantizations = ["fp8", "bf16"]
sort = { by = "price", partition = "none" }
max_price = { prompt = 0.10, completion = 2 }
preferred_max_latency = { p90 = 3 }
preferred_min_throughput = 50
options = { groq = { x = 1.5 } }
"""


def test_the_checked_file_and_the_bare_reading_of_it_agree():
    (entry,) = parse_settings(TEXT, source="x").openrouter.preferences
    assert entry.entry == PreferenceEntry(
        models=("Some/*",), preferences=ProviderPreferences.from_mapping(EVERY)
    )
    assert entries_from({"openrouter": {"preferences": [{"models": ["Some/*"], **EVERY}]}}) == (entry.entry,)


WRONG = [
    ("order", "groq"),
    ("order", []),
    ("only", [""]),
    ("ignore", ["a b"]),
    ("ignore", [1]),
    ("allow_fallbacks", 1),
    ("data_collection", "never"),
    ("data_collection", ["deny"]),
    ("quantizations", ["int3"]),
    ("sort", "cheap"),
    ("sort", {"partition": "none"}),
    ("sort", {"by": "price", "x": 1}),
    ("sort", {"by": ["price"]}),
    ("max_price", 1),
    ("max_price", {}),
    ("max_price", {"output": 1}),
    ("max_price", {"prompt": -1}),
    ("max_price", {"prompt": True}),
    ("max_price", {"prompt": float("nan")}),
    ("max_price", {"prompt": "1e-9999999"}),
    ("max_price", {"prompt": 10**5000}),
    ("preferred_max_latency", 0),
    ("preferred_max_latency", {"p95": 1}),
    ("preferred_min_throughput", "fast"),
    ("options", {"groq": 1}),
    ("options", []),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_what_a_field_cannot_be_is_a_sentence(name, value):
    with pytest.raises(ValueError, match=rf"^{name} must be [^\n]+\.$"):
        ProviderPreferences.from_mapping({name: value})
    with pytest.raises(ValidationError, match=name):
        OpenRouterPreferenceSettings.model_validate({"models": ["a"], name: value})


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"openrouter": {"preferences": [{"order": ["groq"]}]}}, "models must be a list"),
        ({"openrouter": {"preferences": [{"models": ["a"], "ordre": []}]}}, 'no field "ordre"'),
        ({"openrouter": {"preferences": {"models": ["a"]}}}, r"write \[\[openrouter.preferences\]\]"),
        ({"openrouter": 5}, r"write \[\[openrouter.preferences\]\]"),
    ],
)
def test_entries_that_cannot_be_read_are_a_sentence(document, said):
    with pytest.raises(ValueError, match=said):
        entries_from(document)


def test_the_address_is_the_service_or_what_the_variable_says():
    assert base_url({}) == base_url({"OPENROUTER_BASE_URL": " "}) == OPENROUTER_BASE_URL
    assert base_url({"OPENROUTER_BASE_URL": "http://127.0.0.1:1/v1/ "}) == "http://127.0.0.1:1/v1"


@pytest.mark.parametrize(
    "address", ["x", "ftp://e.org", "http://", "http://a b", "http://e.org:x", "http://e/?q", "https://u:p@e"]
)
def test_an_address_that_cannot_be_one_is_a_sentence_without_its_password(address):
    with pytest.raises(ValueError, match="OPENROUTER_BASE_URL must") as caught:
        base_url({"OPENROUTER_BASE_URL": address})
    assert "u:p" not in str(caught.value)


def test_without_a_key_there_is_no_authorization():
    assert "Authorization" not in headers(None)
