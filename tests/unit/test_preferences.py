"""Whose word counts where several say where a task goes: each level against the next."""

from __future__ import annotations

import pytest

from adw_modules.config import parse_settings, settings_diff
from adw_modules.errors import ConfigError
from adw_modules.routing import ModelRouter, Refusal, Target
from adw_modules.routing.lint import Kind, lint

EXPERIMENT = """
[[experiments]]
name = "x"
arms = [
    { name = "a", provider = "claude-cli", model = "arm" },
    { name = "b", provider = "claude-cli", model = "arm", weight = 2 },
]
"""
AUTHOR = """
[[preferences]]
author = "ada"
default_model = "author"
rules = [
    { name = "low", priority = 1, model = "author-low", condition = "labels contains 'docs'" },
    { name = "high", priority = 2, model = "author-high", condition = "labels contains 'docs'" },
]
"""
REPOSITORY = """
[[preferences]]
repository = "acme/shop"
default_model = "repository"
rules = [{ name = "top", priority = 1000, model = "repository-docs", condition = "labels contains 'docs'" }]
"""
RULES = """
[routing]
enabled = true
default_model = "routing"
rules = [{ name = "docs", priority = 5000, model = "routing-docs", condition = "labels contains 'docs'" }]
"""
LEVELS = {
    "experiment": (EXPERIMENT, "arm"),
    "author": (AUTHOR, "author-high"),
    "repository": (REPOSITORY, "repository-docs"),
    "routing": (RULES, "routing-docs"),
}
TASK = {
    "author": "Ada",
    "repo": "Acme/Shop",
    "labels": ["docs"],
    "task": {"repo_id": 1, "number": 1},
}


def router_of(*parts: str) -> ModelRouter:
    return ModelRouter(parse_settings("\n".join(parts), source="config.toml"))


def refuse(*models: str):
    return lambda target, _: Refusal("cooling") if target.model in models else None


@pytest.mark.parametrize(
    ("stronger", "weaker"),
    [
        ("experiment", "author"),
        ("experiment", "repository"),
        ("experiment", "routing"),
        ("author", "repository"),
        ("author", "routing"),
        ("repository", "routing"),
    ],
)
def test_of_two_levels_the_stronger_decides_and_the_weaker_follows(stronger, weaker):
    (first, model), (second, next_model) = LEVELS[stronger], LEVELS[weaker]
    enabled = [] if "routing" in {stronger, weaker} else ["[routing]\nenabled = true\n"]
    for parts in ([first, second, *enabled], [*enabled, second, first]):  # the order of the file is no matter
        router = router_of(*parts)
        assert router.decide(TASK).model == model
        own = {target.model for rule in router.rules for target in router.targets_of(rule)} - {next_model}
        below = [m for m in own if m.startswith(model.partition("-")[0])]
        assert router.decide(TASK, refuse(*below)).model == next_model


def test_a_label_of_a_permitted_person_beats_every_level():
    router = router_of(*(part for part, _ in LEVELS.values()))
    asked = {
        "provider": "claude-cli",
        "model": "wanted",
        "labels": ["model:wanted"],
        "by": ["bob"],
        "refused": [],
    }
    decision = router.decide({**TASK, "override": asked})
    assert decision.model == "wanted"
    assert "experiments" not in decision.stored().trace


def test_the_defaults_come_after_everything():
    router = router_of(*(part for part, _ in LEVELS.values()))
    stranger = {"author": "eve", "repo": "other/site", "labels": []}
    assert router.decide(stranger, refuse("arm")).model == "routing"
    assert router.decide(stranger, refuse("arm")).rule is None


def test_within_a_section_priority_counts_and_its_default_comes_last():
    router = router_of(RULES, AUTHOR)
    assert [rule.name for rule in router.rules] == [
        "author ada: high",
        "author ada: low",
        "author ada: default",
        "docs",
    ]
    assert router.decide(TASK, refuse("author-high")).rule == "author ada: low"
    assert router.decide({**TASK, "labels": []}).rule == "author ada: default"


def test_a_section_without_a_default_leaves_what_its_rules_do_not_match_to_the_next_level():
    router = router_of(RULES, AUTHOR.replace('default_model = "author"\n', ""))
    assert router.decide({**TASK, "labels": []}).model == "routing"


def test_what_a_rule_leaves_open_comes_from_its_section_first():
    providers = "\n".join(f'[providers.{p}]\ncommand_template = ["true"]\nagent = "generic"' for p in "pqr")
    section = '[[preferences]]\nauthor = "ada"\ndefault_provider = "q"\ndefault_model = "m"\n'
    rules = (
        '[[preferences.rules]]\nname = "nothing"\nconditions = { hour = 1 }\n'
        '[[preferences.rules]]\nname = "provider"\nconditions = { hour = 2 }\nprovider = "r"\n'
        '[[preferences.rules]]\nname = "offered"\nconditions = { hour = 3 }\nmodel = "known"\n'
        '[[preferences.rules]]\nname = "unlisted"\nconditions = { hour = 6 }\nmodel = "new"\n'
        '[[preferences.rules]]\nname = "spread"\nconditions = { hour = 7 }\ntargets = [{ provider = "r" }]\n'
        '[[preferences.rules]]\nname = "target"\nconditions = { hour = 4 }\ntarget = "p/x"\n'
    )
    models = '[[models]]\nname = "known"\nprovider = "p"\n'
    router = router_of("[routing]\nenabled = true", providers, section, rules, models)
    found = {hour: router.decide({"author": "ada", "hour": hour}) for hour in range(1, 8)}
    assert {hour: f"{each.provider}/{each.model}" for hour, each in found.items()} == {
        1: "q/m",
        2: "r/m",
        3: "p/known",
        4: "p/x",
        5: "q/m",
        6: "q/new",
        7: "r/m",
    }


