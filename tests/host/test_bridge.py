"""`AsyncMLBridge`: the whole surface against real workers of the bundled bridge `mock`."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from manybridge.errors import (
    CallError,
    ClosedError,
    ConfigError,
    InvalidArgumentError,
    ManybridgeError,
    RegistryError,
    UnknownCommandError,
)
from manybridge.host.bridge import AsyncMLBridge
from tests.host.conftest import HostMaker
from tests.support import aeventually
from tests.timing import bounded, within

WORDS = '''
from manybridge.bridge import Bridge, command

class Words(Bridge):
    name = "words"

    @command
    def count(self, text: str) -> dict:
        """Counts words."""
        return {"words": len(text.split())}
'''


class TestCalls:
    async def test_a_command_without_namespace_gets_the_bridges(self, mock_host: HostMaker) -> None:
        """`echo` of bridge mock is `mock:echo`."""
        ml = await mock_host()

        assert await ml.call("mock", "echo", {"a": 1}) == await ml.call("mock", "mock:echo", {"a": 1})

    async def test_no_bridge_means_the_default(self, mock_host: HostMaker) -> None:
        """The only one is the default."""
        ml = await mock_host()

        assert await ml.call(None, "echo", {"a": 1}) == {"a": 1}

    async def test_an_error_of_the_worker_keeps_its_code_and_details(self, mock_host: HostMaker) -> None:
        """Code, message, retryable, framework, type, traceback."""
        ml = await mock_host()

        with pytest.raises(CallError) as caught:
            await ml.call("mock", "fail", {"kind": "raise", "message": "bad weights"})

        error = caught.value
        assert (error.code, error.retryable, error.framework) == ("handler_error", False, "mock")
        assert "bad weights" in error.message
        assert error.type is not None
        assert error.type.endswith("MockError")
        assert error.traceback is not None

    @pytest.mark.parametrize(
        ("command", "args", "kind", "code"),
        [
            ("nope", {}, UnknownCommandError, "unknown_command"),
            ("sleep", {"seconds": "long"}, InvalidArgumentError, "invalid_argument"),
            ("sleep", {"second": 1}, InvalidArgumentError, "invalid_argument"),
            ("common:shutdown", {}, CallError, "not_supported"),
            ("common:hello", {}, CallError, "not_supported"),
        ],
    )
    async def test_wrong_calls_have_their_own_errors(
        self, command: str, args: dict[str, Any], kind: type[ManybridgeError], code: str, mock_host: HostMaker
    ) -> None:
        """And the worker goes on."""
        ml = await mock_host()

        with pytest.raises(kind) as caught:
            await ml.call("mock", command, args)
        assert caught.value.code == code
        assert await ml.call("mock", "echo", {"a": 1}) == {"a": 1}

    async def test_an_unknown_bridge_lists_the_known_ones(self, mock_host: HostMaker) -> None:
        """unknown_bridge."""
        ml = await mock_host()

        with pytest.raises(RegistryError, match="known: mock"):
            await ml.call("mokc", "echo")

    @pytest.mark.parametrize("timeout", [-1, "5", True, math.nan])
    async def test_a_timeout_must_be_a_number_of_seconds(self, timeout: Any, mock_host: HostMaker) -> None:
        """invalid_argument, before anything is sent."""
        ml = await mock_host()

        with pytest.raises(InvalidArgumentError, match="timeout"):
            await ml.call("mock", "echo", timeout=timeout)

    async def test_arguments_must_be_a_mapping(self, mock_host: HostMaker) -> None:
        """invalid_argument."""
        ml = await mock_host()

        with pytest.raises(InvalidArgumentError, match="args"):
            await ml.call("mock", "echo", [1])  # type: ignore[arg-type]  # the mistake under test

    async def test_a_call_without_timeout_has_the_bridges(self, mock_host: HostMaker) -> None:
        """default_timeout; math.inf is no limit."""
        ml = await mock_host(default_timeout=0.1)

        with pytest.raises(TimeoutError):
            await ml.call("mock", "sleep", {"seconds": 5})
        assert await ml.call("mock", "sleep", {"seconds": 0.3}, timeout=math.inf) == {"slept": 0.3}

    async def test_many_calls_at_the_same_time_get_their_own_answers(self, mock_host: HostMaker) -> None:
        """64 in flight on two workers."""
        ml = await mock_host(pool_size=2)
        answers = await asyncio.gather(*(ml.call("mock", "echo", {"n": n}) for n in range(1000)))

        assert answers == [{"n": n} for n in range(1000)]

    async def test_large_messages_pass_whole(self, mock_host: HostMaker) -> None:
        """10 MB each way."""
        ml = await mock_host()
        text = "x" * 10_000_000

        assert (await ml.call("mock", "echo", {"text": text}))["text"] == text

    async def test_a_result_over_the_frame_limit_is_an_error_of_its_call(self, mock_host: HostMaker) -> None:
        """frame_too_large; the worker lives on."""
        ml = await mock_host(max_frame_bytes=10_000)

        with pytest.raises(ManybridgeError) as caught:
            await ml.call("mock", "fail", {"kind": "huge", "size": 20_000})
        assert caught.value.code == "frame_too_large"
        assert (await ml.stats())["bridges"]["mock"]["crashes"] == 0

    async def test_a_batch_returns_results_and_errors_in_order(self, mock_host: HostMaker) -> None:
        """One failure is that item's own."""
        ml = await mock_host()
        calls: list[dict[str, Any]] = [
            {"command": "echo", "args": {"n": 1}},
            {"command": "nope"},
            {"command": "mock:echo", "args": {"n": 3}},
        ]
        first, second, third = await ml.batch("mock", calls)

        assert (first, third) == ({"n": 1}, {"n": 3})
        assert isinstance(second, UnknownCommandError)
        with pytest.raises(UnknownCommandError):
            await ml.batch("mock", calls, return_exceptions=False)

    async def test_a_batch_with_a_key_repeats_only_what_has_not_succeeded(self, mock_host: HostMaker) -> None:
        """Each call has a key of its own; the same through `common:batch`."""
        ml = await mock_host()
        items: list[dict[str, Any]] = [{"command": "mock:echo", "args": {"n": 1}}, {"command": "mock:fail"}]
        for _ in range(2):
            first, second = await ml.batch("mock", items, idempotency_key="k")
            assert (first, second.code) == ({"n": 1}, "handler_error")
        results = (await ml.call("mock", "common:batch", {"calls": items}, idempotency_key="k"))["results"]
        assert [each["success"] for each in results] == [True, False]
        counts = (await ml.call("mock", "calls"))["counts"]
        assert (counts["echo"], counts["fail"]) == (1, 3)

    async def test_an_unknown_key_in_a_batch_is_refused(self, mock_host: HostMaker) -> None:
        """A misspelt `args` would be a call without arguments."""
        ml = await mock_host()
        with pytest.raises(InvalidArgumentError, match=r"calls\[0\]: .*found 'arg'"):
            await ml.batch("mock", [{"command": "echo", "arg": {"n": 1}}])
        with pytest.raises(InvalidArgumentError, match=r"calls\[0\]: .*found 'arg'"):
            await ml.call("mock", "common:batch", {"calls": [{"command": "mock:echo", "arg": {"n": 1}}]})

    async def test_a_deadline_of_the_callers_own_works_too(self, mock_host: HostMaker) -> None:
        """asyncio.timeout around a call stops its work."""
        ml = await mock_host()

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await ml.call("mock", "sleep", {"seconds": 30})
        assert await ml.call("mock", "echo", timeout=5) == {}


