"""`manybridge resources`: make, use and look at what a bridge holds.

One command is one host. With a configuration file, resources are kept in its store, and the next command finds them
there: one with state goes on from its last snapshot, one that can't be made again is `resource_lost`. Without a file,
a resource lives as long as the command that made it, and `create --execute` makes and uses one in a single command.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import msgspec
import typer

from manybridge.cli.arguments import parse_arguments, parse_object
from manybridge.cli.call import BridgeArgument
from manybridge.cli.context import ConfigOption, JsonOption, reported, run_async
from manybridge.cli.job_store import durable, opened
from manybridge.cli.output import print_json_line, print_value
from manybridge.cli.progress import CallView
from manybridge.cli.retention import DryRunOption, OlderThanOption, OnlyBridgeArgument, parse_age, print_removed
from manybridge.cli.selecting import Selected, select_bridge

if TYPE_CHECKING:
    from manybridge.host.bridge import AsyncMLBridge

Work = Callable[["AsyncMLBridge", str], Awaitable[Any]]

_HELP = """Make, use and look at what a bridge holds.

With a configuration file, resources are kept in its store and the next command finds them. Without one, a resource
lives as long as the command that made it: "create --execute" makes and uses one in a single command.
"""

_NO_STORE: Final = (
    "there is no store, so a resource ends with the command that made it: write a configuration (manybridge init), "
    "or say where with [store] url"
)

resources_app = typer.Typer(no_args_is_help=True, help=_HELP, rich_markup_mode=None)

TypeArgument = Annotated[str, typer.Argument(metavar="TYPE", help="The resource type, for example program.")]
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The resource's id.")]
PairsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[ARGUMENT]...", help="name=text, name:=json, name=@file, or - for JSON from standard input."
    ),
]
StreamOption = Annotated[bool, typer.Option("--stream", help="Print chunks as they come.")]
TimeoutOption = Annotated[float | None, typer.Option("--timeout", metavar="SECONDS", min=0, help="For each call.")]


@resources_app.command("types")
def types_(bridge: BridgeArgument, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """List the resource types of a bridge, with the schemas of their config and inputs."""

    async def work(ml: AsyncMLBridge, name: str) -> Any:
        return (await ml.capabilities(name)).get("resources", {})

    _run(bridge, config, work, as_json=as_json)


@resources_app.command("create")
def create(
    bridge: BridgeArgument,
    type_name: TypeArgument,
    pairs: PairsArgument = None,
    config_json: Annotated[
        str | None, typer.Option("--args", metavar="JSON|@FILE", help="The resource's config as one JSON object.")
    ] = None,
    execute: Annotated[
        list[str] | None,
        typer.Option("--execute", metavar="JSON|@FILE|-", help="Execute it with these inputs. May be repeated."),
    ] = None,
    stream: StreamOption = False,
    timeout: TimeoutOption = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Make a resource, execute it with each of the given inputs, and print what came back.

    For example:

        manybridge resources create dspy program signature="question -> answer" --execute '{"question": "Why?"}'
    """
    typed = pairs or []
    with reported(as_json=as_json, typed=typed):
        settings = parse_arguments(typed, config_json)
        inputs = [parse_object(text, "--execute") for text in execute or ()]
    show = _Show(stream=stream, as_json=as_json)

    async def work(ml: AsyncMLBridge, name: str) -> Any:
        resource = await ml.create_resource(name, type_name, settings, timeout=timeout)
        results = [await _execute(ml, name, resource.id, each, timeout, show) for each in inputs]
        return {"resource": _plain(resource), "results": results} if inputs else _plain(resource)

    _run(bridge, config, work, as_json=as_json, typed=typed, stream=stream)


