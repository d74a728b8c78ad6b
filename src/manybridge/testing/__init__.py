"""What tests of bridges use. Nothing here is imported by a worker or a host."""

from __future__ import annotations

from manybridge.testing.contract import check_bridge, contract_problems
from manybridge.testing.harness import BridgeHarness, HarnessResource, Outcome

__all__ = ["BridgeHarness", "HarnessResource", "Outcome", "check_bridge", "contract_problems"]
