"""`coordinator retry | cancel | pause | resume | drain | stop`: requests to the daemon, durable in the store.

The verb writes a request, wakes the daemon and waits a moment for its answer. When no daemon runs,
the request is taken at its next start: one path, nothing lost.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adw_modules.errors import CoordinatorError
from coordinator.cli.common import DEFAULT_CONFIG, ConfigOption, IssueArgument, JsonOption

if TYPE_CHECKING:
    from coordinator.settings import LoadedSettings
    from coordinator.store import Store

ANSWER_SECONDS = 5.0
LOOK_SECONDS = 0.1
KILL_SECONDS = 30.0  # beyond twice `stop_grace_seconds`, for runs that end without a daemon

TimeoutOption = Annotated[
    float | None,
    typer.Option(help="Wait at most this many seconds, then exit 1.", min=0, show_default=False),
]


def register(app: typer.Typer) -> None:
    app.command()(retry)
    app.command()(cancel)
    app.command()(pause)
    app.command()(resume)
    app.command()(accept)
    app.command()(drain)
    app.command()(stop)


def retry(issue: IssueArgument, config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Queue a failed, blocked, waiting or finished task again, with a fresh count of attempts."""
    request(config, "retry", issue, None, as_json)


def cancel(
    issue: IssueArgument,
    reason: Annotated[str, typer.Option(help="Shown on the issue.")] = "cancelled by the operator",
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """End the work on a task; a live worker is stopped."""
    request(config, "cancel", issue, reason, as_json)


def pause(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Start no new runs until `resume`; live runs go on."""
    request(config, "pause", None, None, as_json)


def resume(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Start runs again."""
    request(config, "resume", None, None, as_json)


def accept(
    repository: Annotated[str, typer.Argument(help="owner/name", show_default=False)],
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Work in the repository that has this name now, though it is another one than before."""
    from coordinator.cli.common import settings_in_force

    known = settings_in_force(config).loaded.settings.all_repositories()
    if repository.casefold() not in {each.full_name.casefold() for each in known}:
        raise typer.BadParameter(f"{repository!r} is not configured.")
    request(config, "accept", None, repository, as_json)


def drain(
    config: ConfigOption = DEFAULT_CONFIG,
    timeout: TimeoutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Start no new runs, wait for the live ones and for their reports, then end the daemon.

    Ctrl-C or --timeout ends only the waiting; `coordinator resume` calls the draining off.
    """
    _end_daemon(config, "drain", None, timeout, as_json)


def stop(
    kill_runs: Annotated[
        bool, typer.Option("--kill-runs", help="End live runs, too; each is queued again, no attempt lost.")
    ] = False,
    config: ConfigOption = DEFAULT_CONFIG,
    timeout: TimeoutOption = 60.0,
    as_json: JsonOption = False,
) -> None:
    """End the daemon. Live runs go on, and the next daemon takes them over, unless --kill-runs is given.

    Without a daemon, --kill-runs ends the runs that go on by themselves.
    """
    _end_daemon(config, "stop", "kill-runs" if kill_runs else None, timeout, as_json)


def _end_daemon(config: Path, verb: str, argument: str | None, timeout: float | None, as_json: bool) -> None:
    from coordinator.cli.common import daemon_status, print_json, settings_in_force
    from coordinator.clock import utc_now
    from coordinator.store import StatePaths, Store

    loaded = settings_in_force(config).loaded
    if daemon_status(loaded) is None:
        said = _without_daemon(loaded, ends_runs=argument is not None)
    else:
        with Store.open(loaded.database_url, now=utc_now(), migrate=False) as store:
            request_id = store.add_request(verb, None, argument, utc_now())
            StatePaths(loaded.state_dir).touch_wake()
            _wait_for_end(loaded, store, request_id, timeout)
            said = _left_alive(loaded, store)
    if as_json:
        print_json({"verb": verb, "daemon": "ended", "said": said})
    else:
        typer.echo(said)


def _wait_for_end(loaded: LoadedSettings, store: Store, request_id: int, timeout: float | None) -> None:
    """Until the daemon has let go of its state directory; says on stderr what is waited for."""
    import time

    from coordinator.store import StatePaths

    paths, shown, started = StatePaths(loaded.state_dir), "", time.monotonic()
    while paths.is_held():
        waited = time.monotonic() - started
        if store.request_answer(request_id) is None and waited > ANSWER_SECONDS:
            _say("The daemon has not answered yet.", shown)
            shown = "The daemon has not answered yet."
        else:
            shown = _say(_live_names(store), shown)
        if timeout is not None and waited > timeout:
            raise CoordinatorError(_not_ended(store, request_id, loaded, timeout))
        time.sleep(LOOK_SECONDS)


def _not_ended(store: Store, request_id: int, loaded: LoadedSettings, timeout: float) -> str:
    from coordinator.cli.common import daemon_status

    if store.request_answer(request_id) is not None:
        return f"The daemon has not ended within {timeout:g} seconds; it goes on with what was asked."
    pid = (daemon_status(loaded) or {}).get("pid", "unknown")
    return (
        f"The daemon (process {pid}) has not answered within {timeout:g} seconds. Look at "
        f"`coordinator logs`; if it hangs, `kill -9 {pid}` loses nothing: its runs go on for the next one."
    )


def _say(text: str, shown: str) -> str:
    if text and text != shown:
        typer.echo(text, err=True)
    return text


def _live_names(store: Store) -> str:
    names = [task.name for task, _ in store.open_runs()]
    return f"Waiting for {', '.join(names)}." if names else ""


def _left_alive(loaded: LoadedSettings, store: Store) -> str:
    from coordinator.ownerless import without_owner
    from coordinator.store import StatePaths

    lives = without_owner(StatePaths(loaded.state_dir), [run for _, run in store.open_runs()])
    if not lives:
        return "The daemon has ended, and no run is live."
    names = ", ".join(live.task for live in lives)
    return f"The daemon has ended; the next one takes over what goes on: {names}."


def _without_daemon(loaded: LoadedSettings, *, ends_runs: bool) -> str:
    """What is to be said, and done, when no daemon runs."""
    from coordinator.cli.common import has_state
    from coordinator.clock import utc_now
    from coordinator.ownerless import end, without_owner
    from coordinator.store import StateDir, Store

    if not has_state(loaded):
        return "No daemon runs."
    # Locked, so that no daemon starts and adopts what is being ended.
    with StateDir(loaded.state_dir) as state_dir, Store.open(loaded.database_url, now=utc_now()) as store:
        runs = [run for _, run in store.open_runs()]
        lives = without_owner(state_dir, runs, is_held=False)
        names = ", ".join(live.task for live in lives)
        if not lives:
            return "No daemon runs, and no run is live."
        if not ends_runs:
            raise CoordinatorError(
                f"No daemon runs, but these runs go on by themselves: {names}. Start the daemon to have "
                "them looked after, or end them with `coordinator stop --kill-runs`."
            )
        patience = KILL_SECONDS + 2 * loaded.settings.coordinator.stop_grace_seconds
        reason = "the operator ended all runs"
        left = end(lives, store, reason=reason, now=utc_now(), patience=patience)
    if left:
        raise CoordinatorError(f"These runs have not ended in time: {', '.join(map(str, left))}.")
    return f"No daemon runs; ended {names}. The next daemon queues them again."


def request(config: Path, verb: str, issue: str | None, argument: str | None, as_json: bool) -> None:
    """Leave a request for the daemon, wake it, and say what it answered."""
    from coordinator.cli.common import find_task, print_json, reading, settings_in_force

    loaded = settings_in_force(config).loaded
    with reading(loaded) as store:
        task = find_task(store, issue) if issue is not None else None
    name = task.name if task else None
    request_id, answer, is_running = leave(loaded, verb, task.task_id if task else None, argument)
    if as_json:
        print_json({"request": request_id, "verb": verb, "task": name, "answer": answer})
    else:
        typer.echo(sentence(answer, name, is_running=is_running))


def leave(
    loaded: LoadedSettings, verb: str, task_id: int | None, argument: str | None
) -> tuple[int, str | None, bool]:
    """Leave a request where there is a store: its number, the answer if one came, whether a daemon runs."""
    from coordinator.cli.common import daemon_status
    from coordinator.clock import utc_now
    from coordinator.store import StatePaths, Store

    is_running = daemon_status(loaded) is not None
    # Beside a daemon only the daemon may change the schema.
    with Store.open(loaded.database_url, now=utc_now(), migrate=not is_running) as store:
        request_id = store.add_request(verb, task_id, argument, utc_now())
        StatePaths(loaded.state_dir).touch_wake()
        return request_id, _wait_for_answer(store, request_id) if is_running else None, is_running


def sentence(answer: str | None, name: str | None, *, is_running: bool) -> str:
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
