"""Alembic's side of the store: `env.py` runs the files in `versions`, oldest first."""
