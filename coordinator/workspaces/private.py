"""The git repository that an agent in a sandbox has instead of the mirror: its own refs, its own objects.

It lies in the git directory of the worktree, in `sandbox/`, and lives as long. In the sandbox `commondir`
leads there and the mirror's objects can be read, so `git status`, `diff`, `log` and `commit` work, while the
mirror's refs, config and hooks and its other worktrees are out of reach. What the agent has committed is
fetched into the mirror when its run is over, and only what stands on the task's branch or on HEAD.

Nothing here is trusted once an agent had it: no link is followed, and what git would read as an instruction
is put back before git looks.
"""

from __future__ import annotations

import os
from pathlib import Path

from adw_modules.errors import WorkspaceError
from coordinator.workspaces.files import below, inside, is_real_directory, read_text, restore, write_text
from coordinator.workspaces.git import SHA, Git, last_line
from coordinator.workspaces.places import BLOCKED_FILE, SANDBOX_GIT, Mirror, PrivateGit, Tree

_GIVEN = "given"  # the commit that the branch stood on when the agent got it, or when its work was taken last
_WRITABLE = ("objects", "refs", "logs")
_SEALED = Path("objects/info")  # where git looks for alternates
_REF_LIMIT = 5  # levels of a branch's name below refs/heads that are made
_MOST_FILES = 200_000  # new objects of one run, packed or not


def lend(tree: Tree, branch: str, head: str, config: str) -> PrivateGit:
    """Make the private repository, or bring it up to date, with `branch` at `head`. No run may be alive.

    What earlier attempts left in it (other branches, a stash) stays. Raises WorkspaceError if something in
    the way is not as we made it.
    """
    root = tree.admin / SANDBOX_GIT
    for part in (Path(), *map(Path, _WRITABLE), _SEALED, Path("refs/remotes"), Path("info")):
        _folder(root, part)
    _seal(tree.mirror, root, config)
    ref = Path("refs/heads") / branch
    _folder(root, ref.parent)
    inside(root, ref.with_name(f"{ref.name}.lock")).unlink(missing_ok=True)
    _write(root, ref, f"{head}\n")
    _write(root, Path(_GIVEN), f"{head}\n")
    _write(root, Path("commondir"), f"{root}\n")
    _write(root, Path("packed-refs"), _packed_remotes(tree.mirror))
    return _parts(tree, root)


def set_aside(tree: Tree) -> None:
    """Before a run without a sandbox, whose agent works in the mirror: what is in the private one is old."""
    root = tree.admin / SANDBOX_GIT
    if os.path.lexists(root):
        places = (tree.admin / f"{SANDBOX_GIT}.{n}" for n in range(1, 10_000))
        root.rename(next(place for place in places if not os.path.lexists(place)))


def take(git: Git, tree: Tree, branch: str, config: str) -> None:
    """Bring what the agent has committed into the mirror. Costs three small reads where it has not.

    The task's branch moves to where the agent's stands. A HEAD elsewhere is left detached, on a commit that
    the mirror has. Raises WorkspaceError for anything that a git of ours could be led astray by.
    """
    root = tree.admin / SANDBOX_GIT
    if not is_real_directory(root):
        return
    ref = Path("refs/heads") / branch
    given, tip = read_text(root / _GIVEN), _commit_of(root, ref)
    head = _foreign_head(tree, root, ref)
    wanted = [sha for sha in (tip if tip != given else None, head) if sha]
    if not wanted:
        return
    _refuse_oddities(root)
    _seal(tree.mirror, root, config)
    _fetch(git, tree.mirror, root, list(dict.fromkeys(wanted)))
    if tip and tip != given:
        git.read(tree.mirror, "update-ref", str(ref), tip)
        _write(root, Path(_GIVEN), f"{tip}\n")
    if head:
        write_text(tree.admin / "HEAD", f"{head}\n")


# --- what the agent left -----------------------------------------------------------------------------------


def _commit_of(root: Path, ref: Path) -> str | None:
    text = read_text(inside(root, ref))
    if text and not SHA.fullmatch(text):
        raise WorkspaceError(f"The agent left {ref} on something that is no commit.")
    return text or None


