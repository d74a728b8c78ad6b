"""Hosts and workers that get `kill -9` at random moments, 200 times, and what the next host finds."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from collections import Counter
from pathlib import Path

import pytest

from manybridge.store.liveness import started_at
from tests.recovery.ledger import Ledger
from tests.support import MS, REPOSITORY, SOURCE, eventually

SEED = 20_260_101

KILLS = {"sqlite": 140, "postgresql": 60}

ENOUGH = {"execute": 200, "create": 30, "delete": 20, "wait": 80, "begin": 5, "end": 5, "call": 40}
"""What must have been acknowledged so often in 200 kills at least, so that they struck something."""


def seed_of(kind: str) -> int:
    """`MANYBRIDGE_TEST_KILL_SEED` draws other moments; `random` draws them anew each time."""
    told = os.environ.get("MANYBRIDGE_TEST_KILL_SEED", str(SEED))
    return random.randrange(10**9) if told == "random" else int(told) + len(kind)


async def kill(kind: str, url: str, folder: Path, seed: int) -> Ledger:
    """Run the program that forks and kills. Returns what all lives have promised and kept."""
    arena = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.recovery.arena", url, str(folder), str(KILLS[kind]), str(seed)),
        cwd=REPOSITORY,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": f"{SOURCE}:{REPOSITORY}"},
    )
    _, said = await arena.communicate()
    assert arena.returncode == 0, said.decode()[-4000:]
    ledger = Ledger()
    left: dict[int, int | None] = {}
    for text in (folder / "log").read_text().splitlines():
        line = json.loads(text)
        ledger.apply(line)
        left.update(line.get("left", ()))
    # Whatever a killed host had started is gone; a pid that was given to another process since began later.
    eventually(lambda: not _living(left), 2_000 * MS)
    return ledger


def _living(processes: dict[int, int | None]) -> list[int]:
    return [pid for pid, began in processes.items() if began is not None and started_at(pid) == began]


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_what_was_acknowledged_is_there_after_any_kill(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Resources are usable and have their state, what was deleted stays so, jobs have their result or say why not.

    On both databases at the same time, so that the kills meet a busy machine.
    """
    urls = {
        "sqlite": f"sqlite:///{tmp_path}/store.db",
        "postgresql": request.getfixturevalue("postgresql").new_database(),
    }
    seeds = {kind: seed_of(kind) for kind in urls}
    arenas = (kill(kind, url, _folder(tmp_path / kind), seeds[kind]) for kind, url in urls.items())
    ledgers = await asyncio.gather(*arenas)

    for kind, ledger in zip(urls, ledgers, strict=True):
        assert ledger.broken == [], f"{kind}, seed {seeds[kind]}, {ledger.counts}"
        share = KILLS[kind] / 200
        few = {name for name, least in ENOUGH.items() if ledger.counts[f"{name} done"] < least * share}
        assert not few, f"{kind}: {few} of {ledger.counts}"
        assert ledger.counts["closed"] >= 1, "the last host has not ended in order"
        assert not [id for id, thing in ledger.things.items() if thing.there and thing.kind != "key"]
    total = sum((ledger.counts for ledger in ledgers), start=Counter[str]())
    assert total["killed host"] >= 50
    assert total["killed worker"] + total["killed zygote"] >= 50
    assert total["killed host"] + total["killed worker"] + total["killed zygote"] >= 200
