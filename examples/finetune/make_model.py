"""Makes a small language model that knows nothing yet: a byte-pair tokenizer, and a GPT-2 with random weights.

Runs in the environment of Transformers and needs no network: `python make_model.py FOLDER TEXT...`
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast, set_seed

END = "<|end|>"
POSITIONS = 128
"""Tokens that the model looks at together."""


def make_tokenizer(texts: list[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Learn which pieces the words of the texts are made of."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, bos_token=END, pad_token=END)


def main() -> None:
    """Save tokenizer and model in one folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("texts", type=Path, nargs="+")
    parser.add_argument("--vocabulary", type=int, default=512, help="tokens")
    parser.add_argument("--width", type=int, default=128, help="numbers for each token")
    parser.add_argument("--layers", type=int, default=2)
    given = parser.parse_args()

    tokenizer = make_tokenizer([path.read_text(encoding="utf-8") for path in given.texts], given.vocabulary)
    set_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer), n_positions=POSITIONS, n_embd=given.width, n_layer=given.layers, n_head=4,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )  # fmt: skip
    tokenizer.save_pretrained(given.folder)
    model.save_pretrained(given.folder)
    print(f"{sum(each.numel() for each in model.parameters()):,} parameters, {len(tokenizer):,} tokens")


if __name__ == "__main__":
    main()
