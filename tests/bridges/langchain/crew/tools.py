"""Functions of every kind that a team may offer to an agent."""

from __future__ import annotations

import asyncio
import datetime as dt
import sys
import threading
from typing import Any


def double(number: int) -> int:
    """Double a number."""
    return number * 2


async def shout(text: str, times: int = 1) -> str:
    """Shout a text."""
    return " ".join([text.upper()] * times)


def weekday(day: dt.date) -> str:
    """Weekday of a date."""
    return day.strftime("%A")


def broken(number: int) -> int:
    """Break whatever the number is."""
    raise RuntimeError(f"no luck with {number}")


def odd(number: int) -> Any:
    """Return what JSON can't carry."""
    return {number}


def stops(number: int) -> int:
    """Take the first of nothing."""
    return next(each for each in (number,) if each < 0)


def leaves(number: int) -> int:
    """End the program, as a script does that was made a tool."""
    sys.exit(f"bad number {number}")


def stuck(number: int) -> int:
    """Hang for ever, where nothing can stop it."""
    threading.Event().wait()
    return number


async def hang(text: str) -> str:
    """Hang for ever."""
    await asyncio.Event().wait()
    return text
