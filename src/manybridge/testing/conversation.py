"""Scripted conversations: what an application must ask, and what it is answered.

Use it like this::

    script = Conversation()
    script.expect("llm:complete", {"prompt": "hello"}).replies({"text": "hi"})
    script.expect("llm:complete").fails("rate_limited", "slow down", retry_after=2)
    with MockMLBridge(script) as ml:
        application(ml)

Leaving the `with` checks that everything was asked. A call that the script does not expect is answered with an error,
and the test fails with what came and what was expected, whatever the application makes of that error.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from math import inf
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType
from typing import Any, Final, Self

from manybridge.bridge import Bridge, BridgeError, Context
from manybridge.testing.memory import AsyncInMemoryMLBridge, InMemoryMLBridge
from manybridge.testing.problems import KitError

LOOK_SECONDS: Final = 0.005
"""How often a reply that is delayed looks whether its call was cancelled."""

_ANY_ARGUMENTS: Final[Any] = object()


class Expectation:
    """One call that must come, and its answer. Made by `Conversation.expect`; its methods return itself."""

    def __init__(self, what: str, args: Any, where: str) -> None:
        self.what = what
        """The command, or `execute TYPE` / `create TYPE`, with the bridge's name before a colon."""
        self.where = where
        """File and line of the script."""
        self.group: object = self
        """Expectations of one group may be met in any order."""
        self.left: float = 1
        self.met = 0
        self._args = args
        self._steps: list[Callable[[Context], Iterator[Any]]] = []
        self._end: Callable[[Context], Any] = lambda _: {}

    def replies(self, result: Any) -> Self:
        """Answer with this result; a function gets the call's arguments as keywords and returns it."""
        self._end = lambda _: result
        self._computed = result if callable(result) else None
        return self

    _computed: Callable[..., Any] | None = None

    def fails(self, code: str, message: str = "scripted failure", **details: Any) -> Self:
        """Answer with an error of the taxonomy."""

        def fail(_: Context) -> Any:
            raise BridgeError(code, message, details=details)

        self._end, self._computed = fail, None
        return self

    def streams(self, *chunks: Any) -> Self:
        """Send chunks before the answer."""
        self._steps.append(lambda _: iter(chunks))
        return self

    def reports(self, current: float, total: float | None = None, message: str = "") -> Self:
        """Report progress before the answer."""

        def report(ctx: Context) -> Iterator[Any]:
            ctx.progress(current, total, message)
            return iter(())

        self._steps.append(report)
        return self

    def delays(self, seconds: float) -> Self:
        """Wait before what comes next; a cancel ends it."""
        self._steps.append(lambda ctx: _wait(ctx, seconds))
        return self

    def times(self, count: float) -> Self:
        """Expect it so many times in a row; `math.inf` for any number, none included."""
        self.left = count
        return self

    # ------------------------------------------------------------------ what the conversation does with it

    @property
    def is_due(self) -> bool:
        """Whether the script is not over before it came."""
        return self.left > 0 and self.left != inf

    def fits(self, what: str, args: dict[str, Any]) -> bool:
        """Whether a call is this one."""
        if what != self.what:
            return False
        if callable(self._args):
            return bool(self._args(args))
        return self._args is _ANY_ARGUMENTS or bool(self._args == args)

    def perform(self, ctx: Context, args: dict[str, Any]) -> Generator[Any, None, Any]:
        """Do what was said, in that order."""
        for step in self._steps:
            yield from step(ctx)
        return self._computed(**args) if self._computed is not None else self._end(ctx)

    def __str__(self) -> str:
        if callable(self._args):
            shown = f"arguments that {getattr(self._args, '__qualname__', self._args)} accepts"
        else:
            shown = "any arguments" if self._args is _ANY_ARGUMENTS else _shown(self._args)
        often = "" if self.left == 1 else ", any number of times" if self.left == inf else f", {self.left:g} times"
        return f"{self.what} with {shown}{often} ({self.where})"


