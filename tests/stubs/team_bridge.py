"""A bridge as a team writes one, with every kind of name and type that a client has to carry."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, NotRequired, TypedDict

from manybridge.bridge import Bridge, Context, Result, command, resource


class Colour(Enum):
    """A choice."""

    RED = "red"
    BLUE = "blue"


class Node(TypedDict):
    """A tree."""

    value: int
    children: NotRequired[list[Node]]


@dataclass
class Point:
    """A place."""

    x: float
    y: float = 0.0


class Total(TypedDict):
    """A sum."""

    total: float
    colour: NotRequired[str]


class TeamBridge(Bridge):
    """Sums up."""

    name = "team"
    version = "2.1"

    @command
    def add(self, points: list[Point], colour: Colour = Colour.RED) -> Total:
        """Add up points, given as "x" and "y"."""
        return {"total": sum(point.x + point.y for point in points), "colour": colour.value}

    @command
    def depth(self, tree: Node) -> int:
        """Say how deep a tree is."""
        return 1 + max((self.depth(child) for child in tree.get("children", [])), default=0)

    @command("say-hello")
    def hello(self, timeout: str, self_: str = "", session: int = 0) -> str:
        """Take arguments of names that calls have too."""
        return f"{timeout} {self_} {session}"

    @command("list")
    def list_all(self, kind: Literal["long", "short"] = "short") -> list[str]:
        """Be called like a type."""
        return [kind]

    @command("import", any_args=True)
    def import_(self, **anything: int) -> dict[str, int]:
        """Be called like a word of Python, and take anything."""
        return anything

    @command(args={"type": "object", "properties": {"max-tokens": {"type": "integer", "description": "How many."}}})
    def limits(self, **given: Any) -> dict[str, Any]:
        """Publish a schema of its own."""
        return given

    @command
    def count(self, n: int) -> Generator[int, None, Total]:
        """Stream numbers."""
        yield from range(n)
        return {"total": n}

    @command
    async def acount(self, n: int) -> AsyncGenerator[Any, None]:
        """Stream numbers from a coroutine."""
        for number in range(n):
            yield number
        yield Result(n)

    @resource("tally", policy="restore")
    class Tally:
        """Counts, and survives its worker."""

        def create(self, start: int = 0, *, ctx: Context) -> None:
            """Begin."""
            ctx.progress(1, 1)
            self.count = start

        def execute(self, add: int, *, ctx: Context) -> Total:
            """Add."""
            self.count += add
            ctx.emit(self.count)
            return {"total": self.count}

        def snapshot(self) -> dict[str, Any]:
            """What there is."""
            return {"count": self.count}

        def restore(self, state: dict[str, Any]) -> None:
            """Go on from there."""
            self.count = state["count"]
