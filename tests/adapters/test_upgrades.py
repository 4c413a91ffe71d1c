"""Runs that meet another version: of the shim's file, of the daemon's code, of the run directory's format."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import pytest
from test_launcher import FOREVER, READY_FOREVER, a_spec, end, with_launcher
from worker_processes import is_running, wait_for_end

from adw_modules.errors import SpawnError
from coordinator import launcher, shim
from coordinator.launcher import Alive, Exited, Launcher, Lost, NeverStarted

SAMPLES = Path(__file__).parents[1] / "samples" / "run-dirs"
ENDED = {  # what format 1 says of each kept directory, for ever: (exit code, signal, reason, detail)
    "ended-well": (0, None, "exited", ""),
    "ended-with-7": (7, None, "exited", ""),
    "ended-by-a-signal": (None, 9, "exited", ""),
    "out-of-memory": (None, 9, "exited", "out of memory (limit 64M)"),
    "could-not-be-executed": (
        127,
        None,
        "exec_failed",
        "[Errno 2] No such program on PATH: 'no-such-program'",
    ),
    "ran-into-its-deadline": (None, 2, "deadline", "the agent ran into its deadline (ended by SIGINT)"),
    "was-silent": (None, 2, "stalled", "the agent wrote nothing for 0.3 seconds (ended by SIGINT)"),
    "was-stopped": (0, None, "stopped", "issue closed (ended by SIGINT)"),
}
NOT_ENDED = {
    "shim-was-killed": Lost,
    "killed-before-the-pid-was-known": Lost,
    "never-started": NeverStarted,
    "revoked": NeverStarted,
}


# --- older formats ----------------------------------------------------------------------------------------


def test_every_format_there_was_has_its_samples():
    kept = {folder.name for folder in SAMPLES.iterdir()}
    assert kept == {f"format-{number}" for number in range(1, shim.FORMAT + 1)}
    assert {case.name for case in (SAMPLES / "format-1").iterdir()} == {*ENDED, *NOT_ENDED}


@pytest.mark.parametrize("case", ENDED)
def test_how_a_run_of_format_1_ended_is_still_understood(tmp_path, case):
    run_dir = shutil.copytree(SAMPLES / "format-1" / case, tmp_path / "gh-1.1")
    state = Launcher(tmp_path).adopt(run_dir)
    assert isinstance(state, Exited)
    record = asdict(state.record)
    assert tuple(record[name] for name in ("exit_code", "exit_signal", "reason", "detail")) == ENDED[case]
    assert timedelta() <= state.record.ended_at - state.record.started_at < timedelta(seconds=5)


@pytest.mark.parametrize("case", NOT_ENDED)
def test_what_became_of_an_unended_run_of_format_1_is_still_understood(tmp_path, case):
    run_dir = shutil.copytree(SAMPLES / "format-1" / case, tmp_path / "gh-1.1")
    assert isinstance(Launcher(tmp_path).adopt(run_dir), NOT_ENDED[case])


def test_the_shim_of_today_starts_what_a_daemon_of_format_1_asked_for_and_answers_in_it(tmp_path):
    run_dir = shutil.copytree(SAMPLES / "format-1" / "never-started", tmp_path / "gh-1.1")
    command = [sys.executable, "-I", "-S", shim.__file__, str(run_dir)]
    answer = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=15).stdout)
    wait_for_end(answer["shim_pid"])
    assert answer["format"] == 1
    assert json.loads((run_dir / "exit").read_bytes())["format"] == 1


# --- newer formats ----------------------------------------------------------------------------------------


def make_newer(run_dir: Path, name: str) -> None:
    record = json.loads((run_dir / name).read_bytes()) | {"format": shim.FORMAT + 1}
    (run_dir / name).write_text(json.dumps(record))


@pytest.mark.parametrize("name", ["spec.json", "started", "exit"])
def test_a_run_of_a_newer_version_is_neither_judged_nor_touched(tmp_path, name):
    run_dir = shutil.copytree(SAMPLES / "format-1" / "ended-well", tmp_path / "gh-1.1")
    make_newer(run_dir, name)
    before = {path.name: path.read_bytes() for path in run_dir.iterdir()}
    sentence = rf"gh-1\.1 is left alone: a newer version wrote its `{name}` \(format 2; .* up to 1\)"
    with pytest.raises(SpawnError, match=sentence):
        Launcher(tmp_path).adopt(run_dir)
    assert {path.name: path.read_bytes() for path in run_dir.iterdir()} == before


def test_a_living_run_of_a_newer_version_goes_on(tmp_path, runs):
    handle = with_launcher(runs, lambda one: one.launch(a_spec(tmp_path, FOREVER)))
    make_newer(handle.run_dir, "started")
    with pytest.raises(SpawnError, match="a newer version"):
        Launcher(runs).adopt(handle.run_dir)
    assert is_running(handle.child_pid)
    assert end(handle).reason == "stopped"


def test_an_older_shim_does_not_start_what_a_newer_daemon_asks_for(tmp_path):
    run_dir = shutil.copytree(SAMPLES / "format-1" / "never-started", tmp_path / "gh-1.1")
    make_newer(run_dir, "spec.json")
    command = [sys.executable, "-I", "-S", shim.__file__, str(run_dir)]
    answer = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=15).stdout)
    assert answer["refused"] == "spec.json has format 2, this shim knows 1"
    assert not (run_dir / "started").exists()


# --- a shim whose file is replaced while it lives ---------------------------------------------------------


@pytest.mark.parametrize("how", ["overwritten", "deleted"])
def test_a_run_whose_shim_was_replaced_on_the_disk_is_adopted_and_ends_as_ever(tmp_path, runs, how):
    package = tmp_path / "old-version"
    package.mkdir()
    old = Path(shutil.copy(shim.__file__, package))
    run_dir = Launcher(runs)._prepare(a_spec(tmp_path, f"{READY_FOREVER}"))
    started = subprocess.run([sys.executable, "-I", "-S", old, run_dir], capture_output=True, check=True)
    child = json.loads(started.stdout)["child_pid"]
    if how == "overwritten":
        old.write_text("raise SystemExit('this is not the file that was started')")
    else:
        shutil.rmtree(package)
    state = Launcher(runs).adopt(run_dir)
    assert isinstance(state, Alive)
    assert state.handle.child_pid == child
    assert end(state.handle).reason == "stopped"


# Loads the shim, takes every way to import anything away, and then is the shim of the run directory.
NO_IMPORTS = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("shim", sys.argv[1])
shim = importlib.util.module_from_spec(spec)
spec.loader.exec_module(shim)
class Refuse:
    def find_spec(self, name, *_): raise ImportError(f"{name} was imported late")
sys.path_importer_cache.clear(); sys.path[:] = ["/nowhere"]; sys.meta_path[:] = [Refuse()]
shim.main(["--foreground", sys.argv[2]])
"""


