"""The configuration file on a real disk: how it is found, read, watched and taken over.

Nothing sleeps: a check is a call with a time, and the time says whether a writer has had its pause.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from adw_modules.errors import ConfigError
from coordinator.clock import utc_now
from coordinator.settings import SETTLE, Reloaded, ReloadFailed, SettingsSource


def text(workers: int) -> str:
    return f"[coordinator]\nmax_concurrent_workers = {workers}\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "project" / "adws" / "config.toml"
    path.parent.mkdir(parents=True)
    path.write_text(text(3))
    return path


def later() -> datetime:
    """A moment at which every write so far has settled."""
    return utc_now() + 2 * SETTLE


def watched(path: Path) -> SettingsSource:
    """A source that read a settled file, so that nothing but a change makes it read again."""
    return SettingsSource(path, now=later())


def workers(source: SettingsSource) -> int:
    return source.current.settings.coordinator.max_concurrent_workers


def checked(source: SettingsSource) -> Reloaded | ReloadFailed | None:
    """What the next two checks of the daemon's loop say: a file that is gone is believed at the second."""
    return source.check(later()) or source.check(later())


def taken_over(source: SettingsSource) -> tuple[str, ...]:
    result = checked(source)
    assert isinstance(result, Reloaded)
    assert source.error is None
    assert result.loaded is source.current
    return result.changes


def refused(source: SettingsSource) -> tuple[str, ...]:
    result = checked(source)
    assert isinstance(result, ReloadFailed)
    assert source.error == "\n".join(result.problems)
    return result.problems


def change(old: int, new: int) -> tuple[str, ...]:
    return (f"coordinator.max_concurrent_workers: {old} -> {new} (live)",)


# --- the first reading -------------------------------------------------------------------------


def test_relative_paths_start_at_the_folder_around_adws(path: Path):
    loaded = SettingsSource(path).current
    assert loaded.path == path
    assert loaded.project_root == path.parent.parent
    assert loaded.state_dir == path.parent.parent / ".coordinator"
    assert loaded.database_url == f"sqlite:///{loaded.state_dir}/coordinator.db"
    assert loaded.log_dir == loaded.state_dir / "logs"
    assert loaded.worktree_dir == loaded.state_dir / "trees"
    assert loaded.prompts_dir == path.parent / "prompts"


def test_relative_paths_start_at_the_files_own_folder_when_that_is_not_called_adws(tmp_path: Path):
    path = tmp_path / "config.toml"
    path.write_text("[coordinator]\nstate_dir = 'state'\nlog_dir = '/var/log/c'\n")
    loaded = SettingsSource(path).current
    assert (loaded.project_root, loaded.state_dir) == (tmp_path, tmp_path / "state")
    assert loaded.log_dir == Path("/var/log/c")


def test_a_relative_path_of_the_file_is_understood_once_and_for_all(
    path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(path.parent)
    source = SettingsSource("config.toml")
    monkeypatch.chdir("/")
    path.write_text(text(4))
    assert taken_over(source) == change(3, 4)
    assert source.current.project_root == path.parent.parent


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: None, "{path} does not exist; `coordinator init` writes a first one."),
        (lambda path: path.mkdir(), "{path} is a folder; name the file in it."),
        (os.mkfifo, "{path} is not a regular file."),
        (lambda path: path.write_text(" \n"), "{path} is empty; adws/config.example.toml shows every key."),
        (
            lambda path: path.write_bytes(b"a = 1\n# caf\xe9\n"),
            "{path}, line 2: this is not UTF-8 text; save it as UTF-8.",
        ),
        (
            lambda path: path.write_bytes(b"#" * (1024 * 1024 + 1)),
            "{path} is larger than 1 MiB; that cannot be the configuration.",
        ),
        (lambda path: path.symlink_to(path), "{path} cannot be read: Too many levels of symbolic links."),
        (
            lambda path: path.write_text("[llm]\nprovider = \n"),
            "{path}, line 2, column 12: this is not valid TOML: invalid value.",
        ),
    ],
    ids=["missing", "folder", "pipe", "empty", "not UTF-8", "huge", "link to itself", "not TOML"],
)
def test_a_file_that_cannot_be_used_at_the_start_is_a_config_error(
    tmp_path: Path, make: Callable[[Path], object], sentence: str
):
    path = tmp_path / "config.toml"
    make(path)
    with pytest.raises(ConfigError) as caught:
        SettingsSource(path)
    assert caught.value.problems == [sentence.format(path=path)]


def test_a_daemon_needs_a_repository_and_a_token(path: Path):
    with pytest.raises(ConfigError) as caught:
        SettingsSource(path, {})
    first, second = caught.value.problems
    assert first.startswith(f"{path}: no repository is configured; ")
    assert second.startswith(f"{path}: [github] token_env names GITHUB_TOKEN, which is not set: ")


# --- ways to change a file ---------------------------------------------------------------------


