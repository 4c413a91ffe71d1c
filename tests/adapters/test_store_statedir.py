"""The state directory has one owner, private modes and a local disk."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from adw_modules.errors import StateDirBusy, StoreError
from coordinator.store import StateDir, StatePaths
from coordinator.store.statedir import file_system_of, refuse_network_file_system

MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
server:/home /home nfs4 rw 0 0
/dev/sdb1 /home/ada/my\\040disk xfs rw 0 0
host:/share /mnt/share fuse.sshfs rw 0 0
tmpfs /mnt/share/fast tmpfs rw 0 0
"""

HOLDER = "import sys; from pathlib import Path; from coordinator.store import StateDir\n"
HOLDER += "held = StateDir(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"


def test_the_directory_is_made_private_with_its_folders(tmp_path):
    with StateDir(tmp_path / "deep" / "state") as state:
        made = [state.root, state.runs, state.repos, state.trees, state.quarantine, state.logs]
        assert {path.stat().st_mode & 0o777 for path in made} == {0o700}
        assert state.lock.read_text() == f"{os.getpid()}\n"
        assert state.db == state.root / "coordinator.db"
        assert state.wake.parent == state.root


def test_paths_alone_touch_nothing(tmp_path):
    paths = StatePaths(tmp_path / "state")
    assert paths.run_dir("acme/widgets/gh-12", 3) == tmp_path / "state" / "runs" / "acme_widgets_gh-12.3"
    assert list(tmp_path.iterdir()) == []


def test_a_directory_held_by_another_process_names_it_and_is_free_when_that_is_killed(tmp_path):
    arguments = [sys.executable, "-c", HOLDER, tmp_path]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StateDirBusy, match=f"process {holder.pid}"):
            StateDir(tmp_path)
        holder.send_signal(signal.SIGKILL)
        holder.wait(10)
        with StateDir(tmp_path) as state:
            assert state.lock.read_text() == f"{os.getpid()}\n"


def test_a_worker_that_outlives_the_daemon_does_not_keep_the_lock(tmp_path):
    state = StateDir(tmp_path)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as worker:
        state.close()
        StateDir(tmp_path).close()
        worker.stdin.close()


def test_the_same_process_cannot_take_it_twice(tmp_path):
    with StateDir(tmp_path), pytest.raises(StateDirBusy):
        StateDir(tmp_path)


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "state").write_text("not a folder")
    with pytest.raises(StoreError, match="state"):
        StateDir(tmp_path / "state")


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/lib/coordinator", "ext4"),
        ("/home/ada/state", "nfs4"),
        ("/home/ada/my disk/state", "xfs"),
        ("/homework", "ext4"),
        ("/mnt/share/state", "fuse.sshfs"),
        ("/mnt/share/fast/state", "tmpfs"),
    ],
)
def test_the_deepest_mount_point_decides_the_file_system(path, kind):
    assert file_system_of(Path(path), MOUNTS) == kind


def test_a_network_file_system_is_refused_and_a_local_one_is_not():
    with pytest.raises(StoreError, match=r"network file system \(nfs4\)"):
        refuse_network_file_system(Path("/home/ada/state"), MOUNTS)
    refuse_network_file_system(Path("/home/ada/my disk/state"), MOUNTS)
