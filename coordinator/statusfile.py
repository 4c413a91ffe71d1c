"""daemon.json: what a running daemon says about itself beyond the store, for `status`, `why` and `doctor`.

Replaced in one step and gone when the daemon ends in order. Nobody decides anything by it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_NAME = "daemon.json"


def write(state_dir: Path, status: Mapping[str, Any]) -> None:
    target = state_dir / _NAME
    temporary = target.with_suffix(".tmp")
    with contextlib.suppress(OSError):  # a full disk must not stop the loop; the log has the same facts
        temporary.write_text(json.dumps(status))
        temporary.replace(target)


def read(state_dir: Path) -> dict[str, Any]:
    """Empty when there is none (yet), or none that can be read."""
    try:
        status: dict[str, Any] = json.loads((state_dir / _NAME).read_text())
    except (OSError, ValueError):
        return {}
    return status


def remove(state_dir: Path) -> None:
    (state_dir / _NAME).unlink(missing_ok=True)
