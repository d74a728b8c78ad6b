"""Replays recordings: as a worker that answers a host, and as a client that asks a worker.

Both are deterministic: requests come in the recorded order, one after the other, whatever the times were. Both compare
what comes with what was recorded, and a mismatch names the line of the recording.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from manybridge.bridge import Bridge
from manybridge.host.config_secrets import MASK
from manybridge.host.launcher import BOOTSTRAP, Launched, WorkerOrder, worker_socketpair
from manybridge.host.pool import Pool
from manybridge.protocol.errors import ErrorCode
from manybridge.protocol.frames import FrameDecoder, OversizedFrame, encode_frame
from manybridge.testing.memory import MEMORY, AsyncInMemoryMLBridge, InMemoryMLBridge, MemoryProcess
from manybridge.testing.memory_runtime import MemoryRuntime
from manybridge.testing.problems import KitError, demand_bridge_class
from manybridge.testing.recording import Exchange, Recording

UNORDERED: Final = frozenset(
    f"common:{name}"
    for name in ("hello", "warm_up", "ping", "health", "get_stats", "capabilities", "cancel", "shutdown", "cleanup")
)
"""What a host asks on its own account, when it likes: answered as recorded, in whatever order it comes."""

CHANGING: Final = frozenset(
    {
        "timestamp", "created_at", "last_executed", "pid", "parent_pid", "group", "generation", "worker_id", "uptime",
        "traceback", "load_seconds", "at", "deadline_ms",
    }
)  # fmt: skip
"""Keys whose values differ between two runs of the same thing; not compared, at any depth."""

ANSWER_SECONDS: Final = 30.0
"""How long a worker may take for one answer."""

READ_BYTES: Final = 256 * 1024


class ReplayMismatch(AssertionError):  # noqa: N818  # what pytest shows for it reads better so
    """What came is not what was recorded. `line` is that of the recording."""

    def __init__(self, path: Path, line: int, text: str) -> None:
        super().__init__(f"{path.name}:{line}: {text}")
        self.line = line


# ---------------------------------------------------------------- as a worker


class ReplayMLBridge(InMemoryMLBridge):
    """A host whose workers say what a recording says: `with ReplayMLBridge("session.jsonl") as ml`.

    The application must ask what was asked then, in that order. What it asks otherwise is answered with an error, and
    leaving the `with` raises `ReplayMismatch`. Questions that never came are no mismatch; `unasked` has them.
    """

    def __init__(self, path: str | Path) -> None:
        self._player = _Player(Recording(path))
        super().__init__({name: {"bridge": name, "pool_size": 1} for name in self._player.recording.bridges})

    def _new_host(self, bridges: Any) -> AsyncInMemoryMLBridge:
        return _ReplayHost(bridges, self._player)

    @property
    def unasked(self) -> list[str]:
        """What the recording has and nobody has asked yet: line and command."""
        return [f"{each.request.line}: {each.command}" for each in self._player.left()]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        if self._player.mismatch is not None:
            raise self._player.mismatch from error


class _ReplayHost(AsyncInMemoryMLBridge):
    def __init__(self, bridges: Mapping[str, Any], player: _Player) -> None:
        super().__init__(bridges)
        self._player = player

    def _launcher_for(self, pool: Pool, name: str) -> Any:  # noqa: ARG002  # the base's signature
        return _ReplayLauncher(name, self._player)


class _ReplayLauncher:
    def __init__(self, bridge: str, player: _Player) -> None:
        self._bridge = bridge
        self._player = player

    async def launch(self, order: WorkerOrder) -> Launched:
        ours, theirs = worker_socketpair()
        process = MemoryProcess(order.worker_id, theirs)
        process.begin(lambda: _ReplayWorker(self._bridge, theirs, self._player))
        return Launched(process, ours, MEMORY)  # type: ignore[arg-type]  # it has what a host uses of a WorkerProcess

    async def close(self) -> None:
        """Nothing is held."""


class _Player:
    """Owner of what was not asked yet. Any thread may ask."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.mismatch: ReplayMismatch | None = None
        self._lock = threading.Lock()
        self._due: dict[str, list[Exchange]] = {}
        self._unordered: dict[tuple[str, str], list[Exchange]] = {}
        self._now: dict[str, str] = {}
        """Recorded id of a resource -> the one that it has today: hosts draw them."""
        for bridge in recording.bridges:
            self._due[bridge] = []
            for each in recording.exchanges(bridge):
                if each.command in UNORDERED:
                    self._unordered.setdefault((bridge, each.command), []).append(each)
                elif each.command != "common:call_result":
                    self._due[bridge].append(each)

    def left(self) -> list[Exchange]:
        """What was not asked."""
        return [each for due in self._due.values() for each in due]

    def answers(self, bridge: str, message: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The messages that answer a request, with its own id in them."""
        with self._lock:
            exchange = self._find(bridge, message)
            answers = [] if exchange is None else [self._today(frame.message) for frame in exchange.answers]
        if exchange is None:
            text = str(self.mismatch) if self.mismatch is not None else "nothing of the kind was recorded"
            answers = [_failure(f"the recording goes otherwise: {text}")]
        elif not any("success" in each for each in answers):
            answers.append(_failure("the recording has no reply to this call", ErrorCode.WORKER_CRASHED))
        if not message.get("stream"):  # whether a host takes events depends on its tools too
            answers = [each for each in answers if "event" not in each]
        return ({**each, "id": message.get("id")} for each in answers)

    def _find(self, bridge: str, message: dict[str, Any]) -> Exchange | None:
        command = str(message.get("command"))
        if command in UNORDERED:
            known = self._unordered.get((bridge, command), [])
            return known.pop(0) if len(known) > 1 else next(iter(known), None)
        due = self._due[bridge]
        if not due:
            last = self.recording.frames[-1].line if self.recording.frames else 1
            self._mismatched(last, f"came {command} after the last recorded request")
            return None
        exchange = due[0]
        if difference := self._difference(exchange, message):
            self._mismatched(exchange.request.line, difference)
            return None
        return due.pop(0)

    def _difference(self, exchange: Exchange, message: dict[str, Any]) -> str | None:
        recorded = exchange.request.message
        if recorded.get("command") != message.get("command"):
            return f"expected {recorded.get('command')}, came {message.get('command')}"
        then, now = recorded.get("args", {}), message.get("args", {})
        if exchange.command == "common:create_resource" and isinstance(then.get("id"), str) and now.get("id"):
            self._now[then["id"]] = now["id"]
        return difference(self._today(then), now, f"{exchange.command}: args")

    def _today(self, value: Any) -> Any:
        """What was recorded, with today's ids."""
        if isinstance(value, dict):
            return {key: self._today(each) for key, each in value.items()}
        if isinstance(value, list):
            return [self._today(each) for each in value]
        return self._now.get(value, value) if isinstance(value, str) else value

    def _mismatched(self, line: int, text: str) -> None:
        self.mismatch = self.mismatch or ReplayMismatch(self.recording.path, line, text)


class _ReplayWorker:
    """Answers requests on one socket, on a thread. In the place of a `MemoryRuntime`."""

    def __init__(self, bridge: str, sock: socket.socket, player: _Player) -> None:
        self._bridge = bridge
        self._sock = sock
        self._player = player
        self._waiting: dict[Any, Iterator[dict[str, Any]]] = {}
        """By the number of a host call: what follows when its result has come."""

    def run(self) -> None:
        """Serve until the host goes away."""
        for message in _messages(self._sock):
            if message.get("command") == "common:call_result":
                self._send({"id": message.get("id"), "success": True, "result": {}, "timestamp": 0.0})
                self._play(self._waiting.pop(message["args"].get("call_id"), iter(())))
            else:
                self._play(self._player.answers(self._bridge, message))
                if message.get("command") == "common:shutdown":
                    return

    def abandon(self) -> None:
        """Nothing runs."""

    def _play(self, answers: Iterator[dict[str, Any]]) -> None:
        for answer in answers:
            self._send(answer)
            if answer.get("event") == "call":
                self._waiting[answer["data"].get("call_id")] = answers
                return

    def _send(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # the host has gone, which the next read tells
            self._sock.sendall(encode_frame(json.dumps(message).encode()))


# ---------------------------------------------------------------- as a client


def replay_against(
    path: str | Path,
    worker: type[Bridge] | str,
    *,
    bridge: str | None = None,
    options: dict[str, Any] | None = None,
    ignore: Collection[str] = CHANGING,
    python: str = sys.executable,
) -> int:
    """Ask a worker everything that a recording has, one after the other, and compare what it says.

    Args:
        path: of the recording.
        worker: a class, which runs inside this process, or what `manybridge worker` takes, as a process.
        bridge: whose requests of the recording; needed where it has several bridges.
        options: of the bridge.
        ignore: keys that are not compared, at any depth.
        python: the interpreter of a worker process.

    Returns:
        How many requests were asked.

    Raises:
        ReplayMismatch: the worker says something else.
        KitError: the recording can't be read, or has not the bridge that was named, or several and none was.
    """
    if not isinstance(worker, str):
        demand_bridge_class(worker, "worker")
    recording = Recording(path)
    name = _recorded_bridge(recording, bridge)
    asked = [each for each in recording.exchanges(name) if each.command not in UNORDERED]
    with _worker(worker, name, options or {}, python) as sock:
        replies = _messages(sock)
        _ask(sock, {"id": "hello", "command": "common:hello", "args": {"protocol": 2}})
        _ask(sock, {"id": "warm_up", "command": "common:warm_up", "args": {}})
        for _ in range(2):
            _next(replies)
        for exchange in asked:
            if exchange.command != "common:call_result":
                _replay_one(recording, exchange, asked, sock, replies, frozenset(ignore))
    return len(asked)


def _recorded_bridge(recording: Recording, wanted: str | None) -> str:
    names = list(recording.bridges)
    if wanted is None and len(names) == 1:
        return names[0]
    if wanted in names:
        return wanted
    what = "say whose requests are asked" if wanted is None else f"nothing of {wanted!r} was recorded"
    raise KitError(f"bridge: {what}; {recording.path} has: {', '.join(names) or 'none'}")


def _replay_one(
    recording: Recording,
    exchange: Exchange,
    asked: list[Exchange],
    sock: socket.socket,
    replies: Iterator[dict[str, Any]],
    ignore: frozenset[str],
) -> None:
    request = {key: value for key, value in exchange.request.message.items() if key != "deadline_ms"}
    _ask(sock, request)
    for frame in exchange.answers:
        message = _next(replies)
        while message is not None and message.get("id") != request["id"]:  # to the result of a host call
            message = _next(replies)
        if message is None:
            raise ReplayMismatch(recording.path, frame.line, f"{exchange.command}: no answer came")
        if text := difference(_compared(frame.message, ignore), _compared(message, ignore), exchange.command):
            raise ReplayMismatch(recording.path, frame.line, text)
        if message.get("event") == "call":
            for each in asked:
                same = each.request.message.get("args", {}).get("call_id") == frame.message["data"].get("call_id")
                if each.command == "common:call_result" and same:
                    result = {**each.request.message["args"], "call_id": message["data"].get("call_id")}
                    _ask(sock, {**each.request.message, "args": result})


@contextmanager
def _worker(source: type[Bridge] | str, name: str, options: dict[str, Any], python: str) -> Iterator[socket.socket]:
    ours, theirs = socket.socketpair()
    ours.settimeout(ANSWER_SECONDS)
    arguments = ["--name", name, "--mode", "host", "--options", json.dumps(options)]
    with ours:
        if isinstance(source, str):
            command = [python, "-I", str(BOOTSTRAP), source, *arguments]
            with theirs, subprocess.Popen(command, stdin=theirs.fileno(), stdout=theirs.fileno()) as process:
                theirs.close()
                try:
                    yield ours
                finally:
                    ours.close()
                    process.wait(ANSWER_SECONDS)
            return
        runtime: list[MemoryRuntime] = []

        def serve() -> None:
            with theirs:
                runtime.append(MemoryRuntime.of(["class", *arguments], options, theirs, source))
                runtime[0].run()

        thread = threading.Thread(target=serve, name="manybridge-replayed", daemon=True)
        thread.start()
        try:
            yield ours
        finally:
            ours.shutdown(socket.SHUT_RDWR)
            thread.join(ANSWER_SECONDS)


# ---------------------------------------------------------------- frames and comparing


def difference(expected: Any, found: Any, place: str) -> str | None:
    """Say where two JSON values differ first, or None. What was masked when it was recorded fits everything."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in [*expected, *(key for key in found if key not in expected)]:
            if key not in expected or key not in found:
                which = "is missing" if key not in found else f"was not there, and is {found[key]!r:.200}"
                return f"{place}.{key} {which}"
            if text := difference(expected[key], found[key], f"{place}.{key}"):
                return text
        return None
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        pairs = enumerate(zip(expected, found, strict=True))
        return next((text for i, (a, b) in pairs if (text := difference(a, b, f"{place}[{i}]"))), None)
    if isinstance(expected, str) and MASK in expected and isinstance(found, str | int | float):
        pattern = re.escape(expected).replace(re.escape(MASK), ".*")
        return None if re.fullmatch(pattern, str(found), re.DOTALL) else f"{place}: expected {expected!r:.200}"
    return None if expected == found else f"{place}: expected {expected!r:.200}, found {found!r:.200}"


def _compared(value: Any, ignore: frozenset[str]) -> Any:
    if isinstance(value, dict):
        return {key: _compared(each, ignore) for key, each in value.items() if key not in ignore}
    return [_compared(each, ignore) for each in value] if isinstance(value, list) else value


def _messages(sock: socket.socket) -> Iterator[dict[str, Any]]:
    decoder = FrameDecoder()
    while True:
        try:
            data = sock.recv(READ_BYTES)
        except OSError:
            return
        if not data:
            return
        for body in decoder.receive_data(data):
            if not isinstance(body, OversizedFrame):
                yield json.loads(body)


def _next(replies: Iterator[dict[str, Any]]) -> dict[str, Any] | None:
    return next(replies, None)


def _ask(sock: socket.socket, message: Mapping[str, Any]) -> None:
    with contextlib.suppress(OSError):  # it has gone, which the next read tells
        sock.sendall(encode_frame(json.dumps(message).encode()))


def _failure(text: str, code: ErrorCode = ErrorCode.HANDLER_ERROR) -> dict[str, Any]:
    info = {"code": str(code), "message": text, "retryable": False, "framework": None, "type": None, "details": {}}
    return {"success": False, "error": text, "error_info": info, "timestamp": 0.0}
