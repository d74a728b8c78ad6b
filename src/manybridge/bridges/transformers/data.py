"""The resource type `dataset`: rows with named columns, made from a recipe.

Theory of operation. A dataset is its recipe: where rows come from (`rows`, `files` or another dataset), and what is
done to them, always in the order `select`, `shuffle`, `split`, `template`, `tokenize`. The same recipe gives the same
rows in every worker, so the policy is `recreate` and a training run only has to remember the recipe. Everything stays
in memory: nothing is written to a cache, nothing asks the network.
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from manybridge.bridge import BridgeError, Context
from manybridge.bridges.common.held import Held
from manybridge.bridges.transformers.sources import (
    FileFormat,
    Folders,
    TextBy,
    invalid,
    kind,
    table_from_files,
    table_from_rows,
)
from manybridge.protocol.errors import ErrorCode

if TYPE_CHECKING:
    from manybridge.bridges.transformers.bridge import TransformersBridge

BATCH: Final = 1000
"""Rows between two looks at the cancel flag, and of one chunk of a stream."""
MAX_PAGE: Final = 10_000
"""Rows of one page. More come as a stream, chunk by chunk, so that no frame is too large."""
MAX_DEPTH: Final = 20
"""Recipes within recipes. Nobody writes more; a program that does has a bug."""
PAGE: Final = 100


@dataclass(frozen=True, slots=True)
class Select:
    """Which rows and columns to keep."""

    columns: list[str] | None = None
    offset: int = 0
    limit: int | None = None
    where: dict[str, Any] | None = None
    """Column -> value; rows that differ are left out."""


@dataclass(frozen=True, slots=True)
class Split:
    """One part of a dataset that is cut in two. The same seed and fraction always cut at the same rows."""

    part: Literal["train", "test"]
    test_fraction: float = 0.1
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Tokenize:
    """Turn a text column into `input_ids`."""

    model: str
    """Folder of a model or tokenizer."""
    column: str = "text"
    max_length: int | None = None
    """Longer texts are cut; by default nothing is."""


class Dataset(Held):
    """Rows with named columns, made again from their recipe wherever they are needed."""

    bridge: TransformersBridge

    def create(
        self,
        rows: list[dict[str, Any]] | None = None,
        files: str | list[str] | None = None,
        source: str | dict[str, Any] | None = None,
        file_format: FileFormat | None = None,
        text_by: TextBy = "line",
        select: Select | None = None,
        shuffle: int | None = None,
        split: Split | None = None,
        template: str | None = None,
        tokenize: Tokenize | None = None,
        *,
        ctx: Context,
    ) -> None:
        """Make a dataset from rows, files or another dataset.

        Args:
            rows: one object per row; or
            files: paths (`*` allowed) in the folders of the option data_folders; or
            source: another dataset, its id where this worker holds it, or its recipe (the same keys as here).
            file_format: of the files; by default what their suffixes say.
            text_by: what a row of a text file is.
            select: which rows and columns to keep.
            shuffle: a seed.
            split: cut in two and keep one part.
            template: text with {column} in it, which becomes the column `text`.
            tokenize: turn a text column into input_ids.
            ctx: the call.
        """
        given = [name for name, value in (("rows", rows), ("files", files), ("source", source)) if value is not None]
        if len(given) != 1:
            raise invalid(f"expected exactly one of rows, files and source, found {' and '.join(given) or 'none'}")
        if rows is not None:
            data = _wrap(table_from_rows(rows, "rows"))
        elif files is not None:
            names = [files] if isinstance(files, str) else files
            data = _wrap(table_from_files(_folders(self.bridge).find(names), file_format, text_by))
        else:
            assert source is not None
            data = open_dataset(self.bridge, source, ctx)
        if select is not None:
            data = _select(data, select)
        if shuffle is not None:
            data = data.shuffle(seed=shuffle, keep_in_memory=True)
        if split is not None:
            data = split_rows(data, split)
        if template is not None:
            data = _fill(data, template, ctx)
        if tokenize is not None:
            data = _tokenize(self.bridge, data, tokenize, ctx)
        self.data = data
        held_datasets(self.bridge)[self.id] = self

    def execute(
        self,
        offset: int = 0,
        limit: int = PAGE,
        columns: list[str] | None = None,
        split: Split | None = None,
        stream: bool = False,
        *,
        ctx: Context,
    ) -> dict[str, Any]:
        """Page through the rows; with `limit: 0`, only describe them.

        Args:
            offset: the first row.
            limit: rows at most, up to 10,000.
            columns: which; by default all.
            split: look at one part.
            stream: send all rows from `offset` on as chunks {offset, rows}, and none in the result.
            ctx: the call.
        """
        data = self.data if split is None else split_rows(self.data, split)
        described = describe(data)
        data = data if columns is None else data.select_columns(known_columns(data, columns))
        if stream:
            for start in range(max(offset, 0), len(data), BATCH):
                ctx.check()
                ctx.emit({"offset": start, "rows": page(data, start, BATCH)})
            return {**described, "offset": offset, "rows": []}
        if offset < 0 or not 0 <= limit <= MAX_PAGE:
            raise invalid(
                f"offset, limit: expected offset >= 0 and limit from 0 to {MAX_PAGE}; with stream, all rows come"
            )
        return {**described, "offset": offset, "rows": page(data, offset, limit)}

    def close(self) -> None:
        """Let go of the rows."""
        held_datasets(self.bridge).pop(self.id, None)
        self.data = None


# ---------------------------------------------------------------- datasets of one worker


def held_datasets(bridge: TransformersBridge) -> dict[str, Dataset]:
    """The datasets that this worker holds, by id."""
    held: dict[str, Dataset] = bridge.__dict__.setdefault("_datasets", {})
    return held


def open_dataset(bridge: TransformersBridge, reference: str | dict[str, Any], ctx: Context) -> Any:
    """Return the rows behind an id or a recipe.

    Raises:
        BridgeError: `resource_not_found`, or what is wrong with the recipe.
    """
    if isinstance(reference, str):
        return _held(bridge, reference, ctx).data
    made = _from_recipe(bridge, reference, ctx)
    return made.data


def recipe_of(bridge: TransformersBridge, reference: str | dict[str, Any], ctx: Context) -> dict[str, Any]:
    """Return a recipe in which no id is left, so that another worker can follow it.

    Raises:
        BridgeError: `resource_not_found`.
    """
    recipe = _held(bridge, reference, ctx).config if isinstance(reference, str) else reference
    source = recipe.get("source")
    return {**recipe, "source": recipe_of(bridge, source, ctx)} if isinstance(source, (str, dict)) else recipe


def _held(bridge: TransformersBridge, id: str, ctx: Context) -> Dataset:
    found = held_datasets(bridge).get(id)
    if found is None or found.session_id not in (None, ctx.session_id):
        raise BridgeError(
            ErrorCode.RESOURCE_NOT_FOUND,
            f"Dataset not found: {id}. A dataset that only another worker of the pool holds can't be reached by its id "
            "either: give its recipe (the object that it was created with), which any worker can follow.",
            details={"id": id},
        )
    return found


def _from_recipe(bridge: TransformersBridge, recipe: dict[str, Any], ctx: Context) -> Dataset:
    depth, inner = 0, recipe.get("source")
    while isinstance(inner, dict):
        depth, inner = depth + 1, inner.get("source")
    if depth > MAX_DEPTH:
        raise invalid(f"source: more than {MAX_DEPTH} recipes within each other")
    spec = bridge.spec.resources["dataset"]
    made: Dataset = spec.new(bridge, f"recipe-{id(recipe)}", ctx.session_id, recipe)
    arguments = spec.create.bind(made)
    arguments.function(**arguments.validate(recipe), ctx=ctx)
    held_datasets(bridge).pop(made.id, None)
    return made


def _folders(bridge: TransformersBridge) -> Folders:
    return Folders(bridge.options.data_folders)


# ---------------------------------------------------------------- what is done to rows


def _wrap(table: Any) -> Any:
    from manybridge.bridges.transformers.pretrained import import_datasets

    return import_datasets().Dataset(table)


def describe(data: Any) -> dict[str, Any]:
    """Rows, columns and features of a dataset."""
    features = {name: _feature(feature) for name, feature in data.features.items()}
    return {"total": len(data), "columns": list(data.column_names), "features": features}


def _feature(feature: Any) -> str:
    # Value("string") -> string, List(Value("int64")) -> list[int64]; structures in Arrow's own words.
    dtype, inner = getattr(feature, "dtype", None), getattr(feature, "feature", None)
    if inner is not None:
        return f"list[{_feature(inner)}]"
    return "struct" if isinstance(feature, dict) else str(dtype or feature)


def known_columns(data: Any, names: list[str]) -> list[str]:
    """Return the names if all are columns.

    Raises:
        BridgeError: `invalid_argument` naming the one that is not, and those that are.
    """
    for name in names:
        if name not in data.column_names:
            raise invalid(f"no column {name!r}; the dataset has {', '.join(data.column_names)}", column=name)
    return names


def page(data: Any, offset: int, limit: int) -> list[dict[str, Any]]:
    """Return some rows as JSON."""
    table = data.with_format("arrow")[offset : min(offset + limit, len(data))] if limit and offset < len(data) else None
    return [] if table is None else [_plain(row) for row in table.to_pylist()]


def _plain(value: Any) -> Any:
    """A value of Arrow as JSON carries it; dates as ISO 8601."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)


