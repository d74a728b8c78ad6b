"""Rows from the caller or from files in allowed folders, as an Arrow table.

Files are read here and not by `datasets.load_dataset`: that one copies each file into a cache in the user's home, asks
the network on the way, and its errors name neither row nor column. Errors here do, and never repeat a value.
"""

from __future__ import annotations

import glob
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from manybridge.bridge import BridgeError
from manybridge.protocol.errors import ErrorCode

FileFormat = Literal["json", "jsonl", "csv", "parquet", "text"]
TextBy = Literal["line", "paragraph", "file"]

SUFFIXES: Final[dict[str, FileFormat]] = {
    ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet", ".txt": "text",
    ".md": "text",
}  # fmt: skip


def invalid(message: str, **details: Any) -> BridgeError:
    """An `invalid_argument`: what was wrong, what was expected."""
    return BridgeError(ErrorCode.INVALID_ARGUMENT, message, details=details)


# ---------------------------------------------------------------- rows


def table_from_rows(rows: Sequence[Any], where: str) -> Any:
    """Make a table; the columns are all keys in the order of their first appearance, absent values are null.

    Args:
        rows: one object per row.
        where: what the rows are called in an error, for example `rows` or a file's name.

    Raises:
        BridgeError: `invalid_argument` with row and column.
    """
    import pyarrow as pa

    names: dict[str, None] = {}
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise invalid(f"{where}: row {number}: expected an object, found {kind(row)}", row=number)
        names.update(dict.fromkeys(row))
    if not names:
        raise invalid(f"{where}: no rows; expected at least one object with at least one column")
    columns = {name: _column([row.get(name) for row in rows], name, where) for name in names}
    return pa.table(columns)


def _column(values: list[Any], name: str, where: str) -> Any:
    import pyarrow as pa

    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        row, expected, found = _odd_one(values)
        raise invalid(
            f"{where}: row {row}, column {name!r}: expected {expected} as in the rows before, found {found}",
            row=row, column=name,
        ) from error  # fmt: skip


def _odd_one(values: list[Any]) -> tuple[int, str, str]:
    """Find the first value that does not go with those before it."""
    import pyarrow as pa

    low, high = 0, len(values)
    while high - low > 1:  # the shortest beginning that has no common type ends with the culprit
        middle = (low + high) // 2
        try:
            pa.array(values[:middle])
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            high = middle
        else:
            low = middle
    before = next((kind(value) for value in values[: high - 1] if value is not None), "something else")
    return high - 1, before, kind(values[high - 1])


def kind(value: Any) -> str:
    """Name the JSON type of a value, for people; never the value, which may be anybody's text."""
    names = {
        bool: "a boolean",
        int: "an integer",
        float: "a number",
        str: "a string",
        list: "an array",
        dict: "an object",
    }
    return "null" if value is None else names.get(type(value), type(value).__name__)


# ---------------------------------------------------------------- files


class Folders:
    """The folders that files may come from.

    Args:
        allowed: as the option `data_folders` names them.
    """

    def __init__(self, allowed: Iterable[str]) -> None:
        self.allowed = [Path(folder).expanduser().resolve() for folder in allowed]

    def find(self, names: Sequence[str]) -> list[Path]:
        """Return the files that the names stand for; a relative one is looked for in each folder, `*` may stand in it.

        Raises:
            BridgeError: `permission_denied` outside of the folders, `invalid_argument` if there is no such file.
        """
        if not self.allowed:
            raise BridgeError(
                ErrorCode.PERMISSION_DENIED,
                "This bridge reads no files: its option data_folders names no folder. Name some in the configuration "
                '(options = { data_folders = ["/srv/data"] }), or send the rows themselves.',
            )
        return [path for name in names for path in self._find(name)]

    def _find(self, name: str) -> list[Path]:
        asked = Path(name)
        starts = [asked] if asked.is_absolute() else [folder / asked for folder in self.allowed]
        found = [path for start in starts for path in _expand(start)]
        inside = [path for path in found if self._allows(path)]
        if inside:
            return inside
        if found or not any(self._allows(start.resolve()) for start in starts):
            shown = ", ".join(map(str, self.allowed))
            raise BridgeError(
                ErrorCode.PERMISSION_DENIED,
                f"files: {name!r} lies outside of the folders that this bridge may read ({shown}); move it there, or "
                "add its folder to the option data_folders",
                details={"file": name, "data_folders": [str(folder) for folder in self.allowed]},
            )
        raise invalid(f"files: there is no file {name!r} in {', '.join(map(str, self.allowed))}", file=name)

    def _allows(self, path: Path) -> bool:
        return any(path.is_relative_to(folder) for folder in self.allowed)


