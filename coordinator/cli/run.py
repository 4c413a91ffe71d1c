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
    from coordinator.daemon import Daemon

    if log_level.upper() not in logging.getLevelNamesMapping():
        raise CoordinatorError(f"--log-level {log_level} is not known: use DEBUG, INFO, WARNING or ERROR.")
    source = settings_source(config, os.environ)
    settings = source.current.settings
    logs.configure(
        redactor=logs.Redactor.from_environ(logs.secret_names(settings), os.environ),
        level=log_level.upper(),
        log_dir=source.current.log_dir,
    )
    code = asyncio.run(Daemon(source, once=once, end_runs_on_interrupt=once).run())
    _leave_hanging_requests(code)
    raise typer.Exit(code)


def _leave_hanging_requests(code: int) -> None:
    """Python waits for every thread at the end, so for a request that GitHub does not answer: end without.

    Nothing is lost: the store is closed, and whoever asked has been told that the connection is closed.
    """
    import logging
    import os
    import sys
    import threading

    others = (thread for thread in threading.enumerate() if thread is not threading.current_thread())
    if any(not thread.daemon and thread.is_alive() for thread in others):
        sys.stdout.flush()
        logging.shutdown()
        os._exit(code)
