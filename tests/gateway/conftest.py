"""A host behind standard input and output, as another program would start it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support import PATIENT, FrameReader, request

PROGRAM = """
import asyncio, json, sys
from manybridge.gateway.stdio import serve_stdio
sys.exit(asyncio.run(serve_stdio(json.loads(sys.argv[1]))))
"""


class StdioHost:
    """The other end: sends requests, reads messages."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, json.dumps(config)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.input = self.process.stdin
        self.reader = FrameReader(self.process.stdout.fileno())
        self._next_id = 0

    def send(self, command: str, args: dict[str, Any] | None = None, **fields: object) -> int:
        """Send a request and return its id."""
        self._next_id += 1
        self.input.write(request(self._next_id, command, args, **fields))
        return self._next_id

    def read(self) -> Any:
        """Return the next message."""
        return self.reader.read()

    def call(self, command: str, args: dict[str, Any] | None = None, **fields: object) -> Any:
        """Send a request and return its reply."""
        id = self.send(command, args, **fields)
        reply = self.read()
        assert reply["id"] == id
        return reply

    def close(self) -> int:
        """Close the input and return the exit status."""
        self.input.close()
        return self.process.wait(10)

    def stop(self) -> None:
        """End it, however it is."""
        self.input.close()
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(10)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()


HostStarter = Callable[..., StdioHost]


@pytest.fixture
def start() -> Iterator[HostStarter]:
    """Return a function that starts a host with `mock`, whose configuration is its arguments."""
    hosts: list[StdioHost] = []

    def starter(**config: Any) -> StdioHost:
        values = {"zygote": "never", **PATIENT, **config}
        hosts.append(StdioHost({"default": "mock", "bridges": {"mock": values, "other": {"bridge": "mock"}}}))
        return hosts[-1]

    yield starter
    for host in hosts:
        host.stop()
