"""Writes the reference of the wire from the code: `python -m manybridge.protocol.reference [--check] DIR`.

Two pages: `protocol.md` (frames, messages, commands, states) and `errors.md` (the taxonomy). Tables and diagrams are
made from the tables that the code itself obeys; the sentences are the docstrings beside the fields, read from the
source because Python does not keep them. A field without a docstring is an error here, not a gap there.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import sys
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from manybridge.protocol import codec, commands, connection, errors, frames, messages
from manybridge.protocol.connection import CALL_TRANSITIONS, CONNECTION_TRANSITIONS, CallState, ConnectionState, Step
from manybridge.protocol.messages import ErrorInfo, ErrorReply, Event, Reply, Request

NOTICE: Final = (
    "<!-- Made from src/manybridge/protocol by `make docs`. Do not edit: change the code and its docstrings. -->"
)

INTRODUCTION: Final = (
    "What goes over a connection between a client (a host, or a program that holds the port itself) and a worker. "
    "Error codes are on [their own page](errors.md); a golden vector for each message is in `tests/vectors/`."
)

HOST_INTRODUCTION: Final = (
    "A job is a call with a life of its own: it goes on when its client has gone, and outlives the worker that runs "
    "it. So it is the host's, and a worker that is asked answers `unknown_command`. A host says that it has jobs with "
    "`jobs` among the features of its `common:hello`. `common:explain` and `common:reload_bridge` are about the host "
    "itself."
)

CALLS_INTRODUCTION: Final = (
    "Each call, by its id. A cancel or a call_result for a call that is done is no breach, because the reply may have "
    "crossed it on the wire. After a call is done, its id may begin another."
)

_INFO = ErrorInfo(
    "timeout", "The deadline passed.", True, "dspy", "TimeoutError", {"stopped_by": "flag"}, "Traceback ..."
)

EXAMPLES: Final[tuple[Any, ...]] = (
    Request(
        7,
        "dspy:predict",
        {"question": "Why?"},
        "2024-02-29T01:02:03.000004Z",
        stream=True,
        session_id="s-1",
        deadline_ms=2500,
        traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        idempotency_key="order-7",
    ),
    Event(7, "progress", 0, {"current": 1, "total": 3, "message": "thinking"}),
    Reply(7, {"answer": "Because."}, 1709168523.25),
    ErrorReply(7, "The deadline passed.", _INFO, 1709168523.25),
    _INFO,
)
"""One of each message with every field set, from which the page learns what is on the wire."""

JSON_TYPES: Final = {
    "Any": "any value",
    "ErrorInfo": "object, see error_info",
    "JSONObject": "object",
    "MessageId": "number or string",
    "None": "null",
    "bool": "boolean",
    "float": "number",
    "int": "integer",
    "str": "string",
}


# ---------------------------------------------------------------- reading the source


def docstrings_of(body: Iterable[ast.stmt]) -> dict[str, str]:
    """Return the docstring that follows each assignment of a class or module body, on one line."""
    found: dict[str, str] = {}
    name = ""
    for statement in body:
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant) and name:
            found[name] = " ".join(str(statement.value.value).split())
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        name = targets[0].id if isinstance(targets[0], ast.Name) else ""
    return found


def class_in(module: ModuleType, name: str) -> ast.ClassDef:
    """Return the source of a class."""
    return next(
        node
        for node in ast.parse(inspect.getsource(module)).body
        if isinstance(node, ast.ClassDef) and node.name == name
    )


def field_types(definition: ast.ClassDef) -> dict[str, str]:
    """Return the JSON type of each field of a message."""
    return {
        statement.target.id: " or ".join(JSON_TYPES[part] for part in ast.unparse(statement.annotation).split(" | "))
        for statement in definition.body
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
    }


def documented(module: ModuleType, name: str) -> dict[str, str]:
    """Return the docstring of each constant of a module, or of each field or member of its class `name`."""
    body = class_in(module, name).body if name else ast.parse(inspect.getsource(module)).body
    return docstrings_of(body)


# ---------------------------------------------------------------- writing Markdown


def table(titles: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    lines = [list(titles)]
    lines += [["---"] * len(lines[0])]
    lines += [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def code(value: Any) -> str:
    """Return a JSON value as inline code."""
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def first_paragraph(text: str | None) -> str:
    """Return the first paragraph of a docstring on one line."""
    return " ".join((text or "").strip().partition("\n\n")[0].split())


def second_paragraph(text: str | None) -> str:
    """Return the second paragraph of a docstring on one line."""
    return first_paragraph((text or "").strip().partition("\n\n")[2])


def diagram(transitions: Mapping[Any, Mapping[Step, Any]]) -> str:
    """Return a state diagram, drawn from a table. Its first state is where everything begins."""
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {next(iter(transitions))}"]
    for state, steps in transitions.items():
        for target in dict.fromkeys(steps.values()):
            # A label of Mermaid ends at a colon.
            labels = [step.removeprefix("common:").replace(":", "") for step, to in steps.items() if to is target]
            lines.append(f"    {state} --> {target}: {', '.join(labels)}")
        if not steps:
            lines.append(f"    {state} --> [*]")
    return "\n".join([*lines, "```"])


def transition_table(transitions: Mapping[Any, Mapping[Step, Any]], states: type[StrEnum]) -> str:
    """Return what the diagram shows as a table, with what each state means."""
    meanings = documented(connection, states.__name__)
    rows = []
    for state, steps in transitions.items():
        legal = "; ".join(f"{step} → {target}" for step, target in steps.items()) or "nothing"
        rows.append([code(str(state)), meanings[state.name], legal])
    return table(["State", "Meaning", "Legal step → next state"], rows)


# ---------------------------------------------------------------- protocol.md


def protocol_page() -> str:
    """Return the text of protocol.md."""
    parts = [
        NOTICE,
        "# The wire",
        INTRODUCTION,
        "## Frames",
        first_paragraph(frames.__doc__) + " " + second_paragraph(frames.__doc__),
        "## Limits",
        limits_table(),
        "## Messages",
        "A field with a default may be absent. A receiver ignores fields that it does not know.",
        *(message_section(example) for example in EXAMPLES),
        "## Values that JSON can't carry",
        second_paragraph(codec.sanitize.__doc__) + f" A marker is `{json.dumps(codec.marker_for(object()))}`.",
        "## Commands that every bridge answers",
        first_paragraph(commands.__doc__) + " Commands answered at once do not wait for the code that runs.",
        commands_table(commands.COMMON_COMMANDS),
        "## Commands that only a host answers",
        HOST_INTRODUCTION,
        commands_table(commands.HOST_COMMANDS),
        *state_sections(),
    ]
    return "\n\n".join(parts) + "\n"


def limits_table() -> str:
    """Return the constants that bound what goes over the wire, with their reasons."""
    rows = []
    for module, name in (
        (frames, "DEFAULT_MAX_FRAME_BYTES"),
        (frames, "ABSOLUTE_MAX_FRAME_BYTES"),
        (messages, "MAX_DEADLINE_MS"),
        (codec, "MAX_DEPTH"),
        (codec, "MAX_INT_BITS"),
    ):
        rows.append([code(name), f"{getattr(module, name):,}", documented(module, "")[name]])
    return table(["Constant", "Value", "Why"], rows)


def message_section(example: Any) -> str:
    """Return the section of one message: its docstring, an example and its fields as they are on the wire."""
    kind = type(example)
    definition = class_in(messages, kind.__name__)
    title = "error_info" if kind is ErrorInfo else kind.__name__
    types, meanings = field_types(definition), docstrings_of(definition.body)
    shown = wire_object(example)
    rows = []
    for name, value in shown.items():
        field = {"error_info": "info"}.get(name, name) if kind is ErrorReply else name
        if field in kind._fields:
            default = default_of(kind, field)
            rows.append([code(name), types[field], default, str(since(kind, field)), meanings[field]])
        else:
            rows.append([code(name), "boolean", "required", "1", f"Always {code(value)}."])
    return "\n\n".join(
        [
            f"### {title}",
            first_paragraph(kind.__doc__),
            f"```json\n{json.dumps(shown, indent=2)}\n```",
            table(["Field", "Type", "Default", "Version", "Meaning"], rows),
        ]
    )


def wire_object(example: Any) -> dict[str, Any]:
    """Return the JSON object of a message of any kind."""
    if isinstance(example, Request):
        return messages.request_to_object(example)
    return example.to_object() if isinstance(example, ErrorInfo) else messages.worker_message_to_object(example)


def default_of(kind: Any, field: str) -> str:
    """Return what an absent field means."""
    if field not in kind._field_defaults:
        return "required"
    default = kind._field_defaults[field]
    return "absent" if default is None else code(default)


def since(kind: type, field: str) -> int:
    """Return the protocol version that brought a field."""
    return 2 if kind in {Event, ErrorInfo} or field in {"info", *messages.EXTENSION_FIELDS} else 1


def commands_table(listed: Mapping[str, commands.CommonCommand]) -> str:
    """Return commands of the namespace `common`."""
    rows = (
        [
            code(f"{commands.COMMON}:{name}"),
            command.description,
            "; ".join(
                argument_text(argument, schema, required=argument in command.required)
                for argument, schema in command.args.items()
            ),
            result_text(command.result),
            "yes" if command.at_once else "",
        ]
        for name, command in listed.items()
    )
    return table(["Command", "What it does", "Arguments (`?`: optional)", "Result", "At once"], rows)


def argument_text(name: str, schema: Mapping[str, Any], *, required: bool) -> str:
    """Return a short form of an argument's schema."""
    kind = schema.get("type", "any value")
    about = f" ({schema['description'].rstrip('.')})" if "description" in schema else ""
    return f"{code(name)}{'' if required else '?'}: {kind}{about}"


