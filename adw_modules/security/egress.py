"""What an agent's proxy lets through: one request judged by host, port, address and TLS name. Pure.

Shared by the proxy (`coordinator/egress.py`), which starts once per run, and by the daemon. So it imports
little, and no dataclasses: they alone cost a start 10 ms. Must not resolve a name, open a socket or read a
file: what a name resolved to is an argument, and is judged here as well.
"""

from __future__ import annotations

import ipaddress
import re

TYPE_CHECKING = False  # as type checkers know it; importing `typing` would cost every start
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    Address = ipaddress.IPv4Address | ipaddress.IPv6Address
    Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MOST_HEAD_BYTES = 16_384
MOST_HEADERS = 100
MOST_HELLO_BYTES = 65_536
LONGEST_SHOWN_HOST = 100  # characters of a host in a log or comment: the agent chose them

NOT_LISTED = "not_listed"  # host and port are not on the allow-list
ADDRESS = "address"  # an address, or a name that leads to one, that no stranger may name
MALFORMED = "malformed"  # not a request that a proxy can understand in one way only
TLS_NAME = "tls_name"  # the encrypted connection asks for another host than the tunnel
LIMIT = "limit"  # too many connections, or a request that never ends
REASONS = (NOT_LISTED, ADDRESS, MALFORMED, TLS_NAME, LIMIT)

_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
_PORT = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")
_METHOD = re.compile(r"[A-Z]{1,20}", re.ASCII)
_PATH = re.compile(r"[!-~]*", re.ASCII)
# Never sent on in a plain request: what belongs to this connection, or says who is asked.
_OWN_HEADERS = frozenset({b"host", b"connection", b"proxy-connection", b"keep-alive", b"te", b"upgrade"})

