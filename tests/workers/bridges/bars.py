"""A team's own bridge that knows nothing of progress: bars of tqdm, and evaluations of DSPy."""

from __future__ import annotations

import itertools
import sys
import threading
import time
from typing import Any

from manybridge.bridge import Bridge, Context, command


class Bars(Bridge):
    """One command for each way to use a bar."""

    name = "bars"

    @command
    def plain(self, steps: int = 6, delay: float = 0.06, options: dict[str, Any] = {}) -> dict[str, Any]:  # noqa: B006
        """A loop with a bar."""
        from tqdm.auto import tqdm

        for _ in tqdm(range(steps), desc="walking", **options):
            time.sleep(delay)
        return {"steps": steps}

    @command
    def nested(self) -> dict[str, Any]:
        """A bar in a bar, and one behind them."""
        from tqdm import tqdm, trange

        for _ in trange(3, desc="outer"):
            for _ in tqdm(range(3), desc="inner", leave=False):
                time.sleep(0.02)
        for _ in trange(2, desc="behind"):
            time.sleep(0.06)
        return {}

    @command
    def elsewhere(self) -> dict[str, Any]:
        """A bar on a thread that the handler starts."""
        from tqdm import tqdm

        def work() -> None:
            with tqdm(total=4, desc="beside") as bar:
                for _ in range(4):
                    time.sleep(0.06)
                    bar.update()

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        return {}

    @command
    def both(self, *, ctx: Context) -> dict[str, Any]:
        """A handler that reports by itself, and a bar."""
        from tqdm import tqdm

        ctx.progress(1, 2, "mine")
        for _ in tqdm(range(3)):
            time.sleep(0.06)
        ctx.progress(2, 2, "mine")
        return {}

    @command
    def notebook(self) -> dict[str, Any]:
        """The bar of notebooks, where there is none."""
        from tqdm.notebook import tqdm

        for _ in tqdm(range(3), desc="cell"):
            time.sleep(0.06)
        return {}

    @command
    async def tasks(self) -> dict[str, Any]:
        """The bar of asyncio."""
        import asyncio

        from tqdm.asyncio import tqdm

        for task in tqdm.as_completed([asyncio.sleep(0.06 * n) for n in range(3)], desc="tasks"):
            await task
        return {}

    @command
    def endless(self, slow: bool = False) -> dict[str, Any]:
        """A loop that only a bar can end, and that catches every ordinary exception."""
        from tqdm import tqdm

        for _ in tqdm(itertools.count(), desc="endless"):
            try:
                time.sleep(0.05 if slow else 0)
            except Exception:  # noqa: BLE001  # as careless code does
                continue
        return {}

    @command
    def own_file(self) -> dict[str, Any]:
        """A bar that draws into a file of the handler's choice."""
        import io

        from tqdm import tqdm

        file = io.StringIO()
        for _ in tqdm(range(3), desc="written", file=file):
            time.sleep(0.06)
        return {"drawn": file.getvalue()}

    @command
    def evaluate(self, examples: int = 6, threads: int = 2, bar: bool = False, delay: float = 0.06) -> dict[str, Any]:
        """An evaluation with DSPy."""
        import dspy

        class Slow(dspy.Module):  # type: ignore[misc]  # DSPy has no types here
            def forward(self, x: int) -> Any:
                time.sleep(delay)
                return dspy.Prediction(y=x)

        data = [dspy.Example(x=n, y=n).with_inputs("x") for n in range(examples)]
        evaluate = dspy.Evaluate(
            devset=data, metric=lambda one, two: float(one.y == two.y), num_threads=threads, display_progress=bar
        )
        return {"score": float(evaluate(Slow()).score)}

    @command
    def loaded(self) -> dict[str, Any]:
        """Whether a library was imported for our sake."""
        return {"tqdm": "tqdm" in sys.modules, "dspy": "dspy" in sys.modules}
