"""The soak, for a few seconds: `python -m benchmarks.soak` is the whole of it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from benchmarks import soak
from tests.support import framework_python

SECONDS = 6.5
"""Time for three kills: one of each bridge."""

RATE = 60.0


async def account_of(*, dspy: bool) -> dict[str, Any]:
    """Run it for a moment."""
    account = await soak.soak(SECONDS, RATE, 7, dspy=dspy, told=lambda _: None)
    await asyncio.get_running_loop().shutdown_default_executor()
    return account


def check(account: dict[str, Any]) -> None:
    """Every promise but that about memory, which says nothing over seconds."""
    assert account["sent"] == SECONDS * RATE
    assert account["sent"] == account["answered"] + sum(account["failed"].values())
    assert [account[name] for name in ("lost", "wrong", "untyped", "miscounted", "leaks", "unexpected")] == [
        *(0, 0, 0, [], [], {})
    ]
    assert account["retriable"]["success"] >= 0.9
    assert account["kills"]["killed"] == 3
    assert account["kills"]["not_whole_again"] == 0


@pytest.mark.slow
async def test_under_a_load_with_kills_each_call_has_one_right_answer_or_one_typed_error() -> None:
    """With two bridges that need no environment."""
    check(await account_of(dspy=False))


@pytest.mark.framework
async def test_the_same_with_programs_of_dspy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the local endpoint."""
    framework_python("dspy")
    monkeypatch.setenv("DSPY_CACHEDIR", str(tmp_path))
    account = await account_of(dspy=True)

    check(account)
    assert account["by_kind"]["dspy: predict, with a key"]["answered"] > 10


def test_a_broken_promise_is_told() -> None:
    """Each by itself."""
    kept: dict[str, Any] = {
        **dict.fromkeys(("lost", "wrong", "untyped"), 0),
        "unexpected": {},
        "retriable": {"success": 1.0},
        "memory": {"percent": 0.1},
        "kills": {"not_whole_again": 0},
        "miscounted": [],
        "leaks": [],
    }
    broken = {
        "lost": 1,
        "wrong": 1,
        "untyped": 1,
        "unexpected": {"conflict": 2},
        "retriable": {"success": 0.98},
        "memory": {"percent": 5.1},
        "kills": {"not_whole_again": 1},
        "miscounted": ["counter x has counted 3, and 2 were answered"],
        "leaks": ["1 processes"],
    }

    assert soak.broken(kept) == []
    for name, value in broken.items():
        assert len(soak.broken(kept | {name: value})) == 1, name
