"""What a branch would bring to the remote, for the review before a push. Reads; changes nothing.

Everything starts at commits that the remote has named itself. What lies between is believed only after its
name was worked out again from its bytes: an agent can write other bytes under the name of an object.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from adw_modules.errors import WorkspaceError
from adw_modules.security.guarded import GONE, LINK, SUBMODULE, Change, Tree, is_agent_config
from coordinator.workspaces.git import Git, last_line
from coordinator.workspaces.places import Mirror

MOST_COMMITS = 20_000
MOST_LINK_BYTES = 4096
_FOLDER = "040000"
_ENTRY = re.compile(r"(:+)((?:\d{6} )+)((?:[0-9a-f]{40,64} )+)([A-Z]+)\d*\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What is new on a branch: its head, all changes of its commits and of their sum, and its links."""

    head: str
    base: str | None  # where it left the default branch
    changes: tuple[Change, ...]
    tree: Tree


@dataclass(frozen=True, slots=True, kw_only=True)
class _Raw:
    """One line of `--raw`: what became of a path."""

    path: str
    old_mode: str
    mode: str
    old_sha: str
    sha: str


def read_content(git: Git, mirror: Mirror, head: str, default: str) -> Content:
    """What `head` has beyond `default`, the remote's default branch as the remote named it.

    Raises WorkspaceError when objects are missing or are not what their names say.
    """
    history = _history(git, mirror, default, head)
    tips = _diff(git, mirror, history.base, head)
    names = {raw.path for raw in tips}
    ever = [] if history.is_one_step else _log(git, mirror, history.base or "", default, head)
    # Agent configuration of an earlier attempt is taken back by us before the next, and counts at a tip only.
    passed = [raw for raw in ever if raw.path not in names and not is_agent_config(raw.path)]
    files = [raw for raw in (*tips, *passed) if _FOLDER not in (raw.mode, raw.old_mode)]
    sizes = _prove_folders(git, mirror, tips, files, history.trees)
    links = _links(git, mirror, head) if any(raw.mode == LINK for raw in files) else {}
    links |= {raw.path: _target(git, mirror, raw.sha) for raw in passed if raw.mode == LINK}
    changes = tuple(
        Change(
            path=raw.path,
            mode=raw.mode,
            old_mode=raw.old_mode,
            size=sizes.get(raw.sha, 0),
            target=links.get(raw.path),
        )
        for raw in files
    )
    return Content(head=head, base=history.base, changes=changes, tree=Tree(links=links))


@dataclass(frozen=True, slots=True, kw_only=True)
class _History:
    """Where two commits part, all between them having proved their names."""

    base: str | None
    trees: frozenset[str]  # of head and base
    is_one_step: bool  # head is one commit after the base: their difference is all there is


def fork_point(git: Git, mirror: Mirror, default: str, head: str) -> str | None:
    """The newest commit that both have; None without one. Every commit on the way has proved its name."""
    return _history(git, mirror, default, head).base


def _history(git: Git, mirror: Mirror, default: str, head: str) -> _History:
    most = f"--max-count={MOST_COMMITS}"
    listing = git.run(mirror, ["rev-list", "--boundary", most, f"{default}...{head}"])
    if listing.code:
        raise WorkspaceError(f"The branch cannot be compared with {default[:12]}: {last_line(listing.err)}")
    lines = listing.out.split()
    if len(lines) >= MOST_COMMITS:
        raise WorkspaceError(f"The branch and {default[:12]} are too far apart to be compared.")
    edges = [line[1:] for line in lines if line.startswith("-")]
    between = [line for line in lines if not line.startswith("-")]
    texts = prove(git, mirror, {*edges, *between, default, head}, "commit")
    if default == head:
        base: str | None = head
    elif len(edges) == 1:
        base = edges[0]
    else:
        done = git.run(mirror, ["merge-base", default, head])
        base = done.out.split()[0] if done.code == 0 else None
    ends = [head] if base is None else [head, base]
    return _History(
        base=base,
        trees=frozenset(texts[end].split(b"\n", 1)[0].decode().removeprefix("tree ") for end in ends),
        is_one_step=base == default and between == [head],
    )


def _diff(git: Git, mirror: Mirror, base: str | None, head: str) -> list[_Raw]:
    """The difference of two trees, with the folders that differ."""
    new = hashlib.new("sha1" if len(head) == 40 else "sha256", b"tree 0\0", usedforsecurity=False)
    options = ["-r", "-t", "-z", "--raw", "--no-renames", "--no-abbrev", "--ignore-submodules=none"]
    return _parsed(git.read(mirror, "diff-tree", *options, base or new.hexdigest(), head))


