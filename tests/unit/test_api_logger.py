"""The daily API log: one whole line per run, in the file of its own day, for nobody else's eyes."""

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import pytest

from adw_modules.api_logger import ClaudeAPILogger
from adw_modules.money.quotes import PriceSource
from adw_modules.tasks.model import Cost, ModelCost, ModelUsage, Usage, UsageSource

NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
CATALOG = [
    {"name": "claude-opus-4", "cost_per_million_input": 15.0, "cost_per_million_output": 75.0},
    {"name": "deepseek/deepseek-chat", "cost_per_million_input": 0.14, "cost_per_million_output": 0.28},
]
USAGE = Usage(
    source=UsageSource.REPORTED,
    by_model={
        "claude-opus-4-20250514": ModelUsage(
            input=2400, cache_read=1600, cache_write_5m=500, cache_write_1h=100, output=300
        )
    },
)


COST = Cost(
    usd=Decimal("0.0189200"),
    priced_by="config",
    source=PriceSource.CONFIG,
    version="abc123",
    by_model={
        "claude-opus-4-20250514": ModelCost(
            usd=Decimal("0.0189200"), source=PriceSource.CONFIG, version="abc123"
        )
    },
)


def log(logger: ClaudeAPILogger, **fields):
    record = {
        "at": NOON,
        "task_id": "gh-12",
        "token": 3,
        "attempt": 1,
        "provider": "claude-cli",
        "model": "claude-opus-4",
        "usage": USAGE,
        "cost": COST,
        "duration_seconds": 12.34567,
        "outcome": "succeeded",
        "exit_code": 0,
    }
    return logger.log_call(**(record | fields))


def test_the_cost_table_comes_from_the_configured_models(tmp_path):
    logger = ClaudeAPILogger(tmp_path, CATALOG)
    assert logger.log_dir == tmp_path
    assert logger.cost_table == {
        "claude-opus-4": {"input": 15.0, "output": 75.0},
        "deepseek/deepseek-chat": {"input": 0.14, "output": 0.28},
    }


def test_a_model_without_a_price_has_none_in_the_table(tmp_path):
    assert ClaudeAPILogger(tmp_path, [{"name": "local"}]).cost_table == {
        "local": {"input": None, "output": None}
    }


def test_making_a_logger_touches_no_file(tmp_path):
    ClaudeAPILogger(tmp_path / "logs", CATALOG)
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_one_line_with_every_field(tmp_path):
    path = log(ClaudeAPILogger(tmp_path / "logs", CATALOG))
    assert path == tmp_path / "logs" / "api" / "api-calls-2026-11-21.jsonl"
    assert path.read_bytes().count(b"\n") == 1
    assert json.loads(path.read_text()) == {
        "timestamp": "2026-11-21T12:00:00.000Z",
        "task_id": "gh-12",
        "token": 3,
        "attempt": 1,
        "provider": "claude-cli",
        "model": "claude-opus-4",
        "input_tokens": 2400,
        "cache_read_tokens": 1600,
        "cache_write_tokens": 600,
        "output_tokens": 300,
        "usage_source": "reported",
        "models": {
            "claude-opus-4-20250514": {
                "input_tokens": 2400,
                "cache_read_tokens": 1600,
                "cache_write_tokens": 600,
                "output_tokens": 300,
                "cost_usd": "0.0189200",
                "price_source": "config",
                "price_version": "abc123",
            }
        },
        "billing": "api",
        "cost_usd": "0.0189200",
        "cost_at_least_usd": None,
        "reported_cost_usd": None,
        "priced_by": "config",
        "price_source": "config",
        "price_version": "abc123",
        "duration_seconds": 12.346,
        "outcome": "succeeded",
        "exit_code": 0,
    }


def test_what_is_not_known_is_null_and_not_zero(tmp_path):
    path = log(
        ClaudeAPILogger(tmp_path, CATALOG),
        usage=Usage(source=UsageSource.UNKNOWN),
        cost=Cost(usd=None, priced_by="unknown: the run left no token numbers"),
        exit_code=None,
    )
    record = json.loads(path.read_text())
    unknown = (
        "input_tokens",
        "cache_read_tokens",
        "cache_write_tokens",
        "output_tokens",
        "cost_usd",
        "exit_code",
    )
    assert [record[name] for name in unknown] == [None] * 6


def test_a_subscription_has_no_cost_and_says_how_it_is_billed(tmp_path):
    usage = replace(USAGE, reported_cost_usd=Decimal("0.4"))
    cost = Cost(usd=None, priced_by="subscription", source=PriceSource.SUBSCRIPTION)
    record = json.loads(log(ClaudeAPILogger(tmp_path, CATALOG), usage=usage, cost=cost).read_text())
    assert (record["billing"], record["price_source"]) == ("subscription", "subscription")
    assert record["cost_usd"] is None
    assert (record["input_tokens"], record["reported_cost_usd"]) == (2400, "0.4")


def test_a_tiny_cost_is_written_without_an_exponent(tmp_path):
    path = log(ClaudeAPILogger(tmp_path, CATALOG), cost=Cost(usd=Decimal("1E-9"), priced_by="config"))
    assert json.loads(path.read_text())["cost_usd"] == "0.000000001"


def test_the_day_is_that_of_the_record_in_utc(tmp_path):
    logger = ClaudeAPILogger(tmp_path, CATALOG)
    late_in_new_york = datetime(2026, 11, 21, 20, 0, tzinfo=timezone(timedelta(hours=-5)))
    names = [log(logger, at=at).name for at in (NOON, late_in_new_york, NOON)]
    assert names == [
        "api-calls-2026-11-21.jsonl",
        "api-calls-2026-11-22.jsonl",
        "api-calls-2026-11-21.jsonl",
    ]
    assert len(logger.path_for(NOON).read_text().splitlines()) == 2


def test_only_the_owner_may_read_the_log(tmp_path):
    path = log(ClaudeAPILogger(tmp_path / "logs", CATALOG))
    modes = [stat.S_IMODE(place.stat().st_mode) for place in (path, path.parent, path.parent.parent)]
    assert modes == [0o600, 0o700, 0o700]


def test_a_line_that_was_cut_by_a_full_disk_does_not_swallow_the_next(tmp_path):
    logger = ClaudeAPILogger(tmp_path, CATALOG)
    path = log(logger)
    path.write_bytes(path.read_bytes()[:-20])
    log(logger, task_id="gh-13")
    cut, whole = path.read_text().splitlines()
    assert cut.startswith('{"timestamp"')
    assert json.loads(whole)["task_id"] == "gh-13"


def test_lines_of_parallel_writers_never_mix(tmp_path):
    writers = [ClaudeAPILogger(tmp_path, CATALOG) for _ in range(8)]
    long_reason = "x" * 20_000

    def write(number: int):
        cost = Cost(usd=None, priced_by=long_reason)
        return log(writers[number % 8], task_id=f"gh-{number}", cost=cost)

    with ThreadPoolExecutor(8) as pool:
        (path,) = set(pool.map(write, range(200)))
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert {record["task_id"] for record in records} == {f"gh-{number}" for number in range(200)}
    assert len(records) == 200


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "logs").write_text("a file is in the way")
    with pytest.raises(OSError, match="logs"):
        log(ClaudeAPILogger(tmp_path / "logs", CATALOG))


def test_a_full_disk_is_an_error(tmp_path):
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    logger = ClaudeAPILogger(tmp_path, CATALOG)
    logger.path_for(NOON).parent.mkdir()
    logger.path_for(NOON).symlink_to(full)
    with pytest.raises(OSError, match="No space left"):
        log(logger)
