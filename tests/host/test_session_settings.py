"""Settings of sessions through a host: every worker of a session has them, whatever happened to the one before."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from manybridge.errors import CallError, InvalidArgumentError, ManybridgeError, SessionError, WorkerCrashedError
from manybridge.host.bridge import AsyncMLBridge
from manybridge.host.session_settings import MAX_BYTES, SettingsOfSession
from manybridge.host.sync import MLBridge
from tests.host.conftest import HostMaker
from tests.support import REPOSITORY, aeventually

TUNED = str(REPOSITORY / "tests" / "workers" / "bridges" / "tuned.py")


def nested(depth: int) -> dict[str, Any]:
    """An object in an object, and so on: deeper than Python can follow."""
    found: dict[str, Any] = {}
    for _ in range(depth):
        found = {"x": found}
    return found


async def told(ml: AsyncMLBridge, session: str | None = "s", command: str = "tell") -> dict[str, Any]:
    """What a call of a session has."""
    found: dict[str, Any] = (await ml.call("mock", command, session=session))["settings"]
    return found


async def test_every_worker_has_the_settings_of_a_session(mock_host: HostMaker) -> None:
    """Before its first call there; other sessions, and calls without one, have none."""
    ml = await mock_host(python_script=TUNED, pool_size=3, max_concurrency=1)
    await ml.wait_ready("mock", 20)
    await ml.create_session("s", settings={"mock": {"level": 1}, "elsewhere": {"level": 2}})
    pids = set()
    for worker in list(ml.pool("mock").ready):
        ml._sessions.get("s").workers["mock"] = worker
        answer = await ml.call("mock", "tell", session="s")
        pids.add(answer["pid"])
        assert (answer["settings"], answer["taken"]) == ({"level": 1}, [["s", {"level": 1}]])
        assert await told(ml, "s", "atell") == {"level": 1}

    assert len(pids) == 3
    assert await told(ml, "t") == {}
    assert await told(ml, None) == {}


async def test_settings_survive_the_worker(mock_host: HostMaker) -> None:
    """The one that takes its place is told; so is one that takes a call over that a dead worker had not begun."""
    ml = await mock_host(python_script=TUNED, max_concurrency=1)
    await ml.create_session("s", settings={"mock": {"level": 1}})
    first = await ml.call("mock", "tell", session="s")
    with pytest.raises(WorkerCrashedError):
        await ml.call("mock", "die", session="s")
    second = await ml.call("mock", "tell", session="s")
    assert second["pid"] != first["pid"]
    assert second["settings"] == {"level": 1}

    os.kill(second["pid"], signal.SIGSTOP)
    waiting = asyncio.ensure_future(ml.call("mock", "tell", session="s"))
    await aeventually(lambda: ml.pool("mock").running)
    os.kill(second["pid"], signal.SIGKILL)
    with pytest.raises(WorkerCrashedError):
        await waiting  # it may have begun
    assert await told(ml) == {"level": 1}


async def test_updated_settings_hold_from_the_next_call_on(mock_host: HostMaker) -> None:
    """What is named is replaced, None removes, the rest stays; nobody is told what did not change."""
    ml = await mock_host(python_script=TUNED, max_concurrency=1)
    await ml.create_session("s", settings={"mock": {"level": 1}, "note": "mine"})
    assert await told(ml) == {"level": 1}
    info = await ml.update_session("s", settings={"mock": {"more": [1, None]}})
    assert info.settings == {"mock": {"more": [1, None]}, "note": "mine"}
    assert await told(ml) == {"more": [1, None]}
    await ml.update_session("s", settings={"note": "yours"})
    assert await told(ml) == {"more": [1, None]}
    info = await ml.update_session("s", settings={"mock": None})
    assert info.settings == {"note": "yours"}
    answer = await ml.call("mock", "tell", session="s")
    assert answer["settings"] == {}
    assert [each for _, each in answer["taken"]] == [{"level": 1}, {"more": [1, None]}, {}]


async def test_a_call_that_configures_its_session_does_so_for_every_worker(mock_host: HostMaker) -> None:
    """What its result says becomes part of the settings."""
    ml = await mock_host(python_script=TUNED, pool_size=2, max_concurrency=1)
    await ml.wait_ready("mock", 20)
    await ml.call("mock", "configure", {"level": 1}, session="s")
    await ml.call("mock", "configure", {"more": 2}, session="s")

    assert (await ml.get_session("s")).settings == {"mock": {"level": 1, "more": 2}}
    for worker in list(ml.pool("mock").ready):
        ml._sessions.get("s").workers["mock"] = worker
        assert await told(ml) == {"level": 1, "more": 2}
    batch: list[dict[str, Any]] = [{"command": "configure", "args": {"level": 3}}, {"command": "tell"}]
    (_, after) = await ml.batch("mock", batch, session="s")
    assert after["settings"] == {"level": 3, "more": 2}
    job = await ml.submit("mock", "configure", {"level": 4}, session="s")
    await job.result()
    assert await told(ml) == {"level": 4, "more": 2}
    assert await told(ml, None) == {}


async def test_a_call_without_a_session_configures_none(mock_host: HostMaker) -> None:
    """There is nothing that could keep it."""
    ml = await mock_host(python_script=TUNED)
    await ml.call("mock", "configure", {"level": 1})
    assert await ml.list_sessions() == []


async def test_a_key_that_was_configured_by_a_call_is_shown_to_nobody_and_known_to_every_worker(
    mock_host: HostMaker,
) -> None:
    """It lives in the memory of the host, until another configuration takes its place."""
    ml = await mock_host(python_script=TUNED, max_concurrency=1)
    key = "sk-0123456789"
    answer = await ml.call("mock", "configure", {"level": 1, "api_key": key}, session="s")
    assert key not in str(answer)
    assert (await ml.get_session("s")).settings == {"mock": {"level": 1, "api_key": "***"}}
    with pytest.raises(WorkerCrashedError):
        await ml.call("mock", "die", session="s")
    assert await told(ml) == {"level": 1, "api_key": key}
    await ml.update_session("s", settings={"mock": {"level": 2, "api_key": "***"}})
    assert await told(ml) == {"level": 2, "api_key": key}
    answer = await ml.call("mock", "configure", {"level": 4}, session="s")  # a bridge that tells it again
    assert answer["settings"] == {"level": 4, "api_key": "***"}
    assert await told(ml) == {"level": 4, "api_key": key}
    await ml.update_session("s", settings={"mock": {"level": 3}})
    assert await told(ml) == {"level": 3}
    url = "https://me:sk-0123456789@host/v1"
    await ml.call("mock", "configure", {"base_url": url, "other": "https://host/v1"}, session="s")
    shown = {"level": 3, "base_url": "***", "other": "https://host/v1"}
    assert (await ml.get_session("s")).settings == {"mock": shown}
    assert await told(ml) == {**shown, "base_url": url}


async def test_what_was_made_in_a_session_is_made_again_with_its_settings(mock_host: HostMaker) -> None:
    """Made and executed; on a worker that has met neither the session nor the resource."""
    ml = await mock_host(python_script=TUNED, max_concurrency=1)
    await ml.create_session("s", settings={"mock": {"level": 1}})
    made = await ml.create_resource("mock", "probe", session="s")
    with pytest.raises(WorkerCrashedError):
        await ml.call("mock", "die")
    found = await ml.execute_resource("mock", made.id, session="s")
    assert (found["settings"], found["made_with"]) == ({"level": 1}, {"level": 1})


async def test_wrong_settings_fail_the_calls_of_the_session_until_they_are_put_right(mock_host: HostMaker) -> None:
    """With the error of the bridge."""
    ml = await mock_host(python_script=TUNED)
    await ml.create_session("s", settings={"mock": {"wrong": 1}})
    for _ in range(2):
        with pytest.raises(ManybridgeError) as caught:
            await told(ml)
        assert caught.value.code == "config_error"
    await ml.update_session("s", settings={"mock": {"right": 1}})
    assert await told(ml) == {"right": 1}


async def test_cleaning_up_and_closing_end_settings_in_the_workers(mock_host: HostMaker) -> None:
    """After a cleanup the session's are given again; a new session of the same name begins without."""
    ml = await mock_host(python_script=TUNED, max_concurrency=1)
    await ml.create_session("s", settings={"mock": {"level": 1}})
    await told(ml)
    await ml.call("mock", "common:cleanup", session="s")
    assert await told(ml) == {"level": 1}
    await ml.close_session("s")
    assert await told(ml) == {}
    assert ml.pool("mock").ready[0]._told == {}


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"mock": "small"}, "settings.mock: expected an object with settings for the bridge mock, found str"),
        ({"mock": {"api_key": "sk-0123456789"}}, "settings.mock.api_key: a key is not kept with a session"),
        ({"x": [{"Token": "0123456789"}]}, "settings.x[0].Token: a key is not kept"),
        ({"x": {"headers": {"Authorization": "Bearer 0123456789"}}}, "settings.x.headers.Authorization: a key is not"),
        ({"mock": {"base_url": "http://me:0123456789@host/v1"}}, "settings.mock.base_url: a key is not kept"),
        ({"x": nested(5_000)}, "settings: expected what JSON can carry"),
        ({"x": float("nan")}, "settings: expected what JSON can carry"),
        ({"x": object()}, "settings: expected what JSON can carry"),
        ({"x": "y" * MAX_BYTES}, f"settings: expected at most {MAX_BYTES} bytes"),
        ([], "settings: expected a mapping"),
    ],
)
async def test_settings_that_can_not_be_kept_are_refused(settings: Any, text: str, mock_host: HostMaker) -> None:
    """By both ways in, and there is no session then; the key is not in the message."""
    ml = await mock_host()
    with pytest.raises(InvalidArgumentError) as caught:
        await ml.create_session("s", settings=settings)
    assert caught.value.message.startswith(text)
    assert "0123456789" not in caught.value.message
    assert await ml.list_sessions() == []
    await ml.create_session("s")
    with pytest.raises(InvalidArgumentError):
        await ml.update_session("s", settings=settings)
    assert (await ml.get_session("s")).settings == {}


