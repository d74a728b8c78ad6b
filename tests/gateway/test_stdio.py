"""The host behind an Erlang port: both versions of the wire, streams, tools, cancel, ends."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from manybridge.store.opening import open_store
from tests.gateway.conftest import PROGRAM, HostStarter, StdioHost
from tests.support import eventually, frame, frame_message, process_is_running, request, split_frames


class TestVersion1:
    def test_a_command_without_namespace_goes_to_the_default_bridge(self, start: HostStarter) -> None:
        """With the reply that version 1 knows, and nothing else."""
        host = start()
        reply = host.call("echo", {"a": 1})

        assert (reply["success"], reply["result"]) == (True, {"a": 1})
        assert set(reply) == {"id", "success", "result", "timestamp"}

    def test_an_error_is_a_text(self, start: HostStarter) -> None:
        """No error_info for a client that does not know it."""
        reply = start().call("nope")

        assert (reply["success"], reply["error"]) == (False, "Unknown command: nope")
        assert "error_info" not in reply

    def test_the_client_talks_to_one_worker_only(self, start: HostStarter) -> None:
        """It believes that it talks to one process, and what it keeps there must be there."""
        host = start(pool_size=3)
        pids = {host.call("pid")["result"]["pid"] for _ in range(10)}

        assert len(pids) == 1

    def test_requests_written_at_once_are_answered_in_order(self, start: HostStarter) -> None:
        """One after another."""
        host = start(pool_size=3)
        ids = [host.send("sleep", {"seconds": 0.02 * (3 - n)}) for n in range(3)]

        assert [host.read()["id"] for _ in ids] == ids

    def test_it_is_counted_as_deprecated(self, start: HostStarter) -> None:
        """So that an operator sees who still uses it."""
        host = start()
        host.call("echo")
        stats = host.call("common:get_stats")["result"]

        assert stats["bridges"]["mock"]["deprecated_calls"] == 1

    def test_shutdown_ends_the_host(self, start: HostStarter) -> None:
        """After its reply."""
        host = start()
        assert host.call("shutdown")["result"]["status"] == "shutting_down"

        assert host.process.wait(10) == 0


class TestVersion2:
    def test_hello_names_the_bridges(self, start: HostStarter) -> None:
        """And what the host understands."""
        result = start().call("common:hello", {"protocol": 2})["result"]

        assert (result["protocol"], result["codec"], result["bridge"]) == (2, "json", "mock")
        assert set(result["bridges"]) == {"mock", "other"}
        assert result["worker"]["id"] == "host"

    def test_a_version_that_does_not_exist_is_refused(self, start: HostStarter) -> None:
        """unsupported_version."""
        reply = start().call("common:hello", {"protocol": 0})

        assert reply["error_info"]["code"] == "unsupported_version"

    def test_the_namespace_chooses_the_bridge(self, start: HostStarter) -> None:
        """By its registered name; an unknown one is named."""
        host = start()

        assert host.call("other:echo", {"a": 1})["result"] == {"a": 1}
        assert host.call("nothing:echo")["error_info"]["code"] == "unknown_bridge"

    def test_common_commands_name_their_bridge(self, start: HostStarter) -> None:
        """args.bridge, or the default."""
        host = start()
        made = host.call("common:create_resource", {"bridge": "other", "type": "echo", "config": {"k": 1}})["result"]

        assert made["bridge"] == "other"
        assert host.call("common:get_resource", {"id": made["id"]})["error_info"]["code"] == "resource_not_found"
        assert host.call("common:execute_resource", {"bridge": "other", "id": made["id"]})["success"]
        assert "mock:echo" in str(host.call("common:capabilities")["result"]["commands"])

    def test_the_host_answers_for_itself(self, start: HostStarter) -> None:
        """ping, health and stats without a bridge."""
        host = start()
        ping = host.call("common:ping")["result"]
        worker = host.call("common:ping", {"bridge": "mock"})["result"]

        assert (ping["worker_id"], ping["pid"]) == ("host", host.process.pid)
        assert worker["pid"] != host.process.pid
        assert set(host.call("common:health")["result"]["bridges"]) == {"mock", "other"}

    def test_events_come_before_the_reply(self, start: HostStarter) -> None:
        """Numbered from 0."""
        host = start()
        host.send("mock:count", {"n": 2}, stream=True)
        first, second, reply = host.read(), host.read(), host.read()

        assert [(each["event"], each["seq"], each["data"]) for each in (first, second)] == [
            ("chunk", 0, 0),
            ("chunk", 1, 1),
        ]
        assert reply["result"] == {"count": 2}

    def test_requests_run_at_the_same_time(self, start: HostStarter) -> None:
        """A short one overtakes a long one."""
        host = start(pool_size=2)
        host.call("common:ping", {"bridge": "mock"})
        long = host.send("mock:sleep", {"seconds": 2})
        short = host.send("other:echo")

        assert [host.read()["id"], host.read()["id"]] == [short, long]

    def test_cancel_stops_a_call_and_its_error_says_how(self, start: HostStarter) -> None:
        """stopped_by."""
        host = start()
        host.call("mock:echo")
        id = host.send("mock:sleep", {"seconds": 30})
        eventually(lambda: host.call("common:health")["result"]["bridges"]["mock"]["running"] == 1)
        assert host.call("common:cancel", {"id": id})["result"] == {"id": id, "state": "cancelling"}
        reply = host.read()

        assert (reply["id"], reply["error_info"]["code"]) == (id, "cancelled")
        assert reply["error_info"]["details"]["stopped_by"] == "cooperative"
        assert host.call("common:cancel", {"id": 4711})["result"]["state"] == "unknown"

    def test_a_deadline_is_kept(self, start: HostStarter) -> None:
        """deadline_ms is the time that remains."""
        reply = start().call("mock:sleep", {"seconds": 30}, deadline_ms=200)

        assert reply["error_info"]["code"] == "timeout"

    def test_a_tool_of_the_client_is_relayed(self, start: HostStarter) -> None:
        """The handler's call comes out as an event, the answer goes in as common:call_result."""
        host = start()
        id = host.send("mock:call_host", {"tool": "add", "args": {"a": 1}}, stream=True)
        event = host.read()
        answered = host.call("common:call_result", {"call_id": event["data"]["call_id"], "result": 42})
        reply = host.read()

        assert (event["event"], event["data"]["tool"], event["data"]["args"]) == ("call", "add", {"a": 1})
        assert answered["result"] == {}
        assert (reply["id"], reply["result"]["result"]) == (id, 42)

    def test_a_tool_that_fails_fails_the_handlers_call(self, start: HostStarter) -> None:
        """With the client's code and text."""
        host = start()
        host.send("mock:call_host", {"tool": "add", "args": {}}, stream=True)
        call_id = host.read()["data"]["call_id"]
        host.call("common:call_result", {"call_id": call_id, "error": {"code": "rate_limited", "message": "slow down"}})
        reply = host.read()

        assert (reply["error_info"]["code"], reply["error"]) == ("rate_limited", "slow down")

    def test_a_batch_may_name_several_bridges(self, start: HostStarter) -> None:
        """Results and errors in order."""
        calls = [{"command": "mock:echo", "args": {"n": 1}}, {"command": "other:pid"}, {"command": "mock:nope"}]
        first, second, third = start().call("common:batch", {"calls": calls})["result"]["results"]

        assert (first["result"], second["success"]) == ({"n": 1}, True)
        assert third["error_info"]["code"] == "unknown_command"

    def test_one_key_is_one_execution(self, start: HostStarter) -> None:
        """idempotency_key on the wire."""
        host = start()
        for _ in range(2):
            host.call("mock:echo", {"a": 1}, idempotency_key="k")

        assert host.call("common:get_stats")["result"]["bridges"]["mock"]["calls"] == 1

    @pytest.mark.parametrize("other", [{"args": {"a": 2}}, {"session_id": "s"}, {"command": "mock:aecho"}])
    def test_a_key_that_comes_again_for_another_call_is_a_conflict(
        self, other: dict[str, Any], start: HostStarter
    ) -> None:
        """Other arguments, another session, another command; the first call's result stays what it is."""
        host = start()
        call: dict[str, Any] = {"command": "mock:echo", "args": {"a": 1}, "idempotency_key": "k"}
        assert host.call(**call)["result"] == {"a": 1}
        reused = host.call(**{**call, **other})

        assert (reused["error_info"]["code"], reused["error_info"]["retryable"]) == ("conflict", False)
        assert "very same call" in reused["error"]
        assert host.call(**call)["result"] == {"a": 1}

    def test_a_key_of_a_batch_is_each_items_own(self, start: HostStarter) -> None:
        """A batch is sent again as a whole: what was done is not done again, another batch is a conflict."""
        host = start()
        items = [{"command": "mock:echo", "args": {"n": n}} for n in range(2)]
        for _ in range(2):
            results = host.call("common:batch", {"calls": items}, idempotency_key="k")["result"]["results"]
            assert [each.get("result") for each in results] == [{"n": 0}, {"n": 1}]
        assert host.call("mock:calls")["result"]["counts"]["echo"] == 2

        reused = host.call("common:batch", {"calls": items[::-1]}, idempotency_key="k")["result"]["results"]
        assert [each["error_info"]["code"] for each in reused] == ["conflict"] * 2


