"""Rule 8: issue text is in the prompt file and nowhere else where a machine reads: no argv, no environment,
no branch, no path, no trailer. With the real git, and an agent that tells what it was started with."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

from world import LABEL, LISTS, MAINTAINER, REPO, TOKEN, WRITE, World, program

from coordinator.demo.server import Fault

MARK = "zqxmark"
TITLES = {
    "a shell's command": f"$(touch {MARK}) `touch {MARK}`; touch {MARK} | tee {MARK} && $IFS",
    "an option": f"--upload-pack={MARK} -c core.pager={MARK}",
    "a path": f"../../../{MARK}/../.git/hooks/post-commit",
    "trailers": f"{MARK}\n\nSigned-off-by: {MARK} <a@b.c>\nCo-authored-by: {MARK} <a@b.c>\r\nFixes: {MARK}",
    "lines of other kinds": f"{MARK}\u2028Signed-off-by: {MARK}\u2029\x85Reviewed-by: {MARK}\x0b\x0c{MARK}",
    "NUL": f"{MARK}\x00 {MARK} \x1b]0;{MARK}\x07",
}
TELLS = """
import os, sys
parent = "/proc/%d/" % os.getppid()
told = [repr(sys.argv), repr(dict(os.environ)), os.getcwd()]
told += [repr(open(parent + name, "rb").read()) for name in ("cmdline", "environ")]
with open(PLACE, "a") as file:
    file.write("\\n".join(told) + "\\n")
open("work.txt", "w").write("done")
"""
LISTENING_GIT = """#!/bin/sh
{ printf '%s\\n' "$@"; env; } >> "$0.log"
exec REAL "$@"
"""


def listen_to_git(world: World) -> Path:
    """Put a git before the real one that writes down what it is given."""
    folder = world.folder / "bin"
    folder.mkdir()
    real = shutil.which("git")
    assert real is not None
    (folder / "git").write_text(LISTENING_GIT.replace("REAL", real))
    (folder / "git").chmod(0o755)
    world.environ["PATH"] = f"{folder}{os.pathsep}{world.environ['PATH']}"
    return folder / "git.log"


def in_the_repository(world: World, *arguments: str) -> str:
    place = world.folder / "github" / f"{REPO}.git"
    done = subprocess.run(
        ["git", "-C", str(place), *arguments], capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout


def test_hostile_issue_text_is_nothing_but_a_prompt(a_world) -> None:
    world: World = a_world(coordinator={"max_concurrent_workers": 3})
    said, git_log = world.folder / "said", listen_to_git(world)
    code = TELLS.replace("PLACE", repr(str(said)))
    world.write_config(**{"providers.claude-cli": program(code)})
    body = f"{MARK}\n--{MARK}\n$(touch {MARK})\n\nSigned-off-by: {MARK} <a@b.c>\n"
    labels = [LABEL, f"$(touch {MARK})", f"--{MARK}", f"a\n{MARK}: b"]
    numbers = [
        world.server.add_issue(REPO, title=title, body=body, author=MAINTAINER, labels=labels)
        for title in TITLES.values()
    ]
    world.start_process()
    for number in numbers:
        world.until_state(number, "succeeded")

    assert MARK not in said.read_text()
    assert "commit" in git_log.read_text()
    assert MARK not in git_log.read_text()
    assert list(world.folder.rglob(f"*{MARK}*")) == []
    branches = in_the_repository(world, "for-each-ref", "--format=%(refname)").split()
    assert sorted(branches) == sorted(
        ["refs/heads/main", *(f"refs/heads/auto/gh-{number}" for number in numbers)]
    )
    for number in numbers:
        assert_no_trailer(world, number)
        assert MARK in prompt_of(world, number)


def assert_no_trailer(world: World, number: int) -> None:
    """The title is in the subject, one line, and there alone."""
    branch = f"refs/heads/auto/gh-{number}"
    subject, _, rest = in_the_repository(world, "log", "-1", "--format=%B", branch).partition("\n")
    assert subject.startswith(f"gh-{number}: ")
    assert rest.strip() == f"Fixes #{number}"
    assert in_the_repository(world, "log", "-1", "--format=%(trailers)", branch).strip() == ""


def prompt_of(world: World, number: int) -> str:
    return (Path(world.runs(number)[-1].run_dir) / "prompt.md").read_text()


def test_ten_megabytes_of_issue_become_a_prompt_of_bounded_size(a_world) -> None:
    world: World = a_world(coordinator={"poll_interval_seconds": 5})
    number = world.issue(WRITE)
    (issue,) = listed(world)
    huge = [{**issue, "title": f"{MARK} " * 130_000, "body": WRITE + f" {MARK} <b> &shy;" * 750_000}]
    body = json.dumps(huge).encode()
    assert len(body) > 10_000_000
    world.server.faults.add(Fault(match=LISTS, status=200, body=body, times=None))
    world.server.faults.add(Fault(match="POST /graphql", status=404, times=None))  # nothing but that list
    world.start()
    world.until_state(number, "succeeded")

    prompt = prompt_of(world, number)
    assert 60_000 < len(prompt) < 65_000
    assert "(The title was cut: " in prompt
    assert "(The text was cut: its last " in prompt
    assert len(world.comment(number)) <= 20_000
    (pull,) = world.pulls(number)
    assert len(pull.title) <= 240


def listed(world: World) -> list[dict[str, Any]]:
    """The listing as the server gives it."""
    url = f"{world.server.api_url}/repos/{REPO}/issues?labels={LABEL}"
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {TOKEN}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        issues: list[dict[str, Any]] = json.load(answer)
    return issues
