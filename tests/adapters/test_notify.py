"""What the daemon says to systemd, read from a real socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from adw_modules.agents import DIALECTS
from adw_modules.config import ProviderSettings
from coordinator.environment import OF_THE_SERVICE, worker_environment
from coordinator.systemd.notify import Notifier

HOUR = str(3600 * 1_000_000)


class Manager:
    """systemd's end of the socket."""

    def __init__(self, address: str) -> None:
        self.name = address.replace("\0", "@")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)
        self._socket.setblocking(False)

    def heard(self) -> list[list[str]]:
        """The messages since the last call; a datagram is there as soon as it is sent."""
        messages = []
        while True:
            try:
                messages.append(self._socket.recv(4096).decode().splitlines())
            except BlockingIOError:
                return messages

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    abstract = f"\0coordinator-test-{os.getpid()}"
    manager = Manager(str(tmp_path / "notify") if request.param == "path" else abstract)
    yield manager
    manager.close()


def notifier(manager: Manager, **environ: str) -> Notifier:
    return Notifier({"NOTIFY_SOCKET": manager.name, **environ})


def test_the_first_turn_of_the_loop_makes_the_service_ready_and_no_later_one_says_so_again(manager):
    tells = notifier(manager)
    assert manager.heard() == []
    tells.turned("live runs: 0")
    tells.turned("live runs: 1")
    tells.turned("live runs: 1")
    assert manager.heard() == [["STATUS=live runs: 0", "READY=1"], ["STATUS=live runs: 1"]]


def test_a_turn_feeds_the_watchdog_only_when_a_third_of_its_time_has_passed(manager):
    tells = notifier(manager, WATCHDOG_USEC=HOUR, WATCHDOG_PID=str(os.getpid()))
    assert tells.is_feeding_due()
    tells.turned("fine")
    assert manager.heard() == [["STATUS=fine", "READY=1", "WATCHDOG=1"]]
    assert not tells.is_feeding_due()
    tells.turned("fine")
    assert manager.heard() == []

    hurried = notifier(manager, WATCHDOG_USEC="3")  # a third of it is over before the next turn
    hurried.turned("fine")
    hurried.turned("fine")
    assert manager.heard()[1] == ["WATCHDOG=1"]


def test_there_is_no_watchdog_without_its_variable_or_with_that_of_another_process(manager):
    for environ in ({}, {"WATCHDOG_USEC": HOUR, "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "soon"}):
        tells = notifier(manager, **environ)
        assert not tells.is_feeding_due()
        tells.turned("fine")
    assert [message[-1] for message in manager.heard()] == ["READY=1"] * 3


def test_a_long_start_asks_for_time_and_a_service_that_is_ready_does_not(manager):
    tells = notifier(manager)
    tells.starting("takes over\n50 runs", seconds=330)
    tells.turned("live runs: 50")
    manager_said = manager.heard()
    tells.starting("too late", seconds=1)
    assert manager_said[0] == ["STATUS=starting: takes over 50 runs", "EXTEND_TIMEOUT_USEC=330000000"]
    assert manager.heard() == []


def test_a_reload_says_when_it_began_and_that_it_is_over(manager):
    tells = notifier(manager)
    tells.reloading()
    tells.reloaded()
    (begin, end) = manager.heard()
    assert begin[0] == "RELOADING=1"
    assert int(begin[1].removeprefix("MONOTONIC_USEC=")) > 0
    assert end == ["READY=1"]


def test_the_end_asks_for_more_time_only_when_runs_have_to_be_ended_first(manager):
    tells = notifier(manager)
    tells.stopping("stopping; live runs: 2", seconds=0)
    tells.stopping("stopping; live runs: 2", seconds=60)
    short, long = manager.heard()
    assert short == ["STOPPING=1", "STATUS=stopping; live runs: 2", "WATCHDOG=1"]
    assert long == [*short, "EXTEND_TIMEOUT_USEC=60000000"]


@pytest.mark.parametrize("address", ["", "vsock:2:1234", "/nowhere/at/all", "@nobody-listens-here"])
def test_where_nobody_listens_nothing_is_said_and_nothing_is_raised(address):
    tells = Notifier({"NOTIFY_SOCKET": address} if address else {})
    tells.starting("opens the store", seconds=1)
    tells.turned("fine")
    tells.reloading()
    tells.stopping("fine", seconds=0)
    assert tells.is_heard == address.startswith(("/", "@"))


def test_a_worker_gets_nothing_that_systemd_said_to_the_daemon_even_if_it_is_to_be_handed_on(tmp_path):
    provider = ProviderSettings(command_template=["agent"], pass_env=[*sorted(OF_THE_SERVICE), "MINE"])
    environ = dict.fromkeys([*OF_THE_SERVICE, "MINE", "PATH"], "x")
    handed = worker_environment(
        provider, environ, DIALECTS["generic"], marker="m", run_dir=tmp_path, attempt=1
    )
    assert handed.keys() & environ.keys() == {"MINE", "PATH"}
