"""Object references: owner, expiry and cap."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pytest

from manybridge.bridge import BridgeError
from manybridge.bridges.python.objects import ObjectStore


class Clock:
    """Both clocks of the store, moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still."""
    return Clock()


@pytest.fixture
def store(clock: Clock) -> ObjectStore:
    """Room for three objects, each for ten seconds."""
    return ObjectStore(max_objects=3, ttl=10.0, monotonic=clock, wall=clock)


def code_of(store: ObjectStore, reference: dict[str, str], owner: str | None) -> str:
    """The code with which the store refuses."""
    with pytest.raises(BridgeError) as caught:
        store.get(reference["$object"], owner)
    return caught.value.code


def test_a_reference_tells_id_type_and_expiry(store: ObjectStore) -> None:
    """And nothing of the value itself."""
    reference = store.put(ValueError("password"), "session")
    assert reference == {"$object": reference["$object"], "type": "ValueError", "expires_at": 1010.0}
    assert isinstance(store.get(reference["$object"], "session"), ValueError)


def test_dates_and_decimals_show_their_text(store: ObjectStore) -> None:
    """Types that are their own text are readable without a second call."""
    assert store.put(dt.date(2026, 1, 2), None)["text"] == "2026-01-02"
    assert store.put(Decimal("1.50"), None)["text"] == "1.50"


def test_a_reference_of_another_session_is_not_found(store: ObjectStore) -> None:
    """Not even its existence is told."""
    reference = store.put(object(), "mine")
    assert code_of(store, reference, "yours") == "resource_not_found"
    assert code_of(store, reference, None) == "resource_not_found"


def test_an_object_made_without_a_session_is_for_whoever_knows_it(store: ObjectStore) -> None:
    """As with resources: no owner, no lock."""
    reference = store.put([1], None)
    assert store.get(reference["$object"], "anybody") == [1]


def test_every_use_extends_the_life_of_an_object(store: ObjectStore, clock: Clock) -> None:
    """Expiry counts from the last use."""
    reference = store.put([1], "session")
    clock.now += 9
    store.get(reference["$object"], "session")
    clock.now += 9
    assert store.get(reference["$object"], "session") == [1]


def test_an_expired_object_is_lost_and_the_error_says_so(store: ObjectStore, clock: Clock) -> None:
    """To its owner; to others it never was."""
    reference = store.put([1], "session", ttl=5)
    clock.now += 5
    with pytest.raises(BridgeError, match="expired: it was not used for 5 s") as caught:
        store.get(reference["$object"], "session")
    assert caught.value.code == "resource_lost"
    assert code_of(store, reference, "other") == "resource_not_found"


def test_over_the_cap_the_least_recently_used_object_goes(store: ObjectStore) -> None:
    """Using an object keeps it; the error names the option."""
    first, second, _ = (store.put(n, "session") for n in range(3))
    store.get(first["$object"], "session")
    store.put(4, "session")
    assert store.get(first["$object"], "session") == 0
    with pytest.raises(BridgeError, match="max_objects") as caught:
        store.get(second["$object"], "session")
    assert caught.value.code == "resource_lost"
    assert len(store) == 3


def test_a_released_object_is_gone(store: ObjectStore) -> None:
    """Releasing twice is an error like any other use."""
    reference = store.put([1], "session")
    store.release(reference["$object"], "session")
    assert code_of(store, reference, "session") == "resource_not_found"


def test_the_end_of_a_session_takes_its_objects_and_no_others(store: ObjectStore) -> None:
    """Cleaning up is by owner."""
    store.put(1, "a")
    store.put(2, "a")
    kept = store.put(3, "b")
    assert store.release_owned_by("a") == 2
    assert store.get(kept["$object"], "b") == 3


def test_a_session_sees_its_own_objects_only(store: ObjectStore) -> None:
    """With how often each was used."""
    mine = store.put(1, "a")
    store.put(2, "b")
    store.get(mine["$object"], "a")
    assert [(held["$object"], held["uses"]) for held in store.owned_by("a")] == [(mine["$object"], 1)]
