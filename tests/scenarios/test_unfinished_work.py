"""An agent leaves a merge half done: git cannot commit that, but it never hides why the run really ended."""

from __future__ import annotations

from world import MAINTAINER, REPO, Result, World, program

_HALF_MERGED = """
import subprocess, time

def git(*words, check=True):
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@localhost", *words], check=check)

for branch, text in (("one", "1"), ("two", "2")):
    git("checkout", "-q", "-b", branch, "HEAD~0" if branch == "one" else "one~1")
    open("README.md", "w").write(text)
    git("commit", "-qam", branch)
git("merge", "-q", "one", check=False)
print("merging", flush=True)
time.sleep({seconds})
"""


def test_an_issue_closed_meanwhile_is_cancelled_and_does_not_run_again(world: World) -> None:
    world.write_config(**{"providers.claude-cli": program(_HALF_MERGED.format(seconds=60))})
    number = world.issue()
    world.start()
    world.until_working(number)
    world.server.close_issue(REPO, number, actor=MAINTAINER)
    world.until_state(number, "cancelled")

    assert world.result(number) == Result(state="cancelled", outcomes=("cancelled",), label="cancelled")
    assert world.starts(number) == 1


def test_left_alone_the_run_fails_and_says_what_git_said(a_world) -> None:
    world: World = a_world(coordinator={"max_attempts": 1})
    world.write_config(**{"providers.claude-cli": program(_HALF_MERGED.format(seconds=0))})
    number = world.issue()
    world.start()
    world.until_state(number, "failed")

    assert "merge conflicts" in world.comment(number)
    assert world.pulls(number) == []
