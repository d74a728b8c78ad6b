"""Workers of the Transformers bridge, spoken to over the raw wire; all forked from one zygote.

Importing PyTorch takes seconds, a fork takes milliseconds; and so every test is also a proof that a forked worker loads
and runs models.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.bridges.raw_worker import BOOTSTRAP, Conversation
from tests.support import DEFAULT_TIMEOUT, MS, eventually, framework_python, process_is_running

PATIENCE = 60_000 * MS
"""For a reply that waits for an import of PyTorch, or of a model's code."""

PATIENT = ("--cancel-grace-ms", "20000")
"""What is cancelled ends by itself here; a busy machine must not look like code that does not."""


class Wire(Conversation):
    """The conversation with one forked worker."""

    def __init__(self, pid: int, ours: socket.socket) -> None:
        super().__init__(ours.sendall, ours.fileno())
        self.pid = pid
        self._socket = ours

    def close(self) -> None:
        """Hang up, which ends the worker."""
        self._socket.close()
        eventually(lambda: not process_is_running(self.pid))


class Serving:
    """One worker and what its resources are called."""

    def __init__(self, raw: Wire) -> None:
        self.raw = raw
        self._made: dict[str, str] = {}

    def ask(self, command: str, args: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
        """Send one request and return its reply."""
        return self.raw.receive(self.raw.send(command, args, **fields), PATIENCE)

    def result(self, command: str, args: dict[str, Any] | None = None, **fields: Any) -> Any:
        """Send one request and return its result."""
        reply = self.ask(command, args, **fields)
        assert reply["success"], reply
        return reply["result"]

    def error(self, command: str, args: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
        """Send one request that fails and return its `error_info`."""
        reply = self.ask(command, args, **fields)
        assert not reply["success"], reply
        info: dict[str, Any] = reply["error_info"]
        return info

    def until_chunk(self) -> None:
        """Read until the first chunk of a stream has come."""
        while self.raw.read(PATIENCE).get("event") != "chunk":
            pass

    def make(self, kind: str, **config: Any) -> str:
        """Make a resource and return its id."""
        id: str = self.result("common:create_resource", {"type": kind, "config": config})["id"]
        return id

    def model(self, name: str) -> str:
        """Return the id of a model that the tests share."""
        if name not in self._made:
            self._made[name] = self.make("model", model=name)
        return self._made[name]

    def refused(self, kind: str, **config: Any) -> dict[str, Any]:
        """Return why a resource can't be made."""
        return self.error("common:create_resource", {"type": kind, "config": config})

    def run(self, id: str, *, stream: bool = False, **inputs: Any) -> Any:
        """Execute a resource and return its result."""
        return self.result("common:execute_resource", {"id": id, "inputs": inputs}, stream=stream)

    def fails(self, id: str, **inputs: Any) -> dict[str, Any]:
        """Return why an execution failed."""
        return self.error("common:execute_resource", {"id": id, "inputs": inputs})

    def begin(self, id: str, *, stream: bool = False, **inputs: Any) -> int:
        """Begin an execution and return its number."""
        return self.raw.send("common:execute_resource", {"id": id, "inputs": inputs}, stream=stream)

    def all(self, numbers: list[int]) -> list[dict[str, Any]]:
        """Return the replies to several requests, in the order of the numbers."""
        replies: dict[int, dict[str, Any]] = {}
        while len(replies) < len(numbers):
            message = self.raw.read(PATIENCE)
            if "event" in message:
                self.raw.events.append(message)
            else:
                replies[message["id"]] = message
        return [replies[number] for number in numbers]

    def chunks(self) -> list[dict[str, Any]]:
        """Return the chunks that came so far."""
        return [event["data"] for event in self.raw.events if event["event"] == "chunk"]

    def unshared(self) -> int:
        """Return the memory that the worker has for itself, in bytes, as the kernel counts it."""
        text = Path(f"/proc/{self.raw.pid}/smaps_rollup").read_text(encoding="ascii")
        return 1024 * sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Private_"))


class Zygote:
    """Owns a zygote of the bridge and the hub's cache that its workers see."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.settimeout(PATIENCE)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # closed by close()
        # The hub's library reads these once, when it is imported. Nobody answers at that address.
        self._environment = {
            "PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", "HF_HOME": str(home),
            "HF_ENDPOINT": "http://127.0.0.1:9", "MANYBRIDGE_TEST_SESSION": os.environ["MANYBRIDGE_TEST_SESSION"],
        }  # fmt: skip
        command = [str(framework_python("transformers")), "-I", str(BOOTSTRAP), "transformers", "--zygote"]
        with theirs:
            self.process = subprocess.Popen(
                command, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, stderr=self._log, env=self._environment
            )
        self.ready = self._read()

    def _read(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self._control.recv(1 << 18))
        return message

    @contextmanager
    def serving(self, **options: Any) -> Iterator[Serving]:
        """Fork a worker, wait until it is ready, end it with the block."""
        ours, theirs = socket.socketpair()
        wanted = {
            "worker_id": "w", "generation": 1, "argv": ["transformers", "--mode", "host", "--worker-id", "w", *PATIENT],
            "env": self._environment, "options": options,
        }  # fmt: skip
        with theirs:
            message = json.dumps({"fork": wanted}).encode()
            socket.send_fds(self._control, [message], [theirs.fileno(), self._log.fileno()])
        answer = self._read()
        while "forked" not in answer:  # reports of workers that ended come in between
            assert "exited" in answer, answer
            answer = self._read()
        wire = Wire(answer["forked"]["pid"], ours)
        try:
            worker = Serving(wire)
            worker.result("common:warm_up")
            yield worker
        finally:
            wire.close()

    def close(self) -> None:
        """End the zygote."""
        self._control.close()
        try:
            self.process.wait(DEFAULT_TIMEOUT)
        finally:
            self.process.kill()
            self.process.wait()
            self._log.close()
