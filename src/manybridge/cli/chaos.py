"""`manybridge chaos`: faults on purpose under a load, and an account of every call."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from manybridge.cli.context import ConfigOption, JsonOption, reported, run_async
from manybridge.cli.exit_codes import ExitCode
from manybridge.cli.output import print_json_line, print_note
from manybridge.host.config import HostConfig, StoreConfig, make_bridge_config, read_config

if TYPE_CHECKING:
    from manybridge.testing.chaos import ChaosReport, Scenario


def chaos(
    scenario: Annotated[
        Path | None, typer.Argument(metavar="[SCENARIO.toml]", help="The scenario: calls, faults and promises.")
    ] = None,
    builtin: Annotated[
        str | None, typer.Option("--builtin", metavar="NAME", help="A scenario that comes with manybridge.")
    ] = None,
    list_all: Annotated[bool, typer.Option("--list", help="Print the built-in scenarios and all faults.")] = False,
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", help="Of everything that is drawn; the scenario's if left out.")
    ] = None,
    duration: Annotated[
        float | None,
        typer.Option("--duration", metavar="SECONDS", min=0.1, help="How long; the scenario's if left out."),
    ] = None,
    plan_only: Annotated[
        bool, typer.Option("--plan", help="Print which fault strikes when, and start nothing.")
    ] = False,
    real_store: Annotated[
        bool,
        typer.Option(
            "--real-store", help="Use the configured store, faults included. Left out: a new one that is deleted."
        ),
    ] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Run a load against the configured bridges, inject faults, and account for every call.

    Exit code 1 where a promise was broken: a call lost or answered wrongly, an untyped error, a leak, or what the
    scenario promises. The same seed gives the same plan.

    For example:

        manybridge chaos --builtin kills

        manybridge chaos scenario.toml --seed 7 --duration 60 --json
    """
    with reported(as_json=as_json):
        if list_all:
            _print_all(as_json=as_json)
            return
        chosen = _chosen(scenario, builtin).changed(seed=seed, duration=duration)
        _print_plan(chosen, as_json=as_json, alone=plan_only)
        if plan_only:
            return
        report = _run(chosen, config, real_store=real_store, quiet=as_json)
        if as_json:
            print_json_line(report.describe())
        else:
            print(report.render())
        if report.broken:
            raise typer.Exit(ExitCode.FAILURE)


def _chosen(path: Path | None, builtin: str | None) -> Scenario:
    from manybridge.testing.chaos import ChaosError, builtin_names, builtin_scenario, load_scenario

    if (path is None) == (builtin is None):
        names = ", ".join(builtin_names())
        raise ChaosError(f"say which scenario: the path of a TOML file, or --builtin with one of {names}")
    return load_scenario(path) if path is not None else builtin_scenario(builtin or "")


def _print_all(*, as_json: bool) -> None:
    from manybridge.testing.chaos import FAULTS, builtin_names, builtin_scenario

    scenarios = {name: builtin_scenario(name).description for name in builtin_names()}
    faults = {name: kind.description for name, kind in FAULTS.items()}
    if as_json:
        print_json_line({"scenarios": scenarios, "faults": faults})
        return
    for title, rows in (("scenarios", scenarios), ("faults", faults)):
        print(title)
        for name, text in rows.items():
            print(f"  {name:<20} {text}")


def _print_plan(scenario: Scenario, *, as_json: bool, alone: bool) -> None:
    from manybridge.testing.chaos import make_plan, print_plan

    plan = make_plan(scenario)
    if not alone and not as_json:
        print(print_plan(scenario, plan) + "\n")
    elif alone and as_json:
        print_json_line({"seed": scenario.seed, "plan": [planned.describe() for planned in plan]})
    elif alone:
        print(print_plan(scenario, plan))


def _run(scenario: Scenario, config: Path | None, *, real_store: bool, quiet: bool) -> ChaosReport:
    with tempfile.TemporaryDirectory(prefix="manybridge-chaos-") as folder:
        store = None if real_store else StoreConfig(url=f"sqlite:///{folder}/chaos.db")
        host = _host_config(scenario, config, store)
        return run_async(_run_on_host(scenario, host, quiet=quiet))


def _host_config(scenario: Scenario, path: Path | None, store: StoreConfig | None) -> HostConfig:
    """The configuration with the bridges that the scenario uses and no other, and a store that may be harmed."""
    from manybridge.host.store_access import locate_store
    from manybridge.testing.chaos import ChaosError

    loaded = read_config(path)
    configured, bridges = loaded.config.bridges, {}
    for name in sorted(scenario.uses):
        if name in configured:
            bridges[name] = configured[name]
        elif name in scenario.bridges:
            bridges[name] = make_bridge_config(name, scenario.bridges[name])
        else:
            known = ", ".join(sorted(configured)) or "none"
            raise ChaosError(
                f'the scenario uses a bridge "{name}", which is not configured (configured: {known}); configure it, or '
                f"say how in [bridges.{name}] of the scenario"
            )
    # A host that was made from a struct knows no file, so a configured store must be said in full by now.
    return msgspec.structs.replace(loaded.config, bridges=bridges, default=None, store=store or locate_store(loaded))


async def _run_on_host(scenario: Scenario, host: HostConfig, *, quiet: bool) -> ChaosReport:
    from manybridge.host.bridge import AsyncMLBridge
    from manybridge.testing.chaos import AsyncChaos
    from manybridge.testing.chaos.holdings import Holdings, leaks_since, still_running

    before = Holdings.now()
    async with AsyncMLBridge(host, take_over_jobs=False) as ml, AsyncChaos(ml) as chaos:
        report = await chaos.run(scenario, told=None if quiet else print_note)
        launched = chaos.faults.launched
    report.leaks += [f"after the end: {what}" for what in await leaks_since(before)]
    report.leaks += still_running(launched)
    return report
