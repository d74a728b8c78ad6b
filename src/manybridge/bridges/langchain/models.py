"""Which model serves which call, and with whose key.

A call finds its settings in this order: its own, the resource's, the session's (`langchain:configure_model` with a
session), this worker's default (the same without one), the bridge's options. The chat models behind them are shared by
equal settings, so that connections are reused; LangChain's clients live on the worker's one event loop.
"""

from __future__ import annotations

import json
import os
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

from manybridge.bridge import BridgeError
from manybridge.bridges.common.keys import KEY_VARIABLE, Secrets, demand_own_key, required_variable
from manybridge.bridges.common.problems import invalid
from manybridge.bridges.common.sessions import SettingsBySession
from manybridge.bridges.langchain.providers import check_provider, missing_package, settings_known_to
from manybridge.protocol.errors import ErrorCode

MAX_MODELS: Final = 32
"""Models kept open at the same time; each may hold connections. A worker rarely sees more than a few."""

CALLER_PARAMETERS: Final = (
    "frequency_penalty", "logprobs", "n", "presence_penalty", "reasoning_effort", "seed", "stop", "top_k",
    "top_logprobs", "top_p", "verbosity",
)  # fmt: skip
"""What a caller may set besides the named settings. Not everything that a plug-in takes: an address, a proxy or a
header among the parameters would send the configured key where the caller wants."""


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """What it takes to reach one model.

    Attributes:
        model: `provider:model`, as LangChain's `init_chat_model` takes it.
        api_key: the key itself; never shown.
        api_key_env: name of the environment variable that has the key. Without either the plug-in looks for its own
            (`OPENAI_API_KEY`, ...), which `required_env` brings into the worker.
        base_url: address of an endpoint.
        timeout: seconds without an answer, or None for the provider client's own limit.
        max_retries: how often the provider's client repeats a failed request. 0: whoever calls the bridge decides.
        parameters: further keywords of the plug-in's class, as JSON text.
    """

    model: str
    api_key: str | None = field(default=None, repr=False)
    api_key_env: str | None = None
    base_url: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    timeout: float | None = None
    max_retries: int = 0
    parameters: str = "{}"

    @property
    def provider(self) -> str:
        """The part before the colon; LangChain guesses where there is none."""
        return self.model.split(":", 1)[0] if ":" in self.model else ""

    @property
    def has_key(self) -> bool:
        """Whether a key was given, by itself or by a variable that is set."""
        return bool(self.api_key or (self.api_key_env and os.environ.get(self.api_key_env)))

    def describe(self) -> dict[str, Any]:
        """The settings for a reply: all but the key, and whether there is one."""
        shown = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "api_key"}
        shown["parameters"] = json.loads(self.parameters) or None
        return {**{name: value for name, value in shown.items() if value is not None}, "has_key": self.has_key}


SETTING_NAMES: Final = tuple(f.name for f in fields(ModelSettings))
_KINDS: Final[dict[str, tuple[type | tuple[type, ...], str]]] = {
    "model": (str, "a text such as 'openai:gpt-4o-mini'"),
    "api_key": (str, "a text"),
    "api_key_env": (str, "the name of a variable"),
    "base_url": (str, "an address"),
    "temperature": ((int, float), "a number"),
    "max_tokens": (int, "a whole number"),
    "timeout": ((int, float), "seconds"),
    "max_retries": (int, "a whole number"),
    "parameters": (dict, "an object"),
}


def check_settings(changes: Mapping[str, Any], where: str = "model", *, trusted: bool = False) -> dict[str, Any]:
    """Return what was given, None left out; pure.

    Raises:
        BridgeError: `invalid_argument` (unknown setting, wrong type), `permission_denied` (a parameter that only the
            configuration may set).
    """
    given = {name: value for name, value in changes.items() if value is not None}
    for name, value in given.items():
        if name not in _KINDS:
            raise invalid(f"{where}.{name}", f"unknown setting of a model; known: {', '.join(SETTING_NAMES)}")
        kind, said = _KINDS[name]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise invalid(f"{where}.{name}", f"expected {said}")
    for name in given.get("parameters", {}):
        if not trusted and name not in CALLER_PARAMETERS:
            raise BridgeError(
                ErrorCode.PERMISSION_DENIED,
                f"{where}.parameters.{name}: a call may set {', '.join(CALLER_PARAMETERS)}; everything else belongs "
                f"into the bridge's options.",
                details={"argument": f"{where}.parameters.{name}"},
            )
    return given


def overlay(
    base: ModelSettings | None, changes: Mapping[str, Any], *, trusted: bool, where: str = "model"
) -> ModelSettings:
    """Put a caller's changes over what is configured.

    The key and the address go with the provider: another provider's model inherits neither. An untrusted change may
    not send a configured key to an address of the caller's choice, so a new `base_url` must bring its own `api_key`.

    Raises:
        BridgeError: as `check_settings`, `invalid_argument` (no model), `permission_denied` (the rule above).
    """
    given = check_settings(changes, where, trusted=trusted)
    if "model" not in given and base is None:
        raise invalid(where, "expected 'provider:model', such as 'openai:gpt-4o-mini'; none is configured")
    if "parameters" in given:
        before = json.loads(base.parameters) if base else {}
        given["parameters"] = json.dumps({**before, **given["parameters"]}, sort_keys=True)
    start = base or ModelSettings(model=given["model"])
    changed = replace(start, **given)
    if base is not None and changed.provider != base.provider:
        changed = replace(ModelSettings(model=changed.model), **given)
    if not trusted:
        address = base.base_url if base else None
        demand_own_key(given.get("base_url"), address, given.get("api_key"), f"{where}.base_url")
    if not trusted and given.get("api_key_env") not in (None, base.api_key_env if base else None):
        _allow_variable(given["api_key_env"], where)
    return changed


