"""The schema of config.toml: what is accepted, the sentences for what is not, diffs, and finding lines."""

from __future__ import annotations

import json
import tomllib
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from adw_modules.config import (
    Settings,
    TomlLines,
    check_environment,
    check_runnable,
    parse_settings,
    pin_restart_keys,
    settings_diff,
)
from adw_modules.errors import ConfigError
from tests.seed_config import BASIC_SETUP, RULES

# --- what the original documents show must parse as written -----------------------------------

SEEDS = {
    "basic set-up": BASIC_SETUP,
    "rules alone": RULES,
    "set-up and rules": BASIC_SETUP + RULES,
    "only the switch": "[routing]\nenabled = true\n",
    "a rule for a second provider": BASIC_SETUP
    + """
[[routing.rules]]
name = "low-priority-openrouter"
priority = 40
conditions = { priority = "low" }
provider = "openrouter"
model = "anthropic/claude-3.5-haiku"  # Note: OpenRouter uses / namespacing
""",
    "a rule without provider": """
[[routing.rules]]
name = "retry-use-haiku"
priority = 95
conditions = { retry_count = { gte = 1 } }
model = "claude-haiku-4"
""",
    "a new provider with its rule": """
[providers.myprovider]
enabled = true
requires_api_key = true
api_key_env = "MYPROVIDER_API_KEY"
command_template = [
    "tools/myprovider-cli.py",
    "-p", "{prompt_file}",
    "--model", "{model}",
    "--output-file", "{output_file}"
]
[[routing.rules]]
name = "myprovider-fallback"
priority = 10
conditions = { retry_count = { gte = 2 } }
provider = "myprovider"
model = "myprovider/some-model"
""",
    "providers of the architecture page": """
[providers.claude-cli]
enabled = true
command_template = ["claude", "-p", "{prompt_file}", "--model", "{model}", "..."]

[providers.openrouter]
enabled = true
api_key_env = "OPENROUTER_API_KEY"
command_template = ["curl", "-X", "POST", "https://openrouter.ai/api/v1/...", "..."]

[providers.openai]
enabled = true
command_template = ["openai", "api", "chat.completions.create", "..."]
""",
    "model catalogue": """
[[models]]
name = "claude-sonnet-4-5"
provider = "claude-cli"
cost_per_million_input = 3.0
cost_per_million_output = 15.0
capabilities = ["code", "reasoning", "vision"]

[[models]]
name = "deepseek/deepseek-chat"
provider = "openrouter"
cost_per_million_input = 0.14
cost_per_million_output = 0.28
capabilities = ["code", "cheap"]
""",
    "rules as texts": """
[routing]
default_model = "claude-sonnet-4-5"

[[routing.rules]]
condition = "priority == 0"
model = "claude-opus-4"
reason = "Critical tasks get best model"

[[routing.rules]]
condition = "labels contains 'documentation'"
model = "claude-haiku-4"
reason = "Docs don't need expensive model"

[[routing.rules]]
condition = "hour >= 22 or hour <= 6"
model = "deepseek/deepseek-chat"
reason = "Night jobs use budget model"

[[routing.rules]]
condition = "provider_status['claude-cli'] == 'down'"
model = "anthropic/claude-3.5-sonnet"  # OpenRouter fallback

[[routing.rules]]
condition = "task.id ends_with '0'"  # 10% of tasks
model = "grok-beta"
reason = "A/B test Grok performance"

[[routing.rules]]
condition = "estimated_tokens > 50000"
model = "claude-opus-4"
""",
    "workflows": """
[workflows.standard]
stages = [
    { name = "plan", model = "claude-haiku-4" },
    { name = "implement", model = "claude-sonnet-4-5" },
    { name = "review", model = "claude-opus-4" }
]

[workflows.budget]
stages = [
    { name = "plan", model = "gpt-4o-mini" },
    { name = "implement", model = "deepseek/deepseek-chat" },
    { name = "review", model = "claude-haiku-4" }
]
""",
    "TAC-8": """
[coordinator]
max_concurrent_workers = 3
poll_interval_seconds = 30
worker_timeout_hours = 2
[github]
repo_owner = "circuit-synth"
repo_name = "circuit-synth"
issue_label = "rpi-auto"
[worktree]
base_dir = "trees"
""",
}


def parse(text: str) -> Settings:
    return parse_settings(text, source="adws/config.toml")


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    return caught.value.problems


@pytest.mark.parametrize("text", SEEDS.values(), ids=SEEDS)
def test_the_original_documents_configurations_parse_as_written(text: str):
    parse(text)


def test_the_seed_configuration_keeps_every_value():
    read = parse(BASIC_SETUP + RULES)
    assert list(read.providers) == ["claude-cli", "openrouter"]
    assert read.providers["openrouter"].api_key_env == "OPENROUTER_API_KEY"
    assert [rule.priority for rule in read.routing.rules] == [100, 95, 90, 70, 60]
    assert read.routing.rules[1].conditions == {"retry_count": {"gte": 1}}
    assert read.routing.enabled is False


