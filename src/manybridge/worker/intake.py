"""What comes in: each message goes to the control commands, into the queue, or back with an error."""

from __future__ import annotations

from collections.abc import Callable

from manybridge.protocol.connection import WorkerConnection
from manybridge.protocol.errors import ErrorCode
from manybridge.protocol.messages import Malformed, Request
from manybridge.worker.answers import Answers
from manybridge.worker.calls import RUNNING, WorkerCall
from manybridge.worker.commands import common_operation
from manybridge.worker.control import ControlCommands
from manybridge.worker.version1 import Version1


class Intake:
    """Sorts what the client sends. Runs on whichever thread holds the reader's role, never on two at once.

    Args:
        connection: makes messages of bytes.
        control: answers what needs no bridge.
        answers: refuses the rest.
        new_call: makes a call of a request.
        enqueue: takes a call that must wait for its turn.
        serve: runs a call here and now.
        answered: called after a control command was answered.
    """

    def __init__(
        self,
        connection: WorkerConnection,
        control: ControlCommands,
        answers: Answers,
        *,
        new_call: Callable[[Request], WorkerCall],
        enqueue: Callable[[WorkerCall], None],
        serve: Callable[[WorkerCall], None],
        answered: Callable[[], None],
    ) -> None:
        self.version1: Version1 | None = None
        """Set while the bridge speaks the dialect of DSPex."""
        self.closing = False
        """Whether no further call is taken. Those that are here are finished, and may be pinged and cancelled."""
        self.deaf = False
        """Whether what comes in has no meaning any more: version 1 ends after a malformed frame."""
        self._connection = connection
        self._control = control
        self._answers = answers
        self._new_call = new_call
        self._enqueue = enqueue
        self._serve = serve
        self._answered = answered

    def receive(self, data: bytes) -> None:
        """Take the next bytes of the client."""
        for message in self._connection.receive_data(data):
            if self.deaf:
                return
            if type(message) is Malformed:
                self._answer_malformed(message)
            else:
                assert type(message) is Request
                self._dispatch(self._new_call(message))

    def is_plain(self, command: object) -> bool:
        """Whether a command belongs to version 1 in the dialect of DSPex; it need not even be text there."""
        return self.version1 is not None and not (type(command) is str and ":" in command)

    def _answer_malformed(self, malformed: Malformed) -> None:
        if self.version1 is None or self._connection.version > 1:
            self._answers.malformed(malformed)
        elif malformed.error.code is not ErrorCode.INVALID_REQUEST:
            self.closing = self.deaf = True  # the requests before it are answered, then the process ends
        elif not malformed.passed_over:
            self._answers.malformed(malformed)  # a field or a namespace of version 2: who uses one waits for an answer

    def _dispatch(self, call: WorkerCall) -> None:
        command = call.request.command
        if self.version1 is not None and self.is_plain(command):
            if self.version1.may_answer_now(command):
                self._serve(call)
                return
        elif (operation := common_operation(command)) is not None and self._answer_at_once(call, operation):
            return
        if self.closing:
            self._answers.refused(call)
        else:
            self._enqueue(call)

    def _answer_at_once(self, call: WorkerCall, operation: str) -> bool:
        handler = self._control.find(operation)
        if handler is None:
            return False
        call.claim(RUNNING)
        if ":" not in call.request.command:
            self._answers.counters.deprecated += 1
        try:
            result = handler(call.request)
        except Exception as error:  # noqa: BLE001  # a border: the reader must survive whatever a control command meets
            self._answers.failed(call, error)
        else:
            self._answers.succeeded(call, result)
        self._answered()
        return True
