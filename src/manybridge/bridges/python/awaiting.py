"""Runs awaitables for synchronous handlers, on one event loop that lives as long as the worker.

Clients that people make inside async functions (HTTP connections, locks) are tied to their loop, so a loop per call
would break the second call. The loop and its thread start with the first awaitable: an idle worker has neither.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import asyncio

CHECK_EVERY: Final = 0.02
"""Seconds between looks at the cancel flag while the loop works; an exception can't reach a thread that waits."""


class LoopThread:
    """Owns the event loop and its thread."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def finish(self, value: Any, check: Callable[[], None]) -> Any:
        """`value` itself, or what it gives when awaited. `check` raises when the call is cancelled.

        A call that is interrupted cancels the awaitable before it leaves.
        """
        if not isinstance(value, Awaitable):
            return value
        import asyncio
        from concurrent.futures import TimeoutError as NotYet

        async def awaited() -> Any:
            return await value

        future = asyncio.run_coroutine_threadsafe(awaited(), self._running_loop())
        try:
            while True:
                try:
                    return future.result(CHECK_EVERY)
                except NotYet:
                    # The awaited code may raise TimeoutError itself, and that is the same class: ask again.
                    if future.done():
                        return future.result()
                    check()
        finally:
            future.cancel()  # of no effect on one that is done

    def iterate(self, source: AsyncIterator[Any], check: Callable[[], None]) -> Iterator[Any]:
        """The items of an async iterator, one at a time; it is closed when the caller stops early."""
        try:
            while True:
                try:
                    item = self.finish(source.__anext__(), check)
                except StopAsyncIteration:
                    return
                yield item
        finally:
            close = getattr(source, "aclose", None)
            if close is not None:
                self.finish(close(), lambda: None)

    def close(self) -> None:
        """Stops the loop and waits for its thread."""
        with self._lock:
            loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(timeout=1.0)
            if not thread.is_alive():
                loop.close()

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        import asyncio

        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name="python-bridge-loop", daemon=True)
                self._thread.start()
            return self._loop
