"""Starting one worker: its command line, its environment and its descriptors.

The child gets one end of a Unix socket pair as descriptors 0 and 1, the writing end of a pipe as descriptor 2, and its
options in an anonymous file, because a command line is readable for everybody on the machine. It gets an environment
of its own: what every program needs, what its bridge declared, and nothing else.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import manybridge
from manybridge.errors import WorkerStartError
from manybridge.host.config import BridgeConfig
from manybridge.host.guardian import Guardian
from manybridge.host.interpreters import Interpreters
from manybridge.host.process import WorkerProcess
from manybridge.host.stderr_tail import StderrTail
from manybridge.protocol import codec

BOOTSTRAP: Final = Path(manybridge.__file__).parent / "worker" / "bootstrap.py"

BASIC_VARIABLES: Final = (
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "XDG_CACHE_HOME",
    "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "SSL_CERT_FILE", "SSL_CERT_DIR",
)  # fmt: skip
"""Passed to every worker: where programs, caches, certificates and devices are. Nothing that can hold a secret, which
is why proxies are not here; a bridge that needs one declares it."""

ONE_THREAD_EACH: Final = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
) | {"TOKENIZERS_PARALLELISM": "false"}
"""Parallelism comes from workers; N workers with a thread per core each only take the cores from one another."""

SOCKET_BUFFER_BYTES: Final = 1024 * 1024
"""A 10 MB message then takes 10 wake-ups of each side instead of 50. The kernel may give less."""


class WorkerOrder(NamedTuple):
    """Which worker to start."""

    worker_id: str
    generation: int


class Launched(NamedTuple):
    """A process that was started, and this side of its socket."""

    process: WorkerProcess
    sock: socket.socket
    how: str
    """`spawn` or `zygote`."""


class Launcher(Protocol):
    """Starts workers of one bridge."""

    async def launch(self, order: WorkerOrder) -> Launched:
        """Start a worker. It is not known to work yet.

        Raises:
            WorkerStartError: the process could not be started.
        """
        ...

    async def close(self) -> None:
        """Give up whatever helps to start workers. Workers that run are not touched."""
        ...


class WorkerPlan:
    """What the workers of one bridge have in common: program, arguments, environment, options.

    Args:
        name: of the bridge in the registry.
        config: its checked configuration.
        program: stands in for the interpreter and our bootstrap file; tests run misbehaving programs with it.
        interpreters: finds the interpreter and checks its environment; the host's, which closes it.
    """

    def __init__(
        self,
        name: str,
        config: BridgeConfig,
        *,
        program: list[str] | None = None,
        interpreters: Interpreters | None = None,
    ) -> None:
        self.name = name
        self.config = config
        self.interpreters = interpreters or Interpreters()
        self._program = program

    def reconfigured(self, config: BridgeConfig) -> WorkerPlan:
        """The same plan with another configuration."""
        return WorkerPlan(self.name, config, program=self._program, interpreters=self.interpreters)

    @property
    def forkable(self) -> bool:
        """Whether the program is our worker, which knows how to be a zygote."""
        return self._program is None

    def command(self) -> list[str]:
        """Interpreter, bootstrap file and the bridge. The interpreter's environment is checked each time.

        Raises:
            ManybridgeError: as `Interpreters.find`.
        """
        program = self._program or [self.interpreters.find(self.name, self.config).path, "-I", str(BOOTSTRAP)]
        return [*program, self.reference, *(f"--search-path={each}" for each in self.config.search_path or ())]

    @property
    def reference(self) -> str:
        """What the worker is told to load."""
        return self.config.reference or self.name

    def arguments(self, order: WorkerOrder) -> list[str]:
        """The options that follow, but for the options' descriptor."""
        config = self.config
        arguments = [
            "--name", self.name,
            "--worker-id", order.worker_id,
            "--mode", "host",
            "--generation", str(order.generation),
            "--max-frame-bytes", str(config.max_frame_bytes),
            "--cancel-grace-ms", str(round(config.cancel_grace * 1000)),
        ]  # fmt: skip
        if config.max_concurrency is not None:
            arguments += ["--max-concurrency", str(config.max_concurrency)]
        if config.sandbox != "required":
            arguments += ["--sandbox", config.sandbox]
        return arguments

    def environment(self, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
        """The whole environment of a worker."""
        wanted = (*BASIC_VARIABLES, *self.config.required_env)
        given = {name: environ[name] for name in wanted if name in environ}
        return {**ONE_THREAD_EACH, **given, **self.config.environment}

    def stderr_tail(self, worker_id: str) -> StderrTail:
        """Where the lines of a worker go."""
        log = logging.getLogger(f"manybridge.worker.{self.name}")
        if not self.config.capture_output or not log.isEnabledFor(logging.INFO):
            return StderrTail()
        return StderrTail(lambda line: log.info("%s: %s", worker_id, line))

    @property
    def on_raw(self) -> Callable[[bytes], None] | None:
        """Where the bytes of a worker's standard error go as they are."""
        return None if self.config.capture_output else _write_to_stderr


class SpawnLauncher:
    """Starts each worker as a new process. Use it on the event loop's thread.

    Linux ties the parent-death signal to the thread that started a child: one started from a helper thread would be
    killed when that thread ends.
    """

    def __init__(self, plan: WorkerPlan, guardian: Guardian) -> None:
        self._plan = plan
        self._guardian = guardian

    async def launch(self, order: WorkerOrder) -> Launched:
        """Start a worker.

        Raises:
            WorkerStartError: the interpreter can't be run.
        """
        ours, theirs = worker_socketpair()
        stderr_reading, stderr_writing = os.pipe()
        options_fd = options_file(self._plan.config)
        try:
            command = [*self._plan.command(), *self._plan.arguments(order), "--options-fd", str(options_fd)]
            popen = start_process(
                command, self._plan.environment(), theirs.fileno(), stderr_writing, pass_fds=(options_fd,)
            )
        except BaseException:
            ours.close()
            os.close(stderr_reading)
            raise
        finally:
            theirs.close()
            os.close(stderr_writing)
            os.close(options_fd)
        self._guardian.watch(popen.pid)
        tail = self._plan.stderr_tail(order.worker_id)
        process = WorkerProcess(popen.pid, stderr_reading, tail, popen=popen, on_raw=self._plan.on_raw)
        return Launched(process, ours, "spawn")

    async def close(self) -> None:
        """Nothing is held."""


def start_process(
    command: list[str], environment: dict[str, str], stdio: int, stderr: int, pass_fds: tuple[int, ...] = ()
) -> subprocess.Popen[bytes]:
    """Start `command` as leader of its own session, with one descriptor as its standard input and output.

    Raises:
        WorkerStartError: it can't be started.
    """
    try:
        return subprocess.Popen(
            command,
            stdin=stdio,
            stdout=stdio,
            stderr=stderr,
            env=environment,
            pass_fds=pass_fds,
            start_new_session=True,
        )
    except OSError as error:
        text = f"can't start {command[0]}: {error.strerror or error}"
        raise WorkerStartError(text, details={"program": command[0]}) from error


def worker_socketpair() -> tuple[socket.socket, socket.socket]:
    """Return this side, not blocking, and the worker's side, blocking, of a stream."""
    ours, theirs = socket.socketpair()
    for each in (ours, theirs):
        each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
    ours.setblocking(False)
    theirs.setblocking(True)
    return ours, theirs


def options_file(config: BridgeConfig) -> int:
    """Return the descriptor of an anonymous file that holds the bridge's options, ready to be read."""
    fd = os.memfd_create("manybridge-options")
    os.write(fd, codec.encode(config.options))
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _write_to_stderr(data: bytes) -> None:
    try:
        os.write(2, data)
    except OSError:
        return  # the host's own standard error is closed or full; the tail has the text
