"""Every fault point has a place in the code, a row in the document and a test."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from coordinator.faultpoints import STEPS, Point

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "crash-table.py"


def call_sites() -> Counter[str]:
    """How often the code passes each point: `reached(Point.X)`, or `_reached("x")` in the shim."""
    found: Counter[str] = Counter()
    for file in (ROOT / "coordinator").rglob("*.py"):
        text = file.read_text()
        found.update(Point[name] for name in re.findall(r"\breached\(Point\.(\w+)\)", text))
        if file.name == "shim.py":
            found.update(re.findall(r'\b_reached\("([\w.]+)"\)', text))
    return found


def test_every_fault_point_stands_at_exactly_one_place_and_the_shim_knows_no_other():
    assert call_sites() == Counter({str(point): 1 for point in Point})


@pytest.mark.parametrize("point", Point, ids=str)
def test_every_fault_point_says_where_it_stands_and_what_survives_there(point: Point):
    step = STEPS[point]
    assert all((step.after, step.before))
    assert step.survives.endswith(".")
    assert "|" not in step.after + step.before + step.survives


def test_the_crash_table_is_the_one_that_the_fault_points_make():
    done = subprocess.run(
        [sys.executable, TOOL, "--check"], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_tests_that_the_crash_table_names_exist_and_take_their_parameters_from_the_fault_points():
    tool = TOOL.read_text()
    tests = ast.parse((ROOT / "tests" / "crash" / "test_every_step.py").read_text())
    functions = {node.name: ast.unparse(node) for node in tests.body if isinstance(node, ast.FunctionDef)}
    values = {
        node.targets[0].id: ast.unparse(node.value) for node in tests.body if isinstance(node, ast.Assign)
    }
    for name, points in (("OF_DAEMON", "not point.is_of_shim"), ("OF_SHIM", "point.is_of_shim")):
        test = re.search(rf'^{name} = "(\w+)"$', tool, re.MULTILINE)
        assert test is not None
        assert f"parametrize('point', {name}, ids=str)" in functions[test[1]]
        assert values[name] == f"[point for point in Point if {points}]"
