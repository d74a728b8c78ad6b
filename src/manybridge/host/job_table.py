"""The jobs of one host: which there are, which are remembered, and what the store knows beside them."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace
from typing import Any, Final, Protocol

from manybridge.errors import CallError, ClosedError, InvalidArgumentError, ManybridgeError
from manybridge.host.arguments import checked_name, maybe_name, wrong_argument
from manybridge.host.job_cancels import without_request
from manybridge.host.job_journal import JobJournal, JournalStore, claim_key
from manybridge.host.jobs import FINAL_STATES, AsyncJob, JobState, LiveJob
from manybridge.host.kept_secrets import secret_paths
from manybridge.host.stored_jobs import StoredJob, interrupted, is_final, with_living_hosts
from manybridge.protocol.errors import ErrorCode
from manybridge.store.base import HostStore
from manybridge.store.records import JobRecord, KeyRecord

_log = logging.getLogger("manybridge.host")

OPEN_STATES: Final = frozenset(str(state) for state in JobState) - {str(state) for state in FINAL_STATES}

MOST_OPEN: Final = 10_000
"""Interrupted jobs that are looked for at the start."""


class DurableJobs(JournalStore, HostStore, Protocol):
    """What of a store the jobs of a host need."""


class JobTable:
    """Owner of the jobs of one host.

    Args:
        max_jobs: so many are remembered; the oldest finished ones are forgotten first.
    """

    def __init__(self, max_jobs: int) -> None:
        self._max_jobs = max_jobs
        self._jobs: dict[str, AsyncJob] = {}
        self._store: DurableJobs | None = None
        self._journal: JobJournal | None = None
        self._closing = False

    # ------------------------------------------------------------------ the store

    async def attach(
        self,
        store: DurableJobs,
        host: str,
        announce: Callable[[], Awaitable[None]] | None,
        can_run: Callable[[JobRecord], bool],
    ) -> list[JobRecord]:
        """Keep jobs in a store from now on, and learn what it has. May be called again where it failed.

        Args:
            store: opened.
            host: this host's id there.
            announce: makes sure that this host counts as living there; None where that is done.
            can_run: whether an interrupted job that is to be run again can be run here. One that can't waits for a host
                that can, or for a cancel.

        Returns:
            The interrupted jobs that are to be run again, and are this host's now. All others are marked as failed.

        Raises:
            StoreError: it can't be read.
        """
        self._store, self._journal = store, self._journal or JobJournal(store, host, announce)
        listed = {each.id: each for each in await store.list_jobs(limit=self._max_jobs)}
        listed |= {each.id: each for each in await store.list_jobs(states=OPEN_STATES, limit=MOST_OPEN)}
        records, living = await with_living_hosts(store, listed.values())
        again: list[JobRecord] = []
        if any(not is_final(record) and record.host not in living for record in records):
            await self._journal.announce()
        for record in sorted(records, key=lambda each: each.created_at):
            if is_final(record) or (record.host in living and record.host != host):
                self._jobs[record.id] = StoredJob(record, store)
            elif record.idempotent:
                if can_run(record) and await self._claim(store, record, host):
                    again.append(record)
                else:
                    self._jobs[record.id] = StoredJob(record, store)
            else:
                await self._give_up(store, record)
        return again

    async def _give_up(self, store: DurableJobs, record: JobRecord) -> None:
        record = interrupted(record)
        await store.save_job(record)
        self._jobs[record.id] = StoredJob(record, store)

    @staticmethod
    async def _claim(store: DurableJobs, record: JobRecord, host: str) -> bool:
        """Make an interrupted job this host's, unless another host that began at the same time was faster."""
        key = KeyRecord(bridge=record.bridge, key=claim_key(record.id), fingerprint=record.host, host=host)
        found, ours = await store.begin_key(key)
        if ours:
            await store.save_job(replace(record, host=host, state=str(JobState.QUEUED), started_at=None))
        return ours or found.host == host

    async def next_event(self, record: JobRecord) -> int:
        """Return the number that the next event of an interrupted job gets."""
        assert self._store is not None
        following = record.events
        while events := without_request(await self._store.read_events(record.id, following)):
            following = events[-1].seq + 1
        return following

    # ------------------------------------------------------------------ jobs

    async def add(
        self,
        bridge: str,
        command: str,
        args: dict[str, Any],
        is_starting: Callable[[], bool],
        *,
        id: str | None = None,
        session: str | None = None,
        resume: bool = False,
    ) -> LiveJob:
        """Make a job that has not begun, and write it into the store.

        Raises:
            InvalidArgumentError: the id is taken, or no name; or a job that is to run again has a key as an argument.
            ClosedError: the host is closed.
            StoreError: it can't be written; there is no job then.
        """
        if self._closing:  # this one was on its way when the host was told to close: nobody would write how it ends
            raise ClosedError("the host is closed")
        id = maybe_name(id, "id") or f"job-{secrets.token_hex(6)}"
        if id in self._jobs:
            raise InvalidArgumentError(f'id: there is a job "{id}" already', details={"job": id})
        if resume:
            _demand_no_key(args)
        job = LiveJob(id, bridge, command, args, is_starting, session=session, resume=resume, journal=self._journal)
        self._jobs[id] = job
        try:
            await self._forget_surplus()
            if self._journal is not None:
                await self._journal.add(job)
        except BaseException:
            del self._jobs[id]
            job.never_began()
            raise
        return job

    def revive(self, record: JobRecord, is_starting: Callable[[], bool], next_event: int) -> LiveJob:
        """Make an interrupted job anew, with its id, its events and the time when it was made."""
        job = LiveJob(
            record.id,
            record.bridge,
            record.command,
            record.args,
            is_starting,
            session=record.session,
            resume=True,
            journal=self._journal,
            first_event=next_event,
        )
        job.created_at, job.was_claimed = record.created_at, True
        self._jobs[job.id] = job
        if self._journal is not None:
            self._journal.began(job)
        return job

    async def find(self, id: str) -> AsyncJob:
        """Return a job that is remembered, or that the store has, where another host made it.

        Raises:
            CallError: `job_not_found`.
            StoreError: the store can't be asked.
        """
        job = self._jobs.get(checked_name(id, "id"))
        if isinstance(job, StoredJob):
            await job.look()
        elif job is None and self._store is not None and (record := await self._store.get_job(id)) is not None:
            job = StoredJob(record, self._store)
        if job is None:
            raise _not_found(id)
        return job

    def list(
        self, bridge: str | None = None, states: Collection[str] | str | None = None, limit: int | None = None
    ) -> list[AsyncJob]:
        """Return the jobs that are remembered and match, oldest first; the newest `limit` of them."""
        wanted = checked_states(states)
        found = [
            job
            for job in self._jobs.values()
            if (bridge is None or job.bridge == bridge) and (wanted is None or job.state in wanted)
        ]
        if limit is not None and (type(limit) is not int or limit < 0):
            raise wrong_argument("limit", "a whole number from 0 on", limit)
        return found if limit is None else found[len(found) - min(limit, len(found)) :]

    async def delete(self, id: str) -> None:
        """Forget a job that has ended, here and in the store.

        Raises:
            CallError: `job_not_found`; or `not_supported`: it has not ended.
        """
        job = await self.find(id)
        if not job.done:
            text = f"job {id} is {job.state}: cancel it, or wait for its end, before it is deleted"
            raise CallError(text, code=ErrorCode.NOT_SUPPORTED, details={"job": id, "state": str(job.state)})
        self._jobs.pop(id, None)
        await self._unstore(id, job)

    async def _forget_surplus(self) -> None:
        surplus = len(self._jobs) - self._max_jobs
        if surplus <= 0:
            return
        for job in [each for each in self._jobs.values() if each.done][:surplus]:
            if self._jobs.pop(job.id, None) is None:
                continue  # another one was submitted meanwhile, and it has forgotten this one
            try:
                await self._unstore(job.id, job)
            except ManybridgeError as error:
                _log.warning("job %s is forgotten but stays in the store: %s", job.id, error)

    async def _unstore(self, id: str, job: AsyncJob) -> None:
        if self._journal is not None:
            await self._journal.delete(id, job if isinstance(job, LiveJob) else None)

    # ------------------------------------------------------------------ the end

    def closing(self) -> None:
        """The host closes: jobs that end from now on were interrupted."""
        self._closing = True
        for job in self._jobs.values():
            if isinstance(job, LiveJob):
                job.host_closes = True

    async def close(self) -> None:
        """Cancel what runs, and write what is not written."""
        for job in [each for each in self._jobs.values() if isinstance(each, LiveJob)]:
            await job.cancel()
        if self._journal is not None:
            await self._journal.close()


