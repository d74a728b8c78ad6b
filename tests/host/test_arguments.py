"""Arguments of the public surface that make no sense: one kind of error, which says which one and why."""

from __future__ import annotations

from collections.abc import Iterator
from inspect import isawaitable
from typing import Any

import pytest

from manybridge import AsyncMLBridge, MLBridge
from manybridge.errors import ConfigError, InvalidArgumentError
from tests.host.conftest import HostMaker

SECRET = "sk-1234"
"""Stands for a secret that was passed in the wrong place."""

WRONG: list[tuple[str, tuple[Any, ...], dict[str, Any], str, str]] = [
    # method, positional arguments, keywords, the argument that is wrong, what was found
    ("call", ("mock", 5), {}, "command", "int"),
    ("call", ("mock", []), {}, "command", "list"),
    ("call", ("mock", None), {}, "command", "NoneType"),
    ("call", ("mock", b"echo"), {}, "command", "bytes"),
    ("call", ("mock", []), {"session": "s"}, "command", "list"),
    ("call", (5, "x:y"), {}, "bridge", "int"),
    ("call", ([], "x:y"), {}, "bridge", "list"),
    ("call", ("mock", "echo", SECRET), {}, "args", "str"),
    ("call", ("mock", "echo"), {"timeout": "5"}, "timeout", "str"),
    ("call", ("mock", "echo"), {"timeout": -1}, "timeout", "-1"),
    ("call", ("mock", "echo"), {"timeout": float("nan")}, "timeout", "nan"),
    ("call", ("mock", "echo"), {"timeout": 1e10}, "timeout", "10000000000.0"),
    ("call", ("mock", "echo"), {"session": 5}, "session", "int"),
    ("call", ("mock", "echo"), {"session": []}, "session", "list"),
    ("call", ("mock", "echo"), {"session": ""}, "session", "an empty string"),
    ("call", ("mock", "echo"), {"idempotency_key": []}, "idempotency_key", "list"),
    ("call", ("mock", "echo"), {"idempotency_key": ""}, "idempotency_key", "an empty string"),
    ("call", ("mock", "echo"), {"traceparent": 5}, "traceparent", "int"),
    ("call", ("mock", "echo"), {"traceparent": 5, "session": "s"}, "traceparent", "int"),
    ("stream", ("mock", 5), {}, "command", "int"),
    ("stream", ("mock", "count"), {"session": []}, "session", "list"),
    ("batch", ("mock", None), {}, "calls", "NoneType"),
    ("batch", ("mock", [None]), {}, "calls[0]", "NoneType"),
    ("batch", ("mock", [{"command": "echo"}, {"command": 5}]), {}, "calls[1].command", "int"),
    ("batch", ("mock", [{"command": "echo", "args": []}]), {}, "calls[0].args", "list"),
    ("batch", ("mock", []), {"session": 5}, "session", "int"),
    ("submit", ("mock", 5), {}, "command", "int"),
    ("submit", ("mock", "echo"), {"session": []}, "session", "list"),
    ("get_job", ([],), {}, "id", "list"),
    ("get_job", (5,), {}, "id", "int"),
    ("create_resource", ("mock", 5), {}, "type", "a number"),
    ("create_resource", ("mock", "echo", 5), {}, "config", "int"),
    ("create_resource", ("mock", "echo"), {"id": []}, "id", "an array"),
    ("execute_resource", ("mock", []), {}, "id", "an array"),
    ("execute_resource", ("mock", "r", 5), {}, "inputs", "int"),
    ("get_resource", ("mock", []), {}, "id", "list"),
    ("get_resource", ("mock", "r"), {"session": []}, "session", "list"),
    ("list_resources", ("mock", 5), {}, "type", "int"),
    ("list_resources", (None, []), {}, "type", "list"),
    ("list_resources", (None, None), {"session": 5}, "session", "int"),
    ("delete_resource", ("mock", None), {}, "id", "null"),
    ("create_session", (5,), {}, "id", "int"),
    ("create_session", ("",), {}, "id", "an empty string"),
    ("create_session", ("t",), {"affinity": []}, "affinity", "list"),
    ("create_session", ("t",), {"concurrency": "often"}, "concurrency", '"often"'),
    ("create_session", ("t",), {"lease": "5"}, "lease", "str"),
    ("create_session", ("t",), {"lease": 0}, "lease", "0"),
    ("get_session", ([],), {}, "id", "list"),
    ("extend_session", (None,), {}, "id", "NoneType"),
    ("close_session", ({},), {}, "id", "dict"),
    ("register_tool", ("t", 5), {}, "function", "int"),
    ("register_tool", (5, print), {}, "name", "int"),
    ("register_tool", ("", print), {}, "name", "an empty string"),
    ("register_tool", ("t", print), {"description": 5}, "description", "int"),
    ("register_tool", ("t", print), {"parameters": 5}, "parameters", "int"),
    ("unregister_tool", ([],), {}, "name", "list"),
    ("get_adapter", (5,), {}, "bridge", "int"),
    ("register_bridge", (5, "mock"), {}, "name", "int"),
    ("register_bridge", ([], {"bridge": "mock"}), {}, "name", "list"),
    ("update_bridge", (5,), {"pool_size": 2}, "bridge", "int"),
    ("unregister_bridge", ([],), {}, "bridge", "list"),
    ("capabilities", (5,), {}, "bridge", "int"),
    ("wait_ready", (5,), {}, "bridge", "int"),
    ("wait_ready", ("mock", "5"), {}, "timeout", "str"),
    ("close", ("5",), {}, "drain", "str"),
]


