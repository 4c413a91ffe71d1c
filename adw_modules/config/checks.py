"""What a valid file may still lack or say by mistake, one sentence each: nothing here refuses a file.

What refuses it is in `values.py`, `schema.py` and `cross_checks.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from itertools import pairwise
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from adw_modules.config.wording import dotted, holds_password, is_secret
from adw_modules.security.network import knows_service
from adw_modules.security.webhooks import secrets_problem

if TYPE_CHECKING:  # the schema imports this module, for `Settings.warnings`
    from adw_modules.config.schema import ProviderSettings, Settings


ACTIONS_BOT = 41898282  # the account of github-actions[bot] on github.com


def check_runnable(settings: Settings, *, source: str = "config.toml") -> list[str]:
    """What the daemon needs beyond a valid file: one sentence for each thing that is missing."""
    if settings.all_repositories():
        return []
    mend = "set repo_owner and repo_name in [github], or add a [[repositories]] table"
    return [f"{source}: no repository is configured; {mend}."]


def check_environment(
    settings: Settings, environ: Mapping[str, str], *, source: str = "config.toml"
) -> list[str]:
    """What the daemon needs from the environment: one sentence for each thing that is missing.

    A provider's missing key is not among them: that provider is unavailable, and the others work.
    """
    return [*_github_secret(settings, environ, source), *_webhook_secret(settings, environ, source)]


def _github_secret(settings: Settings, environ: Mapping[str, str], source: str) -> Iterator[str]:
    """The token, or the variable with the App's key; a file is looked at when it is read."""
    app = settings.github.app
    if app.is_used and app.private_key_env is None:
        return
    table, key = ("github.app", "private_key_env") if app.is_used else ("github", "token_env")
    name = app.private_key_env or settings.github.token_env
    secret = environ.get(name, "")
    if not secret.strip():
        problem = "is empty" if name in environ else "is not set"
        mend = "export it or put it into the service's environment file"
    elif not app.is_used and (secret != secret.strip() or not secret.isprintable()):
        problem, mend = "has spaces or line breaks around the token", "set it to the token alone"
    else:
        return
    yield f"{source}: [{table}] {key} names {name}, which {problem}: {mend}."


def _webhook_secret(settings: Settings, environ: Mapping[str, str], source: str) -> Iterator[str]:
    webhook = settings.webhook
    if not webhook.enabled:
        return
    problem = secrets_problem(environ.get(webhook.secret_env))
    if problem is not None:
        yield f"{source}: [webhook] secret_env names {webhook.secret_env}, which {problem}."


def warnings(settings: Settings) -> list[str]:
    """What works but is probably not meant."""
    default = settings.routing.default_provider or settings.llm.provider
    found: list[str] = []
    for name, provider in settings.providers.items():
        key = dotted(("providers", name))
        found += _provider_warnings(key, provider)
        if name == default and not provider.enabled:
            found.append(f"{key} is disabled, but it is the default provider.")
    return [
        *found,
        *_budget_warnings(settings),
        *_network_warnings(settings),
        *_general_warnings(settings),
    ]


def _budget_warnings(settings: Settings) -> Iterator[str]:
    """A run is thought to take a fixed amount until there are others to go by: on less it starts but once."""
    estimates = settings.budget_estimates
    thought = {"usd": estimates.usd, "tokens": Decimal(estimates.tokens)}
    for budget in (entry.budget for entry in settings.budgets if entry.budget.is_hard):
        for unit, limit in budget.limits():
            if limit < thought[unit]:
                key = f"budget_estimates.{unit}"
                yield (
                    f"budget {budget.name} is smaller than {key} ({thought[unit]:f}): until "
                    f"{estimates.min_runs} runs of a model have ended, one starts only while nothing of the "
                    f"budget is spent; set {key} to what a run takes."
                )


def _network_warnings(settings: Settings) -> Iterator[str]:
    sandbox = settings.sandbox
    if sandbox.mode == "off":
        return
    if sandbox.network == "open":
        yield (
            'sandbox.network is "open": what a stranger has written into an issue can have an agent send '
            'what it sees to anybody; with "allow-list" it reaches its provider and what you name.'
        )
    if sandbox.network != "allow-list" or sandbox.allow_hosts:
        return
    for name, provider in settings.providers.items():
        if provider.enabled and not provider.allow_hosts and not knows_service(provider, provider.env):
            yield (
                f"{dotted(('providers', name))}: nobody here knows the service that its program asks; in a "
                "sandbox it reaches nobody until allow_hosts names it."
            )


def _provider_warnings(key: str, provider: ProviderSettings) -> Iterator[str]:
    if _prompts_with_a_path(provider.command_template):
        yield (
            f"{key}.command_template: claude takes the word after -p for the prompt itself, "
            'here the path in "{prompt_file}"; remove that word, because the prompt comes on stdin.'
        )
    for variable, content in provider.env.items():
        if is_secret(variable, content):
            yield (
                f"{key}.env.{variable} looks like a secret in the file; export it for the daemon and "
                "name it in pass_env instead."
            )


def _prompts_with_a_path(template: tuple[str, ...]) -> bool:
    is_claude = template[0].rsplit("/", 1)[-1] == "claude"
    return is_claude and any(
        flag in {"-p", "--print"} and "{prompt_file}" in word for flag, word in pairwise(template)
    )


def _general_warnings(settings: Settings) -> Iterator[str]:
    limits = [key for key, value in settings.worker_limits if value is not None]
    if limits and settings.coordinator.launcher != "systemd":
        yield (
            f"[worker_limits] has no effect ({', '.join(limits)}): only runs that are units of systemd "
            'can be limited; set coordinator.launcher = "systemd".'
        )
    if ACTIONS_BOT in settings.admission.bots:
        yield (
            f"admission.bots lists {ACTIONS_BOT}, which is github-actions[bot]: whoever can make a workflow "
            "of a repository set the label can start work there."
        )
    if settings.workflows:
        from adw_modules.routing.workflows import said  # routing imports the schema for its defaults

        yield from said(settings.model_dump(include={"workflows"}))
    if settings.coordinator.database_url and holds_password(settings.coordinator.database_url):
        yield "coordinator.database_url contains a password; move it to PGPASSWORD or to a password file."
    address = urlsplit(settings.github.api_url)
    if address.scheme == "http" and address.hostname not in {"127.0.0.1", "::1", "localhost"}:
        yield "github.api_url is not encrypted: the token would cross the network in the clear."
