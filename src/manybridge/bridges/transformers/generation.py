"""Writing text: one operation for every prompt, so that prompts with different settings share a run.

Theory of operation. A run is one call of `generate` with one row for each prompt. Transformers would want the same
settings for all rows; here each row has its own. Its length, stop strings, end and cancel are watched in a stopping
criterion, which sees every token of every row and can end rows one by one. Its temperature and the like, and its seed,
are applied to its row of scores; the random choice is made there too, by adding Gumbel noise from the row's own
generator: taking the largest score is then the same as drawing from the distribution. So a seed gives the same text
whoever shares the run, and the process's random generator is left alone.

A row that is done is answered at once, while the others go on. Rows whose caller has gone are done.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from manybridge.bridge import BridgeError
from manybridge.bridges.transformers.batching import Item
from manybridge.bridges.transformers.errors import blaming
from manybridge.bridges.transformers.framework import import_torch, import_transformers
from manybridge.bridges.transformers.inputs import pad_left, too_long
from manybridge.bridges.transformers.loading import LoadedModel
from manybridge.bridges.transformers.writing import TextWriter
from manybridge.protocol.errors import ErrorCode

DEFAULT_NEW_TOKENS: Final = 128
"""Where neither the caller nor the model says; the framework's own 20 cut most answers."""

OURS: Final = frozenset(
    {
        "max_new_tokens", "max_length", "do_sample", "temperature", "top_k", "top_p", "min_p", "repetition_penalty",
        "stop_strings", "streamer", "stopping_criteria", "logits_processor", "generation_config", "tokenizer", "inputs",
        "input_ids", "attention_mask", "num_return_sequences", "return_dict_in_generate", "pad_token_id",
        "eos_token_id", "custom_generate", "assistant_model", "trust_remote_code", "synced_gpus",
    }
)  # fmt: skip
"""Arguments of `generate` that have a parameter of their own here, or would run somebody's code."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen. `temperature` 0 always takes the likeliest."""

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        _between("temperature", self.temperature, 0, 100)
        _between("top_k", self.top_k, 1, None)
        _between("top_p", self.top_p, 0, 1, above=True)
        _between("min_p", self.min_p, 0, 1)
        _between("repetition_penalty", self.repetition_penalty, 0, None, above=True)
        _between("seed", self.seed, 0, (1 << 63) - 1)


def _between(name: str, value: float | None, low: float, high: float | None, *, above: bool = False) -> None:
    if value is None:
        return
    too_low = value <= low if above else value < low
    if too_low or (high is not None and value > high):
        expected = f"{'above' if above else 'from'} {low}" + ("" if high is None else f" to {high}")
        raise BridgeError(
            ErrorCode.INVALID_ARGUMENT,
            f"{name}: expected a number {expected}, found {value}",
            details={"argument": name},
        )


