"""The token of a push is in no address, no argument, no file and no worker's environment."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from base64 import b64encode
from pathlib import Path

from world import REPO, TOKEN, WRITE, World, program

CANARIES = (TOKEN, b64encode(f"x-access-token:{TOKEN}".encode()).decode())
# Every git, also those that git starts, tells its arguments and which variables hold the token.
WRAPPER = """#!{python} -I
import json, os, sys
told = {{
    "argv": sys.argv[1:],
    "with_token": sorted(name for name, value in os.environ.items() if any(c in value for c in {canaries!r})),
    "trace": [name for name in os.environ if name.startswith("GIT_TRACE") or name == "GIT_CURL_VERBOSE"],
}}
with open({log!r}, "a") as log:
    log.write(json.dumps(told) + "\\n")
os.execv({git!r}, ["git", *sys.argv[1:]])
"""
SAYS_ITS_ENVIRONMENT = "import os; print(dict(os.environ)); open('work.txt', 'w').write('x')"


def wrapped(world: World, monkeypatch) -> Path:
    log, folder = world.folder / "git.log", world.folder / "bin"
    folder.mkdir()
    git = shutil.which("git")
    text = WRAPPER.format(python="/usr/bin/env -S python3", canaries=CANARIES, log=str(log), git=git)
    (folder / "git").write_text(text)
    (folder / "git").chmod(0o755)
    path = f"{folder}:{world.environ['PATH']}"
    monkeypatch.setenv("PATH", path)
    monkeypatch.setenv("GIT_TRACE_CURL", str(world.folder / "trace"))
    world.environ["PATH"] = path
    return log


def files_with_the_token(folder: Path) -> list[str]:
    return [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and any(canary.encode() in path.read_bytes() for canary in CANARIES)
    ]


def test_the_token_is_only_in_the_environment_of_the_commands_that_need_it(a_world, monkeypatch) -> None:
    world: World = a_world()
    world.write_config(github={"remote_url": world.server.git_http_url(REPO)})
    world.write_config(**{"providers.claude-cli": program(SAYS_ITS_ENVIRONMENT)})
    log = wrapped(world, monkeypatch)
    number = world.issue(WRITE)
    world.start()
    world.until_state(number, "succeeded")
    assert world.pulls(number)

    calls = [json.loads(line) for line in log.read_text().splitlines()]
    assert not [call["argv"] for call in calls if any(c in shlex.join(call["argv"]) for c in CANARIES)]
    holders = {call["argv"][0] for call in calls if call["with_token"]}
    assert {"ls-remote", "push"} <= holders
    assert holders <= {"ls-remote", "fetch", "push"} | {
        arg for arg in holders if arg.startswith("remote-http")
    } | {"send-pack", "index-pack", "rev-list", "pack-objects", "fetch-pack", "unpack-objects", "maintenance"}
    assert not any(name in call["with_token"] for call in calls for name in ("GITHUB_TOKEN", "HELLO_TOKEN"))
    assert not any(call["trace"] for call in calls)
    world.stop()
    assert files_with_the_token(world.state_dir) == []
    for config in world.state_dir.rglob("config"):
        listing = subprocess.run(
            ["git", "config", "-l", "--file", str(config)], capture_output=True, text=True, check=True
        ).stdout
        assert "extraheader" not in listing.casefold()
        assert "@" not in "".join(line for line in listing.splitlines() if "url" in line)
