"""Workspaces on real git: what agents, crashes and strangers do to a worktree, and that no work is lost."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from adw_modules.errors import WorkspaceError
from coordinator.demo.server import GitHubServer
from coordinator.workspaces import GitAuth, Mirror, Workspace, Workspaces

NOW = datetime(2026, 11, 21, 3, 4, 5, tzinfo=UTC)
ENVIRON = {
    "PATH": os.environ["PATH"],
    "HOME": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    **{f"GIT_{who}_NAME": "Somebody" for who in ("AUTHOR", "COMMITTER")},
    **{f"GIT_{who}_EMAIL": "somebody@example.com" for who in ("AUTHOR", "COMMITTER")},
}


def git(where: Path, *arguments: str) -> str:
    """git as an agent or a human runs it: no settings of ours, in that directory."""
    done = subprocess.run(
        ["git", *arguments], cwd=where, env=ENVIRON, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A remote on disk and the workspaces under test."""

    root: Path
    remote: Path
    workspaces: Workspaces

    def mirror(self) -> Mirror:
        return self.workspaces.ensure_mirror("octo/hello", str(self.remote), None, now=NOW)

    def prepare(self, number: int = 7, *, default_branch: str | None = None) -> Workspace:
        return self.workspaces.prepare(
            self.mirror(),
            f"gh-{number}",
            f"auto/gh-{number}",
            default_branch=default_branch,
            auth=None,
            now=NOW,
        )

    def publish(self, workspace: Workspace) -> str:
        self.workspaces.keep_work(workspace, "Work")
        return self.workspaces.push(workspace, None)

    def human_pushes(self, branch: str, files: dict[str, str], *, start: str | None = None) -> str:
        """Somebody else commits `files` on `branch` of the remote, from a clone of their own."""
        clone = self.root / f"human-{len(list(self.root.glob('human-*')))}"
        git(self.root, "clone", "-q", str(self.remote), str(clone))
        git(clone, "checkout", "-q", "-B", branch, start or f"origin/{branch}")
        for name, text in files.items():
            (clone / name).write_text(text)
        git(clone, "add", "-A")
        git(clone, "commit", "-q", "-m", "By a human")
        git(clone, "push", "-q", "origin", branch)
        return git(clone, "rev-parse", "HEAD")

    def quarantined(self) -> list[Path]:
        folder = self.root / "quarantine"
        return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.exists() else []

    def reason(self) -> str:
        (place,) = self.quarantined()
        return place.with_name(f"{place.name}.reason.txt").read_text()


