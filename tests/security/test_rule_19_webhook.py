"""A webhook is a signed hint: what is not signed is nothing, and what is signed is one poll (rule 19)."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import socket
import time
from collections.abc import Iterator

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from world import REPO, WRITE, World

from adw_modules.errors import ConfigError
from adw_modules.security.webhooks import (
    Deliveries,
    Hint,
    HintPace,
    Signatures,
    claimed_digest,
    hint_of,
    secrets_of,
    secrets_problem,
)
from coordinator import webhook

SECRET = "It's a Secret to Everybody"
FORMER = "the-former-secret-of-the-webhook"
KEY_ENV = "HELLO_WEBHOOK_SECRET"
DOCUMENTED = b"sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"


def sign(body: bytes, secret: str = SECRET) -> str:
    return f"sha256={hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}"


def is_signed(body: bytes, header: bytes | None, *secrets: str) -> bool:
    claimed = claimed_digest(header)
    signatures = Signatures(secrets or (SECRET,))
    for start in range(0, len(body), 5):
        signatures.feed(body[start : start + 5])
    return claimed is not None and signatures.match(claimed)


# The signature


def test_the_example_of_githubs_documentation_is_signed():
    assert is_signed(b"Hello, World!", DOCUMENTED)
    assert is_signed(b"Hello, World!", DOCUMENTED, FORMER, SECRET)
    assert not is_signed(b"Hello, World!", DOCUMENTED, FORMER)
    assert not is_signed(b"Hello, World?", DOCUMENTED)


NOT_SIGNATURES = {
    "missing": None,
    "empty": b"",
    "short": DOCUMENTED[:-1],
    "long": DOCUMENTED + b"0",
    "upper case": DOCUMENTED[:7] + DOCUMENTED[7:].upper(),
    "upper case name": b"SHA256=" + DOCUMENTED[7:],
    "without a name": DOCUMENTED[7:],
    "sha1": b"sha1=" + hmac.new(SECRET.encode(), b"Hello, World!", hashlib.sha1).hexdigest().encode(),
    "another digest": b"sha256=" + b"0" * 64,
    "not hexadecimal": b"sha256=" + b"z" * 64,
    "not ASCII": b"sha256=" + b"\xff" * 64,
    "two": DOCUMENTED + b", " + DOCUMENTED,
    "a line more": DOCUMENTED + b"\n",
}


@pytest.mark.parametrize("name", NOT_SIGNATURES)
def test_nothing_else_is_a_signature(name):
    assert not is_signed(b"Hello, World!", NOT_SIGNATURES[name])


@given(body=st.binary(max_size=300), header=st.binary(max_size=80))
@settings(max_examples=100)
def test_no_header_that_is_not_the_bodys_own_passes(body, header):
    assert is_signed(body, header) is (header == sign(body).encode())


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (None, "is not set"),
        ("", "is empty"),
        (" , ", "is empty"),
        ("short", "less than 16 characters"),
        (f"{SECRET},short", "less than 16 characters"),
        (f"{SECRET},{FORMER},{SECRET}", "holds 3 secrets"),
    ],
)
def test_a_secret_that_protects_nothing_is_refused_without_being_shown(value, problem):
    said = secrets_problem(value)
    assert said is not None
    assert problem in said
    assert SECRET not in said


def test_two_secrets_are_the_new_and_the_former_one():
    assert secrets_problem(f"{SECRET}, {FORMER}") is None
    assert secrets_of(f"{SECRET}, {FORMER}") == [SECRET, FORMER]


# What is remembered, and how much a flood may cause


def test_a_delivery_counts_once_also_under_another_number():
    seen = Deliveries()
    assert seen.is_new("guid-1", b"digest-1")
    assert not seen.is_new("guid-1", b"digest-1"), "a redelivery keeps its number"
    assert not seen.is_new("guid-2", b"digest-1"), "a copy can have another number"
    assert not seen.is_new("guid-1", b"digest-2")
    assert seen.is_new("guid-3", b"digest-3")


def test_what_is_remembered_has_a_bound():
    seen = Deliveries(most=10)
    for number in range(1000):
        assert seen.is_new(f"guid-{number}", f"digest-{number}".encode())
    assert len(seen._seen) == 20
    assert seen.is_new("x" * 100_000, b"long")
    assert max(map(len, seen._seen)) < 100, "nobody chooses how much is remembered"


def test_a_flood_of_hints_is_five_polls_and_then_one_in_ten_seconds():
    pace, polls = HintPace(burst=5, every_seconds=10.0), []
    for tick in range(60_000):  # a minute of a thousand hints a second
        now = 1000 + tick / 1000
        if pace.wait(now) == 0:
            pace.take(now)
            polls.append(now)
    assert len(polls) == 5 + 5
    assert pace.wait(1060 + 50) == 0


BOMBS = {
    "deep lists": b"[" * 100_000,
    "deep objects": b'{"repository":' * 50_000,
    "a long number": b'{"repository": {"id": ' + b"9" * 100_000 + b"}}",
    "not UTF-8": b"\xff\xfe{}",
    "a list": b"[]",
    "nothing": b"",
    "another shape": b'{"repository": ["id"]}',
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_that_somebody_signed_is_no_hint(name):
    assert hint_of("issues", BOMBS[name]) is None


def test_a_hint_names_a_repository_and_nothing_else():
    body = json.dumps(
        {"action": "labeled", "issue": {"number": 1}, "repository": {"id": 7, "full_name": "a/b"}}
    )
    assert hint_of("issues", body.encode()) == Hint(repo_id=7, full_name="a/b")
    assert hint_of("push", body.encode()) is None
    assert hint_of("issues", b'{"repository": {"id": true, "full_name": 3}}') == Hint(repo_id=0, full_name="")


# The daemon's own door


def open_door(world: World, **more) -> None:
    world.environ[KEY_ENV] = f"{SECRET},{FORMER}"
    world.write_config(webhook={"enabled": True, "listen": "127.0.0.1:0", "secret_env": KEY_ENV, **more})


@pytest.fixture
def door(a_world) -> Iterator[World]:
    """A daemon that polls once an hour, has polled once, and listens."""
    world: World = a_world(coordinator={"poll_interval_seconds": 3600})
    open_door(world)
    world.start()
    world.until_logged("webhook listens")
    world.until(lambda: world.inside and world.inside.daemon.polls.has_polled_all, "the first poll is done")
    return world


def address(world: World) -> str:
    return str(world.until_logged("webhook listens")["address"])


def payload(repo: str = REPO, **more) -> bytes:
    return json.dumps({"action": "labeled", "repository": {"id": 0, "full_name": repo}, **more}).encode()


def post(
    world: World, body: bytes, *, path: str = "/github", method: str = "POST", **headers
) -> httpx.Response:
    names = {
        "content-type": "application/json",
        "x-github-event": "issues",
        "x-github-delivery": f"guid-{time.monotonic_ns()}",
        "x-hub-signature-256": sign(body),
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    with httpx.Client(trust_env=False, verify=False, timeout=15) as client:
        given = {name: value for name, value in names.items() if value is not None}
        return client.request(method, f"http://{address(world)}{path}", content=body, headers=given)


def accepted(world: World) -> tuple[int, int]:
    assert world.inside is not None
    server = world.inside.daemon.webhook
    assert server is not None
    return server.accepted, server.refused


def test_a_label_starts_the_worker_without_waiting_for_a_poll(door):
    door.server.add_webhook(f"http://{address(door)}/github", FORMER)
    before = door.polls()
    number = door.issue(WRITE)
    door.until_working(number)
    door.until_state(number, "succeeded")
    assert door.polls() > before
    assert {delivery.status for delivery in door.server.deliveries} == {202}


def test_what_comes_while_a_poll_is_under_way_is_not_lost(door):
    from coordinator.demo.server import Fault, FaultKind

    late = door.server.faults.add(Fault(match=f"GET /repos/{REPO}/issues", kind=FaultKind.LATE, seconds=20))
    assert post(door, payload()).status_code == 202
    door.until_hit(late)  # it has been answered by the server, before the issue is there
    number = door.issue(WRITE)
    assert post(door, payload(number=2)).status_code == 202
    door.server.release()
    door.until_working(number)


REFUSED = {
    "another signature": ({"x_hub_signature_256": sign(b"x")}, 401),
    "another secret": ({"x_hub_signature_256": sign(payload(), "another secret of some length")}, 401),
    "no signature": ({"x_hub_signature_256": None}, 401),
    "sha1 only": ({"x_hub_signature_256": None, "x_hub_signature": "sha1=" + "0" * 40}, 401),
    "upper case": ({"x_hub_signature_256": sign(payload()).upper()}, 401),
    "another path": ({"path": "/"}, 404),
    "a query": ({"path": "/github?x=1"}, 404),
    "a path that leads here": ({"path": "/x/../github"}, 404),
    "another method": ({"method": "GET"}, 405),
    "a form": ({"content_type": "application/x-www-form-urlencoded"}, 415),
    "compressed": ({"content_encoding": "gzip"}, 415),
}


@pytest.fixture(scope="module")
def module_door(tmp_path_factory) -> Iterator[World]:
    """One daemon for the many questions that change nothing."""
    world = World(tmp_path_factory.mktemp("door"), {"coordinator": {"poll_interval_seconds": 3600}})
    open_door(world)
    world.start()
    world.until_logged("webhook listens")
    world.until(lambda: world.inside and world.inside.daemon.polls.has_polled_all, "the first poll is done")
    yield world
    world.close()


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_a_signed_delivery_causes_nothing_and_is_told_nothing(module_door, name):
    headers, status = REFUSED[name]
    polls, (taken, refused) = module_door.polls(), accepted(module_door)
    # httpx would tidy the path up: the raw request line says it as it is.
    answer = raw_post(module_door, **headers) if ".." in headers.get("path", "") else None
    found = answer or post(module_door, payload(), **headers)
    assert (found if isinstance(found, int) else found.status_code) == status
    if not isinstance(found, int):
        assert found.content == b""
        assert set(found.headers) <= {"content-length", "connection", "allow"}
    assert accepted(module_door) == (taken, refused + 1)
    assert module_door.polls() == polls


def raw_post(world: World, *, path: str) -> int:
    body = payload()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nX-GitHub-Event: issues\r\n"
        f"X-Hub-Signature-256: {sign(body)}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return status_of(talk(world, head.encode() + body))


def talk(world: World, *pieces: bytes) -> bytes:
    """Send bytes as they are; everything that is answered."""
    host, port = address(world).split(":")
    with socket.create_connection((host, int(port)), timeout=15) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for piece in pieces:
                connection.sendall(piece)
        said = b""
        with contextlib.suppress(ConnectionResetError):
            while more := connection.recv(65536):
                said += more
    return said


def status_of(said: bytes) -> int:
    return int(said.split(b" ", 2)[1])


HEAD = b"POST /github HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nX-GitHub-Event: issues\r\n"
SIGNED_HEAD = HEAD + b"X-Hub-Signature-256: " + sign(b"x").encode() + b"\r\n"
MALFORMED = {
    "not HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
    "a head without an end": (b"POST /github HTTP/1.1\r\n" + b"X: " + b"a" * 40_000, 400),
    "many headers": (b"POST /github HTTP/1.1\r\n" + b"X: a\r\n" * 20_000, 400),
    "30 MB": (SIGNED_HEAD + b"Content-Length: 31457280\r\n\r\n" + b"x" * 1000, 413),
    "a length of many digits": (SIGNED_HEAD + b"Content-Length: " + b"9" * 15 + b"\r\n\r\n", 413),
    "two lengths": (SIGNED_HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nx", 400),
    "a negative length": (SIGNED_HEAD + b"Content-Length: -1\r\n\r\n", 400),
    "two signatures": (
        SIGNED_HEAD + b"X-Hub-Signature-256: " + sign(b"x").encode() + b"\r\nContent-Length: 1\r\n\r\nx",
        401,
    ),
    "two types": (SIGNED_HEAD + b"Content-Type: text/plain\r\nContent-Length: 1\r\n\r\nx", 415),
    "a length and chunks": (
        SIGNED_HEAD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        400,
    ),
    "chunks and a length": (
        SIGNED_HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        400,
    ),
    "chunks in a disguise": (SIGNED_HEAD + b"Transfer-Encoding: xchunked\r\nContent-Length: 1\r\n\r\nx", 400),
    "a space before a colon": (SIGNED_HEAD + b"Content-Length : 1\r\n\r\nx", 400),
    "a length with a sign": (SIGNED_HEAD + b"Content-Length: +1\r\n\r\nx", 400),
    "a signature over two lines": (
        HEAD
        + b"X-Hub-Signature-256: sha256=\r\n "
        + sign(b"x")[7:].encode()
        + b"\r\nContent-Length: 1\r\n\r\nx",
        401,
    ),
    "a signature with something behind it": (
        HEAD + b"X-Hub-Signature-256: " + sign(b"x").encode() + b", x\r\nContent-Length: 1\r\n\r\nx",
        401,
    ),
    "an address with a host": (
        SIGNED_HEAD.replace(b"POST /github", b"POST http://x/github") + b"Content-Length: 1\r\n\r\nx",
        404,
    ),
    "a chunk that is said to be huge": (
        SIGNED_HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 21 + b"\r\nx",
        400,
    ),
    "a broken chunk": (SIGNED_HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_request_that_is_too_long_or_ambiguous_is_refused_before_its_body_is_read(module_door, name):
    sent, status = MALFORMED[name]
    assert status_of(talk(module_door, sent)) == status


def whole(body: bytes, guid: str = "72d3162e-cc78-11e3-81ab-4c9367dc0958") -> bytes:
    length = f"X-GitHub-Delivery: {guid}\r\nContent-Length: {len(body)}\r\n\r\n"
    return HEAD + b"X-Hub-Signature-256: " + sign(body).encode() + b"\r\n" + length.encode() + body


def test_a_second_request_in_a_connection_is_not_answered_and_not_counted(module_door):
    """What a reverse proxy takes for one request must not be two of them here."""
    first, second = payload(number=101), payload(number=102)
    before = accepted(module_door)
    said = talk(module_door, whole(first, "a-1") + whole(second, "a-2"))
    assert said.count(b"HTTP/1.1 ") == 1
    assert status_of(said) == 202
    assert accepted(module_door) == (before[0] + 1, before[1])
    # In the body of an accepted one it is part of what was signed, and nothing else.
    inner = payload(text=whole(second, "a-3").decode())
    assert talk(module_door, whole(inner, "a-4")).count(b"HTTP/1.1 ") == 1
    assert accepted(module_door) == (before[0] + 2, before[1])


def test_a_number_that_was_used_before_lets_no_other_body_through_unsigned(module_door):
    first = payload(number=201)
    assert status_of(talk(module_door, whole(first, "b-1"))) == 202
    taken, refused = accepted(module_door)
    replaced = whole(first, "b-1").replace(b'"number": 201', b'"number": 202')
    assert status_of(talk(module_door, replaced)) == 401
    assert accepted(module_door) == (taken, refused + 1)


NUMBERS = {
    "of many digits": b"9" * 4000,
    "of more digits than Python reads": b"9" * 5000,
    "below zero": b"-7",
    "infinite": b"1e999",
    "none": b"NaN",
    "a list": b"[" * 50 + b"]" * 50,
}


@pytest.mark.parametrize("name", NUMBERS)
def test_no_number_in_a_delivery_does_harm(module_door, name):
    body = b'{"action":"labeled","repository":{"id":%s,"full_name":"a/b"},"issue":{"number":%s}}' % (
        NUMBERS[name],
        NUMBERS[name],
    )
    assert status_of(talk(module_door, whole(body, f"c-{name.replace(' ', '-')}"))) == 202
    assert module_door.inside is not None
    assert module_door.inside.error is None


def chunked(body: bytes, size: int) -> bytes:
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def test_a_body_in_chunks_is_taken_and_one_without_an_end_is_not(module_door):
    body = payload(padding="x" * 1000)
    head = HEAD + b"X-Hub-Signature-256: " + sign(body).encode() + b"\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert status_of(talk(module_door, head, chunked(body, 100))) == 202

    endless = (b"10000\r\n" + b"x" * 65536 + b"\r\n" for _ in range(200))
    assert status_of(talk(module_door, head, *endless)) == 413
    assert module_door.inside is not None
    assert module_door.inside.daemon.webhook is not None
    assert module_door.inside.daemon.webhook._held == 0


def test_a_bomb_without_a_signature_is_never_parsed(module_door):
    for bomb in BOMBS.values():
        if bomb:
            assert post(module_door, bomb, x_hub_signature_256="sha256=" + "0" * 64).status_code == 401
            assert post(module_door, bomb).status_code == 202


def test_a_ping_and_events_that_matter_to_nobody_are_answered_and_cause_nothing(module_door):
    polls = module_door.polls()
    for event in ("ping", "push", "star", ""):
        assert post(module_door, payload(x=event), x_github_event=event).status_code == 202
    for repo in ("somebody/else", "octo/hello2", "../../etc"):
        assert post(module_door, payload(repo)).status_code == 202
    assert module_door.polls() == polls


def test_a_body_of_a_great_issue_is_taken(module_door):
    body = payload(issue={"body": "\u00fc" * 262_144, "changes": "\u00fc" * 262_144})
    assert len(body) > 3_000_000
    assert post(module_door, body, x_github_event="star").status_code == 202


def test_who_sends_slowly_locks_nobody_out(module_door):
    host, port = address(module_door).split(":")
    held = []
    try:
        for _ in range(webhook.MOST_CONNECTIONS + 20):
            connection = socket.create_connection((host, int(port)), timeout=15)
            connection.sendall(b"POST /github HTTP/1.1\r\nX-Slow: ")
            held.append(connection)
        assert post(module_door, payload(slow=1)).status_code == 202
        module_door.until(lambda: ended(held[:20]), "the oldest were ended", patience=5)
    finally:
        for connection in held:
            connection.close()


def ended(connections: list[socket.socket]) -> bool:
    """Whether the other side has closed all of these."""
    for connection in connections:
        connection.setblocking(False)
        try:
            if connection.recv(1):
                return False
        except BlockingIOError:
            return False
        except ConnectionResetError:
            continue
    return True


def test_a_replay_and_a_redelivery_cause_no_second_poll(door):
    body = payload(number=1)
    before = door.polls()
    assert post(door, body, x_github_delivery="one").status_code == 202
    door.until_polls(before + 1 - door.polls())
    door.until(lambda: door.inside and not door.inside.daemon.polls._polling, "that poll is done")
    for guid in ("one", "two", "three"):
        assert post(door, body, x_github_delivery=guid).status_code == 202
    assert post(door, payload(number=2)).status_code == 202
    door.until_polls(before + 2 - door.polls())
    assert door.polls() == before + 2


def test_a_thousand_deliveries_are_a_handful_of_polls(door):
    before = door.polls()
    with httpx.Client(trust_env=False, verify=False, timeout=15) as client:
        for number in range(1000):
            body = payload(number=number)
            headers = {
                "content-type": "application/json",
                "x-github-event": "issues",
                "x-hub-signature-256": sign(body),
            }
            url = f"http://{address(door)}/github"
            assert client.post(url, content=body, headers=headers).status_code == 202
    assert accepted(door)[0] == 1000
    assert 1 <= door.polls() - before <= 15
    assert not door.events("poll failed")


def test_a_renamed_repository_is_known_by_its_number(door):
    number = door.inside.daemon.polls._pollers[REPO].repo_id if door.inside else 0
    assert number
    before = door.polls()
    body = json.dumps({"repository": {"id": number, "full_name": "octo/renamed"}}).encode()
    assert post(door, body).status_code == 202
    door.until_polls(before + 1 - door.polls())


def test_refusals_are_counted_and_not_logged_one_by_one(door):
    for _ in range(50):
        assert post(door, payload(), x_hub_signature_256=None).status_code == 401
    assert len(door.events("webhook refused")) == 1
    assert accepted(door) == (0, 50)


def test_neither_secret_nor_signature_is_in_the_log(door):
    post(door, payload())
    post(door, payload(), x_hub_signature_256=sign(b"", FORMER))
    said = door.log_stream.getvalue()
    assert SECRET not in said
    assert FORMER not in said
    assert sign(payload())[7:] not in said


# Where it listens


@pytest.mark.parametrize("listen", ["0.0.0.0:8787", "192.0.2.7:8787", "[::]:8787"])
def test_it_listens_to_other_machines_only_where_that_is_said(a_world, listen):
    from coordinator.settings import SettingsSource

    world: World = a_world()
    open_door(world, listen=listen)
    with pytest.raises(ConfigError, match=r"which other machines reach.*allow_remote"):
        SettingsSource(world.path, world.environ)
    open_door(world, listen=listen, allow_remote=True)
    assert SettingsSource(world.path, world.environ).current.settings.webhook.address[1] == 8787


@pytest.mark.parametrize(
    ("secret", "sentence"), [(None, "which is not set"), ("short", "less than 16 characters")]
)
def test_without_a_secret_the_daemon_does_not_start(a_world, secret, sentence):
    from coordinator.settings import SettingsSource

    world: World = a_world()
    open_door(world)
    world.environ.pop(KEY_ENV)
    if secret is not None:
        world.environ[KEY_ENV] = secret
    with pytest.raises(ConfigError, match=sentence):
        SettingsSource(world.path, world.environ)


def test_a_port_that_is_taken_ends_the_daemon_with_one_sentence_and_78(a_world):
    world: World = a_world()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        open_door(world, listen=f"127.0.0.1:{port}")
        world.start_process()
        assert world.process is not None
        code = world.process.wait(timeout=15)
        world.process = None
    said = (world.folder / "daemon.stderr").read_text()
    assert code == 78
    assert f"[webhook] cannot listen on 127.0.0.1:{port} (address already in use)" in said
    assert "Traceback" not in said


def test_a_daemon_without_a_webhook_opens_no_port_and_loads_no_parser(a_world):
    import subprocess
    import sys

    code = "import sys, coordinator.daemon; print('h11' in sys.modules, 'jwt' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == "False"
    world: World = a_world()
    world.start()
    world.until_polls(1)
    assert world.inside is not None
    assert world.inside.daemon.webhook is None
