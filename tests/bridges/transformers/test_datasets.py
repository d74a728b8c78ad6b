"""Datasets in a real worker: where rows come from, what is done to them, and errors that name row and column."""

from __future__ import annotations

import csv
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bridges.transformers.training_support import Bench, Caller

pytestmark = [pytest.mark.framework, pytest.mark.timeout(180)]  # the first test pays for a worker and its imports

ROWS = [{"question": f"{n} + {n}", "answer": 2 * n, "even": n % 2 == 0} for n in range(10)]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Folders."""
    return Bench(tmp_path_factory.mktemp("datasets"))


@pytest.fixture(scope="module")
def worker(bench: Bench) -> Iterator[Caller]:
    """One worker for all tests: PyTorch is imported once."""
    with bench.worker() as caller:
        yield caller


def preview(worker: Caller, **recipe: Any) -> Any:
    """Follow a recipe."""
    return worker.result("transformers:preview_dataset", {"dataset": recipe})


def refused(worker: Caller, **recipe: Any) -> dict[str, Any]:
    """Follow a recipe that can't be followed."""
    return worker.error("transformers:preview_dataset", {"dataset": recipe})


# ---------------------------------------------------------------- the resource


def test_a_dataset_is_created_paged_streamed_listed_and_deleted(worker: Caller) -> None:
    """On the raw wire."""
    created = worker.result("common:create_resource", {"type": "dataset", "config": {"rows": ROWS}, "id": "sums"})
    assert (created["id"], created["type"]) == ("sums", "dataset")
    found = worker.result("common:execute_resource", {"id": "sums", "inputs": {"offset": 8, "limit": 5}})
    assert found["rows"] == ROWS[8:]
    assert (found["total"], found["offset"]) == (10, 8)
    assert found["features"] == {"question": "string", "answer": "int64", "even": "bool"}
    streamed = worker.result("common:execute_resource", {"id": "sums", "inputs": {"stream": True}}, stream=True)
    assert [row for chunk in worker.events("chunk") for row in chunk["rows"]] == ROWS
    assert streamed["rows"] == []
    listed = worker.result("common:list_resources", {"type": "dataset"})
    assert [each["id"] for each in listed["resources"]] == ["sums"]
    assert worker.result("common:delete_resource", {"id": "sums"})["deleted"]
    assert worker.error("common:execute_resource", {"id": "sums", "inputs": {}})["code"] == "resource_not_found"


def test_another_dataset_is_a_source_by_id_or_by_recipe(worker: Caller) -> None:
    """An id that is not there says what to do instead."""
    worker.result("common:create_resource", {"type": "dataset", "config": {"rows": ROWS}, "id": "base"})
    by_id = preview(worker, source="base", select={"where": {"even": True}})
    by_recipe = preview(worker, source={"rows": ROWS}, select={"where": {"even": True}})
    assert by_id == by_recipe
    assert by_id["total"] == 5
    worker.result("common:delete_resource", {"id": "base"})
    error = refused(worker, source="base")
    assert error["code"] == "resource_not_found"
    assert "give its recipe" in error["message"]


def test_a_dataset_of_another_session_is_not_found(worker: Caller) -> None:
    """By id, also as the source of another one."""
    config = {"type": "dataset", "config": {"rows": ROWS}, "id": "mine"}
    worker.result("common:create_resource", config, session_id="one")
    args = {"dataset": {"source": "mine"}}
    assert worker.error("transformers:preview_dataset", args, session_id="two")["code"] == "resource_not_found"
    assert worker.result("transformers:preview_dataset", args, session_id="one")["total"] == 10


# ---------------------------------------------------------------- files


def write_files(folder: Path) -> None:
    """Write the same rows in every format."""
    rows = [{"name": "Ada", "born": 1815}, {"name": 'Grace, "Amazing"', "born": 1906}]
    (folder / "people.json").write_text(json.dumps(rows), encoding="utf-8")
    (folder / "people.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with (folder / "people.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["name", "born"])
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.parametrize("suffix", ["json", "jsonl", "csv", "parquet"])
def test_files_of_every_format_give_the_same_rows(worker: Caller, bench: Bench, suffix: str) -> None:
    """Types included."""
    write_files(bench.data)
    if suffix == "parquet":
        code = (
            "import sys; from pyarrow import json, parquet; _, source, target = sys.argv; "
            "parquet.write_table(json.read_json(source), target)"
        )
        files = [bench.data / "people.jsonl", bench.data / "people.parquet"]
        subprocess.run([bench.python, "-c", code, *files], check=True)
    found = preview(worker, files=f"people.{suffix}")
    assert found["rows"] == [{"name": "Ada", "born": 1815}, {"name": 'Grace, "Amazing"', "born": 1906}]
    assert found["features"] == {"name": "string", "born": "int64"}


def test_text_files_are_cut_by_line_paragraph_or_not_at_all(worker: Caller, bench: Bench) -> None:
    """Blank rows are none; several files come one behind the other."""
    (bench.data / "a.txt").write_text("one\ntwo\n\nthree\n", encoding="utf-8")
    (bench.data / "b.txt").write_text("four", encoding="utf-8")
    texts = {
        by: [row["text"] for row in preview(worker, files="[ab].txt", text_by=by)["rows"]]
        for by in ("line", "paragraph", "file")
    }
    assert texts["line"] == ["one", "two", "three", "four"]
    assert texts["paragraph"] == ["one\ntwo", "three", "four"]
    assert texts["file"] == ["one\ntwo\n\nthree", "four"]


