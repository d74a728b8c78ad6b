"""Optimisers and evaluation, with progress and cancel, neither of which DSPy has.

Progress counts metric calls, because that is what every optimiser does all day. Cancel comes from the same place:
`ctx.check()` raises a `BaseException`, which passes DSPy's error counting; an ordinary exception would be swallowed.
"""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from manybridge.bridge import BridgeError, Context
from manybridge.bridges.dspy.errors import Translation
from manybridge.bridges.dspy.execution import settings_of
from manybridge.bridges.dspy.metrics import Metric
from manybridge.bridges.dspy.programs import Program
from manybridge.bridges.dspy.values import read_prediction, to_json
from manybridge.protocol.errors import ErrorCode

OPTIMIZERS: Final[dict[str, str]] = {
    "LabeledFewShot": "puts labelled examples into the prompt; asks no model",
    "BootstrapFewShot": "runs the program on the examples and keeps what the metric accepts as demonstrations",
    "BootstrapFewShotWithRandomSearch": "tries several such sets and keeps the best",
    "MIPROv2": "searches instructions and demonstrations (needs the package optuna)",
}
MAX_RESULTS: Final = 1000
"""Rows of an evaluation that are sent back; the score counts all."""


class Counted:
    """A metric that counts its calls, reports progress and stops when the call is cancelled. Thread-safe."""

    def __init__(self, metric: Metric, ctx: Context, message: str, total: int | None = None) -> None:
        self.metric = metric
        self.ctx = ctx
        self.message = message
        self.total = total
        self.calls = 0
        self.sum = 0.0
        self._lock = threading.Lock()

    def __call__(self, example: Any, prediction: Any, trace: Any = None) -> float:
        """Score one prediction."""
        self.ctx.check()
        score = float(self.metric(example, prediction, trace))
        with self._lock:
            self.calls += 1
            self.sum += score
            calls, mean = self.calls, self.sum / self.calls
        # An estimate that was too low must not show 120%.
        total = None if self.total is None or calls > self.total else self.total
        self.ctx.progress(calls, total, f"{self.message}, mean score {mean:.2f}")
        return score


class Task(NamedTuple):
    """What to optimise or evaluate, and with what."""

    program: Program
    metric: Metric
    ctx: Context
    num_threads: int


