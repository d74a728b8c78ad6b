"""The files that hold a model's numbers: which are taken, whether they are whole, how much memory they will want.

Only safetensors: a pickle (`pytorch_model.bin`, `*.pt`) runs code when it is read. A file's header says where each
tensor lies, so a file that was cut off or mixed up is found, with its name, before anything is loaded. See
https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from manybridge.bridge import BridgeError
from manybridge.protocol.errors import ErrorCode

SINGLE: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"
ADAPTER: Final = "adapter_model.safetensors"
PICKLES: Final = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")
MAX_HEADER: Final = 100_000_000
"""The format's own limit, in bytes; a longer one is no header."""

_BITS: Final = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U8": 8, "U16": 16,
    "U32": 32, "U64": 64, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8,
}  # fmt: skip
_FLOATS: Final = frozenset({"F64", "F32", "F16", "BF16"})
FLOAT_BYTES: Final = {"float32": 4, "float16": 2, "bfloat16": 2, "float64": 8}


@dataclass(frozen=True, slots=True)
class Weights:
    """The weight files of a model folder."""

    files: tuple[Path, ...]
    parameters: int
    """Numbers in all tensors."""
    stored_bytes: int
    """Of all tensors, as they are stored."""
    dtypes: tuple[str, ...]
    """Of the tensors, in the words of the format (F32, BF16, ...), the most frequent first."""
    float_parameters: int
    """How many of the numbers a change of dtype changes."""

    def bytes_as(self, dtype: str) -> int:
        """How much memory they take, loaded as `dtype` ("auto": as stored)."""
        if dtype not in FLOAT_BYTES:
            return self.stored_bytes
        others = self.parameters - self.float_parameters
        return self.float_parameters * FLOAT_BYTES[dtype] + others * 8

    @property
    def stamp(self) -> tuple[tuple[str, int, int], ...]:
        """Changes when a file does: its name, size and time."""
        found = [(path, path.stat()) for path in self.files]
        return tuple((path.name, stat.st_size, stat.st_mtime_ns) for path, stat in found)


def inspect(folder: Path) -> Weights:
    """Find the weight files of a folder and check that they are whole.

    Raises:
        BridgeError: `permission_denied` for pickled weights, `invalid_argument` for missing or damaged ones.
    """
    files = _files(folder)
    if not files:
        raise _none_there(folder)
    tensors = [tensor for path in files for tensor in _tensors(path)]
    sizes = {dtype: 0 for _, dtype, _ in tensors}
    for count, dtype, _ in tensors:
        sizes[dtype] += count
    return Weights(
        files=tuple(files),
        parameters=sum(sizes.values()),
        stored_bytes=sum(length for _, _, length in tensors),
        dtypes=tuple(sorted(sizes, key=lambda dtype: -sizes[dtype])),
        float_parameters=sum(count for dtype, count in sizes.items() if dtype in _FLOATS),
    )


def _files(folder: Path) -> list[Path]:
    single, index = folder / SINGLE, folder / INDEX
    if single.is_file():
        return [single]
    if index.is_file():
        return _shards(folder, index)
    adapter = folder / ADAPTER
    return [adapter] if adapter.is_file() else []


def _shards(folder: Path, index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(index, "it is not an index of weight files") from error
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise damaged(folder / missing[0], f"{INDEX} names it, and it is not there")
    return [folder / name for name in names]


def _none_there(folder: Path) -> BridgeError:
    pickles = sorted(
        path.name for pattern in PICKLES for path in folder.glob(pattern) if path.name != "training_args.bin"
    )
    if pickles:
        return BridgeError(
            ErrorCode.PERMISSION_DENIED,
            f"{folder} holds its weights only as a pickle ({', '.join(pickles)}), which may run any code when it is "
            "read. Only safetensors are loaded: convert it where you trust it, with "
            "AutoModel.from_pretrained(...).save_pretrained(...), or take a revision that has model.safetensors.",
            details={"folder": str(folder), "files": pickles},
        )
    return BridgeError(
        ErrorCode.INVALID_ARGUMENT,
        f"{folder} holds no weights: expected {SINGLE} or {INDEX}",
        details={"folder": str(folder)},
    )


def damaged(path: Path, reason: str) -> BridgeError:
    """The error for a weight file that can't be used."""
    return BridgeError(
        ErrorCode.INVALID_ARGUMENT,
        f"The weights in {path} are damaged: {reason}. Fetch or save the file again.",
        details={"file": str(path), "reason": reason},
        type="SafetensorError",  # what the framework raises for it, without the name of the file
    )


def _tensors(path: Path) -> list[tuple[int, str, int]]:
    """Numbers, dtype and bytes of every tensor in a file."""
    header, body = _header(path)
    tensors: list[tuple[int, str, int]] = []
    end = 0
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        try:
            begin, stop = entry["data_offsets"]
            count, dtype = math.prod(entry["shape"]), entry["dtype"]
        except (TypeError, ValueError, KeyError) as error:
            raise damaged(path, f"its header does not say where {name!r} lies") from error
        if not 0 <= begin <= stop or (dtype in _BITS and (stop - begin) * 8 != count * _BITS[dtype]):
            raise damaged(path, f"its header gives {name!r} the wrong size")
        tensors.append((count, dtype, stop - begin))
        end = max(end, stop)
    if end != body:
        raise damaged(path, f"its header describes {end} bytes of tensors, and {body} are there")
    return tensors


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """The header of a file, and how many bytes follow it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(MAX_HEADER, size - 8):
            raise damaged(path, f"{size} bytes, and no header of the safetensors format at its beginning")
        try:
            header = json.loads(file.read(length))
        except ValueError as error:
            raise damaged(path, "its header is not JSON") from error
    if not isinstance(header, dict):
        raise damaged(path, "its header is not an object")
    return header, size - 8 - length
