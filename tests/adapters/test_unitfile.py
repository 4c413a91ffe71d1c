"""The texts of the service, and what is let into it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from adw_modules.errors import CoordinatorError
from coordinator.systemd import unitfile

CHECKOUT = Path(__file__).resolve().parents[2]


def program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_the_unit_in_the_checkout_is_the_template_with_the_usual_paths():
    shown = (CHECKOUT / "systemd" / "coordinator.service").read_text()
    assert shown == unitfile.unit_text(unitfile.Place())
    assert "{{" not in shown
    assert "\nProtectHome=yes\n" in shown


def test_the_way_to_the_accounts_own_systemd_is_there_only_for_runs_that_are_its_units():
    runtime_dir = Path("/run/user/990")
    lines = unitfile.unit_text(unitfile.Place(runtime_dir=runtime_dir)).splitlines()
    unit, service = lines[: lines.index("[Service]")], lines[lines.index("[Service]") :]
    assert {"Wants=user@990.service", "After=user@990.service"} <= set(unit)
    assert "ProtectHome=tmpfs" in service  # nothing can be put into a closed one
    assert {f"BindPaths=-{runtime_dir}", f"Environment=XDG_RUNTIME_DIR={runtime_dir}"} <= set(service)
    plain = unitfile.unit_text(unitfile.Place())
    assert "user@" not in plain
    assert "/run/user" not in plain


def test_what_is_let_in_makes_the_homes_empty_instead_of_closed():
    place = unitfile.Place(
        exposed=(Path("/home/ada/coordinator"),), writable=(Path("/srv/state"), Path("/home/ada/state"))
    )
    lines = unitfile.unit_text(place).splitlines()
    assert "ProtectHome=tmpfs" in lines
    assert "BindReadOnlyPaths=/home/ada/coordinator" in lines
    assert "ReadWritePaths=/srv/state" in lines
    assert "BindPaths=/home/ada/state" in lines


@pytest.mark.parametrize(
    "path", ["/opt/my tools/config.toml", "/opt/50%/config.toml", "/opt/$HOME/config.toml"]
)
def test_a_path_that_systemd_would_read_in_another_way_is_refused(path):
    with pytest.raises(CoordinatorError, match="cannot stand in a unit file"):
        unitfile.unit_text(unitfile.Place(config=Path(path)))


def test_an_environment_file_names_the_secrets_without_values_and_a_path():
    text = unitfile.environment_text(["GITHUB_TOKEN", "KEY"], ["/usr/local/bin", "/usr/bin"])
    assert unitfile.read_environment(text) == {
        "GITHUB_TOKEN": "",
        "KEY": "",
        "PATH": "/usr/local/bin:/usr/bin",
    }
    assert unitfile.read_environment("# A=1\n;B=2\nC = 'x y'\nD=\"z\"\nnothing\n") == {"C": "x y", "D": "z"}


def test_the_example_names_what_a_first_file_names():
    example = unitfile.read_environment((CHECKOUT / "systemd" / "coordinator.env.example").read_text())
    assert example == {"GITHUB_TOKEN": "", "PATH": os.pathsep.join(unitfile.SYSTEM_PATH)}


def test_programs_are_found_under_a_home_that_sudo_leaves_out(tmp_path):
    there = program(tmp_path / ".nvm" / "versions" / "node" / "v22.1.0" / "bin" / "claude")
    path = unitfile.search_path({"PATH": "/usr/bin"}, tmp_path)
    found = unitfile.find_programs(["claude", "no-such-program"], path)
    assert found == {"claude": there, "no-such-program": None}
    assert unitfile.path_entries([there, Path("/usr/bin/git")]) == [str(there.parent), *unitfile.SYSTEM_PATH]


def test_a_hidden_program_is_let_in_with_all_it_leads_to(tmp_path):
    assert unitfile.is_hidden(tmp_path)  # as everything in /tmp is
    real = program(tmp_path / "ada" / "lib" / "node_modules" / "@maker" / "claude" / "cli.js")
    link = tmp_path / "ada" / "bin" / "claude"
    link.parent.mkdir()
    link.symlink_to("../lib/node_modules/@maker/claude/cli.js")
    assert real.exists()
    assert unitfile.exposed([Path("/opt/coordinator")], [link, Path("/usr/bin/git")]) == (
        tmp_path / "ada" / "bin",
        tmp_path / "ada" / "lib" / "node_modules",
    )


@pytest.mark.parametrize("folder", ["/root", "/home/ada", "/tmp"])
def test_nobodys_whole_home_is_let_in(folder):
    with pytest.raises(CoordinatorError, match="folders of their own"):
        unitfile.exposed([Path(folder)], [])


def test_folders_inside_each_other_are_let_in_once():
    let_in = [Path("/home/ada/c/.venv"), Path("/home/ada/c"), Path("/opt/x"), Path("/home/ada/c2")]
    assert unitfile.exposed(let_in, []) == (Path("/home/ada/c"), Path("/home/ada/c2"))


def test_a_file_that_another_user_cannot_reach_is_told_from_one_they_can(tmp_path):
    nobody = {"uid": 65534, "gids": [65534]}
    (tmp_path / "closed").mkdir(mode=0o700)
    hidden = program(tmp_path / "closed" / "tool")
    assert not unitfile.may_read(hidden, **nobody, exposed=[])
    assert unitfile.may_read(hidden, **nobody, exposed=[hidden])  # the folders above are made anew inside
    hidden.chmod(0o700)
    assert not unitfile.may_read(hidden, **nobody, exposed=[hidden])
    assert unitfile.may_read(hidden, uid=os.getuid(), gids=[], exposed=[hidden])
