"""The tools of the OpenRouter agent on a real directory: what they do, what they refuse in a sentence."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from adw_modules.openrouter.messages import ToolCall
from coordinator.openrouter_agent import files, landlock
from coordinator.openrouter_agent.commands import Commands
from coordinator.openrouter_agent.confined import ToolError, Workspace
from coordinator.openrouter_agent.searching import search
from coordinator.openrouter_agent.toolbox import TOOLS, Toolbox, ToolResult

EVERY = tuple(name for name in TOOLS if name != "fetch_url")


SECRETS = dict.fromkeys(
    ("OPENROUTER_API_KEY", "GH_TOKEN", "OPENROUTER_KEY", "DB_PASS", "GITHUB_PAT", "SECRET_VALUE", "MYSECRET"),
    "hidden",
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A directory with a neighbour that nobody may touch, and every kind of way to it."""
    (tmp_path / "secret.txt").write_text("secret\n")
    root = tmp_path / "work"
    (root / "src").mkdir(parents=True)
    (root / "src" / "a.py").write_text("one\ntwo\nthree\n")
    (root / ".git" / "hooks").mkdir(parents=True)
    (root / "absolute").symlink_to(tmp_path / "secret.txt")
    (root / "upwards").symlink_to("../secret.txt")
    (root / "outside").symlink_to("..")
    (root / "loop").symlink_to("loop")
    (root / "to-git").symlink_to(".git")
    (root / "inner").symlink_to("src/a.py")
    (root / "inner-absolute").symlink_to(root / "src")
    os.mkfifo(root / "pipe")
    return root


@pytest.fixture
def workspace(root: Path):
    workspace = Workspace(root)
    yield workspace
    workspace.close()


@pytest.fixture
def commands(workspace: Workspace):
    commands = Commands(workspace, {**os.environ, "SOME": "1", **SECRETS})
    yield commands
    commands.close()


@pytest.fixture
def use(workspace: Workspace, commands: Commands):
    """Call a tool as a model does."""
    toolbox = Toolbox(workspace, commands, EVERY)

    def use(name: str, error: str | None = None, **arguments: object) -> ToolResult:
        call = ToolCall(id="c", name=name, arguments=dict(arguments), error=error)
        return asyncio.run(toolbox.call(call))

    return use


OUTSIDE = [
    "../secret.txt",
    "src/../../secret.txt",
    "/etc/passwd",
    "absolute",
    "upwards",
    "outside/secret.txt",
]


@pytest.mark.parametrize("path", OUTSIDE)
@pytest.mark.parametrize(
    ("tool", "more"),
    [
        ("read_file", {}),
        ("write_file", {"content": "owned"}),
        ("edit_file", {"old_text": "secret", "new_text": "owned"}),
    ],
)
def test_nothing_outside_the_directory_is_reached(use, root: Path, path: str, tool: str, more: dict) -> None:
    answer = use(tool, path=path, **more)
    assert answer.is_error
    assert "outside the working directory" in answer.text
    assert (root.parent / "secret.txt").read_text() == "secret\n"


@pytest.mark.parametrize("path", ["../secret.txt", "outside"])
def test_nothing_outside_is_searched(use, path: str) -> None:
    answer = use("search", path=path, pattern="secret")
    assert answer.is_error
    assert "outside the working directory" in answer.text


@pytest.mark.parametrize("path", ["..", "outside", "/"])
def test_no_directory_outside_is_listed(use, path: str) -> None:
    answer = use("list_files", path=path)
    assert answer.is_error
    assert "outside" in answer.text


