"""What an agent's proxy lets through, for every spelling that has fooled one."""

from __future__ import annotations

import ipaddress
import ssl

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adw_modules.security.egress import (
    ADDRESS,
    MALFORMED,
    NOT_LISTED,
    TLS_NAME,
    Asked,
    Incomplete,
    Policy,
    Refused,
    check_hello,
    host_name,
    is_public,
    parse_head,
    plain,
    shown,
)

POLICY = Policy(
    hosts=[("api.example.com", 443), ("*.models.example", 443), ("mirror.example", 80), ("nexus.corp", 443)],
    networks=[("10.20.0.0/16", 0), ("192.168.7.7/32", 8443), ("fd00:77::/32", 443)],
)


def connect(target: str, *headers: str) -> bytes:
    return "\r\n".join([f"CONNECT {target} HTTP/1.1", *headers, "", ""]).encode("latin-1")


def reason(head: bytes) -> str | None:
    """Why the request is refused; None where it is not."""
    try:
        POLICY.check_request(parse_head(head))
    except Refused as refused:
        return refused.reason
    return None


@pytest.mark.parametrize(
    "target",
    [
        "api.example.com:443",
        "API.Example.COM:443",
        "api.example.com.:443",
        "eu.models.example:443",
        "a.b.models.example:443",
        "10.20.3.4:443",
        "10.20.3.4:22",
        "192.168.7.7:8443",
        "[fd00:77::1]:443",
        "[::ffff:10.20.3.4]:443",
    ],
)
def test_what_the_operator_has_named_is_reached_in_every_honest_spelling(target):
    assert reason(connect(target)) is None


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("evil.example:443", NOT_LISTED),
        ("api.example.com:80", NOT_LISTED),
        ("api.example.com:22", NOT_LISTED),
        ("models.example:443", NOT_LISTED),  # the suffix is not one of its own subdomains
        ("evilmodels.example:443", NOT_LISTED),
        ("api.example.com.evil.example:443", NOT_LISTED),
        ("localhost:443", NOT_LISTED),
        ("localhost.:443", NOT_LISTED),
        ("metadata.google.internal:443", NOT_LISTED),
        ("xn--pi-example-com-9ml.example:443", NOT_LISTED),
        ("127.0.0.1:443", ADDRESS),
        ("169.254.169.254:443", ADDRESS),
        ("93.184.216.34:443", ADDRESS),  # public, but an address says nothing about who is there
        ("192.168.7.7:443", ADDRESS),
        ("[::1]:443", ADDRESS),
        ("[fe80::1]:443", ADDRESS),
        ("[::ffff:127.0.0.1]:443", ADDRESS),
        ("[::ffff:7f00:1]:443", ADDRESS),
        ("[64:ff9b::a9fe:a9fe]:443", ADDRESS),
        ("127.1:443", MALFORMED),
        ("2130706433:443", MALFORMED),
        ("0x7f000001:443", MALFORMED),
        ("0x7f.1:443", MALFORMED),
        ("0x:443", MALFORMED),
        ("017700000001:443", MALFORMED),
        ("0177.0.0.1:443", MALFORMED),
        ("127.0.0.01:443", MALFORMED),
        ("127.0.0.1.:443", ADDRESS),
        ("1.2.3.4.5:443", MALFORMED),
        ("[fe80::1%eth0]:443", MALFORMED),
        ("[fe80::1%25eth0]:443", MALFORMED),
        ("[::1:443", MALFORMED),
        ("::1:443", MALFORMED),
        ("api.example.com", MALFORMED),
        ("api.example.com:", MALFORMED),
        ("api.example.com:0", MALFORMED),
        ("api.example.com:0443", MALFORMED),
        ("api.example.com:+443", MALFORMED),
        ("api.example.com:65536", MALFORMED),
        ("api.example.com:443:443", MALFORMED),
        ("api.example.com..:443", MALFORMED),
        (".api.example.com:443", MALFORMED),
        ("api..example.com:443", MALFORMED),
        ("user@api.example.com:443", MALFORMED),
        ("api.example.com@evil.example:443", MALFORMED),
        ("api.example.com%00.evil.example:443", MALFORMED),
        ("api.example.com%2eevil.example:443", MALFORMED),
        ("api.example.com/:443", MALFORMED),
        ("api.example.com#.evil.example:443", MALFORMED),
        ("api.example.com\\.evil.example:443", MALFORMED),
        ("api.example.com\t:443", MALFORMED),
        ("\xe1pi.example.com:443", MALFORMED),
        ("-api.example.com:443", MALFORMED),
        (f"{'a' * 64}.models.example:443", MALFORMED),
        (f"{'a.' * 130}models.example:443", MALFORMED),
        (":443", MALFORMED),
        ("*.models.example:443", MALFORMED),
    ],
)
def test_what_nobody_has_named_is_refused_in_every_spelling(target, expected):
    assert reason(connect(target)) == expected