def _allow_variable(name: str, where: str) -> None:
    """A caller may name a variable that looks like a key's, not `PATH`: its value goes to the provider."""
    if not KEY_VARIABLE.search(name):
        raise BridgeError(
            ErrorCode.PERMISSION_DENIED,
            f"{where}.api_key_env: {name!r} is not the name of a key; expected one that ends in API_KEY or TOKEN.",
        )


class Models(SettingsBySession[ModelSettings]):
    """Owner of the settings per session and of the open chat models. One per worker; any thread may ask.

    Args:
        default: from the bridge's options; None if they name no model.
    """

    def __init__(self, secrets: Secrets, default: ModelSettings | None = None) -> None:
        super().__init__(default)
        self._secrets = secrets
        self._open: OrderedDict[ModelSettings, Any] = OrderedDict()
        self._lock = threading.Lock()
        if default is not None:
            secrets.add(default.api_key)

    def configure(self, changes: Mapping[str, Any], session_id: str | None) -> ModelSettings:
        """Set the model of a session, or of every call without its own where `session_id` is None."""
        base = self.base(session_id)
        given = {name: value for name, value in changes.items() if value is not None}
        settings = overlay(base, given, trusted=False)
        if session_id:
            before = self.changes(session_id) if base is None or settings.provider == base.provider else {}
            if "parameters" in before and "parameters" in given:
                given["parameters"] = {**before["parameters"], **given["parameters"]}
            given = {**before, **given}
            settings = overlay(self.default, given, trusted=False)
        self._secrets.add(settings.api_key)
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

    def settings_for(
        self, session_id: str | None, *changes: Mapping[str, Any] | None, where: str = "model"
    ) -> ModelSettings:
        """Find the settings for one call; later `changes` win.

        Raises:
            BridgeError: `config_error`, no model is configured anywhere; or as `overlay`.
        """
        settings = self.base(session_id)
        for change in changes:
            if change:
                settings = overlay(settings, change, trusted=False, where=where)
                self._secrets.add(settings.api_key)
        if settings is None:
            raise BridgeError(
                ErrorCode.CONFIG_ERROR,
                'No model is configured. Set options = { model = "provider:model" } of this bridge, or call '
                "langchain:configure_model, or name a model where it is used.",
            )
        return settings

    def open(self, settings: ModelSettings) -> Any:
        """Return the chat model of these settings, made once and kept while it is in use.

        Raises:
            BridgeError: `missing_variable`, `missing_package`, or `invalid_argument` where the plug-in refuses.
        """
        with self._lock:
            found = self._open.get(settings)
            if found is None:
                found = self._open[settings] = self._make(settings)
                if len(self._open) > MAX_MODELS:
                    self._open.popitem(last=False)
            self._open.move_to_end(settings)
            return found

    def _make(self, settings: ModelSettings) -> Any:
        from langchain.chat_models import init_chat_model

        check_provider(settings.model)
        given = self._keywords(settings)
        try:
            return init_chat_model(settings.model, **given)
        except ImportError as error:
            raise missing_package(error, settings.model) from error
        except Exception as error:
            raise self._refused(error, settings) from error

    def _keywords(self, settings: ModelSettings) -> dict[str, Any]:
        optional = {
            "api_key": self.key_of(settings), "base_url": settings.base_url, "temperature": settings.temperature,
            "max_tokens": settings.max_tokens, "timeout": settings.timeout,
        }  # fmt: skip
        given = {name: value for name, value in optional.items() if value is not None}
        # Asked for by us and not by the caller, so only where the plug-in has them. Usage of a stream is told by
        # OpenAI's plug-in only on request where the address is not OpenAI's own.
        quiet = {"max_retries": settings.max_retries, "stream_usage": True}
        known = settings_known_to(settings.model)
        given.update((name, value) for name, value in quiet.items() if name in known)
        return {**given, **json.loads(settings.parameters)}

    def key_of(self, settings: ModelSettings) -> str | None:
        """The key of these settings, from now on kept out of every text.

        Raises:
            BridgeError: `missing_variable`.
        """
        key = settings.api_key
        if key is None and settings.api_key_env:
            key = required_variable(settings.api_key_env)
        self._secrets.add(key)
        return key

    def _refused(self, error: Exception, settings: ModelSettings) -> BridgeError:
        name = type(error).__name__
        text = self._secrets.clean(str(error)).splitlines()[0] if str(error) else name
        if "api_key" in str(error) and not settings.has_key:
            return BridgeError(
                ErrorCode.MISSING_VARIABLE,
                f"The model {settings.model!r} needs a key: set api_key_env to the variable that has it, and list that "
                f"variable in required_env of this bridge. The plug-in says: {text}",
                details={"model": settings.model},
                type=name,
            )
        return BridgeError(
            ErrorCode.INVALID_ARGUMENT,
            f"model {settings.model!r}: {text}",
            details={"model": settings.model},
            type=name,
        )

    def close(self) -> None:
        """Forget every model; their connections end with the process."""
        with self._lock:
            self._open.clear()
