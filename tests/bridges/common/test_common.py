"""What the bridges share: named code, keys, sums of usage, settings of sessions."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from manybridge.bridge import BridgeError
from manybridge.bridges.common.keys import Secrets, demand_own_key, required_variable
from manybridge.bridges.common.problems import only_member
from manybridge.bridges.common.references import References
from manybridge.bridges.common.sessions import SettingsBySession
from manybridge.bridges.common.usage import UsageLedger, nothing_used

KEY = "sk-very-secret-0123456789"


def refused(function: Callable[[], object]) -> BridgeError:
    """Return the error that `function` raises."""
    with pytest.raises(BridgeError) as caught:
        function()
    return caught.value


# ---------------------------------------------------------------- named code


@pytest.fixture(autouse=True)
def modules_of_one_test(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test puts on the path and imports is gone after it."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in ("team_code", "needs_more", "is_broken"):
        sys.modules.pop(name, None)


def test_code_can_be_named_only_in_allowed_modules() -> None:
    """`json` allows `json.decoder`; nothing is allowed by default; the error names argument and option."""
    references = References(["json"])
    assert references.load("json:dumps", "metric")([1]) == "[1]"
    assert callable(references.load("json.decoder:JSONDecoder.decode", "metric"))
    for allowed, reference in ((["json"], "os:system"), (["json"], "jsonx:dumps"), ([], "json:dumps")):
        error = refused(lambda allowed=allowed, name=reference: References(allowed).load(name, "metric"))  # type: ignore[misc]
        assert (error.code, error.details["argument"]) == ("permission_denied", "metric")
        assert error.message.startswith("metric: ")
        assert "options.allow_modules" in error.message


@pytest.mark.parametrize("reference", ["team_code:os.system", "team_code:rmtree", "team_code:_private", "team_code:os"])
def test_what_an_allowed_module_imported_is_not_allowed_with_it(reference: str, tmp_path: Path) -> None:
    """Its author offers what is its own, not everything that it uses."""
    (tmp_path / "team_code.py").write_text(
        "import os\nfrom shutil import rmtree\n\n\ndef _private(): ...\ndef own(): ...\n"
    )
    references = References(["team_code"], [str(tmp_path)])
    assert callable(references.load("team_code:own", "tool"))
    assert refused(lambda: references.load(reference, "tool")).code == "permission_denied"


@pytest.mark.parametrize("reference", ["json", "json:", ":dumps", "json:nothing", "json.nothing:x", "json:a b"])
def test_a_reference_that_leads_nowhere_is_an_invalid_argument(reference: str) -> None:
    """The error names the argument."""
    error = refused(lambda: References(["json"]).load(reference, "metric"))
    assert (error.code, error.details["argument"]) == ("invalid_argument", "metric")


def test_a_module_that_needs_a_package_says_which(tmp_path: Path) -> None:
    """Unlike one that is not there at all, or that is broken: those are what the caller named."""
    (tmp_path / "needs_more.py").write_text("import no_such_package\n")
    (tmp_path / "is_broken.py").write_text("from json import no_such_name\n")
    references = References(["needs_more", "is_broken", "is_absent"], [str(tmp_path)])
    error = refused(lambda: references.load("needs_more:f", "tool"))
    assert (error.code, error.details["package"]) == ("missing_package", "no_such_package")
    for name in ("is_broken", "is_absent"):
        assert refused(lambda name=name: references.load(f"{name}:f", "tool")).code == "invalid_argument"  # type: ignore[misc]


def test_a_function_must_be_one() -> None:
    """Where a function is meant."""
    references = References(["math"])
    assert references.function("math:sqrt", "tool")(4) == 2
    assert refused(lambda: references.function("math:pi", "tool")).code == "invalid_argument"


# ---------------------------------------------------------------- keys


def test_secrets_are_cleaned_from_texts_and_short_ones_are_no_secrets() -> None:
    """A key "x" would maim every word with an x; of two that begin alike, no rest stays."""
    secrets = Secrets()
    for key in (KEY, KEY + "-longer", "x", None):
        secrets.add(key)
    assert secrets.clean(f"bad key {KEY}-longer, {KEY}, x") == "bad key ***, ***, x"


def test_keys_of_the_environment_are_secrets_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the names of their variables."""
    monkeypatch.setenv("SOME_API_KEY", KEY)
    monkeypatch.setenv("SOME_KEYBOARD", "qwertyuiop")
    secrets = Secrets()
    secrets.add_environment()
    assert secrets.clean(f"{KEY} qwertyuiop") == "*** qwertyuiop"


def test_a_variable_that_must_be_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """When it is not."""
    monkeypatch.setenv("SOME_API_KEY", KEY)
    assert required_variable("SOME_API_KEY") == KEY
    monkeypatch.delenv("SOME_API_KEY")
    error = refused(lambda: required_variable("SOME_API_KEY"))
    assert (error.code, error.details) == ("missing_variable", {"variable": "SOME_API_KEY"})


def test_a_callers_address_needs_a_callers_key() -> None:
    """A configured key goes to the configured address alone."""
    demand_own_key(None, "http://a", None, "base_url")
    demand_own_key("http://a", "http://a", None, "base_url")
    demand_own_key("http://b", "http://a", KEY, "base_url")
    assert refused(lambda: demand_own_key("http://b", "http://a", None, "base_url")).code == "permission_denied"


# ---------------------------------------------------------------- sums and settings

COUNTS = ("input_tokens", "total_tokens")


def test_usage_adds_up_per_session_and_in_all() -> None:
    """With whatever a framework counts for each model; forgetting a session keeps the total."""
    by_model = {"m": {"input_tokens": 3, "total_tokens": 7}, "n": {"calls": 1, "total_tokens": 2}}
    used = {**nothing_used(COUNTS), "calls": 1, "total_tokens": 9, "by_model": by_model}
    ledger = UsageLedger(COUNTS)
    ledger.add(used, "s")
    ledger.add(used, None)
    assert ledger.session("s") == ledger.told("s")["session"] == used
    assert ledger.total()["by_model"] == {
        "m": {"input_tokens": 6, "total_tokens": 14}, "n": {"calls": 2, "total_tokens": 4},
    }  # fmt: skip
    ledger.session("s")["by_model"]["m"]["total_tokens"] = 0
    assert ledger.session("s") == used
    ledger.forget("s")
    assert (ledger.session("s"), ledger.total()["calls"]) == (nothing_used(COUNTS), 2)
    assert ledger.told(None)["session"] is None


def test_a_session_may_have_settings_of_its_own() -> None:
    """Until it is forgotten."""
    settings = SettingsBySession("everybody's")
    settings.put("its own", "s", {"model": "x", "api_key": "sk-0123456789"})
    assert settings.told("s") == {"model": "x", "api_key": "***"}
    assert settings.told("t") == settings.told(None) == {}
    assert [settings.base(session) for session in ("s", "t", None)] == ["its own", "everybody's", "everybody's"]
    assert settings.forget("s")
    assert not settings.forget("s")
    settings.put("new", None, {})
    assert settings.base("s") == "new"


def test_groups_of_one_are_unwrapped() -> None:
    """However deep; a group of two says more than either."""
    error = ValueError("x")
    assert only_member(ExceptionGroup("a", [ExceptionGroup("b", [error])])) is error
    two = ExceptionGroup("two", [error, error])
    assert only_member(two) is two
