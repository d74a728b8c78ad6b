"""Which loaded models stay in memory: a budget in bytes, least recently used goes first, in use never goes.

What a model takes is counted by its own tensors, because its file is mapped: the process grows only when a page is
first used. What its going frees is *measured*: before and after, in memory that the process has for itself. A model
that somebody still holds after it went keeps counting until it is really gone.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Hashable
from dataclasses import asdict, dataclass
from time import monotonic, time
from typing import Any, Final, Generic, Protocol, TypeVar

from manybridge.bridge import BridgeError
from manybridge.bridges.transformers.memory import give_back, shown, unshared_bytes
from manybridge.protocol.errors import ErrorCode

KEPT_EVICTIONS: Final = 20
"""Of which the figures are kept for `stats`."""


class Cached(Protocol):
    """What the cache holds."""

    device: str
    """Each device has the budget for itself."""
    nbytes: int
    """What it takes on its device."""

    @property
    def is_busy(self) -> bool:
        """Whether work runs or waits inside."""

    def wait_idle(self, seconds: float) -> bool:
        """Wait until no work runs or waits inside; false if that takes longer."""

    @property
    def body(self) -> Any:
        """The object that holds the memory; watched, never held."""

    def describe(self) -> dict[str, Any]:
        """Further facts about it, for people."""

    def close(self) -> None:
        """Let go of everything."""


FINISHING_SECONDS: Final = 1.0
"""How long an eviction waits for a model that nobody leases any more but whose run is not quite over: its caller has
the answer already, or has left."""

ROOM_SECONDS: Final = 3.0
"""How long a load waits for a model in use to be given back, before it is refused. Most calls take less."""

V = TypeVar("V", bound=Cached)


@dataclass(frozen=True, slots=True)
class Eviction:
    """What one eviction did. `freed_bytes` is measured; a part of a model that was never used had taken nothing."""

    name: str
    device: str
    counted_bytes: int
    freed_bytes: int
    seconds: float
    reason: str
    at: float


class _Entry(Generic[V]):
    __slots__ = ("last_used", "leases", "name", "uses", "value")

    def __init__(self, name: str, value: V) -> None:
        self.name = name
        self.value = value
        self.leases = 0
        self.uses = 0
        self.last_used = monotonic()


class Lease(Generic[V]):
    """The right to use a model; it is not evicted before `release`. Releasing twice is one release."""

    __slots__ = ("_entry", "_release", "value")

    def __init__(self, entry: _Entry[V], release: Callable[[_Entry[V]], None]) -> None:
        self.value = entry.value
        self._entry: _Entry[V] | None = entry
        self._release = release

    def release(self) -> None:
        """Give it back."""
        entry, self._entry = self._entry, None
        if entry is not None:
            self._release(entry)


class ModelCache(Generic[V]):
    """Owner of the loaded models. Every method may be called from any thread.

    Args:
        budget: bytes for the models of one device, given its name.
        measure: bytes that the process has for itself.
        give_back: returns freed memory to the system.
        patience: seconds that a load waits for room that models in use take.
    """

    def __init__(
        self,
        budget: Callable[[str], int],
        *,
        measure: Callable[[], int] = unshared_bytes,
        give_back: Callable[[], None] = give_back,
        patience: float = ROOM_SECONDS,
    ) -> None:
        self._budget = budget
        self._measure = measure
        self._give_back = give_back
        self._entries: dict[Hashable, _Entry[V]] = {}
        self._ghosts: list[tuple[weakref.ref[Any], str, int]] = []
        self._evictions: list[Eviction] = []
        self._patience = patience
        self._lock = threading.RLock()  # held by this name, see Batcher
        self._returned = threading.Condition(self._lock)
        self._loading = threading.Lock()
        self._counts = {"hits": 0, "loads": 0, "evictions": 0}

    def __len__(self) -> int:
        return len(self._entries)

    # ------------------------------------------------------------------ using

    def lease_loaded(self, key: Hashable) -> Lease[V] | None:
        """A lease of a model that is there, at once; None if it has to be loaded."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            self._counts["hits"] += 1
            return self._lend(entry)

    def lease(self, key: Hashable, name: str, device: str, needed: int, load: Callable[[], V]) -> Lease[V]:
        """A lease of a model, loaded if need be; blocks meanwhile. Of callers who want the same, one loads it.

        Args:
            key: equal for equal files, loaded in the same way.
            name: for people.
            device: where it goes.
            needed: bytes that it will take.
            load: makes it.

        Raises:
            BridgeError: `out_of_memory`, the budget has no room for it.
            BaseException: whatever `load` failed with; nothing is kept then.
        """
        with self._loading:  # one at a time: two that load together would both count on the same free room
            found = self.lease_loaded(key)
            if found is not None:
                return found
            self.make_room(device, needed, name)
            value = load()
            with self._lock:
                entry = self._entries[key] = _Entry(name, value)
                self._counts["loads"] += 1
                return self._lend(entry)

    def _lend(self, entry: _Entry[V]) -> Lease[V]:
        entry.leases += 1
        entry.uses += 1
        entry.last_used = monotonic()
        return Lease(entry, self._return)

    def _return(self, entry: _Entry[V]) -> None:
        with self._lock:
            entry.leases -= 1
            entry.last_used = monotonic()
            self._returned.notify_all()

    # ------------------------------------------------------------------ room

    def used(self, device: str) -> int:
        """Bytes that count against the budget of a device."""
        with self._lock:
            self._ghosts = [ghost for ghost in self._ghosts if ghost[0]() is not None]
            held = sum(entry.value.nbytes for entry in self._entries.values() if entry.value.device == device)
            return held + sum(nbytes for _, where, nbytes in self._ghosts if where == device)

    def make_room(self, device: str, needed: int, name: str) -> None:
        """Evict what was not used for longest until `needed` bytes fit; wait a while for what is in use.

        Raises:
            BridgeError: `out_of_memory`; retryable if models in use are what takes the room.
        """
        budget = self._budget(device)
        if needed > budget:
            raise _no_room(name, device, needed, budget, self.used(device), retryable=False)
        end = monotonic() + self._patience
        while self.used(device) + needed > budget:
            if self._evict_oldest(device) is not None:
                continue
            with self._lock:
                left = end - monotonic()
                if left <= 0:
                    raise _no_room(name, device, needed, budget, self.used(device), retryable=True)
                if self._all_leased(device):
                    self._returned.wait(left)

    def _all_leased(self, device: str) -> bool:
        return all(entry.leases for entry in self._entries.values() if entry.value.device == device)

    def evict_unused(self, reason: str = "asked") -> list[Eviction]:
        """Evict every model that is not in use; return what each freed."""
        done: list[Eviction] = []
        while (eviction := self._evict_oldest(None, reason)) is not None:
            done.append(eviction)
        return done

    def close(self) -> None:
        """Let go of everything, in use or not."""
        with self._lock:
            entries, self._entries = list(self._entries.values()), {}
        for entry in entries:
            entry.value.close()

    def _evict_oldest(self, device: str | None, reason: str = "room") -> Eviction | None:
        with self._lock:
            idle = [
                (key, entry)
                for key, entry in self._entries.items()
                if device in (None, entry.value.device) and not entry.leases
            ]
        for key, entry in sorted(idle, key=lambda pair: pair[1].last_used):
            if not entry.value.wait_idle(FINISHING_SECONDS):
                continue
            with self._lock:
                if entry.leases or self._entries.get(key) is not entry:
                    continue
                del self._entries[key]
            return self._evict(entry, reason)
        return None

    def _evict(self, entry: _Entry[V], reason: str) -> Eviction:
        begun = monotonic()
        self._give_back()  # what is garbage already is not counted as freed, nor pages that a collection unshares
        before = self._measure()
        value, name, device, nbytes = entry.value, entry.name, entry.value.device, entry.value.nbytes
        body = weakref.ref(value.body)
        value.close()
        del value, entry.value
        self._give_back()
        freed = before - self._measure()
        with self._lock:
            if body() is not None:
                self._ghosts.append((body, device, nbytes))
            self._counts["evictions"] += 1
            eviction = Eviction(name, device, nbytes, freed, monotonic() - begun, reason, time())
            self._evictions = [*self._evictions, eviction][-KEPT_EVICTIONS:]
        return eviction

    # ------------------------------------------------------------------ looking

    def describe(self) -> list[dict[str, Any]]:
        """Every model that is loaded, the most recently used first."""
        now = monotonic()
        with self._lock:
            entries = sorted(self._entries.values(), key=lambda entry: -entry.last_used)
            return [
                {
                    "name": entry.name,
                    "device": entry.value.device,
                    "bytes": entry.value.nbytes,
                    "in_use": entry.leases > 0 or entry.value.is_busy,
                    "uses": entry.uses,
                    "idle_seconds": round(now - entry.last_used, 3),
                    **entry.value.describe(),
                }
                for entry in entries
            ]

    def stats(self) -> dict[str, Any]:
        """Counters, and what each of the last evictions freed."""
        with self._lock:
            devices = {entry.value.device for entry in self._entries.values()} | {"cpu"}
            return {
                **self._counts,
                "loaded": len(self._entries),
                "bytes": {device: self.used(device) for device in sorted(devices)},
                "last_evictions": [asdict(eviction) for eviction in self._evictions],
            }


def _no_room(name: str, device: str, needed: int, budget: int, used: int, *, retryable: bool) -> BridgeError:
    what_to_do = (
        f"{shown(used)} are taken by models in use; try again when they are done, or raise cache_bytes."
        if retryable
        else "Raise the option cache_bytes, load it in a smaller dtype, or on another device."
    )
    return BridgeError(
        ErrorCode.OUT_OF_MEMORY,
        f"{name} needs {shown(needed)} on {device}, and loaded models may take {shown(budget)} there. {what_to_do}",
        retryable=retryable,
        details={
            "needed_bytes": needed, "budget_bytes": budget, "used_bytes": used, "device": device,
            "available_bytes": max(0, budget - used),
        },
    )  # fmt: skip
