"""The Python adapters on real hosts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from manybridge import AsyncMLBridge, MLBridge
from manybridge.adapters import AsyncPythonAdapter, PythonAdapter
from manybridge.adapters.python import RemoteObject
from manybridge.errors import ManybridgeError

CONFIG: dict[str, Any] = {
    "bridges": {"python": {"pool_size": 2, "sandbox": "none", "options": {"evaluate": True, "allow": [
        "collections", "math", "datetime", "itertools",
    ]}}},
}  # fmt: skip


@pytest.fixture(scope="module")
def ml() -> Iterator[MLBridge]:
    """A host with two workers."""
    with MLBridge.from_config(CONFIG) as host:
        host.wait_ready("python", timeout=10)
        yield host


@pytest.fixture
def python(ml: MLBridge, request: pytest.FixtureRequest) -> PythonAdapter:
    """Its adapter, in a session of the test's own."""
    adapter: PythonAdapter = ml.get_adapter("python")
    return adapter.using(session=request.node.name)


@pytest.fixture
async def apython() -> AsyncIterator[AsyncPythonAdapter]:
    """The other adapter."""
    async with AsyncMLBridge.from_config(CONFIG) as host:
        adapter: AsyncPythonAdapter = host.get_adapter("python")
        yield adapter.using(session="s")


def test_functions_are_called_with_arguments_of_their_own(python: PythonAdapter) -> None:
    """Keywords go to the function, whatever they are called."""
    assert python.call("math:hypot", 3, 4) == 5.0
    assert python.call("math:isclose", 1.0, 1.1, abs_tol=0.2) is True
    assert python.attribute("math:pi") == pytest.approx(3.14159, abs=1e-5)
    assert list(python.iterate("itertools:accumulate", [1, 2, 3])) == [1, 3, 6]
    assert python.evaluate("n + len(words)", n=1, words=["a", "b"]) == 3


def test_an_object_stays_in_its_worker_until_it_is_released(python: PythonAdapter) -> None:
    """Used as a value, and given as an argument."""
    with python.keep("collections:Counter", "banana") as counter:
        assert counter.method("most_common", 1) == [["a", 3]]
        with counter.method("values") as values:
            assert python.call("math:prod", values) == 6
        with python.keep("collections:Counter", counter) as copy:
            copy.method("update", ["a"])
            assert (copy.method("get", "a"), counter.method("get", "a")) == (4, 3)
        assert [each.id for each in python.objects()] == [counter.id]
        assert sorted(counter.iterate()) == ["a", "b", "n"]
    with pytest.raises(ManybridgeError) as caught:
        counter.method("most_common", 1)
    assert caught.value.code == "resource_not_found"


def test_values_that_json_cannot_carry_come_as_objects(python: PythonAdapter) -> None:
    """At any depth; those with a text show it."""
    day = python.call("datetime:date", 2026, 11, 22)
    assert isinstance(day, RemoteObject)
    assert (day.type, day.text) == ("datetime.date", "2026-11-22")
    assert (day.attribute("year"), day.method("isoformat")) == (2026, "2026-11-22")
    assert day.keep("replace", year=2027).text == "2027-11-22"
    nested = python.execute("{'days': [day]}", day=day).result
    assert isinstance(nested["days"][0], RemoteObject)


def test_an_error_inside_the_block_is_not_hidden_by_releasing(python: PythonAdapter) -> None:
    """Even if the object is gone already; without an error, that is one."""

    def use(*, failing: bool) -> None:
        with python.keep("math:sqrt", 4) as kept:
            kept.release()
            _ = 1 / (not failing)

    with pytest.raises(ZeroDivisionError):
        use(failing=True)
    with pytest.raises(ManybridgeError, match="no object"):
        use(failing=False)


def test_code_gives_result_output_and_progress(python: PythonAdapter) -> None:
    """While it runs, to whom asks for it."""
    printed: list[tuple[str, str]] = []
    steps: list[tuple[float, float | None, str]] = []
    ran = python.execute(
        "for step in range(2):\n    print(step)\n    ctx.progress(step + 1, 2, 'counting')\nstep + n",
        {"n": 40},
        on_output=lambda stream, text: printed.append((stream, text)),
        on_progress=lambda *progress: steps.append(progress),
    )
    assert (ran.result, ran.stdout, ran.stderr, ran.dropped_bytes) == (41, "0\n1\n", "", 0)
    assert printed == [("stdout", "0\n"), ("stdout", "1\n")]
    assert steps == [(1, 2, "counting"), (2, 2, "counting")]
    python.execute("x = 1", namespace="n")
    assert python.execute("x += 1", namespace="n", result="x").result == 2


