"""Recordings: every frame of a real session, in a file, without its secrets.

A recording is JSON Lines. The first line says what it is; each other line is one frame with the seconds since the
beginning, the worker, the way it went and the message. Before anything is written, values under keys that look secret
are masked, and the values of environment variables that look secret, wherever they occur.
"""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any, Final, Self, TextIO

import manybridge
from manybridge.host.bridge import AsyncMLBridge
from manybridge.host.config_secrets import is_secret_key, mask_tree
from manybridge.host.launcher import Launched, WorkerOrder
from manybridge.host.sync import MLBridge
from manybridge.testing.chaos.tapping import replace_untapped
from manybridge.testing.chaos.wire import Direction, Wire
from manybridge.testing.problems import KitError

FORMAT: Final = 1
"""Of the file. A reader refuses one that it does not know."""


class AsyncRecorder:
    """Records what a host and its workers say: `async with AsyncRecorder(ml, "session.jsonl")`.

    Workers that live already are replaced when it begins, so it belongs around a session and not into its middle.

    Args:
        ml: a host that was started.
        path: of the file, which is written anew.
        secrets: texts to mask wherever they occur, beside the values of secret-looking environment variables.
    """

    def __init__(self, ml: AsyncMLBridge, path: str | Path, *, secrets: Collection[str] = ()) -> None:
        self._pools = {name: ml.pool(name) for name in ml.bridges()}
        self._path = Path(path)
        self._secrets = {*secrets, *_secret_variables(os.environ)}
        for pool in self._pools.values():
            self._secrets |= _secret_variables(pool.config.environment)
        self._wire = Wire()
        self._tapped: set[int] = set()
        self._lock = threading.Lock()
        self._file: TextIO | None = None
        self._began = monotonic()

    async def __aenter__(self) -> Self:
        try:
            self._file = self._opened()
        except KitError:
            self._wire.release()  # nobody closes what was not entered
            raise
        bridges = {name: pool.config.reference or name for name, pool in self._pools.items()}
        self._write({"recording": FORMAT, "manybridge": manybridge.__version__, "bridges": bridges})
        for pool in self._pools.values():
            pool.supervisor.intercept = self._intercept
        for pool in self._pools.values():
            if pool.supervisor.started:
                await replace_untapped(pool, lambda worker: worker.process.pid in self._tapped, every=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _opened(self) -> TextIO:
        # First, because opening empties a file that is there: it may be what the other one writes.
        if any(pool.supervisor.intercept is not None for pool in self._pools.values()):
            raise KitError("this host has faults or a recorder already; one at a time")
        try:
            return self._path.open("w", encoding="utf-8")
        except (OSError, ValueError) as error:
            raise KitError(f"{self._path}: the recording can't be written: {error}") from error

    async def close(self) -> None:
        """End the recording. The host and its workers go on."""
        for pool in self._pools.values():
            pool.supervisor.intercept = None
        self._wire.release()
        with self._lock:
            file, self._file = self._file, None
        if file is not None:
            file.close()

    def _intercept(self, order: WorkerOrder, launched: Launched) -> Launched:
        bridge = order.worker_id.rpartition("-")[0]

        def observe(direction: Direction, body: bytes) -> None:
            self._write(
                {
                    "t": round(monotonic() - self._began, 6),
                    "bridge": bridge,
                    "worker": order.worker_id,
                    "way": direction.value,
                    **_message(body, self._secrets),
                }
            )

        _, ours = self._wire.tap(launched.sock, observe)
        self._tapped.add(launched.process.pid)
        return launched._replace(sock=ours)

    def _write(self, line: Mapping[str, Any]) -> None:
        text = json.dumps(line, ensure_ascii=False, separators=(",", ":"))
        with self._lock:
            if self._file is not None:
                self._file.write(text + "\n")


class Recorder:
    """The same for blocking programs: `with Recorder(ml, "session.jsonl")`."""

    def __init__(self, ml: MLBridge, path: str | Path, *, secrets: Collection[str] = ()) -> None:
        self._run = ml._run  # the host's loop is where its workers are started

        async def begin() -> AsyncRecorder:
            return await AsyncRecorder(ml._bridge, path, secrets=secrets).__aenter__()

        self._begin = begin
        self._recorder: AsyncRecorder | None = None

    def __enter__(self) -> Self:
        self._recorder = self._run(self._begin())
        return self

    def __exit__(self, *_: object) -> None:
        if self._recorder is not None:
            self._run(self._recorder.close())


# ---------------------------------------------------------------- reading


@dataclass(frozen=True, slots=True)
class Frame:
    """One line of a recording."""

    line: int
    """In the file, from 1."""
    worker: str
    bridge: str
    way: Direction
    message: dict[str, Any]


@dataclass
class Exchange:
    """One request and what the worker said to it, in order."""

    request: Frame
    answers: list[Frame] = field(default_factory=list)

    @property
    def command(self) -> str:
        """What was asked."""
        return str(self.request.message.get("command"))


class Recording:
    """A recording that was read.

    Raises:
        KitError: the file can't be read, or is none; the message names the line.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise KitError(f"{self.path}: the recording can't be read: {error}") from error
        head = self._parsed(1, lines[0] if lines else "")
        if head.get("recording") != FORMAT:
            raise KitError(f"{self.path}:1: no recording of format {FORMAT}; found {head.get('recording')!r}")
        self.bridges: dict[str, str] = head.get("bridges", {})
        self.frames = [self._frame(number, line) for number, line in enumerate(lines[1:], 2) if line.strip()]

    def exchanges(self, bridge: str | None = None) -> list[Exchange]:
        """Return the requests in the order in which they were sent, with what came back."""
        found: list[Exchange] = []
        open_ones: dict[tuple[str, Any], Exchange] = {}
        for frame in self._of(bridge):
            key = (frame.worker, frame.message.get("id"))
            if frame.way is Direction.TO_WORKER:
                open_ones[key] = Exchange(frame)
                found.append(open_ones[key])
            elif key in open_ones:
                open_ones[key].answers.append(frame)
        return found

    def _of(self, bridge: str | None) -> Iterator[Frame]:
        return (frame for frame in self.frames if bridge in (None, frame.bridge))

    def _frame(self, number: int, line: str) -> Frame:
        values = self._parsed(number, line)
        try:
            message = values["frame"]
            return Frame(number, values["worker"], values["bridge"], Direction(values["way"]), dict(message))
        except (KeyError, TypeError, ValueError) as error:
            text = f"expected worker, bridge, way and frame of a message, found {line[:80]!r}"
            raise KitError(f"{self.path}:{number}: {text}") from error

    def _parsed(self, number: int, line: str) -> dict[str, Any]:
        try:
            values = json.loads(line)
        except json.JSONDecodeError as error:
            raise KitError(f"{self.path}:{number}: not JSON: {error}") from error
        if not isinstance(values, dict):
            raise KitError(f"{self.path}:{number}: expected an object, found {line[:80]!r}")
        return values


def _message(body: bytes, secrets: Collection[str]) -> dict[str, Any]:
    try:
        return {"frame": mask_tree(json.loads(body), secrets)}
    except (UnicodeDecodeError, json.JSONDecodeError):
        return {"frame": {"not_json": base64.b64encode(body[:1024]).decode()}}


def _secret_variables(variables: Mapping[str, str]) -> set[str]:
    return {value for name, value in variables.items() if is_secret_key(name)}
