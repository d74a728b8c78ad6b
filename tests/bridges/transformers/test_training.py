"""Training runs in real workers: progress, checkpoints, cancel, resume, faults, LoRA."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bridges.transformers.training_support import (
    DATA,
    PATIENCE,
    SENTENCES,
    SETTINGS,
    STEPS,
    Bench,
    Caller,
    at_step,
)
from tests.support import eventually

pytestmark = [pytest.mark.framework, pytest.mark.timeout(180)]  # the first test pays for a worker and its imports

TEAM = Path(__file__).parent / "team_trainer.py"
STRUCK = Path(__file__).parent / "struck_trainer.py"
SAME = 1e-6
"""How far the losses of a resumed run may lie from those of an uninterrupted one; on one CPU thread they are equal."""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Folders with a tiny model."""
    made = Bench(tmp_path_factory.mktemp("training"))
    made.make_model()
    return made


@pytest.fixture(scope="module")
def worker(bench: Bench) -> Iterator[Caller]:
    """One worker for all tests that don't end it: PyTorch is imported once."""
    with bench.worker() as caller:
        yield caller


@pytest.fixture(scope="module")
def whole(worker: Caller) -> list[dict[str, Any]]:
    """The loss curve of a run that nothing interrupted."""
    worker.train("whole")
    curve: list[dict[str, Any]] = worker.run("whole", metrics=True)["metrics"]
    return curve


def losses(curve: list[dict[str, Any]]) -> list[float]:
    """The losses of a curve."""
    return [row["loss"] for row in curve if "loss" in row]


# ---------------------------------------------------------------- a run


