"""Which language model serves which call, and with whose key.

A model is never configured globally. Each call finds its settings in this order: the program's own `lm`, the
session's (`dspy:configure_lm` with a session), this worker's default (`dspy:configure_lm` without one), the bridge's
options. The `dspy.LM` objects behind them are shared by equal settings, so that connections are reused.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

from manybridge.bridge import BridgeError
from manybridge.bridges.common.keys import Secrets, demand_own_key, required_variable
from manybridge.bridges.common.sessions import SettingsBySession
from manybridge.bridges.dspy.answers import lm_class
from manybridge.protocol.errors import ErrorCode

MAX_MODELS: Final = 32
"""Models kept open at the same time; each may hold connections. A worker rarely sees more than a few."""


@dataclass(frozen=True, slots=True)
class LMSettings:
    """What it takes to reach one model.

    Attributes:
        model: `provider/model`, as DSPy takes it.
        api_key: the key itself; never shown.
        api_key_env: name of the environment variable that has the key.
        timeout: seconds without an answer, or None for the provider client's own limit.
        cache: whether DSPy may answer from its disk cache. Off by default: an answer from an earlier run, with no
            usage and no request, is a surprise in a service.
        num_retries: how often DSPy repeats a failed request. 0: whoever calls the bridge decides about retries, and
            a retry that waits 3 s inside a worker looks like a slow model.
    """

    model: str
    api_key: str | None = field(default=None, repr=False)
    api_key_env: str | None = None
    api_base: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    timeout: float | None = None
    cache: bool = False
    num_retries: int = 0

    @property
    def provider(self) -> str:
        """The part before the slash; DSPy takes `openai` where there is none."""
        return self.model.split("/", 1)[0] if "/" in self.model else "openai"

    def describe(self) -> dict[str, Any]:
        """The settings for a reply: all but the key, and whether there is one."""
        shown = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "api_key"}
        return {**{name: value for name, value in shown.items() if value is not None}, "has_key": self.has_key}

    @property
    def has_key(self) -> bool:
        """Whether a key was given, by itself or by a variable that is set."""
        return bool(self.api_key or (self.api_key_env and os.environ.get(self.api_key_env)))


SETTING_NAMES: Final = tuple(f.name for f in fields(LMSettings))


def overlay(base: LMSettings | None, changes: Mapping[str, Any], *, trusted: bool) -> LMSettings:
    """Put a caller's changes over what is configured.

    The key and the address go with the provider: another provider's model inherits neither. An untrusted change may
    not send a configured key to an address of the caller's choice, so a new `api_base` must bring its own `api_key`.

    Args:
        changes: some of `SETTING_NAMES`; None means "not given".
        trusted: whether they come from the operator's options and not from a caller.

    Raises:
        BridgeError: `invalid_argument` (no model, unknown setting), `permission_denied` (the rule above).
    """
    given = {name: value for name, value in changes.items() if value is not None}
    if isinstance(given.get("api_key"), str):
        given["api_key"] = _one_word(given["api_key"], "api_key")
    unknown = sorted(set(given) - set(SETTING_NAMES))
    if unknown:
        raise _invalid(f"unknown language model setting {unknown[0]!r}; known: {', '.join(SETTING_NAMES)}")
    if "model" not in given and base is None:
        raise _invalid("model: expected a string such as 'openai/gpt-4o-mini', found nothing")
    start = base or LMSettings(model=given["model"])
    if _names_another_key(given):
        start = replace(start, api_key=None)
    changed = replace(start, **given)
    if base is not None and changed.provider != base.provider:
        changed = replace(LMSettings(model=changed.model, cache=base.cache), **given)
    if not trusted:
        demand_own_key(given.get("api_base"), base.api_base if base else None, given.get("api_key"), "api_base")
    return changed


class LanguageModels(SettingsBySession[LMSettings]):
    """Owner of the settings per session and of the open models. One per worker.

    Args:
        default: from the bridge's options; None if they name no model.
    """

    def __init__(self, secrets: Secrets, default: LMSettings | None = None) -> None:
        super().__init__(default)
        self._secrets = secrets
        self._open: OrderedDict[LMSettings, Any] = OrderedDict()
        if default is not None:
            secrets.add(default.api_key)

    def configure(
        self,
        changes: Mapping[str, Any],
        session_id: str | None,
        check: Callable[[LMSettings], object] = lambda _settings: None,
    ) -> LMSettings:
        """Set the model of a session, or of every call without its own where `session_id` is None.

        Args:
            changes: some of `SETTING_NAMES`.
            session_id: for whom.
            check: raises what is wrong with the new settings; then all stays as it was.
        """
        base = self.base(session_id)
        given = {name: value for name, value in changes.items() if value is not None}
        settings = overlay(base, given, trusted=False)
        if session_id:
            before = self.changes(session_id)
            if base is not None and settings.provider != base.provider:
                before = {name: value for name, value in before.items() if name == "cache"}
            if _names_another_key(given):
                before = {name: value for name, value in before.items() if name != "api_key"}
            given = {**before, **given}
            settings = overlay(self.default, given, trusted=False)
        self._secrets.add(settings.api_key)
        check(settings)
        self.put(settings, session_id, given)
        return settings

    def configure_session(self, changes: Mapping[str, Any], session_id: str) -> None:
        """Set the model of a session as if nothing had been said for it before; without changes it has none.

        Raises:
            BridgeError: as `overlay`. The session is as it was.
        """
        settings = overlay(self.default, changes, trusted=False) if changes else None
        self.forget(session_id)
        if settings is not None:
            self._secrets.add(settings.api_key)
            self.put(settings, session_id, dict(changes))

    def settings_for(self, session_id: str | None, own: Mapping[str, Any] | None = None) -> LMSettings:
        """Find the settings for one call.

        Args:
            own: the program's own changes, if it has some.

        Raises:
            BridgeError: `config_error`, no model is configured anywhere.
        """
        base = self.base(session_id)
        if own:
            return overlay(base, own, trusted=False)
        if base is None:
            raise BridgeError(
                ErrorCode.CONFIG_ERROR,
                'No language model is configured. Set options = { model = "provider/model" } of this bridge, or '
                "call dspy:configure_lm, or give the program an lm of its own.",
            )
        return base

    def open(self, dspy: Any, settings: LMSettings) -> Any:
        """Return the `dspy.LM` of these settings, made once and kept while it is in use.

        Raises:
            BridgeError: `missing_variable`, or `invalid_argument` where DSPy refuses the settings.
        """
        if settings in self._open:
            self._open.move_to_end(settings)
            return self._open[settings]
        model = self._make(dspy, settings)
        self._open[settings] = model
        if len(self._open) > MAX_MODELS:
            _close(self._open.popitem(last=False)[1])
        return model

    def _make(self, dspy: Any, settings: LMSettings) -> Any:
        key = settings.api_key
        if key is None and settings.api_key_env:
            key = _one_word(required_variable(settings.api_key_env), f"the environment variable {settings.api_key_env}")
            self._secrets.add(key)
        optional = {"api_key": key, "api_base": settings.api_base, "timeout": settings.timeout}
        try:
            return lm_class(dspy)(
                settings.model,
                temperature=settings.temperature,
                max_tokens=settings.max_tokens,
                cache=settings.cache,
                num_retries=settings.num_retries,
                **{name: value for name, value in optional.items() if value is not None},
            )
        except (ValueError, TypeError) as error:
            raise _invalid(self._secrets.clean(f"language model: {error}")) from error

    def close(self) -> None:
        """Close every connection."""
        while self._open:
            _close(self._open.popitem()[1])


def _names_another_key(given: Mapping[str, Any]) -> bool:
    """Whether a variable is to take the place of a key that was given by itself, which would win otherwise."""
    return "api_key_env" in given and "api_key" not in given


def _one_word(key: str, where: str) -> str:
    """A key without the line end that a file has. Errors of a client show others escaped, where no one knows them.

    Raises:
        BridgeError: `invalid_argument`, it can't be sent.
    """
    word = key.strip()
    if not word.isprintable() or " " in word:
        raise _invalid(f"{where}: expected a key in one line and one word")
    return word


def _close(model: Any) -> None:
    close = getattr(model, "close", None)
    if close is not None:
        close()


def _invalid(message: str) -> BridgeError:
    return BridgeError(ErrorCode.INVALID_ARGUMENT, message)
