"""What the suites about workers share: configurations of real pools, and how to look at their workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from manybridge import AsyncMLBridge

REPOSITORY: Final = Path(__file__).parent.parent
DSPY_PYTHON: Final = REPOSITORY / ".envs" / "dspy" / "bin" / "python"


def pool_config(bridge: str, size: int, zygote: str) -> dict[str, Any]:
    """The configuration of one pool.

    Args:
        bridge: "mock" (a bridge without a framework) or "dspy".
        size: workers.
        zygote: "auto" to fork them, "never" to spawn each.
    """
    table: dict[str, Any] = {"pool_size": size, "zygote": zygote}
    if bridge == "dspy":
        table["python"] = str(DSPY_PYTHON)
    return {"default": bridge, "bridges": {bridge: table}}


async def workers(ml: AsyncMLBridge, bridge: str) -> list[dict[str, Any]]:
    """The workers of a pool as its health describes them."""
    health = await ml.health()
    described: list[dict[str, Any]] = health["bridges"][bridge]["workers"]
    return described
