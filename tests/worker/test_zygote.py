"""A process that imports once and is forked for every worker."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from tests.support import DEFAULT_TIMEOUT, MS, FrameReader, eventually, process_is_running, request
from tests.worker.raw import BOOTSTRAP, bridge


class Child:
    """This side of a forked worker."""

    def __init__(self, pid: int, sock: socket.socket, log: Any) -> None:
        self.pid = pid
        self.sock = sock
        self.log = log
        self._reader = FrameReader(sock.fileno())

    def result(self, command: str, args: dict[str, Any] | None = None) -> Any:
        """Send one request and return its result."""
        self.sock.sendall(request(1, command, args))
        reply = self._reader.read()
        assert reply["success"], reply
        return reply["result"]

    def close(self) -> None:
        """Hang up."""
        self.sock.close()
        self.log.close()


class RawZygote:
    """Owns a zygote process, this side of its control socket, and the workers that it forked."""

    def __init__(self, reference: str, environment: dict[str, str] | None = None) -> None:
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.settimeout(DEFAULT_TIMEOUT)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # closed by close()
        self.children: list[Child] = []
        mark = {"MANYBRIDGE_TEST_SESSION": os.environ["MANYBRIDGE_TEST_SESSION"]}
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-I", str(BOOTSTRAP), reference, "--zygote"],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=self._log,
                env={"PATH": os.environ["PATH"], **mark, **(environment or {})},
            )

    def read(self) -> dict[str, Any]:
        """Return the next message."""
        message: dict[str, Any] = json.loads(self.control.recv(1 << 18))
        return message

    def ask(self, worker_id: str, **fields: Any) -> tuple[dict[str, Any], Child]:
        """Ask for a worker; return the answer and our side of it, whatever the answer is."""
        ours, theirs = socket.socketpair()
        log = tempfile.TemporaryFile()  # noqa: SIM115  # closed by close()
        environment = fields.pop("env", {"PATH": os.environ["PATH"]})
        environment["MANYBRIDGE_TEST_SESSION"] = os.environ["MANYBRIDGE_TEST_SESSION"]
        wanted = {
            "worker_id": worker_id,
            "generation": 1,
            "argv": ["z", "--mode", "host", "--worker-id", worker_id],
            "env": environment,
            "options": {},
            **fields,
        }
        with theirs:
            message = json.dumps({"fork": wanted}).encode()
            socket.send_fds(self.control, [message], [theirs.fileno(), log.fileno()])
        answer = self.read()
        child = Child(answer.get("forked", {}).get("pid", 0), ours, log)
        self.children.append(child)
        return answer, child

    def fork(self, worker_id: str = "w1", **fields: Any) -> Child:
        """Ask for a worker and get it."""
        answer, child = self.ask(worker_id, **fields)
        assert answer == {"forked": {"worker_id": worker_id, "pid": child.pid}}
        return child

    def end(self, child: Child) -> int:
        """Hang up on a worker and return the status that the zygote reports, as `waitstatus_to_exitcode` has it."""
        child.close()
        return self.read_exit(child.pid)

    def read_exit(self, pid: int) -> int:
        """Read the report that a worker ended."""
        exited = self.read()["exited"]
        assert exited["pid"] == pid
        return os.waitstatus_to_exitcode(exited["status"])

    @property
    def log(self) -> str:
        """What the zygote wrote to descriptor 2."""
        return os.pread(self._log.fileno(), 1 << 20, 0).decode()

    def close(self) -> None:
        """Hang up everywhere and wait for the ends."""
        for child in self.children:
            child.close()
        self.control.close()
        try:
            self.process.wait(DEFAULT_TIMEOUT)
        finally:
            self.process.kill()
            self.process.wait()
            self._log.close()
        eventually(lambda: not any(child.pid and process_is_running(child.pid) for child in self.children))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@pytest.fixture
def zygote() -> Iterator[RawZygote]:
    """One that is ready."""
    with RawZygote(bridge("zygotic")) as ready:
        assert ready.read() == {"ready": {"threads": 1}}
        yield ready


def descriptors(pid: int) -> dict[str, str]:
    """What a process has open."""
    found = {}
    for path in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found[path.name] = str(path.readlink())
        except FileNotFoundError:
            continue
    return found


# ------------------------------------------------------------------ ready or not


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("unsafe", "does not say zygote_safe"),
        ("thread", "left 2 threads running"),
        ("missing", "a_module_that_nobody_has"),
        ("import", "half of the framework is missing"),
        ("exit", "SystemExit"),
    ],
)
def test_a_framework_that_can_not_be_forked_is_reported_with_the_reason(fault: str, reason: str) -> None:
    """And the process ends; the host spawns its workers then."""
    with RawZygote(bridge("zygotic"), {"ZYGOTE_FAULT": fault}) as zygote:
        message = zygote.read()
        assert reason in message["unsafe"]["reason"]
        assert zygote.control.recv(100) == b""


def test_an_unknown_bridge_is_unsafe() -> None:
    """As any other failure of its import."""
    with RawZygote("nothing_of_that_name") as zygote:
        assert "nothing_of_that_name" in zygote.read()["unsafe"]["reason"]


def test_a_thread_that_appears_later_makes_it_refuse() -> None:
    """A lock that it holds would stay locked in the child for ever."""
    with RawZygote(bridge("zygotic"), {"ZYGOTE_FAULT": "late_thread"}) as zygote:
        assert "ready" in zygote.read()
        os.kill(zygote.process.pid, signal.SIGUSR2)
        eventually(lambda: len(list(Path(f"/proc/{zygote.process.pid}/task").iterdir())) > 1)
        answer, _ = zygote.ask("w1")
        assert "threads live in the zygote" in answer["refused"]["reason"]
        assert answer["refused"]["worker_id"] == "w1"


# ------------------------------------------------------------------ workers


def test_a_forked_worker_is_a_worker_like_any_other(zygote: RawZygote) -> None:
    """Its own id, generation, options and environment; a session of its own; status 0 at the end of input."""
    child = zygote.fork(
        "w7", options={"a": 1}, env={"ONLY": "this"}, argv=["z", "--worker-id", "w7", "--generation", "4"]
    )
    hello = child.result("common:hello", {"protocol": 2})
    assert hello["worker"] == {"id": "w7", "pid": child.pid, "generation": 4}
    facts = child.result("z:facts")
    assert facts["options"] == {"a": 1}
    assert facts["environment"]["ONLY"] == "this"
    assert "PATH" not in facts["environment"]
    assert facts["session_leader"]
    assert facts["parent"] == zygote.process.pid
    assert zygote.end(child) == 0


def test_workers_of_one_zygote_have_nothing_in_common(zygote: RawZygote) -> None:
    """Not their variables, options, random numbers or descriptors."""
    children = [zygote.fork(f"w{n}", options={"n": n}, env={"N": str(n)}) for n in range(4)]
    facts = [child.result("z:facts") for child in children]
    assert [fact["options"]["n"] for fact in facts] == [0, 1, 2, 3]
    assert [fact["environment"]["N"] for fact in facts] == ["0", "1", "2", "3"]
    assert len({fact["random"] for fact in facts}) == 4
    assert [fact["reseeded"] for fact in facts] == [[child.pid] for child in children]
    sockets = [{target for target in descriptors(child.pid).values() if "socket:" in target} for child in children]
    assert [len(found) for found in sockets] == [1, 1, 1, 1]
    assert len(set().union(*sockets)) == 4
    zygote_sockets = {target for target in descriptors(zygote.process.pid).values() if "socket:" in target}
    assert len(zygote_sockets) == 1
    assert not zygote_sockets & set().union(*sockets)


@pytest.mark.parametrize("status", [0, 9])
def test_the_end_of_a_worker_is_reported_with_its_status(zygote: RawZygote, status: int) -> None:
    """An exit status."""
    child = zygote.fork()
    child.result("common:warm_up")
    child.sock.sendall(request(2, "z:die", {"status": status}))
    assert zygote.read_exit(child.pid) == status


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_the_end_of_a_worker_is_reported_with_its_signal(zygote: RawZygote, number: signal.Signals) -> None:
    """Or status 0 where the signal means an orderly end."""
    child = zygote.fork()
    child.result("common:warm_up")
    os.kill(child.pid, number)
    assert zygote.read_exit(child.pid) == (0 if number == signal.SIGTERM else -number)


def test_several_ends_at_once_are_all_reported(zygote: RawZygote) -> None:
    """Signals merge; children must not get lost with them."""
    children = [zygote.fork(f"w{n}") for n in range(6)]
    for child in children:
        child.result("common:ping")
    os.kill(zygote.process.pid, signal.SIGSTOP)
    for child in children:
        os.kill(child.pid, signal.SIGKILL)
    os.kill(zygote.process.pid, signal.SIGCONT)
    pids = {zygote.read()["exited"]["pid"] for _ in children}
    assert pids == {child.pid for child in children}


@pytest.mark.slow
def test_fifty_forks_leave_nothing_behind(zygote: RawZygote) -> None:
    """No descriptor, no zombie, and not much memory."""
    assert zygote.end(zygote.fork()) == 0
    before = descriptors(zygote.process.pid)
    for number in range(50):
        child = zygote.fork(f"w{number}")
        assert child.result("common:ping")["worker_id"] == f"w{number}"
        assert zygote.end(child) == 0
    assert descriptors(zygote.process.pid) == before
    assert Path(f"/proc/{zygote.process.pid}/task/{zygote.process.pid}/children").read_text() == ""


@pytest.mark.parametrize(
    "data",
    [b"hello", b"[]", b"{}", b'{"fork": {}}', b'{"fork": 5}', b'{"fork": {"worker_id": "w1"}}', b"\xff"],
)
def test_a_request_that_is_none_is_refused_and_the_zygote_goes_on(zygote: RawZygote, data: bytes) -> None:
    """Also one without descriptors."""
    zygote.control.send(data)
    assert "refused" in zygote.read()
    assert zygote.fork().result("common:ping")["status"] == "ok"


def test_a_worker_that_can_not_start_is_reported_as_ended(zygote: RawZygote) -> None:
    """With the reason in its own log."""
    child = zygote.fork(argv=["z", "--no-such-flag"])
    assert zygote.read_exit(child.pid) == 1
    assert b"no-such-flag" in os.pread(child.log.fileno(), 10_000, 0)


# ------------------------------------------------------------------ the end


def test_a_zygote_whose_host_went_away_ends_and_its_workers_with_their_own_clients(zygote: RawZygote) -> None:
    """A worker is tied to the socket that it serves."""
    child = zygote.fork()
    assert child.result("common:ping")["status"] == "ok"
    zygote.control.close()
    assert zygote.process.wait(DEFAULT_TIMEOUT) == 0
    assert child.result("common:ping")["status"] == "ok"
    assert zygote.log == ""


def test_a_zygote_dies_with_its_host_in_the_middle_of_an_import(tmp_path: Path) -> None:
    """Nobody would ever ask it for a worker."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    program = (
        "import os, signal, subprocess, sys\n"
        "zygote = subprocess.Popen(sys.argv[1:], stdin=0)\n"
        "print(zygote.pid, flush=True)\n"
        "signal.pause()\n"
    )
    with ours, theirs:
        host = subprocess.Popen(
            [sys.executable, "-c", program, sys.executable, "-I", str(BOOTSTRAP), bridge("gated"), "--zygote"],
            stdin=theirs.fileno(),
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "GATE": str(gate)},
        )
        assert host.stdout is not None
        with host.stdout:
            pid = int(host.stdout.readline())
        eventually(lambda: "fifo" in Path(f"/proc/{pid}/wchan").read_text() or _is_opening(pid))
        host.kill()
        host.wait()
        eventually(lambda: not process_is_running(pid), timeout=1_000 * MS)


def _is_opening(pid: int) -> bool:
    return "wait_for_partner" in Path(f"/proc/{pid}/wchan").read_text()


def test_a_zygote_without_a_log_works() -> None:
    """Descriptor 2 may be closed when it starts; what is printed then must not go where the host listens."""
    control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with control, theirs:
        process = subprocess.Popen(
            [sys.executable, "-I", str(BOOTSTRAP), bridge("zygotic"), "--zygote"],
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            preexec_fn=lambda: os.close(2),  # noqa: PLW1509  # no thread runs here
            env={**os.environ, "ZYGOTE_FAULT": "print"},
        )
        theirs.close()
        control.settimeout(DEFAULT_TIMEOUT)
        assert json.loads(control.recv(1000)) == {"ready": {"threads": 1}}
        control.close()
        assert process.wait(DEFAULT_TIMEOUT) == 0
