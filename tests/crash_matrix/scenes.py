"""How each column of the matrix is played, once for code that fails and once for a wire that breaks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from manybridge import MLBridge
from tests.crash_matrix.stage import (
    FAR,
    FAULTY,
    FAULTY_BRIDGE,
    GRACE,
    SLACK,
    START,
    TRIGGER,
    Seen,
    Stage,
    broken,
    faulty,
    watch,
)
from tests.crash_matrix.table import Row
from tests.support import eventually, process_is_running

CELL: Final = "cell"
"""The name of a bridge that lives for one cell only."""


def timeout_of(row: Row) -> float:
    """The timeout of a call in this row."""
    return TRIGGER if row.call.startswith("timeout") else FAR


# ---------------------------------------------------------------- boot


def boot(stage: Stage, row: Row, folder: Path, **changes: Any) -> Seen:
    """The fault strikes in the first worker; the call waits for that one, and the next call gets another."""
    if row.kind == "wire" or row.fault == "slow":
        config = broken(folder, row.fault, "hello", **changes)
    elif row.kind == "start":
        config = START_FAULTS[row.fault](folder)
    else:
        options = {"setup": row.fault, "once": str(folder / "once"), "mark": str(folder / "mark")}
        config = faulty(options=options, **changes)
    hangs = row.fault == "slow" or row.call.startswith("timeout")
    config["start_timeout"] = START if hangs else FAR
    with bridge_for_a_cell(stage, config):
        seen = watch(lambda: stage.ml.call(CELL, f"{CELL}:echo", {"value": 1}))
        if row.kind == "start" and row.fault in REMEDIES:
            REMEDIES[row.fault](stage.ml, folder)
        eventually(lambda: watch(lambda: stage.serves(CELL)).error is None, START + SLACK)
    if row.fault == "fork":
        assert_gone(int((folder / "mark").read_text()))
    return seen


@contextmanager
def bridge_for_a_cell(stage: Stage, config: dict[str, Any]) -> Iterator[None]:
    """Have the host know one more bridge."""
    stage.ml.register_bridge(CELL, config)
    try:
        yield
    finally:
        stage.ml.unregister_bridge(CELL)


def _write_bridge(path: Path, text: str) -> dict[str, Any]:
    path.write_text(text)
    return faulty(python_script=str(path))


WORKING_BRIDGE: Final = """\
from manybridge.bridge import Bridge, command

class Working(Bridge):
    name = "working"
    {line}

    @command
    def echo(self, value: int) -> int:
        return value
