"""Sessions: a caller's context over several calls: which worker they go to, what a second one meanwhile gets, its end.

A session runs one call at a time. What a second one gets is the session's policy: it waits (`enqueue`), it is refused
(`reject`), or it stops what came before it (`interrupt`): the call that runs, and those that wait. A call that a tool
makes on behalf of a call of the same session is part of that call and does not wait for it.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from math import inf
from time import monotonic, time
from typing import Any, Final, Literal, TypeAlias, get_args

from manybridge.errors import CallCancelledError, CallTimeoutError, SessionError
from manybridge.host.arguments import checked_name, checked_seconds, maybe_name, wrong_argument
from manybridge.host.calls import Call, CallStage
from manybridge.host.session_settings import SettingsOfSession
from manybridge.host.worker import WorkerHandle
from manybridge.protocol.errors import ErrorCode

Affinity: TypeAlias = Literal["hint", "strict_queue", "strict_fail_fast"]
Concurrency: TypeAlias = Literal["enqueue", "reject", "interrupt"]

SWEEP_SECONDS: Final = 1.0
"""A session is closed at most this long after its lease ran out."""

LOOK_SECONDS: Final = 0.005
"""How often it is looked whether what a caller left behind has been stopped."""

current_session: ContextVar[str | None] = ContextVar("manybridge_session", default=None)
"""The session of the call on whose behalf this code runs: set while a tool runs."""


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """What a caller sees of a session."""

    id: str
    affinity: Affinity
    concurrency: Concurrency
    lease: float
    """Seconds that it lives on after its last call."""
    created_at: float
    """Epoch seconds."""
    expires_in: float
    """Seconds."""
    calls: int
    workers: dict[str, str]
    """Bridge to the id of the worker that it goes to."""
    settings: dict[str, Any]
    """What it was configured with; a setting with a bridge's name is for that bridge. Keys are `***`."""


class Session:
    """State of one session. Changed by the table only."""

    def __init__(self, id: str, affinity: Affinity, concurrency: Concurrency, lease: float) -> None:
        self.id = id
        self.affinity = affinity
        self.concurrency = concurrency
        self.lease = lease
        self.settings = SettingsOfSession(id)
        self.created_at = time()
        self.expires_at = monotonic() + lease
        self.kept = False
        """Whether the store has it, and (`stored_until`) how long a lease it knows of, monotonic."""
        self.stored_until = -inf
        self.checked_at = monotonic()
        """When it was as the store has it."""
        self.calls = 0
        self.workers: dict[str, WorkerHandle] = {}
        self.bridges: set[str] = set()
        self.current: Turn | None = None
        """Of the call that has the session; None while it is free."""
        self.waiters: deque[Turn] = deque()
        """Those of the calls that wait for it."""

    @property
    def busy(self) -> bool:
        """Whether a call has it."""
        return self.current is not None

    def describe(self) -> SessionInfo:
        """What a caller may see."""
        workers = {bridge: worker.id for bridge, worker in self.workers.items()}
        expires_in = inf if self.busy else max(0.0, self.expires_at - monotonic())
        return SessionInfo(
            self.id,
            self.affinity,
            self.concurrency,
            self.lease,
            self.created_at,
            expires_in,
            self.calls,
            workers,
            dict(self.settings.kept),
        )

    def touch(self) -> None:
        """Begin the lease anew."""
        self.expires_at = monotonic() + self.lease

    def worker_for(self, bridge: str) -> WorkerHandle | None:
        """The worker that the next call must, or had better, go to.

        Raises:
            SessionError: `session_busy`: the affinity is strict_fail_fast and that worker is busy.
        """
        worker = self.workers.get(bridge)
        if worker is None or not worker.is_ready:
            return None
        free = not worker.pinned and len(worker.calls) < worker.concurrency
        if free or self.affinity == "strict_queue":
            return worker
        if self.affinity == "strict_fail_fast":
            text = f'the worker of session "{self.id}" is busy, and the session does not wait (strict_fail_fast)'
            raise SessionError(text, code=ErrorCode.SESSION_BUSY, details={"session": self.id, "worker": worker.id})
        return None


