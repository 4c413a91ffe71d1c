"""Tests under a real systemd: one is booted for a whole file, or they are all skipped with the reason."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from booted import Booted, CannotBoot
from service_stage import Stage


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.systemd)


@pytest.fixture(scope="module")
def booted() -> Iterator[Booted]:
    """A systemd of this file's own. Starting one takes about a second."""
    try:
        systemd = Booted()
    except CannotBoot as reason:
        pytest.skip(f"no systemd can be booted: {reason}")
    with systemd:
        yield systemd


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """A systemd of the test's own with the installed service in it, and a GitHub outside."""
    try:
        systemd = Booted()
    except CannotBoot as reason:
        pytest.skip(f"no systemd can be booted: {reason}")
    with systemd:
        made = Stage(tmp_path, systemd)
        yield made
        made.close()
