"""Bounds in time that hold on a busy machine too: measured a few times, and kept once is kept.

What else a machine does only ever adds to a time. So a test of a bound is repeated when it was too slow, and for
nothing else: every other failure is final at the first attempt.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any, Final, TypeVar, cast

from tests.support import MS

ATTEMPTS: Final = 5

Test = TypeVar("Test", bound=Callable[..., Any])


class TooSlowError(AssertionError):
    """Right, but late."""


@contextmanager
def within(milliseconds: float) -> Iterator[None]:
    """Raise `TooSlowError` if the block took longer (scaled as every time in the tests is)."""
    began = monotonic()
    yield
    took = monotonic() - began
    if took >= milliseconds * MS:
        raise TooSlowError(f"took {took:.3f} s; at most {milliseconds * MS:.3f} s were allowed")


def bounded(test: Test) -> Test:
    """Let a test that uses `within` try again, in whole, when it was too slow."""
    if inspect.iscoroutinefunction(test):

        @functools.wraps(test)
        async def attempts(*args: Any, **kwargs: Any) -> None:
            for left in reversed(range(ATTEMPTS)):
                try:
                    await test(*args, **kwargs)
                    return
                except TooSlowError:
                    if not left:
                        raise

        return cast("Test", attempts)

    @functools.wraps(test)
    def blocking_attempts(*args: Any, **kwargs: Any) -> None:
        for left in reversed(range(ATTEMPTS)):
            try:
                test(*args, **kwargs)
                return
            except TooSlowError:
                if not left:
                    raise

    return cast("Test", blocking_attempts)
