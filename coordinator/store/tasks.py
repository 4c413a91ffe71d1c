"""Statements on tasks: one row per issue. Owns when a known issue is refreshed, re-opened or left alone.

Each function works inside the caller's transaction; claims and settlements of runs are in `runs.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import fields, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, and_, bindparam, exists, func, insert, select, update

from adw_modules.security.admission import AuditRecord, fingerprint
from adw_modules.tasks.intake import NEVER_ADMITTED, REFUSED_PREFIX, is_refused
from adw_modules.tasks.lifecycle import Event, advance, allows
from adw_modules.tasks.model import (
    FailedTarget,
    IssueSnapshot,
    Outcome,
    Override,
    Priority,
    Refused,
    Task,
    TaskRequest,
    TaskState,
)
from coordinator.store import audit, decisions, outbox
from coordinator.store.records import OutboxKind, TaskChange, Upserted
from coordinator.store.tables import runs, tasks
from coordinator.store.types import clean_text

OPEN_STATES = tuple(state for state in TaskState if not state.is_terminal)
_WAITING = (TaskState.RETRY_WAIT, TaskState.BLOCKED)
# A newer trigger starts these over. A running task stays as it was admitted until its run has ended.
_REOPENABLE = (TaskState.BLOCKED, TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED)

# What counts from the last trigger, or from an operator's retry.
FRESH_COUNTS: dict[str, Any] = {"attempts": 0, "lost": 0, "crashes": 0, "failed_on": ()}

_FIELDS = tuple(field.name for field in fields(Task))
COLUMNS = tuple(tasks.c[name] for name in _FIELDS)

# Parameters that address a row begin with `at_`: plain column names mean "set this column" to SQLAlchemy.
_ONE = select(*COLUMNS).where(tasks.c.task_id == bindparam("at_task"))
_BY_ISSUE = select(*COLUMNS).where(
    tasks.c.repo_id == bindparam("at_repo"), tasks.c.issue_number == bindparam("at_number")
)
_BY_ISSUES = select(*COLUMNS).where(
    tasks.c.repo_id == bindparam("at_repo"), tasks.c.issue_number.in_(bindparam("at_numbers", expanding=True))
)
_BY_NUMBER = select(*COLUMNS).where(tasks.c.issue_number == bindparam("at_number")).order_by(tasks.c.task_id)
_BY_STATES = (
    select(*COLUMNS)
    .where(tasks.c.state.in_(bindparam("at_states", expanding=True)))
    .order_by(tasks.c.task_id.desc())
    .limit(bindparam("at_limit"))
)
_OPEN = (
    select(*COLUMNS)
    .where(tasks.c.repo_id == bindparam("at_repo"), tasks.c.state.in_(OPEN_STATES))
    .order_by(tasks.c.issue_number)
)
_LISTED = select(tasks.c.task_id, tasks.c.issue_number, tasks.c.state).where(
    tasks.c.repo_id == bindparam("at_repo"), tasks.c.listed.is_(True)
)
_READY = (
    select(*COLUMNS)
    .where(tasks.c.state == TaskState.QUEUED)
    .order_by(tasks.c.priority, tasks.c.created_at, tasks.c.task_id)
    .limit(bindparam("at_limit"))
)
_DUE = (
    select(*COLUMNS)
    .where(tasks.c.state.in_(_WAITING), tasks.c.wake_at <= bindparam("at_now"))
    .order_by(tasks.c.wake_at, tasks.c.task_id)
)
_NEXT_WAKE = select(func.min(tasks.c.wake_at)).where(tasks.c.state.in_(_WAITING))
_WAKE_BLOCKED = (
    update(tasks)
    .where(tasks.c.state == TaskState.BLOCKED, tasks.c.wake_at > bindparam("at_now"))
    .values(wake_at=bindparam("at_now"))
)
_IS_LIMITED = and_(tasks.c.state == TaskState.RETRY_WAIT, tasks.c.last_outcome == Outcome.RATE_LIMITED)
_WAKE_LIMITED = (
    update(tasks)
    .where(
        _IS_LIMITED,
        tasks.c.wake_at > bindparam("at_now"),
        exists().where(
            runs.c.task_id == tasks.c.task_id,
            runs.c.token == tasks.c.token,
            runs.c.config_version != bindparam("at_version"),
        ),
    )
    .values(wake_at=bindparam("at_now"))
)
_TOKENS = select(tasks.c.name, tasks.c.token)
_WAITS = select(tasks.c.task_id, tasks.c.wake_at).where(
    tasks.c.state.in_(_WAITING), tasks.c.wake_at.is_not(None)
)
_AVOIDING = select(
    tasks.c.task_id, tasks.c.failed_on, tasks.c.wake_at, _IS_LIMITED.label("is_limited")
).where(tasks.c.state.in_(OPEN_STATES), tasks.c.failed_on != ())
_COUNTS = select(tasks.c.state, func.count()).group_by(tasks.c.state)
_INSERT = insert(tasks).returning(*COLUMNS)
_CHANGE = update(tasks).where(tasks.c.task_id == bindparam("at_task"))
_CHANGE_AND_READ = _CHANGE.returning(*COLUMNS)
_COUNT_CRASH = _CHANGE.values(crashes=tasks.c.crashes + 1).returning(tasks.c.crashes)
_MOVE = _CHANGE.where(tasks.c.state == bindparam("at_state"))


def task_of(row: Sequence[Any]) -> Task:
    """A Task from a row of `COLUMNS`."""
    return Task(**dict(zip(_FIELDS, row, strict=True)))


def one(conn: Connection, task_id: int) -> Task | None:
    row = conn.execute(_ONE, {"at_task": task_id}).one_or_none()
    return None if row is None else task_of(row)


def upsert(
    conn: Connection,
    request: TaskRequest,
    name: str,
    now: datetime,
    report_at: datetime,
    *,
    record: AuditRecord | None = None,
) -> Upserted:
    """Make, refresh or re-open the task of an admitted issue; a report follows the first and the last."""
    done = _upsert(conn, request, name, now, report_at)
    is_news = record is None or decisions.add(conn, record, now, task_id=done.task.task_id)
    return replace(done, is_news=is_news)


def _upsert(
    conn: Connection, request: TaskRequest, name: str, now: datetime, report_at: datetime
) -> Upserted:
    known = _by_issue(conn, request.issue)
    if known is None:
        values = _new(request.issue, name, now) | _shown(request.issue, request.priority) | _admitted(request)
        values |= {"overrides": request.overrides}
        made = _insert(conn, values | {"state": TaskState.QUEUED})
        return _announce(conn, made, TaskChange.CREATED, now, report_at)
    wanted = _shown(request.issue, request.priority, known) | {"overrides": request.overrides}
    is_newer = request.trigger.event_id > known.trigger_event_id
    if is_newer and known.state in _REOPENABLE:
        task = _change(conn, known, wanted | _admitted(request) | _started_over(), now)
        return _announce(conn, task, TaskChange.REOPENED, now, report_at)
    if is_newer and (known.state is not TaskState.RUNNING or known.held is not None):
        # Not started yet, or about to be stopped: the newest approved text is the one to work on.
        wanted |= _admitted(request)
    task = _change(conn, known, wanted, now)
    return Upserted(task=task, change=TaskChange.UNCHANGED if task is known else TaskChange.REFRESHED)


def refresh(
    conn: Connection,
    issue: IssueSnapshot,
    priority: Priority,
    now: datetime,
    overrides: tuple[Override, ...] = (),
    *,
    wakes: bool = False,
) -> None:
    """Bring what people and rules see of a known issue up to date; an unknown issue is left unknown."""
    known = _by_issue(conn, issue)
    if known is None:
        return
    wanted = _shown(issue, priority, known) | {"overrides": overrides}
    if wakes and known.wake_at is not None and _waits_for_a_target(known):
        wanted["wake_at"] = min(known.wake_at, now)
    _change(conn, known, wanted, now)


def _waits_for_a_target(task: Task) -> bool:
    """Not for its own back-off. After a rate limit the limited target itself stays refused until its time."""
    is_limited = task.last_outcome is Outcome.RATE_LIMITED and bool(task.failed_on)
    return task.state is TaskState.BLOCKED or (task.state is TaskState.RETRY_WAIT and is_limited)


def refuse(
    conn: Connection,
    refused: Refused,
    name: str,
    now: datetime,
    record: AuditRecord | None = None,
    *,
    tells: bool = False,
) -> Upserted:
    """Remember an issue that may not become a task. The state of an admitted task is never touched.

    The trigger is not kept: whatever is admitted later, even the same label event after its actor was
    given write permission, opens the task. Nor is the text: nobody trusted has approved it.
    `tells`: GitHub is to be told a new reason.
    """
    cause = REFUSED_PREFIX + refused.reason
    known = _by_issue(conn, refused.issue)
    task = (
        _insert_refused(conn, refused, name, cause, now)
        if known is None
        else _refuse_again(conn, refused, known, cause, now)
    )
    is_new = known is None or task.cause != known.cause
    if is_new and tells:
        outbox.add(conn, task.task_id, OutboxKind.REPORT, now)
    is_news = record is None or decisions.add(conn, record, now, task_id=task.task_id)
    return Upserted(
        task=task, change=TaskChange.REFRESHED if is_new else TaskChange.UNCHANGED, is_news=is_news
    )


def _refuse_again(conn: Connection, refused: Refused, known: Task, cause: str, now: datetime) -> Task:
    wanted = _shown(refused.issue, known.priority, known)
    if known.cause != cause and is_refused(known):
        audit.add(conn, now, "refused", refused.reason, task_id=known.task_id)
        wanted |= {"cause": cause}
    return _change(conn, known, wanted, now)


def hold(
    conn: Connection, task_id: int, now: datetime, record: AuditRecord, *, cause: str, seen_sha: str
) -> bool:
    """Pause an open task: nothing is started for it before a newer trigger. False when it has ended.

    Durable whatever the task is doing: a live run is the caller's to stop, and planning parks what is left.
    """
    task = one(conn, task_id)
    if task is None or task.state.is_terminal:
        return False
    values: dict[str, Any] = {"held": cause, "seen_sha": seen_sha}
    if allows(task.state, Event.HELD):
        values |= {"state": advance(task.state, Event.HELD), "cause": cause, "wake_at": None}
        outbox.add(conn, task_id, OutboxKind.REPORT, now)
    _change(conn, task, values, now)
    audit.add(conn, now, "paused", cause, task_id=task_id)
    decisions.add(conn, record, now, task_id=task_id)
    return True


def recheck(conn: Connection, task_id: int, seen_sha: str, now: datetime, record: AuditRecord) -> None:
    change(conn, task_id, seen_sha=seen_sha)
    decisions.add(conn, record, now, task_id=task_id)


def for_issues(conn: Connection, repo_id: int, numbers: Collection[int]) -> dict[int, Task]:
    rows = conn.execute(_BY_ISSUES, {"at_repo": repo_id, "at_numbers": list(numbers)})
    return {task.issue_number: task for task in map(task_of, rows)}


def by_number(conn: Connection, repo: str | None, number: int) -> list[Task]:
    found = map(task_of, conn.execute(_BY_NUMBER, {"at_number": number}))
    return [task for task in found if repo is None or task.repo.lower() == repo.lower()]


def in_states(conn: Connection, states: Collection[TaskState], limit: int) -> list[Task]:
    rows = conn.execute(_BY_STATES, {"at_states": list(states), "at_limit": limit})
    return [task_of(row) for row in rows]


def still_open(conn: Connection, repo_id: int) -> list[Task]:
    return [task_of(row) for row in conn.execute(_OPEN, {"at_repo": repo_id})]


def ready(conn: Connection, limit: int) -> tuple[Task, ...]:
    return tuple(task_of(row) for row in conn.execute(_READY, {"at_limit": limit}))


def due(conn: Connection, now: datetime) -> tuple[Task, ...]:
    return tuple(task_of(row) for row in conn.execute(_DUE, {"at_now": now}))


def count_crash(conn: Connection, task_id: int) -> int:
    count: int = conn.execute(_COUNT_CRASH, {"at_task": task_id}).scalar_one()
    return count


def next_wake_at(conn: Connection) -> datetime | None:
    at: datetime | None = conn.execute(_NEXT_WAKE).scalar_one()
    return at


def wake_blocked(conn: Connection, now: datetime) -> None:
    """Also where a budget has stopped them: whether that has room by now is for the budget to say."""
    for row in conn.execute(_AVOIDING).all():
        freed = tuple(
            replace(each, until=min(each.until, now)) if each.why == Outcome.OVER_BUDGET.value else each
            for each in row.failed_on
        )
        if freed != row.failed_on:
            conn.execute(_CHANGE, {"at_task": row.task_id, "failed_on": freed})
    conn.execute(_WAKE_BLOCKED, {"at_now": now})


def wake_limited(conn: Connection, now: datetime, version: str) -> None:
    """The limited target stays refused until its time; only another one is found sooner."""
    conn.execute(_WAKE_LIMITED, {"at_now": now, "at_version": version})


def release(conn: Connection, provider: str, model: str, now: datetime) -> None:
    """What tasks wait for there is over, as far as it was the target's: a limit, refused credentials."""
    for row in conn.execute(_AVOIDING).all():
        freed = tuple(
            replace(each, until=now) if _is_freed(each, provider, model) and each.until > now else each
            for each in row.failed_on
        )
        if freed == row.failed_on:
            continue
        values: dict[str, Any] = {"at_task": row.task_id, "failed_on": freed}
        if row.is_limited and row.wake_at is not None:
            values["wake_at"] = min(row.wake_at, now)
        conn.execute(_CHANGE, values)


