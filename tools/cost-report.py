#!/usr/bin/env python3
"""What runs cost by day, model, rule, task, label, repository or provider: as `coordinator costs`."""

import sys

import _bootstrap


def main() -> str:
    from coordinator.cli import main as coordinator

    if not any(word == "-c" or word.startswith(("--config", "-c=")) for word in sys.argv[1:]):
        sys.argv[1:1] = ["--config", str(_bootstrap.PROJECT_ROOT / "adws" / "config.toml")]
    sys.argv[1:1] = ["costs"]
    coordinator()
    return ""


if __name__ == "__main__":
    _bootstrap.run(main, needs="typer")
