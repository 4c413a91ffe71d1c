"""How a script in this folder gets to the project's own Python, takes its common options, and ends.

Standard library only, and in the syntax of Python 3.6 like the scripts themselves: an older Python has to
read them far enough to say what to do. Nothing is imported from the project before `run()`.
"""

import io
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

OLDEST = (3, 11)
EX_UNAVAILABLE = 69
EX_SOFTWARE = 70
EX_CONFIG = 78
INTERRUPTED = 130

PROJECT_ROOT = Path(__file__).resolve().parent.parent
VENV = PROJECT_ROOT / ".venv"


def run(main: "Callable[[], str]", *, needs: str = "pydantic") -> None:
    """Print what `main` returns and exit: 0, 69 not set up, 78 configuration, 70 anything else.

    A Python without the package `needs` is not the project's own.
    """
    enter(needs)
    from adw_modules.errors import ConfigError, CoordinatorError

    try:
        text = main()
    except ConfigError as error:
        sys.exit(complain(str(error), EX_CONFIG))
    except CoordinatorError as error:
        sys.exit(complain(str(error), EX_SOFTWARE))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    _print(text)


def options(description: str) -> "argparse.ArgumentParser":
    """The options that every script has."""
    import argparse  # not for a start that only finds the right Python

    parser = argparse.ArgumentParser(description=description)
    default = PROJECT_ROOT / "adws" / "config.toml"
    parser.add_argument(
        "--config", type=Path, default=default, metavar="FILE", help="default: adws/config.toml"
    )
    parser.add_argument("--json", action="store_true", help="print JSON for programs")
    return parser


def enter(needed: str) -> None:
    """Make the project importable here, or start again with `.venv/bin/python`. Neither: exit code 69.

    `needed` is a package that only a Python which is set up for the project has.
    """
    sys.path.insert(0, str(PROJECT_ROOT))
    missing = _missing(needed)
    if missing is None:
        return
    python = VENV / "bin" / "python"
    if Path(sys.prefix).resolve() == VENV.resolve():
        sys.exit(
            complain(
                f'Coordinator cannot start ({missing}): run "make setup" in {PROJECT_ROOT}.', EX_UNAVAILABLE
            )
        )
    try:
        os.execv(str(python), [str(python), *sys.argv])  # noqa: S606  the same script again; a shell is not wanted
    except OSError:
        sentence = f'Coordinator is not set up here: run "make setup" once in {PROJECT_ROOT}.'
        sys.exit(complain(sentence, EX_UNAVAILABLE))


def _missing(needed: str) -> "str | None":
    """Why this Python cannot run the project, or None. Looks and does not import: that would take longer."""
    if sys.version_info < OLDEST:
        return "it needs Python 3.11 or newer"
    return None if find_spec(needed) else "No module named '%s'" % needed  # noqa: UP031  read by old Pythons


def complain(sentence: str, code: int) -> int:
    print(sentence, file=sys.stderr)
    return code


def _print(text: str) -> None:
    """All at once, on any terminal: `… | head -1` and an ASCII locale are no errors."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # The interpreter flushes once more at exit and would complain there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
