"""Where a host keeps its records when nobody says, who sees them, and who pays for it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from manybridge.host.bridge import AsyncMLBridge
from manybridge.host.config import StoreConfig, read_config
from manybridge.host.store_access import default_file, locate_store
from manybridge.store import opening
from tests.support import DEFAULT_TIMEOUT, aeventually

MOCK = '[bridges.mock]\nzygote = "never"\n'


@pytest.fixture
def state_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's state folder, empty."""
    folder = tmp_path / "state"
    monkeypatch.setenv("XDG_STATE_HOME", str(folder))
    return folder


def written(path: Path, text: str = MOCK) -> Path:
    """Write a configuration."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_the_default_lies_in_the_users_state_folder() -> None:
    """A relative XDG_STATE_HOME is to be ignored."""
    assert default_file({"XDG_STATE_HOME": "/s"}) == Path("/s/manybridge/manybridge.db")
    for environ in ({}, {"XDG_STATE_HOME": "relative"}):
        assert default_file(environ) == Path.home() / ".local/state/manybridge/manybridge.db"


def test_a_configuration_says_where_and_whose(tmp_path: Path, state_home: Path) -> None:
    """Relative files lie beside it; the default is scoped by its path; configurations in code stay in memory."""
    file = written(tmp_path / "a" / "manybridge.toml")
    named = written(tmp_path / "b" / "manybridge.toml", f'{MOCK}[store]\nurl = "sqlite:///own.db"\n')
    scoped = written(tmp_path / "c" / "manybridge.toml", f'{MOCK}[store]\nscope = "team"\n')
    default = f"sqlite:///{state_home}/manybridge/manybridge.db"

    assert locate_store(read_config(file)) == StoreConfig(url=default, scope=str(file))
    assert locate_store(read_config(named)) == StoreConfig(
        url=f"sqlite:///{tmp_path}/b/own.db?synchronous=normal", scope="default"
    )
    assert locate_store(read_config(scoped)) == StoreConfig(url=default, scope="team")
    assert locate_store(read_config({"bridges": {"mock": {}}})) == StoreConfig(url="memory:", scope="default")
    assert locate_store(read_config({"store": {"url": "postgresql://u@h/d"}})).scope == "default"


async def test_calls_alone_make_no_file(tmp_path: Path, state_home: Path) -> None:
    """Nor do reading, sessions that calls name, or a host in code that makes resources."""
    async with AsyncMLBridge.from_config(written(tmp_path / "manybridge.toml")) as ml:
        await ml.call("mock", "echo", {"x": 1}, session="s")
        assert await ml.list_resources() == []
        assert await ml.jobs() == []
        assert len(await ml.list_sessions()) == 1
    async with AsyncMLBridge({"bridges": {"mock": {"zygote": "never"}}}) as ml:
        await ml.create_resource("mock", "echo")
        await ml.create_session("t")

    assert not _exists(state_home)


async def test_two_programs_with_the_default_store_do_not_see_each_others_resources(
    tmp_path: Path, state_home: Path
) -> None:
    """Each sees its own again; the file is for its owner alone."""
    files = [written(tmp_path / name / "manybridge.toml") for name in ("one", "two")]
    for number, file in enumerate(files):
        async with AsyncMLBridge.from_config(file) as ml:
            await ml.create_resource("mock", "echo", {"n": number}, id="mine")
    for number, file in enumerate(files):
        async with AsyncMLBridge.from_config(file) as ml:
            assert len(await ml.list_resources()) == 1
            assert (await ml.execute_resource("mock", "mine"))["config"] == {"n": number}

    modes = {_mode(state_home / "manybridge"), _mode(state_home / "manybridge" / "manybridge.db")}
    assert modes == {0o700, 0o600}


def _mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


# What a program does that keeps nothing, and whether it has imported what only a database needs.
STATELESS = """
import sys
from manybridge import MLBridge
with MLBridge.from_config(sys.argv[1]) as ml:
    ml.call("mock", "echo", {})
    ml.list_resources()
print(*sorted({"sqlalchemy", "alembic", "asyncpg"} & sys.modules.keys()))
"""


def test_a_program_that_keeps_nothing_imports_no_database(tmp_path: Path, state_home: Path) -> None:
    """Half a second of import is for those who have something to keep."""
    file = written(tmp_path / "manybridge.toml")
    ended = subprocess.run(
        [sys.executable, "-c", STATELESS, str(file)], capture_output=True, text=True, check=False, timeout=20
    )

    assert (ended.returncode, ended.stdout.strip()) == (0, ""), ended.stderr


def _exists(path: Path) -> bool:
    return path.exists()


def test_an_import_that_ends_after_its_loop_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that is closed right after its start: nobody waits any more, and nothing is printed."""
    gone, failures = threading.Event(), list[object]()
    monkeypatch.setattr(opening, "import_module", lambda _name: gone.wait(DEFAULT_TIMEOUT))
    monkeypatch.setattr(threading, "excepthook", failures.append)

    async def begin() -> None:
        waiting = asyncio.ensure_future(opening._imported("slow"))
        await aeventually(lambda: any(each.name == "import slow" for each in threading.enumerate()))
        waiting.cancel()

    asyncio.run(begin())
    (thread,) = (each for each in threading.enumerate() if each.name == "import slow")
    gone.set()
    thread.join(DEFAULT_TIMEOUT)
    assert (thread.is_alive(), failures) == (False, [])