def _is_freed(failed: FailedTarget, provider: str, model: str) -> bool:
    is_there = failed.provider == provider and model in {"", failed.model}
    return is_there and failed.why in {Outcome.RATE_LIMITED.value, Outcome.AUTH_FAILED.value}


def shift_waits(conn: Connection, step: timedelta) -> None:
    for row in conn.execute(_WAITS).all():
        conn.execute(_CHANGE, {"at_task": row.task_id, "wake_at": row.wake_at + step})
    for row in conn.execute(_AVOIDING).all():
        moved = tuple(replace(each, until=each.until + step) for each in row.failed_on)
        conn.execute(_CHANGE, {"at_task": row.task_id, "failed_on": moved})


def tokens(conn: Connection) -> dict[str, int]:
    return {row.name: row.token for row in conn.execute(_TOKENS)}


def counts(conn: Connection) -> dict[TaskState, int]:
    found = {row[0]: row[1] for row in conn.execute(_COUNTS)}
    return {state: found.get(state, 0) for state in TaskState}


def mark_unlisted(conn: Connection, repo_id: int, present: Collection[int], now: datetime) -> list[Task]:
    """Open tasks whose issue is missing from a complete listing; finished ones are marked at once.

    Absence is only a hint (a listing may be late), so an open task stays listed until the caller has
    asked for the issue itself and moved the task.
    """
    absent = [row for row in conn.execute(_LISTED, {"at_repo": repo_id}) if row.issue_number not in present]
    for row in absent:
        if row.state.is_terminal:
            conn.execute(_CHANGE, {"at_task": row.task_id, "listed": False, "updated_at": now})
    open_numbers = [row.issue_number for row in absent if not row.state.is_terminal]
    found = for_issues(conn, repo_id, open_numbers) if open_numbers else {}
    return [found[number] for number in sorted(found)]


