"""Rule 10, the network: an agent in a sandbox reaches what its allow-list names, and nothing else.

The real proxy and the real bubblewrap. Inside, a program of an attacker talks to the proxy byte by byte;
outside, servers on this machine's loopback stand for the internet and note every byte that gets through.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from world import World, program

from adw_modules.config import SandboxSettings
from adw_modules.security.network import PROXY_PORT, parse_place, policy_of
from coordinator import shim
from coordinator.bubblewrap import find
from coordinator.network import POLICY_FILE, REFUSALS_FILE, behind_proxy, refusals_of
from coordinator.sandbox import NO_HOME, NONE, OPEN, NetworkPlan, View, command
from coordinator.sandbox import Limits as BoxLimits

FOUND = find(SandboxSettings(), os.environ)
pytestmark = pytest.mark.skipif(FOUND.box is None, reason=f"no sandbox here: {FOUND.problem}")

# Sends each message to the proxy in a connection of its own, in pieces; prints the answers as JSON.
ATTACKER = f"""
import json, socket, sys
answers = []
for pieces in json.loads(sys.argv[1]):
    answer = b''
    try:
        with socket.create_connection(('127.0.0.1', {PROXY_PORT}), timeout=10) as proxy:
            for piece in pieces:
                proxy.sendall(piece.encode('latin-1'))
                if piece.startswith('CONNECT') and len(pieces) > 1:
                    answer += proxy.recv(4096)
            while data := proxy.recv(4096):
                answer += data
    except OSError as error:
        answer += repr(error).encode()
    answers.append(answer.decode('latin-1'))
print(json.dumps(answers))
"""


@dataclass
class Server:
    """Somebody on the internet: notes what it is sent, answers each connection with one line."""

    answer: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"
    greeting: bytes = b""
    heard: list[bytes] = field(default_factory=list)

    def __enter__(self) -> Server:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)  # to close it would leave the thread in its `accept`
        self._thread.join(20)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            with client, contextlib.suppress(OSError):
                client.settimeout(10)
                if self.greeting:
                    client.sendall(self.greeting)
                self.heard.append(client.recv(65536))
                client.sendall(self.answer)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


@dataclass
class Stage:
    """A run directory with a policy, and sandboxes that are started by it."""

    run_dir: Path

    def policy(self, *allowed: str, **changes) -> None:
        policy = policy_of([parse_place(each) for each in allowed]) | changes
        (self.run_dir / POLICY_FILE).write_text(json.dumps(policy))

    def argv(
        self, *argv: str, network: NetworkPlan | None = None, limits: BoxLimits | None = None
    ) -> list[str]:
        view = View(cwd=Path("/tmp"), home=NO_HOME)
        plan = network or behind_proxy(self.run_dir)
        return list(command(argv, box=FOUND.box, view=view, limits=limits or BoxLimits(), network=plan))

    def run(self, *argv: str, limits: BoxLimits | None = None, **options) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.argv(*argv, limits=limits),
            env={"PATH": "/usr/bin:/bin", **behind_proxy(self.run_dir).env},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            **options,
        )

    def python(self, code: str, *arguments: str, limits: BoxLimits | None = None) -> str:
        done = self.run(*PYTHON, code, *arguments, limits=limits)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def attack(self, *messages: list[str] | str) -> list[str]:
        """What the proxy answers to each."""
        pieces = [[each] if isinstance(each, str) else each for each in messages]
        return json.loads(self.python(ATTACKER, json.dumps(pieces)))

    def start(self, code: str, **options) -> subprocess.Popen[str]:
        """A sandbox that goes on; its first line has been read."""
        process = subprocess.Popen(
            self.argv(*PYTHON, code),
            env={"PATH": "/usr/bin:/bin", **options.pop("env", {})},
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            **options,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    @property
    def refused(self) -> dict[tuple[str, str], int]:
        return {(each.reason, each.target): each.count for each in refusals_of(self.run_dir)}


PYTHON = (os.path.realpath(sys.executable), "-I", "-S", "-c")


@pytest.fixture
def stage(tmp_path) -> Stage:
    found = Stage(tmp_path)
    found.policy()
    return found


def connect(target: str) -> str:
    return f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n"


def hello(name: str) -> str:
    """The first message of TLS for `name`, from a real client."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read().decode("latin-1")


