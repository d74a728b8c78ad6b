"""How a worker ends: with its client, by a signal, with its parent; and what it says when it crashes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from tests.support import DEFAULT_TIMEOUT, MS, FrameReader, eventually, process_is_running, request
from tests.worker.raw import BOOTSTRAP, RawWorker, Transport, bridge

BUSY = ("python_loop", "sleep", "c_call", "stuck", "lock", "coroutine", "never", "subprocess")
"""Code that only an end of the process ends."""


def start(worker: RawWorker, command: str) -> int:
    """Begin a call, wait until its code runs, and return what it emitted first if that is a process."""
    worker.send(f"s:{command}", stream=True)
    data = worker.next_event()["data"]
    return data if isinstance(data, int) else 0


# ------------------------------------------------------------------ end of input


@pytest.mark.parametrize("transport", ["socket", "pipes"])
@pytest.mark.parametrize("rest", [b"", b"\x00", b"\x00\x00\x00", b"\x00\x00\x00\x09", b"\x00\x00\x00\x09half"])
def test_the_end_of_input_ends_an_idle_worker_with_status_0(transport: Transport, rest: bytes) -> None:
    """Clean, in the middle of a header, in the middle of a body: nothing is answered."""
    with RawWorker(transport=transport) as worker:
        worker.result("ping")
        worker.send_bytes(rest)
        worker.end_of_input()
        worker.assert_closed()
        assert worker.ended() == 0


def test_the_end_of_input_before_the_first_request_is_fine_too() -> None:
    """A client may change its mind."""
    with RawWorker() as worker:
        worker.hang_up()
        assert worker.ended() == 0
        assert worker.log == ""


@pytest.mark.parametrize("mode", ["standalone", "host"])
@pytest.mark.parametrize("command", BUSY)
def test_a_worker_whose_client_went_away_ends_in_the_middle_of_a_call(mode: str, command: str) -> None:
    """Whatever its code does, as long as the interpreter can run beside it; its children go too."""
    with RawWorker(bridge("stubborn"), "--mode", mode) as worker:
        child = start(worker, command)
        worker.hang_up()
        assert worker.ended() == 0
        assert not child or eventually(lambda: not process_is_running(child))


@pytest.mark.parametrize("transport", ["socket", "pipes"])
def test_a_worker_whose_client_went_away_ends_in_the_middle_of_an_import(transport: Transport, tmp_path: Path) -> None:
    """Nobody waits for a framework that nobody will use."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with RawWorker(bridge("gated"), transport=transport, environment={"GATE": str(gate)}) as worker:
        worker.result("ping")
        eventually(lambda: worker.result("ping")["state"] == "loading")
        worker.hang_up()
        assert worker.ended() == 0


@pytest.mark.parametrize("arguments", [(), ("--max-concurrency", "2")], ids=["main thread", "pool threads"])
@pytest.mark.parametrize("transport", ["socket", "pipes"])
def test_a_client_that_only_finished_writing_gets_all_its_replies(
    transport: Transport, arguments: tuple[str, ...]
) -> None:
    """`printf ... | worker | reader`: then status 0."""
    with RawWorker(bridge("stubborn"), *arguments, transport=transport) as worker:
        numbers = [worker.send("s:sleep", {"seconds": 0.02}) for _ in range(3)]
        worker.end_of_input()
        assert sorted(worker.read()["id"] for _ in numbers) == numbers
        worker.assert_closed()
        assert worker.ended() == 0


def test_a_client_that_finished_writing_and_then_goes_away_is_noticed() -> None:
    """A closed port closes both directions, but one after the other."""
    with RawWorker(bridge("stubborn"), transport="pipes") as worker:
        start(worker, "python_loop")
        worker.end_of_input()
        worker.stop_reading()
        assert worker.ended() == 0


@pytest.mark.parametrize("command", ["quick", "stream"])
def test_a_worker_that_nobody_reads_from_ends_with_status_0(command: str) -> None:
    """With its next frame."""
    with RawWorker(bridge("stubborn"), transport="pipes") as worker:
        worker.result("s:quick")
        worker.stop_reading()
        worker.send(f"s:{command}", stream=True)
        assert worker.ended() == 0
        assert "Traceback" not in worker.log


