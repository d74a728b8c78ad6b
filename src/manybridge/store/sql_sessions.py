"""Sessions in SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Row, case, literal, select

from manybridge.store.records import SessionRecord, changed_settings
from manybridge.store.statements import Statements, from_text, insert, now, to_text
from manybridge.store.tables import resources, sessions

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection


class SqlSessions(Statements):
    """Implements `SessionStore`."""

    async def add_session(self, record: SessionRecord) -> bool:
        """See `SessionStore`."""
        own = self._in_scope(sessions, id=record.id)

        async def work(connection: AsyncConnection) -> bool:
            await self._end(connection, own & (sessions.c.expires_at <= now(connection)))
            added = (
                insert(connection, sessions).values(**self._session_values(connection, record)).on_conflict_do_nothing()
            )
            return (await connection.execute(added)).rowcount > 0

        return await self.database.write(work, f"save session {record.id}")

    async def save_sessions(self, records: Sequence[SessionRecord]) -> None:
        """See `SessionStore`."""

        async def work(connection: AsyncConnection) -> None:
            for record in sorted(records, key=lambda each: each.id):  # one order for all hosts: no deadlock
                values = self._session_values(connection, record)
                added = insert(connection, sessions).values(**values)
                new = added.excluded
                changes: dict[str, Any] = {
                    name: new[name] for name in values if name not in {"scope", "id", "created_at"}
                }
                lives = sessions.c.expires_at > now(connection)
                changes["settings"] = case((lives, sessions.c.settings), else_=new["settings"])
                changes["expires_at"] = _larger(sessions.c.expires_at, new["expires_at"])
                changes["calls"] = _larger(sessions.c.calls, new["calls"])
                await connection.execute(added.on_conflict_do_update(index_elements=["scope", "id"], set_=changes))

        if records:
            await self.database.write(work, f"save {len(records)} sessions")

    async def renew_sessions(self, records: Sequence[SessionRecord]) -> list[str]:
        """See `SessionStore`."""

        async def work(connection: AsyncConnection) -> list[str]:
            gone = []
            for record in sorted(records, key=lambda each: each.id):  # as above
                renewed = sessions.update().where(self._in_scope(sessions, id=record.id))
                until = now(connection) + record.expires_in
                changed = await connection.execute(
                    renewed.values(
                        expires_at=_larger(sessions.c.expires_at, until),
                        calls=_larger(sessions.c.calls, literal(record.calls)),
                    )
                )
                if not changed.rowcount:
                    gone.append(record.id)
            return gone

        return await self.database.write(work, f"renew {len(records)} sessions") if records else []

    async def begin_lease(self, id: str, seconds: float) -> bool:
        """See `SessionStore`."""

        async def work(connection: AsyncConnection) -> bool:
            lives = self._in_scope(sessions, id=id) & (sessions.c.expires_at > now(connection))
            begun = sessions.update().where(lives)
            values = {"lease_seconds": seconds, "expires_at": now(connection) + seconds}
            return (await connection.execute(begun.values(values))).rowcount > 0

        return await self.database.write(work, f"extend session {id}")

    async def change_settings(self, id: str, changes: Mapping[str, Any]) -> dict[str, Any] | None:
        """See `SessionStore`."""
        own = self._in_scope(sessions, id=id)

        async def work(connection: AsyncConnection) -> dict[str, Any] | None:
            # The row is locked where the database locks rows; SQLite has one writer anyway.
            query = select(sessions.c.settings).where(own, sessions.c.expires_at > now(connection)).with_for_update()
            row = (await connection.execute(query)).first()
            if row is None:
                return None
            settings = changed_settings(from_text(row.settings), changes)
            await connection.execute(sessions.update().where(own).values(settings=to_text(settings)))
            return settings

        return await self.database.write(work, f"save the settings of session {id}")

    async def get_session(self, id: str) -> SessionRecord | None:
        """See `SessionStore`."""
        found = await self._select(self._in_scope(sessions, id=id), f"read session {id}")
        return found[0] if found else None

    async def list_sessions(self) -> list[SessionRecord]:
        """See `SessionStore`."""
        return await self._select(self._in_scope(sessions), "list sessions")

    async def delete_session(self, id: str) -> bool:
        """See `SessionStore`."""

        async def work(connection: AsyncConnection) -> bool:
            return bool(await self._end(connection, self._in_scope(sessions, id=id)))

        return await self.database.write(work, f"delete session {id}")

    async def end_expired_session(self, id: str) -> bool:
        """See `SessionStore`."""
        own = self._in_scope(sessions, id=id)

        async def look(connection: AsyncConnection) -> bool:
            query = select(sessions.c.id).where(own, sessions.c.expires_at <= now(connection))
            return (await connection.execute(query)).first() is not None

        async def end(connection: AsyncConnection) -> bool:
            return bool(await self._end(connection, own & (sessions.c.expires_at <= now(connection))))

        # Most sessions that are asked for were never there, and need no write to find that out.
        if not await self.database.read(look, f"read session {id}"):
            return False
        return await self.database.write(end, f"end session {id}")

    async def end_expired_sessions(self) -> list[str]:
        """See `SessionStore`."""

        async def work(connection: AsyncConnection) -> list[str]:
            return await self._end(connection, self._in_scope(sessions) & (sessions.c.expires_at <= now(connection)))

        return await self.database.write(work, "end expired sessions")

    async def _end(self, connection: AsyncConnection, condition: ColumnElement[bool]) -> list[str]:
        ended = (await connection.execute(sessions.delete().where(condition).returning(sessions.c.id))).scalars().all()
        if ended:
            made_there = self._in_scope(resources) & resources.c.session.in_(ended)
            await connection.execute(resources.delete().where(made_there))
        return list(ended)

    async def _select(self, condition: ColumnElement[bool], doing: str) -> list[SessionRecord]:
        async def work(connection: AsyncConnection) -> list[SessionRecord]:
            left = (sessions.c.expires_at - now(connection)).label("expires_in")
            query = select(sessions, left).where(condition, sessions.c.expires_at > now(connection))
            rows = await connection.execute(query.order_by(sessions.c.created_at, sessions.c.id))
            return [_session(row) for row in rows]

        return await self.database.read(work, doing)

    def _session_values(self, connection: AsyncConnection, record: SessionRecord) -> dict[str, Any]:
        return {
            "scope": self._scope,
            "id": record.id,
            "affinity": record.affinity,
            "concurrency": record.concurrency,
            "lease_seconds": record.lease_seconds,
            "expires_at": now(connection) + record.expires_in,
            "settings": to_text(record.settings),
            "owner": record.owner,
            "created_at": record.created_at,
            "calls": record.calls,
        }


def _larger(one: ColumnElement[Any], other: ColumnElement[Any]) -> ColumnElement[Any]:
    return case((one > other, one), else_=other)


def _session(row: Row[*tuple[Any, ...]]) -> SessionRecord:
    return SessionRecord(
        id=row.id,
        affinity=row.affinity,
        concurrency=row.concurrency,
        lease_seconds=row.lease_seconds,
        expires_in=row.expires_in,
        settings=from_text(row.settings),
        owner=row.owner,
        created_at=row.created_at,
        calls=row.calls,
    )
