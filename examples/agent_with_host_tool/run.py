"""An agent in a LangChain worker calls functions of this program.

The orders live here, in a dictionary; the agent lives in another process, in an environment that has LangChain and that
this program's environment has not. It sees two functions of this program as tools, calls both of them at the same time,
and is told "no" by one of them.

No key, no GPU and no network: a local endpoint that answers by written rules stands in for a language model, and is
labelled as what it is.

    python examples/agent_with_host_tool/run.py
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from manybridge import MLBridge

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from local_llm import LocalLLM  # found through the line above

ROOT = Path(__file__).resolve().parents[2]

ORDERS = {7: "left Berlin yesterday", 8: "waits for a part", 9: "belongs to somebody else"}
CALLER = "Ana"
MINE = {7, 8}
both_are_here = threading.Barrier(2, timeout=10)


def order_status(order: int) -> str:
    """Where an order is."""
    if order not in MINE:
        raise PermissionError(f"order {order} is not {CALLER}'s")
    both_are_here.wait()  # passes only if the two calls of one turn really run at the same time
    sys.stdout.write(f"     this program: order_status({order})\n")  # one write, because two threads write at once
    return f"order {order} {ORDERS[order]}"


@contextmanager
def host(address: str) -> Iterator[MLBridge]:
    """A host with one LangChain worker."""
    langchain = {
        "python": str(ROOT / ".envs" / "langchain" / "bin" / "python"),
        "environment": {"NO_PROXY": "127.0.0.1"},
        "options": {"model": "openai:local-rules", "base_url": address, "api_key": "not-needed"},
    }
    with MLBridge.from_config({"bridges": {"langchain": langchain}}) as ml:
        yield ml


def watch(events: Any) -> Any:
    """Show what an agent does while it does it, and return its answer."""
    for event in events:
        if event.event != "chunk":
            continue
        chunk = event.data
        if chunk["kind"] == "tool_start":
            print(f"     the agent calls {chunk['name']}({chunk['args']})")
        elif chunk["kind"] == "tool_end":
            print(f"     the agent is told [{chunk['status']}]: {chunk['output']}")
    return events.result


def main() -> None:
    """Ask the agent twice, in one thread."""
    with LocalLLM() as llm, host(llm.openai_base) as ml:
        print("Language model: local, rule based: not a model")
        worker = ml.call("langchain", "common:ping", timeout=60)
        print(f"The agent lives in process {worker['pid']}, which has LangChain; this program has not.\n")
        agent = ml.get_adapter("langchain").create_agent(tools=[order_status], system_prompt="You help customers.")

        question = "status of order 7; status of order 8"
        print(f"1. {CALLER} asks: {question}")
        answer = watch(agent.stream(question, thread_id=CALLER))
        print(f"   Answer: {answer['output']}\n")

        question = "status of order 9"
        print(f"2. {CALLER} asks: {question}")
        answer = watch(agent.stream(question, thread_id=CALLER))
        print(f"   Answer: {answer['output']}\n")

        history = agent.history(CALLER)
        print(f"The agent remembers {len(history)} messages of {CALLER}: {', '.join(m['role'] for m in history)}.")


if __name__ == "__main__":
    main()
