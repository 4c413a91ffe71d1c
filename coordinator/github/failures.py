"""Why a request brought no answer, in the few words an operator needs.

PyGithub, requests, urllib3 and the socket wrap each other's errors, and what they print of them are class
names and object addresses. What really happened is the innermost error of a type that Python itself
defines; that one is looked for here, whichever library's wrapping is around it.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator
from http.client import HTTPException

_ADDRESS_OF_AN_OBJECT = re.compile(r"<[^<>]* at 0x[0-9a-f]+>|0x[0-9a-f]{6,}")
_MOST_CHARS = 200


def network_failure(error: BaseException, timeout_seconds: float) -> str | None:
    """What the network did to a request; None when the request failed for another reason."""
    for inner in _chain(error):
        match inner:
            case socket.gaierror():
                return "name not known"
            case TimeoutError():
                return f"no answer within {timeout_seconds:g} s"
            case ssl.SSLCertVerificationError():
                return f"its certificate is not trusted ({inner.verify_message})"
            case ssl.SSLError():
                return "no encrypted connection is possible"
            case ConnectionRefusedError():
                return "connection refused"
            case ConnectionError():
                return "the connection was cut"
            case HTTPException():
                return "the answer broke off"
            case OSError() if type(inner) is OSError and inner.strerror:
                return inner.strerror.lower()
    return None


def plain(error: BaseException) -> str:
    """The first line of an error's own words, without what only a debugger can use."""
    line = (str(error).strip() or "no details").splitlines()[0]
    return _ADDRESS_OF_AN_OBJECT.sub("…", line)[:_MOST_CHARS]


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and everything it was made of, the innermost first."""
    found: list[BaseException] = []
    inner: BaseException | None = error
    while inner is not None and inner not in found:
        found.append(inner)
        inner = inner.__cause__ or inner.__context__
    return reversed(found)
