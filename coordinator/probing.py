"""Trying a provider's command for real: small runs in a throw-away repository, and what they show.

Owns the questions, the runs that answer them and the file with the last answers. The commands, their
environment, sandbox and the reading of their output are those of real runs; only task, worktree and shim are
missing.
What its main run shows about the provider's health is handed on as an event, like that of any run.
Must not touch the store: a probe works beside a daemon.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

from adw_modules.agents import DIALECTS, with_exit_code
from adw_modules.agents.stream import StreamSummary
from adw_modules.config import ProviderSettings
from adw_modules.errors import CoordinatorError, WorkspaceError
from adw_modules.health import HealthEvent, RunEnd, health_event
from adw_modules.providers import ProviderManager
from adw_modules.security.network import advice
from adw_modules.tasks.model import ExitRecord, GitState, UsageSource
from adw_modules.tasks.outcome import classify
from coordinator import enclosing, shim
from coordinator.bubblewrap import find
from coordinator.environment import CONFIG_DIR, has_own_config, worker_environment
from coordinator.footprint import Footprint
from coordinator.launcher import write_config
from coordinator.logs import Redactor
from coordinator.network import refusals_of
from coordinator.output import with_side_file
from coordinator.rundir import stderr_tail
from coordinator.sandbox import Box
from coordinator.settings import LoadedSettings
from coordinator.workspaces.files import remove_tree

NO_SUCH_MODEL = "coordinator-no-such-model"  # nobody's name for a model
FILE = "PROBE.md"
GRACE_SECONDS = 5.0
POLL_SECONDS = 0.05
DYING_SECONDS = 1.0  # from SIGKILL to gone, also on a busy machine
LOOK_SECONDS = 0.2  # between two looks at how much was printed
MOST_OUTPUT = 4 << 20  # of one run; a small task takes a hundredth of it

_PROMPT = """\
You are being tried out in an empty git repository.
Write a file named {file} in the current directory whose only line is: {word}
Do nothing else. Do not commit.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One question and what was seen. `ok` None: it works, but look at it, or it could not be asked."""

    question: str
    ok: bool | None
    seen: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """All that one probe of a provider found out."""

    provider: str
    agent: str
    model: str
    at: datetime
    answers: tuple[Answer, ...]
    health: HealthEvent | None = None  # what its main run shows; None: nothing about the provider

    @property
    def is_fine(self) -> bool:
        return all(answer.ok is not False for answer in self.answers)

    def as_dict(self) -> dict[str, Any]:
        return {
            "provider": self.provider,
            "agent": self.agent,
            "model": self.model,
            "at": self.at.isoformat(),
            "answers": [asdict(answer) for answer in self.answers],
            "health": self.health.kind.value if self.health else None,
            "fine": self.is_fine,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ended:
    """One run of the command. `code` is None when it had to be killed at the end of its time."""

    code: int | None
    seconds: float
    summary: StreamSummary
    last_words: str
    refused: str = ""  # what it could not reach, in words
    wrote: str | None = None  # what the probe's file held
    word: str = ""  # what it was to hold


@dataclass(frozen=True, slots=True, kw_only=True)
class _Command:
    """How runs of one provider are started, apart from prompt and model."""

    name: str
    loaded: LoadedSettings
    manager: ProviderManager
    environ: Mapping[str, str]
    timeout: float
    folder: Path
    box: Box | None  # the sandbox they are started in
    numbers: Iterator[int] = field(default_factory=count)  # names the folders of the runs

    @property
    def settings(self) -> ProviderSettings:
        return self.loaded.settings.providers[self.name]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Host:
    """What a sandbox is made from, without a daemon's adapters."""

    loaded: LoadedSettings
    environ: Mapping[str, str]