def _expand(start: Path) -> list[Path]:
    """The files that a path names, links followed, so that a link out of a folder is outside."""
    if not any(character in str(start) for character in "*?["):
        return [start.resolve()] if start.is_file() else []
    found = [Path(name) for name in glob.glob(str(start), recursive=True)]  # noqa: PTH207  # Path.glob wants a base
    return [path.resolve() for path in sorted(found) if path.is_file()]


def table_from_files(paths: Sequence[Path], file_format: FileFormat | None, text_by: TextBy) -> Any:
    """Read files and put them one behind the other.

    Raises:
        BridgeError: `invalid_argument` with the file, and row and column where there are some.
    """
    import pyarrow as pa

    tables = [_read(path, file_format or _format_of(path), text_by) for path in paths]
    try:
        return pa.concat_tables(tables, promote_options="permissive").combine_chunks()
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise _differ(paths, tables) from error


def _differ(paths: Sequence[Path], tables: Sequence[Any]) -> BridgeError:
    first = tables[0].schema
    for path, table in zip(paths[1:], tables[1:], strict=True):
        for field in table.schema:
            index = first.get_field_index(field.name)
            if index >= 0 and first.field(index).type != field.type:
                return invalid(
                    f"files: column {field.name!r} is {first.field(index).type} in {paths[0].name} and {field.type} in "
                    f"{path.name}",
                    column=field.name, file=path.name,
                )  # fmt: skip
    return invalid("files: their columns have types that do not go together")


def _format_of(path: Path) -> FileFormat:
    found = SUFFIXES.get(path.suffix.lower())
    if found is None:
        raise invalid(
            f"files: {path.name}: the suffix {path.suffix!r} says no format; known: {', '.join(SUFFIXES)}. Name it: "
            'file_format = "json", "jsonl", "csv", "parquet" or "text"',
            file=path.name,
        )
    return found


def _read(path: Path, file_format: FileFormat, text_by: TextBy) -> Any:
    readers: dict[str, Callable[[Path], Any]] = {
        "json": _read_json,
        "jsonl": _read_jsonl,
        "csv": _read_csv,
        "parquet": _read_parquet,
        "text": lambda path: _read_text(path, text_by),
    }
    try:
        return readers[file_format](path)
    except OSError as error:
        raise invalid(f"files: {path.name} can't be read: {error.strerror}", file=path.name) from error
    except UnicodeDecodeError as error:
        raise invalid(f"files: {path.name} is not UTF-8 text, from byte {error.start} on", file=path.name) from error


def _read_json(path: Path) -> Any:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise invalid(
            f"files: {path.name}: {place}: not JSON ({error.msg})", file=path.name, line=error.lineno
        ) from error
    if not isinstance(rows, list):
        raise invalid(f"files: {path.name}: expected an array of objects, found {kind(rows)}", file=path.name)
    return table_from_rows(rows, path.name)


def _read_jsonl(path: Path) -> Any:
    return table_from_rows(list(_json_lines(path)), path.name)


def _json_lines(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                text = f"files: {path.name}: line {number}, character {error.colno}: not JSON ({error.msg})"
                raise invalid(text, file=path.name, line=number) from error


def _read_csv(path: Path) -> Any:
    from pyarrow import ArrowInvalid, csv

    broken: list[Any] = []

    def note(row: Any) -> str:
        broken.append(row)
        return "error"

    options = csv.ReadOptions(use_threads=False)  # with threads, Arrow can't tell the number of a row
    parsing = csv.ParseOptions(newlines_in_values=True, invalid_row_handler=note)
    try:
        return csv.read_csv(path, read_options=options, parse_options=parsing)
    except ArrowInvalid as error:
        if not broken:
            raise invalid(f"files: {path.name} is not CSV with a line of column names", file=path.name) from error
        row = broken[0]
        place = "" if row.number is None else f" row {row.number}:"
        raise invalid(
            f"files: {path.name}:{place} expected {row.expected_columns} columns, found {row.actual_columns}",
            file=path.name, row=row.number,
        ) from error  # fmt: skip


def _read_parquet(path: Path) -> Any:
    from pyarrow import ArrowInvalid, parquet

    try:
        return parquet.read_table(path, use_threads=False)
    except ArrowInvalid as error:
        raise invalid(f"files: {path.name} is no Parquet file, or a broken one", file=path.name) from error


def _read_text(path: Path, text_by: TextBy) -> Any:
    import pyarrow as pa

    text = path.read_text(encoding="utf-8")
    pieces = {"line": text.splitlines(), "paragraph": text.split("\n\n"), "file": [text]}[text_by]
    kept = [piece for piece in (piece.strip("\n") for piece in pieces) if piece.strip()]
    if not kept:
        raise invalid(f"files: {path.name} has no text", file=path.name)
    return pa.table({"text": pa.array(kept, pa.string())})
