"""The tool that reads a page of the web. Off unless the user allows it.

Owns what is fetched and how much of it the model sees.
"""

from __future__ import annotations

import re
from html import unescape

from coordinator.openrouter_agent.confined import ToolError

SECONDS = 20.0
PAGE_BYTES = 1 << 20
PAGE_CHARACTERS = 40_000
MOST_REDIRECTS = 5

_UNSEEN = re.compile(r"<(script|style|head|svg)\b.*?</\1\s*>|<!--.*?-->", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"<[^<>]*>")
_GAPS = re.compile(r"\s*\n\s*\n\s*")


async def fetch(url: str) -> str:
    """The page as text, with its status. Raises ToolError when there is none."""
    import httpx

    if not url.startswith(("http://", "https://")):
        raise ToolError("fetch_url reads http and https addresses only.")
    client = httpx.AsyncClient(timeout=SECONDS, follow_redirects=True, max_redirects=MOST_REDIRECTS)
    try:
        async with client, client.stream("GET", url) as response:
            return _page(
                response.status_code, response.headers.get("content-type", ""), await _body(response)
            )
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise ToolError(f"{url[:200]} cannot be read: {str(error)[:200] or type(error).__name__}.") from error


async def _body(response: object) -> bytes:
    content = bytearray()
    async for piece in response.aiter_bytes():  # type: ignore[attr-defined]
        content += piece
        if len(content) >= PAGE_BYTES:
            break
    return bytes(content[:PAGE_BYTES])


def _page(status: int, kind: str, content: bytes) -> str:
    if b"\0" in content[:8192]:
        raise ToolError(f"the page is not text but {kind or 'binary'}.")
    text = content.decode("utf-8", "replace")
    if "html" in kind:
        text = _GAPS.sub("\n\n", unescape(_TAG.sub(" ", _UNSEEN.sub(" ", text)))).strip()
    note = "\n[cut off]" if len(text) > PAGE_CHARACTERS else ""
    return f"[HTTP {status}]\n{text[:PAGE_CHARACTERS]}{note}"