def test_a_log_that_nobody_reads_does_not_keep_a_worker_alive() -> None:
    """User code waits for its reader with the stream's lock in its hand; the end does not wait for that lock."""
    reading, writing = os.pipe()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = subprocess.Popen(
            [sys.executable, "-I", str(BOOTSTRAP), bridge("handlers")],
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            stderr=writing,
        )
        theirs.close()
        ours.sendall(request(1, "h:noise", {"how": "print", "text": "x" * 1023 + "\n", "times": 1024}))
        eventually(lambda: _waits_in_write(process.pid))
        ours.close()
        assert process.wait(DEFAULT_TIMEOUT) == 0
    os.close(reading)
    os.close(writing)


def _waits_in_write(pid: int) -> bool:
    return "pipe_write" in Path(f"/proc/{pid}/wchan").read_text() or "pipe" in Path(f"/proc/{pid}/wchan").read_text()


# ------------------------------------------------------------------ signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("mode", ["standalone", "pool-worker", "host"])
def test_a_signal_ends_an_idle_worker_in_order(number: signal.Signals, mode: str, tmp_path: Path) -> None:
    """The bridge is closed, the status is 0."""
    closed = tmp_path / "closed"
    with RawWorker(bridge("stubborn"), "--mode", mode, environment={"CLOSED_FILE": str(closed)}) as worker:
        worker.result("common:warm_up")
        worker.process.send_signal(number)
        worker.assert_closed()
        assert worker.ended() == 0
        assert closed.exists()
        assert worker.log == ""


@pytest.mark.parametrize("command", ["python_loop", "sleep", "c_call", "lock", "coroutine", "check"])
def test_sigterm_unwinds_the_call_that_runs_and_closes_the_bridge(command: str, tmp_path: Path) -> None:
    """As an exception that ordinary code does not catch."""
    closed = tmp_path / "closed"
    with RawWorker(bridge("stubborn"), environment={"CLOSED_FILE": str(closed)}) as worker:
        start(worker, command)
        worker.process.terminate()
        worker.assert_closed()
        assert worker.ended() == 0
        assert closed.exists()


def hasty(seconds: float) -> list[str]:
    """A program that is the worker, but for how long it lets code unwind after a signal."""
    program = (
        f"import sys; sys.path.insert(0, {str(BOOTSTRAP.parents[2])!r})\n"
        "from manybridge.worker import lifecycle, main\n"
        f"lifecycle.CLOSE_SECONDS = {seconds}\n"
        f"sys.exit(main.main([{bridge('stubborn')!r}, *sys.argv[1:]]))\n"
    )
    return [sys.executable, "-c", program]


@pytest.mark.parametrize("mode", ["standalone", "pool-worker", "host"])
@pytest.mark.parametrize("command", ["never", "stuck"])
def test_sigterm_ends_code_that_swallows_everything_after_a_while(command: str, mode: str) -> None:
    """Also code inside C, where a signal handler of Python can't run."""
    with RawWorker("", "--mode", mode, program=hasty(100 * MS)) as worker:
        start(worker, command)
        worker.process.terminate()
        worker.assert_closed()
        assert worker.ended() == 0


@pytest.mark.parametrize("command", ["never", "stuck"])
def test_sigterm_sent_twice_means_now(command: str) -> None:
    """Who sends it again knows what he does."""
    with RawWorker(program=hasty(3_600.0)) as worker:
        start(worker, command)

        def ended() -> bool:
            worker.process.terminate()
            return worker.process.poll() is not None

        eventually(ended)
        assert worker.ended() == 0


