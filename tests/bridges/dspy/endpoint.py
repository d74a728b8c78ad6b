"""The local endpoint as a process of its own, so that its threads and connections are not the tests'."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from typing import Any, Self

from tests.support import DEFAULT_TIMEOUT, REPOSITORY


class Endpoint:
    """Owner of one endpoint process; a context manager."""

    def __init__(self, api_key: str) -> None:
        command = [sys.executable, str(REPOSITORY / "examples" / "local_llm"), "--until-eof", "--api-key", api_key]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        address = json.loads(self._process.stdout.readline())
        self.openai_base: str = address["openai_base"]
        self._root = f"http://127.0.0.1:{address['port']}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.communicate(timeout=DEFAULT_TIMEOUT)

    def control(self, **faults: Any) -> None:
        """Change the faults; see `examples/local_llm/server.py`."""
        request = urllib.request.Request(f"{self._root}/control", json.dumps(faults).encode())
        with urllib.request.urlopen(request, timeout=DEFAULT_TIMEOUT) as answer:
            assert json.load(answer) == {"ok": True}

    def asked(self) -> int:
        """How many requests for an answer came so far."""
        return len(self._seen()["requests"])

    def streamed(self) -> int:
        """How many answers were streamed to their end so far."""
        return int(self._seen()["streamed"])

    def _seen(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self._root}/requests", timeout=DEFAULT_TIMEOUT) as answer:
            seen: dict[str, Any] = json.load(answer)
            return seen
