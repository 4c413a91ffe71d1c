"""Statements on the circuits of providers. Each function works inside the caller's transaction."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, fields

from sqlalchemy import Connection, bindparam, insert, select, update

from adw_modules.routing.circuits import Circuit, Key
from coordinator.store.tables import provider_health as table

_COLUMNS = tuple(table.c[field.name] for field in fields(Circuit))
_ALL = select(*_COLUMNS)
_CHANGE = update(table).where(
    table.c.provider == bindparam("at_provider"), table.c.model == bindparam("at_model")
)
_INSERT = insert(table)


def circuits(conn: Connection) -> dict[Key, Circuit]:
    found = (Circuit(**row) for row in conn.execute(_ALL).mappings())
    return {circuit.key: circuit for circuit in found}


def save(conn: Connection, changed: Iterable[Circuit]) -> None:
    for circuit in changed:
        values = asdict(circuit)
        at = {"at_provider": circuit.provider, "at_model": circuit.model}
        if conn.execute(_CHANGE, {**values, **at}).rowcount == 0:
            conn.execute(_INSERT, values)
