"""Rule 10: git in a sandbox works, and nothing that an agent leaves there leads our own git astray."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from world import REPO, World, program

OTHER = "octo/secrets"
SHELL = """
import subprocess
done = subprocess.run({commands!r}, shell=True, capture_output=True, text=True)
print(done.stdout, done.stderr, flush=True)
"""


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout


def agent(commands: str) -> dict[str, Any]:
    """An agent that runs a shell script in its worktree."""
    return program(SHELL.format(commands=commands))


def played(
    a_world: Any, commands: str, *, mode: str = "bubblewrap", until: str = "succeeded"
) -> tuple[World, int]:
    world: World = a_world(
        sandbox={"mode": mode},
        coordinator={"max_attempts": 1},
        content={"allowed": [".gitattributes"]},  # what comes of it is seen only where it is pushed
    )
    canary = world.folder / "canary"
    world.write_config(**{"providers.claude-cli": agent(commands.replace("CANARY", str(canary)))})
    number = world.issue()
    world.start()
    world.until_state(number, until)
    return world, number


def mirror(world: World, repo: str = REPO) -> Path:
    return world.state_dir / "repos" / f"{repo}.git"


def said(world: World, number: int) -> str:
    return (Path(world.runs(number)[0].run_dir) / "output.log").read_text()


def pushed(world: World, number: int) -> dict[str, str]:
    """The files of the task's branch on the remote."""
    remote = world.folder / "github" / f"{REPO}.git"
    names = git(remote, "ls-tree", "-r", "--name-only", f"auto/gh-{number}").split()
    return {name: git(remote, "show", f"auto/gh-{number}:{name}") for name in names}


def test_commits_and_leftovers_of_the_agent_arrive(a_world: Any) -> None:
    world, number = played(
        a_world,
        "git status --short; git log --oneline origin/main; echo a > a; git add a; git commit -qm mine; "
        "git commit -q --amend -m 'mine, better'; echo b > b; git stash list; git diff --stat",
    )
    assert {"a", "b"} <= set(pushed(world, number))
    log = git(world.folder / "github" / f"{REPO}.git", "log", "--format=%s %an", f"auto/gh-{number}")
    assert "mine, better Coordinator" in log
    assert "fatal" not in said(world, number)


@pytest.mark.parametrize(
    "way",
    ["git checkout -q -b elsewhere; ", "git checkout -q --detach; "],
)
def test_work_on_another_branch_is_brought_home(a_world: Any, way: str) -> None:
    world, number = played(a_world, f"{way} echo a > a; git add a; git commit -qm mine; echo b > b")
    assert {"a", "b"} <= set(pushed(world, number))


PLANTS = {
    "hooks": (
        "d=$(git rev-parse --git-common-dir); mkdir -p $d/hooks .git/hooks; "
        "for h in post-commit pre-commit reference-transaction post-checkout pre-push; do "
        "printf '#!/bin/sh\\ntouch CANARY\\n' > $d/hooks/$h; chmod +x $d/hooks/$h; done; "
    ),
    "configuration": (
        "d=$(git rev-parse --git-common-dir); git config core.fsmonitor 'touch CANARY'; "
        "git config core.sshCommand 'touch CANARY'; git config filter.x.clean 'touch CANARY; cat'; "
        "git config uploadpack.packObjectsHook 'touch CANARY;'; echo '* filter=x' > .gitattributes; "
        "printf '[core]\\nfsmonitor = touch CANARY\\n' >> $d/config; "
        "printf '[core]\\nfsmonitor = touch CANARY\\n' >> $d/worktrees/gh-1/config.worktree; "
    ),
    "a folder in place of .git": (
        "mv .git old; rm -rf .git; git init -q .; git config core.fsmonitor 'touch CANARY'; "
        "mkdir -p .git/hooks; printf '#!/bin/sh\\ntouch CANARY\\n' > .git/hooks/post-commit; "
        "chmod +x .git/hooks/post-commit; "
    ),
    "a common folder of its own": (
        "git init -q --bare evil; git -C evil config core.fsmonitor 'touch CANARY'; "
        "a=$(git rev-parse --git-dir); echo $PWD/evil > $a/commondir; mv $a $a.old; "
    ),
}


@pytest.mark.parametrize("plant", PLANTS)
def test_what_an_agent_plants_in_git_is_never_executed(a_world: Any, plant: str) -> None:
    world, number = played(a_world, f"{PLANTS[plant]} echo a > a; git add a; git commit -qm mine; echo b > b")
    assert not (world.folder / "canary").exists()
    assert "b" in pushed(world, number)
    assert "canary" not in (mirror(world) / "config").read_text()
    assert not (mirror(world) / "hooks").exists()