class Turn:
    """One call's turn in its session. Stops the call wherever it is: in a worker, or waiting for whatever it may be.

    Args:
        command: what was called.
    """

    def __init__(self, command: str) -> None:
        self.given = asyncio.get_running_loop().create_future()
        """Done when the call may begin."""
        self._command = command
        self._task = asyncio.current_task()
        self._cancelled_before = 0 if self._task is None else self._task.cancelling()
        self._call: Call | None = None
        """The call to a worker that was made last for it."""
        self._stop_call: Callable[[Call], None]
        self._is_stopped = False
        self._has_cancelled = False

    @property
    def has_work(self) -> bool:
        """Whether a worker has a call of it, or will get it."""
        return self._call is not None and self._call.stage is not CallStage.DONE

    def made(self, call: Call, stop: Callable[[Call], None]) -> None:
        """A call to a worker is made for it; `stop` stops that.

        Raises:
            CallCancelledError: it was stopped since the last one.
        """
        if self._is_stopped:
            raise self._error()
        self._call, self._stop_call = call, stop

    def stop(self) -> None:
        """Have it end. Calling it again does nothing."""
        call, self._is_stopped = self._call, True
        if call is not None and self.has_work:
            self._stop_call(call)
        elif self._task is not None and not self._has_cancelled and (call is None or _has_failed(call)):
            # It waits: for its turn, for the store, for a resource that is made again, for its next attempt.
            self._has_cancelled = True
            self._task.cancel()

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Around everything that the call does: where `stop` has cancelled its task, that is the call's error.

        Raises:
            CallCancelledError: it was stopped.
        """
        try:
            yield
        except asyncio.CancelledError:
            if self._take_back():
                raise self._error() from None
            raise
        except BaseException:
            self._take_back()
            raise
        else:
            self._take_back()

    def _take_back(self) -> bool:
        """Whether the task was cancelled here and nowhere else; if it was, that is done with."""
        mine, self._has_cancelled = self._has_cancelled, True  # from now on the task is not ours to cancel
        return mine and self._task is not None and self._task.uncancel() <= self._cancelled_before

    def _error(self) -> CallCancelledError:
        details = {"stopped_by": "queue", "command": self._command}
        return CallCancelledError(f"{self._command} was cancelled; no worker ran it at that moment", details=details)


class SessionTable:
    """Owner of the sessions of one host.

    Args:
        lease: seconds that a session lives on after its last call, where it does not say.
        max_sessions: more are refused.
        ended: told of each session that is closed or has expired.
    """

    def __init__(self, lease: float, max_sessions: int, ended: Callable[[Session], None]) -> None:
        self._lease = lease
        self._max_sessions = max_sessions
        self._ended = ended
        self._sessions: dict[str, Session] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self.kept_expired: Callable[[Session], None] | None = None
        """Told of a session in the store whose lease ran out here, to find out whether it did everywhere."""

    def __len__(self) -> int:
        return len(self._sessions)

    def create(
        self,
        id: str | None = None,
        affinity: str = "hint",
        concurrency: str = "enqueue",
        lease: float | None = None,
        settings: dict[str, Any] | None = None,
    ) -> Session:
        """Make a session.

        Raises:
            InvalidArgumentError: a policy that does not exist, an id that is no text, a lease that is no time.
            SessionError: the id is taken (`session_busy` is for calls; this is `conflict`), or there are too many.
        """
        _one_of("affinity", affinity, get_args(Affinity))
        _one_of("concurrency", concurrency, get_args(Concurrency))
        lease = self._lease if lease is None else _checked_lease(lease)
        if maybe_name(id, "id") in self._sessions:
            raise SessionError(f'there is a session "{id}" already', code=ErrorCode.CONFLICT, retryable=False)
        if len(self._sessions) >= self._max_sessions:
            raise SessionError(f"{self._max_sessions} sessions are open already", code=ErrorCode.OVERLOADED)
        id = id or f"session-{secrets.token_hex(4)}"
        made = Session(id, affinity, concurrency, lease)  # type: ignore[arg-type]  # checked above
        made.settings = SettingsOfSession(id, settings)
        return self.adopt(made)

    def adopt(self, session: Session) -> Session:
        """Take in a session that was made, or kept, elsewhere."""
        self._sessions[session.id] = session
        self._sweep_later()
        return session

    def discard(self, session: Session) -> None:
        """Take back a session that nobody has been told of."""
        if self._sessions.get(session.id) is session:
            del self._sessions[session.id]

    def known(self, id: str) -> Session | None:
        """Return a session of this host, or None."""
        return self._sessions.get(id) if isinstance(id, str) else None

    def all(self) -> list[Session]:
        """Return every session of this host."""
        return list(self._sessions.values())

    def get(self, id: str) -> Session:
        """Return a session that exists.

        Raises:
            SessionError: `session_not_found`.
            InvalidArgumentError: the id is no text, or empty.
        """
        session = self._sessions.get(checked_name(id, "id"))
        if session is None:
            raise SessionError(f'there is no session "{id}", or its lease ran out', details={"session": id})
        return session

    def get_or_create(self, id: str) -> Session:
        """Return a session; one that a call names first is made with the defaults."""
        session = self._sessions.get(id)
        return session if session is not None else self.create(id)

    def list(self) -> list[SessionInfo]:
        """Describe every session, oldest first."""
        return sorted((session.describe() for session in self._sessions.values()), key=lambda each: each.created_at)

    def extend(self, id: str, lease: float | None = None) -> Session:
        """Begin a session's lease anew, with another length if one is given."""
        session = self.get(id)
        if lease is not None:
            session.lease = _checked_lease(lease)
        session.touch()
        return session

    def close(self, id: str, *, tell: bool = True) -> Session:
        """End a session; a call that runs in it is stopped. `tell`: whether `ended` is to hear of it."""
        session = self.get(id)
        del self._sessions[id]
        if session.current is not None:
            session.current.stop()
        for waiter in session.waiters:
            if not waiter.given.done():
                waiter.given.set_exception(SessionError(f'session "{id}" was closed', details={"session": id}))
        if tell:
            self._ended(session)
        return session

    def close_all(self) -> None:
        """Forget every session; the workers are ended anyway."""
        self._sessions.clear()
        if self._sweeper is not None:
            self._sweeper.cancel()

    def forget_worker(self, worker: WorkerHandle) -> None:
        """A worker takes no more calls: sessions choose another."""
        for session in self._sessions.values():
            for bridge in [bridge for bridge, held in session.workers.items() if held is worker]:
                del session.workers[bridge]

    @asynccontextmanager
    async def turn(self, session: Session, deadline: float, command: str) -> AsyncIterator[None]:
        """Hold the session for one call.

        Raises:
            SessionError: `session_busy` under the policy `reject`; or it was closed meanwhile.
            CallTimeoutError: the call's deadline passed before its turn.
            CallCancelledError: another call came, under the policy `interrupt`, or the session was closed.
        """
        if current_session.get() == session.id:
            yield  # a tool works for a call that holds the session
            return
        turn = Turn(command)
        with turn.scope():
            await self._wait_for_turn(session, turn, deadline, command)
            try:
                yield
            finally:
                session.touch()
                session.calls += 1
                self._end_turn(session, turn)

    async def _wait_for_turn(self, session: Session, turn: Turn, deadline: float, command: str) -> None:
        if session.current is None:
            session.current = turn
            return
        if session.concurrency == "reject":
            text = f'session "{session.id}" has a call already, and takes one at a time (reject)'
            raise SessionError(text, code=ErrorCode.SESSION_BUSY, details={"session": session.id})
        if session.concurrency == "interrupt":
            for earlier in (session.current, *session.waiters):
                earlier.stop()
        session.waiters.append(turn)
        try:
            async with asyncio.timeout(None if deadline == inf else deadline - monotonic()):
                await turn.given
        except BaseException as error:
            if session.current is turn:
                self._pass_on(session)  # it was given in the same moment
            elif turn in session.waiters:  # not, where the session was closed before it was reached
                session.waiters.remove(turn)
            if not isinstance(error, TimeoutError):
                raise
            details = {"stopped_by": "queue", "session": session.id, "command": command}
            text = f"{command} got no turn in session {session.id} before its deadline; it had not begun"
            raise CallTimeoutError(text, details=details) from None

    def _end_turn(self, session: Session, turn: Turn) -> None:
        """Let the next one begin, once nothing runs any more that this one began."""
        if turn.has_work:  # its caller has gone, and left it to be stopped
            asyncio.get_running_loop().call_later(LOOK_SECONDS, self._end_turn, session, turn)
        else:
            self._pass_on(session)

    @staticmethod
    def _pass_on(session: Session) -> None:
        session.current = None
        while session.waiters and session.current is None:
            if not session.waiters[0].given.done():  # else it is being told that the session was closed
                session.current = session.waiters[0]
                session.current.given.set_result(None)
            session.waiters.popleft()

    def _sweep_later(self) -> None:
        if self._sweeper is None and self._sessions:
            self._sweeper = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        self._sweeper = None
        now = monotonic()
        for session in [each for each in self._sessions.values() if not each.busy and each.expires_at <= now]:
            if session.kept and self.kept_expired is not None:
                self.kept_expired(session)
            else:
                self.close(session.id)
        self._sweep_later()


def _has_failed(call: Call) -> bool:
    future = call.future
    return isinstance(future, asyncio.Future) and future.done() and (future.cancelled() or bool(future.exception()))


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        found = f'"{value}"' if isinstance(value, str) else None
        raise wrong_argument(name, f"one of {', '.join(known)}", value, found)


def _checked_lease(lease: float) -> float:
    if checked_seconds(lease, "lease") > 0:
        return lease
    raise wrong_argument("lease", "seconds above 0", lease, "0")
