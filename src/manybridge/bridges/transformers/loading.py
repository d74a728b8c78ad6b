"""Making a loaded model of its files, and sharing it between everybody who names the same."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from manybridge.bridge import BridgeError
from manybridge.bridges.transformers import lora
from manybridge.bridges.transformers.batching import Batcher, Gatherer
from manybridge.bridges.transformers.cache import Lease, ModelCache
from manybridge.bridges.transformers.devices import choose, list_devices
from manybridge.bridges.transformers.errors import blaming, is_out_of_memory, out_of_memory, remote_code
from manybridge.bridges.transformers.framework import import_torch, import_transformers
from manybridge.bridges.transformers.locating import CONFIG, Located, locate, read_json
from manybridge.bridges.transformers.memory import available_bytes
from manybridge.bridges.transformers.options import CACHE_SHARE, DtypeName, Options
from manybridge.bridges.transformers.tasks import TASKS, Task, check_head, task_of
from manybridge.bridges.transformers.weights import Weights, inspect
from manybridge.protocol.errors import ErrorCode

POSITION_KEYS: Final = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "n_ctx")
TOKENIZER_FILES: Final = (
    "tokenizer.json", "vocab.json", "vocab.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model",
    "source.spm", "tekken.json",
)  # fmt: skip
"""At least one of them holds the vocabulary."""

NO_LIMIT: Final = 1_000_000_000
"""Tokenizers that know no limit give a number like 1e30."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that decides what a loaded model is; known before anything is loaded."""

    located: Located
    base: Located | None
    """Of an adapter: the model that it goes into."""
    task: Task
    dtype: DtypeName
    device: str
    needed: int
    """Bytes."""
    stamp: Hashable
    """Changes when the files do."""

    @property
    def key(self) -> Hashable:
        """Equal for what can share one copy in memory."""
        return (str(self.located.folder), self.stamp, self.task, self.dtype, self.device)


class LoadedModel:
    """A model in memory, its tokenizer, and the thread that runs it. Owned by the cache.

    Attributes:
        module: the `torch.nn.Module`, in evaluation mode.
        tokenizer: used on the model's thread, and elsewhere only for what keeps no state.
        max_tokens: the longest input, or None if the files do not say.
    """

    def __init__(self, plan: Plan, module: Any, tokenizer: Any, batcher: Batcher) -> None:
        self.plan = plan
        self.device = plan.device
        self.module = module
        self.tokenizer = tokenizer
        self.batcher = batcher
        self.config = module.config
        self.nbytes = sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))
        self.max_tokens = longest_input(module, tokenizer, read_json(plan.located.folder / "sentence_bert_config.json"))
        self.pad_id = _pad_id(module, tokenizer)
        self.pipelines: dict[str, Any] = {}
        """Made of it, by task; used on its thread."""

    @property
    def is_busy(self) -> bool:
        """Whether its thread has work."""
        return self.batcher.is_busy

    def wait_idle(self, seconds: float) -> bool:
        """Wait until its thread has no work."""
        return self.batcher.wait_idle(seconds)

    @property
    def body(self) -> Any:
        """What holds the memory."""
        return self.module

    def describe(self) -> dict[str, Any]:
        """Facts for `transformers:loaded_models`."""
        return {
            "task": self.plan.task,
            "dtype": self.plan.dtype,
            "max_tokens": self.max_tokens,
            "batching": self.batcher.stats(),
        }

    def close(self) -> None:
        """End the thread and let go of the tensors."""
        self.batcher.close()
        self.pipelines.clear()
        self.module = self.config = self.tokenizer = None


