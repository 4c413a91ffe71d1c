"""What Coordinator remembers. This face names all that other packages may use; SQL stays behind it."""

from coordinator.store.backup import Copy, Restored, back_up, restore
from coordinator.store.database import sqlite_file
from coordinator.store.records import (
    DAEMON,
    PAUSED,
    AlertRecord,
    ChangeRecord,
    DecidedRecord,
    Decision,
    DecisionRecord,
    EndedRun,
    EventRecord,
    OperatorRequest,
    OutboxItem,
    OutboxKind,
    OutboxState,
    ResearchRecord,
    Settlement,
    SyncRecord,
    SyncResult,
    TaskChange,
    Totals,
    Upserted,
)
from coordinator.store.statedir import StateDir, StatePaths
from coordinator.store.store import Store

__all__ = [
    "DAEMON",
    "PAUSED",
    "AlertRecord",
    "ChangeRecord",
    "Copy",
    "DecidedRecord",
    "Decision",
    "DecisionRecord",
    "EndedRun",
    "EventRecord",
    "OperatorRequest",
    "OutboxItem",
    "OutboxKind",
    "OutboxState",
    "ResearchRecord",
    "Restored",
    "Settlement",
    "StateDir",
    "StatePaths",
    "Store",
    "SyncRecord",
    "SyncResult",
    "TaskChange",
    "Totals",
    "Upserted",
    "back_up",
    "restore",
    "sqlite_file",
]