def test_a_run_reports_steps_and_metrics_and_its_result_is_a_model(worker: Caller, bench: Bench) -> None:
    """Progress with the loss, a chunk for each step, and a folder with safetensors."""
    done = worker.train("first", {"eval_fraction": 0.1, "eval_every": 12})
    progress, chunks = worker.events("progress"), worker.events("chunk")
    assert [(each["current"], each["total"]) for each in progress if each["total"] == STEPS][-1] == (STEPS, STEPS)
    assert progress[-1]["message"].startswith("loss ")
    assert [chunk["step"] for chunk in chunks if "loss" in chunk] == list(range(1, STEPS + 1))
    assert [chunk["step"] for chunk in chunks if "eval_loss" in chunk] == [12, 24, STEPS]
    assert {"step", "loss", "learning_rate", "epoch"} <= set(chunks[0])
    assert (done["state"], done["steps"], done["kind"], done["resumed_from"]) == ("done", STEPS, "model", None)
    assert done["metrics"]["last_loss"] < done["metrics"]["first_loss"]
    assert done["metrics"]["eval_loss"] == chunks[-1]["eval_loss"]
    files = {path.name for path in Path(done["model"]).iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= files
    again = worker.train("second", {"max_steps": 1}, model=done["model"])
    assert again["metrics"]["first_loss"] < done["metrics"]["first_loss"]  # it is the trained one that was loaded


def test_nothing_is_printed(worker: Caller) -> None:
    """Trainer prints its metrics, and libraries draw bars."""
    before = len(worker.log)
    worker.train("quiet", {"max_steps": 2, "eval_fraction": 0.1})
    said = b"".join(worker.log[before:])
    assert b"loss" not in said
    assert b"%|" not in said


def test_a_training_resource_is_created_executed_listed_and_deleted(worker: Caller) -> None:
    """On the raw wire. Its run outlives it."""
    worker.result("common:create_resource", {"type": "dataset", "config": DATA, "id": "sentences"})
    config = {"model": "tiny", "dataset": "sentences", "settings": {**SETTINGS, "max_steps": 3}}
    worker.result("common:create_resource", {"type": "training", "config": config, "id": "tuning"})
    status = worker.result("common:execute_resource", {"id": "tuning", "inputs": {"action": "status"}})
    assert (status["run"], status["state"]) == ("tuning", "new")
    done = worker.result("common:execute_resource", {"id": "tuning", "inputs": {}}, stream=True)
    assert (done["run"], done["steps"]) == ("tuning", 3)
    assert len(worker.events("chunk")) == 3
    curve = worker.result("common:execute_resource", {"id": "tuning", "inputs": {"action": "metrics"}})["metrics"]
    assert len(curve) == 3
    assert worker.result("common:execute_resource", {"id": "tuning", "inputs": {}}) == done  # it was done already
    listed = worker.result("common:list_resources", {"type": "training"})
    assert [each["id"] for each in listed["resources"]] == ["tuning"]
    assert worker.result("common:delete_resource", {"id": "tuning"})["deleted"]
    assert worker.run("tuning")["state"] == "done"


def test_runs_are_listed_and_deleted(worker: Caller, bench: Bench) -> None:
    """A run that is not there is told with those that are."""
    worker.train("doomed", {"max_steps": 1})
    assert "doomed" in [run["run"] for run in worker.result("transformers:list_runs", {})["runs"]]
    assert worker.result("transformers:delete_run", {"run": "doomed"}) == {"run": "doomed", "deleted": True}
    assert not (bench.runs / "doomed").exists()
    error = worker.error("transformers:delete_run", {"run": "doomed"})
    assert (error["code"], "there are" in error["message"]) == ("resource_not_found", True)


def test_the_same_seed_gives_the_same_run(worker: Caller, whole: list[dict[str, Any]]) -> None:
    """And another one a different."""
    worker.train("again")
    assert losses(worker.run("again", metrics=True)["metrics"]) == pytest.approx(losses(whole), abs=SAME)
    worker.train("other", {"seed": 1})
    assert losses(worker.run("other", metrics=True)["metrics"]) != pytest.approx(losses(whole), abs=SAME)


# ---------------------------------------------------------------- cancel, kill, resume


def test_a_cancelled_run_keeps_its_last_step_and_ends_as_if_nothing_had_happened(
    worker: Caller, bench: Bench, whole: list[dict[str, Any]]
) -> None:
    """The next step is the last; a checkpoint of it is written; the same worker resumes."""
    number = worker.begin("cut", at_step(5))
    worker.raw.send("common:cancel", {"id": number})
    reply = worker.raw.receive(number)
    assert reply["error_info"]["code"] == "cancelled"
    run = worker.run("cut")
    assert run["state"] == "cancelled"
    step = run["checkpoints"][-1]
    assert 5 <= step == run["step"] < STEPS
    done = worker.result("transformers:train", {"run": "cut", "resume": True}, stream=True)
    assert [chunk["step"] for chunk in worker.events("chunk")] == list(range(step + 1, STEPS + 1))
    assert (done["steps"], done["resumed_from"]) == (STEPS, step)
    assert losses(worker.run("cut", metrics=True)["metrics"]) == pytest.approx(losses(whole), abs=SAME)
    weights = [(bench.runs / run / "model" / "model.safetensors").read_bytes() for run in ("cut", "whole")]
    assert weights[0] == weights[1]


def test_a_killed_workers_run_is_interrupted_and_another_worker_resumes_it(
    worker: Caller, bench: Bench, whole: list[dict[str, Any]]
) -> None:
    """What the dead one was writing is thrown away; the metrics after the checkpoint are measured again."""
    with bench.worker() as doomed:
        doomed.begin("killed", at_step(6))
        half = bench.runs / "killed" / ".staging-0" / "checkpoint-8"
        half.mkdir(parents=True)
        (half / "model.safetensors").write_bytes(b"half")
        os.kill(doomed.raw.process.pid, signal.SIGKILL)
        doomed.raw.ended()
    run = worker.run("killed")
    assert run["state"] == "interrupted"
    done = worker.result("transformers:train", {"run": "killed", "resume": True})
    assert done["resumed_from"] == run["checkpoints"][-1]
    curve = worker.run("killed", metrics=True)["metrics"]
    assert [row["step"] for row in curve] == list(range(1, STEPS + 1))
    assert losses(curve) == pytest.approx(losses(whole), abs=SAME)
    assert not list((bench.runs / "killed").glob(".staging*"))


def test_a_run_is_stopped_between_two_steps_also_by_force(bench: Bench, whole: list[dict[str, Any]]) -> None:
    """Without any grace the exception strikes somewhere; the checkpoint before is sound."""
    with bench.worker("--cancel-grace-ms", "2", "--mode", "host") as worker:
        number = worker.begin("struck", at_step(6))
        worker.raw.send("common:cancel", {"id": number})
        assert worker.raw.receive(number)["error_info"]["code"] == "cancelled"
        run = worker.run("struck")
        assert (run["state"], run["checkpoints"][-1] >= 4) == ("cancelled", True)
        worker.result("transformers:train", {"run": "struck", "resume": True})
        assert losses(worker.run("struck", metrics=True)["metrics"]) == pytest.approx(losses(whole), abs=SAME)


def test_a_run_struck_before_a_loss_is_kept_is_resumed_from_before_that_step(
    bench: Bench, whole: list[dict[str, Any]]
) -> None:
    """A checkpoint of that very step would leave it out of the loss curve for ever."""
    with bench.worker(bridge=STRUCK) as worker:
        args = {"run": "gap", "model": "tiny", "dataset": DATA, "settings": SETTINGS}
        assert worker.error("transformers:train", args)["code"] == "cancelled"
        assert worker.run("gap")["checkpoints"] == [4]
        worker.result("transformers:train", {"run": "gap", "resume": True})
        curve = worker.run("gap", metrics=True)["metrics"]
        assert [row["step"] for row in curve] == list(range(1, STEPS + 1))
        assert losses(curve) == pytest.approx(losses(whole), abs=SAME)


@pytest.mark.parametrize("damage", ["truncated", "changed", "missing"])
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(
    worker: Caller, bench: Bench, whole: list[dict[str, Any]], damage: str
) -> None:
    """The one before it is used."""
    name = f"damaged-{damage}"
    number = worker.begin(name, at_step(9))
    worker.raw.send("common:cancel", {"id": number})
    worker.raw.receive(number)
    older, newest = worker.run(name)["checkpoints"][-2:]
    file = (
        bench.runs
        / name
        / "checkpoints"
        / f"step-{newest}"
        / ("model.safetensors" if damage != "missing" else "optimizer.pt")
    )
    if damage == "truncated":
        os.truncate(file, file.stat().st_size // 2)
    elif damage == "changed":
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
    else:
        file.unlink()
    done = worker.result("transformers:train", {"run": name, "resume": True}, stream=True)
    assert done["resumed_from"] == older
    assert f"checkpoint of step {newest} is not used: {file.name} is" in done["warnings"][0]
    assert done["warnings"][0] in " ".join(log["message"] for log in worker.events("log"))
    assert losses(worker.run(name, metrics=True)["metrics"]) == pytest.approx(losses(whole), abs=SAME)


def test_two_trainings_of_one_run_are_refused(worker: Caller, bench: Bench) -> None:
    """In this worker and in another one; and a run that is trained can't be deleted."""
    number = worker.begin("busy", at_step(1), max_steps=100_000)
    try:
        assert worker_code(worker, "transformers:train", {"run": "busy", "resume": True}) == "conflict"
        assert worker_code(worker, "transformers:delete_run", {"run": "busy"}) == "conflict"
        with bench.worker() as other:
            error = other.error("transformers:train", {"run": "busy", "resume": True})
            assert (error["code"], "being trained right now" in error["message"]) == ("conflict", True)
            assert other.run("busy")["state"] == "running"
    finally:
        worker.raw.send("common:cancel", {"id": number})
        worker.raw.receive(number, 30)


def worker_code(worker: Caller, command: str, args: dict[str, Any]) -> str:
    """Send a request that fails while another one streams, and return its code."""
    code: str = worker.raw.receive(worker.raw.send(command, args), 30)["error_info"]["code"]
    return code


def test_trainings_of_one_worker_take_turns(worker: Caller, whole: list[dict[str, Any]]) -> None:
    """They share one random generator: side by side, each would change what the other draws."""
    args = {"model": "tiny", "dataset": DATA, "settings": SETTINGS}
    numbers = [worker.raw.send("transformers:train", {**args, "run": f"turn-{n}"}) for n in range(2)]
    replies: dict[int, Any] = {}
    while len(replies) < 2:
        message = worker.raw.read(30)
        replies[message["id"]] = message
    assert all(replies[number]["success"] for number in numbers)
    for n in range(2):
        assert losses(worker.run(f"turn-{n}", metrics=True)["metrics"]) == pytest.approx(losses(whole), abs=SAME)


def test_a_run_is_only_resumed_as_it_was_begun(worker: Caller, bench: Bench) -> None:
    """Another model, dataset or setting is refused; so are rows that changed meanwhile."""
    (bench.data / "words.txt").write_text("\n".join(SENTENCES), encoding="utf-8")
    begun = {"run": "same", "model": "tiny", "dataset": {"files": "words.txt"}, "settings": SETTINGS}
    number = worker.raw.send("transformers:train", begun, stream=True)
    while worker.raw.read(30).get("event") != "chunk":
        pass
    worker.raw.send("common:cancel", {"id": number})
    worker.raw.receive(number)
    assert worker.error("transformers:train", begun)["code"] == "resource_exists"
    changed = {"model": "/elsewhere", "dataset": DATA, "settings": {**SETTINGS, "seed": 7}}
    for name, value in changed.items():
        error = worker.error("transformers:train", {**begun, name: value, "resume": True})
        assert (error["code"], error["details"]["argument"]) == ("conflict", name)
    (bench.data / "words.txt").write_text("\n".join(SENTENCES[1:]), encoding="utf-8")
    error = worker.error("transformers:train", {"run": "same", "resume": True})
    assert (error["code"], "not those that it began with" in error["message"]) == ("conflict", True)


# ---------------------------------------------------------------- a model by its id


def test_the_id_of_a_model_stands_for_its_source_also_where_the_model_is_not(worker: Caller, bench: Bench) -> None:
    """The recipe that is kept with the run has the source, so a worker without the model resumes it."""
    with bench.worker() as holder:
        holder.result("common:create_resource", {"type": "model", "config": {"model": "tiny"}, "id": "mine"})
        args = {"run": "by-id", "model": "mine", "dataset": DATA, "settings": SETTINGS}
        number = holder.raw.send("transformers:train", args, stream=True)
        while holder.raw.read(PATIENCE).get("event") != "chunk":
            pass
        holder.raw.send("common:cancel", {"id": number})
        assert holder.raw.receive(number)["error_info"]["code"] == "cancelled"
        other = holder.error("transformers:train", {**args, "model": "other", "resume": True})
        assert (other["code"], other["details"]["argument"]) == ("conflict", "model")
    done = worker.result("transformers:train", {**args, "resume": True})
    assert (done["steps"], done["base"]) == (STEPS, "tiny")


def test_a_model_that_is_not_there_leaves_no_run(worker: Caller) -> None:
    """The name is free for the next attempt, without a mistake."""
    args = {"run": "retyped", "dataset": DATA, "settings": {**SETTINGS, "max_steps": 1}}
    assert worker.error("transformers:train", {**args, "model": "tinny"})["code"] == "provider_not_found"
    assert worker.result("transformers:train", {**args, "model": "tiny"})["steps"] == 1


def test_an_id_is_another_model_when_it_names_another(worker: Caller) -> None:
    """The same id later: what it stands for now is compared."""
    worker.train("renamed", {"max_steps": 1})
    first = worker.run("renamed")["result"]["model"]
    for source, code in ((first, "conflict"), ("tiny", None)):
        worker.result("common:create_resource", {"type": "model", "config": {"model": source}, "id": "name"})
        reply = worker.ask("transformers:train", {"run": "renamed", "model": "name", "resume": True})
        assert (reply.get("error_info") or {}).get("code") == code
        worker.result("common:delete_resource", {"id": "name"})


def test_the_model_of_another_session_and_one_that_was_deleted_are_not_found(worker: Caller) -> None:
    """Nor is a folder hidden by an id that is called like it."""
    make = {"type": "model", "config": {"model": "tiny"}, "id": "private"}
    worker.result("common:create_resource", make, session_id="a")
    args = {"model": "private", "dataset": DATA, "settings": {**SETTINGS, "max_steps": 1}}
    assert worker.error("transformers:train", args, session_id="b")["code"] == "provider_not_found"
    assert worker.result("transformers:train", args, session_id="a")["base"] == "tiny"
    worker.result("common:delete_resource", {"id": "private"}, session_id="a")
    assert worker.error("transformers:train", args, session_id="a")["code"] == "provider_not_found"
    trained = worker.train(None, {"max_steps": 1})["model"]
    worker.result("common:create_resource", {"type": "model", "config": {"model": trained}, "id": "tiny"})
    assert worker.train(None, {"max_steps": 1})["base"] == "tiny"
    worker.result("common:delete_resource", {"id": "tiny"})


# ---------------------------------------------------------------- faults


@pytest.fixture
def small_disk(bench: Bench, whole: list[dict[str, Any]]) -> Iterator[Path]:
    """A file system with room for one checkpoint and a half."""
    place = bench.folder / "small"
    place.mkdir(exist_ok=True)
    checkpoint = sum(path.stat().st_size for path in (bench.runs / "whole" / "checkpoints" / f"step-{STEPS}").iterdir())
    size = f"size={checkpoint * 3 // 2}"
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", size, "small", place], check=False).returncode:
        pytest.skip("mounting a small file system takes root")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def test_a_full_disk_is_an_error_of_its_own_and_the_checkpoint_before_is_kept(
    bench: Bench, small_disk: Path, whole: list[dict[str, Any]]
) -> None:
    """Nothing half-written is left; with room, the run goes on."""
    with bench.worker(runs_folder=str(small_disk)) as worker:
        args = {"run": "full", "model": "tiny", "dataset": DATA, "settings": SETTINGS}
        error = worker.error("transformers:train", args)
        assert (error["details"].get("reason"), error["type"]) == ("disk_full", "DiskFull"), error
        assert "runs_folder" in error["message"]
        run = worker.run("full")
        assert run["state"] == "failed"
        assert run["checkpoints"] == [4]
        assert not list((small_disk / "full").glob(".staging*"))
        subprocess.run(["mount", "-o", "remount,size=20m", small_disk], check=True)
        done = worker.result("transformers:train", {"run": "full", "resume": True})
        assert done["resumed_from"] == 4
        assert losses(worker.run("full", metrics=True)["metrics"]) == pytest.approx(losses(whole), abs=SAME)


def test_a_loss_that_is_no_number_ends_the_run(worker: Caller) -> None:
    """Instead of training on with weights that are none."""
    settings = {**SETTINGS, "learning_rate": 1e30, "max_grad_norm": 0.0}
    args = {"run": "astray", "model": "tiny", "dataset": DATA, "settings": settings}
    error = worker.error("transformers:train", args)
    assert (error["type"], error["details"]["reason"]) == ("TrainingDiverged", "loss_not_finite")
    assert worker.run("astray")["state"] == "failed"


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "no model": ({"dataset": DATA}, "invalid_argument", "model: missing"),
    "no dataset": ({"model": "tiny"}, "invalid_argument", "dataset: missing"),
    "a run's name": ({"run": "../x", "model": "tiny", "dataset": DATA}, "invalid_argument", "run: expected a name"),
    "a setting's type": ({"settings": {"epochs": "3"}}, "invalid_argument", "settings.epochs: expected number"),
    "a setting's name": ({"settings": {"epoch": 3}}, "invalid_argument", "did you mean 'epochs'?"),
    "a setting's value": ({"settings": {"batch_size": 0}}, "invalid_argument", "expected batch_size from 1 on"),
    "lora's value": ({"settings": {"lora": {"r": 0}}}, "invalid_argument", "expected r >= 1"),
    "too long": (
        {"model": "tiny", "dataset": DATA, "settings": {"max_length": 4096}}, "invalid_argument",
        "settings.max_length: 4096 tokens, but this model takes 128",
    ),
    "no such column": (
        {"model": "tiny", "dataset": {"rows": [{"words": "x y"}]}}, "invalid_argument",
        "no column 'text'; the dataset has words",
    ),
    "not a text": (
        {"model": "tiny", "dataset": {"rows": [{"text": "x"}, {"text": None}]}}, "invalid_argument",
        "row 1, column 'text': expected a string, found null",
    ),
    "no such layer": (
        {"model": "tiny", "dataset": DATA, "settings": {"lora": {"target_modules": ["wrong"]}}}, "invalid_argument",
        "settings.lora.target_modules: no layer of this model is called like that; it has c_attn",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_can_not_be_trained_is_refused_with_its_place(worker: Caller, case: str) -> None:
    """Before the first step."""
    args, code, said = REFUSED[case]
    error = worker.error("transformers:train", args)
    assert (error["code"], said in error["message"]) == (code, True), error["message"]


# ---------------------------------------------------------------- LoRA, classification


def test_an_adapter_is_trained_resumed_merged_and_loaded(worker: Caller, bench: Bench) -> None:
    """Only its own weights are trained and saved; merged, it is a model like any other."""
    lora = {"lora": {"r": 4, "alpha": 8, "dropout": 0.1}, "learning_rate": 1e-2}
    done = worker.train("adapter-whole", lora)
    assert done["kind"] == "adapter"
    assert done["trained_parameters"] < done["parameters"] / 10
    files = {path.name for path in Path(done["model"]).iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json"} <= files
    assert "model.safetensors" not in files
    number = worker.begin("adapter-cut", at_step(6), **lora)
    worker.raw.send("common:cancel", {"id": number})
    worker.raw.receive(number)
    worker.result("transformers:train", {"run": "adapter-cut", "resume": True})
    curves = [worker.run(run, metrics=True)["metrics"] for run in ("adapter-whole", "adapter-cut")]
    assert losses(curves[1]) == pytest.approx(losses(curves[0]), abs=SAME)
    merged = worker.result("transformers:merge_adapter", {"adapter": "adapter-whole"})
    again = worker.train("on-merged", {"max_steps": 1}, model=merged["model"])
    assert again["metrics"]["first_loss"] == pytest.approx(done["metrics"]["last_loss"], abs=0.5)
    assert again["metrics"]["first_loss"] < done["metrics"]["first_loss"]
    named = worker.result("transformers:merge_adapter", {"adapter": "adapter-whole", "output": "merged-tiny"})
    assert named["model"] == str(bench.models / "merged-tiny")
    error = worker.error("transformers:merge_adapter", {"adapter": "adapter-whole", "output": "merged-tiny"})
    assert error["code"] == "resource_exists"
    assert worker.error("transformers:merge_adapter", {"adapter": "nothing"})["code"] == "invalid_argument"


def test_a_classifier_learns_its_labels(worker: Caller) -> None:
    """Their names come from the column, and stand in the model's configuration."""
    rows = [{"text": text, "label": "morning" if "morning" in text else "evening"} for text in SENTENCES]
    done = worker.train(
        "labels", {"max_steps": 30, "learning_rate": 5e-3}, dataset={"rows": rows}, task="sequence-classification"
    )
    assert done["metrics"]["last_loss"] < 0.3 < math.log(2) * 0.8 < done["metrics"]["first_loss"]
    config = json.loads((Path(done["model"]) / "config.json").read_text(encoding="utf-8"))
    assert config["id2label"] == {"0": "evening", "1": "morning"}


def test_tokens_may_come_from_the_dataset_and_texts_may_be_packed(worker: Caller) -> None:
    """Either way the loss is measured on the same tokens."""
    tokenized = {"source": DATA, "tokenize": {"model": "tiny", "max_length": 32}}
    one = worker.train("tokens", {"max_steps": 2}, dataset=tokenized)
    two = worker.train("texts", {"max_steps": 2})
    assert one["metrics"]["first_loss"] == two["metrics"]["first_loss"]
    packed = worker.train("packed", {"max_steps": 2, "packing": True, "gradient_accumulation": 2})
    assert packed["steps"] == 2


# ---------------------------------------------------------------- a team's own Trainer


def test_a_teams_own_trainer_reports_and_stops_without_user_code(bench: Bench) -> None:
    """Its handler takes no context, and knows nothing of progress."""
    from tests.bridges.raw_worker import raw_worker

    with raw_worker(TEAM, python=bench.python) as raw:
        raw.receive(raw.send("team:fit", {"model": str(bench.models / "tiny"), "steps": 8}, stream=True), 30)
        progress = [event["data"] for event in raw.events if event["event"] == "progress"]
        assert progress[-1]["total"] == 8
        assert any(each["message"].startswith("loss ") for each in progress)
        assert [event for event in raw.events if event["event"] == "chunk"] == []
        raw.events.clear()
        number = raw.send("team:fit", {"model": str(bench.models / "tiny"), "steps": 100_000}, stream=True)
        eventually(lambda: "loss" in str(raw.read(30).get("data")))
        raw.send("common:cancel", {"id": number})
        reply = raw.receive(number)
        assert reply["error_info"]["code"] == "cancelled"
        assert reply["error_info"]["details"]["stopped_by"] in {"cooperative", "exception"}  # never a signal
