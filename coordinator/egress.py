"""The way out of a sandbox without a network: runs it, and is the proxy it finds on its own loopback.

One process per run, outside the sandbox, which it has started (`ahead.py`): it opens the listening sockets
*inside* the sandbox's network, judges every connection by the run's policy (`adw_modules.security.egress`),
writes down what it refused, and ends as the sandbox ends. It outlives the daemon, as the
run does.

Must not: trust a byte from inside, resolve a name that is not allowed, connect to an address that it has
not judged, import anything that starts slowly or anything after its start (as in `shim.py`), or know what
a task is.
"""

from __future__ import annotations

import _thread
import contextlib
import ctypes
import errno
import fcntl
import json
import os
import select
import socket
import time

from adw_modules.security.egress import (
    LIMIT,
    MOST_HEAD_BYTES,
    MOST_HELLO_BYTES,
    Asked,
    Incomplete,
    Policy,
    Refused,
    check_hello,
    parse_head,
)
from coordinator.ahead import AWAITED, Sandbox, Unusable, fail

TYPE_CHECKING = False  # as type checkers know it; importing `typing` would cost every start
if TYPE_CHECKING:
    import signal
    from collections.abc import Mapping
    from typing import Any
else:
    import _signal as signal  # as in `ahead.py`

FORMAT = 1  # of the policy file
MOST_CONNECTIONS = 128  # at once; npm opens some fifty
MOST_REFUSALS = 200  # kinds of refusal that are written down
HEAD_SECONDS = 10.0  # for a whole head, and for a whole client hello
CONNECT_SECONDS = 15.0  # for each address of a name
MOST_ADDRESSES = 6  # of a name that are tried
IDLE_SECONDS = 3600.0  # a model may think for long without a word
KEEPALIVE_SECONDS = 60  # without a byte, until the other side is asked whether it is there

_CHUNK = 65_536
_BACKLOG = 128
_IP_FREEBIND = 15
_NS_GET_USERNS = 0xB701
_CLONE_NEWPID = 0x20000000
_RESERVED_PIDS = 300  # that are given out once only
_WRONG_NAME = b"\x15\x03\x03\x00\x02\x02\x70"  # a TLS alert: unrecognized_name
_ANSWERS = {400: "Bad Request", 403: "Forbidden", 502: "Bad Gateway"}


class _Plan:
    """The policy file. Building it raises KeyError, TypeError or ValueError for a wrong shape."""

    def __init__(self, raw: Mapping[str, Any]) -> None:
        if raw["format"] != FORMAT:
            raise ValueError(f"format {raw['format']!r}")
        self.policy = Policy.of(raw)
        self.port = int(raw["port"])
        # Ports of this machine's loopback that the sandbox finds on its own: (port, address, port).
        self.forwards = [(int(inner), str(host), int(port)) for inner, host, port in raw["forwards"]]
        self.pinned = {str(name): [str(each) for each in found] for name, found in raw["pinned"].items()}
        limits = raw.get("limits", {})
        self.most_connections = int(limits.get("connections", MOST_CONNECTIONS))
        self.head_seconds = float(limits.get("head_seconds", HEAD_SECONDS))
        upstream = raw["upstream"]
        self.upstream = None if upstream is None else (str(upstream["host"]), int(upstream["port"]))
        self.direct = tuple(str(name) for name in upstream["direct"]) if upstream else ()

    def proxy_for(self, host: str) -> tuple[str, int] | None:
        """The operator's own proxy, if this host is reached through it."""
        is_direct = any(host == name or host.endswith("." + name) for name in self.direct)
        return None if is_direct else self.upstream


# --- what was refused --------------------------------------------------------------------------------------


