"""The shim: owns one agent process from before its exec until its exit record is durable.

Three ways in: `python -I -S shim.py RUN_DIR` (cold), `shim.py --serve FD`, a warm server that forks one shim
per request, and `shim.py --foreground RUN_DIR` for a service manager that is to be its parent. A shim never
belongs to the daemon: it has its own session, goes on when the daemon dies, and enforces every limit itself.
The run directory is its only interface.

Must not: import anything of ours or of third parties (it starts once per run, without site-packages), talk
to the network, know what a task is, run the agent before `started` is durable, or import anything after its
start: it lives for hours, in which an upgrade may have replaced every file that it has not read yet.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import gc
import json
import os
import resource  # noqa: F401 - os.wait4 imports it when first called: here once per server, not once per shim
import select
import signal
import stat
import struct
import sys
import time

TYPE_CHECKING = False  # as type checkers know it; importing `typing` would cost every cold start
if TYPE_CHECKING:
    from typing import Any

FORMAT = 1  # of spec.json, started and exit: the newest that is written, and every older one is read
MARKER_NAME = "COORDINATOR_RUN_MARKER"
_FAULT = os.environ.get("COORDINATOR_SHIM_FAULT")  # `NAME:RUN`; see coordinator/faultpoints.py

ENVIRONMENT = "environment.json"  # the agent's, with its keys: gone before the agent is executed

_PR_SET_CHILD_SUBREAPER = 36
_TICK = 1.0  # seconds between looks at `stop` and at the output; SIGUSR1 makes a look immediate
_LARGEST_JSON = 64 << 20  # bytes; an argument or an environment cannot be larger
# What waiting does not mend: the directory is gone, or something else has the record's name.
_HOPELESS = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENOTEMPTY})
_KILL_PATIENCE = 5.0  # seconds to wait for a killed tree to be gone (uninterruptible disk sleep outlasts it)
_CROWD_TICK = 0.1  # instead of _TICK while the machine is so full that a run may have too many processes
_CROWD_AGAIN = 30.0  # seconds after which a run is counted again, whatever the machine's numbers say
_CROWD_PRIORITY = -10  # where we may: one of us has to be heard among thousands
_AGENT_OOM_SCORE = 200  # added to the agent's own: when memory is short it goes first, not its shim
_EXIT_PATIENCE = 3600.0  # seconds to keep trying to write `exit` (full disk) before the run counts as lost
_HOPELESS_PATIENCE = 5.0  # the same where no room on a disk will help
_WAKERS = (signal.SIGCHLD, signal.SIGUSR1, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Refused(Exception):
    """This run directory may not be started; `str(refusal)` is the reason."""


# --- durable files -----------------------------------------------------------------------------------------


def sync_directory(path: str) -> None:
    """Make the directory's entries (creations, renames) survive a power loss."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write(path: str, content: bytes, *, durable: bool = False) -> None:
    """Replace the file in one step: readers see nothing or all of it. Raises OSError."""
    fd = os.open(path + ".tmp", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
        if durable:
            os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(path + ".tmp", path)


def write_durably(directory: str, name: str, content: bytes) -> None:
    """As `write`, and both content and name survive a power loss."""
    write(os.path.join(directory, name), content, durable=True)
    sync_directory(directory)


def is_newer(record: dict[str, Any]) -> bool:
    """Whether a file of a run directory is of a format that this version does not know."""
    number = record.get("format")
    return type(number) is int and number > FORMAT


def open_regular(path: str) -> int:
    """A descriptor for reading a plain file. OSError for anything else: a pipe in its place would block."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "Not a regular file", path)
    return fd


def read_json(path: str) -> dict[str, Any] | None:
    """The object in `path`, or None if there is no such file or it is not a whole JSON object."""
    try:
        with open(open_regular(path), "rb") as file:
            value = json.loads(file.read(_LARGEST_JSON))
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


# --- the lock: liveness without pids -----------------------------------------------------------------------


def take_lock(path: str) -> int | None:
    """Take the exclusive lock; the returned descriptor holds it until closed. None: somebody else has it.

    Open-file-description locks are dropped by the kernel on any death, and can be asked about without
    being taken (`is_locked`), which flock cannot.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _whole_file(fcntl.F_WRLCK))
    except BlockingIOError:
        os.close(fd)
        return None
    except BaseException:
        os.close(fd)
        raise
    return fd


def is_locked(path: str) -> bool:
    """Whether a live process holds the lock: a pure question that disturbs nobody."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _HOPELESS:  # not a file at all: nobody holds it
            return False
        raise
    try:
        answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _whole_file(fcntl.F_WRLCK))
    finally:
        os.close(fd)
    return bool(struct.unpack_from("h", answer)[0] != fcntl.F_UNLCK)


def hold_shared(fd: int, start: int, length: int) -> None:
    """Share a lock on a part of the file until the descriptor is closed. BlockingIOError: it is taken."""
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, start, length, 0))


def _whole_file(kind: int) -> bytes:
    return struct.pack("hhqqi4x", kind, os.SEEK_SET, 0, 0, 0)


# --- processes ---------------------------------------------------------------------------------------------


class Process:
    """One line of the process table. (pid, start) names a process for as long as the machine is up."""

    __slots__ = ("pid", "ppid", "session", "start", "state", "threads")

    def __init__(self, pid: int, stat: bytes) -> None:
        # The program's name stands in brackets and may hold anything, so count from the last bracket.
        fields = stat[stat.rindex(b")") + 2 :].split()
        self.pid = pid
        self.state = fields[0]
        self.ppid = int(fields[1])
        self.session = int(fields[3])
        self.threads = int(fields[17])
        self.start = int(fields[19])


def boot_id() -> str:
    """Changes with every boot of the machine: pids and start times of another boot mean nothing."""
    with open("/proc/sys/kernel/random/boot_id", "rb", buffering=0) as file:
        return file.read().decode().strip()


def look_up(pid: int) -> Process | None:
    """The process with this pid now, or None."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            return Process(pid, file.read())
    except (OSError, ValueError):
        return None


def process_table() -> list[Process]:
    """Every process that is not already dead."""
    found = (look_up(int(name)) for name in os.listdir("/proc") if name.isdecimal())
    return [process for process in found if process is not None and process.state not in b"ZX"]


def open_exact(pid: int, start: int) -> int | None:
    """A pidfd of the process with this pid and start time; None if that one is gone, pid reused or not."""
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return None
    process = look_up(pid)  # after the open: if it is still the same now, the descriptor is of that one
    if process is None or process.start != start:
        os.close(fd)
        return None
    return fd


def signal_exact(pid: int, start: int, number: int) -> bool:
    """Send a signal to exactly that process; False if it is gone or not ours to signal."""
    fd = open_exact(pid, start)
    if fd is None:
        return False
    try:
        signal.pidfd_send_signal(fd, number)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def tree_of(roots: set[int], table: list[Process]) -> set[int]:
    """The roots' descendants by parent, without the roots."""
    children: dict[int, list[int]] = {}
    for process in table:
        children.setdefault(process.ppid, []).append(process.pid)
    found: set[int] = set()
    todo = list(roots)
    while todo:
        for pid in children.get(todo.pop(), ()):
            if pid not in found and pid not in roots:
                found.add(pid)
                todo.append(pid)
    return found


def crowd(root: int) -> int:
    """How many processes and threads are below this one, dead ones that nobody has collected included."""
    found = (look_up(int(name)) for name in os.listdir("/proc") if name.isdecimal())
    table = [process for process in found if process is not None]
    below = tree_of({root}, table)
    return sum(max(1, process.threads) for process in table if process.pid in below)


def threads_of_machine() -> int:
    """Of all processes, as one number that costs nothing; where nobody tells it, more than any limit."""
    try:
        with open("/proc/loadavg", "rb", buffering=0) as file:
            return int(file.read().split()[3].partition(b"/")[2])
    except (OSError, ValueError, IndexError):
        return 1 << 30


def carries(pid: int, marker: str) -> bool:
    """Whether the process was started with our marker in its environment."""
    if not marker:
        return False
    try:
        with open(f"/proc/{pid}/environ", "rb", buffering=0) as file:
            environ = file.read()
    except OSError:
        return False
    return f"\0{MARKER_NAME}={marker}\0".encode() in b"\0" + environ + b"\0"


def family(roots: set[int], sessions: set[int], marker: str, table: list[Process]) -> list[Process]:
    """Who belongs to a run: descendants of the roots, members of the sessions, bearers of the marker."""
    known = {process.pid for process in table if process.session in sessions}
    known |= {process.pid for process in table if process.pid not in known and carries(process.pid, marker)}
    known |= tree_of(roots | known, table)
    return [process for process in table if process.pid in known - roots]


def kill_leftovers(started: dict[str, Any], marker: str, patience: float = _KILL_PATIENCE) -> int:
    """Kill what a run left behind after its shim was killed; returns how many are still there at the end.

    Recorded pids count only with the recorded boot and start time. A session counts only while its
    recorded leader lives, since its number may be somebody else's afterwards; the marker finds the rest.
    """
    until = time.monotonic() + patience
    same_boot = started.get("boot_id") == boot_id()
    while True:
        table = process_table()
        named = _recorded(started, table) if same_boot else set()
        left = family(set(), {pid for pid in named if pid == started.get("child_pid")}, marker, table)
        left += [process for process in table if process.pid in named - {process.pid for process in left}]
        left = [process for process in left if process.pid != os.getpid()]
        for process in left:
            signal_exact(process.pid, process.start, signal.SIGKILL)
        if not left or time.monotonic() > until:
            return len(left)
        time.sleep(0.005)  # they are not our children: nothing tells us when they are gone


def _recorded(started: dict[str, Any], table: list[Process]) -> set[int]:
    pairs = {
        (started.get("shim_pid"), started.get("shim_start")),
        (started.get("child_pid"), started.get("child_start")),
    }
    return {process.pid for process in table if (process.pid, process.start) in pairs}


def out_of_memory_kills(unit: str, cgroups: str = "/sys/fs/cgroup") -> int:
    """How many processes of our unit the kernel has killed for want of memory; 0 if nobody can say.

    Only a control group that is the unit's own is asked: another's counter would blame another's run.
    """
    try:
        with open("/proc/self/cgroup", "rb", buffering=0) as file:
            lines = file.read().decode(errors="surrogateescape").splitlines()
        groups = [line.split(":", 2) for line in lines]
        counters = [_memory_counters(cgroups, names, path) for _, names, path in groups if _is_of(unit, path)]
    except (OSError, ValueError):
        return 0
    return max((_kills(path) for path in counters if path), default=0)


def _is_of(unit: str, path: str) -> bool:
    return path.rpartition("/")[2] == unit


def _memory_counters(cgroups: str, controllers: str, path: str) -> str | None:
    if not controllers:  # the one hierarchy of version 2
        return f"{cgroups}{path}/memory.events"
    return f"{cgroups}/memory{path}/memory.oom_control" if "memory" in controllers.split(",") else None


def _kills(path: str) -> int:
    try:
        with open(path, "rb", buffering=0) as file:
            fields = file.read().split()
    except OSError:
        return 0
    return int(fields[fields.index(b"oom_kill") + 1]) if b"oom_kill" in fields else 0


# --- one run -----------------------------------------------------------------------------------------------


class _Spec:
    """What spec.json asks for. Building it raises KeyError, TypeError or ValueError for a wrong shape."""

    def __init__(self, raw: dict[str, Any]) -> None:
        self.format = int(raw["format"])  # the records are written in the format of the daemon that asked
        self.token = int(raw["token"])
        self.argv = [str(word) for word in raw["argv"]]
        self.cwd = str(raw["cwd"])
        env = raw["env"] if "env" in raw else read_json(ENVIRONMENT)  # older daemons kept it in the spec
        self.env = {str(name): str(value) for name, value in (env or raw["env"]).items()}
        self.marker = str(raw["marker"])
        self.deadline_at = None if raw["deadline_at"] is None else float(raw["deadline_at"])
        self.stall_seconds = None if raw["stall_seconds"] is None else float(raw["stall_seconds"])
        self.stop_signal = signal.Signals[raw["stop_signal"]]
        self.grace_seconds = float(raw["grace_seconds"])
        most = raw.get("most_processes")
        self.most_processes = None if most is None else int(most)
        self.unit = str(raw.get("unit") or "")  # the service unit that we are, if we are one
        self.memory_max = str(raw.get("memory_max") or "the machine's memory")


class _Agent:
    """The agent process and what is known of its end. Works in the run directory as current directory."""

    def __init__(self, pid: int, marker: str) -> None:
        self.pid = pid
        self.marker = marker
        self.status: int | None = None
        self.childless = False  # the kernel has said that no descendant of ours is left
        self.cpu_seconds = 0.0
        self.max_rss_kib = 0
        self.asked_to_stop = False  # SIGTERM to the shim itself, as at a system shutdown

    def reap(self) -> None:
        """Collect every dead child; orphaned grandchildren are ours as well, since we are a subreaper."""
        while True:
            try:
                pid, status, used = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                self.childless = True
                return
            if pid == 0:
                self.childless = False
                return
            self.cpu_seconds += used.ru_utime + used.ru_stime
            self.max_rss_kib = max(self.max_rss_kib, used.ru_maxrss)
            if pid == self.pid:
                self.status = status

    def sleep(self, seconds: float) -> None:
        """Until a child ends, the daemon rings (SIGUSR1), or the time is over. Pending signals count."""
        woken = signal.sigtimedwait(_WAKERS, max(seconds, 0.0))
        if woken is not None and woken.si_signo == signal.SIGTERM:
            self.asked_to_stop = True

    def signal_group(self, number: int) -> None:
        """To the agent's process group; it is not reaped yet, so the number cannot be anybody else's."""
        with contextlib.suppress(OSError):  # gone in this very moment, or all its members changed user
            os.killpg(self.pid, number)

    def kill_tree(self) -> int:
        """SIGKILL everything of this run until nothing is left; returns how many would not die."""
        until = time.monotonic() + _KILL_PATIENCE
        while True:
            # Whatever session it moved to, a descendant stays below a subreaper: the tree is complete.
            left = family({os.getpid()}, set(), self.marker, process_table())
            for process in left:
                signal_exact(process.pid, process.start, signal.SIGKILL)
            if not left or time.monotonic() > until:
                self.reap()
                return len(left)
            self.sleep(0.01)
            self.reap()


class _Crowd:
    """Whether a run has more processes than it may: for what no limit of the kernel's binds, which is root.

    Most looks are at one number of the whole machine. Only where a run could have too many is it counted.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._others = threads_of_machine()  # that are none of this run's
        self._again_at = time.monotonic() + _CROWD_AGAIN
        with contextlib.suppress(OSError):  # only root may
            os.setpriority(os.PRIO_PROCESS, 0, _CROWD_PRIORITY)

    @property
    def tick(self) -> float:
        """Seconds until the next look."""
        return _CROWD_TICK if threads_of_machine() - self._others > self.most // 4 else _TICK

    def is_too_large(self) -> bool:
        total = threads_of_machine()
        is_due = total - self._others > self.most or time.monotonic() >= self._again_at
        if total <= self.most or not is_due:
            return False
        count = crowd(os.getpid())
        self._others = total - count
        self._again_at = time.monotonic() + _CROWD_AGAIN
        return count > self.most


class _Limits:
    """Deadline, silence, processes and stop request of one run: says when and why it must end."""

    def __init__(self, spec: _Spec) -> None:
        # A step of the wall clock must not end or extend a run: the deadline becomes a point on a clock
        # that nobody sets. BOOTTIME goes on while the machine sleeps, as the instant in the spec does;
        # silence is counted without such sleep, or every run would count as stalled after it.
        at = spec.deadline_at
        self.deadline = None if at is None else _boot_clock() + at - _wall_clock()
        self.stall = spec.stall_seconds
        self.crowd = None if spec.most_processes is None else _Crowd(spec.most_processes)
        self.size = -1
        self.grew_at = time.monotonic()
        self.home = os.getcwd()

    def broken(self, agent: _Agent) -> tuple[str, str] | None:
        """(reason, detail) when the run must end now."""
        if os.path.exists("stop"):
            return "stopped", _stop_reason()
        if agent.asked_to_stop:
            return "stopped", "the shim was told to end (SIGTERM)"
        if self._is_cut_off():
            return "stopped", "its run directory was removed or moved away"
        if self.deadline is not None and _boot_clock() >= self.deadline:
            return "deadline", "the agent ran into its deadline"
        if self.stall is not None and self._silent_for() >= self.stall:
            return "stalled", f"the agent wrote nothing for {self.stall:g} seconds"
        if self.crowd is not None and self.crowd.is_too_large():
            return (
                "crowded",
                f"it had more than {self.crowd.most:,} processes and threads at once (sandbox.processes)",
            )
        return None

    def next_look(self) -> float:
        """Seconds until something can break."""
        waits = [_TICK if self.crowd is None else self.crowd.tick]
        if self.deadline is not None:
            waits.append(self.deadline - _boot_clock())
        if self.stall is not None:
            waits.append(self.grew_at + self.stall - time.monotonic())
        return min(waits)

    def _is_cut_off(self) -> bool:
        """Whether no daemon can find this run any more: another one may start in its place."""
        try:
            return os.getcwd() != self.home
        except FileNotFoundError:
            return True

    def _silent_for(self) -> float:
        size = _size("output.log") + _size("stderr.log")
        if size != self.size:
            self.size = size
            self.grew_at = time.monotonic()
        return time.monotonic() - self.grew_at


def _wall_clock() -> float:
    return time.time()  # noqa: TID251 - a program of its own: coordinator.clock is not importable here


def _boot_clock() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _size(name: str) -> int:
    try:
        return os.stat(name).st_size
    except OSError:
        return 0


def _stop_reason() -> str:
    request = read_json("stop") or {}
    return str(request.get("reason", "stop was asked for"))


def run_attempt(run_dir: str, report_fd: int, request_id: int) -> None:
    """The life of a shim, in the process that is to become it. Reports once: started, or refused and why."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _WAKERS)  # pending until asked for; the agent gets an empty mask
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # the server ignores it, which would take wait4 from us
    if os.getsid(0) != os.getpid():  # a service manager has done it already
        os.setsid()
    _adopt_orphans()
    os.chdir(run_dir)
    identity = _claim()
    _reached("shim.locked")
    spec = _read_spec()
    streams = _open_streams()
    _reached("shim.ready")
    began = _boot_clock()
    started = _record_start(spec, identity)
    with contextlib.suppress(OSError):
        os.unlink(ENVIRONMENT)  # nobody starts here again, and keys are not to lie about
    _reached("shim.started")
    try:
        agent = _Agent(_spawn(spec, streams), spec.marker)
    except (OSError, ValueError) as error:  # ValueError: a NUL in an argument or in the environment
        _report(report_fd, {"id": request_id, **started})
        _write_exit(_failed_exec(started, str(error)))
        return
    try:
        _reached("shim.spawned")
        _offer_for_killing(agent.pid)
        started = _record_agent(started, agent.pid)
        _reached("shim.recorded")
        _report(report_fd, {"id": request_id, **started})
        _reached("shim.reported")
        reason, detail = _watch(agent, spec)
        _clear_up(agent, reason)
        _reached("shim.agent_gone")
    except BaseException:
        agent.kill_tree()  # a fault of ours: no agent without an owner. No `exit`, so the run is lost
        raise
    if reason == "exited" and spec.unit and out_of_memory_kills(spec.unit) > 0:
        detail = f"out of memory (limit {spec.memory_max})"
    _write_exit(_exit_record(agent, reason, detail, started, _boot_clock() - began))
    _reached("shim.exit_written")


def _reached(point: str) -> None:
    """Die here if a test asks for it: at this fault point, in the run whose number our directory ends in."""
    if _FAULT and f"{point}:{os.getcwd().rpartition('.')[2]}" == _FAULT:
        write("killed", point.encode())
        os.kill(os.getpid(), signal.SIGKILL)


def _claim() -> dict[str, Any]:
    """Take the lock for life; a directory is used once only, so a late shim can never start a second agent.

    Returns this shim's identity, which the lock file shows to a daemon that finds it held and no `started`.
    """
    lock = take_lock("lock")  # never closed: the kernel drops it when this process ends, however it ends
    if lock is None:
        raise Refused("another shim holds the lock")
    for name in ("revoked", "started"):
        if os.path.exists(name):
            raise Refused(f"the run directory has `{name}`")
    identity = {"shim_pid": os.getpid(), "shim_start": _start_time(os.getpid()), "boot_id": boot_id()}
    os.write(lock, json.dumps(identity).encode())
    return identity


def _start_time(pid: int) -> int:
    process = look_up(pid)
    if process is None:
        raise ProcessLookupError(f"process {pid} is not in /proc")
    return process.start


def _read_spec() -> _Spec:
    raw = read_json("spec.json")
    if raw is None:
        raise Refused("spec.json is missing or damaged")
    if is_newer(raw):
        raise Refused(f"spec.json has format {raw['format']}, this shim knows {FORMAT}")
    try:
        return _Spec(raw)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise Refused(f"spec.json cannot be used: {error!r}") from error


def _open_streams() -> tuple[int, int, int]:
    append = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    return (
        os.open("prompt.md", os.O_RDONLY | os.O_CLOEXEC),
        os.open("output.log", append, 0o600),
        os.open("stderr.log", append, 0o600),
    )


def _record_start(spec: _Spec, identity: dict[str, Any]) -> dict[str, Any]:
    """From here on the run counts as started: durable before any of the agent's instructions is executed."""
    # The daemon writes spec and prompt without waiting for the disk; here the wait costs nobody else.
    for name in ("spec.json", "prompt.md"):
        _sync_file(name)
    child = {"child_pid": 0, "child_start": 0}
    started = {"format": spec.format, **identity, **child, "token": spec.token, "at": _wall_clock()}
    try:
        write_durably(".", "started", json.dumps(started).encode())
        sync_directory("..")
    except OSError:
        _forget_start()
        raise
    return started


def _record_agent(started: dict[str, Any], pid: int) -> dict[str, Any]:
    """Add the agent's pid, for a daemon that has to clear up after this shim.

    Not durable: a pid means nothing after a power loss. And not needed if the disk is full: until exec the
    child holds our lock, and from exec on its environment has the marker, so it is found either way.
    """
    started = {**started, "child_pid": pid, "child_start": _start_time(pid)}
    with contextlib.suppress(OSError):
        write("started", json.dumps(started).encode())
    return started


def _offer_for_killing(pid: int) -> None:
    """Without its shim a run is lost; with its shim a killed agent is a failed run, and says why."""
    with contextlib.suppress(OSError):
        fd = os.open(f"/proc/{pid}/oom_score_adj", os.O_RDWR | os.O_CLOEXEC)
        try:
            score = min(int(os.read(fd, 16)) + _AGENT_OOM_SCORE, 1000)
            os.pwrite(fd, str(score).encode(), 0)
        finally:
            os.close(fd)


def _sync_file(name: str) -> None:
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _forget_start() -> None:
    """No agent ran: leave no `started` that would say so (it may be there, only not surely on the disk)."""
    with contextlib.suppress(OSError):
        os.unlink("started")


def _spawn(spec: _Spec, streams: tuple[int, int, int]) -> int:
    """Execute the agent in its own session; returns its pid. Raises OSError if it cannot be executed.

    posix_spawn shares our memory until exec instead of copying it, which halves the cost of a start, runs no
    Python in the child, and reports the error of exec. It has no option for the directory and the umask, so
    this process, which has no second thread, takes the agent's for the moment.
    """
    home = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    ours = os.umask(_inherited_umask)
    try:
        os.chdir(spec.cwd)
        return os.posix_spawn(
            _find_program(spec.argv[0], spec.env.get("PATH", os.defpath)),
            spec.argv,
            spec.env,
            file_actions=[(os.POSIX_SPAWN_DUP2, fd, target) for target, fd in enumerate(streams)],
            setsid=True,
            setsigmask=(),
            setsigdef=(*_WAKERS, signal.SIGPIPE, signal.SIGXFSZ),
        )
    finally:
        os.umask(ours)
        os.fchdir(home)
        for fd in (*streams, home):
            os.close(fd)


