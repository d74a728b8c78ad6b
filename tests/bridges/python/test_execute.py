"""`python:execute` in process: results, output, errors, namespaces; and that it is off unless it was turned on."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from manybridge.bridge import BridgeError, WorkerInfo
from manybridge.bridges.python import PythonBridge
from manybridge.bridges.python.execute import MAX_NAMESPACES
from manybridge.testing import BridgeHarness


class Permitted(PythonBridge):
    """The bridge in a worker that was started with `--sandbox none`."""

    def setup(self, options: dict[str, Any]) -> None:
        """Set up as usual."""
        self.worker = WorkerInfo(id="test", sandbox="none")
        super().setup(options)


@pytest.fixture
def python() -> Iterator[BridgeHarness]:
    """A bridge that may run code and keeps 1000 bytes of output."""
    with BridgeHarness(Permitted, {"max_output_bytes": 1000}) as harness:
        yield harness


def bridge_of(python: BridgeHarness) -> PythonBridge:
    """The bridge itself, by its type."""
    assert isinstance(python.bridge, PythonBridge)
    return python.bridge


def execute(python: BridgeHarness, code: str, session: str | None = None, /, **arguments: Any) -> dict[str, Any]:
    """What the command returns."""
    result: dict[str, Any] = python.run("execute", {"code": code, **arguments}, session_id=session).result
    return result


def failure(python: BridgeHarness, code: str, **arguments: Any) -> BridgeError:
    """What the command raises."""
    with pytest.raises(BridgeError) as caught:
        python.run("execute", {"code": code, **arguments})
    return caught.value


def test_it_is_off_by_default_and_says_what_to_set() -> None:
    """The bridge's other commands work."""
    with BridgeHarness(PythonBridge, {}) as harness:
        refused = failure(harness, "1")
        assert refused.code == "permission_denied"
        assert 'set sandbox = "none" in the configuration' in refused.message
        assert harness.call("call", target="math:sqrt", args=[9]) == 3.0
        assert harness.bridge.stats()["code_allowed"] is False


def test_no_option_of_the_bridge_turns_it_on() -> None:
    """It is who started the worker that decides."""
    with pytest.raises(BridgeError, match=r"options\.sandbox: is unknown"):
        PythonBridge().setup({"sandbox": "none"})


@pytest.mark.parametrize(
    ("code", "arguments", "result"),
    [
        ("1 + 1", {}, 2),
        ("x = 1\nx + n", {"variables": {"n": 41}}, 42),
        ("x = 1", {}, None),
        ("total = sum(range(5))\n'ignored'", {"result": "total"}, 10),
        ("def f():\n    return {'a': [1, (2, 3)]}\nf()", {}, {"a": [1, [2, 3]]}),
        ("import asyncio\nawait asyncio.sleep(0)\nx = 5\nx", {}, 5),
        ("async def f():\n    return 7\nf()", {}, 7),
        ("[__name__ == '__main__', ctx.command]", {}, [True, "python:execute"]),
        ("", {}, None),
        ("from __future__ import annotations\ndef f(x: Nowhere): return x\nf(3)", {}, 3),
    ],
)
def test_the_result_is_the_last_expression_or_the_named_variable(
    python: BridgeHarness, code: str, arguments: dict[str, Any], result: Any
) -> None:
    """Awaited where it has to be."""
    assert execute(python, code, **arguments)["result"] == result


def test_what_json_cannot_carry_goes_by_reference_and_comes_back(python: BridgeHarness) -> None:
    """As with every command of this bridge."""
    made = execute(python, "class P:\n    def __init__(self): self.n = 4\nP()")["result"]
    assert made["type"] == "__main__.P"
    assert execute(python, "p.n + 1", variables={"p": made})["result"] == 5


def test_output_is_kept_and_streamed_by_lines(python: BridgeHarness) -> None:
    """With the name of its stream; an unfinished line comes at the end."""
    code = "import sys\nprint('one', 'two')\nprint('bad', file=sys.stderr)\nprint('three', end='')"
    ran = python.run("execute", {"code": code})
    assert (ran.result["stdout"], ran.result["stderr"], ran.result["dropped_bytes"]) == ("one two\nthree", "bad\n", 0)
    assert ran.chunks == [
        {"stream": "stdout", "text": "one two\n"},
        {"stream": "stderr", "text": "bad\n"},
        {"stream": "stdout", "text": "three"},
    ]


