"""The command line's verbs: one file each, put together here. Heavy imports happen inside the verbs."""

from __future__ import annotations

from typing import Annotated

import typer

from coordinator.cli import (
    backup,
    budget,
    catalog,
    check,
    content,
    costs,
    demo,
    doctor,
    experiments,
    housekeeping,
    init,
    logs,
    operate,
    providers,
    route,
    run,
    secrets,
    service,
    status,
    usage,
    why,
)

app = typer.Typer(
    name="coordinator",
    help="Turns labelled GitHub issues into draft pull requests by AI coding agents.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 fine, 1 a problem was found, 2 wrong usage, 70 a bug, 75 another daemon runs, "
    "78 the configuration cannot be used, 130 interrupted.",
)
for register in (
    init.register,
    check.register,
    doctor.register,
    run.register,
    status.register,
    why.register,
    costs.register,
    budget.register,
    content.register,
    logs.register,
    operate.register,
    providers.register,
    route.register,
    experiments.register,
    housekeeping.register,
    secrets.register,
    service.register,
    usage.register,
    backup.register,
    catalog.register,
    demo.register,
):
    register(app)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"coordinator {version('coordinator')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass
