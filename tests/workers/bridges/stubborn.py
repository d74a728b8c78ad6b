"""Code that is hard to stop."""

from __future__ import annotations

import asyncio
import ctypes
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from manybridge.bridge import Bridge, Cancelled, Context, command


class StubbornBridge(Bridge):
    name = "s"

    def setup(self, options: dict[str, Any]) -> None:
        if "concurrency" in options:
            type(self).max_concurrency = options["concurrency"]
        self.swallowed = 0
        self.finished: list[str] = []

    def close(self) -> None:
        path = os.environ.get("CLOSED_FILE")
        if path:
            Path(path).write_text("closed")

    @command
    def quick(self, value: Any = None) -> dict[str, Any]:
        return {"value": value}

    @command
    def facts(self) -> dict[str, Any]:
        return {"swallowed": self.swallowed, "finished": self.finished}

    @command
    def python_loop(self, *, ctx: Context) -> None:
        ctx.emit("running")
        while True:
            pass

    @command
    def sleep(self, seconds: float = 60.0, *, ctx: Context) -> dict[str, Any]:
        ctx.emit("running")
        time.sleep(seconds)
        return {}

    @command
    def subprocess(self, *, ctx: Context) -> None:
        child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
        ctx.emit(child.pid)
        child.wait()

    @command
    def lock(self, *, ctx: Context) -> None:
        ctx.emit("running")
        threading.Event().wait()

    @command
    def c_call(self, seconds: int = 60, *, ctx: Context) -> dict[str, Any]:
        """A C function that a signal ends early, and that is called again then."""
        library = ctypes.CDLL(None)
        ctx.emit("running")
        left = seconds
        while left:
            left = library.sleep(left)
        return {}

    @command
    def stuck(self, gil: bool = False, *, ctx: Context) -> None:
        """One C call that no signal ends; with `gil` nothing of Python ever runs again."""
        library = ctypes.PyDLL(None) if gil else ctypes.CDLL(None)
        mutex = ctypes.create_string_buffer(64)
        library.pthread_mutex_lock(mutex)
        ctx.emit("running")
        library.pthread_mutex_lock(mutex)

    @command
    def check(self, *, ctx: Context) -> None:
        ctx.emit("running")
        try:
            while True:
                ctx.check()
                time.sleep(0.001)
        finally:
            self.finished.append("check")

    @command
    def partial(self, *, ctx: Context) -> dict[str, Any]:
        ctx.emit("running")
        done = 0
        while not ctx.cancelled:
            done += 1
            time.sleep(0.001)
        return {"done": done}

    @command
    def swallow(self, times: int, *, ctx: Context) -> dict[str, Any]:
        ctx.emit("running")
        while True:
            try:
                while True:
                    time.sleep(0.001)
            except Cancelled:
                self.swallowed += 1
                if self.swallowed >= times:
                    raise

    @command
    def never(self, *, ctx: Context) -> None:
        started = False
        while True:
            try:
                if not started:
                    started = True
                    ctx.emit("running")
                while True:
                    time.sleep(0.001)
            except BaseException:  # noqa: BLE001  # that is the fault
                self.swallowed += 1

    @command
    async def coroutine(self, *, ctx: Context) -> None:
        ctx.emit("running")
        try:
            await asyncio.sleep(60)
        finally:
            self.finished.append("coroutine")

    @command
    async def slow_farewell(self, seconds: float, *, ctx: Context) -> None:
        ctx.emit("running")
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(seconds)
            self.finished.append("farewell")

    @command
    async def coroutine_swallows(self, times: int, *, ctx: Context) -> None:
        ctx.emit("running")
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                self.swallowed += 1
                if self.swallowed >= times:
                    raise

    @command
    async def coroutine_blocks(self, *, ctx: Context) -> None:
        ctx.emit("running")
        time.sleep(60)  # noqa: ASYNC251  # that is the fault

    @command
    def stream(self) -> Iterator[str]:
        try:
            while True:
                yield "x"
        finally:
            self.finished.append("stream")

    @command
    async def async_stream(self) -> AsyncIterator[str]:
        """Never waits, so a cancelled task alone does not end it."""
        try:
            while True:
                yield "x"
        finally:
            self.finished.append("async_stream")

    @command
    def emits(self, size: int = 10, *, ctx: Context) -> None:
        """Streams without ever looking whether it should stop."""
        while True:
            ctx.emit("x" * size)

    @command
    def leave_child(self) -> dict[str, Any]:
        """A forked child that stays and holds everything that a fork copies."""
        pid = os.fork()
        if pid == 0:
            time.sleep(60)
            os._exit(0)
        return {"pid": pid}

    @command
    def crash(self, how: str) -> None:
        if how == "segfault":
            ctypes.string_at(1)
        elif how == "abort":
            os.abort()
        elif how == "exit":
            os._exit(9)
