"""The typed clients for DSPy.

    dspy = ml.get_adapter("dspy")
    dspy.configure_lm("openai/gpt-4o-mini", api_key_env="OPENAI_API_KEY", session="chat-7")
    program = dspy.create_program("question -> answer", module="chain_of_thought")
    print(program.predict(question="What is 17 * 23?").answer)
    program.optimize(trainset, metric="exact_match")
    program.save("program.json")

`AsyncDSPyAdapter` (in `dspy_async`) has the same methods, awaitable. Neither imports DSPy: it lives in the workers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from manybridge.adapters.base import Caller, GenericAdapter
from manybridge.adapters.dspy_types import (
    RESOURCE_TYPE,
    Evaluation,
    ModuleName,
    Optimized,
    OptimizerName,
    Prediction,
    ProgramConfig,
    Progress,
    optimize_args,
    program_config,
    read_program,
    report_progress,
    write_program,
)
from manybridge.adapters.handles import Handle, split_options


class DSPyAdapter(GenericAdapter):
    """DSPy on a blocking host. Every method takes `timeout` (seconds) and `session` as further keywords."""

    def __init__(self, ml: Caller, bridge: str = "dspy") -> None:
        super().__init__(ml, bridge, "dspy")

    def configure_lm(self, model: str, **settings: Any) -> dict[str, Any]:
        """Set the model of a session (`session=...`), or of the worker that answers where there is none.

        Args:
            model: provider/model.
            settings: temperature, max_tokens, api_key_env, api_key, api_base, ... and the call's own options.
        """
        lm, options = split_options(settings)
        configured: dict[str, Any] = self.call("configure_lm", {"model": model, **lm}, **options)
        return configured

    def create_program(
        self, signature: str | dict[str, Any] = "", module: ModuleName = "predict", **settings: Any
    ) -> Program:
        """Make a program.

        Args:
            signature: "question -> answer", or an object with typed fields.
            module: predict, chain_of_thought, react, program_of_thought, or a team's own "package.module:Class".
            settings: the other keys of `ProgramConfig`, and the call's own options.
        """
        rest, options = split_options(settings)
        return self._create(program_config(signature, module=module, **rest), options)

    def load_program(self, path: str | Path, **options: Any) -> Program:
        """Make a program of a file that `Program.save` wrote."""
        return self._create(read_program(path), options)

    def _create(self, config: ProgramConfig, options: dict[str, Any]) -> Program:
        return Program(self, self.create(RESOURCE_TYPE, dict(config), **options).id, config, options)

    def list_programs(self, **options: Any) -> list[Any]:
        """List the programs of this bridge as resources."""
        return self.list(RESOURCE_TYPE, **options)

    def predict(self, signature: str | dict[str, Any], inputs: dict[str, Any], **settings: Any) -> Prediction:
        """Make a program, run it once and forget it."""
        rest, options = split_options(settings)
        return Prediction.read(self.call("predict", {"signature": signature, "inputs": inputs, **rest}, **options))

    def usage(self, **options: Any) -> dict[str, Any]:
        """Tokens and requests of the worker that answers, and of the session on it."""
        used: dict[str, Any] = self.call("usage", **options)
        return used


class Program(Handle):
    """A DSPy program on a host. Holds its recipe, learned state included, so that it can be made again anywhere.

    Attributes:
        id: of the resource; another one after `optimize` or `load`.
        config: the recipe.
    """

    config: ProgramConfig

    def __repr__(self) -> str:
        return f"Program({self.id!r}, {self.config.get('signature')!r})"

    def predict(self, *, timeout: float | None = None, **inputs: Any) -> Prediction:
        """Run the program, one keyword for each input field.

        Args:
            timeout: seconds.
            inputs: values; a field that is called `timeout` goes through `adapter.execute`.
        """
        return Prediction.read(self._execute(inputs, timeout))

    def stream(self, *, timeout: float | None = None, **inputs: Any) -> Iterator[Any]:
        """Run the program and yield its events; chunks are `{"field", "chunk"}`. `.result` follows the last."""
        return self._stream(inputs, timeout)

    def optimize(
        self,
        trainset: list[dict[str, Any]],
        optimizer: OptimizerName = "BootstrapFewShot",
        *,
        metric: str = "exact_match",
        valset: list[dict[str, Any]] | None = None,
        on_progress: Progress | None = None,
        timeout: float = math.inf,
        **settings: Any,
    ) -> Optimized:
        """Improve the program. Runs on any worker; the result is a new resource in the place of the old one.

        Args:
            trainset: one object per example, with inputs and labels.
            optimizer: see `dspy:list_modules`.
            metric: exact_match, contains, word_overlap, or "package.module:function" of an allowed module.
            valset: examples to score it on, before and after.
            on_progress: called with (current, total or None, message) while it runs.
            timeout: seconds; by default it may take as long as it takes.
            settings: metric_field, input_fields, num_threads, settings (keywords of DSPy's optimiser).
        """
        args = optimize_args(self.config, trainset, optimizer=optimizer, metric=metric, valset=valset, **settings)
        report = Optimized.read(self._run_long("optimize", args, on_progress, timeout))
        self.load(report.state)
        return report

    def evaluate(
        self,
        devset: list[dict[str, Any]],
        *,
        on_progress: Progress | None = None,
        timeout: float = math.inf,
        **settings: Any,
    ) -> Evaluation:
        """Score the program on examples; `settings` as for `optimize`."""
        args = {"program": dict(self.config), "devset": devset, **settings}
        return Evaluation(**self._run_long("evaluate", args, on_progress, timeout))

    def _run_long(self, operation: str, args: dict[str, Any], on_progress: Progress | None, timeout: float) -> Any:
        options = self._call_options(timeout)
        if on_progress is None:
            return self.adapter.call(operation, args, **options)
        stream = self.adapter.stream(operation, args, **options)
        for event in stream:
            report_progress(event, on_progress)
        return stream.result  # type: ignore[attr-defined]  # the host's streams have it

    def state(self) -> dict[str, Any]:
        """What the program has learned, as JSON."""
        found = self.adapter.call("save_state", {"program": dict(self.config)}, **self._options)
        state: dict[str, Any] = found["state"]
        return state

    def load(self, state: dict[str, Any]) -> None:
        """Put a state in: makes a new resource of recipe and state, then deletes the old one."""
        config: ProgramConfig = {**self.config, "state": state}
        old, self.id = self.id, self.adapter.create(RESOURCE_TYPE, dict(config), **self._options).id
        self.config = config
        self.adapter.delete(old, **self._options)

    def save(self, path: str | Path) -> None:
        """Write the recipe and what was learned to a JSON file. No key is in it."""
        write_program(path, {**self.config, "state": self.state()})