def probe(
    loaded: LoadedSettings,
    name: str,
    *,
    model: str,
    environ: Mapping[str, str],
    timeout: float,
    now: datetime,
    tell: Callable[[Answer], None],
) -> Probe:
    """Ask all questions of a provider. `timeout` is the longest that one run may take, in seconds.

    `tell` gets each answer as it is known. Blocks. Raises CoordinatorError when the provider cannot be used.
    """
    manager = ProviderManager(loaded.settings, environ=environ, project_root=loaded.project_root)
    availability = manager.availability(name)
    if not availability.available:
        raise CoordinatorError(f"{name} cannot be probed: {availability.reason}.")
    settings = loaded.settings.providers[name]
    redactor = Redactor.of(loaded.settings, environ)  # what a program says last may be its key
    answers: list[Answer] = []

    def answer(question: str, ok: bool | None, seen: str) -> None:
        answers.append(Answer(question=question, ok=ok, seen=redactor.text(seen)))
        tell(answers[-1])

    with _own_folder() as folder:
        command = _Command(
            name=name,
            loaded=loaded,
            manager=manager,
            environ=environ,
            timeout=timeout,
            folder=folder,
            box=_sandbox(_Host(loaded=loaded, environ=environ), folder, answer),
        )
        ended = _work(command, model)
        if _ask_about_work(command, ended, model, answer):
            _ask_about_errors(command, answer)
            _ask_about_empty_input(command, model, answer)
            _ask_about_stopping(command, model, answer)
    return Probe(
        provider=name,
        agent=settings.agent,
        model=model,
        at=now,
        answers=tuple(answers),
        health=_health(name, model, ended, now) if isinstance(ended, _Ended) else None,
    )


@contextmanager
def _own_folder() -> Iterator[Path]:
    """A folder for all runs of one probe, gone afterwards whatever a program has left in it."""
    folder = Path(tempfile.mkdtemp(prefix="coordinator-probe-"))
    try:
        yield folder
    finally:
        with suppress(WorkspaceError):
            remove_tree(folder)


def _health(name: str, model: str, ended: _Ended, now: datetime) -> HealthEvent | None:
    """The same way from evidence to an event as for runs. All times are told from the start of the probe."""
    record = ExitRecord(
        exit_code=ended.code if ended.code is not None and ended.code >= 0 else None,
        exit_signal=-ended.code if ended.code is not None and ended.code < 0 else None,
        reason="deadline" if ended.code is None else "exited",
        detail="",
        started_at=now,
        ended_at=now + timedelta(seconds=ended.seconds),
        cpu_seconds=0.0,
        max_rss_kib=0,
    )
    git = GitState(has_changes=ended.wrote is not None, head="", base="")
    outcome = classify(record, ended.summary, git, stop_outcome=None, stop_reason=None, now=now)
    end = RunEnd(outcome=outcome, summary=ended.summary, is_probe=True)
    return health_event(end, provider=name, model=model, now=now)


# -- the questions ----------------------------------------------------------------------------------

Say = Callable[[str, bool | None, str], None]


def _sandbox(host: _Host, folder: Path, say: Say) -> Box | None:
    """What a run on this host would be started in. Raises CoordinatorError where there has to be one.

    Looked for where we are, not in a unit of systemd: that is where the agent will be. Its files go to our
    folder, as the daemon's belong to the daemon's account.
    """
    settings = host.loaded.settings.sandbox
    found = find(settings, host.environ, folder)
    enclosing.require(found, host)
    if found.box is None:
        say("sandbox", None, f"runs without one, as whoever asks: {found.problem}")
    else:
        say("sandbox", True, f'bubblewrap, network = "{settings.network}"')
    return found.box


def _work(command: _Command, model: str) -> _Ended | OSError:
    """The main run."""
    word = secrets.token_hex(8)
    try:
        return replace(_run(command, model, _PROMPT.format(file=FILE, word=word)), word=word)
    except OSError as error:
        return error


