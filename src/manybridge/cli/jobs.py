"""`manybridge jobs`: run long commands, and look at, fetch, stop and forget those that ran or run."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Annotated, Any

import typer

from manybridge.cli.arguments import parse_arguments
from manybridge.cli.call import BridgeArgument
from manybridge.cli.context import ConfigOption, JsonOption, reported, run_async
from manybridge.cli.exit_codes import ExitCode
from manybridge.cli.job_runs import JobRun, detach, run_apart, run_here, watch
from manybridge.cli.job_store import delete, durable, opened, stored_job, stored_jobs
from manybridge.cli.job_view import print_jobs
from manybridge.cli.output import print_json_line, print_note, print_value
from manybridge.cli.retention import DryRunOption, OlderThanOption, OnlyBridgeArgument, parse_age, print_removed
from manybridge.errors import CallTimeoutError
from manybridge.host.job_table import checked_states
from manybridge.host.jobs import AsyncJob
from manybridge.store.base import Store

_HELP = """Run long commands, and look at, fetch, stop and forget those that ran or run.

Jobs are found again through the store of the configuration. Without one, a job ends with the command that runs it.
"""

jobs_app = typer.Typer(no_args_is_help=True, help=_HELP, rich_markup_mode=None)

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The job's id.")]


class OnInterrupt(StrEnum):
    """What Ctrl-C means."""

    CANCEL = "cancel"
    DETACH = "detach"
    ASK = "ask"


@jobs_app.command("run")
def run_(
    bridge: BridgeArgument,
    command: Annotated[str, typer.Argument(metavar="COMMAND", help="The command, for example mock:progress.")],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ARGUMENT]...", help="As of manybridge call: name=text, name:=json, name=@file, or -."),
    ] = None,
    args: Annotated[
        str | None, typer.Option("--args", metavar="JSON|@FILE", help="All arguments as one JSON object.")
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", metavar="SECONDS", min=0, help="How long it may take; left out: no limit."),
    ] = None,
    session: Annotated[str | None, typer.Option("--session", metavar="ID", help="Run it in this session.")] = None,
    id: Annotated[str | None, typer.Option("--id", metavar="ID", help="The job's id; made up if left out.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="A host may run it again, from its beginning, if it is interrupted.")
    ] = False,
    detached: Annotated[
        bool, typer.Option("--detach", help="Print the job's id and leave it running in a process of its own.")
    ] = False,
    on_interrupt: Annotated[
        OnInterrupt,
        typer.Option(
            "--on-interrupt",
            help="What Ctrl-C does. With detach and ask the job runs in a process of its own, which needs a store.",
        ),
    ] = OnInterrupt.CANCEL,
    stream: Annotated[bool, typer.Option("--stream", help="Print chunks as they come.")] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Run a command as a job, watch it, and print its result.

    Progress goes to standard error, with rate and time left: a bar on a terminal, plain lines elsewhere.

    For example:

        manybridge jobs run mock mock:progress steps:=50 delay:=0.1

        manybridge jobs run transformers transformers:train --args @run.json --detach
    """
    typed = arguments or []
    with reported(as_json=as_json, typed=typed):
        parsed = parse_arguments(typed, args)
        job = JobRun(bridge, command, parsed, timeout, session, resume, id, stream, as_json, config)
        if detached:
            new_id = run_async(detach(job))
            print_value({"id": new_id} if as_json else new_id, as_json=as_json)
            return
        if on_interrupt is OnInterrupt.CANCEL:
            result = run_async(run_here(job))
        else:
            result = run_async(run_apart(job, _chooser(on_interrupt)))
        if stream and as_json:
            print_json_line({"result": result})
        else:
            print_value(result, as_json=as_json)


