"""Every cell of the store's crash matrix: faults of what is kept, against real hosts, workers and databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from manybridge.store import database
from tests.crash_matrix import store_scenes
from tests.crash_matrix.stage import FAR, SLACK
from tests.crash_matrix.store_faults import watched_connections
from tests.crash_matrix.store_table import PLACES, STORE_MATRIX, Place, StoreRow
from tests.support import MS

BUSY = 200 * MS
"""How long a write waits here for another program's lock; five seconds where nobody asked for less."""

RESTART = 5_000 * MS
"""What a restart of PostgreSQL may take on a busy machine, and the connections that follow."""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Locks are waited for as long as it takes to see that they are held."""
    monkeypatch.setattr(database, "BUSY_SECONDS", BUSY)
    with watched_connections():
        yield


CELLS = [
    pytest.param(row, place, id=f"{row.fault}-{place}")
    for row in STORE_MATRIX
    for place in PLACES
    if not row.cell(place).startswith("-")
]


@pytest.mark.parametrize(("row", "place"), CELLS)
async def test_a_fault_of_what_is_kept_gives_its_caller_exactly_this(
    row: StoreRow, place: Place, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In time; calls that need no store go on; and when the fault has gone, everything that was kept is there."""
    server = request.getfixturevalue("postgresql") if row.kind == "server" else None
    if row.fault == "server gone":
        monkeypatch.setattr(database, "RECONNECT_SECONDS", BUSY)
    stage = store_scenes.StoreStage(row, tmp_path, server)
    if row.kind == "use":
        seen = await store_scenes.USED[row.fault](stage, place)
    else:
        seen = await store_scenes.PLAYED[place](stage)

    assert seen.text == row.cell(place)
    assert seen.seconds < min(FAR, 3 * BUSY + SLACK + (RESTART if server is not None else 0.0))
