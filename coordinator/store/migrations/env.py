"""Runs the migrations on the connection and inside the transaction that `schema.upgrade` hands over."""

from __future__ import annotations

from alembic import context

from coordinator.store.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