class _Refusals:
    """The log of refusals: a JSON line when something is refused for the 1st, 2nd, 4th, 8th ... time.

    So it says nearly how often even if we are killed, and an agent that tries for ever fills no disk.
    """

    def __init__(self, path: str) -> None:
        self._file = os.open(
            path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        self._lock = _thread.allocate_lock()
        self._counts: dict[tuple[str, str], int] = {}

    def note(self, refusal: Refused) -> None:
        kind = (refusal.reason, refusal.target)
        with self._lock:
            if kind not in self._counts and len(self._counts) >= MOST_REFUSALS:
                kind = (refusal.reason, "")  # one of too many
            count = self._counts[kind] = self._counts.get(kind, 0) + 1
            if count & (count - 1) == 0:
                self._write(kind, count)

    def close(self) -> None:
        """Write the last counts."""
        with self._lock:
            for kind, count in self._counts.items():
                if count & (count - 1):
                    self._write(kind, count)

    def _write(self, kind: tuple[str, str], count: int) -> None:
        line = json.dumps({"reason": kind[0], "target": kind[1], "count": count}) + "\n"
        with contextlib.suppress(OSError):  # a full disk: the request is refused all the same
            os.write(self._file, line.encode())


# --- one connection ----------------------------------------------------------------------------------------


class _Hung(OSError):
    """The other side has sent nothing, or too slowly, for too long."""


class _Proxy:
    """Answers connections from inside, each in a thread of its own."""

    def __init__(self, plan: _Plan, refusals: _Refusals) -> None:
        self._plan = plan
        self._refusals = refusals
        self._lock = _thread.allocate_lock()
        self._open = 0

    def take(self, client: socket.socket, forward: tuple[str, int] | None) -> None:
        """Serve an accepted connection; `forward`: pass its bytes to this address and judge nothing."""
        client.setblocking(True)
        with self._lock:
            is_too_many = self._open >= self._plan.most_connections
            self._open += not is_too_many
        if is_too_many:
            self._refusals.note(Refused(LIMIT, "", "too many connections"))
            client.close()
            return
        try:
            _thread.start_new_thread(self._serve, (client, forward))
        except RuntimeError:  # no memory for a thread
            client.close()
            self._ended()

    def _ended(self) -> None:
        with self._lock:
            self._open -= 1

    def _serve(self, client: socket.socket, forward: tuple[str, int] | None) -> None:
        try:
            with client:
                if forward is None:
                    self._answer(client)
                else:
                    with socket.create_connection(forward, timeout=CONNECT_SECONDS) as server:
                        _relay(client, server)
        except OSError:
            pass  # one side is gone
        finally:
            self._ended()

    def _answer(self, client: socket.socket) -> None:
        try:
            head, rest = _read_head(client, self._plan.head_seconds)
            asked = parse_head(head)
            self._plan.policy.check_request(asked)
            server = self._connect(asked)
        except Refused as refusal:
            self._refusals.note(refusal)
            _reply(client, 403 if refusal.target else 400, refusal.text)
        except _Hung:
            return
        except OSError as error:
            _reply(client, 502, f"cannot be reached: {error.strerror or error}")
        else:
            with server:
                self._pass(client, server, asked, rest)

    def _pass(self, client: socket.socket, server: socket.socket, asked: Asked, rest: bytes) -> None:
        if not asked.is_tunnel:
            server.sendall(asked.head + rest)
            _relay(client, server)
            return
        client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        if asked.port != 443 and not rest and _speaks_first(server, client):
            _relay(client, server)
            return
        try:
            first = self._read_hello(client, asked, rest)
        except Refused as refusal:
            self._refusals.note(refusal)
            client.sendall(_WRONG_NAME)
            return
        server.sendall(first)
        _relay(client, server)

    def _read_hello(self, client: socket.socket, asked: Asked, data: bytes) -> bytes:
        """The first bytes of the tunnel, judged. Raises Refused or OSError."""
        until = time.monotonic() + (self._plan.head_seconds if asked.port == 443 else IDLE_SECONDS)
        while True:
            if data:
                try:
                    check_hello(asked, data)
                except Incomplete:
                    if len(data) > MOST_HELLO_BYTES:
                        raise Refused(LIMIT, asked.target, "the first message of TLS never ends") from None
                else:
                    return data
            data += _receive(client, until)

    def _connect(self, asked: Asked) -> socket.socket:
        proxy = self._plan.proxy_for(asked.host)
        if proxy is not None and asked.is_tunnel:
            return _through(proxy, asked)
        # What is connected to is what was judged: the name is not looked up a second time.
        failure = OSError(errno.EHOSTUNREACH, "no address of it could be reached")
        refusal = None
        for address in self._resolve(asked)[:MOST_ADDRESSES]:
            try:
                self._plan.policy.check_address(asked, address)
                return socket.create_connection((address, asked.port), timeout=CONNECT_SECONDS)
            except Refused as refused:
                refusal = refused
            except OSError as error:
                failure = error
        raise refusal or failure

    def _resolve(self, asked: Asked) -> list[str]:
        if asked.host in self._plan.pinned:
            return self._plan.pinned[asked.host]
        try:
            found = socket.getaddrinfo(asked.host, asked.port, type=socket.SOCK_STREAM)
        except UnicodeError as error:
            raise OSError(errno.EINVAL, "its name cannot be looked up") from error
        return list(dict.fromkeys(str(each[4][0]) for each in found))


def _speaks_first(server: socket.socket, client: socket.socket) -> bool:
    """Waits for the first byte of either. A server that greets its clients is not asked for by TLS."""
    poll = select.poll()
    for end in (server, client):
        poll.register(end, select.POLLIN)
    ready = dict(poll.poll(IDLE_SECONDS * 1000))
    return server.fileno() in ready and client.fileno() not in ready


def _through(proxy: tuple[str, int], asked: Asked) -> socket.socket:
    """A tunnel through the operator's own proxy, which looks the name up itself."""
    server = socket.create_connection(proxy, timeout=CONNECT_SECONDS)
    try:
        server.sendall(f"CONNECT {asked.target} HTTP/1.1\r\nHost: {asked.target}\r\n\r\n".encode())
        head, rest = _read_head(server, CONNECT_SECONDS)
        if head.split(b" ", 2)[1:2] != [b"200"] or rest:
            said = head.split(b"\r\n", 1)[0][:80].decode("latin-1")
            raise OSError(errno.ECONNREFUSED, f"the proxy of this machine answers {said!r}")
    except BaseException:
        server.close()
        raise
    return server


def _read_head(source: socket.socket, seconds: float) -> tuple[bytes, bytes]:
    """(head with its empty line, what came after it). Raises Refused if it is too long, or OSError."""
    until, data = time.monotonic() + seconds, b""
    while (end := data.find(b"\r\n\r\n")) < 0:
        if len(data) > MOST_HEAD_BYTES:
            raise Refused(LIMIT, "", f"the head of the request is longer than {MOST_HEAD_BYTES} bytes")
        data += _receive(source, until)
    return data[: end + 4], data[end + 4 :]


def _receive(source: socket.socket, until: float) -> bytes:
    source.settimeout(max(until - time.monotonic(), 0.001))
    try:
        data = source.recv(_CHUNK)
    except TimeoutError as error:
        raise _Hung(errno.ETIMEDOUT, "sent nothing for too long") from error
    if not data:
        raise _Hung(errno.ECONNRESET, "has closed the connection")
    return data


def _reply(client: socket.socket, status: int, text: str) -> None:
    body = f"coordinator: {text}.\n".encode(errors="replace")
    head = (
        f"HTTP/1.1 {status} {_ANSWERS[status]}\r\nContent-Type: text/plain\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    client.settimeout(HEAD_SECONDS)
    client.sendall(head.encode() + body)
    # Closing with bytes unread would be a reset, and the client would not see why.
    client.shutdown(socket.SHUT_WR)
    with contextlib.suppress(OSError):
        while client.recv(_CHUNK):
            pass


def _relay(one: socket.socket, other: socket.socket) -> None:
    """Bytes both ways until both have ended, or nothing has moved for IDLE_SECONDS."""
    for end in (one, other):
        end.setblocking(False)
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A model that thinks for minutes: what is between us must not take the connection for dead.
        end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_SECONDS)
    ways = (_Way(one, other), _Way(other, one))
    while not all(way.is_done for way in ways):
        poll = select.poll()
        for end in (one, other):
            wanted = sum(way.wants(end) for way in ways)
            if wanted:
                poll.register(end, wanted)
        ready = dict(poll.poll(IDLE_SECONDS * 1000))
        if not ready:
            return
        for way in ways:
            way.move(ready)


class _Way:
    """One direction of a connection: at most one chunk is under way, so the slower side sets the pace."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self._source = source
        self._sink = sink
        self._pending = memoryview(b"")
        self._has_ended = False
        self.is_done = False

    def wants(self, end: socket.socket) -> int:
        if self._pending:
            return select.POLLOUT if end is self._sink else 0
        return select.POLLIN if end is self._source and not self._has_ended else 0

    def move(self, ready: Mapping[int, int]) -> None:
        """Raises OSError when either side is gone."""
        if self.is_done:
            return
        if not self._pending and not self._has_ended and self._source.fileno() in ready:
            with contextlib.suppress(BlockingIOError):
                self._pending = memoryview(self._source.recv(_CHUNK))
                self._has_ended = not self._pending
        if self._pending:
            with contextlib.suppress(BlockingIOError):
                self._pending = self._pending[self._sink.send(self._pending) :]
        if self._has_ended and not self._pending:
            self.is_done = True
            self._sink.shutdown(socket.SHUT_WR)


# --- the sandbox -------------------------------------------------------------------------------------------


def _listeners(inner: int, ports: list[int], most_processes: int | None = None) -> list[socket.socket]:
    """Sockets that listen on the loopback inside, and are accepted from out here.

    A socket belongs to the network it was made in, whoever holds it: nothing of ours has to run inside. Their
    maker limits the processes there as well, since only a process of a pid namespace can.
    """
    ours, theirs = socket.socketpair()
    is_inside = most_processes is not None and _fork_into(f"/proc/{inner}/ns/pid")
    maker = os.fork()
    if maker == 0:
        if is_inside and most_processes is not None:
            _limit_pids(most_processes)
        os._exit(_make_listeners(inner, ports, theirs))
    if is_inside and not _fork_into("/proc/self/ns/pid"):  # no thread could be made either
        raise Unusable("there is no way back from the sandbox's processes")
    theirs.close()
    with ours:
        said, fds, _, _ = socket.recv_fds(ours, 1024, len(ports))
    os.waitpid(maker, 0)
    if len(fds) != len(ports):
        raise Unusable(f"cannot listen inside the sandbox: {said.decode(errors='replace')}")
    return [socket.socket(fileno=fd) for fd in fds]


def _fork_into(namespace: str) -> bool:
    """Have the next child be a process of that pid namespace. False: we may not."""
    try:
        fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return bool(ctypes.CDLL(None, use_errno=True).setns(fd, _CLONE_NEWPID) == 0)
    finally:
        os.close(fd)


def _limit_pids(most: int) -> None:
    """Where /proc/sys is read only nothing holds it back, and the shim ends it when it is seen."""
    with contextlib.suppress(OSError):
        fd = os.open("/proc/sys/kernel/pid_max", os.O_WRONLY | os.O_CLOEXEC)
        os.write(fd, b"%d" % (most + _RESERVED_PIDS))
        os.close(fd)


def _make_listeners(pid: int, ports: list[int], answer: socket.socket) -> int:
    """Enter that network, listen, hand the sockets out. In a process of its own: there is no way back."""
    try:
        _enter_network(pid)
        sockets = [_listener(port) for port in ports]
        socket.send_fds(answer, [b"\n"], [each.fileno() for each in sockets])
    except OSError as error:
        answer.send(str(error).encode(errors="replace")[:1000])
        return 1
    return 0


def _enter_network(pid: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    network = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    if os.readlink(f"/proc/self/fd/{network}") == os.readlink("/proc/self/ns/net"):
        raise OSError(errno.EINVAL, "the sandbox has no network of its own")
    owner = fcntl.ioctl(network, _NS_GET_USERNS)  # whoever owns it may enter it, root or not
    for namespace in (owner, network):
        kind = "user" if namespace == owner else "net"
        if os.readlink(f"/proc/self/fd/{namespace}") == os.readlink(f"/proc/self/ns/{kind}"):
            continue
        if libc.setns(namespace, 0) != 0:
            raise OSError(ctypes.get_errno(), f"cannot enter the sandbox's {kind} namespace")


def _listener(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)  # bubblewrap may still be about to raise it
    listener.bind(("127.0.0.1", port))
    listener.listen(_BACKLOG)
    return listener


# --- the whole ---------------------------------------------------------------------------------------------


def _accept(listeners: Mapping[int, tuple[socket.socket, tuple[str, int] | None]], proxy: _Proxy) -> None:
    poll = select.poll()
    for fd in listeners:
        poll.register(fd, select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            listener, forward = listeners[fd]
            try:
                client, _ = listener.accept()
            except OSError:
                time.sleep(0.05)  # no descriptors left: some will be closed
            else:
                proxy.take(client, forward)


def enter(sandbox: Sandbox, policy: str, refused: str) -> None:
    """The rest of the program: see `serve`. Threads that still serve connections end with us."""
    os._exit(serve(sandbox, policy, refused))


def serve(sandbox: Sandbox, policy: str, refused: str) -> int:
    """Give the sandbox its way out and run it to its end; its exit code. `policy` and `refused` are files."""
    refusals = None
    try:
        try:
            with open(policy, "rb") as file:
                plan = _Plan(json.load(file))
            refusals = _Refusals(refused)
            sandbox.meet()
            _open_way_out(sandbox, plan, refusals)
            sandbox.begin()
        except BaseException:
            sandbox.kill()
            raise
        return _until_ended(sandbox)
    except (Unusable, OSError, KeyError, TypeError, ValueError) as error:
        return fail(
            f"{type(error).__name__}: {error}" if isinstance(error, KeyError | TypeError) else str(error)
        )
    finally:
        if refusals is not None:
            refusals.close()


def _open_way_out(sandbox: Sandbox, plan: _Plan, refusals: _Refusals) -> None:
    targets = [None, *((host, port) for _, host, port in plan.forwards)]
    ports = [plan.port, *(inner for inner, _, _ in plan.forwards)]
    sockets = _listeners(sandbox.inner, ports, sandbox.most_processes)
    listening = {each.fileno(): (each, forward) for each, forward in zip(sockets, targets, strict=True)}
    _thread.stack_size(256 * 1024)
    _thread.start_new_thread(_accept, (listening, _Proxy(plan, refusals)))


def _until_ended(sandbox: Sandbox) -> int:
    while True:
        status = sandbox.status()
        if status is not None:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        signal.sigwait(AWAITED)
