"""One run's sandbox: from settings, worktree and run directory to what bubblewrap is started with.

Owns which of our files a worker may see. How that becomes arguments is `sandbox.py`'s, what this host can
`bubblewrap.py`'s. Starts nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import adw_modules
import coordinator
from adw_modules.agents import DIALECTS
from adw_modules.config import ProviderSettings
from adw_modules.errors import SpawnError
from coordinator.bubblewrap import Found, limits_of
from coordinator.environment import CONFIG_DIR
from coordinator.network import plan
from coordinator.sandbox import (
    Box,
    How,
    Mount,
    View,
    command,
    environment,
    home_of,
    installation,
    on_path,
    read_only,
    read_write,
)
from coordinator.services import find_sandbox
from coordinator.settings import LoadedSettings
from coordinator.workspaces import PrivateGit, Workspace

OUTPUT_FILE, PROMPT_FILE = "output.jsonl", "prompt.md"  # in the run directory, for templates that name them


class Host(Protocol):
    """Whose sandboxes these are: the daemon's, or those of a command that starts agents as it does."""

    @property
    def loaded(self) -> LoadedSettings: ...

    @property
    def environ(self) -> Mapping[str, str]: ...


def wanted(host: Host) -> Found:
    """What this host's sandbox is. Blocks the first time. Raises SpawnError where there has to be one."""
    found = find_sandbox(host.loaded, host.environ)
    require(found, host)
    return found


def require(found: Found, host: Host) -> None:
    """Raises SpawnError where there is no sandbox but has to be one."""
    if found.box is None and host.loaded.settings.sandbox.mode == "bubblewrap":
        raise SpawnError(f'sandbox.mode is "bubblewrap", and it does not work here: {found.problem}')


def enclosed(
    host: Host,
    provider: ProviderSettings,
    workspace: Workspace,
    *,
    run_dir: Path,
    argv: tuple[str, ...],
    env: Mapping[str, str],
    has_own_config: bool,
) -> tuple[tuple[str, ...], dict[str, str], dict[str, str]]:
    """Argv and environment of the same worker in a sandbox, and the files that its run directory needs.

    Argv and environment are as they are where there is no sandbox.
    """
    box = wanted(host).box
    if box is None or workspace.git is None:
        return argv, dict(env), {}
    return in_box(
        box,
        host,
        provider,
        worktree=workspace.path,
        git=tuple(_of_git(workspace.git)),
        run_dir=run_dir,
        argv=argv,
        env=env,
        has_own_config=has_own_config,
    )


def in_box(
    box: Box,
    host: Host,
    provider: ProviderSettings,
    *,
    worktree: Path,
    git: tuple[Mount, ...] = (),
    run_dir: Path,
    argv: tuple[str, ...],
    env: Mapping[str, str],
    has_own_config: bool,
) -> tuple[tuple[str, ...], dict[str, str], dict[str, str]]:
    """As `enclosed`. `git`: the parts of the worktree's repository that are not in the worktree itself."""
    settings = host.loaded.settings.sandbox
    network, files = plan(settings, provider, env=env, environ=host.environ, run_dir=run_dir)
    home = home_of(env)
    mounts = (
        *_programs(provider, argv, env, home),
        *_of_operator(host, provider, home, has_own_config=has_own_config),
        *(_of_our_agent(host) if provider.agent == "openrouter-cli" else ()),
        *_of_run(run_dir, argv, has_own_config=has_own_config),
        read_write(worktree),
        *git,
    )
    view = View(cwd=worktree, home=home, mounts=mounts, hidden=_hidden(host, provider, home))
    inside = command(argv, box=box, view=view, limits=limits_of(settings), network=network)
    if _is_named(run_dir / OUTPUT_FILE, argv):
        files[OUTPUT_FILE] = ""  # a sandbox can only show what is there
    return inside, environment(env, home, network), files


def _is_named(path: Path, argv: tuple[str, ...]) -> bool:
    return any(str(path) in word for word in argv)


def _programs(
    provider: ProviderSettings, argv: tuple[str, ...], env: Mapping[str, str], home: Path
) -> Iterator[Mount]:
    yield from on_path(env.get("PATH", ""), home)
    if argv[0].startswith("/"):
        yield from installation(Path(argv[0]), home)
    # A script that the operator has named as an argument of its interpreter.
    files = (Path(word) for word in provider.command_template[1:] if word.startswith("/"))
    yield from (read_only(file) for file in files if file.is_file())


def _of_operator(
    host: Host, provider: ProviderSettings, home: Path, *, has_own_config: bool
) -> Iterator[Mount]:
    """What the configuration adds; and the agent's log-in, where it has no key to work with."""
    settings = host.loaded.settings.sandbox
    log_in = provider.sandbox_paths
    if log_in is None:
        dialect = DIALECTS[provider.agent]
        has_key = bool(provider.api_key_env and provider.api_key_env in host.environ)
        log_in = () if has_key or has_own_config else tuple(f"~/{path}" for path in dialect.login_paths)
    for how, paths in (
        (How.READ_ONLY, settings.read_only),
        (How.READ_WRITE, (*settings.read_write, *log_in)),
    ):
        for path in (home / each[2:] if each.startswith("~/") else Path(each) for each in paths):
            if path.exists():
                yield Mount(target=path, how=how)


def _of_run(run_dir: Path, argv: tuple[str, ...], *, has_own_config: bool) -> Iterator[Mount]:
    if _is_named(run_dir / PROMPT_FILE, argv):
        yield read_only(run_dir / PROMPT_FILE)
    if _is_named(run_dir / OUTPUT_FILE, argv):
        yield read_write(run_dir / OUTPUT_FILE)
    if has_own_config:
        yield read_write(run_dir / CONFIG_DIR)


def _of_git(git: PrivateGit) -> Iterator[Mount]:
    yield read_write(git.admin)
    yield from (read_only(path) for path in (git.git_file, git.shared, *git.sealed))
    yield from (read_write(path) for path in git.writable)
    yield from (Mount(target=place, how=How.READ_ONLY, source=stand_in) for stand_in, place in git.stand_ins)


@lru_cache(maxsize=1)
def _our_program() -> tuple[Mount, ...]:
    packages = [Path(package.__file__ or "").resolve().parent for package in (coordinator, adw_modules)]
    checkout = packages[0].parent
    places = (*packages, checkout / "tools", checkout / ".venv", Path(sys.prefix))
    return tuple(read_only(place) for place in dict.fromkeys(places) if place.is_dir())


def _of_our_agent(host: Host) -> Iterator[Mount]:
    yield from _our_program()
    yield read_only(host.loaded.path)


def _hidden(host: Host, provider: ProviderSettings, home: Path) -> tuple[Path, ...]:
    """Never shown, whatever an operator or a program's installation shows around it.

    The configuration is: to our own agent, which has its preferences there.
    """
    loaded = host.loaded
    project, cargo = loaded.project_root, home / ".cargo"
    configuration = () if provider.agent == "openrouter-cli" else (loaded.path,)
    own = (loaded.state_dir, loaded.worktree_dir, loaded.log_dir, *configuration)
    secrets = (project / ".git", project / ".env", cargo / "credentials", cargo / "credentials.toml")
    return _in_both_forms((*own, *secrets))


@lru_cache(maxsize=8)
def _in_both_forms(paths: tuple[Path, ...]) -> tuple[Path, ...]:
    """As written and with links followed: either may be what is shown."""
    return tuple(dict.fromkeys(form for path in paths for form in (path, path.resolve())))
