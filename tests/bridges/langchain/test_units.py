"""The pure parts of the LangChain bridge: schemas, descriptions of chains, settings, errors. No framework."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from manybridge.bridge import BridgeError
from manybridge.bridges.common.keys import Secrets
from manybridge.bridges.common.references import References
from manybridge.bridges.common.usage import UsageLedger
from manybridge.bridges.langchain.agents import AgentSpec, check_agent
from manybridge.bridges.langchain.errors import UnreadableAnswerError, is_unreadable, translate
from manybridge.bridges.langchain.lcel import BranchesNode, ModelNode, SequenceNode, nodes_of, read_chain
from manybridge.bridges.langchain.memory import read_memory
from manybridge.bridges.langchain.messages import check_messages, check_result, to_json
from manybridge.bridges.langchain.models import ModelSettings, overlay
from manybridge.bridges.langchain.options import read_options
from manybridge.bridges.langchain.prompts import read_prompt
from manybridge.bridges.langchain.resources import own_model
from manybridge.bridges.langchain.schemas import check_schema, problems_of, with_defaults
from manybridge.bridges.langchain.tools import ToolDefaults, read_tool
from manybridge.bridges.langchain.usage import TOKEN_COUNTS, UsageMeter

ORDER = {
    "type": "object",
    "properties": {
        "item": {"type": "string", "minLength": 1, "pattern": "^[a-z]"},
        "count": {"type": "integer", "minimum": 1, "maximum": 10, "default": 1},
        "price": {"type": "number", "exclusiveMinimum": 0, "multipleOf": 0.1},
        "size": {"enum": ["s", "m", 1]},
        "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}, "maxItems": 2, "uniqueItems": True},
        "note": {"type": ["string", "null"]},
        "to": {"anyOf": [{"type": "string"}, {"type": "object", "properties": {"id": {"type": "integer"}}}]},
    },
    "required": ["item"],
    "$defs": {"tag": {"type": "string", "maxLength": 3}},
}


@pytest.mark.parametrize(
    ("value", "problems"),
    [
        ({"item": "a", "count": 2, "price": 0.3, "size": "m", "tags": ["x"], "note": None, "to": {"id": 1}}, []),
        ({"item": "a", "count": 2.0}, []),
        ({}, ["item: missing"]),
        ({"item": 1}, ["item: expected string, found a number"]),
        ({"item": "A"}, ["item: does not match the pattern '^[a-z]'"]),
        ({"item": "a", "count": True}, ["count: expected integer, found a boolean"]),
        ({"item": "a", "count": "2"}, ["count: expected integer, found a string"]),
        ({"item": "a", "count": 11}, ["count: expected 10 or less"]),
        ({"item": "a", "price": 0}, ["price: expected more than 0"]),
        ({"item": "a", "price": 0.25}, ["price: expected a multiple of 0.1"]),
        ({"item": "a", "size": True}, ["size: expected one of 's', 'm', 1"]),
        ({"item": "a", "tags": ["long", "x"]}, ["tags[0]: expected at most 3 characters, found 4"]),
        ({"item": "a", "tags": ["x", "x"]}, ["tags: expected items that differ from each other"]),
        ({"item": "a", "note": 3}, ["note: expected string or null, found a number"]),
        ({"item": "a", "secret": 1}, ["secret: unknown; known: item, count, price, size, tags, note, to"]),
        ([], ["value: expected object, found an array"]),
    ],
)
def test_values_are_checked_against_a_schema(value: Any, problems: list[str]) -> None:
    """Each problem names its place; extra properties are refused where some are declared."""
    check_schema(ORDER, "parameters")
    assert problems_of(ORDER, value) == problems


def test_of_several_possibilities_one_must_fit() -> None:
    """With the first complaint of each that does not."""
    assert problems_of(ORDER, {"item": "a", "to": {"id": "x"}}) == [
        (
            "to: fits none of 2 possibilities (to: expected string, found an object; "
            "to.id: expected integer, found a string)"
        )
    ]
    either = {"oneOf": [{"type": "integer"}, {"minimum": 0}]}
    assert problems_of(either, 3) == ["value: fits 2 possibilities, expected exactly one"]
    assert problems_of({"allOf": [{"minimum": 0}, {"maximum": 2}]}, 3) == ["value: expected 2 or less"]


def test_an_object_without_properties_takes_any() -> None:
    """Unless it says otherwise."""
    assert problems_of({"type": "object"}, {"a": 1}) == []
    assert problems_of({"type": "object", "additionalProperties": {"type": "integer"}}, {"a": "x"}) == [
        "a: expected integer, found a string"
    ]
    assert problems_of({"type": "object", "additionalProperties": False}, {"a": 1}) == ["a: unknown; known: none"]


def test_defaults_are_filled_in() -> None:
    """Where the caller gave nothing."""
    assert with_defaults(ORDER, {"item": "a"}) == {"item": "a", "count": 1}
    assert with_defaults(ORDER, {"item": "a", "count": 2})["count"] == 2


@pytest.mark.parametrize(
    ("schema", "where"),
    [
        ([], "s"),
        ({"type": "text"}, "s.type"),
        ({"not": {}}, "s.not"),
        ({"properties": []}, "s.properties"),
        ({"properties": {"a": {"type": "int"}}}, "s.properties.a.type"),
        ({"items": 3}, "s.items"),
        ({"anyOf": {}}, "s.anyOf"),
        ({"anyOf": [{"enum": "ab"}]}, "s.anyOf[0].enum"),
        ({"required": "a"}, "s.required"),
        ({"minimum": "1"}, "s.minimum"),
        ({"pattern": "("}, "s.pattern"),
        ({"$ref": "https://example.com"}, "s.$ref"),
        ({"$ref": "#/$defs/none"}, "s.$ref"),
    ],
)
def test_a_schema_that_could_not_be_enforced_is_refused(schema: Any, where: str) -> None:
    """When it is given, and not when a model calls."""
    with pytest.raises(BridgeError) as caught:
        check_schema(schema, "s")
    assert (caught.value.code, caught.value.details["argument"]) == ("invalid_argument", where)


def test_a_schema_that_refers_to_itself_ends() -> None:
    """As a tree does; one that never gets anywhere is a problem, not a crash."""
    tree = {"properties": {"children": {"type": "array", "items": {"$ref": "#"}}}}
    check_schema(tree, "s")
    assert problems_of(tree, {"children": [{"children": []}]}) == []
    assert "nested deeper" in problems_of({"$ref": "#"}, 1)[0]


# ---------------------------------------------------------------- chains


def test_a_tree_of_steps_is_read() -> None:
    """With the path of each."""
    node = read_chain(
        [
            {"parallel": {"joke": [{"prompt": "A joke about {x}"}, {"model": "openai:a"}, {"parser": "str"}]}},
            {"assign": {"again": {"pick": "joke"}}},
            {"sequence": [{"passthrough": True}, {"tool": "m:f"}]},
        ]
    )
    assert isinstance(node, SequenceNode)
    assert isinstance(node.steps[1], BranchesNode)
    assert node.steps[1].keep
    paths = [each.path for each in nodes_of(node)]
    assert "chain[0].parallel.joke[1].model" in paths
    assert "chain[2].sequence[1].tool" in paths
    models = [each for each in nodes_of(node) if isinstance(each, ModelNode)]
    assert [model.settings for model in models] == [{"model": "openai:a"}]


@pytest.mark.parametrize(
    ("described", "path"),
    [
        ([], "chain"),
        (3, "chain"),
        ({}, "chain"),
        ({"prompt": "a", "model": None}, "chain"),
        ({"promptt": "a"}, "chain"),
        ([{"prompt": 3}], "chain[0].prompt"),
        ([{"prompt": [{"role": "robot", "content": "a"}]}], "chain[0].prompt[0].role"),
        ([{"prompt": {"template": "a", "partial": {}}}], "chain[0].prompt.partial"),
        ([{"prompt": {"template": "a", "template_format": "jinja2"}}], "chain[0].prompt.template_format"),
        ([{"model": 3}], "chain[0].model"),
        ([{"model": {"tools": {}}}], "chain[0].model.tools"),
        ([{"parallel": {"a": [{"parser": "xml"}]}}], "chain[0].parallel.a[0].parser"),
        ([{"parser": {"schema": {"type": "x"}}}], "chain[0].parser.schema.type"),
        ([{"assign": {}}], "chain[0].assign"),
        ([{"pick": []}], "chain[0].pick"),
        ([{"passthrough": 1}], "chain[0].passthrough"),
        ([{"tool": None}], "chain[0].tool"),
        ([{"sequence": {}}], "chain[0].sequence"),
    ],
)
def test_a_wrong_step_is_named_by_its_path(described: Any, path: str) -> None:
    """Every one is an invalid argument."""
    with pytest.raises(BridgeError) as caught:
        read_chain(described)
    assert (caught.value.code, caught.value.details["argument"]) == ("invalid_argument", path)


def test_trees_without_end_are_refused() -> None:
    """Too deep, and too many."""
    deep: Any = {"passthrough": True}
    for _ in range(40):
        deep = [deep]
    for described in (deep, [{"passthrough": True}] * 501):
        with pytest.raises(BridgeError, match=r"deeper|more than"):
            read_chain(described)


@pytest.mark.parametrize(
    ("template", "where"),
    [
        (None, "p.template"),
        ([], "p.template"),
        ([{"placeholder": 3}], "p.template[0].placeholder"),
        ([{"role": "tool", "content": "a"}], "p.template[0].role"),
        ([{"role": "user"}], "p.template[0].content"),
        ([{"role": "user", "content": "a", "x": 1}], "p.template[0].x"),
    ],
)
def test_a_wrong_prompt_is_named_by_its_path(template: Any, where: str) -> None:
    """As for chains."""
    with pytest.raises(BridgeError) as caught:
        read_prompt({"template": template}, "p")
    assert caught.value.details["argument"] == where


# ---------------------------------------------------------------- messages, memory, tools, agents


@pytest.mark.parametrize(
    ("messages", "where"),
    [
        ([], "messages"),
        (3, "messages"),
        ([3], "messages[0]"),
        ([{"role": "robot", "content": "a"}], "messages[0].role"),
        ([{"role": "user", "content": 3}], "messages[0].content"),
        ([{"role": "user", "content": [{"text": "no type"}]}], "messages[0].content"),
        ([{"role": "tool", "content": "a"}], "messages[0].tool_call_id"),
        ([{"role": "assistant", "content": "", "tool_calls": [{"name": "x"}]}], "messages[0].tool_calls[0]"),
        ([{"role": "user", "content": "a", "mood": "good"}], "messages[0].mood"),
    ],
)
def test_a_wrong_message_is_named(messages: Any, where: str) -> None:
    """By its place."""
    with pytest.raises(BridgeError) as caught:
        check_messages(messages, "messages")
    assert (caught.value.code, caught.value.details["argument"]) == ("invalid_argument", where)


def test_a_text_is_a_message_of_the_user() -> None:
    """Alone, or in an array."""
    assert check_messages("hi", "m") == check_messages(["hi"], "m") == [{"role": "user", "content": "hi"}]
    assert check_messages([{"role": "human", "content": "hi"}], "m")[0]["role"] == "user"


@pytest.mark.parametrize(
    ("given", "where"),
    [
        (3, "m"),
        ("redis", "m"),
        ({"kind": "sqlite"}, "m.name"),
        ({"kind": "sqlite", "name": "../x"}, "m.name"),
        ({"kind": "memory", "name": "x"}, "m.name"),
        ({"kind": "memory", "file": "x"}, "m.file"),
    ],
)
def test_a_wrong_memory_is_refused(given: Any, where: str) -> None:
    """Least of all may a name leave the folder."""
    with pytest.raises(BridgeError) as caught:
        read_memory(given, "m")
    assert caught.value.details["argument"] == where


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (3, "invalid_argument"),
        ({"name": "no spaces"}, "invalid_argument"),
        ({"description": "nameless"}, "invalid_argument"),
        ({"name": "a", "parameters": {"type": "array"}}, "invalid_argument"),
        ({"name": "a", "timeout": 0}, "invalid_argument"),
        ({"name": "a", "timeout": True}, "invalid_argument"),
        ({"name": "a", "errors": "nobody"}, "invalid_argument"),
        ({"name": "a", "returns": {"type": "x"}}, "invalid_argument"),
        ({"name": "a", "args": {}}, "invalid_argument"),
        ("os:remove", "permission_denied"),
        ("json:nothing", "invalid_argument"),
        ("json:_default_decoder", "permission_denied"),
        ("json", "invalid_argument"),
        ("nowhere:f", "invalid_argument"),
        ("json:__name__", "permission_denied"),
    ],
)
def test_a_wrong_tool_is_refused(given: Any, code: str) -> None:
    """Also one whose module callers may not name."""
    with pytest.raises(BridgeError) as caught:
        read_tool(given, "tool", References(["json", "nowhere"]), ToolDefaults())
    assert caught.value.code == code


def test_an_agent_is_checked_before_it_is_made() -> None:
    """Its strategy, its limit and the form of its answer."""
    good = AgentSpec((), None, {"properties": {}}, "auto", 5)
    check_agent(good)
    for bad in (
        good._replace(response_strategy="magic"), good._replace(recursion_limit=0),
        good._replace(response_format={"type": "array"}), good._replace(response_format={"type": "x"}),
    ):  # fmt: skip
        with pytest.raises(BridgeError) as caught:
            check_agent(bad)
        assert caught.value.code == "invalid_argument"


def test_a_result_that_json_can_not_carry_names_its_type() -> None:
    """And not its value."""
    assert check_result("t", {"a": [1, None]}) == {"a": [1, None]}
    for value in ({1}, float("nan"), {"a": object()}):
        with pytest.raises(BridgeError, match=r"set|float|dict"):
            check_result("t", value)
    assert "set" not in to_json({"a": {1}})


# ---------------------------------------------------------------- models


def test_settings_lie_over_each_other() -> None:
    """Key and address go with the provider; parameters add up."""
    base = overlay(
        None, {"model": "openai:a", "api_key": "sk-hidden", "base_url": "u", "parameters": {"proxy": 1}}, trusted=True
    )
    warm = overlay(base, {"temperature": 1, "parameters": {"top_p": 0.5}}, trusted=False)
    assert (warm.api_key, warm.base_url, warm.temperature) == ("sk-hidden", "u", 1)
    assert warm.describe()["parameters"] == {"proxy": 1, "top_p": 0.5}
    other = overlay(base, {"model": "groq:b"}, trusted=False)
    assert (other.api_key, other.base_url, other.parameters) == (None, None, "{}")
    assert "sk-hidden" not in repr(base) + str(base.describe())
    assert base.describe()["has_key"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"base_url": "http://evil"}, "permission_denied"),
        ({"parameters": {"base_url": "http://evil"}}, "permission_denied"),
        ({"parameters": {"default_headers": {}}}, "permission_denied"),
        ({"api_key_env": "HOME"}, "permission_denied"),
        ({"heat": 1}, "invalid_argument"),
        ({"temperature": "hot"}, "invalid_argument"),
        ({"max_tokens": True}, "invalid_argument"),
    ],
)
def test_a_caller_can_not_send_the_configured_key_away(changes: dict[str, Any], code: str) -> None:
    """Nor set what is not there."""
    with pytest.raises(BridgeError) as caught:
        overlay(ModelSettings("openai:a", api_key="k"), changes, trusted=False)
    assert caught.value.code == code


def test_a_recipe_holds_no_key() -> None:
    """It is stored."""
    assert own_model("openai:a") == {"model": "openai:a"}
    assert own_model({}) is None
    with pytest.raises(BridgeError, match="recipe"):
        own_model({"model": "openai:a", "api_key": "k"})


@pytest.mark.parametrize(
    "options",
    [
        {"modle": "x"}, {"model": 3}, {"temperature": 1}, {"recursion_limit": 0}, {"tool_timeout": -1},
        {"tool_errors": "x"}, {"allow_modules": "json"}, {"memory_folder": 3}, {"model": "openai:a", "parameters": []},
    ],
)  # fmt: skip
def test_wrong_options_are_config_errors(options: dict[str, Any]) -> None:
    """Named."""
    with pytest.raises(BridgeError) as caught:
        read_options(options)
    assert caught.value.code == "config_error"


def test_usage_adds_up() -> None:
    """By model, by session, and in all."""
    meter, ledger = UsageMeter(), UsageLedger(TOKEN_COUNTS)
    meter.add("m", {"input_tokens": 2, "output_tokens": 1, "total_tokens": 3})
    meter.add("m", None)
    ledger.add(meter.summary(), "s")
    assert ledger.session("s") == ledger.total() == meter.summary()
    assert (ledger.total()["calls"], ledger.total()["by_model"]["m"]["total_tokens"]) == (2, 3)
    ledger.forget("s")
    assert ledger.session("s")["calls"] == 0


# ---------------------------------------------------------------- errors


def provider_error(name: str, parent: str = "Exception", **facts: Any) -> Exception:
    """Make an exception as a provider's client would raise it."""
    base = type(parent, (Exception,), {"__module__": "some_provider"})
    made: Exception = type(name, (base,), {"__module__": "some_provider"})("said so: sk-secret-key")
    for fact, value in facts.items():
        setattr(made, fact, value)
    return made