def move(conn: Connection, task_id: int, *, expected: TaskState, **values: Any) -> bool:
    """Change a task that is still in the expected state; False when it is not (any more)."""
    return conn.execute(_MOVE, {"at_task": task_id, "at_state": expected, **values}).rowcount == 1


def change(conn: Connection, task_id: int, **values: Any) -> None:
    conn.execute(_CHANGE, {"at_task": task_id, **values})


def _by_issue(conn: Connection, issue: IssueSnapshot) -> Task | None:
    row = conn.execute(_BY_ISSUE, {"at_repo": issue.repo_id, "at_number": issue.number}).one_or_none()
    return None if row is None else task_of(row)


def _insert(conn: Connection, values: dict[str, Any]) -> Task:
    return task_of(conn.execute(_INSERT, values).one())


def _insert_refused(conn: Connection, refused: Refused, name: str, cause: str, now: datetime) -> Task:
    values = _new(refused.issue, name, now) | _shown(refused.issue, Priority.NORMAL)
    values |= {"state": TaskState.BLOCKED, "cause": cause, "trigger_event_id": NEVER_ADMITTED}
    values |= {"triggered_by": refused.trigger.actor if refused.trigger else ""}
    values |= {"snapshot_title": "", "snapshot_body": ""}
    task = _insert(conn, values)
    audit.add(conn, now, "refused", refused.reason, task_id=task.task_id)
    return task


