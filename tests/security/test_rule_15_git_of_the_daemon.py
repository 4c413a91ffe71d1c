"""The daemon's own git runs nothing that an agent has put into worktree or mirror."""

from __future__ import annotations

import os
import shutil
import subprocess
import zlib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from adw_modules.errors import WorkspaceError
from coordinator.workspaces import Workspace, Workspaces

NOW = datetime(2026, 11, 21, tzinfo=UTC)
ME = ["-c", "user.name=A", "-c", "user.email=a@localhost"]


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", *ME, *arguments], cwd=folder, capture_output=True, text=True, check=True
    ).stdout.strip()


class Stage:
    """A remote, our workspaces, and a program that leaves a mark when anybody runs it."""

    def __init__(self, root: Path) -> None:
        self.root, self.remote, self.mark = root, root / "remote.git", root / "mark"
        self.evil = root / "evil"
        self.evil.write_text(f"#!/bin/sh\ntouch {self.mark}\ncat\n")
        self.evil.chmod(0o755)
        git(root, "init", "-q", "-b", "main", "work")
        (root / "work" / "app.txt").write_text("hello\n")
        git(root / "work", "add", "-A")
        git(root / "work", "commit", "-q", "-m", "First")
        git(root, "clone", "-q", "--bare", "work", "remote.git")
        self.open(os.environ["PATH"])

    def open(self, path: str) -> None:
        self.workspaces = Workspaces(
            repos_dir=self.root / "repos",
            trees_dir=self.root / "trees",
            quarantine_dir=self.root / "quarantine",
            git_user=("C", "c@localhost"),
            environ={**os.environ, "PATH": path},
        )

    def prepare(self, number: int = 7) -> Workspace:
        mirror = self.workspaces.ensure_mirror("octo/hello", str(self.remote), None, now=NOW)
        return self.workspaces.prepare(
            mirror, f"gh-{number}", f"auto/gh-{number}", default_branch=None, auth=None, now=NOW
        )

    def whole_life(self, workspace: Workspace) -> None:
        """Everything the daemon does with a worktree after an agent had it."""
        try:
            self.workspaces.state(workspace)
            self.workspaces.keep_work(workspace, "Work")
            again = self.prepare()
            (again.path / "more.txt").write_text("more\n")
            self.workspaces.keep_work(again, "More")
            content = self.workspaces.content(again, None)
            self.workspaces.push(again, None, head=content.head)
            self.workspaces.release(again)
            self.workspaces.quarantine(self.prepare(8), "for the test", now=NOW)
            self.prepare(9)
        except WorkspaceError:
            pass  # refusing is as good


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def settings(stage: Stage) -> str:
    """All keys by which git starts programs, and some that lead elsewhere."""
    evil, hooks = stage.evil, stage.root / "hooks"
    hooks.mkdir(exist_ok=True)
    for name in (
        "pre-commit",
        "post-checkout",
        "pre-push",
        "reference-transaction",
        "post-index-change",
        "commit-msg",
        "post-commit",
        "prepare-commit-msg",
        "post-merge",
        "fsmonitor-watchman",
    ):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {stage.mark}\n")
        (hooks / name).chmod(0o755)
    return f"""
[extensions]
    worktreeConfig = true
[core]
    repositoryformatversion = 1
    hooksPath = {hooks}
    fsmonitor = {evil}
    sshCommand = {evil}
    gitProxy = {evil}
    askPass = {evil}
    pager = {evil}
    editor = {evil}
    alternateRefsCommand = {evil}
[diff]
    external = {evil}
[diff "evil"]
    command = {evil}
    textconv = {evil}
[filter "evil"]
    clean = {evil}
    smudge = {evil}
    process = {evil}
    required = true
[merge "evil"]
    driver = {evil}
[credential]
    helper = !{evil}
[gpg]
    program = {evil}
[commit]
    gpgSign = true
[log]
    showSignature = true
[protocol "ext"]
    allow = always
[remote "coordinator"]
    receivepack = {evil}
    uploadpack = {evil}
    url = ext::{evil}
    pushurl = ext::{evil}
    promisor = true
[remote "origin"]
    uploadpack = {evil}
[url "ext::{evil} "]
    insteadOf = {stage.remote}
[submodule]
    recurse = true
[trailer "x"]
    command = {evil}
[alias]
    status = !{evil}
[include]
    path = {stage.root / "included"}
"""


