"""The control lane: who reads the input, and who looks at the clock.

Theory of operation. A worker must answer `ping` and `cancel` while user code runs on the main thread, yet a worker
with a reader thread pays two thread switches for every call, which on a busy machine is more than the call itself.
So the *reader's role* moves:

* While nothing runs, the main thread reads, and serves short calls itself without any switch.
* While user code runs, a second thread, the *watch*, takes the role over after `TAKEOVER_SECONDS` and reads in its
  stead. When the user code ends, the main thread nudges the watch and takes the role back.

At any time exactly one thread holds the role; `_gate` guards its passing on. Calls shorter than `TAKEOVER_SECONDS`
never see the watch.

The watch is also the worker's clock: it calls `tick` for deadlines, the rungs of the stop ladder and held-back frames.
It sleeps for good while nothing is open, so an idle worker uses no processor time.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections.abc import Callable
from math import inf
from os import sched_yield
from queue import Empty, SimpleQueue
from time import monotonic
from types import TracebackType
from typing import Final, Self

from manybridge.protocol.spinning import SPIN_SECONDS, AdaptiveSpin

TAKEOVER_SECONDS: Final = 0.005
"""User code that runs longer than this gets a reader beside it. Python hands the interpreter over every 5 ms, so a
shorter time could not be kept anyway."""

LONGEST_PAUSE: Final = 60.0
"""Seconds. A deadline may lie years ahead, but `poll` and queues take no such number."""

IDLE_TICKS: Final = 100
"""The watch goes to sleep after this many ticks without anything to watch. Waking it costs one system call."""

NUDGE: Final = b"\0"
"""Written into the watch's own pipe to make it look up. Signals write their numbers there, which are not 0."""

READ_BYTES: Final = 64 * 1024
"""One read. Below the allocator's threshold for separate mappings (128 KiB), above almost every request."""

LARGE_READ_BYTES: Final = 1024 * 1024
"""One read in the middle of a large frame."""


