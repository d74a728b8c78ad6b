"""One worker with the real LangChain and its local endpoint, shared by the tests of a module."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.bridges.dspy.endpoint import Endpoint
from tests.bridges.raw_worker import RawWorker
from tests.support import DEFAULT_TIMEOUT, MS, framework_python

KEY = "sk-very-secret-0123456789"
MODEL = "openai:local-rules"
WEATHER = {
    "name": "weather",
    "description": "Weather of a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
QUESTION = "What is the weather in Paris?"

START = 40_000 * MS
"""Seconds that a worker may take to import LangChain: two on an idle machine, and many times that on a busy one."""

Tool = Callable[[dict[str, Any]], dict[str, Any]]
"""From a `call` event's data to the fields of its answer."""


class Stage:
    """A worker and the endpoint that its models live at."""

    def __init__(self, llm: Endpoint, worker: RawWorker) -> None:
        self.llm = llm
        self.worker = worker

    def make(self, type: str, **config: Any) -> str:
        """Make a resource and return its id."""
        id: str = self.worker.result("common:create_resource", {"type": type, "config": config})["id"]
        return id

    def run(self, id: str, **inputs: Any) -> dict[str, Any]:
        """Execute a resource and return its result."""
        result: dict[str, Any] = self.worker.result("common:execute_resource", {"id": id, "inputs": inputs})
        return result

    def run_code(self, id: str, **inputs: Any) -> str:
        """Execute a resource that fails and return the error's code."""
        return self.worker.code("common:execute_resource", {"id": id, "inputs": inputs})

    def refused(self, type: str, **config: Any) -> dict[str, Any]:
        """Make a resource that can't be made and return the error."""
        reply = self.worker.ask("common:create_resource", {"type": type, "config": config})
        assert not reply["success"], reply
        info: dict[str, Any] = reply["error_info"]
        return info

    def play(self, command: str, args: dict[str, Any], answer: Tool, **fields: Any) -> dict[str, Any]:
        """Make a streamed call whose tools are answered here; return its reply. Events are in `worker.events`."""
        self.worker.events.clear()
        number = self.worker.send(command, args, stream=True, **fields)
        while True:
            message = self.worker.read()
            if message.get("event") == "call":
                told = answer(message["data"])
                self.worker.send("common:call_result", {"call_id": message["data"]["call_id"], **told})
            elif "event" in message:
                self.worker.events.append(message)
            elif message["id"] == number:
                return message

    def chunks(self, kind: str | None = None) -> list[dict[str, Any]]:
        """The chunks of the last streamed call, of one kind."""
        found = [event["data"] for event in self.worker.events if event["event"] == "chunk"]
        return [chunk for chunk in found if kind in (None, chunk["kind"])]

    def quiet(self) -> None:
        """Take back faults and events of an earlier test."""
        self.llm.control(delay_ms=0, chunk_delay_ms=0, hold_after=None)
        self.worker.events.clear()


@contextmanager
def stage(folder: Path, **options: Any) -> Iterator[Stage]:
    """Start endpoint and worker; end them with the block."""
    with Endpoint(KEY) as llm:
        given = {
            "model": MODEL,
            "embedding_model": MODEL,
            "base_url": llm.openai_base,
            "api_key_env": "LOCAL_LLM_KEY",
            "memory_folder": str(folder / "threads"),
            "allow_modules": ["crew"],
            "search_path": [str(Path(__file__).parent)],
            **options,
        }
        environment = {"LOCAL_LLM_KEY": KEY, "NO_PROXY": "127.0.0.1"}
        worker = RawWorker("langchain", given, python=framework_python("langchain"), environment=environment)
        try:
            worker.receive(worker.send("common:warm_up"), START)
            yield Stage(llm, worker)
        finally:
            worker.close()


def sunny(data: dict[str, Any]) -> dict[str, Any]:
    """Answer any tool."""
    return {"result": f"sunny in {data['args'].get('city')}"}


def failing(code: str, message: str = "it broke") -> Tool:
    """A client whose tools fail."""
    return lambda _data: {"error": {"code": code, "message": message, "type": "Broken"}}


__all__ = ["DEFAULT_TIMEOUT", "KEY", "MODEL", "QUESTION", "WEATHER", "Stage", "failing", "stage", "sunny"]
