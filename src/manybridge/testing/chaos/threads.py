"""Blocking work beside an event loop, on threads that end with it and not with the loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any


async def in_thread(work: Callable[[], Any]) -> Any:
    """Run `work` on a thread of its own and return what it returns.

    Unlike the loop's executor it leaves no idle thread behind, which a leak check would find.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Any] = loop.create_future()

    def settle(result: Any, error: BaseException | None) -> None:
        if answer.done():
            return
        if error is None:
            answer.set_result(result)
        else:
            answer.set_exception(error)

    def run() -> None:
        outcome: tuple[Any, BaseException | None]
        try:
            outcome = (work(), None)
        except BaseException as error:  # noqa: BLE001  # a thread's border: told to who waits
            outcome = (None, error)
        try:
            loop.call_soon_threadsafe(settle, *outcome)
        except RuntimeError:  # the loop is closed: nobody waits
            return

    thread = threading.Thread(target=run, name="manybridge-chaos", daemon=True)
    thread.start()
    try:
        return await answer
    finally:
        if answer.done() and not answer.cancelled():
            thread.join()
