"""Which adapter speaks for which framework."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from inspect import iscoroutinefunction
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from manybridge.adapters.base import Adapter, AsyncCaller, AsyncGenericAdapter, Caller, GenericAdapter

GROUP: Final = "manybridge.adapters"
"""Entry points of this group name an `AdapterPair`; the entry point's name is the framework's."""


class AdapterPair(NamedTuple):
    """The two adapters of one framework. Each is called with the host and the bridge's registered name."""

    blocking: Callable[[Caller, str], Adapter]
    asynchronous: Callable[[AsyncCaller, str], Adapter]


BUNDLED: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "dspy": ("dspy:DSPyAdapter", "dspy_async:AsyncDSPyAdapter"),
        "langchain": ("langchain:LangChainAdapter", "langchain_async:AsyncLangChainAdapter"),
        "transformers": ("transformers:TransformersAdapter", "transformers_async:AsyncTransformersAdapter"),
        "python": ("python:PythonAdapter", "python_async:AsyncPythonAdapter"),
    }
)
"""Module of this package and class; imported when first asked for."""

_registered: dict[str, AdapterPair] = {}


def register_adapter(framework: str, pair: AdapterPair) -> None:
    """Make an adapter known in this process; it takes the place of a bundled one or an entry point."""
    _registered[framework] = pair


def adapter_pair(framework: str) -> AdapterPair:
    """Find the adapters of a framework: registered, by entry point, bundled, else the generic ones."""
    if framework not in _registered:
        found = _from_entry_points(framework) or _bundled(framework)
        if found is None:
            return _generic(framework)
        _registered[framework] = found
    return _registered[framework]


def _from_entry_points(framework: str) -> AdapterPair | None:
    for entry in entry_points(group=GROUP, name=framework):
        loaded: Any = entry.load()
        return loaded if isinstance(loaded, AdapterPair) else AdapterPair(*loaded)
    return None


def _bundled(framework: str) -> AdapterPair | None:
    return AdapterPair(*map(_load, BUNDLED[framework])) if framework in BUNDLED else None


def _load(reference: str) -> Callable[[Any, str], Adapter]:
    module, _, name = reference.partition(":")
    found: Callable[[Any, str], Adapter] = getattr(import_module(f"manybridge.adapters.{module}"), name)
    return found


def _generic(framework: str) -> AdapterPair:
    return AdapterPair(
        lambda ml, bridge: GenericAdapter(ml, bridge, framework),
        lambda ml, bridge: AsyncGenericAdapter(ml, bridge, framework),
    )


def adapter_for(framework: str) -> Callable[[Any, str], Any]:
    """Return what makes an adapter of a host of either kind and a bridge's name; for `get_adapter`."""
    pair = adapter_pair(framework)

    def make(ml: Any, bridge: str) -> Any:
        return (pair.asynchronous if iscoroutinefunction(ml.call) else pair.blocking)(ml, bridge)

    return make


def make_adapter(ml: Caller, bridge: str, framework: str | None = None) -> Any:
    """Make the adapter of a bridge for a blocking host.

    Args:
        ml: the host.
        bridge: the bridge's registered name.
        framework: its framework, where that is another name (two bridges may run the same framework).
    """
    return adapter_pair(framework or bridge).blocking(ml, bridge)


def make_async_adapter(ml: AsyncCaller, bridge: str, framework: str | None = None) -> Any:
    """Make the adapter of a bridge for `AsyncMLBridge`. As `make_adapter`."""
    return adapter_pair(framework or bridge).asynchronous(ml, bridge)