def checked_states(states: Collection[str] | str | None) -> set[str] | None:
    """Return the names of states.

    Raises:
        InvalidArgumentError: one of them is none.
    """
    if states is None:
        return None
    if not isinstance(states, Collection):
        raise wrong_argument("states", "names of states", states)
    wanted = {states} if isinstance(states, str) else set(states)
    for state in wanted:
        if state not in set(JobState):
            expected = f"one or more of {', '.join(JobState)}"
            raise wrong_argument("states", expected, state, f'"{state}"' if isinstance(state, str) else None)
    return wanted


def _demand_no_key(args: dict[str, Any]) -> None:
    """Refuse keys among the arguments of a job that is to run again: they would be written down.

    Raises:
        InvalidArgumentError: there is one, or nobody can look, as they are nested too deeply.
    """
    try:
        path = next(secret_paths(args, "args"), None)
    except RecursionError:
        raise wrong_argument("args", "what JSON can carry", args, "objects nested too deeply") from None
    if path is not None:
        text = f"{path}: a key is not kept with a job that is to run again; give the name of its variable, or no resume"
        raise InvalidArgumentError(text, details={"argument": path})


def _not_found(id: str) -> CallError:
    return CallError(f'there is no job "{id}"', code=ErrorCode.JOB_NOT_FOUND, details={"job": id})