class TestIdempotency:
    async def test_two_calls_with_one_key_are_one_execution(self, mock_host: HostMaker) -> None:
        """Both get the same result, at the same time and afterwards."""
        ml = await mock_host(pool_size=2)
        args = {"seconds": 0.2}
        results = await asyncio.gather(
            *(ml.call("mock", "sleep", args, idempotency_key="k-1") for _ in range(3)),
        )
        results.append(await ml.call("mock", "sleep", args, idempotency_key="k-1"))

        assert results == [{"slept": 0.2}] * 4
        assert (await ml.stats())["bridges"]["mock"]["calls"] == 1

    async def test_a_key_can_not_be_used_for_another_call(self, mock_host: HostMaker) -> None:
        """invalid_argument."""
        ml = await mock_host()
        await ml.call("mock", "echo", {"a": 1}, idempotency_key="k")

        with pytest.raises(CallError, match="idempotency_key") as caught:
            await ml.call("mock", "echo", {"a": 2}, idempotency_key="k")
        assert (caught.value.code, caught.value.retryable) == ("conflict", False)

    async def test_a_failed_call_can_be_tried_again(self, mock_host: HostMaker) -> None:
        """Failures are not kept."""
        ml = await mock_host()
        for _ in range(2):
            with pytest.raises(CallError):
                await ml.call("mock", "fail", {"kind": "raise"}, idempotency_key="k")

        assert (await ml.stats())["bridges"]["mock"]["calls"] == 2

    async def test_the_work_goes_on_while_anybody_waits(self, mock_host: HostMaker) -> None:
        """One of two callers leaves."""
        ml = await mock_host()
        first, second = (
            asyncio.ensure_future(ml.call("mock", "sleep", {"seconds": 0.3}, idempotency_key="k")) for _ in range(2)
        )
        await aeventually(lambda: ml.pool("mock").running)
        first.cancel()

        assert await second == {"slept": 0.3}


