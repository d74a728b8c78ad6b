"""What hosts have promised in their lives, and whether what came later keeps to it.

Each life of a host appends lines to one file: what it begins to do, how that ended, and what it found when it started.
A line is written before the next thing is done, so whatever the file says was acknowledged. What was begun and has no
end was cut off by a kill: it happened or did not, and from then on it must be one of the two. `Ledger.apply` takes a
line after the other and keeps a sentence about each that contradicts those before it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Final

Line = dict[str, Any]

EXPECTED_CODES: Final = frozenset({"worker_crashed", "worker_start_failed", "quarantined"})
"""What a caller may get when a worker was killed; `quarantined` where two died under the same request, one after the
other: who killed them from outside, the host can't know. `resource_lost` comes with pinned resources only."""

CLOSING_CODES: Final = frozenset({"host_closed", "shutting_down", "cancelled", "store_unavailable"})
"""What a caller may get besides while its host closes."""


class Thing:
    """What is known of one resource, session, job or key. None as an answer means: one of both, nobody knows."""

    def __init__(self, begun: Line) -> None:
        self.begun = begun
        self.life: int = begun["life"]
        """In which it was made."""
        self.there: bool | None = None
        self.values: set[Any] = {0}
        """Those that it may have: of a counter, its count."""
        self.is_lost = False
        self.ended: Line | None = None
        """Of a job: how."""

    @property
    def kind(self) -> str:
        """Which type, or which command."""
        kind: str = self.begun["kind"]
        return kind

    @property
    def session(self) -> str | None:
        """Where it was made."""
        return self.begun.get("session")


