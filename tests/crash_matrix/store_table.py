"""The crash matrix of what is kept: faults of the store, of the clock and of callers, where, and what a caller sees."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

Place = Literal["boot", "idle", "call", "stream", "job", "snapshot", "shutdown"]
StoreKind = Literal["store", "server", "clock", "use"]

PLACES: Final[dict[Place, str]] = {
    "boot": "before the host starts. The cell is what the first create of a resource gets.",
    "idle": "between two calls. The cell is what the next create gets.",
    "call": "in a call with an idempotency key, which the store has reserved and whose result it is to keep.",
    "stream": "in a stream.",
    "job": "in a job, whose end the store is to keep.",
    "snapshot": "between an execution and the moment when the state that it left is kept. Where that fails, the "
    "execution does not count: the next one goes on from the state before.",
    "shutdown": "while the host closes, with a claim and counts that the store is to be told of.",
}

STORE_REASONS: Final[dict[str, str]] = {
    "d": "nothing is restored there",
    "e": "what closes is not used",
}


class StoreRow(NamedTuple):
    """One fault and what the caller sees of it, by where it strikes."""

    fault: str
    kind: StoreKind
    """What breaks: the file of SQLite, a server of PostgreSQL, the clock, or nothing: callers use a resource so."""
    text: str
    boot: str
    idle: str
    call: str
    stream: str
    job: str
    snapshot: str
    shutdown: str

    def cell(self, place: Place) -> str:
        """What is expected there."""
        expected: str = getattr(self, place)
        return expected


def _store(fault: str, text: str, code: str, reason: str, *, kind: StoreKind = "store", **cells: str) -> StoreRow:
    failing = f"{code}, {reason}"
    told = {"boot": failing, "idle": failing, "snapshot": failing}
    others = {"call": "answered", "stream": "answered", "job": "answered", "shutdown": "closed"}
    return StoreRow(fault, kind, text, **{**told, **others, **cells})


def _unnoticed(fault: str, kind: StoreKind, text: str) -> StoreRow:
    cells: dict[str, str] = dict.fromkeys(PLACES, "answered")
    return StoreRow(fault, kind, text, **{**cells, "shutdown": "closed"})


STORE_MATRIX: Final[tuple[StoreRow, ...]] = (
    # The store's file
    _store("missing", "the folder of the file is not there, or is moved away while the host has the file open",
           "store_unavailable", "missing_folder", idle="store_unavailable, moved", snapshot="store_unavailable, moved"),
    _store("locked", "another program holds the write lock for longer than the host waits",
           "store_unavailable", "locked"),
    _store("full", "there is no room to write", "store_unavailable", "full"),
    _store("read-only", "the file may not be written", "store_unavailable", "read_only"),
    _store("corrupted", "the file's pages are overwritten with garbage", "store_corrupted", "corrupted"),
    _store("newer schema", "a newer release has upgraded the database; that is looked at when it is opened",
           "store_incompatible", "newer_schema", idle="answered", snapshot="answered"),
    # The server
    _unnoticed("server restarts", "server", "PostgreSQL is restarted as after a crash: every connection is cut"),
    _store("server gone", "PostgreSQL has ended, and stays away for longer than the host waits",
           "store_unavailable", "unreachable", kind="server"),
    # The clock
    _unnoticed("clock jumps forward", "clock", "the clock of machine and database jumps a day ahead"),
    _unnoticed("clock jumps back", "clock", "the clock of machine and database jumps a day back"),
    # How resources, keys and states are used
    StoreRow("restore fails", "use", "a resource is restored, in another worker, from a snapshot that its bridge "
             "refuses: after a restart of the host, after the worker's death between two calls, or in one; by a "
             "stream, by a job",
             "handler_error", "handler_error", "handler_error", "handler_error", "handler_error", "- d", "closed"),
    StoreRow("deleted meanwhile", "use", "a resource is deleted while it is executed; for boot and idle before that",
             "resource_not_found", "resource_not_found", "answered", "answered", "answered", "answered", "closed"),
    StoreRow("key reused", "use", "an idempotency key comes again with other arguments: after a restart of the host, "
             "after its call, during it; for a stream, a job, an execution that left a state",
             "conflict", "conflict", "conflict", "conflict", "conflict", "conflict", "- e"),
)  # fmt: skip
