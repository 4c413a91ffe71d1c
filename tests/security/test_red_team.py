"""What a second look found: attacks that went through gaps between rules."""

from __future__ import annotations

from typing import Any

import pytest
from world import World, program

SHELL = """
import subprocess
done = subprocess.run({commands!r}, shell=True, capture_output=True, text=True)
print(done.stdout, done.stderr, flush=True)
"""
OUTSIDE = {
    "the message of our commit": "ln -sf OUTSIDE $a/COMMIT_EDITMSG",
    "the log of HEAD": "rm -f $a/logs/HEAD; mkdir -p $a/logs; ln -s OUTSIDE $a/logs/HEAD",
    "a folder of logs": "rm -rf $a/logs; ln -s $(dirname OUTSIDE) $a/logs",
    "the index": "rm -f $a/index; ln -s OUTSIDE $a/index",
}


@pytest.mark.parametrize("link", OUTSIDE)
def test_a_link_in_the_git_directory_does_not_have_our_git_write_elsewhere(a_world: Any, link: str) -> None:
    world: World = a_world(sandbox={"mode": "bubblewrap"}, coordinator={"max_attempts": 1})
    outside = world.folder / "home" / "HEAD"
    outside.parent.mkdir()
    commands = f"a=$(git rev-parse --git-dir); echo a > a; {OUTSIDE[link]}".replace("OUTSIDE", str(outside))
    world.write_config(**{"providers.claude-cli": program(SHELL.format(commands=commands))})
    number = world.issue(title="$(touch evil)")
    world.start()
    world.until_state(number, "succeeded")

    assert list(outside.parent.iterdir()) == []
