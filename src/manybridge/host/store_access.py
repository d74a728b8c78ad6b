"""A host's use of its store: where it is, who this host is there, its lease, and what is written a moment later.

Where nothing is said in `[store]`: a host with a configuration file keeps its records in the user's state folder, in a
database that all programs of the user share, under a *scope* that is the path of its file. So two programs do not see
each other's resources, and the same program sees its own again. A host that was configured in code has no name by which
it could find anything again: it keeps its records in memory, and writes nothing to anybody's disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
from collections.abc import Awaitable, Callable, Mapping
from math import inf
from pathlib import Path
from time import monotonic, time
from typing import Any, Final, TypeVar

from manybridge.errors import CallTimeoutError, ManybridgeError, StoreError
from manybridge.host.config import LoadedConfig, StoreConfig
from manybridge.host.config_secrets import mask_text
from manybridge.store.base import Store
from manybridge.store.liveness import this_host
from manybridge.store.opening import DEFAULT_SCOPE, open_store
from manybridge.store.urls import parse_store_url

_log = logging.getLogger("manybridge.host")

Answer = TypeVar("Answer")

LEASE_SECONDS: Final = 15.0
"""After so long without a word a host on another machine counts as gone. Longer than any pause of a collector or a
virtual machine's move; shorter than the patience of whoever waits for its resources."""

RENEW_SECONDS: Final = 5.0
"""A third of the lease: two renewals may fail."""

PROBE_SECONDS: Final = 0.5
"""How long a store may take to say that it is there; as long as a worker may, so that health stays quick."""

JUMP_SECONDS: Final = 1.0
"""The clock has jumped when it has moved by so much more or less than the time that has passed. One that is corrected
slowly moves by half a millisecond in a second."""

KEEP_SECONDS: Final = 1.0
"""How long the store may take to keep what a call did whose own time is over."""

TICK_SECONDS: Final = 1.0
"""How far behind counts of executions and leases of sessions may be."""


def locate_store(loaded: LoadedConfig, environ: Mapping[str, str] = os.environ) -> StoreConfig:
    """Return the address and scope that a configuration means, both filled in.

    Raises:
        ConfigError: the address is none.
    """
    said = loaded.config.store
    path = loaded.path.absolute() if loaded.path is not None else None
    if said.url is not None:
        parsed = parse_store_url(said.url, path.parent if path is not None else None)
        url = said.url if parsed.kind != "sqlite" else f"sqlite:///{parsed.path}?synchronous={parsed.synchronous}"
        return StoreConfig(url=url, scope=said.scope or DEFAULT_SCOPE)
    if path is None and said.scope is None:
        return StoreConfig(url="memory:", scope=DEFAULT_SCOPE)
    return StoreConfig(url=f"sqlite:///{default_file(environ)}", scope=said.scope or str(path))


