"""What a team may have of its own: a metric, a tool, a program."""

from typing import Any

import dspy


def lenient(example: Any, prediction: Any, trace: Any = None) -> float:
    """Score by the first character."""
    return float(str(example.answer)[0] == str(prediction.answer)[0])


def double(number: int) -> int:
    """Double a number."""
    return 2 * number


class Twice(dspy.Module):  # type: ignore[misc]  # DSPy has no types
    """Asks twice; has no signature of its own and no asynchronous form."""

    def __init__(self, prefix: str = "") -> None:
        super().__init__()
        self.prefix = prefix
        self.first = dspy.Predict("question -> answer")
        self.second = dspy.Predict("question, draft -> verdict")

    def forward(self, question: str) -> Any:
        """Answer, then judge the answer."""
        draft = self.first(question=self.prefix + question).answer
        return dspy.Prediction(answer=draft, verdict=self.second(question=question, draft=draft).verdict)
