"""Finds of the secret scan that keep a task from being published, and those that an operator lets pass.

Owns the record of both for each task. A permission is for one find: one value at one place of one object, so
that it says nothing about any other. Values that we know as secrets get none. Must not scan or push.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime

from adw_modules.errors import CoordinatorError
from adw_modules.security.admission import AuditRecord, Decided
from adw_modules.security.leaks import Leak
from adw_modules.tasks.lifecycle import Event, advance
from adw_modules.tasks.model import Task, TaskState
from coordinator.store import Store

SHOWN = 12  # characters of a key that name a find
MOST_KEPT = 200  # finds of one task, newest look
MOST_REASON = 500  # characters


@dataclass(frozen=True, slots=True, kw_only=True)
class Find:
    """One find, without its value."""

    key: str
    rule: str
    place: str
    line: int | None
    shape: str

    @property
    def name(self) -> str:
        return self.key[:SHOWN]

    @property
    def leak(self) -> Leak:
        return Leak(rule=self.rule, place=self.place, line=self.line)


@dataclass(frozen=True, slots=True, kw_only=True)
class Passed:
    """A find that an operator lets pass, and why."""

    find: Find
    reason: str
    at: str  # ISO 8601


@dataclass(frozen=True, slots=True, kw_only=True)
class Finds:
    """What the newest look found, of which run, and all that was ever let pass."""

    token: int = 0
    head: str = ""
    open: tuple[Find, ...] = ()
    passed: tuple[Passed, ...] = field(default=())

    @property
    def allowed(self) -> frozenset[str]:
        return frozenset(each.find.key for each in self.passed)


def get(store: Store, task: Task) -> Finds:
    text = store.get_state(_key(task))
    if text is None:
        return Finds()
    raw = json.loads(text)
    passed = (Passed(**{**each, "find": Find(**each["find"])}) for each in raw["passed"])
    found = tuple(Find(**each) for each in raw["open"])
    return Finds(token=raw["token"], head=raw["head"], open=found, passed=tuple(passed))


def put(store: Store, task: Task, head: str, leaks: Sequence[Leak]) -> None:
    """Remember what keeps that commit from being pushed; what was let pass stays."""
    found = tuple(
        Find(key=each.key, rule=each.rule, place=each.place, line=each.line, shape=each.shape)
        for each in leaks[:MOST_KEPT]
    )
    known = get(store, task)
    _save(store, task, Finds(token=task.token, head=head, open=found, passed=known.passed))


def chosen(known: Finds, name: str) -> Find:
    """The find that an operator means. Raises CoordinatorError: there is none, or it may never pass."""
    found = [each for each in known.open if name and each.key.startswith(name.lower())]
    if len(found) != 1:
        names = ", ".join(each.name for each in known.open) or "none"
        raise CoordinatorError(f"There is no find {name[:64]!r}; there are: {names}.")
    if found[0].leak.is_known:
        raise CoordinatorError(
            f"{found[0].name} is {found[0].leak}: what Coordinator knows as a secret is never let pass. "
            "Take it out of the branch and its history, and replace the key."
        )
    return found[0]


def allow(store: Store, task: Task, name: str, reason: str, *, config_version: str, now: datetime) -> str:
    """Let one find of the blocked task pass, and publish anew when it was the last. What came of it."""
    known = get(store, task)
    if task.state is not TaskState.BLOCKED or known.token != task.token or not known.open:
        return f"{task.name} is not blocked by a find of the secret scan"
    if not reason.strip():
        return "say with --reason why this is no secret; nothing was changed"
    try:
        find = chosen(known, name)
    except CoordinatorError as error:
        return str(error)
    passed = Passed(find=find, reason=" ".join(reason.split())[:MOST_REASON], at=now.isoformat())
    left = tuple(each for each in known.open if each is not find)
    with store.together():
        _save(
            store,
            task,
            Finds(token=known.token, head=known.head, open=left, passed=(*known.passed, passed)),
        )
        store.add_decision(_record(find, passed, known.head, config_version), task_id=task.task_id, now=now)
        if not left:
            _publish_again(store, task, now)
    if left:
        return f"{find.name} may pass; {len(left)} more keep {task.name} from being published"
    return f"{find.name} may pass; {task.name} is looked through again and published"


def _publish_again(store: Store, task: Task, now: datetime) -> None:
    store.transition(
        task.task_id,
        expected=TaskState.BLOCKED,
        state=advance(TaskState.BLOCKED, Event.APPROVED),
        cause=None,
        wake_at=None,
        now=now,
        outbox=("pull_request", "report"),
    )


def _record(find: Find, passed: Passed, head: str, config_version: str) -> AuditRecord:
    return AuditRecord(
        decision=Decided.APPROVED.value,
        reason=f"the operator lets {find.leak} pass: {passed.reason}",
        config_version=config_version,
        details={"find": find.key, "head": head},
    )


def _save(store: Store, task: Task, finds: Finds) -> None:
    store.set_state(_key(task), json.dumps(asdict(finds)))


def _key(task: Task) -> str:
    return f"finds:{task.task_id}"
