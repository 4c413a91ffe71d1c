"""Looking at what a push would send before it is sent: every commit, tree and file that the remote lacks.

Objects, not differences: what was added and removed again between two commits is sent as well, and so are
messages, authors, names and the targets of links. What the remote has is asked of the remote; refs, records,
replacements and grafts in the mirror are an agent's to write and count for nothing here.

Must not decide what follows from a leak, nor push.
"""

from __future__ import annotations

import hashlib
import os
import re
import zlib
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from adw_modules.errors import WorkspaceError
from adw_modules.security.leaks import KNOWN, Hit, Leak, Scanner, find_key, shape_of
from adw_modules.tasks.messages import Voice, reworded
from coordinator.shim import open_regular
from coordinator.workspaces.git import Git
from coordinator.workspaces.places import Mirror

_CHUNK = 1 << 18
_SMALL = 1 << 16  # bytes: such objects are looked at together, as each look has its price
_BATCH = 4 << 20
_NAMES = re.compile(rb"[0-7]{5,6} ([^\0]+)\0")
_A_NAME = "a name"  # of a file or folder that cannot be shown
_MOST_LOOKED_UP = 500  # finds that the default branch is asked about; what is beyond counts as new


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """What the remote told of itself: the commits that its branches stand on, and its default branch's."""

    heads: frozenset[str]
    default: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Screened:
    """A commit, and what in its history must not be sent."""

    head: str
    leaks: tuple[Leak, ...]
    is_loud: bool = False  # a commit of it mentions, closes, skips or credits: see adw_modules/tasks/messages


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """One object that would be sent: what to call it, and the path where it is a file."""

    place: str
    path: str | None = None
    sha: str = ""


@dataclass(slots=True)
class _Batch:
    """Small objects, one after the other as one text, and which line belongs to which."""

    texts: list[bytes] = field(default_factory=list)
    parts: list[_Part] = field(default_factory=list)
    first_lines: list[int] = field(default_factory=list)
    lines: int = 1
    size: int = 0

    def add(self, part: _Part, text: bytes) -> None:
        self.parts.append(part)
        self.first_lines.append(self.lines)
        self.texts.append(text)
        self.lines += text.count(b"\n") + 1
        self.size += len(text)

    def owner(self, line: int) -> tuple[_Part, int]:
        index = bisect_right(self.first_lines, line) - 1
        return self.parts[index], line - self.first_lines[index] + 1


