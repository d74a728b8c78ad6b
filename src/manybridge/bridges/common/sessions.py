"""Settings that a session may have of its own."""

from __future__ import annotations

from typing import Generic, TypeVar

S = TypeVar("S")


class SettingsBySession(Generic[S]):
    """The settings of each session that has some, and those of everybody else. Owned by the bridge.

    Args:
        default: from the bridge's options; None if they have none.
    """

    def __init__(self, default: S | None = None) -> None:
        self.default = default
        self._sessions: dict[str, S] = {}

    def base(self, session_id: str | None) -> S | None:
        """What holds for a call of a session, or of nobody's; None where nothing is configured."""
        return self._sessions.get(session_id, self.default) if session_id else self.default

    def put(self, settings: S, session_id: str | None) -> None:
        """Configure a session, or every call without settings of its own where `session_id` is None."""
        if session_id:
            self._sessions[session_id] = settings
        else:
            self.default = settings

    def forget(self, session_id: str) -> bool:
        """Drop a session's settings; whether it had any."""
        return self._sessions.pop(session_id, None) is not None
