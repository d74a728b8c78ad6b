"""A bridge that imports LangChain, to stand beside another one."""

from __future__ import annotations

from typing import Any

from manybridge.bridge import Bridge


class BesideBridge(Bridge):
    """Imports and nothing else."""

    name = "beside"

    def setup(self, options: dict[str, Any]) -> None:
        """Import the framework."""
        import langchain_core.prompts  # noqa: F401
