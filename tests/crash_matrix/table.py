"""The crash matrix: what breaks, where, and what the caller sees. docs/reference/crash-matrix.md is made of it."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

Column = Literal["boot", "idle", "call", "stream", "job", "snapshot", "shutdown"]
Kind = Literal["code", "wire", "start", "again", "host"]

COLUMNS: Final[dict[Column, str]] = {
    "boot": "while the worker starts: in `setup`, or in the place of its first answer. The cell is what the call gets "
    "that waits for the worker.",
    "idle": "between two calls, on a thread. The cell is what the next call gets.",
    "call": "in a call, through `MLBridge` and `AsyncMLBridge`. Code that hangs is stopped by the call's timeout.",
    "stream": "in a stream, after two chunks, which the reader has got. Code that hangs is stopped by the timeout.",
    "job": "in a job. Code that hangs is stopped by `job.cancel()`.",
    "snapshot": "while the state of a resource is asked for, after an execution; the cell is what that execution gets. "
    "Where it is an error, the execution does not count: the next one goes on from the state before.",
    "shutdown": "while the host closes: in `close`, or, where code hangs, in a call that still runs.",
}

REASONS: Final[dict[str, str]] = {
    "a": "it is about what code returns, and nothing is returned here",
    "b": "the worker never gets so far",
    "c": "it is about one place only",
}


class Row(NamedTuple):
    """One fault and what the caller sees of it, by where it strikes."""

    fault: str
    kind: Kind
    """What breaks: the bridge's code, the worker's wire, a start, whatever breaks for the third time, or the host."""
    text: str
    boot: str
    idle: str
    call: str
    stream: str
    job: str
    snapshot: str
    shutdown: str

    def cell(self, column: Column) -> str:
        """What is expected there."""
        expected: str = getattr(self, column)
        return expected


def _code(
    fault: str, text: str, *, boot: str, idle: str, call: str, snapshot: str = "", shutdown: str = "closed"
) -> Row:
    return Row(fault, "code", text, boot, idle, call, call, call, snapshot or call, shutdown)


def _hangs(fault: str, text: str, rung: str, *, idle: str = "answered") -> Row:
    by_timeout, by_cancel = f"timeout by {rung}", f"cancelled by {rung}"
    called = (by_timeout, by_timeout, by_cancel, by_timeout)  # call, stream, job, snapshot
    return Row(fault, "code", text, "worker_start_failed", idle, *called, "host_closed")


def _wire(fault: str, text: str, *, call: str = "protocol_violation", boot: str = "") -> Row:
    return Row(fault, "wire", text, boot or call, "restarted", call, call, call, call, "closed")


def _start(fault: str, text: str, boot: str) -> Row:
    return Row(fault, "start", text, boot, "- b", "- b", "- b", "- b", "- b", "closed")


def _only(fault: str, column: Column, text: str, cell: str) -> Row:
    cells = {each: cell if each == column else "- c" for each in COLUMNS}
    return Row(fault, "again" if column == "call" else "code", text, **cells)


def _crash(fault: str, text: str, ending: str) -> Row:
    return _code(fault, text, boot=f"worker_start_failed, {ending}", idle="restarted", call=f"worker_crashed, {ending}")


MATRIX: Final[tuple[Row, ...]] = (
    # The bridge's code fails
    _code("raise", "raises an exception that no rule translates",
          boot="setup_failed", idle="answered", call="handler_error"),
    _code("sys.exit", "calls `sys.exit(3)`",
          boot="setup_failed", idle="answered", call="handler_error"),
    _code("out of memory", "raises `MemoryError`",
          boot="out_of_memory", idle="answered", call="out_of_memory"),
    _code("late import", "imports a package that is not there",
          boot="missing_package", idle="answered", call="missing_package"),
    # The worker's process ends
    _crash("os._exit", "calls `os._exit(3)`", "exit 3"),
    _crash("SIGKILL", "is killed, for example by the kernel when memory ends", "SIGKILL"),
    _crash("SIGTERM", "is terminated by somebody else; a worker then closes its bridge and ends with 0", "exit 0"),
    _crash("segfault", "reads address 0 in C", "SIGSEGV"),
    _crash("abort", "calls `abort()` in C", "SIGABRT"),
    # The code does not come back
    _hangs("loop", "loops in Python", "exception"),
    _hangs("swallow", "loops in Python and swallows every exception", "sigterm"),
    _hangs("sleep", "waits in `time.sleep`", "exception"),
    _hangs("C, released", "hangs in C without the interpreter's lock, signals blocked", "sigkill"),
    _hangs("C, held", "hangs in C and keeps the interpreter's lock, signals blocked", "sigkill",
           idle="timeout by sigkill"),
    _hangs("SIGSTOP", "is stopped by a signal, all threads of it, and not continued", "sigkill",
           idle="timeout by sigkill"),
    # It says too much, or what can't be said
    _code("flood", "prints 1 MB",
          boot="answered", idle="answered", call="answered"),
    _code("native write", "writes to descriptor 1 from C, past Python",
          boot="answered", idle="answered", call="answered"),
    _code("not JSON", "returns what JSON can't carry: a caller gets a marker with its type's name, a state is refused",
          boot="- a", idle="- a", call="answered", snapshot="handler_error", shutdown="- a"),
    _code("over the limit", "returns more than a frame may hold",
          boot="- a", idle="- a", call="frame_too_large", shutdown="- a"),
    _code("fork", "forks a child, which ends with the worker",
          boot="answered", idle="answered", call="answered"),
    # The worker breaks the wire
    _wire("garbage", "writes text into the stream"),
    _wire("no JSON", "sends a frame that is not JSON"),
    _wire("no message", "sends JSON that is no message"),
    _wire("wrong id", "answers a call that nobody made"),
    _wire("event after reply", "sends an event for a call that it has answered, in the same write", call="answered",
          boot="protocol_violation"),
    _wire("second reply", "answers a call twice, in the same write", call="answered",
          boot="protocol_violation"),
    _wire("gap in the events", "sends an event with a number that is not due"),
    _wire("oversized header", "announces a frame of 4 GiB"),
    _wire("half a frame", "ends in the middle of a frame", call="worker_crashed, exit 0",
          boot="worker_start_failed, exit 0"),
    _wire("closed stream", "closes its output and lives on", call="worker_crashed, SIGKILL",
          boot="worker_start_failed, SIGKILL"),
    # The worker does not start
    _start("slow", "is not ready within `start_timeout`", "worker_start_failed"),
    _start("missing package", "a package of `required_packages` is not installed", "missing_package"),
    _start("missing module", "a module of the bridge's `required_modules` is not there", "missing_package"),
    _start("missing variable", "a variable of `required_env` is not set", "missing_variable"),
    _start("missing interpreter", "`python` names no file", "config_error"),
    _start("syntax error", "the bridge's file is not Python", "bridge_load_failed"),
    _start("no such class", "`bridge` names a class that is not there", "bridge_load_failed"),
    # The end
    _only("close hangs in Python", "shutdown", "the bridge's `close` loops", "closed"),
    _only("close hangs in C", "shutdown", "the bridge's `close` hangs in C and keeps the interpreter's lock", "closed"),
    # Again and again
    _only("same request again", "call", "a request that killed two workers comes a third time", "quarantined"),
    _only("crash loop", "call", "no worker lives, after more crashes than `restart.max_crashes`", "circuit_open"),
    # The host itself
    Row("host killed", "host", "the host gets `kill -9`; workers and what they forked are gone within a second",
        "gone", "gone", "gone", "gone", "gone", "gone", "gone"),
)  # fmt: skip
