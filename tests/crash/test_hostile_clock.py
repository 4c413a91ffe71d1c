"""The machine's clock is set by an hour, forward and back, while the daemon polls and a worker works.

Setting it for real would set it for everybody on this machine. So each Python of the daemon (itself, its fork
server and the shims) has a library in front of the C library that adds as many seconds to the wall clock as a
file says. The clocks that nobody can set are left alone, as the kernel leaves them alone.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from world import Result, World

pytestmark = pytest.mark.crash
HOUR = 3600
DONE = Result(state="succeeded", outcomes=("succeeded",), pulls=1, label="done")
LIBRARY = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long ahead(void) {
    char text[32] = {0};
    int file = open(OFFSET_FILE, O_RDONLY | O_CLOEXEC);
    if (file < 0) return 0;
    if (read(file, text, sizeof text - 1) < 0) text[0] = 0;
    close(file);
    return atol(text);
}

int clock_gettime(clockid_t which, struct timespec *at) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int code = real(which, at);
    if (code == 0 && which == CLOCK_REALTIME) at->tv_sec += ahead();
    return code;
}

int gettimeofday(struct timeval *at, void *zone) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
"""


class Machine:
    """A Python whose wall clock can be set."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("gcc")
        if compiler is None:
            pytest.skip("needs gcc, to put a library between Python and the clock")
        self._offset = folder / "offset"
        source, library = folder / "clock.c", folder / "clock.so"
        source.write_text(LIBRARY)
        macro = f'-DOFFSET_FILE="{self._offset}"'
        subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, macro, "-ldl"], check=True)
        # The daemon starts its fork server with `sys.executable`: that has to be this one as well.
        self.python = folder / "bin" / "python"
        self.python.parent.mkdir()
        self.python.write_text(
            f'#!/bin/bash\nexport LD_PRELOAD={library}\nexec -a "$0" {Path(sys.executable).resolve()} "$@"\n'
        )
        self.python.chmod(0o755)
        shutil.copy(Path(sys.prefix) / "pyvenv.cfg", folder / "pyvenv.cfg")
        (folder / "lib").symlink_to(Path(sys.prefix) / "lib")
        self.set(0)

    def set(self, seconds: int) -> None:
        temporary = self._offset.with_suffix(".new")
        temporary.write_text(str(seconds))
        temporary.replace(self._offset)

    def now(self) -> float:
        done = subprocess.run(
            [self.python, "-I", "-S", "-c", "import time; print(time.time())"],
            capture_output=True,
            check=True,
        )
        return float(done.stdout)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    folder = tmp_path / "machine"
    folder.mkdir()
    return Machine(folder)


def start(world: World, machine: Machine) -> None:
    with (world.folder / "daemon.stderr").open("ab") as stderr:
        world.process = subprocess.Popen(
            [machine.python, "-m", "coordinator", "run", "--config", str(world.path)],
            env=world.environ,
            cwd=Path(__file__).parents[2],
            stdin=subprocess.DEVNULL,
            stdout=stderr,
            stderr=stderr,
        )


def test_the_clock_of_this_machine_can_be_set(machine: Machine) -> None:
    machine.set(HOUR)
    assert HOUR - 5 < machine.now() - time.time() < HOUR + 5  # noqa: TID251  the point of the test
    machine.set(-HOUR)
    assert -HOUR - 5 < machine.now() - time.time() < -HOUR + 5  # noqa: TID251


@pytest.mark.parametrize("step", [HOUR, -HOUR], ids=["forward", "back"])
def test_a_worker_goes_on_polls_go_on_and_nothing_is_done_twice(a_world, machine: Machine, step: int) -> None:
    world: World = a_world(
        coordinator={"worker_timeout_hours": 0.5, "stall_timeout_minutes": 30, "max_attempts": 1}
    )
    world.use_gated_agent()
    number = world.issue()
    start(world, machine)
    run = world.until_working(number)
    began = time.monotonic()
    machine.set(step)
    told = world.until_logged("the clock was set")
    assert abs(told["by_seconds"] - step) <= 5
    world.until_polls(5)
    late = world.issue()  # is seen, and starts
    world.until_working(late)
    assert len(world.live()) == 2
    world.open_gate()
    for each in (number, late):
        world.until_state(each, "succeeded")
        assert world.result(each) == DONE
        assert world.starts(each) == 1
    # The late run's shim stood on the clock as it was set: the library is in the shims as well.
    ahead = json.loads((Path(world.runs(late)[0].run_dir) / "started").read_text())["at"] - time.time()  # noqa: TID251
    assert abs(ahead - step) < 60
    record = json.loads((Path(run.run_dir) / "exit").read_text())
    took = record["ended_at"] - record["started_at"]
    assert 0 < took < time.monotonic() - began + 15


@pytest.mark.parametrize("step", [HOUR, -HOUR], ids=["forward", "back"])
def test_a_deadline_is_neither_earlier_nor_later(a_world, machine: Machine, step: int) -> None:
    world: World = a_world(coordinator={"worker_timeout_hours": 3 / 3600, "max_attempts": 1})
    number = world.issue("[[agent: slow 60]]")
    start(world, machine)
    world.until_working(number)
    began = time.monotonic()
    machine.set(step)
    world.until_state(number, "failed")
    assert 1 < time.monotonic() - began < 8
    assert world.result(number).outcomes == ("timed_out",)


@pytest.mark.parametrize("step", [HOUR, -HOUR], ids=["forward", "back"])
def test_a_wait_for_the_next_attempt_does_not_last_longer_and_is_not_repeated(
    a_world, machine: Machine, step: int
) -> None:
    world: World = a_world(
        coordinator={"max_attempts": 2},
        retries={"base_delay_seconds": 4, "fast_exit_base_delay_seconds": 4, "max_delay_seconds": 5},
    )
    number = world.issue("[[agent: exit 3]]")
    start(world, machine)
    world.until_state(number, "retry_wait")
    began = time.monotonic()
    machine.set(step)
    world.until_state(number, "failed")
    assert time.monotonic() - began < 12
    if step < 0:  # forward it ends early, once
        assert time.monotonic() - began > 1.5
    assert world.starts(number) == 2


def test_a_daemon_started_after_the_clock_was_set_back_adopts_and_settles(a_world, machine: Machine) -> None:
    world: World = a_world()
    world.use_gated_agent()
    number = world.issue()
    start(world, machine)
    world.until_working(number)
    world.kill()
    machine.set(-HOUR)
    start(world, machine)
    world.until_logged("found a run", found="alive")
    world.open_gate()
    world.until_state(number, "succeeded")
    assert world.result(number) == DONE
    assert world.starts(number) == 1
