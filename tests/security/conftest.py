"""The security suite: what an attacker would try, on the stage of the scenarios. All is marked `security`."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

_SCENARIOS = Path(__file__).parents[1] / "scenarios"
sys.path.insert(0, str(_SCENARIOS))

_spec = importlib.util.spec_from_file_location("scenarios_conftest", _SCENARIOS / "conftest.py")
assert _spec is not None
assert _spec.loader is not None
_stage = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_stage)
a_world, world = _stage.a_world, _stage.world


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.security)
