"""Run benchmarks, write results and plot, print the verdict."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks import batching, calls, footprint, frameworks, overhead, recovery, startup, store, streaming
from benchmarks.facts import facts
from benchmarks.plot import plot
from benchmarks.readme import update_readme
from benchmarks.targets import judge

RESULTS: Final = Path(__file__).parent / "results"

SUITES: Final[dict[str, Callable[[], dict[str, Any]]]] = {
    "calls": calls.run,
    "streaming": streaming.run,
    "startup": startup.run,
    "recovery": recovery.run,
    "overhead": overhead.run,
    "footprint": footprint.run,
    "frameworks": frameworks.run,
    "batching": batching.run,
    "store": store.run,
}


def main(argv: list[str]) -> int:
    """Run the named suites, or all. Results of suites that are not run are kept from the file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"{', '.join(SUITES)} (default: all)")
    parser.add_argument("--readme", action="store_true", help="only judge the results again, and write README.md")
    arguments = parser.parse_args(argv)
    path = RESULTS / "core.json"
    results: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    if not arguments.readme:
        if unknown := set(arguments.suites) - set(SUITES):
            parser.error(f"unknown suite {', '.join(sorted(unknown))}; known: {', '.join(SUITES)}")
        _run(arguments.suites or list(SUITES), results)
        RESULTS.mkdir(exist_ok=True)
        plot(results, RESULTS / "core.png")
    results["verdict"] = judge(results)
    path.write_text(json.dumps(results, indent=1) + "\n")
    update_readme(results)
    return _report(results)


def _run(names: list[str], results: dict[str, Any]) -> None:
    for name in names:
        sys.stderr.write(f"benchmark {name} ...\n")
        results[name] = SUITES[name]()
        results.setdefault("facts", {})[name] = facts()


def _report(results: dict[str, Any]) -> int:
    table = Table("promise", "bound", "measured", "")
    for verdict in results["verdict"]:
        table.add_row(
            verdict["target"],
            verdict["bound"],
            f"{verdict['value']:g} {verdict['unit']}",
            "[green]met[/]" if verdict["met"] else "[red]missed[/]",
        )
    Console().print(table)
    return 0 if all(verdict["met"] for verdict in results["verdict"]) else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
