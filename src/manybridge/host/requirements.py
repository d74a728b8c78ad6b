"""Does a bridge have what it needs, before any worker starts: interpreter, packages, environment variables.

The interpreter is asked about itself in a subprocess (`python -I -c ...`), once per interpreter and set of packages,
and never on the event loop's time, after its environment was looked through (`interpreters.py`). Its packages are only
looked up, not imported; `.pth` files run as they do at every start of that interpreter.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from manybridge.environments.folders import Environment
from manybridge.errors import ConfigError, WorkerStartError
from manybridge.host.config import BridgeConfig
from manybridge.host.interpreters import Interpreters, install_command, lock_command, sync_command
from manybridge.protocol.errors import ErrorCode

OLDEST_PYTHON: Final = (3, 11)
"""The worker side is written for the same Python versions as the host."""

PROBE_TIMEOUT: Final = 30.0
"""Seconds that an interpreter may take to answer. A cold start from a network disk takes some; more is a hang."""

_PROBE: Final = """
import sys
if sys.version_info < (3, 8):
    print('{"version": [%d, %d, %d], "packages": {}}' % sys.version_info[:3])
    raise SystemExit
import json
from importlib.metadata import PackageNotFoundError, version
def found(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return None
packages = {name: found(name) for name in sys.argv[1:]}
print(json.dumps({"version": list(sys.version_info[:3]), "prefix": sys.prefix, "packages": packages}))
"""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """What an interpreter said about itself."""

    path: str
    version: tuple[int, int, int]
    packages: Mapping[str, str | None]
    """The version of each package that was asked for, None where it is not installed."""


_Stamp = tuple[int, int]
_answers: dict[tuple[str, _Stamp, tuple[str, ...]], Interpreter] = {}


def missing_variables(config: BridgeConfig, environ: Mapping[str, str] = os.environ) -> list[str]:
    """Return the required variables that are not set, or set to nothing."""
    given = config.environment
    return [name for name in config.required_env if not (environ.get(name) or given.get(name))]


def check_variables(name: str, config: BridgeConfig, environ: Mapping[str, str] = os.environ) -> None:
    """Check that every variable in `required_env` is set.

    Raises:
        WorkerStartError: `missing_variable`; details hold `bridge` and `missing`.
    """
    missing = missing_variables(config, environ)
    if not missing:
        return
    lines = "\n".join(f"  export {variable}=..." for variable in missing)
    wanted = _listed("environment variable", missing)
    text = f'bridge "{name}" needs {wanted} (required_env); set it and start again:\n{lines}'
    raise WorkerStartError(text, code=ErrorCode.MISSING_VARIABLE, details={"bridge": name, "missing": missing})


async def check_requirements(
    name: str,
    config: BridgeConfig,
    environ: Mapping[str, str] = os.environ,
    *,
    interpreters: Interpreters | None = None,
) -> Interpreter:
    """Check everything that a bridge needs and return what its interpreter said about itself.

    Its environment is looked through before it is asked: asking is a start. One that manybridge built is not asked.

    Args:
        name: of the bridge.
        config: its configuration.
        environ: where its variables are looked up.
        interpreters: what finds its interpreter; one without locks and with the usual lists if left out.

    Raises:
        ConfigError: the interpreter is missing, no Python of at least OLDEST_PYTHON, or a requirement can't be read.
        WorkerStartError: `missing_variable` or `missing_package`; the text has the command that helps.
        BridgeEnvironmentError: as `Interpreters.find`.
    """
    check_variables(name, config, environ)
    requirements = [_requirement(name, text) for text in config.required_packages]
    wanted = [each for each in requirements if each.marker is None or each.marker.evaluate()]
    interpreters = interpreters or Interpreters()
    found = interpreters.find(name, config)
    if found.environment is not None:
        return _as_built(found.path, found.environment, wanted)
    interpreter = await probe(found.path, (each.name for each in wanted))
    if interpreter.version[:2] < OLDEST_PYTHON:
        raise ConfigError(
            f'bridge "{name}": {interpreter.path} is Python {_dotted(interpreter.version)}, '
            f"and a worker needs at least {_dotted(OLDEST_PYTHON)}",
            details={"bridge": name, "python": interpreter.path, "version": _dotted(interpreter.version)},
        )
    unmet = [each for each in wanted if not _is_met(each, interpreter.packages[each.name])]
    if unmet:
        forget_answers()  # the next thing that happens is an installation
        locks = interpreters.lock_path(name) is not None and config.python is None
        raise _missing_packages(name, unmet, interpreter, in_environment=locks)
    return interpreter


async def probe(path: str, packages: Iterable[str] = ()) -> Interpreter:
    """Ask an interpreter for its version and for the versions of packages. Answers are remembered.

    An answer counts until the interpreter's file changes; `forget_answers` drops them all, for after an installation.

    Raises:
        ConfigError: it can't be started, does not answer as Python does, or takes longer than PROBE_TIMEOUT.
    """
    names = tuple(sorted(set(packages)))
    key = (path, _stamp(path), names)
    if key not in _answers:
        _answers[key] = await _ask(path, names)
    return _answers[key]


def forget_answers() -> None:
    """Forget what interpreters said: something may have been installed."""
    _answers.clear()


async def _ask(path: str, names: tuple[str, ...]) -> Interpreter:
    try:
        process = await _start(path, "-I", "-c", _PROBE, *names)
    except OSError as error:
        raise _bad_interpreter(path, error.strerror or str(error)) from error
    try:
        async with asyncio.timeout(PROBE_TIMEOUT):
            output, errors = await process.communicate()
    except TimeoutError:
        raise _bad_interpreter(path, f"no answer within {PROBE_TIMEOUT:g} seconds") from None
    finally:
        await _end(process)
    try:
        answer: dict[str, Any] = json.loads(output)
        major, minor, micro = answer["version"]
    except (ValueError, KeyError, TypeError):
        last = errors.decode(errors="replace").strip().splitlines()[-1:] or ["no output that a Python would write"]
        raise _bad_interpreter(path, f"exit code {process.returncode}: {last[0]}") from None
    return Interpreter(path, (major, minor, micro), answer["packages"])


async def _start(*command: str) -> asyncio.subprocess.Process:
    pipe, null = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    starting = asyncio.ensure_future(asyncio.create_subprocess_exec(*command, stdin=null, stdout=pipe, stderr=pipe))
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:  # the host closes: nobody but us knows of the process that is being started
        with contextlib.suppress(OSError):
            await _end(await starting)
        raise


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _requirement(name: str, text: str) -> Requirement:
    try:
        return Requirement(text)
    except InvalidRequirement as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f'bridges.{name}.required_packages: expected a requirement such as "dspy>=3", found "{text}": {reason}',
            details={"bridge": name, "requirement": text},
        ) from error


def _is_met(requirement: Requirement, version: str | None) -> bool:
    # A pre-release that somebody installed was chosen on purpose: it counts.
    return version is not None and requirement.specifier.contains(version, prereleases=True)


def _as_built(path: str, environment: Environment, wanted: list[Requirement]) -> Interpreter:
    """What an environment of ours would say. It has what the lock says, which was made from what is wanted."""
    major, minor, micro = (int(part) for part in environment.python.split("."))
    names = [canonicalize_name(each.name) for each in wanted]
    return Interpreter(path, (major, minor, micro), {name: environment.packages.get(name) for name in names})


def _missing_packages(
    name: str, unmet: list[Requirement], interpreter: Interpreter, *, in_environment: bool
) -> WorkerStartError:
    """Make the error, with the commands that help.

    Args:
        name: of the bridge.
        unmet: what is not there, or not in that version.
        interpreter: where it is not.
        in_environment: whether `manybridge env` can make an environment for this bridge.
    """
    found = {each.name: interpreter.packages[each.name] for each in unmet}
    texts = [
        str(each) + (f" (it has {found[each.name]})" if found[each.name] else " (not installed)") for each in unmet
    ]
    if in_environment:
        help_text = f"build an environment for it with:\n  {lock_command(name)}\n  {sync_command(name)}"
        command = f"{lock_command(name)} && {sync_command(name)}"
    else:
        command = install_command(interpreter.path, [str(each) for each in unmet])
        help_text = f"install with:\n  {command}"
    return WorkerStartError(
        f'bridge "{name}" needs {", ".join(texts)} in {interpreter.path}; {help_text}',
        code=ErrorCode.MISSING_PACKAGE,
        details={
            "bridge": name,
            "python": interpreter.path,
            "missing": [str(each) for each in unmet],
            "found": found,
            "install": command,
        },
    )


def _bad_interpreter(path: str, reason: str) -> ConfigError:
    text = f"{path} does not work as a Python interpreter: {reason}"
    return ConfigError(text, details={"python": path, "reason": reason})


def _stamp(path: str) -> _Stamp:
    try:
        status = Path(path).stat()
    except OSError:
        return (0, 0)
    return (status.st_mtime_ns, status.st_ino)


def _listed(noun: str, names: list[str]) -> str:
    return f"the {noun}{'s' if len(names) > 1 else ''} {', '.join(names)}"


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(str(part) for part in version)