def _foreign_head(tree: Tree, root: Path, ref: Path) -> str | None:
    """The commit that HEAD stands on, where that is not the task's branch."""
    text = read_text(tree.admin / "HEAD")
    if text == f"ref: {ref}":
        return None
    if SHA.fullmatch(text):
        is_known = (tree.mirror.path / "objects" / text[:2] / text[2:]).is_file()
        return None if is_known else text
    name = text.removeprefix("ref: ")
    if not name.startswith("refs/heads/") or ".." in name.split("/"):
        raise WorkspaceError("The agent left HEAD on something that is no branch.")
    # Never looked up in the mirror: there a branch of that name may be another task's.
    found = _commit_of(root, Path(name))
    if found is None:
        raise WorkspaceError(f"HEAD is on {name.removeprefix('refs/heads/')}, which has no commit.")
    return found


def _refuse_oddities(root: Path) -> None:
    """Only plain files and folders: a link among the objects would show git another repository's."""
    for seen, entry in enumerate(below(root / "objects")):
        if not entry.is_file(follow_symlinks=False):
            raise WorkspaceError(
                f"The agent left something that is no file among git's objects: {entry.name}."
            )
        if seen >= _MOST_FILES:
            raise WorkspaceError(f"The agent left more than {_MOST_FILES:,} files among git's objects.")


def _fetch(git: Git, mirror: Mirror, root: Path, commits: list[str]) -> None:
    """Everything new is checked on its way, as if it came from a stranger, and it does."""
    arguments = ["fetch", "--quiet", "--no-tags", "--no-auto-maintenance", "--no-recurse-submodules"]
    strict = ["-c", "fetch.fsckObjects=true", "-c", "fetch.unpackLimit=100000"]
    done = git.run(mirror, [*strict, *arguments, "--no-write-fetch-head", str(root), *commits])
    if done.code:
        raise WorkspaceError(f"The agent's commits cannot be taken over: {last_line(done.err)}")


# --- files of ours in places that an agent had -------------------------------------------------------------


def _folder(root: Path, part: Path) -> None:
    path = inside(root.parent, Path(root.name) / part)
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not is_real_directory(path):
        raise WorkspaceError(f"{path} is not a folder.")


def _write(root: Path, part: Path, text: str) -> None:
    path = inside(root, part)
    if is_real_directory(path):
        raise WorkspaceError(f"{path} is a folder.")
    write_text(path, text)


def _packed_remotes(mirror: Mirror) -> str:
    """Somebody may have packed the mirror's refs; the branches of other tasks are nobody's business."""
    lines = read_text(mirror.path / "packed-refs").splitlines()
    return "".join(f"{line}\n" for line in lines if " refs/remotes/" in line)


def _seal(mirror: Mirror, root: Path, config: str) -> None:
    restore(inside(root, Path("config")), config + "[uploadpack]\n\tallowAnySHA1InWant = true\n")
    restore(inside(root, Path("HEAD")), "ref: refs/heads/main\n")
    restore(inside(root, Path("info/exclude")), f"/{BLOCKED_FILE}\n")
    restore(inside(root, _SEALED / "alternates"), f"{mirror.path / 'objects'}\n")
    inside(root, _SEALED / "http-alternates").unlink(missing_ok=True)
    inside(root, Path("info/attributes")).unlink(missing_ok=True)


def _parts(tree: Tree, root: Path) -> PrivateGit:
    mirror = tree.mirror.path
    remotes = mirror / "refs" / "remotes"
    own = [tree.admin / name for name in ("gitdir", "coordinator.json", "locked")]
    return PrivateGit(
        git_file=tree.path / ".git",
        admin=tree.admin,
        sealed=(root, root / _SEALED, *(path for path in own if path.exists())),
        writable=tuple(root / name for name in _WRITABLE),
        stand_ins=(
            (root / "commondir", tree.admin / "commondir"),
            *(((remotes, root / "refs" / "remotes"),) if is_real_directory(remotes) else ()),
        ),
        shared=mirror / "objects",
    )