def test_sigterm_in_the_middle_of_an_import_ends_the_worker(tmp_path: Path) -> None:
    """The import's own error handling must not take it for a failed import."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with RawWorker(bridge("gated"), "--mode", "pool-worker", environment={"GATE": str(gate)}) as worker:
        worker.result("ping")
        eventually(lambda: worker.result("ping")["state"] == "loading")
        worker.process.terminate()
        assert worker.ended() == 0


def read_for_ever(worker: RawWorker) -> NoReturn:
    """Read events until there are none."""
    while True:
        worker.next_event()


def test_sigterm_never_cuts_a_frame() -> None:
    """The stream that is being written ends between two frames."""
    for _ in range(5):
        with RawWorker(bridge("stubborn"), "--mode", "host") as worker:
            worker.send("s:emits", {"size": 100_000}, stream=True)
            for _ in range(3):
                worker.next_event()
            worker.process.terminate()
            with pytest.raises(EOFError, match="closed, with 0 bytes"):
                read_for_ever(worker)
            assert worker.ended() == 0


# ------------------------------------------------------------------ children


def test_children_of_user_code_die_with_the_worker() -> None:
    """Forked and spawned ones, whatever ends the worker."""
    for how in ("hang up", "shutdown"):
        with RawWorker("mock") as worker:
            child = worker.result("mock:fork_child")["pid"]
            if how == "hang up":
                worker.hang_up()
            else:
                worker.result("common:shutdown")
            assert worker.ended() == 0
            eventually(lambda child=child: not process_is_running(child))  # type: ignore[misc]  # bound at once


def test_a_worker_leads_its_own_process_group() -> None:
    """So whoever started it can stop all of it with one signal."""
    with RawWorker() as worker:
        worker.result("ping")
        assert os.getpgid(worker.process.pid) == worker.process.pid


# ------------------------------------------------------------------ the parent's death

PARENT = """
import signal, subprocess, sys
worker = subprocess.Popen(sys.argv[1:], stdin=0, stdout=0)
print(worker.pid, flush=True)
signal.pause()
"""


@pytest.mark.parametrize(("command", "args"), [("quick", {}), ("stuck", {}), ("stuck", {"gil": True}), ("never", {})])
def test_no_worker_survives_a_host_that_is_killed(command: str, args: dict[str, bool]) -> None:
    """Not even one that is stuck in a C call with the interpreter's lock: the kernel ends it."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            argv = [sys.executable, "-I", str(BOOTSTRAP), bridge("stubborn"), "--mode", "host"]
            host = subprocess.Popen(
                [sys.executable, "-c", PARENT, *argv], stdin=theirs.fileno(), stdout=subprocess.PIPE, text=True
            )
        assert host.stdout is not None
        with host.stdout:
            pid = int(host.stdout.readline())
        reader = FrameReader(ours.fileno())
        ours.sendall(request(1, f"s:{command}", args, stream=True))
        reader.read()
        host.kill()
        host.wait()
        # Our end of the socket stays open: it is not the end of input that ends the worker.
        eventually(lambda: not process_is_running(pid), timeout=1_000 * MS)


# ------------------------------------------------------------------ crash reports


@pytest.mark.parametrize(
    ("how", "status", "text"),
    [("segfault", -signal.SIGSEGV, "Segmentation fault"), ("abort", -signal.SIGABRT, "Abort")],
)
def test_a_crash_leaves_every_stack_in_the_log(how: str, status: int, text: str) -> None:
    """The line of user code that it happened in is there."""
    with RawWorker(bridge("stubborn")) as worker:
        worker.send("s:crash", {"how": how})
        assert worker.ended() == status
        assert f"Fatal Python error: {text}" in worker.log
        assert "in crash" in worker.log


def test_a_handler_may_leave_the_process_with_any_status() -> None:
    """The client sees the end of the stream, whoever started the worker sees the status."""
    with RawWorker(bridge("stubborn")) as worker:
        worker.send("s:crash", {"how": "exit"})
        worker.assert_closed()
        assert worker.ended() == 9


@pytest.mark.parametrize("command", ["stuck", "python_loop", "quick"])
def test_sigusr1_shows_every_stack_and_ends_nothing(command: str) -> None:
    """Also of a thread that is inside C: the host asks before it kills."""
    with RawWorker(bridge("stubborn")) as worker:
        number = worker.send(f"s:{command}", stream=True)
        worker.read()
        worker.process.send_signal(signal.SIGUSR1)
        eventually(lambda: "most recent call first" in worker.log)
        if command != "quick":
            assert f"in {command}" in worker.log
            assert worker.result_beside(number, "common:ping")["current_call"] == number


def test_an_error_of_our_own_ends_the_worker_and_names_it() -> None:
    """A worker in doubt is replaced, not repaired: status 1, the traceback in the log, no waiting for user threads."""
    program = (
        f"import sys; sys.path.insert(0, {str(BOOTSTRAP.parents[2])!r})\n"
        "from manybridge.worker import intake, main\n"
        "def broken(*_): raise RuntimeError('a bug of ours')\n"
        "intake.Intake._dispatch = broken\n"
        "import threading; threading.Thread(target=threading.Event().wait).start()\n"
        "sys.exit(main.main(['mock']))\n"
    )
    with RawWorker(program=[sys.executable, "-c", program]) as worker:
        worker.send("ping")
        worker.assert_closed()
        assert worker.ended() == 1
        assert "RuntimeError: a bug of ours" in worker.log
