"""Sections 2, 4 and 5: command line, start-up handshake, shutdown and signals."""

from __future__ import annotations

import signal
import subprocess

import pytest

from tests.dropin.port import PLAIN_PYTHON, POOL_WORKER, SCRIPT, STANDALONE, Port
from tests.support import MS, framework_python
from tests.timing import bounded, within

MODES = pytest.mark.parametrize("argv", [STANDALONE, POOL_WORKER], ids=["standalone", "pool-worker"])


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    """Run the script to its end, with nothing on its input."""
    command = [str(PLAIN_PYTHON), str(SCRIPT), *argv]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)


# ---------------------------------------------------------------- section 2


def test_help_goes_to_stdout_and_exits_with_zero() -> None:
    """--help prints usage."""
    ended = run("--help")
    assert ended.returncode == 0
    assert ended.stdout.startswith("usage:")


@pytest.mark.parametrize("argv", [["--what"], ["stray"], ["--mode", "other"], ["--mode=host"], ["--mode"]])
def test_a_wrong_argument_exits_with_two_and_speaks_on_stderr(argv: list[str]) -> None:
    """As argparse does; stdout stays clean."""
    ended = run(*argv)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "usage:" in ended.stderr


@pytest.mark.parametrize(
    ("argv", "mode", "worker_id"),
    [
        ([], "standalone", None),
        (["--mode", "standalone"], "standalone", None),
        (["--mode=pool-worker"], "pool-worker", None),
        (["--mode", "pool-worker", "--worker-id", "enhanced_worker_7"], "pool-worker", "enhanced_worker_7"),
        (["--worker-id=-dash first"], "standalone", "-dash first"),
        (["--worker-id", ""], "standalone", None),
    ],
)
def test_mode_and_worker_id_come_from_the_command_line(argv: list[str], mode: str, worker_id: str | None) -> None:
    """`ping` reports them; the id only if one was given, and never the one in the arguments."""
    with Port(*argv) as port:
        found = port.result("ping", {"worker_id": "from the arguments"})
        assert (found["mode"], found.get("worker_id")) == (mode, worker_id)


def test_the_command_line_serves_the_same_worker() -> None:
    """`manybridge worker dspy` with the flags of the script."""
    with Port("worker", "dspy", *POOL_WORKER, script=PLAIN_PYTHON.with_name("manybridge")) as port:
        found = port.result("ping", {"initialization": True})
        assert (found["mode"], found["worker_id"]) == ("pool-worker", POOL_WORKER[3])
        assert port.call("predict")["error"] == "Unknown command: predict"
        port.close_input()
        assert port.exit_status() == 0


@MODES
def test_nothing_is_written_before_the_first_request(argv: tuple[str, ...]) -> None:
    """No banner and no hello: an early frame would be taken for the answer to the first ping."""
    with Port(*argv) as port:
        assert port.is_silent(400 * MS)


# ---------------------------------------------------------------- section 4


@bounded
@pytest.mark.framework
@pytest.mark.parametrize(
    ("first_id", "args"),
    [
        (1, {}),
        (0, {"initialization": True, "worker_id": "w"}),
        (0, {"initialization": True, "worker_id": "w", "enhanced": True}),
    ],
    ids=["Bridge", "PoolWorkerV2", "PoolWorkerV2Enhanced"],
)
def test_the_init_ping_is_answered_before_dspy_is_imported(first_id: int, args: dict[str, object]) -> None:
    """Id 0 is a real id; and the answer comes long before an import of DSPy could be over."""
    # Measured: 0.08 to 0.14 s here; an import alone takes 0.7 s on an idle machine.
    with Port(*POOL_WORKER, python=framework_python("dspy")) as port, within(600):
        port.send("ping", args, id=first_id)
        reply = port.reply()
    assert (reply["id"], reply["success"], reply["result"]["status"]) == (first_id, True, "ok")
    assert reply["result"]["dspy_available"] is True


@pytest.mark.framework
@bounded
def test_pings_are_answered_while_dspy_is_being_imported() -> None:
    """The import starts after the first answer, and none of the pings behind it waits for its end."""
    with Port(*POOL_WORKER, python=framework_python("dspy")) as port:
        port.result("ping")
        with within(600):
            for _ in range(5):
                port.result("ping")


# ---------------------------------------------------------------- section 5


@MODES
def test_the_end_of_input_ends_the_process_with_zero(argv: tuple[str, ...]) -> None:
    """The only thing that ends a worker in DSPex."""
    with Port(*argv) as port:
        port.result("ping")
        port.close_input()
        assert port.exit_status() == 0


def test_single_mode_stops_with_a_cleanup_of_its_own_id() -> None:
    """Elixir sends `cleanup` with id 999999, waits for the answer, and closes the port."""
    with Port() as port:
        port.send("cleanup", {}, id=999_999)
        reply = port.reply(2_000 * MS)
        assert (reply["id"], reply["result"]) == (999_999, {"status": "cleaned", "programs_removed": 0})
        port.close_input()
        assert port.exit_status() == 0


@MODES
def test_shutdown_is_answered_and_the_process_goes_on(argv: tuple[str, ...]) -> None:
    """As the original: the Elixir side closes the port when it has waited long enough."""
    with Port(*argv) as port:
        found = port.result("shutdown", {"worker_id": "x"})
        pooled = argv == POOL_WORKER
        assert found == {
            "status": "shutting_down",
            "worker_id": POOL_WORKER[3] if pooled else None,
            "mode": "pool-worker" if pooled else "standalone",
            "sessions_cleaned": 0,
        }
        assert port.result("ping")["status"] == "ok"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_pool_worker_exits_with_zero_on_a_signal(number: signal.Signals) -> None:
    """Even when it only waits for input."""
    with Port(*POOL_WORKER) as port:
        port.result("ping")
        port.process.send_signal(number)
        assert port.exit_status() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_standalone_process_ignores_the_signal(number: signal.Signals) -> None:
    """It keeps serving until its input ends."""
    with Port() as port:
        port.result("ping")
        port.process.send_signal(number)
        assert port.result("ping")["status"] == "ok"
        assert port.process.poll() is None


def test_other_signals_do_what_they_do_by_default() -> None:
    """SIGUSR2 ends the process by the signal. Not SIGHUP: it is ignored in whatever `nohup` has started."""
    with Port() as port:
        port.result("ping")
        port.process.send_signal(signal.SIGUSR2)
        assert port.exit_status() == -signal.SIGUSR2


@MODES
def test_a_broken_output_ends_the_process_with_zero(argv: tuple[str, ...]) -> None:
    """Nobody reads any more."""
    with Port(*argv) as port:
        port.result("ping")
        assert port.process.stdout is not None
        port.process.stdout.close()
        port.send("ping")
        assert port.process.wait(5_000 * MS) == 0
