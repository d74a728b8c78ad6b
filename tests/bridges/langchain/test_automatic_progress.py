"""A team's own bridge uses LangChain and says nothing of progress; its callers see it, and can cancel."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from manybridge import ManybridgeError, MLBridge
from tests.support import PATIENT, eventually, framework_python

pytestmark = pytest.mark.framework

TEAM = """
import itertools

from manybridge.bridge import Bridge, command


class TeamBridge(Bridge):
    name = "team"

    def setup(self, options):
        from langchain_core.language_models import FakeListChatModel
        from langchain_core.prompts import ChatPromptTemplate

        self.chain = ChatPromptTemplate.from_template("{text}") | FakeListChatModel(responses=["yes"])

    @command
    def ask(self, times: int) -> int:
        from langchain_core.runnables import RunnableLambda

        def work(_):
            for number in range(times):
                self.chain.invoke({"text": str(number)})
            return times

        return RunnableLambda(work).invoke(None)

    @command
    def ask_for_ever(self) -> None:
        for number in itertools.count():
            self.chain.invoke({"text": str(number)})
"""


@pytest.fixture(scope="module")
def ml(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MLBridge]:
    """A host with the team's bridge in LangChain's environment."""
    script = tmp_path_factory.mktemp("team") / "team.py"
    script.write_text(TEAM)
    table = {"python_script": str(script), "python": str(framework_python("langchain")), "zygote": "never", **PATIENT}
    with MLBridge({"bridges": {"team": table}}) as ml:
        ml.wait_ready("team")
        yield ml


def test_requests_to_a_model_are_steps_of_the_outermost_run(ml: MLBridge) -> None:
    """The first is reported at once, and the count goes up."""
    stream = ml.stream("team", "team:ask", {"times": 200})
    progress = [event.data for event in stream if event.event == "progress"]
    assert stream.result == 200
    assert progress[0] == {"current": 1, "total": None, "message": "model asked"}
    counts = [each["current"] for each in progress]
    assert counts == sorted(set(counts))


def test_a_cancel_is_noticed_at_the_next_request(ml: MLBridge) -> None:
    """Without a line of the team's."""
    job = ml.submit("team", "team:ask_for_ever")
    eventually(lambda: job.progress is not None)
    job.cancel()
    with pytest.raises(ManybridgeError) as caught:
        job.result()
    assert (caught.value.code, caught.value.details["stopped_by"]) == ("cancelled", "cooperative")
