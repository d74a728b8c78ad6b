"""Running one job from the command line: here, or in a process of its own that goes on without the terminal."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from manybridge.cli.job_store import durable, opened, stored_job
from manybridge.cli.job_view import JobView
from manybridge.cli.output import print_note
from manybridge.cli.selecting import select_bridge
from manybridge.errors import ManybridgeError
from manybridge.host.bridge import AsyncMLBridge
from manybridge.host.jobs import AsyncJob
from manybridge.protocol.errors import ErrorCode

LOOK_SECONDS: Final = 0.05
"""How often the store is asked whether a detached job is there."""

START_SECONDS: Final = 60.0
"""How long a detached process may take to write its job down."""

AfterInterrupt = Callable[[AsyncJob], Awaitable[str]]
"""Decides what Ctrl-C means: `cancel`, `detach` or `watch`."""


@dataclass(frozen=True, slots=True)
class JobRun:
    """What to run and how."""

    bridge: str
    command: str
    arguments: dict[str, Any]
    timeout: float | None
    session: str | None
    resume: bool
    id: str | None
    stream: bool
    as_json: bool
    config: Path | None


async def run_here(run: JobRun) -> Any:
    """Run a job in a host of this process and watch it. Ctrl-C cancels it.

    Returns:
        Its result.

    Raises:
        ManybridgeError: whatever it ended with.
    """
    selected = select_bridge(run.bridge, run.config)
    config = selected.host_config(show_output=not run.as_json, keep=True)
    async with AsyncMLBridge.from_config(config, take_over_jobs=False) as ml:
        job = await ml.submit(
            selected.name,
            run.command,
            run.arguments,
            timeout=run.timeout,
            session=run.session,
            id=run.id,
            resume=run.resume,
        )
        if not run.as_json:
            print_note(f"job {job.id}")
        try:
            await watch(job, 0, stream=run.stream, as_json=run.as_json)
        except asyncio.CancelledError:
            await job.cancel()
            raise
        return await job.result()


async def watch(job: AsyncJob, from_seq: int, *, stream: bool, as_json: bool) -> None:
    """Show the events of a job until it ends."""
    with JobView(job, stream=stream, as_json=as_json) as view:
        async for event in job.events(from_seq):
            view.show(event)


async def detach(run: JobRun) -> str:
    """Start a process of its own for a job and return the job's id when it is in the store.

    Raises:
        ConfigError: there is no store that outlives a command.
        ManybridgeError: the process ended before the job was there.
    """
    location = durable(run.config)
    select_bridge(run.bridge, run.config)  # what is wrong there is said here
    id = run.id or f"job-{secrets.token_hex(6)}"
    with tempfile.TemporaryFile() as said:
        process = await asyncio.to_thread(_Detached, run, id, said)
        async with opened(location) as store:
            waited = 0.0
            while await store.get_job(id) is None and not process.ended() and waited < START_SECONDS:
                await asyncio.sleep(LOOK_SECONDS)
                waited += LOOK_SECONDS
            is_there = await store.get_job(id) is not None
        process.leave(stop=not is_there)
        if is_there:
            return id
        said.seek(0)
        raise _start_error(said.read().decode(errors="replace"))


class _Detached:
    """A process that is nobody's child: it outlives the terminal, and no one has to collect it.

    Owner of a pipe whose other end only that process has: it ends with it.
    """

    def __init__(self, run: JobRun, id: str, log: Any) -> None:
        self._pipe, others_end = os.pipe()
        os.set_blocking(self._pipe, False)
        spare = 3 if others_end != 3 else 4  # a shell gives what it starts in the background no input of its own
        script = f'exec {spare}<&0; "$@" <&{spare} {spare}<&- >/dev/null & echo $!'
        shell = ["/bin/sh", "-c", script, "sh", *_command(run, id)]
        given = json.dumps(run.arguments)  # not on the command line, which everybody can read
        with tempfile.TemporaryFile("w+") as arguments:
            arguments.write(given)
            arguments.seek(0)
            try:
                said = subprocess.run(
                    shell,
                    stdin=arguments,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    pass_fds=(others_end,),
                    start_new_session=True,
                    check=True,
                ).stdout
            finally:
                os.close(others_end)
        self._pid = int(said)

    def ended(self) -> bool:
        """Whether it has ended."""
        try:
            return os.read(self._pipe, 1) == b""
        except BlockingIOError:
            return False

    def leave(self, *, stop: bool) -> None:
        """Leave it alone, or end it."""
        if stop and not self.ended():
            os.kill(self._pid, signal.SIGTERM)
        os.close(self._pipe)


def _command(run: JobRun, id: str) -> list[str]:
    command = [sys.executable, "-m", "manybridge.cli.entry", "jobs", "run", run.bridge, run.command, "-", "--json"]
    command += ["--id", id]
    command += ["--resume"] if run.resume else []
    command += [] if run.timeout is None else ["--timeout", str(run.timeout)]
    command += [] if run.session is None else ["--session", run.session]
    return command + ([] if run.config is None else ["--config", str(run.config)])


def _start_error(text: str) -> ManybridgeError:
    try:
        info = json.loads(text.strip().splitlines()[-1])["error"]
        return ManybridgeError(info["message"], code=info["code"], details=info["details"])
    except (ValueError, LookupError, TypeError):
        return ManybridgeError(f"the job's own process did not start: {text[-2000:]}", code=ErrorCode.INTERNAL_ERROR)


async def run_apart(run: JobRun, after_interrupt: AfterInterrupt) -> Any:
    """Run a job in a process of its own and watch it. Ctrl-C asks what to do.

    Returns:
        Its result; None where it was left alone.
    """
    id = await detach(run)
    if not run.as_json:
        print_note(f"job {id}")
    async with opened(durable(run.config)) as store:
        job, from_seq = await stored_job(store, id), 0
        while True:
            try:
                with JobView(job, stream=run.stream, as_json=run.as_json) as view:
                    async for event in job.events(from_seq):
                        view.show(event)
                        from_seq = event.seq + 1
                return await job.result()
            except asyncio.CancelledError:
                task = asyncio.current_task()
                assert task is not None
                task.uncancel()
            choice = await after_interrupt(job)
            if choice == "cancel":
                print_note(f"cancelling job {id}")
                await job.cancel()
                return await job.result()
            if choice == "detach":
                print_note(f"job {id} goes on; watch it with: manybridge jobs watch {id}")
                return None
