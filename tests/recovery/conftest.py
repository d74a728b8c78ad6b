"""Stores for these tests too."""

from tests.store.conftest import durable_host, postgresql, shared_database, store_config

__all__ = ["durable_host", "postgresql", "shared_database", "store_config"]
