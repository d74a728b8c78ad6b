"""Health that tells the truth: whether a bridge can serve calls now, and if not, why."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any, Final

from manybridge.errors import ManybridgeError
from manybridge.host.breaker import BreakerState
from manybridge.host.causes import cause_of
from manybridge.host.pool import Pool
from manybridge.host.worker import WorkerHandle, WorkerState

PROBE_SECONDS: Final = 0.5
"""A worker's control lane answers in milliseconds even while user code runs; only C code that keeps the interpreter's
lock, or a stopped process, makes it take longer. Half a second leaves a machine under load its time, and tells of a
hang within one second of it."""


async def bridge_health(pool: Pool, *, probe: bool) -> dict[str, Any]:
    """Describe one bridge: state, reason, workers, queue."""
    workers = [_describe(worker) for worker in pool.workers]
    if probe:
        answers = await asyncio.gather(*(_answers(worker) for worker in pool.ready))
        silent = {worker.id for worker, answered in zip(list(pool.ready), answers, strict=False) if not answered}
        for described in workers:
            if described["id"] in silent:
                described["state"] = "unresponsive"
    state, reason = _state(pool, sum(each["state"] == "unresponsive" for each in workers))
    supervisor, breaker = pool.supervisor, pool.supervisor.breaker
    is_open = breaker.state is BreakerState.OPEN
    return {
        "state": state,
        "reason": reason,
        "workers": workers,
        "ready": len(pool.ready),
        "pool_size": pool.config.pool_size,
        "starting": supervisor.starting,
        "stale": sum(map(supervisor.is_stale, pool.ready)),
        "waiting": pool.waiting,
        "running": pool.running,
        "breaker": str(breaker.state),
        "breaker_open_for": round(breaker.remaining(monotonic()), 3) if is_open else None,
        "crashes": breaker.crashes,
        "last_failure": describe_failure(breaker.cause or supervisor.roll_failure),
        "quarantined": pool.quarantine.describe(),
        "fallback": pool.config.fallback,
        "zygote": supervisor.zygote_facts(),
    }


def describe_failure(error: ManybridgeError | None) -> dict[str, Any] | None:
    """What a worker died of, or could not start for, in short."""
    return None if error is None else {"code": error.code, "cause": cause_of(error), "message": error.message}


def health_when_closed() -> dict[str, Any]:
    """What a closed host says: a probe gets an answer and no exception."""
    return {"status": "closed", "live": False, "ready": False, "reason": "the host is closed", "bridges": {}}


def overall(bridges: dict[str, dict[str, Any]], store: dict[str, Any]) -> str:
    """Sum up: `ok`, `degraded` if some bridge or the store does not serve fully, `failed` if no bridge serves."""
    states = {each["state"] for each in bridges.values()}
    if states <= {"ready", "idle"}:
        return "degraded" if store["reachable"] is False else "ok"
    return "failed" if states == {"failed"} else "degraded"


def can_serve(bridges: dict[str, dict[str, Any]]) -> bool:
    """Whether every bridge can take a call now: the answer to a readiness probe.

    A bridge that starts with its first call can, and one that has lost some of its workers. So can one that has none,
    but a fallback that can.
    """
    return all(_serves(name, bridges, set()) for name in bridges)


def _serves(name: str, bridges: dict[str, dict[str, Any]], seen: set[str]) -> bool:
    found = bridges.get(name)
    if found is None or name in seen:
        return False
    silent = sum(each["state"] == "unresponsive" for each in found["workers"])
    if found["state"] == "idle" or found["ready"] > silent:
        return True
    return found["fallback"] is not None and _serves(found["fallback"], bridges, {*seen, name})


def _describe(worker: WorkerHandle) -> dict[str, Any]:
    oldest = next(iter(worker.calls.values()), None)
    busy_seconds = 0.0 if oldest is None or oldest.sent_at is None else monotonic() - oldest.sent_at
    return {
        "id": worker.id,
        "pid": worker.process.pid,
        "state": "busy" if worker.state is WorkerState.READY and worker.calls else worker.state.value,
        "generation": worker.generation,
        "started_by": worker.started_by,
        "uptime": round(worker.process.uptime, 3),
        "busy_seconds": round(busy_seconds, 3),
        "current_call": oldest.command if oldest is not None else None,
        "calls": len(worker.calls),
        "requests": worker.requests,
    }


def _state(pool: Pool, silent: int) -> tuple[str, str | None]:
    supervisor, breaker = pool.supervisor, pool.supervisor.breaker
    if pool.closing:
        return "closed", "the bridge is being closed"
    if not supervisor.started:
        return "idle", "its workers start with the first call (eager = false)"
    if not pool.ready:
        if supervisor.starting or breaker.state is BreakerState.CLOSED:
            return _starting(pool)
        return "failed", _refusing(pool)
    worry = _worry(pool, silent)
    if worry is not None:
        return "degraded", worry
    if pool.waiting:
        return "ready", f"at capacity: {pool.waiting} calls wait"
    return "ready", None


def _worry(pool: Pool, silent: int) -> str | None:
    """Why a bridge that has workers does not serve as it should."""
    supervisor, breaker = pool.supervisor, pool.supervisor.breaker
    if silent == len(pool.ready):
        return f"none of its {silent} workers answers a ping within {PROBE_SECONDS:g} s"
    if len(pool.ready) < pool.config.pool_size:
        cause = breaker.cause
        missing = f"{len(pool.ready)} of {pool.config.pool_size} workers are ready"
        return missing if cause is None else f"{missing}; the last failure: {cause.message}"
    if silent:
        return f"{silent} of its workers do not answer a ping"
    if supervisor.roll_failure is not None:
        stale = sum(map(supervisor.is_stale, pool.ready))
        text = f"{stale} workers run with what was before the last change, since none of their replacements starts"
        return f"{text}: {supervisor.roll_failure.message}"
    if breaker.state is BreakerState.HALF_OPEN:
        return "one worker is tried after the breaker was open; it gets one call at a time until it answers"
    return None


def _starting(pool: Pool) -> tuple[str, str]:
    """State and reason of a pool without a worker that will have one."""
    supervisor = pool.supervisor
    cause = supervisor.breaker.cause
    last = f"; the last failure: {cause.message}" if cause is not None else ""
    loading = [worker for worker in pool.workers if worker.state is WorkerState.LOADING]
    if loading:
        seconds = max(worker.process.uptime for worker in loading)
        limit = pool.config.start_timeout
        return "loading", f"the framework is imported and set up, for {seconds:.1f} of at most {limit:g} s{last}"
    if not supervisor.starting and supervisor.next_start is not None:
        return "starting", f"the next worker is started in {supervisor.next_start:.1f} s{last}"
    return "starting", f"its workers are being started{last}"


def _refusing(pool: Pool) -> str:
    breaker = pool.supervisor.breaker
    remaining = breaker.remaining(monotonic())
    wait = f"a worker is tried again for the first call after {remaining:.1f} s" if remaining > 0 else _NEXT_CALL
    return f"{pool.supervisor.refusal().message}; {wait}"


_NEXT_CALL: Final = "a worker is tried again for the next call"


async def _answers(worker: WorkerHandle) -> bool:
    began = monotonic()
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            await worker.control("common:ping", {})
    except (TimeoutError, ManybridgeError):
        return False
    return monotonic() - began < PROBE_SECONDS
