"""Stands between a host and a worker's socket, and damages what passes on demand.

A worker's host end is replaced by one end of a second socket pair; a thread of our own carries frames between the two.
A thread, because a host may wait for a short answer without its event loop, and because a hung loop must not be hidden
by a proxy that hangs with it. Nothing is decoded: a frame is its length and its bytes.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from time import monotonic
from typing import Final, Literal

from manybridge.protocol.frames import (
    ABSOLUTE_MAX_FRAME_BYTES,
    HEADER_BYTES,
    FrameDecoder,
    OversizedFrame,
    encode_frame,
)

READ_BYTES: Final = 256 * 1024

LONELY_SECONDS: Final = 0.05
"""How long a frame that is to change places waits for the next one, before it goes on alone."""


class Direction(StrEnum):
    """Which way a frame goes."""

    TO_WORKER = "to_worker"
    TO_HOST = "to_host"


Observer = Callable[[Direction, bytes], None]
WireFault = Literal["cut", "delay", "corrupt", "reorder"]
Damage = Literal["json", "length"]


@dataclass
class Order:
    """One fault that waits for its frames. `struck` is set when the last of them came."""

    kind: WireFault
    direction: Direction
    frames: int = 1
    """How many frames it strikes."""
    seconds: float = 0.0
    """How long `delay` holds each of them."""
    damage: Damage = "json"
    """What `corrupt` damages: the JSON, or the length, which then says more than any limit allows."""
    struck: threading.Event = field(default_factory=threading.Event)
    struck_at: float | None = None
    """When it did its work, monotonic."""

    def strike(self) -> None:
        """One more frame was struck."""
        self.struck_at = monotonic()
        self.frames -= 1
        if self.frames <= 0:
            self.struck.set()


class Wire:
    """Opens taps and carries their bytes. Owner of the thread, which lives while there are taps."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._arrivals: deque[Tap] = deque()
        self._thread: threading.Thread | None = None
        self._wake_reading, self._wake_writing = socket.socketpair()
        self._wake_reading.setblocking(False)
        self._releasing = False

    def tap(self, sock: socket.socket, observe: Observer | None = None) -> tuple[Tap, socket.socket]:
        """Stand between a worker and its host.

        Args:
            sock: the host's end; belongs to the tap from now on.
            observe: gets each frame's body before anything is done to it, on the wire's thread.

        Returns:
            The tap, and the host's new end, not blocking.
        """
        inner, ours = socket.socketpair()
        for end in (inner, ours, sock):
            end.setblocking(False)
        tap = Tap(inner, sock, observe)
        with self._lock:
            self._arrivals.append(tap)
            if self._thread is None:
                self._thread = threading.Thread(target=self._carry, name="manybridge-chaos-wire", daemon=True)
                self._thread.start()
        self._wake()
        return tap, ours

    def release(self) -> None:
        """Strike nothing more. What is tapped stays connected; the thread ends with the last of it."""
        with self._lock:
            self._releasing = True
            alone = self._thread is None
        if alone:
            self._close_wake()
        else:
            self._wake()

    def _close_wake(self) -> None:
        for end in (self._wake_reading, self._wake_writing):
            end.close()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # full, which wakes it all the same; or closed
            self._wake_writing.send(b"\0", socket.MSG_DONTWAIT)

    def _carry(self) -> None:
        taps: set[Tap] = set()
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_reading, selectors.EVENT_READ, None)
            while taps or not self._releasing:
                now = monotonic()
                due = [seconds for tap in taps if (seconds := tap.due(now)) is not None]
                for key, _ in selector.select(min(due, default=None)):
                    if key.data is None:
                        self._take_arrivals(taps)
                for tap in list(taps):
                    if self._releasing:
                        tap.forget_orders()
                    if not tap.turn(selector, monotonic()):
                        taps.discard(tap)
        self._close_wake()

    def _take_arrivals(self, taps: set[Tap]) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._wake_reading.recv(4096):
                pass
        with self._lock:
            taps.update(self._arrivals)
            self._arrivals.clear()


class Tap:
    """One worker's connection. `order` may be called on any thread; everything else belongs to the wire's thread."""

    def __init__(self, host: socket.socket, worker: socket.socket, observe: Observer | None = None) -> None:
        self.broken = threading.Event()
        """Set when the connection is closed, by a fault or by one of its ends."""
        self._lock = threading.Lock()
        self._to_worker = _Lane(Direction.TO_WORKER, host, worker, observe)
        self._to_host = _Lane(Direction.TO_HOST, worker, host, observe)
        self._sockets = (host, worker)

    def order(self, order: Order) -> None:
        """Strike the next frames of a direction."""
        lane = self._to_worker if order.direction is Direction.TO_WORKER else self._to_host
        with self._lock:
            if self.broken.is_set():
                order.struck.set()
            else:
                lane.orders.append(order)

    def forget_orders(self) -> None:
        """Strike nothing that was not struck yet."""
        with self._lock:
            for lane in (self._to_host, self._to_worker):
                for order in lane.orders:
                    order.struck.set()
                lane.orders.clear()

    def due(self, now: float) -> float | None:
        """Seconds until something that is held must go on."""
        times = [time for lane in (self._to_worker, self._to_host) if (time := lane.due()) is not None]
        return max(0.0, min(times) - now) if times else None

    def turn(self, selector: selectors.BaseSelector, now: float) -> bool:
        """Read, damage and write what can be. False when the connection is over."""
        over = False
        with self._lock:
            for lane in (self._to_host, self._to_worker):
                over = lane.turn(now) or over
        if over:
            self.close(selector)
            return False
        for sock, reading, writing in (
            (self._sockets[0], self._to_worker, self._to_host),
            (self._sockets[1], self._to_host, self._to_worker),
        ):
            events = (selectors.EVENT_READ if reading.wants_input else 0) | (
                selectors.EVENT_WRITE if writing.outgoing else 0
            )
            _watch(selector, sock, events, self)
        return True

    def close(self, selector: selectors.BaseSelector) -> None:
        """Close both ends."""
        for sock in self._sockets:
            _watch(selector, sock, 0, self)
            sock.close()
        with self._lock:
            self.broken.set()
            for lane in (self._to_host, self._to_worker):
                for order in lane.orders:
                    order.struck.set()  # nothing comes any more


