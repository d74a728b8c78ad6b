"""Where a model runs: devices by name, or the one with most free memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from manybridge.bridge import BridgeError
from manybridge.bridges.transformers.framework import import_torch
from manybridge.bridges.transformers.memory import available_bytes
from manybridge.protocol.errors import ErrorCode


@dataclass(frozen=True, slots=True)
class Device:
    """One place to run. `name` as PyTorch writes it; memory in bytes, as it is now."""

    name: str
    free: int
    total: int | None = None
    title: str = ""

    def to_object(self) -> dict[str, Any]:
        """For replies."""
        return {"name": self.name, "free_bytes": self.free, "total_bytes": self.total, "title": self.title}


def list_devices() -> list[Device]:
    """The CPU, and every CUDA device with what it has free."""
    torch = import_torch()
    found = [Device("cpu", available_bytes(), None, "CPU")]
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(index)
            found.append(Device(f"cuda:{index}", free, total, torch.cuda.get_device_name(index)))
    return found


def choose(asked: str, devices: Sequence[Device], needed: int = 0) -> Device:
    """Find the device that a caller means.

    Args:
        asked: "cpu", "cuda", "cuda:1", or "auto": the accelerator with most free memory if `needed` bytes fit, else
            the CPU.
        devices: what there is.
        needed: bytes.

    Raises:
        BridgeError: `invalid_argument`, there is none of that name.
    """
    by_name = {device.name: device for device in devices}
    if asked == "auto":
        accelerators = [device for device in devices if device.name != "cpu" and device.free >= needed]
        return max(accelerators, key=lambda device: device.free, default=by_name["cpu"])
    found = by_name.get("cuda:0" if asked == "cuda" else asked)
    if found is None:
        raise BridgeError(
            ErrorCode.INVALID_ARGUMENT,
            f"device: there is no {asked!r} here; expected auto or one of {', '.join(by_name)}",
            details={"device": asked, "known": list(by_name)},
        )
    return found
