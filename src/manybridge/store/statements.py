"""What the statements of every kind of record share: JSON as text, the database's clock, inserts that may find one."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import ColumnElement, Double, Table, and_, cast, extract, func, select
from sqlalchemy.dialects import postgresql, sqlite

from manybridge.store import liveness
from manybridge.store.database import Database
from manybridge.store.records import HostRecord
from manybridge.store.tables import hosts

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

_UNIX_EPOCH: Final = 2440587.5
"""As a Julian day."""


class Statements:
    """Base of the parts of `SqlStore`: the database, and the scope that it is opened for."""

    def __init__(self, database: Database, scope: str) -> None:
        self.database = database
        self._scope = scope

    def _in_scope(self, table: Table, **values: Any) -> ColumnElement[bool]:
        return and_(table.c.scope == self._scope, *(table.c[name] == value for name, value in values.items()))


def to_text(value: Any) -> str | None:
    """JSON for a column; None stays NULL. ASCII only, so that lone surrogates and NUL characters pass any database."""
    return None if value is None else json.dumps(value, separators=(",", ":"))


def values_of(record: Any, json_fields: Collection[str]) -> dict[str, Any]:
    """The fields of a record as columns. Not `asdict`, which copies a state of a megabyte before it is written."""
    return {
        name: to_text(getattr(record, name)) if name in json_fields else getattr(record, name)
        for name in type(record).__dataclass_fields__
    }


def from_text(text: str | None) -> Any:
    """What `to_text` was given."""
    return None if text is None else json.loads(text)


def now(connection: AsyncConnection) -> ColumnElement[float]:
    """Unix seconds by the clock of the database: hosts on several machines need not agree on the time."""
    return _now(connection.dialect.name)


@cache
def _now(dialect: str) -> ColumnElement[float]:
    # Made once, as below: it is in most statements.
    if dialect == "sqlite":
        return (func.julianday("now") - _UNIX_EPOCH) * 86400.0
    return cast(extract("epoch", func.clock_timestamp()), Double)


def insert(connection: AsyncConnection, table: Table) -> postgresql.Insert | sqlite.Insert:
    """An insert that can say what happens on a conflict; both databases spell it the same way."""
    return sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)


@cache
def insert_new(dialect: str, table: Table) -> postgresql.Insert | sqlite.Insert:
    """Insert the row that is given as parameters, unless its key is taken.

    Made once: to build a statement with 16 columns and find its compiled form takes three times as long as to run it.
    """
    statement = sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)
    return statement.on_conflict_do_nothing()


def upsert(connection: AsyncConnection, table: Table, values: Mapping[str, Any]) -> postgresql.Insert | sqlite.Insert:
    """Insert a row, or replace the values of the one with the same primary key."""
    key = [column.name for column in table.primary_key]
    statement = insert(connection, table).values(**values)
    return statement.on_conflict_do_update(
        index_elements=key, set_={name: statement.excluded[name] for name in values if name not in key}
    )


async def is_living(connection: AsyncConnection, id: str | None) -> bool:
    """Whether a host lives; the row of one that is known to be dead is deleted on the way."""
    if id is None:
        return False
    found = await connection.execute(
        select(hosts, (hosts.c.expires_at > now(connection)).label("leased")).where(hosts.c.id == id)
    )
    row = found.first()
    if row is None or not row.leased:
        return False
    if liveness.has_gone(HostRecord(id=row.id, machine=row.machine, pid=row.pid, started=row.started)):
        await connection.execute(hosts.delete().where(hosts.c.id == id))
        return False
    return True
