"""Run by Alembic for each command: takes the connection that `manybridge.store.schema` has opened, inside its lock."""

from __future__ import annotations

from alembic import context

from manybridge.store.schema import VERSION_TABLE

context.configure(connection=context.config.attributes["connection"], version_table=VERSION_TABLE)
context.run_migrations()
