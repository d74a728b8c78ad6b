"""Settings of sessions: they come ahead of the calls that need them, and reach the bridge where its handlers run."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from manybridge.bridge import Bridge
from manybridge.worker.calls import WorkerCall


class SessionSettings:
    """Owner of what the client gave to sessions in this worker.

    They are kept by whoever reads the input, so that a call that was sent after them finds them on whichever thread it
    runs, and are given to the bridge by the first call that needs them.
    """

    def __init__(self) -> None:
        self._sessions: dict[str, _Settings] = {}

    def keep(self, session_id: str, settings: Mapping[str, Any]) -> None:
        """Note the settings of a session, in the place of those before. Any thread."""
        self._sessions[session_id] = _Settings(settings)

    def forget(self, session_id: str | None) -> None:
        """Drop those of a session, or of all.

        Settings that no call has needed yet came behind the request to clean up, which had to wait for its turn: they
        are a new beginning, and stay.
        """
        for id in list(self._sessions) if session_id is None else [session_id]:
            found = self._sessions.get(id)
            if found is not None and found.taken:
                del self._sessions[id]

    def apply(self, call: WorkerCall, bridge: Bridge) -> None:
        """Make sure that the bridge and the call have the settings of the call's session.

        Raises:
            BridgeError: the bridge does not take them. It is asked again by the next call.
        """
        session_id = call.request.session_id
        found = None if session_id is None else self._sessions.get(session_id)
        if found is None or session_id is None:
            return
        with found.lock:
            if not found.taken:
                bridge.configure_session(session_id, found.values)
                found.taken = True
        call.settings = found.values


class _Settings:
    """Those of one session, as the client gave them last."""

    __slots__ = ("lock", "taken", "values")

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values: Final = MappingProxyType(dict(values))
        self.lock: Final = threading.Lock()
        """Two calls of one session can run at a time where a tool of the host makes the second."""
        self.taken = False