async def test_stand_ins_and_names_of_variables_are_no_keys(mock_host: HostMaker) -> None:
    """`none` for an endpoint that takes any key."""
    ml = await mock_host(python_script=TUNED)
    settings = {"mock": {"api_key": "none", "api_key_env": "OPENAI_API_KEY", "max_tokens": 1000}}
    await ml.create_session("s", settings=settings)
    assert await told(ml) == settings["mock"]


async def test_only_a_session_that_exists_is_updated(mock_host: HostMaker) -> None:
    """session_not_found."""
    ml = await mock_host()
    with pytest.raises(SessionError) as caught:
        await ml.update_session("s", settings={"a": 1})
    assert caught.value.code == "session_not_found"


async def test_callers_do_not_send_settings_to_workers_themselves(mock_host: HostMaker) -> None:
    """not_supported, with what to do instead."""
    ml = await mock_host()
    with pytest.raises(CallError) as caught:
        await ml.call("mock", "common:configure_session", {"session_id": "s", "settings": {}})
    assert caught.value.code == "not_supported"
    assert "update_session" in caught.value.message


def test_the_blocking_face_has_the_same(tmp_path: Path) -> None:
    """create, update, call."""
    config = {"bridges": {"tuned": {"python_script": TUNED, "zygote": "never"}}, "store": {"url": "memory:"}}
    with MLBridge(config) as ml:
        ml.create_session("s", settings={"tuned": {"level": 1}})
        assert ml.call("tuned", "tell", session="s")["settings"] == {"level": 1}
        assert ml.update_session("s", settings={"tuned": {"level": 2}}).settings == {"tuned": {"level": 2}}
        assert ml.call("tuned", "tell", session="s")["settings"] == {"level": 2}
    assert not any(tmp_path.iterdir())


def test_revisions_change_with_what_a_bridge_is_given_and_not_otherwise() -> None:
    """No two are alike in one process."""
    settings = SettingsOfSession("s", {"a": {"x": 1}, "b": {}})
    first = settings.for_bridge("a")
    assert settings.for_bridge("a") is first
    assert settings.for_bridge("c") is None
    settings.replace({"a": {"x": 1}, "b": {"y": 1}})
    assert settings.for_bridge("a") is first
    settings.replace({"a": {"x": 2}})
    second = settings.for_bridge("a")
    assert first is not None
    assert second is not None
    assert (second.values, second.revision > first.revision) == ({"x": 2}, True)
