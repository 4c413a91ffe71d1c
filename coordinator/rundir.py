"""What a run leaves in its run directory beside the shim's own files: the agent's stderr and its summary.

Which files the shim writes and what they mean is the launcher's and the shim's business.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from adw_modules.agents.stream import StreamSummary
from adw_modules.tasks.model import Outcome, RunOutcome
from coordinator.logs import get_logger
from coordinator.shim import open_regular, read_json, write

log = get_logger()

_TAIL_BYTES = 16_384


def stderr_tail(run_dir: Path, lines: int = 20) -> tuple[str, ...]:
    """The last lines the agent wrote to stderr, oldest first; empty when it wrote none."""
    try:
        with os.fdopen(open_regular(str(run_dir / "stderr.log")), "rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - _TAIL_BYTES))
            return tuple(stream.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return ()


def save_summary(
    run_dir: Path, summary: StreamSummary, redact: Callable[[str], str], outcome: RunOutcome | None = None
) -> None:
    """What pull request and comment quote (the agent's own words, its last lines), and the outcome."""
    said = {
        "format": 1,
        "result": redact(summary.final.result_text) if summary.final else "",
        "last_lines": [redact(line) for line in summary.last_lines],
        "outcome": outcome.outcome.value if outcome else None,
        "detail": redact(outcome.detail) if outcome else "",
    }
    try:
        write(str(run_dir / "summary.json"), json.dumps(said).encode())
    except FileNotFoundError:
        return  # the run failed before it had a directory: no agent said anything
    except OSError as error:
        log.warning("the agent's summary could not be kept", error=str(error))


def earlier_success(run_dir: Path) -> RunOutcome | None:
    """The outcome, where the run was settled as succeeded before; of use once its workspace is given up.

    The store may not know it: an older copy of the database was put back since.
    """
    said = read_json(str(run_dir / "summary.json")) or {}
    if said.get("outcome") != Outcome.SUCCEEDED:
        return None
    return RunOutcome(outcome=Outcome.SUCCEEDED, detail=str(said.get("detail", "")), exit_code=0)


def load_summary(run_dir: Path) -> tuple[str, tuple[str, ...]]:
    """(what the agent said it did, its last lines); empty when nothing was kept."""
    try:
        said = read_json(str(run_dir / "summary.json")) or {}
        return str(said["result"]), tuple(str(line) for line in said["last_lines"])
    except (KeyError, TypeError):
        return "", ()
