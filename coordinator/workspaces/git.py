"""Running git, without trust in any file that an agent can write.

Before each command our files are put back; hooks are off, the environment is clean, and git is told where the
repository is. The GitHub token is only in the environment of the one command that needs it; it is never in a
URL, an argument or a file. Must not know what the commands are for.
"""

from __future__ import annotations

import base64
import os
import re
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from adw_modules.errors import WorkspaceError
from coordinator.workspaces.files import remove_links, restore
from coordinator.workspaces.places import BLOCKED_FILE, PREVIOUS_CONFIG, SANDBOX_GIT, Mirror, Tree

FETCH_REFSPEC = "+refs/heads/*:refs/remotes/origin/*"
PUSH_REMOTE = "coordinator"  # a remote only our own commands know: `origin` cannot be pushed to
SHA = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
NETWORK_TIMEOUT_SECONDS = 900.0  # the first fetch of a large repository; silence ends far sooner
LOCAL_TIMEOUT_SECONDS = 120.0
_CHUNK = 1 << 18  # bytes of an object that are read at a time

_SAYS_NOTHING = re.compile(
    r"fatal: Could not read from remote|Please make sure you have|and the repository exists"
)

# What git may inherit from the daemon: where programs, keys, proxies and certificates are. No credentials.
# fmt: off
_INHERITED = (
    "PATH", "HOME", "TMPDIR", "SSH_AUTH_SOCK", "SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO",
    "CURL_CA_BUNDLE", "http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy",
    "NO_PROXY",
)
# fmt: on

_FIXED_ENVIRONMENT = {
    "LC_ALL": "C.UTF-8",  # messages are read by us and shown to operators: one language
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_DEFAULT_REF_FORMAT": "files",  # what the config that we give each mirror says
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ALLOW_PROTOCOL": "file:http:https:ssh",  # outranks protocol.* in any config: no `ext::`
    "GIT_SSH_COMMAND": "ssh -o BatchMode=yes",
    "GIT_NO_REPLACE_OBJECTS": "1",  # an agent could have us look at another history than we push
    "GIT_GRAFT_FILE": os.devnull,
    "GIT_EDITOR": ":",
    "GIT_PAGER": "cat",
    "GIT_NO_LAZY_FETCH": "1",
}

# Command scope outranks every file. Our commands do not read the mirror's config (`_own_side`) either.
_FIXED_CONFIG = (
    ("core.hooksPath", os.devnull),
    ("core.fsmonitor", "false"),
    ("core.attributesFile", os.devnull),
    ("core.excludesFile", os.devnull),
    ("core.commitGraph", "false"),  # a file in the mirror that may tell of other parents
    ("core.askPass", ""),
    ("credential.helper", ""),
    ("commit.gpgSign", "false"),
    ("push.gpgSign", "false"),
    ("submodule.recurse", "false"),
    ("diff.ignoreSubmodules", "dirty"),  # looking into one would read a config of an agent's making
    ("log.showSignature", "false"),
    ("core.commitGraph", "false"),  # files beside the objects, which could say anything
    ("core.multiPackIndex", "false"),
    ("protocol.ext.allow", "never"),
    ("gc.auto", "0"),  # collecting garbage beside running agents has lost objects elsewhere
    ("maintenance.auto", "false"),
    ("http.lowSpeedLimit", "1000"),
    ("http.lowSpeedTime", "60"),
)


