"""`manybridge env`: lock, build, list, scan, remove and export the environments of bridges."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from manybridge import __version__
from manybridge.cli.context import ConfigOption, JsonOption, reported
from manybridge.cli.env_views import print_collected, print_environments, print_scan
from manybridge.cli.exit_codes import ExitCode
from manybridge.cli.output import print_json_line, print_note
from manybridge.cli.progress import CallView
from manybridge.environments import bom
from manybridge.environments.building import build_or_find
from manybridge.environments.collecting import collect, needed_environments, processes_in, remember_locks
from manybridge.environments.failures import failed
from manybridge.environments.folders import all_environments, find_environment
from manybridge.environments.locks import Lock, read_lock
from manybridge.environments.progress import Report, Step
from manybridge.environments.resolving import Locked, make_lock
from manybridge.environments.scanning import ScanReport, scan_interpreter, scan_lock
from manybridge.errors import RegistryError
from manybridge.host.config import BridgeConfig, LoadedConfig, read_config
from manybridge.host.config_problems import did_you_mean
from manybridge.host.interpreters import Interpreters, interpreter_path, require_current

env_app = typer.Typer(
    no_args_is_help=True, help="Lock, build, list, scan, remove and export environments.", rich_markup_mode=None
)

BridgesArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="[BRIDGE]...", help="Left out: every bridge that names packages and no interpreter."),
]


class Format(StrEnum):
    """What `export` writes."""

    CYCLONEDX = "cyclonedx"
    REQUIREMENTS = "requirements"


@env_app.command("lock")
def lock(
    bridges: BridgesArgument = None,
    upgrade: Annotated[bool, typer.Option("--upgrade", help="Take the newest versions that fit.")] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Resolve the required packages of bridges and write their locks, with hashes, beside the configuration.

    Versions of a lock that is there are kept where they still fit.
    """
    with reported(as_json=as_json), _shown(as_json=as_json) as report:
        chosen = _Chosen(config, bridges)
        done = [
            make_lock(
                name, each.required_packages, chosen.lock_path(name), chosen.settings, upgrade=upgrade, report=report
            )
            for name, each in chosen.managed()
        ]
    if as_json:
        print_json_line({"locks": [_locked(each) for each in done]})
        return
    for each in done:
        changes = [*(f"  + {name}" for name in each.added), *(f"  - {name}" for name in each.removed)]
        head = f"{each.lock.bridge}: {each.outcome}, {len(each.lock.pins)} packages: {each.lock.path}"
        print("\n".join([head, *(changes if each.outcome == "updated" else [])]))


