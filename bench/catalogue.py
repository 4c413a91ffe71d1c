"""What a sync of the catalogue costs: 500 models, from the bytes of the answer to the committed rows."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import http.server
import json
import statistics
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

from bench import harness
from coordinator import catalogue
from coordinator.clock import utc_now
from coordinator.store import Store

MODELS = 500
ROUNDS = 5
SAMPLE = Path(__file__).parents[1] / "tests" / "samples" / "openrouter-models.json"


def rows(count: int, *, factor: int = 1) -> list[dict[str, Any]]:
    """So many models, as varied as the sample; with a factor every price is another one."""
    sample = [row for row in json.loads(SAMPLE.read_bytes())["data"] if "/" in row["id"]]
    made = []
    for number in range(count):
        row = copy.deepcopy(sample[number % len(sample)])
        row["id"] = f"bench{number // len(sample)}-{row['id']}"
        row["description"] = "What it is good for, in a few sentences. " * 12
        for key in ("prompt", "completion"):
            row["pricing"][key] = format(Decimal(row["pricing"][key]) * factor, "f")
        made.append(row)
    return made


@contextlib.contextmanager
def served(answers: list[bytes]) -> Iterator[str]:
    """A server that gives these answers, one after the other; its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = answers.pop(0)
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def _sync(store: Store, address: str) -> catalogue.Synced:
    async with catalogue.Access(base_url=address, key=None).directory() as directory:
        return await catalogue.sync(store, directory, now=utc_now)


def cpu_of_sync(path: Path, answers: list[bytes]) -> list[float]:
    """CPU seconds of this process for each sync, the server's share included."""
    spent = []
    with Store.open(path, now=utc_now()) as store, served([*answers]) as address:
        for _ in answers:
            began = time.process_time()
            synced = asyncio.run(_sync(store, address))
            spent.append(time.process_time() - began)
            assert synced.models == MODELS, synced
    return spent


def measure() -> dict[str, float]:
    """The first sync, in which every model is new, and one in which every price has changed."""
    answers = [json.dumps({"data": rows(MODELS, factor=factor)}).encode() for factor in (1, 2)]
    first, changed = [], []
    for _ in range(ROUNDS):
        with harness.folder() as root:
            one, two = cpu_of_sync(root / "coordinator.db", answers)
        first.append(one)
        changed.append(two)
    return {
        "catalogue_first_cpu_seconds": statistics.median(first),
        "catalogue_changed_cpu_seconds": statistics.median(changed),
    }


if __name__ == "__main__":
    print(measure())
