"""One `emulate` for each module; without Node its tests skip and say so."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from emulate_server import PROGRAM, Emulate, running


@pytest.fixture(scope="module")
def emulate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulate]:
    """A fresh server."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs Node: install it, then run `npm ci --prefix tests/npm`")
    if not PROGRAM.is_file():
        pytest.skip("needs emulate: run `npm ci --prefix tests/npm`")
    with running(tmp_path_factory.mktemp("emulate"), node) as server:
        yield server