class TestBadInput:
    @pytest.mark.parametrize(
        ("raw", "code"),
        [
            (frame(b"garbage"), "invalid_json"),
            (frame(b""), "invalid_frame"),
            (frame(b"[]"), "invalid_json"),
            (frame_message({"command": "mock:echo"}), "invalid_request"),
            (frame_message({"id": 1}), "invalid_request"),
            (frame_message({"id": 1, "command": "mock:echo", "args": 3}), "invalid_request"),
            (frame_message({"id": 1, "command": "mock:echo", "stream": "yes"}), "invalid_request"),
        ],
    )
    def test_what_is_no_request_is_answered(self, raw: bytes, code: str, start: HostStarter) -> None:
        """And the next request is served."""
        host = start()
        host.call("common:hello", {"protocol": 2})
        host.input.write(raw)

        assert host.read()["error_info"]["code"] == code
        assert host.call("mock:echo", {"a": 1})["result"] == {"a": 1}

    def test_an_id_that_is_open_can_not_be_used_again(self, start: HostStarter) -> None:
        """invalid_request."""
        host = start()
        host.call("common:hello", {"protocol": 2})
        host.input.write(request(7, "mock:sleep", {"seconds": 0.3}) + request(7, "mock:echo"))

        assert host.read()["error_info"]["code"] == "invalid_request"
        assert host.read()["result"] == {"slept": 0.3}