def _ask_about_work(command: _Command, ended: _Ended | OSError, model: str, say: Say) -> bool:
    """What the main run shows. False when the program does not even start: nothing more can be asked."""
    if isinstance(ended, OSError):
        say("starts", False, f"cannot be executed: {ended.strerror or ended}")
        return False
    final = ended.summary.final
    has_begun = ended.summary.session_id or ended.summary.usage.by_model or ended.wrote is not None
    if ended.code not in (0, None) and not has_begun:
        say("starts", False, f"{_how(ended)}: {ended.last_words or 'it said nothing'}")
        _tell_refusals(ended, say)
        return False
    say("starts", True, _how(ended))
    _tell_refusals(ended, say)
    if ended.code is None:
        say("ends by itself", False, f"still ran after {ended.seconds:.0f} s and was killed")
    has_failed = ended.code != 0 or (final is not None and final.is_error)
    if ended.wrote is not None and ended.word in ended.wrote:
        say("edits a file", True, f"{FILE} is there" + (f", but it {_how(ended)}" if has_failed else ""))
    else:
        say("edits a file", False, f"{FILE} was not written: {ended.last_words or _how(ended)}")
    _ask_about_usage(command, ended, model, say)
    return True


def _tell_refusals(ended: _Ended, say: Say) -> None:
    if ended.refused:
        say("network", None, ended.refused)


def _ask_about_usage(command: _Command, ended: _Ended, model: str, say: Say) -> None:
    usage = ended.summary.usage
    if usage.source is UsageSource.UNKNOWN or not usage.total.total:
        is_silent = command.settings.agent == "generic"
        say("reports usage", None if is_silent else False, "no token numbers in its output")
    else:
        total = usage.total
        numbers = f"{total.input} in, {total.cache_read} from cache, {total.output} out ({usage.source})"
        say("reports usage", True if usage.source is UsageSource.REPORTED else None, numbers)
    # What was used counts; what the program says at its start is only its intention.
    told = {name for name in (usage.by_model or (ended.summary.model,)) if name and name != "unknown"}
    if not told:
        say("honours the model", None, "its output names no model")
    elif any(_is_same_model(model, name) for name in told):
        say("honours the model", True, ", ".join(sorted(told)))
    else:
        say("honours the model", False, f"asked for {model}, its output names {', '.join(sorted(told))}")


def _is_same_model(asked: str, told: str) -> bool:
    """`claude-sonnet-4-5` is told as `claude-sonnet-4-5-20250929`, `stub/m` by some as `m`."""
    return told == asked or told.startswith(f"{asked}-") or asked.endswith(f"/{told}")


def _ask_about_errors(command: _Command, say: Say) -> None:
    question = "fails with an exit code"
    ended = _run(command, NO_SUCH_MODEL, _PROMPT.format(file=FILE, word="error"))
    final = ended.summary.final
    is_told = (final is not None and final.is_error) or ended.summary.api_error_status is not None
    if ended.code is None:
        say(question, False, f"with a model that does not exist it still ran after {ended.seconds:.0f} s")
    elif ended.code != 0:
        say(question, True, f"with a model that does not exist it {_how(ended)}")
    elif is_told:
        say(question, None, "exit code 0 on an error; its output tells, and that is read")
    elif ended.wrote is not None or ended.summary.usage.total.total:
        say(question, None, "not seen: the provider took a model that does not exist and did the work")
    else:
        say(question, False, "exit code 0 on an error, and nothing in its output tells")


def _ask_about_empty_input(command: _Command, model: str, say: Say) -> None:
    ended = _run(command, model, "")
    if ended.code is None:
        say("ends on empty input", False, f"waits for more: still ran after {ended.seconds:.0f} s")
    elif ended.wrote is not None or ended.summary.usage.total.total:
        used = ended.summary.usage.total.total
        # A template that hands over the prompt as a file does not read it at all.
        say("ends on empty input", None, f"{_how(ended)}, after asking the model ({used} tokens)")
    else:
        say("ends on empty input", True, _how(ended))


