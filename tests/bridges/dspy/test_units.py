"""Parts of the DSPy bridge that need no DSPy."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from manybridge.bridge import BridgeError, Context, V1Context
from manybridge.bridges.common.keys import Secrets
from manybridge.bridges.dspy import DSPyBridge, v1_gemini
from manybridge.bridges.dspy.errors import translate
from manybridge.bridges.dspy.lm import SETTING_NAMES, LanguageModels, LMSettings, overlay
from manybridge.bridges.dspy.metrics import METRICS
from manybridge.bridges.dspy.programs import Program
from manybridge.bridges.dspy.signatures import parse_type
from manybridge.bridges.dspy.v1_programs import class_name, field_name
from manybridge.bridges.dspy.values import read_prediction, to_json
from tests.support import SOURCE

KEY = "sk-very-secret-0123456789"


def code_of(function: Callable[[], object]) -> str:
    """Return the code of the BridgeError that `function` raises."""
    with pytest.raises(BridgeError) as caught:
        function()
    return caught.value.code.value


# ---------------------------------------------------------------- what an import costs


def test_importing_the_bridge_imports_no_framework_and_nothing_slow() -> None:
    """The first ping waits for this import; it must also work without any site-packages."""
    code = (
        f"import sys; sys.path.insert(0, {str(SOURCE)!r}); import manybridge.bridges.dspy;"
        "print(sorted({'dspy', 'litellm', 'pydantic', 'asyncio', 'msgspec'} & sys.modules.keys()))"
    )
    ended = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"


def test_the_bridge_describes_itself_without_dspy() -> None:
    """Capabilities are read where no framework is installed."""
    spec = DSPyBridge().spec
    described = spec.describe()
    assert described["resources"]["program"]["policy"] == "restore"
    assert set(described["resources"]["program"]["config"]["properties"]) >= {"signature", "module", "tools", "lm"}
    assert {"dspy:configure_lm", "dspy:optimize", "dspy:predict"} <= set(described["commands"])
    assert all(command["description"] for command in described["commands"].values())


def test_version_1_is_served_before_setup_and_without_dspy() -> None:
    """`ping` and the refusals need no framework."""
    bridge, counters = DSPyBridge(), V1Context(mode="host")
    found = bridge.handle_v1("ping", {}, counters)
    assert found is not None
    assert (found["mode"], "worker_id" in found) == ("standalone", False)
    assert bridge.handle_v1("predict", {}, counters) is None


# ---------------------------------------------------------------- language models


def test_settings_never_show_their_key() -> None:
    """Neither in a repr, nor in what is sent back."""
    settings = LMSettings("openai/x", api_key=KEY, temperature=0.5)
    assert KEY not in repr(settings)
    assert settings.describe() == {
        "model": "openai/x", "temperature": 0.5, "cache": False, "num_retries": 0, "has_key": True,
    }  # fmt: skip


def test_another_provider_inherits_neither_key_nor_address() -> None:
    """A key goes with the provider that it belongs to."""
    base = LMSettings("openai/x", api_key=KEY, api_base="http://here", max_tokens=9)
    same, other = (overlay(base, {"model": model}, trusted=False) for model in ("openai/y", "anthropic/y"))
    assert (same.api_key, same.api_base, same.max_tokens) == (KEY, "http://here", 9)
    assert (other.api_key, other.api_base, other.max_tokens) == (None, None, None)


def test_a_caller_can_not_send_a_configured_key_to_an_address_of_its_own() -> None:
    """A new address must bring its own key; the operator's options may do as they like."""
    base = LMSettings("openai/x", api_key=KEY)
    changes = {"api_base": "http://elsewhere"}
    assert code_of(lambda: overlay(base, changes, trusted=False)) == "permission_denied"
    assert overlay(base, {**changes, "api_key": "none"}, trusted=False).api_key == "none"
    assert overlay(base, changes, trusted=True).api_base == "http://elsewhere"
    assert overlay(overlay(base, changes, trusted=True), changes, trusted=False).api_key == KEY  # it is the same one


