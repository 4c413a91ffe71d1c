"""`coordinator check`: is this configuration usable?"""

from __future__ import annotations

import typer

from coordinator.cli.common import DEFAULT_CONFIG, ConfigOption, JsonOption


def register(app: typer.Typer) -> None:
    app.command()(check)


def check(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Say whether the configuration can be used; all problems at once, exit code 78 if there are any."""
    import os

    from adw_modules.errors import ConfigError
    from coordinator.cli.common import print_json, settings_source

    try:
        source = settings_source(config, os.environ)
    except ConfigError as error:
        if as_json:
            print_json({"config": str(config), "valid": False, "problems": error.problems, "warnings": []})
            raise typer.Exit(78) from None
        raise
    if as_json:
        warnings = list(source.current.settings.warnings())
        print_json({"config": str(config), "valid": True, "problems": [], "warnings": warnings})
        return
    settings = source.current.settings
    repositories = [repository.full_name for repository in settings.all_repositories()]
    parts = (
        f"{_count(len(repositories), 'repository', 'repositories')} ({', '.join(repositories)})",
        _count(len(settings.providers), "provider"),
        _count(len(settings.routing.rules), "routing rule"),
    )
    typer.echo(f"{config} can be used (version {source.current.version}): {', '.join(parts)}.")
    for warning in settings.warnings():
        typer.echo(f"Warning: {warning}")


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