def _find_program(name: str, path: str) -> str:
    """As execvp does, but on the agent's own PATH, which posix_spawnp does not look at."""
    if "/" in name:
        return name
    for folder in path.split(os.pathsep):
        candidate = os.path.join(folder or ".", name)
        if os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            return candidate
    raise FileNotFoundError(errno.ENOENT, "No such program on PATH", name)


def _watch(agent: _Agent, spec: _Spec) -> tuple[str, str]:
    """Until the agent is gone: obey the limits. Returns (reason, detail) of the end."""
    limits = _Limits(spec)
    while True:
        agent.reap()
        if agent.status is not None:
            return "exited", ""
        broken = limits.broken(agent)
        if broken is not None:
            return _end(agent, spec, *broken)
        agent.sleep(limits.next_look())


def _end(agent: _Agent, spec: _Spec, reason: str, detail: str) -> tuple[str, str]:
    """The polite signal, then SIGTERM, then SIGKILL, with the grace between them.

    What multiplies gets no grace: it would only be more by then.
    """
    for number in () if reason == "crowded" else (spec.stop_signal, signal.SIGTERM):
        agent.signal_group(number)
        if _gone_within(agent, spec.grace_seconds):
            return reason, f"{detail} (ended by {number.name})"
    while agent.status is None:
        agent.kill_tree()
        agent.reap()
    return reason, f"{detail} (ended by SIGKILL)"


