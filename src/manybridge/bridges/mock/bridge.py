"""`MockBridge`: what tests, benchmarks and first steps call before there is a framework."""

from __future__ import annotations

import os
import sys
import threading
import time
import warnings
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from typing import Any, ClassVar, Final, Literal

from manybridge.bridge import Bridge, BridgeError, Context, Result, command

from .faults import BadValue, BusyMode, DeathKind, FailKind, bad_value, be_busy, die, fail
from .options import play_boot, play_close, read_options
from .resources import CounterResource, EchoResource, FaultyResource, PinnedResource
from .script import Script, play, wait

PAGE: Final = 4096
"""Bytes in a page of memory, or a part of one: touching one byte in each makes memory real."""


class MockBridge(Bridge):
    """Owns the script, the record of calls, the memory that tests allocate and the children that they fork."""

    name: ClassVar[str] = "mock"
    version: ClassVar[str] = "1.0"
    capabilities: ClassVar[tuple[str, ...]] = ("testing", "streaming")
    zygote_safe: ClassVar[bool] = True

    Echo = EchoResource
    Counter = CounterResource
    Pinned = PinnedResource
    Faulty = FaultyResource

    def setup(self, options: dict[str, Any]) -> None:
        """Reads the options, plays the faults of boot that they ask for, and loads their script."""
        self.options = read_options(options)
        self.script = Script()
        self.memory: list[bytearray] = []
        self.children: list[int] = []
        self.scripted: set[str] = set()
        play_boot(self.options)
        self._load(self.options.script)

    def close(self) -> None:
        """Collects children that have ended, and plays the faults of shutdown."""
        for pid in self.children:
            _collect(pid)
        play_close(self.options)

    def stats(self) -> dict[str, Any]:
        """Calls by command, and scripted replies left."""
        return {"mock_calls": dict(self.script.counts), "replies_left": len(self.script.replies)}

    # -- echoes ------------------------------------------------------------------------------------------------------

    @command(any_args=True, idempotent=True)
    def echo(self, *, _context: Context, **arguments: Any) -> dict[str, Any]:
        """Returns its arguments."""
        self.script.record("echo", arguments, _context)
        return arguments

    @command(any_args=True, idempotent=True)
    async def aecho(self, *, _context: Context, **arguments: Any) -> dict[str, Any]:
        """Returns its arguments, from a coroutine."""
        self.script.record("aecho", arguments, _context)
        from asyncio import sleep  # not before the first coroutine: it doubles the start of a small worker

        await sleep(0)
        return arguments

    # -- time --------------------------------------------------------------------------------------------------------

    @command
    def sleep(self, seconds: float = 1.0, *, ctx: Context) -> dict[str, Any]:
        """Waits, and stops at once when it is cancelled."""
        self.script.record("sleep", {"seconds": seconds}, ctx)
        wait(seconds, ctx)
        return {"slept": seconds}

    @command
    async def asleep(self, seconds: float = 1.0, *, ctx: Context) -> dict[str, Any]:
        """Waits in a coroutine."""
        from asyncio import sleep

        self.script.record("asleep", {"seconds": seconds}, ctx)
        await sleep(seconds)
        return {"slept": seconds}

    @command
    def busy(self, seconds: float = 3600.0, mode: BusyMode = "python", *, ctx: Context) -> dict[str, Any]:
        """Works without ever asking whether to stop: in Python, in one blocking call, or in C."""
        self.script.record("busy", {"seconds": seconds, "mode": mode}, ctx)
        be_busy(seconds, mode)
        return {"busy": seconds, "mode": mode}

    # -- streams -----------------------------------------------------------------------------------------------------

    @command
    def count(
        self, n: int = 3, delay: float = 0.0, fail_at: int | None = None, kind: FailKind = "raise", *, ctx: Context
    ) -> Generator[int, None, dict[str, Any]]:
        """Streams 0 to n-1, `delay` seconds apart; fails before number `fail_at` in the given way."""
        self.script.record("count", {"n": n, "delay": delay}, ctx)
        for number in range(n):
            if number == fail_at:
                fail(kind)
            if delay:
                wait(delay, ctx)
            yield number
        return {"count": n}

    @command
    async def acount(self, n: int = 3, delay: float = 0.0, *, ctx: Context) -> AsyncGenerator[Any, None]:
        """Streams 0 to n-1 from an async generator."""
        from asyncio import sleep

        self.script.record("acount", {"n": n, "delay": delay}, ctx)
        for number in range(n):
            await sleep(delay)
            yield number
        yield Result({"count": n})

    @command
    def progress(self, steps: int = 3, delay: float = 0.0, *, ctx: Context) -> dict[str, Any]:
        """Reports progress, one event for each step."""
        self.script.record("progress", {"steps": steps, "delay": delay}, ctx)
        for step in range(1, steps + 1):
            wait(delay, ctx)
            ctx.progress(step, steps, f"step {step}")
        return {"steps": steps}

    @command
    def log(self, message: str, level: str = "info", *, ctx: Context) -> dict[str, Any]:
        """Sends one log event."""
        ctx.log(message, level)
        return {"logged": message}

    # -- faults ------------------------------------------------------------------------------------------------------

    @command("fail")
    def fail_now(
        self,
        kind: FailKind = "raise",
        message: str = "mock failure",
        exit_code: int = 3,
        size: int | None = None,
        *,
        ctx: Context,
    ) -> Any:
        """Fails: raises, exits, dies, or returns what can't be sent (`size` bytes for `huge`)."""
        self.script.record("fail", {"kind": kind}, ctx)
        return fail(kind, message, exit_code, size)

    @command
    def error(
        self,
        code: str,
        message: str = "mock error",
        retryable: bool | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        """Fails with any code of the taxonomy."""
        raise BridgeError(code, message, retryable=retryable, details=details)

    @command
    def fail_later(self, kind: DeathKind = "kill", delay: float = 0.1) -> dict[str, Any]:
        """Returns, and ends the process `delay` seconds later, while it is idle."""
        timer = threading.Timer(delay, die, (kind,))
        timer.daemon = True
        timer.start()
        return {"dies_in": delay, "pid": os.getpid()}

    @command
    def unserializable(self, what: BadValue = "object") -> Any:
        """Returns a value that JSON can't carry."""
        return bad_value(what)

    @command("print")
    def print_out(
        self,
        bytes: int = 1024,  # noqa: A002  # the name on the wire
        stream: Literal["stdout", "stderr"] = "stdout",
        how: Literal["python", "descriptor", "both"] = "both",
    ) -> dict[str, Any]:
        """Prints that many bytes past the protocol: through Python, through the descriptor, or both."""
        line = b"x" * 79 + b"\n"
        text = (line * (bytes // len(line) + 1))[:bytes]
        if how != "descriptor":
            target = sys.stdout if stream == "stdout" else sys.stderr
            target.write(text.decode())
            target.flush()
        if how != "python":
            _write_all(1 if stream == "stdout" else 2, text)
        return {"printed": bytes, "stream": stream, "how": how}

    # -- the process -------------------------------------------------------------------------------------------------

    @command
    def pid(self) -> dict[str, Any]:
        """Which process this is."""
        return {
            "pid": os.getpid(),
            "parent_pid": os.getppid(),
            "group": os.getpgid(0),
            "threads": threading.active_count(),
            "generation": self.worker.generation,
            "worker_id": self.worker.id,
        }

    @command
    def fork_child(self, seconds: float = 60.0, own_group: bool = False) -> dict[str, Any]:
        """Leaves a child process behind that sleeps; `own_group` lets it escape the worker's process group."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of threads: this is the fault
            pid = os.fork()
        if pid == 0:
            if own_group:
                os.setpgid(0, 0)
            time.sleep(seconds)
            os._exit(0)
        self.children.append(pid)
        return {"pid": pid}

    @command
    def allocate(self, mb: int = 1) -> dict[str, Any]:
        """Takes that much memory and keeps it; 0 gives all of it back."""
        if mb <= 0:
            self.memory.clear()
        else:
            block = bytearray(mb * 1024 * 1024)
            block[::PAGE] = b"\x01" * len(range(0, len(block), PAGE))  # memory that is not touched is not there
            self.memory.append(block)
        return {"allocated_mb": sum(len(block) for block in self.memory) // (1024 * 1024)}

    @command
    def environment(self, names: list[str] | None = None) -> dict[str, Any]:
        """Says which variables are set, by name and never by value; without `names`, all that are."""
        if names is None:
            return {"set": sorted(os.environ), "unset": []}
        return {
            "set": [name for name in names if name in os.environ],
            "unset": [name for name in names if name not in os.environ],
        }

    # -- the client's tools ------------------------------------------------------------------------------------------

    @command
    def call_host(
        self,
        tool: str,
        args: dict[str, Any] = {},  # noqa: B006  # the default is part of the schema and never changed
        timeout: float | None = None,
        *,
        ctx: Context,
    ) -> dict[str, Any]:
        """Calls a tool of the client and returns what it said."""
        return {"tool": tool, "result": ctx.call_host(tool, args, timeout)}

    @command
    async def acall_host(self, tool: str, calls: list[dict[str, Any]], *, ctx: Context) -> dict[str, Any]:
        """Calls a tool of the client once for each arguments object, all at once."""
        from asyncio import gather

        results = await gather(*(ctx.acall_host(tool, args) for args in calls))
        return {"tool": tool, "results": list(results)}

    # -- the script --------------------------------------------------------------------------------------------------

    @command("script")
    def load_script(self, replies: list[dict[str, Any]]) -> dict[str, Any]:
        """Appends replies `{command?, match?, delay_ms?, chunks?, crash?, error?, result?, times?}`.

        A reply without `command` answers `mock:reply`. Names that the bridge does not have become commands.
        """
        self._load(replies)
        return {"replies_left": len(self.script.replies), "commands": sorted(self.scripted)}

    @command(any_args=True)
    def reply(self, *, _context: Context, **arguments: Any) -> Generator[Any, None, Any]:
        """Answers with the next reply of the script that fits."""
        return (yield from self._play("reply", arguments, _context))

    @command
    def calls(self) -> dict[str, Any]:
        """The calls that were received, oldest first, and how many replies of the script are left."""
        return {
            "calls": list(self.script.calls),
            "counts": dict(self.script.counts),
            "replies_left": len(self.script.replies),
        }

    @command
    def reset(self) -> dict[str, Any]:
        """Forgets the script, its commands and the record of calls."""
        for name in self.scripted:
            self.unregister_command(name)
        self.scripted.clear()
        return {"forgotten": self.script.reset()}

    # -- inside ------------------------------------------------------------------------------------------------------

    def _load(self, replies: Sequence[Any]) -> None:
        names = self.script.add(replies, own=self.spec.commands.keys() - self.scripted - {"reply"})
        for name in sorted(names - self.scripted - {"reply"}):
            self.register_command(name, self._player(name), description=f"Scripted {name}.", any_args=True)
            self.scripted.add(name)

    def _player(self, name: str) -> Callable[..., Generator[Any, None, Any]]:
        def scripted(*, _context: Context, **arguments: Any) -> Generator[Any, None, Any]:
            return (yield from self._play(name, arguments, _context))

        return scripted

    def _play(self, name: str, arguments: dict[str, Any], ctx: Context) -> Generator[Any, None, Any]:
        self.script.record(name, arguments, ctx)
        reply = self.script.take(name, arguments)
        if reply is None:
            raise BridgeError(
                "handler_error",
                f"the script has no reply left for {name} with these arguments",
                details={"arguments": sorted(arguments), "replies_left": len(self.script.replies)},
            )
        return (yield from play(reply, ctx))


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _collect(pid: int) -> None:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass  # somebody else, such as a handler of SIGCHLD, was first
