"""The resources that this worker holds, and the commands on them.

A worker knows nothing of recipes or of other workers: it makes what it is told to make, under the id that it is given,
and forgets everything when it dies. The host remembers.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from time import time
from typing import Any

from manybridge.bridge import Bridge, BridgeError, CommandSpec, ResourceSpec
from manybridge.protocol import codec
from manybridge.protocol.errors import ErrorCode


class HeldResource:
    """One resource in this worker."""

    __slots__ = ("created_at", "executions", "id", "instance", "last_executed", "session_id", "spec")

    def __init__(self, id: str, spec: ResourceSpec, instance: Any, session_id: str | None) -> None:
        self.id = id
        self.spec = spec
        self.instance = instance
        self.session_id = session_id
        self.created_at = time()
        self.executions = 0
        self.last_executed: float | None = None


Invoke = Callable[[CommandSpec, dict[str, Any], Any], Any]
"""Runs a handler: its spec, the caller's arguments, and the instance that it belongs to."""


class ResourceTable:
    """Owner of the resources of one worker.

    Not locked: each step on the mapping is atomic, and of two calls that make the same id one loses at `_keep`.

    Args:
        bridge: whose types these are.
        bridge_name: what descriptions call the bridge.
    """

    def __init__(self, bridge: Bridge, bridge_name: str) -> None:
        self._bridge = bridge
        self._bridge_name = bridge_name
        self._held: dict[str, HeldResource] = {}

    def __len__(self) -> int:
        return len(self._held)

    def create(self, args: dict[str, Any], session_id: str | None, invoke: Invoke) -> dict[str, Any]:
        """Serve `common:create_resource {type, config, id?, state?}`.

        With `state`, a snapshot, the type's `restore` takes the place of its `create`.

        Raises:
            BridgeError: `unknown_resource_type`, `resource_exists`, `invalid_argument`, or what create failed with.
        """
        spec = self._spec(_text(args, "type"))
        config, state = _object(args, "config"), args.get("state")
        # Not secrets.token_hex, which is the same: importing it takes 6 ms of every worker's start.
        id = _text(args, "id") if args.get("id") is not None else f"{spec.type}-{os.urandom(8).hex()}"
        if id in self._held:
            raise _exists(id)
        if state is not None and spec.policy != "restore":
            raise BridgeError(ErrorCode.NOT_SUPPORTED, f"Resources of type {spec.type!r} have no state to restore.")
        held = HeldResource(id, spec, spec.new(self._bridge, id, session_id, config), session_id)
        if state is None:
            invoke(spec.create, config, held.instance)
        else:
            held.instance.restore(state)
        try:
            self._keep(held)
        except BaseException:
            _close(held)
            raise
        return self._describe(held)

    def execute(self, args: dict[str, Any], session_id: str | None, invoke: Invoke) -> Any:
        """Serve `common:execute_resource {id, inputs}`."""
        held = self.get(args, session_id)
        inputs = _object(args, "inputs")
        held.executions += 1
        held.last_executed = time()
        return invoke(held.spec.execute, inputs, held.instance)

    def describe(self, args: dict[str, Any], session_id: str | None) -> dict[str, Any]:
        """Serve `common:get_resource {id}`."""
        return self._describe(self.get(args, session_id))

    def list(self, args: dict[str, Any], session_id: str | None) -> dict[str, Any]:
        """Serve `common:list_resources {type?}`: what this caller may see, oldest first."""
        kind = args.get("type")
        if kind is not None:
            self._spec(_text(args, "type"))
        visible = [
            self._describe(held)
            for held in list(self._held.values())
            if held.session_id in (None, session_id) and kind in (None, held.spec.type)
        ]
        return {"resources": visible, "total_count": len(visible)}

    def delete(self, args: dict[str, Any], session_id: str | None) -> dict[str, Any]:
        """Serve `common:delete_resource {id}`."""
        held = self.get(args, session_id)
        if self._held.pop(held.id, None) is None:  # another thread deleted it a moment ago
            raise _not_found(held.id)
        _close(held)
        return {"id": held.id, "deleted": True}

    def snapshot(self, args: dict[str, Any], session_id: str | None) -> dict[str, Any]:
        """Serve `common:snapshot_resource {id}`: the state that `create_resource` takes back.

        Raises:
            BridgeError: `not_supported`, the type keeps no state; `handler_error`, JSON can't carry it.
        """
        held = self.get(args, session_id)
        if held.spec.policy != "restore":
            raise BridgeError(ErrorCode.NOT_SUPPORTED, f"Resources of type {held.spec.type!r} have no snapshot.")
        state = held.instance.snapshot()
        _check_state(held, state)
        return {"id": held.id, "state": state}

    def clean_up(self, session_id: str | None) -> int:
        """Delete the resources of a session, or all of them; return how many. One that fails to close is gone too."""
        doomed = [held for held in list(self._held.values()) if session_id is None or held.session_id == session_id]
        for held in doomed:
            self._held.pop(held.id, None)
            try:
                _close(held)
            except Exception as error:  # noqa: BLE001  # user code; the others must be closed all the same
                sys.stderr.write(f"closing {held.id} failed: {type(error).__qualname__}: {error}\n")
        return len(doomed)

    def get(self, args: dict[str, Any], session_id: str | None) -> HeldResource:
        """The resource that `args["id"]` names, if this caller may see it.

        Raises:
            BridgeError: `resource_not_found`; the text is the same for a missing and for somebody else's resource.
        """
        id = _text(args, "id")
        held = self._held.get(id)
        if held is None or held.session_id not in (None, session_id):
            raise _not_found(id)
        return held

    def _keep(self, held: HeldResource) -> None:
        if self._held.setdefault(held.id, held) is not held:
            raise _exists(held.id)

    def _spec(self, kind: str) -> ResourceSpec:
        spec = self._bridge.spec.resources.get(kind)
        if spec is None:
            known = sorted(self._bridge.spec.resources)
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise BridgeError(
                ErrorCode.UNKNOWN_RESOURCE_TYPE,
                f"Unknown resource type: {kind} (bridge {self._bridge_name!r}: {has})",
                details={"type": kind, "known": known},
            )
        return spec

    def _describe(self, held: HeldResource) -> dict[str, Any]:
        return {
            "id": held.id,
            "type": held.spec.type,
            "bridge": self._bridge_name,
            "session": held.session_id,
            "created_at": held.created_at,
            "executions": held.executions,
            "last_executed": held.last_executed,
        }