class Screen:
    """One look at all that is new in the history of one commit. `allowed`: keys of finds that may pass."""

    def __init__(
        self,
        git: Git,
        mirror: Mirror,
        remote: Remote,
        scanner: Scanner,
        *,
        allowed: Collection[str] = (),
        voice: Voice | None = None,
    ) -> None:
        self._voice = voice
        self._is_loud = False
        self._allowed = allowed
        self._looked_up: dict[tuple[str, str], bool] = {}
        self._git = git
        self._mirror = mirror
        self._remote = remote
        self._scanner = scanner
        self._leaks: dict[str, Leak] = {}

    def look_at(self, head: str) -> Screened:
        """Raises WorkspaceError if it cannot be told what would be sent."""
        names = self._new_objects(head)
        batch = _Batch()
        batch.add(_Part(place=_A_NAME, sha=head), "\n".join(names.values()).encode(errors="replace"))
        for sha, kind, chunks in self._contents(names):
            batch = self._take(batch, _part(sha, kind, names[sha]), kind, chunks, sha)
        self._judge_batch(batch)
        return Screened(head=head, leaks=tuple(self._leaks.values()), is_loud=self._is_loud)

    def _new_objects(self, head: str) -> dict[str, str]:
        """sha -> path of everything that would be sent; the path of a commit is empty."""
        asked = "".join([f"{head}\n", *(f"^{sha}\n" for sha in sorted(self._remote.heads))])
        done = self._git.run(
            self._mirror, ["rev-list", "--objects", "--ignore-missing", "--stdin"], stdin=asked
        )
        if done.code:
            raise WorkspaceError(f"What would be pushed to {self._mirror.repo} cannot be listed.")
        # Only at ends of lines: names may hold what else Python takes for one.
        lines = (line.partition(" ") for line in done.out.split("\n") if line)
        return {sha: path for sha, _, path in lines}

    def _take(self, batch: _Batch, part: _Part, kind: str, chunks: Iterator[bytes], sha: str) -> _Batch:
        first = next(chunks, b"")
        second = next(chunks, b"")
        if kind == "tree":
            batch.add(part, b"\n".join(_names(b"".join([first, second, *chunks]), len(sha) // 2)))
        elif kind == "commit" and self._voice is not None:
            whole = b"".join([first, second, *chunks])
            self._is_loud = self._is_loud or reworded(whole, self._voice, {}) != whole
            batch.add(part, whole)
        elif second or len(first) > _SMALL:
            self._judge(part, _chain(first, second, chunks))
        else:
            batch.add(part, first)
        if batch.size < _BATCH:
            return batch
        self._judge_batch(batch)
        return _Batch()

    # -- judging --------------------------------------------------------------------------------------

    def _judge_batch(self, batch: _Batch) -> None:
        def counts(hit: Hit) -> bool:
            part, line = batch.owner(hit.line)
            return self._counts(part, replace(hit, line=line))

        for hit in self._scanner.scan([b"\n".join(batch.texts)], counts=counts):
            part, line = batch.owner(hit.line)
            self._note(part, replace(hit, line=line))

    def _judge(self, part: _Part, chunks: Iterable[bytes]) -> None:
        for hit in self._scanner.scan(chunks, counts=lambda hit: self._counts(part, hit)):
            self._note(part, hit)

    def _counts(self, part: _Part, hit: Hit) -> bool:
        is_known = hit.rule.startswith(KNOWN)
        if not is_known and self._allowed and find_key(part.sha, hit) in self._allowed:
            return False
        return not self._is_published(part, hit)

    def _note(self, part: _Part, hit: Hit) -> None:
        place = _A_NAME if self._scanner.holds(part.place) else part.place
        line = hit.line if part.path else None
        key, shape = find_key(part.sha, hit), shape_of(hit)
        # Several on one line are told once each: each has to be allowed.
        found = Leak(rule=hit.rule, place=place, line=line, key=key, shape=shape)
        self._leaks[key] = found

    def _is_published(self, part: _Part, hit: Hit) -> bool:
        """Whether the default branch shows it already: a known secret in the same file, a token anywhere."""
        default = self._remote.default
        if default is None or part.path is None or not hit.text:
            return False
        wanted = max(hit.text.split(b"\n"), key=len).decode(errors="replace")
        arguments = ["grep", "--quiet", "--text", "--fixed-strings", "-f", "-", default]
        if hit.rule.startswith(KNOWN):
            if part.place == _A_NAME or self._scanner.holds(part.path) or '"' in part.path:
                return False  # no secret becomes an argument
            arguments += ["--", f":(top,literal){part.path}"]
        asked = (wanted, arguments[-1])
        if asked not in self._looked_up:
            if len(self._looked_up) >= _MOST_LOOKED_UP:
                return False
            done = self._git.run(self._mirror, arguments, stdin=f"{wanted}\n")
            self._looked_up[asked] = done.code == 0
        return self._looked_up[asked]

    # -- reading --------------------------------------------------------------------------------------

    def _contents(self, names: Mapping[str, str]) -> Iterator[tuple[str, str, Iterator[bytes]]]:
        """(sha, kind, content) of each. What lies in a file of its own is read without a process."""
        others = []
        for sha in names:
            found = _loose(self._mirror, sha)
            if found is None:
                others.append(sha)
            else:
                yield sha, *found
        if others:
            yield from self._git.objects(self._mirror, others)


def _part(sha: str, kind: str, path: str) -> _Part:
    if kind == "blob":
        return _Part(place=path or sha[:12], path=path or None, sha=sha)
    if kind == "tree":
        return _Part(place=_A_NAME, sha=sha)
    return _Part(place=f"the message or an author of {kind} {sha[:12]}", sha=sha)


def _names(tree: bytes, sha_length: int) -> Iterator[bytes]:
    at = 0
    while found := _NAMES.match(tree, at):
        yield found[1]
        at = found.end() + sha_length


def _chain(first: bytes, second: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield second
    yield from rest


def _loose(mirror: Mirror, sha: str) -> tuple[str, Iterator[bytes]] | None:
    """(kind, content) of an object that has a file of its own, if the file holds what its name says."""
    path = str(mirror.path / "objects" / sha[:2] / sha[2:])
    try:
        if not _is_true(path, sha):
            return None
        chunks = _inflated(path)
        head, _, rest = next(chunks, b"").partition(b"\0")
    except (OSError, zlib.error):
        return None
    return head.partition(b" ")[0].decode(errors="replace"), _after(rest, chunks)


def _is_true(path: str, sha: str) -> bool:
    digest = hashlib.sha1(usedforsecurity=False) if len(sha) == 40 else hashlib.sha256()
    for chunk in _inflated(path):
        digest.update(chunk)
    return digest.hexdigest() == sha


def _after(rest: bytes, chunks: Iterator[bytes]) -> Iterator[bytes]:
    if rest:
        yield rest
    yield from chunks


def _inflated(path: str) -> Iterator[bytes]:
    engine = zlib.decompressobj()
    with os.fdopen(open_regular(path), "rb") as file:
        while packed := file.read(_CHUNK):
            yield engine.decompress(packed, _CHUNK)
            while engine.unconsumed_tail:
                yield engine.decompress(engine.unconsumed_tail, _CHUNK)