def _gone_within(agent: _Agent, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while True:
        agent.reap()
        if agent.status is not None:
            return True
        left = until - time.monotonic()
        if left <= 0:
            return False
        agent.sleep(left)


def _clear_up(agent: _Agent, reason: str) -> None:
    """Kill what outlived the agent.

    All descendants, whatever session they moved to, are children of this subreaper once their parents are
    gone. So after a normal end "no children" is proof that nothing is left and saves the walk through /proc.
    """
    agent.reap()
    if not agent.childless or reason != "exited":
        agent.kill_tree()


def _exit_record(
    agent: _Agent, reason: str, detail: str, started: dict[str, Any], seconds: float
) -> dict[str, Any]:
    """`seconds` by a clock that nobody sets: the difference of the two times is what the run really took."""
    code = os.waitstatus_to_exitcode(agent.status or 0)
    return {
        "format": started["format"],
        "exit_code": code if code >= 0 else None,
        "exit_signal": -code if code < 0 else None,
        "reason": reason,
        "detail": detail,
        "started_at": started["at"],
        "ended_at": started["at"] + seconds,
        "cpu_seconds": round(agent.cpu_seconds, 6),
        "max_rss_kib": agent.max_rss_kib,
    }


def _failed_exec(started: dict[str, Any], error: str) -> dict[str, Any]:
    nobody = _Agent(0, "")
    nobody.status = 127 << 8  # what a shell says of a program that it cannot execute
    return _exit_record(nobody, "exec_failed", error, started, 0.0)


def _write_exit(record: dict[str, Any]) -> None:
    """With a full disk try again and hold the lock meanwhile, so the run stays owned. Raises OSError."""
    began = time.monotonic()
    pause = 0.05
    while True:
        try:
            write_durably(".", "exit", json.dumps(record).encode())
        except OSError as error:
            patience = _HOPELESS_PATIENCE if error.errno in _HOPELESS else _EXIT_PATIENCE
            if time.monotonic() - began > patience:
                raise
        else:
            return
        signal.sigtimedwait(_WAKERS, pause)
        pause = min(pause * 2, 10.0)


# --- ways in -----------------------------------------------------------------------------------------------

_inherited_umask = 0o022
_libc: ctypes.CDLL | None = None


def prepare() -> None:
    """Once per process, before any fork: what every shim would otherwise have to do for itself."""
    global _inherited_umask, _libc  # noqa: PLW0603 - set once, inherited by every fork
    _inherited_umask = os.umask(0o077)
    _libc = ctypes.CDLL(None, use_errno=True)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            _close_on_exec(int(name))
    # A daemon started by `nohup … &` has SIGINT ignored, and an ignored signal stays ignored through exec.
    for number in signal.valid_signals():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # a reader that went away is an OSError here, not a death
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _close_on_exec(fd: int) -> None:
    with contextlib.suppress(OSError):  # the descriptor of the listing itself, closed by now
        os.set_inheritable(fd, False)


def _adopt_orphans() -> None:
    if _libc is not None and _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot become a subreaper")


def _report(fd: int, answer: dict[str, Any]) -> None:
    """Tell the daemon, if it still listens; the run directory holds the truth in any case."""
    with contextlib.suppress(OSError):
        os.write(fd, json.dumps(answer).encode())
    _point_at_nothing(fd)


def _point_at_nothing(*descriptors: int) -> None:
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for fd in descriptors:
        os.dup2(null, fd, inheritable=fd <= 2)
    os.close(null)


def live(run_dir: str, report_fd: int, request_id: int) -> None:
    """Be the shim of `run_dir` and exit: 0 done, 75 refused, 70 a fault (its traceback is in stderr.log)."""
    code = 70
    try:
        run_attempt(run_dir, report_fd, request_id)
        code = 0
    except Refused as refusal:
        _report(report_fd, {"id": request_id, "refused": str(refusal)})
        code = 75
    except BaseException as error:
        _report(report_fd, {"id": request_id, "refused": f"{type(error).__name__}: {error}"})
        _leave_trace(run_dir, error)
    finally:
        os._exit(code)


def _leave_trace(run_dir: str, error: BaseException) -> None:
    """Where we failed, into the agent's stderr. By hand: `traceback` would be imported after the start."""
    lines = [f"coordinator shim: {type(error).__name__}: {error}"]
    at = error.__traceback__
    while at is not None:
        lines.append(f"  {at.tb_frame.f_code.co_filename}:{at.tb_lineno} in {at.tb_frame.f_code.co_name}")
        at = at.tb_next
    fd = os.open(
        os.path.join(run_dir, "stderr.log"), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600
    )
    os.write(fd, ("\n".join(lines) + "\n").encode(errors="replace"))


def serve(fd: int) -> None:
    """Fork one shim per request `{"id", "run_dir"}` until the daemon's end of the socket is closed."""
    prepare()
    # Shared with every shim: a report must not block a shim because a daemon is suspended.
    os.set_blocking(fd, False)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # shims are nobody's to wait for: the kernel reaps them
    gc.collect()
    gc.freeze()  # a collection in a shim would touch, and so copy, every shared page
    gc.disable()
    readable = select.poll()
    readable.register(fd, select.POLLIN)
    while True:
        readable.poll()
        try:
            request = os.read(fd, 65536)
        except BlockingIOError:
            continue
        except ConnectionResetError:
            return
        if not request:
            return
        _fork_shim(fd, json.loads(request))


def _fork_shim(fd: int, request: dict[str, Any]) -> None:
    run_dir, request_id = str(request["run_dir"]), int(str(request["id"]))
    try:
        pid = os.fork()
    except OSError as error:
        os.write(fd, json.dumps({"id": request_id, "refused": f"cannot fork: {error}"}).encode())
        return
    if pid == 0:
        live(run_dir, fd, request_id)


def in_foreground(run_dir: str) -> None:
    """Be the shim without a fork: the caller, a service manager, stays the parent and sees the end."""
    prepare()
    _point_at_nothing(0, 1, 2)
    live(run_dir, _open_report(run_dir), 0)


def _open_report(run_dir: str) -> int:
    """The pipe that a launcher reads in the run directory; nothing, if none does (any more)."""
    try:
        return os.open(os.path.join(run_dir, "report"), os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)


def main(arguments: list[str]) -> int:
    """See the module's docstring; the cold way prints its report and leaves the shim behind."""
    match arguments:
        case ["--serve", number]:
            serve(int(number))
        case ["--foreground", run_dir]:
            in_foreground(os.path.abspath(run_dir))
        case [run_dir]:
            prepare()
            if os.fork() == 0:
                _point_at_nothing(0, 2)  # whoever reads the starter's streams need not wait for this shim
                live(os.path.abspath(run_dir), 1, 0)
        case _:
            sys.stderr.write("usage: shim.py RUN_DIR | shim.py --foreground RUN_DIR | shim.py --serve FD\n")
            return 64
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
