"""What must not be shown: which keys and values of a configuration are secrets, and how they are masked."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any, Final

MASK: Final = "********"
"""One length for every secret, so that the length is not given away either."""

_SECRET_KEY: Final = re.compile("key|token|secret|passw|pwd|credential", re.IGNORECASE)
"""Anywhere in the name: `keyboard` shown as a secret is a smaller harm than `apikey` shown."""
_SECRET_NUMBER_KEY: Final = re.compile("secret|passw|pwd|credential", re.IGNORECASE)
"""A number under `max_tokens` is a count, the most common option of all."""
_URL_PASSWORD: Final = re.compile(r"(?P<before>[a-zA-Z][\w+.-]*://[^/\s:@]*:)\S+(?=@)")

_SHORTEST_VALUE: Final = 4
"""A variable with a shorter value than this ("1", "eu") is no secret, and replacing it everywhere would garble text."""


def is_secret_key(name: str) -> bool:
    """Whether a key of this name holds a secret: `api_key`, `apiKey`, `HF_TOKEN`, `db-password`."""
    return bool(_SECRET_KEY.search(name))


def mask_text(text: str, secrets: Collection[str] = ()) -> str:
    """Return `text` without passwords in URLs and without any of the `secrets`."""
    text = _URL_PASSWORD.sub(rf"\g<before>{MASK}", text)
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _SHORTEST_VALUE:
            text = text.replace(secret, MASK)
    return text


def mask_tree(value: Any, secrets: Collection[str] = (), *, key: str = "") -> Any:
    """Return a copy of a JSON value in which everything secret is masked.

    Args:
        value: any JSON value.
        secrets: texts that are secret wherever they occur.
        key: the key under which `value` lies; a secret key makes everything below it secret.
    """
    if isinstance(value, dict):
        return {
            name: mask_tree(item, secrets, key=key if is_secret_key(key) else str(name)) for name, item in value.items()
        }
    if isinstance(value, list):
        return [mask_tree(item, secrets, key=key) for item in value]
    if isinstance(value, str):
        return MASK if value and is_secret_key(key) else mask_text(value, secrets)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and _SECRET_NUMBER_KEY.search(key):
        return MASK
    return value
