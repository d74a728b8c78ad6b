"""The bridge's options, read once and checked."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_type_hints

from manybridge.bridge import BridgeError
from manybridge.protocol.errors import ErrorCode

DEFAULT_MAX_BATCH: Final = 16
"""Items of one run of a model. More rows gain little on a CPU core and hold everybody up longer."""
DEFAULT_MAX_WAIT_MS: Final = 5.0
"""How long a call may wait for others to join it. A small model's run takes about as long on one core."""
CACHE_SHARE: Final = 0.5
"""Of the memory that is available at the start, where no budget is given; the rest is for activations and training."""


DtypeName = Literal["auto", "float32", "float16", "bfloat16"]
DTYPES: Final = get_args(DtypeName)


@dataclass(frozen=True, slots=True)
class Options:
    """What the configuration says; see `TransformersBridge` for each."""

    device: str = "cpu"
    threads: int = 1
    dtype: DtypeName = "auto"
    cache_bytes: int | None = None
    local_files_only: bool = True
    revision: str | None = None
    trust_remote_code: bool = False
    models_folder: str | None = None
    runs_folder: str | None = None
    data_folders: tuple[str, ...] = ()
    max_batch: int = DEFAULT_MAX_BATCH
    max_wait_ms: float = DEFAULT_MAX_WAIT_MS

    @property
    def models_path(self) -> Path | None:
        """Where relative model folders are looked for; None for the worker's own folder."""
        return None if self.models_folder is None else Path(self.models_folder).expanduser()


_ACCEPTED: Final[dict[Any, tuple[type, ...]]] = {
    str: (str,), DtypeName: (str,), str | None: (str, type(None)), int: (int,), int | None: (int, type(None)),
    bool: (bool,), float: (int, float), tuple[str, ...]: (list, tuple),
}  # fmt: skip
_AT_LEAST: Final[dict[str, int]] = {"threads": 1, "cache_bytes": 0, "max_batch": 1, "max_wait_ms": 0}


def read_options(given: dict[str, Any]) -> Options:
    """Check the options of the configuration.

    Raises:
        BridgeError: `config_error` that names the option, what was expected and what was found.
    """
    hints = get_type_hints(Options)
    known = [field.name for field in fields(Options)]
    for name, value in given.items():
        if name not in hints:
            raise _wrong(name, f"unknown; known options: {', '.join(known)}")
        _check(name, value, hints[name])
    folders = given.get("data_folders", ())
    return Options(**{**given, **({"data_folders": tuple(folders)} if folders else {})})


def _check(name: str, value: Any, hint: Any) -> None:
    accepted = _ACCEPTED[hint]
    if not isinstance(value, accepted) or (isinstance(value, bool) and bool not in accepted):
        expected = " or ".join("null" if each is type(None) else each.__name__ for each in accepted)
        raise _wrong(name, f"expected {expected}, found {type(value).__name__}")
    if isinstance(value, list | tuple) and not all(isinstance(item, str) for item in value):
        raise _wrong(name, "expected a list of strings")
    number: Any = value
    if name == "dtype" and value not in DTYPES:
        raise _wrong(name, f"expected {', '.join(DTYPES[:-1])} or {DTYPES[-1]}, found {value!r}")
    if name in _AT_LEAST and number is not None and number < _AT_LEAST[name]:
        raise _wrong(name, f"expected {_AT_LEAST[name]} or more, found {value}")
    if name == "threads" and number > (os.cpu_count() or 1):
        raise _wrong(name, f"expected at most {os.cpu_count()}, the cores of this machine, found {value}")


def _wrong(name: str, text: str) -> BridgeError:
    return BridgeError(
        ErrorCode.CONFIG_ERROR, f"options of the Transformers bridge: {name}: {text}", details={"option": name}
    )
