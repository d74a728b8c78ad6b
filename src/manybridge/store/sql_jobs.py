"""Jobs and their events in SQL."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row, select
from sqlalchemy.exc import IntegrityError

from manybridge.store.records import JobEvent, JobRecord
from manybridge.store.statements import Statements, from_text, insert, now, to_text, upsert, values_of
from manybridge.store.tables import job_events, jobs

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

_JSON = ("args", "progress", "result", "error")


class SqlJobs(Statements):
    """Implements `JobStore`."""

    async def save_job(self, record: JobRecord) -> None:
        """See `JobStore`."""
        values = values_of(record, _JSON) | {"scope": self._scope}

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(upsert(connection, jobs, values))

        await self.database.write(work, f"save job {record.id}")

    async def get_job(self, id: str) -> JobRecord | None:
        """See `JobStore`."""

        async def work(connection: AsyncConnection) -> JobRecord | None:
            found = await connection.execute(select(jobs).where(self._in_scope(jobs, id=id)))
            row = found.first()
            return None if row is None else _job(row)

        return await self.database.read(work, f"read job {id}")

    async def list_jobs(
        self, *, bridge: str | None = None, states: Collection[str] | None = None, limit: int = 1000
    ) -> list[JobRecord]:
        """See `JobStore`."""
        query = select(jobs).where(self._in_scope(jobs))
        if bridge is not None:
            query = query.where(jobs.c.bridge == bridge)
        if states is not None:
            query = query.where(jobs.c.state.in_(list(states)))
        query = query.order_by(jobs.c.created_at.desc(), jobs.c.id.desc()).limit(limit)

        async def work(connection: AsyncConnection) -> list[JobRecord]:
            return [_job(row) for row in reversed((await connection.execute(query)).all())]

        return await self.database.read(work, "list jobs")

    async def delete_job(self, id: str) -> bool:
        """See `JobStore`."""

        async def work(connection: AsyncConnection) -> bool:
            return (await connection.execute(jobs.delete().where(self._in_scope(jobs, id=id)))).rowcount > 0

        return await self.database.write(work, f"delete job {id}")

    async def prune_jobs(self, older_than: float, *, bridge: str | None = None, dry_run: bool = False) -> list[str]:
        """See `JobStore`."""

        async def work(connection: AsyncConnection) -> list[str]:
            old = self._in_scope(jobs) & (jobs.c.finished_at <= now(connection) - older_than)
            if bridge is not None:
                old &= jobs.c.bridge == bridge
            found = await connection.execute(select(jobs.c.id).where(old).order_by(jobs.c.finished_at, jobs.c.id))
            ids = list(found.scalars())
            if not dry_run:
                await connection.execute(jobs.delete().where(old))
            return ids

        return await self.database.write(work, "delete old jobs")

    async def append_events(self, job_id: str, events: Sequence[JobEvent]) -> None:
        """See `JobStore`."""
        if not events:
            return
        own = {"scope": self._scope, "job_id": job_id}
        rows = [own | {"seq": each.seq, "event": each.event, "data": to_text(each.data) or "null"} for each in events]

        async def work(connection: AsyncConnection) -> None:
            known = await connection.execute(select(jobs.c.id).where(self._in_scope(jobs, id=job_id)))
            if known.first() is None:
                return
            try:
                async with connection.begin_nested():
                    await connection.execute(insert(connection, job_events).on_conflict_do_nothing(), rows)
            except IntegrityError:
                return  # another host deleted the job between the two statements

        await self.database.write(work, f"keep events of job {job_id}")

    async def read_events(self, job_id: str, from_seq: int = 0, limit: int = 10_000) -> list[JobEvent]:
        """See `JobStore`."""
        query = (
            select(job_events)
            .where(self._in_scope(job_events, job_id=job_id), job_events.c.seq >= from_seq)
            .order_by(job_events.c.seq)
            .limit(limit)
        )

        async def work(connection: AsyncConnection) -> list[JobEvent]:
            rows = (await connection.execute(query)).all()
            return [JobEvent(row.seq, row.event, from_text(row.data)) for row in rows]

        return await self.database.read(work, f"read events of job {job_id}")


def _job(row: Row[*tuple[Any, ...]]) -> JobRecord:
    values = dict(row._mapping)
    del values["scope"]
    return JobRecord(**values | {name: from_text(values[name]) for name in _JSON})