def test_the_model_of_a_call_is_the_programs_then_the_sessions_then_the_workers() -> None:
    """And without any, the error says where to set one."""
    models = LanguageModels(Secrets())
    assert code_of(lambda: models.settings_for("s")) == "config_error"
    models.configure({"model": "openai/worker"}, None)
    models.configure({"model": "openai/session", "temperature": 0.1}, "s")
    assert models.settings_for(None).model == "openai/worker"
    assert models.settings_for("s").model == "openai/session"
    own = models.settings_for("s", {"model": "openai/own"})
    assert (own.model, own.temperature) == ("openai/own", 0.1)
    assert models.forget("s")
    assert models.settings_for("s").model == "openai/worker"


WRONG_OPTIONS: list[tuple[str, Any, str]] = [
    ("model", 5, "options.model: expected a name such as 'openai/gpt-4o-mini', found a number"),
    ("model", "", "options.model: expected a name such as 'openai/gpt-4o-mini', found a string"),
    ("api_key", ["sk-12345"], "options.api_key: expected a text, found an array"),
    ("temperature", "0.7", "options.temperature: expected a number, found a string"),
    ("temperature", True, "options.temperature: expected a number, found a boolean"),
    ("max_tokens", 0, "options.max_tokens: expected a whole number above 0"),
    ("timeout", 0, "options.timeout: expected a number of seconds above 0"),
    ("cache", "yes", "options.cache: expected true or false, found a string"),
    ("num_retries", -1, "options.num_retries: expected a whole number from 0 on"),
    ("adapter", "yaml", "options.adapter: expected one of chat, json, xml, found a string"),
    ("allow_modules", "team", "options.allow_modules: expected a list of strings, found a string"),
    ("search_path", [1], "options.search_path: expected a list of strings, found an array"),
    ("modle", "m", "unknown option 'modle'; known: model, "),
]


@pytest.mark.parametrize(("name", "value", "words"), WRONG_OPTIONS)
def test_a_wrong_option_is_told_at_the_start(name: str, value: Any, words: str) -> None:
    """And not by the first call that comes to it; the value stays out, for it may be a key."""
    with pytest.raises(BridgeError) as caught:
        DSPyBridge().setup({name: value})

    assert caught.value.code == "config_error"
    assert words in caught.value.message
    assert "sk-12345" not in caught.value.message


@pytest.mark.parametrize(
    ("lm", "words"),
    [
        ({"model": 5}, "lm.model: expected a name such as 'openai/gpt-4o-mini', found a number"),
        ({"model": "openai/x", "temprature": 0}, "lm.temprature: unknown setting; known: model, "),
        ({"timeout": "10"}, "lm.timeout: expected a number of seconds above 0, found a string"),
        ({"adapter": "json"}, "lm.adapter: unknown setting"),
    ],
)
def test_a_program_with_wrong_model_settings_is_not_made(lm: dict[str, Any], words: str) -> None:
    """A recipe that can't run would be kept, and fail in each execution."""
    program = Program()
    program.bridge = DSPyBridge()
    with pytest.raises(BridgeError) as caught:
        program.create("a -> b", lm=lm)

    assert caught.value.code == "invalid_argument"
    assert caught.value.message.startswith(words)


def test_every_option_that_is_documented_is_taken_and_null_says_nothing() -> None:
    """The table of what they must be has each setting of a model."""
    options: dict[str, Any] = {
        "model": "openai/m", "api_key": "k", "api_base": "http://x/v1", "temperature": 0, "max_tokens": 5,
        "timeout": 1.5, "cache": True, "num_retries": 0, "adapter": "json", "allow_modules": ["m"], "search_path": [],
    }  # fmt: skip
    for bridge in (DSPyBridge(), DSPyBridge()):
        bridge.setup(options)
        options = {**dict.fromkeys(options), "api_key_env": None}

    assert {*SETTING_NAMES, "adapter", "allow_modules", "search_path"} == set(options)


