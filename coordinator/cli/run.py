"""`coordinator run`: the daemon itself."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from coordinator.cli.common import DEFAULT_CONFIG, ConfigOption


class LogLevel(StrEnum):
    """How much is logged."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


def register(app: typer.Typer) -> None:
    app.command()(run)


def run(
    config: ConfigOption = DEFAULT_CONFIG,
    once: Annotated[
        bool, typer.Option("--once", help="Poll once, finish what can be finished now, then exit.")
    ] = False,
    log_level: Annotated[
        LogLevel, typer.Option(help="The least level that is logged.", case_sensitive=False)
    ] = LogLevel.INFO,
    json_logs: Annotated[
        bool | None,
        typer.Option(
            "--json/--text",
            help="How to log. By default lines on a terminal, fields in the journal, else JSON.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Poll GitHub, route labelled issues to agents, open draft pull requests. Runs until stopped.

    SIGTERM stops the daemon; its workers go on and the next daemon takes them over. So does Ctrl-C, which
    asks first when workers are live and there is a terminal. With --once they are ended.
    """
    import asyncio
    import faulthandler
    import gc
    import os
    import sys

    from coordinator import faultpoints, logs
    from coordinator.cli import USUAL_THRESHOLDS
    from coordinator.cli.common import settings_source
    from coordinator.cli.question import ask_about_runs, can_ask
    from coordinator.daemon import Daemon
    from coordinator.systemd.journal import Journal, is_journal

    faultpoints.arm(os.environ)
    gc.set_threshold(*USUAL_THRESHOLDS)  # what goes on for weeks tidies up as Python usually does
    faulthandler.enable()  # a watchdog ends us by SIGABRT: then the journal shows where the loop stood
    os.umask(0o077)  # what the daemon and its shims write is their user's alone
    source = settings_source(config, os.environ)
    redactor = logs.Redactor.of(source.current.settings, os.environ)
    logs.configure(
        redactor=redactor,
        level=log_level.value,
        json=json_logs,
        log_dir=source.current.log_dir,
        journal=Journal() if json_logs is None and is_journal(sys.stderr, os.environ) else None,
    )
    ask = None if once or not can_ask() else ask_about_runs
    daemon = Daemon(source, once=once, end_runs_on_interrupt=once, ask=ask, redactor=redactor)
    code = asyncio.run(daemon.run())
    raise typer.Exit(130 if daemon.was_interrupted else code)