class Ledger:
    """Owner of everything that was promised."""

    def __init__(self) -> None:
        self.broken: list[str] = []
        self.things: dict[str, Thing] = {}
        self.counts: Counter[str] = Counter()
        """What was done, what it ended with, and what was killed."""
        self.life = -1
        self._open: dict[tuple[int, int], Line] = {}
        self._closing: set[int] = set()
        """Lives that were told to end."""

    def apply(self, line: Line) -> None:
        """Take one more line."""
        self.life = max(self.life, line["life"])
        if "do" in line:
            self._open[line["life"], line["op"]] = line
            _BEGINS[line["do"]](self, line)
        elif "op" in line:
            begun = self._open.pop((line["life"], line["op"]))
            outcome = "done" if "ok" in line else line["no"]
            self.counts[f"{begun['do']} {outcome}"] += 1
            if "no" in line and not self._may_fail(begun, line):
                self._break(line, f"{begun} ended with {line['no']}: {line['text']}")
            _ENDS[begun["do"]](self, begun, line)
        elif "found" in line:
            self._found(line)
        elif "killed" in line:
            self.counts[f"killed {line['killed']}"] += 1
        elif "failed" in line:
            self._break(line, line["failed"])
        else:
            self.counts[line["life is"]] += 1
            if line["life is"] == "closing":
                self._closing.add(line["life"])

    def of(self, owner: str, *kinds: str) -> list[str]:
        """The ids of those things of an owner that are there for certain."""
        return [
            id
            for id, thing in self.things.items()
            if thing.there and id.startswith(f"{owner}-") and thing.kind in kinds
        ]

    def _break(self, line: Line, text: str) -> None:
        self.broken.append(f"life {line['life']}: {text}")

    def _may_fail(self, begun: Line, line: Line) -> bool:
        code = line["no"]
        if line["life"] in self._closing and code in CLOSING_CODES:
            return True
        if code in EXPECTED_CODES:
            return begun["do"] not in {"delete", "end", "forget"}
        thing = self.things[begun["id"]]
        return begun["do"] == "execute" and thing.kind == "pinned" and code == "resource_lost"

    # ------------------------------------------------------------------ made and deleted

    def _make(self, line: Line) -> None:
        self.things[line["id"]] = Thing(line)

    def _made(self, begun: Line, line: Line) -> None:
        # After an error whoever wanted it is told that there is none; a kill may come before that is undone.
        self.things[begun["id"]].there = True if "ok" in line else None

    def _delete(self, line: Line) -> None:
        for each in [line["id"], *self._made_in(line["id"])]:
            self.things[each].there = None

    def _deleted(self, begun: Line, line: Line) -> None:
        for each in [begun["id"], *self._made_in(begun["id"])]:
            self.things[each].there = None if "no" in line else False

    def _made_in(self, session: str) -> list[str]:
        return [id for id, thing in self.things.items() if thing.session == session and thing.there is not False]

    # ------------------------------------------------------------------ used

    def _execute(self, line: Line) -> None:
        thing = self.things[line["id"]]
        if thing.kind in _COUNTS:
            line["before"] = thing.values
            thing.values = thing.values | {each + 1 for each in thing.values}

    def _executed(self, begun: Line, line: Line) -> None:
        thing = self.things[begun["id"]]
        if thing.kind in _COUNTS:
            self._counted(thing, begun, line)
        elif line.get("no") == "resource_lost":
            thing.is_lost = True
        elif "ok" in line:
            if thing.kind == "pinned" and (thing.is_lost or thing.life != line["life"]):
                self._break(line, f"{begun['id']} answered {line['ok']} after it was lost")
            if line["ok"] != begun["due"]:
                self._break(line, f"{begun['id']} answered {line['ok']}, not {begun['due']}")

    def _counted(self, thing: Thing, begun: Line, line: Line) -> None:
        if "no" in line:
            # An execution counts only together with its snapshot. A host that closes does not wait for the write.
            thing.values = begun["before"] if line["no"] in EXPECTED_CODES else thing.values
            return
        if line["ok"] - 1 not in begun["before"]:
            self._break(line, f"{begun['id']} counted {line['ok']} after one of {sorted(begun['before'])}")
        thing.values = {line["ok"]}

    def _called(self, begun: Line, line: Line) -> None:
        thing = self.things[begun["id"]]
        if "ok" in line:
            if thing.there and line["ok"] not in thing.values:
                self._break(line, f"key {begun['id']} gave {line['ok']}, and {thing.values} before")
            thing.there, thing.values = True, {line["ok"]}

    # ------------------------------------------------------------------ jobs

    def _waited(self, begun: Line, line: Line) -> None:
        if "ok" in line:
            self._job_is(self.things[begun["id"]], line, line["ok"])

    def _job_is(self, job: Thing, line: Line, seen: Line) -> None:
        """A job is as it was told: `state`, `result`, `code`, `interrupted`."""
        name, state = job.begun["id"], seen["state"]
        if job.ended not in (None, seen):
            self._break(line, f"job {name} is {seen}, and was {job.ended}")
        due = job.begun["due"]
        if state == "done" and (seen["result"] != due or seen["events"] < due["steps"]):
            self._break(line, f"job {name} gave {seen}, not {due}")
        if state == "failed" and not self._job_may_fail(job, seen, closing=line["life"] in self._closing):
            self._break(line, f"job {name} failed with {seen}")
        is_open = state == "cancelled" or (state not in {"done", "failed"} and not job.begun["resume"])
        if is_open and job.life != line["life"]:  # this host is the only one, so it was interrupted
            self._break(line, f"job {name} of a host that has gone is {state}")
        goes_on = seen["code"] == "host_closed" and job.begun["resume"]  # its host ended before it
        if state in {"done", "failed"} and not goes_on:
            job.ended = seen
        self.counts[f"job {seen['code'] or state}"] += 1

    @staticmethod
    def _job_may_fail(job: Thing, seen: Line, *, closing: bool) -> bool:
        if seen["code"] == "host_closed":
            return bool(seen["interrupted"]) and (closing or not job.begun["resume"])
        return seen["code"] in EXPECTED_CODES

    # ------------------------------------------------------------------ found at the start of a life

    def _found(self, line: Line) -> None:
        found: dict[str, Any] = line["found"]
        for id, thing in self.things.items():
            if thing.kind == "key":
                continue
            is_there = id in found
            if thing.there is not None and thing.there != is_there:
                text = "is there, although it was deleted" if is_there else "is gone, although it was made"
                self._break(line, f"{id} {text}: {thing.begun}")
            thing.there = is_there
            if is_there and thing.kind == "job":
                self._job_is(thing, line, found[id])
        for id in found.keys() - self.things.keys():
            self._break(line, f"{id} is there, and nobody made it")
        self.counts["found"] += len(found)


_COUNTS: Final = frozenset({"counter", "state"})

_BEGINS: Final[dict[str, Callable[[Ledger, Line], None]]] = {
    "create": Ledger._make,
    "begin": Ledger._make,
    "submit": Ledger._make,
    "key": Ledger._make,
    "delete": Ledger._delete,
    "end": Ledger._delete,
    "forget": Ledger._delete,
    "execute": Ledger._execute,
    "call": lambda *_: None,
    "wait": lambda *_: None,
}
"""What a line that begins something changes."""

_ENDS: Final[dict[str, Callable[[Ledger, Line, Line], None]]] = {
    "create": Ledger._made,
    "begin": Ledger._made,
    "submit": Ledger._made,
    "key": Ledger._called,
    "delete": Ledger._deleted,
    "end": Ledger._deleted,
    "forget": Ledger._deleted,
    "execute": Ledger._executed,
    "call": Ledger._called,
    "wait": Ledger._waited,
}
"""What its end changes."""
