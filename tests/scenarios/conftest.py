"""Scenarios: histories told to a real daemon. `world` is the usual stage; `a_world` makes one to measure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from world import World


@pytest.fixture
def a_world(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., World]]:
    """Make a world whose configuration differs from the usual one: section=dict, or a list of tables."""
    made: list[World] = []
    cold = (
        request.node.get_closest_marker("crash") is not None
    )  # as a user starts it: the suite with the time

    def make(**config: Any) -> World:
        folder = tmp_path / f"world-{len(made)}"
        folder.mkdir()
        sections = {name.replace("__", "."): value for name, value in config.items()}
        made.append(World(folder, sections, cold=cold))
        return made[-1]

    yield make
    for world in made:
        world.close()
    structlog.reset_defaults()


@pytest.fixture
def world(a_world: Callable[..., World]) -> World:
    return a_world()
