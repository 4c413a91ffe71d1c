"""How soon a health event is in force: from the event to a plan that no longer uses the target, written down."""

from __future__ import annotations

import statistics
import time
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, cast

from adw_modules.config import parse_settings
from adw_modules.health import HealthEvent, HealthKind
from adw_modules.routing import ModelRouter, RoutingDecision
from adw_modules.tasks.planning import Dispatch, Limits, Supply, plan
from bench import harness
from coordinator.breakers import Breakers
from coordinator.clock import utc_now
from coordinator.services import Services
from coordinator.store import Store

ROUNDS, RULES = 50, 100
LIMITS = Limits(max_concurrent=3, max_runs_per_issue=15, max_tokens_per_issue=10**9, per_provider={})


def configuration() -> str:
    rules = "".join(
        f'[[routing.rules]]\ncondition = "retry_count >= 0"\ntarget = "p{n}/m"\n' for n in range(RULES)
    )
    providers = "".join(f'[providers.p{n}]\ncommand_template = ["true"]\n' for n in range(RULES))
    return f"[routing]\nenabled = true\n{rules}{providers}"


def measure() -> dict[str, float]:
    """Milliseconds from `note` to the finished plan, the commit in between. 100 rules, one provider each."""
    settings = parse_settings(configuration(), source="bench")
    router, taken = ModelRouter(settings), []
    with TemporaryDirectory() as folder, Store.open(Path(folder) / "c.db", now=utc_now()) as store:
        store.upsert_task(harness.request(1), name="gh-1", now=utc_now())
        shared: Any = SimpleNamespace(store=store, settings=settings, environ={}, now=utc_now)
        breakers = Breakers(cast("Services", shared), lambda: None)
        for number in range(ROUNDS):
            now = utc_now()
            began = time.perf_counter()
            breakers.note(limited(f"p{number}"))
            snapshot = store.snapshot(now=now, ready_limit=3, config_version="1")
            actions = plan(
                snapshot, limits=LIMITS, route=router.decide, supply=Supply(circuits=breakers.circuits)
            )
            taken.append((time.perf_counter() - began) * 1000)
            assert provider_of(actions) == f"p{number + 1}"
    return {"health_ms_median": statistics.median(taken), "health_ms_max": max(taken)}


def limited(provider: str) -> HealthEvent:
    until = utc_now() + timedelta(hours=1)
    return HealthEvent(
        provider=provider,
        model="m",
        kind=HealthKind.RATE_LIMITED,
        status=429,
        until=until,
        detail="",
        is_whole_run=True,
    )


def provider_of(actions: list[Any]) -> str:
    (action,) = actions
    assert isinstance(action, Dispatch)
    assert isinstance(action.decision, RoutingDecision)
    return action.decision.provider


if __name__ == "__main__":
    print(measure())