def test_an_empty_text_means_all_defaults():
    read = parse("")
    assert read.coordinator.max_concurrent_workers == 3
    assert read.coordinator.poll_interval_seconds == 30
    assert read.routing.rules == ()
    assert check_runnable(read, source="c.toml") == [
        (
            "c.toml: no repository is configured; set repo_owner and repo_name in [github], "
            "or add a [[repositories]] table."
        )
    ]


def test_prices_stay_what_the_file_says():
    model = parse(SEEDS["model catalogue"]).models[1]
    assert (model.cost_per_million_input, model.cost_per_million_output) == (Decimal("0.14"), Decimal("0.28"))
    assert model.cost_per_million_cache_read is None


def test_a_rule_has_priority_fifty_unless_it_says_otherwise():
    assert parse("[[routing.rules]]\nmodel = 'm'\n").routing.rules[0].priority == 50


def test_claude_cli_is_built_in_only_where_something_names_it():
    assert parse("").providers["claude-cli"].command_template[:2] == ("claude", "-p")
    elsewhere = "[providers.x]\ncommand_template = ['x']\n[llm]\nprovider = 'x'\n"
    assert list(parse(elsewhere).providers) == ["x"]


def test_a_byte_order_mark_is_no_problem():
    assert parse("\ufeff[coordinator]\nmax_attempts = 5\n").coordinator.max_attempts == 5


# --- repositories ------------------------------------------------------------------------------


def test_further_repositories_borrow_what_they_do_not_say_from_github():
    read = parse(
        "[github]\nrepo_owner = 'o'\nrepo_name = 'main'\nremote_url = '/srv/{owner}/{name}.git'\n"
        "[[repositories]]\nowner = 'p'\nname = 'other'\n"
        "[[repositories]]\nowner = 'p'\nname = 'third'\nissue_label = 'do-it'\nremote_url = 'git@h:{name}'\n"
    )
    found = [(r.full_name, r.label, r.remote_url, r.is_primary) for r in read.all_repositories()]
    assert found == [
        ("o/main", "rpi-auto", "/srv/o/main.git", True),
        ("p/other", "rpi-auto", "/srv/p/other.git", False),
        ("p/third", "do-it", "git@h:third", False),
    ]
    assert check_runnable(read) == []


def test_the_shipped_files_empty_repository_counts_as_not_set():
    assert parse("[github]\nrepo_owner = ''\nrepo_name = ''\n").all_repositories() == ()


# --- the sentence for every way to get it wrong ------------------------------------------------

