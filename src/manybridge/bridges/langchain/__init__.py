"""The LangChain bridge: prompts, chains, agents, tools and memory, in the terms of LangChain 1.x.

Importing this package does not import LangChain. Where to look: `bridge.py` declares the commands and resource types,
`models.py` says who pays for which model, `lcel.py` reads the description of a chain and `chains.py` builds it,
`agents.py` and `memory.py` run agents and keep their threads, `tools.py` and `schemas.py` check what a model sends.
"""

from __future__ import annotations

from manybridge.bridges.langchain.bridge import LangChainBridge

__all__ = ["LangChainBridge"]
