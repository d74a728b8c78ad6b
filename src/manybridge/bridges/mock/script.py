"""Scripted replies and the record of what was received.

A script is a list of replies. Each call of a scripted command takes the first reply that is left, is meant for that
command and matches the arguments; a reply is used up by `times` calls (default 1, null for ever).
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Generator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from types import MappingProxyType
from typing import Any, Final, NamedTuple, get_args

from manybridge.bridge import BridgeError, Context

from .faults import DeathKind, die

MAX_RECORDED: Final = 200
"""Calls that are remembered: enough for any test, and no leak in a worker that serves a benchmark for an hour."""
MAX_RECORDED_LENGTH: Final = 4096
"""Longer strings and lists in the arguments are remembered by their length only."""
CHECK_EVERY: Final = 0.01
"""Seconds between looks at the cancel flag while waiting."""


class Reply(NamedTuple):
    """One scripted reply: wait, stream the chunks, then crash, fail or return, in this order."""

    command: str | None = None
    """The command that it answers, without the namespace; None for any scripted command."""
    match: Mapping[str, Any] = MappingProxyType({})
    """Arguments that the call must have for this reply to be taken; the call may have more."""
    delay_ms: float = 0
    chunks: Sequence[Any] = ()
    crash: DeathKind | None = None
    error: dict[str, Any] | None = None
    """`{code, message, retryable?, details?}`."""
    result: Any = None
    times: int | None = 1
    """How many calls it answers; None for ever."""

    def answers(self, command: str, args: dict[str, Any]) -> bool:
        """Whether a call of `command` with `args` takes this reply."""
        if self.command not in (None, command):
            return False
        return all(name in args and args[name] == value for name, value in self.match.items())


def read_reply(given: Any, position: int) -> Reply:
    """Checks one reply of a script.

    Raises:
        BridgeError: `invalid_argument`, naming the reply and the key.
    """
    if not isinstance(given, dict):
        raise _wrong(position, "", f"expected an object, found {type(given).__name__}")
    for key in given:
        if key not in Reply._fields:
            raise _wrong(position, key, f"is unknown; known keys: {', '.join(Reply._fields)}")
    for key, kind, words in _EXPECTED:
        if key in given and not isinstance(given[key], kind):
            raise _wrong(position, key, f"expected {words}, found {type(given[key]).__name__}")
    reply = Reply(**given)
    if reply.crash is not None and reply.crash not in get_args(DeathKind):
        raise _wrong(position, "crash", f"expected one of {', '.join(get_args(DeathKind))}, found {reply.crash!r}")
    return reply if reply.command is None else reply._replace(command=reply.command.rpartition(":")[2])


_EXPECTED: Final[tuple[tuple[str, Any, str], ...]] = (
    ("command", str | None, "a command name"),
    ("match", dict, "an object"),
    ("delay_ms", (int, float), "a number of milliseconds"),
    ("chunks", list, "a list"),
    ("crash", str | None, "a kind of crash"),
    ("error", dict | None, "an object with code and message"),
    ("times", int | None, "a whole number, or null for ever"),
)


class Script:
    """Owns the replies that are left and the record of calls."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.calls: deque[dict[str, Any]] = deque(maxlen=MAX_RECORDED)
        self.counts: Counter[str] = Counter()

    def add(self, replies: Sequence[Any], own: AbstractSet[str] = frozenset()) -> set[str]:
        """Appends replies and returns the names of the commands that they are for. Nothing changes after an error.

        Args:
            own: commands that the bridge answers itself; a reply for one of them would never be taken.
        """
        read = [read_reply(given, position) for position, given in enumerate(replies)]
        for position, reply in enumerate(read):
            if reply.command in own:
                raise _wrong(
                    position, "command", f"the mock bridge answers {reply.command} itself; take 'reply' or a new name"
                )
        self.replies += read
        return {reply.command for reply in read if reply.command is not None}

    def take(self, command: str, args: dict[str, Any]) -> Reply | None:
        """The reply for this call, or None if the script has none left for it."""
        for position, reply in enumerate(self.replies):
            if reply.answers(command, args):
                if reply.times is not None:
                    left = reply._replace(times=reply.times - 1)
                    self.replies[position : position + 1] = [left] if reply.times > 1 else []
                return reply
        return None

    def record(self, command: str, args: dict[str, Any], ctx: Context | None) -> None:
        """Remembers a call, with long arguments by their length only."""
        self.counts[command] += 1
        self.calls.append(
            {
                "command": command,
                "args": {name: _short(value) for name, value in args.items()},
                "session_id": ctx.session_id if ctx is not None else None,
                "at": time.time(),
            }
        )

    def reset(self) -> dict[str, int]:
        """Forgets replies and calls; returns how many there were."""
        forgotten = {"replies": len(self.replies), "calls": self.counts.total()}
        self.replies.clear()
        self.calls.clear()
        self.counts.clear()
        return forgotten


def play(reply: Reply, ctx: Context) -> Generator[Any, None, Any]:
    """Does what the reply says. Cancellable while it waits."""
    wait(reply.delay_ms / 1000, ctx)
    yield from reply.chunks
    if reply.crash is not None:
        die(reply.crash)
    if reply.error is not None:
        raise BridgeError(
            reply.error.get("code", "handler_error"),
            reply.error.get("message", "scripted error"),
            retryable=reply.error.get("retryable"),
            details=reply.error.get("details"),
            type=reply.error.get("type"),
        )
    return reply.result


def wait(seconds: float, ctx: Context) -> None:
    """Sleeps as a well-behaved handler does: it asks every 10 ms whether it should stop."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        ctx.check()
        time.sleep(min(left, CHECK_EVERY))
    ctx.check()


def _short(value: Any) -> Any:
    if isinstance(value, (str, list)) and len(value) > MAX_RECORDED_LENGTH:
        return {"omitted": type(value).__name__, "length": len(value)}
    return value


def _wrong(position: int, key: str, problem: str) -> BridgeError:
    place = f"replies[{position}]" + (f".{key}" if key else "")
    return BridgeError("invalid_argument", f"{place}: {problem}", details={"argument": place})