@jobs_app.command("list")
def list_(
    bridge: Annotated[str | None, typer.Argument(metavar="[BRIDGE]", help="Only of this bridge.")] = None,
    state: Annotated[
        list[str] | None, typer.Option("--state", metavar="STATE", help="Only in this state. May be repeated.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Only so many, the newest.")] = 100,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """List jobs, oldest first."""

    async def work(store: Store) -> Any:
        return await stored_jobs(store, bridge, checked_states(state or None), limit)

    with reported(as_json=as_json):
        found = run_async(_with_store(config, work))
        if as_json:
            print_json_line(found)
        else:
            print_jobs(found)


@jobs_app.command("show")
def show(job_id: IdArgument, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """Print what is known of a job."""

    async def work(store: Store) -> Any:
        return (await stored_job(store, job_id)).describe()

    _print(config, work, as_json=as_json)


@jobs_app.command("watch")
def watch_(
    job_id: IdArgument,
    from_seq: Annotated[int, typer.Option("--from", metavar="N", min=0, help="The number of the first event.")] = 0,
    stream: Annotated[bool, typer.Option("--stream", help="Print chunks as they come.")] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Show the events of a job until it ends; with --json each as a line, and the job behind them.

    Ctrl-C ends the watching and leaves the job alone.
    """

    async def work(store: Store) -> None:
        job = await stored_job(store, job_id)
        await watch(job, from_seq, stream=stream or as_json, as_json=as_json)
        if as_json:
            print_json_line({"job": job.describe()})
        else:
            print_note(f"job {job.id} {job.state}")

    with reported(as_json=as_json):
        try:
            run_async(_with_store(config, work))
        except KeyboardInterrupt:
            print_note("no longer watched; the job goes on")
            raise typer.Exit(ExitCode.INTERRUPTED) from None


@jobs_app.command("result")
def result_(
    job_id: IdArgument,
    timeout: Annotated[
        float | None, typer.Option("--timeout", metavar="SECONDS", min=0, help="Wait for its end at most so long.")
    ] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Wait for the end of a job and print its result, or end with its error."""

    async def work(store: Store) -> Any:
        job = await stored_job(store, job_id)
        if not await job.wait(timeout):
            text = f"job {job_id} has not ended within {timeout:g} s; it goes on"
            raise CallTimeoutError(text, details={"job": job_id, "state": str(job.state)})
        return await job.result()

    _print(config, work, as_json=as_json)


@jobs_app.command("cancel")
def cancel(job_id: IdArgument, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """Stop a job, in whatever host it runs, and wait until it has ended."""

    async def work(store: Store) -> Any:
        job = await stored_job(store, job_id)
        return {"id": job_id, "cancelled": await job.cancel(), "state": str(job.state)}

    _print(config, work, as_json=as_json)


@jobs_app.command("delete")
def delete_(job_id: IdArgument, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """Forget a job that has ended, with its result and its events."""

    async def work(store: Store) -> Any:
        await delete(store, job_id)
        return {"id": job_id, "deleted": True}

    _print(config, work, as_json=as_json)


@jobs_app.command("cleanup")
def cleanup(
    older_than: OlderThanOption,
    bridge: OnlyBridgeArgument = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Forget the jobs that ended so long ago, with their results and their events. Prints their ids."""

    async def work(store: Store) -> list[str]:
        return await store.prune_jobs(parse_age(older_than, "--older-than"), bridge=bridge, dry_run=dry_run)

    with reported(as_json=as_json):
        ids = run_async(_with_store(config, work))
        print_removed("job", ids, dry_run=dry_run, as_json=as_json)


def _print(config: Any, work: Callable[[Store], Awaitable[Any]], *, as_json: bool) -> None:
    with reported(as_json=as_json):
        print_value(run_async(_with_store(config, work)), as_json=as_json)


async def _with_store(config: Any, work: Callable[[Store], Awaitable[Any]]) -> Any:
    async with opened(durable(config)) as store:
        return await work(store)


def _chooser(on_interrupt: OnInterrupt) -> Callable[[AsyncJob], Awaitable[str]]:
    async def choose(job: AsyncJob) -> str:
        if on_interrupt is not OnInterrupt.ASK or not sys.stdin.isatty():
            return "detach"
        print_note(f"job {job.id} runs: [c]ancel it, [d]etach from it, or go on [w]atching?")
        answer = (await asyncio.to_thread(sys.stdin.readline)).strip().lower()[:1]
        return {"c": "cancel", "w": "watch"}.get(answer, "detach")

    return choose
