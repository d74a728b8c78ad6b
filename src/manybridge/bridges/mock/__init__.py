"""The `mock` bridge: scripted replies, delays and every way to fail, for tests and first steps. Needs no framework."""

from .bridge import MockBridge

__all__ = ["MockBridge"]