def _change(conn: Connection, known: Task, wanted: dict[str, Any], now: datetime) -> Task:
    """The task with what is wanted; the very same object, and nothing written, when nothing differs."""
    differing = {key: value for key, value in wanted.items() if getattr(known, key) != value}
    if not differing:
        return known
    values = {"at_task": known.task_id, "updated_at": now, **differing}
    return task_of(conn.execute(_CHANGE_AND_READ, values).one())


def _announce(conn: Connection, task: Task, what: TaskChange, now: datetime, report_at: datetime) -> Upserted:
    outbox.add(conn, task.task_id, OutboxKind.REPORT, now, report_at)
    audit.add(conn, now, what.value, f"label applied by {task.triggered_by}", task_id=task.task_id)
    return Upserted(task=task, change=what)


def _new(issue: IssueSnapshot, name: str, now: datetime) -> dict[str, Any]:
    return {
        "name": name,
        "repo_id": issue.repo_id,
        "issue_number": issue.number,
        "author": issue.author,
        "attempts": 0,
        "lost": 0,
        "crashes": 0,
        "failed_on": (),
        "runs": 0,
        "tokens": 0,
        "token": 0,
        "created_at": now,
        "updated_at": now,
    }


def _shown(issue: IssueSnapshot, priority: Priority, known: Task | None = None) -> dict[str, Any]:
    """What follows the issue at each poll. An older answer than the last proves only that it is listed."""
    if known is not None and issue.updated_at < known.issue_updated_at:
        return {"listed": True}
    return {
        "repo": issue.repo,
        "title": clean_text(issue.title),
        "url": issue.url,
        "labels": issue.labels,
        "priority": priority,
        "issue_updated_at": issue.updated_at,
        "listed": True,
        "author_id": issue.author_id,
    }


def _admitted(request: TaskRequest) -> dict[str, Any]:
    """What one trigger approved: this text, by this person."""
    return {
        "snapshot_title": request.issue.title,
        "snapshot_body": request.issue.body,
        "snapshot_comments": request.comments,
        "text_sha": fingerprint(request.issue.title, request.issue.body),
        "seen_sha": "",
        "held": None,
        "trigger_event_id": request.trigger.event_id,
        "triggered_by": request.trigger.actor,
        "labeller_id": request.trigger.actor_id,
        "labelled_at": request.trigger.labelled_at,
    }


def _started_over() -> dict[str, Any]:
    """A new life. `runs`, `tokens`, `token`, comment and pull request stay: they belong to the issue."""
    return {
        "state": TaskState.QUEUED,
        "cause": None,
        "wake_at": None,
        **FRESH_COUNTS,
        "last_outcome": None,
        "last_failure_class": None,
    }
