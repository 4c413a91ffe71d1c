"""The scripted agent with a witness beside it: `python -I witness.py FOLDER AGENT ARGUMENTS...`.

Notes each begin in FOLDER/witness, and an `overlap` if another agent of the same task is alive then: a kernel
lock tells, which a killed agent cannot forget to give back. Standard library only.
"""

import fcntl
import importlib.util
import os
import sys
from pathlib import Path


def main() -> int:
    folder, program, *arguments = sys.argv[1:]
    run = Path("/proc/self/fd/1").readlink().parent.name  # where the shim sends our output
    task = run.rpartition(".")[0]
    lock = os.open(Path(folder, f"{task}.alive"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        note(folder, f"overlap {run}")
    note(folder, f"begin {run}")
    spec = importlib.util.spec_from_file_location("scripted_agent", program)
    agent = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(agent)
    return agent.main(arguments)


def note(folder: str, line: str) -> None:
    """One write, so that lines of two agents cannot mix."""
    file = os.open(Path(folder, "witness"), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.write(file, f"{line}\n".encode())
    os.close(file)


if __name__ == "__main__":
    sys.exit(main())
