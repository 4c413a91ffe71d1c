"""OpenRouter's catalogue in our store: one sync, one research, and how OpenRouter is reached.

Owns what is done with an answer, for the daemon and for commands alike. When it is done is `catalogjobs.py`;
what an answer means is `adw_modules.catalogue`. A failure never costs what an earlier sync brought.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from adw_modules.catalogue.changes import Change, ChangeKind, compare
from adw_modules.catalogue.exclusion import exclusion
from adw_modules.catalogue.model import CatalogueModel
from adw_modules.catalogue.parsing import Listing, parse_listing
from adw_modules.catalogue.research import (
    CAPABILITY_MATRIX,
    Question,
    capability_matrix,
    digest,
    questions,
)
from adw_modules.catalogue.tariff import restored
from adw_modules.config import Settings
from adw_modules.errors import ConfigError
from adw_modules.providers import ProviderManager
from coordinator.logs import get_logger
from coordinator.store import ResearchRecord, Store, SyncResult

if TYPE_CHECKING:  # httpx costs a tenth of a second and is needed by few daemons
    from adw_modules.openrouter.directory import Directory
    from adw_modules.openrouter.wire import Attribution

log = get_logger()

DIALECT = "openrouter-cli"
PROGRAM = "openrouter-cli.py"
SHOWN_CHANGES = 20  # of each kind that have a line of their own in the log
SHOWN_PROBLEMS = 10
HOPELESS = frozenset({None, 401, 403})  # no answer, or a key that is refused: the next question ends the same


# --- how OpenRouter is reached ------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Where OpenRouter is, and the key for it; without one only the public lists can be read."""

    base_url: str
    key: str | None
    attribution: Attribution | None = None  # None: what the client says by itself

    def directory(self) -> Directory:
        """A connection of its own. Raises ConfigError for an address or a key that cannot be one."""
        from adw_modules.openrouter.directory import Directory

        try:
            return Directory(self.base_url, key=self.key, attribution=self.attribution)
        except ValueError as error:
            raise ConfigError(str(error)) from error


def openrouter_providers(settings: Settings) -> list[str]:
    """The configured providers that go to OpenRouter with our own agent, in the order of the file."""
    return [
        name
        for name, provider in settings.providers.items()
        if provider.agent == DIALECT or any(Path(word).name == PROGRAM for word in provider.command_template)
    ]


def is_wanted(settings: Settings, environ: Mapping[str, str], project_root: Path) -> bool:
    """Whether the daemon is to ask OpenRouter at all: it may, and a provider that needs it can be used."""
    if not settings.catalog.enabled:
        return False
    names = openrouter_providers(settings)
    if not names:
        return False
    manager = ProviderManager(settings, environ=environ, project_root=project_root)
    return any(manager.availability(name).available for name in names)


def access(settings: Settings, environ: Mapping[str, str]) -> Access:
    """As the first OpenRouter provider reaches it, or as the environment says where there is none."""
    from adw_modules.openrouter import wire

    provider = next((settings.providers[name] for name in openrouter_providers(settings)), None)
    seen = {**environ, **(provider.env if provider else {})}
    variable = (provider.api_key_env if provider else None) or wire.KEY_VARIABLE
    try:
        base_url = wire.base_url(seen)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    told = settings.openrouter
    return Access(
        base_url=base_url,
        key=environ.get(variable, "").strip() or None,
        attribution=wire.Attribution(
            app_name=told.app_name, app_url=told.app_url, categories=tuple(told.categories)
        ),
    )


# --- one sync -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Synced:
    """What came of one sync. `problem` is the sentence when it failed."""

    sync_id: int
    at: datetime
    result: SyncResult
    models: int
    is_first: bool = False
    changes: tuple[Change, ...] = ()
    problems: tuple[str, ...] = ()  # rows that were left out
    problem: str | None = None

    @property
    def counts(self) -> dict[str, int]:
        """How many models changed, by the kind of change; those that did not occur are 0."""
        found = Counter(change.kind for change in self.changes)
        return {kind.value: found[kind] for kind in ChangeKind}


async def sync(store: Store, directory: Directory, *, now: Callable[[], datetime]) -> Synced:
    """Read the catalogue and make it ours; only asked for, when it is still the one we have.

    What goes wrong outside is in the result; StoreError is raised.
    """
    from adw_modules.openrouter.directory import DirectoryError

    before, last = store.catalogue(), store.last_sync(good=True)
    etag = last.etag if last is not None and before else None
    try:
        answer = await directory.models(etag=etag)
        if answer.is_unchanged:
            at = now()
            sync_id = store.catalogue_unchanged(etag=etag, now=at)
            return Synced(sync_id=sync_id, at=at, result=SyncResult.UNCHANGED, models=len(before))
        listing = await asyncio.to_thread(parse_listing, answer.data)  # tens of milliseconds
        if not listing.models:
            first = listing.problems[0] if listing.problems else "It lists no model."
            raise DirectoryError(f"The catalogue has no row that can be used. {first}")
    except DirectoryError as error:
        return _failed(store, str(error), now(), len(before))
    at = now()
    models, changes, keep = await asyncio.to_thread(_differences, listing, before, at)
    sync_id = store.take_catalogue(
        models,
        changes=changes,
        keep=keep,
        # A list with rows that could not be read is asked for again: a newer version may read them.
        etag=None if listing.problems else answer.etag,
        left_out=len(listing.problems),
        now=at,
    )
    return Synced(
        sync_id=sync_id,
        at=at,
        result=SyncResult.SYNCED,
        models=len(models),
        is_first=not before,
        changes=changes,
        problems=listing.problems,
    )


