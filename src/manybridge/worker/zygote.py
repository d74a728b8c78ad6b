"""A process that imports a framework once and is forked for every worker.

Rules, each paid for in measured failures: it only imports (no tensor operation: children deadlock; no connection:
children share the socket and read each other's answers); it collects and freezes the garbage collector, so that
children don't copy its pages; and it refuses to fork while a second thread lives, since a lock that the thread holds
stays locked in the child for ever.

It speaks JSON datagrams over a Unix SOCK_SEQPACKET socket on descriptor 0, descriptors attached:

    -> {"fork": {worker_id, generation, argv, env, options}} with [protocol socket, stderr pipe]
    <- {"ready": {threads}} | {"unsafe": {reason}}      once, after the import
    <- {"forked": {worker_id, pid}} | {"refused": {worker_id, reason}}
    <- {"exited": {pid, status}}                        status as waitpid gives it
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import select
import signal
import socket
import sys
import time
from importlib import import_module
from typing import Any, Final, NoReturn

from manybridge.bridge import Bridge
from manybridge.bridge.loading import check_required_modules, load_bridge
from manybridge.worker.failures import error_text
from manybridge.worker.options import parse
from manybridge.worker.process import die_with_parent, exit_now, thread_count
from manybridge.worker.stdio import is_open, leave_standard_streams, private_copy, take_stdio

MAX_DATAGRAM: Final = 256 * 1024
"""One message. Options and environment travel in it; a socket takes about 200 KB."""

ATTACHED: Final = 2
"""Descriptors that come with a fork request: the worker's protocol socket and its log pipe."""


def serve_zygote(arguments: argparse.Namespace, parent: int) -> NoReturn:
    """Import the bridge's framework, then fork on demand until the host goes away.

    Args:
        arguments: see `options.parse`; only the bridge's reference is used here.
        parent: process id of the host. The zygote dies with it, also in the middle of an import.

    Never returns: the process ends with status 0, or 1 if the import failed, and without the interpreter's
    finalisation, which would wait for threads that the framework started.
    """
    control = _take_control()
    die_with_parent(parent)
    exit_now(_serve(control, arguments.bridge))


def _serve(control: socket.socket, reference: str) -> int:
    try:
        bridge_class = _preload(reference)
    except BaseException as error:  # noqa: BLE001  # a border: whatever the framework's import does, the host must learn of it
        _send(control, {"unsafe": {"reason": f"{type(error).__qualname__}: {error_text(error)}"}})
        return 1
    if not bridge_class.zygote_safe:
        _send(control, {"unsafe": {"reason": f"the bridge {bridge_class.name!r} does not say zygote_safe"}})
        return 0
    if thread_count() > 1:
        _send(control, {"unsafe": {"reason": f"its import left {thread_count()} threads running; a fork needs one"}})
        return 0
    gc.collect()
    gc.disable()
    gc.freeze()
    _send(control, {"ready": {"threads": thread_count()}})
    Zygote(control, bridge_class).run()
    return 0


def _take_control() -> socket.socket:
    """Move the control socket to a private descriptor and leave 0 and 1 empty; 2 stays the log."""
    log = is_open(2)  # asked first: a new descriptor may become 2
    control = socket.socket(fileno=private_copy(0))
    leave_standard_streams(log=log)
    return control


def _preload(reference: str) -> type[Bridge]:
    bridge_class = load_bridge(reference)
    if not bridge_class.zygote_safe:
        return bridge_class
    check_required_modules(bridge_class)
    bridge_class.preload()
    from manybridge.bridge.compiling import compiled_bridge

    compiled_bridge(bridge_class)
    import_module("manybridge.worker.runtime")  # for the children's sake
    return bridge_class


class Zygote:
    """Owner of the control socket and of the list of children."""

    def __init__(self, control: socket.socket, bridge_class: type[Bridge]) -> None:
        self._control = control
        self._bridge_class = bridge_class
        self._children: set[int] = set()
        self._signals, self._signalled = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def run(self) -> None:
        """Serve until the host closes the control socket."""
        signal.set_wakeup_fd(self._signalled, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the host's terminal is the host's to handle
        poller = select.poll()
        poller.register(self._control, select.POLLIN)
        poller.register(self._signals, select.POLLIN)
        while True:
            for fd, _ in poller.poll():
                if fd == self._signals:
                    self._reap()
                elif not self._serve_one():
                    return

    def _serve_one(self) -> bool:
        try:
            data, fds, _, _ = socket.recv_fds(self._control, MAX_DATAGRAM, ATTACHED)
        except ConnectionError:  # the host died with an answer of ours unread
            return False
        if not data:
            return False
        try:
            self._fork(data, fds)
        finally:
            for fd in fds:
                os.close(fd)
        return True

    def _fork(self, data: bytes, fds: list[int]) -> None:
        worker_id = None
        try:
            request: dict[str, Any] = json.loads(data)["fork"]
            worker_id = request["worker_id"]
            reason = self._reason_against(fds)
            pid = os.fork() if reason is None else -1
        except (ValueError, LookupError, TypeError, OSError) as error:
            reason = f"{type(error).__qualname__}: {error}"
        if reason is not None:
            self._answer({"refused": {"worker_id": worker_id, "reason": reason}})
            return
        if pid == 0:
            self._become_worker(request, fds)
        self._children.add(pid)
        self._answer({"forked": {"worker_id": worker_id, "pid": pid}})

    @staticmethod
    def _reason_against(fds: list[int]) -> str | None:
        if len(fds) != ATTACHED:
            return f"{len(fds)} descriptors came with the request, not {ATTACHED}"
        threads = thread_count()
        return f"{threads} threads live in the zygote; a fork needs one" if threads > 1 else None

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._signals, 4096)
        for child in list(self._children):
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                self._children.discard(pid)
                self._answer({"exited": {"pid": pid, "status": status}})

    def _answer(self, message: dict[str, Any]) -> None:
        _send(self._control, message)

    def _become_worker(self, request: dict[str, Any], fds: list[int]) -> NoReturn:
        """Turn the forked child into a worker. Nothing of the zygote's own may stay behind."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            os.setsid()
            protocol, log = fds
            os.dup2(protocol, 0)
            os.dup2(protocol, 1)
            os.dup2(log, 2)
            for fd in (protocol, log, self._signals, self._signalled):
                os.close(fd)
            self._control.close()
            os.environ.clear()
            os.environ.update(request["env"])
            time.tzset()  # a spawned worker would have read TZ from its environment
            _renew_random_numbers()
            gc.enable()
            _run_worker(request, self._bridge_class)
            status = 0
        except BaseException as error:  # noqa: BLE001  # whatever it is, the child must not go on as a zygote
            with contextlib.suppress(BaseException):
                sys.stderr.write(f"the forked worker could not start: {type(error).__qualname__}: {error}\n")
        finally:
            os._exit(status)


def _run_worker(request: dict[str, Any], bridge_class: type[Bridge]) -> None:
    from manybridge.worker.runtime import Runtime

    arguments = parse(request["argv"])
    # The zygote is the parent; its death is the host's, and the host's guardian sees to that.
    Runtime(arguments, request["options"], take_stdio(), parent=None, bridge_class=bridge_class).run()


def _renew_random_numbers() -> None:
    """Give this child random numbers of its own. Python's generator does it by itself; numpy's is copied by a fork."""
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()


def _send(control: socket.socket, message: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # the host is gone; the next read says so
        control.send(json.dumps(message).encode())