def _select(data: Any, select: Select) -> Any:
    if select.where:
        known_columns(data, list(select.where))
        columns = [data[name] for name in select.where]
        wanted = list(select.where.values())
        kept = [number for number, row in enumerate(zip(*columns, strict=True)) if list(row) == wanted]
        data = data.select(kept, keep_in_memory=True)
    if select.offset < 0 or (select.limit is not None and select.limit < 0):
        raise invalid("select: offset and limit can't be negative")
    end = len(data) if select.limit is None else min(len(data), select.offset + select.limit)
    data = data.select(range(min(select.offset, end), end), keep_in_memory=True)
    return data if select.columns is None else data.select_columns(known_columns(data, select.columns))


def split_rows(data: Any, split: Split) -> Any:
    """Cut in two by seed, and return one part.

    Raises:
        BridgeError: `invalid_argument`: a fraction that leaves one part without a row.
    """
    tests = round(len(data) * split.test_fraction)
    if not 0 < split.test_fraction < 1 or not 0 < tests < len(data):
        raise invalid(
            f"split.test_fraction: {split.test_fraction} of {len(data)} rows is {tests}; expected one between 0 and "
            "1 that leaves a row on either side"
        )
    parts = data.train_test_split(test_size=tests, seed=split.seed, keep_in_memory=True)
    return parts[split.part]


