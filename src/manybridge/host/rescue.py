"""What a host does about a call that has failed, before its caller learns of it: try again, or elsewhere.

Nothing here is on the way of a call that succeeds.

**Again.** Only what may be repeated: a command that its bridge declares as idempotent, one of ours that only reads, or
a call with an `idempotency_key`, whose sender says with the key that they are ready to send it again. Only after codes
that pass by themselves (`[bridges.X.retry] codes`), only where the error itself does not say that it can't help, never
after chunks of a stream have reached their reader, never beyond the call's deadline. A provider that says how long to
wait (`retry_after`) is obeyed.

**Elsewhere.** Only where the bridge could not begin: its breaker is open, it can't start, something that it needs is
not there. Then any call may go to the bridge's `fallback`, idempotent or not, because nothing has been done yet.
Commands of `common` stay: a resource that is here is not there.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from math import inf
from time import monotonic
from typing import Any, Final

from manybridge.errors import ManybridgeError
from manybridge.host.config import RetryConfig
from manybridge.host.options import CallOptions
from manybridge.host.pool import Pool
from manybridge.protocol.commands import COMMON
from manybridge.protocol.errors import ErrorCode
from manybridge.protocol.messages import EVENT_CHUNK, EVENT_LOG, Event

_log = logging.getLogger("manybridge.host")

Attempt = Callable[[Pool, str], Awaitable[Any]]
"""Makes the call once: on which bridge, under which name."""

READING: Final = frozenset(
    f"{COMMON}:{name}" for name in ("ping", "capabilities", "get_stats", "health", "get_resource", "list_resources")
)
"""Commands of ours that change nothing."""

FALLBACK_CODES: Final = frozenset(
    {
        ErrorCode.CIRCUIT_OPEN,
        ErrorCode.WORKER_START_FAILED,
        ErrorCode.MISSING_PACKAGE,
        ErrorCode.MISSING_VARIABLE,
        ErrorCode.BRIDGE_LOAD_FAILED,
        ErrorCode.SETUP_FAILED,
        ErrorCode.ENVIRONMENT_FAILED,
        ErrorCode.ENVIRONMENT_REFUSED,
    }
)
"""The bridge can't serve at all. Not `overloaded`: the load of one bridge must not bring down the next."""

OWN_EVENT: Final = -1
"""The number of an event that the host itself has put into a stream."""

OURS: Final = "manybridge call"
"""What stamina calls our attempts."""

WARN_SECONDS: Final = 10.0
"""The log says at most so often that a bridge's calls go elsewhere."""


@dataclass(slots=True, eq=False)
class Pause:
    """A call between two attempts."""

    bridge: str
    command: str
    session: str | None
    traceparent: str | None
    attempt: int
    """The one that comes next."""
    attempts: int
    until: float
    """When at the earliest, monotonic."""
    error: ManybridgeError
    """Why the last one failed."""


class ChunkWatch:
    """Knows whether chunks have reached the reader of a stream, after which it can't begin anew."""

    def __init__(self, options: CallOptions) -> None:
        self.has_chunks = False
        receive = options.on_event
        assert receive is not None

        def watch(event: Event) -> None:
            self.has_chunks = self.has_chunks or event.event == EVENT_CHUNK
            receive(event)

        options.on_event = watch