def test_output_beyond_the_limit_is_counted_and_dropped(python: BridgeHarness) -> None:
    """Of both streams together; a character is never cut in half."""
    ran = python.run("execute", {"code": "for _ in range(100): print('ä' * 50)"})
    kept = ran.result["stdout"]
    assert len(kept.encode()) + ran.result["dropped_bytes"] == 100 * 101
    assert 990 <= len(kept.encode()) <= 1000
    assert "".join(chunk["text"] for chunk in ran.chunks) == kept


def test_text_that_utf8_cannot_carry_is_written_out(python: BridgeHarness) -> None:
    """Half a surrogate pair would break the frame."""
    assert execute(python, r"print('\ud800')")["stdout"] == "\\ud800\n"


def test_a_thread_of_the_code_prints_into_its_output(python: BridgeHarness) -> None:
    """While the code is the only one that runs."""
    code = "import threading\nt = threading.Thread(target=print, args=['from a thread'])\nt.start()\nt.join()"
    assert execute(python, code)["stdout"] == "from a thread\n"


def test_what_is_printed_outside_goes_where_it_went(python: BridgeHarness, capsys: pytest.CaptureFixture[str]) -> None:
    """Also by what the code left behind, and the streams come back when the bridge closes."""
    before = sys.stdout
    left = execute(python, "import sys\nkept = sys.stdout\nkept")["result"]
    stream = bridge_of(python).objects.get(left["$object"], None)
    print("after", file=stream)
    sys.stdout.write("outside\n")
    assert capsys.readouterr().out == "after\noutside\n"
    python.bridge.close()
    assert sys.stdout is before


def test_an_error_tells_line_and_frames_of_the_code_alone(python: BridgeHarness) -> None:
    """With the source of each line; our frames are left out."""
    raised = failure(python, "def f(x):\n    return 1 / x\n\nf(1)\nf(0)\n")
    assert (raised.code, raised.type, raised.details) == ("handler_error", "ZeroDivisionError", {"line": 2})
    assert raised.message == "division by zero (line 2)"
    assert raised.traceback is not None
    lines = raised.traceback.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert [line.strip() for line in lines[1:5]] == [
        'File "<code 1>", line 5, in <module>', "f(0)", 'File "<code 1>", line 2, in f', "return 1 / x",
    ]  # fmt: skip
    assert "execute.py" not in raised.traceback


def test_the_line_is_that_of_the_code_where_a_library_raised(python: BridgeHarness) -> None:
    """And in a coroutine."""
    assert failure(python, "import json\n\njson.loads('{')").details == {"line": 3}
    raised = failure(
        python, "import asyncio\nasync def f():\n    await asyncio.sleep(0)\n    raise KeyError('k')\nawait f()"
    )
    assert (raised.details, raised.type) == ({"line": 4}, "KeyError")
    assert "awaiting.py" not in str(raised.traceback)


@pytest.mark.parametrize(
    ("code", "error_code", "words"),
    [
        ("x = = 1", "invalid_argument", "code: line 1: invalid syntax: 'x = = 1'"),
        ("a\0b", "invalid_argument", "code: source code"),
        ("raise MemoryError", "out_of_memory", "MemoryError (line 1)"),
        ("import sys; sys.exit(3)", "handler_error", "the code called sys.exit(3); the worker goes on (line 1)"),
        ("raise KeyboardInterrupt", "handler_error", "KeyboardInterrupt (line 1)"),
        ("class E(Exception):\n    def __str__(self): return 1 / 0\nraise E", "handler_error", "its text can't be had"),
        ("def f(): f()\nf()", "handler_error", "maximum recursion depth exceeded"),
    ],
)
def test_every_way_to_fail_has_its_code(python: BridgeHarness, code: str, error_code: str, words: str) -> None:
    """And the bridge goes on."""
    raised = failure(python, code)
    assert (raised.code, words in raised.message) == (error_code, True), raised.message
    assert execute(python, "1")["result"] == 1