@env_app.command("sync")
def sync(
    bridges: BridgesArgument = None,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Build again what is there, if no host uses it.")] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Build the environments of the locks. What is there already takes no time and no network."""
    with reported(as_json=as_json), _shown(as_json=as_json) as report:
        chosen = _Chosen(config, bridges)
        done: list[dict[str, Any]] = []
        for name, each in chosen.managed():
            began = time.perf_counter()
            current = chosen.lock(name)
            require_current(name, current, each)
            built = build_or_find(current, chosen.settings, rebuild=rebuild, report=report)
            _remember(chosen, current)
            done.append(
                {
                    "bridge": name,
                    "outcome": "built" if built.is_new else "unchanged",
                    "folder": str(built.environment.folder),
                    "packages": len(built.environment.packages),
                    "bytes": built.environment.size,
                    "seconds": round(time.perf_counter() - began, 3),
                }
            )
    if as_json:
        print_json_line({"environments": done})
        return
    for row in done:
        outcome = f"{row['outcome']} in {row['seconds']:.2f} s"
        print(f"{row['bridge']}: {outcome}, {row['packages']} packages: {row['folder']}")


@env_app.command("list")
def list_(as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """List the environments that are built: whose, how large, how old, and who uses them."""
    with reported(as_json=as_json):
        chosen = _Chosen(config, None)
        root = chosen.settings.root
        needed = needed_environments([chosen.locks] if chosen.locks is not None else [])
        rows = [
            {
                "name": each.name,
                "bridges": [path.stem for path in needed.get(each.name, ())] or [each.bridge],
                "locked": each.name in needed,
                "packages": each.packages,
                "bytes": each.size,
                "created": each.created,
                "python": each.python,
                "usable": each.interpreter.exists(),
                "processes": processes_in(root, each),
                "folder": str(each.folder),
            }
            for each in all_environments(root)
        ]
    if as_json:
        print_json_line({"folder": str(root), "environments": rows})
    else:
        print_environments(root, rows)


@env_app.command("scan")
def scan(
    bridges: Annotated[
        list[str] | None,
        typer.Argument(metavar="[BRIDGE]...", help="Left out: every bridge that has an environment or interpreter."),
    ] = None,
    advisories: Annotated[
        str | None,
        typer.Option(metavar="PATH|URL", help="A snapshot of advisories in the OSV format, or an OSV server."),
    ] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Look for known-bad and vulnerable versions, start-up code and changed files. No interpreter is started.

    Ends with 0 only if everything was looked at and nothing was found; with 14 if nothing was found and something
    could not be looked at; with 13 if something was found.
    """
    from manybridge.environments.advisories import open_database  # brings HTTP along, which no other command needs

    with reported(as_json=as_json), _shown(as_json=as_json) as report:
        chosen = _Chosen(config, bridges)
        environments = chosen.loaded.config.environments
        source = advisories if advisories is not None else environments.advisories
        database = open_database(source, environments.max_advisory_age)
        reports: list[ScanReport] = []
        for name, each in chosen.scannable():
            if each.python is not None:
                path = Path(interpreter_path(each)).absolute()
                reports.append(scan_interpreter(name, path, chosen.settings, database, report))
            else:
                current = chosen.lock(name)
                found = find_environment(chosen.settings.root, current.environment)
                reports.append(scan_lock(current, found, chosen.settings, database, report))
    if as_json:
        passed = all(each.passed for each in reports)
        print_json_line({"passed": passed, "bridges": [{"passed": each.passed, **asdict(each)} for each in reports]})
    else:
        print_scan(reports)
    if any(each.found_something for each in reports):
        raise typer.Exit(ExitCode.ENVIRONMENT)
    if not all(each.passed for each in reports):
        raise typer.Exit(ExitCode.NOT_AUDITED)


@env_app.command("gc")
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Remove nothing; say what would be removed.")] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Remove environments that no lock of a known configuration describes and no process uses.

    A configuration is known from its first `env sync` on, as long as its locks are where they were.
    """
    with reported(as_json=as_json):
        chosen = _Chosen(config, None)
        results = collect(chosen.settings.root, chosen.locks, dry_run=dry_run)
    if as_json:
        rows = [{**asdict(each), "folder": str(each.folder)} for each in results]
        print_json_line({"dry_run": dry_run, "results": rows})
    else:
        print_collected(results, dry_run=dry_run)


@env_app.command("export")
def export(
    bridge: Annotated[str, typer.Argument(metavar="BRIDGE", help="Whose environment.")],
    form: Annotated[Format, typer.Option("--format", help="A CycloneDX document, or requirements for pip.")] = (
        Format.CYCLONEDX
    ),
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Instead of printing it.")
    ] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Write what an environment consists of, from its lock. The same lock gives the same bytes."""
    with reported(as_json=as_json):
        current = _Chosen(config, [bridge]).lock(bridge)
        if form is Format.CYCLONEDX:
            text = json.dumps(bom.cyclonedx(current, __version__), indent=2) + "\n"
        else:
            text = bom.requirements(current)
    if output is None:
        sys.stdout.write(text)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        print_note(f"error: can't write {output}: {error.strerror or error}")
        raise typer.Exit(ExitCode.FAILURE) from error
    if as_json:
        print_json_line({"bridge": bridge, "format": form.value, "path": str(output)})
    else:
        print(f"wrote {output}")


class _Chosen:
    """The bridges that a command is about, and where their locks and environments lie."""

    def __init__(self, config: Path | None, names: list[str] | None) -> None:
        self.loaded: LoadedConfig = read_config(config)
        interpreters = Interpreters(self.loaded.config.environments)
        self.settings = interpreters.settings
        self._interpreters = interpreters
        self._names = names or []
        self._bridges = self.loaded.config.bridges
        for name in self._names:
            if name not in self._bridges:
                text = f'the configuration has no bridge "{name}"{did_you_mean(name, self._bridges)}'
                raise RegistryError(text, details={"bridge": name, "known": sorted(self._bridges)})

    @property
    def locks(self) -> Path | None:
        """The folder of the locks."""
        folder = self.loaded.config.environments.locks
        return Path(folder) if folder is not None else None

    def lock_path(self, name: str) -> Path:
        """Where the lock of a bridge lies."""
        path = self._interpreters.lock_path(name)
        if path is None:
            text = "locks lie beside the configuration file, and none was found; write one:\n  manybridge init"
            raise failed("lock_missing", text)
        return path

    def lock(self, name: str) -> Lock:
        """The lock of a bridge."""
        path = self.lock_path(name)
        if not path.exists():
            text = f'bridge "{name}" has no lock ({path}); make it with:\n  manybridge env lock {name}'
            raise failed("lock_missing", text, bridge=name, path=str(path))
        return read_lock(path)

    def managed(self) -> Iterator[tuple[str, BridgeConfig]]:
        """The bridges whose environments are ours to make. Naming another is an error; otherwise it is left out."""
        for name in self._names or self._bridges:
            bridge = self._bridges[name]
            if bridge.required_packages and bridge.python is None:
                yield name, bridge
            elif self._names:
                raise failed("requirement", f'there is no environment to make for bridge "{name}": {_why_not(bridge)}')

    def scannable(self) -> Iterator[tuple[str, BridgeConfig]]:
        """The bridges that have an environment, ours or their own."""
        for name in self._names or self._bridges:
            bridge = self._bridges[name]
            if bridge.required_packages or bridge.python is not None:
                yield name, bridge
            elif self._names:
                raise failed("requirement", f'there is nothing to scan for bridge "{name}": {_why_not(bridge)}')


def _why_not(bridge: BridgeConfig) -> str:
    if bridge.python is not None:
        return f"it has an interpreter of its own (python = {bridge.python})"
    return "it names no packages (required_packages)"


def _remember(chosen: _Chosen, lock: Lock) -> None:
    assert lock.path is not None
    try:
        remember_locks(chosen.settings.root, lock.path.parent)
    except OSError as error:
        print_note(f"note: can't remember {lock.path.parent} for env gc: {error.strerror}")


def _locked(done: Locked) -> dict[str, Any]:
    return {
        "bridge": done.lock.bridge,
        "outcome": done.outcome,
        "path": str(done.lock.path),
        "packages": len(done.lock.pins),
        "environment": done.lock.environment,
        "added": list(done.added),
        "removed": list(done.removed),
    }


@dataclass(frozen=True, slots=True)
class _ProgressEvent:
    """A step in the form that the view of calls knows."""

    data: dict[str, Any]
    event: str = "progress"
    seq: int = 0


@contextmanager
def _shown(*, as_json: bool) -> Iterator[Report]:
    """Show the steps of long work: a bar on a terminal, plain lines elsewhere, nothing with --json."""
    with CallView(stream=False, as_json=as_json) as view:
        shown: Step | None = None

        def report(step: Step) -> None:
            nonlocal shown
            if step != shown:
                shown = step
                current = step.current if step.total is not None else None
                view.show(_ProgressEvent({"current": current, "total": step.total, "message": step.message}))

        yield report
