"""What Coordinator remembers. This face names all that other packages may use; SQL stays behind it."""

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
    "Decision",
    "DecisionRecord",
    "EventRecord",
    "OperatorRequest",
    "OutboxItem",
    "OutboxKind",
    "OutboxState",
    "Settlement",
    "StateDir",
    "StatePaths",
    "Store",
    "TaskChange",
    "Totals",
    "Upserted",
]