def default_file(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where the records of hosts go whose configuration does not say."""
    state = environ.get("XDG_STATE_HOME", "")
    # A relative path there is to be ignored: https://specifications.freedesktop.org/basedir-spec/latest/
    folder = Path(state) if state.startswith("/") else Path.home() / ".local" / "state"
    return folder / "manybridge" / "manybridge.db"


def halfway(deadline: float) -> float:
    """Until when a call waits to hear whether what is known here has changed: it is to be made, too."""
    now = monotonic()
    return now + (deadline - now) / 2


class StoreAccess:
    """Owner of the store of one host, of its lease there, and of the task that keeps both up to date.

    Args:
        location: with url and scope.
    """

    def __init__(self, location: StoreConfig) -> None:
        assert location.url is not None
        self.url = parse_store_url(location.url)
        self.host = f"host-{secrets.token_hex(8)}"
        self.scope = location.scope or DEFAULT_SCOPE
        self.store: Store = open_store(self.url, scope=self.scope)
        self.shared = self.url.kind != "memory"
        """Whether anybody else may change the records."""
        self.closing = False
        """Whether this host gives back what it holds: what is under way can't be kept any more."""
        self.on_tick: list[Callable[[], Awaitable[None]]] = []
        """Called about once in a second while this host is announced, and at the end."""
        self.on_jump: list[Callable[[], None]] = []
        """Called before a tick when the clock has jumped: every lease that the store knows has another length now."""
        self._clock = time() - monotonic()
        """What the time of day is ahead of the time that passes."""
        self._own_folder = self.url.path.parent if self.url.path == default_file() else None
        self._lease_until = -inf
        self._announcing = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        """Begins the next tick. Not a task that sleeps: a program may end without having closed its host, and what is
        left of a task then is a complaint of asyncio's on standard error."""
        self._task: asyncio.Task[None] | None = None
        """The tick that runs."""
        self._resting = False
        self._renewed = -inf
        self._failing = False
        self._schema: str | None = None

    @property
    def is_announced(self) -> bool:
        """Whether the others know that this host lives, so that what it holds is its own."""
        return monotonic() < self._lease_until

    async def announce(self) -> None:
        """Make sure that this host counts as living; needed before it holds anything.

        Raises:
            StoreError: the store can't be used.
        """
        if self.is_announced:
            return
        async with self._announcing:
            if self.is_announced:
                return
            self._make_folder()
            await self._renew()
            if self._timer is None:
                self._wind_up()

    async def before(self, deadline: float, work: Awaitable[Answer]) -> Answer:
        """Wait for what a call needs of the store before it can begin, at most until its deadline.

        Raises:
            CallTimeoutError: the store has not answered. What it was asked to do may still be done.
            StoreError: it can't be done.
        """
        return await self._within(deadline, work, {"stopped_by": "queue", "waited_for": "store"})

    async def after(self, deadline: float, work: Awaitable[Answer]) -> Answer:
        """Wait until it is kept what a call has done: until its deadline, and a moment more where that is over.

        Raises:
            CallTimeoutError: the store has not answered. What it was asked to do may still be done.
            StoreError: it can't be kept.
        """
        return await self._within(max(deadline, monotonic() + KEEP_SECONDS), work, {"waited_for": "store"})

    async def _within(self, deadline: float, work: Awaitable[Answer], details: dict[str, Any]) -> Answer:
        if deadline == inf or not self.shared:
            return await work
        limit = asyncio.timeout(max(0.0, deadline - monotonic()))
        try:
            async with limit:
                return await work
        except TimeoutError:
            if not limit.expired():
                raise
            text = f"the call's time was over before the store {self.url.shown} had answered"
            raise CallTimeoutError(text, details=details) from None

    async def close(self) -> None:
        """Write what waits, give everything back, and close the store."""
        self.closing = True
        if self._timer is not None:
            await self.rest()
            try:
                await self._tick()
                await self.store.retire_host(self.host)
            except ManybridgeError as error:
                _log.warning("the store was not told that this host has ended; its lease will: %s", error)
        await self.store.close()

    async def health(self, *, probe: bool) -> dict[str, Any]:
        """Say where the store is, and whether it answers.

        A store that was not used yet is not opened for that: whether it can be reached is not known then.

        Args:
            probe: ask it now, instead of saying only what is known.
        """
        used = self.store.is_open or self.store.failure is not None
        facts: dict[str, Any] = {
            "kind": self.url.kind,
            "url": mask_text(self.url.shown),
            "scope": self.scope,
            "used": used,
            "reachable": True if not self.shared else None,
            "schema": self._schema,
        }
        if self.shared and used and probe:
            try:
                async with asyncio.timeout(PROBE_SECONDS):
                    facts["schema"] = self._schema = await self.store.read_schema()
                facts["reachable"] = True
            except TimeoutError:
                text = f"the store {self.url.shown} did not answer within {PROBE_SECONDS:g} s"
                self.store.failure = (StoreError(text, details={"reason": "silent"}), time())
                facts["reachable"] = False
            except StoreError:
                facts["reachable"] = False
        elif self.shared and used and self._failing:
            facts["reachable"] = False
        return facts | {"last_error": self._last_error()}

    def _last_error(self) -> dict[str, Any] | None:
        if self.store.failure is None:
            return None
        error, at = self.store.failure
        return {
            "code": error.code,
            "reason": error.details.get("reason"),
            "message": mask_text(error.message),
            "at": at,
        }

    async def rest(self) -> None:
        """Tick no more, and wait until a tick that runs has ended."""
        self._resting = True
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _renew(self) -> None:
        if not self.shared:
            await self.store.announce_host(this_host(self.host), inf)
            self._lease_until = inf
            return
        began = monotonic()  # before the statement: ours must not outlast the database's
        await self.store.announce_host(this_host(self.host), LEASE_SECONDS)
        self._lease_until = began + LEASE_SECONDS
        self._renewed = monotonic()

    def _wind_up(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(TICK_SECONDS, self._begin_tick)

    def _begin_tick(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._keep_up(), name="store: lease")
        self._task.add_done_callback(self._end_tick)

    def _end_tick(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled():
            if not self._resting:
                self._wind_up()
            task.result()  # an error of ours is the loop's to report, and the next tick comes all the same

    async def _keep_up(self) -> None:
        try:
            self._look_at_clock()
            if self.shared and monotonic() - self._renewed >= RENEW_SECONDS:
                await self._renew()
            await self._tick()
            self._failing = False
        except ManybridgeError as error:
            if not self._failing:
                _log.warning("the store fails; it is tried again every second: %s", error)
            self._failing = True

    def _look_at_clock(self) -> None:
        """Have leases told again after a jump: a store measures them by the time of day, a host by that which passes.

        Of a server on another machine it is the clock there that counts. Its jump is not seen here; a lease of ours is
        renewed after RENEW_SECONDS.
        """
        clock = time() - monotonic()
        if abs(clock - self._clock) > JUMP_SECONDS:
            self._clock, self._renewed = clock, -inf
            for action in self.on_jump:
                action()

    async def _tick(self) -> None:
        for action in self.on_tick:
            await action()

    def _make_folder(self) -> None:
        """Make the default store's folder, for its owner alone. The folder of a store that is named must exist."""
        if self._own_folder is None:
            return
        try:
            with contextlib.suppress(FileExistsError):
                self._own_folder.mkdir(parents=True, mode=0o700)
        except OSError as error:
            text = f"open: the folder of the store {self.url.shown} can't be made ({error}); set store.url"
            details = {"store": self.url.shown, "reason": "missing_folder"}
            raise StoreError(text, retryable=False, details=details) from error
