"""A bridge whose sessions have settings: it tells which it was given, on which worker, and takes a slot to think."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Mapping
from typing import Any

from manybridge.bridge import Bridge, BridgeError, Context, command, resource


class Tuned(Bridge):
    """Remembers what its hook was called with. Two calls at a time, so that settings could be overtaken."""

    name = "tuned"
    max_concurrency = 2

    def setup(self, options: dict[str, Any]) -> None:
        """Nothing was taken yet."""
        self.taken: list[list[Any]] = []

    def configure_session(self, session_id: str, settings: Mapping[str, Any]) -> None:
        """Take settings; `wrong` is refused."""
        if "wrong" in settings:
            raise BridgeError("config_error", "settings: wrong is no setting; known: every other")
        self.taken.append([session_id, dict(settings)])

    @command
    def tell(self, *, ctx: Context) -> dict[str, Any]:
        """What this call has, and what the bridge was given so far."""
        return {"settings": dict(ctx.settings), "taken": self.taken, "pid": os.getpid()}

    @command
    async def atell(self, *, ctx: Context) -> dict[str, Any]:
        """The same from the event loop."""
        return {"settings": dict(ctx.settings), "pid": os.getpid()}

    @command(any_args=True, session_settings=True)
    def configure(self, *, ctx: Context, **values: Any) -> dict[str, Any]:
        """Add to the settings of the session."""
        shown = {name: "***" if name == "api_key" else value for name, value in values.items()}
        return {"settings": {**ctx.settings, **shown}, "thread": threading.get_ident()}

    @command
    def die(self) -> dict[str, Any]:
        """End the worker in the middle of a call."""
        os.kill(os.getpid(), signal.SIGKILL)
        return {}

    @resource("probe", policy="recreate")
    class Probe:
        """Tells the settings of whoever executes it."""

        def create(self, ctx: Context) -> None:
            """Remember those of whoever made it."""
            self.made_with = dict(ctx.settings)

        def execute(self, ctx: Context) -> dict[str, Any]:
            """Both."""
            return {"settings": dict(ctx.settings), "made_with": self.made_with, "pid": os.getpid()}