class TestRegistry:
    async def test_a_bridge_can_be_added_by_the_path_of_its_file(self, tmp_path: Path, mock_host: HostMaker) -> None:
        """While the host runs."""
        ml = await mock_host()
        (tmp_path / "words.py").write_text(WORDS)
        await ml.register_bridge("words", str(tmp_path / "words.py"))

        assert await ml.call("words", "count", {"text": "one two"}) == {"words": 2}
        assert set(ml.bridges()) == {"mock", "words"}
        assert "words:count" in str(await ml.capabilities("words"))

    async def test_a_bridge_can_be_changed(self, mock_host: HostMaker) -> None:
        """Calls go on."""
        ml = await mock_host()
        await ml.call("mock", "echo")
        await ml.update_bridge("mock", pool_size=2, environment={"NEW_VARIABLE": "1"})

        async def changed() -> bool:
            return "NEW_VARIABLE" in (await ml.call("mock", "environment"))["set"]

        await aeventually(changed)
        with pytest.raises(ConfigError):
            await ml.update_bridge("mock", pool_sice=2)

    async def test_a_bridge_can_be_removed(self, mock_host: HostMaker) -> None:
        """Its name is unknown at once; its workers end."""
        ml = await mock_host()
        pool = ml.pool("mock")
        await ml.call("mock", "echo")
        await ml.unregister_bridge("mock")

        with pytest.raises(RegistryError):
            await ml.call("mock", "echo")
        await aeventually(lambda: not pool.workers)

    async def test_a_bridge_that_is_not_eager_starts_with_its_first_call(self, mock_host: HostMaker) -> None:
        """And says so until then."""
        ml = await mock_host(eager=False)
        assert (await ml.health())["bridges"]["mock"]["state"] == "idle"

        assert await ml.call("mock", "echo", {"a": 1}) == {"a": 1}
        assert (await ml.health())["bridges"]["mock"]["state"] == "ready"


class TestHealth:
    async def test_a_ready_host_is_ok(self, mock_host: HostMaker) -> None:
        """With every worker named."""
        ml = await mock_host(pool_size=2)
        await ml.wait_ready("mock", 10)
        health = await ml.health()

        assert (health["status"], health["bridges"]["mock"]["state"]) == ("ok", "ready")
        assert len(health["bridges"]["mock"]["workers"]) == 2

    async def test_a_bridge_that_can_not_start_is_failed_with_the_reason(self, mock_host: HostMaker) -> None:
        """Not just "unhealthy"."""
        ml = await mock_host(options={"setup_error": "no such model"})
        with pytest.raises(ManybridgeError):
            await ml.call("mock", "echo")
        health = await ml.health()

        assert (health["status"], health["bridges"]["mock"]["state"]) == ("failed", "failed")
        assert "no such model" in health["bridges"]["mock"]["reason"]

    async def test_a_busy_worker_is_alive_and_says_with_what(self, mock_host: HostMaker) -> None:
        """Busy for n seconds with command m; it answers a ping while it works."""
        ml = await mock_host()
        call = asyncio.ensure_future(ml.call("mock", "busy", {"seconds": 0.5}))
        await aeventually(lambda: ml.pool("mock").running)
        (worker,) = (await ml.health())["bridges"]["mock"]["workers"]

        assert (worker["state"], worker["current_call"]) == ("busy", "mock:busy")
        assert worker["busy_seconds"] >= 0
        await call

    async def test_a_worker_that_can_not_answer_is_unresponsive(self, mock_host: HostMaker) -> None:
        """C code that keeps the interpreter's lock stops the control lane, too."""
        ml = await mock_host()
        await ml.call("mock", "echo")
        call = asyncio.ensure_future(ml.call("mock", "busy", {"seconds": 1.5, "mode": "c"}))
        await aeventually(lambda: ml.pool("mock").running)
        bridge = (await ml.health())["bridges"]["mock"]

        assert (bridge["state"], bridge["workers"][0]["state"]) == ("degraded", "unresponsive")
        await call

    async def test_stats_count_calls_errors_and_latencies(self, mock_host: HostMaker) -> None:
        """For each bridge."""
        ml = await mock_host()
        for _ in range(10):
            await ml.call("mock", "echo")
        with pytest.raises(UnknownCommandError):
            await ml.call("mock", "nope")
        stats = (await ml.stats())["bridges"]["mock"]

        assert (stats["calls"], stats["succeeded"], stats["errors"]) == (11, 10, {"unknown_command": 1})
        assert 0 < stats["latency_ms"]["p50"] <= stats["latency_ms"]["max"]


