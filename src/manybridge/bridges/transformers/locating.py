"""From the name of a model to the local folder with its files.

A name is, in this order: `package:NAME`, a package of this environment that carries a model; a folder, relative to the
option `models_folder` if there is one; the id of a repository on the Hugging Face hub, looked up in the local cache,
and fetched only where the option `local_files_only` is off.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Literal

from manybridge.bridge import BridgeError
from manybridge.bridges.transformers.errors import translate
from manybridge.bridges.transformers.options import Options
from manybridge.protocol.errors import ErrorCode

PACKAGE: Final = "package:"
CONFIG: Final = "config.json"
ADAPTER_CONFIG: Final = "adapter_config.json"
MARKS: Final = (CONFIG, ADAPTER_CONFIG, "tokenizer_config.json", "tokenizer.json")
"""A folder with one of these holds a model, an adapter or a tokenizer."""

FETCHED: Final = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "*.py")
"""Of a repository; above all no pickle. Python files are run only with `trust_remote_code`."""

_HUB_ID: Final = re.compile(r"[\w.-]{1,96}(/[\w.-]{1,96})?")


@dataclass(frozen=True, slots=True)
class Located:
    """Where the files of a model are."""

    name: str
    """As the caller wrote it."""
    folder: Path
    kind: Literal["folder", "package", "hub"]
    revision: str | None = None
    """For `hub`: the commit, pinned from here on."""

    def config(self) -> dict[str, Any]:
        """The model's `config.json`; empty if there is none.

        Raises:
            BridgeError: `invalid_argument`, it is not JSON.
        """
        return read_json(self.folder / CONFIG)


def locate(name: str, options: Options, revision: str | None = None) -> Located:
    """Find a model.

    Args:
        name: see the module's docstring.
        options: of the bridge.
        revision: branch, tag or commit of a hub id; by default the bridge's.

    Raises:
        BridgeError: `provider_not_found`, `permission_denied` outside of `models_folder`, `invalid_argument`, or what
            the hub failed with.
    """
    if not name.strip():
        raise _invalid("model: expected a folder, a hub id or package:NAME, found an empty string")
    found = _in_package(name) if name.startswith(PACKAGE) else _in_folder(name, options)
    if found is not None:
        if revision is not None:
            raise _invalid(f"revision: {name!r} is a {found.kind}, which has no revisions; leave it out")
        return found
    if Path(name).is_absolute() or name.startswith((".", "~")) or not _HUB_ID.fullmatch(name):
        raise _not_found(name, f"There is no folder {name!r} with a model in it (a {CONFIG}).")
    return _on_hub(name, options, revision or options.revision)


def is_local(name: str, options: Options) -> bool:
    """Whether a name leads to a folder or into a package, whatever else may be called like that.

    Raises:
        BridgeError: `permission_denied`, the folder lies outside of `models_folder`.
    """
    return name.startswith(PACKAGE) or _in_folder(name, options) is not None


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file; empty if there is no such file.

    Raises:
        BridgeError: `invalid_argument`, it holds none.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise _invalid(f"{path} is not JSON: {error}", file=str(path)) from error
    if not isinstance(found, dict):
        raise _invalid(f"{path} does not hold a JSON object", file=str(path))
    return found


def holds_model(folder: Path) -> bool:
    """Whether a folder has the files of a model or a tokenizer."""
    return any((folder / mark).is_file() for mark in MARKS)


def _in_package(name: str) -> Located:
    package, _, inside = name.removeprefix(PACKAGE).partition("/")
    try:
        spec = find_spec(package) if re.fullmatch(r"\w+(\.\w+)*", package) else None
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise BridgeError(
            ErrorCode.MISSING_PACKAGE,
            f"model: {name!r}: there is no package {package!r} in this environment: "
            f"pip install {package.replace('_', '-')}",
            details={"package": package},
        )
    root = Path(next(iter(spec.submodule_search_locations))).resolve()
    asked = (root / inside).resolve()
    if not asked.is_relative_to(root):
        raise _invalid(f"model: {name!r} leads out of the package")
    for folder in (asked, *sorted(path for path in asked.glob("*") if path.is_dir())):
        if holds_model(folder):
            return Located(name, folder, "package")
    raise _not_found(name, f"The package {package!r} carries no model (no {CONFIG} in {asked} or one folder below).")


def _in_folder(name: str, options: Options) -> Located | None:
    path = Path(name).expanduser()
    base = options.models_path
    for start in dict.fromkeys((path if base is None else base / path, path)):
        folder = start.resolve()
        if folder.is_dir() and holds_model(folder):
            _allow(name, folder, options)
            return Located(name, folder, "folder")
    return None


def _allow(name: str, folder: Path, options: Options) -> None:
    roots = [Path(each).expanduser().resolve() for each in (options.models_folder, options.runs_folder) if each]
    if options.models_folder is not None and not any(folder.is_relative_to(root) for root in roots):
        raise BridgeError(
            ErrorCode.PERMISSION_DENIED,
            f"model: {name!r} lies outside of the bridge's models_folder ({roots[0]}); move it there",
            details={"models_folder": str(roots[0])},
        )


def _on_hub(name: str, options: Options, revision: str | None) -> Located:
    import huggingface_hub

    try:
        folder = Path(
            huggingface_hub.snapshot_download(
                name, revision=revision, local_files_only=options.local_files_only, allow_patterns=list(FETCHED)
            )
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise _hub_error(name, options, revision, error) from error
    return Located(name, folder, "hub", folder.name)


def _hub_error(name: str, options: Options, revision: str | None, error: Exception) -> BridgeError:
    known = translate(error)
    code = known.code if known is not None else ErrorCode.PROVIDER_UNAVAILABLE
    asked = f"{name!r}" if revision is None else f"{name!r} at revision {revision!r}"
    details: dict[str, Any] = {"model": name, "revision": revision}
    if options.local_files_only and code in (ErrorCode.PROVIDER_NOT_FOUND, ErrorCode.PROVIDER_UNAVAILABLE):
        text = (
            f"There is no folder {name!r} with a model in it, and {asked} is not in this machine's hub cache. Nothing "
            "is fetched: HF_HUB_OFFLINE is set, because the bridge's option local_files_only is true. Give a folder, "
            "put the model into the cache, or set local_files_only = false."
        )
        return BridgeError(
            ErrorCode.PROVIDER_NOT_FOUND,
            text,
            details={**details, "HF_HUB_OFFLINE": True},
            type=type(error).__name__,
        )
    if type(error).__name__ == "LocalEntryNotFoundError":  # the hub could not be asked, so the cache was
        code = ErrorCode.PROVIDER_UNAVAILABLE
    shown = known.message if known is not None else str(error)
    return BridgeError(code, f"The hub could not give {asked}: {shown}", details=details, type=type(error).__name__)


def _not_found(name: str, text: str) -> BridgeError:
    return BridgeError(ErrorCode.PROVIDER_NOT_FOUND, text, details={"model": name})


def _invalid(text: str, **details: Any) -> BridgeError:
    return BridgeError(ErrorCode.INVALID_ARGUMENT, text, details=details)
