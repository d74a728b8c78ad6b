"""What came from a provider with a good status and is no answer.

DSPy reads some of it as an empty answer, and asks once more for one in another form; over the rest it stumbles.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from json import JSONDecodeError
from traceback import walk_tb
from typing import Any, Final

_ENDS: Final = frozenset({"finish_reason", "finishReason", "stop_reason", "stopReason", "done_reason", "status"})
"""Where providers say why an answer ended."""

_READS_AN_ANSWER: Final = re.compile(r"parse_response|parse_stream|response_from|_usage_|stream_events")
"""In the names of the functions with which DSPy takes an answer apart. Those that make a request have others."""


class UnreadableAnswerError(Exception):
    """What a provider sent is no answer.

    No `ValueError`: an agent of DSPy takes one for the end of its steps, and goes on.

    Attributes:
        model: which was asked.
        kind: name of the class of what DSPy made of it; this one's if it took no offence.
    """

    def __init__(self, message: str, model: str, kind: str = "UnreadableAnswerError") -> None:
        super().__init__(message)
        self.model = model
        self.kind = kind


@cache
def lm_class(dspy: Any) -> Any:
    """`dspy.LM`, which refuses what is no answer.

    A history entry is DSPy's public place for a whole answer. Ours looks at it and keeps none.
    """

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        with dspy.context(disable_history=False), _told_apart(self.model):
            return dspy.LM.__call__(self, *args, **kwargs)

    async def acall(self: Any, *args: Any, **kwargs: Any) -> Any:
        with dspy.context(disable_history=False), _told_apart(self.model):
            return await dspy.LM.acall(self, *args, **kwargs)

    def update_history(self: Any, entry: dict[str, Any]) -> None:
        check_answer(entry, self.model)

    own: dict[str, Any] = {"__call__": call, "acall": acall, "update_history": update_history}
    # A state that names its model's class names one that every DSPy can load.
    return type("LM", (dspy.LM,), {**own, "__module__": dspy.LM.__module__})


@contextmanager
def _told_apart(model: str) -> Iterator[None]:
    """Tell apart, here where the cause is still known, whether what came back or what was to be sent was wrong."""
    try:
        yield
    except Exception as error:
        cause = error.__cause__
        if cause is None or type(error).__name__ != "LMUnexpectedError" or not _is_of_an_answer(cause):
            raise
        text = f"What the provider sent is no answer: {error}"
        raise UnreadableAnswerError(text, model, type(cause).__name__) from error


def _is_of_an_answer(cause: BaseException) -> bool:
    if isinstance(cause, JSONDecodeError):
        return True
    if not isinstance(cause, ValueError | TypeError | LookupError | AttributeError):
        return False
    return any(_READS_AN_ANSWER.search(frame.f_code.co_name) for frame, _ in walk_tb(cause.__traceback__))


def check_answer(entry: dict[str, Any], model: str) -> None:
    """Refuse what has no text and no reason for its end.

    An empty answer that says why it ended is one: a model may have used up its `max_tokens` by thinking. So is one that
    has text and does not say it, also at the end of a stream (`[DONE]`): not every server does.

    Args:
        entry: of DSPy's history.

    Raises:
        UnreadableAnswerError: so it is.
    """
    response: Any = entry.get("response")
    if not hasattr(response, "provider_data"):  # of litellm, which reads strictly
        return
    if _says_why(response.provider_data) or any(map(_has_content, entry.get("outputs") or ())):
        return
    text = "What the provider sent is no answer: it has neither content nor a reason for its end."
    raise UnreadableAnswerError(text, model)


def _has_content(output: Any) -> bool:
    return any(output.values()) if isinstance(output, dict) else bool(output)


def _says_why(data: Any) -> bool:
    """Whether a provider's own JSON has a reason for the end, at its top or in the first of its choices."""
    if isinstance(data, list):
        return bool(data) and _says_why(data[0])
    if not isinstance(data, dict):
        return False
    if any(data.get(name) for name in _ENDS):
        return True
    return any(_says_why(data.get(name)) for name in ("choices", "candidates", "response"))
