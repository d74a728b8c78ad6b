"""The `python` bridge: a team's own code and allowed modules, called by name, with live objects held by reference."""

from .bridge import PythonBridge

__all__ = ["PythonBridge"]