F = "adws/config.toml"
SENTENCES = [
    # keys and sections
    ("[routing]\nenabeld = true", ', line 2: [routing] has no key "enabeld"; did you mean "enabled"?'),
    (
        "[llm]\nqqq = 1",
        ', line 2: [llm] has no key "qqq"; its keys are provider, model_default.',
    ),
    (
        "[coordinator]\nlauncher = 'docker'",
        ', line 2: coordinator.launcher must be "shim" or "systemd", not "docker".',
    ),
    *(
        (
            f"[worker_limits]\nmemory_max = {value}",
            (
                ', line 2: worker_limits.memory_max must be a size such as "512M" or "2G", '
                f'or a share of the memory such as "25%", not {value}.'
            ),
        )
        for value in ('"512"', '"0M"', '"512 MB"', '"120%"', '"M"', "512", '"infinity"')
    ),
    (
        "[worker_limits]\ncpu_percent = 0",
        ", line 2: worker_limits.cpu_percent must be a whole number of 1 or more, not 0.",
    ),
    (
        "[github]\nmax_concurrent_workers = 1",
        ', line 2: [github] has no key "max_concurrent_workers"; it belongs into [coordinator].',
    ),
    ("\n[rooting]\nx = 1", ", line 2: there is no section [rooting]; did you mean [routing]?"),
    (
        "max_attempts = 1",
        ', line 1: the key "max_attempts" stands outside every section; it belongs into [coordinator].',
    ),
    (
        "zzz = 1",
        (
            ', line 1: there is no key "zzz" outside the sections; the sections are coordinator, '
            "worker_limits, sandbox, limits, housekeeping, retries, github, admission, webhook, "
            "repositories, providers, llm, worktree, content, routing, preferences, experiments, "
            "models, budgets, budget_estimates, "
            "openrouter, catalog, selection, workflows."
        ),
    ),
    (
        "[openrouter]\ncolour = 'red'",
        (
            ', line 2: [openrouter] has no key "colour"; '
            "its keys are app_name, app_url, categories, preferences."
        ),
    ),
    (
        "[openrouter]\ncategories = ['a', 'b', 'c']",
        (
            ', line 2: openrouter.categories must be a list of at most 2 categories, such as ["cli-agent"], '
            "not a list."
        ),
    ),
    (
        "[openrouter]\napp_url = 'example.org'",
        (
            ", line 2: openrouter.app_url must be the address of a page, such as "
            '"https://example.org/our-agents", not "example.org".'
        ),
    ),
    (
        "[openrouter.preferences]\nmodels = ['a']",
        (
            ", line 1: openrouter.preferences must be written with two pairs of brackets: "
            "[[openrouter.preferences]]."
        ),
    ),
    (
        "[[openrouter.preferences]]\norder = ['groq']",
        ', line 1: [[openrouter.preferences]] number 1 has no "models", which it needs.',
    ),
    (
        "[[openrouter.preferences]]\nmodels = ['a']\nordre = ['groq']",
        ', line 3: [[openrouter.preferences]] number 1 has no key "ordre"; did you mean "order"?',
    ),
    (
        "[[openrouter.preferences]]\nmodels = ['a']\norder = 'groq'",
        (
            ", line 3: openrouter.preferences[#1].order must be a list of providers' names, such as "
            '["groq", "moonshotai"], not "groq".'
        ),
    ),
    (
        "[[openrouter.preferences]]\nmodels = ['a']\nsort = 'cheapest'",
        (
            ', line 3: openrouter.preferences[#1].sort must be one of "price", "throughput", '
            '"latency", "exacto", or a table such as { by = "price", partition = "none" }, not "cheapest".'
        ),
    ),
    (
        "[[openrouter.preferences]]\nmodels = ['a']\nmax_price = { prompt = -1 }",
        (
            ", line 3: openrouter.preferences[#1].max_price must be a table with prices of 0 or more for "
            "some of prompt, completion, request, image, audio."
        ),
    ),
    (
        "[[openrouter.preferences]]\nmodels = ['a']\ndata_collection = 'never'",
        ', line 3: openrouter.preferences[#1].data_collection must be "allow" or "deny", not "never".',
    ),
    ("routing = 5", ", line 1: routing must be a table ([routing]), not 5."),
    (
        "[[routing]]\nenabled = true",
        ", line 1: routing must be a table with one pair of brackets: write [routing], not [[routing]].",
    ),
    (
        "[repositories]\nowner = 'a'",
        ", line 1: repositories must be written with two pairs of brackets: [[repositories]].",
    ),
    (
        "[[models]]\nname = 'm'\nprovider = 'p'\ncontext_windw = 1",
        ', line 4: [[models]] "m" has no key "context_windw"; did you mean "context_window"?',
    ),
    (
        "[catalog]\nalert_issue = 3",
        ", line 1: [catalog] needs alert_repository too: alert_repository and alert_issue belong together.",
    ),
    (
        "[catalog]\nalert_repository = 'hello'",
        ', line 2: catalog.alert_repository must be a repository as "owner/name", not "hello".',
    ),
    ("[[models]]\nprovider = 'p'", ', line 1: [[models]] number 1 has no "name", which it needs.'),
    ("[providers.x]", ', line 1: [providers.x] has no "command_template", which it needs.'),
    ("[providers]\nx = 1", ", line 2: providers.x must be a table ([providers.x]), not 1."),
    (
        "[workflows.a]\nstages = [{ name = 'plan', modle = 'm' }]",
        ', line 2: [[workflows.a.stages]] "plan" has no key "modle"; did you mean "model"?',
    ),
    # values
    (
        '[coordinator]\npoll_interval_seconds = "fast"',
        ', line 2: coordinator.poll_interval_seconds must be a number greater than 0, not "fast".',
    ),
    (
        "[coordinator]\npoll_interval_seconds = 0",
        ", line 2: coordinator.poll_interval_seconds must be a number greater than 0, not 0.",
    ),
    (
        "[coordinator]\npoll_interval_seconds = nan",
        ", line 2: coordinator.poll_interval_seconds must be a number greater than 0, not NaN.",
    ),
    (
        "[coordinator]\npoll_interval_seconds = 1e300",
        ", line 2: coordinator.poll_interval_seconds must be at most 3.1536e+07, not 1E+300.",
    ),
    (
        "[coordinator]\npoll_interval_seconds = true",
        ", line 2: coordinator.poll_interval_seconds must be a number greater than 0, not true.",
    ),
    (
        "[coordinator]\nmax_concurrent_workers = 1.5",
        ", line 2: coordinator.max_concurrent_workers must be a whole number of 1 or more, not 1.5.",
    ),
    (
        "[coordinator]\ntimezone = 'Europe/Berln'",
        (
            ', line 2: coordinator.timezone "Europe/Berln" is not a time zone of the IANA list; '
            'did you mean "Europe/Berlin"?'
        ),
    ),
    (
        "[coordinator]\ntimezone = '../etc'",
        (
            ', line 2: coordinator.timezone "../etc" is not a time zone of the IANA list, '
            'such as "UTC" or "Europe/Berlin".'
        ),
    ),
    (
        "[coordinator]\nstate_dir = '~/x'",
        (
            ', line 2: coordinator.state_dir must not begin with "~", which only a shell understands; '
            "write the whole path."
        ),
    ),
    (
        "[retries]\nbase_delay_seconds = 100\nmax_delay_seconds = 50",
        ", line 1: [retries] max_delay_seconds (50) must not be smaller than base_delay_seconds (100).",
    ),
    (
        "[github]\nrepo_owner = 'o'",
        ", line 1: [github] needs repo_name too: repo_owner and repo_name belong together.",
    ),
    (
        "[github]\nrepo_owner = 'o'\nrepo_name = 'o/r'",
        (
            ", line 3: github.repo_name must be the name of the repository alone, without owner and slash, "
            'not "o/r".'
        ),
    ),
    (
        "[github]\nrepo_owner = 'o'\nrepo_name = 'r.git'",
        ', line 3: github.repo_name must be the name of the repository without .git, not "r.git".',
    ),
    (
        "[github]\nrepo_owner = 'o'\nrepo_name = '..'",
        ', line 3: github.repo_name must be the name of a repository on GitHub, not "..".',
    ),
    (
        "[github]\nrepo_owner = 'a b'\nrepo_name = 'r'",
        ', line 2: github.repo_owner must be the login of a user or organisation on GitHub, not "a b".',
    ),
    (
        "[github]\nissue_label = 'a,b'",
        ', line 2: github.issue_label must not contain a slash or a comma, but is "a,b".',
    ),
    (
        "[github]\nissue_label = 'Coordinator:go'",
        (
            ', line 2: github.issue_label must not begin with "coordinator:": labels with '
            "github.status_label_prefix are the ones the daemon sets itself."
        ),
    ),
    (
        "[admission]\nroles = ['read']",
        ', line 2: admission.roles must not name "read": on a public repository that is everybody.',
    ),
    (
        "[admission]\nbots = ['dependabot[bot]']",
        ', line 2: admission.bots[#1] must be a whole number of 1 or more, not "dependabot[bot]".',
    ),
    (
        "[github]\ntoken_env = 'ghp_0123456789abcdef'",
        (
            ", line 2: github.token_env must be the NAME of an environment variable; "
            "this looks like the secret itself."
        ),
    ),
    (
        "[github]\napi_url = 'ftp://x'",
        (
            ', line 2: github.api_url must be an http or https address, such as "https://api.github.com", '
            'not "ftp://x".'
        ),
    ),
    (
        "[github]\nremote_url = '--upload-pack=x'",
        ', line 2: github.remote_url must be the address of a git repository, not "--upload-pack=x".',
    ),
    (
        "[github]\nremote_url = 'https://u:pw@h/{owner}/{name}'",
        (
            ", line 2: github.remote_url must not contain a password; the token comes from the variable in "
            "github.token_env."
        ),
    ),
    (
        "[github]\nremote_url = '/srv/{repo}'",
        ', line 2: github.remote_url has an unknown placeholder "{repo}"; known are {owner} and {name}.',
    ),
    # providers
    (
        "[providers.x]\ncommand_template = ['x', '{promt_file}']",
        (
            ', line 2: providers.x.command_template has an unknown placeholder "{promt_file}"; '
            'did you mean "{prompt_file}"?'
        ),
    ),
    (
        "[providers.x]\ncommand_template = ['curl', 'Bearer ${KEY}']",
        (
            ', line 2: providers.x.command_template contains "${KEY}", but every user of the machine '
            "can read a command line; name the variable in api_key_env or pass_env, "
            "and the worker gets it in its environment."
        ),
    ),
    (
        "[providers.x]\ncommand_template = ['', 'x']",
        ", line 2: providers.x.command_template must begin with the program to run.",
    ),
    (
        "[providers.x]\ncommand_template = 'claude -p'",
        (
            ", line 2: providers.x.command_template must be a list of texts, such as "
            '["claude", "-p", "--model", "{model}"], not "claude -p".'
        ),
    ),
    (
        "[providers.x]\ncommand_template = ['x', 'sk-0123456789abc']",
        (
            ", line 2: providers.x.command_template contains what looks like a secret; name its variable in "
            "api_key_env or pass_env instead."
        ),
    ),
    (
        "[providers.x]\ncommand_template = ['x']\nrequires_api_key = true",
        (
            ", line 1: [providers.x] has requires_api_key = true, so it needs api_key_env, the variable that "
            "holds the key."
        ),
    ),
    (
        "[providers.x]\ncommand_template = ['x']\npass_env = ['GITHUB_TOKEN']",
        ', line 3: providers.x.pass_env must not name "GITHUB_TOKEN": workers get no GitHub token.',
    ),
    (
        "[providers.x]\ncommand_template = ['x']\nstop_signal = 'SIGHUP'",
        ', line 3: providers.x.stop_signal must be "SIGINT" or "SIGTERM", not "SIGHUP".',
    ),
    (
        "[providers.x]\ncommand_template = ['x']\nenv = { MY_KEY = 1 }",
        ", line 3: providers.x.env MY_KEY must be a text in quotes.",
    ),
    (
        "[providers.'a/b']\ncommand_template = ['x']",
        (
            ', line 1: [providers] cannot have the name "a/b": a name has letters, digits, dots, dashes and '
            "underscores, at most 64 of them."
        ),
    ),
    (
        "[llm]\nprovider = 'claude-cly'",
        (
            ', line 2: llm.provider names "claude-cly", which no [providers] table has; '
            'did you mean "claude-cli"?'
        ),
    ),
    (
        "[routing]\ndefault_provider = 'zzz'",
        (
            ', line 2: routing.default_provider names "zzz", which no [providers] table has; '
            'configured are "claude-cli".'
        ),
    ),
    # rules
    (
        "[[routing.rules]]\nname = 'docs'\nprovider = 'zzz'",
        (
            ', line 3: routing.rules[docs].provider names "zzz", which no [providers] table has; '
            'configured are "claude-cli".'
        ),
    ),
    (
        "[[routing.rules]]\nconditions = { lables = ['a'] }",
        ', line 2: routing.rules[#1].conditions has no key "lables"; did you mean "labels"?',
    ),
    (
        "[[routing.rules]]\nconditions = 'x'",
        ', line 2: routing.rules[#1].conditions must be a table, such as { priority = "critical" }, not "x".',
    ),
    (
        "[[routing.rules]]\nconditions = { priority = 'low' }\ncondition = 'hour == 1'",
        ', line 1: [[routing.rules]] number 1 has both "condition" and "conditions"; keep one of them.',
    ),
    # things that are there twice
    (
        "[[models]]\nname = 'm'\nprovider = 'p'\n[[models]]\nname = 'm'\nprovider = 'q'",
        ', line 5: [[models]] "m" is there twice (number 1 and 2).',
    ),
    (
        "[github]\nrepo_owner = 'o'\nrepo_name = 'r'\n[[repositories]]\nowner = 'O'\nname = 'R'",
        ", line 6: the repository O/R is configured twice; keep one of the two.",
    ),
    (
        "[[models]]\nname = 'm'\nprovider = 'p'\ncost_per_million_input = -1",
        ", line 4: models[m].cost_per_million_input must be a number of 0 or more, not -1.",
    ),
    # not TOML
    ("[coordinator]\nx = = 1\n", ", line 2, column 5: this is not valid TOML: invalid value."),
    ("[a", ", at the end: this is not valid TOML: expected ']' at the end of a table declaration."),
    ("x = " + "9" * 5000, ": this is not a usable TOML file (a number or a nesting is too long)."),
    ("x = " + "[" * 5000, ": this is not a usable TOML file (a number or a nesting is too long)."),
]


