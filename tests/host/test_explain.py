"""Why something waits: each word that `explain` can say, from a real host in that very situation."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from manybridge import MLBridge
from manybridge.errors import InvalidArgumentError, ManybridgeError
from manybridge.host.explain import explain_bridge
from tests.host.conftest import HostMaker, PoolMaker
from tests.support import MS, aeventually

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_a_call_behind_a_busy_worker_waits_for_capacity(mock_host: HostMaker) -> None:
    """With its place, and who is in the way, for how long."""
    ml = await mock_host()
    await ml.wait_ready("mock")
    running = asyncio.ensure_future(ml.call("mock", "sleep", {"seconds": 30}, traceparent=f"{TRACE}a"))
    await aeventually(lambda: ml.pool("mock").running)
    waiting = [asyncio.ensure_future(ml.call("mock", "echo", {"n": n}, traceparent=f"{TRACE}{n}")) for n in range(3)]
    await aeventually(lambda: ml.pool("mock").waiting == 3, message=lambda: ml.pool("mock").describe())

    last, first = await ml.explain(f"{TRACE}2"), await ml.explain(f"{TRACE}a")
    assert (last["what"], last["waits_for"], last["position"]) == ("call", "capacity", 3)
    assert "2 calls are before it; the only worker is mock-1, which has been busy with mock:sleep" in last["reason"]
    assert (first["state"], first["waits_for"], first["worker"]) == ("running", None, "mock-1")

    whole = await ml.explain("mock")
    assert (whole["waits_for"], whole["waiting_count"], whole["running_count"]) == ("capacity", 3, 1)
    assert [each["position"] for each in whole["waiting"]] == [1, 2, 3]
    assert (await ml.explain())["bridges"]["mock"]["waiting_count"] == 3
    running.cancel()
    await asyncio.gather(*waiting)
    assert (await ml.explain("mock"))["reason"] == "no call waits"


async def test_a_call_during_a_start_waits_for_loading(mock_host: HostMaker) -> None:
    """With the seconds that it has taken by now."""
    ml = await mock_host(options={"setup_delay_ms": 600})
    task = asyncio.ensure_future(ml.call("mock", "echo", {"a": 1}, traceparent=TRACE))
    words = set()

    await aeventually(lambda: ml.pool("mock").waiting)

    async def was_loading() -> bool:
        found = await ml.explain(TRACE)
        words.add(found["waits_for"])
        return "loading" in words and "imports and sets up" in found["reason"]

    await aeventually(was_loading)
    assert words <= {"starting", "loading"}
    assert await task == {"a": 1}


async def test_a_call_between_two_crashed_starts_waits_for_the_backoff(fake_pool: PoolMaker) -> None:
    """With the seconds until the next start, and the last failure."""
    fake = fake_pool("exit", restart={"initial_backoff": 30.0, "max_crashes": 9})
    await aeventually(lambda: fake.pool.supervisor.next_start is not None)
    call = fake.make("echo")
    fake.pool.submit(call)

    found = explain_bridge(fake.pool)
    assert (found["waits_for"], found["waiting"][0]["position"]) == ("backoff", 1)
    assert "the last failure: worker fake-2" in found["reason"]
    fake.pool.stop_call(call, "cancelled")
    with pytest.raises(ManybridgeError):
        await call.future  # type: ignore[misc]  # a future of this loop


async def test_a_call_of_a_session_waits_for_its_worker(mock_host: HostMaker) -> None:
    """strict_queue: another worker is idle, and of no use."""
    ml = await mock_host(pool_size=2)
    await ml.wait_ready("mock")
    await ml.create_session("s", affinity="strict_queue")
    home = (await ml.call("mock", "pid", session="s"))["worker_id"]
    blockers = [asyncio.ensure_future(ml.call("mock", "sleep", {"seconds": 1.5})) for _ in range(2)]
    await aeventually(lambda: ml.pool("mock").running == 2)
    mine = asyncio.ensure_future(ml.call("mock", "echo", {"a": 1}, session="s"))
    behind = asyncio.ensure_future(ml.call("mock", "echo", {"a": 2}, session="s"))

    async def explained() -> bool:
        return bool((await ml.explain("s"))["waiting_count"] == 1)

    await aeventually(explained)
    found = await ml.explain("s")
    # A worker whose calls were short gets some ahead: then this one waits in it and not in front of it.
    assert (found["what"], found["state"]) == ("session", "busy")
    assert found["waits_for"] in {"pinned_worker", "worker"}
    assert f"worker {home}" in found["reason"]
    assert "which has been busy with mock:sleep" in found["reason"]
    assert "1 more wait for their turn behind it" in found["reason"]
    await asyncio.gather(*blockers, mine, behind)
    assert (await ml.explain("s"))["reason"] == "no call runs in it"


async def test_a_job_says_what_its_call_waits_for(mock_host: HostMaker) -> None:
    """Queued, running, done."""
    ml = await mock_host()
    await ml.wait_ready("mock")
    first = await ml.submit("mock", "sleep", {"seconds": 30})
    second = await ml.submit("mock", "echo", {"a": 1})
    await aeventually(lambda: ml.pool("mock").waiting)

    waiting, running = await ml.explain(second.id), await ml.explain(first.id)
    assert (waiting["what"], waiting["state"], waiting["waits_for"]) == ("job", "queued", "capacity")
    assert (running["state"], running["waits_for"]) == ("running", None)
    await first.cancel()
    await second.result()
    assert (await ml.explain(second.id))["reason"] == "it is done"


async def test_a_call_that_is_being_stopped_says_so(mock_host: HostMaker) -> None:
    """It has its worker, and does not give way."""
    ml = await mock_host(cancel_grace=1_000 * MS, term_grace=200 * MS)
    await ml.wait_ready("mock")
    task = asyncio.ensure_future(ml.call("mock", "busy", {"mode": "c"}, traceparent=TRACE, timeout=500 * MS))

    async def is_stopping() -> bool:
        try:
            return bool((await ml.explain(TRACE))["state"] == "stopping")
        except InvalidArgumentError:
            return False

    await aeventually(is_stopping)
    with pytest.raises(ManybridgeError, match="took longer"):
        await task


def test_what_is_unknown_is_refused_and_blocking_programs_can_ask_too(tmp_path: Path) -> None:
    """The text says what is known of."""
    with MLBridge.from_config({"bridges": {"mock": {}}, "store": {"url": f"sqlite:///{tmp_path}/store.db"}}) as ml:
        with pytest.raises(InvalidArgumentError, match="expected a bridge, a session, a job or the traceparent"):
            ml.explain("nothing")
        assert ml.explain("mock")["waits_for"] is None
        assert ml.reload_bridge()["bridge"] == "mock"
