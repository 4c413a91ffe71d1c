"""Webhooks of the demo server: deliveries as GitHub makes them, in a thread of their own.

Owns the queue and the record of what was answered. Knows nothing of issues: it gets a finished payload.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any
from urllib.parse import urlsplit

_PATIENCE = 10.0  # seconds; GitHub gives up then as well


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One delivery and the status it was answered with (0: no answer)."""

    event: str
    guid: str
    status: int


class Hooks:
    """Sends to every address that was added. `delivered` is called after each, from the thread."""

    def __init__(self, delivered: Callable[[], None]) -> None:
        self._delivered = delivered
        self._targets: list[tuple[str, str]] = []  # address, secret
        self._queue: SimpleQueue[tuple[str, bytes] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self.deliveries: list[Delivery] = []

    def add(self, url: str, secret: str) -> None:
        self._targets.append((url, secret))
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="demo-hooks", daemon=True)
            self._thread.start()

    @property
    def is_wanted(self) -> bool:
        return bool(self._targets)

    def tell(self, event: str, payload: dict[str, Any]) -> None:
        """Queue one delivery for each address."""
        self._queue.put((event, json.dumps(payload).encode()))

    def close(self) -> None:
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()

    def _work(self) -> None:
        while (work := self._queue.get()) is not None:
            for url, secret in list(self._targets):
                self.deliveries.append(_deliver(url, secret, *work))
                self._delivered()


def _deliver(url: str, secret: str, event: str, body: bytes) -> Delivery:
    guid = str(uuid.uuid4())
    signed = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "GitHub-Hookshot/0000000",
        "X-GitHub-Delivery": guid,
        "X-GitHub-Event": event,
        "X-Hub-Signature-256": f"sha256={signed}",
    }
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=_PATIENCE)
    try:
        connection.request("POST", address.path, body, headers)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException):
        status = 0
    finally:
        connection.close()
    return Delivery(event=event, guid=guid, status=status)
