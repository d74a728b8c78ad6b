"""Calls that failed: tried again where that is safe, given to the fallback where nothing had begun, else told."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from manybridge import MLBridge
from manybridge.errors import CallCancelledError, CallTimeoutError, ConfigError, ManybridgeError
from manybridge.host.bridge import AsyncMLBridge
from manybridge.host.config import load_config
from tests.support import MS, REPOSITORY, aeventually
from tests.timing import bounded, within

FLAKY = str(REPOSITORY / "tests" / "workers" / "bridges" / "flaky.py")

HostOf = Callable[..., Awaitable[AsyncMLBridge]]


def bridge(**config: Any) -> dict[str, Any]:
    """The configuration of one bridge of flaky commands, which waits hardly between two attempts."""
    retry = {"initial_backoff": 0.01, **config.pop("retry", {})}
    return {"python_script": FLAKY, "zygote": "never", "cancel_grace": 0.2, "retry": retry, **config}


def broken(**config: Any) -> dict[str, Any]:
    """A bridge whose setup fails."""
    return bridge(options={"needs": "/nowhere"}, **config)


@pytest.fixture
async def host_of() -> AsyncIterator[HostOf]:
    """Return a coroutine function that starts a host with the given bridges."""
    async with AsyncExitStack() as stack:

        async def make(**bridges: dict[str, Any]) -> AsyncMLBridge:
            ml = AsyncMLBridge({"bridges": bridges})
            stack.push_async_callback(ml.close, 0.0)
            await ml.start()
            return ml

        yield make


def attempts(counter: Path) -> int:
    """How often the command ran."""
    return counter.stat().st_size if counter.exists() else 0


# ------------------------------------------------------------------ again


@pytest.mark.parametrize("failure", ["kill", "rate_limited", "provider_unavailable", "provider_timeout"])
async def test_an_idempotent_command_is_tried_again_after_what_passes(
    failure: str, host_of: HostOf, tmp_path: Path
) -> None:
    """Its caller sees the result and nothing else; the counters say what it took."""
    ml = await host_of(flaky=bridge())
    args = {"counter": str(tmp_path / "n"), "failures": [failure]}

    assert (await ml.call("flaky", "read", args))["attempt"] == 2
    stats = (await ml.stats())["bridges"]["flaky"]
    assert (stats["retried"], stats["recovered"]) == (1, 1)


async def test_a_command_that_is_not_idempotent_is_made_once(host_of: HostOf, tmp_path: Path) -> None:
    """Nobody knows how far it came, so its caller decides."""
    ml = await host_of(flaky=bridge())
    counter = tmp_path / "n"

    with pytest.raises(ManybridgeError) as caught:
        await ml.call("flaky", "write", {"counter": str(counter), "failures": ["kill"]})

    assert (caught.value.code, caught.value.retryable, attempts(counter)) == ("worker_crashed", True, 1)


async def test_a_key_says_that_a_call_may_be_sent_again(host_of: HostOf, tmp_path: Path) -> None:
    """idempotency_key: its sender is ready to repeat it, so the host does, under the same key."""
    ml = await host_of(flaky=bridge())
    args = {"counter": str(tmp_path / "n"), "failures": ["kill"]}

    first = await ml.call("flaky", "write", args, idempotency_key="k")
    assert first["attempt"] == 2
    assert await ml.call("flaky", "write", args, idempotency_key="k") == first


async def test_attempts_have_an_end(host_of: HostOf, tmp_path: Path) -> None:
    """The last error is raised, and says how many there were."""
    ml = await host_of(flaky=bridge(retry={"attempts": 3}))
    counter = tmp_path / "n"

    with pytest.raises(ManybridgeError) as caught:
        await ml.call("flaky", "read", {"counter": str(counter), "failures": ["provider_unavailable"] * 9})

    assert (caught.value.code, caught.value.details["attempts"], attempts(counter)) == ("provider_unavailable", 3, 3)


@pytest.mark.parametrize("retry", [{"attempts": 1}, {"codes": ["rate_limited"]}])
async def test_the_configuration_turns_them_off(retry: dict[str, Any], host_of: HostOf, tmp_path: Path) -> None:
    """As a whole, or for a code."""
    ml = await host_of(flaky=bridge(retry=retry))
    counter = tmp_path / "n"

    with pytest.raises(ManybridgeError):
        await ml.call("flaky", "read", {"counter": str(counter), "failures": ["provider_unavailable"]})

    assert attempts(counter) == 1


@pytest.mark.parametrize("code", ["handler_error", "provider_auth", "context_length_exceeded", "output_not_parsed"])
async def test_what_does_not_pass_is_not_tried_again(code: str, host_of: HostOf, tmp_path: Path) -> None:
    """It would fail again, or cost again."""
    ml = await host_of(flaky=bridge())
    counter = tmp_path / "n"

    with pytest.raises(ManybridgeError) as caught:
        await ml.call("flaky", "read", {"counter": str(counter), "failures": [code]})

    assert (caught.value.code, attempts(counter)) == (code, 1)


async def test_a_provider_that_says_how_long_to_wait_is_obeyed(host_of: HostOf, tmp_path: Path) -> None:
    """retry_after, and not our own backoff."""
    ml = await host_of(flaky=bridge())
    await ml.wait_ready("flaky")
    began = monotonic()

    await ml.call("flaky", "read", {"counter": str(tmp_path / "n"), "failures": ["rate_limited:0.4"]})

    assert monotonic() - began >= 0.4


async def test_nobody_is_kept_waiting_for_longer_than_the_longest_wait(host_of: HostOf, tmp_path: Path) -> None:
    """A provider that wants an hour ends the attempts; retry_after goes to the caller."""
    ml = await host_of(flaky=bridge(retry={"max_backoff": 1.0}))

    with pytest.raises(ManybridgeError) as caught:
        await ml.call("flaky", "read", {"counter": str(tmp_path / "n"), "failures": ["rate_limited:3600"]})

    assert (caught.value.code, caught.value.details["retry_after"]) == ("rate_limited", 3600.0)


@bounded
async def test_a_wait_beyond_the_deadline_is_not_begun(host_of: HostOf, tmp_path: Path) -> None:
    """The real error comes at once, and not a timeout later."""
    ml = await host_of(flaky=bridge())
    await ml.wait_ready("flaky")
    with within(2_000):
        args = {"counter": str(tmp_path / "n"), "failures": [f"rate_limited:{5_000 * MS:g}"]}
        with pytest.raises(ManybridgeError) as caught:
            await ml.call("flaky", "read", args, timeout=4 * 1000 * MS)

        assert caught.value.code == "rate_limited"


@bounded
async def test_the_deadline_spans_all_attempts(host_of: HostOf, tmp_path: Path) -> None:
    """A second attempt has what the first one has left."""
    ml = await host_of(flaky=bridge(retry={"attempts": 50, "initial_backoff": 0.05}))
    await ml.wait_ready("flaky")
    with within(1_500):
        args = {"counter": str(tmp_path / "n"), "failures": ["provider_unavailable"] * 60}
        with pytest.raises(ManybridgeError) as caught:
            await ml.call("flaky", "read", args, timeout=1_000 * MS)
    assert isinstance(caught.value, CallTimeoutError) or caught.value.code == "provider_unavailable"


async def test_a_stream_that_has_begun_is_not_begun_anew(host_of: HostOf, tmp_path: Path) -> None:
    """Its reader would get chunks twice. Before the first chunk it is."""
    ml = await host_of(flaky=bridge())
    late = {"counter": str(tmp_path / "late"), "failures": ["provider_unavailable"]}
    stream = ml.stream("flaky", "stream", late)
    assert (await anext(stream)).data == 1
    with pytest.raises(ManybridgeError, match="not now"):
        await anext(stream)
    assert attempts(tmp_path / "late") == 1

    early = {"counter": str(tmp_path / "early"), "failures": ["provider_unavailable"], "early": True}
    events = [event async for event in ml.stream("flaky", "stream", early)]
    assert [event.data for event in events if event.event == "chunk"] == [1, 2]
    assert [event.event for event in events if event.seq == -1] == ["log"]


async def test_a_request_that_kills_is_quarantined_while_it_is_tried_again(host_of: HostOf, tmp_path: Path) -> None:
    """Two workers at most: the third attempt is refused."""
    ml = await host_of(flaky=bridge(retry={"attempts": 9}))
    counter = tmp_path / "n"

    with pytest.raises(ManybridgeError) as caught:
        await ml.call("flaky", "read", {"counter": str(counter), "failures": ["kill"] * 9})

    assert (caught.value.code, caught.value.details["cause"], attempts(counter)) == ("quarantined", "killed", 2)


async def test_a_retry_keeps_the_turn_of_its_session(host_of: HostOf, tmp_path: Path) -> None:
    """The call behind it does not overtake it."""
    ml = await host_of(flaky=bridge(retry={"initial_backoff": 0.2}))
    await ml.wait_ready("flaky")
    order: list[str] = []

    async def call(name: str, failures: list[str]) -> None:
        args = {"counter": str(tmp_path / name), "failures": failures}
        await ml.call("flaky", "read", args, session="s")
        order.append(name)

    first = asyncio.ensure_future(call("first", ["kill"]))
    await aeventually(lambda: attempts(tmp_path / "first"))
    await asyncio.gather(first, call("second", []))

    assert order == ["first", "second"]


async def test_a_job_is_tried_again_and_can_be_cancelled_in_between(host_of: HostOf, tmp_path: Path) -> None:
    """Its log says why it waits."""
    ml = await host_of(flaky=bridge(retry={"max_backoff": 60.0}))
    args = {"counter": str(tmp_path / "n"), "failures": ["rate_limited:50"]}
    job = await ml.submit("flaky", "read", args)
    await aeventually(lambda: job.event_count)

    explained = await ml.explain(job.id)
    assert (explained["waits_for"], explained["what"]) == ("retry", "job")
    assert await job.cancel()
    with pytest.raises(CallCancelledError):
        await job.result()
    assert (await ml.explain("flaky"))["between_attempts"] == []


def test_blocking_calls_are_tried_again_too(tmp_path: Path) -> None:
    """From any thread, at the same time."""
    with MLBridge.from_config({"bridges": {"flaky": bridge(pool_size=2)}}) as ml:
        results: list[int] = []

        def call(name: str) -> None:
            args = {"counter": str(tmp_path / name), "failures": ["provider_unavailable"] * 2}
            results.append(ml.call("flaky", "read", args)["attempt"])

        threads = [threading.Thread(target=call, args=(str(n),)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert results == [3] * 4
        with pytest.raises(ManybridgeError, match="not now"):
            ml.call("flaky", "write", {"counter": str(tmp_path / "w"), "failures": ["provider_unavailable"]})


# ------------------------------------------------------------------ elsewhere


async def test_a_bridge_that_can_not_start_hands_its_calls_on(host_of: HostOf, tmp_path: Path) -> None:
    """Idempotent or not: nothing had begun. The counters and health say so."""
    ml = await host_of(first=broken(fallback="second"), second=bridge())

    results = [await ml.call("first", name, {"counter": str(tmp_path / name)}) for name in ("read", "first:write")]

    assert [each["bridge"] for each in results] == ["second-1"] * 2
    stats, health = await ml.stats(), await ml.health()
    assert (stats["bridges"]["first"]["fell_back"], stats["bridges"]["second"]["succeeded"]) == (2, 2)
    first = health["bridges"]["first"]
    assert (first["state"], first["fallback"], first["last_failure"]["code"]) == ("failed", "second", "setup_failed")
    assert (health["status"], health["ready"]) == ("degraded", True)


async def test_an_open_breaker_hands_calls_on(host_of: HostOf, tmp_path: Path) -> None:
    """After the crash that opened it; that crash is its caller's, because the call had begun."""
    ml = await host_of(first=bridge(fallback="second", restart={"max_crashes": 1}), second=bridge())
    with pytest.raises(ManybridgeError) as caught:
        await ml.call("first", "write", {"counter": str(tmp_path / "a"), "failures": ["kill"]})
    assert caught.value.code == "worker_crashed"

    assert (await ml.call("first", "write", {"counter": str(tmp_path / "b")}))["bridge"] == "second-1"


