"""Why something waits: a call, a job, a session, or everything on a bridge. Only looks; changes and asks nothing."""

from __future__ import annotations

from itertools import islice
from math import inf
from time import monotonic
from typing import Any, Final

from manybridge.host.breaker import BreakerState
from manybridge.host.calls import Call, CallStage
from manybridge.host.causes import cause_of
from manybridge.host.jobs import AsyncJob, LiveJob
from manybridge.host.pool import Pool
from manybridge.host.rescue import Pause
from manybridge.host.sessions import Session
from manybridge.host.worker import WorkerHandle, WorkerState

LISTED_CALLS: Final = 100
"""Calls of one bridge that are listed; a queue may have thousands, which differ only in their places."""


def explain_call(pool: Pool, call: Call) -> dict[str, Any]:
    """Say where one call is and what it waits for."""
    facts: dict[str, Any] = {"bridge": pool.name, "command": call.command, "session": call.session_id}
    now = monotonic()
    facts["age"] = round(now - call.created_at, 3)
    facts["time_left"] = None if call.deadline == inf else round(call.deadline - now, 3)
    if call.stage is CallStage.DONE:
        return {**facts, "state": "answered", "waits_for": None, "reason": "it has been answered"}
    if call.worker is None:
        return {**facts, "state": "waiting", **_why_queued(pool, call)}
    return {**facts, **_with_worker(call.worker, call)}


def explain_bridge(pool: Pool) -> dict[str, Any]:
    """Say what the calls of one bridge wait for, in the order in which they will be served."""
    calls = list(pool.open_calls())
    waiting = [call for call in calls if call.worker is None]
    running = [call for call in calls if call.worker is not None]
    word, reason = _why_none_is_free(pool) if waiting else (None, "no call waits")
    return {
        "what": "bridge",
        "bridge": pool.name,
        "waits_for": word,
        "reason": reason,
        "waiting_count": len(waiting),
        "running_count": len(running),
        "waiting": [explain_call(pool, call) for call in islice(waiting, LISTED_CALLS)],
        "running": [explain_call(pool, call) for call in islice(running, LISTED_CALLS)],
    }


def explain_pause(pause: Pause) -> dict[str, Any]:
    """Say what a call between two attempts waits for."""
    left = max(0.0, pause.until - monotonic())
    text = f"attempt {pause.attempt} of {pause.attempts} follows within {left:.1f} s, after {cause_of(pause.error)}"
    return {
        "bridge": pause.bridge,
        "command": pause.command,
        "session": pause.session,
        "state": "waiting",
        "waits_for": "retry",
        "reason": f"{text}: {pause.error.message}",
        "retry_in": round(left, 3),
    }


def explain_job(job: AsyncJob, pool: Pool | None, pauses: list[Pause]) -> dict[str, Any]:
    """Say what a job waits for.

    Args:
        job: of this host or another one.
        pool: of its bridge; None where that is not here.
        pauses: the calls between two attempts on its bridge, for its command and in its session.
    """
    facts = {"what": "job", "id": job.id, "bridge": job.bridge, "command": job.command, "state": str(job.state)}
    if job.done:
        return {**facts, "waits_for": None, "reason": f"it is {job.state}"}
    if not isinstance(job, LiveJob) or pool is None:
        return {**facts, "waits_for": "host", "reason": "another host has it, or none has yet"}
    call = job.current_call
    if call is not None and call.stage is not CallStage.DONE:
        return {**explain_call(pool, call), **facts}
    if pauses:
        return {**explain_pause(pauses[0]), **facts}
    if job.session is not None:
        text = f"it waits for its turn in session {job.session}, or for what the store has to say"
        return {**facts, "waits_for": "session", "reason": text}
    return {**facts, "waits_for": "host", "reason": "the host prepares its call"}


