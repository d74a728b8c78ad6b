"""A bridge that a zygote may load, with the faults that a zygote must notice."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import types
from typing import Any

from manybridge.bridge import Bridge, command

_fault = os.environ.get("ZYGOTE_FAULT", "")
_park = threading.Event()
if _fault == "import":
    raise ImportError("half of the framework is missing")


class ZygoticBridge(Bridge):
    name = "z"
    zygote_safe = _fault != "unsafe"
    required_modules = ("a_module_that_nobody_has",) if _fault == "missing" else ()

    @classmethod
    def preload(cls) -> None:
        if _fault == "thread":
            threading.Thread(target=_park.wait).start()
        if _fault == "late_thread":
            signal.signal(signal.SIGUSR2, lambda *_: threading.Thread(target=_park.wait).start())
        if _fault == "exit":
            sys.exit(3)
        if _fault == "print":
            os.write(2, b"printed")
            print("printed", flush=True)
        if "numpy.random" in sys.modules:
            return  # a worker calls this again; what is imported stays as it is
        fake = types.ModuleType("numpy.random")
        fake.seeds = []  # type: ignore[attr-defined]
        fake.seed = lambda: fake.seeds.append(os.getpid())  # type: ignore[attr-defined]
        sys.modules["numpy.random"] = fake

    def setup(self, options: dict[str, Any]) -> None:
        self.options = options

    @command
    def facts(self) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "parent": os.getppid(),
            "options": self.options,
            "environment": dict(os.environ),
            "random": random.random(),
            "reseeded": sys.modules["numpy.random"].seeds,
            "session_leader": os.getsid(0) == os.getpid(),
        }

    @command
    def die(self, status: int) -> None:
        os._exit(status)
