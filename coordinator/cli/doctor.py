"""`coordinator doctor`: is everything in place for runs to work? Looks, changes nothing."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from coordinator.cli.common import DEFAULT_CONFIG, ConfigOption, JsonOption

if TYPE_CHECKING:
    from coordinator.settings import LoadedSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the report. `ok` None means: works, but look at it."""

    check: str
    ok: bool | None
    text: str


def register(app: typer.Typer) -> None:
    app.command()(doctor)


def doctor(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Check programs, configuration, GitHub access, providers and state; exit code 1 if something is missing."""
    from coordinator.cli.common import print_json

    findings = list(examine(config))
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            mark = {True: "✓", False: "✗", None: "!"}[finding.ok]
            typer.echo(f"  {mark} {finding.check:<14} {finding.text}")
    if any(finding.ok is False for finding in findings):
        raise typer.Exit(1)


def examine(config: Path) -> Iterator[Finding]:
    """All findings, in the order in which an operator would mend them."""
    from adw_modules.errors import ConfigError
    from coordinator.cli.common import settings_source

    yield _git()
    try:
        loaded = settings_source(config).current
    except ConfigError as error:
        for problem in error.problems:
            yield Finding(check="configuration", ok=False, text=problem)
        return
    yield from _configuration(loaded)
    yield from _providers(loaded)
    yield from _state(loaded)
    yield from _github(loaded)


def _git() -> Finding:
    program = shutil.which("git")
    if program is None:
        return Finding(check="git", ok=False, text="git is not on PATH; install it")
    version = subprocess.run(
        [program, "--version"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return Finding(check="git", ok=True, text=version)


def _configuration(loaded: LoadedSettings) -> Iterator[Finding]:
    import os

    from adw_modules.config import check_environment, check_runnable

    problems = check_runnable(loaded.settings) + check_environment(loaded.settings, os.environ)
    for problem in problems:
        yield Finding(check="configuration", ok=False, text=problem)
    if not problems:
        yield Finding(check="configuration", ok=True, text=f"{loaded.path} (version {loaded.version})")
    for warning in loaded.settings.warnings():
        yield Finding(check="configuration", ok=None, text=warning)


def _providers(loaded: LoadedSettings) -> Iterator[Finding]:
    from adw_modules.providers import ProviderManager

    manager = ProviderManager(loaded.settings, project_root=loaded.project_root)
    for name in loaded.settings.providers:
        availability = manager.availability(name)
        text = f"{name} is available" if availability.available else f"{name}: {availability.reason}"
        needed = loaded.settings.providers[name].enabled
        yield Finding(
            check="provider", ok=True if availability.available else (False if needed else None), text=text
        )


def _state(loaded: LoadedSettings) -> Iterator[Finding]:
    from adw_modules.errors import StoreError
    from coordinator.cli.common import daemon_status, reading
    from coordinator.store import StatePaths

    daemon = daemon_status(loaded)
    text = f"a daemon runs (pid {daemon.get('pid')})" if daemon is not None else "no daemon runs"
    yield Finding(check="daemon", ok=True if daemon is not None else None, text=text)
    if daemon and daemon.get("config_error"):
        yield Finding(
            check="daemon", ok=False, text=f"runs on an older configuration: {daemon['config_error']}"
        )
    try:
        StatePaths(loaded.state_dir).check()
        if (loaded.state_dir / "coordinator.db").exists():
            with reading(loaded) as store:
                counts = ", ".join(
                    f"{count} {state.value}" for state, count in store.counts_by_state().items()
                )
            yield Finding(check="store", ok=True, text=f"{loaded.state_dir}: {counts or 'no tasks yet'}")
        else:
            yield Finding(check="store", ok=True, text=f"{loaded.state_dir}: nothing yet")
    except StoreError as error:
        yield Finding(check="store", ok=False, text=str(error))


def _github(loaded: LoadedSettings) -> Iterator[Finding]:
    import asyncio
    import os

    token = os.environ.get(loaded.settings.github.token_env)
    if not token:
        return
    for finding in asyncio.run(_ask_github(loaded, token)):
        yield finding


async def _ask_github(loaded: LoadedSettings, token: str) -> list[Finding]:
    from adw_modules.errors import CoordinatorError
    from coordinator.clock import utc_now
    from coordinator.github import GitHub

    settings, findings = loaded.settings.github, []
    github = GitHub(
        api_url=settings.api_url, token=token, timeout_seconds=settings.request_timeout_seconds, now=utc_now
    )
    try:
        account = await github.whoami()
        findings.append(
            Finding(check="github", ok=True, text=f"{settings.api_url} answers; you are {account.login}")
        )
        for repository in loaded.settings.all_repositories():
            findings.append(await _ask_repository(github, repository.full_name, account.login))
    except CoordinatorError as error:
        findings.append(Finding(check="github", ok=False, text=str(error)))
    finally:
        github.close()
    return findings


async def _ask_repository(github: object, name: str, login: str) -> Finding:
    from adw_modules.errors import CoordinatorError
    from adw_modules.tasks.intake import WRITE_PERMISSIONS
    from coordinator.github import GitHub

    assert isinstance(github, GitHub)
    try:
        permission = (await github.permission(name, login)).permission
    except CoordinatorError as error:
        return Finding(check="repository", ok=False, text=f"{name}: {error}")
    if permission in WRITE_PERMISSIONS:
        return Finding(check="repository", ok=True, text=f"{name}: {login} may write")
    return Finding(
        check="repository",
        ok=False,
        text=f"{name}: {login} has {permission} access; the token needs contents, issues and pull requests: write",
    )