def explain_session(session: Session, pools: list[Pool], pauses: list[Pause]) -> dict[str, Any]:
    """Say what the calls of a session wait for: for each other, or what the one in front waits for."""
    calls = [explain_call(pool, call) for pool in pools for call in pool.open_calls() if call.session_id == session.id]
    calls += [explain_pause(pause) for pause in pauses if pause.session == session.id]
    turns = len(session.waiters)
    facts = {
        "what": "session",
        "id": session.id,
        "state": "busy" if session.busy else "idle",
        "waiting_count": turns,
        "workers": {bridge: worker.id for bridge, worker in session.workers.items()},
        "calls": calls,
    }
    if not session.busy:
        return {**facts, "waits_for": None, "reason": "no call runs in it"}
    if not calls:
        return {**facts, "waits_for": "host", "reason": "the host prepares the call that has its turn"}
    front = calls[0]
    behind = f"; {turns} more wait for their turn behind it" if turns else ""
    return {**facts, "waits_for": front["waits_for"], "reason": f"{front['command']}: {front['reason']}{behind}"}


def _why_queued(pool: Pool, call: Call) -> dict[str, Any]:
    if call.target is None:
        ahead = next((place for place, each in enumerate(pool.open_calls()) if each is call), 0)
        word, reason = _why_none_is_free(pool)
    else:
        ahead = call.target.pinned.index(call) if call in call.target.pinned else 0
        word, reason = "pinned_worker", f"it must run on worker {call.target.id}, {_busy_with(call.target)}"
    return {"waits_for": word, "position": ahead + 1, "reason": f"{_place(ahead)}{reason}"}


def _place(ahead: int) -> str:
    return "" if not ahead else f"{ahead} calls are before it; "


def _why_none_is_free(pool: Pool) -> tuple[str, str]:
    """What calls that any worker may run wait for: one word, and a sentence."""
    supervisor, breaker = pool.supervisor, pool.supervisor.breaker
    cause = breaker.cause
    last = f"; the last failure: {cause.message}" if cause is not None else ""
    if pool.ready:
        if breaker.state is BreakerState.HALF_OPEN:
            return "breaker", f"one worker is tried after the breaker was open, with one call at a time{last}"
        return "capacity", _at_capacity(pool)
    loading = [worker for worker in pool.workers if worker.state is WorkerState.LOADING]
    if loading:
        seconds = max(worker.process.uptime for worker in loading)
        return "loading", f"a worker imports and sets up the framework, for {seconds:.1f} s by now{last}"
    if supervisor.starting:
        return "starting", f"a worker is being started{last}"
    if supervisor.next_start is not None:
        return "backoff", f"the next worker is started in {supervisor.next_start:.1f} s{last}"
    return "breaker", supervisor.refusal().message


def _at_capacity(pool: Pool) -> str:
    count = len(pool.ready)
    busiest = max(pool.ready, key=_busy_seconds)
    which = "the only worker is" if count == 1 else f"all {count} workers are busy, the longest"
    more = f"; {pool.supervisor.starting} more are being started" if pool.supervisor.starting else ""
    return f"{which} {busiest.id}, {_busy_with(busiest)}{more}"


def _busy_seconds(worker: WorkerHandle) -> float:
    oldest = next(iter(worker.calls.values()), None)
    return 0.0 if oldest is None or oldest.sent_at is None else monotonic() - oldest.sent_at


def _busy_with(worker: WorkerHandle) -> str:
    oldest = next(iter(worker.calls.values()), None)
    if oldest is None:
        return "which is idle"
    return f"which has been busy with {oldest.command} for {_busy_seconds(worker):.1f} s"


def _with_worker(worker: WorkerHandle, call: Call) -> dict[str, Any]:
    facts: dict[str, Any] = {"worker": worker.id, "pid": worker.process.pid}
    if call.stop_reason is not None:
        text = f"it is being stopped ({call.stop_reason}); the last step was {call.stopped_by}"
        return {**facts, "state": "stopping", "waits_for": None, "reason": text}
    if not worker.may_have_begun(call):
        ahead = next((place for place, each in enumerate(worker.calls.values()) if each is call), 0)
        text = f"worker {worker.id} has it, behind {ahead} others, {_busy_with(worker)}"
        return {**facts, "state": "waiting", "waits_for": "worker", "position": ahead + 1, "reason": text}
    seconds = 0.0 if call.sent_at is None else monotonic() - call.sent_at
    return {
        **facts,
        "state": "running",
        "waits_for": None,
        "running_for": round(seconds, 3),
        "reason": f"worker {worker.id} has run it for {seconds:.1f} s",
    }