class Models:
    """Finds, loads and shares models. Owner of the cache; any thread may use it.

    Args:
        options: of the bridge.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self._budgets: dict[str, int] = {}
        self.cache: ModelCache[LoadedModel] = ModelCache(self._budget)

    def _budget(self, device: str) -> int:
        if self.options.cache_bytes is not None:
            return self.options.cache_bytes
        if device not in self._budgets:  # of what there was before the first model came
            free = next((each.free for each in list_devices() if each.name == device), available_bytes())
            self._budgets[device] = int(free * CACHE_SHARE)
        return self._budgets[device]

    def plan(
        self,
        name: str,
        task: Task | None = None,
        revision: str | None = None,
        dtype: DtypeName | None = None,
        device: str | None = None,
    ) -> Plan:
        """Find a model's files and check everything that can be checked without loading them.

        Raises:
            BridgeError: see `locate`, `weights.inspect`, `task_of` and `devices.choose`.
        """
        located = locate(name, self.options, revision)
        base = self._base(located)
        source = base or located
        config = source.config()
        if not config:
            raise BridgeError(ErrorCode.INVALID_ARGUMENT, f"{source.folder} has no config.json; it holds no model")
        weights = inspect(located.folder)
        parts: tuple[Weights, ...] = (weights,) if base is None else (weights, inspect(base.folder))
        chosen: DtypeName = dtype or self.options.dtype
        needed = sum(part.bytes_as(chosen) for part in parts)
        where = choose(device or self.options.device, list_devices(), needed)
        stamp = tuple(part.stamp for part in parts)
        return Plan(located, base, task or task_of(config, source.folder), chosen, where.name, needed, stamp)

    def _base(self, located: Located) -> Located | None:
        if (located.folder / CONFIG).is_file() or not lora.is_adapter(located.folder):
            return None
        return locate(lora.base_of(located.folder), self.options)

    async def lease(self, plan: Plan) -> Lease[LoadedModel]:
        """The right to use the model, which is loaded if it is not there; the event loop goes on meanwhile.

        Raises:
            BridgeError: `out_of_memory`, `invalid_argument`, `permission_denied`: why it can't be loaded.
            asyncio.CancelledError: the caller is to stop; a load that has begun goes on into the cache.
        """
        found = self.cache.lease_loaded(plan.key)
        if found is not None:
            return found
        loading = asyncio.get_running_loop().run_in_executor(None, self.lease_now, plan)
        try:
            return await asyncio.shield(loading)
        except asyncio.CancelledError:
            loading.add_done_callback(_release_when_loaded)
            raise

    def lease_now(self, plan: Plan) -> Lease[LoadedModel]:
        """As `lease`, blocking."""
        return self.cache.lease(plan.key, plan.located.name, plan.device, plan.needed, lambda: load(plan, self.options))

    def close(self) -> None:
        """Unload everything."""
        self.cache.close()


def _release_when_loaded(loading: asyncio.Future[Lease[LoadedModel]]) -> None:
    if not loading.cancelled() and loading.exception() is None:
        loading.result().release()


def load(plan: Plan, options: Options) -> LoadedModel:
    """Load a model as planned.

    Raises:
        BridgeError: `invalid_argument` for files that make no model of this task, `out_of_memory`,
            `permission_denied` for a model that brings code.
    """
    if plan.device == "cpu" and plan.needed > available_bytes():
        # Asked before: the kernel promises more than it has, and kills the process when the pages are used.
        raise out_of_memory(MemoryError(f"the weights of {plan.located.name}"), plan.needed)
    source = plan.base or plan.located
    _refuse_code(source, options)
    _check_architecture(source, plan.task, options)
    tokenizer = load_tokenizer(plan.located, options) if plan.base is None else _any_tokenizer(plan, options)
    try:
        module = _module(plan, source, options)
    except BaseException as error:
        if is_out_of_memory(error) or is_out_of_memory(error.__cause__ or error):
            raise out_of_memory(error.__cause__ or error, plan.needed) from error
        raise
    gatherer = Gatherer(options.max_batch, options.max_wait_ms / 1000)
    return LoadedModel(plan, module, tokenizer, Batcher(gatherer, plan.located.folder.name))


def _module(plan: Plan, source: Located, options: Options) -> Any:
    torch, transformers = import_torch(), import_transformers()
    with blaming(f"{plan.located.name} can't be loaded as {plan.task}"):
        module, info = getattr(transformers, TASKS[plan.task].auto_class).from_pretrained(
            str(source.folder),
            dtype=plan.dtype if plan.dtype == "auto" else getattr(torch, plan.dtype),
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=options.trust_remote_code,
            output_loading_info=True,
        )
        if plan.base is None:
            check_head(plan.task, set(info["missing_keys"]), source.config(), plan.located.name)
        else:
            module = lora.merged(module, plan.located.folder)
        return module.to(plan.device).eval()


def _any_tokenizer(plan: Plan, options: Options) -> Any:
    """An adapter's own tokenizer, or that of the model that it goes into."""
    assert plan.base is not None
    own = (plan.located.folder / "tokenizer_config.json").is_file()
    return load_tokenizer(plan.located if own else plan.base, options)