async def test_a_chain_of_fallbacks_is_followed_to_its_end(host_of: HostOf, tmp_path: Path) -> None:
    """And its error is the first one's, if nobody can serve."""
    ml = await host_of(a=broken(fallback="b"), b=broken(fallback="c"), c=bridge())
    assert (await ml.call("a", "write", {"counter": str(tmp_path / "n")}))["bridge"] == "c-1"
    await ml.update_bridge("c", options={"needs": "/nowhere"})
    await ml.update_bridge("c", fallback=None)
    await ml.unregister_bridge("c")

    with pytest.raises(ManybridgeError) as caught:
        await ml.call("a", "write", {"counter": str(tmp_path / "n")})
    assert caught.value.code == "setup_failed"
    assert caught.value.details["fallback"]["bridge"] == "b"


async def test_a_fallback_without_the_command_is_no_help(host_of: HostOf, tmp_path: Path) -> None:
    """The caller learns why its own bridge failed, and what the other one said."""
    ml = await host_of(first=broken(fallback="mock"), mock={"zygote": "never"})

    with pytest.raises(ManybridgeError) as caught:
        await ml.call("first", "write", {"counter": str(tmp_path / "n")})

    assert (caught.value.code, caught.value.details["fallback"]["code"]) == ("setup_failed", "unknown_command")


