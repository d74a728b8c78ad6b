"""DSPy: a typed classification, a chain of thought that streams, an agent whose tool reaches the other framework."""

from __future__ import annotations

import errno
import os
from typing import Any

from provider import Provider
from stage import Stage

KINDS = ["network", "disk", "memory", "permission"]

SIGNATURE = {
    "name": "Triage",
    "instructions": "Say what an error message of the operating system is about.",
    "inputs": [{"name": "message", "type": "str"}],
    "outputs": [{"name": "kind", "enum": KINDS}],
}

EXAMPLES = [
    {"message": "Connection reset by peer", "kind": "network"},
    {"message": "No such file or directory", "kind": "disk"},
    {"message": "Memory page has hardware error", "kind": "memory"},
    {"message": "Operation not permitted", "kind": "permission"},
]

CASES = {
    errno.ECONNREFUSED: "network",
    errno.ENETUNREACH: "network",
    errno.EISDIR: "disk",
    errno.ENAMETOOLONG: "disk",
    errno.ENOMEM: "memory",
    errno.EACCES: "permission",
}
"""Error number to what it is about. The texts come from the C library of this machine."""


def classify(stage: Stage, dspy: Any, provider: Provider) -> Any:
    """Classify real error messages with a typed signature; returns the program."""
    stage.say("A program from a typed signature: message: str -> kind: " + " | ".join(KINDS))
    stage.note("The texts are the ones that this machine's C library has for error numbers.")
    program = dspy.create_program(SIGNATURE, demos=EXAMPLES)
    answers = {number: program.predict(message=os.strerror(number)).kind for number in CASES}
    stage.gap()
    stage.table(("message", "kind"), ((os.strerror(number), f"[cyan]{kind}[/]") for number, kind in answers.items()))
    stage.gap()
    right = sum(answers[number] == kind for number, kind in CASES.items())
    stage.holds(all(kind in KINDS for kind in answers.values()), "every answer is one of the four allowed values")
    if provider.is_local:
        stage.holds(right == len(CASES), f"{right} of {len(CASES)} right, from four examples in the prompt")
    else:
        stage.note(f"{right} of {len(CASES)} as we would have said it")
    return program


def think(stage: Stage, dspy: Any) -> None:
    """Stream a chain of thought, token by token."""
    question = "450 digits were shown and 438 of them were read right. How many is 450 - 438?"
    stage.say("A chain of thought, streamed as it comes:")
    stage.note(f"question: {question}")
    program = dspy.create_program("question -> answer: int", module="chain_of_thought")
    events = program.stream(question=question)
    stage.gap()
    chunks = 0
    with stage.growing() as add:
        for event in events:
            if event.event == "chunk" and event.data["field"] == "reasoning":
                chunks += 1
                add(event.data["chunk"])
    answer = events.result["outputs"]["answer"]
    stage.gap()
    stage.holds(chunks > 1, f"it came in {chunks} pieces, while the program ran")
    stage.holds(answer == 12, f"answer: {answer!r}, {type(answer).__name__} as the signature says")


def act(stage: Stage, ml: Any, dspy: Any) -> None:
    """Run an agent in DSPy's environment; its tool is a function here, which asks scikit-learn's."""
    asked: list[int] = []

    def read_digit(row: int) -> str:
        """Read the handwritten digit in a row of the test data."""
        asked.append(row)
        read = ml.call("sklearn", "sklearn:predict", {"rows": [row]})
        return f"It is a {read['digits'][0]}, {read['sure'][0]:.0%} sure."

    ml.register_tool("read_digit", read_digit)
    stage.say("An agent. Its tool is a Python function of this demo, which asks the other framework:")
    stage.note("DSPy worker  ->  read_digit(row) in this process  ->  scikit-learn worker")
    agent = dspy.create_program("question -> answer", module="react", tools=ml.tools(), max_iters=4)
    found = agent.predict(question="Which handwritten digit is in row 7 of the test data?")
    stage.gap()
    for step in found.trace:
        called = f"{step.get('tool_name')}({', '.join(f'{k}={v!r}' for k, v in (step.get('tool_args') or {}).items())})"
        stage.say(f"{called:<24} {step.get('observation')}")
    stage.gap()
    stage.holds(asked and set(asked) == {7}, "the agent called the tool with row 7")
    truth = ml.call("sklearn", "sklearn:predict", {"rows": [7]})["digits"][0]
    stage.holds(str(truth) in found.answer, f"its answer: {found.answer}")
