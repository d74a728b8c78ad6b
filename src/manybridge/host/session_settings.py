"""What a session is configured with: checked, kept without keys, and handed to workers ahead of its calls.

A setting whose name is a bridge's is for that bridge. Each time it changes it gets a number; a worker that was not told
of that number yet is told right before the session's next call there, on the same stream, so nobody waits for it.
A key that a call configured is remembered in this process and nowhere else: what is kept has `***` in its place.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from manybridge.errors import InvalidArgumentError, SessionError
from manybridge.host.arguments import checked_args, wrong_argument
from manybridge.host.kept_secrets import MASK, is_secret, secret_paths
from manybridge.protocol.errors import ErrorCode
from manybridge.store.records import changed_settings

MAX_BYTES: Final = 64 * 1024
"""Of all settings of a session as JSON: they go to every worker that serves it, and are read with every listing. A
model with all its parameters takes a few hundred bytes."""

_revisions: Final = itertools.count(1)


@dataclass(frozen=True, slots=True)
class HandedSettings:
    """The settings of one session for one bridge, as workers are given them."""

    session_id: str
    values: Mapping[str, Any]
    revision: int
    """Different for all that ever were in this process, so that a session of the same name is not taken for another."""


def checked_settings(settings: Mapping[str, Any] | None, bridges: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings that can be kept.

    Args:
        settings: as a caller gave them; None as a value removes one.
        bridges: whose names mean something there.

    Raises:
        InvalidArgumentError: they are no mapping, no JSON, too large, hold a key, or are for a bridge and no object.
    """
    checked = checked_args(settings, "settings")
    for name, value in checked.items():
        if not isinstance(name, str):
            raise wrong_argument("settings", "names that are strings", name)
        if name in bridges and value is not None and not isinstance(value, Mapping):
            raise wrong_argument(f"settings.{name}", f"an object with settings for the bridge {name}", value)
    try:
        copied: dict[str, Any] = json.loads(written := json.dumps(checked, allow_nan=False))
        path = next(secret_paths(copied, "settings"), None)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidArgumentError(f"settings: expected what JSON can carry: {error}") from None
    if path is not None:
        text = f"{path}: a key is not kept with a session; give the name of its variable, for example in api_key_env"
        raise InvalidArgumentError(text, details={"argument": path})
    if len(written) > MAX_BYTES:
        raise wrong_argument("settings", f"at most {MAX_BYTES} bytes of JSON", settings, f"{len(written)}")
    return copied


class SettingsOfSession:
    """Owner of the settings of one session.

    Args:
        session_id: whose they are.
        kept: as they are kept.
    """

    def __init__(self, session_id: str, kept: Mapping[str, Any] | None = None) -> None:
        self.kept: Mapping[str, Any] = dict(kept or {})
        """As callers and the store see them."""
        self._session_id = session_id
        self._secrets: dict[str, dict[str, Any]] = {}
        self._handed: dict[str, HandedSettings] = {}

    def for_bridge(self, bridge: str) -> HandedSettings | None:
        """Return what a worker of a bridge is to be given; None where there never was anything.

        Raises:
            SessionError: `config_error`: a key is missing, or they are no object.
        """
        handed = self._handed.get(bridge)
        if handed is None and bridge in self.kept:
            handed = self._handed[bridge] = HandedSettings(self._session_id, self._whole(bridge), next(_revisions))
        return handed

    def is_incomplete(self, bridge: str) -> bool:
        """Whether a key is missing that was given to a host before this one."""
        section = self.kept.get(bridge)
        if not isinstance(section, Mapping):
            return False
        known = self._secrets.get(bridge, {})
        return any(value == MASK and name not in known for name, value in section.items())

    def replace(self, kept: Mapping[str, Any]) -> None:
        """The settings are others now; bridges whose own have not changed notice nothing."""
        before, self.kept = self.kept, dict(kept)
        for bridge in before.keys() | kept.keys():
            if before.get(bridge) != kept.get(bridge):
                self.changed(bridge)

    def change(self, changes: Mapping[str, Any]) -> None:
        """Replace some; None as a value removes one."""
        self.replace(changed_settings(self.kept, changes))

    def without_secrets(
        self, bridge: str, section: Mapping[str, Any], args: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Take a bridge's new settings apart: what may be kept and shown, and the secrets.

        Args:
            bridge: whose they are.
            section: as a call's result told them, with `***` for a secret that was an argument of it, or is known.
            args: of that call.
        """
        known, shown, secrets = self._secrets.get(bridge, {}), dict(section), {}
        for name, value in section.items():
            if value == MASK:
                secrets[name] = args.get(name, known.get(name))
            elif is_secret(name, value):
                shown[name], secrets[name] = MASK, value
        return shown, {name: value for name, value in secrets.items() if value is not None}

    def remember_secrets(self, bridge: str, secrets: Mapping[str, Any]) -> None:
        """Keep secrets in memory, in the place of those before."""
        self._secrets[bridge] = dict(secrets)
        self.changed(bridge)

    def changed(self, bridge: str) -> None:
        """Have every worker of a bridge be told anew."""
        had = self._handed.pop(bridge, None)
        if bridge not in self.kept and had is not None:
            self._handed[bridge] = HandedSettings(self._session_id, {}, next(_revisions))

    def forget_at(self, bridge: str) -> None:
        """What a worker may have been told was not kept: have it be told what is."""
        self._handed.pop(bridge, None)
        if bridge not in self.kept:
            self._handed[bridge] = HandedSettings(self._session_id, {}, next(_revisions))

    def _whole(self, bridge: str) -> Mapping[str, Any]:
        section = self.kept[bridge]
        details = {"session": self._session_id, "bridge": bridge}
        if not isinstance(section, Mapping):
            text = f'session "{self._session_id}": its settings for the bridge {bridge} are no object'
            raise SessionError(text, code=ErrorCode.CONFIG_ERROR, retryable=False, details=details)
        if self.is_incomplete(bridge):
            text = (
                f'session "{self._session_id}" was configured for the bridge {bridge} with a key, which only the host '
                "that was given it knows; configure it again, best with the name of the key's variable (api_key_env)"
            )
            raise SessionError(text, code=ErrorCode.CONFIG_ERROR, retryable=False, details=details)
        known = self._secrets.get(bridge, {})
        return {name: known[name] if value == MASK else value for name, value in section.items()}
