"""Settings of sessions in a store: there after a restart, shared by hosts, and never with a key."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from manybridge.errors import ResourceError, SessionError, StoreError
from manybridge.host.bridge import AsyncMLBridge
from tests.store.hosts import HostMaker
from tests.support import REPOSITORY, aeventually

TUNED = str(REPOSITORY / "tests" / "workers" / "bridges" / "tuned.py")

KEY = "sk-0123456789"


async def told(ml: AsyncMLBridge, session: str = "s") -> dict[str, Any]:
    """What a call of a session has."""
    found: dict[str, Any] = (await ml.call("mock", "tell", session=session))["settings"]
    return found


async def test_settings_are_there_after_the_hosts_restart(durable_host: HostMaker) -> None:
    """Those that it was made with, those that were changed, and those that a call configured."""
    before = await durable_host(python_script=TUNED)
    await before.create_session("s", settings={"mock": {"level": 1}, "note": 1})
    await before.update_session("s", settings={"note": None, "other": {"x": [None]}})
    await before.call("mock", "configure", {"more": 2}, session="s")
    await before.call("mock", "configure", {"level": 7}, session="named by a call")
    await before.close()

    after = await durable_host(python_script=TUNED)
    assert await told(after) == {"level": 1, "more": 2}
    assert await told(after, "named by a call") == {"level": 7}
    assert (await after.get_session("s")).settings == {"mock": {"level": 1, "more": 2}, "other": {"x": [None]}}


async def test_a_key_is_not_in_the_store_and_its_lack_is_said(durable_host: HostMaker) -> None:
    """config_error in every call but the one that configures the session again."""
    before = await durable_host(python_script=TUNED)
    await before.call("mock", "configure", {"level": 1, "api_key": KEY}, session="s")
    stored = await before._access.store.get_session("s")
    assert stored is not None
    assert stored.settings == {"mock": {"level": 1, "api_key": "***"}}
    await before.close()

    after = await durable_host(python_script=TUNED)
    other = await durable_host(python_script=TUNED)
    for ml in (after, other):
        with pytest.raises(SessionError) as caught:
            await told(ml)
        assert (caught.value.code, caught.value.retryable) == ("config_error", False)
        assert "api_key_env" in caught.value.message
    await after.call("mock", "configure", {"api_key": "another-key"}, session="s")
    assert await told(after) == {"api_key": "another-key"}
    with pytest.raises(SessionError):
        await told(other)


async def test_the_first_call_after_a_restart_may_be_the_one_that_brings_the_key(durable_host: HostMaker) -> None:
    """Before any worker has said which commands configure a session."""
    before = await durable_host(python_script=TUNED)
    await before.call("mock", "configure", {"level": 1, "api_key": KEY}, session="s")
    await before.close()

    after = await durable_host(python_script=TUNED, eager=False)
    await after.call("mock", "configure", {"level": 2, "api_key": KEY}, session="s")
    assert await told(after) == {"level": 2, "api_key": KEY}


async def test_what_one_host_changes_holds_on_the_others(durable_host: HostMaker) -> None:
    """A second later at most; changes of different bridges at the same time are both kept."""
    one, two = await durable_host(python_script=TUNED), await durable_host(python_script=TUNED)
    await one.create_session("s", settings={"mock": {"level": 1}})
    assert await told(two) == {"level": 1}
    await asyncio.gather(
        one.update_session("s", settings={"mock": {"level": 2}}),
        two.update_session("s", settings={"note": 1}),
    )

    async def arrived() -> bool:
        return await told(one) == await told(two) == {"level": 2}

    await aeventually(arrived)
    assert (await one.get_session("s")).settings == (await two.get_session("s")).settings
    assert (await two.get_session("s")).settings == {"mock": {"level": 2}, "note": 1}


async def test_a_session_that_another_program_closed_is_closed_here(durable_host: HostMaker) -> None:
    """It is not written back; who names it again gets a new one."""
    one, two = await durable_host(python_script=TUNED), await durable_host(python_script=TUNED)
    await one.create_session("s", settings={"mock": {"level": 1}})
    assert await told(two) == {"level": 1}
    await one.close_session("s")

    async def noticed() -> bool:
        return await told(two) == {}

    await aeventually(noticed)
    assert await one.list_sessions() == []


async def test_a_lease_that_another_program_extended_is_extended_here(durable_host: HostMaker) -> None:
    """As soon as somebody looks."""
    one, two = await durable_host(), await durable_host()
    await one.create_session("s", lease=60)
    await two.extend_session("s", 600)
    info = await one.get_session("s")
    assert (info.lease, info.expires_in > 500) == (600, True)


async def test_a_lease_may_be_made_shorter(durable_host: HostMaker) -> None:
    """Here, in the store and on another host: a session that was given too long ends when it is said now."""
    one, two = await durable_host(), await durable_host()
    await one.create_session("s", lease=600)
    await two.get_session("s")
    assert (await one.extend_session("s", 30)).expires_in <= 30

    for host in (one, two):
        info = await host.get_session("s")
        assert (info.lease, info.expires_in <= 30) == (30, True)


async def test_what_a_session_made_that_ended_unseen_is_not_for_the_next_of_its_name(
    durable_host: HostMaker,
) -> None:
    """No host was there when its lease ran out, and none has swept since: who names it finds it empty."""
    one = await durable_host()
    await one.create_session("s", lease=600)
    made = await one.create_resource("mock", "counter", {}, session="s")
    await one.close(0.0)
    two = await durable_host()
    await two._access.store.begin_lease("s", -1.0)  # as long ago

    with pytest.raises(ResourceError) as caught:
        await two.execute_resource("mock", made.id, session="s")

    assert caught.value.code == "resource_not_found"
    assert await two.list_resources("mock", session="s") == []


async def test_settings_that_can_not_be_kept_do_not_hold(
    durable_host: HostMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call says so, and the session is as before, on the worker that believed it as well."""
    ml = await durable_host(python_script=TUNED)
    await ml.create_session("s", settings={"mock": {"level": 1}})
    await told(ml)
    store = ml._access.store

    async def fails(*_: Any) -> None:
        raise StoreError("no")

    with monkeypatch.context() as patch:
        patch.setattr(store, "change_settings", fails)
        with pytest.raises(StoreError):
            await ml.call("mock", "configure", {"level": 2}, session="s")
        with pytest.raises(StoreError):
            await ml.update_session("s", settings={"mock": {"level": 3}})
    assert await told(ml) == {"level": 1}
    assert (await ml.get_session("s")).settings == {"mock": {"level": 1}}