def test_a_setting_that_does_not_exist_is_refused() -> None:
    """With the known ones."""
    assert code_of(lambda: overlay(None, {"model": "x", "temprature": 1}, trusted=False)) == "invalid_argument"


# ---------------------------------------------------------------- values, metrics


class Stand:
    """Stands in for the module `dspy`."""

    Image = bytes


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("str", str), ("integer", int), ("list[str]", list[str]), ("dict[str, list[int]]", dict[str, list[int]]),
        ("str | None", str | None), ("Optional[int]", int | None), ("image", bytes), ("any", Any),
    ],
)  # fmt: skip
def test_types_are_read_without_being_evaluated(text: str, wanted: object) -> None:
    """The words of Python and of JSON Schema."""
    assert parse_type(Stand, text, "type") == wanted


@pytest.mark.parametrize("text", ["strr", "__import__('os')", "list[", "str.upper", "dict[str]", "1", ""])
def test_other_words_are_refused(text: str) -> None:
    """Whatever they would do."""
    assert code_of(lambda: parse_type(Stand, text, "type")) == "invalid_argument"


@pytest.mark.parametrize(
    ("metric", "wanted", "found", "score"),
    [
        ("exact_match", "Paris", " paris. ", 1.0),
        ("exact_match", 4, 4.0, 1.0),
        ("exact_match", "Paris", "in Paris", 0.0),
        ("contains", "Paris", "It is Paris!", 1.0),
        ("contains", "Rome", "It is Paris!", 0.0),
        ("word_overlap", "a b c d", "a b", 2 / 3),
        ("word_overlap", "a", None, 0.0),
    ],
)
def test_metrics_by_name(metric: str, wanted: object, found: object, score: float) -> None:
    """Case and punctuation do not count."""
    assert METRICS[metric](wanted, found) == pytest.approx(score)


def test_values_without_a_json_form_become_markers() -> None:
    """The type's name and nothing of the content."""
    assert to_json({"a": (1, {2}), "b": object()}) == {"a": [1, [2]], "b": {"$unserializable": "builtins.object"}}


def test_an_agents_trajectory_becomes_a_list_of_steps() -> None:
    """In order of their numbers, also beyond nine."""
    trajectory = {f"{name}_{n}": f"{name}{n}" for n in range(11) for name in ("thought", "tool_name")}
    found = read_prediction({"answer": "x", "trajectory": trajectory})
    assert found["outputs"] == {"answer": "x"}
    assert found["trace"][10] == {"thought": "thought10", "tool_name": "tool_name10"}


# ---------------------------------------------------------------- errors


def dspy_error(*names: str, **facts: object) -> Exception:
    """Make an exception whose classes look like DSPy's."""
    kind: type[Exception] = Exception
    for name in names:
        kind = type(name, (kind,), {"__module__": "dspy.utils.exceptions"})
    error = kind(f"[model] said {KEY}\n\n  To fix:\n    - read")
    for name, value in facts.items():
        setattr(error, name, value)
    return error


@pytest.mark.parametrize(
    ("names", "code"),
    [
        (("LMError", "LMProviderError", "LMAuthError"), "provider_auth"),
        (("LMError", "LMProviderError", "LMRateLimitError"), "rate_limited"),
        (("LMError", "LMProviderError", "LMInvalidRequestError"), "provider_bad_request"),
        (("LMError", "LMProviderError", "LMInvalidRequestError", "ContextWindowExceededError"),
         "context_length_exceeded"),
        (("LMError", "LMProviderError", "LMInvalidRequestError", "LMUnsupportedModelError"), "provider_not_found"),
        (("LMError", "LMProviderError", "LMTimeoutError"), "provider_timeout"),
        (("LMError", "LMTransportError"), "provider_unavailable"),
        (("LMError", "LMConfigurationError", "LMNotConfiguredError"), "provider_auth"),
        (("LMError", "LMConfigurationError"), "config_error"),
        (("LMError", "SomethingNew"), "handler_error"),
    ],
)  # fmt: skip
def test_dspys_exceptions_get_a_code_and_lose_advice_and_keys(names: tuple[str, ...], code: str) -> None:
    """Subclasses before their parents; the facts travel as details."""
    secrets = Secrets()
    secrets.add(KEY)
    found = translate(ExceptionGroup("stream", [dspy_error(*names, status=418, retry_after=2.0)]), secrets)
    assert found is not None
    assert (found.code.value, found.message) == (code, "[model] said ***")
    assert found.details == {"status": 418, "retry_after": 2.0}
    assert found.type == names[-1]


