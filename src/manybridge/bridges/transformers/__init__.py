"""The Transformers bridge: models, tokenizers, pipelines, datasets and training runs.

Importing this package imports neither PyTorch nor Transformers. Where to look: `bridge.py` declares everything,
`models.py`, `tokenizing.py` and `pipelines.py` the resource types, `locating.py` and `loading.py` how a name becomes a
loaded model, `cache.py` which ones stay in memory, `batching.py` how concurrent calls share one run of a model,
`generation.py` how text is written; `data.py` and `training.py` the datasets and the fine-tuning.
"""

from __future__ import annotations

from manybridge.bridges.transformers.bridge import TransformersBridge

__all__ = ["TransformersBridge"]
