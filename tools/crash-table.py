#!/usr/bin/env python3
"""Print docs/crash-table.md: every step of a task's life, and what survives a SIGKILL there."""

import argparse

import _bootstrap

PAGE = _bootstrap.PROJECT_ROOT / "docs" / "crash-table.md"
TESTS = "tests/crash/test_every_step.py"
OF_DAEMON = "test_a_daemon_killed_at_this_step_loses_and_doubles_nothing"
OF_SHIM = "test_a_shim_and_its_daemon_killed_at_this_step_end_in_one_explicit_outcome"

HEAD = """\
# What survives SIGKILL

Printed by `./tools/crash-table.py` from [`coordinator/faultpoints.py`](../coordinator/faultpoints.py): change
it there, then `./tools/crash-table.py --write`.

The daemon, or a shim, may be killed between any two steps from poll to publish. The table says what is left
for the next daemon. In every row that one brings the task to its end: no run begins twice, no two agents of a
task are alive together, tokens count once, and the issue gets one comment and one pull request.

Each row is a fault point and has a test, `{tests}::NAME[POINT]`, that kills there, looks at
what is left, and starts the next daemon. NAME is

- where the daemon dies: `{of_daemon}`
- where the shim dies, and its daemon after it: `{of_shim}`

`make test-crash` runs them all. It also kills at two steps drawn by lot, and sixty times at random moments;
`make chaos` goes on with that for ten minutes, and kills shims and agents as well.

By hand: `COORDINATOR_FAULT=POINT coordinator run` dies at the point, with `POINT:3` at its third pass. At a
point of the shim it is the shim that dies, in the run of that number of its task (the first).

| Point | After | Before | What survives | Test |
|---|---|---|---|---|
"""


def page() -> str:
    from coordinator.faultpoints import STEPS, Point

    head = HEAD.format(tests=TESTS, of_daemon=OF_DAEMON, of_shim=OF_SHIM)
    rows = [
        f"| `{point}` | {step.after} | {step.before} | {step.survives} "
        f"| `{'…one_explicit_outcome' if point.is_of_shim else '…doubles_nothing'}[{point}]` |\n"
        for point, step in ((point, STEPS[point]) for point in Point)
    ]
    return head + "".join(rows)


def main() -> str:
    from adw_modules.errors import CoordinatorError

    parser = argparse.ArgumentParser(description=__doc__)
    action = parser.add_mutually_exclusive_group()
    action.add_argument(
        "--check", action="store_true", help="only say whether docs/crash-table.md is current"
    )
    action.add_argument("--write", action="store_true", help="write docs/crash-table.md")
    chosen, text = parser.parse_args(), page()
    if chosen.write:
        PAGE.write_text(text)
    elif chosen.check:
        if not PAGE.exists() or PAGE.read_text() != text:
            raise CoordinatorError("docs/crash-table.md is stale: run ./tools/crash-table.py --write")
        return "docs/crash-table.md is current"
    return f"wrote {PAGE}" if chosen.write else text


if __name__ == "__main__":
    _bootstrap.run(main)