class Conversation:
    """A script. Owner of what is still expected and of what came. Calls may come from any thread."""

    def __init__(self) -> None:
        self.came: list[tuple[str, dict[str, Any]]] = []
        """Every call that came: what, and its arguments."""
        self.problems: list[str] = []
        """Calls that nobody expected."""
        self._expected: list[Expectation] = []
        self._types: dict[str, set[str]] = {}
        self._group: object | None = None
        self._lock = threading.Lock()
        self._hosts: list[MockMLBridge] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for host in reversed(self._hosts):
            host.close(0.0)
        _check_after(self, error)

    def start(self) -> MockMLBridge:
        """Start a host that plays this script; write the script first. Closed with the `with` of this script."""
        self._hosts.append(MockMLBridge(self))
        return self._hosts[-1]

    # ------------------------------------------------------------------ writing

    def expect(
        self, command: str, args: Mapping[str, Any] | Callable[[dict[str, Any]], bool] = _ANY_ARGUMENTS
    ) -> Expectation:
        """Expect a call of a command next.

        Args:
            command: with its namespace, which is the name of the bridge.
            args: exactly these (a part may be `ANYTHING`), or what a function says yes to; any if left out.
        """
        if ":" not in command:
            raise ValueError(f'command: expected "bridge:operation", found {command!r}')
        return self._add(command, args)

    def expect_create(
        self, bridge: str, type: str, config: Mapping[str, Any] | Callable[[dict[str, Any]], bool] = _ANY_ARGUMENTS
    ) -> Expectation:
        """Expect that a resource is made next: `expect_create("llm", "program", {"signature": "question -> answer"})`.

        Raises:
            KitError: bridge or type is no name.
        """
        self.resource(bridge, type)
        return self._add(f"{bridge}:create {type}", config)

    def expect_execute(
        self, bridge: str, type: str, inputs: Mapping[str, Any] | Callable[[dict[str, Any]], bool] = _ANY_ARGUMENTS
    ) -> Expectation:
        """Expect that a resource of a type is executed next: `expect_execute("llm", "program", {"question": "Why?"})`.

        Making one needs no expectation.

        Raises:
            KitError: bridge or type is no name.
        """
        self.resource(bridge, type)
        return self._add(f"{bridge}:execute {type}", inputs)

    def resource(self, bridge: str, type: str) -> None:
        """Have a bridge know a type of resource.

        Raises:
            KitError: bridge or type is no name.
        """
        for argument, name in (("bridge", bridge), ("type", type)):
            if not isinstance(name, str) or not name:
                wanted = "a name; resources are expected by bridge, type and arguments"
                raise KitError(f"{argument}: expected {wanted}, found {name!r:.200}", details={"argument": argument})
        self._types.setdefault(bridge, set()).add(type)

    @contextmanager
    def any_order(self) -> Iterator[Self]:
        """What is expected inside may come in any order; what follows, after all of it."""
        self._group = object()
        try:
            yield self
        finally:
            self._group = None

    # ------------------------------------------------------------------ reading

    def check(self) -> None:
        """Check that everything came and nothing else.

        Raises:
            AssertionError: says what came and what was expected.
        """
        missing = [each for each in self._expected if each.is_due]
        problems = [*self.problems, *(f"never came: {each}" for each in missing)]
        if problems:
            came = [f"{number}. {what} {_shown(args)}" for number, (what, args) in enumerate(self.came, 1)]
            listed = "\n  ".join(came) or "nothing"
            raise AssertionError(
                "the conversation went otherwise:\n- " + "\n- ".join(problems) + f"\ncame:\n  {listed}"
            )

    def bridges(self) -> dict[str, type[Bridge]]:
        """A bridge class for each name that the script has, which play it."""
        names = {each.what.partition(":")[0] for each in self._expected} | self._types.keys()
        return {name: _scripted_bridge(self, name) for name in sorted(names)}

    def commands_of(self, bridge: str) -> set[str]:
        """The operations of a bridge that the script has."""
        parts = (each.what.partition(":") for each in self._expected)
        return {operation for name, _, operation in parts if name == bridge and " " not in operation}

    def types_of(self, bridge: str) -> set[str]:
        """The resource types of a bridge that the script has."""
        return self._types.get(bridge, set())

    def has(self, what: str) -> bool:
        """Whether the script says anything of this kind of call."""
        return any(each.what == what for each in self._expected)

    def take(self, what: str, args: dict[str, Any]) -> Expectation:
        """The expectation that a call meets.

        Raises:
            BridgeError: `handler_error`, it is not expected now; remembered as a problem.
        """
        with self._lock:
            self.came.append((what, args))
            open_ones = self._open()
            for each in open_ones:
                if each.fits(what, args):
                    each.left -= 1
                    each.met += 1
                    self._pass_over(each, open_ones)
                    return each
            text = f"call {len(self.came)} was {what} with {_shown(args)}; expected: "
            text += " or ".join(str(each) for each in open_ones) or "no call any more"
            self.problems.append(text)
        raise BridgeError("handler_error", f"not in the script: {text}", type="UnexpectedCall")

    def unexpected(self, what: str) -> None:
        """A call came for a command that the script has nowhere."""
        with self._lock:
            self.came.append((what, {}))
            expected = " or ".join(str(each) for each in self._open()) or "no call any more"
            self.problems.append(
                f"call {len(self.came)} was {what}, a command that is not in the script; expected: {expected}"
            )

    # ------------------------------------------------------------------ inside

    def _open(self) -> list[Expectation]:
        """What may come now: the first group that is not over, and before it whatever may come any number of times."""
        found: list[Expectation] = []
        group: object | None = None
        for each in self._expected:
            if each.left <= 0:
                continue
            if group is not None and each.group is not group:
                break
            found.append(each)
            if each.is_due:
                group = each.group
        return found

    @staticmethod
    def _pass_over(met: Expectation, open_ones: list[Expectation]) -> None:
        """What could have come any number of times has had its turn once a later one came."""
        for each in open_ones:
            if each is met:
                return
            if each.left == inf and each.group is not met.group:
                each.left = 0

    def _add(self, what: str, args: Any) -> Expectation:
        made = Expectation(what, args, _caller())
        if self._group is not None:
            made.group = self._group
        self._expected.append(made)
        return made


