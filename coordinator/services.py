"""What the parts of the daemon share: one frozen record of adapters, opened and closed together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import ParamSpec, TypeVar

from adw_modules.config import ResolvedRepository, Settings
from adw_modules.errors import GitHubRefused, GitHubUnavailable, WorkspaceError
from adw_modules.providers import ProviderManager
from coordinator.bubblewrap import Found, find, why_not_public
from coordinator.github import GitHub, load_app
from coordinator.launcher import Launcher, RunLauncher
from coordinator.logs import Redactor
from coordinator.openness import Openness
from coordinator.settings import LoadedSettings, SettingsSource
from coordinator.store import StateDir, Store
from coordinator.transient import UnitLauncher
from coordinator.workspaces import Content, GitAuth, Mirror, Screened, Workspace, Workspaces

P = ParamSpec("P")
T = TypeVar("T")

GIT_THREADS = 4
LAUNCHERS: Mapping[str, Callable[[Path], RunLauncher]] = {"shim": Launcher, "systemd": UnitLauncher}


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The adapters. The settings are read through `source`, so that each decision sees the newest ones."""

    source: SettingsSource
    store: Store
    github: GitHub
    launcher: RunLauncher
    workspaces: Workspaces
    threads: ThreadPoolExecutor  # git and other blocking work; never the store, never PyGithub
    environ: Mapping[str, str]
    redactor: Redactor
    openness: Openness
    now: Callable[[], datetime]
    _providers: dict[str, ProviderManager] = field(default_factory=dict)

    def providers(self) -> ProviderManager:
        """The providers of the configuration in force. Made once for each: every plan and every run asks."""
        loaded = self.loaded
        if loaded.version not in self._providers:
            self._providers.clear()
            self._providers[loaded.version] = ProviderManager(
                loaded.settings, environ=self.environ, project_root=loaded.project_root
            )
        return self._providers[loaded.version]

    @property
    def loaded(self) -> LoadedSettings:
        return self.source.current

    @property
    def settings(self) -> Settings:
        return self.source.current.settings

    @property
    def report_delay(self) -> timedelta:
        """How long news of progress may wait to be reported together with what follows."""
        return timedelta(seconds=self.settings.github.report_delay_seconds)

    def git_auth(self, repository: ResolvedRepository) -> GitAuth:
        """What git may fetch and push that one repository with; asked for when a command needs it."""

        def ask() -> str:
            try:
                return self.github.secret(repository.full_name)
            except (GitHubUnavailable, GitHubRefused) as error:
                raise WorkspaceError(str(error)) from error

        return GitAuth(secret=ask)

    def repository(self, full_name: str) -> ResolvedRepository | None:
        """The configured repository of that name, or None when it is no longer configured."""
        wanted = full_name.casefold()
        return next((r for r in self.settings.all_repositories() if r.full_name.casefold() == wanted), None)

    def mirror(self, repository: ResolvedRepository) -> Mirror:
        """The mirror of a configured repository, made when there is none yet. Blocks."""
        return self.workspaces.ensure_mirror(
            repository.full_name, repository.remote_url, self.git_auth(repository), now=self.now()
        )

    def fetch(self, repository: ResolvedRepository, *, not_older_than: float) -> None:
        """Bring the repository's mirror up to date. Blocks."""
        mirror = self.mirror(repository)
        self.workspaces.fetch(mirror, self.git_auth(repository), not_older_than=not_older_than)

    def screen(self, workspace: Workspace, allowed: Collection[str], issue: int) -> Screened:
        """What a push of a task's branch would send that must not leave, and of which commit. Blocks.

        Commits with words or names that may not leave are put into others with the same trees before.
        """
        auth, scanner = self._auth_of(workspace), self.redactor.scanner
        screened = self.workspaces.screen(workspace, auth, scanner, allowed=allowed, issue=issue)
        if screened.leaks or not screened.is_loud:  # a secret is told where it was found
            return screened
        self.workspaces.reword(workspace, auth, issue)
        screened = self.workspaces.screen(workspace, auth, scanner, allowed=allowed, issue=issue)
        if screened.is_loud:
            raise WorkspaceError("Commits of the agent cannot be put into a form that may leave.")
        return screened

    def content(self, workspace: Workspace, head: str) -> Content:
        """What a push of that commit would bring beyond the default branch. Blocks."""
        return self.workspaces.content(workspace, self._auth_of(workspace), head=head)

    def push(self, workspace: Workspace, head: str | None) -> None:
        """Push that commit as the task's branch, with a credential for its repository only. Blocks."""
        self.workspaces.push(workspace, self._auth_of(workspace), head=head)

    def _auth_of(self, workspace: Workspace) -> GitAuth:
        repository = self.repository(workspace.mirror.repo)
        if repository is None:
            raise WorkspaceError(f"{workspace.mirror.repo} is no longer configured; nothing was pushed")
        return self.git_auth(repository)

    async def in_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run what blocks in one of `threads`."""
        return await asyncio.wrap_future(self.threads.submit(function, *args, **kwargs))


@contextmanager
def open_services(
    source: SettingsSource,
    state_dir: StateDir,
    *,
    environ: Mapping[str, str],
    now: Callable[[], datetime],
    workspaces: Workspaces | None = None,
    redactor: Redactor | None = None,
) -> Iterator[Services]:
    """All adapters for one life of the daemon; `workspaces` stands in for the ones with git."""
    loaded, settings = source.current, source.current.settings
    with ExitStack() as stack:
        store = Store.open(loaded.database_url, now=now(), thoroughly=True)
        stack.callback(store.close)
        threads = ThreadPoolExecutor(GIT_THREADS, thread_name_prefix="git")
        stack.callback(threads.shutdown, cancel_futures=True)
        redactor = redactor or Redactor.of(settings, environ)
        github = open_github(loaded, environ, now=now, redactor=redactor)
        stack.callback(github.close)
        yield Services(
            source=source,
            store=store,
            github=github,
            launcher=LAUNCHERS[settings.coordinator.launcher](state_dir.runs),
            workspaces=workspaces or _open_workspaces(loaded, state_dir),
            threads=threads,
            environ=environ,
            openness=Openness(store, lambda: _why_unsafe(source.current, environ)),
            redactor=redactor,
            now=now,
        )


def find_sandbox(loaded: LoadedSettings, environ: Mapping[str, str]) -> Found:
    """This host's sandbox for the runs of that configuration. Blocks the first time."""
    in_units = loaded.settings.coordinator.launcher == "systemd"
    return find(loaded.settings.sandbox, environ, loaded.state_dir, in_units=in_units)


