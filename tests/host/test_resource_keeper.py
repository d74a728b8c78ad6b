"""States are kept in the order in which they came to be, not in that in which somebody asks for it."""

from __future__ import annotations

from math import inf
from time import time

from manybridge.host.config import StoreConfig
from manybridge.host.resource_keeper import ResourceKeeper
from manybridge.host.store_access import StoreAccess
from manybridge.store.records import ResourceRecord


async def test_an_older_snapshot_that_comes_late_does_not_replace_a_newer_one() -> None:
    """Of two executions that ended one after the other the second may be told first; both are kept by its state."""
    access = StoreAccess(StoreConfig(url="memory:", scope="s"))
    keeper = ResourceKeeper(access)
    recipe = ResourceRecord(id="r", bridge="mock", type="counter", config={}, session=None, created_at=time())
    record = await keeper.record(recipe, "restore", {"value": 0})
    assert record is not None
    await keeper.claim(record, inf)
    assert record.fence is not None

    await keeper.save(record, record.fence, {"value": 2}, 2, counts=True)
    await keeper.save(record, record.fence, {"value": 1}, 1, counts=True)

    stored = await access.store.get_resource("mock", "r")
    assert stored is not None
    assert (stored.state, stored.executions) == ({"value": 2}, 2)
    assert record.state == {"value": 2}
    await access.close()
