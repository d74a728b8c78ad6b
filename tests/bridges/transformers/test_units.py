"""Parts of the Transformers bridge that need no framework."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manybridge.bridge import BridgeError
from manybridge.bridges.transformers import TransformersBridge
from manybridge.bridges.transformers.devices import Device, choose
from manybridge.bridges.transformers.embedding import Recipe, recipe_of
from manybridge.bridges.transformers.errors import blaming, describe_item, translate
from manybridge.bridges.transformers.generation import Sampling, check_arguments
from manybridge.bridges.transformers.inputs import MAX_ITEMS, as_list, by_length
from manybridge.bridges.transformers.memory import available_bytes, resident_bytes, shown, unshared_bytes
from manybridge.bridges.transformers.options import Options
from manybridge.bridges.transformers.tasks import check_head, task_of
from manybridge.bridges.transformers.weights import inspect
from tests.support import SOURCE


def refusal(function: Any) -> BridgeError:
    """Return the BridgeError that `function` raises."""
    with pytest.raises(BridgeError) as caught:
        function()
    return caught.value


# ---------------------------------------------------------------- what an import costs


def test_importing_the_bridge_imports_no_framework_and_nothing_slow() -> None:
    """Also without any site-packages."""
    heavy = {"torch", "transformers", "numpy", "huggingface_hub", "msgspec", "manybridge.host"}
    code = (
        f"import sys; sys.path.insert(0, {str(SOURCE)!r}); import manybridge.bridges.transformers;"
        f"print(sorted({heavy!r} & sys.modules.keys()))"
    )
    ended = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"


def test_the_bridge_describes_itself_without_the_framework() -> None:
    """Types, commands, and a description for each."""
    described = TransformersBridge().spec.describe()
    assert {"model", "tokenizer", "pipeline", "dataset", "training"} <= set(described["resources"])
    assert {"transformers:train", "transformers:loaded_models", "transformers:unload"} <= set(described["commands"])
    assert all(each["description"] for each in described["commands"].values())
    assert described["resources"]["model"]["policy"] == "recreate"


# ---------------------------------------------------------------- weight files


def safetensors(path: Path, tensors: dict[str, tuple[str, list[int], int]]) -> None:
    """Write a file: name -> dtype, shape, bytes."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape, size) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    raw = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(end))


def test_the_header_tells_size_and_dtypes(tmp_path: Path) -> None:
    """And what another dtype would make of it."""
    safetensors(tmp_path / "model.safetensors", {"w": ("F32", [10, 5], 200), "ids": ("I64", [3], 24)})
    found = inspect(tmp_path)
    assert (found.parameters, found.stored_bytes, found.dtypes) == (53, 224, ("F32", "I64"))
    assert (found.bytes_as("auto"), found.bytes_as("bfloat16")) == (224, 100 + 24)
    before = found.stamp
    safetensors(tmp_path / "model.safetensors", {"w": ("F32", [1], 4)})
    assert inspect(tmp_path).stamp != before