async def _code_of(use: Callable[[AsyncMLBridge], Awaitable[Any]], ml: AsyncMLBridge) -> str:
    with pytest.raises(ManybridgeError, match="event loop that it was started on") as caught:
        await use(ml)
    return caught.value.code


async def _read(ml: AsyncMLBridge) -> list[Any]:
    return [event async for event in ml.stream("mock", "count", {"n": 1})]


USES: dict[str, Callable[[AsyncMLBridge], Awaitable[Any]]] = {
    "call": lambda ml: ml.call("mock", "echo"),
    "other call": lambda ml: ml.call("mock", "echo", session="s"),
    "stream": _read,
    "batch": lambda ml: ml.batch("mock", [{"command": "echo"}]),
    "submit": lambda ml: ml.submit("mock", "echo"),
    "list_resources": lambda ml: ml.list_resources("mock"),
    "health": lambda ml: ml.health(),
    "wait_ready": lambda ml: ml.wait_ready("mock"),
    "close": lambda ml: ml.close(),
}


class TestLife:
    @pytest.mark.parametrize("use", USES)
    async def test_another_event_loop_is_refused_at_once(self, mock_host: HostMaker, use: str) -> None:
        """As a second `asyncio.run` would use it. The host goes on where it is."""
        ml = await mock_host()
        outcome = await asyncio.to_thread(asyncio.run, _code_of(USES[use], ml))
        assert outcome == "not_supported"
        assert await ml.call("mock", "echo", {"a": 1}) == {"a": 1}

    async def test_a_closed_host_refuses_calls(self) -> None:
        """host_closed; closing twice is fine."""
        ml = AsyncMLBridge({"bridges": {"mock": {}}})
        async with ml:
            await ml.call("mock", "echo")
        await ml.close()

        with pytest.raises(ClosedError):
            await ml.call("mock", "echo")
        assert (await ml.health())["status"] == "closed"

    async def test_a_host_that_never_started_closes(self) -> None:
        """And stays closed."""
        ml = AsyncMLBridge({"bridges": {"mock": {}}})
        await ml.close()

        with pytest.raises(ClosedError):
            await ml.start()

    @bounded
    async def test_calls_that_run_when_an_error_leaves_the_block_are_stopped(self) -> None:
        """Nobody waits for work that nobody wants any more."""
        with within(5_000):
            calls: list[asyncio.Future[Any]] = []

            async def program() -> None:
                async with AsyncMLBridge({"bridges": {"mock": {"zygote": "never"}}}) as ml:
                    await ml.call("mock", "echo")
                    calls.append(asyncio.ensure_future(ml.call("mock", "sleep", {"seconds": 30})))
                    await aeventually(lambda: ml.pool("mock").running)
                    raise RuntimeError("mine")

            with pytest.raises(RuntimeError, match="mine"):
                await program()
            with pytest.raises(ClosedError):
                await calls[0]

    async def test_nobody_hangs_when_the_host_closes_while_it_starts(self) -> None:
        """The waiting call is told."""
        ml = AsyncMLBridge({"bridges": {"mock": {"options": {"setup_delay_ms": 5000}, "zygote": "never"}}})
        await ml.start()
        call = asyncio.ensure_future(ml.call("mock", "echo"))
        await asyncio.sleep(0)
        await ml.close(0.0)

        with pytest.raises(ClosedError):
            await call
