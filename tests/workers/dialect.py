"""A worker of the dialect of DSPex with a bridge of a few lines, so that tests need no framework.

Run as `python -I dialect.py SOURCE [argument ...]`.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, sys.argv[1])

from manybridge.bridge import Bridge, V1Context, command
from manybridge.worker.options import parse
from manybridge.worker.runtime import Runtime
from manybridge.worker.stdio import take_stdio


class DialectBridge(Bridge):
    name = "d"
    dialect = "dspex"

    def setup(self, options: dict[str, Any]) -> None:
        if "GATE" in os.environ:
            Path(os.environ["GATE"]).read_text()

    def handle_v1(self, command: str, args: Any, v1: V1Context) -> dict[str, Any] | None:
        if command == "ping":
            return {"status": "ok", "count": v1.command_count, "errors": v1.error_count}
        if command == "echo":
            return {"args": args}
        if command == "name":
            return {"name": args.get("name")}
        if command == "object":
            return {"it": object()}
        if command == "sleep":
            time.sleep(args["seconds"])
            return {}
        if command == "swallow":
            try:
                time.sleep(60)
            except BaseException:  # noqa: BLE001  # that is the fault
                time.sleep(60)
        return None

    @command
    def quick(self) -> dict[str, Any]:
        return {"quick": True}


if __name__ == "__main__":
    parent = os.getppid()
    Runtime(parse(["dialect", *sys.argv[2:]]), {}, take_stdio(), parent=parent, bridge_class=DialectBridge).run()
