"""Whether a run would begin: all of its sandbox, with limits and network, around a program that does nothing.

For `doctor`, which asks before a run has to find out. Must not start an agent, nor leave anything behind.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from adw_modules.agents import DIALECTS
from coordinator.bubblewrap import attempt
from coordinator.enclosing import in_box
from coordinator.environment import CONFIG_DIR, has_own_config, worker_environment
from coordinator.launcher import write_config
from coordinator.sandbox import Box
from coordinator.settings import LoadedSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class _Host:
    loaded: LoadedSettings
    environ: Mapping[str, str]


def why_no_run(box: Box, loaded: LoadedSettings, environ: Mapping[str, str], provider: str) -> str:
    """What keeps a run of that provider from beginning in its sandbox; empty if nothing. Blocks for 0.1 s."""
    settings = loaded.settings.providers[provider]
    dialect = DIALECTS[settings.agent]
    is_own = has_own_config(settings, environ, dialect)
    with tempfile.TemporaryDirectory(prefix="coordinator-trial-") as folder:
        run_dir, worktree = Path(folder), Path(folder, "worktree")
        worktree.mkdir()
        if is_own:
            write_config(run_dir / CONFIG_DIR, dialect.config_files)
        env = worker_environment(settings, environ, dialect, marker="", run_dir=run_dir, attempt=1)
        argv, env, files = in_box(
            box,
            _Host(loaded=loaded, environ=environ),
            settings,
            worktree=worktree,
            run_dir=run_dir,
            argv=("true",),
            env=env,
            has_own_config=is_own,
        )
        for name, content in files.items():
            (run_dir / name).write_text(content)
        return attempt(argv, env, in_units=loaded.settings.coordinator.launcher == "systemd")
