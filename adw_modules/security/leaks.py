"""Whether something that is about to leave holds a secret: known values in any spelling, or what looks like a
token. Pure; the bytes come from whoever sends them.

Spellings are not undone but made: each known value is spelled in every way once, and the data is looked at
in a few forms (as it is; letters and digits only; hexadecimal digits only; digits only), in which
separators, quotes, line ends and invisible characters are gone. So the time is linear in the data, and the
values are searched at the speed of memory. Compressed parts are unpacked, within a bound.

It finds what a prompt can make an agent do with a line of shell. It cannot find what was encrypted, or
spelled in a way that nobody thought of: keys that an agent does not have are the only full protection.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from urllib.parse import quote

from adw_modules.security.tokens import issued, tokens

SHORTEST_VALUE = 8  # characters; what is shorter would be found everywhere by chance
MOST_HITS = 20  # of one text: enough to be told
WINDOW = 8 << 20  # bytes looked at together
OVERLAP = 64 << 10  # of two windows: what is split over more is not found
MOST_UNPACKED = 16 << 20  # bytes that compressed parts of one text may unpack to
_SHORTEST_FORM = 10  # letters and digits; a shorter form without separators is found by chance
_SHORTEST_PIECE = 4
_MOST_BEGINNINGS = 50_000  # of one value in one window: a text made of them is no hiding place worth more
_LONGEST_GAP = 256  # bytes between two pieces of one value
_SHORTEST_PIECED = 16
_SHORTEST_LINE = 24  # of a value of several lines: each is as good as a secret of its own
_DEEPEST = 3  # archives in archives

KNOWN = "a known secret"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One find. `text` is what stands there, where it stands in one piece: never to be shown."""

    rule: str
    line: int  # 1 is the first
    text: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """One find, as it may be told to anybody: what kind, and where. Never the value."""

    rule: str
    place: str
    line: int | None = None
    key: str = field(default="", compare=False)  # of this very find: its object, place and value, as a hash
    shape: str = field(default="", compare=False)  # how long the value is, and whose it seems to be

    @property
    def is_known(self) -> bool:
        """A value that we know as a secret: nobody can allow it."""
        return self.rule.startswith(KNOWN)

    def __str__(self) -> str:
        return f"{self.rule} in {self.place}" + (f", line {self.line}" if self.line else "")


def find_key(where: str, hit: Hit) -> str:
    """Names one find: the same value elsewhere, or another one there, has another name."""
    parts = (where.encode(errors="surrogateescape"), hit.rule.encode(), str(hit.line).encode(), hit.text)
    return hashlib.sha256(b"".join(b"%d:%b" % (len(part), part) for part in parts)).hexdigest()


def shape_of(hit: Hit) -> str:
    """The value as an operator may see it: its length, and of a token what its issuer begins it with."""
    if not hit.text:
        return "in pieces or encoded"
    begin = hit.text[:4].decode() if next(issued(hit.text), None) else ""
    return f"{begin}… ({len(hit.text)} characters)"


# --- spellings of a known value -----------------------------------------------------------------------------


def whole_and_lines(value: str) -> list[str]:
    """The value, and its longer lines where it has several: a key is worth as much without its frame."""
    lines = [line.strip() for line in value.splitlines()] if "\n" in value else []
    return [value, *(line for line in lines if len(line) >= _SHORTEST_LINE and not line.startswith("-----"))]


def spellings(value: str) -> set[str]:
    """The value as one command may put it into a text: escaped, percent, base64, hexadecimal, reversed."""
    raw = value.encode(errors="surrogateescape")
    escaped = (json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], repr(value)[1:-1])
    percent = "".join(f"%{byte:02x}" for byte in raw)
    whole = (base64.b64encode(b"x-access-token:" + raw), base64.b64encode(raw))  # the first is git's header
    encoded = [piece for piece in (*whole, *_base64s(raw)) if len(piece) >= _SHORTEST_FORM]
    return {
        value,
        value[::-1],
        *escaped,
        quote(raw, safe=""),
        percent,
        percent.upper(),
        raw.hex(),
        raw.hex().upper(),
        *(piece.decode() for piece in encoded),
        *(piece.translate(_URL_SAFE).decode() for piece in encoded),
    }


_URL_SAFE = bytes.maketrans(b"+/", b"-_")


