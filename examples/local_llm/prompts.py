"""Read a DSPy prompt back into fields: the inverse of what DSPy's ChatAdapter and JSONAdapter write.

A prompt that DSPy did not write becomes a task with one output, the reply itself.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_FIELD_LINE = re.compile(r"^\d+\. `(\w+)` \((.*)\):", re.MULTILINE)
_NOTE = "# note: the value you produce "
_ONE_OF = "must exactly match (no extra characters) one of: "
_SCHEMA = "must adhere to the JSON schema: "
_REQUEST_STARTS = ("Respond with the corresponding output fields", "Respond with a JSON object")


@dataclass(frozen=True, slots=True)
class Output:
    """One field that the reply must fill.

    Attributes:
        annotation: the Python annotation as DSPy wrote it, for example ``list[str]``.
        choices: what a Literal or Enum allows; empty for every other type.
        schema: the JSON schema of a structured type, or None.
    """

    name: str
    annotation: str = "str"
    choices: tuple[str, ...] = ()
    schema: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """What a prompt asks for.

    Attributes:
        style: ``chat`` and ``json`` are DSPy's two adapters; ``plain`` is any other prompt.
        examples: earlier (inputs, outputs) pairs in the same prompt, as text.
    """

    style: str
    instructions: str
    inputs: Mapping[str, str]
    outputs: tuple[Output, ...]
    examples: tuple[tuple[Mapping[str, str], Mapping[str, str]], ...] = field(default=())

    @property
    def text(self) -> str:
        """All inputs but an agent's own notes, as one text."""
        return "\n".join(value for name, value in self.inputs.items() if name != "trajectory")


def read_task(messages: Sequence[Mapping[str, str]]) -> Task:
    """Read the messages of one chat request (``role`` and ``content`` strings)."""
    system = "\n".join(m["content"] for m in messages if m["role"] == "system")
    turns = [m for m in messages if m["role"] != "system"]
    last_user = next((m["content"] for m in reversed(turns) if m["role"] == "user"), "")
    if "Your output fields are:" not in system:
        return Task("plain", system, {"prompt": last_user}, (Output("reply"),))
    before, after = system.split("Your output fields are:", 1)
    input_names = [name for name, _ in _FIELD_LINE.findall(before)]
    style = "json" if "Outputs will be a JSON object" in system else "chat"
    outputs = tuple(_read_output(name, annotation, after) for name, annotation in _FIELD_LINE.findall(after))
    instructions = system.split("your objective is:", 1)[-1].strip()
    examples = tuple(_read_examples(turns, input_names, [o.name for o in outputs], style))
    return Task(style, instructions, _read_sections(_without_request(last_user), input_names), outputs, examples)


def _read_output(name: str, annotation: str, text: str) -> Output:
    note = _read_note(name, text)
    if note.startswith(_ONE_OF):
        return Output(name, annotation, choices=tuple(note.removeprefix(_ONE_OF).split("; ")))
    if note.startswith(_SCHEMA):
        try:
            return Output(name, annotation, schema=json.loads(note.removeprefix(_SCHEMA)))
        except ValueError:
            return Output(name, annotation)
    return Output(name, annotation)


def _read_note(name: str, text: str) -> str:
    """The remark that DSPy puts behind ``{name}``; JSONAdapter writes it inside a JSON string."""
    marker = "{" + name + "}"
    for line in text.splitlines():
        if marker not in line or _NOTE not in line:
            continue
        in_json = line.lstrip().startswith('"')
        note = json.loads("{" + line.strip().rstrip(",") + "}")[name] if in_json else line
        return str(note).split(_NOTE, 1)[1].strip()
    return ""


def _read_sections(text: str, names: Iterable[str]) -> dict[str, str]:
    """Split at ``[[ ## name ## ]]`` of the given names only: a trajectory holds headers of its own."""
    wanted = "|".join(re.escape(name) for name in names)
    parts = re.split(rf"^\[\[ ## ({wanted}) ## \]\]\s*$", text, flags=re.MULTILINE) if wanted else [text]
    found: dict[str, str] = {}
    for name, value in zip(parts[1::2], parts[2::2], strict=True):
        found.setdefault(name, value.strip())
    return found


def _without_request(text: str) -> str:
    for start in _REQUEST_STARTS:
        text = text.split("\n\n" + start, 1)[0]
    return text


def _read_examples(
    turns: Sequence[Mapping[str, str]], inputs: list[str], outputs: list[str], style: str
) -> Iterable[tuple[dict[str, str], dict[str, str]]]:
    for question, reply in itertools.pairwise(turns):
        if question["role"] != "user" or reply["role"] != "assistant":
            continue
        given = _read_sections(question["content"], inputs)
        answered = (
            _read_json(reply["content"])
            if style == "json"
            else _read_sections(reply["content"].split("[[ ## completed ## ]]")[0], outputs)
        )
        yield given, answered


def _read_json(text: str) -> dict[str, str]:
    try:
        loaded = json.loads(text)
    except ValueError:
        return {}
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in loaded.items()}