def _ask_about_stopping(command: _Command, model: str, say: Say) -> None:
    question = f"ends on {command.settings.stop_signal}"
    process, run_dir, marker = _start(command, model, _PROMPT.format(file=FILE, word="stop"))
    try:
        _wait_for_output(process, run_dir, command.timeout)
        began = time.monotonic()
        if process.poll() is not None:
            say(question, None, "it was done before it could be asked to end")
            return
        _signal_group(process, getattr(signal, command.settings.stop_signal))
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_SECONDS)
            say(question, True, f"in {time.monotonic() - began:.1f} s, exit code {process.returncode}")
        if process.returncode is None:
            say(question, None, f"not within {GRACE_SECONDS:.0f} s; runs are killed after the grace period")
        _signal_group(process, signal.SIGKILL)
        process.wait()
        left = _still_there(marker)
        many = "1 process goes" if len(left) == 1 else f"{len(left)} processes go"
        if left:
            say("dies with its group", None, f"{many} on after the group was killed; the shim ends those too")
        else:
            say("dies with its group", True, "nothing is left of it")
    finally:
        _end(process, marker)


def _how(ended: _Ended) -> str:
    if ended.code is None:
        return f"was killed after {ended.seconds:.0f} s"
    if ended.code < 0:
        return f"was killed by signal {-ended.code} after {ended.seconds:.1f} s"
    return f"ended with exit code {ended.code} after {ended.seconds:.1f} s"


# -- one run ----------------------------------------------------------------------------------------


def _run(command: _Command, model: str, prompt: str) -> _Ended:
    began = time.monotonic()
    process, run_dir, marker = _start(command, model, prompt)
    try:
        code = _code(process, run_dir, command)
        seconds = time.monotonic() - began
    finally:
        _end(process, marker)
    dialect = DIALECTS[command.settings.agent]
    stream = dialect.parser()
    with (run_dir / "output.log").open("rb") as output:
        while output.tell() < MOST_OUTPUT and (piece := output.read(256 * 1024)):
            stream.feed(piece)
    summary = with_side_file(stream.finish(), dialect.side_file, run_dir)
    summary = with_exit_code(command.settings.agent, summary, code)
    words = summary.last_lines or tuple(stderr_tail(run_dir))
    return _Ended(
        code=code,
        seconds=seconds,
        summary=summary,
        last_words=words[-1] if words else "",
        refused=advice(refusals_of(run_dir)),
        wrote=_written(run_dir / "repository" / FILE),
    )


def _code(process: subprocess.Popen[bytes], run_dir: Path, command: _Command) -> int | None:
    """The exit code; None when its time is over, or when it prints or writes more than it may."""
    until = time.monotonic() + command.timeout
    most = command.loaded.settings.sandbox.worktree_mb * 1_000_000
    footprint = Footprint([run_dir / "repository"], most)
    while time.monotonic() < until and (run_dir / "output.log").stat().st_size < MOST_OUTPUT:
        if footprint.is_due and footprint.too_much():
            break
        with suppress(subprocess.TimeoutExpired):
            return process.wait(min(LOOK_SECONDS, max(0.0, until - time.monotonic())))
    return process.poll()


def _written(path: Path) -> str | None:
    """The beginning of the file, if it is one; a program may have put anything there."""
    try:
        # Not where a link leads: the program chose that, and we may read more than it may.
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            is_plain = stat.S_ISREG(os.fstat(fd).st_mode)
            return file.read(200).decode("utf-8", "replace") if is_plain else None
    except OSError:
        return None


