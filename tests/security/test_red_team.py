"""What a second look found: attacks that went through gaps between rules."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
from world import World, program

from adw_modules.security.guarded import LINK, Change, Policy, Tree, review, sentence
from coordinator.trash import Trash

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


DEEP = """
import os
folder = os.open(".", os.O_RDONLY)
for _ in range(1500):
    os.mkdir("d", dir_fd=folder)
    inner = os.open("d", os.O_RDONLY, dir_fd=folder)
    os.close(folder)
    folder = inner
"""


def test_folders_without_end_do_not_keep_finished_work_from_being_put_away(a_world: Any) -> None:
    world: World = a_world()
    world.write_config(**{"providers.claude-cli": program(DEEP + 'open("a", "w").write("a")')})
    number = world.issue()
    world.start()
    world.until_state(number, "succeeded")
    assert not (world.state_dir / "trees" / f"gh-{number}").exists()


def test_folders_without_end_do_not_keep_a_task_from_its_next_attempt(a_world: Any) -> None:
    world: World = a_world(coordinator={"max_attempts": 2})
    tail = 'import sys\nif os.environ["COORDINATOR_ATTEMPT"] == "1": sys.exit(3)\nopen("a", "w").write("a")'
    guarded = 'if os.environ["COORDINATOR_ATTEMPT"] == "1":\n' + "".join(
        f"    {line}\n" for line in DEEP.strip().splitlines()[1:]
    )
    world.write_config(**{"providers.claude-cli": program(f"import os\n{guarded}{tail}")})
    number = world.issue()
    world.start()
    world.until_state(number, "succeeded")
    assert world.result(number).outcomes == ("failed", "succeeded")


def test_folders_without_end_do_not_stop_housekeeping_for_ever(tmp_path: Any, monkeypatch: Any) -> None:
    """An agent may write in its configuration folder, which is in the run directory."""
    run_dir = tmp_path / "runs" / "gh-1.1"
    (run_dir / "agent-config").mkdir(parents=True)
    monkeypatch.chdir(run_dir / "agent-config")
    exec(DEEP, {})
    monkeypatch.chdir(tmp_path)
    trash = Trash(tmp_path / "trash")
    try:
        trash.take(run_dir)
        trash.empty()
        assert not run_dir.exists()
        assert list((tmp_path / "trash").iterdir()) == []
    finally:  # pytest's own clean-up would not manage it either
        subprocess.run(["rm", "-rf", str(run_dir), str(tmp_path / "trash")], check=True)


@pytest.mark.parametrize("name", ["a\u2028b", "a\x0cb", "a\x1eb", "a\x85b"])
def test_a_name_with_a_line_of_its_own_is_looked_through_like_any_other(a_world: Any, name: str) -> None:
    world: World = a_world()
    secret = "hunter2-of-the-canary-43"
    world.environ["CANARY_TOKEN"] = secret
    code = (
        f'import os; os.mkdir({name!r}); open({name!r} + "/f", "w").write("{secret[:12]}" + "{secret[12:]}")'
    )
    world.write_config(**{"providers.claude-cli": program(code)})
    number = world.issue()
    world.start()
    world.until_state(number, "blocked")
    task = world.task(number)
    assert task is not None
    assert "it holds" in str(task.cause)


TWINS = {
    "two spellings of one name": ("A", "a"),
    "two names that are no UTF-8": ("a\ufffd", "a\ufffd"),
}


@pytest.mark.parametrize("twins", TWINS)
def test_a_link_does_not_hide_behind_a_harmless_one(twins: str) -> None:
    evil, harmless = TWINS[twins]
    changes = [
        Change(path=evil, mode=LINK, target="/etc/passwd"),
        Change(path=harmless, mode=LINK, target="README.md"),
    ]
    found = review(changes, Tree(links={evil: "/etc/passwd", harmless: "README.md"}), Policy())
    assert evil in [finding.path for finding in found]


def test_a_workflow_is_not_buried_under_many_harmless_finds() -> None:
    names = [*(f"!{index}/CLAUDE.md" for index in range(50)), ".github/workflows/evil.yml"]
    found = review([Change(path=name, mode="100644") for name in names], Tree(), Policy())
    assert "evil.yml" in sentence(found)


STEERING = "\x1b]0;pwned\x07\x9b2J\u202egpj.exe\u2066"
SAYS = """
import sys
open("BLOCKED.md", "w").write({text!r})
print({text!r}, flush=True)
print({text!r}, file=sys.stderr, flush=True)
"""
VERBS = (
    ["status"],
    ["status", "1"],
    ["status", "--json"],
    ["why", "1"],
    ["why", "1", "--json"],
    ["logs", "1"],
)


def test_nothing_that_strangers_or_agents_write_steers_a_terminal(a_world: Any) -> None:
    world: World = a_world()
    world.write_config(**{"providers.claude-cli": program(SAYS.format(text=STEERING))})
    number = world.issue(title=f"Say {STEERING}")
    world.start()
    world.until_state(number, "blocked")
    log = world.log_stream.getvalue()
    for said in (log, *(world.output(*verb) for verb in VERBS)):
        assert not [char for char in said if not char.isprintable() and char not in "\n\t"]
    assert any(STEERING in line["title"] for line in world.events("new task")), "it reads back as it was"
