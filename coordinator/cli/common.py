"""What several verbs share: finding the configuration and the state, and printing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adw_modules.errors import CoordinatorError

if TYPE_CHECKING:
    from adw_modules.tasks.model import Task
    from coordinator.settings import LoadedSettings, SettingsSource
    from coordinator.store import Store
    from coordinator.workspaces import Mirror, Workspaces

DEFAULT_CONFIG = Path("adws/config.toml")

ConfigOption = Annotated[
    Path,
    typer.Option(
        "--config", "-c", envvar="COORDINATOR_CONFIG", help="The configuration file.", show_default=True
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
IssueArgument = Annotated[str, typer.Argument(help="12, gh-12 or owner/name#12", show_default=False)]

_ISSUE = re.compile(r"^(?:(?P<repo>[\w.-]+/[\w.-]+)(?:#|/gh-)|#|gh-)?(?P<number>\d{1,9})$", re.IGNORECASE)


def settings_source(config: Path, environ: Mapping[str, str] | None = None) -> SettingsSource:
    """The configuration, or ConfigError. With `environ` it also has to be fit for running the daemon."""
    from coordinator.settings import SettingsSource

    return SettingsSource(config, environ)


@dataclass(frozen=True, slots=True, kw_only=True)
class InForce:
    """The settings a command works with. `error`: why they are not those of the file."""

    loaded: LoadedSettings
    error: str | None = None


def settings_in_force(config: Path) -> InForce:
    """The configuration; while its file cannot be used, the daemon's copy of the last good one and a warning.

    For commands that look at a daemon and steer it. Raises ConfigError when there is no copy either.
    """
    from adw_modules.errors import ConfigError

    try:
        return InForce(loaded=settings_source(config).current)
    except ConfigError as error:
        from coordinator import lastgood
        from coordinator.store import StatePaths

        loaded = lastgood.find(config)
        if loaded is None:
            raise
        runs = "the daemon runs" if StatePaths(loaded.state_dir).is_held() else "the last daemon ran"
        said = " ".join(error.problems)
        typer.echo(f"The configuration file cannot be used; showing what {runs} on: {said}", err=True)
        return InForce(loaded=loaded, error=said)


def has_state(loaded: LoadedSettings) -> bool:
    """Whether a daemon has made a database here; of a server's database nobody knows before asking it."""
    own_file = loaded.state_dir / "coordinator.db"
    return loaded.settings.coordinator.database_url is not None or own_file.exists()


@contextmanager
def reading(loaded: LoadedSettings) -> Iterator[Store]:
    """The store for reading, beside a running daemon. Raises CoordinatorError when there is none yet."""
    from coordinator.store import Store

    if not has_state(loaded):
        raise CoordinatorError(
            f"There is no state in {loaded.state_dir} yet: the daemon has not run with this configuration."
        )
    store = Store.open_readonly(loaded.database_url)
    try:
        yield store
    finally:
        store.close()


def open_workspaces(loaded: LoadedSettings) -> Workspaces:
    """The worktrees and mirrors of a configuration, for looking at them beside a daemon."""
    from coordinator.store import StatePaths
    from coordinator.workspaces import Workspaces

    paths, github = StatePaths(loaded.state_dir), loaded.settings.github
    return Workspaces(
        repos_dir=paths.repos,
        trees_dir=loaded.worktree_dir,
        quarantine_dir=paths.quarantine,
        git_user=(github.git_user_name, github.git_user_email),
    )


def mirror_of(loaded: LoadedSettings, task: Task) -> Mirror | None:
    """The task's mirror as it stands there; None without one, and of a repository that is not configured."""
    from coordinator.store import StatePaths
    from coordinator.workspaces import Mirror

    wanted, known = task.repo.casefold(), loaded.settings.all_repositories()
    repository = next((each for each in known if each.full_name.casefold() == wanted), None)
    path = StatePaths(loaded.state_dir).repos.resolve() / f"{task.repo}.git"
    if repository is None or not path.is_dir():
        return None
    return Mirror(path=path, repo=task.repo, remote_url=repository.remote_url)


def daemon_status(loaded: LoadedSettings) -> dict[str, Any] | None:
    """What the running daemon last wrote about itself; None when none runs."""
    from coordinator import statusfile
    from coordinator.store import StatePaths

    if not StatePaths(loaded.state_dir).is_held():
        return None
    return statusfile.read(loaded.state_dir)  # empty when it has only just started


def find_task(store: Store, issue: str) -> Task:
    """The task an operator means by `12`, `gh-12` or `owner/name#12`."""
    # Copied from a comment of ours it may have a space of no width behind the number sign.
    match = _ISSUE.match(issue.strip().replace("\N{ZERO WIDTH SPACE}", ""))
    if match is None:
        raise CoordinatorError(f"{issue!r} is not an issue: write 12, gh-12 or owner/name#12.")
    found = store.find_task(match["repo"], int(match["number"]))
    if not found:
        raise CoordinatorError(
            f"There is no task for {issue}: the issue was never seen with the trigger label. "
            "`coordinator status` shows the tasks there are and when each repository is polled next."
        )
    main = [task for task in found if "/" not in task.name]  # the repository of [github] needs no name
    if match["repo"] is None and len(main) == 1:
        return main[0]
    if len(found) > 1:
        names = ", ".join(f"{task.repo}#{task.issue_number}" for task in found)
        raise CoordinatorError(f"{issue} is ambiguous; say which one: {names}.")
    return found[0]


def print_json(data: Any) -> None:
    """JSON on standard output; times as ISO 8601, money as text."""
    from coordinator.logs import harmless_json  # a piece of the log's wording; loaded where it is needed

    typer.echo(harmless_json(json.dumps(data, default=_plain, indent=2, ensure_ascii=False)))


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError(f"cannot print {type(value).__name__}")


def when(at: datetime | None, now: datetime) -> str:
    """`in 42 s (14:03:10 UTC)`, with the time of day where the reader is."""
    if at is None:
        return "not before somebody acts"
    seconds = round((at - now).total_seconds())
    if seconds <= 0:
        return "now"
    if seconds < 120:
        text = f"{seconds} s"
    elif seconds < 7200:
        text = f"{round(seconds / 60)} min"
    else:
        text = f"{seconds // 3600} h {seconds % 3600 // 60:02} min"
    return f"in {text} ({time_of_day(at, now)})"


def time_of_day(at: datetime, now: datetime) -> str:
    """`14:03:10 UTC`, the time of day where the reader is; with its date when that is not today."""
    local = at.astimezone()
    day = "" if local.date() == now.astimezone().date() else f"{local:%Y-%m-%d} "
    return f"{day}{local:%H:%M:%S %Z}"
