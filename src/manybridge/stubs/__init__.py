"""Typed clients of any bridge, written from what the bridge says about itself.

    manybridge stubs dspy --output dspy_client.py

`module` turns the answer of `common:capabilities` into the text of a Python module; `client` and `async_client` are
what such a module is built on. It is one module with types and code, not a `.pyi` beside a `.py`: what mypy checked is
then what runs, and there is one file to keep up to date.
"""

from __future__ import annotations

from manybridge.stubs.module import Origin, client_module

__all__ = ["Origin", "client_module"]