def optimize(task: Task, name: str, trainset: list[Any], valset: list[Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Compile the program with an optimiser and put the result in its place.

    If it fails or is cancelled, the program stays as it was.

    Args:
        valset: examples to score the program on, before and after; empty for no scores.
        settings: keyword arguments of DSPy's optimiser class.
    """
    program, ctx = task.program, task.ctx
    counted = Counted(task.metric, ctx, name, _expected_calls(name, trainset, settings))
    with settings_of(program.call_settings(ctx)) as running, Translation(program.bridge.secrets):
        before = _score(task, valset, "scoring before") if valset else None
        optimizer = _make_optimizer(program.bridge.load(), name, counted, task.num_threads, settings)
        compiled = _compile(optimizer, name, program.module, trainset, valset)
        if not counted.calls:
            _demand_answers(program.bridge.translate_error, running.events.last_error)
        after = _score(task, valset, "scoring after", compiled) if valset else None
        # DSPy marks the result as finished and refuses to optimise it again; that is the caller's decision.
        compiled._compiled = False
        program.module = compiled
        usage = running.usage()
    program.bridge.usage_ledger.add(usage, ctx.session_id)
    demos = sum(len(predictor.demos) for predictor in compiled.predictors())
    result = {
        "optimizer": name,
        "metric_calls": counted.calls,
        "demos": demos,
        "usage": usage,
    }
    return {**result, "score_before": before, "score_after": after} if valset else result


def _expected_calls(name: str, trainset: list[Any], settings: dict[str, Any]) -> int | None:
    if name == "BootstrapFewShot":
        rounds = settings.get("max_rounds", 1)
        if not isinstance(rounds, int):
            raise BridgeError(ErrorCode.INVALID_ARGUMENT, "settings.max_rounds: expected a whole number")
        return len(trainset) * rounds
    return None


def _make_optimizer(dspy: Any, name: str, metric: Counted, num_threads: int, settings: dict[str, Any]) -> Any:
    if name == "MIPROv2" and importlib.util.find_spec("optuna") is None:
        raise BridgeError(
            ErrorCode.MISSING_PACKAGE,
            'MIPROv2 needs the package optuna in the environment of this bridge: pip install "dspy[optuna]"',
            details={"package": "optuna", "install": 'pip install "dspy[optuna]"'},
        )
    own: dict[str, Any] = {} if name == "LabeledFewShot" else {"metric": metric}
    if name in {"BootstrapFewShotWithRandomSearch", "MIPROv2"}:
        own["num_threads"] = num_threads
    try:
        return getattr(dspy, name)(**{**settings, **own})
    except TypeError as error:
        raise BridgeError(ErrorCode.INVALID_ARGUMENT, f"settings: {error}") from error


def _compile(optimizer: Any, name: str, module: Any, trainset: list[Any], valset: list[Any]) -> Any:
    takes_valset = name in {"BootstrapFewShotWithRandomSearch", "MIPROv2"} and valset
    return optimizer.compile(module, trainset=trainset, **({"valset": valset} if takes_valset else {}))


def evaluate(task: Task, devset: list[Any]) -> dict[str, Any]:
    """Run the program on every example and score it.

    Returns:
        `score` in percent, `count`, `results` (inputs, outputs and score of each, and its error if it failed), `usage`.
    """
    program, ctx = task.program, task.ctx
    with settings_of(program.call_settings(ctx)) as running, Translation(program.bridge.secrets):
        evaluated, failures = _evaluate(task, devset, "evaluating", program.module)
        usage = running.usage()
    program.bridge.usage_ledger.add(usage, ctx.session_id)
    results = [_row(one, failures) for one in evaluated.results[:MAX_RESULTS]]
    return {"score": float(evaluated.score), "count": len(devset), "results": results, "usage": usage}


def _row(result: tuple[Any, Any, Any], failures: Failures) -> dict[str, Any]:
    example, prediction, score = result
    row = {
        "inputs": to_json(example.inputs().toDict()),
        "outputs": read_prediction(prediction)["outputs"],
        "score": float(score),
    }
    error = failures.of(example)
    return row if error is None else {**row, "error": {"code": error.code, "message": error.message}}


def _score(task: Task, examples: list[Any], message: str, module: Any = None) -> float:
    return float(_evaluate(task, examples, message, module or task.program.module)[0].score)


def _evaluate(task: Task, examples: list[Any], message: str, module: Any) -> tuple[Any, Failures]:
    failures = Failures(task, module, Counted(task.metric, task.ctx, message, len(examples)))
    evaluator = task.program.bridge.load().Evaluate(
        devset=examples, metric=failures.score, num_threads=task.num_threads, display_progress=False
    )
    try:
        evaluated = evaluator(failures.run)
    except Exception as error:
        # After ten failures DSPy gives up with a text that does not say why. The last one does.
        if failures.last is None or isinstance(error, BridgeError):
            raise
        raise failures.last from error
    if not failures.counted.calls:
        _demand_answers(task.program.bridge.translate_error, failures.last)
    return evaluated, failures


def _demand_answers(translate: Callable[[BaseException], BridgeError | None], last: BaseException | None) -> None:
    """Tell why there was nothing to score.

    DSPy forgives nine failures; of fewer examples it would say that all went well, and with a score of 0 that the
    answers were wrong. Answers that can't be read are that.
    """
    error = translate(last) if isinstance(last, Exception) else None
    if error is not None and error.code is not ErrorCode.OUTPUT_NOT_PARSED:
        raise error


class Failures:
    """Program and metric of an evaluation, as DSPy calls them, and what they failed with: DSPy keeps a score of 0.

    Thread-safe: each entry is written once, by the thread that has its example.
    """

    def __init__(self, task: Task, module: Any, counted: Counted) -> None:
        self.counted = counted
        self.last: BridgeError | None = None
        self._module = module
        self._translate = task.program.bridge.translate_error
        self._by_inputs: dict[frozenset[tuple[str, int]], BridgeError] = {}

    def run(self, **inputs: Any) -> Any:
        """Run the program."""
        with self._noting(inputs):
            return self._module(**inputs)

    def score(self, example: Any, prediction: Any, trace: Any = None) -> float:
        """Score an answer."""
        with self._noting(dict(example.inputs())):
            return self.counted(example, prediction, trace)

    def of(self, example: Any) -> BridgeError | None:
        """What an example failed with."""
        return self._by_inputs.get(_identity(dict(example.inputs())))

    @contextmanager
    def _noting(self, inputs: Mapping[str, Any]) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            translated = self._translate(error)
            if translated is None:
                name = type(error).__name__
                translated = BridgeError(ErrorCode.HANDLER_ERROR, f"{name}: {error}", type=name)
            self.last = self._by_inputs[_identity(inputs)] = translated
            raise


def _identity(inputs: Mapping[str, Any]) -> frozenset[tuple[str, int]]:
    """Which example these inputs are of: DSPy hands the example's own objects on, and may hold equal ones twice."""
    return frozenset((name, id(value)) for name, value in inputs.items())
