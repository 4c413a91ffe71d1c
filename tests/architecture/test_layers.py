"""The import arrows of docs/architecture.md hold: who may know whom."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from importlinter.api import read_configuration

ROOT = Path(__file__).resolve().parents[2]
CORE = sorted((ROOT / "adw_modules").rglob("*.py"))


def imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_every_contract_of_import_linter_is_kept():
    # In a process of its own: it silences the loggers of the process it runs in.
    program = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_contracts_name_what_the_core_may_not_import(monkeypatch):
    monkeypatch.chdir(ROOT)
    contracts = read_configuration("pyproject.toml")["contracts_options"]
    forbidden = next(
        each
        for each in contracts
        if each["source_modules" if "source_modules" in each else "layers"] == ["adw_modules"]
    )
    io = {
        "asyncio",
        "subprocess",
        "sqlite3",
        "sqlalchemy",
        "httpx",
        "github",
        "apscheduler",
        "random",
        "socket",
        "threading",
    }
    assert io <= set(forbidden["forbidden_modules"])


@pytest.mark.parametrize("file", CORE, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_core_module_reads_no_clock(file):
    # import-linter sees modules, not names: `from time import monotonic` is a clock as well.
    assert "time" not in {name.split(".")[0] for name in imports(file)}


def test_the_shim_needs_nothing_but_the_standard_library():
    # It starts once per run as a program of its own, without site-packages.
    roots = {name.split(".")[0] for name in imports(ROOT / "coordinator" / "shim.py")}
    assert roots <= sys.stdlib_module_names


def test_only_the_github_package_knows_pygithub():
    knowing = {
        file
        for file in (ROOT / "coordinator").rglob("*.py")
        if "github" in {n.split(".")[0] for n in imports(file)}
    }
    assert {file.parent.name for file in knowing} == {"github"}


def test_only_the_store_knows_sqlalchemy():
    knowing = [
        file
        for file in (ROOT / "coordinator").rglob("*.py")
        if "sqlalchemy" in {n.split(".")[0] for n in imports(file)}
    ]
    assert knowing
    assert all("store" in file.relative_to(ROOT).parts for file in knowing)
