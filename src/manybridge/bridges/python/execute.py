"""`python:execute`: code that a caller sends. It can do whatever the worker's process can do.

The code is compiled under a file name of its own, `<code 7>`, and its lines are put where Python looks for source. So
a traceback shows the caller's lines and numbers, and it begins where the caller's code begins: our frames would tell
him nothing. With `await` at its top level the code becomes a coroutine, which runs on the bridge's event loop.
"""

from __future__ import annotations

import ast
import builtins
import itertools
import linecache
import time
from collections import OrderedDict, deque
from types import CodeType, TracebackType
from typing import Any, Final, NamedTuple

from manybridge.bridge import BridgeError, Context

from .awaiting import LoopThread
from .output import Capture, Outputs

MAX_NAMESPACES: Final = 100
"""Named namespaces of one worker; the least recently used one goes first. Each may hold a data set."""

MAX_SOURCES: Final = 1000
"""Codes whose lines are remembered for tracebacks, of those whose functions may live on in a namespace."""

_NOTHING: Final = object()


class Request(NamedTuple):
    """What to run."""

    code: str
    variables: dict[str, Any]
    result: str | None
    namespace: str | None
    max_output_bytes: int


class _Program(NamedTuple):
    """Compiled code: everything but a last expression, and that."""

    file: str
    body: CodeType
    last: CodeType | None


class Namespaces:
    """The variables that live on under a name, each session's for itself. Owner of the dictionaries."""

    def __init__(self, max_namespaces: int = MAX_NAMESPACES) -> None:
        self._max = max_namespaces
        self._held: OrderedDict[tuple[str | None, str], dict[str, Any]] = OrderedDict()  # least recently used first

    def __len__(self) -> int:
        return len(self._held)

    def get(self, session: str | None, name: str | None) -> dict[str, Any]:
        """The variables of that name; new ones where there are none, and always where there is no name."""
        if name is None:
            return _fresh()
        key = (session, name)
        if key not in self._held:
            while len(self._held) >= self._max:
                self._held.popitem(last=False)
            self._held[key] = _fresh()
        self._held.move_to_end(key)
        return self._held[key]

    def forget(self, session: str | None, name: str) -> bool:
        """Drop the variables of that name; whether there were any."""
        return self._held.pop((session, name), None) is not None

    def forget_session(self, session: str | None) -> int:
        """Drop what a session has, or everything if it is None; return how many namespaces that were."""
        doomed = [key for key in self._held if session is None or key[0] == session]
        for key in doomed:
            del self._held[key]
        return len(doomed)


def _fresh() -> dict[str, Any]:
    # __main__, so that a pasted script's last lines run; a class that is made here says so in its repr.
    return {"__name__": "__main__", "__builtins__": builtins}