@pytest.mark.parametrize("path", [".git/config", "to-git/hooks/pre-commit", ".GIT/x", "src/.git/x", ".git"])
def test_what_belongs_to_git_is_not_written(use, root: Path, path: str) -> None:
    before = sorted(root.rglob("*"))
    answer = use("write_file", path=path, content="x")
    assert answer.is_error
    assert "belongs to git" in answer.text
    assert sorted(root.rglob("*")) == before


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("missing.txt", "does not exist"),
        ("src", "is a directory"),
        ("pipe", "is a named pipe"),
        ("loop", "too many symbolic links"),
        ("src/a.py/x", "not a directory"),
        ("", "empty"),
        ("a\0b", "NUL"),
        ("src/../" * 300 + "x", "too many components"),
        ("n" * 300, "too long"),
    ],
)
def test_a_path_that_is_no_file_is_one_sentence(use, path: str, reason: str) -> None:
    answer = use("read_file", path=path)
    assert answer.is_error
    assert reason in answer.text
    assert "\n" not in answer.text.strip()


def test_links_that_stay_inside_lead_where_they_point(use, root: Path) -> None:
    assert use("read_file", path="inner").text == "one\ntwo\nthree\n"
    assert use("read_file", path="inner-absolute/a.py").text == "one\ntwo\nthree\n"
    assert use("read_file", path=str(root / "src/a.py")).text == "one\ntwo\nthree\n"
    assert not use("write_file", path="inner", content="new").is_error
    assert (root / "inner").is_symlink()
    assert (root / "src" / "a.py").read_text() == "new"


def test_a_link_that_is_swapped_in_on_the_way_leads_nowhere(workspace: Workspace, root: Path) -> None:
    """What was looked at is what is opened, whatever the name means a moment later."""
    with workspace.place("src/a.py") as place:
        (root / "src").rename(root / "moved")
        (root / "src").symlink_to("..")
        assert os.stat(place.name, dir_fd=place.directory).st_size == 14
    with pytest.raises(ToolError, match="outside"), workspace.reading("src/secret.txt"):
        pass


def test_a_hard_link_to_a_file_elsewhere_is_cut_off_and_not_written_through(use, root: Path) -> None:
    os.link(root.parent / "secret.txt", root / "hard")
    assert not use("edit_file", path="hard", old_text="secret", new_text="mine").is_error
    assert (root / "hard").read_text() == "mine\n"
    assert (root.parent / "secret.txt").read_text() == "secret\n"


def test_long_files_come_in_parts_and_say_where_they_go_on(use, root: Path) -> None:
    (root / "long.txt").write_text("".join(f"line {number}\n" for number in range(1, 5001)))
    first = use("read_file", path="long.txt").text
    assert first.startswith("line 1\nline 2\n")
    assert first.endswith("[long.txt goes on: read it with offset=2001]")
    assert use("read_file", path="long.txt", offset="4999").text == "line 4999\nline 5000\n"
    assert use("read_file", path="long.txt", offset=7, limit=1).text.startswith("line 7\n\n[")
    assert "fewer than 6000 lines" in use("read_file", path="long.txt", offset=6000).text


def test_huge_and_binary_files_take_no_memory_and_no_time(use, root: Path) -> None:
    with (root / "huge").open("wb") as file:
        file.write(b"x")
        file.truncate(50 << 30)  # sparse
    (root / "wide.txt").write_text("y" * 5_000_000 + "\nend\n")
    began = time.monotonic()
    assert "binary file of 53687091200 bytes" in use("read_file", path="huge").text
    wide = use("read_file", path="wide.txt").text
    assert len(wide) < 3000
    assert wide.endswith("more in this line]\nend\n")
    assert "over 8388608 bytes" in use("edit_file", path="huge", old_text="x", new_text="y").text
    assert "[2 binary or very large files were not searched]" in use("search", pattern="zzz").text
    assert time.monotonic() - began < 5


def test_an_edit_replaces_exactly_one_place(use, root: Path) -> None:
    (root / "b.txt").write_text("same\nsame\n")
    assert "is 2 times in b.txt" in use("edit_file", path="b.txt", old_text="same", new_text="x").text
    assert "is not in b.txt" in use("edit_file", path="b.txt", old_text="other", new_text="x").text
    assert "old_text is empty" in use("edit_file", path="b.txt", old_text="", new_text="x").text
    assert (root / "b.txt").read_text() == "same\nsame\n"
    assert not use("edit_file", path="b.txt", old_text="same", new_text="x", replace_all="true").is_error
    assert (root / "b.txt").read_text() == "x\nx\n"


