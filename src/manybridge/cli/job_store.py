"""The jobs that the command line can see: those in the store of its configuration."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from manybridge.errors import CallError, ConfigError
from manybridge.host.config import StoreConfig, read_config
from manybridge.host.store_access import StoreAccess, locate_store
from manybridge.host.stored_jobs import StoredJob, is_final
from manybridge.protocol.errors import ErrorCode
from manybridge.store.base import Store
from manybridge.store.records import JobRecord

NO_STORE = (
    "there is no store, so a job ends with the command that runs it: write a configuration (manybridge init), "
    "or say where with [store] url"
)


def durable(config: Path | None, otherwise: str = NO_STORE) -> StoreConfig:
    """Return where the store of a configuration is.

    Args:
        config: its file; found by search if left out.
        otherwise: said where nothing would be kept.

    Raises:
        ConfigError: there is none that outlives a command.
    """
    location = locate_store(read_config(config))
    if (location.url or "memory:").startswith("memory:"):
        raise ConfigError(otherwise)
    return location


@asynccontextmanager
async def opened(location: StoreConfig) -> AsyncIterator[Store]:
    """Open a store for reading; this program is no host there."""
    access = StoreAccess(location)
    try:
        yield access.store
    finally:
        await access.close()


async def stored_job(store: Store, id: str) -> StoredJob:
    """Return a job of the store.

    Raises:
        CallError: `job_not_found`.
    """
    record = await store.get_job(id)
    if record is None:
        raise CallError(f'there is no job "{id}"', code=ErrorCode.JOB_NOT_FOUND, details={"job": id})
    return await _seen(store, record)


async def stored_jobs(
    store: Store, bridge: str | None, states: Collection[str] | None, limit: int
) -> list[dict[str, Any]]:
    """Return the descriptions of the newest jobs that match, oldest first."""
    found = [await _seen(store, record) for record in await store.list_jobs(bridge=bridge, limit=limit)]
    return [job.describe() for job in found if states is None or job.state in states]


async def delete(store: Store, id: str) -> None:
    """Delete a job that has ended.

    Raises:
        CallError: `job_not_found`; `not_supported`: it has not ended.
    """
    job = await stored_job(store, id)
    if not job.done:
        text = f"job {id} is {job.state}: cancel it first (manybridge jobs cancel {id})"
        raise CallError(text, code=ErrorCode.NOT_SUPPORTED, details={"job": id, "state": str(job.state)})
    await store.delete_job(id)


async def _seen(store: Store, record: JobRecord) -> StoredJob:
    job = StoredJob(record, store)
    if not is_final(record):
        await job.look()  # its host may have gone
    return job
