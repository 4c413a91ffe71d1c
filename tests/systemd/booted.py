"""A real systemd, booted for a test by a program like `with-systemd`, and ways to work in it.

The systemd is process 1 of its own process namespace; /etc, /var and /run inside are its own, the rest of the
file system is the machine's, and so is the loopback network: a server of the test can be reached from inside.
What is started inside ends with `Booted.close`, whatever it is.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

CHECKOUT = Path(__file__).resolve().parents[2]
PATIENCE = 20.0  # seconds until a condition counts as never coming true
LONGEST = 170  # seconds one booted systemd may live

_INSIDE = Path(__file__).with_name("inside.py")
_CANNOT_RUN = 77
_T = TypeVar("_T")

# A folder that only root may enter, as /root is, hides the Python that our program runs on from every other
# user. Inside it is laid over by a copy that may be passed through: the machine's own folder stays as it is.
_OPEN_FOLDER = """
set -e
over=/run/opened/$(echo "$1" | tr / _)
mkdir -p "$over/upper" "$over/work"
mount -t overlay overlay -o "lowerdir=$1,upperdir=$over/upper,workdir=$over/work" "$1"
chmod o+x "$1"
"""


class CannotBoot(Exception):
    """There is no systemd to be had here; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """How a command inside ended and what it said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def booter() -> Path:
    """The program that boots: $COORDINATOR_WITH_SYSTEMD, or shared/bin/with-systemd beside the checkout.

    Raises CannotBoot when there is none, or nobody who may use it.
    """
    named = os.environ.get("COORDINATOR_WITH_SYSTEMD")
    found = Path(named) if named else CHECKOUT.parent / "shared" / "bin" / "with-systemd"
    if not os.access(found, os.X_OK):
        raise CannotBoot("there is no with-systemd here: name it in COORDINATOR_WITH_SYSTEMD")
    if os.geteuid() != 0:
        raise CannotBoot("booting a systemd needs root")
    return found


class Booted:
    """One systemd. Commands run inside as root, one after the other."""

    def __init__(self) -> None:
        # The same Python by its real path: a link of a virtual environment may lead through a closed folder.
        self._process = subprocess.Popen(
            [str(booter()), "--timeout", str(LONGEST), os.path.realpath(sys.executable), "-I", str(_INSIDE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            self._read()
            for folder in closed_folders(Path(sys.base_prefix), CHECKOUT):
                self.run("sh", "-c", _OPEN_FOLDER, "open", str(folder))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the systemd and everything in it."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for stream in (self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()

    def __enter__(self) -> Booted:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    # -- commands --------------------------------------------------------------------------------------

    def run(
        self,
        *argv: str,
        check: bool = True,
        stdin: str = "",
        timeout: float = 30.0,
        **env: str,
    ) -> Done:
        """One command inside, as root, to its end. With `check` a failure is one of the test."""
        assert self._process.stdin is not None
        request = {"argv": argv, "input": stdin, "timeout": timeout, "env": env}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._read()
        assert "error" not in answer, f"{argv}: {answer['error']}"
        done = Done(**answer)
        assert done.code == 0 or not check, f"{argv} ended with {done.code}\n{done.out}{done.err}"
        return done

    def run_as(self, user: str, *argv: str, check: bool = True, **env: str) -> Done:
        """The same as somebody else."""
        as_user = 'setpriv --reuid "$0" --regid "$(id --group "$0")" --init-groups "$@"'
        return self.run("sh", "-c", as_user, user, *argv, check=check, **env)

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        line = self._process.stdout.readline()
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        said = self._process.stderr.read().strip()
        if self._process.wait() == _CANNOT_RUN:
            raise CannotBoot(said)
        raise AssertionError(f"the booted systemd is gone (exit {self._process.returncode}): {said}")

    # -- files -----------------------------------------------------------------------------------------

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file inside; folders above it are made. Only /etc, /var and /run are the systemd's own."""
        assert path.startswith(("/etc/", "/var/", "/run/")), path
        self.run("sh", "-c", 'mkdir -p "$(dirname "$1")" && cat > "$1" && chmod "$2" "$1"',
                 "write", path, f"{mode:o}", stdin=text)  # fmt: skip

    def read(self, path: str) -> str:
        return self.run("cat", path).out

    def exists(self, path: str) -> bool:
        return self.run("test", "-e", path, check=False).code == 0

    # -- units and the journal ---------------------------------------------------------------------------

    def systemctl(self, *arguments: str, check: bool = True) -> Done:
        return self.run("systemctl", *arguments, check=check, timeout=60)

    def show(self, unit: str, *names: str) -> dict[str, str]:
        """Properties of a unit, as systemd says them."""
        lines = self.systemctl("show", unit, "--property", ",".join(names)).out.splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def journal(self, unit: str, *options: str) -> list[dict[str, Any]]:
        """The unit's entries, oldest first, with all their fields."""
        lines = self.run("journalctl", "--unit", unit, "--output", "json", "--no-pager", *options).out
        return [json.loads(line) for line in lines.splitlines()]

    def messages(self, unit: str) -> str:
        """What the unit and systemd about it have written, as text."""
        return "\n".join(str(entry.get("MESSAGE")) for entry in self.journal(unit))

    # -- waiting -----------------------------------------------------------------------------------------

    def until(self, condition: Callable[[], _T], what: str, *, within: float = PATIENCE) -> _T:
        """Look again and again until it is true; its value."""
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            found = condition()
            if found:
                return found
            time.sleep(0.05)
        raise AssertionError(f"waited {within:.0f} s in vain: {what}")


def closed_folders(*paths: Path) -> list[Path]:
    """The folders on the way to these paths that others may not pass through, the outermost first."""
    above = {folder for path in paths for folder in (path, *path.parents)}
    return sorted(folder for folder in above if folder.stat().st_mode & 0o001 == 0)
