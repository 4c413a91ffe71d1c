"""Rule 10: what keeps a host from confining runs is told by `doctor`, before a run has to find out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from adw_modules.config import SandboxSettings
from coordinator.bubblewrap import find

FOUND = find(SandboxSettings(), os.environ)
pytestmark = [
    pytest.mark.skipif(FOUND.box is None, reason=f"no sandbox here: {FOUND.problem}"),
    pytest.mark.skipif(
        os.uname().machine != "x86_64", reason="the filter has numbers of this machine's calls"
    ),
]

# Has a call refused, as a container's profile does: always, or only where it is about another process.
REFUSES = """
import ctypes, os, struct, sys
number, only_others = int(sys.argv[1]), int(sys.argv[2])
ALLOW, EPERM = 0x7FFF0000, 0x00050001
steps = [(0x20, 0, 0, 0), (0x15, 0, 3, number), (0x20, 0, 0, 16), (0x15, only_others, 0, 0),
         (0x06, 0, 0, EPERM), (0x06, 0, 0, ALLOW)]
program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
libc = ctypes.CDLL(None, use_errno=True)
class Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("steps", ctypes.c_void_p)]
whole = Filter(len(steps), ctypes.cast(program, ctypes.c_void_p))
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(whole), 0, 0) == 0, ctypes.get_errno()
os.execv(sys.executable, [sys.executable, *sys.argv[3:]])
"""
SETNS, PRLIMIT = 308, 302


@pytest.fixture
def config(tmp_path) -> Path:
    path = tmp_path / "adws" / "config.toml"
    path.parent.mkdir()
    path.write_text(
        '[llm]\nprovider = "mine"\nmodel_default = "m"\n[providers.mine]\nagent = "generic"\n'
        'command_template = ["true", "{model}"]\n'
    )
    return path


def about_sandbox(config: Path, *refused: int) -> list[dict[str, str]]:
    doctor = ["-m", "coordinator", "doctor", "--json", "--config", str(config)]
    argv = ["-c", REFUSES, *map(str, refused), *doctor] if refused else doctor
    env = {"PATH": os.environ["PATH"], "HOME": str(config.parent)}
    done = subprocess.run(
        [sys.executable, *argv], capture_output=True, text=True, timeout=60, check=False, env=env
    )
    assert done.stdout, done.stderr
    return [each for each in json.loads(done.stdout) if each["check"] == "sandbox"]


@pytest.mark.parametrize(
    ("refused", "complaint"),
    [
        ((SETNS, 0), "cannot enter the sandbox's"),
        ((PRLIMIT, 1), "cannot limit processes of the sandbox: Operation not permitted"),
    ],
)
def test_doctor_tries_all_that_a_run_needs(config, refused, complaint):
    (problem,) = [each for each in about_sandbox(config, *refused) if each["ok"] is False]
    assert problem["text"].startswith("runs of mine would not begin in it: ")
    assert complaint in problem["text"]
    assert "seccomp profile" in problem["text"]
    assert "[sandbox]" in problem["mend"]


def test_where_nothing_is_refused_doctor_says_that_the_sandbox_works_and_leaves_nothing(config):
    before = set(Path("/tmp").glob("coordinator-trial-*"))
    found = about_sandbox(config)
    assert [each for each in found if each["ok"] is False] == []
    assert "works" in found[0]["text"]
    assert set(Path("/tmp").glob("coordinator-trial-*")) <= before
