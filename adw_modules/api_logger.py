"""The daily log of what runs cost: `<log_dir>/api/api-calls-YYYY-MM-DD.jsonl`, one JSON object per line.

Owns that file's format. The only place in adw_modules that writes files. Must not price anything or
read the log back: the store is the record, this is for people and their scripts.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from adw_modules.tasks.model import Cost, ModelCost, ModelUsage, Usage, UsageSource


class ClaudeAPILogger:
    """Writes the daily log, and holds the configured prices by model.

    `cost_table` is `{name: {"input": dollars, "output": dollars}}` for a million tokens, with the numbers
    as the configuration has them; a price that is not configured is None.
    """

    def __init__(self, log_dir: Path, model_catalog: Iterable[Mapping[str, Any]]) -> None:
        self.log_dir = Path(log_dir)
        self.cost_table = self._build_cost_table(model_catalog)

    def _build_cost_table(self, catalog: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
        return {
            model["name"]: {
                "input": model.get("cost_per_million_input"),
                "output": model.get("cost_per_million_output"),
            }
            for model in catalog
        }

    def log_call(
        self,
        *,
        at: datetime,
        task_id: str,
        token: int,
        attempt: int,
        provider: str,
        model: str,
        usage: Usage,
        cost: Cost,
        duration_seconds: float,
        outcome: str,
        exit_code: int | None,
    ) -> Path:
        """Append one run's line to the file of `at`'s UTC day and return its path.

        `at` is when the run ended (aware), `task_id` the task's name ("gh-12"), `model` the routed model;
        what each model really used is under `models`. Raises OSError when the line cannot be written whole.
        """
        moment = at.astimezone(UTC)
        record = {
            "timestamp": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "task_id": task_id,
            "token": token,
            "attempt": attempt,
            "provider": provider,
            "model": model,
            **_tokens(usage),
            "usage_source": usage.source.value,
            "models": {
                name: _counts(used) | _price(cost.by_model.get(name))
                for name, used in sorted(usage.by_model.items())
            },
            "billing": "subscription" if cost.is_subscription else "api",
            "cost_usd": _text(cost.usd),
            "cost_at_least_usd": _text(cost.at_least),
            "reported_cost_usd": _text(usage.reported_cost_usd),
            "priced_by": cost.priced_by,
            "price_source": cost.source,
            "price_version": cost.version,
            "duration_seconds": round(duration_seconds, 3),
            "outcome": str(outcome),
            "exit_code": exit_code,
        }
        path = self.path_for(moment)
        _append_line(path, json.dumps(record).encode())
        return path

    def path_for(self, moment: datetime) -> Path:
        """The file that holds the lines of `moment`'s UTC day."""
        day = moment.astimezone(UTC).date().isoformat()
        return self.log_dir / "api" / f"api-calls-{day}.jsonl"


def _tokens(usage: Usage) -> dict[str, int | None]:
    """The run's totals; null, not 0, when nobody knows them."""
    counts = _counts(usage.total)
    return dict.fromkeys(counts) if usage.source is UsageSource.UNKNOWN else dict(counts)


def _counts(used: ModelUsage) -> dict[str, int]:
    return {
        "input_tokens": used.input,
        "cache_read_tokens": used.cache_read,
        "cache_write_tokens": used.cache_write,
        "output_tokens": used.output,
    }


def _price(cost: ModelCost | None) -> dict[str, str | None]:
    if cost is None:
        return {}
    return {"cost_usd": _text(cost.usd), "price_source": cost.source, "price_version": cost.version}


def _text(usd: Decimal | None) -> str | None:
    """All digits, none of them lost."""
    return None if usd is None else format(usd, "f")


def _append_line(path: Path, line: bytes) -> None:
    """Append in one write, so that lines of parallel writers never mix."""
    try:
        descriptor = _opened(path)
    except FileNotFoundError:  # the folders: made once, not looked for at each line
        for folder in (path.parent.parent, path.parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = _opened(path)
    try:
        # A full disk may have cut the line before: it must not swallow this one. The lock is there for
        # this look: the size of a file can be seen in the middle of somebody else's write.
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        size = os.fstat(descriptor).st_size
        is_cut = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        data = (b"\n" if is_cut else b"") + line + b"\n"
        written = os.write(descriptor, data)
    finally:
        os.close(descriptor)
    if written != len(data):
        raise OSError(f"only {written} of {len(data)} bytes could be written to {path}")


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
