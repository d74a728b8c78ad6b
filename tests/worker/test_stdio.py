"""Nothing that user code prints ever breaks a frame."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import MS, FrameReader, request, split_frames
from tests.worker.raw import BOOTSTRAP, Log, RawWorker, Transport, bridge

MEGABYTE = 1024 * 1024
WAYS = ("print", "stderr", "write", "puts", "subprocess", "original")


@pytest.mark.parametrize("transport", ["socket", "pipes"])
@pytest.mark.parametrize("log", ["file", "merged", "closed", "unread"])
def test_every_way_to_print_leaves_the_frames_whole(transport: Transport, log: Log) -> None:
    """Python, descriptor 1, C, a child process: wherever descriptor 2 leads, the replies are intact."""
    with RawWorker(bridge("handlers"), transport=transport, log=log) as worker:
        for how in WAYS:
            assert worker.result("h:noise", {"how": how, "text": f"<{how}>\n"}) == {"stdin": ""}
        assert worker.result("h:add", {"a": 1}) == 2
        if log == "file":
            for how in WAYS:
                assert f"<{how}>" in worker.log
        worker.end_of_input()
        worker.assert_closed()
        assert worker.ended() == 0


@pytest.mark.parametrize("how", ["print", "write", "stderr"])
def test_a_megabyte_of_print_is_no_obstacle(how: str) -> None:
    """What is printed goes to the log, however much it is."""
    with RawWorker(bridge("handlers")) as worker:
        worker.result("h:noise", {"how": how, "text": "x" * 1023 + "\n", "times": 1024})
        assert worker.log.count("x") == 1023 * 1024


def test_a_megabyte_is_dropped_where_the_log_is_the_stream_itself() -> None:
    """With stderr merged into stdout there is no place for text."""
    with RawWorker(bridge("handlers"), transport="pipes", log="merged") as worker:
        worker.result("h:noise", {"how": "print", "text": "x" * MEGABYTE})
        worker.result("h:noise", {"how": "write", "text": "x" * MEGABYTE})
        found = worker.result("h:descriptors")
        assert found == {"0": os.devnull, "1": os.devnull, "2": os.devnull}


def test_a_file_that_takes_both_streams_stays_a_file_of_frames(tmp_path: Path) -> None:
    """`worker > out 2>&1` is the same stream twice, although it is no pipe."""
    path = tmp_path / "out"
    with path.open("wb") as out:
        data = request(1, "h:noise", {"how": "print"}) + request(2, "h:noise", {"how": "puts"})
        command = [sys.executable, "-I", str(BOOTSTRAP), bridge("handlers")]
        done = subprocess.run(command, input=data, stdout=out, stderr=out, check=True, timeout=5_000 * MS)
    messages, rest = split_frames(path.read_bytes())
    assert [message["id"] for message in messages] == [1, 2]
    assert rest == b""
    assert done.returncode == 0


def test_nothing_is_written_before_the_first_request() -> None:
    """An early frame would be taken for the answer to the client's first ping."""
    with RawWorker(transport="pipes", log="merged") as worker:
        assert not select.select([worker._output], [], [], 200 * MS)[0]
        assert worker.result("ping")["status"] == "ok"


@pytest.mark.parametrize("missing", [0, 1])
def test_a_worker_without_a_protocol_descriptor_says_so(missing: int) -> None:
    """There is nobody to talk to: status 2 and one line, no traceback."""
    done = subprocess.run(
        [sys.executable, "-I", str(BOOTSTRAP), "mock"],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        preexec_fn=lambda: os.close(missing),
        text=True,
        check=False,
        timeout=5_000 * MS,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("manybridge worker: error: ")
    assert "Traceback" not in done.stderr


def test_a_descriptor_that_does_not_block_is_made_to() -> None:
    """A shared description may have been set so by somebody else; half a frame would be the result."""
    with RawWorker(bridge("handlers"), transport="pipes") as worker:
        assert len(worker.result("h:large", {"size": 3 * MEGABYTE})["text"]) == 3 * MEGABYTE
    reading, writing = os.pipe()
    reading_back, writing_back = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing_back, False)
    process = subprocess.Popen([sys.executable, "-I", str(BOOTSTRAP), "mock"], stdin=reading, stdout=writing_back)
    os.close(reading)
    os.close(writing_back)
    try:
        os.write(writing, request(1, "mock:unserializable") + request(2, "mock:echo", {"text": "x" * 10}))
        reader = FrameReader(reading_back)
        assert [reader.read()["id"], reader.read()["id"]] == [1, 2]
    finally:
        os.close(writing)
        os.close(reading_back)
        assert process.wait(5_000 * MS) == 0
