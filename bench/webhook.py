"""How soon a label starts a worker when GitHub says so, and when it is waited for by polling."""

from __future__ import annotations

import contextlib
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from bench import harness
from bench.pipeline import AGENT, GitHubProcess
from coordinator.store import Store

SINGLE = 8
POLL_SECONDS = 3600.0
WARM = 2  # the first ones make the mirror and load what is loaded on demand
EXTRA = '[webhook]\nenabled = true\nlisten = "127.0.0.1:0"\nsecret_env = "BENCH_WEBHOOK_SECRET"\n'


@contextlib.contextmanager
def stage(interval: float, *, hooked: bool) -> Iterator[tuple[GitHubProcess, Path]]:
    """A GitHub and `coordinator run`, with GitHub's webhook pointed at it or not; gives the database too."""
    with harness.folder() as root:
        github = GitHubProcess(root / "github")
        source = harness.source(
            root,
            workers=4,
            interval=interval,
            api_url=github.urls["api_url"],
            remote_url=github.urls["git_url"],
            command=AGENT,
            extra=EXTRA if hooked else "",
        )
        with harness.daemon(root):
            if hooked:
                url = f"http://{_address(source.current.log_dir)}/github"
                github.ask(hook=url, secret=harness.WEBHOOK_SECRET)
            yield github, source.current.state_dir / "coordinator.db"
        github.close()


def _address(log_dir: Path) -> str:
    """Where the daemon says that it listens."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        with contextlib.suppress(FileNotFoundError):
            for line in (log_dir / "coordinator.jsonl").read_text().splitlines():
                event = json.loads(line)
                if event["event"] == "webhook listens":
                    return str(event["address"])
        time.sleep(0.02)  # the daemon is another process: its log is all that tells
    raise TimeoutError("the daemon does not listen")


def latencies(interval: float, *, hooked: bool) -> list[float]:
    """Milliseconds from the label to the worker's first line, one issue at a time."""
    found = []
    with stage(interval, hooked=hooked) as (github, database):
        for number in range(1, SINGLE + 1):
            # A pace that hints may keep up; polling is asked at moments anywhere in its interval.
            time.sleep(4.0 if hooked else interval * number / SINGLE)
            shown = github.ask(add=1)
            github.ask(wait=number)
            with Store.open_readonly(database) as store:
                (task,) = store.find_task(None, shown["numbers"][0])
                run_dir = Path(store.runs_of(task.task_id)[-1].run_dir)
            said = float((run_dir / "output.log").read_text().split()[0])
            found.append((said - float(shown["labelled_at"])) * 1000)
    return found[WARM:]


def measure() -> dict[str, float]:
    hooked, polled = latencies(POLL_SECONDS, hooked=True), latencies(5.0, hooked=False)
    return {
        "webhook_ms_median": statistics.median(hooked),
        "webhook_ms_max": max(hooked),
        "webhook_poll_ratio": statistics.median(polled) / statistics.median(hooked),
    }


if __name__ == "__main__":
    print(measure())