def result_text(result: str) -> str:
    """Return the shape of a result as code, and what follows the shape as text."""
    shape, brace, rest = result.rpartition("}")
    return f"`{shape}{brace}`{rest}" if shape else result


def state_sections() -> list[str]:
    """Return the sections on what is legal when."""
    steps = documented(connection, "Step")
    return [
        "## States of a connection",
        diagram(CONNECTION_TRANSITIONS),
        transition_table(CONNECTION_TRANSITIONS, ConnectionState),
        "## States of a call",
        CALLS_INTRODUCTION,
        diagram(CALL_TRANSITIONS),
        transition_table(CALL_TRANSITIONS, CallState),
        "### Steps",
        table(["Step", "What happens"], ([code(str(step)), steps[step.name]] for step in Step)),
    ]


# ---------------------------------------------------------------- errors.md


def errors_page() -> str:
    """Return the text of errors.md."""
    parts = [NOTICE, "# Error codes", first_paragraph(errors.__doc__), second_paragraph(errors.__doc__)]
    for title, codes in groups_of_codes():
        rows = (
            [code(str(found)), "yes" if errors.ERROR_CODES[found].retryable else "", errors.ERROR_CODES[found].meaning]
            for found in codes
        )
        parts += [f"## {title}", table(["Code", "Retry may help", "Meaning"], rows)]
    return "\n\n".join(parts) + "\n"