class CodeRunner:
    """Runs code. Owner of its namespaces and of the streams in the place of `sys.stdout` and `sys.stderr`."""

    def __init__(self, loop: LoopThread) -> None:
        self.namespaces = Namespaces()
        self._loop = loop
        self._outputs = Outputs()
        self._numbers = itertools.count(1)
        self._sources: deque[str] = deque()

    def close(self) -> None:
        """Forget everything."""
        self.namespaces.forget_session(None)
        self._outputs.close()

    def run(self, request: Request, ctx: Context) -> dict[str, Any]:
        """Run code and return `{result, stdout, stderr, dropped_bytes, seconds}`, the result as it is.

        Raises:
            BridgeError: `invalid_argument`: it is no Python, or it made no variable of the name in `result`. The code
                of an error that it raised itself, else `handler_error`: `details` has the `line`, and `traceback`
                begins where the code begins.
        """
        program = _compile(request, f"<code {next(self._numbers)}>")
        scope = self.namespaces.get(ctx.session_id, request.namespace)
        scope.update(request.variables, ctx=ctx)
        capture = Capture(ctx.emit, request.max_output_bytes)
        self._show_source(program.file, request.code)
        begun = time.monotonic()
        try:
            with self._outputs.caught(capture):
                value = self._value(program, request, scope, ctx)
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            capture.close()
            failure = _failure(error, program.file)
            if failure is error:
                raise
            raise failure from error
        finally:
            scope.pop("ctx", None)  # it belongs to this call; a named namespace lives longer
            if request.namespace is None:
                self._hide_source(program.file)
        return {"result": value, **capture.close(), "seconds": time.monotonic() - begun}

    def _show_source(self, file: str, code: str) -> None:
        """Let tracebacks find the lines. No time of change: linecache never throws such an entry away by itself."""
        linecache.cache[file] = (len(code), None, code.splitlines(keepends=True), file)
        self._sources.append(file)
        if len(self._sources) > MAX_SOURCES:
            self._hide_source(self._sources[0])

    def _hide_source(self, file: str) -> None:
        linecache.cache.pop(file, None)
        self._sources.remove(file)

    def _value(self, program: _Program, request: Request, scope: dict[str, Any], ctx: Context) -> Any:
        last = self._evaluate(program.body, scope, ctx)
        if program.last is not None:
            last = self._evaluate(program.last, scope, ctx)
        if request.result is None:
            return last
        value = scope.get(request.result, _NOTHING)
        if value is _NOTHING:
            made = sorted(name for name in scope if not name.startswith("_") and name != "ctx")
            raise BridgeError(
                "invalid_argument",
                f"result: the code made no variable {request.result!r}; it has {', '.join(made) or 'none'}",
                details={"argument": "result", "variables": made[:100]},
            )
        return value

    def _evaluate(self, code: CodeType, scope: dict[str, Any], ctx: Context) -> Any:
        # None for statements, a value for an expression, and a coroutine for either of them that awaits.
        return self._loop.finish(eval(code, scope), ctx.check)  # noqa: S307  # the command's purpose; off unless configured


def _compile(request: Request, file: str) -> _Program:
    """Compile the code; a last expression apart, where its value is wanted."""
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    try:
        # Its warnings (an invalid escape, `is` with a literal) go where the code's own output goes: to the log.
        tree = compile(request.code, file, "exec", flags | ast.PyCF_ONLY_AST, dont_inherit=True)
        last = None
        if request.result is None and tree.body and isinstance(tree.body[-1], ast.Expr):
            last = compile(ast.Expression(tree.body.pop().value), file, "eval", flags, dont_inherit=True)
        return _Program(file, compile(tree, file, "exec", flags, dont_inherit=True), last)
    except SyntaxError as error:
        where = f"line {error.lineno}: " if error.lineno else ""
        source = f": {error.text.strip()!r}" if error.text else ""
        raise BridgeError(
            "invalid_argument",
            f"code: {where}{error.msg}{source}",
            details={"argument": "code", "line": error.lineno, "column": error.offset},
        ) from error
    except (ValueError, RecursionError, MemoryError, OverflowError) as error:
        raise BridgeError("invalid_argument", f"code: {error}", details={"argument": "code"}) from error


def _failure(error: BaseException, file: str) -> BridgeError:
    """What the caller gets for an exception of his code."""
    from traceback import format_exception

    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename != file:
        frames = frames.tb_next
    if frames is None and isinstance(error, BridgeError):
        return error  # ours: the code itself has not failed
    line = _last_line(frames, file)
    traceback = "".join(format_exception(type(error), error, frames))
    details: dict[str, Any] = {"line": line} if line is not None else {}
    where = f" (line {line})" if line is not None else ""
    if isinstance(error, BridgeError):
        return BridgeError(
            error.code, f"{error.message}{where}", retryable=error.retryable,
            details={**error.details, **details}, type=error.type, traceback=traceback,
        )  # fmt: skip
    code = "out_of_memory" if isinstance(error, MemoryError) else "handler_error"
    return BridgeError(
        code, f"{_text(error)}{where}", details=details, type=type(error).__qualname__, traceback=traceback
    )


def _last_line(frames: TracebackType | None, file: str) -> int | None:
    """The line of the caller's code that was running, also where the error came out of something that it called."""
    line = None
    while frames is not None:
        if frames.tb_frame.f_code.co_filename == file:
            line = frames.tb_lineno
        frames = frames.tb_next
    return line


def _text(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"the code called sys.exit({error.code!r}); the worker goes on"
    try:
        return str(error) or type(error).__qualname__
    except Exception as failure:  # noqa: BLE001  # a border: __str__ is the caller's code
        return f"{type(error).__qualname__} (its text can't be had: {type(failure).__qualname__})"
