"""A team's own module, as the tests of the `python` bridge see one."""

import asyncio
import functools
import shutil
import subprocess
import sys  # noqa: F401  # what a module imports must not be reachable through it
from collections.abc import AsyncIterator, Iterator
from shutil import rmtree  # noqa: F401  # the same

from manybridge.bridge import Context

__all__ = ["copyfile"]

copyfile = shutil.copyfile
run = subprocess.run
RATE = 0.19
half = functools.partial(round, ndigits=1)


class Account:
    """Something with state and methods."""

    bank = "Team Bank"

    def __init__(self, owner: str, balance: float = 0) -> None:
        self.owner = owner
        self.balance = balance

    def pay(self, amount: float) -> float:
        """Add to the balance and return it."""
        self.balance += amount
        return self.balance

    def __call__(self, factor: float) -> float:
        return self.balance * factor

    def _secret(self) -> str:
        return "private"


def gross(net: float, rate: float = RATE) -> float:
    """Add the tax."""
    return round(net * (1 + rate), 2)


def divide(first: float, second: float) -> float:
    """Fail, if asked to."""
    return first / second


def merge(first: Account, second: Account) -> Account:
    """Take and return live objects."""
    return Account(f"{first.owner}+{second.owner}", first.balance + second.balance)


def report(account: Account) -> dict[str, object]:
    """Return a container with one thing in it that JSON can't carry."""
    return {"account": account, "balance": account.balance}


async def fetch(value: int) -> int:
    """Return from a coroutine."""
    await asyncio.sleep(0)
    return value * 2


async def which_loop() -> int:
    """Tell loops apart."""
    return id(asyncio.get_running_loop())


async def late() -> None:
    """Raise what the waiting code must not mistake for its own."""
    raise TimeoutError("the service is late")


async def hang() -> None:
    """Wait until cancelled."""
    await asyncio.Event().wait()


async def pages(n: int) -> AsyncIterator[int]:
    """Stream asynchronously."""
    for page in range(n):
        await asyncio.sleep(0)
        yield page


def numbers(n: int) -> Iterator[int]:
    """Stream."""
    yield from range(n)


def slow_job(steps: int, ctx: Context) -> str:
    """Ask for the call's context by annotation."""
    for step in range(steps):
        ctx.check()
        ctx.progress(step + 1, steps)
    return "done"


def frame() -> object:
    """Return something that leads everywhere."""
    return (number for number in range(3))