async def test_an_error_of_the_fallbacks_own_names_the_bridge_that_failed_first(
    host_of: HostOf, tmp_path: Path
) -> None:
    """It ran there, so its error is the answer."""
    ml = await host_of(first=broken(fallback="second"), second=bridge())

    with pytest.raises(ManybridgeError) as caught:
        await ml.call("first", "write", {"counter": str(tmp_path / "n"), "failures": ["provider_auth"]})

    assert caught.value.code == "provider_auth"
    assert caught.value.details["fallback_of"]["bridge"] == "first"


async def test_resources_and_questions_about_a_bridge_stay_with_it(host_of: HostOf) -> None:
    """A resource that is here is not there."""
    ml = await host_of(first=broken(fallback="second"), second=bridge())

    for command in ("common:create_resource", "common:capabilities"):
        with pytest.raises(ManybridgeError) as caught:
            await ml.call("first", command, {"type": "echo"} if command.endswith("resource") else {})
        assert caught.value.code == "setup_failed"


async def test_a_session_and_a_job_go_on_elsewhere(host_of: HostOf, tmp_path: Path) -> None:
    """The session keeps to one worker there, too; the job's log says where it runs."""
    ml = await host_of(first=broken(fallback="second"), second=bridge(pool_size=2))
    args = {"counter": str(tmp_path / "n")}
    homes = {(await ml.call("first", "write", args, session="s"))["bridge"] for _ in range(5)}
    assert len(homes) == 1

    job = await ml.submit("first", "write", args)
    await job.result()
    events = [event async for event in job.events()]
    assert 'bridge "second" runs it' in events[0].data["message"]