@pytest.mark.parametrize(
    "head",
    [
        b"\r\n\r\n",
        b"CONNECT api.example.com:443\r\n\r\n",
        b"CONNECT  api.example.com:443 HTTP/1.1\r\n\r\n",
        b"CONNECT api.example.com:443 HTTP/2\r\n\r\n",
        b"CONNECT api.example.com:443 HTTP/1.1 x\r\n\r\n",
        b"connect api.example.com:443 HTTP/1.1\r\n\r\n",
        b" CONNECT api.example.com:443 HTTP/1.1\r\n\r\n",
        b"CONNECT api.example.com:443 HTTP/1.1\nHost: evil\r\n\r\n",
        b"CONNECT api.example.com:443\rHTTP/1.1\r\n\r\n",
        connect("api.example.com:443", "Host : x"),
        connect("api.example.com:443", " folded: x"),
        connect("api.example.com:443", "no colon"),
        connect("api.example.com:443", "X: a\nY: b"),
        connect("api.example.com:443", "X: a\rY: b"),
        connect("api.example.com:443", "X: a\x00b"),
        connect("api.example.com:443", "Content-Length: 5"),
        connect("api.example.com:443", "Transfer-Encoding: chunked"),
        connect("api.example.com:443", *["A: b"] * 101),
        b"GET / HTTP/1.1\r\nHost: mirror.example\r\n\r\n",
        b"GET https://mirror.example/ HTTP/1.1\r\n\r\n",
        b"GET ftp://mirror.example/ HTTP/1.1\r\n\r\n",
        b"GET http://user:pw@mirror.example/ HTTP/1.1\r\n\r\n",
        b"GET http:///etc/passwd HTTP/1.1\r\n\r\n",
        b"GET http://mirror.example/\xff HTTP/1.1\r\n\r\n",
        b"POST http://mirror.example/ HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST http://mirror.example/ HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST http://mirror.example/ HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
    ],
)
def test_a_request_that_can_be_read_in_two_ways_is_refused(head):
    assert reason(head) == MALFORMED


def test_a_plain_request_is_sent_on_with_the_host_that_it_was_judged_by():
    head = (
        b"GET HTTP://Mirror.Example/debian/x?y=http://a/b#frag HTTP/1.1\r\nHost: evil.example\r\n"
        b"HOST: other.example\r\nProxy-Authorization: Basic x\r\nConnection: keep-alive, X-Kept\r\n"
        b"Upgrade: h2c\r\nAccept: */*\r\n\r\n"
    )
    asked = parse_head(head)
    assert (asked.host, asked.port, asked.is_tunnel) == ("mirror.example", 80, False)
    assert asked.head == (
        b"GET /debian/x?y=http://a/b HTTP/1.1\r\nHost: mirror.example\r\nAccept: */*\r\n"
        b"Connection: close\r\n\r\n"
    )
    assert reason(head) is None


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://mirror.example", "GET / HTTP/1.1\r\nHost: mirror.example\r\n"),
        ("http://mirror.example?q", "GET /?q HTTP/1.1\r\nHost: mirror.example\r\n"),
        ("http://mirror.example:8080/a", "GET /a HTTP/1.1\r\nHost: mirror.example:8080\r\n"),
        ("http://[fd00:77::1]/a", "GET /a HTTP/1.1\r\nHost: [fd00:77::1]\r\n"),
    ],
)
def test_the_path_of_a_plain_request_is_kept(url, expected):
    assert parse_head(f"GET {url} HTTP/1.1\r\n\r\n".encode()).head.decode().startswith(expected)


@pytest.mark.parametrize(
    "address",
    [
        *(
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "127.255.255.254",
            "224.0.0.1",
        ),
        *("169.254.169.254", "168.63.129.16", "172.16.0.1", "172.31.255.255", "192.0.0.192", "192.168.0.1"),
        *("198.18.0.1", "240.0.0.1", "255.255.255.255", "::", "::1", "::ffff:127.0.0.1", "::127.0.0.1"),
        *("fe80::1", "fec0::1", "fc00::1", "fd00:ec2::254", "ff02::1", "64:ff9b::7f00:1", "64:ff9b:1::1"),
        *("2002:7f00:1::", "2002:a9fe:a9fe::1", "2001::1", "2001:db8::1", "100::1", "5f00::1", "3fff::1"),
    ],
)
def test_an_allowed_name_that_leads_inside_is_refused(address):
    """Judged after the look-up: whoever owns the name may have it point anywhere, also the second time."""
    asked = Asked("api.example.com", 443, is_tunnel=True)
    with pytest.raises(Refused) as refused:
        POLICY.check_address(asked, address)
    assert refused.value.reason == ADDRESS


@pytest.mark.parametrize(
    "address",
    ["93.184.216.34", "8.8.8.8", "100.63.255.255", "172.32.0.1", "2606:4700::1", "64:ff9b::808:808"],
)
def test_an_allowed_name_that_leads_to_the_internet_is_reached(address):
    POLICY.check_address(Asked("api.example.com", 443, is_tunnel=True), address)


