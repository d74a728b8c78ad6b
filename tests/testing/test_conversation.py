"""Scripted conversations: what fits is played, what does not is told, with both sides."""

from __future__ import annotations

import re
import time
from math import inf

import pytest

from manybridge.errors import ManybridgeError
from manybridge.testing import ANYTHING, AsyncMockMLBridge, Conversation, MockMLBridge
from tests.support import MS


@pytest.fixture
def script() -> Conversation:
    """An empty one."""
    return Conversation()


def test_replies_come_in_the_order_of_the_script(script: Conversation) -> None:
    """The same command may be answered otherwise the next time."""
    script.expect("llm:complete", {"prompt": "hello"}).replies({"text": "hi"})
    script.expect("llm:complete").replies(lambda prompt: {"text": prompt[::-1]})

    with MockMLBridge(script) as ml:
        assert ml.call("llm", "complete", {"prompt": "hello"}) == {"text": "hi"}
        assert ml.call("llm", "complete", {"prompt": "abc"}) == {"text": "cba"}


def test_errors_delays_streams_and_progress_are_played(script: Conversation) -> None:
    """In the order in which they were written."""
    script.expect("llm:complete").fails("rate_limited", "slow down", retry_after=2)
    script.expect("llm:tokens").streams("a").reports(1, 2, "half").delays(0.05).streams("b").replies({"n": 2})

    with MockMLBridge(script) as ml:
        with pytest.raises(ManybridgeError) as caught:
            ml.call("llm", "complete")
        assert (caught.value.code, caught.value.details) == ("rate_limited", {"retry_after": 2})
        began = time.monotonic()
        stream = ml.stream("llm", "tokens")
        assert [(event.event, event.data) for event in stream] == [
            ("chunk", "a"),
            ("progress", {"current": 1, "total": 2, "message": "half"}),
            ("chunk", "b"),
        ]
        assert stream.result == {"n": 2}
        assert time.monotonic() - began >= 0.05


def test_a_delayed_reply_can_be_cancelled(script: Conversation) -> None:
    """It looks at its flag while it waits."""
    script.expect("llm:complete").delays(60)

    with MockMLBridge(script) as ml, pytest.raises(ManybridgeError) as caught:
        ml.call("llm", "complete", timeout=300 * MS)
    assert caught.value.details["stopped_by"] == "cooperative"


def test_a_group_may_come_in_any_order_but_before_what_follows(script: Conversation) -> None:
    """The order inside does not matter, the group's place does."""
    with script.any_order():
        script.expect("a:one").replies(1)
        script.expect("b:two").replies(2)
    script.expect("a:three").replies(3)

    with MockMLBridge(script) as ml:
        assert [ml.call(name, command) for name, command in (("b", "two"), ("a", "one"), ("a", "three"))] == [2, 1, 3]


def test_an_expectation_may_hold_for_several_calls(script: Conversation) -> None:
    """So many, or any number until the next one came."""
    script.expect("llm:ping").times(2).replies("pong")
    script.expect("llm:poll").times(inf).replies("wait")
    script.expect("llm:done").replies("bye")

    with MockMLBridge(script) as ml:
        said = [ml.call("llm", command) for command in ("ping", "ping", "poll", "poll", "poll", "done")]
    assert said == ["pong", "pong", "wait", "wait", "wait", "bye"]


def test_resources_can_be_scripted(script: Conversation) -> None:
    """Making one needs no expectation unless there is one; executing it does."""
    script.expect_create("dspy", "program", {"signature": "q -> a"})
    script.expect_execute("dspy", "program", {"q": ANYTHING}).replies({"a": "42"})

    with MockMLBridge(script) as ml:
        program = ml.create_resource("dspy", "program", {"signature": "q -> a"})
        assert ml.execute_resource("dspy", program.id, {"q": "life"}) == {"a": "42"}


def test_a_call_that_does_not_fit_is_told_with_both_sides(script: Conversation) -> None:
    """What came, what was expected, where the script says so; the application gets an error too."""
    script.expect("llm:complete", {"prompt": "hello"})

    with pytest.raises(AssertionError) as caught, MockMLBridge(script) as ml, pytest.raises(ManybridgeError):
        ml.call("llm", "complete", {"prompt": "good bye"})

    assert re.search(
        r'call 1 was llm:complete with {"prompt": "good bye"}; '
        r'expected: llm:complete with {"prompt": "hello"} \(test_conversation\.py:\d+\)',
        str(caught.value),
    )


def test_the_script_explains_an_error_of_the_application(script: Conversation) -> None:
    """Not the echo in the application but its cause is what the test fails with."""
    script.expect("llm:complete")

    with (
        pytest.raises(AssertionError, match="llm:embed, a command that is not in the script"),
        MockMLBridge(script) as ml,
    ):
        ml.call("llm", "embed")


def test_what_never_came_is_told(script: Conversation) -> None:
    """And how often it is still due."""
    script.expect("llm:complete").times(3)

    with (
        pytest.raises(AssertionError, match=r"never came: llm:complete with any arguments, 2 times"),
        MockMLBridge(script) as ml,
    ):
        ml.call("llm", "complete")


def test_a_conversation_can_start_its_own_host() -> None:
    """As the fixture `manybridge_mock` does."""
    with Conversation() as script:
        script.expect("llm:complete").replies("hi")
        assert script.start().call("llm", "complete") == "hi"


async def test_asynchronous_applications_talk_too(script: Conversation) -> None:
    """With the same check at the end."""
    script.expect("llm:complete").replies("hi")

    async with AsyncMockMLBridge(script) as ml:
        assert await ml.call("llm", "complete") == "hi"
    script.expect("llm:more")
    talk = AsyncMockMLBridge(script)
    await talk.start()
    with pytest.raises(AssertionError, match="never came"):
        await talk.__aexit__(None, None, None)


def test_a_command_without_its_bridge_is_refused(script: Conversation) -> None:
    """The namespace says which bridge plays it."""
    with pytest.raises(ValueError, match='expected "bridge:operation"'):
        script.expect("complete")