@pytest.mark.parametrize(
    ("bridges", "text"),
    [
        ({"a": {"fallback": "a"}}, "a -> a"),
        ({"a": {"fallback": "b"}, "b": {"fallback": "a"}}, "a -> b -> a"),
        ({"a": {"fallback": "b"}, "b": {"fallback": "c"}, "c": {"fallback": "b"}}, "b -> c -> b"),
        ({"a": {"fallback": "mokc"}, "mock": {}}, 'found "mokc"; did you mean "mock"?'),
        ({"a": {"retry": {"codes": ["rate_limit"]}}}, 'found "rate_limit"; did you mean "rate_limited"?'),
        ({"a": {"retry": {"initial_backoff": 5, "max_backoff": 1}}}, "expected at least initial_backoff (5"),
        ({"a": {"retry": {"attempts": 0}}}, "expected a whole number"),
    ],
)
def test_a_configuration_that_leads_nowhere_is_refused(bridges: dict[str, Any], text: str) -> None:
    """Loops, names that do not exist, codes that do not exist."""
    complete = {name: {"bridge": "mock", **each} for name, each in bridges.items()}

    with pytest.raises(ConfigError) as caught:
        load_config({"bridges": complete})

    assert text in str(caught.value)


async def test_a_loop_is_refused_while_running_too(host_of: HostOf) -> None:
    """The registry stays as it was."""
    ml = await host_of(a=bridge(fallback="b", eager=False), b=bridge(eager=False))

    with pytest.raises(ConfigError, match="b -> a -> b"):
        await ml.update_bridge("b", fallback="a")
    with pytest.raises(ConfigError, match='found "nobody"'):
        await ml.register_bridge("c", bridge(fallback="nobody"))
    assert set(ml.bridges()) == {"a", "b"}
