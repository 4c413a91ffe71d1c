"""What Coordinator remembers. This face names all that other packages may use; SQL stays behind it."""

from coordinator.store.backup import Copy, Restored, back_up, restore
from coordinator.store.database import sqlite_file
from coordinator.store.records import (
    DAEMON,
    PAUSED,
    Decision,
    DecisionRecord,
    EventRecord,
    OperatorRequest,
    OutboxItem,
    OutboxKind,
    OutboxState,
    Settlement,
    TaskChange,
    Totals,
    Upserted,
)
from coordinator.store.statedir import StateDir, StatePaths
from coordinator.store.store import Store

__all__ = [
    "DAEMON",
    "PAUSED",
    "Copy",
    "Decision",
    "DecisionRecord",
    "EventRecord",
    "OperatorRequest",
    "OutboxItem",
    "OutboxKind",
    "OutboxState",
    "Restored",
    "Settlement",
    "StateDir",
    "StatePaths",
    "Store",
    "TaskChange",
    "Totals",
    "Upserted",
    "back_up",
    "restore",
    "sqlite_file",
]
