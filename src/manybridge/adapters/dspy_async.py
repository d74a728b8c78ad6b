"""`DSPyAdapter` and its `Program` for `AsyncMLBridge`: the same methods, awaitable."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from manybridge.adapters.base import AsyncCaller, AsyncGenericAdapter
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
from manybridge.adapters.handles import AsyncHandle, split_options


class AsyncDSPyAdapter(AsyncGenericAdapter):
    """`DSPyAdapter` for `AsyncMLBridge`: the same methods, awaitable."""

    def __init__(self, ml: AsyncCaller, bridge: str = "dspy") -> None:
        super().__init__(ml, bridge, "dspy")

    async def configure_lm(self, model: str, **settings: Any) -> dict[str, Any]:
        """See `DSPyAdapter.configure_lm`."""
        lm, options = split_options(settings)
        configured: dict[str, Any] = await self.call("configure_lm", {"model": model, **lm}, **options)
        return configured

    async def create_program(
        self, signature: str | dict[str, Any] = "", module: ModuleName = "predict", **settings: Any
    ) -> AsyncProgram:
        """See `DSPyAdapter.create_program`."""
        rest, options = split_options(settings)
        return await self._create(program_config(signature, module=module, **rest), options)

    async def load_program(self, path: str | Path, **options: Any) -> AsyncProgram:
        """See `DSPyAdapter.load_program`."""
        return await self._create(await asyncio.to_thread(read_program, path), options)

    async def _create(self, config: ProgramConfig, options: dict[str, Any]) -> AsyncProgram:
        made = await self.create(RESOURCE_TYPE, dict(config), **options)
        return AsyncProgram(self, made.id, config, options)

    async def list_programs(self, **options: Any) -> list[Any]:
        """See `DSPyAdapter.list_programs`."""
        return await self.list(RESOURCE_TYPE, **options)

    async def predict(self, signature: str | dict[str, Any], inputs: dict[str, Any], **settings: Any) -> Prediction:
        """See `DSPyAdapter.predict`."""
        rest, options = split_options(settings)
        args = {"signature": signature, "inputs": inputs, **rest}
        return Prediction.read(await self.call("predict", args, **options))

    async def usage(self, **options: Any) -> dict[str, Any]:
        """See `DSPyAdapter.usage`."""
        used: dict[str, Any] = await self.call("usage", **options)
        return used


class AsyncProgram(AsyncHandle):
    """`Program` for `AsyncMLBridge`: the same methods, awaitable."""

    config: ProgramConfig

    def __repr__(self) -> str:
        return f"AsyncProgram({self.id!r}, {self.config.get('signature')!r})"

    async def predict(self, *, timeout: float | None = None, **inputs: Any) -> Prediction:
        """See `Program.predict`."""
        return Prediction.read(await self._execute(inputs, timeout))

    def stream(self, *, timeout: float | None = None, **inputs: Any) -> AsyncIterator[Any]:
        """See `Program.stream`."""
        return self._stream(inputs, timeout)

    async def optimize(
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
        """See `Program.optimize`."""
        args = optimize_args(self.config, trainset, optimizer=optimizer, metric=metric, valset=valset, **settings)
        report = Optimized.read(await self._run_long("optimize", args, on_progress, timeout))
        await self.load(report.state)
        return report

    async def evaluate(
        self,
        devset: list[dict[str, Any]],
        *,
        on_progress: Progress | None = None,
        timeout: float = math.inf,
        **settings: Any,
    ) -> Evaluation:
        """See `Program.evaluate`."""
        args = {"program": dict(self.config), "devset": devset, **settings}
        return Evaluation(**await self._run_long("evaluate", args, on_progress, timeout))

    async def _run_long(
        self, operation: str, args: dict[str, Any], on_progress: Progress | None, timeout: float
    ) -> Any:
        options = self._call_options(timeout)
        if on_progress is None:
            return await self.adapter.call(operation, args, **options)
        stream = self.adapter.stream(operation, args, **options)
        async for event in stream:
            report_progress(event, on_progress)
        return stream.result  # type: ignore[attr-defined]  # the host's streams have it

    async def state(self) -> dict[str, Any]:
        """See `Program.state`."""
        found = await self.adapter.call("save_state", {"program": dict(self.config)}, **self._options)
        state: dict[str, Any] = found["state"]
        return state

    async def load(self, state: dict[str, Any]) -> None:
        """See `Program.load`."""
        config: ProgramConfig = {**self.config, "state": state}
        made = await self.adapter.create(RESOURCE_TYPE, dict(config), **self._options)
        old, self.id, self.config = self.id, made.id, config
        await self.adapter.delete(old, **self._options)

    async def save(self, path: str | Path) -> None:
        """See `Program.save`."""
        config: ProgramConfig = {**self.config, "state": await self.state()}
        await asyncio.to_thread(write_program, path, config)
