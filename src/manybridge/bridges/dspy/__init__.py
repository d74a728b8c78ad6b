"""The DSPy bridge: programs, language models, optimisers, and the 16 commands of DSPEx version 1.

Importing this package does not import DSPy. Where to look: `bridge.py` declares the commands, `programs.py` the
resource type, `lm.py` who pays for which model, `execution.py` how one call runs, `optimize.py` the optimisers, and
`v1.py` the old commands.
"""

from __future__ import annotations

from manybridge.bridges.dspy.bridge import DSPyBridge

__all__ = ["DSPyBridge"]