@pytest.fixture(scope="session")
def first_remote(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once, copied for each test."""
    root = tmp_path_factory.mktemp("remote")
    git(root, "init", "-q", "-b", "main", "work")
    (root / "work" / "app.py").write_text("print('hello')\n")
    (root / "work" / ".gitignore").write_text("*.log\n")
    git(root / "work", "add", "-A")
    git(root / "work", "commit", "-q", "-m", "First")
    git(root, "clone", "-q", "--bare", "work", "remote.git")
    return root / "remote.git"


def bench_at(root: Path, remote: Path, *, path: str = os.environ["PATH"]) -> Bench:
    workspaces = Workspaces(
        repos_dir=root / "repos",
        trees_dir=root / "trees",
        quarantine_dir=root / "quarantine",
        git_user=('The "C" Coordinator', "coordinator@localhost"),
        environ={"PATH": path, "HOME": str(root), "GITHUB_TOKEN": "not-for-git"},
    )
    return Bench(root=root, remote=remote, workspaces=workspaces)


@pytest.fixture
def bench(tmp_path: Path, first_remote: Path) -> Bench:
    shutil.copytree(first_remote, tmp_path / "remote.git")
    return bench_at(tmp_path, tmp_path / "remote.git")


# The straight line


def test_work_goes_from_the_remote_default_branch_to_a_pushed_branch(bench: Bench):
    workspace = bench.prepare()
    assert workspace.path == bench.root / "trees" / "gh-7"
    assert (workspace.branch, workspace.default_branch) == ("auto/gh-7", "main")
    assert workspace.base_sha == workspace.start_sha == git(bench.remote, "rev-parse", "main")
    assert not bench.workspaces.state(workspace).has_changes

    (workspace.path / "new.py").write_text("1\n")
    assert bench.workspaces.state(workspace).has_changes
    assert bench.workspaces.keep_work(workspace, "Fix it\n\n# not a comment").has_changes
    assert bench.workspaces.keep_work(workspace, "Again").has_changes
    head = bench.workspaces.push(workspace, None)

    assert git(bench.remote, "rev-parse", "auto/gh-7") == head == bench.workspaces.state(workspace).head
    assert git(bench.remote, "log", "-1", "--format=%an <%ae> %B", head) == (
        'The "C" Coordinator <coordinator@localhost> Fix it\n\n# not a comment'
    )


def test_commits_of_the_agent_count_as_changes_but_empty_ones_do_not(bench: Bench):
    workspace = bench.prepare()
    git(workspace.path, "commit", "-q", "--allow-empty", "-m", "Nothing")
    assert not bench.workspaces.state(workspace).has_changes
    (workspace.path / "app.py").write_text("print('hi')\n")
    git(workspace.path, "commit", "-q", "-a", "-m", "Something")
    assert bench.workspaces.state(workspace).has_changes
    head = git(workspace.path, "rev-parse", "HEAD")
    assert bench.workspaces.keep_work(workspace, "Rest").head == head
    assert git(workspace.path, "rev-parse", "HEAD") == head


def test_a_head_before_the_base_is_no_change(bench: Bench):
    bench.human_pushes("main", {"second.txt": "2"})
    workspace = bench.prepare()
    git(workspace.path, "reset", "-q", "--hard", "HEAD~1")
    assert not bench.workspaces.state(workspace).has_changes


def test_ignored_files_are_no_change_and_are_not_committed(bench: Bench):
    workspace = bench.prepare()
    (workspace.path / "debug.log").write_text("noise")
    assert not bench.workspaces.state(workspace).has_changes
    assert not bench.workspaces.keep_work(workspace, "Work").has_changes
    assert git(workspace.path, "rev-parse", "HEAD") == workspace.start_sha


def test_a_mirror_holds_branches_under_an_explicit_refspec_and_no_tags(bench: Bench):
    git(bench.remote, "tag", "v1", "main")
    mirror = bench.mirror()
    assert git(mirror.path, "for-each-ref", "--format=%(refname)") == "refs/remotes/origin/main"
    assert "+refs/heads/*:refs/remotes/origin/*" in git(mirror.path, "config", "remote.origin.fetch")


def test_a_new_workspace_starts_at_what_the_remote_has_now(bench: Bench):
    bench.prepare(1)
    newer = bench.human_pushes("main", {"later.txt": "x"})
    assert bench.prepare(2).base_sha == newer


# BLOCKED.md


def test_a_question_for_a_human_is_read_and_never_committed(bench: Bench):
    workspace = bench.prepare()
    (workspace.path / "BLOCKED.md").write_text("Which database?\n" + "more\n" * 100)
    state = bench.workspaces.state(workspace)
    assert not state.has_changes
    assert state.blocked_note is not None
    assert state.blocked_note.startswith("Which database?")
    assert len(state.blocked_note.splitlines()) == 20

    git(workspace.path, "add", "--force", "BLOCKED.md")
    (workspace.path / "new.py").write_text("1\n")
    assert bench.workspaces.keep_work(workspace, "Work").blocked_note == state.blocked_note
    assert git(workspace.path, "ls-files", "BLOCKED.md") == ""
    assert git(workspace.path, "ls-files", "new.py") == "new.py"
    assert (workspace.path / "BLOCKED.md").exists()


def test_an_answered_question_is_not_asked_again_by_the_next_attempt(bench: Bench):
    workspace = bench.prepare()
    (workspace.path / "BLOCKED.md").write_text("Which database?")
    assert bench.workspaces.state(bench.prepare()).blocked_note is None


def test_a_project_that_has_a_file_of_that_name_is_not_blocked(bench: Bench):
    bench.human_pushes("main", {"BLOCKED.md": "Blocked users are listed here."})
    assert bench.workspaces.state(bench.prepare()).blocked_note is None


def test_a_question_that_is_a_link_shows_no_other_file(bench: Bench):
    workspace = bench.prepare()
    (workspace.path / "BLOCKED.md").symlink_to(bench.remote / "config")
    assert bench.workspaces.state(workspace).blocked_note is None


# Retries


def test_dirty_work_survives_a_retry(bench: Bench):
    first = bench.prepare()
    (first.path / "half.py").write_text("unfinished")
    second = bench.prepare()
    assert (second.path, second.base_sha) == (first.path, first.base_sha)
    assert (second.path / "half.py").read_text() == "unfinished"
    assert bench.workspaces.state(second).has_changes
    assert bench.quarantined() == []


def test_committed_work_survives_a_retry_although_the_default_branch_moved(bench: Bench):
    first = bench.prepare()
    (first.path / "half.py").write_text("unfinished")
    bench.workspaces.keep_work(first, "Half")
    bench.human_pushes("main", {"later.txt": "x"})
    second = bench.prepare()
    assert second.base_sha == first.base_sha
    assert second.start_sha == git(first.path, "rev-parse", "HEAD")
    assert bench.workspaces.state(second).has_changes


def test_a_restarted_daemon_finds_the_workspace_as_it_was(bench: Bench):
    workspace = bench.prepare()
    restarted = bench_at(bench.root, bench.remote)
    assert restarted.workspaces.find(restarted.mirror(), "gh-7", "auto/gh-7") == workspace
    assert restarted.workspaces.find(restarted.mirror(), "gh-7", "auto/gh-8") is None
    assert restarted.workspaces.find(restarted.mirror(), "gh-8", "auto/gh-8") is None


def test_an_index_lock_of_a_killed_agent_stops_neither_commit_nor_retry(bench: Bench):
    workspace = bench.prepare()
    lock = Path(git(workspace.path, "rev-parse", "--absolute-git-dir")) / "index.lock"
    (workspace.path / "new.py").write_text("1")
    lock.touch()
    bench.workspaces.keep_work(workspace, "Work")
    assert git(workspace.path, "log", "-1", "--format=%s") == "Work"
    lock.touch()
    assert bench.prepare().path == workspace.path
    assert not lock.exists()


def test_a_new_workspace_continues_the_branch_that_an_earlier_attempt_pushed(bench: Bench):
    first = bench.prepare()
    (first.path / "new.py").write_text("1")
    head = bench.publish(first)
    assert bench.workspaces.release(first)
    second = bench.prepare()
    assert (second.start_sha, second.base_sha) == (head, first.base_sha)
    assert bench.workspaces.state(second).has_changes


def test_a_branch_that_was_merged_is_not_continued(bench: Bench):
    first = bench.prepare()
    (first.path / "new.py").write_text("1")
    bench.publish(first)
    assert bench.workspaces.release(first)
    merged = bench.human_pushes("main", {"more.py": "2"}, start="origin/auto/gh-7")
    second = bench.prepare()
    assert second.base_sha == second.start_sha == merged
    (second.path / "again.py").write_text("3")
    assert bench.publish(second) == git(bench.remote, "rev-parse", "auto/gh-7")


def test_commits_that_are_only_in_the_mirror_are_continued_when_the_worktree_is_gone(bench: Bench):
    first = bench.prepare()
    (first.path / "new.py").write_text("1")
    bench.workspaces.keep_work(first, "Only here")
    shutil.rmtree(first.path)
    second = bench.prepare()
    assert (second.path / "new.py").read_text() == "1"
    assert second.base_sha == first.base_sha


def test_what_a_human_pushed_to_the_branch_is_taken_in(bench: Bench):
    workspace = bench.prepare()
    (workspace.path / "new.py").write_text("1")
    bench.publish(workspace)
    human = bench.human_pushes("auto/gh-7", {"review.txt": "done"})
    again = bench.prepare()
    assert again.start_sha == human
    assert (again.path / "review.txt").read_text() == "done"
    assert bench.quarantined() == []


def test_work_that_went_another_way_than_the_remote_is_kept_in_quarantine(bench: Bench):
    workspace = bench.prepare()
    (workspace.path / "new.py").write_text("1")
    bench.publish(workspace)
    human = bench.human_pushes("auto/gh-7", {"review.txt": "done"})
    (workspace.path / "other.py").write_text("2")
    bench.workspaces.keep_work(workspace, "Meanwhile")
    again = bench.prepare()
    assert again.start_sha == human
    (place,) = bench.quarantined()
    assert (place / "other.py").read_text() == "2"
    assert git(place, "log", "-1", "--format=%s") == "Meanwhile"


# Pushing


def test_a_repeated_push_is_harmless(bench: Bench):
    workspace = bench.prepare()
    (workspace.path / "new.py").write_text("1")
    assert bench.publish(workspace) == bench.workspaces.push(workspace, None)


def test_a_push_repeated_after_a_crash_before_it_was_noted_is_harmless(bench: Bench):
    workspace = bench.prepare()
    (workspace.path / "new.py").write_text("1")
    bench.workspaces.keep_work(workspace, "Work")
    record = Path(git(workspace.path, "rev-parse", "--absolute-git-dir")) / "coordinator.json"
    before = record.read_text()
    head = bench.workspaces.push(workspace, None)
    record.write_text(before)
    assert bench.workspaces.push(workspace, None) == head


def test_a_push_never_overwrites_what_somebody_else_pushed(bench: Bench):
    workspace = bench.prepare()
    (workspace.path / "new.py").write_text("1")
    human = bench.human_pushes("auto/gh-7", {"mine.txt": "x"}, start="origin/main")
    with pytest.raises(
        WorkspaceError, match="somebody else has pushed to that branch; nothing was overwritten"
    ):
        bench.publish(workspace)
    assert git(bench.remote, "rev-parse", "auto/gh-7") == human


def test_an_agent_may_amend_what_it_pushed_itself(bench: Bench):
    workspace = bench.prepare()
    (workspace.path / "new.py").write_text("1")
    bench.publish(workspace)
    again = bench.prepare()
    git(again.path, "commit", "-q", "--amend", "-m", "Better")
    head = bench.workspaces.push(again, None)
    assert git(bench.remote, "log", "-1", "--format=%s", "auto/gh-7") == "Better"
    assert git(bench.remote, "rev-parse", "auto/gh-7") == head


def test_a_push_that_the_remote_declines_says_why(bench: Bench):
    hook = bench.remote / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho 'branch is protected' >&2\nexit 1\n")
    hook.chmod(0o755)
    workspace = bench.prepare()
    (workspace.path / "new.py").write_text("1")
    with pytest.raises(WorkspaceError, match=r"pre-receive hook declined\) remote: branch is protected"):
        bench.publish(workspace)


# What agents do to a worktree


def test_a_commit_or_push_runs_no_hook_filter_or_monitor_that_an_agent_left(bench: Bench):
    workspace = bench.prepare()
    canary = bench.root / "canary"
    script = bench.root / "evil.sh"
    script.write_text(f"#!/bin/sh\ntouch {canary}\ncat\n")
    script.chmod(0o755)
    for folder in (workspace.mirror.path / "hooks", bench.root / "hooks"):
        folder.mkdir()
        for name in (
            "pre-commit",
            "commit-msg",
            "post-commit",
            "pre-push",
            "post-checkout",
            "reference-transaction",
        ):
            shutil.copy(script, folder / name)
    config = workspace.mirror.path / "config"
    untouched = config.read_text()
    for key, value in (
        ("core.hooksPath", str(bench.root / "hooks")),
        ("core.fsmonitor", str(script)),
        ("filter.evil.clean", str(script)),
        ("filter.evil.smudge", str(script)),
        ("commit.gpgSign", "true"),
        ("gpg.program", str(script)),
        ("remote.origin.receivepack", str(script)),
        ("url.ext::sh -c evil.insteadOf", str(bench.remote)),
    ):
        git(workspace.path, "config", key, value)
    assert config.read_text() != untouched
    (workspace.path / ".gitattributes").write_text("* filter=evil\n")
    (workspace.mirror.path / "info" / "attributes").write_text("* filter=evil\n")

    assert bench.workspaces.state(workspace).has_changes
    head = bench.publish(workspace)
    bench.prepare(8)

    assert git(bench.remote, "rev-parse", "auto/gh-7") == head
    assert not canary.exists()
    assert config.read_text() == untouched


def test_an_agent_cannot_push_with_the_mirrors_own_settings(bench: Bench):
    workspace = bench.prepare()
    git(workspace.path, "commit", "-q", "--allow-empty", "-m", "Mine")
    done = subprocess.run(
        ["git", "push", "origin", "HEAD"], cwd=workspace.path, env=ENVIRON, capture_output=True, check=False
    )
    assert done.returncode != 0
    assert git(bench.remote, "for-each-ref", "--format=%(refname)") == "refs/heads/main"


def test_a_replaced_git_pointer_is_refused_and_the_tree_goes_to_quarantine(bench: Bench):
    workspace = bench.prepare()
    (workspace.path / "new.py").write_text("kept")
    (workspace.path / ".git").unlink()
    git(workspace.path, "init", "-q")
    for use in (bench.workspaces.state, bench.publish):
        with pytest.raises(WorkspaceError, match="is not a worktree of our mirror"):
            use(workspace)
    assert bench.workspaces.release(workspace) is False

    again = bench.prepare()
    (place,) = bench.quarantined()
    assert (place / "new.py").read_text() == "kept"
    assert (place / ".git" / "HEAD").exists()
    assert sorted(path.name for path in again.path.iterdir()) == [".git", ".gitignore", "app.py"]
    assert "is not a worktree of our mirror" in bench.reason()
    assert not bench.workspaces.state(again).has_changes


def test_a_pointer_to_the_worktree_of_another_task_is_refused(bench: Bench):
    mine, other = bench.prepare(7), bench.prepare(8)
    shutil.copy(other.path / ".git", mine.path / ".git")
    with pytest.raises(WorkspaceError, match="does not know the worktree"):
        bench.workspaces.keep_work(mine, "Work")


def test_a_pointer_to_a_repository_that_imitates_ours_is_refused(bench: Bench):
    workspace = bench.prepare()
    forged = bench.root / "forged" / "worktrees" / "gh-7"
    shutil.copytree(git(workspace.path, "rev-parse", "--absolute-git-dir"), forged)
    shutil.copytree(workspace.mirror.path / "objects", forged.parent.parent / "objects")
    (workspace.path / ".git").write_text(f"gitdir: {forged}\n")
    with pytest.raises(WorkspaceError, match="is not a worktree of our mirror"):
        bench.workspaces.push(workspace, None)


def test_a_detached_worktree_is_quarantined_with_its_commits(bench: Bench):
    workspace = bench.prepare()
    git(workspace.path, "checkout", "-q", "--detach")
    (workspace.path / "app.py").write_text("detached work")
    git(workspace.path, "commit", "-q", "-a", "-m", "On no branch")
    bench.prepare()
    (place,) = bench.quarantined()
    assert place.name == "20261121T030405Z-gh-7"
    assert git(place, "log", "-1", "--format=%s") == "On no branch"
    assert git(place, "status", "--porcelain") == ""
    assert "detached" in bench.reason()


def test_commits_on_a_branch_of_the_agents_own_are_brought_home(bench: Bench):
    workspace = bench.prepare()
    git(workspace.path, "checkout", "-q", "-b", "fix-typo")
    (workspace.path / "app.py").write_text("fixed")
    git(workspace.path, "commit", "-q", "-a", "-m", "Fix typo")
    assert bench.workspaces.state(workspace).has_changes
    bench.publish(workspace)
    assert git(bench.remote, "log", "-1", "--format=%s", "auto/gh-7") == "Fix typo"
    assert git(workspace.path, "symbolic-ref", "--short", "HEAD") == "auto/gh-7"


def test_a_branch_left_for_unrelated_work_is_refused(bench: Bench):
    workspace = bench.prepare()
    (workspace.path / "app.py").write_text("ours")
    bench.workspaces.keep_work(workspace, "Ours")
    git(workspace.path, "checkout", "-q", "-b", "elsewhere", workspace.base_sha)
    (workspace.path / "other.py").write_text("x")
    with pytest.raises(WorkspaceError, match="left auto/gh-7 for a commit that does not contain its work"):
        bench.workspaces.keep_work(workspace, "Work")


def test_conflict_markers_are_never_committed(bench: Bench):
    workspace = bench.prepare()
    git(workspace.path, "branch", "theirs")
    (workspace.path / "app.py").write_text("ours\n")
    git(workspace.path, "commit", "-q", "-a", "-m", "Ours")
    git(workspace.path, "checkout", "-q", "theirs")
    (workspace.path / "app.py").write_text("theirs\n")
    git(workspace.path, "commit", "-q", "-a", "-m", "Theirs")
    git(workspace.path, "checkout", "-q", "auto/gh-7")
    subprocess.run(
        ["git", "merge", "theirs"], cwd=workspace.path, env=ENVIRON, capture_output=True, check=False
    )
    with pytest.raises(WorkspaceError, match="merge conflicts"):
        bench.workspaces.keep_work(workspace, "Work")


# Crashes


@pytest.mark.parametrize("is_registered", [False, True])
def test_a_worktree_half_made_by_a_killed_daemon_is_quarantined_and_made_again(
    bench: Bench, is_registered: bool
):
    if is_registered:
        workspace = bench.prepare()
        admin = Path(git(workspace.path, "rev-parse", "--absolute-git-dir"))
        (admin / "coordinator.json").unlink()
        (admin / "locked").write_text("initializing")
    else:
        workspace_path = bench.root / "trees" / "gh-7"
        workspace_path.mkdir(parents=True)
        (workspace_path / "app.py").write_text("partial")
    again = bench.prepare()
    assert len(bench.quarantined()) == 1
    assert not bench.workspaces.state(again).has_changes


@pytest.mark.parametrize("step", ["directory", "registered", "linked"])
def test_a_daemon_killed_while_it_makes_a_worktree_costs_no_other_attempt(bench: Bench, step: str):
    """Each step of the making, as the next daemon finds it."""
    workspace = bench.prepare()
    admin = Path(git(workspace.path, "rev-parse", "--absolute-git-dir"))
    git(workspace.path, "checkout", "-q", "--detach")
    git(workspace.path, "branch", "-D", "auto/gh-7")
    for name in ("app.py", ".gitignore", *([".git"] if step != "linked" else [])):
        (workspace.path / name).unlink()
    for name in ("coordinator.json", "index"):
        (admin / name).unlink()
    (admin / "HEAD").write_text("ref: refs/heads/auto/gh-7\n")
    (admin / "locked").write_text("initializing")
    if step == "directory":
        admin.rename(bench.mirror().path / "worktree.making")
    bench.human_pushes("main", {"later.txt": "x"})
    assert (bench.prepare(8).path / "later.txt").exists()
    again = bench.prepare(7)
    assert (again.path / "later.txt").exists()
    assert len(bench.quarantined()) == 1
    assert not (bench.mirror().path / "worktree.making").exists()


def test_a_checkout_that_fails_leaves_nothing_behind(bench: Bench):
    workspace = bench.prepare(7)
    blob = git(workspace.path, "rev-parse", "HEAD:app.py")
    content = workspace.mirror.path / "objects" / blob[:2] / blob[2:]
    content.rename(bench.root / "kept")
    with pytest.raises(WorkspaceError, match="git checkout failed"):
        bench.prepare(8)
    assert not (bench.root / "trees" / "gh-8").exists()
    assert len(git(workspace.mirror.path, "worktree", "list").splitlines()) == 2  # the mirror, and gh-7
    (bench.root / "kept").rename(content)
    assert (bench.prepare(8).path / "app.py").exists()
    assert bench.quarantined() == []


def test_git_takes_our_worktrees_for_its_own(bench: Bench):
    workspace = bench.prepare()
    listed = git(workspace.mirror.path, "worktree", "list", "--porcelain").split("\n\n")[1]
    assert listed.splitlines() == [
        f"worktree {workspace.path}",
        f"HEAD {workspace.start_sha}",
        "branch refs/heads/auto/gh-7",
    ]
    git(workspace.mirror.path, "worktree", "prune")
    assert git(workspace.path, "status", "--porcelain") == ""
    assert set(git(workspace.path, "reflog", "--format=%H").split()) == {workspace.start_sha}
    git(workspace.path, "fsck", "--strict")
    git(workspace.mirror.path, "worktree", "remove", str(workspace.path))
    assert not workspace.path.exists()


def test_a_branch_that_another_workspace_has_checked_out_is_refused(bench: Bench):
    other = bench.prepare(8)
    git(other.path, "checkout", "-q", "-b", "auto/gh-7")
    with pytest.raises(WorkspaceError, match=r"auto/gh-7 is checked out at .*gh-8"):
        bench.prepare(7)
    assert not (bench.root / "trees" / "gh-7").exists()


def test_a_worktree_registered_by_a_killed_daemon_without_a_directory_is_forgotten(bench: Bench):
    workspace = bench.prepare()
    admin = Path(git(workspace.path, "rev-parse", "--absolute-git-dir"))
    (admin / "locked").write_text("initializing")
    shutil.rmtree(workspace.path)
    assert bench.prepare().path.is_dir()
    assert bench.quarantined() == []


def test_a_worktree_killed_before_it_had_a_commit_does_not_stop_the_other_tasks(bench: Bench):
    workspace = bench.prepare(7)
    admin = Path(git(workspace.path, "rev-parse", "--absolute-git-dir"))
    (admin / "HEAD").write_text("0" * 40 + "\n")  # as `git worktree add` writes it first
    (admin / "locked").write_text("initializing")
    bench.human_pushes("main", {"later.txt": "x"})
    assert (bench.prepare(8).path / "later.txt").exists()
    assert (bench.prepare(7).path / "later.txt").exists()
    assert len(bench.quarantined()) == 1


def test_a_half_made_mirror_is_quarantined_and_made_again(bench: Bench):
    path = bench.root / "repos" / "octo" / "hello.git"
    (path / "objects").mkdir(parents=True)
    bench.prepare()
    (place,) = bench.quarantined()
    assert place.name == "20261121T030405Z-octo_hello.git"


def test_a_clone_killed_in_the_middle_leaves_no_mirror_behind(bench: Bench):
    leftover = bench.root / "repos" / ".making" / "octo+hello+abc"
    leftover.mkdir(parents=True)
    bench.prepare()
    assert list(leftover.parent.iterdir()) == []


def test_a_first_fetch_that_fails_leaves_no_mirror(bench: Bench):
    missing = bench.root / "missing.git"
    with pytest.raises(WorkspaceError, match=r"^Fetching octo/hello failed: .*missing\.git' does not appear"):
        bench.workspaces.ensure_mirror("octo/hello", str(missing), None, now=NOW)
    assert not (bench.root / "repos" / "octo" / "hello.git").exists()
    assert bench.prepare().path.is_dir()


def test_two_things_in_quarantine_at_the_same_second_have_two_places(bench: Bench):
    for _ in range(2):
        bench.workspaces.quarantine(bench.prepare(), "an operator said so", now=NOW)
    assert [place.name for place in bench.quarantined()] == [
        "20261121T030405Z-gh-7",
        "20261121T030405Z-gh-7.1",
    ]
    assert all(git(place, "status", "--porcelain") == "" for place in bench.quarantined())


# Release


def test_a_clean_and_pushed_worktree_is_removed_and_its_branch_freed(bench: Bench):
    workspace = bench.prepare()
    (workspace.path / "new.py").write_text("1")
    bench.publish(workspace)
    assert bench.workspaces.release(workspace) is True
    assert not workspace.path.exists()
    assert git(workspace.mirror.path, "for-each-ref", "refs/heads") == ""


@pytest.mark.parametrize(
    "fault", ["untracked", "changed", "staged", "unpushed", "detached", "elsewhere", "nested", "question"]
)
def test_a_worktree_with_something_to_lose_is_kept(bench: Bench, fault: str):
    workspace = bench.prepare()
    (workspace.path / "new.py").write_text("1")
    bench.publish(workspace)
    match fault:
        case "detached":
            git(workspace.path, "checkout", "-q", "--detach")
        case "elsewhere":
            git(workspace.path, "checkout", "-q", "-b", "agents-own")
        case "unpushed":
            git(workspace.path, "commit", "-q", "--allow-empty", "-m", "More")
        case "staged":
            git(workspace.path, "rm", "-q", "--cached", "app.py")
        case "nested":  # committed as a link to it, and clean to a plain `git status` of ours
            git(workspace.path, "init", "-q", "inner")
            git(workspace.path / "inner", "commit", "-q", "--allow-empty", "-m", "Of the agent's own")
            bench.publish(workspace)
        case _:
            name = {"untracked": "more.py", "changed": "app.py", "question": "BLOCKED.md"}[fault]
            (workspace.path / name).write_text("2")
    assert bench.workspaces.release(workspace) is False
    assert (workspace.path / "new.py").exists()


# Remotes


def test_the_remotes_default_branch_may_be_renamed(bench: Bench):
    assert bench.prepare(1, default_branch="main").default_branch == "main"
    git(bench.remote, "branch", "-m", "main", "trunk")
    workspace = bench.prepare(2, default_branch="main")
    assert workspace.default_branch == "trunk"
    assert workspace.base_sha == git(bench.remote, "rev-parse", "trunk")


def test_the_remotes_head_decides_between_branches_at_the_same_commit(bench: Bench):
    git(bench.remote, "branch", "develop", "main")
    git(bench.remote, "symbolic-ref", "HEAD", "refs/heads/develop")
    assert bench.prepare(1).default_branch == "develop"
    assert bench.prepare(2, default_branch="main").default_branch == "main"


def test_an_empty_repository_says_what_to_do(tmp_path: Path):
    git(tmp_path, "init", "-q", "--bare", "empty.git")
    bench = bench_at(tmp_path, tmp_path / "empty.git")
    with pytest.raises(
        WorkspaceError, match="octo/hello has no commit on a default branch: push a first commit"
    ):
        bench.prepare(default_branch="main")


@pytest.mark.parametrize(
    "url",
    [
        "ext::sh -c evil",
        "--upload-pack=evil",
        "https://user:token@host/o/r.git",
        "relative/path",
        "/a\nb",
        "git://host/x",
    ],
)
def test_a_remote_address_that_runs_things_or_holds_a_password_is_refused(bench: Bench, url: str):
    with pytest.raises(WorkspaceError) as refusal:
        bench.workspaces.ensure_mirror("octo/hello", url, None, now=NOW)
    assert "token@" not in str(refusal.value)


@pytest.mark.parametrize(
    "repo", ["o/r/../../user", "../x", "o/..", "o/r.git", "o", "ö/r", "o/r\n", "-o/r", ".making/r"]
)
def test_a_repository_name_that_is_none_is_refused(bench: Bench, repo: str):
    with pytest.raises(WorkspaceError, match="owner/name"):
        bench.workspaces.ensure_mirror(repo, str(bench.remote), None, now=NOW)


# Paths


@pytest.mark.parametrize("name", ["../gh-7", "gh-7/../../x", "/etc", "", "a//b", "gh 7", "gh-7\n"])
def test_a_task_name_never_leads_out_of_the_trees(bench: Bench, name: str):
    with pytest.raises(WorkspaceError, match="cannot be the name"):
        bench.workspaces.prepare(bench.mirror(), name, "auto/gh-7", default_branch=None, auth=None, now=NOW)


@pytest.mark.parametrize(
    "branch", ["--upload-pack=x", "a..b", "a/", "a.lock", "a.lock/b", "a b", "HEAD~1", "", "a\n"]
)
def test_a_branch_name_is_never_an_option_or_an_expression(bench: Bench, branch: str):
    with pytest.raises(WorkspaceError, match="cannot be the name of a branch"):
        bench.workspaces.prepare(bench.mirror(), "gh-7", branch, default_branch=None, auth=None, now=NOW)


@pytest.mark.parametrize("link", ["octo", "octo/hello", "octo/hello/gh-7"])
def test_a_symbolic_link_in_the_path_of_a_workspace_is_refused(bench: Bench, link: str):
    elsewhere = bench.root / "elsewhere"
    elsewhere.mkdir()
    place = bench.root / "trees" / link
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(elsewhere)
    with pytest.raises(WorkspaceError, match="is a link"):
        bench.workspaces.prepare(
            bench.mirror(), "octo/hello/gh-7", "auto/gh-7", default_branch=None, auth=None, now=NOW
        )
    assert list(elsewhere.iterdir()) == []


def test_a_worktree_replaced_by_a_link_is_not_followed(bench: Bench):
    workspace = bench.prepare()
    workspace.path.rename(bench.root / "moved")
    workspace.path.symlink_to(bench.root / "moved")
    with pytest.raises(WorkspaceError, match="is a link"):
        bench.workspaces.state(workspace)


def test_no_workspace_is_made_inside_another(bench: Bench):
    bench.prepare(7)
    with pytest.raises(WorkspaceError, match="inside another workspace"):
        bench.workspaces.prepare(
            bench.mirror(), "gh-7/name/gh-1", "auto/gh-1", default_branch=None, auth=None, now=NOW
        )


def test_a_file_system_that_refuses_is_one_clear_error(bench: Bench):
    (bench.root / "trees").write_text("a file where the directory should be")
    with pytest.raises(WorkspaceError, match=r"^Preparing the workspace failed: "):
        bench.prepare()


# Many at once


def test_eight_workspaces_of_one_repository_are_made_at_once(bench: Bench):
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(bench.prepare, range(1, 9)))
    assert {workspace.branch for workspace in made} == {f"auto/gh-{n}" for n in range(1, 9)}
    assert all(git(workspace.path, "status", "--porcelain") == "" for workspace in made)
    assert bench.quarantined() == []


def test_one_fetch_serves_everybody_who_asked_before_it_began(tmp_path: Path):
    with GitHubServer(git_root=tmp_path / "server") as server:
        server.add_repo("octo/hello", private=False)
        bench = bench_at(tmp_path, tmp_path)
        mirror = bench.workspaces.ensure_mirror(
            "octo/hello", server.git_http_url("octo/hello"), None, now=NOW
        )
        server.clear_requests()
        asked_at = time.monotonic()
        ready = threading.Barrier(8)

        def ask(number: int) -> Workspace:
            ready.wait(10)
            name = f"gh-{number}"
            return bench.workspaces.prepare(
                mirror, name, f"auto/{name}", default_branch=None, auth=None, now=NOW, not_older_than=asked_at
            )

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(ask, range(8)))
        asked = [request for request in server.requests if request.path.endswith("/info/refs")]
        assert len(asked) == 1
        bench.workspaces.fetch(mirror, None, not_older_than=time.monotonic())
        asked = [request for request in server.requests if request.path.endswith("/info/refs")]
        assert len(asked) == 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Spied:
    """Workspaces whose git writes down its verbs: what they cost, in processes."""

    bench: Bench
    seen: Path

    def verbs(self) -> list[str]:
        """Of the commands since the last look."""
        verbs = self.seen.read_text().split()
        self.seen.write_text("")
        return sorted(verbs)


@pytest.fixture
def spied(tmp_path: Path, first_remote: Path) -> Spied:
    shutil.copytree(first_remote, tmp_path / "remote.git")
    seen = tmp_path / "verbs"
    write_verb = f'for word; do case $word in -*) ;; *) echo "$word" >> {seen}; break; esac; done'
    bench = bench_at(tmp_path, tmp_path / "remote.git", path=spy_git(tmp_path, write_verb))
    bench.mirror()
    seen.write_text("")
    return Spied(bench=bench, seen=seen)


def spy_git(root: Path, before: str) -> str:
    """A PATH with a `git` that does `before` and then becomes git."""
    spy = root / "bin" / "git"
    spy.parent.mkdir()
    spy.write_text(f'#!/bin/sh\n{before}\nexec {shutil.which("git")} "$@"\n')
    spy.chmod(0o755)
    return f"{spy.parent}:{os.environ['PATH']}"


def test_branches_are_fetched_only_when_the_remote_has_others_than_we_have(spied: Spied):
    bench, mirror = spied.bench, spied.bench.mirror()

    def fetch() -> list[str]:
        bench.workspaces.fetch(mirror, None)
        return [verb for verb in spied.verbs() if verb == "fetch"]

    assert fetch() == []
    bench.human_pushes("main", {"later.txt": "x"})
    assert (fetch(), fetch()) == (["fetch"], [])
    git(bench.remote, "branch", "topic", "main")
    assert (fetch(), fetch()) == (["fetch"], [])
    git(bench.remote, "branch", "-D", "topic")
    assert (fetch(), fetch()) == (["fetch"], [])
    assert git(mirror.path, "for-each-ref", "--format=%(refname)") == "refs/remotes/origin/main"


def test_our_own_push_is_no_reason_to_fetch(spied: Spied):
    workspace = spied.bench.prepare(7)
    (workspace.path / "new.py").write_text("1")
    head = spied.bench.publish(workspace)
    assert git(workspace.path, "rev-parse", "origin/auto/gh-7") == head
    spied.bench.prepare(8)
    assert "fetch" not in spied.verbs()


def test_each_step_starts_no_more_git_processes_than_it_needs(spied: Spied):
    workspace = spied.bench.prepare()
    assert spied.verbs() == ["checkout", "for-each-ref", "ls-remote"]
    (workspace.path / "new.py").write_text("1")
    spied.bench.workspaces.keep_work(workspace, "Work")
    assert spied.verbs() == ["add", "commit", "status"]
    content = spied.bench.workspaces.content(workspace, None)
    assert spied.verbs() == ["cat-file", "cat-file", "diff-tree", "rev-list"]
    spied.bench.workspaces.push(workspace, None, head=content.head)
    assert spied.verbs() == ["push"]
    assert spied.bench.workspaces.release(workspace)
    assert spied.verbs() == ["status", "update-ref"]


@pytest.mark.parametrize("damage", ["moved", "added", "deleted"])
def test_a_tracking_branch_that_an_agent_changed_is_put_right(bench: Bench, damage: str):
    workspace = bench.prepare(7)
    main = git(workspace.path, "rev-parse", "origin/main")
    git(workspace.path, "commit", "-q", "--allow-empty", "-m", "Mine")
    if damage == "deleted":
        git(workspace.path, "update-ref", "-d", "refs/remotes/origin/main")
    else:
        branch = {"moved": "main", "added": "evil"}[damage]
        git(workspace.path, "update-ref", f"refs/remotes/origin/{branch}", "HEAD")
    assert bench.prepare(8).base_sha == main
    refs = git(workspace.path, "for-each-ref", "--format=%(refname) %(objectname)", "refs/remotes")
    assert refs == f"refs/remotes/origin/main {main}"


def test_a_commit_that_is_missing_from_the_mirror_is_fetched_again(bench: Bench):
    bench.prepare(7)
    newer = bench.human_pushes("main", {"later.txt": "x"})
    mirror = bench.mirror()
    bench.workspaces.fetch(mirror, None)
    (mirror.path / "objects" / newer[:2] / newer[2:]).unlink()
    assert (bench.prepare(8).path / "later.txt").exists()


def test_a_remote_head_that_an_agent_set_is_no_reason_to_fetch(spied: Spied):
    workspace = spied.bench.prepare(7)
    git(workspace.path, "remote", "set-head", "origin", "-a")
    spied.verbs()
    spied.bench.prepare(8)
    assert "fetch" not in spied.verbs()


def test_refs_that_an_agent_packed_are_found(bench: Bench):
    workspace = bench.prepare(7)
    (workspace.path / "new.py").write_text("1")
    head = bench.publish(workspace)
    git(workspace.path, "pack-refs", "--all")
    assert bench.workspaces.push(workspace, None) == head
    again = bench.prepare(7)
    assert (again.start_sha, again.base_sha) == (head, workspace.base_sha)
    assert bench.prepare(8).base_sha == workspace.base_sha
    assert bench.workspaces.release(again)


def test_a_branch_that_somebody_else_is_moving_is_fetched_again(tmp_path: Path, first_remote: Path):
    """As when a push of ours, or a fetch by an agent, holds the lock of a branch that we fetch."""
    shutil.copytree(first_remote, tmp_path / "remote.git")
    lock = tmp_path / "repos" / "octo" / "hello.git" / "refs" / "remotes" / "origin" / "main.lock"
    held = f"""
if [ "$1" = fetch ] && [ -e {tmp_path}/armed ]; then
  rm {tmp_path}/armed; touch {lock}
  {shutil.which("git")} "$@"; code=$?
  rm {lock}; exit $code
fi"""
    bench = bench_at(tmp_path, tmp_path / "remote.git", path=spy_git(tmp_path, held))
    bench.prepare(7)
    newer = bench.human_pushes("main", {"later.txt": "x"})
    (tmp_path / "armed").touch()
    assert bench.prepare(8).base_sha == newer
    assert not (tmp_path / "armed").exists()


def test_a_failed_fetch_is_told_to_all_its_waiters_without_being_repeated(bench: Bench):
    mirror, asked_at = bench.mirror(), time.monotonic()
    bench.remote.rename(bench.root / "gone")
    for _ in range(2):
        with pytest.raises(WorkspaceError, match="Fetching octo/hello failed"):
            bench.workspaces.fetch(mirror, None, not_older_than=asked_at)
        if (bench.root / "gone").exists():
            (bench.root / "gone").rename(bench.remote)
    bench.workspaces.fetch(mirror, None, not_older_than=time.monotonic())


def test_a_stopped_workspaces_starts_no_network_command(bench: Bench):
    mirror = bench.mirror()
    bench.workspaces.stop()
    with pytest.raises(WorkspaceError, match="Coordinator is stopping"):
        bench.workspaces.fetch(mirror, None)


# Credentials

TOKEN = "ghs_0123456789abcdefCANARY"


def test_the_token_reaches_the_server_and_nothing_else(tmp_path: Path):
    """A `git` on PATH that writes down its arguments before it becomes git: what `ps` could have shown."""
    spy, seen = tmp_path / "bin" / "git", tmp_path / "argv"
    spy.parent.mkdir()
    spy.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> {seen}\nexec {shutil.which("git")} "$@"\n')
    spy.chmod(0o755)
    workspaces = Workspaces(
        repos_dir=tmp_path / "repos",
        trees_dir=tmp_path / "trees",
        quarantine_dir=tmp_path / "quarantine",
        git_user=("C", "c@localhost"),
        environ={"PATH": f"{spy.parent}:{os.environ['PATH']}", "HOME": str(tmp_path)},
    )
    with GitHubServer(git_root=tmp_path / "server") as server:
        server.add_user("bot")
        server.add_token(TOKEN, "bot")
        server.add_repo("octo/hello", private=True)
        server.set_permission("octo/hello", "bot", "write")
        auth = GitAuth(secret=TOKEN)
        mirror = workspaces.ensure_mirror("octo/hello", server.git_http_url("octo/hello"), auth, now=NOW)
        workspace = workspaces.prepare(mirror, "gh-7", "auto/gh-7", default_branch=None, auth=auth, now=NOW)
        (workspace.path / "new.py").write_text("1")
        workspaces.keep_work(workspace, "Work")
        head = workspaces.push(workspace, auth)

        assert server.branch_sha("octo/hello", "auto/gh-7") == head
        assert {request.login for request in server.requests} == {"bot"}
        coded = base64.b64encode(f"x-access-token:{TOKEN}".encode()).decode()
        assert "push" in seen.read_text()
        for path in (path for path in tmp_path.rglob("*") if path.is_file() and not path.is_symlink()):
            content = path.read_bytes()
            assert TOKEN.encode() not in content, path
            assert coded.encode() not in content, path
        assert TOKEN not in repr(auth)


def test_a_refused_token_is_an_error_without_the_token(tmp_path: Path):
    with GitHubServer(git_root=tmp_path / "server") as server:
        server.add_repo("octo/hello", private=True)
        bench, url = bench_at(tmp_path, tmp_path), server.git_http_url("octo/hello")
        with pytest.raises(WorkspaceError, match=r"^Fetching octo/hello failed: ") as refusal:
            bench.workspaces.ensure_mirror("octo/hello", url, GitAuth(secret=TOKEN), now=NOW)
        assert TOKEN not in str(refusal.value)
        with pytest.raises(WorkspaceError, match=r"^Fetching octo/hello failed: .*terminal prompts disabled"):
            bench.workspaces.ensure_mirror("octo/hello", url, None, now=NOW)


def test_git_inherits_nothing_from_the_daemon_but_a_few_named_variables(tmp_path: Path):
    spy, seen = tmp_path / "bin" / "git", tmp_path / "environment"
    spy.parent.mkdir()
    spy.write_text(f"#!/bin/sh\nenv > {seen}\nexit 1\n")
    spy.chmod(0o755)
    workspaces = Workspaces(
        repos_dir=tmp_path / "repos",
        trees_dir=tmp_path / "trees",
        quarantine_dir=tmp_path / "quarantine",
        git_user=("C", "c@localhost"),
        environ={
            "PATH": f"{spy.parent}:{os.environ['PATH']}",
            "GITHUB_TOKEN": TOKEN,
            "GIT_TRACE": "1",
            "SECRET": "x",
        },
    )
    with pytest.raises(WorkspaceError):
        workspaces.ensure_mirror("octo/hello", str(tmp_path), GitAuth(secret=TOKEN), now=NOW)
    names = {line.split("=")[0] for line in seen.read_text().splitlines()}
    assert names.isdisjoint({"GITHUB_TOKEN", "GIT_TRACE", "SECRET"})
    assert {"PATH", "GIT_CONFIG_NOSYSTEM", "GIT_TERMINAL_PROMPT"} <= names
