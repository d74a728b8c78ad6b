"""Live Python objects that callers hold by reference.

A reference is `{"$object": id, "type": "module.Type", "expires_at": epoch seconds}`. It belongs to the session that
made it (one made without a session is for everybody who knows its id, as resources are), lives in the worker that made
it, expires after a time without use, and at most `max_objects` live at once: the least recently used one goes first,
and whoever still holds it gets an error that says so.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

from manybridge.bridge import BridgeError

REFERENCE_KEY: Final = "$object"
DEFAULT_TTL: Final = 3600.0
"""Seconds without use after which an object goes: an hour outlives a person's pause, not a forgotten notebook."""
DEFAULT_MAX_OBJECTS: Final = 1000
REMEMBERED_LOSSES: Final = 4096
"""How many lost ids are remembered, so that the error can say why; about 0.5 MB at most."""

# Their str() is the value itself, so showing it reveals nothing that the caller does not get anyway.
_SHOWN_AS_TEXT: Final = frozenset(
    {
        "datetime.datetime",
        "datetime.date",
        "datetime.time",
        "datetime.timedelta",
        "decimal.Decimal",
        "fractions.Fraction",
        "uuid.UUID",
        "complex",
    }
)


def type_name(value: object) -> str:
    """`module.Type` of a value; builtins without their module."""
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


class _Entry:
    __slots__ = ("created_at", "dies_at", "expires_at", "owner", "ttl", "uses", "value")

    def __init__(self, value: Any, owner: str | None, ttl: float, wall: float, monotonic: float) -> None:
        self.value = value
        self.owner = owner
        self.ttl = ttl
        self.created_at = wall
        self.uses = 0
        self.extend(wall, monotonic)

    def extend(self, wall: float, monotonic: float) -> None:
        self.expires_at = wall + self.ttl  # what the caller sees
        self.dies_at = monotonic + self.ttl  # what is obeyed: the wall clock may jump


class ObjectStore:
    """The objects of one worker.

    Owns every entry and the memory of lost ones. Thread-safe: the control lane reads its size while a call runs.
    """

    def __init__(
        self,
        max_objects: int = DEFAULT_MAX_OBJECTS,
        ttl: float = DEFAULT_TTL,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.max_objects = max_objects
        self.ttl = ttl
        self._monotonic = monotonic
        self._wall = wall
        self._entries: OrderedDict[str, _Entry] = OrderedDict()  # least recently used first
        self._losses: OrderedDict[str, tuple[str | None, str]] = OrderedDict()  # id -> (owner, reason)
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, value: Any, owner: str | None, ttl: float | None = None) -> dict[str, Any]:
        """Keeps `value` for `owner` and returns its reference. May drop the least recently used object.

        Args:
            ttl: seconds without use after which it goes; None takes the store's default.
        """
        lifetime = self.ttl if ttl is None else ttl
        with self._lock:
            self._drop_expired()
            while len(self._entries) >= self.max_objects:
                oldest, entry = self._entries.popitem(last=False)
                self._lost(
                    oldest,
                    entry.owner,
                    f"was dropped: this worker keeps at most {self.max_objects} objects (options.max_objects) "
                    "and it was the least recently used",
                )
            object_id = f"obj_{os.urandom(9).hex()}"
            self._entries[object_id] = _Entry(value, owner, lifetime, self._wall(), self._monotonic())
            return self._reference(object_id)

    def get(self, object_id: str, owner: str | None) -> Any:
        """The object, whose life is extended by this use.

        Raises:
            BridgeError: `resource_lost` if it expired or was dropped, `resource_not_found` if there never was one
                or it belongs to another session.
        """
        with self._lock:
            entry = self._find(object_id, owner)
            entry.uses += 1
            entry.extend(self._wall(), self._monotonic())
            self._entries.move_to_end(object_id)
            return entry.value

    def release(self, object_id: str, owner: str | None) -> None:
        """Forgets the object. Raises as `get` does."""
        with self._lock:
            self._find(object_id, owner)
            del self._entries[object_id]

    def release_owned_by(self, owner: str | None) -> int:
        """Forgets every object of one owner and returns how many there were."""
        with self._lock:
            owned = [object_id for object_id, entry in self._entries.items() if entry.owner == owner]
            for object_id in owned:
                del self._entries[object_id]
            return len(owned)

    def clear(self) -> int:
        """Forgets everything and returns how many objects there were."""
        with self._lock:
            count = len(self._entries)
            self._entries.clear()
            self._losses.clear()
            return count

    def owned_by(self, owner: str | None) -> list[dict[str, Any]]:
        """What one owner holds, least recently used first."""
        with self._lock:
            self._drop_expired()
            return [
                {**self._reference(object_id), "created_at": entry.created_at, "uses": entry.uses}
                for object_id, entry in self._entries.items()
                if entry.owner == owner
            ]

    # -- inside; the lock is held ------------------------------------------------------------------------------------

    def _find(self, object_id: str, owner: str | None) -> _Entry:
        self._drop_expired()
        entry = self._entries.get(object_id)
        if entry is not None and entry.owner in (None, owner):
            return entry
        loss = self._losses.get(object_id)
        if loss is not None and loss[0] in (None, owner):
            raise BridgeError("resource_lost", f"object {object_id} {loss[1]}", details={"object": object_id})
        raise BridgeError(
            "resource_not_found",
            f"no object {object_id} for {'this session' if owner else 'calls without a session'} in this worker; "
            "a reference lives in the worker that made it and belongs to its session, so use a session to stay there",
            details={"object": object_id},
        )

    def _drop_expired(self) -> None:
        now = self._monotonic()
        for object_id in [key for key, entry in self._entries.items() if entry.dies_at <= now]:
            entry = self._entries.pop(object_id)
            self._lost(object_id, entry.owner, f"expired: it was not used for {entry.ttl:g} s")

    def _lost(self, object_id: str, owner: str | None, reason: str) -> None:
        self._losses[object_id] = (owner, reason)
        while len(self._losses) > REMEMBERED_LOSSES:
            self._losses.popitem(last=False)

    def _reference(self, object_id: str) -> dict[str, Any]:
        entry = self._entries[object_id]
        name = type_name(entry.value)
        reference = {REFERENCE_KEY: object_id, "type": name, "expires_at": entry.expires_at}
        if name in _SHOWN_AS_TEXT:
            reference["text"] = str(entry.value)
        return reference
