"""The one door to LangChain: imported when first needed, with its network habits switched off before."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

QUIET: Final = {
    # A client that can't reach LangSmith holds the end of the process for up to 90 s. Who wants it sets it.
    "LANGSMITH_TRACING": "false",
    "LANGCHAIN_TRACING_V2": "false",
    # Checkpoints come back as messages and plain values only, whatever somebody wrote into the file.
    "LANGGRAPH_STRICT_MSGPACK": "true",
}
"""Variables that are set unless the operator set them."""

NEEDED: Final = ("langchain.agents", "langchain.chat_models", "langgraph.graph", "langgraph.checkpoint.memory")
"""What every worker of this bridge uses."""

FIRST_CALL: Final = (
    "langchain.agents.structured_output",
    "langchain.embeddings",
    "langchain_core.output_parsers",
    "langchain_core.tracers.stdout",
    "langchain_core.tracers.run_collector",
    "langchain_core.messages.block_translators.langchain_v0",
    "langgraph.checkpoint.sqlite.aio",
    "langchain_openai",
    "openai.resources.chat.completions.completions",
    "openai.lib.streaming.chat",
    "httpcore2",
    "httpcore",
    "anyio._backends._asyncio",
    "truststore",
)
"""What a first call may import besides. A zygote imports it once for all workers; what is not installed is left out."""

PACKAGES: Final = ("langchain", "langchain-core", "langgraph", "langgraph-checkpoint-sqlite", "langchain-openai")


def import_langchain() -> None:
    """Import what every worker uses.

    Raises:
        ImportError: LangChain or LangGraph is not installed in this environment, or broken.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    for name in NEEDED:
        importlib.import_module(name)


def import_what_calls_use() -> None:
    """Import what the first calls would import; only a matter of speed."""
    for name in FIRST_CALL:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def forget_shared_clients() -> None:
    """Drop HTTP clients that LangChain's OpenAI plug-in shares between all models of a process.

    A forked worker must not use a connection that its parent, and so its siblings, may have: answers would be mixed
    up. Our zygote makes none; this holds for a parent that is not ours.
    """
    utils: Any = sys.modules.get("langchain_openai.chat_models._client_utils")
    for name in ("_cached_sync_httpx_client", "_cached_async_httpx_client"):
        clear = getattr(getattr(utils, name, None), "cache_clear", None)
        if clear is not None:
            clear()


def versions() -> dict[str, str]:
    """The installed versions of what this bridge stands on; a package that is missing is left out."""
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
