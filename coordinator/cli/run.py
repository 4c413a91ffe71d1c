"""`coordinator run`: the daemon itself."""

from __future__ import annotations

from typing import Annotated

import typer

from coordinator.cli.common import DEFAULT_CONFIG, ConfigOption


def register(app: typer.Typer) -> None:
    app.command()(run)


def run(
    config: ConfigOption = DEFAULT_CONFIG,
    once: Annotated[
        bool, typer.Option("--once", help="Poll once, finish what can be finished now, then exit.")
    ] = False,
    log_level: Annotated[str, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")] = "INFO",
) -> None:
    """Poll GitHub, route labelled issues to agents, open draft pull requests. Runs until stopped."""
    import asyncio
    import logging
    import os

    from adw_modules.errors import CoordinatorError
    from coordinator import logs
    from coordinator.cli.common import settings_source
    from coordinator.daemon import Daemon, secret_names

    if log_level.upper() not in logging.getLevelNamesMapping():
        raise CoordinatorError(f"--log-level {log_level} is not known: use DEBUG, INFO, WARNING or ERROR.")
    source = settings_source(config, os.environ)
    settings = source.current.settings
    logs.configure(
        redactor=logs.Redactor.from_environ(secret_names(settings), os.environ),
        level=log_level.upper(),
        log_dir=source.current.log_dir,
    )
    code = asyncio.run(Daemon(source, once=once, end_runs_on_interrupt=once).run())
    raise typer.Exit(code)
