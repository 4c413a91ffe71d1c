"""`coordinator service install | uninstall | status`: the daemon as a service of systemd."""

from __future__ import annotations

import typer

from coordinator.cli.service.install import install
from coordinator.cli.service.status import status
from coordinator.cli.service.uninstall import uninstall


def register(app: typer.Typer) -> None:
    group = typer.Typer(
        help="Install, remove or look at the systemd service.",
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for verb in (install, uninstall, status):
        group.command()(verb)
    app.add_typer(group, name="service")
