"""`coordinator retry | cancel | pause | resume`: requests to the daemon, durable in the store.

The verb writes a request, wakes the daemon and waits a moment for its answer. When no daemon runs,
the request is taken at its next start: one path, nothing lost.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coordinator.cli.common import DEFAULT_CONFIG, ConfigOption, IssueArgument, JsonOption

if TYPE_CHECKING:
    from coordinator.store import Store

ANSWER_SECONDS = 5.0


def register(app: typer.Typer) -> None:
    app.command()(retry)
    app.command()(cancel)
    app.command()(pause)
    app.command()(resume)


def retry(issue: IssueArgument, config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Queue a failed, blocked, waiting or finished task again, with a fresh count of attempts."""
    _request(config, "retry", issue, None, as_json)


def cancel(
    issue: IssueArgument,
    reason: Annotated[str, typer.Option(help="Shown on the issue.")] = "cancelled by the operator",
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """End the work on a task; a live worker is stopped."""
    _request(config, "cancel", issue, reason, as_json)


def pause(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Start no new runs until `resume`; live runs go on."""
    _request(config, "pause", None, None, as_json)


def resume(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Start runs again."""
    _request(config, "resume", None, None, as_json)


def _request(config: Path, verb: str, issue: str | None, argument: str | None, as_json: bool) -> None:
    from coordinator.cli.common import daemon_status, find_task, print_json, reading, settings_in_force
    from coordinator.clock import utc_now
    from coordinator.store import StatePaths, Store

    loaded = settings_in_force(config).loaded
    with reading(loaded) as store:
        task = find_task(store, issue) if issue is not None else None
    is_running = daemon_status(loaded) is not None
    # Beside a daemon only the daemon may change the schema.
    with Store.open(loaded.database_url, now=utc_now(), migrate=not is_running) as store:
        request_id = store.add_request(verb, task.task_id if task else None, argument, utc_now())
        StatePaths(loaded.state_dir).touch_wake()
        answer = _wait_for_answer(store, request_id) if is_running else None
    if as_json:
        name = task.name if task else None
        print_json({"request": request_id, "verb": verb, "task": name, "answer": answer})
    else:
        typer.echo(_sentence(answer, task.name if task else None, is_running=is_running))


def _sentence(answer: str | None, name: str | None, *, is_running: bool) -> str:
    if answer is None and is_running:
        return "The request is recorded; the daemon has not answered yet and will take it."
    if answer is None:
        return "The request is recorded; no daemon runs, so it is taken when one starts."
    is_name_first = name is not None and answer.startswith(name)
    return (answer if is_name_first else answer[:1].upper() + answer[1:]) + (
        "" if answer.endswith(".") else "."
    )


def _wait_for_answer(store: Store, request_id: int) -> str | None:
    import time

    deadline = time.monotonic() + ANSWER_SECONDS
    while time.monotonic() < deadline:
        answer = store.request_answer(request_id)
        if answer is not None:
            return answer
        time.sleep(0.05)
    return None
