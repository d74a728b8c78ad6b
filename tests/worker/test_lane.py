"""The reader's role moves between two threads, and nothing is lost on the way."""

from __future__ import annotations

import os
import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support import MS, TIME_FACTOR, eventually, request
from tests.timing import bounded, within
from tests.worker.raw import RawWorker, bridge

TAKEOVER_MS = 5
"""User code that runs longer gets a reader beside it; calls around this length are where the role changes hands."""


def let_pass(seconds: float) -> None:
    """Let an interval pass that something is measured over, or that a client takes between two requests."""
    begun = time.monotonic()
    eventually(lambda: time.monotonic() - begun >= seconds)


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def context_switches(pid: int) -> int:
    """How often the threads of a process were put to sleep or woke: what an idle process does not do."""
    total = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        total += int(lines["voluntary_ctxt_switches"])
    return total


def read_replies(worker: RawWorker, count: int) -> list[dict[str, Any]]:
    """Read that many replies; events are no replies."""
    replies: list[dict[str, Any]] = []
    while len(replies) < count:
        message = worker.read()
        if "event" not in message:
            replies.append(message)
    return replies


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [(), ("--max-concurrency", "3")], ids=["main thread", "pool threads"])
@pytest.mark.parametrize("seed", [1, 2])
def test_every_request_gets_one_reply_whichever_thread_reads_it(arguments: tuple[str, ...], seed: int) -> None:
    """Short and long calls, with pings and cancels of nothing from a second thread in between."""
    with RawWorker(bridge("stubborn"), "--mode", "host", *arguments) as worker:
        worker.result("common:warm_up")
        lock = threading.Lock()
        sent: dict[int, str] = {}

        def send(number: int, command: str, args: dict[str, Any]) -> None:
            with lock:
                sent[number] = command
                worker.send_bytes(request(number, command, args))

        def send_pings(noise: random.Random) -> None:
            for number in range(10_000, 10_600):
                send(number, noise.choice(["common:ping", "common:get_stats", "common:cancel"]), {"id": -1})
                let_pass(noise.choice([0.0, noise.random() * 3 * MS]))

        def send_calls(dice: random.Random) -> None:
            for number in range(1_000, 1_300):
                length = dice.choice([0.0, 0.0, 0.0, TAKEOVER_MS * dice.uniform(0.6, 1.6)])
                command = ("s:quick", {"value": number}) if not length else ("s:sleep", {"seconds": length / 1000})
                send(number, *command)
                let_pass(dice.choice([0.0, 0.0, 0.0, dice.random() * 10 * MS]))

        senders = [
            threading.Thread(target=work, args=(random.Random(seed),), daemon=True) for work in (send_pings, send_calls)
        ]
        for sender in senders:
            sender.start()
        replies = read_replies(worker, 900)
        for sender in senders:
            sender.join()
        assert sorted(reply["id"] for reply in replies) == sorted(sent)
        assert all(reply["success"] for reply in replies)
        assert all(reply["result"] == {"value": reply["id"]} for reply in replies if sent[reply["id"]] == "s:quick")
        assert worker.result("s:quick", {"value": 1}) == {"value": 1}


def test_calls_of_one_client_are_served_in_order() -> None:
    """Whoever read them."""
    with RawWorker(bridge("stubborn")) as worker:
        numbers = [worker.send("s:sleep", {"seconds": index % 4 * 2 / 1000}) for index in range(40)]
        assert [worker.read()["id"] for _ in numbers] == numbers


@pytest.mark.parametrize("arguments", [(), ("--max-concurrency", "3")], ids=["main thread", "pool threads"])
def test_an_idle_worker_sleeps(arguments: tuple[str, ...]) -> None:
    """After half a second without work no thread of it wakes any more."""
    with RawWorker(bridge("stubborn"), *arguments) as worker:
        worker.result("s:sleep", {"seconds": 10 * MS}, deadline_ms=600_000)
        counts = [0, 1]

        def asleep() -> bool:
            counts.append(context_switches(worker.process.pid))
            let_pass(30 * MS)
            return context_switches(worker.process.pid) == counts[-1]

        eventually(asleep)
        before, begun = cpu_seconds(worker.process.pid), time.monotonic()
        let_pass(200 * MS)
        assert cpu_seconds(worker.process.pid) - before <= 0.05 * (time.monotonic() - begun)
        assert worker.result("s:quick", {"value": 1}) == {"value": 1}


def test_a_worker_that_waits_in_a_call_hardly_works() -> None:
    """Its watch reads, blocked, while the call sleeps."""
    with RawWorker(bridge("stubborn"), "--mode", "host") as worker:
        number = worker.send("s:lock", stream=True)
        worker.next_event()
        worker.result_beside(number, "common:ping")
        before, begun = cpu_seconds(worker.process.pid), time.monotonic()
        let_pass(300 * MS)
        assert cpu_seconds(worker.process.pid) - before <= 0.1 * (time.monotonic() - begun)


def test_a_sleeping_watch_wakes_for_the_next_long_call() -> None:
    """Its ping is answered within milliseconds, not at its end."""
    with RawWorker(bridge("stubborn"), "--mode", "host") as worker:
        worker.result("s:quick")
        counts: list[int] = []

        def asleep() -> bool:
            counts.append(context_switches(worker.process.pid))
            let_pass(30 * MS)
            return context_switches(worker.process.pid) == counts[-1]

        eventually(asleep)
        number = worker.send("s:python_loop")
        eventually(lambda: worker.result_beside(number, "common:ping")["current_call"] == number, timeout=500 * MS)


@pytest.mark.parametrize("arguments", [(), ("--max-concurrency", "3")], ids=["main thread", "pool threads"])
@bounded
def test_a_deadline_is_kept_by_a_watch_that_slept(arguments: tuple[str, ...]) -> None:
    """Also where the main thread is never busy itself."""
    with RawWorker(bridge("stubborn"), "--mode", "host", *arguments) as worker:
        worker.result("common:warm_up")
        for _ in range(3):
            with within(1_000):
                reply = worker.ask("s:check", deadline_ms=30 * TIME_FACTOR)
                assert reply["error_info"]["code"] == "timeout"
            worker.result("s:sleep", {"seconds": 100 * MS})


def test_a_lone_chunk_does_not_wait_for_the_next_one() -> None:
    """It is read while the call still runs, however it got into the outbox."""
    with RawWorker(bridge("stubborn"), "--mode", "host") as worker:
        worker.result("common:warm_up")
        for command in ("sleep", "python_loop", "stuck"):
            number = worker.send(f"s:{command}", stream=True)
            assert worker.next_event(1_000 * MS)["data"] == "running"
            if command == "stuck":
                break
            worker.send("common:cancel", {"id": number})
            read_replies(worker, 2)


@pytest.mark.parametrize("size", [1, 100, 70_000])
def test_a_fast_stream_arrives_complete_and_in_order(size: int) -> None:
    """Coalesced writes keep the order, and the reply comes after the last chunk."""
    with RawWorker("mock") as worker:
        count = 3_000 if size < 1_000 else 100
        text = "x" * size
        worker.result("mock:script", {"replies": [{"command": "burst", "chunks": [text] * count, "result": {"n": 1}}]})
        reply = worker.receive(worker.send("mock:burst", stream=True))
        assert reply["result"] == {"n": 1}
        assert [event["seq"] for event in worker.events] == list(range(count))
        assert {event["data"] for event in worker.events} == {text}
