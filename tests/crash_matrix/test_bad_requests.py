"""Every bad request through every door: one code, an answer at once, and whoever gave it goes on serving."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from manybridge import MLBridge
from manybridge.cli.exit_codes import exit_code_for
from manybridge.errors import ManybridgeError
from tests.cli.support import CommandLine
from tests.crash_matrix.requests import BAD_REQUESTS, ID, OPEN_ID, SMALL_FRAME, BadRequest
from tests.crash_matrix.stage import SLACK
from tests.support import frame
from tests.worker.raw import RawWorker

SEED = 20260722
RANDOM_FRAMES = 1_000


def through(door: str) -> pytest.MarkDecorator:
    """Parametrize with the requests that can be made there."""
    found = [each for each in BAD_REQUESTS if getattr(each, door) is not None]
    return pytest.mark.parametrize("bad", found, ids=[each.text for each in found])


# ---------------------------------------------------------------- the wire


@pytest.fixture(scope="module")
def worker_2() -> Iterator[RawWorker]:
    """Return a worker that was greeted, so that it speaks version 2."""
    with RawWorker("mock", "--max-frame-bytes", str(SMALL_FRAME)) as worker:
        worker.result("common:hello", {"protocol": 2})
        yield worker


@pytest.fixture(scope="module")
def worker_1() -> Iterator[RawWorker]:
    """Return a worker that nobody greeted."""
    with RawWorker("mock", "--max-frame-bytes", str(SMALL_FRAME)) as worker:
        yield worker


@through("wire")
def test_the_wire_answers_with_the_code(bad: BadRequest, worker_2: RawWorker) -> None:
    """And with the request's id, where it has one that can be read."""
    answer = _answer(worker_2, bad)

    assert answer["error_info"]["code"] == bad.code
    assert answer["error_info"]["message"] == answer["error"]


@through("wire")
def test_version_1_gets_a_text(bad: BadRequest, worker_1: RawWorker) -> None:
    """The code stands beside it only where no version 1 client can be harmed: the request was none, or no version 1."""
    answer = _answer(worker_1, bad)

    assert answer.get("error_info", {"code": bad.code})["code"] == bad.code


def _answer(worker: RawWorker, bad: BadRequest) -> dict[str, Any]:
    """Send a bad request; check that there is one answer, of the right form, and that the worker goes on."""
    assert bad.wire is not None
    clashes = f'"id":{OPEN_ID}'.encode() in bad.wire
    if clashes:
        worker.send_message({"id": OPEN_ID, "command": "mock:sleep", "args": {"seconds": 0.1}})
    worker.send_bytes(bad.wire)
    answer: dict[str, Any] = worker.read(SLACK)
    if clashes:
        assert worker.receive(OPEN_ID)["result"] == {"slept": 0.1}
    assert worker.result("common:ping")["status"] == "ok"
    assert worker.result("mock:echo", {"text": "still here"}) == {"text": "still here"}

    assert answer["success"] is False
    assert answer["id"] == (OPEN_ID if clashes else ID if bad.has_id else None)
    assert answer["error"]
    assert type(answer["timestamp"]) is float
    return answer


@pytest.mark.parametrize("cut", [b"\x00\x00", b"\x00\x00\x00\x10", b'\x00\x00\x00\x10{"id"'], ids=len)
def test_a_frame_that_is_cut_off_by_the_end_of_input_ends_the_worker_in_peace(cut: bytes) -> None:
    """With status 0, as after a clean end: in the header, after it, in the body."""
    with RawWorker("mock") as worker:
        assert worker.result("common:ping")["status"] == "ok"
        worker.send_bytes(cut)
        worker.end_of_input()
        assert worker.ended() == 0


def test_a_thousand_random_frames_leave_the_worker_answering(worker_2: RawWorker) -> None:
    """Each is answered once: with an error if it is no request, and in any case without harm."""
    rng = random.Random(SEED)
    for number in range(RANDOM_FRAMES):
        payload = _random_payload(rng, number)
        worker_2.send_bytes(frame(payload))
        answer = worker_2.read(SLACK)
        assert answer["success"] or answer["error_info"]["code"], payload
    assert worker_2.result("mock:echo", {"text": "still here"}) == {"text": "still here"}


def _random_payload(rng: random.Random, number: int) -> bytes:
    message = {
        "id": rng.choice([number, str(number), number + 0.5, None, [], True]),
        "command": rng.choice(["mock:echo", "mock:nothing", "common:ping", "common:get_resource", "", 7, None]),
        "args": rng.choice([{}, {"id": "x"}, {"text": "\u2028\ud83d\ude00"}, [], "args", None]),
        "stream": rng.choice([False, False, "no", 1]),
        "deadline_ms": rng.choice([None, 60_000, -1, "1", 10**400]),
    }
    payload = bytearray(json.dumps(message).encode())
    for _ in range(rng.choice([0, 0, 1, 5])):
        payload[rng.randrange(len(payload))] = rng.randrange(256)
    return bytes(payload[: rng.choice([len(payload), len(payload), rng.randrange(len(payload))])])


# ---------------------------------------------------------------- Python


@pytest.fixture(scope="module")
def host() -> Iterator[MLBridge]:
    """Return a host with the bridge `mock`."""
    with MLBridge({"bridges": {"mock": {"max_frame_bytes": SMALL_FRAME, "zygote": "never"}}}) as ml:
        ml.wait_ready("mock")
        yield ml


@through("python")
def test_python_raises_an_error_with_the_code(bad: BadRequest, host: MLBridge) -> None:
    """Whatever was wrong; the worker is the same afterwards."""
    assert bad.python is not None
    before = host.call("mock", "mock:pid")

    with pytest.raises(ManybridgeError) as caught:
        bad.python(host)

    assert (caught.value.code, caught.value.retryable) == (bad.code, False)
    assert host.call("mock", "mock:pid")["pid"] == before["pid"]


# ---------------------------------------------------------------- the command line


@through("cli")
def test_the_command_line_ends_with_the_exit_code(
    bad: BadRequest, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And says the code as JSON on standard error."""
    monkeypatch.chdir(tmp_path)
    assert bad.cli is not None

    ended = CommandLine(capsys)(*bad.cli, "--json")

    assert (ended.error["code"], ended.code) == (bad.code, bad.exit_code)
    assert ended.code == exit_code_for(bad.code)
    assert ended.out == ""
