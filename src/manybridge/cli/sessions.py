"""`manybridge sessions`: look at, extend and end the sessions that are kept in the store of a configuration."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from math import inf, isfinite
from typing import Annotated, Any, Final

import typer
from rich.table import Table
from rich.text import Text

from manybridge.cli.context import ConfigOption, JsonOption, reported, run_async
from manybridge.cli.job_store import durable, opened
from manybridge.cli.job_view import seconds_text
from manybridge.cli.output import print_json_line, print_value, stdout_console
from manybridge.cli.retention import DryRunOption, parse_age, print_removed
from manybridge.errors import InvalidArgumentError, SessionError
from manybridge.store.base import Store
from manybridge.store.records import SessionRecord

_HELP = """Look at, extend and end sessions.

Sessions are found in the store of the configuration: those that were made on purpose, and those in which something was
made that is kept. A host that runs notices within a second what is changed here.
"""

NO_STORE: Final = (
    "there is no store, so a session ends with its program: write a configuration (manybridge init), "
    "or say where with [store] url"
)

sessions_app = typer.Typer(no_args_is_help=True, help=_HELP, rich_markup_mode=None)

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The session's id.")]


@sessions_app.command("list")
def list_(as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """List the sessions whose leases run, oldest first."""

    async def work(store: Store) -> Any:
        return [_described(each) for each in await store.list_sessions()]

    with reported(as_json=as_json):
        found = run_async(_with_store(config, work))
        if as_json:
            print_json_line(found)
        else:
            _print_sessions(found)


@sessions_app.command("show")
def show(session_id: IdArgument, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """Print a session with its settings and the resources that were made in it."""

    async def work(store: Store) -> Any:
        session = await _session(store, session_id)
        made = [each for each in await store.list_resources(session=session_id) if each.session == session_id]
        resources = [{"bridge": each.bridge, "type": each.type, "id": each.id} for each in made]
        return {**_described(session), "resources": resources}

    _print(config, work, as_json=as_json)


@sessions_app.command("extend")
def extend(
    session_id: IdArgument,
    lease: Annotated[
        str | None,
        typer.Option("--lease", metavar="AGE", help="Its new length, for example 30min or 7d; left out: as it was."),
    ] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Begin the lease of a session anew."""

    async def work(store: Store) -> Any:
        session = await _session(store, session_id)
        seconds = session.lease_seconds if lease is None else parse_age(lease, "--lease")
        if not seconds > 0:
            raise InvalidArgumentError(f"--lease: expected more than 0 s, found {lease!r}; `sessions close` ends it")
        await store.begin_lease(session_id, seconds)
        return _described(await _session(store, session_id))

    _print(config, work, as_json=as_json)


@sessions_app.command("close")
def close(session_id: IdArgument, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """End a session and delete what was made in it."""

    async def work(store: Store) -> Any:
        if not await store.delete_session(session_id):
            raise _missing(session_id)
        return {"id": session_id, "closed": True}

    _print(config, work, as_json=as_json)


@sessions_app.command("cleanup")
def cleanup(
    idle: Annotated[
        str | None,
        typer.Option("--idle", metavar="AGE", help="Also end those that had no call for so long, for example 7d."),
    ] = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """End the sessions whose leases ran out while no host was there, with what was made in them.

    A host does the same every half minute.
    """

    async def work(store: Store) -> list[str]:
        limit = None if idle is None else parse_age(idle, "--idle")
        unused = [each.id for each in await store.list_sessions() if limit is not None and _unused(each) >= limit]
        if dry_run:
            return unused
        ended = await store.end_expired_sessions()
        return ended + [id for id in unused if await store.delete_session(id)]

    with reported(as_json=as_json):
        ended = run_async(_with_store(config, work))
        print_removed("session", ended, dry_run=dry_run, as_json=as_json)


def _unused(session: SessionRecord) -> float:
    """Seconds since its last call, as far as its lease tells; one without an end is never unused."""
    return session.lease_seconds - session.expires_in if isfinite(session.lease_seconds) else -inf


async def _session(store: Store, id: str) -> SessionRecord:
    found = await store.get_session(id)
    if found is None:
        raise _missing(id)
    return found


def _missing(id: str) -> SessionError:
    return SessionError(f'there is no session "{id}", or its lease ran out', details={"session": id})


def _described(session: SessionRecord) -> dict[str, Any]:
    described = asdict(session)
    del described["owner"]
    for name in ("lease_seconds", "expires_in"):
        described[name] = round(described[name], 3) if isfinite(described[name]) else None  # JSON knows no infinity
    return described


def _print_sessions(sessions: list[dict[str, Any]]) -> None:
    console = stdout_console()
    rows = [_row(each) for each in sessions]
    if not console.is_terminal:
        for row in rows:
            console.print(Text("  ".join(filter(None, row))), soft_wrap=True)
        return
    table = Table("Session", "Policy", "Calls", "Ends", "Settings", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


def _row(session: dict[str, Any]) -> list[str]:
    ends = "never" if session["expires_in"] is None else f"in {seconds_text(session['expires_in'])}"
    policy = f"{session['affinity']}/{session['concurrency']}"
    return [session["id"], policy, f"{session['calls']} calls", ends, ", ".join(session["settings"])]


def _print(config: Any, work: Callable[[Store], Awaitable[Any]], *, as_json: bool) -> None:
    with reported(as_json=as_json):
        print_value(run_async(_with_store(config, work)), as_json=as_json)


async def _with_store(config: Any, work: Callable[[Store], Awaitable[Any]]) -> Any:
    async with opened(durable(config, NO_STORE)) as store:
        return await work(store)