class _Lane:
    """One direction of a tap. Owner of the frames that are on their way."""

    def __init__(
        self, direction: Direction, source: socket.socket, target: socket.socket, observe: Observer | None
    ) -> None:
        self.orders: deque[Order] = deque()
        self.outgoing = bytearray()
        self._direction = direction
        self._observe = observe
        self._source = source
        self._target = target
        self._decoder = FrameDecoder(ABSOLUTE_MAX_FRAME_BYTES)
        self._held: deque[tuple[float, bytes]] = deque()
        """Delayed frames with the times when they may go on, in order."""
        self._swapped: tuple[float, bytes, Order] | None = None
        """A frame that waits to be overtaken, and how long."""
        self._ended = False
        self._deaf = False
        self._cut = False

    @property
    def wants_input(self) -> bool:
        """Whether to read: not while too much waits for a slow reader."""
        return not self._ended and len(self.outgoing) < 4 * READ_BYTES

    def due(self) -> float | None:
        """When something that is held must go on, monotonic."""
        times = [self._held[0][0]] if self._held else []
        if self._swapped is not None:
            times.append(self._swapped[0])
        return min(times, default=None)

    def turn(self, now: float) -> bool:
        """Move bytes. True when this direction is over and everything that came was passed on."""
        if self.wants_input:
            self._read(now)
        if self._swapped is not None and now >= self._swapped[0]:
            self._pass_on(self._swapped[1], now)
            self._swapped = None
        while self._held and now >= self._held[0][0]:
            self.outgoing += self._held.popleft()[1]
        self._write()
        if self._cut:
            return not self.outgoing
        if self._deaf and self._direction is Direction.TO_HOST:
            return True  # one that does not listen to its worker any more has closed; a dead worker's words are read
        return self._ended and not self.outgoing and not self._held and self._swapped is None

    def _read(self, now: float) -> None:
        try:
            data = self._source.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._ended = True
            return
        for body in self._decoder.receive_data(data):
            assert not isinstance(body, OversizedFrame)  # the limit is all that a length can say
            if self._observe is not None:
                self._observe(self._direction, bytes(body))
            self._receive(encode_frame(bytes(body)), now)

    def _receive(self, frame: bytes, now: float) -> None:
        if self._cut:
            return
        while self.orders and self.orders[0].frames <= 0:
            self.orders.popleft()
        if self._swapped is not None:
            _, earlier, order = self._swapped
            self._swapped = None
            self._pass_on(frame, now)
            self._pass_on(earlier, now)
            order.strike()
            return
        if not self.orders:
            self._pass_on(frame, now)
            return
        order = self.orders[0]
        if order.kind == "reorder":
            self._swapped = (now + LONELY_SECONDS, frame, order)
        else:
            self._damage(order, frame, now)
            order.strike()

    def _damage(self, order: Order, frame: bytes, now: float) -> None:
        if order.kind == "delay":
            self._held.append((max(now + order.seconds, self._held[-1][0] if self._held else 0.0), frame))
        elif order.kind == "corrupt":
            self._pass_on(corrupted(frame, order.damage), now)
        else:
            self._pass_on(frame[: max(1, len(frame) // 2)], now)
            self._cut = True

    def _pass_on(self, frame: bytes, now: float) -> None:
        if self._deaf:
            return
        if self._held:  # never overtake one that is held
            self._held.append((max(now, self._held[-1][0]), frame))
        else:
            self.outgoing += frame

    def _write(self) -> None:
        while self.outgoing:
            try:
                sent = self._target.send(self.outgoing)
            except BlockingIOError:
                return
            except OSError:
                self.outgoing.clear()
                self._deaf = True
                return
            del self.outgoing[:sent]


def corrupted(frame: bytes, damage: Damage) -> bytes:
    """Return a frame that no reader may take for a good one.

    A byte inside a JSON string could be changed without anybody seeing it, since a local socket needs no checksum; so
    it is the JSON's first byte that is damaged, or the length.
    """
    if damage == "length":
        return b"\xff" + frame[1:]
    return frame[:HEADER_BYTES] + b"\x00" + frame[HEADER_BYTES + 1 :]


def _watch(selector: selectors.BaseSelector, sock: socket.socket, events: int, tap: Tap) -> None:
    try:
        known = selector.get_key(sock).events
    except KeyError:
        if events:
            selector.register(sock, events, tap)
        return
    if not events:
        selector.unregister(sock)
    elif events != known:
        selector.modify(sock, events, tap)
