"""How soon `tools/openrouter-cli.py` is there: its help, and its first request, from the start of the process.

As a user starts it: through `python3` of PATH, which may be another than the project's and then starts that.
The OpenRouter is on loopback and notes when a request has come in.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from pathlib import Path

from tests.openrouter_server import OpenRouterServer, Request

CLI = Path(__file__).resolve().parents[1] / "tools" / "openrouter-cli.py"
STARTS = 15
MODEL = "moonshotai/kimi-k2"


class _Timed(OpenRouterServer):
    arrived = 0.0

    def take(self, request: Request) -> None:
        self.arrived = time.monotonic()
        super().take(request)


def help_seconds() -> float:
    began = time.monotonic()
    subprocess.run([CLI, "--help"], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def request_seconds(server: _Timed) -> float:
    began = time.monotonic()
    command = [CLI, "--model", MODEL, "--output-format", "stream-json"]
    subprocess.run(
        command, check=True, input=b"Hi.", stdout=subprocess.DEVNULL, env={**os.environ, **server.environ}
    )
    return server.arrived - began


def measure() -> dict[str, float]:
    help_seconds()  # once to have every file in memory
    helps = [help_seconds() for _ in range(STARTS)]
    with _Timed() as server:
        requests = [request_seconds(server) for _ in range(STARTS)]
    return {
        "openrouter_cli_help_seconds": statistics.median(helps),
        "openrouter_cli_request_seconds": statistics.median(requests),
    }


if __name__ == "__main__":
    print(measure())