def _failed(store: Store, problem: str, at: datetime, models: int) -> Synced:
    sync_id = store.catalogue_failed(problem, now=at)
    return Synced(sync_id=sync_id, at=at, result=SyncResult.FAILED, models=models, problem=problem)


def _differences(
    listing: Listing, before: Mapping[str, CatalogueModel], at: datetime
) -> tuple[dict[str, CatalogueModel], tuple[Change, ...], frozenset[str]]:
    """The models as they are to be kept, what changed, and which missing ones stay all the same."""
    models = {model.model_id: _with_base_price(model, before, at) for model in listing.models}
    missing = before.keys() - models.keys()
    keep = frozenset(missing & listing.unread if listing.is_complete else missing)
    return models, tuple(compare(before, models, keep=keep)) if before else (), keep


def _with_base_price(
    model: CatalogueModel, before: Mapping[str, CatalogueModel], at: datetime
) -> CatalogueModel:
    old = before.get(model.model_id)
    return replace(model, pricing=restored(model.pricing, old.pricing if old else None, at))


def tell(synced: Synced) -> None:
    """One line about the sync, and one for each model that came, went or has another price, within bounds."""
    if synced.result is SyncResult.FAILED:
        log.warning("catalogue not synced; the last one stays in force", error=synced.problem)
        return
    log.info(
        "catalogue synced",
        models=synced.models,
        unchanged=synced.result is SyncResult.UNCHANGED,
        left_out=len(synced.problems),
        **synced.counts,
    )
    if synced.problems:
        log.warning(
            "rows of the catalogue left out",
            rows=len(synced.problems),
            problems=list(synced.problems[:SHOWN_PROBLEMS]),
        )
    _tell_each(synced, ChangeKind.NEW, "model is new")
    _tell_each(synced, ChangeKind.GONE, "model is gone")
    _tell_each(synced, ChangeKind.PRICE, "model has another price")


def _tell_each(synced: Synced, kind: ChangeKind, event: str) -> None:
    found = [change for change in synced.changes if change.kind is kind]
    for change in found[:SHOWN_CHANGES]:
        told = {"before": change.before, "after": change.after}
        log.info(event, model_id=change.model_id, **{key: text for key, text in told.items() if text})
    if len(found) > SHOWN_CHANGES:
        more = len(found) - SHOWN_CHANGES
        log.info(
            "more models changed", kind=kind.value, models=more, next="`coordinator catalog diff` has all"
        )


# --- one research -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Researched:
    """What came of one research: answers by source, and the models that are new since the last one."""

    at: datetime
    answers: int
    problems: tuple[str, ...]
    new: tuple[str, ...]


async def research(
    store: Store, directory: Directory, *, has_key: bool, now: Callable[[], datetime]
) -> Researched:
    """Ask for rankings and benchmarks, note what every model can do, and which models are new.

    The catalogue is to be synced before. A question without an answer costs only that answer.
    """
    since = store.last_research_at()
    records = await _asked(directory, now()) if has_key else [_without_key(now())]
    models = store.catalogue()
    at = records[0].at
    matrix = ResearchRecord(
        at=at, source=CAPABILITY_MATRIX, problem=None, data=capability_matrix(models.values())
    )
    new = [] if since is None else store.models_new_since(since)
    worth_telling = [each for each in new if exclusion(models[each], at.date()) is None]
    store.add_research([*records, matrix], {each: models[each].name for each in worth_telling})
    problems = tuple(record.problem for record in records if record.problem)
    return Researched(
        at=at, answers=len(records) - len(problems), problems=problems, new=tuple(worth_telling)
    )


async def _asked(directory: Directory, at: datetime) -> Sequence[ResearchRecord]:
    from adw_modules.openrouter.directory import DirectoryError

    records: list[ResearchRecord] = []
    for question in questions():
        try:
            records.append(await _answer(directory, question, at))
        except DirectoryError as error:
            records.append(ResearchRecord(at=at, source=question.source, problem=str(error), data=None))
            if error.status in HOPELESS:
                break
    return records


async def _answer(directory: Directory, question: Question, at: datetime) -> ResearchRecord:
    answer = await directory.get(question.path, params=question.params)
    found = digest(question, answer.data)
    problem = f"{question.path} answered nothing that can be used." if found is None else None
    return ResearchRecord(at=at, source=question.source, problem=problem, data=found)


def _without_key(at: datetime) -> ResearchRecord:
    problem = "Rankings need an API key of OpenRouter, and none is set."
    return ResearchRecord(at=at, source="rankings", problem=problem, data=None)


def tell_research(researched: Researched) -> None:
    """One line about the research, and one alert for all models that it found new."""
    log.info("models researched", answers=researched.answers, new=len(researched.new))
    if researched.problems:
        log.warning(
            "research is not complete",
            failed=len(researched.problems),
            problems=list(dict.fromkeys(researched.problems))[:SHOWN_PROBLEMS],
        )
    if researched.new:
        log.info("new models to look at", models=list(researched.new[: 5 * SHOWN_CHANGES]))
