"""Scenarios: histories told to a real daemon. `world` is the usual stage; `a_world` makes one to measure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from world import World


@pytest.fixture
def a_world(tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Make a world whose configuration differs from the usual one: section=dict, or a list of tables."""
    made: list[World] = []

    def make(**config: Any) -> World:
        folder = tmp_path / f"world-{len(made)}"
        folder.mkdir()
        made.append(World(folder, {name.replace("__", "."): value for name, value in config.items()}))
        return made[-1]

    yield make
    for world in made:
        world.close()
    structlog.reset_defaults()


@pytest.fixture
def world(a_world: Callable[..., World]) -> World:
    return a_world()
