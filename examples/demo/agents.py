"""LangChain: an agent that streams, whose tool is a function of this program, and whose thread outlives its worker."""

from __future__ import annotations

import os
import signal
from typing import Any

from facts import pid_of, wait_for_replacement
from stage import Stage

FIRST = "Which handwritten digit is in row 5 of the test data?"


def talk(stage: Stage, ml: Any) -> None:
    """Run an agent in LangChain's environment; its tool is a function here, which asks scikit-learn's worker."""
    asked: list[int] = []

    def look_at_digit(row: int) -> str:
        """Read the handwritten digit in a row of the test data."""
        asked.append(row)
        read = ml.call("sklearn", "sklearn:predict", {"rows": [row]})
        return f"It reads as {read['digits'][0]}, {read['sure'][0]:.0%} sure."

    stage.say("An agent of another framework, in an environment of its own, with the same kind of tool:")
    stage.note("LangChain worker  ->  look_at_digit(row) in this process  ->  scikit-learn worker")
    agent = ml.get_adapter("langchain").create_agent(tools=[look_at_digit])
    stage.gap()
    kinds: list[str] = []
    events = agent.stream(FIRST, thread_id="demo")
    for event in events:
        if event.event == "chunk":
            kinds.append(event.data["kind"])
            if event.data["kind"] in {"tool_start", "tool_end"}:
                stage.say(f"{event.data['kind']:<12} {_short(event.data)}")
    stage.gap()
    truth = ml.call("sklearn", "sklearn:predict", {"rows": [5]})["digits"][0]
    answer = events.result["output"]
    stage.holds(asked and set(asked) == {5}, "the agent called the tool with row 5")
    stage.holds(kinds.count("token") > 1, f"its answer came in {kinds.count('token')} tokens, while it ran")
    stage.holds(str(truth) in answer, f"its answer: {answer}")
    outlive(stage, ml, agent)


def outlive(stage: Stage, ml: Any, agent: Any) -> None:
    """Kill the worker that holds the agent's thread, and read the thread on its successor."""
    before = agent.history("demo")
    pid = pid_of(ml, "langchain")
    os.kill(pid, signal.SIGKILL)
    _, took = wait_for_replacement(ml, "langchain", pid)
    after = agent.history("demo")
    stage.holds(
        [each["content"] for each in after] == [each["content"] for each in before],
        f"worker {pid} killed, another one ready {took:.0f} ms later: the thread has all its {len(after)} messages",
    )


def _short(data: dict[str, Any]) -> str:
    if data["kind"] == "tool_start":
        return f"{data['name']}({', '.join(f'{name}={value!r}' for name, value in data['args'].items())})"
    return str(data.get("output", ""))