class Rescue:
    """Owner of the calls between two attempts.

    Args:
        pool_of: finds the pool of a fallback by its name.
    """

    def __init__(self, pool_of: Callable[[str], Pool]) -> None:
        self._pool_of = pool_of
        self.pauses: set[Pause] = set()
        self._warned: dict[str, float] = {}

    @staticmethod
    def may_repeat(pool: Pool, command: str, key: str | None) -> bool:
        """Whether a call may be made twice."""
        operation = command.rpartition(":")[2]
        own = command.startswith(f"{COMMON}:")
        return key is not None or (command in READING if own else operation in pool.idempotent)

    @staticmethod
    def is_hopeless(pool: Pool, error: ManybridgeError) -> bool:
        """Whether nothing can be done about an error, whatever the call was. Cheap; any thread may ask."""
        if error.code == ErrorCode.RESOURCE_NOT_FOUND:
            return not pool.changes
        config = pool.config
        again = config.retry.attempts > 1 and error.retryable and error.code in config.retry.codes
        return not again and (config.fallback is None or error.code not in FALLBACK_CODES)

    async def call(self, pool: Pool, command: str, options: CallOptions, attempt: Attempt) -> Any:
        """Make a call, and do what can be done when it fails.

        Raises:
            ManybridgeError: nothing helped.
        """
        watch = None
        if options.on_event is not None:
            known = pool.stats.started > 0  # else no worker has said yet what may be repeated
            if not known or self.may_repeat(pool, command, options.idempotency_key):
                watch = ChunkWatch(options)
        try:
            return await attempt(pool, command)
        except ManybridgeError as error:
            if self.is_hopeless(pool, error):
                raise
            return await self.after(error, pool, command, options, attempt, watch)

    async def after(
        self,
        error: ManybridgeError,
        pool: Pool,
        command: str,
        options: CallOptions,
        attempt: Attempt,
        watch: ChunkWatch | None = None,
    ) -> Any:
        """Do what can be done about a call that has failed with `error`.

        Raises:
            ManybridgeError: nothing helped.
        """
        try:
            return await self._again(error, pool, command, options, attempt, watch)
        except ManybridgeError as last:
            target = pool.config.fallback
            begun = options.last_call is not None and options.last_call.sent_at is not None
            if target is None or last.code not in FALLBACK_CODES or begun or command.startswith(f"{COMMON}:"):
                raise
            return await self._elsewhere(last, pool, target, command, options, attempt)

    # ------------------------------------------------------------------ again

    async def _again(
        self,
        error: ManybridgeError,
        pool: Pool,
        command: str,
        options: CallOptions,
        attempt: Attempt,
        watch: ChunkWatch | None,
    ) -> Any:
        import stamina  # a host whose calls all succeed never needs it

        policy, number = pool.config.retry, 1
        pause: Pause | None = None

        def decide(failure: BaseException) -> bool | float:
            nonlocal pause
            streamed = watch is not None and watch.has_chunks
            repeatable = self.may_repeat(pool, command, options.idempotency_key) and not streamed and not pool.closing
            if not isinstance(failure, ManybridgeError) or not repeatable:
                return False
            wait = _wait_before(number + 1, failure, policy, options.deadline)
            if wait is None:
                return False
            pause = _pause(pool, command, options, number + 1, wait, failure)
            self.pauses.add(pause)
            _log.info("%s failed; attempt %d of %d follows: %s", command, number + 1, policy.attempts, failure)
            _note(options, f"{failure.code}; attempt {number + 1} of {policy.attempts} follows")
            return wait if "retry_after" in failure.details else True

        attempts = stamina.retry_context(
            on=decide,
            attempts=policy.attempts,
            timeout=None,  # `decide` knows the call's deadline
            wait_initial=policy.initial_backoff,
            wait_max=policy.max_backoff,
            wait_jitter=policy.initial_backoff,
        ).with_name(OURS, (), {})
        logging.getLogger("stamina").addFilter(_is_not_ours)  # adding it again does nothing
        try:
            async for trial in attempts:
                with trial:
                    number = trial.num
                    if number == 1:
                        raise error
                    self.pauses.discard(pause)
                    pool.stats.retried += 1
                    try:
                        result = await attempt(pool, command)
                    except ManybridgeError as failure:
                        failure.details["attempts"] = number
                        raise
                    pool.stats.recovered += 1
                    return result
        finally:
            if pause is not None:
                self.pauses.discard(pause)
        raise AssertionError("unreachable")

    # ------------------------------------------------------------------ elsewhere

    async def _elsewhere(
        self, error: ManybridgeError, pool: Pool, target: str, command: str, options: CallOptions, attempt: Attempt
    ) -> Any:
        try:
            other = self._pool_of(target)
        except ManybridgeError as missing:
            raise _with_fallback(error, target, missing) from None
        pool.stats.fell_back += 1
        self._warn(pool.name, target, error)
        _note(options, f'{error.code} on bridge "{pool.name}"; bridge "{target}" runs it')
        try:
            return await self.call(other, f"{target}:{command.rpartition(':')[2]}", options, attempt)
        except ManybridgeError as failure:
            if failure.code in FALLBACK_CODES or failure.code == ErrorCode.UNKNOWN_COMMAND:
                raise _with_fallback(error, target, failure) from None
            failure.details["fallback_of"] = {"bridge": pool.name, "code": error.code, "message": error.message}
            raise

    def _warn(self, name: str, target: str, error: ManybridgeError) -> None:
        now = monotonic()
        if now - self._warned.get(name, -inf) > WARN_SECONDS:
            self._warned[name] = now
            _log.warning('calls of bridge "%s" go to its fallback "%s": %s', name, target, error)


def _is_not_ours(record: logging.LogRecord) -> bool:
    """Whether stamina logs the attempts of somebody else: of ours it would say that there are some, and not of what."""
    return record.__dict__.get("stamina.callable") != OURS


def _wait_before(number: int, error: ManybridgeError, policy: RetryConfig, deadline: float) -> float | None:
    """Return the longest wait before attempt `number`, seconds; None where there is to be no such attempt."""
    if not error.retryable or error.code not in policy.codes or number > policy.attempts:
        return None
    told = error.details.get("retry_after")
    if isinstance(told, (int, float)) and not isinstance(told, bool):
        wait = max(0.0, float(told))
        if wait > policy.max_backoff:
            return None
    else:
        wait = min(policy.max_backoff, policy.initial_backoff * (2.0 ** (number - 2) + 1))
    return wait if monotonic() + wait < deadline else None


def _pause(pool: Pool, command: str, options: CallOptions, number: int, wait: float, error: ManybridgeError) -> Pause:
    attempts, until = pool.config.retry.attempts, monotonic() + wait
    return Pause(pool.name, command, options.session, options.traceparent, number, attempts, until, error)


def _note(options: CallOptions, text: str) -> None:
    """Tell whoever watches the call."""
    if options.on_event is not None:
        options.on_event(Event(0, EVENT_LOG, OWN_EVENT, {"level": "warning", "message": text}))


def _with_fallback(error: ManybridgeError, target: str, why: ManybridgeError) -> ManybridgeError:
    """The error of a call whose fallback could not help either."""
    return error.copy(fallback={"bridge": target, "code": why.code, "message": why.message})