@pytest.fixture(scope="module")
def blocking() -> Iterator[MLBridge]:
    """Return one host for all: none of these calls reaches a worker."""
    with MLBridge({"bridges": {"mock": {"zygote": "never", "eager": False}}}) as ml:
        yield ml


@pytest.mark.parametrize(("method", "given", "keywords", "argument", "found"), WRONG)
def test_a_wrong_argument_is_named_in_a_blocking_program(
    method: str, given: tuple[Any, ...], keywords: dict[str, Any], argument: str, found: str, blocking: MLBridge
) -> None:
    """With what was expected and the type of what was found, and never its text."""
    with pytest.raises(InvalidArgumentError) as caught:
        getattr(blocking, method)(*given, **keywords)
    check(caught.value, argument, found)


async def test_a_wrong_argument_is_named_in_an_asyncio_program() -> None:
    """Every one in turn, on one host."""
    async with AsyncMLBridge({"bridges": {"mock": {"zygote": "never", "eager": False}}}) as ml:
        for method, given, keywords, argument, found in WRONG:
            with pytest.raises(InvalidArgumentError) as caught:
                await settle(getattr(ml, method)(*given, **keywords))
            check(caught.value, argument, found)


async def settle(outcome: Any) -> Any:
    """Wait for what a coroutine method returned; the others have returned it already."""
    return await outcome if isawaitable(outcome) else outcome


def check(error: InvalidArgumentError, argument: str, found: str) -> None:
    """The error is complete."""
    problem = error.details["problems"][0]
    assert error.code == "invalid_argument"
    assert (problem["argument"], problem["found"]) == (argument, found)
    assert error.message == f"{argument}: expected {problem['expected']}, found {found}"
    assert SECRET not in error.message


@pytest.mark.parametrize("source", [5, [1], b"manybridge.toml"])
def test_a_configuration_that_is_none_is_a_config_error(source: Any) -> None:
    """As everything that is wrong with a configuration."""
    with pytest.raises(ConfigError, match=f"found {type(source).__name__}"):
        AsyncMLBridge.from_config(source)


async def test_a_wrong_argument_leaves_the_host_as_it_was(mock_host: HostMaker) -> None:
    """The next call goes through, and no tool is there."""
    ml = await mock_host()
    with pytest.raises(InvalidArgumentError):
        ml.register_tool("t", 5)  # type: ignore[arg-type]  # the mistake is the test
    with pytest.raises(InvalidArgumentError):
        await ml.call("mock", "echo", session="")

    assert ml.tools() == []
    assert await ml.list_sessions() == []
    assert await ml.call("mock", "echo", {"a": 1}) == {"a": 1}


async def test_a_function_of_c_without_a_signature_can_be_a_tool(mock_host: HostMaker) -> None:
    """Its parameters are whatever it takes."""
    ml = await mock_host()
    ml.register_tool("largest", max)

    assert ml.tools()[0]["parameters"] == {"type": "object"}
