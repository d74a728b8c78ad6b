"""How calls of one model share its runs: the rule when a batch is complete, and the thread that runs it.

Theory of operation. Every call hands in one or more *items* and waits. One thread per model takes items of the same
*operation* (same kind of work, same settings) off the queue, oldest first, and runs them together. While it runs, new
items gather by themselves. When it is free, it waits for more only if more are to be expected: as many callers as were
there around the last run of this operation, and never longer than `max_wait` after the oldest item came. So a lone
caller does not wait, and callers who come back together are served together.

An item that fails takes nobody with it: an operation answers for each item, and where a whole run fails it is run again
in halves, until the items that can't be run are alone. A caller that gives up takes its items along.

Nothing in here knows of PyTorch. `Gatherer` has neither a clock nor a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from time import monotonic
from traceback import clear_frames
from typing import Any, Final, Protocol

LONE: Final = 1
"""How many callers are expected where nothing is known: the one that is there."""

MEMORY_SECONDS: Final = 1.0
"""For how long the callers of a run are expected back. Who comes later comes on its own."""


CLOSE_SECONDS: Final = 2.0
"""How long closing waits for a run that can't be stopped in the middle; its thread is a daemon of the worker."""

UNLOADED: Final = "this model was unloaded"


class Operation(Protocol):
    """What a run does. Two operations that are equal may share one; so they are hashable values."""

    def __hash__(self) -> int:
        """As `__eq__`."""

    def __eq__(self, other: object) -> bool:
        """Whether items of both may share a run."""

    def limit(self, max_batch: int) -> int:
        """How many items one run takes, where the model takes `max_batch`."""

    def run(self, items: Sequence[Item]) -> Sequence[Any]:
        """Run the items together, on the model's thread.

        Returns:
            For each item its result, or the exception that it failed with; ignored for those that `finish` was called
            on meanwhile.

        Raises:
            Exception: the run failed as a whole; it is repeated in halves.
        """


class Item:
    """One unit of work: one text, one prompt."""

    __slots__ = ("arrived", "cancelled", "is_finished", "is_visible", "operation", "payload", "place", "submission")

    def __init__(self, submission: Submission, place: int, operation: Operation, payload: Any) -> None:
        self.submission = submission
        self.place = place
        self.operation = operation
        self.payload = payload
        self.arrived = 0.0
        self.cancelled = False
        """Nobody waits for it any more; an operation that goes on for long looks here."""
        self.is_finished = False
        self.is_visible = False
        """Its caller has seen a part of the answer, so it can't be run a second time."""

    def finish(self, outcome: Any) -> None:
        """Hand the outcome to the caller; the first one counts. On the model's thread."""
        if not self.is_finished:
            self.is_finished = True
            self.submission.note(self.place, outcome)


class Submission:
    """The items that one call handed in, and their outcomes.

    Filled by the model's thread, waited for by the caller's event loop or thread.

    Args:
        operation: what to do.
        payloads: one for each item.
        on_progress: called on the model's thread with (finished, of how many) after each item.
    """

    def __init__(
        self,
        operation: Operation,
        payloads: Sequence[Any],
        on_progress: Callable[[int, int], object] | None = None,
    ) -> None:
        self.items = [Item(self, place, operation, payload) for place, payload in enumerate(payloads)]
        self.outcomes: list[Any] = [None] * len(self.items)
        self._left = len(self.items)
        self._on_progress = on_progress
        self._lock = threading.Lock()
        self._when_done: list[Callable[[], object]] = []

    @property
    def is_done(self) -> bool:
        """Whether every item has its outcome."""
        return self._left == 0

    def note(self, place: int, outcome: Any) -> None:
        """Keep the outcome of one item; called once for each."""
        self.outcomes[place] = outcome
        with self._lock:
            self._left -= 1
            waiting = [] if self._left else self._when_done
        if self._on_progress is not None:
            self._on_progress(len(self.items) - self._left, len(self.items))
        for callback in waiting:
            callback()

    def when_done(self, callback: Callable[[], object]) -> None:
        """Call back when the model's thread holds none of the items any more; at once if that is so already."""
        with self._lock:
            if self._left:
                self._when_done.append(callback)
                return
        callback()

    def cancel(self) -> None:
        """Leave: items that wait are dropped, items that run are told."""
        for item in self.items:
            item.cancelled = True

    async def wait(self) -> list[Any]:
        """Wait for the outcomes: results and exceptions, in the order of the payloads.

        Raises:
            asyncio.CancelledError: the call is to stop; the items were told.
        """
        loop = asyncio.get_running_loop()
        arrived = loop.create_future()

        def tell() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(lambda: None if arrived.done() else arrived.set_result(None))

        self.when_done(tell)
        try:
            await arrived
        except asyncio.CancelledError:
            self.cancel()
            raise
        return self.outcomes