class MockMLBridge(InMemoryMLBridge):
    """An in-memory host that plays a conversation; leaving its `with` checks that all of it was played."""

    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation
        super().__init__(conversation.bridges())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        _check_after(self.conversation, error)


class AsyncMockMLBridge(AsyncInMemoryMLBridge):
    """The same for asyncio programs."""

    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation
        super().__init__(conversation.bridges())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await super().__aexit__(kind, error, trace)
        _check_after(self.conversation, error)


def _check_after(conversation: Conversation, error: BaseException | None) -> None:
    # An error of the application is often only the echo of a call that was not expected: then the script says why.
    if error is None or conversation.problems:
        conversation.check()


def _scripted_bridge(conversation: Conversation, name: str) -> type[Bridge]:
    def setup(self: Bridge, options: dict[str, Any]) -> None:  # noqa: ARG001  # the signature of every bridge
        for operation in sorted(conversation.commands_of(name)):
            self.register_command(
                operation, _player(conversation, f"{name}:{operation}"), description="Scripted.", any_args=True
            )
        for type_name in sorted(conversation.types_of(name)):
            self.register_resource(type_name, _scripted_resource(conversation, name, type_name), policy="recreate")

    def unexpected(command: str) -> None:
        conversation.unexpected(command)

    return type("ScriptedBridge", (Bridge,), {"name": name, "setup": setup, "unexpected": staticmethod(unexpected)})


def _player(conversation: Conversation, what: str) -> Callable[..., Generator[Any, None, Any]]:
    def play(*, _context: Context, **arguments: Any) -> Generator[Any, None, Any]:
        return (yield from conversation.take(what, arguments).perform(_context, arguments))

    return play


def _scripted_resource(conversation: Conversation, bridge: str, type_name: str) -> type:
    class ScriptedResource:
        """Scripted."""

        def create(self, config: dict[str, Any], *, ctx: Context) -> None:
            """As the script says, or simply."""
            what = f"{bridge}:create {type_name}"
            if conversation.has(what):
                for chunk in conversation.take(what, config).perform(ctx, config):
                    ctx.emit(chunk)

        def execute(self, inputs: dict[str, Any], *, ctx: Context) -> Generator[Any, None, Any]:
            """As the script says."""
            what = f"{bridge}:execute {type_name}"
            return (yield from conversation.take(what, inputs).perform(ctx, inputs))

    return ScriptedResource


def _wait(ctx: Context, seconds: float) -> Iterator[Any]:
    deadline = monotonic() + seconds
    while (left := deadline - monotonic()) > 0:
        ctx.check()
        sleep(min(left, LOOK_SECONDS))
    return iter(())


def _shown(args: Any) -> str:
    try:
        return json.dumps(args, ensure_ascii=False)[:300]
    except (TypeError, ValueError):
        return repr(args)[:300]


def _caller() -> str:
    """File and line of the script: the first frame outside this module."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename == __file__:
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
