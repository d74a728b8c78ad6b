"""Sessions in the store: kept when they are made, renewed while they are used, known again after a restart.

A session that a call names first has nothing worth keeping until something is made in it; such a one is kept then.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from math import inf
from time import monotonic
from typing import Any, Final

from manybridge.errors import CallTimeoutError, ManybridgeError, SessionError, StoreError
from manybridge.host.session_settings import SettingsOfSession
from manybridge.host.sessions import Session, SessionInfo, SessionTable
from manybridge.host.store_access import TICK_SECONDS, StoreAccess, halfway
from manybridge.host.tasks import TaskSet
from manybridge.protocol.errors import ErrorCode
from manybridge.store.records import SessionRecord, changed_settings

_log = logging.getLogger("manybridge.host")

RENEW_SHARE: Final = 0.1
"""The store is told of a longer lease when it is so much of the lease behind; with a lease of an hour, six minutes."""

FRESH_SECONDS: Final = 1.0
"""How long a host may not know that another program has changed or closed a session."""

CLOCK_DRIFT: Final = 0.1
"""The end of a lease is told in seconds from now, so a statement's time lies between our clock and the database's."""

SWEEP_TICKS: Final = 30
"""How often sessions are ended that no living host uses."""


class SessionKeeper:
    """The store's side of the sessions of one host.

    Args:
        access: to the store.
        table: the sessions of this host.
        end: deletes what a session made, for one that ends.
    """

    def __init__(self, access: StoreAccess, table: SessionTable, end: Callable[[Session], Awaitable[None]]) -> None:
        self._access = access
        self._table = table
        self._end = end
        self._tasks = TaskSet()
        self._ticks = 0
        table.kept_expired = self._expired
        access.on_tick.append(self._tick)
        access.on_jump.append(self._clock_jumped)
        self._all_late = False

    async def create(
        self,
        id: str | None,
        affinity: str,
        concurrency: str,
        lease: float | None,
        settings: dict[str, Any],
    ) -> SessionInfo:
        """Make a session, and keep it before anybody is told that it exists.

        Raises:
            InvalidArgumentError: a policy that does not exist, an id that is no text, a lease that is no time.
            SessionError: `conflict`: the id is taken; `overloaded`: there are too many.
            StoreError: it can't be kept; there is no session then.
        """
        session = self._table.create(id, affinity, concurrency, lease, settings)
        if self._access.shared:
            try:
                added = await self._access.store.add_session(await self._record(session))
            except BaseException:
                self._table.discard(session)
                raise
            if not added:
                self._table.discard(session)
                text = f'there is a session "{session.id}" already'
                raise SessionError(text, code=ErrorCode.CONFLICT, retryable=False)
            session.kept = True
        return session.describe()

    def is_stale(self, session: Session) -> bool:
        """Whether somebody else may have changed or closed it since we looked."""
        return session.kept and session.checked_at + FRESH_SECONDS < monotonic() and self._access.shared

    async def obtain(self, id: str, deadline: float = inf) -> Session:
        """Return a session for a call: as the store has it, else this host's, else a new one with the defaults.

        Args:
            id: its id.
            deadline: of the call, monotonic.

        Raises:
            CallTimeoutError: the store did not say in time whether there is such a session, and with which settings.
        """
        session = self._table.known(id)
        if session is not None and not self.is_stale(session):
            return session
        if self._access.shared:
            patience = deadline if session is None else halfway(deadline)
            try:
                await self._access.before(patience, self._look_up(id))
            except (StoreError, CallTimeoutError) as error:
                if session is None and isinstance(error, CallTimeoutError):
                    raise
                # The call itself may need no store. What it gets is what we know, or a session as if it were the
                # first to name it.
                _log.warning('the store could not say what session "%s" is: %s', id, error)
                if session is not None:
                    session.checked_at = monotonic()
        return self._table.get_or_create(id)

    async def _look_up(self, id: str) -> None:
        """Have the table know a session as the store has it."""
        stored = await self._access.store.get_session(id)
        known = self._table.known(id)
        if stored is None:
            # In the store a lease may be behind ours, because it is told late: only before its end there it was closed.
            if known is not None and known.kept and monotonic() < known.stored_until - CLOCK_DRIFT:
                self._table.close(id)
            elif known is None:
                # Its lease ran out while no host swept it away: what was made in it is not for who names it next.
                await self._access.store.end_expired_session(id)
        elif known is None:
            self._table.adopt(_session(stored))
        else:
            _refresh(known, stored)

    async def update(self, id: str, changes: dict[str, Any]) -> SessionInfo:
        """Change settings of a session, for its next call on every worker.

        Raises:
            SessionError: `session_not_found`.
            StoreError: they can't be kept, and have not changed.
        """
        session = await self.find(id)
        await self._change(session, changes)
        return session.describe()

    async def configured(self, session: Session, bridge: str, args: Mapping[str, Any], result: Any) -> Any:
        """A call has configured its session: keep what its result says, for every worker.

        Returns:
            The result, for the caller.

        Raises:
            StoreError: it can't be kept. The session is as it was before the call.
        """
        section = result.get("settings") if isinstance(result, dict) else None
        if not isinstance(section, dict):
            _log.warning("a call of bridge %s configured session %s and did not say how", bridge, session.id)
            return result
        shown, secrets = session.settings.without_secrets(bridge, section, args)
        try:
            await self._change(session, {bridge: shown})
        except StoreError:
            session.settings.forget_at(bridge)  # the worker that answered believes that it holds
            raise
        session.settings.remember_secrets(bridge, secrets)
        return {**result, "settings": shown}

    async def _change(self, session: Session, changes: dict[str, Any]) -> None:
        if not self._access.shared:
            session.settings.change(changes)
            return
        if not session.kept:
            await self.needed(session.id)
        kept = await self._access.store.change_settings(session.id, changes)
        if kept is None:  # its lease ran out there, or it was closed while it was used here
            await self._access.store.save_sessions([await self._record(session)])
            kept = await self._access.store.change_settings(session.id, changes)
        session.settings.replace(changed_settings(session.settings.kept, changes) if kept is None else kept)
        session.checked_at = monotonic()

    async def needed(self, id: str) -> None:
        """Keep a session in which something is made that is kept.

        Raises:
            StoreError: it can't be kept.
        """
        session = self._table.known(id)
        if self._access.shared and session is not None and not session.kept:
            await self._access.store.save_sessions([await self._record(session)])
            session.kept = True

    async def find(self, id: str) -> Session:
        """Return a session of this host or of the store.

        Raises:
            SessionError: `session_not_found`.
            StoreError: the store can't say.
        """
        session = self._table.known(id)
        if self._access.shared and (session is None or session.kept):
            await self._look_up(id)
        return self._table.get(id)

    async def list(self) -> list[SessionInfo]:
        """Describe the sessions of this host and of the store, oldest first.

        Raises:
            StoreError: the store can't say.
        """
        if self._access.shared:
            for stored in await self._access.store.list_sessions():
                known = self._table.known(stored.id)
                if known is None:
                    self._table.adopt(_session(stored))
                else:
                    _refresh(known, stored)
        return self._table.list()

    async def extend(self, id: str, lease: float | None) -> SessionInfo:
        """Begin a session's lease anew, with another length if one is given.

        Raises:
            SessionError: `session_not_found`.
            StoreError: it can't be kept.
        """
        await self.find(id)
        session = self._table.extend(id, lease)
        if self._access.shared:
            record = await self._record(session)
            if not (session.kept and await self._access.store.begin_lease(id, session.lease)):
                await self._access.store.save_sessions([record])
            session.kept = True
        return session.describe()

    async def close(self, id: str) -> None:
        """End a session and delete what was made in it.

        Raises:
            SessionError: `session_not_found`.
            StoreError: it can't be deleted; it has ended on this host all the same.
        """
        session = await self.find(id)
        self._table.close(id, tell=False)
        await self._end(session)
        if self._access.shared:
            await self._access.store.delete_session(id)

    async def flush(self) -> None:
        """Tell the store what it does not know, because the host ends."""
        await self._tasks.cancel()
        try:
            await self._save_touched(last=True)
        except ManybridgeError as error:
            _log.warning("the store was not told of the last leases of sessions: %s", error)

    # ------------------------------------------------------------------ a moment later

    async def _tick(self) -> None:
        await self._save_touched()
        self._ticks += 1
        if self._access.shared and self._ticks % SWEEP_TICKS == 1:
            for id in await self._access.store.end_expired_sessions():
                session = self._table.known(id)
                if session is not None and not session.busy:
                    self._table.close(id)

    def _clock_jumped(self) -> None:
        """The store may believe that leases ran out which have hours to go: tell it of all, before any is ended."""
        self._all_late = True

    async def _save_touched(self, *, last: bool = False) -> None:
        """Tell the store of leases that are longer than it knows: by much, or, the last time, at all."""
        if not self._access.shared:
            return
        now = monotonic()
        late = [
            each
            for each in self._table.all()
            if each.kept and (self._all_late or _is_late(each, now) or (last and each.expires_at > each.stored_until))
        ]
        if not late:
            self._all_late = False
            return
        until = {each.id: each.stored_until for each in late}
        gone = set(await self._access.store.renew_sessions([await self._record(each) for each in late]))
        self._all_late = False
        for session in [each for each in late if each.id in gone]:
            if now < until[session.id] - CLOCK_DRIFT:  # its lease still ran: somebody closed it
                if self._table.known(session.id) is session:
                    self._table.close(session.id)
            else:
                await self._access.store.save_sessions([await self._record(session)])

    async def _record(self, session: Session) -> SessionRecord:
        await self._access.announce()
        now = monotonic()
        until = _until(session, now)
        session.stored_until = until
        return SessionRecord(
            id=session.id,
            affinity=session.affinity,
            concurrency=session.concurrency,
            lease_seconds=session.lease,
            expires_in=until - now,
            settings=dict(session.settings.kept),
            created_at=session.created_at,
            calls=session.calls,
        )

    def _expired(self, session: Session) -> None:
        """The lease of a kept session ran out here. Another host may have used it."""
        self._tasks.start(self._check_expired(session), f"expiry of session {session.id}")

    async def _check_expired(self, session: Session) -> None:
        try:
            stored = await self._access.store.get_session(session.id)
            if stored is not None:
                session.expires_at = session.stored_until = monotonic() + stored.expires_in
                session.lease = stored.lease_seconds
                return
            if self._table.known(session.id) is session and not session.busy:
                self._table.close(session.id)
            await self._access.store.end_expired_sessions()
        except StoreError as error:
            _log.warning('the store could not say whether session "%s" has ended: %s', session.id, error)
            session.touch()


def _refresh(session: Session, stored: SessionRecord) -> None:
    session.checked_at = now = monotonic()
    session.kept = True
    session.settings.replace(stored.settings)
    if session.lease != stored.lease_seconds:
        session.lease = stored.lease_seconds  # somebody began another one
        session.expires_at = session.stored_until = now + stored.expires_in


def _until(session: Session, now: float) -> float:
    return max(session.expires_at, now + session.lease) if session.busy else session.expires_at


def _is_late(session: Session, now: float) -> bool:
    return _until(session, now) - session.stored_until > max(TICK_SECONDS, RENEW_SHARE * session.lease)


def _session(stored: SessionRecord) -> Session:
    session = Session(stored.id, stored.affinity, stored.concurrency, stored.lease_seconds)  # type: ignore[arg-type]  # checked when it was made
    session.settings = SettingsOfSession(stored.id, stored.settings)
    session.created_at, session.calls, session.kept = stored.created_at, stored.calls, True
    session.expires_at = session.stored_until = monotonic() + stored.expires_in
    return session
