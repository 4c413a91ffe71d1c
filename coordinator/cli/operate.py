"""`coordinator retry | cancel | pause | resume`: requests to the daemon, durable in the store.

The verb writes a request, wakes the daemon and waits a moment for its answer. When no daemon runs,
the request is taken at its next start: one path, nothing lost.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coordinator.cli.common import DEFAULT_CONFIG, ConfigOption, IssueArgument, JsonOption

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
    from coordinator.cli.common import daemon_status, find_task, print_json, reading, settings_source
    from coordinator.clock import utc_now
    from coordinator.store import StatePaths, Store

    loaded = settings_source(config).current
    with reading(loaded) as store:
        task = find_task(store, issue) if issue is not None else None
    store = Store.open(loaded.database_url, now=utc_now())
    try:
        request_id = store.add_request(verb, task.task_id if task else None, argument, utc_now())
        StatePaths(loaded.state_dir).touch_wake()
        running = daemon_status(loaded) is not None
        answer = _wait_for_answer(store, request_id) if running else None
    finally:
        store.close()
    text = answer or (
        "The request is recorded; the daemon has not answered yet and will take it."
        if running
        else "The request is recorded; no daemon runs, so it is taken when one starts."
    )
    if as_json:
        print_json(
            {"request": request_id, "verb": verb, "task": task.name if task else None, "answer": answer}
        )
    else:
        typer.echo(text[:1].upper() + text[1:] + ("" if text.endswith(".") else "."))


def _wait_for_answer(store: object, request_id: int) -> str | None:
    import time

    from coordinator.store import Store

    assert isinstance(store, Store)
    deadline = time.monotonic() + ANSWER_SECONDS
    while time.monotonic() < deadline:
        answer = store.request_answer(request_id)
        if answer is not None:
            return answer
        time.sleep(0.05)
    return None