def test_a_timeout_of_the_adapter_is_that_of_its_calls(python: PythonAdapter) -> None:
    """In seconds."""
    with pytest.raises(ManybridgeError) as caught:
        python.using(timeout=0.2).execute("while True: pass")
    assert caught.value.code == "timeout"


def test_a_state_is_read_written_and_deleted(ml: MLBridge) -> None:
    """Every change raises the version."""
    python: PythonAdapter = ml.get_adapter("python")
    state = python.create_state({"count": 0}, id="visits")
    assert (state.id, state.read("count")) == ("visits", (0, 0))
    assert state.set("who.last", "Ada") == 1
    assert state.get("who.last") == "Ada"
    assert state.get(["who", "first"], "nobody") == "nobody"
    assert state.update({"first": "Bob"}, "who") == ({"last": "Ada", "first": "Bob"}, 2)
    assert state.increment("count", 2) == 2
    assert state.delete_key("who") == {"last": "Ada", "first": "Bob"}
    assert state.compare_and_set("count", 5, expected=2) == (5, 5)
    assert python.state("visits").get() == {"count": 5}
    assert "visits" in [each.id for each in python.list_states()]
    state.delete()
    with pytest.raises(ManybridgeError) as caught:
        state.get()
    assert caught.value.code == "resource_not_found"


def test_a_lost_compare_and_set_says_what_is_there(ml: MLBridge) -> None:
    """With the version to try again from."""
    state = ml.get_adapter("python").create_state({"n": 1})
    state.set("n", 2)
    with pytest.raises(ManybridgeError) as caught:
        state.compare_and_set("n", 3, version=0)
    error = caught.value
    assert (error.code, error.retryable) == ("conflict", True)
    assert error.details == {"expected_version": 0, "version": 1, "found": 2}


def test_no_change_of_several_writers_is_lost(ml: MLBridge) -> None:
    """`change` tries again until nobody was quicker."""
    state = ml.get_adapter("python").create_state({"n": 0})
    tries = [0]

    def write() -> None:
        for _ in range(10):
            state.change(add_one, "n")

    def add_one(n: int) -> int:
        tries[0] += 1
        return n + 1

    threads = [threading.Thread(target=write) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert state.read("n") == (30, 30)
    assert tries[0] >= 30


def test_a_state_survives_the_worker_that_held_it() -> None:
    """From its last snapshot, version included."""
    with MLBridge.from_config({"bridges": {"python": {"sandbox": "none"}}}) as ml:
        python: PythonAdapter = ml.get_adapter("python")
        state = python.create_state({"n": 1})
        state.set("n", 2)
        with pytest.raises(ManybridgeError, match="exit code 9"):
            python.execute("import os\nos._exit(9)")
        assert state.read("n", 0) == (2, 1)


async def test_the_async_adapter_does_the_same(apython: AsyncPythonAdapter) -> None:
    """Everything awaitable."""
    assert await apython.call("math:hypot", 3, 4) == 5.0
    async with await apython.keep("collections:Counter", "banana") as counter:
        assert await counter.method("most_common", 1) == [["a", 3]]
        assert sorted([item async for item in counter.iterate()]) == ["a", "b", "n"]
    assert [item async for item in apython.iterate("itertools:repeat", 1, 2)] == [1, 1]
    printed: list[str] = []
    ran = await apython.execute("print('hi')\n2", on_output=lambda _, text: printed.append(text))
    assert (ran.result, printed) == (2, ["hi\n"])
    state = await apython.create_state({"n": 0})
    await asyncio.gather(*(state.change(lambda n: n + 1, "n") for _ in range(5)))
    assert await state.read("n") == (5, 5)
    await state.delete()


async def test_leaving_an_iteration_early_stops_the_work(apython: AsyncPythonAdapter) -> None:
    """The worker is free at once for the next call."""
    async for item in apython.iterate("itertools:count"):
        if item == 3:
            break
    assert await apython.using(timeout=5).call("math:sqrt", 9) == 3.0