class TestEnds:
    def test_the_end_of_the_input_ends_the_host_after_its_replies(self, start: HostStarter) -> None:
        """A shell's pipe gets its answer."""
        host = start()
        host.send("mock:sleep", {"seconds": 0.3})
        host.input.close()

        assert host.read()["result"] == {"slept": 0.3}
        assert host.process.wait(10) == 0

    def test_a_client_that_is_gone_ends_the_host_and_its_work(self, start: HostStarter) -> None:
        """Nobody will read the reply."""
        host = start()
        pid = host.call("mock:pid")["result"]["pid"]
        host.send("mock:sleep", {"seconds": 600})
        assert host.process.stdout is not None
        host.process.stdout.close()
        host.input.close()

        assert host.process.wait(10) == 0
        eventually(lambda: not process_is_running(pid))

    def test_sigterm_ends_it_cleanly(self, start: HostStarter) -> None:
        """As a service manager does."""
        host = start()
        pid = host.call("mock:pid")["result"]["pid"]
        host.process.send_signal(signal.SIGTERM)

        assert host.process.wait(10) == 0
        eventually(lambda: not process_is_running(pid))

    def test_no_print_can_break_a_frame(self, start: HostStarter) -> None:
        """The descriptors were taken before."""
        host = start()
        host.call("mock:print", {"bytes": 1000})

        assert host.call("mock:echo", {"a": 1})["result"] == {"a": 1}

    def test_regular_files_will_do(self, tmp_path: Path) -> None:
        """`< requests > replies`."""
        (tmp_path / "in").write_bytes(request(1, "mock:echo", {"a": 1}) + request(2, "mock:echo", {"a": 2}))
        config = '{"bridges": {"mock": {"zygote": "never"}}}'
        with (tmp_path / "in").open("rb") as source, (tmp_path / "out").open("wb") as target:
            done = subprocess.run([sys.executable, "-c", PROGRAM, config], stdin=source, stdout=target, check=False)
        messages, rest = split_frames((tmp_path / "out").read_bytes())

        assert (done.returncode, rest) == (0, b"")
        assert sorted(each["result"]["a"] for each in messages) == [1, 2]

    def test_no_input_at_all_ends_it(self) -> None:
        """/dev/null, as service managers give it, can't be waited for: it has ended."""
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, "{}"], stdin=subprocess.DEVNULL, capture_output=True, check=False
        )

        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")

    def test_a_socket_will_do(self) -> None:
        """Both directions on one descriptor."""
        import socket

        ours, theirs = socket.socketpair()
        config = '{"bridges": {"mock": {"zygote": "never"}}}'
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, config], stdin=theirs.fileno(), stdout=theirs.fileno()
        )
        theirs.close()
        ours.sendall(request(1, "mock:echo", {"a": 1}))
        ours.settimeout(10)
        messages, _ = split_frames(ours.recv(65536))
        ours.close()

        assert messages[0]["result"] == {"a": 1}
        assert process.wait(10) == 0

    def test_a_wrong_configuration_is_an_error_before_any_frame(self) -> None:
        """On standard error; nothing on standard output."""
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, '{"bridges": {"mock": {"pool_sice": 1}}}'],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            env=dict(os.environ),
        )

        assert done.returncode == 1
        assert done.stdout == b""
        assert b"pool_size" in done.stderr


