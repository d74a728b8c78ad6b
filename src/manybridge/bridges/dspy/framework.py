"""The one door to DSPy: imported when first needed, with its network habits switched off before."""

from __future__ import annotations

import importlib.util
import os
from functools import cache
from typing import Any

# Importing litellm, which DSPy does for some providers, fetches a price list and leaves a retry thread behind when
# it can't. The copy in the package serves, costs no seconds offline, and a zygote may fork.
LOCAL_COST_MAP = "LITELLM_LOCAL_MODEL_COST_MAP"


def dspy_is_installed() -> bool:
    """Whether `import dspy` can be expected to work, found out without importing it (about a millisecond)."""
    return _is_importable("dspy")


def gemini_is_installed() -> bool:
    """Whether Google's old Gemini package, which version 1's Gemini programs need, is there."""
    return _is_importable("google.generativeai")


@cache
def _is_importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # no parent package; or a half-made module in sys.modules
        return False


def import_dspy() -> Any:
    """Import DSPy and return the module.

    Raises:
        ImportError: DSPy is not installed in this environment, or broken.
    """
    os.environ.setdefault(LOCAL_COST_MAP, "True")
    import dspy

    return dspy
