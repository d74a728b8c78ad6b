"""A host that is to be killed: `doomed_host.py FOLDER` starts one bridge for each column of the crash matrix.

Each fault writes the process it is in into `FOLDER/COLUMN` (`FOLDER/COLUMN-child` for a forked child). When all are
there, one line on standard output says which processes this host has started.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from manybridge import MLBridge

FOLDER = Path(sys.argv[1])
BRIDGE = Path(__file__).with_name("faulty_bridge.py")


def bridge(column: str, *, setup: str | None = None, close: str | None = None, **config: Any) -> dict[str, Any]:
    options = {"setup": setup, "close": close, "mark": str(FOLDER / column)}
    return {"python_script": str(BRIDGE), "options": options, "eager": False, **config}


BRIDGES = {
    "boot": bridge("boot", setup="C, held", zygote="never"),
    "idle": bridge("idle", zygote="always"),
    "call": bridge("call", zygote="never"),
    "stream": bridge("stream", zygote="always"),
    "job": bridge("job", zygote="always"),
    "snapshot": bridge("snapshot", zygote="always"),
    "shutdown": bridge("shutdown", close="C, held", zygote="never"),
}


def strike(ml: MLBridge, column: str, operation: str, fault: str) -> None:
    args = {"fault": fault, "mark": str(FOLDER / column)}
    work = ml.stream if operation == "stream" else ml.call
    threading.Thread(target=lambda: list(work(column, f"{column}:{operation}", args)), daemon=True).start()


def wait_for(*names: str) -> None:
    while not all((FOLDER / name).exists() for name in names):
        time.sleep(0.005)


def main() -> None:
    ml = MLBridge({"bridges": BRIDGES})
    ml.call("idle", "idle:strike", {"fault": "native write", "mark": str(FOLDER / "idle")})
    strike(ml, "boot", "echo", "")
    strike(ml, "call", "strike", "loop")
    strike(ml, "stream", "stream", "C, held")
    ml.call("job", "job:strike", {"fault": "fork", "mark": str(FOLDER / "job-child")})
    job = ml.submit("job", "job:strike", {"fault": "swallow", "mark": str(FOLDER / "job")})
    thing = ml.create_resource("snapshot", "thing")
    inputs = {"fault": "C, held", "mark": str(FOLDER / "snapshot")}
    threading.Thread(target=lambda: ml.execute_resource("snapshot", thing.id, inputs), daemon=True).start()
    ml.call("shutdown", "shutdown:echo", {"value": 1})
    ml.unregister_bridge("shutdown")
    wait_for(*BRIDGES, "job-child")
    print(json.dumps({"pid": os.getpid(), "job": job.id}), flush=True)
    time.sleep(3600)


main()
