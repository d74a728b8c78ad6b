"""A session that was recorded can be replayed from both sides, without its secrets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from manybridge import MLBridge
from manybridge.bridges.mock import MockBridge
from manybridge.errors import ManybridgeError
from manybridge.testing import KitError, Recorder, Recording, ReplayMismatch, ReplayMLBridge, replay_against

SECRET = "sk-abcdefgh"


def session(ml: MLBridge) -> list[Any]:
    """What an application does: a call with a secret, a stream, a resource, an error, a tool."""
    ml.register_tool("add", lambda a, b: a + b)
    seen = [ml.call("mock", "mock:echo", {"n": 1, "api_key": "abc", "text": f"my {SECRET}"})["n"]]
    seen.append([event.data for event in ml.stream("mock", "mock:count", {"n": 3})])
    made = ml.create_resource("mock", "echo", {"a": 1})
    seen.append(ml.execute_resource("mock", made.id, {"b": 2}))
    with pytest.raises(ManybridgeError) as caught:
        ml.call("mock", "mock:error", {"code": "rate_limited"})
    seen.append(caught.value.code)
    seen.append(ml.call("mock", "mock:call_host", {"tool": "add", "args": {"a": 1, "b": 2}}))
    return seen


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    """A recording, and what the application saw when it was made."""
    path = tmp_path_factory.mktemp("recording") / "session.jsonl"
    with MLBridge({"bridges": {"mock": {"zygote": "never"}}}) as ml:
        ml.wait_ready()
        with Recorder(ml, path, secrets=[SECRET]):
            seen = session(ml)
        assert ml.call("mock", "mock:echo", {"after": 1}) == {"after": 1}
    return path, seen


def test_a_recording_has_every_frame_and_no_secret(recorded: tuple[Path, list[Any]]) -> None:
    """Both ways, in order, from the hello on; nothing after the recorder was closed."""
    path, _ = recorded
    text = path.read_text()
    exchanges = [each for each in Recording(path).exchanges() if each.command.startswith("mock:")]

    assert SECRET not in text
    assert '"api_key":"********"' in text
    assert [each.command for each in exchanges] == ["mock:echo", "mock:count", "mock:error", "mock:call_host"]
    assert [frame.message.get("event") for frame in exchanges[1].answers] == ["chunk", "chunk", "chunk", None]
    assert '"after"' not in text


def test_a_replayed_host_says_what_was_recorded(recorded: tuple[Path, list[Any]]) -> None:
    """The application sees the same, without a worker; twice, since a replay changes nothing."""
    path, seen = recorded
    for _ in range(2):
        with ReplayMLBridge(path) as ml:
            assert session(ml) == seen
            assert ml.unasked == []


def test_an_application_that_asks_otherwise_is_told_the_line(recorded: tuple[Path, list[Any]]) -> None:
    """The first frame that differs, where and how."""
    path, _ = recorded
    with pytest.raises(ReplayMismatch) as caught, ReplayMLBridge(path) as ml:
        ml.call("mock", "mock:echo", {"n": 2, "api_key": "abc", "text": f"my {SECRET}"})

    line = json.loads(path.read_text().splitlines()[caught.value.line - 1])
    assert line["frame"]["command"] == "mock:echo"
    assert str(caught.value) == f"session.jsonl:{caught.value.line}: mock:echo: args.n: expected 1, found 2"


@pytest.mark.parametrize("worker", ["mock", MockBridge], ids=["process", "memory"])
def test_a_worker_is_asked_what_was_recorded(recorded: tuple[Path, list[Any]], worker: Any) -> None:
    """One that says the same passes, in a process or inside this one."""
    assert replay_against(recorded[0], worker) == 7


def test_a_worker_that_answers_otherwise_is_told_the_line(recorded: tuple[Path, list[Any]], tmp_path: Path) -> None:
    """The recording is changed here, which is the same as a changed worker."""
    lines = recorded[0].read_text().splitlines()
    number = next(i for i, line in enumerate(lines) if '"event":"chunk"' in line and '"data":1' in line)
    lines[number] = lines[number].replace('"data":1', '"data":7')
    changed = tmp_path / "changed.jsonl"
    changed.write_text("\n".join(lines))

    with pytest.raises(ReplayMismatch, match=rf"changed\.jsonl:{number + 1}: mock:count\.data: expected 7, found 1"):
        replay_against(changed, MockBridge)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "1: not JSON"),
        ('{"recording": 9}', "no recording of format 1; found 9"),
        ('{"recording": 1}\n{"way": "up"}', "2: expected worker, bridge, way and frame"),
    ],
)
def test_a_file_that_is_no_recording_is_refused(tmp_path: Path, text: str, said: str) -> None:
    """With the line that is wrong."""
    file = tmp_path / "it.jsonl"
    file.write_text(text)

    with pytest.raises(KitError, match=said):
        Recording(file)
