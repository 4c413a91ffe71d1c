"""The command line: one verb per file, and the only error boundary with the exit codes.

Heavy imports happen inside the verbs, so that `coordinator --help` stays fast.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from adw_modules.errors import ConfigError, CoordinatorError, StateDirBusy
from coordinator.cli import check, demo, doctor, init, logs, operate, run, status, why

EXIT_OK = 0
EXIT_PROBLEM = 1  # doctor found a problem, the demo went wrong, a request was refused
EXIT_USAGE = 2
EXIT_BUG = 70
EXIT_BUSY = 75  # another daemon holds the state directory
EXIT_CONFIG = 78
EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="coordinator",
    help="Turns labelled GitHub issues into draft pull requests by AI coding agents.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 fine, 1 a problem was found, 2 wrong usage, 70 a bug, 75 another daemon runs, "
    "78 the configuration cannot be used, 130 interrupted.",
)
for register in (
    run.register,
    check.register,
    doctor.register,
    status.register,
    why.register,
    operate.register,
    logs.register,
    demo.register,
    init.register,
):
    register(app)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"coordinator {version('coordinator')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[  # noqa: ARG001  the callback does the work
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


def exit_code(error: CoordinatorError) -> int:
    """The documented exit code for an error that reached the command line."""
    if isinstance(error, ConfigError):
        return EXIT_CONFIG
    return EXIT_BUSY if isinstance(error, StateDirBusy) else EXIT_PROBLEM


def main() -> None:
    """Run the command line; every way out has a documented exit code and at most one sentence per problem."""
    try:
        app()
    except CoordinatorError as error:
        print(str(error), file=sys.stderr)
        sys.exit(exit_code(error))
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:  # `coordinator status | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_OK)
    except Exception as error:  # the last resort: a user never sees a traceback unless they ask for it
        if os.environ.get("COORDINATOR_TRACEBACK"):
            raise
        print(
            f"This is a bug in Coordinator: {type(error).__name__}: {error}. "
            "Nothing was lost; run it again with COORDINATOR_TRACEBACK=1 for the details to report.",
            file=sys.stderr,
        )
        sys.exit(EXIT_BUG)