def _why_unsafe(loaded: LoadedSettings, environ: Mapping[str, str]) -> str | None:
    return why_not_public(find_sandbox(loaded, environ), loaded.settings.sandbox)


def open_github(
    loaded: LoadedSettings, environ: Mapping[str, str], *, now: Callable[[], datetime], redactor: Redactor
) -> GitHub:
    """GitHub as the configuration says: with the token, or as an App. Raises ConfigError for an unusable key.

    The redactor knows the App's key, and each token from the moment it is made.
    """
    settings, repositories = loaded.settings.github, loaded.settings.all_repositories()
    home = repositories[0].full_name if repositories else ""
    app = load_app(settings.app, environ, root=loaded.project_root, home=home)
    if app is not None:
        redactor.learn([app.pem.strip()])
    return GitHub(
        api_url=settings.api_url,
        token="" if app else environ.get(settings.token_env, ""),
        app=app,
        learn=redactor.learn_passing,
        timeout_seconds=settings.request_timeout_seconds,
        writes_per_minute=settings.writes_per_minute,
        writes_per_hour=settings.writes_per_hour,
        now=now,
    )


def _open_workspaces(loaded: LoadedSettings, state_dir: StateDir) -> Workspaces:
    github = loaded.settings.github
    return Workspaces(
        repos_dir=state_dir.repos,
        trees_dir=loaded.worktree_dir,
        quarantine_dir=state_dir.quarantine,
        git_user=(github.git_user_name, github.git_user_email),
    )


def task_name(repository: ResolvedRepository, number: int) -> str:
    """`gh-12` for the repository of `[github]`, `owner/name/gh-12` for those of `[[repositories]]`."""
    return f"gh-{number}" if repository.is_primary else f"{repository.owner}/{repository.name}/gh-{number}"
