"""How fast an agent's output is read, and in how much memory: 200 MB of Claude Code's stream.

The stream is a recorded run (tests/samples/claude/success.jsonl) whose turns come again and again, each with ids of
its own: short records, which are the dear ones. The floor is `json.loads` of each line of the same file and nothing
else. Both are read in the same process in turns, by the piece, and the median of the rounds counts. Memory is what
the process of `coordinator usage parse` has at most, less what it has for a stream of one run.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from adw_modules.agents import parser_for
from bench import harness

SAMPLE = Path(__file__).resolve().parent.parent / "tests" / "samples" / "claude" / "success.jsonl"
SIZE = 200_000_000  # bytes
ROUNDS = 3
CHUNK = 1 << 18  # what the daemon reads at once


def write_stream(path: Path, size: int) -> None:
    """A run of at least `size` bytes: its start, its turns over and over, its final record."""
    start, *turns, end = SAMPLE.read_bytes().splitlines(keepends=True)
    messages = [json.loads(line)["message"]["id"] for line in turns if b'"assistant"' in line]
    written, number = 0, 0
    with path.open("wb") as stream:
        written += stream.write(start)
        while written < size:
            number += 1
            turn = b"".join(turns)
            for message in set(messages):
                turn = turn.replace(message.encode(), f"{message}{number:09}".encode())
            written += stream.write(turn)
        stream.write(end)


def chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            yield chunk


def parse(path: Path) -> float:
    """Megabytes a second through the parser."""
    began = time.perf_counter()
    parser = parser_for("claude")
    for chunk in chunks(path):
        parser.feed(chunk)
    assert parser.finish().final is not None
    return path.stat().st_size / 1e6 / (time.perf_counter() - began)


def floor(path: Path) -> float:
    """Megabytes a second through `json.loads` alone."""
    began = time.perf_counter()
    with path.open("rb") as stream:
        for line in stream:
            json.loads(line)
    return path.stat().st_size / 1e6 / (time.perf_counter() - began)


# The kernel's own `ru_maxrss` begins with what the parent had; VmHWM is the process's own.
PARSE = """
import atexit, re, sys
from pathlib import Path
from coordinator.cli import main
peak = lambda: re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]
atexit.register(lambda: print(peak(), file=sys.stderr))
main()
"""


def peak_mb(path: Path) -> float:
    """The most memory that `coordinator usage parse` held, in MB."""
    done = subprocess.run(
        [sys.executable, "-c", PARSE, "usage", "parse", "--agent", "claude", str(path), "--json"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=True,
    )
    return int(done.stderr) / 1024


def measure(size: int = SIZE) -> dict[str, float]:
    with harness.folder() as root:
        path = root / "claude.jsonl"
        write_stream(path, size)
        rounds = [(floor(path), parse(path)) for _ in range(ROUNDS)]
        growth = peak_mb(path) - peak_mb(SAMPLE)
        path.unlink()
    return {
        "parser_ratio": statistics.median(parsed / loaded for loaded, parsed in rounds),
        "parser_mb_per_second": statistics.median(parsed for _, parsed in rounds),
        "parser_rss_growth_mb": growth,
    }


if __name__ == "__main__":
    print(measure(int(sys.argv[1]) if len(sys.argv) > 1 else SIZE))
