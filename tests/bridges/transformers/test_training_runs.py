"""The folders of training runs, without a framework: names, locks, state, checkpoints and their damage."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from manybridge.bridge import BridgeError
from manybridge.bridges.transformers.runs import RunFolder, Runs, damage_of, disk_full
from tests.support import SOURCE


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run that exists."""
    made = Runs(tmp_path).at("one")
    with made.lock():
        made.write_recipe({"model": "m"})
    return made


def checkpoint(run: RunFolder, step: int, keep: int = 2) -> Path:
    """Write a checkpoint."""
    with run.staging() as staging:
        written = staging / "written"
        written.mkdir()
        (written / "weights").write_bytes(b"w" * step)
        run.keep(written, step, keep)
    return run.checkpoints_path / f"step-{step}"


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", ".staging-1", "x" * 101, "a\n", "-x"])
def test_a_name_can_not_lead_out_of_the_folder(tmp_path: Path, name: str) -> None:
    """Nor to anything hidden."""
    with pytest.raises(BridgeError) as raised:
        Runs(tmp_path).at(name)
    assert raised.value.code == "invalid_argument"


def test_a_run_that_is_not_there_is_told_with_those_that_are(tmp_path: Path, run: RunFolder) -> None:
    """By name."""
    with pytest.raises(BridgeError, match="there are one") as raised:
        Runs(tmp_path).find("two")
    assert raised.value.code == "resource_not_found"
    assert [each.name for each in Runs(tmp_path).all()] == ["one"]


def test_a_run_has_one_owner_at_a_time(run: RunFolder) -> None:
    """In one process; looking at it takes nothing from anybody."""
    with run.lock():
        assert run.is_locked()
        with pytest.raises(BridgeError) as raised, RunFolder(run.path).lock():
            pass
        assert raised.value.code == "conflict"
    assert not run.is_locked()


def test_a_dead_owner_leaves_an_interrupted_run(run: RunFolder) -> None:
    """The kernel lets go of the lock, whatever the state says."""
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from manybridge.bridges.transformers.runs import RunFolder\n"
        "run = RunFolder(Path(sys.argv[2])); lock = run.lock(); lock.__enter__(); run.update(state='running', step=3)\n"
        "print('owned', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-I", "-c", code, str(SOURCE), str(run.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert run.describe()["state"] == "running"
        process.kill()
        process.wait()
    found = run.describe()
    assert (found["state"], found["step"]) == ("interrupted", 3)


def test_the_last_checkpoints_are_kept(run: RunFolder) -> None:
    """By step, not by the order of names."""
    for step in (8, 9, 10):
        checkpoint(run, step)
    assert [each.step for each in run.checkpoints()] == [9, 10]
    assert not list(run.path.glob(".staging*"))


def test_damage_is_found_and_the_checkpoint_before_taken(run: RunFolder) -> None:
    """One flipped bit is enough."""
    checkpoint(run, 1)
    newest = checkpoint(run, 2)
    assert damage_of(newest) is None
    (newest / "weights").write_bytes(b"wx")
    found = run.newest_sound()
    assert found.checkpoint is not None
    assert found.checkpoint.step == 1
    assert found.warnings == ["checkpoint of step 2 is not used: weights is damaged"]
    (newest / "manifest.json").write_text("{", encoding="utf-8")
    assert damage_of(newest) == "its manifest.json is missing or damaged"


def test_an_interrupted_write_leaves_nothing_under_a_checkpoints_name(run: RunFolder) -> None:
    """What was written so far is gone."""
    staged = run.staging()
    (staged.__enter__() / "half").write_bytes(b"x")
    assert not staged.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert run.checkpoints() == []
    assert not list(run.path.glob(".staging*"))


def test_metrics_are_rewound_and_a_torn_line_is_left_out(run: RunFolder) -> None:
    """A crash may cut the last line off."""
    for step in (1, 2, 3):
        run.add_metrics({"step": step, "loss": 1 / step})
    with run.metrics_path.open("a", encoding="utf-8") as file:
        file.write('{"step": 4, "lo')
    assert [row["step"] for row in run.metrics()] == [1, 2, 3]
    run.rewind_metrics(2)
    assert [row["step"] for row in run.metrics()] == [1, 2]


def test_a_run_is_deleted_unless_it_is_trained(tmp_path: Path, run: RunFolder) -> None:
    """As a whole."""
    with run.lock(), pytest.raises(BridgeError) as raised:
        Runs(tmp_path).delete("one")
    assert raised.value.code == "conflict"
    Runs(tmp_path).delete("one")
    assert os.listdir(tmp_path) == []  # noqa: PTH208  # hidden ones too


def test_a_full_disk_is_told_in_the_words_of_every_library(tmp_path: Path) -> None:
    """And other failures are not."""
    full = [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("[enforce fail at inline_container.cc:672] . PytorchStreamWriter failed writing file data/0"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ]
    for error in full:
        translated = disk_full(error, tmp_path)
        assert translated is not None
        assert translated.details["reason"] == "disk_full"
    assert disk_full(ValueError("no"), tmp_path) is None
    assert disk_full(OSError(errno.EACCES, "Permission denied"), tmp_path) is None