@pytest.mark.parametrize(("text", "sentence"), SENTENCES, ids=[sentence[2:60] for _, sentence in SENTENCES])
def test_each_mistake_gets_one_sentence_with_its_line_and_how_to_mend_it(text: str, sentence: str):
    assert problems(text) == [F + sentence]


@pytest.mark.parametrize(
    "conditions",
    [
        "{ priority = 'urgent' }",
        "{ retry_count = { ge = 1 } }",
        "{ retry_count = 'one' }",
        "{ hour_range = [1] }",
        "{ hour_range = [0, 99] }",
        "{ labels = [1] }",
    ],
)
def test_a_condition_that_could_never_be_meant_is_refused_with_its_rule(conditions: str):
    (sentence,) = problems(f"[[routing.rules]]\nname = 'r'\nconditions = {conditions}")
    assert sentence.startswith(f"{F}, line 3: routing.rules[r].conditions cannot be used: ")


def test_a_text_condition_is_refused_with_the_place_of_its_mistake():
    (sentence,) = problems("[[routing.rules]]\ncondition = 'priority == '")
    found = "expected a name or a value, found the end"
    assert sentence.split("\n") == [
        f"{F}, line 2: routing.rules[#1].condition is wrong at character 13: {found}.",
        "    priority == ",
        "                ^",
    ]


