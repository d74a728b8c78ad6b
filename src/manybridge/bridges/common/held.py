"""What the runtime tells every resource."""

from __future__ import annotations

from typing import Any


class Held:
    """A resource of a bridge. The runtime sets these, and `bridge`, before `create` is called.

    Attributes:
        id: its id.
        type: its resource type.
        session_id: the session that it belongs to, if any.
        config: its recipe: what `create` was given.
    """

    id: str
    type: str
    session_id: str | None
    config: dict[str, Any]