def plant_attributes(workspace: Workspace) -> None:
    (workspace.path / ".gitattributes").write_text("* filter=evil diff=evil merge=evil\n")
    (workspace.path / "app.txt").write_text("changed\n")


def in_the_mirrors_config(stage: Stage, workspace: Workspace) -> None:
    (workspace.mirror.path / "config").write_text(settings(stage))


def in_the_worktrees_config(stage: Stage, workspace: Workspace) -> None:
    admin = workspace.mirror.path / "worktrees" / "gh-7"
    (admin / "config.worktree").write_text(settings(stage))
    (workspace.mirror.path / "config.worktree").write_text(settings(stage))
    (workspace.mirror.path / "config").write_text("[extensions]\n\tworktreeConfig = true\n")


def as_hooks(stage: Stage, workspace: Workspace) -> None:
    settings(stage)
    for place in (workspace.mirror.path, workspace.mirror.path / "worktrees" / "gh-7"):
        (place / "hooks").symlink_to(stage.root / "hooks")


def as_another_git_directory(stage: Stage, workspace: Workspace) -> None:
    other = stage.root / "other"
    git(stage.root, "init", "-q", str(other))
    (other / ".git" / "config").write_text(settings(stage))
    (workspace.path / ".git").write_text(f"gitdir: {other / '.git'}\n")


def as_a_real_git_directory(stage: Stage, workspace: Workspace) -> None:
    (workspace.path / ".git").unlink()
    git(workspace.path, "init", "-q")
    (workspace.path / ".git" / "config").write_text(settings(stage))


def by_another_common_directory(stage: Stage, workspace: Workspace) -> None:
    other = stage.root / "other.git"
    git(stage.root, "init", "-q", "--bare", str(other))
    (other / "config").write_text(settings(stage))
    (workspace.mirror.path / "worktrees" / "gh-7" / "commondir").write_text(f"{other}\n")


def in_a_repository_inside(stage: Stage, workspace: Workspace) -> None:
    """Twice: what git asks of a repository it knows already is more than of one that is new."""
    inner = workspace.path / "inner"
    git(workspace.path, "init", "-q", "inner")
    (inner / "f").write_text("1\n")
    git(inner, "add", "-A")
    git(inner, "commit", "-q", "-m", "x")
    (workspace.path / ".gitmodules").write_text(
        '[submodule "inner"]\n\tpath = inner\n\turl = ./x\n\tignore = none\n'
    )
    stage.workspaces.keep_work(workspace, "First")
    (inner / ".git" / "config").write_text(settings(stage))
    (inner / ".gitattributes").write_text("* filter=evil\n")
    (inner / "f").write_text("2\n")


PLANTS = [
    in_the_mirrors_config,
    in_the_worktrees_config,
    as_hooks,
    as_another_git_directory,
    as_a_real_git_directory,
    by_another_common_directory,
    in_a_repository_inside,
]


@pytest.mark.parametrize("plant", PLANTS, ids=lambda each: each.__name__)
def test_nothing_that_was_planted_runs(stage: Stage, plant) -> None:
    workspace = stage.prepare()
    plant(stage, workspace)
    plant_attributes(workspace)
    stage.whole_life(workspace)
    assert not stage.mark.exists()


