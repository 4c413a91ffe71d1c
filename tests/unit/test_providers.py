"""Commands are argument lists that keep their shape; availability says what is missing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adw_modules.config import parse_settings
from adw_modules.errors import ConfigError, CoordinatorError
from adw_modules.providers import PLACEHOLDERS, Availability, Provider, ProviderManager

CLAUDE = [
    "claude",
    "-p",
    "{prompt_file}",
    "--model",
    "{model}",
    "--output-format",
    "stream-json",
    "--verbose",
    "--dangerously-skip-permissions",
]
OPENROUTER = [
    "tools/openrouter-cli.py",
    "-p",
    "{prompt_file}",
    "--model",
    "{model}",
    "--output-file",
    "{output_file}",
]
CONFIG = {
    "providers": {
        "claude-cli": {"enabled": True, "command_template": CLAUDE},
        "openrouter": {
            "enabled": True,
            "requires_api_key": True,
            "api_key_env": "OPENROUTER_API_KEY",
            "command_template": OPENROUTER,
        },
    }
}


def program(path: Path, mode: int = 0o700) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=mode)
    return path


def manager(root: Path, template: list[str], **table: object) -> ProviderManager:
    return ProviderManager(
        {"providers": {"p": {"command_template": template, **table}}},
        environ={"PATH": str(root / "bin")},
        project_root=root,
    )


# -- commands -------------------------------------------------------------------------------------------


def test_the_call_of_the_first_documents_builds_the_command():
    provider = ProviderManager(CONFIG).get_provider("claude-cli")
    assert provider.build_command(Path("/run/prompt.md"), "claude-opus-4", Path("/run/output.log")) == [
        *("claude", "-p", "/run/prompt.md", "--model", "claude-opus-4"),
        *("--output-format", "stream-json", "--verbose", "--dangerously-skip-permissions"),
    ]


def test_a_provider_can_be_made_from_its_table_alone():
    provider = Provider("openrouter", CONFIG["providers"]["openrouter"])
    command = provider.build_command("prompt.txt", "a/b", "out.jsonl")
    assert command == [*OPENROUTER[:2], "prompt.txt", "--model", "a/b", "--output-file", "out.jsonl"]
    assert (provider.name, provider.enabled, provider.requires_api_key) == ("openrouter", True, True)
    assert provider.api_key_env == "OPENROUTER_API_KEY"


def test_settings_work_like_a_dict():
    table = {"command_template": '["agent", "{model}"]', "api_key_env": '"P_KEY"', "requires_api_key": "true"}
    text = "\n".join(["[providers.p]", *(f"{key} = {value}" for key, value in table.items())])
    settings = parse_settings(text, source="config.toml")
    providers = ProviderManager(settings, environ={"PATH": ""})
    assert providers.get_provider("p").build_command("i", "m", "o") == ["agent", "m"]
    assert providers.availability("p").reason == "P_KEY not set"
    assert Provider("p", settings.providers["p"]).command_template == ("agent", "{model}")


def test_a_relative_program_becomes_absolute_and_a_bare_one_stays(tmp_path):
    providers = ProviderManager(CONFIG, environ={}, project_root=tmp_path)
    openrouter = providers.get_provider("openrouter").build_command("p", "m", "o")
    assert openrouter[0] == str(tmp_path / "tools/openrouter-cli.py")
    assert providers.get_provider("claude-cli").build_command("p", "m", "o")[0] == "claude"


def test_a_relative_project_root_still_gives_an_absolute_program(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = Provider("p", {"command_template": ["tools/x"]}, project_root=Path()).build_command(
        "p", "m", "o"
    )
    assert command == [str(tmp_path / "tools/x")]


def test_the_workspace_is_a_placeholder_too():
    provider = Provider("p", {"command_template": ["agent", "--dir={workspace}"]})
    assert provider.build_command("p", "m", "o", "/trees/gh-1") == ["agent", "--dir=/trees/gh-1"]
    with pytest.raises(
        CoordinatorError, match=r"provider p: the template needs \{workspace\}, and none is given"
    ):
        provider.build_command("p", "m", "o")


def test_other_braces_are_text():
    template = ["curl", "-d", '{"a": {"model": "{model}"}}', "{}", "{{name}}", "{ model }", "$HOME"]
    command = Provider("p", {"command_template": template}).build_command("p", "m", "o")
    assert command == ["curl", "-d", '{"a": {"model": "m"}}', "{}", "{{name}}", "{ model }", "$HOME"]


VALUES = st.text() | st.sampled_from(
    ["a b", "x'y\"z", "l\n2", "{model}", "{prompt_file}{output_file}", "$(x)", "\\1\\g<0>"]
)
PLAIN = st.text(alphabet=st.characters(exclude_characters="{}$"), max_size=8)
ELEMENT = st.lists(PLAIN | st.sampled_from([f"{{{name}}}" for name in PLACEHOLDERS]), max_size=5)


@given(st.lists(ELEMENT, max_size=5), st.fixed_dictionaries(dict.fromkeys(PLACEHOLDERS, VALUES)))
def test_one_element_stays_one_argument_whatever_the_values_hold(elements, values):
    template = ["agent", *("".join(parts) for parts in elements)]
    command = Provider("p", {"command_template": template}).build_command(**values)
    expected = [
        "".join(values.get(part[1:-1], part) if part[:1] == "{" else part for part in parts)
        for parts in elements
    ]
    assert command == ["agent", *expected]


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        (
            ["a", "{promt_file}"],
            "unknown placeholder {promt_file} in command_template; did you mean {prompt_file}?",
        ),
        (["a", "--x={issue}"], "known are {prompt_file} {model} {output_file} {workspace}"),
        (
            ["a", "${OPENROUTER_API_KEY}"],
            "would show a secret to every user of this machine; name the variable in",
        ),
        (["a", "${model}"], "would show a secret"),
        (["{model}"], "the program in command_template has to be fixed, not a placeholder"),
        (["{workspace}/bin/agent"], "the program in command_template has to be fixed, not a placeholder"),
        ([], "command_template names no program"),
        ([" "], "command_template names no program"),
    ],
)
def test_a_bad_template_is_a_configuration_error(template, sentence):
    with pytest.raises(ConfigError) as caught:
        Provider("p", {"command_template": template})
    assert str(caught.value).startswith("provider p: ")
    assert sentence in str(caught.value)


def test_all_bad_templates_are_named_at_once():
    tables = {
        "a": {"command_template": []},
        "b": {"command_template": ["x", "{y}", "{z}"]},
        "c": {"command_template": ["x"]},
    }
    with pytest.raises(ConfigError) as caught:
        ProviderManager({"providers": tables})
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "provider a",
        "provider b",
        "provider b",
    ]


def test_no_secret_of_the_environment_enters_a_command(tmp_path):
    environ = {"OPENROUTER_API_KEY": "sk-secret", "PATH": str(tmp_path)}
    provider = ProviderManager(CONFIG, environ=environ, project_root=tmp_path).get_provider("openrouter")
    assert "sk-secret" not in " ".join(
        provider.build_command("{OPENROUTER_API_KEY}", "$OPENROUTER_API_KEY", "o")
    )


# -- availability ---------------------------------------------------------------------------------------


def test_an_unknown_provider_is_named_with_the_nearest_one():
    providers = ProviderManager(CONFIG, environ={})
    with pytest.raises(
        CoordinatorError, match=r'no provider "opnrouter" is configured; did you mean openrouter\?'
    ):
        providers.get_provider("opnrouter")
    assert providers.availability("xyz").reason == (
        'no provider "xyz" is configured; configured are claude-cli, openrouter'
    )
    assert ProviderManager({}, environ={}).availability("x").reason == (
        'no provider "x" is configured; configured are none'
    )


def test_available_are_those_with_key_and_program(tmp_path):
    claude = program(tmp_path / "bin/claude")
    cli = program(tmp_path / "tools/openrouter-cli.py")
    environ = {"PATH": str(tmp_path / "bin")}
    providers = ProviderManager(CONFIG, environ=environ, project_root=tmp_path)
    assert providers.names == ("claude-cli", "openrouter")
    assert providers.available_providers() == ["claude-cli"]
    assert providers.availability("claude-cli") == Availability(available=True, program=str(claude))
    assert providers.availability("openrouter") == Availability(
        available=False, reason="OPENROUTER_API_KEY not set"
    )
    environ["OPENROUTER_API_KEY"] = "  "
    assert providers.availability("openrouter").reason == "OPENROUTER_API_KEY not set"
    environ["OPENROUTER_API_KEY"] = "sk-1"
    assert providers.availability("openrouter") == Availability(available=True, program=str(cli))


def test_a_key_that_is_not_required_may_be_missing(tmp_path):
    program(tmp_path / "bin/agent")
    assert manager(tmp_path, ["agent"], api_key_env="KEY").availability("p").available


def test_a_required_key_needs_the_name_of_its_variable(tmp_path):
    program(tmp_path / "bin/agent")
    reason = manager(tmp_path, ["agent"], requires_api_key=True).availability("p").reason
    assert reason == "requires_api_key is set, but api_key_env names no variable"


def test_a_disabled_provider_is_known_but_not_available(tmp_path):
    program(tmp_path / "bin/agent")
    providers = manager(tmp_path, ["agent"], enabled=False)
    assert providers.availability("p") == Availability(available=False, reason="disabled")
    assert providers.get_provider("p").enabled is False
    assert providers.available_providers() == []


def test_a_program_that_appears_is_found_at_the_next_question(tmp_path):
    providers = manager(tmp_path, ["agent"])
    assert providers.availability("p").reason == "agent not found on PATH"
    program(tmp_path / "bin/agent")
    assert providers.availability("p").available


@pytest.mark.parametrize(
    ("mode", "reason"),
    [(None, "tools/x.py not found"), (0o600, "tools/x.py is not executable"), (0o700, None)],
)
def test_a_relative_program_has_to_exist_and_be_executable(tmp_path, mode, reason):
    if mode is not None:
        program(tmp_path / "tools/x.py", mode)
    found = manager(tmp_path, ["tools/x.py"]).availability("p")
    assert (found.available, found.reason) == (reason is None, reason)


def test_a_folder_is_no_program(tmp_path):
    (tmp_path / "tools").mkdir()
    assert manager(tmp_path, ["./tools"]).availability("p").reason == "./tools not found"


def test_an_absolute_program_is_taken_as_it_is(tmp_path):
    agent = program(tmp_path / "elsewhere/agent")
    assert manager(tmp_path / "project", [str(agent)]).availability("p").program == str(agent)
    assert Provider("p", {"command_template": [str(agent)]}, project_root=tmp_path).build_command(
        "p", "m", "o"
    ) == [str(agent)]


def test_the_folder_the_daemon_stands_in_does_not_matter(tmp_path, monkeypatch):
    program(tmp_path / "here/tools/x.py")
    program(tmp_path / "here/agent")
    monkeypatch.chdir(tmp_path / "here")
    root = tmp_path / "project"
    root.mkdir()
    assert manager(root, ["tools/x.py"]).availability("p").reason == "tools/x.py not found"
    bare = {"providers": {"p": {"command_template": ["agent"]}}}
    for path in ("", ".", f"{os.pathsep}", f"here{os.pathsep}.{os.pathsep}"):
        found = ProviderManager(bare, environ={"PATH": path}, project_root=root).availability("p")
        assert found.reason == "agent not found on PATH", path
    unrooted = ProviderManager({"providers": {"p": {"command_template": ["tools/x.py"]}}}, environ={})
    assert unrooted.availability("p").reason == "tools/x.py is relative, and no project folder is known"


def test_a_relative_program_cannot_leave_the_project(tmp_path):
    program(tmp_path / "outside.py")
    (tmp_path / "project/tools").mkdir(parents=True)
    found = manager(tmp_path / "project", ["tools/../../outside.py"]).availability("p")
    assert found.reason == "tools/../../outside.py may leave the project by `..`; write an absolute path"


@pytest.mark.parametrize(
    ("section", "folder"),
    [
        ({}, ".coordinator/trees"),
        ({"worktree": {"base_dir": "elsewhere"}}, ".coordinator/elsewhere"),
        ({"coordinator": {"state_dir": "state"}, "worktree": {"base_dir": "trees"}}, "state/trees"),
    ],
)
def test_a_program_inside_a_workspace_is_never_used(tmp_path, section, folder):
    inside = program(tmp_path / folder / "gh-1/agent")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/linked").symlink_to(inside)
    paths = {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{inside.parent}"}
    for name in (f"{folder}/gh-1/agent", str(inside), "agent", "linked", "bin/linked"):
        config = {"providers": {"p": {"command_template": [name]}}, **section}
        found = ProviderManager(config, environ=paths, project_root=tmp_path).availability("p")
        assert not found.available
        assert found.reason == f"{name} is inside a workspace, where agents can write"


def test_within_one_step_a_provider_is_looked_at_once_and_in_the_next_one_again(tmp_path):
    providers = manager(tmp_path, [str(tmp_path / "agent")])
    with providers.looked_at_once():
        assert not providers.availability("p").available
        (tmp_path / "agent").touch(mode=0o755)
        assert not providers.availability("p").available
    assert providers.availability("p").available
    with providers.looked_at_once():
        assert providers.availability("p").available


@pytest.mark.parametrize(
    ("agent", "template", "expected"),
    [
        ("claude", ["claude", "-p"], ("--max-budget-usd", "")),
        ("claude", ["/opt/bin/claude", "-p"], ("--max-budget-usd", "")),
        ("claude", ["wrapper", "claude", "-p"], ("", "")),
        ("claude", ["claude", "--max-budget-usd", "2"], ("", "")),
        ("claude", ["claude", "--max-budget-usd=2"], ("", "")),
        ("openrouter-cli", ["tools/openrouter-cli.py", "--max-cost", "1"], ("", "--max-tokens")),
        ("openrouter-cli", None, ("--max-cost", "--max-tokens")),
        ("codex", None, ("", "")),
    ],
)
def test_a_program_is_told_a_limit_by_its_own_option_where_the_template_has_none(agent, template, expected):
    table = {"agent": agent} if template is None else {"agent": agent, "command_template": template}
    provider = Provider("p", table)
    assert (provider.max_cost, provider.max_tokens) == expected
    ends = (
        provider.has_added_limit("error_max_budget_usd"),
        provider.has_added_limit("error_during_execution"),
    )
    assert ends == (expected[0] != "", expected[1] != ""), "one of the template is not ours"
    plain = provider.build_command("p.md", "m", "o")
    limited = provider.build_command("p.md", "m", "o", limits=("--most", "1.5"))
    assert limited == [plain[0], "--most", "1.5", *plain[1:]]
