"""`coordinator doctor`: is everything in place for runs to work? Looks, changes nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from coordinator.cli.common import DEFAULT_CONFIG, ConfigOption, JsonOption

if TYPE_CHECKING:
    from adw_modules.config import ResolvedRepository
    from coordinator.cli.service.installed import Installed
    from coordinator.github import GitHub
    from coordinator.ownerless import LiveRunDir
    from coordinator.sandbox import Box
    from coordinator.settings import LoadedSettings
    from coordinator.systemd.units import Manager


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the report. `ok` None means: works, but look at it. `mend` says what to do."""

    check: str
    ok: bool | None
    text: str
    mend: str | None = None


def register(app: typer.Typer) -> None:
    app.command()(doctor)


def doctor(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Check programs, configuration, GitHub access, providers and state; exit code 1 if one is missing."""
    from coordinator.cli.common import print_json

    findings = list(examine(config))
    problems = sum(finding.ok is False for finding in findings)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            _show(finding)
        many = "1 problem" if problems == 1 else f"{problems} problems"
        typer.echo(f"\n{many} to mend." if problems else "\nEverything is in place.")
    if problems:
        raise typer.Exit(1)


def _show(finding: Finding) -> None:
    from coordinator.logs import printable

    mark, colour = {True: ("✓", "green"), False: ("✗", "red"), None: ("!", "yellow")}[finding.ok]
    typer.echo(f"  {typer.style(mark, fg=colour)} {finding.check:<14} {printable(finding.text)}")
    if finding.mend:
        typer.echo(f"    {'':<14} → {printable(finding.mend)}")


def examine(config: Path) -> Iterator[Finding]:
    """All findings, in the order in which an operator would mend them."""
    from adw_modules.errors import ConfigError
    from coordinator.cli.common import settings_source

    try:
        loaded = settings_source(config).current
    except ConfigError as error:
        yield _git(os.environ)
        for problem in error.problems:
            yield Finding(check="configuration", ok=False, text=problem)
        return
    service = _installed(loaded)
    environ = {**os.environ, **(service.environ or {})} if service else os.environ
    if service is not None:
        yield _service(service)
    yield _git(environ)
    yield from _configuration(loaded, environ)
    yield from _launcher(loaded, service)
    yield from _sandbox(loaded, environ)
    yield from _providers(loaded, environ, service)
    yield from _state(loaded, service)
    yield from _set_aside(loaded)
    yield from _circuits(loaded)
    yield from _webhook(loaded)
    yield from _github(loaded, environ)


def _installed(loaded: LoadedSettings) -> Installed | None:
    from coordinator.cli.common import daemon_status
    from coordinator.cli.service import installed

    daemon = daemon_status(loaded) or {}
    return installed.find(loaded, pid=daemon.get("pid"))


def _service(service: Installed) -> Finding:
    """Whose PATH, keys and token all the rest is about."""
    if service.environ is None:
        text = f"what follows is seen with your own environment: {service.env_file} cannot be read"
        return Finding(check="service", ok=None, text=text, mend="sudo coordinator doctor")
    text = f"what follows is seen with its environment ({service.env_file})"
    return Finding(check="service", ok=True, text=text)


def _git(environ: Mapping[str, str]) -> Finding:
    program = shutil.which("git", path=environ.get("PATH"))
    if program is None:
        return Finding(check="git", ok=False, text="git is not on PATH", mend="install git")
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return Finding(check="git", ok=done.returncode == 0, text=(done.stdout or done.stderr).strip())


def _configuration(loaded: LoadedSettings, environ: Mapping[str, str]) -> Iterator[Finding]:
    from adw_modules.config import check_environment, check_runnable

    source = str(loaded.path)
    problems = check_runnable(loaded.settings, source=source)
    problems += check_environment(loaded.settings, environ, source=source)
    for problem in problems:
        yield Finding(check="configuration", ok=False, text=problem)
    if not problems:
        yield Finding(check="configuration", ok=True, text=f"{source} (version {loaded.version})")
    for warning in loaded.settings.warnings():
        yield Finding(check="configuration", ok=None, text=warning)


def _launcher(loaded: LoadedSettings, service: Installed | None) -> Iterator[Finding]:
    """With "systemd": the manager that the daemon would ask, which is the service's, or that of who asks."""
    from coordinator.systemd.units import Manager

    if loaded.settings.coordinator.launcher != "systemd":
        return
    manager = Manager.of_this_process()
    if service is not None and manager.is_system:
        manager = Manager(uid=service.uid, gid=service.gid)
    problems = _manager_problems(manager, service)
    for problem in problems:
        yield Finding(check="launcher", ok=False, text=problem)
    if problems:
        return
    yield Finding(check="launcher", ok=True, text=f"runs are units of {manager.name}")
    missing = manager.missing_controllers()
    if missing:
        text = f"{manager.name} cannot enforce limits on: {', '.join(missing)}"
        mend = "it needs control groups version 2 and Delegate=memory pids cpu in user@.service"
        yield Finding(check="launcher", ok=None, text=text, mend=mend)


def _sandbox(loaded: LoadedSettings, environ: Mapping[str, str]) -> Iterator[Finding]:
    """What this host can, as seen by whoever asks: the daemon of another account may find something else."""
    from coordinator.bubblewrap import find, what_is_missing, why_not_public

    settings = loaded.settings.sandbox
    found = find(settings, environ, in_units=loaded.settings.coordinator.launcher == "systemd")
    if found.box is None:
        is_wanted = settings.mode == "bubblewrap"
        text = f"workers run without a sandbox: {found.problem}"
        mend = "install bubblewrap 0.8 or newer" if settings.mode != "off" else 'set sandbox.mode = "auto"'
        yield Finding(check="sandbox", ok=False if is_wanted else None, text=text, mend=mend)
        if why_not_public(found, settings) is not None:
            text = "tasks of public repositories are not started without a sandbox"
            yield Finding(check="sandbox", ok=None, text=text)
        return
    box = found.box
    text = f"bubblewrap {box.version or 'of an unknown version'} from {box.source} works ({box.bwrap})"
    yield Finding(check="sandbox", ok=True, text=f'{text}; network = "{settings.network}"')
    for missing in what_is_missing(box):
        yield Finding(check="sandbox", ok=None, text=missing)
    yield from _runs_in_sandbox(box, loaded, environ)


def _runs_in_sandbox(box: Box, loaded: LoadedSettings, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Bubblewrap may work where the rest of a run's start does not: its limits, the way out by its proxy."""
    from coordinator.trial import why_no_run

    problems: dict[str, list[str]] = {}
    for name, provider in loaded.settings.providers.items():
        if provider.enabled and (problem := why_no_run(box, loaded, environ, name)):
            problems.setdefault(problem, []).append(name)
    for problem, names in problems.items():
        text = f"runs of {', '.join(names)} would not begin in it: {problem}"
        mend = "mend that; or choose another network or mode in [sandbox], if the repositories allow it"
        yield Finding(check="sandbox", ok=False, text=text, mend=mend)


def _manager_problems(manager: Manager, service: Installed | None) -> list[str]:
    """A user's manager does not answer root, who can see all the same whether it runs."""
    from adw_modules.errors import ConfigError
    from coordinator.cli.service.manager import problems
    from coordinator.systemd import unitfile

    if service is not None and not manager.is_system and service.uid == manager.uid:
        found = problems(unitfile.RUNTIME_DIRS / str(manager.uid), service.user)
        if found or os.geteuid() != manager.uid:
            return found
    try:
        manager.check()
    except ConfigError as error:
        return [str(error)]
    return []


def _providers(
    loaded: LoadedSettings, environ: Mapping[str, str], service: Installed | None
) -> Iterator[Finding]:
    from adw_modules.providers import ProviderManager

    how = "mend that"
    if service is not None and service.environ is not None:
        how = (
            f"mend that in {service.env_file}, `coordinator service install`, `systemctl restart coordinator`"
        )

    manager = ProviderManager(loaded.settings, environ=environ, project_root=loaded.project_root)
    for name, provider in loaded.settings.providers.items():
        availability = manager.availability(name)
        if availability.available:
            yield Finding(check="provider", ok=True, text=f"{name} is available")
            yield from _last_probe(loaded, name)
        elif not provider.enabled:
            yield Finding(check="provider", ok=None, text=f"{name}: {availability.reason}")
        else:
            mend = f"{how}, or set providers.{name}.enabled = false"
            yield Finding(check="provider", ok=False, text=f"{name}: {availability.reason}", mend=mend)


def _circuits(loaded: LoadedSettings) -> Iterator[Finding]:
    """What runs have shown of the providers, as far as it is not well."""
    from adw_modules.routing.circuits import State
    from coordinator.cli.common import has_state, reading, when
    from coordinator.clock import utc_now

    if not has_state(loaded):
        return
    now = utc_now()
    with reading(loaded) as store:
        found = sorted(store.circuits().items())
    for (name, model), circuit in found:
        target, state = f"{name}/{model}" if model else name, circuit.state(now)
        resume = f"`coordinator providers resume {name}`"
        match state:
            case State.PAUSED:
                yield Finding(check="health", ok=None, text=f"{target} is paused", mend=resume)
            case State.STOPPED:
                text = f"{target} refused the credentials: {circuit.detail}"
                mend = f"mend its key or its configuration, or {resume} after logging in again"
                yield Finding(check="health", ok=False, text=text, mend=mend)
            case State.COOLING if circuit.until:
                text = f"{target} is asked again {when(circuit.until, now)}: {circuit.detail}"
                yield Finding(check="health", ok=None, text=text)
            case _:
                pass


def _last_probe(loaded: LoadedSettings, name: str) -> Iterator[Finding]:
    from coordinator import probing
    from coordinator.cli.common import time_of_day
    from coordinator.clock import utc_now

    probe = probing.last(loaded.state_dir, name)
    if probe is None:
        return
    text = f"{name}: probed at {time_of_day(probe.at, utc_now())} with {probe.model}"
    wrong = [answer for answer in probe.answers if answer.ok is False]
    for answer in wrong:
        mend = f"`coordinator providers probe {name}` tries again"
        yield Finding(check="probe", ok=False, text=f"{text}: {answer.question}: {answer.seen}", mend=mend)
    if not wrong:
        yield Finding(check="probe", ok=True, text=f"{text}: {len(probe.answers)} answers, none of them bad")


def _state(loaded: LoadedSettings, service: Installed | None) -> Iterator[Finding]:
    from adw_modules.errors import StoreError
    from coordinator.cli.common import daemon_status
    from coordinator.store import StatePaths

    daemon = daemon_status(loaded)
    if daemon is None:
        start = "coordinator run" if service is None else "systemctl start coordinator"
        yield Finding(check="daemon", ok=None, text="no daemon runs", mend=f"start it with `{start}`")
    else:
        yield Finding(check="daemon", ok=True, text=f"a daemon runs (process {daemon.get('pid', 'unknown')})")
    if daemon and daemon.get("config_error"):
        text = f"it runs on an older configuration: {daemon['config_error']}"
        yield Finding(check="daemon", ok=False, text=text, mend="correct the file; it is taken at once")
    try:
        StatePaths(loaded.state_dir).check()
        yield from _store(loaded)
    except StoreError as error:
        yield Finding(check="store", ok=False, text=str(error))


def _store(loaded: LoadedSettings) -> Iterator[Finding]:
    from coordinator.cli.common import has_state, reading

    if not has_state(loaded):
        yield Finding(check="store", ok=True, text=f"{loaded.state_dir}: nothing yet")
        return
    from coordinator.ownerless import without_owner
    from coordinator.store import StatePaths

    with reading(loaded) as store:
        counts = [f"{count} {state.value}" for state, count in store.counts_by_state().items() if count]
        unpublished = store.dead_outbox()
        ownerless = without_owner(StatePaths(loaded.state_dir), [run for _, run in store.open_runs()])
    yield Finding(check="store", ok=True, text=f"{loaded.state_dir}: {', '.join(counts) or 'no tasks yet'}")
    for live in ownerless:
        yield _without_owner(live)
    for item in unpublished:
        text = f"a {item.kind.replace('_', ' ')} could not be written to GitHub: {item.error}"
        yield Finding(check="store", ok=None, text=text, mend="`coordinator status` says of which task")


def _set_aside(loaded: LoadedSettings) -> Iterator[Finding]:
    """What lies in quarantine: nobody but a person ever removes work from there."""
    from coordinator.housekeeping import kept_in
    from coordinator.logs import printable
    from coordinator.store import StatePaths

    folder = StatePaths(loaded.state_dir).quarantine
    kept = kept_in(folder)
    if not kept:
        return
    size = sum(each.size for each in kept) / 1e6
    oldest = kept[0]
    since = f"{oldest.since:%Y-%m-%d}" if oldest.since else "an unknown day"
    count = "1 entry" if len(kept) == 1 else f"{len(kept)} entries"
    text = f"{folder} keeps {count} with {size:.1f} MB, since {since}; {oldest.name}: {oldest.reason}"
    mend = "look into it, and delete what you do not need: docs/operations.md#quarantine"
    yield Finding(check="quarantine", ok=None, text=printable(text), mend=mend)


def _without_owner(live: LiveRunDir) -> Finding:
    if live.run_id is not None:
        mend = "start the daemon to have it looked after, or `coordinator stop --kill-runs`"
        return Finding(check="run", ok=None, text=f"a live run without a daemon: {live}", mend=mend)
    text = f"a live run that no task knows: {live}"
    return Finding(
        check="run", ok=False, text=text, mend="`coordinator stop`, then `coordinator stop --kill-runs`"
    )


def _webhook(loaded: LoadedSettings) -> Iterator[Finding]:
    """Where it listens, as the running daemon says; the secret is judged with the environment."""
    from coordinator.cli.common import daemon_status

    settings = loaded.settings.webhook
    if not settings.enabled:
        return
    daemon = daemon_status(loaded)
    if not daemon:
        text = f"{settings.listen}{settings.path}, once a daemon runs"
        yield Finding(check="webhook", ok=None, text=text)
    elif (told := daemon.get("webhook")) is None:
        text, mend = "the running daemon was started without it", "restart the daemon"
        yield Finding(check="webhook", ok=False, text=text, mend=mend)
    else:
        counts = f"{told['accepted']} accepted, {told['refused']} refused"
        text = f"listens on {told['address']}{told['path']}: {counts}"
        yield Finding(check="webhook", ok=True, text=text)


def _github(loaded: LoadedSettings, environ: Mapping[str, str]) -> Iterator[Finding]:
    import asyncio

    from adw_modules.errors import ConfigError
    from coordinator.clock import utc_now
    from coordinator.logs import Redactor
    from coordinator.services import open_github

    settings = loaded.settings.github
    if not settings.app.is_used and not environ.get(settings.token_env):
        return
    try:
        redactor = Redactor.of(loaded.settings, environ)
        github = open_github(loaded, environ, now=utc_now, redactor=redactor)
    except ConfigError as error:
        yield from (Finding(check="github", ok=False, text=problem) for problem in error.problems)
        return
    if settings.app.is_used and environ.get(settings.token_env):
        text = f"{settings.token_env} is set and not used: there is a GitHub App"
        yield Finding(check="github", ok=None, text=text, mend="take it out of the environment")
    yield from asyncio.run(_ask_github(loaded, github, _why_not_public(loaded, environ)))


def _why_not_public(loaded: LoadedSettings, environ: Mapping[str, str]) -> str | None:
    from coordinator.bubblewrap import find, why_not_public

    settings, in_units = loaded.settings.sandbox, loaded.settings.coordinator.launcher == "systemd"
    return why_not_public(find(settings, environ, in_units=in_units), settings)


async def _ask_github(loaded: LoadedSettings, github: GitHub, unsafe: str | None) -> list[Finding]:
    from adw_modules.errors import CoordinatorError, GitHubRefused

    settings = loaded.settings.github
    try:
        if github.is_app:
            return await _ask_as_app(loaded, github, unsafe)
        account = await github.whoami()
        text = f"{settings.api_url} answers; you are {account.login}, by the token in {settings.token_env}"
        findings = [Finding(check="github", ok=True, text=text)]
        for repository in loaded.settings.all_repositories():
            findings.append(await _ask_repository(github, repository.full_name, account.login))
            findings += await _ask_who_sees(github, repository, unsafe)
        return findings
    except GitHubRefused as error:
        mend = f"put a valid token into {settings.token_env}" if error.status == 401 else None
        return [Finding(check="github", ok=False, text=str(error), mend=mend)]
    except CoordinatorError as error:
        mend = f"look at the network and at github.api_url ({settings.api_url})"
        return [Finding(check="github", ok=False, text=str(error), mend=mend)]
    finally:
        github.close()


async def _ask_who_sees(github: GitHub, repository: ResolvedRepository, unsafe: str | None) -> list[Finding]:
    """A public repository, and whether that is meant. What cannot be asked was said before."""
    from adw_modules.errors import CoordinatorError
    from coordinator.openness import closed_text, unsafe_text

    name = repository.full_name
    try:
        if not await github.is_public(name):
            return []
    except CoordinatorError:
        return []
    if repository.may_be_public and unsafe:
        return [Finding(check="repository", ok=False, text=unsafe_text(repository, unsafe))]
    if repository.may_be_public:
        text = f"{name} is public: strangers can write what an agent reads once a person has labelled it"
        return [Finding(check="repository", ok=None, text=text, mend="docs/security.md")]
    return [Finding(check="repository", ok=None, text=closed_text(repository))]


async def _ask_as_app(loaded: LoadedSettings, github: GitHub, unsafe: str | None) -> list[Finding]:
    """Who the App is needs no installation; what it may do is asked for each repository."""
    slug = await github.app_name()
    where = f"{loaded.settings.github.api_url} answers"
    findings = [Finding(check="github", ok=True, text=f"{where}; you are the GitHub App {slug}")]
    for repository in loaded.settings.all_repositories():
        findings.append(await _ask_installation(github, repository.full_name, slug))
        findings += await _ask_who_sees(github, repository, unsafe)
    return findings


async def _ask_installation(github: GitHub, name: str, slug: str) -> Finding:
    from adw_modules.errors import CoordinatorError

    page = f"the App's page ({slug}), and accept that in the installation's settings"
    try:
        found = await github.installation(name)
        if found.missing:
            text = f"{name}: installation {found.installation_id} lacks {', '.join(found.missing)}"
            return Finding(check="repository", ok=False, text=text, mend=f"grant that on {page}")
        await github.default_branch(name)
    except CoordinatorError as error:
        mend = f"install the App {slug} there, with the permissions that docs/github.md lists"
        return Finding(check="repository", ok=False, text=f"{name}: {error}", mend=mend)
    given = ", ".join(f"{area} {level}" for area, level in sorted(found.permissions.items()))
    text = f"{name}: a token for it alone may write (installation {found.installation_id}: {given})"
    return Finding(check="repository", ok=True, text=text)


async def _ask_repository(github: GitHub, name: str, login: str) -> Finding:
    from adw_modules.errors import CoordinatorError
    from adw_modules.security.admission import WRITE_PERMISSIONS

    needs = "the token needs contents, issues and pull requests: write"
    try:
        permission = (await github.permission(name, login)).permission
    except CoordinatorError as error:
        return Finding(check="repository", ok=False, text=f"{name}: {error}", mend=needs)
    if permission in WRITE_PERMISSIONS:
        return Finding(check="repository", ok=True, text=f"{name}: {login} may write")
    text = f"{name}: {login} has {permission} access"
    return Finding(check="repository", ok=False, text=text, mend=needs)