def test_without_a_sandbox_such_a_hook_works_for_the_agent_itself(a_world: Any) -> None:
    """The control: what is planted is a hook that git executes."""
    world, _ = played(a_world, f"{PLANTS['hooks']} echo a > a; git add a; git commit -qm mine", mode="off")
    assert (world.folder / "canary").exists()


def test_other_tasks_refs_cannot_be_seen_or_moved(a_world: Any) -> None:
    world: World = a_world(sandbox={"mode": "bubblewrap"})
    world.write_config(
        **{"providers.claude-cli": agent("echo first > first; git add first; git commit -qm first")}
    )
    first = world.issue()
    world.start()
    world.until_state(first, "succeeded")
    theirs = mirror(world) / "refs" / "heads" / "auto" / "gh-77"
    theirs.parent.mkdir(parents=True, exist_ok=True)
    base = git(mirror(world), "rev-parse", "refs/remotes/origin/main").strip()
    theirs.write_text(f"{base}\n")
    world.write_config(
        **{
            "providers.claude-cli": agent(
                "git branch -a; git update-ref -d refs/heads/auto/gh-77; "
                "echo x > x; git add x; git commit -qm x; git update-ref refs/heads/auto/gh-77 HEAD; "
                "git symbolic-ref HEAD refs/heads/auto/gh-77"
            )
        }
    )
    world.stop()
    world.start()
    second = world.issue()
    world.until_state(second, "succeeded")
    assert "gh-77" not in said(world, second).split("error")[0]
    assert theirs.read_text().strip() == base
    assert "x" in pushed(world, second)


def test_head_on_a_branch_of_another_task_takes_nothing_from_it(a_world: Any) -> None:
    world, number = played(
        a_world,
        "echo a > a; rm -f x; printf 'ref: refs/heads/auto/gh-77\\n' > $(git rev-parse --git-dir)/HEAD",
        until="failed",
    )
    assert "HEAD is on auto/gh-77, which has no commit" in world.cli("why", str(number))


def test_alternates_and_links_show_no_other_repositorys_objects(a_world: Any) -> None:
    """The commit of another mirror, known by its name, in a tree of the agent's own."""
    world: World = a_world(sandbox={"mode": "bubblewrap"}, coordinator={"max_attempts": 1})
    secret = world.folder / "state" / "repos" / "octo" / "private.git"
    world.state_dir.mkdir(mode=0o700)
    git(world.folder, "init", "-q", "--bare", str(secret))
    blob = subprocess.run(
        ["git", "hash-object", "-w", "--stdin"],
        cwd=secret,
        input="secret\n",
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    world.write_config(
        **{
            "providers.claude-cli": agent(
                f"o=$(git rev-parse --git-path objects); echo {secret}/objects > $o/info/alternates; "
                f"mv $o/info $o/info2; mkdir -p $o/info; echo {secret}/objects > $o/info/alternates; "
                f"ln -s {secret}/objects/{blob[:2]} $o/{blob[:2]}; "
                f"t=$(printf '100644 blob {blob}\\tstolen\\n' | git mktree --missing); "
                "c=$(git commit-tree -p HEAD -m stolen $t); "
                "git update-ref refs/heads/auto/gh-1 $c; echo done $c"
            )
        }
    )
    number = world.issue()
    world.start()
    world.until_state(number, "failed")
    assert "done" in said(world, number)
    assert "no file among git's objects" in world.cli("why", str(number))
    assert world.pulls(number) == []


def test_the_mirrors_own_alternates_are_put_back_without_a_sandbox_too(a_world: Any) -> None:
    world, number = played(
        a_world,
        "echo /nowhere/objects > $(git rev-parse --git-common-dir)/objects/info/alternates; echo a > a",
        mode="off",
    )
    assert "a" in pushed(world, number)
    assert not (mirror(world) / "objects" / "info" / "alternates").exists()


def test_a_next_attempt_without_a_sandbox_goes_on_where_the_last_one_ended(a_world: Any) -> None:
    world: World = a_world(sandbox={"mode": "bubblewrap"}, coordinator={"max_attempts": 2})
    world.write_config(**{"providers.claude-cli": agent("echo a > a; git add a; git commit -qm one")})
    number = world.issue()
    world.start()
    world.until_state(number, "succeeded")
    world.write_config(
        sandbox={"mode": "off"},
        **{"providers.claude-cli": agent("git log --oneline; echo b > b; git add b; git commit -qm two")},
    )
    world.stop()
    world.start()
    world.relabel(number)
    world.until(lambda: len(world.runs(number)) == 2 and world.runs(number)[1].outcome, "it ran again")
    world.until_state(number, "succeeded")
    assert {"a", "b"} <= set(pushed(world, number))
