"""A framework whose import takes until the test writes into a named pipe; what it writes says how the import ends."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from manybridge.bridge import Bridge, command

said = Path(os.environ["GATE"]).read_text()
if said == "raise":
    raise RuntimeError("no such framework")
if said == "exit":
    raise SystemExit(3)


class GatedBridge(Bridge):
    name = "gated"
    required_modules = ("a_module_that_nobody_has",) if said == "missing" else ()

    def setup(self, options: dict[str, Any]) -> None:
        if said == "setup":
            raise ValueError("bad option")

    @command
    def quick(self) -> dict[str, Any]:
        return {"said": said}
