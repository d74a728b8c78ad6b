"""One resource: as its caller sees it, and as the host does."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from math import inf
from time import monotonic
from typing import Any, Literal

from manybridge.host.worker import WorkerHandle
from manybridge.store.records import ResourceRecord

Policy = Literal["recreate", "restore", "pinned"]


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource as its caller sees it."""

    id: str
    type: str
    bridge: str
    session: str | None
    created_at: float
    """Epoch seconds."""
    executions: int = 0
    last_executed: float | None = None
    """Epoch seconds."""


class Record:
    """What the host knows of one resource. Changed by the table and its parts only.

    Args:
        stored: as the store has it.
    """

    def __init__(self, stored: ResourceRecord) -> None:
        self.resource = resource_of(stored)
        self.config = stored.config
        self.policy: Policy = stored.policy
        self.holder = stored.holder
        """The host that has it, of a pinned one."""
        self.state = stored.state
        """The last snapshot; the store's, or a newer one that is on its way there."""
        self.snapshot = 0
        """The number of the snapshot that `state` is: what was asked for before it is older, whenever it is told."""
        self.version = stored.version
        """The store's version that the living object continues."""
        self.fence: int | None = None
        """The number of our claim; None while it is not ours to change."""
        self.since: int | None = None
        """The number of the first of our claims between which and now nobody else has changed it."""
        self.changes = 0
        """States since this host knows it, and (`kept`) how many of them the store has."""
        self.kept = 0
        self.uncounted = 0
        """Executions that the store does not know of."""
        self.in_use = 0
        """Executions that run or wait."""
        self.used_at = monotonic()
        self.checked_at = -inf
        """When the store was last asked whether it is still there, monotonic."""
        self.holders: set[WorkerHandle] = set()
        self.lost = False
        self.deleted = False
        self.making = asyncio.Lock()
        """Held while it is being made on a worker."""
        self.claiming = asyncio.Lock()
        """Held while it is claimed or given back."""
        self.saving = asyncio.Lock()
        """Held while a state is written: they arrive in the order in which they came to be."""
        self.releases: set[asyncio.Task[Any]] = set()
        """Workers that are just letting it go."""

    @property
    def key(self) -> tuple[str, str]:
        """Bridge and id."""
        return self.resource.bridge, self.resource.id

    def continues(self, fence: int) -> bool:
        """Whether what was begun under a claim goes on from what the store has, and may be kept."""
        return self.fence is not None and self.since is not None and self.since <= fence

    def living(self) -> list[WorkerHandle]:
        """The workers that hold it, least busy first."""
        return sorted((each for each in self.holders if each.is_ready), key=lambda each: len(each.calls))

    def refresh(self, stored: ResourceRecord) -> None:
        """Take over what the store says; our own executions that it does not know are added."""
        resource = resource_of(stored)
        latest = max(filter(None, (stored.last_executed, self.resource.last_executed)), default=None)
        self.resource = replace(resource, executions=stored.executions + self.uncounted, last_executed=latest)
        self.checked_at = monotonic()


def resource_of(stored: ResourceRecord) -> Resource:
    """What a caller sees of a stored resource."""
    return Resource(
        stored.id,
        stored.type,
        stored.bridge,
        stored.session,
        stored.created_at,
        stored.executions,
        stored.last_executed,
    )
