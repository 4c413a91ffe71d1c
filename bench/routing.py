"""Routing decisions per second, with 10, 100 and 1,000 rules.

10,000 different tasks are decided by rules of every kind: about half of them lead by a rule. Rounds with few and many
rules alternate with a loop that calls an empty Python function; the ratio tells what a decision costs on any machine.
"Kept": the decision with its whole trace, which is written out when somebody looks. "Written": written out as
well, as for each run that is started. rule-engine gets the same rules in its own words and stops at the first that
matches; it makes no trace. LiteLLM's Router, too without one, chooses among 10 deployments in an environment of its
own under the cache folder, which is made the first time and needs a network for that.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from adw_modules.catalogue import CatalogueModel, parse_listing
from adw_modules.config import parse_settings
from adw_modules.routing import ModelRouter, Target
from adw_modules.routing.market import Knowledge
from adw_modules.routing.memory import Experience
from adw_modules.routing.picking import Picker
from adw_modules.routing.targets import SelectTarget
from adw_modules.tasks.model import ModelUsage, Outcome

TASKS = 10_000
WRITTEN = 500  # of them have their trace written out
SLOW = 200  # and as many are shown to rule-engine
ROUNDS = 5
SELECTED = 50  # tasks that a target is selected for
SAMPLE = Path(__file__).parents[1] / "tests" / "samples" / "openrouter-models.json"
LABELS = ("docs", "bug", "security", "ui", "api", "perf", "test", "build", "infra", "ops", "db", "i18n")
PRIORITIES = ("critical", "high", "normal", "low")
LITELLM = "litellm<=1.109.1"  # the newest that can be installed; 1.106.2 was, when it was last measured
Row = dict[str, Any]


def rules(count: int) -> list[tuple[Row, str]]:
    """Rules in both languages. Every kind of condition of the seeds, structured and as text."""
    draw = random.Random(1)
    found = []
    for number in range(count):
        condition, other = _condition(draw, number % 6)
        model = f"model-{number % 10}"
        found.append(({"name": f"rule-{number}", **condition, "provider": "p", "model": model}, other))
    return found


def _condition(draw: random.Random, kind: int) -> tuple[Row, str]:
    label, rank, hour, count = draw.choice(LABELS), draw.randrange(4), draw.randrange(24), draw.randrange(20)
    match kind:
        case 0:
            wanted = {"priority": PRIORITIES[rank], "labels": [label, "docs"], "retry_count": {"gte": 2}}
            other = f"priority == {rank} and ('{label}' in labels or 'docs' in labels) and retry_count >= 2"
            return {"conditions": wanted}, other
        case 1:
            text = f"priority == {rank} and labels contains '{label}' and hour >= {hour}"
            return {"condition": text}, f"priority == {rank} and '{label}' in labels and hour >= {hour}"
        case 2:
            wanted = {"repo": f"acme/{count}", "hour_range": [22, 6]}
            return {"conditions": wanted}, f"repo == 'acme/{count}' and (hour >= 22 or hour < 6)"
        case 3:
            text = f"provider_status['p{rank}'] == 'down' and retry_count > 0"
            return {"condition": text}, text
        case 4:
            text = f"task.id ends_with '{count:02}' and author == 'user{hour}'"
            return {"condition": text}, f"task.id.ends_with('{count:02}') and author == 'user{hour}'"
    text = f"body_length > {8000 - 100 * count} and title contains 'word{hour}'"
    return {"condition": text}, f"body_length > {8000 - 100 * count} and 'word{hour}' in title"


def tasks(count: int) -> list[Row]:
    draw = random.Random(2)
    return [
        {
            "priority": draw.choice(PRIORITIES), "labels": draw.sample(LABELS, draw.randrange(4)),
            "retry_count": draw.choice([0, 0, 0, 1, 2]), "hour": draw.randrange(24), "weekday": "mon",
            "repo": f"acme/{draw.randrange(20)}", "author": f"user{draw.randrange(24)}",
            "title": f"Mend word{draw.randrange(40)} now", "title_length": 14, "body_length": draw.randrange(9000),
            "created_age_hours": round(draw.random() * 100, 2), "failure_class": None, "last_provider": None,
            "last_model": None, "provider_status": {f"p{n}": "up" for n in range(4)},
            "task": {"id": f"gh-{number}", "number": number},
        }
        for number in range(count)
    ]  # fmt: skip


def per_second(action: Callable[[Any], object], values: Sequence[Any]) -> float:
    began = time.perf_counter()
    for value in values:
        action(value)
    return len(values) / (time.perf_counter() - began)


def nothing(_value: object) -> None:
    pass


def router(count: int) -> ModelRouter:
    defaults = {"default_provider": "p", "default_model": "model"}
    return ModelRouter(
        {"routing": {"enabled": True, "rules": [rule for rule, _ in rules(count)], **defaults}}
    )


def measure() -> dict[str, float]:
    given = tasks(TASKS)
    found: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for count in (10, 100, 1000):
            fresh = router(count)  # has seen no value yet: the first round is part of the work
            found.setdefault("empty_call", []).append(per_second(nothing, given))
            found.setdefault(f"kept_{count}", []).append(per_second(fresh.decide, given))
            written = per_second(lambda task, one=fresh: tuple(one.decide(task).trace), given[:WRITTEN])
            found.setdefault(f"written_{count}", []).append(written)
    figures = {name: statistics.median(rates) for name, rates in found.items()}
    ratios = {
        f"calls_{count}": statistics.median(
            e / k for e, k in zip(found["empty_call"][place::3], found[f"kept_{count}"], strict=True)
        )
        for place, count in enumerate((10, 100, 1000))
    }
    return {
        f"routing_{name}": rate for name, rate in {**figures, **ratios, **rule_engine(given)}.items()
    } | selections()


def rule_engine(given: list[Row]) -> dict[str, float]:
    """The same rules there, until the first that matches; and a check that it is the same rule."""
    import rule_engine as engine

    context = engine.Context(default_value=None)
    figures = {}
    for count in (10, 100, 1000):
        theirs = [engine.Rule(text, context=context) for _, text in rules(count)]
        ours = router(count)
        names = [rule.name for rule in ours.rules]

        def first(task: Row, theirs: list[Any] = theirs, names: list[str] = names) -> str | None:
            known = {**task, "priority": PRIORITIES.index(task["priority"])}
            return next((name for name, rule in zip(names, theirs, strict=True) if rule.matches(known)), None)

        few = given[: SLOW if count < 1000 else SLOW // 10]
        assert [first(task) for task in few] == [ours.choose(task).rule for task in few]
        figures[f"engine_{count}"] = per_second(first, few)
    return figures


# --- selections --------------------------------------------------------------------------------------------


def selections() -> dict[str, float]:
    """Milliseconds of one among 407 models of a recorded catalogue with 2,000 runs, each for another task.

    The floor, in the same rounds: the names of as many targets, sorted by a number.
    """
    models, known = _catalogue(), datetime(2026, 11, 21, 12, tzinfo=UTC)
    settings = parse_settings(
        '[providers.openrouter]\ncommand_template = ["openrouter-cli.py"]', source="bench"
    )
    knowledge = Knowledge(runs=_runs(list(models), known), catalogue=models, sync_id=1)
    picker = Picker(settings, lambda: knowledge)
    given, found = tasks(SELECTED), defaultdict[str, list[float]](list)
    targets = [Target("openrouter", name) for name in models]
    for _ in range(ROUNDS):
        for word, resolver in picker.resolvers.items():
            spec = SelectTarget(select=word, options={"require": ["tools"]})
            resolver(spec, given[0], known)  # the first works out all prices
            rate = per_second(lambda task, one=resolver, of=spec: one(of, task, known), given)
            found[f"select_{word}_ms"].append(1000 / rate)
        floor = per_second(lambda _: sorted((len(str(target)), str(target)) for target in targets), given)
        found["select_floor_ms"].append(1000 / floor)
    figures = {name: statistics.median(times) for name, times in found.items()}
    for word in picker.resolvers:
        pairs = zip(found[f"select_{word}_ms"], found["select_floor_ms"], strict=True)
        figures[f"select_{word}_floors"] = statistics.median(ours / floor for ours, floor in pairs)
    return {f"routing_{name}": value for name, value in figures.items()}


def _catalogue() -> dict[str, CatalogueModel]:
    rows = json.loads(SAMPLE.read_text())["data"]
    copies = [{**row, "id": f"{row['id']}-{copy}"} for copy in range(11) for row in rows]
    return {model.model_id: model for model in parse_listing({"data": copies}).models}


def _runs(models: list[str], now: datetime) -> list[Experience]:
    """Of twenty models, over a month."""
    draw = random.Random(3)
    return [
        Experience(
            target=Target("openrouter", models[17 * draw.randrange(20)]),
            outcome=draw.choice([Outcome.SUCCEEDED, Outcome.SUCCEEDED, Outcome.FAILED]),
            repo=f"acme/{draw.randrange(20)}",
            labels=tuple(draw.sample(LABELS, draw.randrange(3))),
            length=draw.randrange(4000),
            ended_at=now - timedelta(hours=number / 3),
            cost=Decimal(draw.randrange(1, 200)) / 100,
            duration=timedelta(minutes=draw.randrange(1, 60)),
            tokens=ModelUsage(input=draw.randrange(100_000), output=draw.randrange(10_000)),
        )
        for number in range(2000)
    ]


# --- LiteLLM -----------------------------------------------------------------------------------------------

_CHOOSING = """
import json, time
from litellm import Router
names = [{"model_name": "m", "litellm_params": {"model": "openai/m%d" % n, "api_key": "none"}} for n in range(10)]
router = Router(model_list=names)
messages = [{"role": "user", "content": "hello"}]
rates = []
for _ in range(5):
    began = time.perf_counter()
    for _ in range(2000):
        router.get_available_deployment(model="m", messages=messages)
    rates.append(2000 / (time.perf_counter() - began))
print(json.dumps(sorted(rates)[2]))
"""


def litellm() -> float:
    """Choices per second of its Router among 10 deployments, by its default strategy."""
    python = _environment()
    done = subprocess.run(
        [python, "-c", _CHOOSING], capture_output=True, text=True, check=True,
        env={**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
    )  # fmt: skip
    return float(json.loads(done.stdout.splitlines()[-1]))


def peer() -> dict[str, float]:
    """Its figure, or none where it cannot be installed."""
    try:
        return {"routing_litellm": litellm()}
    except subprocess.CalledProcessError:
        return {}


def _environment() -> str:
    """A Python that has LiteLLM; made on demand, kept for the next time."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "coordinator-bench"
    folder = cache / "litellm"
    python = str(folder / "bin" / "python")
    has_it = [python, "-c", "import litellm"]
    if not Path(python).exists() or subprocess.run(has_it, capture_output=True, check=False).returncode:
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", LITELLM], check=True)
    return python


if __name__ == "__main__":
    for name, value in (measure() | peer()).items():
        print(f"{name:<24} {value:>14,.1f}")