def test_shards_are_read_together(tmp_path: Path) -> None:
    """As the index names them."""
    for number in (1, 2):
        safetensors(tmp_path / f"part-{number}.safetensors", {f"w{number}": ("F16", [8], 16)})
    index = {"weight_map": {"w1": "part-1.safetensors", "w2": "part-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert (inspect(tmp_path).parameters, len(inspect(tmp_path).files)) == (16, 2)


@given(data=st.binary(max_size=200))
def test_no_bytes_of_a_weight_file_do_more_than_be_refused(
    data: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever they are: a header is never believed."""
    folder = tmp_path_factory.getbasetemp() / "any-bytes"
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").write_bytes(data)
    assert refusal(lambda: inspect(folder)).code == "invalid_argument"


@pytest.mark.parametrize(
    "entry",
    [
        [],
        {"dtype": "F32", "shape": [1], "data_offsets": [0]},
        {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]},
        {"dtype": "F32", "shape": ["one"], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]},
    ],
)
def test_a_header_that_does_not_fit_is_refused(tmp_path: Path, entry: Any) -> None:
    """With the tensor's name."""
    raw = json.dumps({"w": entry}).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(4))
    error = refusal(lambda: inspect(tmp_path))
    assert (error.code, "'w'" in error.message) == ("invalid_argument", True)


# ---------------------------------------------------------------- choices

GPUS = [Device("cpu", 1000), Device("cuda:0", 50, 100), Device("cuda:1", 80, 100)]


@pytest.mark.parametrize(
    ("asked", "needed", "name"),
    [("auto", 10, "cuda:1"), ("auto", 90, "cpu"), ("cpu", 10, "cpu"), ("cuda", 10, "cuda:0"), ("cuda:1", 0, "cuda:1")],
)
def test_a_device_is_chosen_by_name_or_by_free_memory(asked: str, needed: int, name: str) -> None:
    """What does not fit on an accelerator goes to the CPU."""
    assert choose(asked, GPUS, needed).name == name


def test_a_device_that_is_not_there_is_refused_with_those_that_are() -> None:
    """By name."""
    assert refusal(lambda: choose("cuda:7", GPUS)).details["known"] == ["cpu", "cuda:0", "cuda:1"]


@pytest.mark.parametrize(
    ("architecture", "task"),
    [
        ("GPT2LMHeadModel", "causal-lm"), ("LlamaForCausalLM", "causal-lm"), ("BertModel", "embedding"),
        ("BertForMaskedLM", "masked-lm"), ("T5ForConditionalGeneration", "seq2seq-lm"),
        ("RobertaForSequenceClassification", "sequence-classification"),
    ],
)  # fmt: skip
def test_the_task_is_what_the_files_say(tmp_path: Path, architecture: str, task: str) -> None:
    """By the name of the architecture; a sentence model says it in a file of its own."""
    assert task_of({"architectures": [architecture]}, tmp_path) == task
    (tmp_path / "modules.json").write_text("[]")
    assert task_of({"architectures": [architecture]}, tmp_path) == "embedding"


def test_files_that_do_not_say_their_task_need_it_named(tmp_path: Path) -> None:
    """With the tasks that there are."""
    error = refusal(lambda: task_of({"architectures": ["Strange"]}, tmp_path))
    assert (error.code, "embedding" in error.details["known"]) == ("invalid_argument", True)


def test_weights_that_only_pooling_would_need_may_be_missing() -> None:
    """For embeddings and nothing else."""
    check_head("embedding", {"pooler.dense.weight"}, {}, "m")
    assert "pooler" in refusal(lambda: check_head("masked-lm", {"pooler.dense.weight"}, {}, "m")).message


def sentence_model(folder: Path, pooling: dict[str, Any], *steps: str) -> Path:
    """Write the files of a sentence model."""
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    kinds = [("Transformer", ""), ("Pooling", "1_Pooling"), *((step, f"2_{step}") for step in steps)]
    modules = [{"type": f"sentence_transformers.models.{kind}", "path": path} for kind, path in kinds]
    (folder / "modules.json").write_text(json.dumps(modules))
    return folder


def test_pooling_is_what_a_sentence_model_says(tmp_path: Path) -> None:
    """In the older words and in the newer ones; the caller may say otherwise."""
    old = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    folder = sentence_model(tmp_path, old, "Normalize")
    assert recipe_of(folder) == Recipe("cls", normalize=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": "lasttoken"}))
    assert recipe_of(folder, normalize=False) == Recipe("last", normalize=False)
    assert recipe_of(folder, "max").pooling == "max"


@pytest.mark.parametrize(
    ("pooling", "steps", "said"),
    [
        ({"pooling_mode_mean_tokens": True}, ("Dense",), "the step Dense"),
        ({"pooling_mode_weightedmean_tokens": True}, (), "pooling_mode_weightedmean_tokens"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True}, (), "pooling_mode_mean_tokens and"),
    ],
)
def test_a_step_that_is_not_done_here_is_refused(
    tmp_path: Path, pooling: dict[str, Any], steps: tuple[str, ...], said: str
) -> None:
    """Leaving it out would give other vectors."""
    folder = sentence_model(tmp_path, pooling, *steps)
    error = refusal(lambda: recipe_of(folder))
    assert (error.code, said in error.message) == ("not_supported", True)


@pytest.mark.parametrize(
    "values",
    [{"temperature": -0.1}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.1}, {"min_p": 2}, {"seed": -1},
     {"repetition_penalty": 0}],
)  # fmt: skip
def test_sampling_out_of_range_is_refused_by_name(values: dict[str, Any]) -> None:
    """Before a model runs."""
    assert refusal(lambda: Sampling(**values)).details == {"argument": next(iter(values))}


@pytest.mark.parametrize("arguments", [{"streamer": 1}, {"custom_generate": "x"}, {"bad": [1]}, {"num_beams": True}])
def test_arguments_that_would_run_code_or_replace_ours_are_refused(arguments: dict[str, Any]) -> None:
    """By name."""
    assert refusal(lambda: check_arguments(arguments)).code == "invalid_argument"


def test_texts_are_one_or_a_bounded_list() -> None:
    """Longest first inside."""
    assert as_list("a") == (["a"], True)
    assert as_list(["a"]) == (["a"], False)
    assert by_length(["a", "ccc", "bb"]) == [1, 2, 0]
    for wrong in (None, [], ["a"] * (MAX_ITEMS + 1)):
        assert refusal(lambda wrong=wrong: as_list(wrong)).code == "invalid_argument"


# ---------------------------------------------------------------- errors and memory


class OutOfMemoryError(RuntimeError):
    """As PyTorch calls it."""


@pytest.mark.parametrize(
    ("error", "code", "asked"),
    [
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4096 bytes. Error code 12"),
         "out_of_memory", 4096),
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 1.50 GiB. GPU 0 has a total capacity of 79.15 GiB"),
         "out_of_memory", 3 << 29),
        (MemoryError(), "out_of_memory", None),
        (OSError(12, "Cannot allocate memory"), "out_of_memory", None),
        (IndexError("index out of range in self"), "context_length_exceeded", None),
        (ValueError("Please pass the argument `trust_remote_code=True`"), "permission_denied", None),
        (OSError("We couldn't connect to the hub to load the files"), "provider_unavailable", None),
    ],
)  # fmt: skip
def test_an_error_of_the_framework_has_a_code_and_keeps_its_type(
    error: Exception, code: str, asked: int | None
) -> None:
    """By its class or its words."""
    known = translate(error)
    assert known is not None
    assert (known.code, known.details.get("asked_bytes")) == (code, asked)
    assert known.type == type(error).__name__


