"""The model of a session, with DSPy and LangChain on real hosts: on every worker, after a death and after a restart."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from manybridge.errors import ManybridgeError, SessionError
from manybridge.host.sync import MLBridge
from tests.bridges.dspy.endpoint import Endpoint
from tests.support import eventually, framework_python

pytestmark = pytest.mark.framework

KEY = "sk-very-secret-0123456789"


class Framework(NamedTuple):
    """What is called how."""

    name: str
    separator: str
    address: str
    configure: str
    ask: str
    args: dict[str, Any]

    def model(self, name: str) -> str:
        """A model of the local endpoint, as the framework writes it."""
        return f"openai{self.separator}{name}"


DSPY = Framework(
    "dspy",
    "/",
    "api_base",
    "configure_lm",
    "predict",
    {"signature": "question -> answer", "inputs": {"question": "1 + 1"}},
)
LANGCHAIN = Framework("langchain", ":", "base_url", "configure_model", "invoke", {"messages": "1 + 1"})

both = pytest.mark.parametrize("framework", [DSPY, LANGCHAIN], ids=lambda each: each.name)


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    """A model server that wants the key."""
    monkeypatch.setenv("LOCAL_API_KEY", KEY)
    with Endpoint(KEY) as started:
        yield started


def host(framework: Framework, endpoint: Endpoint, folder: Path, **config: Any) -> MLBridge:
    """Start a host whose default model is `local-default`."""
    address = endpoint.openai_base
    bridge = {
        "python": str(framework_python(framework.name)),
        "required_env": ["LOCAL_API_KEY"],
        "environment": {"NO_PROXY": "127.0.0.1"},
        "options": {
            "model": framework.model("local-default"),
            framework.address: address,
            "api_key_env": "LOCAL_API_KEY",
        },
        **config,
    }
    return MLBridge({"bridges": {framework.name: bridge}, "store": {"url": f"sqlite:///{folder}/store.db"}})


def model_of(ml: MLBridge, framework: Framework, session: str | None) -> str:
    """The model that answers a call of a session."""
    found = ml.call(framework.name, framework.ask, framework.args, session=session)["usage"]["by_model"]
    (model,) = found
    return str(model).partition(framework.separator)[2]


def kill_workers(ml: MLBridge, bridge: str) -> None:
    """Kill every worker, and wait until the host knows."""
    doomed = list(ml._bridge.pool(bridge).ready)
    for worker in doomed:
        os.kill(worker.process.pid, signal.SIGKILL)
    eventually(lambda: not set(doomed) & set(ml._bridge.pool(bridge).ready))


@both
def test_a_session_has_its_model_on_every_worker_and_after_a_restart(
    framework: Framework, endpoint: Endpoint, tmp_path: Path
) -> None:
    """Given with the session, or configured by a call in it; the others have the bridge's."""
    name = framework.name
    with host(framework, endpoint, tmp_path, pool_size=2) as ml:
        ml.create_session("given", settings={name: {"model": framework.model("local-one"), "temperature": 0.5}})
        ml.call(name, framework.configure, {"model": framework.model("local-two")}, session="called")
        for worker in list(ml._bridge.pool(name).ready):
            for session, model in (("given", "local-one"), ("called", "local-two")):
                ml._bridge._sessions.get(session).workers[name] = worker
                assert model_of(ml, framework, session) == model
        assert model_of(ml, framework, None) == model_of(ml, framework, "other") == "local-default"

        answer = ml.call(name, framework.configure, {"max_tokens": 50}, session="given")
        kept = {"model": framework.model("local-one"), "temperature": 0.5, "max_tokens": 50}
        assert answer["settings"] == kept == ml.get_session("given").settings[name]
        assert {each: answer[each] for each in kept} == kept
        kill_workers(ml, name)
        assert model_of(ml, framework, "given") == "local-one"
        ml.update_session("called", settings={name: {"model": framework.model("local-three")}})
        assert model_of(ml, framework, "called") == "local-three"

    with host(framework, endpoint, tmp_path) as ml:
        assert model_of(ml, framework, "given") == "local-one"
        assert model_of(ml, framework, "called") == "local-three"
        ml.update_session("given", settings={name: None})
        assert model_of(ml, framework, "given") == "local-default"


@both
def test_a_sessions_settings_are_checked_as_its_bridge_checks_a_call(
    framework: Framework, endpoint: Endpoint, tmp_path: Path
) -> None:
    """Names, types, keys, addresses; the error says that it is about the settings of the session."""
    name = framework.name
    model = framework.model("local-one")
    with host(framework, endpoint, tmp_path) as ml:
        ml.create_session("s")
        for settings, code, text in (
            ({"model": 5}, "invalid_argument", "model"),
            ({"modle": model}, "invalid_argument", "modle"),
            ({"session_id": "t"}, "invalid_argument", "session_id"),
            ({"model": model, framework.address: "http://127.0.0.1:9/v1"}, "permission_denied", "own api_key"),
            ({"model": model, "api_key_env": "NO_SUCH_API_KEY"}, "missing_variable", "NO_SUCH_API_KEY"),
        ):
            ml.update_session("s", settings={name: settings})
            with pytest.raises(ManybridgeError) as caught:
                model_of(ml, framework, "s")
            assert (caught.value.code, text in caught.value.message) == (code, True)
            if code != "missing_variable":  # said by whoever needs the model
                assert caught.value.message.startswith(f"settings of the session for {name}: ")
        own = {"model": model, framework.address: endpoint.openai_base, "api_key_env": "LOCAL_API_KEY"}
        ml.update_session("s", settings={name: own})
        assert model_of(ml, framework, "s") == "local-one"
        with pytest.raises(ManybridgeError) as caught:
            ml.update_session("s", settings={name: {"model": model, "api_key": KEY}})
        assert (caught.value.code, KEY in str(caught.value)) == ("invalid_argument", False)
        with pytest.raises(ManybridgeError) as caught:
            ml.call(name, framework.configure, {"model": model, "session_id": "s"}, session="t")
        assert caught.value.code == "invalid_argument"


@both
def test_a_key_that_a_call_brought_serves_its_session_and_is_kept_nowhere(
    framework: Framework, endpoint: Endpoint, tmp_path: Path
) -> None:
    """On every worker of this host; the next host says that it is missing."""
    name = framework.name
    mine = {"model": framework.model("local-mine"), framework.address: endpoint.openai_base, "api_key": KEY}
    with host(framework, endpoint, tmp_path) as ml:
        answer = ml.call(name, framework.configure, mine, session="s")
        kill_workers(ml, name)
        assert model_of(ml, framework, "s") == "local-mine"
        assert answer["settings"]["api_key"] == "***"
    assert KEY.encode() not in b"".join(path.read_bytes() for path in tmp_path.iterdir())

    with host(framework, endpoint, tmp_path) as ml:
        with pytest.raises(SessionError) as caught:
            model_of(ml, framework, "s")
        assert caught.value.code == "config_error"
        ml.call(name, framework.configure, mine, session="s")
        assert model_of(ml, framework, "s") == "local-mine"
