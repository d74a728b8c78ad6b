"""Idempotency keys in SQL."""

from __future__ import annotations

from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import ColumnElement, Row, select

from manybridge.store.records import KeyRecord
from manybridge.store.statements import Statements, from_text, insert, is_living, now, to_text
from manybridge.store.tables import hosts, keys

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

LONGEST_CALL: Final = 86_400.0
"""Seconds after which the key of a call whose host has gone is swept away, where nobody asked for it again."""


SWEEP_SECONDS: Final = 60.0
"""How often a host deletes keys that are over. Who asks for one of those begins anew, whether it is still there or not.
"""


class SqlKeys(Statements):
    """Implements `KeyStore`."""

    _swept = -inf
    """When keys that are over were last deleted, monotonic."""

    async def begin_key(self, record: KeyRecord) -> tuple[KeyRecord, bool]:
        """See `KeyStore`."""
        own = self._in_scope(keys, bridge=record.bridge, key=record.key)
        begun = {"fingerprint": record.fingerprint, "host": record.host, "done": False, "result": None}
        whole = begun | {"scope": self._scope, "bridge": record.bridge, "key": record.key}

        async def work(connection: AsyncConnection) -> tuple[KeyRecord, bool]:
            if monotonic() - self._swept > SWEEP_SECONDS:
                self._swept = monotonic()
                await connection.execute(keys.delete().where(_is_over(connection)))
            added = insert(connection, keys).values(**whole, expires_at=now(connection) + LONGEST_CALL)
            if (await connection.execute(added.on_conflict_do_nothing())).rowcount > 0:
                return record, True
            query = select(keys, _is_over(connection).label("is_over")).where(own).with_for_update()
            row = (await connection.execute(query)).one()
            found = _key(row)
            if not row.is_over and (found.done or await is_living(connection, found.host)):
                return found, False
            await connection.execute(
                keys.update().where(own).values(**begun, expires_at=now(connection) + LONGEST_CALL)
            )
            return record, True

        return await self.database.write(work, f"reserve idempotency key {record.key}")

    async def finish_key(self, record: KeyRecord, keep_seconds: float) -> bool:
        """See `KeyStore`."""
        own = self._in_scope(keys, bridge=record.bridge, key=record.key, host=record.host)

        async def work(connection: AsyncConnection) -> bool:
            values = {"done": True, "result": to_text(record.result), "expires_at": now(connection) + keep_seconds}
            done = await connection.execute(keys.update().where(own, ~keys.c.done).values(**values))
            return done.rowcount > 0

        return await self.database.write(work, f"keep the result of idempotency key {record.key}")

    async def drop_key(self, bridge: str, key: str, host: str) -> None:
        """See `KeyStore`."""
        own = self._in_scope(keys, bridge=bridge, key=key, host=host)

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(keys.delete().where(own, ~keys.c.done))

        await self.database.write(work, f"forget idempotency key {key}")


def _is_over(connection: AsyncConnection) -> ColumnElement[bool]:
    nobodys = keys.c.done | keys.c.host.not_in(select(hosts.c.id).where(hosts.c.expires_at > now(connection)))
    return (keys.c.expires_at <= now(connection)) & nobodys


def _key(row: Row[*tuple[Any, ...]]) -> KeyRecord:
    return KeyRecord(
        bridge=row.bridge,
        key=row.key,
        fingerprint=row.fingerprint,
        done=row.done,
        result=from_text(row.result),
        host=row.host,
    )