def load_tokenizer(located: Located, options: Options) -> Any:
    """Load the tokenizer of a model.

    Raises:
        BridgeError: `invalid_argument`, the folder has none that can be read.
    """
    if not any((located.folder / name).is_file() for name in TOKENIZER_FILES):
        # Transformers would make an empty one of the model's kind.
        raise BridgeError(
            ErrorCode.INVALID_ARGUMENT,
            f"{located.folder} has no tokenizer: expected one of {', '.join(TOKENIZER_FILES)}",
            details={"folder": str(located.folder)},
        )
    with blaming(f"{located.name} has no tokenizer that can be loaded"):
        return import_transformers().AutoTokenizer.from_pretrained(
            str(located.folder), local_files_only=True, trust_remote_code=options.trust_remote_code
        )


def _refuse_code(located: Located, options: Options) -> None:
    """Refuse a model whose class comes as Python beside it; asked here, so that nothing of it is even looked at."""
    config = located.config()
    if options.trust_remote_code or "auto_map" not in config:
        return
    known: Mapping[str, Any] = import_transformers().models.auto.configuration_auto.CONFIG_MAPPING
    if config.get("model_type") not in known:  # else Transformers has a class of its own, and takes that
        raise remote_code(name=located.name)


def _check_architecture(located: Located, task: Task, options: Options) -> None:
    """Refuse a task that the architecture can't do; Transformers takes seconds to list all that could."""
    transformers = import_transformers()
    kind = located.config().get("model_type")
    can_do = getattr(transformers, TASKS[task].auto_class)._model_mapping._model_mapping
    if kind in transformers.models.auto.configuration_auto.CONFIG_MAPPING_NAMES and kind not in can_do:
        raise BridgeError(
            ErrorCode.INVALID_ARGUMENT,
            f"task: {located.name} is a {kind} model, and there is no {task} of that architecture",
            details={"task": task, "model_type": kind},
            type="ValueError",
        )
    if kind is None and not options.trust_remote_code:
        raise BridgeError(
            ErrorCode.INVALID_ARGUMENT, f"{located.folder / 'config.json'} names no model_type; it can't be loaded"
        )


def describe(located: Located) -> dict[str, Any]:
    """What the files of a model say about it.

    Raises:
        BridgeError: as `weights.inspect` and `task_of`.
    """
    config, weights = located.config(), inspect(located.folder)
    is_adapter = not config and lora.is_adapter(located.folder)
    text = config.get("text_config") if isinstance(config.get("text_config"), dict) else config
    limits = [value for key in POSITION_KEYS if isinstance(value := (text or config).get(key), int)]
    return {
        "model": located.name,
        "folder": str(located.folder),
        "kind": located.kind,
        "revision": located.revision,
        "task": task_of(config, located.folder) if config else None,
        "adapter_of": lora.base_of(located.folder) if is_adapter else None,
        "architectures": list(config.get("architectures") or ()),
        "model_type": config.get("model_type"),
        "parameters": weights.parameters,
        "stored_bytes": weights.stored_bytes,
        "dtypes": list(weights.dtypes),
        "positions": min(limits, default=None),
        "has_chat_template": (located.folder / "chat_template.jinja").is_file()
        or "chat_template" in read_json(located.folder / "tokenizer_config.json"),
        "files": [path.name for path in weights.files],
    }


def longest_input(module: Any, tokenizer: Any, sentences: Mapping[str, Any]) -> int | None:
    """Tokens of the longest input, special ones included; None if neither the model nor its tokenizer says.

    Args:
        module: its config, and its table of positions.
        tokenizer: its `model_max_length`.
        sentences: `sentence_bert_config.json`: what a sentence model was trained for, often less.
    """
    found = [getattr(module.config, key, None) for key in POSITION_KEYS]
    if any(isinstance(value, int) for value in found):
        found = [value - _first_position(module) for value in found if isinstance(value, int)]
    found += [getattr(tokenizer, "model_max_length", None), sentences.get("max_seq_length")]
    limits = [int(value) for value in found if isinstance(value, int | float) and 0 < value < NO_LIMIT]
    return min(limits, default=None)


def _first_position(module: Any) -> int:
    """RoBERTa and its relatives count positions from behind the padding's, so their tables hold fewer tokens."""
    for name, table in module.named_modules():
        if name.endswith("position_embeddings") and getattr(table, "padding_idx", None) is not None:
            return int(table.padding_idx) + 1
    return 0


def _pad_id(module: Any, tokenizer: Any) -> int:
    """What fills up short rows. It is masked, so any token will do where the model has none for it."""
    config = module.config
    candidates = (getattr(config, "pad_token_id", None), tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    found = next(int(value) for value in candidates if value is not None)
    if getattr(config, "pad_token_id", None) is None:
        config.pad_token_id = found  # classifiers look there for the last token of a row
    return found