# --- no other way -----------------------------------------------------------------------------------------


def test_there_is_no_way_out_but_the_proxy(stage, server):
    """Not to this machine's services, not to cloud metadata, not to a DNS server, not by IPv6."""
    code = f"""
import socket
for family, kind, address in (
    (socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", {server.port})),
    (socket.AF_INET, socket.SOCK_STREAM, ("169.254.169.254", 80)),
    (socket.AF_INET, socket.SOCK_STREAM, ("93.184.216.34", 443)),
    (socket.AF_INET, socket.SOCK_DGRAM, ("8.8.8.8", 53)),
    (socket.AF_INET6, socket.SOCK_STREAM, ("fe80::1", 80)),
    (socket.AF_INET6, socket.SOCK_STREAM, ("2606:4700::1", 443)),
):
    with socket.socket(family, kind) as s:
        s.settimeout(2)
        try:
            s.connect(address)
            s.send(b"x")
        except OSError as error:
            print(error.errno)
        else:
            print("OUT", address)
try:
    print("OUT", socket.getaddrinfo("example.com", 443))
except OSError:
    print("no names")
"""
    said = stage.python(code)
    assert "OUT" not in said, said
    assert len(said.split("\n")) == 8
    assert server.heard == []


# A machine of a cloud: in a network of its own, where 169.254.169.254 is there and tells its secret.
CLOUD = """
import fcntl, json, socket, struct, subprocess, sys, threading
def call(number, form, *values):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        fcntl.ioctl(s, number, struct.pack(form, *values))
call(0x8916, "16sH2s4s8x", b"lo:1", socket.AF_INET, bytes(2), socket.inet_aton("169.254.169.254"))
for name in (b"lo", b"lo:1"):
    call(0x8914, "16sH14x", name, 0x41)
heard = []
def serve(server):
    while True:
        client, _ = server.accept()
        with client:
            heard.append(client.recv(4096).decode())
            client.sendall(b"HTTP/1.0 200 OK\\r\\n\\r\\nthe secret of the machine")
server = socket.create_server(("169.254.169.254", 80))
threading.Thread(target=serve, args=(server,), daemon=True).start()
done = subprocess.run(json.loads(sys.argv[1]), capture_output=True, text=True, timeout=60)
print(json.dumps({"said": done.stdout, "wrong": done.stderr, "heard": len(heard)}))
"""
ASKS_METADATA = f"""
import socket
def ask(address, *sent):
    try:
        with socket.create_connection(address, timeout=5) as s:
            answer = b""
            for piece in sent:
                s.sendall(piece)
                answer += s.recv(4096)
            while more := s.recv(4096):
                answer += more
            return answer
    except OSError as error:
        return repr(error).encode()
GET = b"GET /latest/meta-data/ HTTP/1.0\\r\\n\\r\\n"
URL = b"GET http://%s/latest/meta-data/ HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n"
print(ask(("169.254.169.254", 80), GET))
for name in (b"169.254.169.254", b"[::ffff:169.254.169.254]", b"2852039166", b"metadata.test"):
    print(ask(("127.0.0.1", {PROXY_PORT}), b"CONNECT %s:80 HTTP/1.1\\r\\n\\r\\n" % name, GET))
    print(ask(("127.0.0.1", {PROXY_PORT}), URL % name))
"""


