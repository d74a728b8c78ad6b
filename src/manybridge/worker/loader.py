"""Bringing a bridge to life: its code, its framework, its setup."""

from __future__ import annotations

from enum import StrEnum
from time import monotonic
from typing import Any

from manybridge.bridge import Bridge, BridgeError, WorkerInfo
from manybridge.bridge.loading import BUNDLED, check_required_modules, load_bridge, missing_modules
from manybridge.protocol.errors import ErrorCode
from manybridge.worker.failures import error_text, hide_options
from manybridge.worker.interrupt import Terminated


class LoadState(StrEnum):
    """How far the bridge is."""

    STARTING = "starting"
    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"


STARTING, LOADING, READY, FAILED = LoadState
"""For the path of every call, see `calls.Stage`."""


class Loader:
    """Owner of the bridge instance. `load` runs once, on the main thread.

    Args:
        reference: what `load_bridge` resolves.
        options: handed to `setup`.
        info: who this worker is.
        bridge_class: already imported by a zygote, or None.
    """

    def __init__(
        self, reference: str, options: dict[str, Any], info: WorkerInfo, bridge_class: type[Bridge] | None = None
    ) -> None:
        self.reference = reference
        self._options = options
        hide_options(options)
        self._info = info
        self.bridge_class = bridge_class
        self.bridge: Bridge | None = None
        self.state = LoadState.STARTING
        self.error: BaseException | None = None
        """Why the state is `failed`."""
        self.load_seconds = 0.0

    def find_class(self) -> None:
        """Import the bridge's own module if it is ours, which costs nothing; a failure shows up in `load`.

        Somebody else's may import its framework with the module, and the first ping must not wait for that.
        """
        if self.bridge_class is not None or self.reference in BUNDLED:
            try:
                self.bridge_class = self.bridge_class or load_bridge(self.reference)
                self.bridge = self._instance()
            except BaseException as error:  # noqa: BLE001  # kept: the first call gets it as its answer
                self._fail(error)

    def load(self) -> None:
        """Import, construct and set up the bridge; the outcome is in `state` and `error`.

        Raises:
            Terminated: the worker is to end; nothing else is ever raised.
        """
        if self.state in (LoadState.READY, LoadState.FAILED):
            return
        self.state = LoadState.LOADING
        begun = monotonic()
        try:
            if self.bridge_class is None:
                self.bridge_class = load_bridge(self.reference)
            bridge = self.bridge or self._instance()
            self.bridge = bridge
            check_required_modules(self.bridge_class)
            self.bridge_class.preload()
            bridge.setup(self._options)
        except Terminated:
            raise
        except BaseException as error:  # noqa: BLE001  # SystemExit from a framework's import included
            self._fail(error)
        else:
            self.state = LoadState.READY
        self.load_seconds = monotonic() - begun

    def failure(self) -> BridgeError:
        """Why the bridge can't serve, in words that say what to do."""
        error = self.error
        if isinstance(error, BridgeError):
            return error
        assert error is not None
        kind = type(error).__qualname__
        if isinstance(error, ModuleNotFoundError) and error.name:
            return missing_modules(self.bridge_class.name if self.bridge_class else self.reference, [error.name])
        code = ErrorCode.OUT_OF_MEMORY if isinstance(error, MemoryError) else ErrorCode.SETUP_FAILED
        failure = BridgeError(
            code,
            f"The bridge {self.reference!r} could not be set up: {kind}: {error_text(error)}",
            type=kind,
        )
        failure.__cause__ = error
        return failure

    def _instance(self) -> Bridge:
        assert self.bridge_class is not None
        bridge = self.bridge_class()
        bridge.worker = self._info
        return bridge

    def _fail(self, error: BaseException) -> None:
        self.error = error
        self.state = LoadState.FAILED