def _close(held: HeldResource) -> None:
    close = getattr(held.instance, "close", None)
    if close is not None:
        close()


def _check_state(held: HeldResource, state: Any) -> None:
    # Whoever reads a result sees a marker in it; a state with one would be restored, and be another state.
    try:
        codec.encode_strict(state)
    except codec.NotSerializableError:
        try:
            codec.encode_request(state)
        except codec.NotSerializableError as error:
            text = f"The snapshot of resource {held.id} can't be kept: {error}."
            raise BridgeError(ErrorCode.HANDLER_ERROR, text) from None


def _exists(id: str) -> BridgeError:
    return BridgeError(ErrorCode.RESOURCE_EXISTS, f"A resource {id!r} exists already.", details={"id": id})


def _not_found(id: str) -> BridgeError:
    return BridgeError(ErrorCode.RESOURCE_NOT_FOUND, f"Resource not found: {id}", details={"id": id})


def _text(args: dict[str, Any], name: str) -> str:
    value = args.get(name)
    if not isinstance(value, str) or not value:
        raise _invalid(name, "a non-empty string", value, name in args)
    return value


def _object(args: dict[str, Any], name: str) -> dict[str, Any]:
    value = args.get(name, {})
    if not isinstance(value, dict):
        raise _invalid(name, "an object", value, True)
    return value


def _invalid(name: str, expected: str, value: Any, present: bool) -> BridgeError:
    from manybridge.protocol.messages import json_type

    found = json_type(value) if present else "nothing"
    return BridgeError(
        ErrorCode.INVALID_ARGUMENT,
        f"{name}: expected {expected}, found {found}",
        details={"problems": [{"argument": name, "expected": expected, "found": found}]},
    )