def test_settings_that_are_planted_in_the_moment_before_git_reads_them_do_not_count(tmp_path: Path) -> None:
    """The agent of another task writes all the time: here, between our start of git and git itself."""
    stage, folder = Stage(tmp_path), tmp_path / "bin"
    folder.mkdir()
    (tmp_path / "planted").write_text(settings(stage))
    racing = folder / "git"
    racing.write_text(
        f"#!/bin/sh\nfor mirror in {tmp_path}/repos/*/*.git; do cp {tmp_path}/planted $mirror/config; done\n"
        f'exec {shutil.which("git")} "$@"\n'
    )
    racing.chmod(0o755)
    stage.open(f"{folder}:{os.environ['PATH']}")
    workspace = stage.prepare()
    plant_attributes(workspace)
    stage.whole_life(workspace)

    assert (workspace.mirror.path / "config").read_text() == settings(stage)
    assert not stage.mark.exists()
    assert "auto/gh-7" in git(stage.remote, "branch", "--list", "auto/*")


def test_the_planted_settings_would_run_for_anybody_else(stage: Stage) -> None:
    """The control: the same settings, and git as a user calls it."""
    workspace = stage.prepare()
    plant_attributes(workspace)
    other = stage.root / "work"
    (other / ".gitattributes").write_text("* filter=evil\n")
    (other / "app.txt").write_text("changed\n")
    (other / ".git" / "config").write_text(settings(stage))
    subprocess.run(["git", "add", "-A"], cwd=other, capture_output=True, check=False)
    assert stage.mark.exists()


def test_objects_of_another_repository_are_not_pushed(stage: Stage) -> None:
    secret = stage.root / "secret"
    git(stage.root, "init", "-q", "secret")
    (secret / "private.txt").write_text("of another repository\n")
    git(secret, "add", "-A")
    git(secret, "commit", "-q", "-m", "Private")
    blob = git(secret, "rev-parse", "HEAD:private.txt")
    workspace = stage.prepare()
    info = workspace.mirror.path / "objects" / "info"
    (info / "alternates").write_text(f"{secret / '.git' / 'objects'}\n")
    git(workspace.path, "update-index", "--add", "--cacheinfo", f"100644,{blob},stolen.txt")
    git(workspace.path, "commit", "-q", "-m", "Steal")
    with pytest.raises(WorkspaceError):
        stage.workspaces.push(workspace, None, head=stage.workspaces.content(workspace, None).head)
    assert "auto/gh-7" not in git(stage.remote, "branch", "--list", "auto/*")


def test_an_object_under_a_false_name_stops_the_review(stage: Stage) -> None:
    """The base commit is made to say that the workflow has been there always."""
    workspace = stage.prepare()
    (workspace.path / ".github" / "workflows").mkdir(parents=True)
    (workspace.path / ".github" / "workflows" / "x.yml").write_text("on: push\n")
    stage.workspaces.keep_work(workspace, "Work")
    paths = [change.path for change in stage.workspaces.content(workspace, None).changes]
    assert paths == [".github/workflows/x.yml"]

    mirror, base = workspace.mirror.path, workspace.base_sha
    packs = list((mirror / "objects" / "pack").glob("*.pack"))
    for pack in packs:
        moved = stage.root / pack.name
        pack.rename(moved)
        pack.with_suffix(".idx").unlink()
        with moved.open("rb") as file:
            subprocess.run(["git", "unpack-objects", "-q"], cwd=mirror, stdin=file, check=True)
    true, false = (git(mirror, "rev-parse", f"{name}^{{tree}}") for name in (base, "refs/heads/auto/gh-7"))
    done = subprocess.run(["git", "cat-file", "tree", false], cwd=mirror, capture_output=True, check=True)
    place = mirror / "objects" / true[:2] / true[2:]
    place.unlink()
    place.write_bytes(zlib.compress(b"tree %d\0" % len(done.stdout) + done.stdout))
    with pytest.raises(WorkspaceError, match="is not what its name says"):
        stage.workspaces.content(workspace, None)