def live_without_imports(run_dir: Path, **popen: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-I", "-S", "-c", NO_IMPORTS, shim.__file__, run_dir], **popen)


def test_a_shim_imports_nothing_after_its_start(tmp_path, runs):
    hidden = "(setsid env -i sleep 60 &)"  # makes the end walk through /proc
    run_dir = Launcher(runs)._prepare(a_spec(tmp_path, f"{hidden}; echo ready; exit 7"))
    with live_without_imports(run_dir) as process:
        assert process.wait(timeout=15) == 0
    record = launcher.read_exit(run_dir)
    assert (record.exit_code, record.reason) == (7, "exited")


def test_a_shim_that_fails_after_its_start_can_still_say_where(tmp_path, runs):
    run_dir = Launcher(runs)._prepare(a_spec(tmp_path))
    (run_dir / "output.log").mkdir()
    with live_without_imports(run_dir) as process:
        assert process.wait(timeout=15) == 70
    trace = (run_dir / "stderr.log").read_text()
    assert trace.startswith("coordinator shim: IsADirectoryError: ")
    assert "_open_streams" in trace
    assert "imported late" not in trace


def test_the_shim_has_no_import_but_those_at_its_head():
    tree = ast.parse(Path(shim.__file__).read_text())
    late = [
        node.lineno
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert late == []