def write_in_place(path: Path) -> None:
    path.write_text(text(7))


def rename_over(path: Path) -> None:
    other = path.with_suffix(".tmp")
    other.write_text(text(7))
    other.rename(path)


def delete_and_create(path: Path) -> None:
    path.unlink()
    path.write_text(text(7))


def write_with_the_old_times(path: Path) -> None:
    before = path.stat()
    path.write_text(text(7))  # the same length, in the same file
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace_by_a_link(path: Path) -> None:
    target = path.with_name("elsewhere.toml")
    target.write_text(text(7))
    path.unlink()
    path.symlink_to(target)


@pytest.mark.parametrize(
    "rewrite", [write_in_place, rename_over, delete_and_create, write_with_the_old_times, replace_by_a_link]
)
def test_a_changed_file_is_in_force_at_the_next_check(path: Path, rewrite: Callable[[Path], None]):
    source = watched(path)
    rewrite(path)
    assert taken_over(source) == change(3, 7)
    assert workers(source) == 7
    assert checked(source) is None


def test_a_link_that_is_switched_to_another_file_is_a_change(path: Path):
    first, second = path.with_name("a.toml"), path.with_name("b.toml")
    first.write_text(text(3))
    second.write_text(text(9))
    path.unlink()
    path.symlink_to(first)
    source = watched(path)
    switch = path.with_name("new-link")
    switch.symlink_to(second)
    switch.rename(path)
    assert taken_over(source) == change(3, 9)
    assert source.current.project_root == path.parent.parent


