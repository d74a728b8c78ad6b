"""The rules: from a task to the text of a reply. Deterministic, and deliberately small.

In order: an agent's next step, an example in the prompt with the same inputs, arithmetic, a table of facts,
keywords and the nearest example for a choice, and otherwise a plain statement that no rule matched.
"""

from __future__ import annotations

import ast
import json
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

from .agent import is_agent_step, next_step
from .prompts import Output, Task

FACTS = {
    "capital of france": "Paris",
    "capital of germany": "Berlin",
    "capital of japan": "Tokyo",
    "capital of italy": "Rome",
    "capital of spain": "Madrid",
    "capital of poland": "Warsaw",
    "capital of portugal": "Lisbon",
    "largest planet": "Jupiter",
    "wrote hamlet": "William Shakespeare",
    "color of the sky": "blue",
    "colour of the sky": "blue",
}
POSITIVE = frozenset({"good", "great", "love", "loved", "excellent", "wonderful", "happy", "best", "fast", "superb"})
NEGATIVE = frozenset({"bad", "awful", "hate", "hated", "terrible", "horrible", "poor", "worst", "slow", "broken"})
_WORDS_TO_SIGNS = {"plus": "+", "minus": "-", "times": "*", "multiplied by": "*", "divided by": "/"}
_OPERATORS: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_LESS = re.compile(r"\b(gives?|gave|loses?|lost|eats?|ate|spends?|spent|sells?|sold)\b", re.IGNORECASE)


def reply_text(task: Task) -> str:
    """The whole reply, in the format that the prompt asks for."""
    values = next_step(task) if is_agent_step(task) else {o.name: fill(o, task) for o in task.outputs}
    if task.style == "plain":
        return str(values["reply"])
    if task.style == "json":
        return json.dumps(values, ensure_ascii=False)
    sections = [f"[[ ## {name} ## ]]\n{_as_text(value)}" for name, value in values.items()]
    return "\n\n".join([*sections, "[[ ## completed ## ]]"])


def fill(output: Output, task: Task) -> Any:
    """The value of one output field, of the type that its annotation asks for."""
    if (known := _from_same_example(output, task)) is not None:
        return known
    if output.choices:
        return _choose(output, task)
    if output.name == "reasoning":
        return f"A written rule answered this, no model was asked. Input: {task.text[:200]}"
    solved = _solve(task)
    if solved is None and output.annotation != "str":
        return _typed(output, task.text)
    return _typed(output, solved or f"No rule of this local endpoint matches: {task.text[:200]}")


def _from_same_example(output: Output, task: Task) -> Any:
    for given, answered in task.examples:
        if given == dict(task.inputs) and output.name in answered:
            return _typed(output, answered[output.name])
    return None


def _solve(task: Task) -> str | None:
    """Free text: what an agent observed, then a calculation, a fact, a counting story; None where no rule matches."""
    observations: list[str] = re.findall(r"\[\[ ## observation_\d+ ## \]\]\n(.*)", task.inputs.get("trajectory", ""))
    if observations:
        useful = [o for o in observations if o != "Completed."]
        return useful[-1] if useful else observations[-1]
    question = task.text
    for rule in (_calculate, _look_up, _count_story):
        if (found := rule(question)) is not None:
            return found
    return None


def _look_up(question: str) -> str | None:
    plain = question.lower()
    return next((answer for key, answer in FACTS.items() if key in plain), None)


def _calculate(question: str) -> str | None:
    text = question.lower().replace("\u00d7", "*").replace("\u00f7", "/")
    for word, sign in _WORDS_TO_SIGNS.items():
        text = text.replace(word, sign)
    text = re.sub(r"(?<=\d)\s*x\s*(?=\d)", "*", text)
    for found in re.findall(r"[-(\d][-+*/().\d\s]*[\d)]", text):
        if not re.search(r"[\d)]\s*[-+*/]", found):
            continue
        try:
            return _number(_evaluate(ast.parse(found, mode="eval").body))
        except ZeroDivisionError:
            return "undefined"
        except (SyntaxError, ValueError):
            continue
    return None


def _evaluate(node: ast.expr) -> float:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return float(node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_evaluate(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return float(_OPERATORS[type(node.op)](_evaluate(node.left), _evaluate(node.right)))
    raise ValueError("not plain arithmetic")


def _count_story(question: str) -> str | None:
    """Solve "Ana has 3 apples and buys 4 more": add the numbers, or subtract where something is given away."""
    numbers = [float(n) for n in re.findall(r"\d+(?:\.\d+)?", question)]
    if len(numbers) < 2:
        return None
    total = numbers[0] - sum(numbers[1:]) if _LESS.search(question) else sum(numbers)
    return _number(total)


def _choose(output: Output, task: Task) -> str:
    lowered = {choice.lower(): choice for choice in output.choices}
    words = set(re.findall(r"\w+", task.text.lower()))
    if "positive" in lowered and "negative" in lowered:
        balance = len(words & POSITIVE) - len(words & NEGATIVE)
        neutral = lowered.get("neutral", lowered["positive"])
        return neutral if balance == 0 else lowered["positive" if balance > 0 else "negative"]
    if (near := _nearest(output, task, words)) is not None:
        return near
    overlap = {choice: len(words & set(re.findall(r"\w+", choice.lower()))) for choice in output.choices}
    return max(output.choices, key=overlap.__getitem__)


def _nearest(output: Output, task: Task, words: set[str]) -> str | None:
    """The label of the example that shares most words: few-shot examples really help this endpoint."""
    best, label = 0, None
    for given, answered in task.examples:
        shared = len(words & set(re.findall(r"\w+", "\n".join(given.values()).lower())))
        if shared > best and answered.get(output.name) in output.choices:
            best, label = shared, answered[output.name]
    return label


def _typed(output: Output, text: str) -> Any:
    kind = output.annotation
    if kind in {"int", "float"}:
        found = re.search(r"-?\d+(?:\.\d+)?", text)
        number = float(found.group()) if found else 0.0
        return int(number) if kind == "int" else number
    if kind == "bool":
        return not re.match(r"(false|no\b|0)", text.strip().lower())
    if output.schema is not None:
        return _structured(output.schema, text)
    return text


def _structured(schema: Mapping[str, Any], text: str) -> Any:
    """A value that fits a JSON schema; example text that already is JSON is taken as it is."""
    try:
        loaded = json.loads(text)
    except ValueError:
        loaded = None
    if isinstance(loaded, list if schema.get("type") == "array" else dict):
        return loaded
    if schema.get("type") == "array":
        return [_structured(schema.get("items", {}), word) for word in text.split()[:5]]
    if schema.get("type") == "object":
        return {name: _structured(part, text) for name, part in schema.get("properties", {}).items()}
    kind = {"integer": "int", "number": "float", "boolean": "bool"}.get(schema.get("type", ""), "str")
    return _typed(Output("item", kind), text)


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else f"{value:.6g}"


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
