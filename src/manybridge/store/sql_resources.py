"""Resources in SQL."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, Double, Row, Text, bindparam, func, null, select

from manybridge.store.records import Execution, ResourceRecord
from manybridge.store.statements import Statements, from_text, insert_new, is_living, now, to_text, values_of
from manybridge.store.tables import resources

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

_JSON = ("config", "state")

# The statements of each create and each execution, made once; see `insert_new`.
_OWN = (
    resources.c.scope == bindparam("own_scope", type_=Text),
    resources.c.bridge == bindparam("own_bridge", type_=Text),
    resources.c.id == bindparam("own_id", type_=Text),
)
_READ = select(resources).where(*_OWN, resources.c.ready)
_LOCK = select(resources).where(*_OWN).with_for_update()
_CLAIM = resources.update().where(*_OWN).values(holder=bindparam("new_holder", type_=Text), fence=resources.c.fence + 1)
_SAVE = (
    resources.update()
    .where(
        *_OWN,
        resources.c.holder == bindparam("own_holder", type_=Text),
        resources.c.fence == bindparam("own_fence", type_=BigInteger),
    )
    .values(
        state=bindparam("new_state", type_=Text),
        version=resources.c.version + 1,
        executions=resources.c.executions + bindparam("more", type_=BigInteger),
        last_executed=func.coalesce(bindparam("at", type_=Double), resources.c.last_executed),
    )
    .returning(resources.c.version)
)


class SqlResources(Statements):
    """Implements `ResourceStore`."""

    async def add_resource(self, record: ResourceRecord) -> bool:
        """See `ResourceStore`."""
        values, own = self._resource_values(record), self._key(record.bridge, record.id)

        async def work(connection: AsyncConnection) -> bool:
            if (await connection.execute(insert_new(connection.dialect.name, resources), values)).rowcount > 0:
                return True
            row = (await connection.execute(_LOCK, own)).first()
            if row is None or row.ready or await is_living(connection, row.holder):
                return False  # row None: deleted a moment ago, which its caller can't tell from a moment later
            await connection.execute(resources.update().where(*_OWN).values(**values), own)
            return True

        return await self.database.write(work, f"record resource {record.id}")

    async def confirm_resource(self, reserved: ResourceRecord, record: ResourceRecord) -> bool:
        """See `ResourceStore`."""
        own = self._in_scope(
            resources,
            bridge=reserved.bridge,
            id=reserved.id,
            created_at=reserved.created_at,
            holder=reserved.holder,
            ready=False,
        )
        values = self._resource_values(replace(record, ready=True))

        async def work(connection: AsyncConnection) -> bool:
            return (await connection.execute(resources.update().where(own).values(**values))).rowcount > 0

        return await self.database.write(work, f"record resource {record.id}")

    async def abandon_resource(self, record: ResourceRecord) -> None:
        """See `ResourceStore`."""
        own = self._in_scope(resources, bridge=record.bridge, id=record.id, created_at=record.created_at, ready=False)

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(resources.delete().where(own))

        await self.database.write(work, f"give back the id of resource {record.id}")

    async def get_resource(self, bridge: str, id: str) -> ResourceRecord | None:
        """See `ResourceStore`."""
        own = self._key(bridge, id)

        async def work(connection: AsyncConnection) -> ResourceRecord | None:
            row = (await connection.execute(_READ, own)).first()
            return None if row is None else _resource(row)

        return await self.database.read(work, f"read resource {id}")

    async def list_resources(
        self, *, bridge: str | None = None, type: str | None = None, session: str | None = None
    ) -> list[ResourceRecord]:
        """See `ResourceStore`."""
        columns = [column for column in resources.c if column.name != "state"]
        query = select(*columns, null().label("state")).where(self._in_scope(resources), resources.c.ready)
        if bridge is not None:
            query = query.where(resources.c.bridge == bridge)
        if type is not None:
            query = query.where(resources.c.type == type)
        query = query.where(resources.c.session.is_(None) | (resources.c.session == session))

        async def work(connection: AsyncConnection) -> list[ResourceRecord]:
            rows = await connection.execute(query.order_by(resources.c.created_at, resources.c.id))
            return [_resource(row) for row in rows]

        return await self.database.read(work, "list resources")

    async def claim_resource(self, bridge: str, id: str, host: str) -> ResourceRecord | None:
        """See `ResourceStore`."""
        own = self._key(bridge, id)

        async def work(connection: AsyncConnection) -> ResourceRecord | None:
            row = (await connection.execute(_LOCK, own)).first()
            if row is None or not row.ready:
                return None
            if row.holder != host and await is_living(connection, row.holder):
                return _resource(row)
            await connection.execute(_CLAIM, own | {"new_holder": host})
            return replace(_resource(row), holder=host, fence=row.fence + 1)

        return await self.database.write(work, f"claim resource {id}")

    async def save_state(
        self, bridge: str, id: str, *, host: str, fence: int, state: Any, executions: int, last_executed: float | None
    ) -> int | None:
        """See `ResourceStore`."""
        values = self._key(bridge, id) | {
            "own_holder": host,
            "own_fence": fence,
            "new_state": to_text(state),
            "more": executions,
            "at": last_executed,
        }

        async def work(connection: AsyncConnection) -> int | None:
            version: int | None = (await connection.execute(_SAVE, values)).scalar()
            return version

        return await self.database.write(work, f"keep the state of resource {id}")

    async def release_resources(self, host: str, keys: Collection[tuple[str, str]] | None = None) -> None:
        """See `ResourceStore`."""
        held = self._in_scope(resources, holder=host) & (resources.c.policy != "pinned") & resources.c.ready
        free = resources.update().values(holder=None)

        async def work(connection: AsyncConnection) -> None:
            if keys is None:
                await connection.execute(free.where(held))
            for bridge, id in sorted(keys or ()):  # one order for all hosts: no deadlock
                await connection.execute(free.where(held, resources.c.bridge == bridge, resources.c.id == id))

        if keys is None or keys:
            await self.database.write(work, "release resources")

    async def add_executions(self, executions: Sequence[Execution]) -> None:
        """See `ResourceStore`."""

        async def work(connection: AsyncConnection) -> None:
            for each in sorted(executions, key=lambda one: (one.bridge, one.id)):
                values = {"executions": resources.c.executions + each.count, "last_executed": each.last_executed}
                own = self._in_scope(resources, bridge=each.bridge, id=each.id)
                await connection.execute(resources.update().where(own).values(**values))

        if executions:
            await self.database.write(work, "count executions")

    async def delete_resource(self, bridge: str, id: str) -> bool:
        """See `ResourceStore`."""
        own = self._in_scope(resources, bridge=bridge, id=id) & resources.c.ready

        async def work(connection: AsyncConnection) -> bool:
            return (await connection.execute(resources.delete().where(own))).rowcount > 0

        return await self.database.write(work, f"delete resource {id}")

    async def delete_resources(self, bridge: str | None, session: str | None) -> list[tuple[str, str]]:
        """See `ResourceStore`."""
        doomed = self._in_scope(resources) & resources.c.ready
        doomed &= resources.c.session.is_(None) if session is None else resources.c.session == session
        if bridge is not None:
            doomed &= resources.c.bridge == bridge
        statement = resources.delete().where(doomed).returning(resources.c.bridge, resources.c.id)

        async def work(connection: AsyncConnection) -> list[tuple[str, str]]:
            return [(row.bridge, row.id) for row in await connection.execute(statement)]

        return await self.database.write(work, "delete resources")

    async def prune_resources(
        self, older_than: float, *, bridge: str | None = None, dry_run: bool = False
    ) -> list[tuple[str, str]]:
        """See `ResourceStore`."""
        used_at = func.coalesce(resources.c.last_executed, resources.c.created_at)

        async def work(connection: AsyncConnection) -> list[tuple[str, str]]:
            old = self._in_scope(resources) & resources.c.ready & (used_at <= now(connection) - older_than)
            if bridge is not None:
                old &= resources.c.bridge == bridge
            columns = (resources.c.bridge, resources.c.id, resources.c.holder)
            rows = (await connection.execute(select(*columns).where(old).order_by(used_at, resources.c.id))).all()
            living = {id: await is_living(connection, id) for id in sorted({row.holder for row in rows if row.holder})}
            found = [(row.bridge, row.id) for row in rows if not living.get(row.holder, False)]
            if not dry_run:
                for each, id in found:
                    own = self._in_scope(resources, bridge=each, id=id)
                    await connection.execute(resources.delete().where(own, old))  # unless it was executed just now
            return found

        return await self.database.write(work, "delete old resources")

    def _key(self, bridge: str, id: str) -> dict[str, Any]:
        return {"own_scope": self._scope, "own_bridge": bridge, "own_id": id}

    def _resource_values(self, record: ResourceRecord) -> dict[str, Any]:
        return values_of(record, _JSON) | {"scope": self._scope}


def _resource(row: Row[*tuple[Any, ...]]) -> ResourceRecord:
    values = dict(row._mapping)
    del values["scope"]
    return ResourceRecord(**values | {name: from_text(values[name]) for name in _JSON})
