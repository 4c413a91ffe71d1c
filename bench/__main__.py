"""`make bench`: run every measurement and write bench/RESULTS.md."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path

from bench import (
    catalogue,
    claim,
    costs,
    idle,
    openrouter_cli,
    parser,
    pipeline,
    replay,
    restart,
    routing,
    routing_health,
    sandbox,
    shim,
    throughput,
    webhook,
)
from coordinator.clock import utc_now

Figures = dict[str, float]

# What is shown, where it comes from, how it is written, what it has to be, and whether it is.
ROWS: list[tuple[str, str, str, str, Callable[[float], bool]]] = [
    ("No-op runs, concurrency 8, ratio to the floor", "ratio", "{:.3f}", "≥ 0.10", lambda x: x >= 0.10),
    ("… the floor: bare asyncio subprocess of `true`, per second", "floor_per_second", "{:.0f}", "", bool),
    ("… runs per second, all bookkeeping and shim", "runs_per_second", "{:.0f}", "", bool),
    ("A shim's memory among 20, PSS, MB", "shim_pss_mb", "{:.1f}", "< 3", lambda x: x < 3),
    ("Committed claim to the agent's first instruction, median, ms", "claim_to_exec_ms_median", "{:.0f}", "< 25", lambda x: x < 25),
    ("… 95 % are below, ms", "claim_to_exec_ms_p95", "{:.0f}", "", bool),
    ("A sandbox adds to the start of a run, network as by default, median, ms", "sandbox_allow_list_added_ms", "{:.0f}", "< 50", lambda x: x < 50),
    ("… 95 % are below, ms", "sandbox_allow_list_added_ms_p95", "{:.0f}", "", bool),
    ("… processor time, ms", "sandbox_allow_list_added_cpu_ms", "{:.0f}", "", bool),
    ("… with the network open, median, ms", "sandbox_open_added_ms", "{:.0f}", "< 50", lambda x: x < 50),
    ("… processor time, ms", "sandbox_open_added_cpu_ms", "{:.0f}", "", bool),
    ("… a start without one, ms", "without_sandbox_ms", "{:.1f}", "", bool),
    ("20 issues to draft pull requests, concurrency 4, per second", "issues_per_second", "{:.1f}", "≥ 10", lambda x: x >= 10),
    ("Listing to the worker's first line, median, ms", "start_ms_median", "{:.0f}", "< 40", lambda x: x < 40),
    ("… slowest of ten, ms", "start_ms_max", "{:.0f}", "", bool),
    ("Label to the worker's first line by webhook, polls an hour apart, median, ms", "webhook_ms_median", "{:.0f}", "< 1000", lambda x: x < 1000),
    ("… slowest of six, ms", "webhook_ms_max", "{:.0f}", "", bool),
    ("… how much longer polling every 5 seconds takes, ratio of the medians", "webhook_poll_ratio", "{:.0f}", "", bool),
    ("Idle, 10 repositories: CPU, % of a core", "idle_cpu_percent", "{:.2f}", "< 0.3", lambda x: x < 0.3),
    ("Idle: resident memory, MB", "idle_rss_mb", "{:.0f}", "< 90", lambda x: x < 90),
    ("Idle: requests per repository and hour", "idle_requests_per_repository_and_hour", "{:.0f}", "≤ 120 + jitter", lambda x: x <= 180),
    ("Idle: answered 304 (no quota), %", "idle_requests_not_modified_percent", "{:.0f}", "100", lambda x: x == 100),
    ("`coordinator --help`, seconds", "help_seconds", "{:.2f}", "< 0.4", lambda x: x < 0.4),
    ("… ratio to a bare Python", "help_ratio", "{:.1f}", "", bool),
    ("`tools/openrouter-cli.py --help`, seconds", "openrouter_cli_help_seconds", "{:.2f}", "< 0.4", lambda x: x < 0.4),
    ("… from its start to its first request, seconds", "openrouter_cli_request_seconds", "{:.2f}", "< 0.4", lambda x: x < 0.4),
    ("Ready with 10,000 finished tasks, seconds", "ready_seconds", "{:.2f}", "< 2", lambda x: x < 2),
    ("Killed with 50 live runs and 10,000 ended tasks: the next daemon follows all, seconds", "restart_seconds", "{:.2f}", "< 2", lambda x: x < 2),
    ("… of that adoption: from its first line to the last run found, seconds", "adoption_seconds", "{:.2f}", "< 2", lambda x: x < 2),
    ("Following 50 live runs: CPU, % of a core", "following_cpu_percent", "{:.2f}", "< 3", lambda x: x < 3),
    ("Agent's last word to its settled run, work committed, median, ms", "settle_ms_median", "{:.0f}", "< 100", lambda x: x < 100),
    ("… slowest of twenty, ms", "settle_ms_max", "{:.0f}", "", bool),
    ("Snapshot and claim, 100,000 against 100 stored tasks, ratio", "claim_ratio", "{:.2f}", "< 1.5", lambda x: x < 1.5),
    ("… with 100,000 stored tasks, ms", "claim_many_ms", "{:.2f}", "", bool),
    ("Reading 200 MB of Claude's stream, ratio to `json.loads` of each line", "parser_ratio", "{:.2f}", "≥ 0.5", lambda x: x >= 0.5),
    ("… MB per second", "parser_mb_per_second", "{:.0f}", "", bool),
    ("… memory that grows with it, MB", "parser_rss_growth_mb", "{:.1f}", "< 20", lambda x: x < 20),
    ("Cost report by day and model over 100,000 usages, seconds", "cost_report_seconds", "{:.2f}", "< 1", lambda x: x < 1),
    ("… ratio to a bare SELECT of the same rows", "cost_report_ratio", "{:.1f}", "", bool),
    ("… as `coordinator costs --json`, the whole command, seconds", "cost_command_seconds", "{:.2f}", "", bool),
    ("Catalogue sync of 500 models, all new: CPU seconds", "catalogue_first_cpu_seconds", "{:.2f}", "< 1", lambda x: x < 1),
    ("… every price changed: CPU seconds", "catalogue_changed_cpu_seconds", "{:.2f}", "< 1", lambda x: x < 1),
    ("Routing decisions per second, 100 rules, trace kept whole", "routing_kept_100", "{:,.0f}", "> 50,000", lambda x: x > 50_000),
    ("… a decision in calls of an empty Python function", "routing_calls_100", "{:.0f}", "", bool),
    ("… trace written out as well, per second", "routing_written_100", "{:,.0f}", "", bool),
    ("… 10 rules, per second", "routing_kept_10", "{:,.0f}", "", bool),
    ("… 1,000 rules, per second", "routing_kept_1000", "{:,.0f}", "", bool),
    ("… a target selected as cheapest of 407 models", "routing_select_cheapest_ms", "{:.1f} ms", "", bool),
    ("… a target selected by experience of 407 models", "routing_select_adaptive_ms", "{:.1f} ms", "", bool),
    ("… in times that 407 names are sorted", "routing_select_adaptive_floors", "{:.0f}", "", bool),
    ("… rule-engine on the same 100 rules, without a trace, per second", "routing_engine_100", "{:,.0f}", "", bool),
    ("… LiteLLM's Router choosing among 10 deployments, without a trace, per second", "routing_litellm", "{:,.0f}", "", bool),
    ("Health event to a plan that heeds it, written down, 100 rules, median, ms", "health_ms_median", "{:.1f}", "< 10", lambda x: x < 10),
    ("… slowest of fifty, ms", "health_ms_max", "{:.1f}", "", bool),
    ("Replay of 10,000 recorded tasks with 100 rules: `coordinator route replay`, the whole command, seconds", "replay_command_seconds", "{:.2f}", "< 5", lambda x: x < 5),
    ("… of that deciding, per second", "replay_decisions_per_second", "{:,.0f}", "", bool),
    ("… ratio of the command to reading and parsing the same rows", "replay_ratio", "{:.1f}", "", bool),
]  # fmt: skip

HEAD = """\
# Measured

