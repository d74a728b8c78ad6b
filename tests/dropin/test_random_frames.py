"""1,000 random malformed frames: after each, the process answers, stays silent, or ends with 0; as section 3 says."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from tests.dropin.port import POOL_WORKER, STANDALONE, Port, frame

SEED = 20260721
FRAMES = 1_000
COMMANDS = [
    "ping", "configure_lm", "create_program", "create_gemini_program", "execute_program", "execute_gemini_program",
    "list_programs", "delete_program", "get_stats", "cleanup", "reset_state", "get_program_info", "cleanup_session",
    "shutdown", "get_session_data", "update_session_data", "predict", "\u2603", "common", "_ping", "ping ",
]  # fmt: skip
KEYS = ["id", "command", "args", "program_id", "session_id", "signature", "inputs", "model", "api_key", "provider", "x"]


def random_value(rng: random.Random, depth: int = 0) -> Any:
    """Make any JSON value."""
    makers: list[Callable[[], Any]] = [
        lambda: None,
        lambda: rng.random() < 0.5,
        lambda: rng.randint(-(2**70), 2**70),
        lambda: rng.uniform(-1e6, 1e6),
        lambda: "".join(chr(rng.choice([9, 34, 92, 97, 0xE4, 0x2028, 0x1F600])) for _ in range(rng.randint(0, 8))),
    ]
    if depth < 3:
        makers.append(lambda: [random_value(rng, depth + 1) for _ in range(rng.randint(0, 4))])
        makers.append(lambda: {rng.choice(KEYS): random_value(rng, depth + 1) for _ in range(rng.randint(0, 4))})
    return rng.choice(makers)()


def random_request(rng: random.Random) -> dict[str, Any]:
    """Make an object that is nearly a request."""
    command = rng.choice([*COMMANDS, random_value(rng)])
    message: dict[str, Any] = {"id": random_value(rng), "command": command, "args": random_value(rng)}
    for key in list(message):
        if rng.random() < 0.1:
            del message[key]
    # "session_id" and the like at the top level would opt in to version 2, which is not what is tested here
    return {**message, "timestamp": random_value(rng)} if rng.random() < 0.5 else message


def random_payload(rng: random.Random) -> bytes:
    """Make a payload: mostly objects, because anything else ends a process, and starting one takes long."""
    kind = rng.random()
    if kind < 0.90:
        return json.dumps(random_request(rng)).encode()
    if kind < 0.93:
        return rng.randbytes(rng.randint(0, 40))
    if kind < 0.96:
        return json.dumps(random_request(rng)).encode()[: rng.randint(0, 30)]
    return json.dumps(random_value(rng)).encode()


def outcome(payload: bytes) -> str:
    """Say what the contract demands: `exit`, `silence` or `reply`."""
    try:
        message = json.loads(payload)
    except ValueError:
        return "exit"
    if not isinstance(message, dict):
        return "exit"
    return "silence" if message.get("id") is None or message.get("command") is None else "reply"


@pytest.mark.slow
@pytest.mark.parametrize("argv", [STANDALONE, POOL_WORKER], ids=["standalone", "pool-worker"])
def test_random_frames_leave_a_process_that_answers_or_has_ended_with_zero(argv: tuple[str, ...]) -> None:
    """Every reply is checked as it comes, so a frame too many or too few would be seen at the next one."""
    rng = random.Random(SEED)
    payloads = [random_payload(rng) for _ in range(FRAMES)]
    seen = {"exit": 0, "silence": 0, "reply": 0}
    while payloads:
        with Port(*argv) as port:
            ended = serve_until_it_ends(port, payloads, seen)
            if not ended:
                assert port.result("ping")["status"] == "ok"
                port.close_input()
            assert port.exit_status() == 0
    assert min(seen.values()) > 30, seen


def serve_until_it_ends(port: Port, payloads: list[bytes], seen: dict[str, int]) -> bool:
    """Send payloads, removing each, until one ends the process or none is left; whether one did."""
    while payloads:
        payload = payloads.pop()
        wanted = outcome(payload)
        seen[wanted] += 1
        port.send_bytes(frame(payload))
        if wanted == "exit":
            return True
        if wanted == "reply":
            check_reply(json.loads(payload), port.reply())
    return False


def check_reply(request: dict[str, Any], reply: dict[str, Any]) -> None:
    """The id comes back as it was, with an object or a text."""
    assert reply["id"] == request["id"], request
    assert type(reply["id"]) is type(request["id"])
    assert type(reply.get("result" if reply["success"] else "error")) is (dict if reply["success"] else str), reply
