"""`manybridge init`: a configuration and a bridge that work at once."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Final

import typer

from manybridge.cli.context import JsonOption, reported
from manybridge.cli.output import print_json_line
from manybridge.cli.templates import CONFIG_HEAD, EXAMPLE_BRIDGE, FRAMEWORK_TABLES
from manybridge.errors import ConfigError, InvalidArgumentError
from manybridge.host.config_problems import did_you_mean

DSPEX_SCRIPT: Final = Path("priv") / "python" / "dspy_bridge.py"
"""Where an application that uses the DSPex adapter keeps the script that it starts."""

BACKUP_SUFFIX: Final = ".before-manybridge"


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file to write."""

    path: Path
    text: str
    keep_old: bool = False
    """Whether a file that is replaced is kept beside the new one: it may be somebody's own script."""


def init(
    directory: Annotated[Path, typer.Argument(metavar="[DIR]", help="Where to write; made if missing.")] = Path(),
    framework: Annotated[
        list[str] | None,
        typer.Option(
            "--framework", metavar="NAME", help=f"Add a table for {', '.join(FRAMEWORK_TABLES)}. May be repeated."
        ),
    ] = None,
    dspex: Annotated[
        Path | None,
        typer.Option(
            "--dspex",
            metavar="PATH",
            help=f"Write the drop-in script into the application at PATH, as {DSPEX_SCRIPT}, and nothing else.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a commented manybridge.toml and an example bridge that work at once.

    For example:

        manybridge init my-project --framework dspy

        manybridge init --dspex ../my_elixir_app
    """
    with reported(as_json=as_json):
        new = [_drop_in(dspex)] if dspex is not None else _project(directory, framework or [])
        _refuse_to_overwrite(new, force=force)
        _write_all(new)
    if as_json:
        print_json_line({"written": [str(each.path) for each in new]})
        return
    for each in new:
        print(f"wrote {each.path}")
    print(_next_steps(directory) if dspex is None else _next_steps_of_drop_in(new[0].path))


def _project(directory: Path, frameworks: list[str]) -> list[NewFile]:
    for name in frameworks:
        if name not in FRAMEWORK_TABLES:
            text = f'--framework: there is no template for "{name}"{did_you_mean(name, FRAMEWORK_TABLES)}'
            raise InvalidArgumentError(text, details={"framework": name, "known": list(FRAMEWORK_TABLES)})
    tables = "".join(FRAMEWORK_TABLES[name] for name in dict.fromkeys(frameworks))
    return [
        NewFile(directory / "manybridge.toml", CONFIG_HEAD + tables),
        NewFile(directory / "bridges" / "words.py", EXAMPLE_BRIDGE),
    ]


def _drop_in(application: Path) -> NewFile:
    if not application.is_dir():
        raise ConfigError(f"--dspex: expected the folder of an application, and there is no folder {application}")
    text = files("manybridge").joinpath("dropin", "dspy_bridge.py").read_text(encoding="utf-8")
    return NewFile(application / DSPEX_SCRIPT, text, keep_old=True)


def _refuse_to_overwrite(new: list[NewFile], *, force: bool) -> None:
    existing = [str(each.path) for each in new if _is_other(each)]
    if existing and not force:
        text = f"{', '.join(existing)} exists already; nothing was written. Replace with --force"
        raise ConfigError(text, details={"existing": existing})


def _is_other(new: NewFile) -> bool:
    """Whether something is in a file's place that is not what would be written. Bytes: theirs need not be UTF-8."""
    try:
        return new.path.exists() and new.path.read_bytes() != new.text.encode()
    except OSError:  # a folder, or a file that is not ours to read
        return True


def _write_all(new: list[NewFile]) -> None:
    path = Path()
    try:
        for each in new:
            path = each.path.parent
            path.mkdir(parents=True, exist_ok=True)
        for each in new:
            path = each.path
            _write(each)
    except OSError as error:
        reason = "it is no folder" if isinstance(error, FileExistsError | NotADirectoryError) else error.strerror
        raise ConfigError(f"{path} can't be written: {reason}", details={"path": str(path)}) from error


def _write(new: NewFile) -> None:
    backup = new.path.with_name(new.path.name + BACKUP_SUFFIX)
    if new.keep_old and not backup.exists() and _is_other(new):
        new.path.rename(backup)
    new.path.write_text(new.text, encoding="utf-8")


def _next_steps(directory: Path) -> str:
    enter = "" if directory == Path() else f"  cd {directory}\n"
    return f'\nNext:\n{enter}  manybridge call words words:count text="one two two"\n  manybridge doctor'


def _next_steps_of_drop_in(path: Path) -> str:
    home = Path(str(files("manybridge"))).parent
    return (
        f"\nYour application starts {path} as before. A script that was there is kept as {path.name}{BACKUP_SUFFIX}.\n"
        "The script needs the package manybridge: install it into the Python that your application uses, or give the\n"
        f"application this environment variable: MANYBRIDGE_HOME={home}"
    )
