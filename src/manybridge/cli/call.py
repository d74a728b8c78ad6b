"""`manybridge call`: one call to one bridge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from manybridge.cli.arguments import parse_arguments
from manybridge.cli.context import ConfigOption, JsonOption, reported, run_async
from manybridge.cli.output import print_json_line, print_value
from manybridge.cli.progress import CallView
from manybridge.cli.selecting import Selected, select_bridge

BridgeArgument = Annotated[
    str,
    typer.Argument(
        metavar="BRIDGE", help="A configured or bundled bridge, the path of a Python file, or package.module:Class."
    ),
]


NO_STORE = (
    "--idempotency-key: there is no store, so the next command would not know the key: write a configuration "
    "(manybridge init), or say where with [store] url"
)


@dataclass(frozen=True, slots=True)
class CallOptions:
    """How one call is made and shown."""

    timeout: float | None
    session: str | None
    stream: bool
    as_json: bool
    key: str | None = None


def call(
    bridge: BridgeArgument,
    command: Annotated[str, typer.Argument(metavar="COMMAND", help="The command, for example mock:echo.")],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ARGUMENT]...",
            help="name=text, name:=json, name=@file (its text), name:=@file (its JSON), or - for a JSON object "
            "from standard input.",
        ),
    ] = None,
    args: Annotated[
        str | None, typer.Option("--args", metavar="JSON|@FILE", help="All arguments as one JSON object.")
    ] = None,
    stream: Annotated[bool, typer.Option("--stream", help="Print chunks as they come.")] = False,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout", metavar="SECONDS", min=0, help="The call's deadline; the bridge's default if left out."
        ),
    ] = None,
    session: Annotated[
        str | None, typer.Option("--session", metavar="ID", help="Make the call in this session.")
    ] = None,
    idempotency_key: Annotated[
        str | None,
        typer.Option(
            "--idempotency-key",
            metavar="KEY",
            help="The same call with the same key is made once: a repetition prints the first one's result.",
        ),
    ] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Make one call and print its result.

    Progress goes to standard error: a bar on a terminal, plain lines elsewhere. Ctrl-C cancels the call.

    For example:

        manybridge call mock mock:echo text=hi

        manybridge call ./word_bridge.py words:count text="one two two"

        manybridge call dspy common:capabilities --json
    """
    typed = arguments or []
    with reported(as_json=as_json, typed=typed):
        parsed = parse_arguments(typed, args)
        selected = select_bridge(bridge, config)
        if idempotency_key is not None:
            from manybridge.cli.job_store import durable  # brings the store along, which few calls need

            durable(config, NO_STORE)
        options = CallOptions(timeout, session, stream, as_json, idempotency_key)
        result = run_async(call_once(selected, command, parsed, options))
        if stream and as_json:
            print_json_line({"result": result})
        else:
            print_value(result, as_json=as_json)


async def call_once(selected: Selected, command: str, arguments: dict[str, Any], options: CallOptions) -> Any:
    """Start a host with one bridge, make one call, show its events, and close the host.

    Returns:
        The result.

    Raises:
        ManybridgeError: whatever the call ended with.
    """
    from manybridge.host.bridge import AsyncMLBridge

    # A session may be in the store, with settings and resources of its own; a key is remembered nowhere else.
    keep = options.session is not None or options.key is not None
    config = selected.host_config(show_output=not options.as_json, keep=keep)
    async with AsyncMLBridge.from_config(config, take_over_jobs=False) as ml:
        events = ml.stream(
            selected.name,
            command,
            arguments,
            timeout=options.timeout,
            session=options.session,
            idempotency_key=options.key,
        )
        with CallView(stream=options.stream, as_json=options.as_json) as view:
            async for event in events:
                view.show(event)
        return events.result