class Lane:
    """Owner of the input descriptor and of the watch thread.

    Args:
        fd: the input; blocking.
        receive: called with each chunk, by whoever holds the reader's role.
        end_of_input: called once when the client has closed; ends the process if user code runs.
        tick: called by the watch with the time; returns the seconds until it wants to be called again, or None.
        in_frame: whether the last chunk ended inside a frame.
        nudged: called by the watch with what was written into `nudge_fd`.
        failed: called on the watch thread with an error of ours; must end the process, which would be deaf from now on.
    """

    def __init__(
        self,
        fd: int,
        *,
        receive: Callable[[bytes], None],
        end_of_input: Callable[[], None],
        tick: Callable[[float], float | None],
        in_frame: Callable[[], bool],
        nudged: Callable[[bytes], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._fd = fd
        self._receive = receive
        self._end_of_input = end_of_input
        self._tick = tick
        self._in_frame = in_frame
        self._nudged = nudged
        self._failed = failed
        self._read_bytes = READ_BYTES
        self._spin = AdaptiveSpin()
        self._poller = select.poll()
        self._poller.register(fd, select.POLLIN)
        self._gate = threading.Lock()
        self._busy = False
        self._section = 0  # counts busy sections, so that the watch can tell a long one from many short ones
        self._attend_now = False
        self._watch_reads = False
        # Queues of nothing and not semaphores, in both places: an interrupt that strikes inside one of those, which are
        # written in Python, leaves its lock taken for ever. A SimpleQueue is one step for the interpreter.
        self._returned: SimpleQueue[None] = SimpleQueue()
        self._nudge, self.nudge_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._asleep = False
        self._started = False
        self.next_look = inf
        """When the watch will look at its clock by itself, monotonic; a later deadline need not be told."""
        self.closed = False
        """Whether the client has closed its end."""

    def read_once(self) -> bool:
        """Wait for input and receive it. For the main thread while it runs no user code. False at the end."""
        if self._spin.is_worth_it():
            self._look_out()
        return self._read()

    def _look_out(self) -> None:
        """Wait awake for a moment: a client that takes turns with us answers at once."""
        until = monotonic() + SPIN_SECONDS
        while not self._poller.poll(0):
            if monotonic() >= until:
                self._spin.was_in_vain()
                return
            sched_yield()
        self._spin.paid()

    def __enter__(self) -> Self:
        """Begin a busy section: the main thread runs user code and can't read."""
        self._section += 1
        self._busy = True
        self.wake(only_if_asleep=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the busy section and take the reader's role back."""
        with self._gate:
            self._busy = False
            watch_reads = self._watch_reads
        if watch_reads:
            self._nudge_watch()
            self._returned.get()

    @property
    def busy(self) -> bool:
        """Whether the main thread runs something else than the reader."""
        return self._busy

    def watch_until(self, deadline: float) -> None:
        """There is a new deadline, in monotonic seconds; make sure that the watch looks at its clock by then."""
        if deadline < self.next_look:
            self.wake()

    def attend(self) -> None:
        """Let the watch read at once: the main thread is about to wait for something that comes in."""
        if self._busy:
            self._attend_now = True
            self.wake()

    def wake(self, *, only_if_asleep: bool = False) -> None:
        """Make the watch look at its clock again: there is something new to watch."""
        if not self._started:
            self._start()
        elif self._watch_reads:
            self._nudge_watch()
        elif self._asleep or not only_if_asleep:
            self._wake.put(None)

    def _start(self) -> None:
        self._started = True
        threading.Thread(target=self._watch, name="manybridge-watch", daemon=True).start()

    def _watch(self) -> None:
        try:
            self._watch_for_ever()
        except BaseException as error:  # noqa: BLE001  # a thread's border: without its watch a worker is deaf, and must not live on
            self._failed(error)

    def _watch_for_ever(self) -> None:
        idle, pause = 0, TAKEOVER_SECONDS
        section, since = self._section, monotonic()
        while True:
            if idle < IDLE_TICKS:
                self.next_look = monotonic() + pause
                self._wait(pause)
            else:
                self._sleep()
            # A signal that arrived just before the main thread went to read did not interrupt that; its number is here.
            if (numbers := self._clear_nudges()) and numbers.strip(NUDGE):
                self._nudged(numbers)
            if self._take_over(section, since):
                self._read_while_busy()
            if self._section != section:
                section, since = self._section, monotonic()
            due = self._look()
            pause = TAKEOVER_SECONDS if due is None else min(due, TAKEOVER_SECONDS)
            idle = 0 if self._busy else idle + 1

    def _sleep(self) -> None:
        """Wait for good, or for what is due. Announced, so that whoever has something new to watch wakes us."""
        self._asleep = True
        due = self._look()  # asked again after the announcement: what came before it woke nobody
        self.next_look = inf if due is None else monotonic() + due
        if not self._busy:
            self._wait(due)
        self._asleep = False

    def _wait(self, seconds: float | None) -> None:
        """Wait for a wake-up; all that have come by then are one."""
        with contextlib.suppress(Empty):
            self._wake.get(timeout=seconds)
            while True:
                self._wake.get_nowait()

    def _look(self) -> float | None:
        """Let the clock's owner do what is due; return the seconds until it wants to be asked again."""
        due = self._tick(monotonic())
        return None if due is None else min(max(due, 0.0), LONGEST_PAUSE)

    def _take_over(self, section: int, since: float) -> bool:
        """Take the reader's role if the main thread wants it taken, or is in one busy section for long."""
        with self._gate:
            long = self._section == section and monotonic() - since >= TAKEOVER_SECONDS
            self._watch_reads = self._busy and not self.closed and (self._attend_now or long)
            self._attend_now = False
            return self._watch_reads

    def _read_while_busy(self) -> None:
        poller = select.poll()
        poller.register(self._fd, select.POLLIN)
        poller.register(self._nudge, select.POLLIN)
        while self._busy and not self.closed:
            due = self._look()
            ready = poller.poll(None if due is None else due * 1000 + 1)
            for fd, _ in ready:
                if fd == self._nudge:
                    self._nudged(self._clear_nudges())
                else:
                    self._read()
        self._give_back()

    def _give_back(self) -> None:
        with self._gate:
            busy = self._busy
            self._watch_reads = False
        if not busy:
            self._returned.put(None)
            self._clear_nudges()

    def _nudge_watch(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full of nudges: one more would say nothing new
            os.write(self.nudge_fd, NUDGE)

    def _clear_nudges(self) -> bytes:
        try:
            return os.read(self._nudge, READ_BYTES)
        except BlockingIOError:
            return b""

    def _read(self) -> bool:
        size = self._read_bytes
        try:
            data = os.read(self._fd, size)
        except OSError:  # reset by its client, or a terminal that hung up: there is nothing more to read
            data = b""
        if not data:
            self.closed = True
            self._end_of_input()
            return False
        self._receive(data)
        if len(data) == size or size != READ_BYTES:
            self._read_bytes = LARGE_READ_BYTES if self._in_frame() else READ_BYTES
        return True