@pytest.mark.parametrize(
    ("network", "times"), [(OPEN, 1), (NONE, 0), (None, 0)], ids=["open", "none", "allow-list"]
)
def test_cloud_metadata_is_refused_by_us_and_not_by_a_missing_route(stage, network, times):
    """The control: on that machine the address answers, to whoever is let out."""
    stage.policy("metadata.test:80", pinned={"metadata.test": ["169.254.169.254"]})
    argv = stage.argv(*PYTHON, ASKS_METADATA, network=network)
    inside = ["unshare", "--net", *(() if os.geteuid() == 0 else ("--user", "--map-root-user"))]
    done = subprocess.run(
        [*inside, sys.executable, "-c", CLOUD, json.dumps(argv)],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    if not done.stdout:
        pytest.skip(f"no network of its own can be made here: {done.stderr[-200:]}")
    found = json.loads(done.stdout)
    assert found["wrong"] == ""
    assert len(found["said"].splitlines()) == 9
    assert found["said"].count("the secret of the machine") == times
    assert found["heard"] == times
    if network is None:
        assert {reason for reason, _ in stage.refused} == {"address", "malformed"}
        assert stage.refused["address", "metadata.test:80"] == 2
        assert stage.refused["address", "169.254.169.254:80"] == 2


def test_an_allowed_host_is_reached_by_tunnel_and_in_plain_and_nobody_else_is(stage, server):
    stage.policy(f"ok.test:{server.port}", f"127.0.0.1:{server.port}", pinned={"ok.test": ["127.0.0.1"]})
    target = f"ok.test:{server.port}"
    plain = f"GET http://{target}/a?b HTTP/1.1\r\nHost: evil.test\r\nProxy-Authorization: x\r\n\r\n"
    answers = stage.attack(
        [connect(target), "GET /tunnel HTTP/1.1\r\n\r\n"],
        plain,
        connect(target) + "GET /at-once HTTP/1.1\r\n\r\n",
        connect(f"evil.test:{server.port}"),
    )
    assert [answer.endswith("hello") for answer in answers] == [True, True, True, False]
    assert server.heard[0] == b"GET /tunnel HTTP/1.1\r\n\r\n"
    assert server.heard[1] == f"GET /a?b HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n".encode()
    assert server.heard[2] == b"GET /at-once HTTP/1.1\r\n\r\n"
    assert len(server.heard) == 3
    assert answers[3].startswith("HTTP/1.1 403 ")
    assert "evil.test" in answers[3]
    assert stage.refused == {("not_listed", f"evil.test:{server.port}"): 1}


class Customers(ThreadingHTTPServer):
    """A web server of many customers: goes by the Host of each request, and keeps connections open."""

    daemon_threads = True
    hosts: list[str]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.server.hosts.append(self.headers["Host"])
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass


@pytest.fixture
def customers() -> Iterator[Customers]:
    with Customers(("127.0.0.1", 0), Customers.Handler) as running:
        running.hosts = []
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def test_behind_a_plain_request_no_second_one_goes_to_another_customer_of_its_host(stage, customers):
    """The control: who asks that server directly is answered twice."""
    port = customers.server_address[1]
    second = "GET / HTTP/1.1\r\nHost: other.test\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port)) as direct:
        direct.sendall(f"GET / HTTP/1.1\r\nHost: ok.test\r\n\r\n{second}".encode())
        until(lambda: len(customers.hosts) == 2, "both were read")
    customers.hosts.clear()

    stage.policy(f"ok.test:{port}", f"127.0.0.1:{port}", pinned={"ok.test": ["127.0.0.1"]})
    first = f"GET http://ok.test:{port}/ HTTP/1.1\r\nHost: other.test\r\n"
    answers = stage.attack(
        f"{first}\r\n{second}",
        [f"{first}\r\n", second],
        f"{first}Connection: keep-alive\r\nKeep-Alive: timeout=9\r\n\r\n{second}",
        f"{first}Proxy-Connection: keep-alive\r\nConnection: close, keep-alive\r\n\r\n{second}",
        f"{first}Content-Length: 0\r\nContent-Length: 40\r\n\r\n{second}",
        f"{first}Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{second}",
        f"{first} Host: other.test\r\n\r\n{second}",
        f"GET http://user:word@ok.test:{port}/ HTTP/1.1\r\n\r\n",
        f"GET http://ok.test:{port}@other.test/ HTTP/1.1\r\n\r\n",
    )
    assert set(customers.hosts) == {f"ok.test:{port}"}
    assert len(customers.hosts) == 4
    assert [answer[9:12] for answer in answers] == ["200"] * 4 + ["400"] * 3 + ["403"] * 2
    assert all(answer.count("HTTP/1.1 ") == 1 for answer in answers)


def test_no_spelling_of_loopback_or_of_metadata_gets_through(stage, server):
    """The port is one that listens, and names on the list lead to it: only the address says no."""
    port = server.port
    stage.policy(
        *(f"{name}:{port}" for name in ("rebind.test", "six.test", "mapped.test", "nat.test", "*.wild.test")),
        pinned={
            "rebind.test": ["127.0.0.1"],
            "six.test": ["::1"],
            "mapped.test": ["::ffff:127.0.0.1"],
            "nat.test": ["64:ff9b::7f00:1", "2002:7f00:1::", "169.254.169.254", "10.0.0.1"],
            "a.wild.test": ["0.0.0.0"],
        },
    )
    hosts = [
        *("rebind.test", "REBIND.test.", "six.test", "mapped.test", "nat.test", "a.wild.test"),
        *("127.0.0.1", "127.1", "2130706433", "0x7f000001", "0x7f.0.0.1", "0177.0.0.1", "0", "0.0.0.0"),
        *(
            "[::1]",
            "[::]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[0:0:0:0:0:ffff:127.0.0.1]",
            "localhost",
        ),
        *("localhost.", "ip6-localhost", "169.254.169.254", "[fe80::1%lo]", "metadata.google.internal"),
        *("rebind.test@127.0.0.1", "127.0.0.1#rebind.test", "127.0.0.1/rebind.test", "\xb9\xb2\xb7.0.0.1"),
    ]
    tunnels = [connect(f"{host}:{port}") for host in hosts]
    plain = [f"GET http://{host}:{port}/ HTTP/1.1\r\n\r\n" for host in hosts]
    answers = stage.attack(*tunnels, *plain)
    assert [answer for answer in answers if answer[:12] not in ("HTTP/1.1 403", "HTTP/1.1 400")] == []
    assert server.heard == []
    assert stage.refused["address", f"rebind.test:{port}"] == 4


@pytest.mark.parametrize(
    "second",
    [
        "\r\nX: y\r\nCONNECT ok.test:{port} HTTP/1.1",
        "\nHost: ok.test",
        " HTTP/1.1\r\nHost: ok.test\r\n\r\nGET http://ok.test:{port}/ HTTP/1.1\r\n\r\n",
        "\x00.ok.test",
    ],
)
def test_no_line_break_in_a_target_smuggles_a_second_request(stage, server, second):
    stage.policy(f"ok.test:{server.port}", f"127.0.0.1:{server.port}", pinned={"ok.test": ["127.0.0.1"]})
    (answer,) = stage.attack(
        f"CONNECT evil.test:{server.port}{second.format(port=server.port)} HTTP/1.1\r\n\r\n"
    )
    assert answer[:12] in ("HTTP/1.1 400", "HTTP/1.1 403")
    assert answer.count("HTTP/1.1 ") == 1
    assert server.heard == []


def test_tls_in_a_tunnel_is_for_the_host_of_the_tunnel(stage, server):
    """Many hosts share an address behind a large front: the tunnel to one must not lead to another."""
    stage.policy(f"ok.test:{server.port}", f"127.0.0.1:{server.port}", pinned={"ok.test": ["127.0.0.1"]})
    honest, fronted = hello("ok.test"), hello("evil.test")
    spread = "".join(f"\x16\x03\x01\x00\x01{byte}" for byte in fronted[5:])
    tunnel = connect(f"ok.test:{server.port}")
    answers = stage.attack([tunnel, fronted], [tunnel, spread], [tunnel, honest])
    assert answers[0].endswith("\x15\x03\x03\x00\x02\x02\x70")
    assert [answer.endswith("hello") for answer in answers] == [False, False, True]
    assert [each for each in server.heard if each] == [honest.encode("latin-1")]
    assert stage.refused == {("tls_name", f"ok.test:{server.port}"): 2}


def test_a_server_that_speaks_first_is_heard(stage):
    with Server(greeting=b"220 ready\r\n") as mail:
        stage.policy(f"ok.test:{mail.port}", f"127.0.0.1:{mail.port}", pinned={"ok.test": ["127.0.0.1"]})
        (answer,) = stage.attack([connect(f"ok.test:{mail.port}"), "EHLO\r\n"])
    assert "220 ready" in answer


def test_a_model_server_of_this_machine_is_found_under_its_own_port(stage, server):
    with Server(answer=b"other") as other:
        stage.policy(f"localhost:{server.port}")
        code = f"""
import socket
for port in ({server.port}, {other.port}):
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as s:
            s.sendall(b"x")
            print(s.recv(100))
    except OSError as error:
        print("refused", error.errno)
"""
        said = stage.python(code)
        assert other.heard == []
    assert said.splitlines()[0].startswith("b'HTTP/1.1 200 OK")
    assert said.splitlines()[1].startswith("refused")


# --- limits ------------------------------------------------------------------------------------------------


def test_a_head_that_never_ends_and_one_that_is_too_long_are_refused(stage, server):
    stage.policy(f"ok.test:{server.port}", limits={"head_seconds": 0.3})
    began = time.monotonic()
    answers = stage.attack(
        "CONNECT ok.test", f"GET http://{'a' * 40_000}", connect("a.test:1")[:-2] + "A: b\r\n" * 200 + "\r\n"
    )
    assert time.monotonic() - began < 20
    assert answers[0] == ""
    assert "longer than" in answers[1] or "Reset" in answers[1]
    assert answers[2].startswith("HTTP/1.1 400")


def test_connections_are_limited_and_a_new_one_is_served_when_old_ones_have_ended(stage, server):
    stage.policy(f"localhost:{server.port}", limits={"connections": 3, "head_seconds": 5})
    code = f"""
import socket
def ask(s):
    s.sendall(b"CONNECT nobody.test:443 HTTP/1.1\\r\\n\\r\\n")
    return s.recv(12)
held = [socket.create_connection(("127.0.0.1", {PROXY_PORT}), timeout=10) for _ in range(3)]
fourth = socket.create_connection(("127.0.0.1", {PROXY_PORT}), timeout=10)
try:
    print(fourth.recv(10))
except ConnectionResetError:
    print(b"")
for s in held:
    print(ask(s))
    s.close()
for attempt in range(1000):
    with socket.create_connection(("127.0.0.1", {PROXY_PORT}), timeout=10) as s:
        try:
            if ask(s):
                print("again")
                break
        except OSError:
            pass
"""
    assert stage.python(code).split("\n")[:-1] == ["b''", *["b'HTTP/1.1 403'"] * 3, "again"]
    assert stage.refused["limit", ""] >= 1


def test_the_log_of_refusals_has_a_bound_whatever_an_agent_asks_for(stage):
    asked = [connect(f"{'x' * 50}{number}.test:443") for number in range(260)] + [
        connect("again.test:443")
    ] * 100
    stage.attack(connect("first.test:443"), *asked)
    log = (stage.run_dir / REFUSALS_FILE).read_bytes()
    assert log.count(b"\n") < 230
    assert len(log) < 40_000
    assert stage.refused["not_listed", "first.test:443"] == 1
    assert stage.refused["not_listed", ""] == 161  # what was too much, counted together


# --- the process -------------------------------------------------------------------------------------------

WAITING = r"""
import os, signal, sys, time
def end(number, frame):
    os.write(1, b"asked %d\n" % number)
    sys.exit(17)
signal.signal(signal.SIGTERM, end)
signal.signal(signal.SIGINT, end)
os.write(1, b"ready\n")
while True:
    time.sleep(0.05)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_polite_signal_reaches_the_agent_and_its_exit_code_comes_back(stage, number):
    with stage.start(WAITING) as process:
        os.killpg(process.pid, number)
        assert process.wait(20) == 17
        assert process.stdout is not None
        assert process.stdout.read() == f"asked {number.value}\n"


def test_exit_codes_and_output_come_through(stage):
    done = stage.run("/bin/sh", "-c", "echo out; echo err >&2; read line; echo $line; exit 7", input="in\n")
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\nin\n", "err\n")
    assert stage.run("/bin/sh", "-c", "kill -9 $$").returncode == 137


def bearers(marker: str) -> list[int]:
    return [each.pid for each in shim.process_table() if shim.carries(each.pid, marker)]


def until(condition, what: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def test_nothing_survives_a_proxy_that_is_killed(stage):
    marker = f"network-{os.getpid()}-proxy"
    with stage.start(WAITING, env={shim.MARKER_NAME: marker}) as process:
        assert len(bearers(marker)) >= 3  # proxy, bubblewrap, agent
        process.kill()
        process.wait(20)
        until(lambda: not bearers(marker), "something lives on without its proxy")


def test_nothing_survives_a_shim_that_is_killed(stage):
    """The proxy's parent, here a shell that waits for it."""
    marker = f"network-{os.getpid()}-shim"
    (stage.run_dir / "argv").write_text(json.dumps(stage.argv(*PYTHON, WAITING)))
    parent = f"import json, subprocess; subprocess.run(json.load(open({str(stage.run_dir / 'argv')!r})))"
    process = subprocess.Popen(
        [*PYTHON, parent],
        env={"PATH": "/usr/bin:/bin", shim.MARKER_NAME: marker},
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.kill()
        process.wait(20)
        until(lambda: not bearers(marker), "something lives on without its shim")


@pytest.mark.parametrize(
    "damage",
    ["", "{}", "[]", '{"format": 2}', json.dumps(policy_of([]) | {"networks": [["everything", 0]]})],
)
def test_without_a_policy_nothing_is_started(stage, damage):
    (stage.run_dir / POLICY_FILE).write_text(damage)
    done = stage.run("/bin/sh", "-c", "echo started")
    assert (done.returncode, done.stdout) == (71, "")
    assert "was not started" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_proxy_that_is_killed_before_the_start_lets_no_agent_begin(stage):
    """It is held up by its policy, a pipe without a writer. The sandbox has to wait on for ever."""
    (stage.run_dir / POLICY_FILE).unlink(missing_ok=True)
    os.mkfifo(stage.run_dir / POLICY_FILE)
    marker = f"network-{os.getpid()}-early"
    process = subprocess.Popen(
        stage.argv("/bin/sh", "-c", "echo started"),
        env={"PATH": "/usr/bin:/bin", shim.MARKER_NAME: marker},
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    with process:
        until(lambda: len(bearers(marker)) >= 3, "proxy, bubblewrap, and the first process inside")
        process.kill()
        until(lambda: len(bearers(marker)) <= 1, "bubblewrap goes with the proxy")
        inside = [os.pidfd_open(pid) for pid in bearers(marker)]
        assert select.select(inside, [], [], 0.5)[0] == []  # it would have ended as the agent does
        assert shim.kill_leftovers({}, marker) == 0  # what the shim does, whose child it is by now
        assert process.stdout is not None
        assert process.stdout.read() == b""
        for fd in inside:
            os.close(fd)


def test_the_agent_begins_with_its_limits_and_hears_every_signal(stage):
    code = """
import resource as r, signal
signals = [int(n) for n in signal.valid_signals() if signal.getsignal(n) is signal.SIG_IGN]
kinds = (r.RLIMIT_NPROC, r.RLIMIT_FSIZE, r.RLIMIT_NOFILE, r.RLIMIT_CORE)
blocked = [int(n) for n in signal.pthread_sigmask(0, ())]
print([[r.getrlimit(kind) for kind in kinds], signals, blocked])
"""
    limits = BoxLimits(processes=400, file_bytes=5_000_000, open_files=500)
    found, ignored, blocked = eval(stage.python(code, limits=limits))
    assert found == [(400, 400), (5_000_000, 5_000_000), (500, 500), (0, 0)]
    assert set(ignored) <= {signal.SIGPIPE, signal.SIGXFSZ}  # Python's own doing
    assert blocked == []


def test_nothing_of_the_proxy_is_open_inside(stage):
    said = stage.python("import os; print([fd for fd in os.listdir('/proc/self/fd')])")
    assert set(eval(said)) <= {"0", "1", "2", "3"}  # the fourth is the listing itself


def test_a_sandbox_that_shares_the_network_of_the_host_is_not_started(stage):
    """A slip in the options must not put the proxy, or the agent, on the host's own loopback."""
    argv = [word for word in stage.argv("/bin/sh", "-c", "echo started") if word != "--unshare-net"]
    done = subprocess.run(argv, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (71, "")
    assert "no network of its own" in done.stderr


# --- through the operator's own proxy ---------------------------------------------------------------------


def test_the_operators_proxy_is_asked_for_names_on_the_list_and_for_no_others(stage):
    with Server(answer=b"HTTP/1.1 200 OK\r\n\r\n") as corporate:
        upstream = {"host": "127.0.0.1", "port": corporate.port, "direct": []}
        stage.policy("ok.test", upstream=upstream, limits={"head_seconds": 0.3})
        stage.attack(connect("ok.test:443"), connect("evil.test:443"), connect("127.0.0.1:443"))
    assert corporate.heard == [b"CONNECT ok.test:443 HTTP/1.1\r\nHost: ok.test:443\r\n\r\n"]


def test_what_the_operators_proxy_refuses_is_not_reached(stage):
    with Server(answer=b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n") as corporate:
        upstream = {"host": "127.0.0.1", "port": corporate.port, "direct": []}
        stage.policy("ok.test", upstream=upstream, limits={"head_seconds": 0.3})
        (answer,) = stage.attack(connect("ok.test:443"))
    assert answer.startswith("HTTP/1.1 502")
    assert "407" in answer


# --- the daemon -------------------------------------------------------------------------------------------

CURIOUS = """
import os, socket, urllib.parse
proxy = urllib.parse.urlsplit(os.environ["HTTPS_PROXY"])
for target in ("pypi.org:443", "pypi.org:443", "169.254.169.254:80", "@everyone.test`:1"):
    with socket.create_connection((proxy.hostname, proxy.port), timeout=10) as s:
        s.sendall(b"CONNECT " + target.encode() + b" HTTP/1.1\\r\\n\\r\\n")
        s.recv(4096)
raise SystemExit(3)
"""


def test_the_operator_reads_what_was_refused_and_how_to_allow_it(a_world):
    world: World = a_world(
        coordinator={"max_attempts": 1},
        sandbox={"mode": "bubblewrap"},
        **{"providers__claude-cli": program(CURIOUS)},
    )
    number = world.issue("Install the dependencies")
    world.start()
    task = world.until(lambda: (found := world.task(number)) and found.state == "failed" and found, "failed")
    advice = 'the agent was refused pypi.org:443 and 2 more; if it is to reach that, add "pypi" to registries'
    assert advice in task.cause
    assert "everyone" not in task.cause
    lines = world.events("network refused")
    assert {(line["host"], line["port"], line["reason"]) for line in lines} >= {
        ("pypi.org", "443", "not_listed"),
        ("169.254.169.254", "80", "address"),
    }
    (total,) = world.events("network refused in all")
    assert (total["places"], total["count"]) == (3, 4)
    assert all("@" not in json.dumps(line) and "`" not in json.dumps(line) for line in lines)


ASKS_AND_WAITS = """
import os, socket, time, urllib.parse
proxy = urllib.parse.urlsplit(os.environ["HTTPS_PROXY"])
def ask(target):
    with socket.create_connection((proxy.hostname, proxy.port), timeout=10) as s:
        s.sendall(b"CONNECT " + target.encode() + b" HTTP/1.1\\r\\n\\r\\n")
        s.recv(4096)
for _ in range(4):
    ask("first.test:443")
until = time.monotonic() + 60
while time.monotonic() < until and not os.path.exists("gate"):
    time.sleep(0.01)
for number in range(30):
    ask("more" + str(number) + ".test:443")
    ask("first.test:443")
raise SystemExit(3)
"""


def test_what_is_refused_is_in_the_log_while_the_run_still_lives(a_world):
    """Each place once, however often it is asked for, and no more of them than somebody reads."""
    world: World = a_world(
        coordinator={"max_attempts": 1},
        sandbox={"mode": "bubblewrap"},
        **{"providers__claude-cli": program(ASKS_AND_WAITS)},
    )
    number = world.issue("Look around")
    world.start()
    line = world.until_logged("network refused", host="first.test")
    assert world.events("worker finished") == []  # it waits for us
    assert world.events("network refused in all") == []
    assert (line["port"], line["reason"]) == ("443", "not_listed")
    assert line["task"] == f"gh-{number}"
    (world.state_dir / "trees" / f"gh-{number}" / "gate").touch()
    world.until_state(number, "failed")
    hosts = [each["host"] for each in world.events("network refused")]
    assert len(hosts) == len(set(hosts)) == 10
    (total,) = world.events("network refused in all")
    assert (total["places"], total["count"]) == (31, 64)
