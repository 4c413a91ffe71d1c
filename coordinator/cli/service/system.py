"""What the machine is asked to do for the service: systemctl, loginctl and the like, with root's rights."""

from __future__ import annotations

from pathlib import Path

from adw_modules.errors import CoordinatorError


def need_root(verb: str) -> None:
    """CoordinatorError for everybody else."""
    import os

    if os.geteuid() != 0:
        raise CoordinatorError(
            f"`coordinator service {verb}` needs root: say sudo before it"
            + (", or --dry-run behind it to see what it would do." if verb == "install" else ".")
        )


def need_systemd() -> None:
    """CoordinatorError where systemd is not process 1."""
    if not Path("/run/systemd/system").is_dir():
        raise CoordinatorError("No systemd runs on this machine; start the daemon with `coordinator run`.")


def systemctl(*arguments: str) -> str:
    """What it printed. CoordinatorError with its own words."""
    return command("systemctl", *arguments)


def command(*argv: str) -> str:
    """What it printed; its own words as CoordinatorError when it fails."""
    import subprocess

    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        raise CoordinatorError(f"There is no {argv[0]} on this machine.") from None
    if done.returncode != 0:
        said = " ".join((done.stderr or done.stdout).split())
        raise CoordinatorError(f"`{' '.join(argv)}` failed: {said or done.returncode}")
    return done.stdout


def shown(unit: str, *names: str) -> dict[str, str]:
    """Properties of a unit; empty where no systemd runs, or none that talks to us."""
    try:
        lines = systemctl("show", unit, "--property", ",".join(names)).splitlines()
    except CoordinatorError:
        return {}
    return dict(line.split("=", 1) for line in lines if "=" in line)