def test_all_problems_are_said_at_once_in_the_order_of_the_file():
    found = problems("[coordinator]\nmax_attempts = 0\ntimezon = 'UTC'\n[llm]\nprovider = 'x'\n[oops]\n")
    assert [sentence.split(":")[0] for sentence in found] == [f"{F}, line {line}" for line in (2, 3, 5, 6)]


def test_no_sentence_shows_a_secret():
    text = "[github]\nissue_label = 'ghp_0123456789abcdef/'\ngit_user_name = 5\napi_url = 'https://u:hunter2@h'\n"
    shown = "\n".join(problems(text))
    assert "ghp_0123456789abcdef" not in shown
    assert "hunter2" not in shown


# --- what the environment must hold ------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        ({}, "is not set: export it or put it into the service's environment file"),
        ({"GITHUB_TOKEN": ""}, "is empty: export it or put it into the service's environment file"),
        ({"GITHUB_TOKEN": "  "}, "is empty: export it or put it into the service's environment file"),
        (
            {"GITHUB_TOKEN": "t0k\r"},
            "has spaces or line breaks around the token: set it to the token alone",
        ),
    ],
)
def test_the_token_variable_must_hold_a_token(environ: dict[str, str], problem: str):
    found = check_environment(parse(""), environ, source="adws/config.toml")
    assert found == [f"adws/config.toml: [github] token_env names GITHUB_TOKEN, which {problem}."]


