"""Statements on the catalogue of models: syncs, models, prices with their dates, changes, research, alerts.

Each function works inside the caller's transaction. What a row means is decided in `adw_modules.catalogue`.
A price is never overwritten: another one ends it, and it stays for the runs that were charged by it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import fields
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, Row, bindparam, func, insert, select, update

from adw_modules.catalogue.book import PriceRecord
from adw_modules.catalogue.changes import Change
from adw_modules.catalogue.model import Benchmarks, Capabilities, CatalogueModel
from adw_modules.catalogue.rankings import RunResult
from adw_modules.catalogue.tariff import from_terms, terms
from adw_modules.money.quotes import PriceSource
from adw_modules.routing import Target
from adw_modules.routing.memory import Experience
from adw_modules.tasks.model import ModelUsage
from coordinator.store.records import AlertRecord, ChangeRecord, ResearchRecord, SyncRecord, SyncResult
from coordinator.store.tables import (
    catalog_alerts,
    catalog_changes,
    catalog_models,
    catalog_prices,
    catalog_research,
    catalog_syncs,
    runs,
    tasks,
    usage,
)

_KINDS = tuple(field.name for field in fields(ModelUsage))
_SYNC = tuple(catalog_syncs.c[field.name] for field in fields(SyncRecord))
_ADD_SYNC = insert(catalog_syncs).returning(catalog_syncs.c.sync_id)
_LAST_SYNC = select(*_SYNC).order_by(catalog_syncs.c.sync_id.desc()).limit(1)
_LAST_GOOD_SYNC = _LAST_SYNC.where(catalog_syncs.c.result != SyncResult.FAILED)
_LAST_CHANGING_SYNC = _LAST_SYNC.where(catalog_syncs.c.result == SyncResult.SYNCED)
_OPEN_PRICE = catalog_prices.c.ended_at.is_(None)
_LISTED = (
    select(catalog_models, catalog_prices.c.terms, catalog_prices.c.alias_target)
    .join_from(catalog_models, catalog_prices)
    .where(catalog_models.c.gone_at.is_(None), _OPEN_PRICE)
)
_KNOWN_IDS = select(catalog_models.c.model_id)
_ADD_MODEL = insert(catalog_models)
_CHANGE_MODEL = update(catalog_models).where(catalog_models.c.model_id == bindparam("at_model"))
_SEEN_MODELS = update(catalog_models).where(catalog_models.c.gone_at.is_(None))
_ADD_PRICE = insert(catalog_prices)
_END_PRICE = update(catalog_prices).where(_OPEN_PRICE)
_SEEN_PRICES = update(catalog_prices).where(_OPEN_PRICE)
_PRICES = (
    select(catalog_prices)
    .where(catalog_prices.c.model_id == bindparam("at_model"))
    .order_by(catalog_prices.c.valid_from)
)
_ADD_CHANGE = insert(catalog_changes)
_CHANGES = select(catalog_changes).order_by(catalog_changes.c.change_id)
_ADD_RESEARCH = insert(catalog_research)
_LAST_RESEARCH_AT = select(func.max(catalog_research.c.at))
_RESEARCH_AT = (
    select(
        catalog_research.c.at, catalog_research.c.source, catalog_research.c.problem, catalog_research.c.data
    )
    .where(catalog_research.c.at == bindparam("at_time", type_=catalog_research.c.at.type))
    .order_by(catalog_research.c.research_id)
)
_ADD_ALERT = insert(catalog_alerts)
_OPEN_ALERTS = (
    select(catalog_alerts.c.alert_id, catalog_alerts.c.at, catalog_alerts.c.model_id, catalog_alerts.c.text)
    .where(catalog_alerts.c.told_at.is_(None))
    .order_by(catalog_alerts.c.alert_id)
)
_TELL_ALERT = update(catalog_alerts).where(catalog_alerts.c.alert_id == bindparam("at_alert"))
_NEW_SINCE = select(catalog_models.c.model_id).where(
    catalog_models.c.first_seen_at > bindparam("at_since", type_=catalog_models.c.first_seen_at.type),
    catalog_models.c.gone_at.is_(None),
)
_NEWEST = (
    select(runs.c.run_id)
    .where(
        runs.c.finished_at >= bindparam("at_since", type_=runs.c.finished_at.type),
        runs.c.outcome.is_not(None),
    )
    .order_by(runs.c.finished_at.desc(), runs.c.run_id.desc())
    .limit(bindparam("at_most"))
)
_EXPERIENCE = (
    select(
        runs.c.provider,
        runs.c.model,
        runs.c.outcome,
        runs.c.started_at,
        runs.c.finished_at,
        runs.c.cost_usd,
        runs.c.price_source,
        tasks.c.repo,
        tasks.c.labels,
        (func.length(tasks.c.snapshot_title) + func.length(tasks.c.snapshot_body)).label("length"),
        *(func.sum(usage.c[kind]).label(f"of_{kind}") for kind in _KINDS),
    )
    .select_from(runs.join(tasks, runs.c.task_id == tasks.c.task_id).outerjoin(usage))
    .where(runs.c.run_id.in_(_NEWEST))
    .group_by(runs.c.run_id, tasks.c.task_id)
    .order_by(runs.c.finished_at.desc(), runs.c.run_id.desc())
)
_LAST_END = select(func.max(runs.c.finished_at))
_RESULTS = select(
    runs.c.provider, runs.c.model, runs.c.outcome, runs.c.started_at, runs.c.finished_at, runs.c.cost_usd
).where(runs.c.finished_at >= bindparam("at_since", type_=runs.c.finished_at.type))


# --- syncs --------------------------------------------------------------------------------------


def add_sync(
    conn: Connection,
    at: datetime,
    result: SyncResult,
    *,
    etag: str | None = None,
    models: int | None = None,
    left_out: int | None = None,
    problem: str | None = None,
) -> int:
    values = {
        "at": at,
        "result": result,
        "etag": etag,
        "models": models,
        "left_out": left_out,
        "problem": problem,
    }
    sync_id: int = conn.execute(_ADD_SYNC, values).scalar_one()
    return sync_id


def last_sync(conn: Connection, *, good: bool) -> SyncRecord | None:
    row = conn.execute(_LAST_GOOD_SYNC if good else _LAST_SYNC).mappings().one_or_none()
    return SyncRecord(**row) if row else None


def last_changing_sync(conn: Connection) -> SyncRecord | None:
    row = conn.execute(_LAST_CHANGING_SYNC).mappings().one_or_none()
    return SyncRecord(**row) if row else None


# --- models and prices --------------------------------------------------------------------------


def listed(conn: Connection) -> dict[str, CatalogueModel]:
    return {row.model_id: _model_of(row) for row in conn.execute(_LISTED)}


def take(
    conn: Connection,
    sync_id: int,
    at: datetime,
    models: Mapping[str, CatalogueModel],
    *,
    before: Mapping[str, CatalogueModel],
    keep: Collection[str],
) -> None:
    """Make `models` the catalogue; of `before`, those that are not in `keep` are gone."""
    gone = [each for each in before if each not in models and each not in keep]
    known = set(conn.execute(_KNOWN_IDS).scalars())
    _many(conn, _CHANGE_MODEL, [{"at_model": each, "gone_at": at} for each in gone])
    _many(conn, _ADD_MODEL, [_first(each, at) for each in models.values() if each.model_id not in known])
    back = [
        each
        for each in models.values()
        if each.model_id in known and not _same_facts(before.get(each.model_id), each)
    ]
    _many(
        conn, _CHANGE_MODEL, [{"at_model": each.model_id, "gone_at": None, **_facts(each)} for each in back]
    )
    repriced = [each for each in models.values() if _terms_changed(before.get(each.model_id), each)]
    ended = [*gone, *(each.model_id for each in repriced if each.model_id in before)]
    conn.execute(_END_PRICE.where(catalog_prices.c.model_id.in_(ended)), {"ended_at": at})
    _many(conn, _ADD_PRICE, [_price(each, sync_id, at) for each in repriced])
    seen_all_but(conn, at, [each for each in before if each in keep and each not in models])


def seen_all_but(conn: Connection, at: datetime, unseen: Collection[str] = ()) -> None:
    """Every listed model and its price were there at this moment, except these."""
    models, prices = _SEEN_MODELS, _SEEN_PRICES
    if unseen:
        models = models.where(catalog_models.c.model_id.not_in(unseen))
        prices = prices.where(catalog_prices.c.model_id.not_in(unseen))
    conn.execute(models, {"last_seen_at": at})
    conn.execute(prices, {"valid_to": at})


def price_history(conn: Connection, model_id: str) -> list[PriceRecord]:
    return [
        PriceRecord(
            model_id=row.model_id,
            valid_from=row.valid_from,
            valid_to=row.valid_to,
            ended_at=row.ended_at,
            sync_id=row.sync_id,
            pricing=from_terms(row.terms),
            alias_target=row.alias_target,
        )
        for row in conn.execute(_PRICES, {"at_model": model_id})
    ]


def new_since(conn: Connection, since: datetime) -> list[str]:
    return sorted(conn.execute(_NEW_SINCE, {"at_since": since}).scalars())


def _many(conn: Connection, statement: Any, rows: list[dict[str, Any]]) -> None:
    if rows:
        conn.execute(statement, rows)


def _same_facts(old: CatalogueModel | None, new: CatalogueModel) -> bool:
    return old is not None and (old == new or _facts(old) == _facts(new))


def _terms_changed(old: CatalogueModel | None, new: CatalogueModel) -> bool:
    if old is None or old.alias_target != new.alias_target:
        return True
    return old.pricing != new.pricing and terms(old.pricing) != terms(new.pricing)


def _facts(model: CatalogueModel) -> dict[str, Any]:
    return {
        "canonical_slug": model.canonical_slug,
        "name": model.name,
        "family": model.family,
        "created_at": model.created_at,
        "expires_on": None if model.expires_on is None else model.expires_on.isoformat(),
        "tokenizer": model.tokenizer,
        "context_limit": model.context_limit,
        "max_output": model.max_output,
        "capabilities": model.capabilities.names,
        "benchmarks": {
            each.name: str(value)
            for each in fields(Benchmarks)
            if (value := getattr(model.benchmarks, each.name)) is not None
        },
    }


def _first(model: CatalogueModel, at: datetime) -> dict[str, Any]:
    return {"model_id": model.model_id, "first_seen_at": at, "last_seen_at": at, **_facts(model)}


def _price(model: CatalogueModel, sync_id: int, at: datetime) -> dict[str, Any]:
    return {
        "model_id": model.model_id,
        "sync_id": sync_id,
        "valid_from": at,
        "valid_to": at,
        "alias_target": model.alias_target,
        "terms": terms(model.pricing),
    }


def _model_of(row: Row[Any]) -> CatalogueModel:
    return CatalogueModel(
        model_id=row.model_id,
        canonical_slug=row.canonical_slug,
        name=row.name,
        family=row.family,
        created_at=row.created_at,
        expires_on=None if row.expires_on is None else date.fromisoformat(row.expires_on),
        tokenizer=row.tokenizer,
        alias_target=row.alias_target,
        context_limit=row.context_limit,
        max_output=row.max_output,
        capabilities=Capabilities(**{f"supports_{name}": True for name in row.capabilities}),
        pricing=from_terms(row.terms),
        benchmarks=Benchmarks(**{name: Decimal(score) for name, score in row.benchmarks.items()}),
    )


# --- changes, research, alerts ------------------------------------------------------------------


def add_changes(conn: Connection, sync_id: int, at: datetime, changes: Iterable[Change]) -> None:
    rows = [
        {
            "sync_id": sync_id,
            "at": at,
            "kind": each.kind,
            "model_id": each.model_id,
            "before": each.before,
            "after": each.after,
        }
        for each in changes
    ]
    _many(conn, _ADD_CHANGE, rows)


def changes(conn: Connection, *, sync_id: int | None, since: datetime | None) -> list[ChangeRecord]:
    wanted = _CHANGES
    if sync_id is not None:
        wanted = wanted.where(catalog_changes.c.sync_id == sync_id)
    if since is not None:
        wanted = wanted.where(catalog_changes.c.at >= since)
    return [
        ChangeRecord(
            sync_id=row.sync_id,
            at=row.at,
            change=Change(kind=row.kind, model_id=row.model_id, before=row.before, after=row.after),
        )
        for row in conn.execute(wanted)
    ]


def add_research(conn: Connection, records: Iterable[ResearchRecord]) -> None:
    rows = [
        {"at": each.at, "source": each.source, "problem": each.problem, "data": each.data} for each in records
    ]
    _many(conn, _ADD_RESEARCH, rows)


def last_research_at(conn: Connection) -> datetime | None:
    at: datetime | None = conn.execute(_LAST_RESEARCH_AT).scalar_one()
    return at


def latest_research(conn: Connection) -> list[ResearchRecord]:
    at = last_research_at(conn)
    rows = conn.execute(_RESEARCH_AT, {"at_time": at}).mappings() if at is not None else ()
    return [ResearchRecord(**row) for row in rows]


def add_alerts(conn: Connection, at: datetime, texts: Mapping[str, str]) -> None:
    _many(conn, _ADD_ALERT, [{"at": at, "model_id": each, "text": text} for each, text in texts.items()])


def open_alerts(conn: Connection) -> list[AlertRecord]:
    return [AlertRecord(**row) for row in conn.execute(_OPEN_ALERTS).mappings()]


def alerts_told(conn: Connection, alert_ids: Iterable[int], at: datetime, error: str | None) -> None:
    _many(conn, _TELL_ALERT, [{"at_alert": each, "told_at": at, "error": error} for each in alert_ids])


# --- our own runs -------------------------------------------------------------------------------


def run_results(conn: Connection, since: datetime) -> list[RunResult]:
    return [
        RunResult(
            provider=row.provider,
            model=row.model,
            outcome=row.outcome,
            duration=None if row.started_at is None else row.finished_at - row.started_at,
            cost=row.cost_usd,
        )
        for row in conn.execute(_RESULTS, {"at_since": since})
        if row.outcome is not None
    ]


def last_end(conn: Connection) -> datetime | None:
    at: datetime | None = conn.execute(_LAST_END).scalar_one()
    return at


def experience(
    conn: Connection, since: datetime, most: int, is_shown: Callable[[str], bool]
) -> list[Experience]:
    return [
        Experience(
            target=Target(row.provider, row.model),
            outcome=row.outcome,
            ended_at=row.finished_at,
            duration=None if row.started_at is None else row.finished_at - row.started_at,
            cost=Decimal(0) if row.price_source is PriceSource.SUBSCRIPTION else row.cost_usd,
            tokens=_used(row[-len(_KINDS) :]),
            repo=row.repo,
            labels=tuple(label for label in row.labels if is_shown(label)),
            length=row.length,
        )
        for row in conn.execute(_EXPERIENCE, {"at_since": since, "at_most": most})
    ]


def _used(counts: Sequence[Any]) -> ModelUsage | None:
    return None if counts[0] is None else ModelUsage(**dict(zip(_KINDS, map(int, counts), strict=True)))
