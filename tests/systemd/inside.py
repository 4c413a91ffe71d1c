"""Runs inside the booted systemd: takes commands from standard input, one JSON object a line, and answers so.

Standard library only, and nothing of ours: it is started by path, with whatever Python is there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Run one command to its end; what it said, and its exit code."""
    try:
        done = subprocess.run(
            request["argv"],
            input=request["input"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=request["timeout"],
            env=os.environ | request["env"],
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"error": str(error)}
    return {"code": done.returncode, "out": done.stdout, "err": done.stderr}


def main() -> None:
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
