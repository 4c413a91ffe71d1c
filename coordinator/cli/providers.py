"""`coordinator providers`: tries a provider's command for real; takes one out of use and back."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adw_modules.errors import CoordinatorError
from coordinator.cli.common import DEFAULT_CONFIG, ConfigOption, JsonOption, print_json, settings_source

if TYPE_CHECKING:
    from coordinator.probing import Answer, Probe
    from coordinator.settings import LoadedSettings

providers = typer.Typer(help="Try providers for real; take them out of use and back.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    app.add_typer(providers, name="providers")


NameArgument = Annotated[str, typer.Argument(help="the provider, as in [providers.NAME]", show_default=False)]


@providers.command()
def pause(name: NameArgument, config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Start no new runs of a provider until `resume`; its live runs go on, and tasks go to other targets."""
    _steer(config, "pause-provider", name, as_json)


@providers.command()
def resume(name: NameArgument, config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Use a provider again, whatever it has shown before: a pause, refused credentials, a wait."""
    _steer(config, "resume-provider", name, as_json)


def _steer(config: Path, verb: str, name: str, as_json: bool) -> None:
    from adw_modules.routing.attributes import suggestion
    from coordinator.cli.common import settings_in_force
    from coordinator.cli.operate import request

    known = tuple(settings_in_force(config).loaded.settings.providers)
    if name not in known:
        raise CoordinatorError(f'No provider "{name}" is configured; {suggestion(name, known)}')
    request(config, verb, None, name, as_json)


@providers.command()
def probe(
    name: Annotated[str, typer.Argument(help="the provider, as in [providers.NAME]", show_default=False)],
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="The model; default: the provider's first one.")
    ] = None,
    timeout: Annotated[
        float,
        typer.Option("--timeout", min=1, max=3600, help="The longest one run may take, in seconds."),
    ] = 300,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Run a provider's command four times in a throw-away repository, and say what it can.

    It costs what such small runs cost with that provider. Exit code 1 if something runs need does not work.
    """
    from coordinator import probing
    from coordinator.clock import utc_now

    loaded = settings_source(config).current
    settings = loaded.settings
    if name not in settings.providers:
        known = ", ".join(settings.providers) or "none"
        raise CoordinatorError(f"There is no provider {name!r}; configured are {known}.")
    environ = _environ(loaded)
    chosen = model or _first_model(loaded, name)
    if not as_json:
        typer.echo(f"{name} ({settings.providers[name].agent}) with {chosen}")
    found = probing.probe(
        loaded,
        name,
        model=chosen,
        environ=environ,
        timeout=timeout,
        now=utc_now(),
        tell=(lambda _answer: None) if as_json else _show,
    )
    _keep(loaded.state_dir, found)
    said = _tell_health(loaded, found, environ)
    if as_json:
        print_json(found.as_dict())
    else:
        typer.echo("\nRuns can use it." if found.is_fine else "\nRuns cannot rely on it.")
        typer.echo(said) if said else None
    if not found.is_fine:
        raise typer.Exit(1)


def _first_model(loaded: LoadedSettings, name: str) -> str:
    """The model that tasks of this provider get by default, else the first one it is said to serve."""
    settings = loaded.settings
    routing = settings.routing
    if routing.default_provider == name and routing.default_model:
        return routing.default_model
    if settings.llm.provider == name:
        return settings.llm.model_default
    offered = [model.name for model in settings.models if model.provider == name]
    ruled = [rule.model for rule in routing.rules if rule.provider == name and rule.model]
    if not [*offered, *ruled]:
        raise CoordinatorError(f"No model of {name} is configured: say which one with --model.")
    return [*offered, *ruled][0]


def _environ(loaded: LoadedSettings) -> dict[str, str]:
    """An installed service's environment where there is one: that is what its runs get."""
    from coordinator.cli.service import installed

    service = installed.find(loaded, pid=None)
    return {**os.environ, **((service.environ or {}) if service else {})}


def _keep(state_dir: Path, found: Probe) -> None:
    from coordinator import probing

    try:
        probing.save(state_dir, found)
    except OSError as error:
        typer.echo(f"The result could not be kept for `doctor`: {error}", err=True)


def _tell_health(loaded: LoadedSettings, found: Probe, environ: Mapping[str, str]) -> str | None:
    """Leave what it shows about the provider for the daemon, as far as there is one or was; its answer."""
    from dataclasses import replace

    from coordinator.breakers import Probed, fingerprint
    from coordinator.cli.common import has_state
    from coordinator.cli.operate import leave, sentence
    from coordinator.logs import Redactor

    if found.health is None or not has_state(loaded):
        return None
    detail = Redactor.of(loaded.settings, environ).text(found.health.detail)
    probed = Probed(
        event=replace(found.health, detail=detail),
        at=found.at,
        fingerprint=fingerprint(loaded.settings.providers[found.provider], environ),
    )
    _, answer, is_running = leave(loaded, "probed-provider", None, probed.written())
    return sentence(answer, None, is_running=is_running)


def _show(answer: Answer) -> None:
    from coordinator.logs import printable

    mark, colour = {True: ("✓", "green"), False: ("✗", "red"), None: ("!", "yellow")}[answer.ok]
    typer.echo(f"  {typer.style(mark, fg=colour)} {answer.question:<24} {printable(answer.seen)}")
