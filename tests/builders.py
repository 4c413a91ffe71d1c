"""Values for tests: everything has a sensible default, a test names only what it is about."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from adw_modules.security.admission import fingerprint
from adw_modules.tasks.model import IssueSnapshot, Priority, Run, Snapshot, Task, TaskState, Trigger

NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)


def a_task(**changes: Any) -> Task:
    values: dict[str, Any] = {
        "task_id": 1,
        "name": "gh-12",
        "repo": "octo/hello",
        "repo_id": 100,
        "issue_number": 12,
        "title": "Fix the greeting",
        "snapshot_title": "Fix the greeting",
        "snapshot_body": "It says helo.",
        "url": "https://github.com/octo/hello/issues/12",
        "labels": ("rpi-auto",),
        "author": "ada",
        "priority": Priority.NORMAL,
        "trigger_event_id": 7,
        "triggered_by": "ada",
        "state": TaskState.QUEUED,
        "cause": None,
        "wake_at": None,
        "attempts": 0,
        "lost": 0,
        "crashes": 0,
        "runs": 0,
        "tokens": 0,
        "token": 0,
        "last_outcome": None,
        "last_failure_class": None,
        "last_provider": None,
        "last_model": None,
        "comment_id": None,
        "pr_number": None,
        "pr_url": None,
        "listed": True,
        "issue_updated_at": NOW,
        "created_at": NOW,
        "updated_at": NOW,
        "labelled_at": NOW,
    }
    values |= {key: value for key, value in changes.items() if key.startswith("snapshot_")}
    values["text_sha"] = fingerprint(values["snapshot_title"], values["snapshot_body"])
    return Task(**{**values, **changes})


def a_run(**changes: Any) -> Run:
    values: dict[str, Any] = {
        "run_id": 1,
        "task_id": 1,
        "token": 1,
        "attempt": 1,
        "provider": "claude-cli",
        "model": "claude-sonnet-4-5",
        "rule": "high-priority-sonnet",
        "config_version": "abc",
        "run_dir": "/nowhere/gh-12.1",
        "claimed_at": NOW,
        "started_at": NOW,
        "finished_at": None,
        "stop_reason": None,
        "stop_outcome": None,
        "outcome": None,
        "failure_class": None,
        "detail": None,
        "exit_code": None,
        "exit_signal": None,
        "stream_offset": 0,
    }
    return Run(**{**values, **changes})


def an_issue(**changes: Any) -> IssueSnapshot:
    values: dict[str, Any] = {
        "repo": "octo/hello",
        "repo_id": 100,
        "number": 12,
        "title": "Fix the greeting",
        "body": "It says helo.",
        "labels": ("rpi-auto",),
        "author": "ada",
        "author_id": 1,
        "state": "open",
        "url": "https://github.com/octo/hello/issues/12",
        "created_at": NOW,
        "updated_at": NOW,
        "author_kind": "User",
    }
    return IssueSnapshot(**{**values, **changes})


def a_trigger(**changes: Any) -> Trigger:
    values: dict[str, Any] = {"event_id": 7, "actor": "ada", "actor_id": 1, "labelled_at": NOW}
    return Trigger(**{**values, **changes})


def a_snapshot(**changes: Any) -> Snapshot:
    values: dict[str, Any] = {
        "now": NOW,
        "paused": False,
        "running": (),
        "ready": (),
        "due": (),
        "config_version": "abc",
    }
    return Snapshot(**{**values, **changes})


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)
