"""Fine-tune a small language model on this project's own documents: live progress, a cancel half-way, resume.

    .venv/bin/python examples/finetune/run.py            # about half a minute on two idle cores; nothing is downloaded

The model is made on the spot and knows nothing. It is trained in a worker with an environment of its own; the training
is a job that is cancelled in the middle, keeps a checkpoint of that step, and goes on from there.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.rule import Rule
from rich.text import Text

from manybridge import MLBridge
from manybridge.errors import CallCancelledError

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
DOCS = sorted((REPOSITORY / "docs").rglob("*.md"))
PYTHON = REPOSITORY / ".envs" / "transformers" / "bin" / "python"

RUN = "docs"
PROMPTS = ("The worker", "A cancelled call", "The host", "If the")
BLOCKS = "▁▂▃▄▅▆▇█"
PLAIN_LINES = 8
"""Lines of progress where standard output is no terminal."""


class Training(NamedTuple):
    """How one job of training ended."""

    losses: dict[int, float]
    result: dict[str, Any] | None
    """None if it was cancelled."""


class Screen:
    """Owner of standard output: bars and colours on a terminal, plain lines elsewhere."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, soft_wrap=False)
        if not self.console.is_terminal:
            self.console.width = 100

    def step(self, title: str) -> None:
        """Begin a step."""
        self.console.print()
        self.console.print(Rule(Text(title, style="bold"), align="left", style="dim"))

    def say(self, text: str, style: str = "") -> None:
        """Print a sentence."""
        self.console.print(Text(f"  {text}", style=style))

    def sample(self, prompt: str, written: str) -> None:
        """Print what a model wrote behind a prompt."""
        line = Text.assemble("  ", (prompt, "bold cyan"), " ".join(written.split()))
        line.truncate(self.console.width, overflow="ellipsis")
        self.console.print(line)

    def curve(self, losses: dict[int, float], width: int = 60) -> None:
        """Draw the loss over the steps."""
        values = [losses[step] for step in sorted(losses)]
        pieces = [values[len(values) * n // width : max(len(values) * (n + 1) // width, 1)] for n in range(width)]
        means = [sum(piece) / len(piece) for piece in pieces if piece]
        low, high = min(means), max(means)
        drawn = "".join(BLOCKS[round((mean - low) / (high - low or 1) * (len(BLOCKS) - 1))] for mean in means)
        self.console.print(Text.assemble("  loss ", f"{means[0]:.2f} ", (drawn, "green"), f" {means[-1]:.2f}"))

    @contextmanager
    def bar(self, first: int, total: int) -> Iterator[Any]:
        """Give a function `show(step, loss)`."""
        if self.console.is_terminal:
            columns = (
                TextColumn("  training"), BarColumn(36), MofNCompleteColumn(), TextColumn("{task.fields[loss]}"),
                TimeRemainingColumn(),
            )  # fmt: skip
            with Progress(*columns, console=self.console) as progress:
                task = progress.add_task("training", total=total, completed=first, loss="")
                yield lambda step, loss: progress.update(task, completed=step, loss=f"loss {loss:.3f}")
        else:
            every = max(total // PLAIN_LINES, 1)

            def show(step: int, loss: float) -> None:
                if step % every == 0 or step == total:
                    self.console.print(f"  step {step}/{total}  loss {loss:.3f}")

            yield show


def train(
    ml: MLBridge, screen: Screen, args: dict[str, Any], steps: int, cancel_at: int | None, first: int = 0
) -> Training:
    """Train as a job, show how it goes, and cancel it at a step if asked to."""
    losses: dict[int, float] = {}
    job = ml.submit("transformers", "transformers:train", args)
    with screen.bar(first, steps) as show:
        for event in job.events():
            if event.event != "chunk" or "loss" not in event.data:
                continue
            step = event.data["step"]
            losses[step] = event.data["loss"]
            show(step, losses[step])
            if step == cancel_at:
                job.cancel()
    try:
        return Training(losses, job.result())
    except CallCancelledError:
        return Training(losses, None)


def write(ml: MLBridge, screen: Screen, model: str) -> None:
    """Have a model go on with a few prompts."""
    resource = ml.create_resource("transformers", "model", {"model": model})
    for prompt in PROMPTS:
        inputs = {"text": prompt, "max_new_tokens": 24, "temperature": 0.6, "seed": 1}
        screen.sample(prompt, ml.execute_resource("transformers", resource.id, inputs)["text"])
    ml.delete_resource("transformers", resource.id)


def play(folder: Path, steps: int) -> None:
    """Make a model, train it in two parts, and compare what it writes."""
    screen = Screen()
    models, runs = folder / "models", folder / "runs"
    options = {"models_folder": str(models), "runs_folder": str(runs), "data_folders": [str(REPOSITORY / "docs")]}
    # A cancelled training ends with the step that it is in and then writes a checkpoint: give it time for that.
    bridge = {"python": str(PYTHON), "options": options, "cancel_grace": 30.0}

    screen.step("1  A model that knows nothing")
    made = subprocess.run(
        [PYTHON, HERE / "make_model.py", models / "small", *DOCS], check=True, capture_output=True, text=True
    )
    screen.say(f"GPT-2 with random weights and a tokenizer of these documents: {made.stdout.strip()}")
    with MLBridge.from_config({"bridges": {"transformers": bridge}}) as ml:
        ml.wait_ready("transformers")
        write(ml, screen, "small")

        screen.step(f"2  Fine-tuning on {len(DOCS)} documents, cancelled half-way")
        dataset = {"files": "**/*.md", "text_by": "file"}
        settings = {
            "max_steps": steps, "batch_size": 16, "max_length": 64, "packing": True, "learning_rate": 4e-3,
            "schedule": "cosine", "warmup_steps": steps // 20, "eval_fraction": 0.05, "save_every": max(steps // 4, 1),
        }  # fmt: skip
        args = {"run": RUN, "model": "small", "dataset": dataset, "settings": settings}
        begun = train(ml, screen, args, steps, cancel_at=steps // 2)
        run = ml.call("transformers", "transformers:get_run", {"run": RUN})
        screen.say(
            f"the call was cancelled; the run is {run['state']}, checkpoints of steps {run['checkpoints']}", "yellow"
        )

        screen.step("3  Resumed from the last checkpoint")
        resumed = train(ml, screen, {"run": RUN, "resume": True}, steps, cancel_at=None, first=run["checkpoints"][-1])
        assert resumed.result is not None
        result = resumed.result
        screen.say(f"it went on behind step {result['resumed_from']} and is done: {result['model']}", "green")
        screen.curve({**begun.losses, **resumed.losses})
        screen.say(f"held-back text: loss {result['metrics']['eval_loss']:.2f}")

        screen.step("4  What it writes now")
        write(ml, screen, result["model"])
    screen.console.print()


def main() -> None:
    """Read the arguments; without --folder everything is made in a temporary one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="keep model and run here")
    parser.add_argument("--steps", type=int, default=240)
    given = parser.parse_args()
    if not PYTHON.exists():
        sys.exit(f"{PYTHON} does not exist; run: make setup")
    with tempfile.TemporaryDirectory() as temporary:
        play(given.folder or Path(temporary), given.steps)


if __name__ == "__main__":
    main()