def _fill(data: Any, template: str, ctx: Context) -> Any:
    pieces = _template_pieces(template)
    known_columns(data, [name for _, name in pieces if name is not None])
    texts: list[str] = []
    for start in range(0, len(data), BATCH):
        ctx.check()
        texts += [_filled(pieces, row, start + number) for number, row in enumerate(page(data, start, BATCH))]
    kept = data.remove_columns("text") if "text" in data.column_names else data
    return kept.add_column("text", texts)


def _template_pieces(template: str) -> list[tuple[str, str | None]]:
    """Cut a template into (text, column behind it); only plain names: `{a.b}` and `{a:>9}` are programs in disguise."""
    try:
        pieces = list(string.Formatter().parse(template))
    except ValueError as error:
        raise invalid(f"template: {error}; write {{{{ and }}}} for braces that stay") from error
    for _, name, form, conversion in pieces:
        if form or conversion or name == "":
            raise invalid("template: expected plain column names in braces, for example {question}")
    return [(text, name) for text, name, _, _ in pieces]


def _filled(pieces: list[tuple[str, str | None]], row: dict[str, Any], number: int) -> str:
    for _, name in pieces:
        if name is not None and row[name] is None:
            raise invalid(f"template: row {number}, column {name!r}: null can't be put into a text", row=number)
    return "".join(text if name is None else f"{text}{row[name]}" for text, name in pieces)


def texts_of(data: Any, column: str) -> list[str]:
    """Return a column of text.

    Raises:
        BridgeError: `invalid_argument` with row and column if there is anything else in it.
    """
    known_columns(data, [column])
    texts: list[str] = list(data[column])
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise invalid(f"row {number}, column {column!r}: expected a string, found {kind(text)}", row=number)
    return texts


def _tokenize(bridge: TransformersBridge, data: Any, wanted: Tokenize, ctx: Context) -> Any:
    from manybridge.bridges.transformers.locating import locate
    from manybridge.bridges.transformers.pretrained import load_tokenizer

    if wanted.max_length is not None and wanted.max_length < 1:
        raise invalid("tokenize.max_length: expected an integer from 1 on")
    tokenizer = load_tokenizer(bridge, locate(wanted.model, bridge.options).folder)
    ids = token_ids(tokenizer, texts_of(data, wanted.column), wanted.max_length, ctx)
    kept = data.remove_columns("input_ids") if "input_ids" in data.column_names else data
    return kept.add_column("input_ids", ids)


def token_ids(tokenizer: Any, texts: list[str], max_length: int | None, ctx: Context) -> list[list[int]]:
    """Tokenize, batch by batch, with progress."""
    ids: list[list[int]] = []
    for start in range(0, len(texts), BATCH):
        ctx.check()
        # Without a limit, a text longer than the model takes is no business of a tokenizer; verbose warns about it.
        batch = tokenizer(
            texts[start : start + BATCH], truncation=max_length is not None, max_length=max_length, verbose=False
        )
        ids += batch["input_ids"]
        ctx.progress(len(ids), len(texts), "tokenizing")
    return ids
