"""Rule 18: an agent that prints without end fills neither the disk nor the memory."""

from __future__ import annotations

import resource

import pytest
from world import World, program

MB = 1_000_000


def _flood(fd: int, *, lines: bool) -> str:
    return (
        "import os, time\n"
        f"piece = b'x' * 65535 + {'chr(10).encode()' if lines else 'b' + repr('x')}\n"
        "end = time.monotonic() + 60\n"
        "while time.monotonic() < end:\n"
        f"    os.write({fd}, piece)\n"
        "    time.sleep(0.002)\n"
    )


@pytest.mark.parametrize(
    ("fd", "lines"), [(1, True), (1, False), (2, True)], ids=["lines", "one line", "stderr"]
)
def test_a_run_that_prints_without_end_is_stopped(a_world, fd: int, lines: bool) -> None:
    world: World = a_world(
        limits={"max_output_mb": 4}, **{"providers.claude-cli": program(_flood(fd, lines=lines))}
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    number = world.issue()
    world.start()
    task = world.until_state(number, "blocked")
    (run,) = world.runs(number)

    assert "limits.max_output_mb (4 MB)" in (task.cause or "")
    assert run.outcome == "over_budget"
    assert "limits.max_output_mb" in world.comment(number)
    left = sum(path.stat().st_size for path in (world.state_dir / "runs").rglob("*.log"))
    assert left <= 4 * MB
    logged = sum(path.stat().st_size for path in (world.state_dir / "logs").glob("gh-*.jsonl"))
    assert logged <= 4 * MB
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB
    assert not world.processes()


def test_what_was_printed_at_once_before_the_end_is_judged_the_same(a_world) -> None:
    code = "import os\nfor _ in range(60): os.write(1, b'x' * 99999 + bytes([10]))\n"
    world: World = a_world(limits={"max_output_mb": 1}, **{"providers.claude-cli": program(code)})
    number = world.issue()
    world.start()
    task = world.until_state(number, "blocked")

    assert "limits.max_output_mb (1 MB)" in (task.cause or "")
    assert task.runs == 1
    assert sum(path.stat().st_size for path in (world.state_dir / "runs").rglob("*.log")) <= MB
