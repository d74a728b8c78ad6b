"""Handlers of every kind, and everything that a handler can end with."""

from __future__ import annotations

import asyncio
import ctypes
import datetime as dt
import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from manybridge.bridge import Bridge, BridgeError, Cancelled, Context, Result, command


class UnhelpfulError(Exception):
    def __str__(self) -> str:
        raise OSError("no text")


class Opaque:
    def __repr__(self) -> str:
        return "sk-secret-in-a-repr"


class Trap:
    """Raises when somebody looks at it to encode it."""

    shape: ClassVar[Any] = ()

    def item(self) -> NoReturn:
        raise RuntimeError("no value here")


def square(number: int) -> int:
    return number * number


class HandlersBridge(Bridge):
    name = "h"
    version = "7"
    capabilities = ("testing",)

    def setup(self, options: dict[str, Any]) -> None:
        self.options = options
        self.emitter: Callable[[Any], None] | None = None

    def translate_error(self, error: BaseException) -> BridgeError | None:
        if isinstance(error, LookupError):
            return BridgeError("provider_not_found", f"translated: {error}", details={"hint": str(error)})
        if isinstance(error, ArithmeticError):
            raise RuntimeError("the translator is broken")  # noqa: TRY004  # it is a fault, not a check
        return None

    def ping_info(self) -> dict[str, Any]:
        if self.options.get("ping") == "exit":
            sys.exit(1)
        return {"extra": 1}

    # -- kinds

    @command
    def add(self, a: int, b: int = 1) -> int:
        return a + b

    @command
    def echo(self, value: Any = None) -> Any:
        return {"value": value}

    @command
    def generator(self, n: int = 3, result: bool = True) -> Iterator[Any]:
        yield from range(n)
        return {"done": n} if result else None  # type: ignore[return-value]  # what a generator handler may do

    @command
    async def coroutine(self, n: int = 3, *, ctx: Context) -> dict[str, Any]:
        for number in range(n):
            await asyncio.sleep(0)
            ctx.emit(number)
        return {"done": n, "loop": id(asyncio.get_running_loop())}

    @command
    async def async_generator(self, n: int = 3, result: bool = True) -> AsyncIterator[Any]:
        for number in range(n):
            yield number
        if result:
            yield Result({"done": n})

    # -- plain functions by their looks, as what many decorators make of the others

    @command
    def decorated_generator(self, n: int = 3, result: bool = True) -> Any:
        return self.generator(n, result)

    @command
    def decorated_coroutine(self, n: int = 3, *, ctx: Context) -> Any:
        return self.coroutine(n, ctx=ctx)

    @command
    def decorated_async_generator(self, n: int = 3, result: bool = True) -> Any:
        return self.async_generator(n, result)

    @staticmethod
    @command
    def of_nobody(a: int) -> int:
        return a

    @command
    def all_events(self, *, ctx: Context) -> dict[str, Any]:
        ctx.emit({"a": 1})
        ctx.progress(1, 2, "half")
        ctx.log("hello", "warning")
        return {"call_id": ctx.call_id, "command": ctx.command, "session": ctx.session_id, "trace": ctx.traceparent}

    @command
    def closing_generator(self, path: str, at: int = 2) -> Iterator[int]:
        try:
            for number in range(100):
                if number == at:
                    raise KeyError(number)
                yield number
        finally:
            Path(path).write_text("closed")

    # -- failures

    @command("raise")
    def raise_it(self, what: str, text: str = "boom") -> NoReturn:
        errors: dict[str, Callable[[], BaseException]] = {
            "value": lambda: ValueError(text),
            "empty": ValueError,
            "lookup": lambda: KeyError(text),
            "arithmetic": lambda: ZeroDivisionError(text),
            "bridge": lambda: BridgeError("rate_limited", text, details={"retry_after": 3, "text": text}),
            "exit": lambda: SystemExit(text),
            "exit_0": lambda: SystemExit(0),
            "keyboard": KeyboardInterrupt,
            "memory": MemoryError,
            "cancelled": Cancelled,
            "unhelpful": UnhelpfulError,
            "generator_exit": GeneratorExit,
            "group": lambda: ExceptionGroup(text, [ValueError("one"), TypeError("two")]),
        }
        error = errors[what]()
        raise error

    @command
    def chained(self) -> NoReturn:
        try:
            raise ValueError("first")
        except ValueError as error:
            raise BridgeError("provider_auth", "second") from error

    @command
    def recurse(self) -> Any:
        return self.recurse()

    @command
    def leak(self, name: str, where: str = "message") -> NoReturn:
        secret = os.environ[name]
        if where == "details":
            raise BridgeError("provider_auth", "refused", details={"key": [secret], secret: 1})
        if where == "bridge":
            raise BridgeError("provider_auth", f"refused {secret}")
        if where == "traceback":
            raise RuntimeError("outer") from ValueError(secret)
        raise RuntimeError(f"cannot log in with {secret}!")

    @command
    def leak_option(self, name: str) -> NoReturn:
        raise RuntimeError(f"bad key {self.options[name]}")

    @command
    async def async_exit(self) -> None:
        sys.exit(4)

    @command
    async def exit_in_background(self) -> None:
        async def leave() -> None:
            sys.exit(5)

        task = asyncio.create_task(leave())
        await asyncio.sleep(30)
        await task

    # -- results

    @command("return")
    def return_it(self, what: str) -> Any:
        deep: Any = []
        for _ in range(100_000):
            deep = [deep]
        loop: list[Any] = []
        loop.append(loop)
        values: dict[str, Any] = {
            "object": {"it": Opaque()},
            "trap": {"it": Trap()},
            "set": {"it": {1}},
            "big_int": {"it": 2**80},
            "nan": {"it": [float("nan"), float("inf")]},
            "keys": {1: "a", None: "b", (1, 2): "c"},
            "bytes": {"it": b"\x00\xff"},
            "date": {"it": dt.date(2026, 1, 2)},
            "surrogate": {"it": "a\ud800b"},
            "deep": {"it": deep},
            "loop": {"it": loop},
            "function": {"it": print},
            "coroutine_function": {"it": asyncio.sleep},
            "none": None,
            "list": [1, 2],
            "text": "x",
        }
        return values[what]

    @command
    def large(self, size: int) -> dict[str, Any]:
        return {"text": "x" * size}

    @command
    def large_chunk(self, size: int, *, ctx: Context) -> dict[str, Any]:
        ctx.emit("before")
        try:
            ctx.emit("x" * size)
        except BridgeError as error:
            ctx.emit(error.code)
        ctx.emit("after")
        return {}

    @command
    def trap_chunk(self, *, ctx: Context) -> dict[str, Any]:
        try:
            ctx.emit(Trap())
        except BridgeError as error:
            ctx.emit(error.code)
        return {}

    # -- print

    @command
    def noise(self, how: str, text: str = "noise\n", times: int = 1) -> dict[str, Any]:
        for _ in range(times):
            if how == "print":
                print(text, end="")
            elif how == "stderr":
                sys.stderr.write(text)
            elif how == "write":
                os.write(1, text.encode())
            elif how == "puts":
                libc = ctypes.CDLL(None)
                libc.puts(text.encode())
                libc.fflush(None)
            elif how == "subprocess":
                subprocess.run([sys.executable, "-S", "-c", f"print({text!r}, end='')"], check=True)
            elif how == "original":
                assert sys.__stdout__ is not None
                sys.__stdout__.write(text)
        return {"stdin": sys.stdin.read() if sys.stdin else ""}

    @command
    def descriptors(self) -> dict[str, Any]:
        return {str(fd): str(Path(f"/proc/self/fd/{fd}").readlink()) for fd in range(3)}

    # -- threads and forks

    @command
    def emit_later(self, *, ctx: Context) -> dict[str, Any]:
        """Leaves a thread behind that emits for ever."""
        failures: list[str] = []

        def emit() -> None:
            try:
                for number in range(20_000):
                    ctx.emit(number)
            except BaseException as error:  # noqa: BLE001  # the test looks at it
                failures.append(repr(error))

        self.failures = failures
        threading.Thread(target=emit, daemon=True).start()
        return {}

    @command
    def late_failures(self) -> dict[str, Any]:
        return {"failures": self.failures}

    @command
    def fork_and_return(self, child: str = "return") -> dict[str, Any]:
        """Both, parent and child, come back from here."""
        pid = os.fork()
        if pid == 0:
            if child == "raise":
                raise ValueError("in the child")
            if child == "exit":
                sys.exit(7)
            return {"child": True}
        return {"child": False, "status": os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}

    @command
    def terminate_child(self) -> dict[str, Any]:
        """Forks a child that waits, and ends it with SIGTERM, as multiprocessing's pools do."""
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.write(writing, b"x")
            threading.Event().wait(60)
            os._exit(0)
        os.read(reading, 1)
        os.kill(pid, 15)
        os.close(reading)
        os.close(writing)
        return {"status": os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}

    @command
    def pool(self, method: str) -> dict[str, Any]:
        """Work in processes of multiprocessing."""
        with multiprocessing.get_context(method).Pool(2) as pool:
            return {"squares": pool.map(square, range(5))}

    # -- run-time registration

    @command
    def learn(self, name: str) -> dict[str, Any]:
        def learned(a: int) -> dict[str, Any]:
            return {name: a}

        self.register_command(name, learned)
        return {}

    @command
    def forget(self, name: str) -> dict[str, Any]:
        self.unregister_command(name)
        return {}
