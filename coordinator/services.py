"""What the parts of the daemon share: one frozen record of adapters, made once by `daemon.py`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import ParamSpec, TypeVar

from adw_modules.config import ResolvedRepository, Settings
from coordinator.github import GitHub
from coordinator.launcher import Launcher
from coordinator.logs import Redactor
from coordinator.settings import LoadedSettings, SettingsSource
from coordinator.store import Store
from coordinator.workspaces import GitAuth, Mirror, Workspaces

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The adapters. The settings are read through `source`, so that each decision sees the newest ones."""

    source: SettingsSource
    store: Store
    github: GitHub
    launcher: Launcher
    workspaces: Workspaces
    threads: ThreadPoolExecutor  # git and other blocking work; never the store, never PyGithub
    environ: Mapping[str, str]
    redactor: Redactor
    now: Callable[[], datetime]

    @property
    def loaded(self) -> LoadedSettings:
        return self.source.current

    @property
    def settings(self) -> Settings:
        return self.source.current.settings

    @property
    def git_auth(self) -> GitAuth | None:
        token = self.environ.get(self.settings.github.token_env)
        return GitAuth(secret=token) if token else None

    def repository(self, full_name: str) -> ResolvedRepository | None:
        """The configured repository of that name, or None when it is no longer configured."""
        wanted = full_name.casefold()
        return next((r for r in self.settings.all_repositories() if r.full_name.casefold() == wanted), None)

    def mirror(self, repository: ResolvedRepository) -> Mirror:
        """The mirror of a configured repository, made when there is none yet. Blocks."""
        return self.workspaces.ensure_mirror(
            repository.full_name, repository.remote_url, self.git_auth, now=self.now()
        )

    async def in_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run what blocks in one of `threads`."""
        return await asyncio.wrap_future(self.threads.submit(function, *args, **kwargs))


def task_name(repository: ResolvedRepository, number: int) -> str:
    """`gh-12` for the repository of `[github]`, `owner/name/gh-12` for those of `[[repositories]]`."""
    return f"gh-{number}" if repository.is_primary else f"{repository.owner}/{repository.name}/gh-{number}"
