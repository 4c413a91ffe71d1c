"""The database as such: schema and migrations, damage, a full disk, rivals, and which indexes are used."""

import os
import re
import sqlite3
import subprocess
import sys
import threading
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import event, insert, text
from store_samples import LATER, NOW, REPO_ID, Because, drain, end, queue, start

from adw_modules.errors import StoreError
from adw_modules.money.budget import Amounts, Budget, Budgets, Per, Pot
from adw_modules.tasks.model import Outcome, Priority, TaskState
from coordinator.store import Store, schema, tables
from coordinator.store.database import open_database

_WORDS = re.compile(r"[^\s,()]+")


@pytest.fixture
def blank(database_url):
    database = open_database(database_url)
    yield database
    database.close()


def differences(conn):
    return compare_metadata(MigrationContext.configure(conn, opts={"compare_type": True}), tables.metadata)


def sqlite_schema(path: Path) -> set[str]:
    """Every object of the file, the words of it sorted: only the order of constraints may differ."""
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    connection.close()
    return {f"{name}: {sorted(_WORDS.findall(sql))}" for name, sql in rows}


# --- schema ----------------------------------------------------------------------------------------


def test_the_migrations_build_exactly_the_tables_that_the_code_uses(blank):
    with blank.write() as conn:
        schema.upgrade(conn)
        assert differences(conn) == []
    with blank.read() as conn:
        assert conn.execute(text("SELECT version_num FROM alembic_version")).scalar_one() == schema.HEAD


def test_a_new_database_gets_exactly_the_tables_that_the_code_uses(store):
    with store._database.read() as conn:
        assert differences(conn) == []


def test_an_upgraded_and_a_new_sqlite_file_are_the_same_to_the_letter(tmp_path):
    upgraded = open_database(tmp_path / "upgraded.db")
    with upgraded.write() as conn:
        schema.upgrade(conn)
    upgraded.close()
    Store.open(tmp_path / "new.db", now=NOW).close()
    assert sqlite_schema(tmp_path / "upgraded.db") == sqlite_schema(tmp_path / "new.db")


def test_runs_of_a_store_from_before_budgets_count_for_budgets_after_the_upgrade(blank, database_url):
    with blank.write() as conn:
        schema.upgrade(conn, "0005")
        conn.execute(insert(tables.tasks).values(_an_old_task(1)))
        for number, (cost, ended, uses) in enumerate(_OLD_RUNS, start=1):
            conn.execute(insert(tables.runs).values(_an_old_run(number, cost, ended)))
            for model, tokens in uses.items():
                conn.execute(insert(tables.usage).values(run_id=number, model=model, **tokens))
    blank.close()
    budgets = Budgets(budgets=(Budget(name="all", usd=Decimal(10), per=Per.TOTAL),))
    with Store.open(database_url, now=LATER) as store:
        use = store.budget_book(budgets, LATER).use(Pot(budgets.budgets[0]))
    assert use.ended == Amounts(usd=Decimal("1.25"), tokens=1234 + 1000), "reasoning is part of the output"
    assert use.live == Amounts(), "what lives counts as far as it tells from now on"


_NO_TOKENS = dict.fromkeys(
    ("input", "cache_read", "cache_write_5m", "cache_write_1h", "output", "reasoning"), 0
)
_OLD_RUNS = [
    (
        Decimal("1.00"),
        NOW,
        {
            "a": _NO_TOKENS | {"input": 1000, "cache_read": 200, "output": 30, "reasoning": 25},
            "b": _NO_TOKENS | {"cache_write_5m": 3, "cache_write_1h": 1},
        },
    ),
    (Decimal("0.25"), NOW, {}),
    (None, NOW, {"a": _NO_TOKENS | {"output": 1000}}),  # of unknown cost
    (None, None, {"a": _NO_TOKENS | {"output": 500}}),  # it lives
]