def test_a_transport_error_that_is_a_timeout_says_so() -> None:
    """DSPy has one class for both; the cause tells."""
    error = dspy_error("LMError", "LMTransportError")
    error.__cause__ = TimeoutError()
    found = translate(error, Secrets())
    assert found is not None
    assert found.code.value == "provider_timeout"


def test_other_exceptions_are_left_to_the_runtime() -> None:
    """They are bugs, or the user's own."""
    assert translate(KeyError("x"), Secrets()) is None


# ---------------------------------------------------------------- version 1 details


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("question", "question"), ("the question", "the_question"), ("a-b.c", "a_b_c"), ("2nd", "field_3"),
     ("_x", "field_3"), ("???", "field_3"), ("\u00fcber", "\u00fcber")],
)  # fmt: skip
def test_field_names_follow_the_contract(name: str, wanted: str) -> None:
    """Non-word characters become underscores; what would begin with one is numbered."""
    assert field_name(name, 3) == wanted


def test_class_names_follow_the_contract() -> None:
    """The last part of the Elixir module's name."""
    assert class_name({"name": "MyApp.Sig-nature"}) == "Sig_nature"
    assert class_name({}) == "DynamicSignature"
    assert class_name({"name": "MyApp.1"}).startswith("Dynamic_")


SIGNATURE = {
    "inputs": [{"name": "text", "description": "Text to judge"}, {"name": "n"}],
    "outputs": [{"name": "Label", "description": "Label OF it"}, {"name": "why"}],
}


def test_gemini_prompts_have_the_contracts_form() -> None:
    """Instruction, one paragraph per input, the form of the reply."""
    assert v1_gemini.build_prompt(SIGNATURE, {"text": "hi"}) == (
        "Please provide the following: Label, why.\n\nText to judge: hi\n\nn: \n\n\n"
        "Please respond in this format:\nLabel: [your label of it]\nwhy: [your response]"
    )
    only = {"inputs": [], "outputs": [{"name": "answer", "description": "the answer"}]}
    assert v1_gemini.build_prompt(only, {}).startswith("Please provide the answer.")
    assert v1_gemini.build_prompt({}, {}) == "Please provide the following: ."


def test_gemini_replies_are_read_line_by_line() -> None:
    """Case does not count, the first match does; a single output may be the whole text, others stay empty."""
    assert v1_gemini.parse_response(SIGNATURE, "label: a: b\nLABEL: c\n other") == {"Label": "a: b", "why": ""}
    assert v1_gemini.parse_response({"outputs": [{"name": "x"}]}, " all of it \n") == {"x": "all of it"}


def test_options_are_checked(tmp_path: Path) -> None:
    """An unknown one, and a key's variable that is not set."""
    assert code_of(lambda: DSPyBridge().setup({"modle": "x"})) == "config_error"
    assert (
        code_of(lambda: DSPyBridge().setup({"model": "openai/x", "api_key_env": "NO_SUCH_KEY"})) == "missing_variable"
    )


def test_a_recipe_may_not_hold_a_key() -> None:
    """Recipes are stored."""
    bridge = DSPyBridge()
    config = {"signature": "a -> b", "lm": {"model": "openai/x", "api_key": KEY}}
    assert code_of(lambda: bridge.create_program(None, ctx=Context.detached(), **config)) == "invalid_argument"