def test_preferences_rest_while_routing_is_disabled():
    assert router_of(AUTHOR, RULES.replace("enabled = true", "enabled = false")).decide(TASK).rule is None


def test_preferences_of_somebody_else_change_nothing():
    with_others = router_of(RULES, AUTHOR, REPOSITORY)
    for labels in (["docs"], []):
        stranger = {"author": "eve", "repo": "other/site", "labels": labels}
        assert with_others.decide(stranger).model == router_of(RULES).decide(stranger).model


def test_lint_sees_rules_and_targets_of_every_level():
    hidden = RULES + AUTHOR
    found = lint(router_of(hidden, EXPERIMENT), lambda _: "key not set")
    assert {(each.kind, each.rule) for each in found} >= {
        (Kind.SHADOWED, "author ada: low"),
        (Kind.TARGET, "experiment x: a"),
        (Kind.TARGET, "author ada: default"),
    }
    assert (Kind.SHADOWED, "docs") not in {(each.kind, each.rule) for each in found}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[[preferences]]\ndefault_model = "m"', "number 1 needs an author or a repository, and not both"),
        (
            '[[preferences]]\nauthor = "a"\nrepository = "b/c"',
            "needs an author or a repository, and not both",
        ),
        (
            '[[preferences]]\nrepository = "b"',
            'preferences[#1].repository must be a repository as "owner/name"',
        ),
        (
            '[[repositories]]\nowner = "acme"\nname = "shop"\n[[preferences]]\nrepository = "acme/shpo"',
            'preferences[#1].repository names "acme/shpo", which is not watched; did you mean "acme/shop"?',
        ),
        (
            '[[preferences]]\nauthor = "ada"\n[[preferences]]\nauthor = "Ada"',
            '[[preferences]] of the author "Ada" are there twice.',
        ),
        (
            '[[preferences]]\nauthor = "ada"\ndefault_provider = "claud-cli"',
            'preferences[#1].default_provider names "claud-cli", which no [providers] table',
        ),
        (
            '[[preferences]]\nauthor = "ada"\nrules = [{ name = "r", provider = "zzz" }]',
            'preferences[#1].rules[r].provider names "zzz", which no [providers] table has',
        ),
        (
            '[[preferences]]\nauthor = "ada"\nrules = [{ name = "r", conditon = "hour == 1" }]',
            '[[preferences.rules]] "r" has no key "conditon"; did you mean "condition"?',
        ),
        (
            (
                '[[preferences]]\nauthor = "ada"\nrules = [{ target = "p/a", fallbacks = ["p/a"] }]\n'
                '[providers.p]\nagent = "claude"'
            ),
            "preferences[#1]: p/a stands in a chain of targets twice; keep one of them.",
        ),
        ('[[experiments]]\nname = "x"', '[[experiments]] "x" has no "arms", which it needs.'),
        (
            '[[experiments]]\nname = "x"\narms = [{ name = "a", provider = "claude-cli", model = "m" }]',
            '[[experiments]] "x" needs two arms at least: there is nothing to compare.',
        ),
        (EXPERIMENT.replace('"b"', '"A"'), '[[experiments]] "x" has two arms'),
        (EXPERIMENT + EXPERIMENT, '[[experiments]] "x" is there twice.'),
        (EXPERIMENT.replace('"x"', '"a: b"'), "experiments[a: b].name must be a name of letters"),
        (EXPERIMENT + "share = 1.5", "experiments[x].share must be at most 1, not 1.5"),
        (EXPERIMENT.replace('model = "arm" }', 'modl = "arm" }'), '[[experiments.arms]] "a" has no key'),
        (EXPERIMENT + "stop = { min_samples = 9, max_samples = 8 }", "max_samples (8) must not be smaller"),
        (EXPERIMENT + "condition = \"provider_status['zz'] == 'up'\"", 'asks for the status of "zz"'),
        (
            '[experiments]\nname = "x"',
            "experiments must be written with two pairs of brackets: [[experiments]].",
        ),
    ],
)
def test_each_mistake_gets_one_sentence(text, says):
    with pytest.raises(ConfigError) as caught:
        parse_settings(text, source="config.toml")
    assert any(says in problem for problem in caught.value.problems), caught.value.problems


def test_a_reload_names_each_value_that_changed():
    before = parse_settings(EXPERIMENT + AUTHOR, source="x")
    changed = (
        (EXPERIMENT + "share = 0.5\n" + AUTHOR)
        .replace("weight = 2", "weight = 3")
        .replace("author-low", "new")
    )
    assert settings_diff(before, parse_settings(changed, source="x")) == [
        'preferences[ada].rules[low].model: "author-low" -> "new" (live)',
        "experiments[x].share: 1 -> 0.5 (live)",
        "experiments[x].arms[b].weight: 2 -> 3 (live)",
    ]


def test_a_target_is_one_thing_to_all_levels():
    """A target refused once is not asked again by a weaker level."""
    asked: list[Target] = []

    def eligible(target, _attrs):
        asked.append(target)
        return Refusal("cooling")

    shared = AUTHOR.replace('"author"', '"same"') + REPOSITORY.replace('"repository"', '"same"')
    router_of(RULES, shared).decide(TASK, eligible)
    assert len(asked) == len(set(asked))