def _start(command: _Command, model: str, prompt: str) -> tuple[subprocess.Popen[bytes], Path, str]:
    """The command in a repository of its own, its prompt on standard input, in a session of its own."""
    run_dir, marker = command.folder / str(next(command.numbers)), secrets.token_hex(16)
    repository = _repository(run_dir / "repository", command.environ)
    prompt_file = run_dir / "prompt.md"
    prompt_file.write_text(prompt)
    provider = command.manager.get_provider(command.name)
    program, *arguments = provider.build_command(
        prompt_file, model, run_dir / "output.jsonl", workspace=repository
    )
    argv, environment = _as_a_run(
        command, (command.manager.availability(command.name).program or program, *arguments), run_dir, marker
    )
    # Ignored signals are inherited: a program that ignores SIGINT from birth could not be asked to end.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with (
        prompt_file.open("rb") as stdin,
        (run_dir / "output.log").open("wb") as stdout,
        (run_dir / "stderr.log").open("wb") as stderr,
    ):
        process = subprocess.Popen(
            argv,
            cwd=repository,
            env=environment,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
    return process, run_dir, marker


def _as_a_run(
    command: _Command, argv: tuple[str, ...], run_dir: Path, marker: str
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Argv and environment of a run, in its sandbox; writes what that needs to the run's folder."""
    provider, dialect = command.settings, DIALECTS[command.settings.agent]
    is_own = has_own_config(provider, command.environ, dialect)
    if is_own:
        write_config(run_dir / CONFIG_DIR, dialect.config_files)
    env = worker_environment(provider, command.environ, dialect, marker=marker, run_dir=run_dir, attempt=1)
    if provider.agent == "openrouter-cli":  # its preferences are there, and its home is another one inside
        env = {"COORDINATOR_CONFIG": str(command.loaded.path), **env}
    if command.box is None:
        return argv, env
    argv, env, files = enclosing.in_box(
        command.box,
        _Host(loaded=command.loaded, environ=command.environ),
        provider,
        worktree=run_dir / "repository",
        run_dir=run_dir,
        argv=argv,
        env=env,
        has_own_config=is_own,
    )
    for name, content in files.items():
        (run_dir / name).write_text(content)
    return argv, env


def _repository(folder: Path, environ: Mapping[str, str]) -> Path:
    """An empty repository with one commit; the user's own git settings stay out of it."""
    folder.mkdir(parents=True)
    (folder / "README.md").write_text("# A throw-away repository\n")
    env = {
        "PATH": environ.get("PATH", os.defpath),
        "HOME": str(folder.parent),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
    }
    identity = ("-c", "user.name=Coordinator", "-c", "user.email=coordinator@localhost")
    for arguments in (("init", "-q", "-b", "main"), ("add", "."), (*identity, "commit", "-q", "-m", "Start")):
        subprocess.run(["git", *arguments], cwd=folder, env=env, check=True, capture_output=True)
    return folder


def _wait_for_output(process: subprocess.Popen[bytes], run_dir: Path, timeout: float) -> None:
    """Until the program has said something, so that its handlers are in place; or has ended, or will not."""
    until = time.monotonic() + timeout
    output = run_dir / "output.log"
    while time.monotonic() < until and process.poll() is None and not output.stat().st_size:
        time.sleep(POLL_SECONDS)


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _survivors(marker: str) -> list[shim.Process]:
    return [process for process in shim.process_table() if shim.carries(process.pid, marker)]


def _still_there(marker: str) -> list[shim.Process]:
    """What outlives a SIGKILL to the group; those that it reaches need a moment to be gone."""
    until = time.monotonic() + DYING_SECONDS
    while (left := _survivors(marker)) and time.monotonic() < until:
        time.sleep(POLL_SECONDS)
    return left


def _end(process: subprocess.Popen[bytes], marker: str) -> None:
    """Nothing of a probe goes on after it."""
    if process.poll() is None:
        _signal_group(process, signal.SIGKILL)
        process.wait()
    until = time.monotonic() + GRACE_SECONDS
    while (left := _survivors(marker)) and time.monotonic() < until:
        for each in left:
            shim.signal_exact(each.pid, each.start, signal.SIGKILL)
        time.sleep(POLL_SECONDS)


# -- the last answers -------------------------------------------------------------------------------


def save(state_dir: Path, probe: Probe) -> Path:
    """Keep a probe for `doctor`, in place of the provider's last one."""
    folder = state_dir / "probes"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{probe.provider}.json"
    temporary = path.with_suffix(f".{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(probe.as_dict(), file, indent=2)
    temporary.replace(path)
    return path


def last(state_dir: Path, provider: str) -> Probe | None:
    """The last probe of a provider; None when there is none that can be read."""
    try:
        found = json.loads((state_dir / "probes" / f"{provider}.json").read_text())
        return Probe(
            provider=found["provider"],
            agent=found["agent"],
            model=found["model"],
            at=datetime.fromisoformat(found["at"]),
            answers=tuple(Answer(**answer) for answer in found["answers"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
