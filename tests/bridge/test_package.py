"""The package as a whole: what it exports, what it costs to import, and that its own example works."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import manybridge.bridge
from manybridge.bridge import Context
from manybridge.bridge.loading import load_bridge
from tests.support import SOURCE


def test_it_imports_with_nothing_but_the_standard_library() -> None:
    """Under `-I -S`, and without the modules that would eat a worker's start-up time."""
    program = (
        f"import sys; sys.path.insert(0, {str(SOURCE)!r}); import manybridge.bridge, manybridge.bridge.loading; "
        "print(*sorted({'asyncio', 'dataclasses', 'difflib', 'importlib.metadata', 'inspect', 'pathlib'} "
        "& sys.modules.keys()))"
    )

    done = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=True)

    assert (done.stdout.strip(), done.stderr) == ("", "")


def test_everything_that_is_exported_exists() -> None:
    """`__all__` is the author API."""
    assert [name for name in manybridge.bridge.__all__ if not hasattr(manybridge.bridge, name)] == []


def test_the_example_in_the_documentation_works(tmp_path: Path) -> None:
    """What the docstring shows is loaded and called as it stands."""
    text = manybridge.bridge.__doc__ or ""
    example = textwrap.dedent(text[text.index("    from manybridge.bridge import") : text.index("Save it as")])
    path = tmp_path / "greet.py"
    path.write_text(example)
    bridge = load_bridge(str(path))()
    try:
        bridge.setup({"greeting": "Hi"})
        hello = bridge.spec.commands["hello"]
        ctx = Context.detached()

        result = hello.function(ctx=ctx, **hello.validate({"name": "Ada", "times": 2}))

        assert result == {"text": "Hi Ada, Hi Ada"}
        assert [data["current"] for _, data in ctx.events] == [1, 2]
        greeter = bridge.spec.resources["greeter"].new(bridge, "g1")
        greeter.create(name="Ada")
        assert greeter.execute() == {"text": "Hi Ada, I am fine"}
    finally:
        sys.path.remove(str(tmp_path))
        del sys.modules["greet"]
