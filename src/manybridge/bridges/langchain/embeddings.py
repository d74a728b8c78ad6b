"""Embeddings by `provider:model`, without the downloads that LangChain's defaults begin with."""

from __future__ import annotations

from typing import Any, Final

from manybridge.bridge import BridgeError
from manybridge.bridges.common.problems import invalid
from manybridge.bridges.langchain.errors import UnreadableAnswerError
from manybridge.bridges.langchain.models import Models, ModelSettings
from manybridge.bridges.langchain.providers import missing_package
from manybridge.protocol.errors import ErrorCode

MAX_TEXTS: Final = 2048
"""Of one call: what OpenAI takes in one request."""


MAX_MODELS: Final = 8
"""Embedding models kept open at the same time."""


class Embedders:
    """Owner of the open embedding models. They share key and address with the chat model of the same provider.

    Args:
        models: whose settings they use.
        default: `provider:model`, or None.
    """

    def __init__(self, models: Models, default: str | None) -> None:
        self._models = models
        self._default = default
        self._open: dict[tuple[str, ModelSettings | None], Any] = {}

    async def embed(self, texts: list[str], model: str | None, session_id: str | None) -> dict[str, Any]:
        """Turn texts into vectors.

        Raises:
            BridgeError: `config_error` without a model, `invalid_argument`, `missing_package`.
        """
        name = model or self._default
        if name is None:
            raise BridgeError(
                ErrorCode.CONFIG_ERROR,
                'No embedding model is configured. Set options = { embedding_model = "provider:model" } or name one.',
            )
        if not texts or len(texts) > MAX_TEXTS:
            raise invalid("texts", f"expected 1 to {MAX_TEXTS} texts, found {len(texts)}")
        model_of_texts = self._find(name, session_id)
        try:
            vectors = await model_of_texts.aembed_documents(texts)
            dimensions = {len(vector) for vector in vectors}
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise UnreadableAnswerError from error  # texts and settings were fine; what came back was not
        if len(vectors) != len(texts) or len(dimensions) != 1:
            raise UnreadableAnswerError(f"{len(vectors)} vectors for {len(texts)} texts, of {len(dimensions)} lengths")
        return {"embeddings": vectors, "dimensions": dimensions.pop(), "model": name}

    def _find(self, name: str, session_id: str | None) -> Any:
        settings = self._settings(name, session_id)
        key = (name, settings)
        if key not in self._open:
            if len(self._open) >= MAX_MODELS:
                self._open.pop(next(iter(self._open)))  # the oldest
            self._open[key] = self._make(name, settings)
        return self._open[key]

    def _settings(self, name: str, session_id: str | None) -> ModelSettings | None:
        """The chat model's settings, if it is of the same provider."""
        try:
            found = self._models.settings_for(session_id)
        except BridgeError:
            return None
        return found if found.provider == name.partition(":")[0] else None

    def _make(self, name: str, settings: ModelSettings | None) -> Any:
        from langchain.embeddings import init_embeddings

        given: dict[str, Any] = {}
        if settings is not None:
            given = {
                "api_key": self._models.key_of(settings),
                "base_url": settings.base_url,
                "timeout": settings.timeout,
            }
        given = {key: value for key, value in given.items() if value is not None}
        if name.startswith("openai:"):
            # Otherwise it downloads a table of tokens first, and where it can't it hangs for minutes.
            given.update(check_embedding_ctx_length=False, max_retries=0)
        try:
            return init_embeddings(name, **given)
        except ImportError as error:
            raise missing_package(error, name) from error
        except (ValueError, TypeError) as error:
            raise invalid("model", str(error).splitlines()[0]) from error
