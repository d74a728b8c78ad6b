"""The benchmark table of the README, between its markers, so that no figure there is typed by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

README: Final = Path(__file__).parent.parent / "README.md"
BEGIN: Final = "<!-- benchmarks -->"
END: Final = "<!-- /benchmarks -->"


def update_readme(results: dict[str, Any]) -> None:
    """Put the verdict of the last run into the README. Does nothing if it has no markers."""
    text = README.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if begin and end:
        README.write_text(f"{before}{BEGIN}\n{summary(results)}\n{END}{after}")


def summary(results: dict[str, Any]) -> str:
    """The table in Markdown, with the machine that it was measured on."""
    rows = [
        f"| {verdict['target']} | {verdict['bound']} | {verdict['value']:g} {verdict['unit']} | "
        f"{'yes' if verdict['met'] else '**not yet**'} |"
        for verdict in results["verdict"]
    ]
    described = next(iter(results["facts"].values()))
    machine = described["machine"]
    where = f"{machine['processor']}, {machine['cores']} cores, Python {described['versions']['python']}"
    return "\n".join(
        [
            "| Promise | Bound | Measured | Kept |",
            "|---|---|---|---|",
            *rows,
            "",
            "The limit is two Python processes that exchange the same frames over a blocking socket pair, and no more.",
            f"At 64 in flight {_against_executor(results)} Measured at {described['commit']} on {where}.",
        ]
    )


def _against_executor(results: dict[str, Any]) -> str:
    """The same throughput beside the standard library's process pool, which is what most programs would use."""
    measured = results["calls"]["throughput"]["100 B"]["64"]
    times = measured["async_per_s"] / measured["executor_per_s"]
    return f"one worker serves {times:.0f} times as many calls as `ProcessPoolExecutor`."
