"""The demo: three ML frameworks, each in its own process and Python environment, behind one bridge.

    make demo                                       local rules answer, or a provider where OPENAI_API_KEY,
                                                    ANTHROPIC_API_KEY or GEMINI_API_KEY is set
    .venv/bin/python examples/demo/run.py --local   local rules, whatever is set

Every line with a tick is a check of this program; it ends with status 1 where one does not hold.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from pathlib import Path

import accidents
import agents
import digits
import programs
from facts import Environment, environment_of, is_rooted_here, pid_of, refused_version
from provider import Provider, chosen_provider
from stage import DemoError, Stage

from manybridge import ManybridgeError, MLBridge

HERE = Path(__file__).resolve().parent
CONFIG = HERE / "manybridge.toml"
FRAMEWORKS = {"sklearn": "scikit-learn", "dspy": "dspy", "langchain": "langchain"}
"""Bridge to the package that it wraps."""

TELLING = ("numpy", "scipy", "openai", "litellm", "pydantic")
"""Packages that one environment has and another has not, or has in another version."""


def main() -> int:
    """Run the demo; 0 if everything held."""
    arguments = read_arguments()
    # What the host logs about the worker that is killed below is told here in words.
    logging.getLogger("manybridge").addHandler(logging.NullHandler())
    stage = Stage()
    began = time.perf_counter()
    try:
        with chosen_provider(force_local=arguments.local, model=arguments.model) as provider:
            provider.configure()
            play(stage, provider)
    except (DemoError, ManybridgeError, TimeoutError) as error:
        stage.failed(error)
        return 1
    stage.gap()
    stage.note(f"Everything held. {time.perf_counter() - began:.0f} s.")
    stage.note("Next: docs/tutorial.md writes a bridge of your own, in one file.")
    stage.gap()
    return 0


def read_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Three ML frameworks side by side")
    parser.add_argument(
        "--local", action="store_true", help="answer by local rules, even where a provider's key is set"
    )
    parser.add_argument("--model", help="provider/model to ask; the provider's key must be set")
    return parser.parse_args()


def play(stage: Stage, provider: Provider) -> None:
    """Play all steps."""
    stage.title("manybridge", "Three ML frameworks, three Python environments, one program.")
    stage.note(f"Language model: {provider.label}")

    stage.step("Three environments that can't be one")
    environments = show_environments(stage)

    began = time.perf_counter()
    with MLBridge.from_config(CONFIG) as ml:
        stage.step("One configuration, three workers")
        show_workers(stage, ml, environments, began)
        stage.step("scikit-learn: training with live progress")
        digits.train(stage, ml)
        digits.read(stage, ml)
        stage.step("DSPy: typed programs")
        dspy = ml.get_adapter("dspy")
        program = programs.classify(stage, dspy, provider)
        stage.gap()
        programs.think(stage, dspy)
        stage.step("An agent that crosses the border")
        programs.act(stage, ml, dspy)
        stage.step("LangChain: an agent that remembers")
        agents.talk(stage, ml)
        stage.step("Cancel")
        digits.cancel(stage, ml)
        stage.step("Timeout")
        accidents.run_away(stage, ml)
        stage.step("Crash")
        accidents.kill(stage, ml, program)
        stage.step("A mistake")
        accidents.misspell(stage, ml)
        stage.step("What happened")
        show_totals(stage, ml)


def show_environments(stage: Stage) -> dict[str, Environment]:
    """Show that the environments differ, in what, and why they can't be one; returns them by bridge."""
    root = HERE.parents[1]
    found = {name: environment_of(root / ".envs" / name / "bin" / "python") for name in FRAMEWORKS}
    stage.table(
        ("", *(f"[bold].envs/{name}[/]" for name in found)),
        [
            ("Python", *(each.python for each in found.values())),
            ("packages", *(str(len(each.packages)) for each in found.values())),
            *((package, *(_version(each, package) for each in found.values())) for package in FRAMEWORKS.values()),
            *((package, *(_version(each, package) for each in found.values())) for package in TELLING),
        ],
    )
    stage.gap()
    stage.holds(
        all(
            (package in found[name].packages) == (name == owner)
            for owner, package in FRAMEWORKS.items()
            for name in found
        ),
        "no environment has the framework of another",
    )
    wanted = refused_version(
        root / ".envs" / "dspy" / "bin" / "python", "litellm", found["langchain"].packages, "openai"
    )
    theirs = found["langchain"].packages["openai"]
    stage.holds(wanted, f"two of them can't be merged: dspy's litellm wants {wanted}, LangChain runs on {theirs}")
    stage.holds(
        all("manybridge" not in each.packages for each in found.values()),
        "manybridge is installed in none: a worker brings it along, standard library only",
    )
    return found


def _version(environment: Environment, package: str) -> str:
    return environment.packages.get(package, "[dim]-[/]")


def show_workers(stage: Stage, ml: MLBridge, environments: dict[str, Environment], began: float) -> None:
    """Wait for the pools and show what answers."""
    for name in FRAMEWORKS:
        ml.wait_ready(name, timeout=60)
    took = time.perf_counter() - began
    rows, pids = [], set()
    for name, package in FRAMEWORKS.items():
        offered = ml.capabilities(name)
        pids.add(pid_of(ml, name))
        version = environments[name].packages[package]
        resources = ", ".join(offered["resources"])
        rows.append((f"[cyan]{name}[/]", f"{package} {version}", str(pid_of(ml, name)), str(len(offered["commands"])),
                     resources))  # fmt: skip
    stage.say(f"{is_rooted_here(str(CONFIG))} names the bridges.")
    stage.gap()
    stage.table(("bridge", "framework", "pid", "commands", "resource types"), rows, right=("pid", "commands"))
    stage.gap()
    stage.holds(len(pids) == len(FRAMEWORKS), f"{len(pids)} processes, all ready {took:.1f} s after the start")


def show_totals(stage: Stage, ml: MLBridge) -> None:
    """Show what the host has counted."""
    counted = ml.stats()["bridges"]
    stage.table(
        ("bridge", "calls", "failed", "p50", "workers", "restarts", "how workers start"),
        (
            (
                f"[cyan]{name}[/]", str(each["calls"]), str(each["failed"]), f"{each['latency_ms']['p50']:.1f} ms",
                str(each["workers"]), str(each["restarts"]), "fork" if each["zygote"]["used"] else "spawn",
            )
            for name, each in counted.items()
        ),
        right=("calls", "failed", "p50", "workers", "restarts"),
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
