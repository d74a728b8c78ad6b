"""Every cell of the crash matrix against real worker processes."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest

from manybridge import AsyncMLBridge
from manybridge.errors import ManybridgeError
from manybridge.host.own_requests import ANSWER_SECONDS
from tests.crash_matrix import scenes
from tests.crash_matrix.stage import (
    FAULTY,
    GRACE,
    SLACK,
    START,
    TRIGGER,
    Shape,
    Stage,
    bound,
    broken,
    faulty,
    in_words,
)
from tests.crash_matrix.table import MATRIX, Column, Kind, Row
from tests.support import MS, eventually

PATIENCE = 3_000 * MS
"""How long what a cell used may take to go. The workers of a removed bridge are asked to end first."""

TOLD_LATE = {"worker_start_failed", "- a", "- c"}
"""Cells of `boot` that are not played twice: they take as long as `start_timeout`, or make no sense."""

LEAVES_CODE_BEHIND = {"loop", "swallow", "sleep", "C, released"}
"""Faults that go on, on a thread, in a worker that still serves."""


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """Return the host that the cells share. Its workers come from a zygote."""
    shared = Stage(zygote="always")
    yield shared
    shared.close()


@pytest.fixture(autouse=True)
def nothing_left_behind(stage: Stage) -> Iterator[None]:
    """Fail a cell after which the host does not serve, or this process holds more than before.

    In the place of the fixture of that name for all tests: the shared host's worker may be another one afterwards.
    """
    before = Shape.now()
    yield
    stage.serves(FAULTY)
    eventually(lambda: Shape.now() == before, PATIENCE, lambda: f"before: {before}; now: {Shape.now()}")


def fault(row: Row) -> str:
    """Name a row in the list of tests."""
    return row.fault


def cells(*columns: Column, kinds: Sequence[Kind] = ("code", "wire", "start")) -> pytest.MarkDecorator:
    """Parametrize with the cells of some columns that make sense, row after row."""
    found = [
        pytest.param(row, column, id=f"{row.fault}-{column}")
        for row in MATRIX
        for column in columns
        if row.kind in kinds and not row.cell(column).startswith("-")
    ]
    return pytest.mark.parametrize(("row", "column"), found)


@cells("boot")
def test_a_fault_at_the_start_is_what_the_waiting_call_gets(
    row: Row, column: Column, stage: Stage, tmp_path: Path
) -> None:
    """And the next worker serves, once the cause is gone."""
    seen = scenes.boot(stage, row, tmp_path, zygote="never")

    assert seen.text == row.boot
    assert seen.seconds < START + SLACK
    for part in scenes.NAMED.get(row.fault, ()):
        assert seen.error is not None
        assert part in seen.error.message


@pytest.mark.parametrize("row", [row for row in MATRIX if row.kind == "code" and row.boot not in TOLD_LATE], ids=fault)
def test_a_worker_that_was_forked_from_a_zygote_starts_no_better(row: Row, stage: Stage, tmp_path: Path) -> None:
    """The fault is in `setup`, which runs in the fork."""
    assert scenes.boot(stage, row, tmp_path, zygote="always").text == row.boot


@cells("idle", "call", "stream", "job", "snapshot")
def test_a_fault_gives_its_caller_exactly_this(row: Row, column: Column, stage: Stage, tmp_path: Path) -> None:
    """In time, and the next call is served: by the same worker, unless the fault has ended it."""
    mark, expected = tmp_path / "struck", row.cell(column)
    if row.kind == "wire":
        config = broken(tmp_path, row.fault, {"call": "reply", "job": "reply"}.get(column, column))
        with scenes.bridge_for_a_cell(stage, config):
            seen = scenes.PLAYED_IN_CALLS[column](stage, row, scenes.CELL, mark)
            stage.serves(scenes.CELL)
    else:
        before = stage.serves(FAULTY)
        seen = scenes.PLAYED_IN_CALLS[column](stage, row, FAULTY, mark)
        assert (stage.serves(FAULTY) != before) is ends_the_worker(expected)
        if row.fault == "fork":
            scenes.ends_with_its_worker(stage, mark)
        if column == "idle" and row.fault in LEAVES_CODE_BEHIND:
            stage.drop_worker()

    assert seen.text == expected
    assert seen.seconds < bound(expected, {"job": 0.0, "snapshot": max(TRIGGER, ANSWER_SECONDS)}.get(column, TRIGGER))


def ends_the_worker(expected: str) -> bool:
    """Whether another process serves the call that follows."""
    return expected.startswith(("restarted", "worker_crashed")) or expected.endswith(("by sigterm", "by sigkill"))


@cells("call", kinds=["again"])
def test_what_breaks_again_and_again_is_refused(row: Row, column: Column, stage: Stage) -> None:
    """At once, until there is hope again."""
    config = faulty(zygote="never", restart={"initial_backoff": 0.0, "max_crashes": scenes.MAX_CRASHES})
    with scenes.bridge_for_a_cell(stage, config):
        seen = scenes.AGAIN[row.fault](stage.ml)
        stage.serves(scenes.CELL)

    assert seen.text == row.call
    assert seen.seconds < SLACK


@cells("shutdown")
def test_a_fault_while_the_host_closes_neither_keeps_it_nor_a_process(row: Row, column: Column, tmp_path: Path) -> None:
    """A bridge gets some time to close, and no more."""
    seen = scenes.shutdown(row, tmp_path)

    assert seen.text == row.shutdown
    hangs = row.fault.startswith("close hangs")
    assert seen.seconds < CLOSE_PATIENCE * hangs + 2 * GRACE + SLACK


CLOSE_PATIENCE = 2_500 * MS
"""How long an idle worker may take to close its bridge (`STOP_GRACE` in host/pool.py, not scaled)."""


# ---------------------------------------------------------------- the same through AsyncMLBridge, with spawned workers


@pytest.fixture(scope="module")
async def spawning() -> AsyncIterator[AsyncMLBridge]:
    """Return an asynchronous host whose workers are spawned."""
    async with AsyncMLBridge({"bridges": {FAULTY: faulty(zygote="never")}}) as ml:
        await ml.call(FAULTY, "faulty:echo", {"value": 1})
        yield ml


@cells("call", kinds=["code"])
async def test_the_asynchronous_host_gives_the_same(
    row: Row, column: Column, spawning: AsyncMLBridge, tmp_path: Path
) -> None:
    """From a worker that was spawned and not forked."""
    mark = tmp_path / "struck"
    args = {"fault": row.fault, "mark": str(mark)}
    seen = "answered"
    try:
        await spawning.call(FAULTY, "faulty:strike", args, timeout=scenes.timeout_of(row))
    except ManybridgeError as error:
        seen = in_words(error)

    assert seen == row.call
    assert await spawning.call(FAULTY, "faulty:echo", {"value": 2}) == 2
    if row.fault == "fork":
        os.killpg(os.getpgid(scenes.child_of(mark)), signal.SIGKILL)
