"""Settings that a session may have of its own.

A session has *changes*: what its callers said. What holds for it is made of the default and these changes, so that
every worker that is told them comes to the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from manybridge.bridge import BridgeError, CommandSpec, Context, WorkerInfo
from manybridge.bridges.common.keys import MASK, MIN_SECRET_LENGTH
from manybridge.protocol.errors import ErrorCode

S = TypeVar("S")


class SettingsBySession(Generic[S]):
    """The settings of each session that has some, and those of everybody else. Owned by the bridge.

    Args:
        default: from the bridge's options; None if they have none.
    """

    def __init__(self, default: S | None = None) -> None:
        self.default = default
        self._sessions: dict[str, S] = {}
        self._changes: dict[str, Mapping[str, Any]] = {}

    def base(self, session_id: str | None) -> S | None:
        """What holds for a call of a session, or of nobody's; None where nothing is configured."""
        return self._sessions.get(session_id, self.default) if session_id else self.default

    def put(self, settings: S, session_id: str | None, changes: Mapping[str, Any]) -> None:
        """Configure a session, or every call without settings of its own where `session_id` is None.

        Args:
            settings: what holds.
            session_id: for whom.
            changes: what made them of the default.
        """
        if session_id:
            self._sessions[session_id], self._changes[session_id] = settings, changes
        else:
            self.default = settings

    def changes(self, session_id: str | None) -> Mapping[str, Any]:
        """What was said for a session so far."""
        return self._changes.get(session_id, {}) if session_id else {}

    def told(self, session_id: str | None) -> dict[str, Any]:
        """The same for a reply: `***` in the place of a key."""
        return {
            name: MASK if name == "api_key" and len(value) >= MIN_SECRET_LENGTH else value
            for name, value in self.changes(session_id).items()
        }

    def forget(self, session_id: str) -> bool:
        """Drop a session's settings; whether it had any."""
        self._changes.pop(session_id, None)
        return self._sessions.pop(session_id, None) is not None


def checked_session_settings(spec: CommandSpec, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Check the settings of a session as the arguments of the command that configures one are checked.

    Raises:
        BridgeError: as that command would.
    """
    if "session_id" in settings:
        raise BridgeError(
            ErrorCode.INVALID_ARGUMENT, "session_id: it is no setting; they are of the session they are in"
        )
    given = spec.validate(dict(settings))
    return {name: given[name] for name in settings if name in given}


def of_session(error: BridgeError, bridge: str) -> BridgeError:
    """Say of an error in settings where they are, because the call that meets it did not send them."""
    text = f"settings of the session for {bridge}: {error.message}"
    return BridgeError(error.code, text, retryable=error.retryable, details=error.details)


def configured_session(session_id: str | None, ctx: Context, worker: WorkerInfo) -> str | None:
    """Return the session that a call configures.

    Raises:
        BridgeError: `invalid_argument`: it is not the call's own, and a host would not learn of it.
    """
    if worker.mode == "host" and session_id not in (None, "", ctx.session_id):
        text = "session_id: a call configures the session that it is made in; make it there (session=...)"
        raise BridgeError(ErrorCode.INVALID_ARGUMENT, text)
    return session_id or ctx.session_id
