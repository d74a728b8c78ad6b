"""Adapters: the typed, framework-specific clients on the host side.

An adapter adds no power, only words: each method is one call of `MLBridge` or `AsyncMLBridge`, with a framework's own
nouns and types. `ml.get_adapter("dspy")` returns one. A framework without an adapter of its own gets the generic one.
"""

from __future__ import annotations

from manybridge.adapters.base import Adapter, AsyncCaller, AsyncGenericAdapter, Caller, GenericAdapter
from manybridge.adapters.dspy import DSPyAdapter
from manybridge.adapters.dspy_async import AsyncDSPyAdapter
from manybridge.adapters.langchain import LangChainAdapter
from manybridge.adapters.langchain_async import AsyncLangChainAdapter
from manybridge.adapters.python import PythonAdapter
from manybridge.adapters.python_async import AsyncPythonAdapter
from manybridge.adapters.registry import (
    AdapterPair,
    adapter_for,
    adapter_pair,
    make_adapter,
    make_async_adapter,
    register_adapter,
)
from manybridge.adapters.transformers import TransformersAdapter
from manybridge.adapters.transformers_async import AsyncTransformersAdapter

__all__ = [
    "Adapter",
    "AdapterPair",
    "AsyncCaller",
    "AsyncDSPyAdapter",
    "AsyncGenericAdapter",
    "AsyncLangChainAdapter",
    "AsyncPythonAdapter",
    "AsyncTransformersAdapter",
    "Caller",
    "DSPyAdapter",
    "GenericAdapter",
    "LangChainAdapter",
    "PythonAdapter",
    "TransformersAdapter",
    "adapter_for",
    "adapter_pair",
    "make_adapter",
    "make_async_adapter",
    "register_adapter",
]