def test_an_edit_keeps_line_ends_mode_and_bytes_it_does_not_know(use, root: Path) -> None:
    (root / "dos.txt").write_bytes(b"a\r\nb\r\n\xff\r\n")
    (root / "dos.txt").chmod(0o755)
    assert not use("edit_file", path="dos.txt", old_text="a\nb", new_text="c\nd").is_error
    assert (root / "dos.txt").read_bytes() == b"c\r\nd\r\n\xff\r\n"
    assert (root / "dos.txt").stat().st_mode & 0o777 == 0o755


def test_an_edit_that_would_blow_a_file_up_is_refused(use, root: Path) -> None:
    (root / "many").write_text("a" * 100_000)
    answer = use("edit_file", path="many", old_text="a", new_text="b" * 1_000, replace_all=True)
    assert answer.text == "Error: many would grow over 8388608 bytes."


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("read_file", {"path": "\ud800"}),
        ("write_file", {"path": "\ud800", "content": "x"}),
        ("list_files", {"path": "a/\ud800"}),
        ("search", {"pattern": "x", "path": "\ud800"}),
        ("run_command", {"command": "echo \ud800"}),
    ],
)
def test_half_a_character_is_one_sentence(use, tool: str, arguments: dict) -> None:
    answer = use(tool, **arguments)
    assert answer.is_error
    assert answer.text.endswith("holds half a character.")


def test_new_files_get_their_directories(use, root: Path) -> None:
    assert use("write_file", path="x/y/z.txt", content="ü").text == "Created x/y/z.txt (2 bytes)."
    assert (root / "x/y/z.txt").read_text() == "ü"
    assert "old file" not in use("list_files", path="x").text
    assert use("list_files", path="x", glob="*.txt").text == "x/y/z.txt"


def test_a_listing_shows_links_without_following_them_and_leaves_git_out(use) -> None:
    shown = use("list_files").text.splitlines()
    assert shown == [
        *("absolute@", "inner@", "inner-absolute@", "loop@", "outside@", "pipe", "src/", "src/a.py"),
        *("to-git@", "upwards@"),
    ]


def test_a_search_names_file_line_and_text(use) -> None:
    assert use("search", pattern="t[wh]").text == "src/a.py:2:two\nsrc/a.py:3:three"
    assert use("search", pattern="two", glob="*.md").text == "[no match]"
    assert use("search", pattern="(", literal=True).text == "[no match]"
    assert "no regular expression" in use("search", pattern="(").text


def test_a_search_that_takes_for_ever_is_ended(workspace: Workspace, root: Path) -> None:
    (root / "evil.txt").write_text("a" * 60 + "!\n")
    with pytest.raises(ToolError, match="took longer than"):
        asyncio.run(search(workspace, "(a+)+b", seconds=0.3))


@pytest.mark.parametrize(
    ("name", "arguments", "reason"),
    [
        ("teleport", {}, "there is no tool 'teleport'"),
        ("fetch_url", {"url": "http://127.0.0.1/"}, "there is no tool 'fetch_url'"),
        ("read_file", {}, "needs the argument path"),
        ("read_file", {"path": None}, "needs the argument path"),
        ("read_file", {"path": 7}, "has to be of type string"),
        ("read_file", {"path": "src/a.py", "offset": "soon"}, "has to be of type integer"),
        ("read_file", {"path": "src/a.py", "offset": True}, "has to be of type integer"),
        ("run_command", {"command": "true", "timeout_seconds": float("nan")}, "has to be of type number"),
        ("run_command", {"command": " "}, "the command is empty"),
        ("run_command", {"command": "x" * 200_000}, "over 100000 bytes"),
    ],
)
def test_a_call_that_cannot_be_made_is_one_sentence(use, name: str, arguments: dict, reason: str) -> None:
    answer = use(name, **arguments)
    assert answer.is_error
    assert reason in answer.text