class TestSessions:
    """What a client keeps between its calls: its worker (version 1), and the settings of its sessions (version 2)."""

    TUNED = Path(__file__).parents[1] / "workers" / "bridges" / "tuned.py"

    def config(self, folder: Path) -> dict[str, Any]:
        """Two workers and a store."""
        tuned = {"python_script": str(self.TUNED), "zygote": "never", "pool_size": 2, "max_concurrency": 1}
        return {"bridges": {"tuned": tuned}, "store": {"url": f"sqlite:///{folder}/store.db"}}

    def test_a_version_1_client_leaves_no_session_behind(self, tmp_path: Path) -> None:
        """The one that keeps it with its worker is nobody else's; a configuring command means that worker alone."""
        host = StdioHost(self.config(tmp_path))
        try:
            assert host.call("configure", {"level": 1})["result"]["settings"] == {"level": 1}
            assert host.call("tell")["result"]["settings"] == {}
        finally:
            host.stop()
        assert asyncio.run(_sessions(tmp_path)) == []

    def test_a_session_that_a_client_configures_is_there_for_the_next_client(self, tmp_path: Path) -> None:
        """On each worker, in another host process."""
        for level in ({"level": 1}, {}):
            host = StdioHost(self.config(tmp_path))
            try:
                if level:
                    host.call("tuned:configure", level, session_id="s")
                for _ in range(3):
                    told = host.call("tuned:tell", session_id="s")["result"]
                    assert told["settings"] == {"level": 1}
            finally:
                host.stop()
        assert asyncio.run(_sessions(tmp_path)) == ["s"]


async def _sessions(folder: Path) -> list[str]:
    store = open_store(f"sqlite:///{folder}/store.db")
    try:
        return [each.id for each in await store.list_sessions()]
    finally:
        await store.close()