class Gatherer:
    """Decides what runs next. Owner of the queue; whoever uses it from several threads locks around it.

    Args:
        max_batch: items of one run at most.
        max_wait: seconds that the oldest item may wait for others while the model is free.
    """

    def __init__(self, max_batch: int, max_wait: float) -> None:
        self.max_batch = max_batch
        self.max_wait = max_wait
        self._queue: deque[Item] = deque()
        self._seen: dict[Operation, tuple[int, float]] = {}
        """How many callers each operation had around its last run, and when that ended."""
        self._running: tuple[Operation, int] | None = None

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, items: Sequence[Item], now: float) -> None:
        """Put items at the end of the queue."""
        for item in items:
            item.arrived = now
        self._queue.extend(items)

    def drop_cancelled(self) -> list[Item]:
        """Take out, and return, the items whose callers have gone."""
        gone = [item for item in self._queue if item.cancelled]
        if gone:
            self._queue = deque(item for item in self._queue if not item.cancelled)
        return gone

    def drain(self) -> list[Item]:
        """Take out, and return, everything that waits."""
        left, self._queue = list(self._queue), deque()
        return left

    def next(self, now: float) -> list[Item] | float | None:
        """The items to run now; or the seconds to wait for more of them; or None, there are none."""
        if not self._queue:
            return None
        oldest = self._queue[0]
        limit = max(1, oldest.operation.limit(self.max_batch))
        alike = [item for item in self._queue if item.operation == oldest.operation]
        waited = now - oldest.arrived
        if len(alike) < limit and waited < self.max_wait and _callers(alike) < self._expected(oldest.operation, now):
            return self.max_wait - waited
        return self._take(alike[:limit])

    def finished(self, now: float) -> None:
        """The run is over: whoever was in it, and whoever came meanwhile for the same, may come again."""
        self._seen = {each: known for each, known in self._seen.items() if now - known[1] < MEMORY_SECONDS}
        if self._running is not None:
            operation, callers = self._running
            others = _callers(item for item in self._queue if item.operation == operation)
            self._seen[operation] = (callers + others, now)
            self._running = None

    def _expected(self, operation: Operation, now: float) -> int:
        callers, when = self._seen.get(operation, (LONE, now))
        return callers if now - when < MEMORY_SECONDS else LONE

    def _take(self, batch: list[Item]) -> list[Item]:
        taken = set(map(id, batch))
        self._queue = deque(item for item in self._queue if id(item) not in taken)
        self._running = batch[0].operation, _callers(batch)
        return batch


def _callers(items: Iterable[Item]) -> int:
    return len({id(item.submission) for item in items})


