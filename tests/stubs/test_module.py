"""The text of a client module."""

from __future__ import annotations

import ast
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manybridge.bridges.mock import MockBridge
from manybridge.stubs import Origin, client_module

ORIGIN = Origin("mock", "manybridge stubs mock")


def module(commands: dict[str, Any], resources: dict[str, Any] | None = None, **options: Any) -> str:
    """The client of a bridge that says this about itself."""
    return client_module({"commands": commands, "resources": resources or {}}, ORIGIN, **options)


def methods_of(text: str, kind: str) -> dict[str, list[str]]:
    """The methods of a class, with their parameters."""
    found = next(node for node in ast.parse(text).body if isinstance(node, ast.ClassDef) and node.name == kind)
    return {
        node.name: [argument.arg for argument in node.args.kwonlyargs]
        for node in found.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_the_same_bridge_gives_the_same_text() -> None:
    """Whatever the order in which it names its commands."""
    described = MockBridge().spec.describe()
    turned = {**described, "commands": dict(reversed(described["commands"].items()))}
    assert client_module(described, ORIGIN) == client_module(turned, ORIGIN)


def test_the_header_names_bridge_version_and_command() -> None:
    """For whoever finds the file."""
    head = client_module(MockBridge().spec.describe(), ORIGIN).splitlines()[:4]
    assert head[0] == '"""Typed client of the manybridge bridge mock, version 1.0.'
    assert "Made by: manybridge stubs mock" in head


def test_a_name_of_a_call_is_not_taken_by_an_argument() -> None:
    """The argument gets another name, and its own on the wire."""
    properties = {name: {"type": "string"} for name in ("timeout", "session", "self", "more", "max-tokens")}
    text = module({"mock:ask": {"args": {"type": "object", "properties": properties, "required": ["timeout"]}}})
    assert methods_of(text, "MockClient")["ask"] == [
        *("timeout_", "session_", "self_", "more_", "max_tokens"), "timeout", "session", "idempotency_key",
    ]  # fmt: skip
    assert '"max-tokens": max_tokens' in text
    assert 'max_tokens: sent as "max-tokens".' in text


def test_commands_that_would_share_a_name_get_two() -> None:
    """In the order of their own names."""
    text = module({"mock:a-b": {"streaming": True}, "mock:a.b": {}, "mock:stream_a_b": {}, "mock:resources": {}})
    assert list(methods_of(text, "MockClient")) == [
        "__init__", "a_b", "stream_a_b_", "a_b_", "resources_", "stream_a_b",
    ]  # fmt: skip
    assert 'self._call("a.b", sent_' in text


def test_a_command_without_a_schema_takes_anything_and_returns_anything() -> None:
    """Nothing is known of it."""
    text = module({"mock:raw": {"args": None, "result": None}})
    assert "**more: Any" in text
    assert ") -> Any:" in text


def test_descriptions_can_hold_anything() -> None:
    """Quotes, backslashes, line ends, control characters."""
    hostile = 'ends with a quote" and \\ and """ and \x00 and \u2028 more"'
    facts = {"description": hostile, "args": {"type": "object", "properties": {"x": {"description": hostile}}}}
    text = module({"mock:ask": facts}, {"thing": {"description": hostile}})
    ast.parse(text)
    assert "\x00" not in text


@given(
    st.lists(st.text(max_size=12), min_size=1, max_size=4, unique=True),
    st.lists(st.text(max_size=12), max_size=4, unique=True),
    st.text(max_size=30),
    st.booleans(),
)
def test_any_names_give_a_module_that_compiles(
    names: list[str], keys: list[str], about: str, asynchronous: bool
) -> None:
    """In every place in which a name can stand."""
    properties = {key: {"type": "integer"} for key in keys}
    structure = {"type": "object", "properties": properties, "additionalProperties": False}
    facts = {"description": about, "args": structure, "result": structure, "streaming": True}
    kinds = {name: {"config": structure, "inputs": structure, "result": structure, "streaming": True} for name in names}
    text = module({f"mock:{name}": facts for name in names}, kinds, asynchronous=asynchronous)
    compile(text, "<client>", "exec")
    text.encode()


@pytest.mark.parametrize("asynchronous", [False, True])
def test_resources_have_a_class_for_one_and_a_class_for_all(asynchronous: bool) -> None:
    """Reached by `client.resources`, where no command's name is in the way."""
    text = client_module(MockBridge().spec.describe(), ORIGIN, asynchronous=asynchronous)
    assert methods_of(text, "Counter") == {"execute": ["add", "timeout", "idempotency_key"]}
    assert methods_of(text, "Echo").keys() == {"execute", "stream"}
    assert methods_of(text, "CounterResources")["create"][:2] == ["start", "resource_id"]
    assert "self.counter = CounterResources(ml, bridge)" in text