def groups_of_codes() -> list[tuple[str, list[errors.ErrorCode]]]:
    """Return the codes under the comments that head their groups in the source."""
    groups: list[tuple[str, list[errors.ErrorCode]]] = []
    for line in inspect.getsource(errors.ErrorCode).splitlines():
        text = line.strip()
        if text.startswith("# "):
            groups.append((text[2:], []))
        elif " = " in text:
            groups[-1][1].append(errors.ErrorCode[text.partition(" = ")[0]])
    return groups


# ---------------------------------------------------------------- the program


def pages() -> dict[str, str]:
    """Return every page by its file name."""
    return {"protocol.md": protocol_page(), "errors.md": errors_page()}


def main(arguments: list[str] | None = None) -> int:
    """Write the pages, or check them. Returns 1 where `--check` found one that is stale."""
    parser = argparse.ArgumentParser(description="Write the reference of the wire from the code.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a page is stale")
    parser.add_argument("directory", metavar="DIR", type=Path, help="where the pages are")
    given = parser.parse_args(arguments)
    stale = 0
    for name, text in pages().items():
        path = given.directory / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        if given.check:
            sys.stderr.write(f"stale: {path}; run: make docs\n")
            stale = 1
        else:
            path.write_text(text, encoding="utf-8")
    return stale


if __name__ == "__main__":
    sys.exit(main())
