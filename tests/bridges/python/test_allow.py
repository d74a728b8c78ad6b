"""The allow list: what callers reach, and what they do not."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from manybridge.bridge import BridgeError
from manybridge.bridges.common.allow import DEFAULT_ALLOW, AllowList

TEAM = Path(__file__).parent / "team"


@pytest.fixture(autouse=True)
def team_on_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The team's folder is importable for one test."""
    monkeypatch.syspath_prepend(str(TEAM))
    yield
    sys.modules.pop("billing", None)


def code_of(allow: AllowList, target: str) -> str:
    """The code with which `target` is refused."""
    with pytest.raises(BridgeError) as caught:
        allow.resolve(target)
    return caught.value.code


@pytest.mark.parametrize(
    "target", ["math:sqrt", "math.sqrt", "json:JSONDecoder.decode", "json.JSONDecoder.decode", "datetime:date.today"]
)
def test_a_public_name_of_an_allowed_module_is_reached_in_both_notations(target: str) -> None:
    """`module:path` and `module.path` mean the same."""
    assert callable(AllowList(DEFAULT_ALLOW).resolve(target))


@pytest.mark.parametrize("target", ["os:system", "os.system", "subprocess:run", "builtins:eval", "importlib:reload"])
def test_a_module_that_is_not_listed_is_refused_before_it_is_imported(target: str) -> None:
    """The default list has nothing that touches files or processes."""
    assert code_of(AllowList(DEFAULT_ALLOW), target) == "permission_denied"


def test_a_refused_module_is_not_imported() -> None:
    """Importing runs code, so permission comes first."""
    sys.modules.pop("this", None)
    assert code_of(AllowList(["math"]), "this:s") == "permission_denied"
    assert "this" not in sys.modules


@pytest.mark.parametrize("target", ["statistics:sys", "random:_os", "calendar:sys", "textwrap.re.enum"])
def test_a_module_inside_an_allowed_module_is_not_a_way_out(target: str) -> None:
    """What a module imported is reachable only if it is itself allowed."""
    assert code_of(AllowList(["statistics", "random", "calendar", "textwrap", "re"]), target) == "permission_denied"


@pytest.mark.parametrize("target", ["math:__loader__", "json:loads.__globals__", "billing:Account._secret"])
def test_names_with_a_leading_underscore_are_refused(target: str) -> None:
    """Dunder and private names are out of reach, whatever they hold."""
    assert code_of(AllowList(["math", "json", "billing"]), target) == "permission_denied"


def test_a_function_that_was_only_imported_is_not_part_of_a_module() -> None:
    """`from shutil import rmtree` in a team's module does not offer rmtree to callers."""
    allow = AllowList(["billing"])
    assert code_of(allow, "billing:rmtree") == "permission_denied"
    assert code_of(allow, "billing:run") == "permission_denied"


def test_a_function_that_a_module_publishes_is_part_of_it() -> None:
    """`__all__` is how an author says: this is mine to offer."""
    assert callable(AllowList(["billing"]).resolve("billing:copyfile"))


def test_an_imported_function_is_reached_when_its_home_is_allowed() -> None:
    """Allowing the home is the other way to offer it."""
    assert callable(AllowList(["billing", "shutil"]).resolve("billing:rmtree"))


def test_constants_and_instances_are_judged_by_their_path() -> None:
    """Values that have no home of their own belong to the module that holds them."""
    allow = AllowList(["billing"])
    assert allow.resolve("billing:RATE") == 0.19
    assert allow.resolve("billing:half")(1.26) == 1.3


def test_a_name_alone_allows_one_module_and_a_star_allows_the_tree() -> None:
    """`pkg` is not `pkg.*`."""
    assert code_of(AllowList(["collections"]), "collections.abc:Mapping") == "permission_denied"
    assert AllowList(["collections.*"]).resolve("collections.abc:Mapping").__name__ == "Mapping"
    assert AllowList(["xml.*"]).resolve("xml.etree.ElementTree.fromstring").__name__ == "XML"


def test_a_module_counts_under_the_name_that_it_is_imported_by() -> None:
    """`os.path` is really named posixpath; whoever lists it means it."""
    allow = AllowList(["os.path"])
    assert allow.resolve("os.path:join")("a", "b") == "a/b"
    assert code_of(allow, "os.path:os.system") == "permission_denied"


def test_frames_and_code_objects_are_refused() -> None:
    """They lead to everybody's globals under public names."""
    allow = AllowList(["billing"])
    generator = allow.resolve("billing:frame")()
    next(generator)
    with pytest.raises(BridgeError) as caught:
        allow.walk(generator, ["gi_frame", "f_globals"])
    assert caught.value.code == "permission_denied"


@pytest.mark.parametrize("target", ["math", "math:", ":sqrt", "", "math:sq rt", "math..sqrt"])
def test_a_target_that_names_nothing_is_an_invalid_argument(target: str) -> None:
    """Malformed targets are told apart from refused ones."""
    assert code_of(AllowList(["math"]), target) in {"invalid_argument", "permission_denied"}


def test_a_wrong_name_comes_with_the_closest_ones() -> None:
    """The error teaches."""
    with pytest.raises(BridgeError, match="did you mean sqrt") as caught:
        AllowList(["math"]).resolve("math:sqr")
    assert caught.value.code == "invalid_argument"
    assert "sqrt" in caught.value.details["close_matches"]


def test_an_allowed_module_that_is_not_installed_names_package_and_command() -> None:
    """The operator learns what to install, and where."""
    for target in ("no_such_package.sub:x", "no_such_package.sub.x"):
        with pytest.raises(BridgeError, match="-m pip install no_such_package") as caught:
            AllowList(["no_such_package.*"]).resolve(target)
        assert caught.value.code == "missing_package"


@pytest.mark.parametrize("pattern", ["", "a b", "os.system()", "*", ".math"])
def test_a_pattern_that_is_no_module_is_a_config_error(pattern: str) -> None:
    """A typing mistake in the list must not silently allow nothing."""
    with pytest.raises(BridgeError) as caught:
        AllowList([pattern])
    assert caught.value.code == "config_error"
