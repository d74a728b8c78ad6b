"""Living hosts in SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import and_, or_, select

from manybridge.store import liveness
from manybridge.store.records import HostRecord
from manybridge.store.statements import Statements, now, upsert
from manybridge.store.tables import hosts, resources

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection


FORGET_SECONDS: Final = 86_400.0
"""So long after the end of its lease the row of a host that was killed is deleted: nobody has to ask for it."""


class SqlHosts(Statements):
    """Implements `HostStore`. Hosts have no scope: whoever lives, lives for everybody."""

    async def announce_host(self, host: HostRecord, lease_seconds: float) -> None:
        """See `HostStore`."""

        async def work(connection: AsyncConnection) -> None:
            values = {
                "id": host.id,
                "machine": host.machine,
                "pid": host.pid,
                "started": host.started,
                "expires_at": now(connection) + lease_seconds,
            }
            await connection.execute(hosts.delete().where(hosts.c.expires_at < now(connection) - FORGET_SECONDS))
            await connection.execute(upsert(connection, hosts, values))

        await self.database.write(work, "announce this host")

    async def living_hosts(self) -> set[str]:
        """See `HostStore`."""

        async def work(connection: AsyncConnection) -> set[str]:
            rows = await connection.execute(select(hosts).where(hosts.c.expires_at > now(connection)))
            records = [HostRecord(id=row.id, machine=row.machine, pid=row.pid, started=row.started) for row in rows]
            return {each.id for each in records if not liveness.has_gone(each)}

        return await self.database.read(work, "list hosts")

    async def retire_host(self, id: str) -> None:
        """See `HostStore`."""

        async def work(connection: AsyncConnection) -> None:
            held = and_(resources.c.holder == id, or_(resources.c.policy != "pinned", ~resources.c.ready))
            await connection.execute(resources.delete().where(held, ~resources.c.ready))
            await connection.execute(resources.update().where(held).values(holder=None))
            await connection.execute(hosts.delete().where(hosts.c.id == id))

        await self.database.write(work, "retire this host")
