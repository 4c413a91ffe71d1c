"""Brings a database to the schema this version speaks, or says why it cannot. Owns the list of revisions.

Alembic costs 12 MB and a fifth of a second, so it is loaded only when an older database really is upgraded:
an empty one gets the newest schema at once (a test proves that both ways end in the same schema).
"""

from __future__ import annotations

from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_mock_engine, inspect, text

from adw_modules.errors import StoreError
from coordinator.store import audit
from coordinator.store.database import Database
from coordinator.store.tables import metadata

REVISIONS = (
    "0001",
    "0002",
    "0003",
    "0004",
    "0005",
    "0006",
    "0007",
    "0010",
    "0008",
)  # oldest first; a test compares it with `migrations/versions`
HEAD = REVISIONS[-1]
MIGRATIONS = Path(__file__).with_name("migrations")

# Alembic's own table, spelled as Alembic spells it.
_VERSION_TABLE = "alembic_version"
_READ_VERSION = text("SELECT version_num FROM alembic_version")
_CREATE_VERSION = text(
    "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, "
    "CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
)
_URLS = {"sqlite": "sqlite://", "postgresql": "postgresql+psycopg://"}
_WRITE_VERSION = text("INSERT INTO alembic_version (version_num) VALUES (:head)")


def check(database: Database) -> None:
    """StoreError unless the database is at our revision exactly."""
    with database.read() as conn:
        version = _version(conn, database.name)
    if version is None:
        raise StoreError(f"{database.name} is still empty: start the daemon once")
    if version != HEAD:
        raise StoreError(
            f"{database.name} is at schema {version} and this program reads {HEAD}: "
            "start the daemon once to upgrade it"
        )


def bring_to_head(database: Database, now: datetime) -> None:
    """Create or upgrade, in one transaction. StoreError for a newer database or somebody else's."""
    with database.read() as conn:
        if _version(conn, database.name) == HEAD:
            return
    with database.write() as conn:
        version = _version(conn, database.name)  # again: another program may just have done it
        if version is None:
            _create(conn)
        elif version != HEAD:
            upgrade(conn)
            audit.add(conn, now, "upgraded", f"schema {version} -> {HEAD}")


def upgrade(conn: Connection, revision: str = HEAD) -> None:
    """Run the migrations that are missing, inside the caller's transaction."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = conn
    command.upgrade(config, revision)


def _version(conn: Connection, name: str) -> str | None:
    """The revision of the database; None when it is empty."""
    present = set(inspect(conn).get_table_names())
    if _VERSION_TABLE not in present:
        foreign = sorted(present & set(metadata.tables))
        if foreign:
            raise StoreError(
                f"{name} belongs to another program: it has a table {foreign[0]} that is not ours"
            )
        return None
    version: str | None = conn.execute(_READ_VERSION).scalar_one_or_none()
    if version not in REVISIONS:
        raise StoreError(
            f"{name} was written by a newer Coordinator (schema {version}, this one knows up to {HEAD}): "
            "install that version again, or put back a copy made before the upgrade"
        )
    return version


def _create(conn: Connection) -> None:
    for statement in _definitions(conn.dialect.name):
        conn.exec_driver_sql(statement)
    conn.execute(_CREATE_VERSION)
    conn.execute(_WRITE_VERSION, {"head": HEAD})


@cache
def _definitions(dialect: str) -> tuple[str, ...]:
    """The statements that make all tables and indexes; spelled out once in a process, which takes longest."""
    statements: list[str] = []

    def spell(element: Any, *_: object, **__: object) -> None:
        statements.append(str(element.compile(dialect=engine.dialect)))

    for index in (each for table in metadata.tables.values() for each in table.indexes):
        # Partial indexes say so in SQLite's name alone: in PostgreSQL's as well would load its dialect, 3 MB.
        index.dialect_options[dialect]["where"] = index.dialect_options["sqlite"]["where"]
    engine = create_mock_engine(_URLS[dialect], spell)
    metadata.create_all(engine, checkfirst=False)
    return tuple(statements)
