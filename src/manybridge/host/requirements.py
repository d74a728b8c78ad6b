"""Does a bridge have what it needs, before any worker starts: interpreter, packages, environment variables.

The interpreter is asked about itself in a subprocess (`python -I -c ...`), once per interpreter and set of packages,
and never on the event loop's time. Its environment's packages are only looked up, not imported; `.pth` files run as
they do at every start of that interpreter.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from packaging.requirements import InvalidRequirement, Requirement

from manybridge.errors import ConfigError, WorkerStartError
from manybridge.host.config import BridgeConfig
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


def interpreter_path(config: BridgeConfig) -> str:
    """Return the path of the interpreter that the bridge's workers run under.

    Raises:
        ConfigError: there is no such file or command, or it can't be executed.
    """
    if config.python is None:
        return sys.executable
    found = shutil.which(config.python)
    if found is not None:
        return found
    if Path(config.python).is_dir():
        reason = "is a folder, not an interpreter"
    elif Path(config.python).exists():
        reason = "can't be executed"
    else:
        reason = "does not exist" if "/" in config.python else "is not a command on PATH"
    commands = [f"uv venv {_folder_of(config.python)}"] if "/" in config.python else []
    if commands and config.required_packages:
        commands.append(install_command(config.python, config.required_packages))
    help_text = "; make it with:" + "".join(f"\n  {command}" for command in commands) if commands else ""
    raise ConfigError(f"the interpreter {config.python} {reason}{help_text}", details={"python": config.python})


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


async def check_requirements(name: str, config: BridgeConfig, environ: Mapping[str, str] = os.environ) -> Interpreter:
    """Check everything that a bridge needs and return what its interpreter said about itself.

    Raises:
        ConfigError: the interpreter is missing, no Python of at least OLDEST_PYTHON, or a requirement can't be read.
        WorkerStartError: `missing_variable` or `missing_package`; the text has the command that helps.
    """
    check_variables(name, config, environ)
    requirements = [_requirement(name, text) for text in config.required_packages]
    wanted = [each for each in requirements if each.marker is None or each.marker.evaluate()]
    interpreter = await probe(interpreter_path(config), (each.name for each in wanted))
    if interpreter.version[:2] < OLDEST_PYTHON:
        raise ConfigError(
            f'bridge "{name}": {interpreter.path} is Python {_dotted(interpreter.version)}, '
            f"and a worker needs at least {_dotted(OLDEST_PYTHON)}",
            details={"bridge": name, "python": interpreter.path, "version": _dotted(interpreter.version)},
        )
    unmet = [each for each in wanted if not _is_met(each, interpreter.packages[each.name])]
    if unmet:
        forget_answers()  # the next thing that happens is an installation
        raise _missing_packages(name, unmet, interpreter)
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


def install_command(python: str, requirements: Iterable[str]) -> str:
    """Return the command that installs requirements into an interpreter's environment."""
    return f"uv pip install --python {shlex.quote(python)} " + " ".join(shlex.quote(each) for each in requirements)


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


def _missing_packages(name: str, unmet: list[Requirement], interpreter: Interpreter) -> WorkerStartError:
    found = {each.name: interpreter.packages[each.name] for each in unmet}
    texts = [
        str(each) + (f" (it has {found[each.name]})" if found[each.name] else " (not installed)") for each in unmet
    ]
    command = install_command(interpreter.path, [str(each) for each in unmet])
    return WorkerStartError(
        f'bridge "{name}" needs {", ".join(texts)} in {interpreter.path}; install with:\n  {command}',
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


def _folder_of(python: str) -> str:
    """The virtual environment that the path of an interpreter lies in, for the hint."""
    return shlex.quote(python.removesuffix("/bin/python").removesuffix("/bin/python3"))


def _listed(noun: str, names: list[str]) -> str:
    return f"the {noun}{'s' if len(names) > 1 else ''} {', '.join(names)}"


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(str(part) for part in version)