def test_a_token_alone_is_enough():
    assert check_environment(parse(""), {"GITHUB_TOKEN": "t0k"}) == []


def test_parsing_with_an_environment_refuses_one_that_is_incomplete():
    with pytest.raises(ConfigError, match=f"^{F}: .*GITHUB_TOKEN, which is not set"):
        parse_settings("", source=F, environ={})
    parse_settings("", source=F, environ={"GITHUB_TOKEN": "x"})


# --- what works but is probably not meant ------------------------------------------------------


def test_a_prompt_file_after_claudes_p_is_warned_about_once_and_only_for_claude():
    warnings = parse(BASIC_SETUP).warnings()
    assert warnings == [
        (
            "providers.claude-cli.command_template: claude takes the word after -p for the prompt itself, "
            "here the path "
            'in "{prompt_file}"; remove that word, because the prompt comes on stdin.'
        )
    ]


def test_workflows_are_accepted_with_a_word_on_the_stages_that_nobody_does():
    assert parse(SEEDS["workflows"]).warnings() == [
        f"workflows.{name}: a task is one run, which does the stage 'implement'; "
        "nobody does 'plan', 'review'."
        for name in ("standard", "budget")
    ]
    none = "[workflows.x]\nstages = [{ name = 'plan' }, { name = 'build' }]\n[workflows.y]\nstages = []"
    assert parse(none).warnings() == [
        (
            "workflows.x: no task can ask for it, because it has 2 stages, and not exactly one of them is "
            'called "implement".'
        ),
        "workflows.y: no task can ask for it, because it has no stages.",
    ]


def test_limits_without_the_launcher_that_can_set_them_are_warned_about():
    limits = "[worker_limits]\nmemory_max = '512m'\ntasks_max = 100\n"
    assert parse(limits).warnings() == [
        (
            "[worker_limits] has no effect (memory_max, tasks_max): only runs that are units of systemd "
            'can be limited; set coordinator.launcher = "systemd".'
        )
    ]
    read = parse(limits + "[coordinator]\nlauncher = 'systemd'\n")
    assert read.warnings() == []
    assert read.worker_limits.memory_max == "512M"


def test_the_launcher_stays_as_it_is_until_a_restart_and_limits_do_not():
    old, new = parse(""), parse("[coordinator]\nlauncher = 'systemd'\n[worker_limits]\ncpu_percent = 50\n")
    assert settings_diff(old, new) == [
        'coordinator.launcher: "shim" -> "systemd" (restart)',
        "worker_limits.cpu_percent: unset -> 50 (live)",
    ]
    pinned = pin_restart_keys(old, new)
    assert (pinned.coordinator.launcher, pinned.worker_limits.cpu_percent) == ("shim", 50)


def test_secrets_in_the_file_and_a_disabled_default_are_warned_about():
    warnings = parse(
        "[providers.claude-cli]\nenabled = false\ncommand_template = ['claude']\nenv = { API_KEY = 'abc' }\n"
        "[coordinator]\ndatabase_url = 'postgresql://u:pw@h/d'\n[github]\napi_url = 'http://ghe.example.com/api/v3'"
    ).warnings()
    assert len(warnings) == 4
    assert not any("abc" in warning or ":pw" in warning for warning in warnings)


# --- what a reload changes ---------------------------------------------------------------------


def diff(old: str, new: str) -> list[str]:
    return settings_diff(parse(old), parse(new))


def test_a_diff_names_each_value_and_whether_it_is_live():
    assert diff(
        "[coordinator]\npoll_interval_seconds = 30\n",
        "[coordinator]\npoll_interval_seconds = 5\nstate_dir = '/var/lib/x'\nlog_dir = 'l'\n",
    ) == [
        "coordinator.poll_interval_seconds: 30 -> 5 (live)",
        'coordinator.state_dir: ".coordinator" -> "/var/lib/x" (restart)',
        'coordinator.log_dir: unset -> "l" (restart)',
    ]