@dataclass(frozen=True, slots=True)
class Prompt:
    """What one row begins with, and how it goes on. `emit` gets each chunk, on the model's thread."""

    text: str | None = None
    token_ids: tuple[int, ...] | None = None
    is_templated: bool = False
    """The text has the model's special tokens in it already."""
    max_new_tokens: int | None = None
    stop: tuple[str, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    emit: Callable[[dict[str, Any]], object] | None = None
    index: int | None = None
    """Of the prompt in its call, for its chunks; None where there is only one."""


@dataclass(frozen=True)
class Generation:
    """The operation: prompts of one model with the same further arguments of `generate`.

    Args:
        model: loaded.
        arguments: (name, value) for `generate`, values hashable.
    """

    model: LoadedModel
    arguments: tuple[tuple[str, Any], ...] = ()

    def limit(self, max_batch: int) -> int:
        """As many rows as the model takes."""
        return max_batch

    def run(self, items: Sequence[Item]) -> Sequence[Any]:
        """Write an answer for every prompt; see the module's docstring."""
        encoded: list[Any] = [self._encode(item.payload) for item in items]
        rows = [
            Row(self.model, item, ids, budget)
            for item, (ids, budget) in zip(items, encoded, strict=True)
            if not isinstance(ids, BridgeError)
        ]
        if rows:
            self._generate(rows)
        answers = iter([row.answer() for row in rows])
        return [ids if isinstance(ids, BridgeError) else next(answers) for ids, _ in encoded]

    def _encode(self, prompt: Prompt) -> tuple[Any, int]:
        """Token ids and how many more may follow, or the error for this prompt alone."""
        tokenizer = self.model.tokenizer
        if prompt.token_ids is not None:
            ids = list(prompt.token_ids)
        else:
            ids = tokenizer(prompt.text, add_special_tokens=not prompt.is_templated)["input_ids"]
        if not ids:  # a tokenizer without a token for the beginning, and an empty text
            start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
            ids = [self.model.pad_id if start is None else start]
        default = self.model.module.generation_config.max_new_tokens or DEFAULT_NEW_TOKENS
        wanted = prompt.max_new_tokens or default
        limit = self.model.max_tokens
        if limit is None or self.model.config.is_encoder_decoder:
            error = too_long(len(ids), limit, advice="split it") if limit is not None and len(ids) > limit else None
            return error or ids, wanted
        asked = prompt.max_new_tokens or 1
        if len(ids) + asked > limit:
            return too_long(len(ids), limit, asked), 0
        return ids, min(wanted, limit - len(ids))

    def _generate(self, rows: Sequence[Row]) -> None:
        torch, transformers = import_torch(), import_transformers()
        model = self.model
        input_ids, mask = pad_left([row.prompt_ids for row in rows], model.pad_id, model.device)
        beams = int(dict(self.arguments).get("num_beams", 1))
        watch: Any = Watch(rows) if beams == 1 else Leave(rows)
        with blaming("generate"), torch.inference_mode():
            written = model.module.generate(
                inputs=input_ids,
                attention_mask=mask,
                generation_config=self._settings(max(row.budget for row in rows)),
                logits_processor=transformers.LogitsProcessorList([Chooser(rows, beams)]),
                stopping_criteria=transformers.StoppingCriteriaList([watch]),
            )
        if beams > 1:  # beams change their minds until the end
            start = 1 if model.config.is_encoder_decoder else input_ids.shape[1]
            for row, tokens in zip(rows, written[:, start:].tolist(), strict=True):
                row.take_all(tokens)

    def _settings(self, max_new_tokens: int) -> Any:
        """The model's own settings of `generate`, without what each row decides for itself."""
        settings = copy.deepcopy(self.model.module.generation_config)
        unused = settings.update(
            **dict(self.arguments), max_length=None, max_new_tokens=max_new_tokens, do_sample=False, temperature=None,
            top_k=None, top_p=None, min_p=None, repetition_penalty=None, pad_token_id=self.model.pad_id,
        )  # fmt: skip
        if unused:
            raise BridgeError(
                ErrorCode.INVALID_ARGUMENT,
                f"generate_args.{min(unused)}: Transformers knows no such argument of generate",
                details={"argument": f"generate_args.{min(unused)}"},
            )
        return settings


class Row:
    """One prompt and its answer so far. Used on the model's thread alone."""

    def __init__(self, model: LoadedModel, item: Item, prompt_ids: list[int], budget: int) -> None:
        prompt: Prompt = item.payload
        tokenizer = model.tokenizer
        self.item = item
        self.prompt = prompt
        self.prompt_ids = prompt_ids
        self.budget = budget
        self.finish_reason: str | None = None
        self.writer = TextWriter(lambda ids: str(tokenizer.decode(ids, skip_special_tokens=True)), prompt.stop)
        self.ends = end_tokens(model)
        self.sampling = prompt.sampling
        self.seed: int | None = None
        if self.sampling.temperature > 0:
            given = self.sampling.seed
            self.seed = int.from_bytes(os.urandom(4), "big") if given is None else given
        self._generator: Any = None

    @property
    def is_done(self) -> bool:
        """Whether the row needs no further tokens."""
        return self.finish_reason is not None

    def generator(self) -> Any:
        """The row's own source of random numbers. On the CPU, so that a seed means the same on every device."""
        if self._generator is None:
            self._generator = import_torch().Generator().manual_seed(self.seed)
        return self._generator

    def take(self, token_id: int) -> None:
        """Look at the next token of this row."""
        if self.is_done:
            return
        if self.item.cancelled:
            self.finish_reason = "cancelled"
            return
        if token_id in self.ends:
            self._end("stop")
            return
        piece = self.writer.add(token_id)
        self._send(piece, token_id)
        if self.writer.stopped_by is not None:
            self._end("stop")
        elif len(self.writer.token_ids) >= self.budget:
            self._end("length")

    def take_all(self, token_ids: Sequence[int]) -> None:
        """Take an answer that is there as a whole."""
        for token_id in token_ids:
            self.take(token_id)
        if not self.is_done:
            self._end("length")

    def _end(self, reason: str) -> None:
        self.finish_reason = reason
        rest = self.writer.finish()
        if rest:
            self._send(rest, None)
        self.item.finish(self.answer())

    def _send(self, piece: str, token_id: int | None) -> None:
        emit = self.prompt.emit
        if emit is None:
            return
        self.item.is_visible = True
        chunk: dict[str, Any] = {"text": piece, "token_id": token_id}
        if self.prompt.index is not None:
            chunk["index"] = self.prompt.index
        emit(chunk)

    def answer(self) -> dict[str, Any]:
        """Text, tokens, why it ended, usage."""
        written = len(self.writer.token_ids)
        answer: dict[str, Any] = {
            "text": self.writer.text,
            "token_ids": self.writer.token_ids,
            "finish_reason": self.finish_reason or "length",
            "usage": {
                "prompt_tokens": len(self.prompt_ids),
                "completion_tokens": written,
                "total_tokens": len(self.prompt_ids) + written,
            },
        }
        if self.writer.stopped_by is not None:
            answer["stopped_by"] = self.writer.stopped_by
        if self.seed is not None:
            answer["seed"] = self.seed
        return answer


class Watch:
    """A stopping criterion of Transformers that hands every token to its row."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows

    def __call__(self, input_ids: Any, _scores: Any, **_: Any) -> Any:
        """Called by `generate` after each step; true for rows that are done."""
        for row, token_id in zip(self._rows, input_ids[:, -1].tolist(), strict=True):
            row.take(token_id)
        return import_torch().tensor([row.is_done for row in self._rows], device=input_ids.device)


class Leave:
    """A stopping criterion for beams: stops when every caller has gone."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows

    def __call__(self, input_ids: Any, _scores: Any, **_: Any) -> Any:
        """Called by `generate` after each step."""
        left = all(row.item.cancelled for row in self._rows)
        return import_torch().full((input_ids.shape[0],), left, device=input_ids.device)


class Chooser:
    """A logits processor that applies each row's own sampling to its scores; see the module's docstring."""

    def __init__(self, rows: Sequence[Row], beams: int) -> None:
        self._rows = [(number, row, _warpers(row.sampling)) for number, row in enumerate(rows)]
        self._beams = beams

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Called by `generate` before each choice; shapes `(rows * beams, length)` and `(rows * beams, words)`."""
        for number, row, warpers in self._rows:
            if row.is_done or not (warpers or row.seed is not None):
                continue
            part = slice(number * self._beams, (number + 1) * self._beams)
            own = scores[part]
            for warper in warpers:
                own = warper(input_ids[part], own)
            if row.seed is not None:
                own = own + _gumbel(own, row.generator())
            scores[part] = own
        return scores


def _warpers(sampling: Sampling) -> list[Any]:
    transformers = import_transformers()
    found: list[Any] = []
    if sampling.repetition_penalty not in (None, 1.0):
        found.append(transformers.RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
    if sampling.temperature <= 0:
        return found
    if sampling.temperature != 1.0:
        found.append(transformers.TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k is not None:
        found.append(transformers.TopKLogitsWarper(sampling.top_k))
    if sampling.top_p is not None and sampling.top_p < 1:
        found.append(transformers.TopPLogitsWarper(sampling.top_p))
    if sampling.min_p is not None:
        found.append(transformers.MinPLogitsWarper(sampling.min_p))
    return found


def _gumbel(scores: Any, generator: Any) -> Any:
    torch = import_torch()
    noise = torch.empty(scores.shape, dtype=torch.float32).exponential_(generator=generator)
    return -noise.log().to(scores.device)


def end_tokens(model: LoadedModel) -> frozenset[int]:
    """The tokens that end an answer."""
    ends = model.module.generation_config.eos_token_id
    if ends is None:
        ends = model.tokenizer.eos_token_id
    if ends is None:
        return frozenset()
    return frozenset(map(int, ends)) if isinstance(ends, list | tuple) else frozenset({int(ends)})


def sampling_of(model: LoadedModel, do_sample: bool | None, given: Mapping[str, Any]) -> Sampling:
    """The sampling of a call: what it says over what the model's `generation_config.json` says.

    Args:
        model: loaded.
        do_sample: None for: if a temperature, top_k, top_p, min_p or seed is given, or the model samples by default.
        given: the fields of `Sampling` that the caller gave.

    Raises:
        BridgeError: `invalid_argument`, with the name.
    """
    defaults = model.module.generation_config
    said = {name: value for name, value in given.items() if value is not None}
    asks = any(name in said for name in ("top_k", "top_p", "min_p", "seed")) or said.get("temperature", 0) > 0
    sample = do_sample if do_sample is not None else asks or ("temperature" not in said and bool(defaults.do_sample))
    if said.get("temperature") == 0:
        sample = False
    penalty = said.get("repetition_penalty", getattr(defaults, "repetition_penalty", None))
    if not sample:
        Sampling(**said)  # checked all the same
        return Sampling(repetition_penalty=penalty)
    if defaults.do_sample:
        names = ("temperature", "top_k", "top_p", "min_p")
        by_model = {name: value for name in names if (value := getattr(defaults, name, None)) is not None}
        if by_model.get("top_k") == 0:  # the framework's way to say none
            del by_model["top_k"]
        said = {**by_model, **said}
    return Sampling(**{"temperature": 1.0, **said, "repetition_penalty": penalty})


def check_arguments(arguments: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """The further arguments of `generate`, in a form that can be compared.

    Raises:
        BridgeError: `invalid_argument`, one has a parameter of its own, or a value that is no plain one.
    """
    for name, value in arguments.items():
        if name in OURS:
            raise BridgeError(
                ErrorCode.INVALID_ARGUMENT,
                f"generate_args.{name}: can't be given here; see the parameters of execute",
                details={"argument": f"generate_args.{name}"},
            )
        if not isinstance(value, str | int | float | bool | None):
            raise BridgeError(
                ErrorCode.INVALID_ARGUMENT,
                f"generate_args.{name}: expected a string, a number or a boolean",
                details={"argument": f"generate_args.{name}"},
            )
    beams = arguments.get("num_beams", 1)
    if not isinstance(beams, int) or isinstance(beams, bool) or beams < 1:
        raise BridgeError(ErrorCode.INVALID_ARGUMENT, f"generate_args.num_beams: expected 1 or more, found {beams!r}")
    return tuple(sorted(arguments.items()))
