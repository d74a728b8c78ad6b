"""The stop ladder: what stops a call, by which rung, and that it stops nothing else."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest

from manybridge.protocol.messages import Request
from manybridge.worker.calls import Stage, WorkerCall
from manybridge.worker.host_calls import HostCalls
from manybridge.worker.outbox import Outbox
from manybridge.worker.stopping import REPEAT_SECONDS, StopLadder
from tests.support import TIME_FACTOR, eventually, process_is_running
from tests.worker.raw import RawWorker, bridge, error_of

GRACE_MS = round(120 * TIME_FACTOR)
"""Half of it is what a call has for itself before it is interrupted."""

PATIENT_MS = round(20_000 * TIME_FACTOR)
"""The grace where a call ends by itself: nothing that a busy machine does may make it look as if it had not."""


@pytest.fixture
def worker() -> Iterator[RawWorker]:
    """A worker without a host: it has the last rung itself."""
    with RawWorker(bridge("stubborn"), "--cancel-grace-ms", str(GRACE_MS)) as running:
        running.result("common:warm_up")
        yield running


@contextmanager
def hosted_with(grace_ms: int, *arguments: str) -> Iterator[RawWorker]:
    """A worker whose host has the last rung."""
    with RawWorker(bridge("stubborn"), "--mode", "host", "--cancel-grace-ms", str(grace_ms), *arguments) as running:
        running.result("common:warm_up")
        yield running


def grace_for(rung: str) -> int:
    """How long the ladder waits in a test of this rung: only what has to be interrupted is not given time."""
    return GRACE_MS if rung == "exception" else PATIENT_MS


@pytest.fixture
def hosted() -> Iterator[RawWorker]:
    """A worker that interrupts soon."""
    with hosted_with(GRACE_MS) as running:
        yield running


@pytest.fixture
def patient() -> Iterator[RawWorker]:
    """A worker that leaves its calls time to end by themselves."""
    with hosted_with(PATIENT_MS) as running:
        yield running


def start(worker: RawWorker, command: str, args: dict[str, Any] | None = None, **fields: Any) -> int:
    """Begin a call and wait until its code runs."""
    number = worker.send(f"s:{command}", args, stream=True, **fields)
    worker.next_event()
    return number


def cancel(worker: RawWorker, number: int) -> dict[str, Any]:
    """Cancel a call and return its error_info; the answer to the cancel itself is checked on the way."""
    asked = worker.send("common:cancel", {"id": number})
    replies: dict[Any, dict[str, Any]] = {}
    while len(replies) < 2:
        message = worker.read()
        if "event" not in message:
            replies[message["id"]] = message
    assert replies[asked]["result"] == {"id": number, "state": "cancelling"}
    return error_of(replies[number])


# ------------------------------------------------------------------ one process, one call


@pytest.mark.parametrize(
    ("command", "args", "rung"),
    [
        ("check", {}, "cooperative"),
        ("partial", {}, "cooperative"),
        ("coroutine", {}, "cooperative"),
        ("python_loop", {}, "exception"),
        ("sleep", {}, "exception"),
        ("lock", {}, "exception"),
        ("c_call", {}, "exception"),
        ("subprocess", {}, "exception"),
        ("swallow", {"times": 1}, "exception"),
        ("coroutine_blocks", {}, "exception"),
        ("emits", {}, "exception"),
    ],
)
def test_a_cancelled_call_is_stopped_by_the_gentlest_rung_that_works(
    command: str, args: dict[str, Any], rung: str
) -> None:
    """The reply says which, and the worker serves the next call."""
    with hosted_with(grace_for(rung)) as worker:
        info = cancel(worker, start(worker, command, args))
        assert (info["code"], info["details"]["stopped_by"], info["framework"]) == ("cancelled", rung, "s")
        assert worker.result("s:quick", {"value": 1}) == {"value": 1}


def test_code_that_swallows_is_interrupted_again(hosted: RawWorker) -> None:
    """Once every 50 ms, as often as it takes."""
    assert cancel(hosted, start(hosted, "swallow", {"times": 4}))["details"]["stopped_by"] == "exception"
    assert hosted.result("s:facts")["swallowed"] == 4


@pytest.mark.parametrize("arguments", [(), ("--max-concurrency", "3")], ids=["main thread", "a loop of its own"])
def test_a_coroutine_that_swallows_is_cancelled_again(arguments: tuple[str, ...]) -> None:
    """Its call is not over before its code is."""
    with hosted_with(GRACE_MS, *arguments) as worker:
        info = cancel(worker, start(worker, "coroutine_swallows", {"times": 3}))
        assert info["code"] == "cancelled"
        assert worker.result("s:facts")["swallowed"] == 3
        assert worker.result("common:get_stats")["calls"] >= 3


def test_a_coroutine_may_take_its_time_to_say_farewell(patient: RawWorker) -> None:
    """An await in its `finally` is cut short by the next cancellation, but runs as part of the call."""
    info = cancel(patient, start(patient, "slow_farewell", {"seconds": 0.012}))
    assert info["details"]["stopped_by"] == "cooperative"
    assert patient.result("s:facts")["finished"] == ["farewell"]


def test_a_partial_result_comes_with_the_cancelled_call(patient: RawWorker) -> None:
    """A handler that looks at the flag may return what it has."""
    info = cancel(patient, start(patient, "partial"))
    assert info["details"]["partial_result"]["done"] >= 0


@pytest.mark.parametrize("command", ["stream", "async_stream"])
def test_a_stream_is_stopped_between_two_chunks(patient: RawWorker, command: str) -> None:
    """A generator needs no check of its own: each of its `yield`s is one. Its `finally` runs."""
    info = cancel(patient, start(patient, command))
    assert info["details"]["stopped_by"] == "cooperative"
    assert patient.result("s:facts")["finished"] == [command]


def test_a_queued_call_never_begins(patient: RawWorker) -> None:
    """It is answered at once, while the call before it goes on."""
    running = start(patient, "check")
    queued = patient.send("s:quick")
    info = cancel(patient, queued)
    assert info["details"]["stopped_by"] == "queue"
    assert cancel(patient, running)["details"]["stopped_by"] == "cooperative"
    assert patient.result("s:facts")["finished"] == ["check"]


def test_a_call_that_waits_can_be_called_back_and_one_that_runs_can_not(patient: RawWorker) -> None:
    """A host gives what waits here to a worker that is free."""
    running = start(patient, "check")
    waiting = patient.send("s:quick")
    for id in (running, 999, None):
        state = patient.result_beside(running, "common:cancel", {"id": id, "only_waiting": True})
        assert state == {"id": id, "state": "begun"}
    asked = patient.send("common:cancel", {"id": waiting, "only_waiting": True})
    replies = {message["id"]: message for message in (patient.read() for _ in range(2))}
    assert replies[asked]["result"] == {"id": waiting, "state": "cancelling"}
    assert error_of(replies[waiting])["details"] == {"stopped_by": "queue"}
    assert cancel(patient, running)["details"]["stopped_by"] == "cooperative"


def test_cancelling_what_is_not_there_is_no_error(worker: RawWorker) -> None:
    """A call may end while its cancel is on the way."""
    number = worker.send("s:quick")
    worker.receive(number)
    ids: list[Any] = [number, 12345, "x", None, [], True, {}]
    for id in ids:
        assert worker.result("common:cancel", {"id": id}) == {"id": id, "state": "unknown"}
    assert worker.error("common:cancel")["code"] == "invalid_argument"


def test_two_cancels_are_one(hosted: RawWorker) -> None:
    """The second finds the call on the ladder already."""
    number = start(hosted, "check")
    hosted.send("common:cancel", {"id": number})
    hosted.send("common:cancel", {"id": number})
    replies = [hosted.read() for _ in range(3)]
    assert sorted(reply["id"] for reply in replies) == [number, number + 1, number + 2]
    assert hosted.result("s:quick")


# ------------------------------------------------------------------ deadlines


@pytest.mark.parametrize("command", ["check", "python_loop", "sleep", "coroutine", "stream", "emits"])
def test_a_call_over_its_deadline_is_stopped_and_says_timeout(hosted: RawWorker, command: str) -> None:
    """By the same ladder."""
    number = hosted.send(f"s:{command}", stream=True, deadline_ms=40 * TIME_FACTOR)
    info = error_of(hosted.receive(number))
    assert info["code"] == "timeout"
    assert info["retryable"] is True
    assert hosted.result("s:quick", {"value": 1}, deadline_ms=60_000) == {"value": 1}


def test_a_call_without_time_left_never_begins(worker: RawWorker) -> None:
    """The deadline is looked at again when the call leaves the queue."""
    for deadline in (0, 0.0, 0.0001):
        info = worker.error("s:sleep", {"seconds": 0.001}, deadline_ms=deadline)
        assert (info["code"], info["details"]["stopped_by"]) == ("timeout", "queue")


def test_a_queued_call_times_out_while_it_waits(hosted: RawWorker) -> None:
    """Nobody has to be free for that."""
    running = start(hosted, "check")
    info = error_of(hosted.receive(hosted.send("s:quick", deadline_ms=20 * TIME_FACTOR)))
    assert (info["code"], info["details"]["stopped_by"]) == ("timeout", "queue")
    cancel(hosted, running)


# ------------------------------------------------------------------ the last rung


@pytest.mark.parametrize("mode", ["standalone", "pool-worker"])
@pytest.mark.parametrize("command", ["never", "stuck"])
def test_code_that_can_not_be_stopped_ends_a_worker_without_a_host(mode: str, command: str) -> None:
    """With a reply for its caller, and with every process that it started."""
    with RawWorker(bridge("stubborn"), "--mode", mode, "--cancel-grace-ms", str(GRACE_MS)) as worker:
        child = worker.result("s:leave_child")["pid"]
        assert process_is_running(child)
        number = start(worker, command)
        info = cancel(worker, number)
        assert (info["code"], info["details"]["stopped_by"]) == ("cancelled", "exit")
        worker.assert_closed()
        assert worker.ended() == 1
        eventually(lambda: not process_is_running(child))


def test_no_call_is_left_without_a_reply_by_a_worker_that_ends_itself() -> None:
    """What runs beside the code that does not stop, and what waits, ends with the process, and its callers hear so."""
    arguments = ("--max-concurrency", "2", "--cancel-grace-ms", str(GRACE_MS))
    with RawWorker(bridge("stubborn"), *arguments) as worker:
        stuck, beside = start(worker, "stuck"), start(worker, "stuck")
        waiting = worker.send("s:quick")
        asked = worker.send("common:cancel", {"id": stuck})
        replies = {message["id"]: message for message in (worker.read() for _ in range(4))}
        worker.assert_closed()
        codes = {number: error_of(replies[number])["code"] for number in (stuck, beside, waiting)}
        assert codes == {stuck: "cancelled", beside: "worker_crashed", waiting: "shutting_down"}
        assert replies[asked]["success"]
        assert worker.ended() == 1


def test_the_host_has_the_last_rung_where_there_is_one(hosted: RawWorker) -> None:
    """The worker goes on to interrupt, answers pings and waits for its end."""
    number = start(hosted, "never")
    hosted.send("common:cancel", {"id": number})
    hosted.receive(number + 1)
    busy: dict[str, Any] = {}

    def long_over() -> bool:
        busy.update(hosted.result_beside(number, "common:ping"))
        return bool(busy["busy_seconds"] > 4 * GRACE_MS / 1000)

    eventually(long_over)
    assert busy["current_call"] == number
    assert hosted.process.poll() is None


# ------------------------------------------------------------------ concurrent bridges


@pytest.mark.parametrize(
    ("command", "args", "rung"),
    [
        ("check", {}, "cooperative"),
        ("partial", {}, "cooperative"),
        ("coroutine", {}, "cooperative"),
        ("python_loop", {}, "exception"),
        ("swallow", {"times": 3}, "exception"),
        ("stream", {}, "cooperative"),
        ("async_stream", {}, "cooperative"),
        ("emits", {}, "exception"),
    ],
)
def test_calls_on_threads_are_stopped_too_and_leave_the_others_alone(
    command: str, args: dict[str, Any], rung: str
) -> None:
    """The thread that was interrupted serves the next call."""
    with hosted_with(grace_for(rung), "--max-concurrency", "3") as worker:
        other = start(worker, "check")
        number = start(worker, command, args)
        assert cancel(worker, number)["details"]["stopped_by"] == rung
        assert worker.result_beside(other, "s:quick", {"value": 2}) == {"value": 2}
        assert cancel(worker, other)["code"] == "cancelled"
        numbers = [worker.send("s:quick", {"value": value}) for value in range(20)]
        replies = {reply["id"]: reply for reply in (worker.read() for _ in numbers)}
        assert [replies[number]["result"]["value"] for number in numbers] == list(range(20))


def test_a_coroutine_cancelled_before_its_first_step_never_runs() -> None:
    """Whenever the cancel arrives on its way to the loop, the call ends."""
    with hosted_with(GRACE_MS, "--max-concurrency", "3") as worker:
        for _ in range(30):
            number = worker.send("s:coroutine")
            worker.send("common:cancel", {"id": number})
            codes = {message["id"]: message for message in (worker.read() for _ in range(2))}
            assert codes[number]["error_info"]["code"] == "cancelled"


# ------------------------------------------------------------------ stress


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [(), ("--max-concurrency", "2")], ids=["main thread", "pool thread"])
def test_an_interrupt_never_cuts_a_frame_and_never_hits_the_next_call(arguments: tuple[str, ...]) -> None:
    """200 streams as fast as they can, each cancelled in the middle: frames stay whole, numbers have no gap."""
    with RawWorker(bridge("stubborn"), "--mode", "host", "--cancel-grace-ms", "4", *arguments) as worker:
        worker.result("common:warm_up")
        for round_number in range(200):
            number = worker.send("s:emits", {"size": 10 ** (round_number % 5)}, stream=True)
            expected = itertools.count()
            for _ in range(round_number % 7 + 1):
                assert worker.next_event()["seq"] == next(expected)
            worker.send("common:cancel", {"id": number})
            following = worker.send("s:quick", {"value": round_number})
            open_calls = {number, number + 1, following}
            while open_calls:
                message = worker.read()
                if "event" in message:
                    assert (message["id"], message["seq"]) == (number, next(expected))
                else:
                    open_calls.discard(message["id"])
                    if message["id"] == following:
                        assert message["result"] == {"value": round_number}
        assert worker.result("common:get_stats")["errors"] == 200


@pytest.mark.slow
def test_a_cancel_that_comes_too_late_hits_nobody() -> None:
    """Calls that end by themselves just when they are interrupted, one after the other."""
    with RawWorker(bridge("stubborn"), "--mode", "host", "--cancel-grace-ms", "0") as worker:
        worker.result("common:warm_up")
        for value in range(300):
            number = worker.send("s:sleep", {"seconds": value % 10 / 10_000})
            worker.send("common:cancel", {"id": number})
            following = [worker.send("s:quick", {"value": value}) for _ in range(3)]
            replies = {reply["id"]: reply for reply in (worker.read() for _ in range(5))}
            assert [replies[id]["result"] for id in following] == [{"value": value}] * 3


# ------------------------------------------------------------------ the ladder by itself


class Recorder:
    """What the ladder did, by name, in order."""

    def __init__(self, grace: float = 1.0, last_rung: bool = True) -> None:
        self.done: list[str] = []
        self.ladder = StopLadder(
            grace,
            interrupt=lambda call: self.done.append("interrupt"),
            stopped_in_queue=lambda call: self.done.append("queue"),
            give_up=(lambda call: self.done.append("give up")) if last_rung else None,
        )


def a_call(deadline_ms: float | None = None) -> WorkerCall:
    """A call that nobody runs."""
    request = Request(1, "s:x", deadline_ms=deadline_ms)
    return WorkerCall(request, True, cast(Outbox, None), cast(HostCalls, None))


def test_nothing_is_due_for_a_call_without_deadline() -> None:
    """The watch may sleep."""
    assert Recorder().ladder.advance(a_call(), 0.0) is None


def test_the_rungs_come_in_order_and_on_time() -> None:
    """Flag, exception at half of the grace, again and again, then the end."""
    seen, call = Recorder(), a_call()
    call.claim(Stage.RUNNING)
    seen.ladder.request_stop(call, "cancelled", 100.0)
    assert seen.ladder.advance(call, 100.0) == pytest.approx(0.5)
    assert seen.done == []
    assert seen.ladder.advance(call, 100.5) == pytest.approx(REPEAT_SECONDS)
    assert seen.ladder.advance(call, 100.51) == pytest.approx(REPEAT_SECONDS)
    assert seen.done == ["interrupt"]
    seen.ladder.advance(call, 100.56)
    assert seen.ladder.advance(call, 100.99) == pytest.approx(0.01)
    assert seen.done == ["interrupt"] * 3
    assert seen.ladder.advance(call, 101.0) is None
    assert seen.done == ["interrupt"] * 3 + ["give up"]


def test_without_a_last_rung_the_interrupts_go_on() -> None:
    """Until the host ends the worker."""
    seen, call = Recorder(last_rung=False), a_call()
    call.claim(Stage.RUNNING)
    seen.ladder.request_stop(call, "cancelled", 0.0)
    for second in range(1, 10):
        assert seen.ladder.advance(call, float(second)) == REPEAT_SECONDS
    assert seen.done == ["interrupt"] * 9


def test_a_deadline_puts_a_call_onto_the_ladder() -> None:
    """At that time, not before."""
    seen, call = Recorder(), a_call(deadline_ms=1_000)
    assert call.deadline is not None
    call.claim(Stage.RUNNING)
    assert seen.ladder.advance(call, call.deadline - 0.25) == pytest.approx(0.25)
    assert call.stop_reason is None
    seen.ladder.advance(call, call.deadline)
    assert call.stop_reason == "timeout"
    assert call.cancelled


def test_the_first_reason_wins_and_a_finished_call_is_left_alone() -> None:
    """A cancel after the deadline changes nothing."""
    seen, call = Recorder(), a_call()
    call.claim(Stage.RUNNING)
    seen.ladder.request_stop(call, "timeout", 1.0)
    seen.ladder.request_stop(call, "cancelled", 2.0)
    assert (call.stop_reason, call.stop_requested_at) == ("timeout", 1.0)
    assert call.take_answer()
    assert not call.take_answer()
    assert seen.ladder.advance(call, 100.0) is None
    assert seen.done == []


def test_a_call_in_the_queue_is_stopped_at_once() -> None:
    """And can't be begun any more."""
    seen, call = Recorder(), a_call()
    seen.ladder.request_stop(call, "cancelled", 1.0)
    assert seen.done == ["queue"]
    assert not call.claim(Stage.RUNNING)
    assert call.stopped_by == "queue"
