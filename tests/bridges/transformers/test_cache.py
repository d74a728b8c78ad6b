"""The model cache without a model: who goes, who stays, what is counted and what is measured."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from manybridge.bridge import BridgeError
from manybridge.bridges.transformers.cache import Lease, ModelCache
from tests.support import DEFAULT_TIMEOUT


class Body:
    """What a model's memory hangs on."""


class Thing:
    """Stands in the cache like a model."""

    def __init__(self, nbytes: int, device: str = "cpu") -> None:
        self.nbytes = nbytes
        self.device = device
        self.body: Any = Body()
        self.is_busy = False
        self.closed = False

    def wait_idle(self, seconds: float) -> bool:
        """Wait in vain for one that is busy, without waiting."""
        assert seconds > 0
        return not self.is_busy

    def describe(self) -> dict[str, Any]:
        """Say nothing more."""
        return {}

    def close(self) -> None:
        """Let go of the body."""
        self.closed = True
        self.body = None


class Shelf:
    """A cache whose process memory is what its things weigh."""

    def __init__(self, budget: int, patience: float = 0.0) -> None:
        self.things: dict[str, Thing] = {}
        self.loads: list[str] = []
        self.cache: ModelCache[Thing] = ModelCache(
            lambda _: budget, measure=self.weigh, give_back=lambda: None, patience=patience
        )

    def weigh(self) -> int:
        """Add up what is not closed."""
        return sum(thing.nbytes for thing in self.things.values() if not thing.closed)

    def lease(self, name: str, nbytes: int = 10, device: str = "cpu") -> Lease[Thing]:
        """Lease a thing, made if it is not there."""

        def load() -> Thing:
            self.loads.append(name)
            self.things[name] = Thing(nbytes, device)
            return self.things[name]

        return self.cache.lease(name, name, device, nbytes, load)

    def use(self, name: str, nbytes: int = 10, device: str = "cpu") -> None:
        """Use a thing and give it back."""
        self.lease(name, nbytes, device).release()

    def names(self) -> set[str]:
        """Tell what is there."""
        return {entry["name"] for entry in self.cache.describe()}


def refused(shelf: Shelf, name: str, nbytes: int) -> BridgeError:
    """Return the error that a load ends with."""
    with pytest.raises(BridgeError) as caught:
        shelf.lease(name, nbytes)
    assert caught.value.code == "out_of_memory"
    return caught.value


def test_what_is_there_is_not_loaded_again() -> None:
    """Every user of the same key shares it."""
    shelf = Shelf(100)
    first, second = shelf.lease("a"), shelf.lease("a")
    assert first.value is second.value
    assert shelf.loads == ["a"]
    assert shelf.cache.describe()[0]["in_use"]


def test_the_least_recently_used_goes_first_and_what_it_freed_is_measured() -> None:
    """Used again, a model stays."""
    shelf = Shelf(30)
    for name in ("a", "b", "c"):
        shelf.use(name)
    shelf.use("a")
    shelf.use("d")
    assert shelf.names() == {"a", "c", "d"}
    (eviction,) = shelf.cache.stats()["last_evictions"]
    assert (eviction["name"], eviction["counted_bytes"], eviction["freed_bytes"]) == ("b", 10, 10)
    assert shelf.things["b"].closed


def test_a_model_in_use_never_goes() -> None:
    """Neither one that is leased nor one whose thread has work; the error may be retried."""
    shelf = Shelf(30)
    leased = shelf.lease("a", 20)
    shelf.use("b", 10)
    shelf.things["b"].is_busy = True
    error = refused(shelf, "c", 10)
    assert error.retryable
    assert error.details == {
        "needed_bytes": 10, "budget_bytes": 30, "used_bytes": 30, "device": "cpu", "available_bytes": 0,
    }  # fmt: skip
    assert shelf.cache.evict_unused() == []
    leased.release()
    leased.release()  # twice is once
    shelf.use("c", 10)
    assert shelf.names() == {"b", "c"}


def test_a_load_waits_a_while_for_a_model_that_is_about_to_be_given_back() -> None:
    """Most calls are short; refusing at once would only make their callers ask again."""
    shelf = Shelf(10, patience=DEFAULT_TIMEOUT)
    lease = shelf.lease("a")
    waiting = threading.Thread(target=shelf.use, args=("b",))
    waiting.start()
    assert shelf.loads == ["a"]
    lease.release()
    waiting.join(DEFAULT_TIMEOUT)
    assert shelf.names() == {"b"}


def test_a_model_over_the_budget_is_refused_before_anything_goes() -> None:
    """Waiting would not help, so it is not retryable."""
    shelf = Shelf(30)
    shelf.use("a")
    error = refused(shelf, "big", 31)
    assert not error.retryable
    assert "cache_bytes" in error.message
    assert shelf.names() == {"a"}


def test_each_device_has_the_budget_for_itself() -> None:
    """What lies on an accelerator takes no room of the CPU's."""
    shelf = Shelf(10)
    shelf.use("a")
    shelf.use("b", device="cuda:0")
    assert shelf.names() == {"a", "b"}
    assert shelf.cache.stats()["bytes"] == {"cpu": 10, "cuda:0": 10}


def test_a_model_that_somebody_still_holds_keeps_counting() -> None:
    """Its memory is not free, whatever the cache believes."""
    shelf = Shelf(20)
    shelf.use("a", 15)
    held: list[Any] = [shelf.things["a"].body]
    assert shelf.cache.evict_unused()[0].name == "a"
    assert shelf.cache.used("cpu") == 15
    assert refused(shelf, "b", 10).retryable
    held.clear()
    assert shelf.cache.used("cpu") == 0
    shelf.use("b", 10)


def test_a_load_that_fails_leaves_nothing_behind() -> None:
    """The next caller tries again."""
    shelf = Shelf(30)

    def fail() -> Thing:
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        shelf.cache.lease("a", "a", "cpu", 10, fail)
    assert len(shelf.cache) == 0
    shelf.use("a")
    assert shelf.loads == ["a"]


def test_of_callers_who_want_the_same_at_once_one_loads_it() -> None:
    """The others wait for it."""
    shelf = Shelf(30)
    begun, gate = threading.Event(), threading.Event()
    got: list[Thing] = []

    def load() -> Thing:
        shelf.loads.append("a")
        begun.set()
        gate.wait(DEFAULT_TIMEOUT)
        return shelf.things.setdefault("a", Thing(10))

    def want() -> None:
        lease = shelf.cache.lease("a", "a", "cpu", 10, load)
        got.append(lease.value)
        lease.release()

    callers = [threading.Thread(target=want) for _ in range(4)]
    for caller in callers:
        caller.start()
    assert begun.wait(DEFAULT_TIMEOUT)
    assert shelf.cache.lease_loaded("a") is None
    gate.set()
    for caller in callers:
        caller.join(DEFAULT_TIMEOUT)
    assert shelf.loads == ["a"]
    assert len({id(thing) for thing in got}) == 1


def test_closing_lets_go_of_everything() -> None:
    """In use or not: the worker ends."""
    shelf = Shelf(30)
    shelf.lease("a")
    shelf.use("b")
    shelf.cache.close()
    assert all(thing.closed for thing in shelf.things.values())
    assert len(shelf.cache) == 0
