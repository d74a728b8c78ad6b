"""The class that every bridge derives from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any, ClassVar, Literal

from manybridge.bridge.compiling import class_namespace, compile_command, compile_resource, compiled_bridge
from manybridge.bridge.context import V1Context, WorkerInfo
from manybridge.bridge.declarations import RESOURCE_NOTE, CommandNote, Policy, ResourceNote
from manybridge.bridge.errors import BridgeError
from manybridge.bridge.signatures import Place
from manybridge.bridge.specs import BridgeSpec

_SPEC_LOCK = Lock()


class Bridge:
    """Exposes one framework as commands and resource types. Derive, name it, decorate methods.

    A bridge object lives in one worker, for the worker's life. The runtime makes it without arguments, sets `worker`,
    and calls `preload`, `setup`, then handlers, then `close`. Handlers run on the main thread, one at a time, unless
    `max_concurrency` says more.
    """

    name: ClassVar[str]
    """The framework's name: the namespace of the commands. Lower case letters, digits, `_` and `-`."""
    version: ClassVar[str] = ""
    """Of the bridge, for `common:capabilities`; optional."""
    capabilities: ClassVar[tuple[str, ...]] = ()
    """What the bridge can do, in words that clients look for; optional."""
    required_modules: ClassVar[tuple[str, ...]] = ()
    """Import names looked for before `setup`; one that is missing ends the start with `missing_package`."""
    zygote_safe: ClassVar[bool] = False
    """Whether `preload` may run in a process that is forked afterwards: it starts no thread, opens no connection."""
    max_concurrency: ClassVar[int] = 1
    """Handlers at a time. Above 1, plain functions run on threads and coroutines on one event loop."""
    dialect: ClassVar[Literal["native", "dspex"]] = "native"
    """How a connection behaves before it opts in to version 2; "dspex" is for drop-in scripts."""

    worker: WorkerInfo = WorkerInfo()
    """The worker around this bridge. Called by: the runtime sets it before `setup`."""

    @classmethod
    def preload(cls) -> None:
        """Import the framework, and do nothing else.

        Called by the zygote, or by the worker before `setup`; once per process. May block. Optional.
        """

    def setup(self, options: dict[str, Any]) -> None:
        """Become ready to work.

        Called by the worker, once, on the main thread, after `preload` and before the first handler. May block; ping is
        answered meanwhile. Optional.

        Args:
            options: the bridge's options from the configuration, as they stand there.

        Raises:
            BridgeError: with its own code; any other exception is reported as `setup_failed`.
        """

    def close(self) -> None:
        """Give back what `setup` took. Called by the worker when it stops in order, never after a crash. Optional."""

    def cleanup(self, session_id: str | None) -> dict[str, Any]:  # noqa: ARG002  # a hook: the signature is for those who override it
        """Forget what belongs to a session, or everything if it is None; resources are the runtime's business.

        Called by the runtime for `common:cleanup`, where handlers run. Optional.

        Returns:
            Fields to add to the reply.
        """
        return {}

    def configure_session(self, session_id: str, settings: Mapping[str, Any]) -> None:
        """Take the settings of a session, in the place of those that it had; empty: it has none any more.

        Called by the runtime, where handlers run, before the first handler of that session and again when they have
        changed. `ctx.settings` has them too, so a bridge that only reads them needs no hook. May be called twice with
        the same settings. Optional.

        Raises:
            BridgeError: they are wrong; it becomes the error of the call, and of each one until they are put right.
        """

    def ping_info(self) -> dict[str, Any]:
        """Return fields to add to `common:ping`.

        Called by the control lane while handlers run: must be thread-safe, must not block. Optional.
        """
        return {}

    def stats(self) -> dict[str, Any]:
        """Return fields to add to `common:get_stats`. As `ping_info`."""
        return {}

    def translate_error(self, error: BaseException) -> BridgeError | None:  # noqa: ARG002  # a hook, as above
        """Give a framework's exception its place in the taxonomy.

        Called by the runtime for everything that a handler raises except BridgeError and Cancelled. Optional.

        Returns:
            The error to report, or None for `handler_error`.
        """
        return None

    def handle_v1(self, command: str, args: Any, v1: V1Context) -> dict[str, Any] | None:  # noqa: ARG002  # a hook, as above
        """Answer a version 1 command (one without a namespace).

        Called by the runtime for bridges of dialect "dspex" only, where handlers run. Optional.

        Args:
            command: its name.
            args: as sent; for this dialect it need not be an object.
            v1: the worker's counters.

        Returns:
            The result, or None if there is no such command.

        Raises:
            Exception: its text becomes the `error` of the reply.
        """
        return None

    # ------------------------------------------------------------ run time

    @property
    def spec(self) -> BridgeSpec:
        """What this bridge offers now, run-time registrations included; functions are bound to it.

        Raises:
            BridgeDeclarationError: the class declares something that can't be exposed.
        """
        found = self.__dict__.get("_spec")
        if isinstance(found, BridgeSpec):
            return found
        compiled = compiled_bridge(type(self))
        with _SPEC_LOCK:
            # Made on first use rather than in __init__, which authors override without calling it.
            spec: BridgeSpec = self.__dict__.setdefault("_spec", compiled.spec.bind(self, compiled.attributes))
        return spec

    def register_command(
        self,
        name: str,
        function: Callable[..., Any],
        *,
        description: str | None = None,
        args: dict[str, Any] | None = None,
        idempotent: bool = False,
        any_args: bool = False,
        replace: bool = False,
    ) -> None:
        """Add a command while running; from any thread. Calls find it at once.

        Args:
            name: of the operation, without the namespace.
            function: a function or bound method; what `@command` says about handlers holds, without `self`.
            description: as for `@command`.
            args: as for `@command`.
            idempotent: as for `@command`.
            any_args: as for `@command`.
            replace: whether to take the place of a command of that name.

        Raises:
            BridgeDeclarationError: the name is taken, or the function can't be exposed.
        """
        place = Place(f"{type(self).__qualname__}.register_command({name!r})", f"{self.name}:{name}", self._namespace())
        note = CommandNote(name, description, args, idempotent, any_args)
        self.spec.add_command(compile_command(note, function, place, skip_first=False), replace=replace)

    def unregister_command(self, name: str) -> None:
        """Remove a command while running; calls of it that run already go on.

        Raises:
            LookupError: there is none of that name.
        """
        self.spec.remove_command(name)

    def register_resource(
        self,
        type_name: str,
        cls: type,
        *,
        policy: Policy | None = None,
        description: str | None = None,
        replace: bool = False,
    ) -> None:
        """Add a resource type while running; from any thread.

        Args:
            type_name: its name, which wins over the one in `@resource`.
            cls: what `@resource` says about classes holds; the decorator itself may be left out.
            policy: as for `@resource`, and by default what is said there.
            description: as `policy`.
            replace: whether to take the place of a type of that name.

        Raises:
            BridgeDeclarationError: the name is taken, or the class can't be exposed.
        """
        noted: ResourceNote = vars(cls).get(RESOURCE_NOTE) or ResourceNote(type_name)
        text = noted.description if description is None else description
        note = ResourceNote(type_name, policy or noted.policy, text)
        spec = compile_resource(note, cls, self.name, self._namespace())
        self.spec.add_resource(spec, replace=replace)

    def unregister_resource(self, type_name: str) -> None:
        """Remove a resource type while running; resources that exist already go on.

        Raises:
            LookupError: there is none of that name.
        """
        self.spec.remove_resource(type_name)

    def _namespace(self) -> dict[str, Any]:
        return class_namespace(type(self))
