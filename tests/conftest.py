"""What holds for every test: nothing left behind, no keys, one event-loop backend, slow kinds of tests last."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import re
import shutil
import signal
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import uvloop

from tests.support import FIRST_PAUSE, LONGEST_PAUSE, MS, TIME_FACTOR, process_is_running

# How long a child, thread or descriptor may take to go away after the test returned.
LEAK_PATIENCE = 5_000 * MS

# pytest-timeout, seconds: the import of a framework alone takes up to 6 s with a cold page cache.
LONG_TEST_TIMEOUT = 60

# What a shell may hold that would let a test reach a provider, or change what a test sees.
SECRET_NAME = re.compile(r"(API_?KEY|TOKEN|SECRET|PASSWORD|CREDENTIALS)", re.IGNORECASE)
SETTING_NAME = re.compile(r"MANYBRIDGE_(?!TEST_)")

# Inherited by every process that a test starts, and by theirs; so an orphan is found wherever it was moved to.
SESSION_MARK = f"MANYBRIDGE_TEST_SESSION={uuid.uuid4().hex}"

STATE_HOME = tempfile.mkdtemp(prefix="manybridge-state-")
atexit.register(shutil.rmtree, STATE_HOME, ignore_errors=True)

# A shared, loaded machine must not fail a property test for being slow; a failing example must be repeatable.
hypothesis.settings.register_profile(
    "manybridge", deadline=None, print_blob=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("manybridge")


def pytest_configure() -> None:
    """Clean the environment before any test module is imported, once for all tests."""
    for name in list(os.environ):
        if SECRET_NAME.search(name) or SETTING_NAME.match(name):
            del os.environ[name]
    # A proxy must not be asked for what a test serves on this machine, and no library may look for the world.
    os.environ.update(
        {
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
            "HF_HUB_OFFLINE": "1",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            # The default store of a host with a configuration file: never the one of whoever runs the tests.
            "XDG_STATE_HOME": STATE_HOME,
            SESSION_MARK.partition("=")[0]: SESSION_MARK.partition("=")[2],
        }
    )
    # A shell ignores SIGINT in what it starts in the background, and children inherit that; tests send it to theirs.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # libuv opens a pipe for signals with the first loop of a process and keeps it: no leak of the first test.
    uvloop.new_event_loop().close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run tests that need a framework after all others, and give long tests their longer limit."""
    for item in items:
        is_long = item.get_closest_marker("framework") or item.get_closest_marker("slow")
        if not item.get_closest_marker("timeout") and (is_long or TIME_FACTOR > 1):
            item.add_marker(pytest.mark.timeout((LONG_TEST_TIMEOUT if is_long else 20) * max(TIME_FACTOR, 1)))
    items.sort(key=lambda item: item.get_closest_marker("framework") is not None)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Asynchronous tests run on asyncio: the host is written for it."""
    return "asyncio"


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fail a test that leaves a child process, a thread or a file descriptor, each named in the message.

    What a fixture of a wider scope holds was there before and is not counted. Left children are killed, so that one
    failure does not make the next.
    """
    before = Belongings()
    yield
    left = Belongings().since(before)
    if not left:
        return
    gc.collect()  # a descriptor in a reference cycle is not a leak
    deadline = time.monotonic() + LEAK_PATIENCE
    pause = FIRST_PAUSE
    while (left := Belongings().since(before)) and time.monotonic() < deadline:
        time.sleep(pause)  # not eventually(...): running out of time is no error of its own here
        pause = min(pause * 2, LONGEST_PAUSE)
    if left:
        kill_all(Belongings().children.keys() - before.children.keys())
        pytest.fail("left behind: " + "; ".join(left), pytrace=False)


class Belongings:
    """A snapshot of what this process holds: child processes of any depth, threads and descriptors."""

    def __init__(self) -> None:
        self.children = descendants(os.getpid())
        self.threads = set(threading.enumerate())
        self.descriptors = open_descriptors()

    def since(self, before: Belongings) -> list[str]:
        """Say what is here and was not `before`, one line for each thing."""
        return [
            *(f"process {pid} ({self.children[pid]})" for pid in self.children.keys() - before.children.keys()),
            *(f"thread {thread.name!r}" for thread in self.threads - before.threads),
            *(
                f"descriptor {fd} ({target})"
                for fd, target in self.descriptors.items()
                if before.descriptors.get(fd) != target
            ),
        ]


def descendants(pid: int) -> dict[int, str]:
    """Return the children of `pid` and theirs, with what each runs; zombies too, as nobody has collected them."""
    found: dict[int, str] = {}
    # The kernel's own lists: psutil reads every process of the machine to learn the same, 10 ms on a busy one.
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
    except (FileNotFoundError, ProcessLookupError):
        return found  # it ended meanwhile
    for thread in threads:
        try:
            child_ids = [int(word) for word in (thread / "children").read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue  # the same
        for child in child_ids:
            found[child] = command_line(child)
            found.update(descendants(child))
    return found


def command_line(pid: int) -> str:
    """Return what `pid` runs, or `ended, not waited for`."""
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        raw = b""
    return raw.replace(b"\0", b" ").decode(errors="replace").strip()[:200] or "ended, not waited for"


def open_descriptors() -> dict[int, str]:
    """Return this process's descriptors and what each stands for."""
    found: dict[int, str] = {}
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208  # twice as fast as Path.iterdir, twice for each test
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")  # noqa: PTH115  # the same
        except FileNotFoundError:
            continue  # the one that listed the folder
    return found


def kill_all(pids: set[int]) -> None:
    """Kill and collect processes that a test left."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            continue  # gone, or a grandchild that its own parent collects


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the whole run where a process that any test started has outlived it, though no longer as our child."""
    deadline = time.monotonic() + LEAK_PATIENCE
    while (orphans := marked_processes()) and time.monotonic() < deadline:
        time.sleep(LONGEST_PAUSE)  # not eventually(...), as above
    if orphans:
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        for pid, command in orphans.items():
            if reporter:
                reporter.write_line(f"\nERROR: process {pid} outlived the tests: {command}", red=True)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def marked_processes() -> dict[int, str]:
    """Return every running process but this one that a test of this run started, directly or not."""
    found: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        pid = int(folder.name)
        try:
            marked = pid != os.getpid() and SESSION_MARK.encode() in (folder / "environ").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if marked and process_is_running(pid):
            found[pid] = command_line(pid)
    return found
