"""A PostgreSQL server for these tests too."""

from tests.store.conftest import postgresql

__all__ = ["postgresql"]
