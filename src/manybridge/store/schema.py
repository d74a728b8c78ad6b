"""The version of a database's schema: read at each open, and brought up to ours under a lock."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sqlalchemy import Connection, inspect, text

from manybridge import __version__
from manybridge.protocol.errors import ErrorCode
from manybridge.store.failures import Reason, made_error
from manybridge.store.urls import StoreUrl

NEWEST: Final = "0002"
"""The newest step in `migrations/versions`; a test holds the two together. Written here so that opening a database
that is up to date need not import Alembic, which takes a quarter of a second."""

VERSION_TABLE: Final = "manybridge_version"

UPGRADE_LOCK: Final = 0x6D616E79
"""Key of the advisory lock of PostgreSQL that upgrades are made under. Any number that nobody else uses."""


def needs_upgrade(connection: Connection, url: StoreUrl) -> bool:
    """Whether the schema is older than ours, or not there.

    Raises:
        StoreError: `store_incompatible`: it is newer than ours, or the file holds something else.
    """
    found = schema_version(connection)
    if found == NEWEST:
        return False
    if found is not None and found not in _known():
        text = (
            f"its schema is version {found} and this release of manybridge, {__version__}, knows up to {NEWEST}; "
            "upgrade manybridge, or use another store"
        )
        raise made_error(_incompatible("newer_schema", text), url, "open", schema=found, newest_known=NEWEST)
    if found is None and url.kind == "sqlite" and (names := inspect(connection).get_table_names()):
        text = f"it holds other tables ({', '.join(names[:3])}); name a file of its own in store.url"
        raise made_error(_incompatible("foreign", text), url, "open", tables=names[:20])
    return True


def upgrade(connection: Connection, url: StoreUrl, target: str = NEWEST) -> None:
    """Bring the schema up to `target`, in the transaction that is open. Others wait, and then find it done."""
    if connection.dialect.name == "postgresql":  # SQLite's transaction has begun with its one lock
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": UPGRADE_LOCK})
    if schema_version(connection) == target or (target == NEWEST and not needs_upgrade(connection, url)):
        return
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", _escaped(MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, target)


MIGRATIONS: Final = Path(__file__).parent / "migrations"


def schema_version(connection: Connection) -> str | None:
    """Return the number of the schema that is there, or None."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    row = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).first()  # noqa: S608  # our constant
    return None if row is None else str(row[0])


def _known() -> set[str]:
    return {f"{number:04}" for number in range(1, int(NEWEST) + 1)}


def _incompatible(reason: str, text: str) -> Reason:
    return Reason(reason, text, ErrorCode.STORE_INCOMPATIBLE)


def _escaped(folder: Path) -> str:
    return str(folder).replace("%", "%%")  # Alembic reads its options with configparser