def test_arguments_that_are_no_json_come_back_as_such(use) -> None:
    assert use("read_file", error="The arguments are not valid JSON.").text == (
        "Error: The arguments are not valid JSON."
    )


def test_a_command_runs_in_the_directory_without_secrets(use, root: Path) -> None:
    answer = use("run_command", command="pwd; echo $SOME; env | grep hidden; exit 3")
    assert answer.text == f"[exit code 3]\n{root}\n1\n"
    assert not answer.is_error  # the model reads the exit code; the call itself worked


def test_a_hanging_command_is_killed_with_all_its_children(use, root: Path) -> None:
    answer = use("run_command", command="sleep 600 & echo $! > child; cat", timeout_seconds=1)
    assert answer.text == "[exit code 0]\n"  # nothing on standard input: cat ends at once
    assert_gone(int((root / "child").read_text()))

    answer = use("run_command", command="echo begun; sleep 600 & echo $! > child; wait", timeout_seconds=1)
    assert answer.is_error
    assert answer.text == "Error: the command was killed after 1 s.\nbegun\n"
    assert_gone(int((root / "child").read_text()))


@pytest.mark.parametrize("end", ["true", "sleep 600"])
def test_a_command_that_made_itself_a_session_of_its_own_is_killed_too(use, root: Path, end: str) -> None:
    daemon = "setsid sh -c 'echo $$ > child; exec sleep 600' <&- >&- 2>&- &"
    wait = "until [ -s child ]; do sleep 0.01; done"
    use("run_command", command=f"({daemon}) ; {wait}; {end}", timeout_seconds=1)
    assert_gone(int((root / "child").read_text()))


@pytest.mark.parametrize(
    ("command", "how"), [("exit 3", "exit code 3"), ("kill -SEGV $$", "killed by SIGSEGV")]
)
def test_how_a_command_ended_is_told(use, command: str, how: str) -> None:
    assert use("run_command", command=command).text == f"[{how}]\n"


def assert_gone(pid: int) -> None:
    until = time.monotonic() + 5
    while Path(f"/proc/{pid}/stat").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z":
        assert time.monotonic() < until
        time.sleep(0.01)


def test_of_a_long_output_head_and_tail_are_kept(use) -> None:
    answer = use("run_command", command="echo first; yes | head -c 3000000; echo last").text
    assert answer.startswith("[exit code 0]\nfirst\ny\n")
    assert answer.endswith("y\nlast\n")
    assert "bytes left out]" in answer
    assert len(answer) < 25_000


@pytest.mark.skipif(landlock.version() < 6, reason="this kernel cannot confine a command")
def test_a_command_writes_nothing_elsewhere_and_signals_nobody(use, root: Path, tmp_path: Path) -> None:
    answer = use(
        "run_command", command=f"echo x > {tmp_path}/escaped; rm {tmp_path}/secret.txt; kill -9 $PPID"
    )
    assert answer.text.count("ermission denied") == 2
    assert "not permitted" in answer.text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["secret.txt", "work"]
    assert use("run_command", command="echo ok > here; echo ok > $TMPDIR/there; cat here").text.endswith(
        "ok\n"
    )


def test_directories_can_be_opened_to_commands(workspace: Workspace, tmp_path: Path) -> None:
    for writable in (tmp_path, Path("/")):
        commands = Commands(workspace, os.environ, (writable,))
        text = asyncio.run(commands.run(f"echo x > {tmp_path}/opened && cat {tmp_path}/opened"))
        commands.close()
        assert text == "[exit code 0]\nx\n"


def test_the_directory_of_temporary_files_goes_with_the_run(commands: Commands) -> None:
    text = asyncio.run(commands.run("touch $TMPDIR/x; echo $TMPDIR"))
    folder = Path(text.splitlines()[-1])
    assert folder.is_dir()
    commands.close()
    assert not folder.exists()


def test_a_listing_of_very_many_files_is_cut(workspace: Workspace) -> None:
    lines = files.list_files(workspace, most=5).splitlines()
    assert lines[5:] == ["[more than 5: ask for a part]"]
