"""Runs outlive every end of the service: restart, kill, a loop that stands still, stop."""

from __future__ import annotations

import time

from service_stage import UNIT, Stage

OF_THE_SERVICE = {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "INVOCATION_ID", "JOURNAL_STREAM"}


def adopted(stage: Stage) -> int:
    """How often a daemon has found a run alive."""
    return sum(e["event"] == "found a run" and e["found"] == "alive" for e in stage.events())


def test_agents_live_through_a_restart_and_a_kill_and_their_work_is_settled_once(stage: Stage):
    stage.install()
    stage.systemd.systemctl("start", UNIT)
    first, second = stage.long_issues(2)
    before = [stage.started(number) for number in (first, second)]

    stage.systemd.systemctl("restart", UNIT)
    assert adopted(stage) == 2  # a service that is ready has taken over
    stage.systemd.until(
        lambda: "live runs: 2" in stage.show("StatusText")["StatusText"], "the status says so"
    )

    killed = stage.main_pid
    stage.systemd.systemctl("kill", "--signal", "KILL", "--kill-whom", "main", UNIT)
    stage.systemd.until(lambda: stage.main_pid not in {0, killed}, "systemd starts a new daemon")
    stage.systemd.until(lambda: adopted(stage) == 4, "it takes the runs over")
    assert [stage.started(number) for number in (first, second)] == before

    for pid in (before[0]["child_pid"], before[0]["shim_pid"]):
        assert not stage.environ(pid) & OF_THE_SERVICE
    for number in (first, second):
        stage.finish(number)
    for number in (first, second):
        stage.await_pull(number)
        assert (stage.starts(number), stage.pulls(number), stage.comments(number)) == (1, 1, 1)
        assert stage.task(number)["attempts"] == 1


def test_a_stop_takes_less_than_five_seconds_and_leaves_agents_and_their_files_alone(stage: Stage):
    stage.install()
    stage.systemd.systemctl("start", UNIT)
    (number,) = stage.long_issues(1)
    agent = stage.started(number)["child_pid"]
    stage.systemd.run("touch", f"/proc/{agent}/root/tmp/of-the-agent")  # its own /tmp, not the machine's
    began = time.monotonic()
    stage.systemd.systemctl("stop", UNIT)
    assert time.monotonic() - began < 5
    assert stage.show("ActiveState", "Result") == {"ActiveState": "inactive", "Result": "success"}
    assert stage.is_alive(number)
    assert stage.systemd.exists(f"/proc/{agent}/root/tmp/of-the-agent")

    stage.finish(number)  # nobody is there to see it
    stage.systemd.until(lambda: not stage.is_alive(number), "the run is over")
    stage.systemd.systemctl("start", UNIT)
    stage.await_pull(number)
    assert stage.starts(number) == 1


def test_a_loop_that_stands_still_is_ended_and_replaced_and_one_that_turns_is_not(stage: Stage):
    stage.install(quick="WatchdogSec=2")
    stage.systemd.systemctl("start", UNIT)
    (number,) = stage.long_issues(1)
    fed = {stage.show("WatchdogTimestampMonotonic")["WatchdogTimestampMonotonic"]}
    stage.systemd.until(
        lambda: (
            fed.add(stage.show("WatchdogTimestampMonotonic")["WatchdogTimestampMonotonic"]) or len(fed) > 4
        ),
        "an idle loop feeds the watchdog",
    )
    assert stage.show("NRestarts") == {"NRestarts": "0"}

    stage.systemd.run("kill", "-STOP", str(stage.main_pid))
    stage.systemd.until(
        lambda: stage.show("NRestarts", "ActiveState") == {"NRestarts": "1", "ActiveState": "active"},
        "the watchdog ends the daemon, and systemd starts another",
    )
    said = stage.systemd.messages(UNIT)
    assert "Fatal Python error: Aborted" in said  # and where it stood
    assert stage.is_alive(number)
    assert adopted(stage) == 1
    stage.finish(number)
    stage.await_pull(number)
    assert stage.starts(number) == 1
