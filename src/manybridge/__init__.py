"""manybridge: one bridge from any program to many machine-learning frameworks.

The names below are loaded on first use: a worker imports this package too, and a worker must stay standard library
only and start in milliseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from manybridge.errors import ManybridgeError
    from manybridge.host.bridge import AsyncMLBridge
    from manybridge.host.sync import MLBridge

__version__ = "0.1.0"

__all__ = ["AsyncMLBridge", "MLBridge", "ManybridgeError", "__version__"]

_HOMES = {
    "MLBridge": "manybridge.host.sync",
    "AsyncMLBridge": "manybridge.host.bridge",
    "ManybridgeError": "manybridge.errors",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'manybridge' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(home), name)
