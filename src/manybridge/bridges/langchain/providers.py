"""The model providers that LangChain knows by name, and which of their plug-ins are installed here."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, Final

from manybridge.bridge import BridgeError
from manybridge.bridges.common.problems import invalid
from manybridge.protocol.errors import ErrorCode

_SAYS_INSTALL: Final = re.compile(r"pip install `?(?:-U )?([A-Za-z0-9_-]+)")


def known_providers(kind: str = "chat_models") -> dict[str, dict[str, Any]]:
    """Name -> `{package, module, installed}`, for chat models or `embeddings`.

    LangChain publishes its list only in an error's text, so its own table is read; where a later version has it
    elsewhere, the list is empty and LangChain's errors are the ones that are shown.
    """
    # base and not the package: the package's own name is bound to a function in some versions
    module = importlib.import_module(f"langchain.{kind}.base")
    table: Mapping[str, Any] = getattr(module, "_BUILTIN_PROVIDERS", {})
    found = {}
    for name, entry in sorted(table.items()):
        top = str(entry[0]).partition(".")[0]
        found[name] = {"package": top.replace("_", "-"), "module": entry[0], "class": entry[1], "installed": _has(top)}
    return found


def _has(module: str) -> bool:
    return module in sys.modules or find_spec(module) is not None


def check_provider(model: str) -> None:
    """Refuse a provider that LangChain does not know, with those that it knows.

    Raises:
        BridgeError: `invalid_argument`.
    """
    provider, colon, name = model.partition(":")
    if not model.strip():
        raise invalid("model", "expected 'provider:model', such as 'openai:gpt-4o-mini', found an empty text")
    known = known_providers()
    if colon and not name.strip():
        raise invalid("model", f"expected 'provider:model', found {model!r} with no model behind the colon")
    if not known or not colon or provider.replace("-", "_").lower() in known:
        return
    from difflib import get_close_matches

    close = get_close_matches(provider, known, n=2)
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    raise invalid(
        "model",
        f"unknown provider {provider!r} in {model!r}; expected 'provider:model' with one of {', '.join(known)}.{hint}",
        known=list(known),
        close_matches=close,
    )


def missing_package(error: ImportError, model: str) -> BridgeError:
    """`missing_package` with the command that mends it, for LangChain's error about a plug-in."""
    provider = model.partition(":")[0]
    said = _SAYS_INSTALL.search(str(error))
    entry = known_providers().get(provider.replace("-", "_").lower(), {})
    package = said.group(1) if said else entry.get("package") or (error.name or "langchain-" + provider)
    install = f"{sys.executable} -m pip install {package}"
    return BridgeError(
        ErrorCode.MISSING_PACKAGE,
        f"The provider {provider!r} needs the package {package}, which the environment of this bridge does not have. "
        f"Add it to required_packages of this bridge and run `manybridge env sync`, or: {install}",
        details={"package": package, "install": install, "provider": provider},
        type=type(error).__name__,
    )


def settings_known_to(model: str) -> set[str]:
    """The keywords that a model's class takes, aliases included; empty where it can't be told."""
    entry = known_providers().get(model.partition(":")[0].replace("-", "_").lower())
    if entry is None:
        return set()
    try:
        cls = getattr(importlib.import_module(entry["module"]), entry["class"])
    except (ImportError, AttributeError):  # making the model says the same with better words
        return set()
    known: set[str] = set()
    for name, info in getattr(cls, "model_fields", {}).items():
        known |= {name, info.alias or name}
    return known
