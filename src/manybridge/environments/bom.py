"""What an environment consists of, for other tools: a CycloneDX document, or plain requirements.

Both come from the lock alone and are the same bytes each time: no time, no random serial number.
"""

from __future__ import annotations

import uuid
from typing import Any, Final
from urllib.parse import quote

from manybridge.environments.locks import Lock, Pin

SPEC_VERSION: Final = "1.6"

_NAMESPACE: Final = uuid.UUID("6d1f4bb4-0f0c-5d0e-9b52-6a3f6d0c7a11")
"""Of our serial numbers; it never changes, or equal locks would get other numbers."""
_ALGORITHMS: Final = {"sha256": "SHA-256", "sha384": "SHA-384", "sha512": "SHA-512"}


def cyclonedx(lock: Lock, tool_version: str) -> dict[str, Any]:
    """Return the CycloneDX document of a lock.

    A component carries the hash of every file of its release that the lock accepts: which one was installed depends on
    the machine.

    Args:
        lock: what to describe.
        tool_version: of manybridge.
    """
    root = f"manybridge-environment:{lock.environment}"
    reference = {pin.release.name: _purl(pin) for pin in lock.pins}
    pins = sorted(lock.pins, key=lambda pin: (pin.release.name, pin.release.version))
    depends: dict[str, set[str]] = {root: set(), **{_purl(pin): set() for pin in pins}}
    for pin in pins:
        parents = [reference[name] for name in pin.demanded_by if name in reference]
        for parent in parents:
            depends[parent].add(_purl(pin))
        if len(parents) < len(pin.demanded_by) or not parents:  # the bridge itself asked for it
            depends[root].add(_purl(pin))
    return {
        "$schema": f"http://cyclonedx.org/schema/bom-{SPEC_VERSION}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SPEC_VERSION,
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, lock.bridge + lock.environment)}",
        "version": 1,
        "metadata": {
            "tools": {"components": [{"type": "application", "name": "manybridge", "version": tool_version}]},
            "component": {"type": "application", "bom-ref": root, "name": lock.bridge, "version": lock.environment},
            "properties": [
                {"name": "manybridge:python", "value": lock.python},
                {"name": "manybridge:platform", "value": lock.platform},
            ],
        },
        "components": [_component(pin) for pin in pins],
        "dependencies": [{"ref": ref, "dependsOn": sorted(on)} for ref, on in sorted(depends.items())],
    }


def requirements(lock: Lock) -> str:
    """Return the lock without its comments, as pip takes it."""
    lines = []
    for pin in sorted(lock.pins, key=lambda pin: (pin.release.name, pin.release.version)):
        marker = f" ; {pin.marker}" if pin.marker else ""
        lines.append(" \\\n    ".join([f"{pin.release}{marker}", *(f"--hash={each}" for each in pin.hashes)]))
    return "\n".join(lines) + "\n"


def _component(pin: Pin) -> dict[str, Any]:
    pairs = (each.partition(":") for each in pin.hashes)
    return {
        "type": "library",
        "bom-ref": _purl(pin),
        "name": pin.release.name,
        "version": pin.release.version,
        "purl": _purl(pin),
        "hashes": [{"alg": _ALGORITHMS[algorithm], "content": digest} for algorithm, _, digest in pairs],
    }


def _purl(pin: Pin) -> str:
    return f"pkg:pypi/{pin.release.name}@{quote(pin.release.version, safe='')}"
