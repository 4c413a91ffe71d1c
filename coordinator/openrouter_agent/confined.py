"""Files below one directory, and no others, whatever a path says.

Owns how a path of a model becomes an open file. Each component is opened from the one before without
following a link; links are followed by hand, so none leads out, also when somebody swaps one in
meanwhile. Must not know what is done with a file. Every refusal is a `ToolError` with one sentence for
the model.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MOST_LINKS = 20
MOST_COMPONENTS = 200
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class ToolError(Exception):
    """A tool could not do what the model asked; `str(error)` is one sentence for the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a path leads: a name in an open directory. `name` is "." for the directory itself."""

    directory: int
    name: str
    shown: str  # relative to the workspace, links resolved

    def status(self) -> os.stat_result | None:
        """What is there, None if nothing. It is never a link."""
        try:
            return os.stat(self.name, dir_fd=self.directory, follow_symlinks=False)
        except FileNotFoundError:
            return None


class Workspace:
    """The directory that a model may work in. Raises OSError if there is none."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve(strict=True)
        self._given = os.path.normpath(root.absolute())
        self._fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        os.close(self._fd)

    @contextlib.contextmanager
    def place(self, path: str, *, is_writing: bool = False) -> Iterator[Place]:
        """Where `path` leads. Raises ToolError if that is outside, or in a directory that is not there.

        For writing, missing directories are made, and what belongs to git is refused.
        """
        walk = _Walk(self, os.dup(self._fd), path, is_writing=is_writing)
        try:
            with _said_of(path):
                walk.go(self._components(path))
            yield Place(directory=walk.here, name=walk.name, shown="/".join(walk.names) or ".")
        finally:
            walk.close()

    def _components(self, path: str) -> list[str]:
        if not path or "\0" in path:
            raise ToolError("The path is empty or holds a NUL character.")
        if not path.isascii() and not _can_be_encoded(path):
            raise ToolError("The path holds half a character.")
        if not path.startswith("/"):
            return path.split("/")
        inside = self.inside(path)
        if inside is None:
            raise ToolError(f"{path} is outside the working directory: use a path relative to it.")
        return inside

    def inside(self, path: str) -> list[str] | None:
        """The components of an absolute path below the workspace's own; None if it begins elsewhere."""
        for own in (str(self.root), self._given):
            if path == own or path.startswith(own.rstrip("/") + "/"):
                return path[len(own) :].split("/")
        return None

    @contextlib.contextmanager
    def reading(self, path: str) -> Iterator[int]:
        """A descriptor of the plain file at `path`. Never blocks, whatever is there."""
        with self.place(path) as place:
            _plain(place, path, must_exist=True)
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            with _said_of(path):
                fd = os.open(place.name, flags, dir_fd=place.directory)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise ToolError(f"{path} is not a plain file.")
            yield fd
        finally:
            os.close(fd)

    def replace(self, path: str, content: bytes) -> tuple[str, bool]:
        """Put `content` into the file, in one step; missing directories are made. (path, whether it is new)

        A hard link to a file elsewhere is cut off, not written through.
        """
        with self.place(path, is_writing=True) as place:
            before = _plain(place, path, must_exist=False)
            mode = stat.S_IMODE(before.st_mode) & 0o777 if before else 0o666 & ~_umask()
            with _said_of(path):
                _write_beside(place, content, mode)
            return place.shown, before is None

    @contextlib.contextmanager
    def directory(self, path: str) -> Iterator[tuple[int, str]]:
        """A descriptor of the directory at `path`, and its name below the workspace ("." for that itself)."""
        with self.place(path) as place, _said_of(path):
            fd = os.open(place.name, DIRECTORY, dir_fd=place.directory)
        try:
            yield fd, place.shown
        finally:
            os.close(fd)


