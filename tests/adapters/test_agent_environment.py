"""What a worker is started with, so that its agent has a configuration of its own or the user's."""

from pathlib import Path

import pytest

from adw_modules.agents import DIALECTS
from adw_modules.config import ProviderSettings
from coordinator.environment import CONFIG_DIR, has_own_config, worker_environment

KEY = "SOME_API_KEY"
OWN = [name for name in sorted(DIALECTS) if DIALECTS[name].config_dir_env]


def environment(name: str, environ: dict[str, str], **table) -> dict[str, str]:
    provider = ProviderSettings(command_template=["agent", "{model}"], agent=name, **table)
    return worker_environment(
        provider, environ, DIALECTS[name], marker="m", run_dir=Path("/runs/gh-1.1"), attempt=1
    )


@pytest.mark.parametrize("name", OWN)
def test_with_a_key_each_run_has_a_configuration_of_its_own(name):
    variable = str(DIALECTS[name].config_dir_env)
    env = environment(name, {KEY: "k"}, api_key_env=KEY)
    assert env[variable] == f"/runs/gh-1.1/{CONFIG_DIR}"
    assert env.items() >= DIALECTS[name].env.items()


@pytest.mark.parametrize("name", OWN)
def test_without_a_key_the_agent_keeps_the_login_of_its_user(name):
    variable = str(DIALECTS[name].config_dir_env)
    assert variable not in environment(name, {}, api_key_env=KEY)
    assert variable not in environment(name, {KEY: "k"})
    provider = ProviderSettings(command_template=["agent", "{model}"], agent=name)
    assert not has_own_config(provider, {KEY: "k"}, DIALECTS[name])


@pytest.mark.parametrize("name", OWN)
def test_what_the_operator_sets_wins(name):
    variable = str(DIALECTS[name].config_dir_env)
    assert environment(name, {KEY: "k"}, api_key_env=KEY, env={variable: "/mine"})[variable] == "/mine"
