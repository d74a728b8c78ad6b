"""Starting the host that a test wants, from whatever names its bridges."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from manybridge.bridge import Bridge
from manybridge.host.sync import MLBridge
from manybridge.testing.memory import InMemoryMLBridge
from manybridge.testing.problems import KitError


def start_host(bridges: Any, *, real: bool = False) -> MLBridge:
    """Start a host.

    Args:
        bridges: a class; name -> class or configuration; or, for a real host, whatever `MLBridge` takes.
        real: with worker processes.

    Raises:
        KitError: a class that no worker process could find.
        ConfigError: the configuration is wrong.
    """
    if not real:
        return InMemoryMLBridge(bridges if bridges is not None else {})
    if isinstance(bridges, type) and issubclass(bridges, Bridge):
        bridges = {bridges.name: bridges}
    if isinstance(bridges, Mapping):
        tables = bridges["bridges"] if isinstance(bridges.get("bridges"), Mapping) else bridges
        rest = bridges if tables is not bridges else {}
        return MLBridge({**rest, "bridges": {name: _table(name, source) for name, source in tables.items()}})
    return MLBridge(bridges)


def configured(bridges: Any, keys: Mapping[str, Any]) -> Any:
    """Return what names the bridges, with keys of the configuration of the one whose class it is.

    Raises:
        KitError: there are keys, and it is not clear whose.
    """
    if not keys:
        return bridges
    if isinstance(bridges, type) and issubclass(bridges, Bridge):
        return {bridges.name: {"bridge": bridges, **keys}}
    raise KitError(
        f"{', '.join(keys)}: keywords configure the bridge whose class is given; "
        'of others write {"name": {"bridge": TheClass, "options": {...}}}',
        details={"argument": next(iter(keys))},
    )


def _table(name: str, source: Any) -> dict[str, Any]:
    table = {"bridge": source} if isinstance(source, type) else dict(source)
    found = table.get("bridge")
    if isinstance(found, type) and issubclass(found, Bridge):
        del table["bridge"]
        table |= _reference(name, found)
    return table


def _reference(name: str, bridge: type[Bridge]) -> dict[str, str]:
    """How a worker process finds a class: by its file, as the module's name may mean something else there."""
    file = getattr(sys.modules.get(bridge.__module__), "__file__", None)
    if file is None or "." in bridge.__qualname__:
        raise KitError(
            f'the class of bridge "{name}", {bridge.__qualname__}, is not at the top of a file, so no worker process '
            "can load it; move it into a module, or use a host in memory"
        )
    if bridge.__module__.startswith("manybridge."):  # its own modules import one another by their names
        return {"bridge": f"{bridge.__module__}:{bridge.__qualname__}"}
    return {"python_script": f"{file}:{bridge.__qualname__}"}