class Batcher:
    """The thread of one model. Owner of its gatherer; started with the first item, ended by `close`.

    Args:
        gatherer: decides what runs next.
        name: of the thread.
        clock: as `time.monotonic`.
    """

    def __init__(self, gatherer: Gatherer, name: str = "model", clock: Callable[[], float] = monotonic) -> None:
        self._gatherer = gatherer
        self._name = name
        self._clock = clock
        # Held by its own name: a Condition is entered through code in Python, in which an interrupt could strike after
        # the lock was taken, and it would stay taken.
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None
        self._is_closed = False
        self._current: list[Item] = []
        self.batches = 0
        self.items = 0
        self.largest = 0

    @property
    def is_busy(self) -> bool:
        """Whether somebody waits for an answer; the run that gave the last one may need a moment more to be over."""
        with self._lock:
            return len(self._gatherer) > 0 or any(not item.is_finished for item in self._current)

    def _has_work(self) -> bool:
        return bool(self._current) or len(self._gatherer) > 0

    def wait_idle(self, seconds: float) -> bool:
        """Wait until nothing runs or waits; false if that takes longer than `seconds`.

        A caller has its answer a moment before the run that gave it is over.
        """
        with self._lock:
            return self._changed.wait_for(lambda: not self._has_work(), seconds)

    def submit(self, submission: Submission) -> Submission:
        """Put a call's items into the queue.

        Raises:
            RuntimeError: the batcher is closed.
        """
        with self._lock:
            if self._is_closed:
                raise RuntimeError(UNLOADED)
            self._gatherer.add(submission.items, self._clock())
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name=f"manybridge-{self._name}", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        return submission

    def close(self) -> None:
        """End the thread: items that wait fail, items that run are told to stop. Not to be called on the thread."""
        with self._lock:
            self._is_closed = True
            for item in self._current:
                item.cancelled = True
            left = self._gatherer.drain()
            self._changed.notify_all()
            thread = self._thread
        for item in left:
            item.finish(RuntimeError(UNLOADED))
        if thread is not None:
            thread.join(CLOSE_SECONDS)

    def stats(self) -> dict[str, Any]:
        """How many runs there were, of how many items."""
        return {"batches": self.batches, "items": self.items, "largest_batch": self.largest}

    def _serve(self) -> None:
        while (batch := self._next()) is not None:
            self.batches += 1
            self.items += len(batch)
            self.largest = max(self.largest, len(batch))
            try:
                run(batch)
            finally:
                del batch  # what was computed must not live until the next call
                with self._lock:
                    self._current = []
                    self._gatherer.finished(self._clock())
                    self._changed.notify_all()

    def _next(self) -> list[Item] | None:
        while True:
            with self._lock:
                gone = self._gatherer.drop_cancelled()
                found = self._look() if not gone else 0.0
            for item in gone:
                item.finish(None)
            if not isinstance(found, float):
                return found

    def _look(self) -> list[Item] | float | None:
        """Find a batch, or wait once; 0.0 to look again, None to end."""
        found = self._gatherer.next(self._clock())
        if isinstance(found, list):
            self._current = found
            return found
        if self._is_closed:
            return None
        self._changed.wait(found)
        return 0.0


def run(batch: Sequence[Item]) -> None:
    """Run items of one operation and finish each of them, in halves where the whole fails."""
    outcomes, error = _attempt(batch)
    if error is not None:
        _run_again(batch, error)
        return
    for item, outcome in zip(batch, outcomes, strict=True):
        item.finish(outcome)


def _attempt(batch: Sequence[Item]) -> tuple[Sequence[Any], BaseException | None]:
    try:
        return batch[0].operation.run(batch), None
    except BaseException as error:  # noqa: BLE001  # a thread's border: each caller gets its own answer
        _let_go(error)
        return (), error


def _let_go(error: BaseException) -> None:
    """Empty the frames of a run that failed: they hold its tensors, and memory may be what it failed for."""
    link: BaseException | None = error
    while link is not None:
        clear_frames(link.__traceback__)
        link = link.__cause__ or link.__context__


def _run_again(batch: Sequence[Item], error: BaseException) -> None:
    for item in batch:
        if item.is_visible or item.cancelled or len(batch) == 1:
            item.finish(error)
    left = [item for item in batch if not item.is_finished]
    middle = (len(left) + 1) // 2
    for half in (left[:middle], left[middle:]):
        if half:
            run(half)