class Response:
    """What clients keep of an HTTP answer."""

    headers: dict[str, str]

    def __init__(self, **headers: str) -> None:
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (provider_error("ModelAuthenticationError"), "provider_auth"),
        (provider_error("X", "ModelRateLimitError"), "rate_limited"),
        (provider_error("X", "RateLimitError", code="insufficient_quota"), "provider_auth"),
        (provider_error("X", "ModelInvalidRequestError", code="context_length_exceeded"), "context_length_exceeded"),
        (provider_error("BadRequestError", message="the maximum context length is 8"), "context_length_exceeded"),
        (provider_error("BadRequestError"), "provider_bad_request"),
        (provider_error("APITimeoutError"), "provider_timeout"),
        (provider_error("NotFoundError"), "provider_not_found"),
        (provider_error("Other", status_code=529), "provider_unavailable"),
        (provider_error("Other", status_code=403), "provider_auth"),
        (provider_error("Other", status_code=422), "provider_bad_request"),
        (provider_error("APIError", status_code=200), "provider_unavailable"),
        (provider_error("APIError", code="context_length_exceeded"), "context_length_exceeded"),
        (provider_error("APIError", code="insufficient_quota"), "provider_auth"),
        (UnreadableAnswerError("it says sk-secret-key"), "provider_unavailable"),
        (provider_error("OutputParserException"), "output_not_parsed"),
        (provider_error("GraphRecursionError"), "handler_error"),
        (type("ReadError", (Exception,), {"__module__": "httpx"})("cut"), "provider_unavailable"),
        (type("ReadTimeout", (Exception,), {"__module__": "httpx2"})("slow"), "provider_timeout"),
        (ExceptionGroup("one", [provider_error("NotFoundError")]), "provider_not_found"),
    ],
)
def test_exceptions_get_a_code(error: Exception, code: str) -> None:
    """By the names of their classes, whichever version they come from; keys stay out."""
    secrets = Secrets()
    secrets.add("sk-secret-key")
    found = translate(error, secrets)
    assert found is not None
    assert (found.code, "sk-secret" in found.message) == (code, False)