def _base64s(raw: bytes) -> Iterator[bytes]:
    """As it stands inside the base64 of a longer text: at each of the three places it can begin at."""
    for before in range(3):
        text = base64.b64encode(bytes(before) + raw)
        yield text[-(-before * 8 // 6) : (before + len(raw)) * 8 // 6]


def _base32s(raw: bytes) -> Iterator[bytes]:
    for before in range(5):
        text = base64.b32encode(bytes(before) + raw)
        yield text[-(-before * 8 // 5) : (before + len(raw)) * 8 // 5]


# --- the forms that data is looked at in --------------------------------------------------------------------

_LETTERS_DIGITS = bytes(range(48, 58)) + bytes(range(65, 91)) + bytes(range(97, 123))
_HEX_DIGITS = b"0123456789abcdef"
_BASE64_DIGITS = _LETTERS_DIGITS + b"+/-_"


def _without(kept: bytes) -> bytes:
    return bytes(byte for byte in range(256) if byte not in kept)


_NO_LETTER_DIGIT, _NO_HEX = _without(_LETTERS_DIGITS), _without(_HEX_DIGITS)
_NO_DIGIT, _NO_BASE64 = _without(b"0123456789"), _without(_BASE64_DIGITS)
_LOWER = bytes.maketrans(b"ABCDEF", b"abcdef")


def _plain(data: bytes) -> bytes:
    return data


def _squeezed(data: bytes) -> bytes:
    return data.translate(None, _NO_LETTER_DIGIT)


def _hex(data: bytes) -> bytes:
    for prefix in (b"0x", b"0X", b"u00", b"U00"):
        data = data.replace(prefix, b"")
    return data.translate(_LOWER).translate(None, _NO_HEX)


def _digits(data: bytes) -> bytes:
    return data.translate(None, _NO_DIGIT)


Form = Callable[[bytes], bytes]


def _forms_of(value: str) -> Iterator[tuple[Form, bytes, str]]:
    """(form, what to look for in it, how to call that) for one value."""
    raw = value.encode(errors="surrogateescape")
    back = raw[::-1]
    yield _plain, raw, ""
    yield _plain, back, ", reversed"
    for spelled in spellings(value):
        yield _squeezed, _squeezed(spelled.encode(errors="surrogateescape")), ", escaped or split"
    yield _squeezed, _squeezed(back), ", reversed and split"
    for piece in (*_base64s(raw), *_base64s(back)):
        yield _squeezed, _squeezed(piece), ", in base64"
    yield _squeezed, _squeezed(next(_base64s(raw)))[::-1], ", in base64, reversed"
    for piece in _base32s(raw):
        yield _squeezed, piece, ", in base32"
    yield _hex, raw.hex().encode(), ", in hexadecimal"
    yield _hex, back.hex().encode(), ", in hexadecimal, reversed"
    yield _hex, raw.hex()[::-1].encode(), ", in hexadecimal, reversed"
    yield _digits, "".join(str(byte) for byte in raw).encode(), ", as numbers"
    yield _digits, "".join(f"{byte:o}" for byte in raw).encode(), ", as octal numbers"
    if rotated := _rotated(raw):
        yield _plain, rotated, ", rotated by 13"


_ROT13 = bytes.maketrans(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
    b"NOPQRSTUVWXYZABCDEFGHIJKLMnopqrstuvwxyzabcdefghijklm",
)


def _rotated(raw: bytes) -> bytes:
    rotated = raw.translate(_ROT13)
    return rotated if rotated != raw else b""


def _is_found_by_chance(form: Form, wanted: bytes) -> bool:
    return form is not _plain and (len(wanted) < _SHORTEST_FORM or len(set(wanted)) < 4)


# --- the scanner --------------------------------------------------------------------------------------------


class Scanner:
    """Finds these values, and what looks like a token. Costs next to nothing for a text of usual size."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        whole = {value for value in values if len(value) >= SHORTEST_VALUE}
        usable = {part for value in whole for part in whole_and_lines(value)}
        self._wanted: dict[Form, dict[bytes, str]] = {_plain: {}, _squeezed: {}, _hex: {}, _digits: {}}
        for value in usable:
            for form, wanted, how in _forms_of(value):
                if not _is_found_by_chance(form, wanted):
                    self._wanted[form].setdefault(wanted, how)
        raws = [value.encode(errors="surrogateescape") for value in usable if len(value) >= _SHORTEST_PIECED]
        self._pieced = [spelled for raw in raws for spelled in (raw, raw[::-1], next(_base64s(raw)))]

    def holds(self, text: str) -> str | None:
        """The rule that this text breaks; None: it may leave."""
        first = next(iter(self.scan([text.encode(errors="surrogatepass")])), None)
        return first.rule if first else None

    def scan(
        self, chunks: Iterable[bytes], *, window: int = WINDOW, counts: Callable[[Hit], bool] | None = None
    ) -> list[Hit]:
        """The first `MOST_HITS` finds in a text that comes in pieces of any size. Memory stays bounded.

        What `counts` says no to takes no place among them: many harmless finds must not hide another one.
        """
        found: dict[Hit, None] = {}
        budget, line = _Budget(), 0
        for stretch, next_begin in _windows(chunks, window):
            for hit in self._all(stretch, budget, 0):
                at = replace(hit, line=line + hit.line)
                if at not in found and (counts is None or counts(at)):
                    found[at] = None
                if len(found) >= MOST_HITS:
                    return list(found)
            line += stretch.count(b"\n", 0, next_begin)
        return list(found)

    def _all(self, data: bytes, budget: _Budget, depth: int) -> Iterator[Hit]:
        yield from self._known(data)
        for token in tokens(data):
            yield Hit(rule=token.kind, line=_line(data, token.start), text=data[token.start : token.end])
        if depth < _DEEPEST:
            for (form, at), inner in _hidden(data, budget):
                for hit in self._all(inner, budget, depth + 1) if inner else ():
                    yield Hit(rule=f"{hit.rule}, compressed or encoded", line=_line_in(form, data, at))

    def _known(self, data: bytes) -> Iterator[Hit]:
        for form, wanted in self._wanted.items():
            seen = form(data) if wanted else b""
            for each, how in wanted.items():
                at = seen.find(each)
                if at >= 0:
                    text = each if form is _plain else b""
                    yield Hit(rule=KNOWN + how, line=_line_in(form, data, at), text=text)
        for each in self._pieced:
            at = _in_pieces(each, data)
            if at >= 0:
                yield Hit(rule=KNOWN + ", in pieces", line=_line(data, at))


def without_tokens(text: str, instead: str) -> str:
    """`text` with every token of a known issuer replaced."""
    data, parts, end = text.encode(errors="surrogatepass"), [], 0
    for token in sorted(issued(data), key=lambda token: token.start):
        if token.start >= end:
            parts += [data[end : token.start], instead.encode()]
        end = max(end, token.end)
    return b"".join([*parts, data[end:]]).decode(errors="surrogatepass") if parts else text


def _windows(chunks: Iterable[bytes], window: int) -> Iterator[tuple[bytes, int]]:
    """(a stretch of the text, where in it the next one begins)."""
    held = bytearray()
    for chunk in chunks:
        held += chunk
        while len(held) > window:
            yield bytes(held[:window]), window - OVERLAP
            del held[: window - OVERLAP]
    yield bytes(held), len(held)


def _line(data: bytes, at: int) -> int:
    return data.count(b"\n", 0, at) + 1


def _line_in(form: Form, data: bytes, at: int) -> int:
    """The line of what stands at `at` in that form of the data, found by halves: forms keep the order."""
    if form is _plain:
        return _line(data, at)
    low, high, before = 0, len(data), 0
    while high - low > 64:
        middle = (low + high) // 2
        more = len(form(data[low:middle]))
        if before + more > at:
            high = middle
        else:
            low, before = middle, before + more
    return _line(data, high)


def _in_pieces(wanted: bytes, data: bytes) -> int:
    """Where the value begins if it stands in pieces, each with anything short between it and the next; -1."""
    start, left = data.find(wanted[:_SHORTEST_PIECE]), _MOST_BEGINNINGS
    while start >= 0 and left:
        if _goes_on(wanted, data, start):
            return start
        start, left = data.find(wanted[:_SHORTEST_PIECE], start + 1), left - 1
    return -1


def _goes_on(wanted: bytes, data: bytes, at: int) -> bool:
    done = 0
    while done < len(wanted):
        piece = wanted[done : done + _SHORTEST_PIECE]
        at = data.find(piece, at, at + _LONGEST_GAP)
        if at < 0:
            return False
        while done < len(wanted) and at < len(data) and wanted[done] == data[at]:
            done, at = done + 1, at + 1
    return True


# --- what is compressed or encoded --------------------------------------------------------------------------

_TRIED = 512  # bytes that a look at something packed counts for, even if it was none
_STEP = 1024  # characters of base64, or bytes, taken at a time: what is not packed ends with the first
_PACKED = re.compile(rb"\x1f\x8b\x08|PK\x03\x04|x[\x01^\x9c\xda]")
_PACKED_IN_BASE64 = re.compile(rb"H4sI|UEsDB|eJ[w-z]|eN[o-r]|eA[E-H]")
_BASE64_RUN = re.compile(rb"[A-Za-z0-9+/_-]{40,}")
_ZLIB, _GZIP, _DEFLATE = zlib.MAX_WBITS, zlib.MAX_WBITS | 16, -zlib.MAX_WBITS

Steps = Iterator[bytes]
Place = tuple[Form, int]  # a position in a form of the data


class _Budget:
    """How much may still be read and unpacked of one text: an archive can hold more than any memory."""

    def __init__(self) -> None:
        self.left = MOST_UNPACKED


def _hidden(data: bytes, budget: _Budget) -> Iterator[tuple[Place, bytes]]:
    """(where, what) of everything in `data` that is packed, or holds a token in base64."""
    for found in _PACKED.finditer(data):
        if budget.left <= 0:
            return
        yield (_plain, found.start()), _unpacked(data, found.start(), budget)
    narrow = _base64_only(data)
    for found in _PACKED_IN_BASE64.finditer(narrow):
        if budget.left <= 0:
            return
        yield (_base64_only, found.start()), _unpacked_base64(narrow, found.start(), budget)
    for found in _BASE64_RUN.finditer(data):
        decoded = _decoded(found[0])
        if next(issued(decoded), None):
            yield (_plain, found.start()), decoded


def _base64_only(data: bytes) -> bytes:
    return data.translate(None, _NO_BASE64)


def _unpacked(data: bytes, start: int, budget: _Budget) -> bytes:
    if data.startswith(b"\x1f\x8b", start):
        return _inflated(_bytes_from(data, start), _GZIP, budget)
    if data.startswith(b"x", start):
        return _inflated(_bytes_from(data, start), _ZLIB, budget)
    header = data[start : start + 30]
    if len(header) < 30 or header[8:10] != b"\x08\x00":
        return b""  # a file of a zip that is not deflated: it was looked at with the rest
    body = start + 30 + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    return _inflated(_bytes_from(data, body), _DEFLATE, budget)


def _unpacked_base64(narrow: bytes, start: int, budget: _Budget) -> bytes:
    if narrow.startswith(b"UEsDB", start):  # a zip, which is unpacked when what comes out here is looked at
        whole = narrow[start : start + budget.left]
        budget.left -= len(whole)
        return _decoded(whole)
    bits = _GZIP if narrow.startswith(b"H4sI", start) else _ZLIB
    return _inflated(_decoded_from(narrow, start), bits, budget)


def _bytes_from(data: bytes, start: int) -> Steps:
    return (data[begin : begin + _STEP] for begin in range(start, len(data), _STEP))


def _decoded_from(narrow: bytes, start: int) -> Steps:
    return (_decoded(narrow[begin : begin + _STEP]) for begin in range(start, len(narrow), _STEP))


def _decoded(text: bytes) -> bytes:
    whole = text[:-1] if len(text) % 4 == 1 else text  # one character alone says nothing
    padded = whole.replace(b"-", b"+").replace(b"_", b"/") + b"=" * (-len(whole) % 4)
    try:
        return binascii.a2b_base64(padded)
    except binascii.Error:
        return b""


def _inflated(steps: Steps, bits: int, budget: _Budget) -> bytes:
    """What the steps unpack to, up to the first that does not fit; nothing if they are not packed."""
    engine, parts = zlib.decompressobj(bits), list[bytes]()
    budget.left -= _TRIED
    try:
        for step in steps:
            if engine.eof or budget.left <= 0:
                break
            parts.append(engine.decompress(step, budget.left))
            budget.left -= len(parts[-1]) + (len(step) if len(parts) > 1 else 0)
    except zlib.error:
        pass  # cut off, or never packed: what came out so far counts
    return b"".join(parts)
