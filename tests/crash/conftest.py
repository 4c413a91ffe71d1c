"""Tests that kill stand on the stage of the scenarios; `a_stage` has witnesses there as well (stage.py)."""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from stage import Stage

PR_SET_CHILD_SUBREAPER = 36

_SCENARIOS = Path(__file__).parents[1] / "scenarios"
sys.path.insert(0, str(_SCENARIOS))

_spec = importlib.util.spec_from_file_location("scenarios_conftest", _SCENARIOS / "conftest.py")
assert _spec is not None
assert _spec.loader is not None
_stage = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_stage)
a_world, world = _stage.a_world, _stage.world


@pytest.fixture
def _orphans_are_ours() -> Iterator[None]:
    """Whatever loses its parent becomes a child of this process, so that none can be overlooked."""
    libc = ctypes.CDLL(None)
    assert libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    yield
    libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


@pytest.fixture
def a_stage(tmp_path: Path, _orphans_are_ours: None) -> Iterator[Callable[..., Stage]]:
    """Make a stage whose configuration differs from the usual one: section=dict, or a list of tables."""
    from stage import Stage

    made: list[Stage] = []

    def make(**config: Any) -> Stage:
        made.append(Stage(tmp_path, config))
        return made[-1]

    yield make
    for stage in made:
        stage.close()


@pytest.fixture
def stage(a_stage: Callable[..., Stage]) -> Stage:
    return a_stage()