def test_an_error_of_the_taxonomy_keeps_its_code(python: BridgeHarness) -> None:
    """Raised by the code itself; the line is added."""
    code = "from manybridge.bridge import BridgeError\nraise BridgeError('rate_limited', 'slow down', details={'a': 1})"
    raised = failure(python, code)
    assert (raised.code, raised.details, raised.retryable) == ("rate_limited", {"a": 1, "line": 2}, True)


def test_a_result_that_was_not_made_names_those_that_were(python: BridgeHarness) -> None:
    """Code `invalid_argument`, and no line: the code itself is right."""
    raised = failure(python, "a = 1\nb = 2", result="c")
    assert (raised.code, raised.message) == (
        "invalid_argument", "result: the code made no variable 'c'; it has a, b",
    )  # fmt: skip
    assert raised.traceback is None


def test_variables_live_on_under_a_name_in_their_session(python: BridgeHarness) -> None:
    """And nowhere else; a function keeps its source for later tracebacks."""
    execute(python, "x = 1\ndef f():\n    raise ValueError('later')", "s", namespace="work")
    assert execute(python, "x += 1\nx", "s", namespace="work")["result"] == 2
    for session, name in (("t", "work"), ("s", "other"), ("s", None)):
        arguments = {"namespace": name} if name else {}
        with pytest.raises(BridgeError, match="name 'x' is not defined"):
            execute(python, "x", session, **arguments)
    with pytest.raises(BridgeError) as caught:
        execute(python, "f()", "s", namespace="work")
    assert "raise ValueError('later')" in str(caught.value.traceback)
    assert caught.value.details == {"line": 1}  # of this code; the line of the other one is in the traceback
    assert python.run("forget", {"namespace": "work"}, session_id="s").result == {
        "namespace": "work",
        "forgotten": True,
    }
    assert python.run("forget", {"namespace": "work"}, session_id="s").result["forgotten"] is False


def test_the_context_of_a_call_does_not_outlive_it(python: BridgeHarness) -> None:
    """A named namespace does."""
    execute(python, "x = 1", namespace="n")
    assert execute(python, "sorted(set(globals()) - {'__builtins__', '__name__'})", namespace="n")["result"] == [
        "ctx", "x",
    ]  # fmt: skip
    scope = bridge_of(python).code.namespaces.get(None, "n")
    assert "ctx" not in scope


def test_the_least_recently_used_namespace_goes_first(python: BridgeHarness) -> None:
    """And cleaning a session takes the ones it has."""
    for number in range(MAX_NAMESPACES + 1):
        execute(python, "x = 1", "s", namespace=f"n{number}")
    held = bridge_of(python).code.namespaces
    assert len(held) == MAX_NAMESPACES
    assert not held.forget("s", "n0")
    assert python.bridge.cleanup("s")["namespaces_forgotten"] == MAX_NAMESPACES


def test_progress_and_chunks_come_from_the_injected_context(python: BridgeHarness) -> None:
    """Long work says how far it is."""
    ran = python.run("execute", {"code": "for n in range(3):\n    ctx.progress(n + 1, 3, 'step')\nctx.emit({'k': 1})"})
    assert [event["current"] for event in ran.progress] == [1, 2, 3]
    assert ran.chunks == [{"k": 1}]


def test_two_executions_at_a_time_do_not_mix_their_output() -> None:
    """A concurrent bridge runs them on threads."""
    with BridgeHarness(Permitted, {}) as harness:
        reference = bridge_of(harness).objects.put(threading.Barrier(2, timeout=10), None)
        code = "barrier.wait()\nfor _ in range(50): print(name)\nbarrier.wait()"
        seen: dict[str, str] = {}

        def run(name: str) -> None:
            arguments = {"code": code, "variables": {"name": name, "barrier": reference}}
            seen[name] = harness.run("execute", arguments).result["stdout"]

        threads = [threading.Thread(target=run, args=[name]) for name in ("a", "b")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert seen == {"a": "a\n" * 50, "b": "b\n" * 50}
