"""Kinds of calls for a load: how each is made, and how its answer is known to be right.

Every call of a load has a number of its own, from 0. A template carries it into arguments and expected answers: the
text `$n` stands for the number, and `$n` inside a longer text for its digits. So an answer that belongs to another call
is seen as wrong.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from manybridge.errors import ManybridgeError
from manybridge.host.bridge import AsyncMLBridge

NUMBER: Final = "$n"
ARGUMENTS: Final = "$args"
"""As an expected answer: exactly the arguments that were sent."""


class _Anything:
    """Equal to every answer."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]  # it equals everything, so no hash can fit

    def __repr__(self) -> str:
        return "ANYTHING"


ANYTHING: Final[Any] = _Anything()
"""As an expected answer, or a part of one: whatever comes is right."""


class Expectation(NamedTuple):
    """What came of one call that was answered."""

    got: Any
    expected: Any

    @property
    def is_right(self) -> bool:
        """Whether the answer is the one that was due."""
        # The expected side first: ANYTHING, wherever it stands, decides.
        return bool(self.expected == self.got)


Perform = Callable[[AsyncMLBridge, int], Awaitable[Expectation]]
"""Makes the call with that number and says what came and what was due. Raises what the host raises."""


@dataclass(frozen=True, slots=True)
class Work:
    """One kind of call in the mix of a load."""

    name: str
    perform: Perform
    weight: float = 1.0
    """How often it is chosen, relative to the others."""
    codes: frozenset[str] | None = None
    """Error codes that its callers must bear; None for every code of the taxonomy."""
    retriable: bool = False
    """Whether its success counts towards the share of calls that the host may repeat."""


def fill(template: Any, number: int) -> Any:
    """Return `template` with the call's number in it."""
    if isinstance(template, str):
        return number if template == NUMBER else template.replace(NUMBER, str(number))
    if isinstance(template, Mapping):
        return {
            fill(key, number) if key != NUMBER else str(number): fill(each, number) for key, each in template.items()
        }
    if isinstance(template, list | tuple):
        return [fill(each, number) for each in template]
    return template


def call_work(
    command: str,
    args: Mapping[str, Any] | None = None,
    *,
    expect: Any = ANYTHING,
    bridge: str | None = None,
    timeout: float | None = None,
    session: str | None = None,
    idempotency_key: str | None = None,
    name: str | None = None,
    **rules: Any,
) -> Work:
    """A plain call.

    Args:
        command: as in `MLBridge.call`.
        args: a template.
        expect: a template of the answer; `$args` for exactly the arguments.
        bridge: as in `MLBridge.call`, like the next two.
        timeout: seconds.
        session: a template.
        idempotency_key: a template; with `$n` in it every call has its own, and the host may repeat it.
        name: in reports; the command if left out.
        rules: weight, codes, retriable of the `Work`.
    """

    async def perform(ml: AsyncMLBridge, number: int) -> Expectation:
        given = fill(args or {}, number)
        got = await ml.call(
            bridge,
            command,
            given,
            timeout=timeout,
            session=fill(session, number),
            idempotency_key=fill(idempotency_key, number),
        )
        return Expectation(got, _due(expect, given, number))

    return Work(name or command, perform, **rules)


def stream_work(
    command: str,
    args: Mapping[str, Any] | None = None,
    *,
    chunks: Sequence[Any] | None = None,
    expect: Any = ANYTHING,
    bridge: str | None = None,
    timeout: float | None = None,
    name: str | None = None,
    **rules: Any,
) -> Work:
    """A stream that is read to its end.

    Args:
        command: as in `MLBridge.stream`.
        args: a template.
        chunks: a template of all chunks in order; None for any.
        expect: a template of the result.
        bridge: as in `MLBridge.stream`.
        timeout: seconds.
        name: in reports; the command if left out.
        rules: weight, codes, retriable of the `Work`.
    """

    async def perform(ml: AsyncMLBridge, number: int) -> Expectation:
        given = fill(args or {}, number)
        stream = ml.stream(bridge, command, given, timeout=timeout)
        came = [event.data async for event in stream if event.event == "chunk"]
        due = ANYTHING if chunks is None else fill(list(chunks), number)
        return Expectation((came, stream.result), (due, _due(expect, given, number)))

    return Work(name or f"stream {command}", perform, **rules)


def resource_work(
    type: str,
    config: Mapping[str, Any] | None = None,
    inputs: Mapping[str, Any] | None = None,
    *,
    expect: Any = ANYTHING,
    bridge: str | None = None,
    timeout: float | None = None,
    name: str | None = None,
    **rules: Any,
) -> Work:
    """A resource's whole life: made, executed once, deleted. The answer is what the execution gave.

    Args:
        type: of the resource.
        config: a template.
        inputs: a template.
        expect: a template of the answer.
        bridge: as in `MLBridge.create_resource`.
        timeout: seconds, for each of the three.
        name: in reports; the type if left out.
        rules: weight, codes, retriable of the `Work`.
    """

    async def perform(ml: AsyncMLBridge, number: int) -> Expectation:
        given = fill(inputs or {}, number)
        made = await ml.create_resource(bridge, type, fill(config or {}, number), timeout=timeout)
        try:
            got = await ml.execute_resource(bridge, made.id, given, timeout=timeout)
        except ManybridgeError:
            with contextlib.suppress(ManybridgeError):  # the first error is the call's
                await ml.delete_resource(bridge, made.id, timeout=timeout)
            raise
        await ml.delete_resource(bridge, made.id, timeout=timeout)
        return Expectation(got, _due(expect, given, number))

    return Work(name or f"resource {type}", perform, **rules)


def job_work(
    command: str,
    args: Mapping[str, Any] | None = None,
    *,
    expect: Any = ANYTHING,
    bridge: str | None = None,
    timeout: float | None = None,
    name: str | None = None,
    **rules: Any,
) -> Work:
    """A job: submitted, waited for, its result read. Arguments as in `call_work`."""

    async def perform(ml: AsyncMLBridge, number: int) -> Expectation:
        given = fill(args or {}, number)
        job = await ml.submit(bridge, command, given, timeout=timeout)
        return Expectation(await job.result(), _due(expect, given, number))

    return Work(name or f"job {command}", perform, **rules)


def _due(expect: Any, args: Any, number: int) -> Any:
    return args if isinstance(expect, str) and expect == ARGUMENTS else fill(expect, number)
