"""A fault point kills the process that is told to die there, and does nothing to any other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from adw_modules.errors import ConfigError
from coordinator import faultpoints
from coordinator.faultpoints import SHIM_VARIABLE, VARIABLE, Point

ROOT = Path(__file__).resolve().parents[2]
PASS_BY = """
import os
from coordinator import faultpoints
from coordinator.faultpoints import Point, reached
faultpoints.arm(os.environ)
print("inherited:", [name for name in os.environ if "FAULT" in name], flush=True)
for number in range(1, 4):
    print(number, flush=True)
    reached(Point.CLAIMED)
    reached(Point.SETTLED)
"""


def pass_by(fault: str | None) -> tuple[int, list[str]]:
    """Pass two points three times; (exit code, what was printed)."""
    environ = {name: value for name, value in os.environ.items() if "FAULT" not in name}
    if fault is not None:
        environ |= {VARIABLE: fault, SHIM_VARIABLE: "from outside"}
    done = subprocess.run(
        [sys.executable, "-c", PASS_BY], env=environ, cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout.splitlines()


@pytest.mark.parametrize(
    ("fault", "passes"), [("claim.committed", 1), ("settle.committed:1", 1), ("claim.committed:3", 3)]
)
def test_the_armed_point_kills_at_the_pass_that_was_asked_for(fault: str, passes: int):
    code, lines = pass_by(fault)
    assert code == -signal.SIGKILL
    assert lines == ["inherited: []", *map(str, range(1, passes + 1))]


@pytest.mark.parametrize("fault", [None, "", "pull.created", "claim.committed:4"])
def test_nobody_dies_at_a_point_that_is_not_armed_or_not_passed_often_enough(fault: str | None):
    assert pass_by(fault)[0] == 0


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (
            "claim.comitted",
            "COORDINATOR_FAULT: there is no fault point 'claim.comitted'; did you mean claim.committed?",
        ),
        ("?", "COORDINATOR_FAULT: there is no fault point '?'; docs/crash-table.md lists them."),
        (
            "claim.committed:0",
            "COORDINATOR_FAULT: '0' is not the number of a pass; write claim.committed or claim.committed:3.",
        ),
        (
            "claim.committed:x",
            "COORDINATOR_FAULT: 'x' is not the number of a pass; write claim.committed or claim.committed:3.",
        ),
    ],
)
def test_a_fault_that_cannot_be_armed_is_refused_in_one_sentence(fault: str, sentence: str):
    with pytest.raises(ConfigError) as caught:
        faultpoints.arm({VARIABLE: fault})
    assert str(caught.value) == sentence


def test_without_a_fault_shims_hear_nothing_of_it():
    faultpoints.arm({})
    assert faultpoints.shim_environment() == {}
    faultpoints.reached(Point.CLAIMED)