# Where nobody on the internet is. Our own table: what `is_global` says depends on the version of Python.
_CLOSED_IPV4 = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # shared by carriers; metadata of one cloud (100.100.100.200)
        "127.0.0.0/8",
        "168.63.129.16/32",  # looks public: what a machine of Azure asks about itself
        "169.254.0.0/16",  # metadata of most clouds
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",  # multicast, reserved, broadcast
    )
)
_OPEN_IPV6 = ipaddress.IPv6Network("2000::/3")
_CLOSED_IPV6 = tuple(
    ipaddress.IPv6Network(text) for text in ("2001::/23", "2001:db8::/32", "3fff::/20", "2620:4f:8000::/48")
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_6TO4 = ipaddress.IPv6Network("2002::/16")


class Refused(Exception):
    """The proxy says no. `reason` is one of REASONS, `target` is what was asked for, fit to be shown."""

    def __init__(self, reason: str, target: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.target = target
        self.text = text


class Incomplete(Exception):
    """More bytes are needed before anything can be said."""


class Asked:
    """A request that can be understood: where to, and for a plain one the head that is sent on."""

    __slots__ = ("head", "host", "is_tunnel", "port")

    def __init__(self, host: str, port: int, *, is_tunnel: bool, head: bytes = b"") -> None:
        self.host = host
        self.port = port
        self.is_tunnel = is_tunnel
        self.head = head

    @property
    def target(self) -> str:
        return target_of(self.host, self.port)


class Policy:
    """What one run may reach.

    `hosts`: (name or `*.suffix`, port). `networks`: (network, port or 0 for every port) that the operator
    has named although strangers may not, as literals and as what an allowed name may lead to.
    """

    def __init__(self, hosts: Iterable[tuple[str, int]], networks: Iterable[tuple[str, int]] = ()) -> None:
        rules = [(str(name), int(port)) for name, port in hosts]
        self._exact = frozenset(rule for rule in rules if not rule[0].startswith("*."))
        self._suffixes = tuple((name[1:], port) for name, port in rules if name.startswith("*."))
        self._networks = tuple((ipaddress.ip_network(text), int(port)) for text, port in networks)

    @classmethod
    def of(cls, written: Mapping[str, Any]) -> Policy:
        """From the policy file. Raises KeyError, TypeError or ValueError for a wrong shape."""
        return cls(written["hosts"], written["networks"])

    def check_request(self, asked: Asked) -> None:
        """Raises Refused unless the run may ask for this host and port."""
        address = literal(asked.host)
        if address is not None:
            self.check_address(asked, str(address))
        elif not self._is_listed(asked.host, asked.port):
            raise Refused(NOT_LISTED, asked.target, f"{asked.target} is not on the allow-list of this run")

    def check_address(self, asked: Asked, address: str) -> None:
        """Raises Refused unless the run may be connected to `address`, as whatever name it was asked for."""
        found = plain(ipaddress.ip_address(address))
        if any(_holds(network, found) and port in (0, asked.port) for network, port in self._networks):
            return
        if literal(asked.host) is not None:
            text = f"{asked.target} is an address; only names on the allow-list can be reached"
            raise Refused(ADDRESS, asked.target, text)
        if not is_public(found):
            raise Refused(ADDRESS, asked.target, f"{asked.target} leads to an address of a private network")

    def _is_listed(self, host: str, port: int) -> bool:
        return (host, port) in self._exact or any(
            port == rule_port and host.endswith(suffix) for suffix, rule_port in self._suffixes
        )


# --- hosts and addresses -----------------------------------------------------------------------------------


def host_name(text: str) -> str:
    """The one spelling of a host: lower case, no trailing dot, addresses as their standard text.

    Raises ValueError for what is neither a name nor an address in its standard spelling: 127.1, 0x7f000001
    and 017700000001 are loopback to some libraries and names to others.
    """
    if text.startswith("[") and text.endswith("]"):
        return _ipv6(text[1:-1])
    host = text.lower().removesuffix(".")
    labels = host.split(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError("not a host name")
    if _NUMBER.fullmatch(labels[-1]):
        if str(ipaddress.IPv4Address(host)) != host:
            raise ValueError("an address in an unusual spelling")
        return host
    return host


def _ipv6(text: str) -> str:
    if "%" in text:
        raise ValueError("an address with a zone")
    return str(ipaddress.IPv6Address(text))


def literal(host: str) -> Address | None:
    """The address, if a host in its one spelling is one."""
    if ":" in host:
        return ipaddress.IPv6Address(host)
    return ipaddress.IPv4Address(host) if host.rpartition(".")[2].isdecimal() else None


def plain(address: Address) -> Address:
    """The IPv4 address inside an IPv6 one that only carries it: mapped, translated or tunnelled."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if address in _6TO4:
        return ipaddress.IPv4Address(int(address) >> 80 & 0xFFFFFFFF)
    return address


def is_public(address: Address) -> bool:
    """Whether somebody on the internet may be there. Everything that is not surely so, is not."""
    found = plain(address)
    if isinstance(found, ipaddress.IPv4Address):
        return not any(found in network for network in _CLOSED_IPV4)
    return found in _OPEN_IPV6 and not any(found in network for network in _CLOSED_IPV6)


def _holds(network: Network, address: Address) -> bool:
    return network.version == address.version and address in network


def target_of(host: str, port: int) -> str:
    """`host:port` for people."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def shown(text: str) -> str:
    """What an agent has asked for, fit for a log and a comment: one line of plain letters, not long."""
    plain_text = "".join(
        char if char.isascii() and (char.isalnum() or char in "-_.:*[]") else "?" for char in text
    )
    return (
        plain_text if len(plain_text) <= LONGEST_SHOWN_HOST else plain_text[: LONGEST_SHOWN_HOST - 3] + "..."
    )


# --- the request -------------------------------------------------------------------------------------------


def parse_head(head: bytes) -> Asked:
    """The request whose head, up to and with its empty line, is `head`. Raises Refused."""
    if not head.endswith(b"\r\n\r\n"):
        raise _malformed("a head without an end")
    first, *lines = head[:-4].split(b"\r\n")
    if len(lines) > MOST_HEADERS:
        raise _malformed(f"more than {MOST_HEADERS} headers")
    words = first.decode("latin-1").split(" ")
    if len(words) != 3 or not _METHOD.fullmatch(words[0]) or words[2] not in ("HTTP/1.1", "HTTP/1.0"):
        raise _malformed("no request line of HTTP/1.1")
    headers = [_header(line) for line in lines]
    method, url, _ = words
    _check_length(headers, has_body=method != "CONNECT")
    if method == "CONNECT":
        return Asked(*_authority(url), is_tunnel=True)
    return _plain_request(method, url, headers)


def _header(line: bytes) -> tuple[bytes, bytes]:
    found = _HEADER.fullmatch(line)
    if found is None:
        raise _malformed("a header that is none")
    return found[1], found[2]


def _check_length(headers: list[tuple[bytes, bytes]], *, has_body: bool) -> None:
    """Whoever could read the length of the body in two ways could hide a second request in it."""
    lengths = [value for name, value in headers if name.lower() == b"content-length"]
    is_chunked = any(name.lower() == b"transfer-encoding" for name, _ in headers)
    if len(lengths) + is_chunked > 1 or not all(value.isdigit() for value in lengths):
        raise _malformed("a body of two lengths")
    if not has_body and (is_chunked or any(int(value[:20]) for value in lengths)):
        raise _malformed("a CONNECT with a body")


def _plain_request(method: str, url: str, headers: list[tuple[bytes, bytes]]) -> Asked:
    """`GET http://host/path`: sent on as an ordinary request for one answer, to the host it was judged by."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() != "http" or not _PATH.fullmatch(rest):
        raise _malformed("neither CONNECT nor an http address")
    end = min((rest.find(mark) for mark in "/?#" if mark in rest), default=len(rest))
    authority, path = rest[:end], rest[end:].partition("#")[0]
    host, port = _authority(authority, default_port=80)
    path = path if path.startswith("/") else "/" + path
    # Exactly as it was judged, port and all, whatever the client's own Host header says.
    name = f"[{host}]" if ":" in host else host
    lines = [f"{method} {path} HTTP/1.1".encode(), f"Host: {name}{'' if port == 80 else f':{port}'}".encode()]
    lines += [name + b": " + value for name, value in headers if _is_sent_on(name.lower())]
    return Asked(host, port, is_tunnel=False, head=b"\r\n".join([*lines, b"Connection: close", b"", b""]))


def _is_sent_on(name: bytes) -> bool:
    return name not in _OWN_HEADERS and not name.startswith(b"proxy-")


def _authority(text: str, default_port: int | None = None) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if default_port is not None and (not colon or text.endswith("]")):
        host, port = text, str(default_port)
    try:
        if not _PORT.fullmatch(port) or int(port) > 65_535:
            raise ValueError("no port")
        return host_name(host), int(port)
    except ValueError as error:
        raise Refused(MALFORMED, shown(text), f"{shown(text)} is no host and port") from error


def _malformed(what: str) -> Refused:
    return Refused(MALFORMED, "", f"the request has {what}")


# --- the name inside TLS -----------------------------------------------------------------------------------

_HANDSHAKE, _CLIENT_HELLO, _SERVER_NAME, _HIDDEN_HELLO = 22, 1, 0, 0xFE0D


def check_hello(asked: Asked, data: bytes) -> None:
    """Judge the first bytes that the client sends into the tunnel.

    Raises Incomplete, or Refused where TLS asks for another host than the tunnel was opened for, hides
    whom it asks for (encrypted client hello), or, on port 443, where it is not TLS.
    """
    if data[:1] and data[0] != _HANDSHAKE:
        if asked.port == 443:
            raise Refused(TLS_NAME, asked.target, f"what is sent to {asked.target} is not TLS")
        return
    try:
        name, is_hidden = _hello_name(_handshake(data))
    except (IndexError, ValueError) as error:
        raise Refused(TLS_NAME, asked.target, f"the TLS for {asked.target} cannot be read") from error
    if is_hidden:
        raise Refused(TLS_NAME, asked.target, f"the TLS for {asked.target} hides whom it asks for")
    if name is None and literal(asked.host) is not None:
        return
    if name is None or name.lower().removesuffix(".") != asked.host:
        wanted = shown(name) if name else "nobody"
        raise Refused(TLS_NAME, asked.target, f"the TLS for {asked.target} asks for {wanted}")


def _handshake(data: bytes) -> bytes:
    """The client hello, put together from all its records. Raises Incomplete or ValueError."""
    found, at = b"", 0
    while len(found) < 4 or len(found) < 4 + int.from_bytes(found[1:4], "big"):
        if len(data) < at + 5:
            if at + 5 > MOST_HELLO_BYTES:
                raise ValueError("too long")
            raise Incomplete
        length = int.from_bytes(data[at + 3 : at + 5], "big")
        if data[at] != _HANDSHAKE or data[at + 1] != 3 or not 0 < length <= 16_384:
            raise ValueError("not a handshake")
        if len(data) < at + 5 + length:
            raise Incomplete
        found += data[at + 5 : at + 5 + length]
        at += 5 + length
        if found[0] != _CLIENT_HELLO or (
            len(found) >= 4 and int.from_bytes(found[1:4], "big") > MOST_HELLO_BYTES
        ):
            raise ValueError("not a client hello")
    return found[4 : 4 + int.from_bytes(found[1:4], "big")]


class _Reader:
    """Vectors of TLS, front to back. IndexError where one is longer than what is there."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, count: int) -> bytes:
        if self.at + count > len(self.data):
            raise IndexError
        self.at += count
        return self.data[self.at - count : self.at]

    def vector(self, width: int) -> bytes:
        return self.take(int.from_bytes(self.take(width), "big"))

    @property
    def is_done(self) -> bool:
        return self.at >= len(self.data)


def _hello_name(hello: bytes) -> tuple[str | None, bool]:
    """(server name or None, whether the real one is encrypted). Raises IndexError, ValueError."""
    reader = _Reader(hello)
    reader.take(2 + 32)
    for width in (1, 2, 1):  # session id, ciphers, compression
        reader.vector(width)
    extensions = _Reader(reader.vector(2) if not reader.is_done else b"")
    found: dict[int, bytes] = {}
    while not extensions.is_done:
        kind = int.from_bytes(extensions.take(2), "big")
        if kind in found:
            raise ValueError("an extension twice")
        found[kind] = extensions.vector(2)
    names = found.get(_SERVER_NAME)
    return None if names is None else _only_name(names), _HIDDEN_HELLO in found


def _only_name(extension: bytes) -> str:
    names = _Reader(_Reader(extension).vector(2))
    kind, name = names.take(1), names.vector(2)
    if kind != b"\0" or not names.is_done:
        raise ValueError("not one name")
    return name.decode("ascii")