def test_what_is_nobodys_is_not_translated() -> None:
    """Python's own exceptions, and those that have a code already."""
    assert translate(ValueError("x"), Secrets()) is None
    assert translate(provider_error("Whatever"), Secrets()) is None
    known = BridgeError("timeout", "x")
    assert translate(known, Secrets()) is known


def test_what_fails_before_a_request_is_sent_is_not_the_providers_fault() -> None:
    """The same exceptions come from a wrong argument."""

    def create() -> None:
        raise TypeError("unexpected keyword argument")

    def read_chunk() -> None:
        raise TypeError("'NoneType' object is not iterable")

    for function, expected in ((create, False), (read_chunk, True)):
        with pytest.raises(TypeError) as caught:
            function()
        assert is_unreadable(caught.value) is expected


def test_a_wait_until_a_date_is_told_in_seconds() -> None:
    """The other form of the header."""
    headers = {"retry_after": format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)}
    found = translate(provider_error("RateLimitError", response=Response(**headers)), Secrets())
    assert found is not None
    assert 3000 < found.details["retry_after"] <= 3600


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry_after": "2"}, 2.0),
        ({"retry_after_ms": "500", "retry_after": "9"}, 0.5),
        ({"retry_after": "soon"}, None),
        ({"retry_after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry_after": "-5"}, None),
        ({"retry_after": "nan"}, None),
        ({"retry_after_ms": "inf", "retry_after": "9"}, 9.0),
    ],
)
def test_the_wait_that_a_provider_asks_for_is_told(headers: dict[str, str], seconds: float | None) -> None:
    """In seconds."""
    found = translate(provider_error("RateLimitError", response=Response(**headers)), Secrets())
    assert found is not None
    assert found.details.get("retry_after") == seconds
