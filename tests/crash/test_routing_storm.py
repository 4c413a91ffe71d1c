"""Killed at random while failover, a budget, an experiment and a selection decide where tasks go."""

from __future__ import annotations

import random
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import storm
from stage import FREE, Stage
from storm import Storm
from world import WRITE

from adw_modules.tasks.model import Outcome, Run
from coordinator.demo import agent

ISSUES, KILLS = 24, 8
TOKENS = 90_000  # the budget: enough for about half of the tasks
FLAKY, STEADY = {"provider": "flaky", "model": "haiku"}, {"provider": "claude-cli", "model": "opus"}
FAILED = frozenset({Outcome.FAILED, Outcome.RATE_LIMITED})
MOVED = FREE | FAILED | {Outcome.OVER_BUDGET}

# Of the prompts, a third is refused by a rate limit, a third by a server error, a third is worked on.
_FLAKY = """
import importlib.util, io, sys, zlib

def main(arguments):
    spec = importlib.util.spec_from_file_location("scripted_agent", {program!r})
    agent = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(agent)
    prompt = sys.stdin.buffer.read()
    refusals = (b"[[agent: api-error 429]]", b"[[agent: api-error 500]]", b"")
    sys.stdin = io.TextIOWrapper(io.BytesIO(refusals[zlib.crc32(prompt) % 3] + prompt))
    return agent.main(arguments)
"""


def a_model(name: str, provider: str, cost: float) -> dict[str, Any]:
    price = {"cost_per_million_input": cost, "cost_per_million_output": 5 * cost}
    return {"name": name, "provider": provider, **price}


def routing_config(folder: Path) -> dict[str, Any]:
    """Every way leads to the flaky provider first or to the steady one; each has the other to go on with."""
    flaky = folder / "flaky.py"
    flaky.write_text(_FLAKY.format(program=str(Path(agent.__file__).resolve())))
    witness = str(Path(__file__).with_name("witness.py"))
    command = [sys.executable, "-I", witness, str(folder), str(flaky), "--model", "{model}"]
    return {
        **storm.CONFIG,
        "providers.flaky": {"agent": "claude", "command_template": command},
        "models": [a_model("haiku", "flaky", 1), a_model("opus", "claude-cli", 5)],
        "routing": {
            "enabled": True,
            "default_provider": "claude-cli",
            "default_model": "opus",
            "rules": [{"name": "thrifty", "target": {"select": "cheapest"}}],
        },
        "experiments": [
            {
                "name": "halves",
                "share": 0.5,
                "arms": [
                    {**FLAKY, "name": "f", "fallbacks": ["claude-cli/opus"]},
                    {**STEADY, "name": "s"},
                ],
            }
        ],
        "budgets": [{"name": "all", "tokens": TOKENS, "per": "total"}],
        # More than a run takes: what is put aside holds the line also while no daemon is there to count.
        "budget_estimates": {"tokens": 9000, "min_runs": 1000},
        # Whoever goes back to what has just failed waits longer than this test does.
        "retries": {"base_delay_seconds": 600, "max_delay_seconds": 900, "max_lost_runs": 1000},
    }


class RoutingStorm(Storm):
    def _directives(self) -> Iterator[str]:
        yield f"[[agent: slow {self.dice.uniform(0.1, 1.2):.1f}]]"
        yield WRITE

    def all_runs(self) -> list[list[Run]]:
        return [self.stage.runs(number, repo) for repo, number in self.issues]

    def spent(self) -> Counter[int]:
        """Tokens by run, of all that have ended or are counted so far."""
        runs = [run for of_task in self.all_runs() for run in of_task]
        return Counter({run.run_id: self.stage.store.usage_of(run.run_id).total.total for run in runs})

    def is_stuck_at_the_budget(self) -> bool:
        states = {task.state.value for repo, n in self.issues if (task := self.stage.task(n, repo))}
        return states == {"succeeded", "blocked"} and not self.stage.live()


@pytest.mark.crash
@pytest.mark.timeout(120)
def test_killed_daemons_keep_the_budget_and_ask_no_failed_target_twice(a_stage, tmp_path) -> None:
    stage: Stage = a_stage(**routing_config(tmp_path))
    weather = RoutingStorm(stage, random.Random(storm.seed()))
    for kill in range(KILLS):
        weather.add_issues(ISSUES * (kill + 1) // KILLS - len(weather.issues))
        stage.start_process()
        weather.live_a_little(weather.dice.uniform(0.7, 1.5))
        weather.end_daemon(signal.SIGKILL)
    stage.start_process()
    stage.until(weather.is_stuck_at_the_budget, "the budget is used up")
    spent = weather.spent()
    print(f"{spent.total():,} tokens of {TOKENS:,} in {len(spent)} runs")
    assert spent.total() <= TOKENS

    stage.config["budgets"] = [{"name": "all", "tokens": 20 * TOKENS, "per": "total"}]
    stage.write_config()
    weather.calm_down(patience=30)
    for repo, number in weather.issues:
        stage.check_task(number, repo, besides=MOVED)
    stage.check_quiet()
    check_ways(weather.all_runs())


def check_ways(of_tasks: list[list[Run]]) -> None:
    """No target failed a task twice, each task stayed in its arm, and all that was to be mixed was."""
    for runs in of_tasks:
        failed = [(run.provider, run.model) for run in runs if run.outcome in FAILED]
        assert len(set(failed)) == len(failed), failed
        arms = {run.rule for run in runs if run.rule and run.rule.startswith("experiment")}
        assert len(arms) <= 1, arms
    seen = [run for runs in of_tasks for run in runs]
    outcomes, rules = Counter(run.outcome for run in seen), Counter(run.rule for run in seen)
    print(dict(outcomes), dict(rules))
    assert outcomes[Outcome.SUCCEEDED] == ISSUES
    assert FAILED & set(outcomes), "or nothing has failed over"
    assert "thrifty" in rules
    assert {"experiment halves: f", "experiment halves: s"} & set(rules)