def _an_old_task(number: int) -> dict[str, Any]:
    texts = ("title", "snapshot_title", "snapshot_body", "url", "author", "triggered_by")
    return {
        **dict.fromkeys(texts, "x"),
        **dict.fromkeys(("attempts", "runs", "token"), 4),
        **dict.fromkeys(("issue_updated_at", "created_at", "updated_at"), NOW),
        "task_id": number,
        "name": f"gh-{number}",
        "repo": "acme/widgets",
        "repo_id": REPO_ID,
        "issue_number": number,
        "labels": ("bug",),
        "priority": Priority.NORMAL,
        "trigger_event_id": 1,
        "state": TaskState.RUNNING,
        "listed": True,
    }


def _an_old_run(number: int, cost: Decimal | None, ended: datetime | None) -> dict[str, Any]:
    return {
        "run_id": number,
        "task_id": 1,
        "token": number,
        "attempt": number,
        "provider": "claude-cli",
        "model": "a",
        "config_version": "v",
        "run_dir": "/r",
        "claimed_at": NOW,
        "started_at": NOW,
        "finished_at": ended,
        "cost_usd": cost,
        "stream_offset": 0,
    }


def test_the_list_of_revisions_is_that_of_the_migration_files():
    config = Config()
    config.set_main_option("script_location", str(schema.MIGRATIONS))
    script = ScriptDirectory.from_config(config)
    assert [revision.revision for revision in script.walk_revisions()][::-1] == list(schema.REVISIONS)


def test_opening_again_keeps_everything(open_store):
    first = open_store()
    task = queue(first)
    assert open_store().get_task(task.task_id) == task


