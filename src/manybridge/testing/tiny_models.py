"""Tiny models for tests of programs that use Transformers, written without PyTorch or any other package.

They have the files that a model from a hub has, and a few thousand random weights from a fixed seed: what they say
means nothing, but it is always the same. Any text fits them, as one reads bytes and the other letters.
"""

from __future__ import annotations

import json
import random
import sys
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

WRITER: Final = "tiny-writer"
"""A GPT-2 that goes on with a text (task `causal-lm`)."""
CLASSIFIER: Final = "tiny-classifier"
"""A BERT that says `negative` or `positive`; as task `embedding` it gives vectors of 16 numbers."""

SEED: Final = 7
WIDTH: Final = 16
HEADS: Final = 2
POSITIONS: Final = 128
"""Tokens that fit: a test's sentence and its continuation."""
SPREAD: Final = 0.2
"""Of the random weights: wide enough that two texts do not get the same answer."""

END: Final = "<|end|>"
SPECIAL: Final = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LABELS: Final = ("negative", "positive")
CHAT_TEMPLATE: Final = (
    "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)

Shapes = dict[str, tuple[int, ...]]


def write_tiny_models(folder: Path) -> Path:
    """Write the models into `tiny-writer` and `tiny-classifier` of a folder, and return the folder."""
    _write_writer(folder / WRITER)
    _write_classifier(folder / CLASSIFIER)
    return folder


# ---------------------------------------------------------------- a GPT-2 that reads bytes


def _write_writer(folder: Path) -> None:
    vocabulary = {END: 0, **{letter: number for number, letter in enumerate(_byte_letters(), 1)}}
    config = {
        "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "vocab_size": len(vocabulary),
        "n_positions": POSITIONS, "n_embd": WIDTH, "n_layer": 1, "n_head": HEADS,
        "bos_token_id": 0, "eos_token_id": 0,
    }  # fmt: skip
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    tokenizer = _tokenizer(
        {0: END},
        pre_tokenizer=byte_level,
        decoder=byte_level,
        model={"type": "BPE", "vocab": vocabulary, "merges": [], "unk_token": None, "byte_fallback": False},
    )
    names = {"bos_token": END, "eos_token": END, "chat_template": CHAT_TEMPLATE}
    _write(folder, config, tokenizer, names, _gpt2_shapes(len(vocabulary)))


def _byte_letters() -> list[str]:
    """The letter that stands for each byte in byte-level tokenizers: itself where it can be seen, else one above."""
    seen = {*range(33, 127), *range(161, 173), *range(174, 256)}
    hidden = iter(range(256, 512))
    return [chr(byte) if byte in seen else chr(next(hidden)) for byte in range(256)]


def _gpt2_shapes(size: int) -> Shapes:
    layer: Shapes = {
        "ln_1.weight": (WIDTH,), "ln_1.bias": (WIDTH,), "ln_2.weight": (WIDTH,), "ln_2.bias": (WIDTH,),
        "attn.c_attn.weight": (WIDTH, 3 * WIDTH), "attn.c_attn.bias": (3 * WIDTH,),
        "attn.c_proj.weight": (WIDTH, WIDTH), "attn.c_proj.bias": (WIDTH,),
        "mlp.c_fc.weight": (WIDTH, 4 * WIDTH), "mlp.c_fc.bias": (4 * WIDTH,),
        "mlp.c_proj.weight": (4 * WIDTH, WIDTH), "mlp.c_proj.bias": (WIDTH,),
    }  # fmt: skip
    return {
        "transformer.wte.weight": (size, WIDTH), "transformer.wpe.weight": (POSITIONS, WIDTH),
        **{f"transformer.h.0.{name}": shape for name, shape in layer.items()},
        "transformer.ln_f.weight": (WIDTH,), "transformer.ln_f.bias": (WIDTH,),
    }  # fmt: skip


# ---------------------------------------------------------------- a BERT that reads letters


def _write_classifier(folder: Path) -> None:
    letters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    pieces = [*SPECIAL, *letters, *(f"##{letter}" for letter in letters)]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    config = {
        "architectures": ["BertForSequenceClassification"], "model_type": "bert", "vocab_size": len(vocabulary),
        "hidden_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": HEADS, "intermediate_size": 4 * WIDTH,
        "max_position_embeddings": POSITIONS, "type_vocab_size": 2, "pad_token_id": 0,
        "id2label": {str(number): label for number, label in enumerate(LABELS)},
        "label2id": {label: number for number, label in enumerate(LABELS)},
    }  # fmt: skip
    tokenizer = _tokenizer(
        dict(enumerate(SPECIAL)),
        normalizer={
            "type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None,
            "lowercase": True,
        },
        pre_tokenizer={"type": "BertPreTokenizer"},
        post_processor={"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
        decoder={"type": "WordPiece", "prefix": "##", "cleanup": True},
        model={
            "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocabulary,
        },
    )  # fmt: skip
    names = {f"{piece.strip('[]').lower()}_token": piece for piece in SPECIAL}
    _write(folder, config, tokenizer, names, _bert_shapes(len(vocabulary)))


def _bert_shapes(size: int) -> Shapes:
    def linear(name: str, outputs: int, inputs: int) -> Shapes:
        return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}

    def norm(name: str) -> Shapes:
        return {f"{name}.weight": (WIDTH,), f"{name}.bias": (WIDTH,)}

    layer = "bert.encoder.layer.0"
    return {
        "bert.embeddings.word_embeddings.weight": (size, WIDTH),
        "bert.embeddings.position_embeddings.weight": (POSITIONS, WIDTH),
        "bert.embeddings.token_type_embeddings.weight": (2, WIDTH),
        **norm("bert.embeddings.LayerNorm"),
        **linear(f"{layer}.attention.self.query", WIDTH, WIDTH),
        **linear(f"{layer}.attention.self.key", WIDTH, WIDTH),
        **linear(f"{layer}.attention.self.value", WIDTH, WIDTH),
        **linear(f"{layer}.attention.output.dense", WIDTH, WIDTH),
        **norm(f"{layer}.attention.output.LayerNorm"),
        **linear(f"{layer}.intermediate.dense", 4 * WIDTH, WIDTH),
        **linear(f"{layer}.output.dense", WIDTH, 4 * WIDTH),
        **norm(f"{layer}.output.LayerNorm"),
        **linear("bert.pooler.dense", WIDTH, WIDTH),
        **linear("classifier", len(LABELS), WIDTH),
    }


# ---------------------------------------------------------------- files


def _tokenizer(special: Mapping[int, str], **parts: Any) -> dict[str, Any]:
    """A `tokenizer.json`, as the package `tokenizers` writes it."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = [{"id": number, "content": text, **flags} for number, text in special.items()]
    empty = dict.fromkeys(("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder"))
    return {"version": "1.0", **empty, "added_tokens": added, **parts}


def _write(
    folder: Path, config: dict[str, Any], tokenizer: dict[str, Any], names: dict[str, str], shapes: Shapes
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = {"tokenizer_class": "PreTrainedTokenizerFast", **names}
    for name, content in {
        "config.json": config,
        "tokenizer.json": tokenizer,
        "tokenizer_config.json": {"model_max_length": POSITIONS, **names},
    }.items():
        (folder / name).write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
    (folder / "model.safetensors").write_bytes(_weights(shapes))


def _weights(shapes: Shapes) -> bytes:
    """A file of the safetensors format: the length of a header, the header, and the numbers behind one another."""
    source = random.Random(SEED)  # noqa: S311  # weights, not secrets
    numbers = array("f")
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    for name, shape in shapes.items():
        begin = len(numbers)
        numbers.extend(_tensor(name, shape, source))
        offsets = [begin * numbers.itemsize, len(numbers) * numbers.itemsize]
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": offsets}
    if sys.byteorder == "big":
        numbers.byteswap()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + numbers.tobytes()


def _tensor(name: str, shape: tuple[int, ...], source: random.Random) -> list[float]:
    """What a new model has: ones where a norm scales, zeros where something is added, else random numbers."""
    count = 1
    for length in shape:
        count *= length
    if len(shape) == 1:
        return [0.0 if name.endswith(".bias") else 1.0] * count
    return [source.gauss(0.0, SPREAD) for _ in range(count)]
