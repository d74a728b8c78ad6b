"""The store in a database, SQLite or PostgreSQL. Importing this imports SQLAlchemy; see `manybridge.store.opening`."""

from __future__ import annotations

from manybridge.store.database import Database
from manybridge.store.schema import schema_version
from manybridge.store.sql_hosts import SqlHosts
from manybridge.store.sql_jobs import SqlJobs
from manybridge.store.sql_keys import SqlKeys
from manybridge.store.sql_resources import SqlResources
from manybridge.store.sql_sessions import SqlSessions
from manybridge.store.urls import StoreUrl


class SqlStore(SqlJobs, SqlResources, SqlSessions, SqlKeys, SqlHosts):
    """Implements `Store`, behind `LazyStore`."""

    async def read_schema(self) -> str | None:
        """See `Store`."""
        return await self.database.read(lambda connection: connection.run_sync(schema_version), "read the schema")

    async def close(self) -> None:
        """See `Store`."""
        await self.database.close()


async def look_at(url: StoreUrl) -> str | None:
    """Return the version of a database's schema, and change nothing; None where it has none yet.

    Raises:
        StoreError: it can't be opened, or is of a newer release, or holds something else.
    """
    database = Database(url)
    try:
        await database.open(upgrades=False)
        return await database.read(lambda connection: connection.run_sync(schema_version), "read the schema")
    finally:
        await database.close()


async def open_sql_store(url: StoreUrl, scope: str) -> SqlStore:
    """Connect, and bring the schema up to ours.

    Raises:
        StoreError: it can't be opened.
    """
    database = Database(url)
    await database.open()
    return SqlStore(database, scope)