def test_opening_does_not_load_the_migration_machinery(tmp_path):
    code = (
        "import sys; from datetime import datetime, UTC; from coordinator.store import Store\n"
        "for _ in range(2): Store.open(sys.argv[1], now=datetime(2026, 1, 1, tzinfo=UTC)).close()\n"
        "print([name for name in ('alembic', 'mako', 'sqlalchemy.orm') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "c.db"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_database_of_a_newer_version_is_refused_and_left_alone(store, database_url):
    with store._database.write() as conn:
        conn.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for opener in (Store.open_readonly, lambda url: Store.open(url, now=NOW)):
        with pytest.raises(StoreError, match=r"newer Coordinator \(schema 9999"):
            opener(database_url)
    assert store.counts_by_state()[TaskState.QUEUED] == 0


def test_a_database_of_another_program_is_refused(blank, database_url):
    with blank.write() as conn:
        conn.execute(text("CREATE TABLE tasks (name VARCHAR(10))"))
    with pytest.raises(StoreError, match="belongs to another program"):
        Store.open(database_url, now=NOW)


def test_an_empty_database_is_nothing_to_read_yet(blank, database_url):
    with pytest.raises(StoreError, match="start the daemon once"):
        Store.open_readonly(database_url)
    with pytest.raises(StoreError, match="start the daemon once"):
        Store.open(database_url, now=NOW, migrate=False)
    with blank.read() as conn:
        assert differences(conn) != []


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://db/coordinator", "neither a path"),
        ("sqlite://", "would not survive a restart"),
        ("://", "cannot be read"),
        ("postgresql://u:secret@127.0.0.1:1/coordinator", "127.0.0.1"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_in_a_sentence_without_its_password(url, words):
    with pytest.raises(StoreError, match=words) as refused:
        Store.open(url, now=NOW)
    assert "secret" not in str(refused.value)


# --- SQLite ----------------------------------------------------------------------------------------


def test_the_sqlite_file_is_private_durable_and_checks_its_references(sqlite_path):
    with Store.open(f"sqlite:///{sqlite_path}", now=NOW) as store, store._database.read() as conn:
        settings = [conn.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in
                    ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")]  # fmt: skip
        assert settings == ["wal", 2, 1, 30_000]
        queue_modes = {path.name: path.stat().st_mode & 0o777 for path in sqlite_path.parent.iterdir()}
    assert set(queue_modes.values()) == {0o600}


def test_a_path_with_characters_that_mean_something_in_urls_works(tmp_path):
    path = tmp_path / "50% done?" / "a#b.db"
    path.parent.mkdir()
    Store.open(path, now=NOW).close()
    assert path.exists()
    Store.open_readonly(path).close()


def test_a_missing_folder_or_file_is_named(tmp_path):
    with pytest.raises(StoreError, match="nowhere"):
        Store.open(tmp_path / "nowhere" / "c.db", now=NOW)
    with pytest.raises(StoreError, match="start the daemon once"):
        Store.open_readonly(tmp_path / "c.db")
    assert list(tmp_path.iterdir()) == []


def test_a_reader_works_while_no_daemon_runs(sqlite_path):
    with Store.open(sqlite_path, now=NOW) as store:
        queue(store)
    with Store.open_readonly(sqlite_path) as reader:
        assert reader.counts_by_state()[TaskState.QUEUED] == 1


@pytest.mark.parametrize("keep", [0, 4096], ids=["from the first byte", "behind the first page"])
def test_a_damaged_file_is_refused_with_the_way_to_restore_it_and_not_touched(sqlite_path, keep):
    with Store.open(sqlite_path, now=NOW) as store:
        for number in range(30):
            queue(store, number)
    healthy = sqlite_path.read_bytes()
    damaged = healthy[:keep] + b"\xa5" * (len(healthy) - keep)
    sqlite_path.write_bytes(damaged)
    for opener in (Store.open_readonly, lambda path: Store.open(path, now=NOW)):
        with pytest.raises(StoreError, match="is damaged") as refused:
            opener(sqlite_path)
        assert "coordinator restore FILE" in str(refused.value)
    assert sqlite_path.read_bytes() == damaged


def test_a_disk_full_at_claim_writes_nothing_and_the_claim_works_once_there_is_room(sqlite_path):
    with Store.open(sqlite_path, now=NOW) as store:
        task = queue(store)
        connection = store._database._connection.connection
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")
        large = Because(reason="x" * 100_000)
        with pytest.raises(StoreError, match="is full: nothing was written"):
            start(store, task.task_id, decision=large)
        assert store.get_task(task.task_id) == task
        assert (store.open_runs(), store.runs_of(task.task_id)) == ([], [])
        assert [item.version for item in store.due_outbox(LATER, 10)] == [1]
        connection.execute("PRAGMA max_page_count = 1000000")
        claimed, _ = start(store, task.task_id, decision=large)
        assert claimed.attempts == 1


def test_a_write_waits_for_another_writer_instead_of_failing(sqlite_path):
    with Store.open(sqlite_path, now=NOW) as store:
        locked, asked = threading.Event(), threading.Event()

        def hold():
            rival = sqlite3.connect(sqlite_path, isolation_level=None)
            rival.execute("BEGIN IMMEDIATE")
            locked.set()
            asked.wait(10)
            rival.execute("COMMIT")
            rival.close()

        thread = threading.Thread(target=hold)
        thread.start()
        assert locked.wait(10)
        store._database._connection.connection.set_trace_callback(lambda _: asked.set())
        assert queue(store).state is TaskState.QUEUED
        thread.join(10)


def test_a_killed_writer_loses_no_claim_that_was_returned(sqlite_path):
    # os._exit: no close, no checkpoint, like SIGKILL right after the claim.
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[2])\n"
        "from store_samples import NOW, queue, start; from coordinator.store import Store\n"
        "store = Store.open(sys.argv[1], now=NOW); start(store, queue(store).task_id); os._exit(9)"
    )
    arguments = [sys.executable, "-c", code, sqlite_path, Path(__file__).parent]
    assert subprocess.run(arguments, check=False).returncode == 9
    with Store.open(sqlite_path, now=NOW) as store:
        ((task, run),) = store.open_runs()
        assert (task.state, task.attempts, run.token) == (TaskState.RUNNING, 1, 1)


# --- PostgreSQL ------------------------------------------------------------------------------------


def test_a_lost_connection_fails_one_call_and_the_next_one_connects_anew(postgresql_url):
    with Store.open(postgresql_url, now=NOW) as store, Store.open(postgresql_url, now=NOW) as operator:
        task = queue(store)
        with store._database.read() as conn:
            backend = conn.execute(text("SELECT pg_backend_pid()")).scalar_one()
        with operator._database.write() as conn:
            conn.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": backend})
        with pytest.raises(StoreError, match="refused"):
            start(store, task.task_id)
        claimed, _ = start(store, task.task_id)
        assert claimed.attempts == 1


# --- cost --------------------------------------------------------------------------------------------


def fill_with_finished_tasks(store, count):
    sample = queue(store, 1)
    _, run = start(store, sample.task_id)
    end(store, run)
    drain(store)
    with store._database.write() as conn:
        row = dict(conn.execute(tables.tasks.select()).mappings().one())
        ran = dict(conn.execute(tables.runs.select()).mappings().one())
        for number in range(2, count + 1):
            conn.execute(insert(tables.tasks), row | {"task_id": 1000 + number, "issue_number": number})
            conn.execute(insert(tables.runs), ran | {"run_id": 1000 + number, "task_id": 1000 + number})


def recorded(store, *calls):
    """The statements (with parameters) that the calls send."""
    seen = []

    def note(conn, cursor, statement, parameters, context, executemany):
        if not executemany and statement.split()[0] in {"SELECT", "UPDATE", "DELETE"}:
            seen.append((statement, parameters))

    engine = store._database._engine
    event.listen(engine, "before_cursor_execute", note)
    for call in calls:
        call()
    event.remove(engine, "before_cursor_execute", note)
    return seen


def plan_of(store, statement, parameters):
    keyword = "EXPLAIN QUERY PLAN " if store._database._engine.dialect.name == "sqlite" else "EXPLAIN "
    with store._database.read() as conn:
        return [str(row[-1]) for row in conn.exec_driver_sql(keyword + statement, parameters)]


def is_full_scan(line):
    if line.startswith(
        "SCAN "
    ):  # SQLite; these two indexes have a row per live run and per open request only
        return not any(index in line for index in ("uq_runs_live", "ix_operator_requests_pending"))
    return any(
        f"Seq Scan on {table}" in line for table in ("tasks", "runs")
    )  # the other tables are small here


def test_planning_claiming_and_settling_read_no_finished_task(store):
    fill_with_finished_tasks(store, 1000)
    if (
        store._database._engine.dialect.name == "postgresql"
    ):  # it does so by itself after a while; SQLite does not
        with store._database.write() as conn:
            conn.execute(text("ANALYZE"))
    task = queue(store, 5000)
    started = []
    statements = recorded(
        store,
        lambda: store.snapshot(now=NOW, ready_limit=8, config_version="c"),
        lambda: started.append(start(store, task.task_id)[1]),
        lambda: store.request_stop(started[0].run_id, reason="r", outcome=Outcome.CANCELLED, now=NOW),
        lambda: store.due_outbox(LATER, 10),
        store.next_outbox_at,
        store.pending_requests,
        lambda: end(store, started[0]),
        lambda: store.tasks_for_issues(REPO_ID, [5000]),
        lambda: store.open_tasks(REPO_ID),
        lambda: queue(store, 5000),
    )
    assert len(statements) > 15
    scans = {s: plan for s, p in statements if any(map(is_full_scan, plan := plan_of(store, s, p)))}
    assert scans == {}


def test_an_unindexed_query_would_be_noticed(store):
    fill_with_finished_tasks(store, 1000)
    plan = plan_of(store, "SELECT * FROM tasks WHERE title = 'x'", ())
    assert any(map(is_full_scan, plan))


def test_no_file_descriptor_stays_open_behind(sqlite_path):
    Store.open(sqlite_path, now=NOW).close()
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208  # counting, not walking
    for _ in range(3):
        Store.open(sqlite_path, now=NOW).close()
        with pytest.raises(StoreError):
            Store.open(sqlite_path.parent, now=NOW)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