def test_a_diff_of_equal_settings_is_empty():
    assert diff(BASIC_SETUP + RULES, RULES + BASIC_SETUP.replace("# Default", "# The")) == []


def test_tables_that_come_or_go_are_one_line_each():
    extra = RULES + "[[models]]\nname = 'a/b.c'\nprovider = 'p'\n[providers.new]\ncommand_template = ['x']\n"
    assert diff(RULES, extra) == ["models[a/b.c]: added (live)", "providers.new: added (live)"]
    assert diff(extra, RULES) == ["models[a/b.c]: removed (live)", "providers.new: removed (live)"]


def test_a_rule_put_before_others_renames_none_of_them():
    new = "[[routing.rules]]\nname = 'first'\nmodel = 'm'\n" + RULES.replace("claude-opus-4", "claude-opus-5")
    assert diff(RULES, new) == [
        "routing.rules[first]: added (live)",
        'routing.rules[critical-issues-opus].model: "claude-opus-4" -> "claude-opus-5" (live)',
    ]


def test_another_order_of_the_rules_is_a_change():
    first, second = "[[routing.rules]]\nname = 'a'\n", "[[routing.rules]]\nname = 'b'\n"
    assert diff(first + second, second + first) == ["routing.rules: order in the file changed (live)"]


def test_secrets_are_masked_in_a_diff():
    old = "[providers.x]\ncommand_template = ['x']\nenv = { MY_API_KEY = 'aaa', LANG = 'C' }\n"
    new = old.replace("aaa", "bbb").replace("'C'", "'D'")
    new += "[coordinator]\ndatabase_url = 'postgresql://u:hunter2@h/d'\n"
    assert diff(old, new) == [
        'coordinator.database_url: unset -> "postgresql://u:***@h/d" (restart)',
        "providers.x.env.MY_API_KEY: *** -> *** (live)",
        'providers.x.env.LANG: "C" -> "D" (live)',
    ]


def test_what_needs_a_restart_stays_as_it_was():
    running = parse(
        "[github]\nrepo_owner = 'o'\nrepo_name = 'r'\n"
        "[[repositories]]\nowner = 'p'\nname = 'q'\nremote_url = '/a'\n"
    )
    new = parse(
        "[coordinator]\nmax_attempts = 9\nstate_dir = '/new'\n"
        "[github]\nrepo_owner = 'o'\nrepo_name = 'other'\n"
        "[[repositories]]\nowner = 'p'\nname = 'q'\nremote_url = '/b'\nissue_label = 'new'\n"
        "[[repositories]]\nowner = 'o'\nname = 'r'\n"
        "[[repositories]]\nowner = 'p'\nname = 'z'\nremote_url = '/z'\n"
    )
    pinned = pin_restart_keys(running, new)
    assert pinned.coordinator.max_attempts == 9
    assert pinned.coordinator.state_dir == ".coordinator"
    assert [(r.full_name, r.remote_url, r.label) for r in pinned.all_repositories()] == [
        ("o/r", "https://github.com/o/r.git", "rpi-auto"),
        ("p/q", "/a", "new"),
        ("p/z", "/z", "rpi-auto"),
    ]


# --- parsing never fails in any other way ------------------------------------------------------


def settles(text: str) -> None:
    """Parse; the only exception allowed is ConfigError with real sentences."""
    try:
        read, found = parse(text), ["adws/config.toml: fine"]
    except ConfigError as error:
        read, found = Settings(), error.problems
    assert found
    assert all(problem.startswith(F) and len(problem.splitlines()) == 1 for problem in found)
    assert settings_diff(read, read) == []
    assert isinstance(read.warnings(), list)
    assert read.model_dump_json()


@given(st.text(max_size=200))
def test_any_text_at_all_gives_settings_or_a_config_error(text: str):
    settles(text)


def toml_value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return toml_text(value)
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    if isinstance(value, dict):
        return (
            "{" + ", ".join(f"{toml_text(key)} = {toml_value(inner)}" for key, inner in value.items()) + "}"
        )
    return repr(value)


def toml_text(text: str) -> str:
    return '"' + "".join(f"\\U{ord(c):08x}" if c in '"\\' or not c.isprintable() else c for c in text) + '"'


def keys_in(value: object) -> set[str]:
    if isinstance(value, dict):
        return set(value) | {key for inner in value.values() for key in keys_in(inner)}
    return {key for item in value for key in keys_in(item)} if isinstance(value, list) else set()


SAMPLE = tomllib.loads(BASIC_SETUP + RULES + SEEDS["workflows"] + SEEDS["model catalogue"] + SEEDS["TAC-8"])
KNOWN_KEYS = sorted(keys_in(SAMPLE) | set(Settings.model_fields) | {"condition", "env", "pass_env", "owner"})
any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
scalars = st.one_of(
    st.booleans(),
    st.integers(),
    st.floats(),
    any_text,
    st.sampled_from(["claude-cli", "{model}", "hour == 3", "~"]),
)
names = st.one_of(st.sampled_from(KNOWN_KEYS), any_text)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)
sections = st.dictionaries(st.sampled_from(list(Settings.model_fields)), values, min_size=1, max_size=4)


