"""Statements on what was decided and what came of it, for experiments and replays.

Works inside the caller's transaction; writes nothing. Newest first where there is a limit.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Text, bindparam, select, type_coerce

from adw_modules.routing.experiments import arm_name
from adw_modules.routing.replay import DISABLED, History, Recorded
from adw_modules.routing.trace import Target
from adw_modules.routing.trials import TrialRun
from coordinator.store.tables import routing_decisions, runs, tasks

MOST_HISTORY = 50_000  # ended runs, the newest, that estimates rest on

_TRACE = type_coerce(routing_decisions.c.trace, Text()).label("trace")
_DECIDED = (
    select(
        tasks.c.name,
        runs.c.provider,
        runs.c.model,
        runs.c.rule,
        runs.c.outcome,
        runs.c.cost_usd,
        runs.c.claimed_at,
        _TRACE,
    )
    .select_from(runs.join(routing_decisions).join(tasks, runs.c.task_id == tasks.c.task_id))
    .order_by(runs.c.run_id.desc())
)
_SINCE = runs.c.claimed_at >= bindparam("at_since", type_=runs.c.claimed_at.type)
_ENDED = (
    select(runs.c.provider, runs.c.model, runs.c.outcome, runs.c.cost_usd)
    .where(runs.c.finished_at.is_not(None))
    .order_by(runs.c.run_id.desc())
    .limit(MOST_HISTORY)
)
_IN_AN_ARM = select(runs.c.task_id).where(runs.c.rule.startswith(bindparam("at_arms"), autoescape=False))
_OF_TRIALS = (
    select(
        runs.c.task_id,
        runs.c.attempt,
        runs.c.rule,
        runs.c.outcome,
        runs.c.started_at,
        runs.c.claimed_at,
        runs.c.finished_at,
        runs.c.cost_usd,
        tasks.c.state,
        tasks.c.wake_at,
        _TRACE,
    )
    .select_from(runs.join(routing_decisions).join(tasks, runs.c.task_id == tasks.c.task_id))
    .where(runs.c.task_id.in_(_IN_AN_ARM))
    .order_by(runs.c.run_id)
)


def decided(conn: Connection, since: datetime | None, limit: int | None) -> Iterator[Recorded]:
    """The decisions that led to runs. A live one is among them, without an outcome."""
    statement = _DECIDED if since is None else _DECIDED.where(_SINCE)
    for row in conn.execute(statement.limit(limit), {} if since is None else {"at_since": since}):
        trace = json.loads(row.trace)
        kept = trace if isinstance(trace, dict) else {}
        yield Recorded(
            task=row.name,
            target=Target(row.provider, row.model),
            rule=row.rule,
            attrs=kept.get("attrs"),
            refused=_refused(kept.get("targets") or ()),
            outcome=row.outcome,
            cost=row.cost_usd,
            at=row.claimed_at,
        )


def _refused(targets: Any) -> dict[str, str]:
    """What could not be used then. Whether a provider is enabled is for the new file to say."""
    return {
        each["target"]: each["why"]
        for each in targets
        if each["eligible"] is False and each["why"] != DISABLED
    }


def history(conn: Connection) -> dict[Target, History]:
    """What the newest ended runs say of their targets."""
    found: dict[Target, History] = {}
    for row in conn.execute(_ENDED):
        found.setdefault(Target(row.provider, row.model), History()).add(row.outcome, row.cost_usd)
    return found


def trial_runs(conn: Connection, experiment: str) -> Iterator[TrialRun]:
    """All runs of the tasks that were ever in an arm of it, oldest first."""
    for row in conn.execute(_OF_TRIALS, {"at_arms": arm_name(experiment, "")}):
        yield TrialRun(
            task_id=row.task_id,
            state=row.state,
            is_parked=row.wake_at is None,
            attempt=row.attempt,
            arm=_arm(row.trace, experiment) if row.rule else None,
            outcome=row.outcome,
            began=row.started_at or row.claimed_at,
            ended=row.finished_at,
            cost=row.cost_usd,
        )


def _arm(trace: str, experiment: str) -> str | None:
    """The arm that the run was given by this experiment, and not only named after."""
    kept = json.loads(trace)
    drawn = kept.get("experiments") or () if isinstance(kept, dict) else ()
    return next(
        (each["arm"] for each in drawn if each["experiment"] == experiment and each["assigned"]), None
    )
