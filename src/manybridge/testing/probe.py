"""A program, not a module: imports one bridge in a fresh interpreter and prints what that brought along.

Called with one JSON argument, `{path, module, file, bridge, preload}`; prints `{early, threads, sockets}` as its last
line. See `contract.py`.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
from functools import reduce
from typing import Any


def load(module: str, file: str) -> Any:
    """The bridge's module, by name or, where that leads nowhere or elsewhere, by path."""
    try:
        found = importlib.import_module(module)
    except ImportError:
        found = None
    if found is not None and getattr(found, "__file__", None) == file:
        return found
    spec = importlib.util.spec_from_file_location(module, file)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{file} can't be loaded as a module")
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[module] = loaded
    spec.loader.exec_module(loaded)
    return loaded


def open_sockets() -> int:
    """How many descriptors of this process are sockets."""
    found = 0
    for fd in os.listdir("/proc/self/fd"):  # noqa: PTH208  # Path is not needed otherwise
        try:
            found += os.readlink(f"/proc/self/fd/{fd}").startswith("socket:")  # noqa: PTH115  # the same
        except FileNotFoundError:
            continue  # the descriptor that listed the folder
    return found


def main() -> None:
    """Runs the probe."""
    request = json.loads(sys.argv[1])
    sys.path[:] = request["path"]
    sockets_before = open_sockets()
    bridge = reduce(getattr, request["bridge"].split("."), load(request["module"], request["file"]))
    early = [module for module in bridge.required_modules if module in sys.modules]
    if request["preload"]:
        bridge.preload()
    threads = len(os.listdir("/proc/self/task"))  # noqa: PTH208  # as above
    print("\n" + json.dumps({"early": early, "threads": threads, "sockets": open_sockets() - sockets_before}))  # noqa: T201


if __name__ == "__main__":
    main()