def test_files_outside_of_the_folders_are_refused(worker: Caller, bench: Bench, tmp_path: Path) -> None:
    """By absolute path, by climbing out, by a link that leads out; whether they exist or not."""
    secret = tmp_path / "secret.txt"
    secret.write_text("secret", encoding="utf-8")
    link = bench.data / "link.txt"
    link.symlink_to(secret)
    climbing = os.path.relpath(secret, bench.data)
    for name in (str(secret), climbing, "link.txt", "/etc/no-such-file.txt", "/etc/passwd"):
        error = refused(worker, files=name, file_format="text")
        assert error["code"] == "permission_denied", name
        assert "data_folders" in error["message"]
    link.unlink()


def test_without_folders_no_file_is_read(bench: Bench) -> None:
    """The default of the option is none."""
    with bench.worker(data_folders=[]) as worker:
        error = refused(worker, files="people.json")
        assert error["code"] == "permission_denied"
        assert "data_folders names no folder" in error["message"]


BROKEN = {
    "array.json": ('{"a": 1}', "array.json: expected an array of objects, found an object"),
    "comma.json": ('[{"a": 1},]', "comma.json: line 1, column 1"),
    "third.jsonl": ('{"a": 1}\n\n{"a": }\n', "third.jsonl: line 3, character 7: not JSON"),
    "mixed.jsonl": ('{"a": 1}\n{"a": 2}\n{"a": "x"}\n', "row 2, column 'a': expected an integer"),
    "short.csv": ("a,b\n1,2\n3\n", "short.csv: row 3: expected 2 columns, found 1"),
    "none.parquet": ("PAR", "none.parquet is no Parquet file"),
    "what.xyz": ("x", "the suffix '.xyz' says no format"),
    "empty.txt": ("\n\n", "empty.txt has no text"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_named_with_row_and_column(worker: Caller, bench: Bench, name: str) -> None:
    """And what it says is not repeated."""
    content, said = BROKEN[name]
    (bench.data / name).write_text(content, encoding="utf-8")
    error = refused(worker, files=name)
    assert (error["code"], said in error["message"]) == ("invalid_argument", True), error["message"]


def test_files_with_columns_of_different_types_are_named(worker: Caller, bench: Bench) -> None:
    """Both, with the column."""
    (bench.data / "n1.jsonl").write_text('{"a": 1}', encoding="utf-8")
    (bench.data / "n2.jsonl").write_text('{"a": "x"}', encoding="utf-8")
    error = refused(worker, files=["n1.jsonl", "n2.jsonl"])
    assert "column 'a' is int64 in n1.jsonl and string in n2.jsonl" in error["message"]


# ---------------------------------------------------------------- what is done to rows


def test_rows_are_selected_shuffled_split_and_put_into_a_template(worker: Caller) -> None:
    """The same seed gives the same rows; the parts of a split have every row once."""
    shuffled = preview(worker, rows=ROWS, shuffle=7)
    assert shuffled == preview(worker, rows=ROWS, shuffle=7)
    assert shuffled["rows"] != ROWS
    parts = [
        preview(worker, rows=ROWS, split={"part": part, "test_fraction": 0.3}, template="{question} = {answer}")
        for part in ("train", "test")
    ]
    assert [part["total"] for part in parts] == [7, 3]
    texts = {row["text"] for part in parts for row in part["rows"]}
    assert texts == {f"{n} + {n} = {2 * n}" for n in range(10)}
    assert preview(worker, rows=ROWS, select={"columns": ["even"], "offset": 1, "limit": 2})["rows"] == [
        {"even": False}, {"even": True},
    ]  # fmt: skip


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, "expected exactly one of rows, files and source, found none"),
    "two sources": ({"rows": ROWS, "files": "x"}, "found rows and files"),
    "no rows": ({"rows": []}, "no rows"),
    "mixed": ({"rows": [{"a": 1}, {"a": [1]}]}, "row 1, column 'a': expected an integer as in the rows before"),
    "no such column": ({"rows": ROWS, "template": "{wrong}"}, "no column 'wrong'; the dataset has question, answer"),
    "a program": ({"rows": ROWS, "template": "{answer.__class__}"}, "no column 'answer.__class__'"),
    "a format": ({"rows": ROWS, "template": "{answer:>999999999}"}, "expected plain column names"),
    "null": ({"rows": [{"a": "x"}, {"a": None}], "template": "{a}"}, "template: row 1, column 'a': null"),
    "a split of all": ({"rows": ROWS, "split": {"part": "test", "test_fraction": 1.0}}, "split.test_fraction"),
    "unknown key": ({"rows": ROWS, "sufffle": 1}, "did you mean 'shuffle'?"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_recipe_that_can_not_be_followed_says_why(worker: Caller, case: str) -> None:
    """With row and column where there are some, and never a value."""
    recipe, said = REFUSED[case]
    error = refused(worker, **recipe)
    assert (error["code"], said in error["message"]) == ("invalid_argument", True), error["message"]
