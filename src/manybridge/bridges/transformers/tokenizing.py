"""The resource type `tokenizer`: text to tokens and back, counts, chat templates, the vocabulary."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal

from manybridge.bridges.common.held import Held
from manybridge.bridges.common.problems import invalid
from manybridge.bridges.transformers.errors import blaming
from manybridge.bridges.transformers.inputs import as_list
from manybridge.bridges.transformers.loading import load_tokenizer
from manybridge.bridges.transformers.locating import locate
from manybridge.bridges.transformers.models import Message, chat_text

if TYPE_CHECKING:
    from manybridge.bridges.transformers.bridge import TransformersBridge

Action = Literal["encode", "decode", "count", "tokenize", "chat", "vocabulary"]

TAKES: Final[Mapping[str, frozenset[str]]] = {
    "encode": frozenset({"text", "add_special_tokens", "max_length", "offsets"}),
    "decode": frozenset({"token_ids", "skip_special_tokens"}),
    "count": frozenset({"text", "messages", "add_special_tokens"}),
    "tokenize": frozenset({"text", "add_special_tokens"}),
    "chat": frozenset({"messages", "add_generation_prompt", "tools"}),
    "vocabulary": frozenset({"tokens", "token_ids", "offset", "limit"}),
}
MAX_PAGE: Final = 10_000
"""Entries of the vocabulary in one answer."""


class Tokenizer(Held):
    """A model's tokenizer, without the model."""

    bridge: TransformersBridge

    async def create(self, model: str, revision: str | None = None) -> None:
        """Load a tokenizer.

        Args:
            model: a folder, "package:NAME" of a package that carries a model, or a hub id.
            revision: branch, tag or commit of a hub id.
        """
        options = self.bridge.options
        self.located = await asyncio.to_thread(locate, model, options, revision)
        self.tokenizer = await asyncio.to_thread(load_tokenizer, self.located, options)
        self._lock = threading.Lock()  # what it cuts is a setting of the whole tokenizer

    def execute(
        self,
        action: Action = "encode",
        text: str | list[str] | None = None,
        token_ids: list[int] | list[list[int]] | None = None,
        messages: list[Message] | None = None,
        tokens: list[str] | None = None,
        add_special_tokens: bool = True,
        skip_special_tokens: bool = False,
        add_generation_prompt: bool = True,
        tools: list[dict[str, Any]] | None = None,
        max_length: int | None = None,
        offsets: bool = False,
        offset: int = 0,
        limit: int = 100,
    ) -> dict[str, Any]:
        """Do one thing with text or tokens; lists give lists.

        Args:
            action: encode (text to token_ids), decode (back), count (tokens of text or messages), tokenize (text to
                tokens as strings), chat (messages to the text that the model was trained on), vocabulary.
            text: one text, or a list of them.
            token_ids: one list, or a list of lists; for vocabulary: which entries.
            messages: a conversation.
            tokens: for vocabulary: which entries.
            add_special_tokens: those that the model expects around a text.
            skip_special_tokens: leave them out of the text.
            add_generation_prompt: end the conversation where the model goes on.
            tools: JSON Schemas of functions, for templates that know tools.
            max_length: cut after so many tokens.
            offsets: where each token lies in its text, [begin, end).
            offset: first entry of the vocabulary's page.
            limit: entries of the page.
        """
        given = {"text": text, "token_ids": token_ids, "messages": messages, "tokens": tokens, "tools": tools}
        for name, value in given.items():
            if value is not None and name not in TAKES[action]:
                raise invalid(name, f"does not go with the action {action!r}")
        with self._lock, blaming(action):
            if action == "encode":
                return self._encode(text, add_special_tokens, max_length, offsets=offsets)
            if action == "decode":
                return self._decode(token_ids, skip_special_tokens)
            if action == "count":
                return self._count(text, messages, add_special_tokens)
            if action == "tokenize":
                return self._tokenize(text, add_special_tokens)
            if action == "chat":
                return self._chat(messages, add_generation_prompt, tools)
            return self._vocabulary(tokens, token_ids, offset, limit)

    def _encode(self, text: Any, special: bool, max_length: int | None, *, offsets: bool) -> dict[str, Any]:
        texts, is_one = as_list(text)
        if max_length is not None and max_length < 1:
            raise invalid("max_length", f"expected 1 or more, found {max_length}")
        encoded = self.tokenizer(
            texts,
            add_special_tokens=special,
            truncation=max_length is not None,
            max_length=max_length,
            return_offsets_mapping=offsets,
        )
        ids = encoded["input_ids"]
        result: dict[str, Any] = {"token_ids": ids, "counts": [len(row) for row in ids]}
        if offsets:
            result["offsets"] = [[list(pair) for pair in row] for row in encoded["offset_mapping"]]
        return _only(result, is_one=is_one)

    def _decode(self, token_ids: Any, skip: bool) -> dict[str, Any]:
        if token_ids is None:
            raise invalid("token_ids", "expected a list of token ids, or a list of such lists")
        is_one = not token_ids or isinstance(token_ids[0], int)
        rows = [token_ids] if is_one else token_ids
        size = len(self.tokenizer)
        wrong = [each for row in rows for each in row if not 0 <= each < size]
        if wrong:
            raise invalid("token_ids", f"expected numbers from 0 to {size - 1}, found {wrong[0]}")
        return _only({"text": [self.tokenizer.decode(row, skip_special_tokens=skip) for row in rows]}, is_one=is_one)

    def _count(self, text: Any, messages: Any, special: bool) -> dict[str, Any]:
        if messages is not None:
            ids = self.tokenizer([chat_text(self, messages)], add_special_tokens=False)["input_ids"]
            return {"count": len(ids[0])}
        texts, is_one = as_list(text)
        counts = [len(row) for row in self.tokenizer(texts, add_special_tokens=special)["input_ids"]]
        return {"count": counts[0]} if is_one else {"counts": counts, "total": sum(counts)}

    def _tokenize(self, text: Any, special: bool) -> dict[str, Any]:
        texts, is_one = as_list(text)
        rows = self.tokenizer(texts, add_special_tokens=special)["input_ids"]
        return _only({"tokens": [self.tokenizer.convert_ids_to_tokens(row) for row in rows]}, is_one=is_one)

    def _chat(self, messages: Any, prompt: bool, tools: Any) -> dict[str, Any]:
        if messages is None:
            raise invalid("messages", "expected a list of {role, content}")
        text = chat_text(self, messages, add_generation_prompt=prompt, tools=tools)
        ids = self.tokenizer([text], add_special_tokens=False)["input_ids"][0]
        return {"text": text, "token_ids": ids, "count": len(ids)}

    def _vocabulary(self, tokens: Any, token_ids: Any, offset: int, limit: int) -> dict[str, Any]:
        tokenizer = self.tokenizer
        names = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
        special = {name: value for name in names if (value := getattr(tokenizer, name, None)) is not None}
        found: dict[str, Any] = {"size": len(tokenizer), "special_tokens": special}
        vocabulary: dict[str, int] = tokenizer.get_vocab()
        if tokens is not None:
            found["token_ids"] = [vocabulary.get(token) for token in tokens]
        if token_ids is not None:
            by_id = {number: token for token, number in vocabulary.items()}
            found["tokens"] = [by_id.get(number) for number in token_ids]
        if tokens is None and token_ids is None:
            if offset < 0 or not 0 <= limit <= MAX_PAGE:
                raise invalid("limit", f"expected offset from 0, and limit from 0 to {MAX_PAGE}")
            page = sorted(vocabulary.items(), key=lambda pair: pair[1])[offset : offset + limit]
            found["entries"] = [{"token_id": number, "token": token} for token, number in page]
        return found


def _only(result: dict[str, Any], *, is_one: bool) -> dict[str, Any]:
    """One text in, one answer out; `counts` of one is `count`."""
    if not is_one:
        return result
    return {"count" if name == "counts" else name: value[0] for name, value in result.items()}