Written by `make bench` on {date}: 2 shared cores, Python {python}, SQLite with `synchronous=FULL`. Every figure is a
median of several rounds; floor and measurement of a ratio alternate in the same run. The machine is shared, so
compare ratios and orders of magnitude, not digits. What each row does is the docstring of its module in `bench/`.

| What | Measured | Wanted | |
|---|---|---|---|
"""


def measure() -> Figures:
    figures = throughput.measure()
    figures |= {f"claim_{name}": value for name, value in claim.measure().items()}
    figures |= shim.measure()
    figures |= sandbox.measure()
    figures |= pipeline.measure()
    figures |= webhook.measure()
    figures |= idle.measure()
    figures |= routing_health.measure()
    figures |= restart.measure()
    figures |= parser.measure()
    figures |= openrouter_cli.measure()
    figures |= costs.measure()
    figures |= catalogue.measure()
    figures |= routing.measure() | routing.peer()
    figures |= replay.measure()
    return figures


def table(figures: Figures) -> str:
    lines = []
    for what, key, form, wanted, is_met in ROWS:
        if key not in figures:  # of a peer that could not be installed
            lines.append(f"| {what} | not measured | {wanted} | |")
            continue
        mark = ("✓" if is_met(figures[key]) else "✗") if wanted else ""
        lines.append(f"| {what} | {form.format(figures[key])} | {wanted} | {mark} |")
    return "\n".join(lines)


def main() -> None:
    text = (
        HEAD.format(date=f"{utc_now():%Y-%m-%d}", python=platform.python_version()) + table(measure()) + "\n"
    )
    (Path(__file__).parent / "RESULTS.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
