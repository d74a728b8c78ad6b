"""From base model and LoRA adapter to a model of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from manybridge.bridge import BridgeError, Context
from manybridge.bridges.transformers.lora import base_of, is_adapter, merged
from manybridge.bridges.transformers.pretrained import load_model, load_tokenizer, model_folder
from manybridge.bridges.transformers.runs import NAME, RunFolder, put_in_place
from manybridge.bridges.transformers.sources import invalid
from manybridge.bridges.transformers.trainer import writing
from manybridge.bridges.transformers.training import DEFAULT_TASK, runs_of
from manybridge.protocol.errors import ErrorCode

if TYPE_CHECKING:
    from manybridge.bridges.transformers.bridge import TransformersBridge


class _Adapter(NamedTuple):
    folder: Path
    task: str
    run: RunFolder | None


def merge(
    bridge: TransformersBridge, ctx: Context, adapter: str, output: str | None, base: str | None
) -> dict[str, Any]:
    """Save base and adapter as one model; the function behind `transformers:merge_adapter`.

    Raises:
        BridgeError: `invalid_argument` (no adapter there, no place to write to), `resource_exists` (a folder of that
            name), `conflict` (the run is being trained).
    """
    found = _find(bridge, adapter)
    place = _place(bridge, found, output)
    ctx.progress(0, 3, "loading the base model")
    folder = model_folder(bridge, base or base_of(found.folder))
    model = load_model(bridge, folder, found.task)
    ctx.check()
    ctx.progress(1, 3, "merging")
    whole = merged(model, found.folder)
    ctx.progress(2, 3, "writing")
    place.parent.mkdir(parents=True, exist_ok=True)
    # A hidden neighbour of the place: a rename only works within one file system.
    with writing(RunFolder(place.parent)) as staging:
        whole.save_pretrained(staging / place.name)
        load_tokenizer(bridge, found.folder).save_pretrained(staging / place.name)
        put_in_place(staging / place.name, place)
    ctx.progress(3, 3, "done")
    return {"model": str(place), "base": str(folder), "adapter": str(found.folder)}


def _find(bridge: TransformersBridge, adapter: str) -> _Adapter:
    if NAME.fullmatch(adapter):
        run = runs_of(bridge).at(adapter)
        if run.exists:
            if not is_adapter(run.path / "adapter"):
                raise invalid(f"adapter: run {adapter!r} has no adapter (its state: {run.describe()['state']})")
            return _Adapter(run.path / "adapter", run.recipe()["task"], run)
    folder = Path(adapter).expanduser()
    if bridge.options.models_path is not None and not folder.is_absolute():
        folder = bridge.options.models_path / folder
    if not is_adapter(folder):
        raise invalid(f"adapter: {adapter!r} is neither a run nor a folder with an adapter in it")
    return _Adapter(folder.resolve(), DEFAULT_TASK, None)


def _place(bridge: TransformersBridge, found: _Adapter, output: str | None) -> Path:
    if output is None:
        if found.run is None:
            raise invalid("output: missing; name a folder in models_folder for the merged model")
        return found.run.path / "merged"
    if bridge.options.models_path is None or not NAME.fullmatch(output):
        raise invalid("output: expected the name of a new folder in models_folder, which the options must name")
    place = bridge.options.models_path.resolve() / output
    if place.exists():
        raise BridgeError(
            ErrorCode.RESOURCE_EXISTS, f"There is a {output!r} in models_folder already.", details={"output": output}
        )
    return place