def test_a_link_in_the_middle_of_the_path_that_is_switched_is_a_change(tmp_path: Path):
    """What Kubernetes does with a ConfigMap: config.toml -> ..data/config.toml, and ..data changes."""
    for name, count in (("..v1", 3), ("..v2", 9)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.toml").write_text(text(count))
    data, path = tmp_path / "..data", tmp_path / "config.toml"
    data.symlink_to("..v1")
    path.symlink_to("..data/config.toml")
    source = watched(path)
    (tmp_path / "..data_tmp").symlink_to("..v2")
    (tmp_path / "..data_tmp").rename(data)
    (tmp_path / "..v1" / "config.toml").unlink()
    assert taken_over(source) == change(3, 9)


def test_the_target_of_a_link_that_is_rewritten_is_a_change(path: Path):
    target = path.with_name("target.toml")
    path.rename(target)
    path.symlink_to(target)
    source = watched(path)
    rename_over(target)
    assert taken_over(source) == change(3, 7)


# --- what is no change -------------------------------------------------------------------------


def test_a_touched_file_with_the_same_content_is_no_change(path: Path):
    source = watched(path)
    version = source.current.version
    os.utime(path)
    assert checked(source) is None
    delete_and_create(path)
    path.write_text(text(3))
    assert checked(source) is None
    assert source.current.version == version


def test_a_new_comment_is_a_reload_without_changes_and_keeps_the_version(path: Path):
    source = watched(path)
    version = source.current.version
    path.write_text("# hello\n" + text(3))
    assert taken_over(source) == ()
    assert source.current.version == version


def test_a_changed_value_has_another_version_and_the_old_value_the_old_one(path: Path):
    source = watched(path)
    first = source.current.version
    path.write_text(text(4))
    taken_over(source)
    assert source.current.version != first
    path.write_text("[coordinator]\n")  # 3 is the default
    taken_over(source)
    assert source.current.version == first


# --- files that are not whole ------------------------------------------------------------------


def test_a_file_that_is_still_being_written_is_left_alone_until_it_has_settled(path: Path):
    source = watched(path)
    path.write_text("[coordinator]\n")  # the first half of a file, and valid by accident
    written_at = datetime.fromtimestamp(path.stat().st_ctime, UTC)
    assert source.check(written_at + SETTLE / 2) is None
    path.write_text(text(8))
    assert taken_over(source) == change(3, 8)


def test_a_half_written_file_keeps_the_old_settings_until_it_is_whole(path: Path):
    source = watched(path)
    path.write_text("[coordinator]\nmax_concurrent_wor")
    assert "not valid TOML" in refused(source)[0]
    assert workers(source) == 3
    path.write_text(text(8))
    assert taken_over(source) == change(3, 8)


def test_a_file_that_was_emptied_to_be_written_does_not_mean_the_defaults(path: Path):
    path.write_text(text(8))
    source = watched(path)
    path.write_text("")
    assert refused(source) == (f"{path} is empty; adws/config.example.toml shows every key.",)
    assert workers(source) == 8


# --- files that cannot be used -----------------------------------------------------------------


def test_a_broken_file_is_reported_once_per_content_and_forgotten_when_mended(path: Path):
    source = watched(path)
    path.write_text("[coordinator]\nmax_concurrent_workers = 0\n")
    sentence = (
        f"{path}, line 2: coordinator.max_concurrent_workers must be a whole number of 1 or more, not 0."
    )
    assert refused(source) == (sentence,)
    for _ in range(5):
        os.utime(path)
        assert checked(source) is None
    assert source.error == sentence
    path.write_text("[oops]\n")
    assert "there is no section [oops]" in refused(source)[0]
    path.write_text(text(5))
    assert taken_over(source) == change(3, 5)


def test_a_broken_file_that_is_put_back_as_it_was_is_mended(path: Path):
    source = watched(path)
    path.write_text("[oops]\n")
    refused(source)
    path.write_text(text(3))
    assert taken_over(source) == ()


def test_a_deleted_file_is_reported_once_and_taken_over_when_it_is_back(path: Path):
    source = watched(path)
    path.unlink()
    assert source.check(later()) is None  # an editor may be about to put it back
    result = source.check(later())
    assert isinstance(result, ReloadFailed)
    assert result.problems == (f"{path} does not exist; `coordinator init` writes a first one.",)
    assert checked(source) is None
    assert workers(source) == 3
    path.write_text(text(6))
    assert taken_over(source) == change(3, 6)


def test_a_file_that_is_away_for_one_check_only_is_no_news(path: Path):
    source = watched(path)
    away = path.rename(path.with_suffix(".away"))
    assert source.check(later()) is None
    away.rename(path)
    assert checked(source) is None
    assert source.error is None


def test_a_daemon_refuses_a_new_file_without_repositories(path: Path):
    path.write_text(text(3) + "[github]\nrepo_owner = 'o'\nrepo_name = 'r'\n")
    source = SettingsSource(path, {"GITHUB_TOKEN": "t"})
    path.write_text(text(3))
    assert "no repository is configured" in refused(source)[0]
    assert len(source.current.settings.all_repositories()) == 1


# --- by order, and what waits ------------------------------------------------------------------


def test_a_forced_check_reads_at_once_and_always_answers(path: Path):
    source = watched(path)
    unchanged = source.check(utc_now(), force=True)
    assert isinstance(unchanged, Reloaded)
    assert unchanged.changes == ()
    path.write_text(text(4))
    changed = source.check(utc_now(), force=True)  # within the pause that other checks keep
    assert isinstance(changed, Reloaded)
    assert changed.changes == change(3, 4)
    path.write_text("[oops]\n")
    for _ in range(2):
        assert isinstance(source.check(utc_now(), force=True), ReloadFailed)


def test_a_value_that_needs_a_restart_is_said_and_not_taken_over(path: Path):
    source = watched(path)
    before = source.current.state_dir
    path.write_text(text(4) + "state_dir = '/elsewhere'\n")
    assert taken_over(source) == (
        *change(3, 4),
        'coordinator.state_dir: ".coordinator" -> "/elsewhere" (restart)',
    )
    assert (workers(source), source.current.state_dir) == (4, before)


def test_warnings_of_the_new_file_come_with_it(path: Path):
    source = watched(path)
    path.write_text("[workflows.x]\nstages = []\n")
    result = checked(source)
    assert isinstance(result, Reloaded)
    assert result.warnings[0].startswith("workflows.x: ")


@pytest.mark.parametrize("phase", [0, 40, 80, 120, 160, 199])
def test_five_checks_a_second_find_a_change_within_half_a_second(path: Path, phase: int):
    source = watched(path)
    rename_over(path)
    changed_at = datetime.fromtimestamp(path.stat().st_ctime, UTC)
    ticks = [changed_at + timedelta(milliseconds=phase + 200 * tick) for tick in range(5)]
    found = next(now for now in ticks if source.check(now))
    assert found - changed_at < timedelta(milliseconds=400)


OPENED: list[str] | None = None  # what is being opened while a test listens; audit hooks cannot be taken away


def listen(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and OPENED is not None and isinstance(arguments[0], str):
        OPENED.append(arguments[0])


sys.addaudithook(listen)


def test_a_check_of_an_unchanged_file_does_not_open_it(path: Path, monkeypatch: pytest.MonkeyPatch):
    source = watched(path)
    opened: list[str] = []
    monkeypatch.setattr(sys.modules[__name__], "OPENED", opened)
    for _ in range(20):
        assert source.check(later()) is None
    assert opened == []
    os.utime(path)
    assert source.check(later()) is None
    assert opened == [str(path)]


def test_a_file_that_was_fresh_at_the_first_reading_is_read_once_more(
    path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A second write within one tick of the file system's clock leaves no trace but the content."""
    # A moment later: the file's time as a float may be rounded to just before the change.
    just_after = datetime.fromtimestamp(path.stat().st_ctime, UTC) + timedelta(milliseconds=1)
    source = SettingsSource(path, now=just_after)
    opened: list[str] = []
    monkeypatch.setattr(sys.modules[__name__], "OPENED", opened)
    assert [source.check(later()) for _ in range(5)] == [None] * 5
    assert opened == [str(path)]
