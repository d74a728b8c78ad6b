"""Environments of bridges: locked, built once by uv, checked before any Python starts in them, scanned, collected.

Host side. Nothing here runs while calls are served: a host only finds an environment and checks it by reading files
(`check.py`); the rest is what `manybridge env` does.
"""