@given(sections)
@example({"routing": {"default_provider": []}})
@example({"github": {"token_env": []}, "providers": {"x": {"env": {}}}})
@example({"coordinator": {"\x1e": False}})
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_any_toml_document_gives_settings_or_a_config_error(document: dict[str, object]):
    settles("\n".join(f"{key} = {toml_value(value)}" for key, value in document.items()))


@given(st.data())
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_a_good_file_with_one_value_exchanged_gives_settings_or_a_config_error(data: st.DataObject):
    document = json.loads(json.dumps(SAMPLE))
    place = document
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(values)
    settles("\n".join(f"{name} = {toml_value(value)}" for name, value in document.items()))


# --- the line of a key -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("a",), 2),
        (("a", "b"), 2),
        (("a", "b", "c"), 3),
        (("a", "b", "text"), 4),
        (("a", "b", "after"), 8),
        (("list", 0), 10),
        (("list", 0, "x"), 11),
        (("list", 1), 12),
        (("list", 1, "sub", "y"), 14),
        (("list", 1, "sub", "array", 1), 17),
        (("list", 1, "sub", "array", 2, "k"), 18),
        (("list", 1, "sub", "nothing"), 13),
        (("q.r", "dotted", "key"), 21),
        (("nowhere",), None),
    ],
)
def test_a_key_is_found_among_strings_comments_and_brackets_that_look_like_keys(path, line):
    text = (
        "# [a.b]\n[a.b]  # c = 9\nc = '[x]'\n"
        'text = """\n[fake]\nc = 1 \\"""\n""""\nafter = \'\'\'q\'\'\'\'\n\n'
        "[[list]]\nx = 1\n[[ list ]]\n[list.sub]\ny = { z = 1 }\n"
        "array = [ # [n]\n  '],',\n  2,\n  { k = 1 },\n]\n"
        "[\"q.r\"]\ndotted.'key' = 1979-05-27 07:32:00\n"
    )
    tomllib.loads(text)
    assert TomlLines(text).line(path) == line


keys = st.text(st.characters(codec="ascii", categories=["L", "N", "P", "Zs"]), max_size=5)
noise = st.sampled_from(["", "# x = 1\n", "\n\n", "  # [t]\n"])


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, list[tuple[tuple[str | int, ...], str]]]:
    """A valid TOML text, and for each key the path and a marker that only its own line holds."""
    text, expected = "", []
    for table_number, table in enumerate(draw(st.lists(keys, max_size=4, unique=True))):
        entries = draw(st.integers(0, 3))  # 0: a plain table
        for entry in range(max(entries, 1)):
            path = (table, entry) if entries else (table,)
            brackets = ("[[", "]]") if entries else ("[", "]")
            text += f"{draw(noise)}{brackets[0]} {toml_text(table)} {brackets[1]}\n"
            for number, key in enumerate(draw(st.lists(keys, max_size=4, unique=True))):
                marker = f"{table_number}_{entry}_{number}_"
                shape = draw(st.integers(0, 4))
                value = {
                    0: f'"{marker}"',
                    1: f'{{ "in" = "{marker}", other = [1] }}',
                    2: f'"""{marker}\n[t]\nx = 1\n"""',
                    3: f'[ "{marker}", # [[\n  "]"\n, {{ a = 1 }} ]',
                    4: f"'''{marker}\n''''  # end",
                }[shape]
                text += f"{draw(noise)}{toml_text(key)} = {value}\n"
                expected.append(((*path, key), marker))
                if shape == 1:
                    expected.append(((*path, key, "in"), marker))
    return text, expected


@given(documents(), st.booleans())
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_the_line_found_for_a_key_holds_that_key(document, windows):
    text, expected = document
    text = text.replace("\n", "\r\n") if windows else text
    tomllib.loads(text)
    found = TomlLines(text)
    for path, marker in expected:
        line = text.splitlines()[found.line(path) - 1]
        assert marker in line


def test_a_hard_budget_smaller_than_the_estimate_is_warned_about():
    budgets = """
[[budgets]]
name = "small"
money_usd = 0.5
tokens = 2000000
[[budgets]]
name = "soft"
tokens = 5
hard = false
"""
    (warning,) = [each for each in parse_settings(budgets, source="x").warnings() if "budget" in each]
    assert warning.startswith(
        "budget small is smaller than budget_estimates.usd (1): until 5 runs of a model"
    )
    fits = budgets + "[budget_estimates]\nusd = 0.1\n"
    assert not [each for each in parse_settings(fits, source="x").warnings() if "budget" in each]
