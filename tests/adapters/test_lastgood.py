"""The copy of the last good configuration: how it is kept, and how it is found from a broken file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from coordinator import lastgood

GOOD = '[coordinator]\nmax_concurrent_workers = 7\n[github]\nrepo_owner = "o"\nrepo_name = "n"\n'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A configuration file that is not there yet, of a project whose daemon left a copy in `state/`."""
    path = tmp_path / "adws" / "config.toml"
    path.parent.mkdir()
    (tmp_path / "state").mkdir()
    lastgood.keep(tmp_path / "state", GOOD)
    return path


def test_the_copy_is_for_its_owner_only_and_is_replaced_whole(tmp_path: Path):
    (tmp_path / "last-good.new").write_text("left by a crash")
    lastgood.keep(tmp_path, "first = 1\n" * 1000)
    before = (tmp_path / "last-good.toml").stat()
    lastgood.keep(tmp_path, "second = 2\n")
    after = (tmp_path / "last-good.toml").stat()
    assert (tmp_path / "last-good.toml").read_text() == "second = 2\n"
    assert before.st_ino != after.st_ino
    assert after.st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [tmp_path / "last-good.toml"]


def test_a_copy_that_cannot_be_written_stops_nothing(tmp_path: Path):
    lastgood.keep(tmp_path / "nowhere", GOOD)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text",
    [
        '[coordinator]\nstate_dir = "state"\npoll = \n',
        '[coordinator\n  state_dir="state"  # here\n',
        "[coordinator]\nstate_dir = 'state'\nworkers = many\n",
        'coordinator.state_dir = "state"\n]',
        '[coordinator]\nstate_dir = "st\\u0061te"\nunknown = 1\n',
    ],
)
def test_a_broken_text_still_says_where_the_state_is(path: Path, text: str):
    path.write_text(text)
    loaded = lastgood.find(path)
    assert loaded is not None
    assert loaded.settings.coordinator.max_concurrent_workers == 7
    assert loaded.state_dir == path.parents[1] / "state"
    assert (loaded.path, loaded.project_root) == (path, path.parents[1])


def test_text_that_is_not_utf_8_still_says_where_the_state_is(path: Path):
    path.write_bytes(b'# caf\xe9\n[coordinator]\nstate_dir = "state"\n')
    assert lastgood.find(path) is not None


def make_nothing(path: Path) -> None:
    pass


def make_text_without_a_place(path: Path) -> None:
    path.write_text('[coordinator]\n# state_dir = "elsewhere"\nstate_dir = nonsense\n')


@pytest.mark.parametrize("make", [make_nothing, make_text_without_a_place, Path.mkdir, os.mkfifo])
def test_without_a_word_about_it_the_state_is_at_the_usual_place(path: Path, make):
    make(path)
    assert lastgood.find(path) is None
    (path.parents[1] / "state").rename(path.parents[1] / ".coordinator")
    assert lastgood.find(path) is not None


def test_a_relative_path_is_that_of_the_working_directory(path: Path, monkeypatch: pytest.MonkeyPatch):
    path.write_text('[coordinator\nstate_dir = "state"\n')
    monkeypatch.chdir(path.parents[1])
    loaded = lastgood.find(Path("adws/config.toml"))
    assert loaded is not None
    assert loaded.path == path


@pytest.mark.parametrize("copy", [b"[coordinator\n", b"\xff\xfe", b"unknown = 1\n"])
def test_a_copy_that_this_version_cannot_read_is_none(path: Path, copy: bytes):
    path.write_text('[coordinator]\nstate_dir = "state"\n=')
    (path.parents[1] / "state" / "last-good.toml").write_bytes(copy)
    assert lastgood.find(path) is None