@resources_app.command("list")
def list_(
    bridge: BridgeArgument,
    type_name: Annotated[str | None, typer.Argument(metavar="[TYPE]", help="Only this type.")] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """List the resources of a bridge."""

    async def work(ml: AsyncMLBridge, name: str) -> Any:
        return [_plain(each) for each in await ml.list_resources(name, type_name)]

    _run(bridge, config, work, as_json=as_json)


@resources_app.command("get")
def get(
    bridge: BridgeArgument, resource_id: IdArgument, as_json: JsonOption = False, config: ConfigOption = None
) -> None:
    """Print one resource."""

    async def work(ml: AsyncMLBridge, name: str) -> Any:
        return _plain(await ml.get_resource(name, resource_id))

    _run(bridge, config, work, as_json=as_json)


@resources_app.command("execute")
def execute(
    bridge: BridgeArgument,
    resource_id: IdArgument,
    pairs: PairsArgument = None,
    inputs_json: Annotated[
        str | None, typer.Option("--args", metavar="JSON|@FILE", help="The inputs as one JSON object.")
    ] = None,
    stream: StreamOption = False,
    timeout: TimeoutOption = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Execute a resource and print its result. Progress goes to standard error."""
    typed = pairs or []
    with reported(as_json=as_json, typed=typed):
        inputs = parse_arguments(typed, inputs_json)
    show = _Show(stream=stream, as_json=as_json)

    async def work(ml: AsyncMLBridge, name: str) -> Any:
        return await _execute(ml, name, resource_id, inputs, timeout, show)

    _run(bridge, config, work, as_json=as_json, typed=typed, stream=stream)


@resources_app.command("delete")
def delete(
    bridge: BridgeArgument, resource_id: IdArgument, as_json: JsonOption = False, config: ConfigOption = None
) -> None:
    """Delete a resource."""

    async def work(ml: AsyncMLBridge, name: str) -> Any:
        await ml.delete_resource(name, resource_id)
        return {"id": resource_id, "deleted": True}

    _run(bridge, config, work, as_json=as_json)


@resources_app.command("cleanup")
def cleanup(
    older_than: OlderThanOption,
    bridge: OnlyBridgeArgument = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Delete the resources that were neither made nor executed for so long. Prints BRIDGE/ID of each.

    Those of sessions too; not those that a running host executes, or has pinned to a worker.
    """

    async def work() -> list[str]:
        age = parse_age(older_than, "--older-than")
        async with opened(durable(config, _NO_STORE)) as store:
            return ["/".join(each) for each in await store.prune_resources(age, bridge=bridge, dry_run=dry_run)]

    with reported(as_json=as_json):
        print_removed("resource", run_async(work()), dry_run=dry_run, as_json=as_json)


class _Show(NamedTuple):
    """How the events of an execution are shown."""

    stream: bool
    as_json: bool


async def _execute(
    ml: AsyncMLBridge, bridge: str, id: str, inputs: dict[str, Any], timeout: float | None, show: _Show
) -> Any:
    """Execute a resource, show its events, and return its result."""
    events = ml.stream(bridge, "common:execute_resource", {"id": id, "inputs": inputs}, timeout=timeout)
    with CallView(stream=show.stream, as_json=show.as_json) as view:
        async for event in events:
            view.show(event)
    return events.result


def _run(
    bridge: str, config: Any, work: Work, *, as_json: bool, typed: list[str] | None = None, stream: bool = False
) -> None:
    """Open a host with the bridge, do the work, print what it gave."""
    with reported(as_json=as_json, typed=typed):
        result = run_async(_hosted(select_bridge(bridge, config), work, as_json=as_json))
        if stream and as_json:
            print_json_line({"result": result})
        else:
            print_value(result, as_json=as_json)


async def _hosted(selected: Selected, work: Work, *, as_json: bool) -> Any:
    from manybridge.host.bridge import AsyncMLBridge

    config = selected.host_config(show_output=not as_json, keep=True)
    async with AsyncMLBridge.from_config(config, take_over_jobs=False) as ml:
        return await work(ml, selected.name)


def _plain(resource: Any) -> Any:
    """Return a resource record as plain JSON."""
    return msgspec.to_builtins(resource)