"""

NAMED: Final[dict[str, tuple[str, ...]]] = {
    "missing package": ("no-such-package>=2", "uv pip install --python"),
    "missing module": ("no_such_module", "pip install"),
    "missing variable": ("CRASH_MATRIX_KEY", "export CRASH_MATRIX_KEY="),
    "missing interpreter": ("bin/python", "uv venv"),
    "syntax error": ("own.py", "line 1"),
    "no such class": ("NoSuchBridge", "manybridge.bridges.mock"),
}
"""What the error must say: what is missing, where, and the command that helps."""

START_FAULTS: Final[dict[str, Callable[[Path], dict[str, Any]]]] = {
    "missing package": lambda _: faulty(required_packages=["no-such-package>=2"]),
    "missing module": lambda folder: _write_bridge(
        folder / "own.py", WORKING_BRIDGE.format(line='required_modules = ("no_such_module",)')
    ),
    "missing variable": lambda _: faulty(required_env=["CRASH_MATRIX_KEY"]),
    "missing interpreter": lambda folder: faulty(python=str(folder / "bin" / "python")),
    "syntax error": lambda folder: _write_bridge(folder / "own.py", "class Working(Bridge:\n"),
    "no such class": lambda _: {**faulty(bridge="manybridge.bridges.mock:NoSuchBridge"), "python_script": None},
}


def _repair_file(_ml: MLBridge, folder: Path) -> None:
    (folder / "own.py").write_text(WORKING_BRIDGE.format(line=""))


REMEDIES: Final[dict[str, Callable[[MLBridge, Path], object]]] = {
    "missing package": lambda ml, _: ml.update_bridge(CELL, required_packages=[]),
    "missing module": _repair_file,
    "missing variable": lambda ml, _: ml.update_bridge(CELL, environment={"CRASH_MATRIX_KEY": "here"}),
    "missing interpreter": lambda ml, _: ml.update_bridge(CELL, python=None),
    "syntax error": _repair_file,
    "no such class": lambda ml, _: ml.update_bridge(CELL, bridge=None, python_script=str(FAULTY_BRIDGE)),
}
"""What a person does about it; the next call is then served without starting the host again."""


# ---------------------------------------------------------------- idle, call, stream, job


def idle(stage: Stage, row: Row, bridge: str, mark: Path) -> Seen:
    """The fault strikes on a thread, between two calls."""
    before = stage.serves(bridge)
    stage.ml.call(bridge, f"{bridge}:later", _args(row, mark))
    eventually(mark.exists, FAR)
    replaced = row.idle == "restarted" and stage.replaced(before, bridge)
    timeout = TRIGGER if row.idle.startswith("timeout") else FAR
    seen = watch(lambda: stage.ml.call(bridge, f"{bridge}:echo", {"value": 1}, timeout=timeout))
    return seen._replace(text="restarted") if replaced and seen.text == "answered" else seen


def call(stage: Stage, row: Row, bridge: str, mark: Path) -> Seen:
    """The fault strikes in a plain call."""
    args, timeout = _args(row, mark), timeout_of(row)
    return watch(lambda: stage.ml.call(bridge, f"{bridge}:strike", args, timeout=timeout))


def stream(stage: Stage, row: Row, bridge: str, mark: Path) -> Seen:
    """The fault strikes when the reader has got the second chunk."""
    go = mark.with_name("go")

    def read() -> Any:
        args = {**_args(row, mark), "go": str(go)}
        events = stage.ml.stream(bridge, f"{bridge}:stream", args, timeout=timeout_of(row))
        for event in events:
            if event.seq == 1:
                go.touch()
        return events.result

    seen = watch(read)
    assert go.exists(), "the chunks did not come"
    return seen


def job(stage: Stage, row: Row, bridge: str, mark: Path) -> Seen:
    """The fault strikes in a job; one that hangs is cancelled once its code is there."""
    submitted = stage.ml.submit(bridge, f"{bridge}:strike", _args(row, mark))
    if row.job.startswith("cancelled"):
        eventually(mark.exists, FAR)

        def cancel_and_look() -> Any:
            assert submitted.cancel()
            return submitted.result(FAR)

        seen = watch(cancel_and_look)
    else:
        seen = watch(lambda: submitted.result(FAR))
    state = {"answered": "done", "cancelled": "cancelled"}.get(seen.text.partition(" ")[0], "failed")
    assert submitted.state == state
    return seen


def snapshot(stage: Stage, row: Row, bridge: str, mark: Path) -> Seen:
    """The fault strikes while the state is asked for that the second execution has left."""
    thing = stage.ml.create_resource(bridge, "thing")
    try:
        assert stage.ml.execute_resource(bridge, thing.id) == 1
        seen = watch(lambda: stage.ml.execute_resource(bridge, thing.id, _args(row, mark), timeout=timeout_of(row)))
        assert mark.exists(), "the state was not asked for"
        assert stage.ml.execute_resource(bridge, thing.id) == (3 if seen.text == "answered" else 2)
        assert stage.ml.get_resource(bridge, thing.id).executions == (3 if seen.text == "answered" else 2)
    finally:
        stage.ml.delete_resource(bridge, thing.id)
    return seen


PLAYED_IN_CALLS: Final = {"idle": idle, "call": call, "stream": stream, "job": job, "snapshot": snapshot}


def _args(row: Row, mark: Path) -> dict[str, Any]:
    return {"fault": row.fault, "mark": str(mark)}


# ---------------------------------------------------------------- again and again


def same_request_again(ml: MLBridge) -> Seen:
    """The same arguments, from whoever they come; others are served meanwhile."""
    for _ in range(2):
        assert watch(lambda: ml.call(CELL, "faulty:strike", {"fault": "SIGKILL"})).text == "worker_crashed, SIGKILL"
    return watch(lambda: ml.call(CELL, "faulty:strike", {"fault": "SIGKILL"}))


def crash_loop(ml: MLBridge) -> Seen:
    """Of starts, too: nothing but crashes since the first call."""
    ml.update_bridge(CELL, options={"setup": "os._exit"})
    for _ in range(MAX_CRASHES):
        assert watch(lambda: ml.call(CELL, "faulty:echo", {"value": 1})).text == "worker_start_failed, exit 3"
    refused = watch(lambda: ml.call(CELL, "faulty:echo", {"value": 1}))
    assert refused.error is not None
    assert refused.error.details["last_failure"]["code"] == "worker_start_failed"
    ml.update_bridge(CELL, options={})
    return refused


MAX_CRASHES: Final = 3
AGAIN: Final = {"same request again": same_request_again, "crash loop": crash_loop}


# ---------------------------------------------------------------- shutdown


def shutdown(row: Row, folder: Path) -> Seen:
    """The fault strikes while the host closes. `closed`: it did, in time, and no process is left."""
    mark = folder / "mark"
    if row.kind == "wire":
        config = broken(folder, row.fault, "shutdown")
    elif row.kind == "start":
        config = broken(folder, "slow", "hello") if row.fault == "slow" else START_FAULTS[row.fault](folder)
    elif row.shutdown == "host_closed":
        return _close_during_a_call(row, mark)
    else:
        config = faulty(options={"close": _CLOSE_FAULTS.get(row.fault, row.fault), "mark": str(mark)})
    ml = MLBridge({"bridges": {FAULTY: {**config, "eager": True}}})
    try:
        if row.kind != "start":
            ml.call(FAULTY, "faulty:echo", {"value": 1})
    finally:
        closed = watch(lambda: ml.close(0.0))
    if row.kind == "code":
        eventually(mark.exists, message="the bridge was not closed")
        assert_gone(int(mark.read_text()))
    return closed._replace(text="closed" if closed.error is None else closed.text)


_CLOSE_FAULTS: Final = {"close hangs in Python": "loop", "close hangs in C": "C, held"}


def _close_during_a_call(row: Row, mark: Path) -> Seen:
    ml = MLBridge({"bridges": {FAULTY: faulty()}})
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(watch, lambda: ml.call(FAULTY, "faulty:strike", _args(row, mark)))
        try:
            eventually(mark.exists, FAR)
        finally:
            closed = watch(lambda: ml.close(GRACE))
        assert closed.error is None
        assert_gone(int(mark.read_text()))
        return running.result(SLACK)._replace(seconds=closed.seconds)


def assert_gone(pid: int) -> None:
    """Fail if a process still runs once its worker's end has been seen."""
    eventually(lambda: not process_is_running(pid), SLACK, f"process {pid} still runs")


def child_of(mark: Path) -> int:
    """The process that the fault `fork` has left, once it is known."""
    return int(mark.read_text())


def ends_with_its_worker(stage: Stage, mark: Path) -> None:
    """A forked child lives as long as its worker, and no longer."""
    child = child_of(mark)
    assert process_is_running(child)
    assert os.getpgid(child) == stage.pid()
    stage.drop_worker()
    assert_gone(child)
