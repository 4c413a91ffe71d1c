"""The way in and out of the command line: the only error boundary, and the exit codes.

Imports next to nothing itself: Ctrl-C is an answer from the first moment, not a traceback.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from io import TextIOWrapper
from typing import Any

from adw_modules.errors import ConfigError, CoordinatorError, StateDirBusy

EXIT_OK = 0
EXIT_PROBLEM = 1  # doctor found a problem, the demo went wrong, a request was refused
EXIT_USAGE = 2
EXIT_BUG = 70
EXIT_BUSY = 75  # another daemon holds the state directory
EXIT_CONFIG = 78
EXIT_INTERRUPTED = 130
YOUNG_OBJECTS = (
    200_000  # as many as a short command makes; looking for garbage sooner takes a tenth of its time
)
USUAL_THRESHOLDS = gc.get_threshold()


def __getattr__(name: str) -> Any:
    """`coordinator.cli.app`, imported when somebody asks for it."""
    if name != "app":
        raise AttributeError(name)
    from coordinator.cli.verbs import app

    return app


def main() -> None:
    """Run the command line; every way out has a documented exit code and at most one sentence per problem."""
    code = EXIT_INTERRUPTED
    gc.set_threshold(YOUNG_OBJECTS)
    try:
        _open_missing_streams()
        _print_anything()
        code = _run()
    except KeyboardInterrupt:
        pass
    finally:
        # The interpreter is on its way out: another Ctrl-C would only tear its clean-up apart.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        gc.freeze()  # the memory goes back as a whole, there is no need to look through it once more
    sys.exit(code)


def exit_code(error: CoordinatorError) -> int:
    """The documented exit code for an error that reached the command line."""
    if isinstance(error, ConfigError):
        return EXIT_CONFIG
    return EXIT_BUSY if isinstance(error, StateDirBusy) else EXIT_PROBLEM


def _run() -> int:
    try:
        from coordinator.cli.verbs import app

        app()
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # `coordinator status | head`
            return EXIT_OK
        return end.code if isinstance(end.code, int) else EXIT_OK
    except CoordinatorError as error:
        text = str(error)
        # A caret is the end of a text that is shown with its mistake.
        print(text if text.endswith((".", "!", "?", "^")) else f"{text}.", file=sys.stderr)
        return exit_code(error)
    except PermissionError as error:
        return _not_yours(error)
    except Exception as error:  # noqa: BLE001  # the last resort: a user never sees a traceback unless they ask for it
        return _bug(error)
    return EXIT_OK


def _not_yours(error: PermissionError) -> int:
    """Most often a command by hand beside a service that has an account, and a state, of its own."""
    from pathlib import Path

    if error.filename is None or os.environ.get("COORDINATOR_TRACEBACK"):
        return _bug(error)
    try:
        owner = next(each for each in Path(error.filename).parents if os.access(each, os.F_OK)).owner()
    except (KeyError, OSError):  # an account that is gone
        owner = "root"
    print(
        f"You may not use {error.filename}: say `sudo -u {owner}` before the command, "
        "as whoever runs the daemon.",
        file=sys.stderr,
    )
    return EXIT_PROBLEM


def _bug(error: Exception) -> int:
    if os.environ.get("COORDINATOR_TRACEBACK"):
        raise error
    print(
        f"This is a bug in Coordinator: {type(error).__name__}: {error}. "
        "Nothing was lost; run it again with COORDINATOR_TRACEBACK=1 for the details to report.",
        file=sys.stderr,
    )
    return EXIT_BUG


def _open_missing_streams() -> None:
    """`coordinator run <&-`: a lock or a database must not get the number of a standard stream."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(fd, "w" if fd else "r", closefd=False))  # noqa: SIM115


def _print_anything() -> None:
    """A check mark on a terminal that has none must not end a command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
