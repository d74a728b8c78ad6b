"""Health that tells the truth: whether a bridge can serve calls now, and if not, why."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any, Final

from manybridge.errors import ManybridgeError
from manybridge.host.breaker import BreakerState
from manybridge.host.pool import Pool
from manybridge.host.worker import WorkerHandle, WorkerState

PROBE_SECONDS: Final = 1.0
"""A worker's control lane answers in milliseconds even while user code runs; only C code that keeps the interpreter's
lock, or a stopped process, makes it take longer."""


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
    return {
        "state": state,
        "reason": reason,
        "workers": workers,
        "ready": len(pool.ready),
        "pool_size": pool.config.pool_size,
        "starting": pool.supervisor.starting,
        "waiting": pool.waiting,
        "running": pool.running,
        "breaker": str(pool.supervisor.breaker.state),
        "zygote": pool.supervisor.zygote_facts(),
    }


def overall(bridges: dict[str, dict[str, Any]]) -> str:
    """Sum up: `ok`, `degraded` if some bridge does not serve fully, `failed` if none serves."""
    states = {each["state"] for each in bridges.values()}
    if states <= {"ready", "idle"}:
        return "ok"
    return "failed" if states == {"failed"} else "degraded"


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
            return "starting", _starting_reason(pool)
        return "failed", supervisor.refusal().message
    if silent == len(pool.ready):
        return "degraded", f"none of its {silent} workers answers a ping within {PROBE_SECONDS:g} s"
    if len(pool.ready) < pool.config.pool_size:
        cause = breaker.cause
        missing = f"{len(pool.ready)} of {pool.config.pool_size} workers are ready"
        return "degraded", missing if cause is None else f"{missing}; the last failure: {cause.message}"
    if silent:
        return "degraded", f"{silent} of its workers do not answer a ping"
    if pool.waiting:
        return "ready", f"at capacity: {pool.waiting} calls wait"
    return "ready", None


def _starting_reason(pool: Pool) -> str:
    cause = pool.supervisor.breaker.cause
    return "its workers are being started" + (f"; the last failure: {cause.message}" if cause is not None else "")


async def _answers(worker: WorkerHandle) -> bool:
    began = monotonic()
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            await worker.control("common:ping", {})
    except (TimeoutError, ManybridgeError):
        return False
    return monotonic() - began < PROBE_SECONDS