def _prove_folders(
    git: Git, mirror: Mirror, tips: list[_Raw], files: list[_Raw], roots: frozenset[str]
) -> Mapping[str, int]:
    """Each folder that differs proves its name on both sides; what does not differ cannot lie about it.

    Returns the sizes of the new files, asked for in the same breath.
    """
    both = ((sha, mode) for raw in tips for sha, mode in ((raw.sha, raw.mode), (raw.old_sha, raw.old_mode)))
    folders = {sha for sha, mode in both if mode == _FOLDER} | roots
    new = {raw.sha for raw in files if raw.mode not in (GONE, SUBMODULE)}
    found = _objects(git, mirror, folders, sizes_of=new)
    for name in folders:
        _check(mirror, name, "tree", *found[name][:2])
    return {name: found[name][2] for name in new}


def _log(git: Git, mirror: Mirror, base: str, default: str, head: str) -> list[_Raw]:
    """What each commit changed; a merge only what it has from none of its parents."""
    arguments = [
        "log",
        "-c",
        "-r",
        "-z",
        "--raw",
        "--no-renames",
        "--no-abbrev",
        "--format=",
        "--root",
        "--ignore-submodules=none",
        head,
        f"^{default}",
        *([f"^{base}"] if base else []),
        "--",
    ]
    return _parsed(git.read(mirror, *arguments))


def _parsed(text: str) -> list[_Raw]:
    """`:old new old-sha new-sha X NUL path NUL`; of a merge there are more old ones."""
    fields, found = text.split("\0"), []
    index = 0
    while index < len(fields) - 1:
        entry = _ENTRY.match(fields[index].strip("\n"))
        if entry is None:
            index += 1
            continue
        modes, shas = entry[2].split(), entry[3].split()
        path = fields[index + 1]
        old = SUBMODULE if SUBMODULE in modes[:-1] else modes[0]
        found.append(_Raw(path=path, old_mode=old, mode=modes[-1], old_sha=shas[0], sha=shas[-1]))
        index += 2
    return found


# Objects


def prove(git: Git, mirror: Mirror, names: Iterable[str], kind: str) -> dict[str, bytes]:
    """The bytes of objects of one kind, each of which has proved its name. Raises WorkspaceError else."""
    found = _objects(git, mirror, names)
    for name, (is_a, data, _) in found.items():
        _check(mirror, name, kind, is_a, data)
    return {name: data for name, (_, data, _) in found.items()}


def _check(mirror: Mirror, name: str, kind: str, found: str, data: bytes) -> None:
    digest = hashlib.new("sha1" if len(name) == 40 else "sha256", usedforsecurity=False)
    digest.update(b"%s %d\0" % (found.encode(), len(data)) + data)
    if found != kind or digest.hexdigest() != name:
        raise WorkspaceError(
            f"The {kind} {name[:12]} in our mirror of {mirror.repo} is not what its name says."
        )


def _objects(
    git: Git, mirror: Mirror, names: Iterable[str], *, sizes_of: Iterable[str] = ()
) -> dict[str, tuple[str, bytes, int]]:
    """Kind, bytes and size of each object; of `sizes_of` without the bytes."""
    whole = set(names)
    wanted = [(name, name in whole) for name in sorted(whole | set(sizes_of))]
    asked = "".join(f"{'contents' if is_whole else 'info'} {name}\n" for name, is_whole in wanted)
    data = git.read_bytes(mirror, ["cat-file", "--batch-command"], asked)
    found, at = dict[str, tuple[str, bytes, int]](), 0
    for name, is_whole in wanted:
        end = data.index(b"\n", at)
        header = data[at:end].decode(errors="replace").split(" ")
        if len(header) != 3:
            raise WorkspaceError(f"An object is missing in our mirror of {mirror.repo}: {name[:12]}.")
        size = int(header[2])
        found[name] = (header[1], data[end + 1 : end + 1 + size] if is_whole else b"", size)
        at = end + 1 + (size + 1 if is_whole else 0)
    return found


def _links(git: Git, mirror: Mirror, head: str) -> dict[str, str]:
    """All symbolic links of the tree: a new one may lead through an old one."""
    entries = git.read(mirror, "ls-tree", "-r", "-z", "--full-tree", head).split("\0")
    found = {
        path: meta.split(" ")[2]
        for meta, _, path in (each.partition("\t") for each in entries if each)
        if meta.startswith(LINK)
    }
    targets = _objects(git, mirror, found.values()) if found else {}
    return {path: _text(targets[sha][1]) for path, sha in found.items()}


def _target(git: Git, mirror: Mirror, sha: str) -> str:
    return _text(_objects(git, mirror, [sha])[sha][1])


def _text(data: bytes) -> str:
    return data[:MOST_LINK_BYTES].decode(errors="replace")