class GitAuth:
    """Credentials for one remote over HTTP. GitHub takes any token as password of `x-access-token`.

    A secret that lasts an hour is given as a function. It is called at the first command that needs it, so
    that what needs no network never fails for want of a token, and what waited for a lock has a fresh one.
    """

    def __init__(self, *, secret: str | Callable[[], str], username: str = "x-access-token") -> None:
        self._ask = secret if callable(secret) else None
        self._secret = None if callable(secret) else secret
        self.username = username

    @property
    def secret(self) -> str:
        """Raises WorkspaceError when there is none."""
        if self._secret is None:
            assert self._ask is not None  # noqa: S101  one of the two is set
            self._secret = self._ask()
        return self._secret

    @property
    def header(self) -> str:
        pair = f"{self.username}:{self.secret}".encode()
        return f"Authorization: Basic {base64.b64encode(pair).decode()}"

    @property
    def spellings(self) -> tuple[str, ...]:
        """How the secret may look in what git says; none before it was used."""
        return () if self._secret is None else (self._secret, self.header.rsplit(" ", 1)[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A git process that has ended."""

    code: int
    out: str
    err: str


class Git:
    """The only place that starts git: clean environment, our config, bounded time."""

    def __init__(self, user: tuple[str, str], environ: Mapping[str, str]) -> None:
        self._user = user
        self._environment = {name: environ[name] for name in _INHERITED if name in environ}
        self._environment |= _FIXED_ENVIRONMENT
        self._lock = threading.Lock()
        self._network_processes: set[subprocess.Popen[bytes]] = set()
        self._is_stopped = False

    def read(self, where: Mirror | Tree, *arguments: str) -> str:
        """What the command prints. Raises WorkspaceError if it fails."""
        done = self.run(where, list(arguments))
        if done.code:
            raise WorkspaceError(f"git {_verb(arguments)} failed in {where.path}: {last_line(done.err)}")
        return done.out

    def read_bytes(self, where: Mirror | Tree, arguments: list[str], stdin: str | bytes) -> bytes:
        """What a local command prints, byte for byte. Raises WorkspaceError if it fails."""
        done = self._finish(where, arguments, stdin)
        if done[0]:
            told = last_line(done[2].decode(errors="replace"))
            raise WorkspaceError(f"git {_verb(arguments)} failed in {where.path}: {told}")
        return done[1]

    def succeeds(self, where: Mirror | Tree, *arguments: str) -> bool:
        """For commands that answer yes or no by their exit code."""
        return self.run(where, list(arguments)).code == 0

    def run(
        self,
        where: Mirror | Tree,
        arguments: list[str],
        *,
        auth: GitAuth | None = None,
        is_network: bool = False,
        stdin: str = "",
    ) -> Finished:
        """Run to the end, whatever the exit code. Raises WorkspaceError after the time limit."""
        code, out, err = self._finish(where, arguments, stdin, auth=auth, is_network=is_network)
        return Finished(code=code, out=_text(out), err=_text(err))

    def _finish(
        self,
        where: Mirror | Tree,
        arguments: list[str],
        stdin: str | bytes,
        *,
        auth: GitAuth | None = None,
        is_network: bool = False,
    ) -> tuple[int, bytes, bytes]:
        mirror = where.mirror if isinstance(where, Tree) else where
        _seal(mirror, self._user)
        _own_side(mirror, self._user)
        if isinstance(where, Tree):  # an agent can write there, in a sandbox too
            remove_links(where.admin, but=_is_not_gits)
        environment = self._environment | _config_environment(mirror, auth) | _place_environment(where)
        process = self._start(arguments, where.path, environment, is_network=is_network)
        try:
            limit = NETWORK_TIMEOUT_SECONDS if is_network else LOCAL_TIMEOUT_SECONDS
            data = stdin if isinstance(stdin, bytes) else stdin.encode(errors="replace")
            out, err = process.communicate(data, limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # git's helpers hold the pipes: end them too
            process.communicate()
            raise WorkspaceError(f"git {_verb(arguments)} did not end in time and was stopped.") from None
        finally:
            with self._lock:
                self._network_processes.discard(process)
        return process.returncode, out, err

    def objects(self, mirror: Mirror, shas: Iterable[str]) -> Iterator[tuple[str, str, Iterator[bytes]]]:
        """(sha, kind, content in chunks) of each object, by one process; read each before the next.

        Raises WorkspaceError for one that is missing, or when git ends early.
        """
        _seal(mirror, self._user)
        _own_side(mirror, self._user)
        environment = self._environment | _config_environment(mirror, None) | _place_environment(mirror)
        with tempfile.TemporaryFile() as asked:
            asked.write("".join(f"{sha}\n" for sha in shas).encode())
            asked.seek(0)
            process = subprocess.Popen(
                ["git", "cat-file", "--batch", "--buffer"],
                cwd=mirror.path,
                env=environment,
                stdin=asked,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        try:
            yield from _batch(process, mirror)
        finally:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()

    def config_of(self, mirror: Mirror) -> str:
        """The text of the mirror's config, as agents may read it."""
        return _mirror_config(mirror.remote_url, self._user)

    def stop(self) -> None:
        """End running network commands and refuse new ones."""
        with self._lock:
            self._is_stopped = True
            for process in self._network_processes:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    def _start(
        self, arguments: list[str], cwd: Path, environment: dict[str, str], *, is_network: bool
    ) -> subprocess.Popen[bytes]:
        with self._lock:
            if is_network and self._is_stopped:
                raise WorkspaceError(f"git {_verb(arguments)} was not started: Coordinator is stopping.")
            process = subprocess.Popen(
                ["git", *arguments],
                cwd=cwd,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
            if is_network:
                self._network_processes.add(process)
            return process


def _batch(process: subprocess.Popen[bytes], mirror: Mirror) -> Iterator[tuple[str, str, Iterator[bytes]]]:
    """What `cat-file --batch` prints: a line that names the object, its content, an end of line."""
    assert process.stdout is not None  # noqa: S101  it was asked for
    out = process.stdout
    while header := out.readline().decode(errors="replace").split():
        if len(header) != 3:
            raise WorkspaceError(f"An object of {mirror.repo} is missing: {header[0]}.")
        content = _exactly(out, int(header[2]))
        yield header[0], header[1], content
        for _ in content:  # whatever was left unread
            pass
        out.read(1)
    if process.wait() != 0:
        raise WorkspaceError(f"git cat-file failed in {mirror.path}.")


def _exactly(stream: IO[bytes], size: int) -> Iterator[bytes]:
    while size > 0:
        chunk = stream.read(min(size, _CHUNK))
        if not chunk:
            raise WorkspaceError("git cat-file ended in the middle of an object.")
        size -= len(chunk)
        yield chunk


def _text(data: bytes) -> str:
    return data.decode(errors="replace").replace("\r\n", "\n")


def last_line(text: str, auth: GitAuth | None = None) -> str:
    """The last line of git's complaint that says something, without secrets."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not _SAYS_NOTHING.match(line)]
    told = [line for line in lines if line.startswith(("fatal:", "error:"))] or lines
    line = re.sub(r"^(fatal|error): ", "", told[-1]) if told else "git said nothing"
    for secret in auth.spellings if auth else ():
        line = line.replace(secret, "[redacted]") if secret else line
    return line[:500]


def _verb(arguments: list[str] | tuple[str, ...]) -> str:
    return next(argument for argument in arguments if not argument.startswith("-"))


# The environment of one command


def _place_environment(where: Mirror | Tree) -> dict[str, str]:
    """Say where the repository is, so that git never follows a `.git` that an agent put somewhere."""
    if isinstance(where, Mirror):
        return {"GIT_DIR": str(own_side(where))}
    return {
        "GIT_DIR": str(where.admin),
        "GIT_COMMON_DIR": str(own_side(where.mirror)),
        "GIT_WORK_TREE": str(where.path),
    }


def _config_environment(mirror: Mirror, auth: GitAuth | None) -> dict[str, str]:
    """Settings for one command by environment: in argv every process could read the header."""
    settings = [
        *_FIXED_CONFIG,
        (f"remote.{PUSH_REMOTE}.url", mirror.remote_url),
        (f"remote.{PUSH_REMOTE}.fetch", FETCH_REFSPEC),  # so that a push moves the tracking branch as well
    ]
    if auth is not None and mirror.remote_url.startswith(("https://", "http://")):
        settings.append((f"http.{mirror.remote_url}.extraHeader", auth.header))
    environment = {"GIT_CONFIG_COUNT": str(len(settings))}
    for index, (key, value) in enumerate(settings):
        environment[f"GIT_CONFIG_KEY_{index}"] = key
        environment[f"GIT_CONFIG_VALUE_{index}"] = value
    return environment


# Files of ours in places that agents can write


def _seal(mirror: Mirror, user: tuple[str, str]) -> None:
    """Put back the mirror's config and ignore list if anybody changed them; two small reads if not.

    They are for the agents' own git. Only the list of other object folders concerns ours: through one,
    what is in another repository could be pushed to this one.
    """
    restore(mirror.path / "config", _mirror_config(mirror.remote_url, user))
    restore(mirror.path / "info" / "exclude", f"/{BLOCKED_FILE}\n")
    for planted in ("info/attributes", "objects/info/alternates", "objects/info/http-alternates"):
        (mirror.path / planted).unlink(missing_ok=True)


_SHARED = ("objects", "refs", "packed-refs", "logs", "worktrees")


def _is_not_gits(name: str) -> bool:
    """Folders in a worktree's git directory where our commands neither read nor write."""
    return name in ("modules", "lfs", PREVIOUS_CONFIG) or name.startswith(SANDBOX_GIT)


def own_side(mirror: Mirror) -> Path:
    """The git directory of our own commands: the mirror's objects and refs, with a config apart.

    A worker is never given this folder. So there is no moment in which an agent of another task could have
    put a program into the config that our command reads.
    """
    return mirror.path.with_name(f"{mirror.path.name}.ours")


def _own_side(mirror: Mirror, user: tuple[str, str]) -> None:
    """Make it if it is not there; a few looks if it is."""
    side = own_side(mirror)
    if not (side / "HEAD").exists():
        side.mkdir(mode=0o700, exist_ok=True)
        (mirror.path / "logs").mkdir(exist_ok=True)
        (mirror.path / "worktrees").mkdir(exist_ok=True)
        for name in _SHARED:
            with suppress(FileExistsError):  # another thread of ours is making it, too
                (side / name).symlink_to(mirror.path / name)
        (side / "HEAD").write_text("ref: refs/heads/main\n")  # last: with it the folder is whole
    restore(side / "config", _mirror_config(mirror.remote_url, user))
    restore(side / "info" / "exclude", f"/{BLOCKED_FILE}\n")


def _mirror_config(remote_url: str, user: tuple[str, str]) -> str:
    """The mirror's config, byte for byte. Agents read it too: an identity, and nowhere to push to."""
    name, email = user
    return f"""\
# Written by Coordinator before each of its git commands; changes do not last.
[core]
\trepositoryformatversion = 0
\tfilemode = true
\tbare = true
\tlogAllRefUpdates = true
[user]
\tname = {_quoted(name)}
\temail = {_quoted(email)}
[remote "origin"]
\turl = {_quoted(remote_url)}
\tpushurl = {os.devnull}
\tfetch = {FETCH_REFSPEC}
\ttagOpt = --no-tags
[gc]
\tauto = 0
[maintenance]
\tauto = false
"""


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
    return f'"{escaped}"'