def test_a_private_address_that_the_operator_named_is_reached_by_an_allowed_name():
    POLICY.check_address(Asked("nexus.corp", 443, is_tunnel=True), "10.20.1.1")
    with pytest.raises(Refused):
        POLICY.check_address(Asked("nexus.corp", 443, is_tunnel=True), "10.21.1.1")


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=100)
def test_no_address_is_public_in_ipv6_clothes_that_is_private_without(number):
    address = ipaddress.IPv4Address(number)
    clothed = [
        ipaddress.IPv6Address(f"::ffff:{address}"),
        ipaddress.IPv6Address((0x64FF9B << 96) | number),
        ipaddress.IPv6Address((0x2002 << 112) | (number << 80) | 1),
    ]
    assert {is_public(each) for each in clothed} == {is_public(address)}
    assert {plain(each) for each in clothed} == {address}
    if not address.is_global:
        assert not is_public(address)


@given(st.binary(max_size=200))
@settings(max_examples=100)
def test_nothing_but_a_refusal_comes_of_noise(noise):
    for head in (noise + b"\r\n\r\n", b"CONNECT " + noise + b":443 HTTP/1.1\r\n\r\n"):
        try:
            POLICY.check_request(parse_head(head))
        except Refused as refused:
            assert refused.target == shown(refused.target)  # noqa: PT017
            assert "\n" not in refused.text  # noqa: PT017
    with pytest.raises((Refused, Incomplete)):
        check_hello(Asked("api.example.com", 443, is_tunnel=True), noise)


@given(st.text(max_size=300))
@settings(max_examples=100)
def test_a_host_is_shown_in_one_line_of_plain_letters(text):
    line = shown(text)
    assert len(line) <= 100
    assert line.isascii()
    assert not set(line) & set("\n\r\t `<>@/\"'\\|$")
    assert shown(line) == line


@given(st.text(alphabet="aA0x.1-_[]:f", max_size=20))
@settings(max_examples=100)
def test_a_host_has_one_spelling(text):
    try:
        name = host_name(text)
    except ValueError:
        return
    assert host_name(f"[{name}]" if ":" in name else name) == name


# --- the name inside TLS ---------------------------------------------------------------------------------


def hello(name: str | None) -> bytes:
    """The first message of a real client."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context()
    context.check_hostname = False
    client = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def with_extension(data: bytes, kind: int, content: bytes = b"") -> bytes:
    """A client hello with one more extension."""
    body = bytearray(data[9:])
    at = 34 + 1 + body[34]
    at += 2 + int.from_bytes(body[at : at + 2], "big")
    at += 1 + body[at]
    added = kind.to_bytes(2, "big") + len(content).to_bytes(2, "big") + content
    body[at : at + 2] = (int.from_bytes(body[at : at + 2], "big") + len(added)).to_bytes(2, "big")
    body += added
    message = b"\x01" + len(body).to_bytes(3, "big") + bytes(body)
    return data[:3] + len(message).to_bytes(2, "big") + message


def in_records_of(data: bytes, size: int) -> bytes:
    message = data[5:]
    pieces = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + len(piece).to_bytes(2, "big") + piece for piece in pieces)


ASKED = Asked("api.example.com", 443, is_tunnel=True)


def test_tls_for_the_host_of_the_tunnel_passes():
    check_hello(ASKED, hello("api.example.com"))
    check_hello(ASKED, hello("API.example.com") + b"more")
    check_hello(ASKED, in_records_of(hello("api.example.com"), 40))


@pytest.mark.parametrize(
    "data",
    [
        hello("evil.example"),
        hello(None),
        in_records_of(hello("evil.example"), 7),
        with_extension(hello("api.example.com"), 0xFE0D, b"\0" * 40),
        with_extension(hello("api.example.com"), 0, hello("evil.example")[:20]),
        b"GET / HTTP/1.1\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n",
        b"\x16\x02\x00\x00\x05hello",
        b"\x16\x03\x01\x00\x04\x02\x00\x00\x00",
        b"\x16\x03\x01\x00\x04\x01\xff\xff\xff",
        b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
        b"\x16\x03\x01\x00\x00" * 10,
    ],
)
def test_tls_for_anybody_else_is_refused(data):
    with pytest.raises(Refused) as refused:
        check_hello(ASKED, data)
    assert refused.value.reason == TLS_NAME
    assert refused.value.target == "api.example.com:443"


def test_nothing_passes_before_the_whole_first_message_is_there():
    data = hello("api.example.com")
    for end in range(len(data)):
        with pytest.raises(Incomplete):
            check_hello(ASKED, data[:end])


def test_other_ports_may_speak_what_they_like_but_not_tls_for_somebody_else():
    check_hello(Asked("mirror.example", 80, is_tunnel=True), b"GET / HTTP/1.1\r\n")
    with pytest.raises(Refused):
        check_hello(Asked("mirror.example", 8443, is_tunnel=True), hello("evil.example"))


def test_an_address_the_operator_named_needs_no_name_inside():
    check_hello(Asked("10.20.0.1", 443, is_tunnel=True), hello(None))
