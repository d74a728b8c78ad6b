"""How calls end: which reply says what became of them."""

from __future__ import annotations

from typing import Any

from manybridge.bridge import Cancelled
from manybridge.protocol.errors import ErrorCode
from manybridge.protocol.messages import ErrorInfo, Malformed
from manybridge.worker.calls import CallTable, WorkerCall
from manybridge.worker.commands import CommandRunner
from manybridge.worker.failures import describe, error_text
from manybridge.worker.loader import Loader
from manybridge.worker.outbox import Outbox


class Counters:
    """What this worker has done so far."""

    __slots__ = ("calls", "deprecated", "errors")

    def __init__(self) -> None:
        self.calls = 0
        self.errors = 0
        self.deprecated = 0


class Answers:
    """Gives every call its one reply and takes it off the table. Owner of the counters; any thread may use it.

    Args:
        outbox: where replies go.
        calls: the open calls.
        loader: has the bridge that translates its framework's errors.
        runner: knows the framework's name.
    """

    def __init__(self, outbox: Outbox, calls: CallTable, loader: Loader, runner: CommandRunner) -> None:
        self.counters = Counters()
        self._outbox = outbox
        self._calls = calls
        self._loader = loader
        self._runner = runner

    def finish(self, call: WorkerCall, result: Any, failure: BaseException | None) -> None:
        """Answer a call whose code has run, and that was stopped or failed."""
        if call.stop_reason is not None:
            self.stopped(call, result)
        elif failure is not None:
            self.failed(call, failure)
        else:  # its cancellation came after we were asked
            self.succeeded(call, result)

    def succeeded(self, call: WorkerCall, result: Any, *, hold: bool = False) -> None:
        """Answer with a result."""
        if not call.take_answer():
            return
        if not call.extended and type(result) is not dict:
            result = {"value": result}  # a version 1 client takes nothing but objects
        self.counters.calls += 1
        try:
            self._outbox.send_result(call.request.id, result, extended=call.extended, hold=hold)
        finally:
            self._calls.remove(call)  # after it was sent: who waits for an empty table ends the process then

    def failed(self, call: WorkerCall, error: BaseException) -> None:
        """Answer with what the call's code, or a check of ours, raised."""
        if isinstance(error, Cancelled):  # raised by the bridge itself: nobody asked for it
            info = self._stopped_info("cancelled", "cooperative", None)
        elif call.plain and not call.extended:
            info = ErrorInfo(ErrorCode.HANDLER_ERROR, error_text(error))
        else:
            info = describe(error, self._loader.bridge, self._runner.framework)
        self._send_error(call, info)

    def stopped(self, call: WorkerCall, partial: Any = None, stopped_by: str | None = None) -> bool:
        """Answer a call that the stop ladder ended; `partial` is what it had until then. False if it has its reply."""
        info = self._stopped_info(call.stop_reason or "cancelled", stopped_by or call.stopped_by, partial)
        return self._send_error(call, info)

    def refused(self, call: WorkerCall) -> None:
        """Answer a call that came after the last one."""
        text = "The worker is shutting down and takes no further calls."
        self._send_error(call, ErrorInfo.of(ErrorCode.SHUTTING_DOWN, text))

    def ended_with_worker(self, call: WorkerCall, culprit: WorkerCall) -> None:
        """Answer a call that ends because the process does, so that the code of another one stops."""
        if call.stop_reason is not None:
            self.stopped(call, stopped_by="exit")
            return
        code = ErrorCode.SHUTTING_DOWN if call.started_at is None else ErrorCode.WORKER_CRASHED
        text = f"The worker ended itself: nothing else stopped {culprit.request.command}, which ran beside this call."
        self._send_error(call, ErrorInfo.of(code, text))

    def malformed(self, malformed: Malformed) -> None:
        """Answer what is no request. `error_info` is always there: whoever sent this needs to know what was wrong."""
        error = malformed.error
        details = {name: value for name, value in error.details.items() if name != "id"}
        self._outbox.send_malformed(malformed.id, ErrorInfo.of(error.code, error.message, **details))

    def _send_error(self, call: WorkerCall, info: ErrorInfo) -> bool:
        if not call.take_answer():
            return False
        self.counters.calls += 1
        self.counters.errors += 1
        try:
            self._outbox.send_error(call.request.id, info, extended=call.extended)
        finally:
            self._calls.remove(call)
        return True

    def _stopped_info(self, reason: str, stopped_by: str, partial: Any) -> ErrorInfo:
        code = ErrorCode.TIMEOUT if reason == "timeout" else ErrorCode.CANCELLED
        text = "The call's deadline passed" if code is ErrorCode.TIMEOUT else "The call was cancelled"
        details = {"stopped_by": stopped_by}
        if partial is not None:
            details["partial_result"] = partial
        info = ErrorInfo.of(code, f"{text}; it was stopped by: {stopped_by}.", **details)
        return info._replace(framework=self._runner.framework)
