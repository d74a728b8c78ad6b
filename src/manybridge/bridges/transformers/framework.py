"""The one door to PyTorch and Transformers: imported when first needed, quiet, offline, and safe to fork afterwards.

What a zygote may do: import. One tensor operation on several threads before a fork, and every child waits for ever at
its first; so nothing here runs one, and the number of threads is set in `settle`, which runs in the worker itself.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
from typing import Any, Final

ONE_THREAD: Final = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""Read by the libraries when they are loaded; OpenBLAS starts its threads right then, and a zygote with threads can't
fork. A host sets the same; a worker that somebody starts by hand gets it here."""

FIRST_CALL_MODULES: Final = (
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.modeling_utils",
    "transformers.generation.utils",
    "transformers.pipelines",
)
"""What every load or first call imports. Not `transformers.Trainer`: it loads Arrow, which leaves a thread behind."""


def preload() -> None:
    """Import everything that is worth sharing between workers, and run nothing."""
    for name, value in ONE_THREAD.items():
        os.environ.setdefault(name, value)
    import_torch()
    import_transformers()
    for name in FIRST_CALL_MODULES:
        with contextlib.suppress(ImportError):  # only a matter of speed
            importlib.import_module(name)


def settle(threads: int, *, local_files_only: bool) -> None:
    """Make the process ready to compute: threads, network, noise. In the worker, before the first operation."""
    torch = import_torch()
    torch.set_num_threads(threads)
    os.environ.setdefault("RAYON_NUM_THREADS", str(threads))  # of the tokenizers, read when they are first used
    import huggingface_hub.constants

    # Read from the environment when it was imported, perhaps in a zygote, before this worker's options were known.
    huggingface_hub.constants.HF_HUB_OFFLINE = local_files_only
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        os.environ[name] = "1" if local_files_only else "0"
    logging = import_transformers().utils.logging
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    # 300,000 objects of the frameworks that will never go: a collection after an eviction need not look at them.
    gc.freeze()


def import_torch() -> Any:
    """Import PyTorch and return the module.

    Raises:
        ImportError: it is not installed in this environment, or broken.
    """
    import torch

    return torch


def import_transformers() -> Any:
    """Import Transformers and return the module.

    Raises:
        ImportError: it is not installed in this environment, or broken.
    """
    import transformers

    return transformers