def test_an_error_that_says_nothing_by_itself_is_not_translated() -> None:
    """Unless it came of a caller's values."""
    assert translate(ValueError("x")) is None
    assert translate(RuntimeError("x")) is None

    def blamed(error: Exception) -> None:
        with blaming("settings"):
            raise error

    found = refusal(lambda: blamed(ValueError("too small")))
    assert (found.code, found.message, found.type) == ("invalid_argument", "settings: too small", "ValueError")
    with pytest.raises(RuntimeError, match="bug"):
        blamed(RuntimeError("a bug"))


def test_an_item_that_failed_is_described_like_a_reply() -> None:
    """With its place."""
    assert describe_item(ZeroDivisionError("division by zero"), 3) == {
        "index": 3, "code": "handler_error", "message": "division by zero", "retryable": False,
        "type": "ZeroDivisionError", "details": {},
    }  # fmt: skip


def test_memory_is_measured_as_the_kernel_counts_it() -> None:
    """A page that is written to shows in both figures."""
    before = unshared_bytes(), resident_bytes()
    block = bytearray(b"x" * (30 << 20))
    after = unshared_bytes(), resident_bytes()
    assert all(now - then > 25 << 20 for then, now in zip(before, after, strict=True))
    assert len(block) < available_bytes()
    assert [shown(1536), shown(5 << 20), shown(3 << 30)] == ["1.5 KiB", "5.0 MiB", "3.00 GiB"]


def test_the_defaults_are_safe() -> None:
    """One thread, no network, no code of strangers."""
    defaults = Options()
    assert (defaults.threads, defaults.local_files_only, defaults.trust_remote_code) == (1, True, False)