class _Walk:
    """One path, component by component. `here` is the directory that the last name is in."""

    def __init__(self, workspace: Workspace, root: int, path: str, *, is_writing: bool) -> None:
        self._workspace = workspace
        self._path = path
        self._is_writing = is_writing
        self._open = [root]
        self._links = self._steps = 0
        self.names: list[str] = []
        self.name = "."

    @property
    def here(self) -> int:
        return self._open[-1]

    def close(self) -> None:
        for fd in self._open:
            os.close(fd)

    def go(self, components: list[str]) -> None:
        todo = [each for each in reversed(components) if each not in {"", "."}]
        while todo:
            self._steps += 1
            if self._steps > MOST_COMPONENTS:
                raise ToolError(f"{self._path[:100]} has too many components.")
            name = todo.pop()
            if self._is_writing and name.casefold() == ".git":
                raise ToolError(f"{self._path} belongs to git itself and is not written by this tool.")
            target = None if name == ".." else self._link(name)
            if name == "..":
                self._up()
            elif target is not None:
                todo += self._followed(target)
            elif not todo:
                self._end_at(name)
            else:
                self._down(name)

    def _link(self, name: str) -> str | None:
        """Where the link `name` points; None if it is no link."""
        try:
            return os.readlink(name, dir_fd=self.here)
        except OSError as error:
            if error.errno in {errno.EINVAL, errno.ENOENT}:
                return None
            raise

    def _followed(self, target: str) -> list[str]:
        self._links += 1
        if self._links > MOST_LINKS:
            raise ToolError(f"{self._path} has too many symbolic links.")
        components = target.split("/")
        if target.startswith("/"):
            inside = self._workspace.inside(target)
            if inside is None:
                raise ToolError(f"{self._path} is outside the working directory: it is a link to elsewhere.")
            while self.names:
                self._up()
            components = inside
        return [each for each in reversed(components) if each not in {"", "."}]

    def _up(self) -> None:
        if not self.names:
            raise ToolError(f"{self._path} is outside the working directory.")
        self.names.pop()
        os.close(self._open.pop())

    def _down(self, name: str) -> None:
        try:
            fd = os.open(name, DIRECTORY, dir_fd=self.here)
        except FileNotFoundError:
            if not self._is_writing:
                raise
            os.mkdir(name, dir_fd=self.here)
            fd = os.open(name, DIRECTORY, dir_fd=self.here)
        self._open.append(fd)
        self.names.append(name)

    def _end_at(self, name: str) -> None:
        self.name = name
        self.names.append(name)


def _plain(place: Place, path: str, *, must_exist: bool) -> os.stat_result | None:
    """The status of a plain file. Raises ToolError for anything else, or if there must be one."""
    with _said_of(path):
        found = place.status()
    if found is None:
        if must_exist:
            raise ToolError(f"{path} does not exist.")
        return None
    if stat.S_ISREG(found.st_mode):
        return found
    kind = next((name for is_kind, name in _KINDS if is_kind(found.st_mode)), "not a plain file")
    raise ToolError(f"{path} is {kind}.")


def _write_beside(place: Place, content: bytes, mode: int) -> None:
    """A new file under another name, moved over the old one: nobody ever sees a half-written file."""
    temporary = f".{place.name[:100]}.{secrets.token_hex(6)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(temporary, flags, mode, dir_fd=place.directory)
    try:
        with os.fdopen(fd, "wb") as file:
            os.fchmod(fd, mode)
            file.write(content)
        os.rename(temporary, place.name, src_dir_fd=place.directory, dst_dir_fd=place.directory)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=place.directory)
        raise


def _can_be_encoded(path: str) -> bool:
    """JSON can spell half of a character, which no file's name can."""
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return False
    return True


def _umask() -> int:
    current = os.umask(0o022)
    os.umask(current)
    return current


@contextlib.contextmanager
def _said_of(path: str) -> Iterator[None]:
    """What the system refuses, as a sentence for the model."""
    try:
        yield
    except OSError as error:
        raise ToolError(f"{path[:200]}: {_reason(error)}.") from error


def _reason(error: OSError) -> str:
    match error.errno:
        case errno.ENOENT:
            return "there is no such file or directory"
        case errno.ENOTDIR | errno.ELOOP:
            return "a part of the path is not a directory"
        case _:
            return (error.strerror or "the system refused").lower()
