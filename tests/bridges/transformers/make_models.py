"""Makes the tiny models of these tests; a script for the interpreter in `.envs/transformers`.

    python make_models.py FOLDER

Random weights from a fixed seed: what they say means nothing, but it is always the same. Beside the models lies
`expected.json`: what the framework by itself makes of one of them. A few seconds, most of it import.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

TEXT = [
    "the quick brown fox jumps over the lazy dog",
    "a bridge from any program to many frameworks",
    "small models are made on the spot, and they know nothing",
    "café, naïve, Straße, 北京, 🦊 and other words that take several bytes",
] * 20

PROMPT = "the quick brown fox"
TEMPERATURE = 0.2

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def byte_tokenizer(size: int) -> Any:
    """A byte-level BPE tokenizer, as GPT-2's, trained on a few lines."""
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(
        TEXT, trainers.BpeTrainer(vocab_size=size, special_tokens=["<|end|>"], initial_alphabet=alphabet)
    )
    made = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|end|>", bos_token="<|end|>")
    made.chat_template = CHAT_TEMPLATE
    return made


def word_tokenizer(size: int) -> Any:
    """A WordPiece tokenizer with the special tokens of BERT."""
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    raw = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.decoder = decoders.WordPiece()
    raw.train_from_iterator(TEXT, trainers.WordPieceTrainer(vocab_size=size, special_tokens=special))
    ends = [("[CLS]", raw.token_to_id("[CLS]")), ("[SEP]", raw.token_to_id("[SEP]"))]
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]",
    )  # fmt: skip


def make(folder: Path) -> None:
    """Write every model into a folder of its own."""
    import torch
    import transformers as t

    torch.set_num_threads(1)
    torch.manual_seed(7)
    text = byte_tokenizer(400)
    small = {"n_embd": 32, "n_layer": 2, "n_head": 2}
    ends = {"bos_token_id": text.eos_token_id, "eos_token_id": text.eos_token_id}
    writers = {
        "gpt2": t.GPT2Config(vocab_size=len(text), n_positions=128, **small, **ends),
        # Long enough to be cancelled in the middle.
        "gpt2-long": t.GPT2Config(vocab_size=len(text), n_positions=4096, **small, **ends),
        # One wide layer: a text of 1,000 tokens takes 260 MB while it is read, one of 100 takes 26.
        "gpt2-thick": t.GPT2Config(
            vocab_size=len(text), n_positions=1024, n_embd=32, n_layer=1, n_head=2, n_inner=65_536, **ends
        ),
        # 40 MB: its arrival and its departure show in the memory of a process.
        "gpt2-wide": t.GPT2Config(vocab_size=len(text), n_positions=64, n_embd=512, n_layer=3, n_head=2, **ends),
    }
    for name, config in writers.items():
        _save(folder / name, t.GPT2LMHeadModel(config), text)

    words = word_tokenizer(300)
    small = {"vocab_size": len(words), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
             "intermediate_size": 64, "max_position_embeddings": 64, "pad_token_id": words.pad_token_id}  # fmt: skip
    labels = ["contradiction", "neutral", "entailment"]
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: n for n, label in enumerate(labels)}}
    _save(folder / "classifier", t.BertForSequenceClassification(t.BertConfig(**small, **names)), words)
    _save(folder / "tagger", t.BertForTokenClassification(t.BertConfig(**small, **names)), words)
    _save(folder / "masked", t.BertForMaskedLM(t.BertConfig(**small)), words)
    _save(folder / "translator", t.T5ForConditionalGeneration(
        t.T5Config(vocab_size=len(words), d_model=32, d_ff=64, d_kv=16, num_layers=2, num_heads=2,
                   pad_token_id=words.pad_token_id, eos_token_id=words.sep_token_id,
                   decoder_start_token_id=words.pad_token_id)
    ), words)  # fmt: skip

    expect(folder)


def expect(folder: Path) -> None:
    """Write down what `gpt2` goes on with, always taking the likeliest token, and how likely the first ones are."""
    import torch
    import transformers as t

    tokenizer = t.AutoTokenizer.from_pretrained(folder / "gpt2")
    model = t.AutoModelForCausalLM.from_pretrained(folder / "gpt2")
    ids = tokenizer(PROMPT, return_tensors="pt")
    with torch.inference_mode():
        written = model.generate(**ids, max_new_tokens=12, do_sample=False, pad_token_id=0)
        scores = t.TopKLogitsWarper(4)(None, model(**ids).logits[:, -1] / TEMPERATURE)[0]
    shares = {number: share for number, share in enumerate(scores.softmax(-1).tolist()) if share > 0}
    greedy = written[0, ids["input_ids"].shape[1] :].tolist()
    (folder / "expected.json").write_text(json.dumps({"greedy": greedy, "shares": shares}))


def _save(folder: Path, model: Any, tokenizer: Any) -> None:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
