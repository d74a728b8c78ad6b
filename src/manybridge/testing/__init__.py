"""What tests of bridges and of applications use. Nothing here is imported by a worker or a host.

The parts are imported when they are first asked for: a test of a bridge alone does not load a host.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from manybridge.testing.chaos.works import ANYTHING
    from manybridge.testing.contract import BridgeContract, check_bridge, contract_problems
    from manybridge.testing.conversation import AsyncMockMLBridge, Conversation, MockMLBridge
    from manybridge.testing.frameworks import FrameworkNotFoundError, framework_config, start_framework
    from manybridge.testing.harness import BridgeHarness, HarnessResource, Outcome
    from manybridge.testing.llm import ChatRequest, Fault, Reply, ScriptedLLM, ToolCall
    from manybridge.testing.memory import AsyncInMemoryMLBridge, InMemoryMLBridge
    from manybridge.testing.problems import KitError
    from manybridge.testing.recording import AsyncRecorder, Recorder, Recording
    from manybridge.testing.replay import ReplayMismatch, ReplayMLBridge, replay_against
    from manybridge.testing.tiny_models import write_tiny_models

__all__ = [
    "ANYTHING",
    "AsyncInMemoryMLBridge",
    "AsyncMockMLBridge",
    "AsyncRecorder",
    "BridgeContract",
    "BridgeHarness",
    "ChatRequest",
    "Conversation",
    "Fault",
    "FrameworkNotFoundError",
    "HarnessResource",
    "InMemoryMLBridge",
    "KitError",
    "MockMLBridge",
    "Outcome",
    "Recorder",
    "Recording",
    "ReplayMLBridge",
    "ReplayMismatch",
    "Reply",
    "ScriptedLLM",
    "ToolCall",
    "check_bridge",
    "contract_problems",
    "framework_config",
    "replay_against",
    "start_framework",
    "write_tiny_models",
]

_MODULE_OF: Final[dict[str, str]] = {
    "ANYTHING": "chaos.works",
    **dict.fromkeys(("BridgeContract", "check_bridge", "contract_problems"), "contract"),
    **dict.fromkeys(("FrameworkNotFoundError", "framework_config", "start_framework"), "frameworks"),
    **dict.fromkeys(("BridgeHarness", "HarnessResource", "Outcome"), "harness"),
    **dict.fromkeys(("ChatRequest", "Fault", "Reply", "ScriptedLLM", "ToolCall"), "llm"),
    **dict.fromkeys(("AsyncMockMLBridge", "Conversation", "MockMLBridge"), "conversation"),
    **dict.fromkeys(("AsyncInMemoryMLBridge", "InMemoryMLBridge"), "memory"),
    "KitError": "problems",
    **dict.fromkeys(("AsyncRecorder", "Recorder", "Recording"), "recording"),
    **dict.fromkeys(("ReplayMLBridge", "ReplayMismatch", "replay_against"), "replay"),
    "write_tiny_models": "tiny_models",
}


def __getattr__(name: str) -> Any:
    """Import a part of this package when it is asked for (PEP 562)."""
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{module}"), name)
