"""The worker's runtime on a thread of somebody else's process: whatever would end or own a process is taken out."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Self

from manybridge.bridge import Bridge, BridgeError
from manybridge.protocol.spinning import AdaptiveSpin
from manybridge.worker.calls import RUNNING, WorkerCall
from manybridge.worker.executor import EventLoop
from manybridge.worker.options import parse
from manybridge.worker.runtime import Runtime
from manybridge.worker.stdio import ProtocolDescriptors

WATCH_SECONDS = 1.0
"""How long the watch may take to end; it looks up every 5 ms, or is woken."""


class _Over(BaseException):
    """The worker has ended: unwinds its watch."""


class _OwnLoop(EventLoop):
    """Runs coroutines on the worker's thread, as a real worker does on its main thread."""

    def run_elsewhere(self, call: WorkerCall, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine here."""
        return self.run(call, work)

    def close(self) -> None:
        """Close the loop, if there was one."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.close()


class MemoryRuntime(Runtime):
    """A worker without a process. Made and run on one thread, which is its own."""

    _over = False

    @classmethod
    def of(
        cls, arguments: list[str], options: dict[str, Any], sock: socket.socket, bridge_class: type[Bridge] | None
    ) -> Self:
        """Make one that speaks on a socket, which is closed by whoever made it."""
        fd = sock.fileno()
        made = cls(parse(arguments), options, ProtocolDescriptors(fd, fd), parent=None, bridge_class=bridge_class)
        made.adapt()
        return made

    def adapt(self) -> None:
        """Replace what would end the process, or needs its main thread."""
        self._watch_ended = threading.Event()
        self._outbox._broken = lambda: None  # the end of the input tells the same
        self.runner._events = self._events = _OwnLoop()
        self._lane._spin = AdaptiveSpin(
            cores=1
        )  # host and worker share one interpreter: awake, each keeps it from the other
        told = getattr(self.loader.bridge_class, "unexpected", None)
        if told is not None:
            self._tell_unknown(told)

    def _tell_unknown(self, told: Callable[[str], None]) -> None:
        """Have a scripted bridge learn of commands that it does not have."""
        find = self.runner._unknown_command

        def unknown(command: str) -> BridgeError:
            told(command)
            return find(command)

        self.runner._unknown_command = unknown  # type: ignore[method-assign]  # of this one runner

    def run(self) -> None:
        """Serve until the client goes away. Unlike a worker's this returns."""
        try:
            self._serve_all()
        except _Over:
            pass
        finally:
            try:
                self._close()
            finally:
                self._end()

    def abandon(self) -> None:
        """Interrupt what runs: nobody waits for it any more. For any thread."""
        self._over = True
        for call in self.calls.in_stage(RUNNING):
            call.stop_reason = call.stop_reason or "cancelled"
            self._interrupter.interrupt(call)

    # ------------------------------------------------------------------ in the place of the process

    def _end_of_input(self) -> None:
        super()._end_of_input()
        self.abandon()

    def _exit_if_alone(self) -> None:
        """A thread can't be left in the middle of its code."""

    def _tick(self, now: float) -> float | None:
        if self._watch_ended.is_set():
            raise _Over
        return super()._tick(now)

    def _fail(self, error: BaseException) -> None:
        if not isinstance(error, _Over):
            raise error

    def _close(self) -> None:
        with contextlib.suppress(OSError):  # nobody reads what was held back
            super()._close()

    def _end(self) -> None:
        """End the watch and give back what the operating system lent."""
        self._over = True
        lane = self._lane
        if lane._started:
            threads = [each for each in threading.enumerate() if getattr(each, "_target", None) == lane._watch]
            self._watch_ended.set()
            lane.wake()
            for thread in threads:
                thread.join(WATCH_SECONDS)
        self._events.close()
        for fd in (lane._nudge, lane.nudge_fd):
            os.close(fd)
