"""A bridge's files run as they are now: bytecode of an earlier text is never taken for theirs."""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import cache_from_source
from pathlib import Path
from types import ModuleType

import pytest

from manybridge.bridge.fresh import FreshLoader, load_fresh
from manybridge.bridge.loading import load_bridge

TEXT = "from manybridge.bridge import Bridge\nimport beside\n\nclass Digit(Bridge):\n    name = 'digit'\n    one = 1\n"
LONG_AGO = 1_000_000_000


@pytest.fixture(autouse=True)
def imports_restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Loading changes how this process imports, which other tests must not see. Here it writes bytecode."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    path, hooks, modules = list(sys.path), list(sys.path_hooks), dict(sys.modules)
    yield
    sys.path[:], sys.path_hooks[:] = path, hooks
    sys.path_importer_cache.clear()
    for name in sys.modules.keys() - modules.keys():
        del sys.modules[name]


def forget(*names: str) -> None:
    """Have modules imported anew, as in another process."""
    for name in names:
        sys.modules.pop(name, None)
    importlib.invalidate_caches()


def beside() -> ModuleType:
    """The module beside the bridge, as the bridge has it."""
    return sys.modules["beside"]


def test_an_edit_of_the_same_size_within_a_second_is_seen_in_the_file_and_beside_it(tmp_path: Path) -> None:
    """Size and second say nothing about such an edit: neither the bridge nor what it imports may be the old one."""
    file, other = tmp_path / "digit.py", tmp_path / "beside.py"
    now = time.time()
    for number in range(1, 4):
        file.write_text(TEXT.replace("one = 1", f"one = {number}"))
        other.write_text(f"one = {number}\n")
        for each in (file, other):
            os.utime(each, (now, now))
        assert load_bridge(str(file)).one == number  # type: ignore[attr-defined]  # of the file
        assert beside().one == number
        forget("digit", "beside")


def test_bytecode_that_another_program_wrote_within_the_second_is_not_trusted(tmp_path: Path) -> None:
    """A plain import of an earlier text, by a test for example, leaves bytecode that looks right."""
    file = tmp_path / "digit.py"
    file.write_text("one = 1\n")
    os.utime(file, (LONG_AGO, LONG_AGO))
    sys.path.insert(0, str(tmp_path))
    assert importlib.import_module("digit").one == 1
    os.utime(cache_from_source(str(file)), (LONG_AGO, LONG_AGO))
    file.write_text("one = 2\n")
    os.utime(file, (LONG_AGO, LONG_AGO))
    forget("digit")

    load_fresh(str(tmp_path))

    assert importlib.import_module("digit").one == 2


def test_bytecode_of_a_file_that_has_settled_is_written_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start must not compile what has not changed for long."""
    file = tmp_path / "digit.py"
    file.write_text("one = 1\n")
    os.utime(file, (LONG_AGO, LONG_AGO))
    compiled: list[str] = []
    compile_source: Callable[..., object] = FreshLoader.source_to_code

    def counted(self: FreshLoader, data: bytes, path: str, **rest: int) -> object:
        compiled.append(path)
        return compile_source(self, data, path, **rest)

    monkeypatch.setattr(FreshLoader, "source_to_code", counted)
    load_fresh(str(tmp_path))
    sys.path.insert(0, str(tmp_path))
    for _ in range(3):
        assert importlib.import_module("digit").one == 1
        forget("digit")

    assert compiled == [str(file)]


def test_folders_of_nobody_are_imported_as_ever(tmp_path: Path) -> None:
    """Only what was asked for is loaded in another way."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine2").mkdir()
    (tmp_path / "mine2" / "digit.py").write_text("one = 1\n")
    load_fresh(str(tmp_path / "mine"))
    sys.path.insert(0, str(tmp_path / "mine2"))

    assert not isinstance(importlib.import_module("digit").__loader__, FreshLoader)
